"""The claims ledger: claim x edition, as CSV and as JSON; the page is in `ledger_page`.

Each row has the figures that show the claim on that edition, the test that computes it again, and
the command that runs this test. It compares with what is committed, and fails if the claim comes
out otherwise.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from th_utils.build import notebooks
from th_utils.build.catalogue import RANDOM
from th_utils.build.citation import LICENCE, About
from th_utils.build.layout import Layout
from th_utils.digest import closure_of_notebook, digest

NOT_MEASURED = "not measured"
# A cell of a notebook cannot be tested alone: it needs what the cells before it made.
OF_NOTEBOOK = "pytest --nbval --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg"
RECORDED = Path("data") / "recorded"
FORMAT = "claims.json, version 1"
OF_CLAIM = (
    "id", "chapter", "paper", "where", "claim", "statistic", "direction", "holds", "partly",
    "reconstruction", "needs",
)  # fmt: skip
OF_VERDICT = ("edition", "source", "stale", "size", "verdict", "value", "low", "high", "note")
OF_LINKS = ("figures", "test", "command")


@dataclass(frozen=True)
class Edition:
    """What was measured on one edition.

    Attributes:
        name: of the edition.
        recorded: whether it was measured elsewhere and kept, rather than in this build.
        stale: whether other sources than today's measured it.
        size: at which it was measured.
        records: by claim.
        tests: of each claim, the test that computes it again.
    """

    name: str
    recorded: bool
    stale: bool
    size: str
    records: Mapping[str, Mapping[str, Any]]
    tests: Mapping[str, str]

    @property
    def label(self) -> str:
        """How a column of the page is headed."""
        kept = ", recorded" if self.recorded else ""
        return f"`{self.name}`{kept}{' from earlier sources' if self.stale else ''}"


def claims(root: Path) -> list[dict[str, Any]]:
    """The claims of the ledger, in order."""
    return yaml.safe_load((root / "data" / "claims.yml").read_text(encoding="utf-8"))["claims"]


def editions(layout: Layout, chapters: Mapping[str, Any]) -> list[Edition]:
    """What is known: this build's edition, then those recorded.

    Args:
        chapters: the executed notebooks by name.
    """
    name, size, here, tests = layout.edition, layout.size, {}, {}
    for chapter, notebook in chapters.items():
        for number, record in _claims_by_cell(notebook):
            here[record["id"]] = record
            # As nbval names the test that runs this cell and compares what it says.
            tests[record["id"]] = f"notebooks/{chapter}.ipynb::Cell {number}"
            name, size = record.get("edition", name), record.get("size", size)
    found = [Edition(name, False, False, size, here, tests)]
    folder = layout.root / RECORDED
    for kept in sorted(folder.iterdir()) if folder.is_dir() else []:
        if kept.name != layout.folder and (path := kept / "claims.json").exists():
            found.append(_recorded(layout, path))
    return found


def is_stale(layout: Layout, recorded: Path) -> bool:
    """Whether recorded claims were measured by other sources than those of the chapters now."""
    for chapter, said in json.loads(recorded.read_text(encoding="utf-8"))["digests"].items():
        source = layout.source(chapter)
        if not source.exists() or digest(closure_of_notebook(source)) != said:
            return True
    return False


def rows(
    ledger: Iterable[Mapping[str, Any]],
    known: Iterable[Edition],
    figures: Iterable[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """One row for each claim and edition; what was not measured has no value.

    Args:
        ledger: the claims.
        known: the editions.
        figures: entries of the catalogue, in the order of the book.
    """
    known, figures = list(known), list(figures)
    found = []
    for claim in ledger:
        for edition in known:
            record = edition.records.get(claim["id"], {})
            measured = record.get("value") is not None
            row = {key: claim.get(key) for key in OF_CLAIM}
            row |= {
                "edition": edition.name,
                "source": "recorded" if edition.recorded else "this build",
                "stale": edition.stale,
                "size": record.get("size", edition.size) if measured else None,
                "verdict": record["verdict"] if measured else NOT_MEASURED,
            }
            row |= {key: record.get(key) for key in ("value", "low", "high", "note")}
            row["figures"] = _evidence(claim["id"], edition.name, measured, figures)
            row["test"] = edition.tests.get(claim["id"]) if measured else None
            row["command"] = command(row["test"]) if row["test"] else None
            found.append(row)
    return found


def command(test: str) -> str:
    """What to type, in the repository, to run a test.

    >>> command("tests/test_x.py::test_it[a]")
    'pytest "tests/test_x.py::test_it[a]"'
    >>> command("notebooks/01_x.ipynb::Cell 5") == f"{OF_NOTEBOOK} notebooks/01_x.ipynb"
    True
    """
    file, _, _ = test.partition("::")
    return f"{OF_NOTEBOOK} {file}" if file.endswith(".ipynb") else f'pytest "{test}"'


def _evidence(
    claim: str, edition: str, measured: bool, figures: Iterable[Mapping[str, Any]]
) -> list[str]:
    """The figures that show a claim on one edition.

    Figures of random models belong to every edition on which the claim was measured.
    """
    shown = {edition, RANDOM} if measured else {edition}
    return [one["id"] for one in figures if claim in one["claims"] and shown & {*one["editions"]}]


def as_csv(found: Iterable[Mapping[str, Any]], said: About) -> str:
    """`claims.csv`: one line for each claim and edition."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = (*OF_CLAIM, *OF_VERDICT, *OF_LINKS)
    writer.writerow([*names, "version", "commit"])
    for row in found:
        cells = [" ".join(row[name]) if name == "figures" else row[name] for name in names]
        cells = ["" if cell is None else cell for cell in cells]
        writer.writerow([*cells, said.version, said.commit])
    return stream.getvalue()


def as_json(found: Iterable[Mapping[str, Any]], said: About) -> str:
    """`claims.json`: each claim once, with its editions below it."""
    by_claim: dict[str, dict[str, Any]] = {}
    for row in found:
        head = {key: row[key] for key in OF_CLAIM} | {"editions": []}
        below = {key: row[key] for key in (*OF_VERDICT, *OF_LINKS)}
        by_claim.setdefault(row["id"], head)["editions"].append(below)
    content = {
        "format": FORMAT,
        "title": said.title,
        "version": said.version,
        "published": not said.draft,
        "commit": said.commit,
        "site": said.site,
        "licence": LICENCE,
        "claims": list(by_claim.values()),
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _claims_by_cell(notebook: Any) -> Iterable[tuple[int, dict[str, Any]]]:
    """(number of the code cell from 0, record) of each claim, not counting an injected cell."""
    number = -1
    for cell in notebook.cells:
        if cell.cell_type != "code" or notebooks.INJECTED in notebooks.tags(cell):
            continue
        number += 1
        for output in cell.get("outputs", []):
            if record := output.get("metadata", {}).get(notebooks.MARK, {}).get("claim"):
                yield number, record


def _recorded(layout: Layout, path: Path) -> Edition:
    said = json.loads(path.read_text(encoding="utf-8"))
    chapters = {chapter[:2]: chapter for chapter in said["digests"]}
    of = {claim["id"]: claim["chapter"] for claim in claims(layout.root)}
    test = "tests/test_recorded.py::test_a_recorded_chapter_comes_out_again"
    tests = {
        record["id"]: f"{test}[{chapters[of[record['id']]]}]"
        for record in said["claims"]
        if of.get(record["id"]) in chapters
    }
    records = {record["id"]: record for record in said["claims"]}
    name = said.get("edition", path.parent.name)
    return Edition(name, True, is_stale(layout, path), said.get("size", ""), records, tests)
