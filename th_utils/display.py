"""What ends up in a cell's output, and what must not."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import Any

from th_utils.terminal import in_kernel

NOISY = ("torch", "transformers", "transformer_lens", "huggingface_hub", "tqdm", "th_utils")


def show(data: dict[str, str], text: str, metadata: dict[str, Any]) -> None:
    """Display an output in a notebook; where there is none, print its text."""
    if not in_kernel():
        print(text)
        return
    from IPython.display import display

    display(data, raw=True, metadata=metadata)


def silence() -> None:
    """Keep warnings, logs and progress bars of the libraries out of cell outputs.

    Environment variables serve the libraries that are not imported yet, calls the others. Warnings
    about the reader's own code are left alone.
    """
    warnings.filterwarnings("ignore", module=rf"(?:{'|'.join(NOISY)})(?:\.|$)")
    os.environ |= {
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    if "transformers" in sys.modules:
        from transformers.utils import logging as transformers_log

        transformers_log.set_verbosity_error()
        transformers_log.disable_progress_bar()
    if "huggingface_hub" in sys.modules:
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()
