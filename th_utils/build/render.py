"""Render a staged book with Jupyter Book, strictly: any warning is a failure."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from th_utils.build.layout import Layout
from th_utils.build.stage import stage
from th_utils.errors import CompanionError

# It has no __main__, and no option for the number of processes.
RUN = """import os
from jupyter_book import sphinx
from jupyter_book.cli.main import main
sphinx.build_sphinx.__kwdefaults__["jobs"] = os.cpu_count()
main()"""


def render(layout: Layout) -> Path:
    """Stage and render the book of the executed chapters; return the front page."""
    stage(layout, layout.notebooks, layout.stage)
    new = layout.work / f"{layout.folder}-html-{os.getpid()}"
    try:
        site = build_html(layout.stage, new, layout.logs / "book.log")
        replace_folder(site, layout.html)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return layout.front_page


def build_html(staged: Path, work: Path, log: Path) -> Path:
    """Run Jupyter Book on a staged book and return the folder of HTML below `work`.

    `--all` because an incremental build hides warnings. Raises CompanionError with the warnings.
    """
    shutil.rmtree(work, ignore_errors=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", RUN, "build", "--all", "-W", "-n"]
    command += ["--keep-going", "--path-output", str(work), str(staged)]
    with open(log, "wb") as stream:
        done = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, check=False)
    site = work / "_build" / "html"
    if done.returncode or not (site / "index.html").exists():
        text = log.read_text(encoding="utf-8", errors="replace").splitlines()
        found = [line for line in text if "WARNING" in line or "ERROR" in line] or text[-5:]
        for line in found[:20]:
            print(line.replace(f"{staged}{os.sep}", ""), file=sys.stderr)
        raise CompanionError(f"the book was not built: the lines above say why (log: {log})")
    return site


def replace_folder(new: Path, old: Path) -> None:
    """Put the folder `new` in the place of `old`, which is at every moment whole or absent."""
    trash = new.with_name(new.name + ".old")
    shutil.rmtree(trash, ignore_errors=True)
    old.parent.mkdir(parents=True, exist_ok=True)
    if old.exists():
        os.rename(old, trash)
    os.rename(new, old)
    shutil.rmtree(trash, ignore_errors=True)
