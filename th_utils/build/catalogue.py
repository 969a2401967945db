"""The catalogue of figures: all that is known of each, for its page, the gallery and machines.

An entry is a dict as `figures.json` has it. Everything is taken from the executed notebook, the
files of its run, and the list of published names; nothing is typed twice.
"""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from th_utils.build import citation
from th_utils.build.citation import RANDOM, About
from th_utils.build.published import Published
from th_utils.results import TOLERANCE

FORMAT = "figures.json, version 1"


def entry(
    record: Mapping[str, Any],
    said: About,
    *,
    source: str,
    title: str,
    files: Mapping[str, Path],
    listed: Mapping[str, Published],
    sizes: Mapping[str, str],
    random: bool = False,
) -> dict[str, Any]:
    """All that is known of one figure.

    Args:
        record: of `notebooks.figures`: id, caption, alt, edition and size of the picture.
        said: about this build.
        source: path of the notebook or page that shows it, in the repository.
        title: of that page.
        files: the figure's files by their path on the site.
        listed: the published names.
        sizes: at which other editions were recorded, by edition.
        random: whether nothing in it depends on the edition.
    """
    name = record["id"]
    page = str(Path(source).with_suffix(".html"))
    own = {path: file for path, file in sorted(files.items()) if Path(path).stem == name}
    table = next((file for path, file in own.items() if path.endswith(".json")), None)
    content = json.loads(table.read_text(encoding="utf-8")) if table else {}
    provenance = content.get("provenance")
    random = random or (provenance or {}).get("checksum") == "random"
    editions = [RANDOM] if random else _editions(record, content, said)
    known = listed.get(name)
    # Of this figure and not of the build: recorded figures keep the size at which they were made.
    own_size = ((provenance or {}).get("parameters") or {}).get("size")
    sizes = {editions[0]: own_size} | {one: sizes.get(one) for one in editions[1:]}
    found = {
        "id": name,
        "title": title,
        "source": source,
        "page": page,
        "address": f"{said.site}/{page}#{name}",
        "caption": record["caption"],
        "alt": record["alt"],
        "width": record.get("width"),
        "height": record.get("height"),
        "claims": known.claims if known else [],
        "since": known.since if known else said.version,
        "editions": editions,
        "sizes": {edition: size for edition, size in sizes.items() if size},
        "files": [_file(path, file) for path, file in own.items()],
        "provenance": provenance,
        "tolerance": content.get("tolerance", TOLERANCE),
    }
    cited = {"bibtex": citation.of_figure(said, found), "text": citation.in_words(said, found)}
    return {**found, "citation": cited}


def as_json(entries: Iterable[Mapping[str, Any]], said: About) -> str:
    """`figures.json`: what the gallery shows, for machines."""
    content = {
        "format": FORMAT,
        "title": said.title,
        "version": said.version,
        "published": not said.draft,
        "commit": said.commit,
        "edition": said.edition,
        "size": said.size,
        "site": said.site,
        "repository": said.repository,
        "licence": citation.LICENCE,
        "figures": list(entries),
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def gallery(entries: Iterable[dict[str, Any]], lines: Mapping[str, str], claims: list[str]) -> str:
    """All figures by chapter: picture, number and caption, permanent name, and the line below.

    Args:
        entries: in the order of the book.
        lines: what stands under each figure, as HTML.
        claims: ids of the ledger, in its order.

    Without a script everything is shown; with one, the form at the top chooses.
    """
    entries = list(entries)
    if not entries:
        return "No figures yet."
    used = {claim for one in entries for claim in one["claims"]}
    editions = sorted({edition for one in entries for edition in one["editions"]})
    blocks = [_form([claim for claim in claims if claim in used], editions)]
    heading = None
    for one in entries:
        if one["title"] != heading:
            heading = one["title"]
            blocks.append(f"## {heading}")
        blocks += [_open(one), f"**{{numref}}`{one['id']}`** {one['caption']}"]
        blocks += [f"Permanent name: `{one['id']}`", lines[one["id"]], "</div>"]
    return "\n\n".join(block for block in blocks if block)


def _form(claims: list[str], editions: list[str]) -> str:
    return (
        '<form class="gallery-form" hidden aria-label="Choose figures">'
        f"{_select('claim', 'Claim', claims)}{_select('edition', 'Edition', editions)}"
        '<button type="button" class="gallery-clear">Show all</button>'
        '<output class="gallery-count" aria-live="polite"></output></form>'
    )


def _select(name: str, label: str, values: Iterable[str]) -> str:
    options = "".join(f"<option>{html.escape(value)}</option>" for value in values)
    options = f'<option value="">all</option>{options}'
    return f'<label>{label} <select name="{name}">{options}</select></label>'


def _open(one: Mapping[str, Any]) -> str:
    """The beginning of a figure's entry: what the form chooses by, and the picture."""
    claims = html.escape(" ".join(one["claims"]), quote=True)
    editions = html.escape("|".join(one["editions"]), quote=True)
    tag = f'<div class="gallery-entry" data-claims="{claims}" data-editions="{editions}">'
    png = next((file["path"] for file in one["files"] if file["path"].endswith(".png")), None)
    if png is None:
        return tag
    size = "".join(f' {side}="{one[side]}"' for side in ("width", "height") if one[side])
    return (
        f'{tag}\n<a href="../{html.escape(one["page"])}#{one["id"]}"><img class="gallery" '
        f'loading="lazy" src="../{html.escape(png)}"{size} '
        f'alt="{html.escape(one["alt"], quote=True)}"></a>'
    )


def _editions(record: Mapping[str, Any], content: Mapping[str, Any], said: About) -> list[str]:
    """The editions that a figure shows, its own first; a table with a column of them compares.

    What is written there may go on below the name, as in "gpt2" and then "published roles".
    """
    own = (content.get("provenance") or {}).get("edition") or record.get("edition", said.edition)
    columns = content.get("columns", [])
    if "edition" not in columns:
        return [own]
    at = columns.index("edition")
    return [own, *sorted({row[at].partition("\n")[0] for row in content["rows"]} - {own})]


def _file(path: str, file: Path) -> dict[str, Any]:
    content = file.read_bytes()
    return {
        "path": path,
        "kind": Path(path).suffix[1:],
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
