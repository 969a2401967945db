"""The claims ledger: claim x edition, as a page, as CSV and as JSON.

Each verdict leads to the place where it was measured, to the figures that show it, and to the test
that computes it again and fails if it comes out otherwise.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from th_utils.build import notebooks, pages
from th_utils.build.citation import LICENCE, About
from th_utils.build.layout import Layout
from th_utils.claims import VERDICTS
from th_utils.digest import closure_of_notebook, digest

NOT_MEASURED = "not measured"
SIGNS = {"at-least": "≥", "at-most": "≤"}
MARKS = {"holds": "●", "partly": "◐", "fails": "○"}
RECORDED = Path("data") / "recorded"
FORMAT = "claims.json, version 1"
OF_CLAIM = (
    "id", "chapter", "paper", "where", "claim", "statistic", "direction", "holds", "partly",
    "reconstruction", "needs",
)  # fmt: skip
OF_VERDICT = ("edition", "source", "stale", "size", "verdict", "value", "low", "high", "note")
OF_LINKS = ("figures", "test")


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
    figures: Mapping[str, list[str]],
) -> list[dict[str, Any]]:
    """One row for each claim and edition; what was not measured has no value.

    Args:
        ledger: the claims.
        known: the editions.
        figures: names of the figures that show each claim.
    """
    known = list(known)
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
            row["figures"] = figures.get(claim["id"], [])
            row["test"] = edition.tests.get(claim["id"]) if measured else None
            found.append(row)
    return found


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
        head = {key: row[key] for key in OF_CLAIM} | {"figures": row["figures"], "editions": []}
        below = {key: row[key] for key in (*OF_VERDICT, "test")}
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


def page(
    found: list[dict[str, Any]], known: list[Edition], said: About, chapters: Mapping[str, str]
) -> str:
    """The ledger as a page: how it stands; claim by claim; how each was measured.

    Args:
        found: see `rows`.
        known: the editions.
        said: about this build.
        chapters: name of each chapter's page by its number.
    """
    if not found:
        return "No claims yet."
    by_claim: dict[str, list[dict[str, Any]]] = {}
    for row in found:
        by_claim.setdefault(row["id"], []).append(row)
    return "\n\n".join(
        [
            "## How it stands",
            _overview(found, known, chapters),
            "## Claim by claim",
            _table(by_claim, known, said),
            "## What was measured",
            *(_measured(rows) for rows in by_claim.values()),
        ]
    )


def _overview(
    found: list[dict[str, Any]], known: list[Edition], chapters: Mapping[str, str]
) -> str:
    """How many claims hold, by chapter and edition."""
    count = Counter((row["edition"], row["chapter"], row["verdict"]) for row in found)
    numbers = sorted({row["chapter"] for row in found})
    body = [["**All chapters**", *(_counts(count, one.name, numbers) for one in known)]]
    for number in numbers:
        page = f"{{doc}}`../notebooks/{chapters[number]}`" if number in chapters else number
        body.append([page, *(_counts(count, one.name, [number]) for one in known)])
    return pages.table(["Chapter", *(one.label for one in known)], body, "ledger ledger-counts")


def _counts(count: Counter, edition: str, chapters: Iterable[str]) -> str:
    chapters = list(chapters)
    total = {
        verdict: sum(count[edition, chapter, verdict] for chapter in chapters)
        for verdict in (*VERDICTS, NOT_MEASURED)
    }
    said = [f"{MARKS[name]} {total[name]} {_verb(name, total[name])}" for name in VERDICTS]
    label = f"[{edition}:]{{.ledger-edition}}"
    if not any(total[name] for name in VERDICTS):
        return f"{label} [{NOT_MEASURED}]{{.ledger-none}}"
    said = [text for name, text in zip(VERDICTS, said, strict=True) if total[name]]
    if total[NOT_MEASURED]:
        said.append(f"{total[NOT_MEASURED]} {NOT_MEASURED}")
    return f"{label} {', '.join(said)}"


def _verb(verdict: str, count: int) -> str:
    return verdict if count == 1 or verdict == "partly" else verdict.removesuffix("s")


def _table(by_claim: Mapping[str, list[dict[str, Any]]], known: list[Edition], said: About) -> str:
    head = ["Claim", *(one.label for one in known), "Figures"]
    body = [
        [_claim(rows[0]), *(_verdict(row, said) for row in rows), _figures(rows[0])]
        for rows in by_claim.values()
    ]
    return pages.table(head, body, "ledger ledger-claims")


def _claim(row: Mapping[str, Any]) -> str:
    name = row["id"]
    return f'<span id="claim-{name}"></span>{row["claim"]} <a href="#how-{name}">how</a>'


def _verdict(row: Mapping[str, Any], said: About) -> str:
    edition = f"[{row['edition']}:]{{.ledger-edition}}"
    if row["test"] is None:
        return f"{edition} [{NOT_MEASURED}]{{.ledger-none}}"
    word = f"{MARKS[row['verdict']]} {row['verdict']}"
    if row["source"] != "recorded":
        word = f"{{ref}}`{word} <{notebooks.verdict_name(row['id'])}>`"
    file, _, name = row["test"].partition("::")
    test = f'<a href="{said.source(file)}" title="{file}, {name}">test</a>'
    return f"{edition} [{word}]{{.ledger-{row['verdict']}}}<br>{_effect(row)}<br>{test}"


def _effect(row: Mapping[str, Any]) -> str:
    text = f"{row['value']:.3g}"
    if row["low"] is not None and row["high"] is not None:
        text += f" ({row['low']:.3g} to {row['high']:.3g})"
    return text


def _figures(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{{numref}}`{{number}} <{name}>`" for name in row["figures"])


def _measured(rows: list[dict[str, Any]]) -> str:
    """One claim's statistic and thresholds, and what belongs to its numbers."""
    row = rows[0]
    sign = SIGNS[row["direction"]]
    lines = [
        f'<span id="how-{row["id"]}"></span>`{row["id"]}`',
        f": {row['claim']}",
        f"  *Measured:* {row['statistic']}; holds from {sign} {row['holds']:g}, partly from {sign} "
        f"{row['partly']:g}. *Where:* paper {row['paper']}, {row['where']}.",
    ]
    if row["reconstruction"]:
        lines[-1] += " *Reconstruction.*"
    for one in rows:
        if one["test"]:
            note = f" {one['note']}" if one["note"] else ""
            verdict = f"{one['verdict']}, {_effect(one)}"
            lines += ["", f"  {_kept(one)}: {verdict}.{note} Test: `{one['test']}`."]
    return "\n".join(lines)


def _kept(row: Mapping[str, Any]) -> str:
    kept = f", {row['source']}" if row["source"] == "recorded" else ""
    return f"`{row['edition']}`{kept}, size {row['size']}"


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
