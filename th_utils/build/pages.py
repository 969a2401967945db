"""The parts of the book's pages that are generated: claims, models, citation, figures.

A page is written by hand; where it has a line `<!-- generated: claims -->`, staging puts the
table of that name.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

MARKER = re.compile(r"^<!-- generated: (\w+) -->[ \t]*$", re.MULTILINE)
NOT_MEASURED = "not measured here"


def fill(text: str, parts: dict[str, Callable[[], str]]) -> str:
    """Replace every marker line of a page by the part it names."""
    return MARKER.sub(lambda match: parts[match[1]]() if match[1] in parts else match[0], text)


def claims(
    ledger: Iterable[dict], measured: dict[str, dict[str, dict]], labels: dict[str, str]
) -> str:
    """The table claim x edition.

    `measured[edition][claim id]` is the record of a measured claim; `labels` gives each edition's
    column heading. Claims without a record say so.
    """
    blocks = []
    by_paper: dict[str, list[dict]] = {}
    for claim in ledger:
        by_paper.setdefault(str(claim.get("paper", "")), []).append(claim)
    for paper, rows in by_paper.items():
        head = ["Claim", *(labels.get(edition, f"`{edition}`") for edition in measured)]
        body = [
            [
                _claim_cell(row),
                *(_value_cell(row, found.get(row["id"])) for found in measured.values()),
            ]
            for row in rows
        ]
        blocks.append(f"## Paper {paper}\n\n{table(head, body)}")
    return "\n\n".join(blocks)


def _claim_cell(claim: dict) -> str:
    anchor = f'<span id="claim-{claim["id"]}"></span>'
    text = f"{anchor}{claim['claim']}<br>*Measured:* {claim['statistic']}"
    text += f"<br>*Where:* paper {claim['paper']}, {claim['where']}"
    if claim.get("reconstruction"):
        text += " · *reconstruction*"
    return f"{text}<br>`{claim['id']}`"


def _value_cell(claim: dict, record: dict | None) -> str:
    if record is None or record.get("value") is None:
        return NOT_MEASURED
    text = f"**{record['verdict']}**<br>{record['value']:.3g}"
    if record.get("low") is not None and record.get("high") is not None:
        text += f" ({record['low']:.3g} to {record['high']:.3g})"
    sign = "≥" if claim["direction"] == "at-least" else "≤"
    text += f"<br>holds: {sign} {claim['holds']:g}, partly: {sign} {claim['partly']:g}"
    if record.get("note"):
        text += f"<br>{record['note']}"
    return text


MODEL_ROWS = {
    "model": "Model",
    "runs": "What runs",
    "licence": "Licence",
    "size": "Size",
    "source": "Source",
    "sha256": "SHA-256",
    "notes": "Notes",
}


def models(known: Iterable[dict]) -> str:
    """The known editions, each with a list of what is said of it.

    Lists, because one table with a column for each would fit no telephone.
    """
    blocks = []
    for entry in known:
        blocks.append(f"## `{entry['edition']}`")
        said = [(name, entry[key], key) for key, name in MODEL_ROWS.items() if key in entry]
        blocks += [f"{name}\n: {_model_cell(key, value)}" for name, value, key in said]
    return "\n\n".join(blocks)


def _model_cell(key: str, value: Any) -> str:
    return f"`{value}`" if key == "sha256" else " ".join(str(value).split())


def gallery(chapters: Iterable[tuple[str, list[dict]]], files_of: Callable[[dict], str]) -> str:
    """All figures by chapter: number and caption, permanent name, and the files to take away."""
    blocks = []
    for heading, figures in chapters:
        blocks.append(f"## {heading}")
        for figure in figures:
            name = figure["id"]
            parts = [f"**{{numref}}`{name}`** {figure['caption']}", f"Permanent name: `{name}`"]
            parts.append(files_of(figure))
            blocks.append("\n\n".join(part for part in parts if part))
    return "\n\n".join(blocks) if blocks else "No figures yet."


def citation(about: dict[str, str]) -> str:
    """The BibTeX entry of the companion itself, as a code block.

    `about` has title, author, year, version and note, and an address where there is one.
    """
    fields = {
        "title": f"{{{about['title']}}}",
        # A second pair of braces: not a first and a last name, but one holder.
        "author": f"{{{{{about['author']}}}}}",
        "year": f"{{{about['year']}}}",
        "version": f"{{{about['version']}}}",
        "note": f"{{{about['note']}}}",
    }
    if about.get("url"):
        fields["url"] = f"{{{about['url']}}}"
    body = ",\n".join(f"  {name:<7} = {value}" for name, value in fields.items())
    return f"```bibtex\n@software{{talkingheadscompanion,\n{body}\n}}\n```"


def file_links(figure: dict, present: dict[str, Path], prefix: str, thumbnail: bool = False) -> str:
    """Links to the files of a figure that are present, as HTML.

    `present` maps a name such as `figures/<edition>/<id>.svg` to the file; `prefix` leads from the
    page to the top of the site. HTML and not Markdown, because Sphinx would take a link to a file
    that it does not know for a mistake.
    """
    links, image = [], ""
    for name in sorted(present, key=lambda name: (name.split("/")[0], name)):
        if Path(name).stem != figure["id"]:
            continue
        kind = Path(name).suffix[1:].upper()
        links.append(f'<a href="{prefix}{html.escape(name)}">{kind}</a>')
        if kind == "PNG" and thumbnail:
            alt = html.escape(figure["alt"], quote=True)
            image = (
                f'<img class="gallery" loading="lazy" src="{prefix}{html.escape(name)}" '
                f'alt="{alt}">'
            )
    if not links:
        return ""
    return f'<p class="figure-files">{image}Files: {" · ".join(links)}</p>'


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def read_claims(path: Path) -> list[dict]:
    """The claim records of a recorded edition; none where there is no file."""
    if not path.exists():
        return []
    content = json.loads(path.read_text(encoding="utf-8"))
    return content if isinstance(content, list) else list(content.get("claims", []))
