"""Where things lie, and that files are whole or absent."""

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from th_utils import paths
from th_utils.build.layout import Layout
from th_utils.errors import CompanionError

ROOT = Path(__file__).resolve().parents[1]


def test_data_of_a_checkout():
    assert paths.checkout_root() == ROOT
    assert paths.data_path("claims.yml") == ROOT / "data" / "claims.yml"
    assert paths.data_path("a", "b.yml") == ROOT / "data" / "a" / "b.yml"
    assert paths.data_path("claims.yml").is_file()


def test_data_of_a_wheel(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "PACKAGE_DIR", tmp_path / "th_utils")
    assert paths.checkout_root() is None
    assert paths.data_path("a", "b.yml") == tmp_path / "th_utils" / "_data" / "a" / "b.yml"


def test_cache_dir(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TALKING_HEADS_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert paths.cache_dir() == tmp_path / "home" / ".cache" / "talking-heads"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert paths.cache_dir() == tmp_path / "xdg" / "talking-heads"
    monkeypatch.setenv("TALKING_HEADS_CACHE", str(tmp_path / "own"))
    assert paths.cache_dir() == tmp_path / "own"
    assert (tmp_path / "own").is_dir()


def test_output_dir(monkeypatch, tmp_path):
    monkeypatch.setenv("TH_OUTPUT", str(tmp_path / "out"))
    assert paths.output_dir() == tmp_path / "out"
    monkeypatch.delenv("TH_OUTPUT")
    monkeypatch.setattr(paths, "PACKAGE_DIR", tmp_path / "th_utils")
    monkeypatch.chdir(tmp_path)
    assert paths.output_dir() == tmp_path / "talking-heads-output"
    (tmp_path / "data").mkdir()
    (tmp_path / "pyproject.toml").touch()
    assert paths.output_dir() == tmp_path / "_build" / "interactive"


def test_a_folder_that_cannot_be_made_is_one_line(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TALKING_HEADS_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(CompanionError, match="set TALKING_HEADS_CACHE to a folder"):
        paths.cache_dir()


@pytest.mark.parametrize(
    "edition", ["smollm2-135m-instruct-q4", "EleutherAI/pythia-160m", "/a b/models/x.y", "./m"]
)
def test_the_build_looks_where_chapters_write(edition):
    folder = paths.edition_folder(edition)
    assert folder == Layout(ROOT, edition).folder
    assert "/" not in folder and not folder.startswith(".")


def test_atomic_write(tmp_path):
    path = tmp_path / "new" / "a.txt"
    assert paths.atomic_write(path, "zwölf\r\n") == path
    assert path.read_bytes() == "zwölf\r\n".encode()
    paths.atomic_write(path, b"\x00\x01")
    assert path.read_bytes() == b"\x00\x01"
    assert list(path.parent.iterdir()) == [path]


def test_atomic_write_keeps_to_the_umask(tmp_path):
    mask = os.umask(0o027)
    try:
        path = paths.atomic_write(tmp_path / "a", "x")
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_failed_write_leaves_the_old_file_and_nothing_else(monkeypatch, tmp_path):
    path = paths.atomic_write(tmp_path / "a", "old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CompanionError, match="No space left on device.*make room"):
        paths.atomic_write(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


HOLDER = """
import sys, time
from th_utils.paths import file_lock
with file_lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_file_lock_excludes_and_dies_with_its_holder(tmp_path):
    lock = tmp_path / "deep" / "lock"
    search = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": search},
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        waiter = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(lock)],
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": search},
        )
        try:
            os.set_blocking(waiter.stdout.fileno(), False)
            time.sleep(1.5)
            assert waiter.stdout.read() in (None, b""), "the lock was given out twice"
            holder.kill()
            holder.wait()
            os.set_blocking(waiter.stdout.fileno(), True)
            assert waiter.stdout.readline() == b"held\n"
        finally:
            waiter.kill()
            waiter.wait()
            waiter.stdout.close()
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
