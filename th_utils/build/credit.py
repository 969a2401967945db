"""The line under each figure: what made it, its files, and how to cite it.

HTML and not Markdown: Sphinx would take a link to a file that it does not know for a mistake. The
box opens without a script; a script adds buttons that copy (`book/_static/cite.js`).
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from th_utils.build.citation import RANDOM, About

DRAFT = (
    "This is a draft: version {version} is not published as built here, and the address below does "
    "not lead to it. To cite, take a published version."
)
DATA = ("csv", "json")
PICTURES = ("svg", "pdf", "png")


def line(entry: Mapping[str, Any], said: About, prefix: str) -> str:
    """The line under one figure.

    Args:
        entry: of the catalogue.
        said: about this build.
        prefix: leads from the page to the top of the site.
    """
    parts = [_made(entry, said), f"Model: {_model(entry, prefix)}"]
    for label, kinds in (("Data", DATA), ("Figure", PICTURES)):
        if links := _links(entry, kinds, prefix):
            parts.append(f"{label}: {links}")
    joined = ' <span aria-hidden="true">·</span> '.join(f"<span>{part}</span>" for part in parts)
    return f'<div class="figure-line">\n<p>{joined}</p>\n{_box(entry, said)}\n</div>'


def _made(entry: Mapping[str, Any], said: About) -> str:
    """The page that shows the figure, in the repository, at the commit of this build."""
    name = entry["source"].rpartition("/")[2].partition(".")[0]
    number = name.partition("_")[0]
    label = f"Chapter {number}" if number.isdecimal() else f"Page <em>{html.escape(name)}</em>"
    address = html.escape(said.source(entry["source"]), quote=True)
    return (
        f'Made by <a href="{address}">{label}</a>, commit <code>{html.escape(said.commit)}</code>'
    )


def _model(entry: Mapping[str, Any], prefix: str) -> str:
    checksum = (entry["provenance"] or {}).get("checksum", "")
    if entry["editions"] == [RANDOM]:
        return RANDOM
    names = ", ".join(f"<code>{html.escape(name)}</code>" for name in entry["editions"])
    said = f' title="SHA-256 {checksum}"' if checksum else ""
    return f'<a href="{prefix}book/models.html"{said}>{names}</a>'


def _links(entry: Mapping[str, Any], kinds: tuple[str, ...], prefix: str) -> str:
    by_kind = {file["kind"]: file["path"] for file in entry["files"]}
    return ", ".join(
        f'<a href="{prefix}{html.escape(by_kind[kind], quote=True)}">{kind.upper()}</a>'
        for kind in kinds
        if kind in by_kind
    )


def _box(entry: Mapping[str, Any], said: About) -> str:
    """The citation, to open and to copy; plain text and BibTeX, the paper in both."""
    draft = f"<p>{DRAFT.format(version=html.escape(said.version))}</p>\n" if said.draft else ""
    texts = "\n".join(
        f'<div class="cite-text"><pre>{_lines(entry["citation"][kind])}</pre>'
        f'<button type="button" class="cite-copy" hidden>Copy {label}</button></div>'
        for kind, label in (("bibtex", "BibTeX"), ("text", "text"))
    )
    return (
        f'<details class="cite"><summary>Cite <span class="cite-name">{entry["id"]}</span>'
        f"</summary>\n{draft}{texts}\n"
        '<p class="cite-said" role="status"></p></details>'
    )


def _lines(text: str) -> str:
    """Text for a `pre`, on one line: an empty one would end the block of HTML for Markdown."""
    return html.escape(text).replace("\n", "&#10;")
