"""The claims ledger as a page: how it stands; claim by claim; how each was measured.

Each verdict leads to the place where it was measured, to the figures that show it on that edition,
and to the test that computes it again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from th_utils.build import notebooks, pages
from th_utils.build.citation import About
from th_utils.build.ledger import NOT_MEASURED, Edition
from th_utils.claims import VERDICTS

SIGNS = {"at-least": "≥", "at-most": "≤"}
MARKS = {"holds": "●", "partly": "◐", "fails": "○"}


def page(
    found: list[dict[str, Any]], known: list[Edition], said: About, chapters: Mapping[str, str]
) -> str:
    """The ledger as a page: how it stands; claim by claim; how each was measured.

    Args:
        found: see `ledger.rows`.
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
    head = ["Claim", *(one.label for one in known)]
    body = [[_claim(rows[0]), *(_verdict(row, said) for row in rows)] for rows in by_claim.values()]
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
    links = " · ".join([*_figures(row["figures"]), test])
    return f"{edition} [{word}]{{.ledger-{row['verdict']}}}<br>{_effect(row)}<br>{links}"


def _effect(row: Mapping[str, Any]) -> str:
    text = f"{row['value']:.3g}"
    if row["low"] is not None and row["high"] is not None:
        text += f" ({row['low']:.3g} to {row['high']:.3g})"
    return text


def _figures(names: list[str]) -> list[str]:
    """Links in one piece of text, none where no figure shows the edition."""
    links = ", ".join(f"{{numref}}`{{number}} <{name}>`" for name in names)
    return [f"Fig. {links}"] if names else []


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
            file, _, name = one["test"].partition("::")
            lines += ["", f"  {_kept(one)}: {verdict}.{note} Test: `{file}`, `{name}`."]
    return "\n".join(lines)


def _kept(row: Mapping[str, Any]) -> str:
    kept = f", {row['source']}" if row["source"] == "recorded" else ""
    return f"`{row['edition']}`{kept}, size {row['size']}"
