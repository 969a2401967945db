"""The package as others install it: from a wheel, with its data inside, outside a checkout."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from th_utils.build.layout import find_root
from th_utils.digest import closure_of_module, digest

ROOT = find_root()
MODULE = "th_utils.models"  # a module with data in its closure
LOOK = f"""
from th_utils.paths import checkout_root, data_path, output_dir
from th_utils.digest import closure_of_module, digest
print(checkout_root(), data_path("models.yml").is_file(), output_dir().name)
print(digest(closure_of_module("{MODULE}")))
"""


@pytest.mark.slow
def test_an_installed_wheel_finds_its_data(tmp_path):
    pip = [sys.executable, "-m", "pip", "--quiet"]
    quiet = dict(check=True, capture_output=True, text=True)
    make = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, ROOT]
    subprocess.run(make, **quiet)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", tmp_path / "lib", wheel], **quiet)
    environment = {key: value for key, value in os.environ.items() if key != "TH_OUTPUT"}
    environment["PYTHONPATH"] = str(tmp_path / "lib")
    environment["TALKING_HEADS_CACHE"] = str(tmp_path / "cache")
    done = subprocess.run(
        [sys.executable, "-c", LOOK], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "None True talking-heads-output",
        digest(closure_of_module(MODULE)),  # the same sources, so the same results
    ]
    assert not (tmp_path / "lib" / "conftest.py").exists()
    for name in ("py.typed", "talking_heads.mplstyle"):
        assert (tmp_path / "lib" / "th_utils" / name).is_file()
