"""A tiny project in a temporary folder: this package and Snakefile, two chapters, a book."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parents[1]
EDITION = "toy"

DRAW = """\
import json, os, time
from pathlib import Path
import matplotlib.pyplot as plt
from IPython.display import Image, Markdown, display

output = Path(os.environ["TH_OUTPUT"])
stem = "fig-{name}"
for folder, kind, text in (
    ("figures", "svg", "<svg xmlns='http://www.w3.org/2000/svg'/>"),
    ("figures", "pdf", "%PDF"),
    ("results", "json", "{{}}"),
):
    (output / folder / edition).mkdir(parents=True, exist_ok=True)
    (output / folder / edition / f"{{stem}}.{{kind}}").write_text(text)
figure, axes = plt.subplots(figsize=(2, 1))
axes.plot([0, 1])
figure.savefig(output / "figures" / edition / f"{{stem}}.png")
plt.close(figure)
record = {{"id": stem, "message": f"The line on {{edition}}.", "alt": "A rising line."}}
png = (output / "figures" / edition / f"{{stem}}.png").read_bytes()
display(Image(data=png), metadata={{"talking_heads": {{"figure": record}}}})"""

CLAIM = """\
record = {{"id": "toy-{name}", "edition": edition, "size": size, "value": 0.95, "low": 0.91,
          "high": 0.97, "verdict": "holds", "note": None}}
text = ":::{{admonition}} Claim: holds\\nIt **holds**, see {{numref}}`fig-{name}`.\\n:::"
display(Markdown(text),
        metadata={{"talking_heads": {{"claim": record}}}})"""


def chapter(name: str, imports: str = "", slow: float = 0.0) -> nbformat.NotebookNode:
    """A chapter with the cells that every chapter has; `slow` seconds pass in one of them."""
    cells = [
        new_markdown_cell(f"# The {name}\n\nIt is a line.", id="title"),
        new_code_cell(f"import th_utils\n{imports}", id="setup", metadata={"tags": ["setup"]}),
        new_code_cell(
            'edition: str = "toy"  # the model\nsize: str = "quick"  # how much',
            id="parameters",
            metadata={"tags": ["parameters"]},
        ),
        new_code_cell(
            "import json, os, time\n"
            'with open(os.environ.get("TH_PROGRESS", os.devnull), "a") as stream:\n'
            "    for n in range(11):\n"
            '        print(json.dumps({"desc": "waiting", "n": n, "total": 10}), file=stream)\n'
            "        stream.flush()\n"
            f"        time.sleep({slow / 10})",
            id="wait",
        ),
        new_code_cell(
            DRAW.format(name=name),
            id="draw",
            metadata={"mystnb": {"figure": {"caption": "A line."}}},
        ),
        new_code_cell(CLAIM.format(name=name), id="claim"),
    ]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = new_notebook(cells=cells, metadata=metadata)
    notebook.nbformat_minor = 5
    return notebook


def make(root: Path, slow: float = 0.0) -> Path:
    """Write the project below `root`; only chapter 01 uses `th_utils.progress` and `alpha.yml`.

    The package is copied, so that tests can change modules of it.
    """
    (root / "notebooks").mkdir(parents=True)
    alpha = "from th_utils import paths, progress\nassert paths.data_path('alpha.yml').exists()"
    for number, name, imports in ((1, "alpha", alpha), (2, "beta", "")):
        notebook = chapter(name, imports, slow)
        nbformat.write(notebook, root / "notebooks" / f"{number:02d}_{name}.ipynb")
    for name in ("Snakefile", "_config.yml", "pyproject.toml"):
        shutil.copy(ROOT / name, root / name)
    shutil.copytree(
        ROOT / "th_utils", root / "th_utils", ignore=shutil.ignore_patterns("__pycache__")
    )
    (root / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nparts:\n- caption: Chapters\n  numbered: true\n"
        "  chapters:\n  - file: notebooks/01_alpha\n  - file: notebooks/02_beta\n"
        "- caption: Reference\n  chapters:\n  - file: book/claims\n  - file: book/figures\n"
        "  - file: book/models\n"
    )
    shutil.copytree(ROOT / "book" / "_static", root / "book" / "_static")
    (root / "book" / "references.bib").write_text("")
    (root / "book" / "index.md").write_text("# Welcome\n\nSee {numref}`fig-alpha`.\n")
    for page in ("claims", "figures", "models"):
        text = f"# {page.capitalize()}\n\n<!-- generated: {page} -->\n"
        (root / "book" / f"{page}.md").write_text(text)
    (root / "data").mkdir()
    (root / "data" / "claims.yml").write_text(
        "claims:\n- {id: toy-alpha, chapter: '01', paper: A, where: nowhere, claim: It rises., "
        "statistic: slope, direction: at-least, holds: 0.9, partly: 0.7}\n"
        "- {id: toy-gamma, chapter: '01', paper: A, where: nowhere, claim: It falls., "
        "statistic: slope, direction: at-most, holds: 0.9, partly: 0.95}\n"
    )
    (root / "data" / "alpha.yml").write_text("a: 1\n")
    (root / "data" / "models.yml").write_text("toy: {model: none, licence: MIT}\n")
    return root


def environment(root: Path) -> dict[str, str]:
    """The environment for a build of the project: its own copy of the package, no terminal."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TH_")}
    search = [str(root), kept.get("PYTHONPATH", "")]
    return kept | {"PYTHONPATH": os.pathsep.join(part for part in search if part)}


def start(root: Path, *arguments: str) -> subprocess.Popen:
    """Start a build command on the toy edition, its output in `build.log`."""
    command = [sys.executable, "-m", "th_utils.build", *arguments, "--edition", EDITION]
    with open(root / "build.log", "wb") as log:
        return subprocess.Popen(
            command,
            cwd=root,
            env=environment(root),
            stdout=log,
            stderr=subprocess.STDOUT,
            # where the tests run in the background of a shell, interrupts are ignored and
            # children inherit that
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


def build(root: Path, *arguments: str) -> tuple[int, str]:
    """Run a build command to its end; return its exit status and all its output."""
    status = start(root, *arguments).wait(timeout=300)
    return status, (root / "build.log").read_text(errors="replace")
