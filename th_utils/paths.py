"""Where things lie: the data read, the caches kept, the results written.

Every path the package touches is made here, so that a checkout, an installed wheel and a hosted
notebook differ in this module only.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from th_utils.errors import CompanionError

PACKAGE_DIR = Path(__file__).resolve().parent


def checkout_root() -> Path | None:
    """The repository this package runs from, or None when it was installed from a wheel."""
    root = PACKAGE_DIR.parent
    return root if (root / "pyproject.toml").is_file() and (root / "data").is_dir() else None


def data_path(*parts: str) -> Path:
    """The path of a file of the project's `data/`; with no argument, that folder itself.

    A wheel carries `data/` inside the package, as `th_utils/_data/`. Callers name the file by
    string literals: the build reads them to learn which data a module depends on.
    """
    root = checkout_root()
    folder = PACKAGE_DIR / "_data" if root is None else root / "data"
    return folder.joinpath(*parts)


def cache_dir() -> Path:
    """Folder for what is costly to make again: converted models and measurements.

    `$TALKING_HEADS_CACHE`, else `$XDG_CACHE_HOME/talking-heads`, else `~/.cache/talking-heads`.
    The folder is made when it is first asked for.

    Raises:
        CompanionError: the folder cannot be made.
    """
    named = os.environ.get("TALKING_HEADS_CACHE")
    if named:
        folder = Path(named)
    else:
        base = os.environ.get("XDG_CACHE_HOME")
        folder = (Path(base) if base else Path.home() / ".cache") / "talking-heads"
    return _made(folder, "set TALKING_HEADS_CACHE to a folder that can be written")


def output_dir() -> Path:
    """Folder for results and figures.

    `$TH_OUTPUT` (set by the build), else `_build/interactive` of a checkout, else
    `talking-heads-output` in the working directory.

    Raises:
        CompanionError: the folder cannot be made.
    """
    named = os.environ.get("TH_OUTPUT")
    root = checkout_root()
    if named:
        folder = Path(named)
    elif root is not None:
        folder = root / "_build" / "interactive"
    else:
        folder = Path("talking-heads-output")
    return _made(folder, "set TH_OUTPUT to a folder that can be written")


def edition_folder(edition: str) -> str:
    """An edition's name as a folder name: it may be a hub name or a local directory.

    >>> edition_folder("gpt2"), edition_folder("EleutherAI/pythia-160m")
    ('gpt2', 'EleutherAI-pythia-160m')
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", edition).strip("-.")


def _made(folder: Path, remedy: str) -> Path:
    folder = folder.expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise CompanionError(f"cannot make the folder {folder} ({reason}): {remedy}") from error
    return folder


def atomic_write(path: str | os.PathLike[str], content: bytes | str) -> Path:
    """Write `content` so that `path` is at every moment absent, the old file or the new one.

    The bytes go to a temporary name in the same folder (a rename is atomic only within one file
    system), are flushed to the disk and then take the name. Text is written as UTF-8 with the
    line ends it has. Parent folders are made.

    Raises:
        CompanionError: the file cannot be written, for example because the disk is full.
    """
    target = Path(path)
    raw = content.encode("utf-8") if isinstance(content, str) else content
    temporary: str | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with os.fdopen(handle, "wb") as stream:
            stream.write(raw)
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes files private; ours are for everyone whom the umask lets in.
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
        temporary = None
    except OSError as error:
        reason = error.strerror or error
        raise CompanionError(
            f"cannot write {target} ({reason}): make room or choose another folder"
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
    return target


def _umask() -> int:
    # The mask can only be read by setting it.
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def file_lock(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Hold an exclusive lock on `path` for as long as the block runs; waits for other holders.

    The lock belongs to the open file, so the kernel releases it when its holder dies, however it
    dies. The lock file itself stays: removing it would let two processes lock different files of
    the same name. Not re-entrant. Where `fcntl` does not exist (Windows), nothing is locked.
    """
    try:
        import fcntl
    except ImportError:
        fcntl = None
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "a+b") as stream:
        if fcntl is not None:
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield target
