"""Settings for the whole test run, notebooks included.

No import of the package here: its annotations are checked only where it is imported after pytest
has been configured.
"""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from pathlib import Path

import pytest

OUTPUT = "TH_OUTPUT"


def pytest_configure(config: pytest.Config) -> None:
    """Keep what chapters write while they are tested out of the checkout.

    Set before any worker or kernel starts, so that all of them inherit it.
    """
    if OUTPUT not in os.environ:
        os.environ[OUTPUT] = tempfile.mkdtemp(prefix="talking-heads-tests-")
        config.add_cleanup(_remove_output)


def _remove_output() -> None:
    shutil.rmtree(os.environ.pop(OUTPUT), ignore_errors=True)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """Share the tests out to the workers so that the pretrained model fits into memory.

    It takes 2.6 GB while it loads. So all files with tests marked `model` go to one worker, and all
    notebooks, whose kernels load it too, go to one worker, one after another. Every other file is a
    group of its own, so that a fixture of a module is made once. (The `xdist_group` marks of
    `--dist loadgroup` have no effect under pytest 9: it reads a test's name elsewhere.)
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if "ipynb::" in nodeid:
                return "notebooks"
            file = nodeid.split("::")[0]
            return "model" if _uses_model(config.rootpath / file) else file

    return Scheduler(config, log)


@functools.cache
def _uses_model(path: Path) -> bool:
    return path.is_file() and "mark.model" in path.read_text(encoding="utf-8")
