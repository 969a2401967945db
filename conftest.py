"""Settings for the whole test run, notebooks included.

No import of the package here: its annotations are checked only where it is imported after pytest
has been configured.
"""

from __future__ import annotations

import os
import shutil
import tempfile

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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group the tests for the workers.

    The pretrained model takes 2.6 GB while it loads. So all tests that load it run in one worker,
    and all notebooks, whose kernels load it too, one after another. Other tests stay together by
    file, so that a fixture of a module is made once.
    """
    for item in items:
        if item.get_closest_marker("xdist_group"):
            continue
        if item.path.suffix == ".ipynb":
            group = "notebooks"
        elif item.get_closest_marker("model"):
            group = "model"
        else:
            group = str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
