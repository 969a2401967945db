"""Each chapter as a stranger runs it: the notebook's file alone, and the package from a wheel.

A wheel is built from the checkout and installed into a new environment, with a home folder that
nobody has used. Each chapter is copied into an empty folder and executed there by papermill, at
size quick. What it writes is watched: its own folder and the user's cache are the only places
allowed. Last, the package is removed again and a chapter's setup cell run by itself: it installs
the package from the repository's address, for which git is told to take this checkout.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat

from th_utils.build import notebooks, watch
from th_utils.build.layout import Layout
from th_utils.build.pin import pinned
from th_utils.build.repository import address
from th_utils.errors import CompanionError
from th_utils.setup import PROJECT

TIMEOUT_S = 1800
# What a chapter may learn from outside: how to reach a package index, and nothing of ours.
PASSED_ON = ("LANG", "LC_ALL", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
MATPLOTLIB = ".config/matplotlib"  # an empty folder that it makes when it is imported
PREFIXES = ("PIP_", "HTTP_", "HTTPS_", "NO_PROXY", "http_", "https_", "no_proxy")


@dataclass(frozen=True)
class Place:
    """An environment under test: its Python, and a folder for its home and all else it needs."""

    python: Path
    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def log(self) -> Path:
        """What the chapter's processes wrote, one path a line."""
        return self.folder / "writes.log"

    def variables(self) -> dict[str, str]:
        """The environment variables of a user who has never heard of this project."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if name in PASSED_ON or name.startswith(PREFIXES)
        }
        own = Path.home() / ".config" / "pip" / "pip.conf"
        if own.is_file():  # the new home would have no way to the index
            kept.setdefault("PIP_CONFIG_FILE", str(own))
        folders = {
            "HOME": "home",
            "TMPDIR": "tmp",
            "IPYTHONDIR": "ipython",
            "JUPYTER_PATH": "jupyter",
            "JUPYTER_RUNTIME_DIR": "runtime",
        }
        for folder in folders.values():
            (self.folder / folder).mkdir(parents=True, exist_ok=True)
        search = os.pathsep.join([str(self.python.parent), "/usr/local/bin", "/usr/bin", "/bin"])
        threads = os.environ.get("OMP_NUM_THREADS", "1")
        kept |= {"PATH": search, "OMP_NUM_THREADS": threads}
        return kept | {name: str(self.folder / f) for name, f in folders.items()}

    def write_kernel(self) -> None:
        """A `python3` kernel that runs this Python and notes what it writes."""
        watcher, spec = self.folder / "watch", self.folder / "jupyter" / "kernels" / "python3"
        for folder in (watcher, spec):
            folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(watch.__file__, watcher / "sitecustomize.py")
        argv = [str(self.python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        kernel = {
            "argv": [*argv, "--log-level=CRITICAL"],
            "display_name": "Python 3",
            "language": "python",
            "env": {"PYTHONPATH": str(watcher), "TH_WRITES": str(self.log)},
        }
        (spec / "kernel.json").write_text(json.dumps(kernel))


def new_place(
    root: Path, folder: Path, python: str, newest: bool = False, torch_index: str = ""
) -> Place:
    """A new environment with a wheel of the checkout in it, and what a Jupyter kernel needs.

    Args:
        root: the checkout.
        folder: an empty folder.
        python: the interpreter to make it with.
        newest: the newest versions that the bounds allow, instead of those of the lock.
        torch_index: address of a package index to take torch from.
    """
    place = Place(folder / "venv" / "bin" / "python", folder)
    wheel = build_wheel(root, folder / "wheel")
    _call([python, "-m", "venv", str(folder / "venv")])
    pip = [str(place.python), "-m", "pip", "install", "--quiet"]
    pip += [] if newest else ["--constraint", str(root / "requirements.lock")]
    _call([*pip, *(["--index-url", torch_index] if torch_index else []), "torch"])
    _call([*pip, str(wheel), "ipykernel"])
    return place


def build_wheel(root: Path, folder: Path) -> Path:
    """The wheel of the checkout, made in `folder`."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    _call([*command, "--no-build-isolation", "--wheel-dir", str(folder), str(root)])
    (wheel,) = folder.glob("*.whl")
    return wheel


