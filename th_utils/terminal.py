"""What is said to the person at the terminal, and silence everywhere else.

Streams of a notebook's kernel end up in a cell's output, which must be the same from run to run;
so nothing is said there, and the libraries underneath are kept quiet.
"""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr

# tqdm says this on its first import in a kernel without ipywidgets, whoever imports it: into the
# output of the cell that happens to load the first model.
warnings.filterwarnings("ignore", message="IProgress not found")


def in_kernel() -> bool:
    """Whether this process is a notebook's kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return hasattr(shell, "kernel")


def tell(message: str) -> None:
    """Say something on the terminal; in a notebook's kernel, nothing."""
    if not in_kernel():
        print(message, file=sys.stderr, flush=True)


@contextmanager
def quiet(bars: bool = False) -> Iterator[None]:
    """Silence logs, warnings and, unless `bars`, progress bars of the Hugging Face libraries.

    For the time of the block; afterwards their settings are what they were.
    """
    from huggingface_hub import utils as hub
    from transformers.utils import logging as transformers_log

    loggers = [logging.getLogger(), logging.getLogger("huggingface_hub")]
    levels = [logger.level for logger in loggers]
    verbosity = transformers_log.get_verbosity()
    had_bars = transformers_log.is_progress_bar_enabled()
    had_hub_bars = not hub.are_progress_bars_disabled()
    for logger in loggers:  # TransformerLens logs to the root logger
        logger.setLevel(logging.ERROR)
    transformers_log.set_verbosity_error()
    if not bars:
        transformers_log.disable_progress_bar()
        hub.disable_progress_bars()
    try:
        with ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            if not bars:  # some bars are plain tqdm, which asks no setting
                stack.enter_context(redirect_stderr(io.StringIO()))
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        transformers_log.set_verbosity(verbosity)
        if had_bars and not bars:
            transformers_log.enable_progress_bar()
        if had_hub_bars and not bars:
            hub.enable_progress_bars()
