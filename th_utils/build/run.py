"""Run one chapter: `python -m th_utils.build.run 03_inhibition --edition gpt2 --size book`.

The chapter runs in a fresh kernel with a work folder of its own. Only when the last cell has run
do results and figures move to their places, each by a rename, and the executed notebook last: its
presence means that everything it speaks of is there and whole.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat

from th_utils.build import notebooks
from th_utils.build.graph import can_run, loads_model
from th_utils.build.layout import DEFAULT_EDITION, DEFAULT_SIZE, SIZES, Layout, find_root
from th_utils.build.processes import die_with_parent
from th_utils.digest import closure_of_notebook
from th_utils.errors import CompanionError
from th_utils.paths import atomic_write

STARTS = 3
# Ports are chosen for a kernel, and bound by it later: another program can be faster.
NOT_STARTED = "Kernel died before replying to kernel_info"


def run_chapter(layout: Layout, chapter: str) -> Path:
    """Execute `chapter` and return the executed notebook's path.

    Raises CompanionError, with one line for a person, when the chapter fails; the traceback and
    the notebook as far as it came are then in the log folder.
    """
    if loads_model(layout, chapter) and not can_run(layout, chapter):
        page = notebooks.not_run(notebooks.read(layout.source(chapter)), layout.edition)
        print(f"{chapter}  not run: it needs a forward pass", file=sys.stderr)
        return atomic_write(layout.executed(chapter), nbformat.writes(page) + "\n")
    work = _fresh_work(layout, chapter)
    _set_environment(work)
    started = time.monotonic()
    partial = work / f"{chapter}.ipynb"
    try:
        closure_of_notebook(layout.source(chapter))  # else nobody knows when to run it again
        notebook = _execute(layout, chapter, partial, work)
        text = _finish(notebook, layout, time.monotonic() - started)
        _promote(work / "output", layout.base)
        executed = atomic_write(layout.executed(chapter), text)
    except Exception as error:
        raise CompanionError(_explain(error, layout, chapter, partial)) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return executed


def _fresh_work(layout: Layout, chapter: str) -> Path:
    """Make the run's work folder, and remove those of earlier runs that were killed."""
    prefix = f"{layout.folder}-{chapter}-"
    for old in layout.work.glob(f"{prefix}*"):
        shutil.rmtree(old, ignore_errors=True)
    work = layout.work / f"{prefix}{os.getpid()}"
    (work / "output").mkdir(parents=True)
    return work


def _set_environment(work: Path) -> None:
    """Set what the kernel inherits: where to write, and nothing of the user's own set-up."""
    from th_utils.build.kernel import write_kernelspec

    write_kernelspec(work / "jupyter")
    (work / "tmp").mkdir()
    tempfile.tempdir = None  # forget the folder chosen earlier, if one was
    search = [str(work / "jupyter"), os.environ.get("JUPYTER_PATH", "")]
    os.environ |= {
        "TH_OUTPUT": str(work / "output"),
        "TH_PROGRESS": str(work / "progress.jsonl"),
        "JUPYTER_PATH": os.pathsep.join(part for part in search if part),
        # Connection files and the like of killed kernels go with the work folder.
        "JUPYTER_RUNTIME_DIR": str(work / "runtime"),
        "TMPDIR": str(work / "tmp"),
        # No start-up files of the user's, and no history database that two kernels contend for.
        "IPYTHONDIR": str(work / "ipython"),
        # One thread: two chapters run at once on two cores, and the singular vectors of equal
        # weights come out in the same bits only for the same number of threads.
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def _execute(layout: Layout, chapter: str, partial: Path, work: Path):
    """Run the notebook through papermill and return it as a notebook object."""
    from papermill import execute_notebook
    from papermill.engines import NBClientEngine, papermill_engines

    from th_utils.build.display import Reporter

    class Engine(NBClientEngine):
        """Papermill's own engine, which also reports each cell as it starts."""

        @classmethod
        def execute_managed_notebook(cls, nb_man, kernel_name, **kwargs):
            begin = nb_man.cell_start
            with Reporter(chapter, len(nb_man.nb.cells), work / "progress.jsonl") as reporter:

                def cell_start(cell, cell_index=None, **options):
                    reporter.cell(cell_index + 1)
                    return begin(cell, cell_index, **options)

                nb_man.cell_start = cell_start
                run = super().execute_managed_notebook
                return started(lambda: run(nb_man, kernel_name, **kwargs))

    papermill_engines.register("talking-heads", Engine)
    source = layout.source(chapter)
    return execute_notebook(
        str(source),
        str(partial),
        parameters={"edition": layout.edition, "size": layout.size},
        engine_name="talking-heads",
        kernel_name="python3",
        progress_bar=False,
        # The same working directory as in JupyterLab and under nbval.
        cwd=str(source.parent),
    )


def started(run: Callable[[], Any]) -> Any:
    """What `run` returns, called again where its kernel ended before any cell could run."""
    for _ in range(STARTS - 1):
        try:
            return run()
        except RuntimeError as error:
            if NOT_STARTED not in str(error):
                raise
    return run()


def _finish(notebook, layout: Layout, seconds: float) -> str:
    """Strip what papermill leaves, note how the chapter ran, and return the notebook's text."""
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if notebooks.INJECTED in notebooks.tags(cell):
            cell.id = notebooks.INJECTED
    notebook.metadata.pop("papermill", None)
    said = {"edition": layout.edition, "size": layout.size, "seconds": round(seconds, 1)}
    notebook.metadata["talking_heads"] = {**notebook.metadata.get("talking_heads", {}), **said}
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


def _promote(output: Path, base: Path) -> None:
    """Move every file of a finished run to its place; each is absent, old or new, never half."""
    for path in sorted(output.rglob("*")):
        if path.is_file():
            target = base / path.relative_to(output)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)


def _explain(error: Exception, layout: Layout, chapter: str, partial: Path) -> str:
    """Put a failure into one line; keep its traceback and the notebook in the log folder."""
    layout.logs.mkdir(parents=True, exist_ok=True)
    log = layout.logs / f"{chapter}.log"
    plain = re.sub(r"\x1b\[[0-9;]*m", "", "".join(traceback.format_exception(error)))
    log.write_text(plain, encoding="utf-8")
    if partial.exists():
        shutil.copy(partial, layout.logs / f"{chapter}.failed.ipynb")
    shown = os.path.relpath(log, layout.root)
    name, value = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", error)
    if name == "DeadKernelError":
        return f"chapter {chapter}: its process died, most often for want of memory (log: {shown})"
    value = " ".join(str(value).split())
    if isinstance(error, CompanionError) or len(getattr(error, "traceback", None) or []) == 1:
        # In a kernel, CompanionError renders as one line instead of a traceback.
        return f"chapter {chapter}: {value}"
    return f"chapter {chapter}: {name}: {value[:300]} (log: {shown})"


def main(arguments: list[str] | None = None) -> int:
    """Command line of one chapter's job."""
    parser = argparse.ArgumentParser(prog="python -m th_utils.build.run", description=__doc__)
    parser.add_argument("chapter")
    parser.add_argument("--edition", default=DEFAULT_EDITION)
    parser.add_argument("--size", default=DEFAULT_SIZE, choices=SIZES)
    options = parser.parse_args(arguments)
    parent = os.environ.pop("TH_PARENT", None)
    die_with_parent(int(parent) if parent else None)
    layout = Layout(find_root(), options.edition, options.size)
    try:
        run_chapter(layout, options.chapter)
    except CompanionError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