def execute(
    place: Place, notebook: Path, folder: Path, parameters: dict[str, str], **variables: str
) -> nbformat.NotebookNode:
    """Run a copy of a notebook in a new folder and return it executed.

    Raises:
        CompanionError: it failed; the message ends with what was said last.
    """
    folder.mkdir(parents=True)
    shutil.copy(notebook, folder)
    place.write_kernel()
    place.log.unlink(missing_ok=True)
    target = place.folder / "executed" / notebook.name
    target.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "papermill", notebook.name, str(target)]
    command += ["--kernel", "python3", "--no-progress-bar", "--log-level", "ERROR"]
    for name, value in parameters.items():
        command += ["--parameters", name, value]
    environment = place.variables() | variables
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise CompanionError(f"{notebook.stem}: not done after {TIMEOUT_S} s") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise CompanionError(f"{notebook.stem}: {lines[-1] if lines else 'no message'}")
    return notebooks.read(target)


def strays(place: Place, *allowed: Path) -> list[str]:
    """Paths written by the last run outside the allowed folders and the user's cache."""
    places = [*allowed, place.home / ".cache", place.home / MATPLOTLIB, Path("/dev"), Path("/proc")]
    places += [place.folder / name for name in ("tmp", "ipython", "runtime")]
    roots = [os.path.realpath(folder) for folder in places]
    text = place.log.read_text(encoding="utf-8", errors="replace")
    found = {os.path.realpath(line) for line in text.splitlines()}
    # And what code wrote that Python does not see, as far as it lies in the home folder.
    found |= {os.path.realpath(path) for path in place.home.rglob("*") if path.is_file()}
    return sorted(
        path
        for path in found
        if not any(f"{path}{os.sep}".startswith(root + os.sep) for root in roots)
        and not any(root.startswith(path + os.sep) for root in roots)  # on the way to one
        and "__pycache__" not in path  # the interpreter's own
    )


def rerun(
    layout: Layout,
    chapters: list[str],
    *,
    python: str = sys.executable,
    newest: bool = False,
    torch_index: str = "",
    say: Callable[[str], None] = print,
) -> list[str]:
    """Rerun chapters as described above; returns one line for each thing that went wrong."""
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="rerun-") as scratch:
        started = time.monotonic()
        place = new_place(layout.root, Path(scratch), python, newest, torch_index)
        _tell(say, "environment", started)
        for chapter in chapters:
            started = time.monotonic()
            folder = place.folder / "chapters" / chapter
            try:
                execute(place, layout.source(chapter), folder, {"size": "quick"})
                found = [f"{chapter}: wrote {path}" for path in strays(place, folder)]
            except CompanionError as error:
                found = [str(error)]
            wrong += found
            _tell(say, chapter if not found else f"{chapter} FAILED", started)
        started = time.monotonic()
        try:
            text = run_setup(layout, place, layout.source(chapters[0]))
        except CompanionError as error:
            wrong.append(str(error))
        else:
            _tell(say, f"setup cell: {text}", started)
    return wrong


def run_setup(layout: Layout, place: Place, notebook: Path) -> str:
    """Remove the package, run a notebook's setup cell alone, and return what it said.

    Raises:
        CompanionError: it failed, or there is no repository to install from.
    """
    if not (layout.root / ".git").exists():
        raise CompanionError("the setup cell was not tried: this is no git repository")
    _call([str(place.python), "-m", "pip", "uninstall", "--quiet", "--yes", PROJECT])
    alone = notebooks.read(notebook)
    alone.cells = [cell for cell in alone.cells if "setup" in notebooks.tags(cell)]
    for cell in alone.cells:  # what is checked out, also where the tag is still to come
        cell.source = pinned(cell.source, address(layout.root), None)
    source = place.folder / "setup.ipynb"
    nbformat.write(alone, source)
    mirror = {
        "GIT_CONFIG_COUNT": "2",
        "GIT_CONFIG_KEY_0": f"url.{layout.root.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": address(layout.root),
        "GIT_CONFIG_KEY_1": "safe.directory",
        "GIT_CONFIG_VALUE_1": "*",
    }
    done = execute(place, source, place.folder / "chapters" / "setup", {}, **mirror)
    outputs = [output for cell in done.cells for output in cell.get("outputs", [])]
    return " ".join(output.get("data", {}).get("text/markdown", "") for output in outputs).strip()


def _tell(say: Callable[[str], None], what: str, started: float) -> None:
    say(f"{time.monotonic() - started:6.0f} s  {what}")


def _call(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        raise CompanionError(f"{' '.join(command[:6])} ...: {lines[-1] if lines else 'failed'}")
