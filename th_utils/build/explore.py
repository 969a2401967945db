"""The two figures to explore: their pages' parts, data, scripts and still pictures.

A chapter writes the table to explore among its results. Staging turns it into a script that the
page loads, with the plotting library, when the reader asks for it; so the page works from a folder
as well as from a server. The still picture is one of the chapter's figures, taken from the executed
notebook. A book made of the committed notebooks alone has the picture, and says what is missing.
"""

from __future__ import annotations

import base64
import html
import importlib.metadata
import json
import math
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.colors import to_hex

from th_utils.build import notebooks
from th_utils.build.layout import Layout
from th_utils.build.pages import table as markdown_table
from th_utils.figures import PALETTE
from th_utils.results import Results, read_table

SCRIPTS = "explore"  # folder of the site, beside the figures and results
LIBRARY = "plotly.min.js"
# The colours of the roles that each kind serves in chapter 09.
KIND_COLOURS = {"Q": "inhibition", "K": "previous-token", "V": "duplicate-token"}
KIND_NAMES = {"Q": "query", "K": "key", "V": "value"}
SHADES = 21  # of the scale that items are coloured by
ROWS = 5  # of each kind, in the text beside the map


@dataclass(frozen=True)
class Page:
    """One page with a figure to explore."""

    name: str  # of the page's part, script and data
    table: str  # name of the results that it explores
    still: str  # id of the figure that stands for it
    chapter: str  # number of the chapter that writes both
    button: str
    compact: Callable[[Results], dict[str, Any]]
    words: Callable[[Results], str]


def parts(layout: Layout, chapters: Iterable[Any], target: Path) -> dict[str, Callable[[], str]]:
    """What replaces each page's marker; making it puts the files that it needs below `target`.

    `chapters` are executed notebooks whose metadata hold the records of their figures, `target` is
    the staged book.
    """
    chapters = list(chapters)
    return {
        f"explore_{page.name}": lambda page=page: part(page, layout, chapters, target)
        for page in PAGES
    }


def part(page: Page, layout: Layout, chapters: Iterable[Any], target: Path) -> str:
    """The still picture, the figure to explore, and its numbers in words, as far as they are."""
    blocks = [_still(page, chapters, target / "book")]
    path = layout.results / f"{page.table}.json"
    if not path.exists():
        blocks.append(
            ":::{note}\nThe numbers to explore are not in this book: it was made of chapters "
            f"whose results were not at hand. Running them (`make book`) makes `{page.table}`, "
            "and this page with it.\n:::"
        )
        return "\n\n".join(filter(None, blocks))
    results = read_table(path)
    size = _write_files(page, results, layout, target)
    blocks.append(_panel(page, size))
    blocks.append(f"## The same in a table\n\n{page.words(results)}")
    blocks.append(_source(page, results, layout))
    return "\n\n".join(filter(None, blocks))


def _still(page: Page, chapters: Iterable[Any], folder: Path) -> str:
    """The picture as it stands in its chapter, with the chapter's caption."""
    for chapter in chapters:
        for cell, record in notebooks.marks(chapter, "figure"):
            if record["id"] != page.still:
                continue
            shown = {r["id"]: r for r in chapter.metadata.get("figures", [])}.get(page.still, {})
            said = {**record, **{k: v for k, v in shown.items() if v}}
            name = f"explore_{page.name}.png"
            (folder / name).write_bytes(_picture(cell))
            alt = " ".join((said.get("alt") or "").split())
            caption = " ".join((said.get("caption") or "").split())
            return (
                f"```{{image}} {name}\n:alt: {alt}\n:width: 100%\n```\n\n"
                f"*{{numref}}`{page.still}`.* {caption}"
            )
    return (
        ":::{note}\nThe picture of this page is not in this book: its chapter did not run on this "
        "edition.\n:::"
    )


def _picture(cell: Any) -> bytes:
    for output in cell.outputs:
        if "image/png" in output.get("data", {}):
            return base64.b64decode(output["data"]["image/png"])
    raise ValueError("a marked figure without a picture")


def _write_files(page: Page, results: Results, layout: Layout, target: Path) -> int:
    """Put the scripts and the data beside the pages; return how many bytes the button loads."""
    folder = target / "extra" / SCRIPTS
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps(page.compact(results), ensure_ascii=False, separators=(",", ":"))
    data = folder / f"{page.name}.data.js"
    data.write_text(f"window.exploreData.{page.name} = {content};\n", encoding="utf-8")
    for source in sorted((layout.root / "book" / "_explore").iterdir()):
        shutil.copy(source, folder / source.name)
    installed = resources.files("plotly") / "package_data" / LIBRARY
    (folder / LIBRARY).write_bytes(installed.read_bytes())
    kept = target / "extra" / "results" / layout.folder
    kept.mkdir(parents=True, exist_ok=True)
    for kind in (".csv", ".json"):
        if (layout.results / f"{page.table}{kind}").exists():
            shutil.copy(layout.results / f"{page.table}{kind}", kept)
    return sum((folder / name).stat().st_size for name in _scripts(page))


def _scripts(page: Page) -> list[str]:
    return [LIBRARY, f"{page.name}.data.js", f"explore_{page.name}.js"]


def _panel(page: Page, size: int) -> str:
    """The button and the empty panel, as HTML; Sphinx passes it on as it is."""
    scripts = " ".join(f"../{SCRIPTS}/{name}" for name in _scripts(page))
    version = importlib.metadata.version("plotly")
    return (
        f'<link rel="stylesheet" href="../{SCRIPTS}/explore.css">\n'
        f'<div class="explore" data-figure="{page.name}" data-scripts="{html.escape(scripts)}">\n'
        f'<p><button type="button" hidden>{html.escape(page.button)}</button>\n'
        f'<span role="status">Loads {size / 1e6:.1f} MB from this site (plotly {version} and '
        "the data).</span></p>\n"
        "<noscript><p>This needs JavaScript; the picture and the table do not.</p></noscript>\n"
        '<div class="explore-panel" hidden></div>\n'
        "</div>\n"
        f'<script defer src="../{SCRIPTS}/explore.js"></script>'
    )


def _source(page: Page, results: Results, layout: Layout) -> str:
    """Where the numbers come from, and the files to take away."""
    said = results.provenance
    links = " · ".join(
        f'<a href="../results/{layout.folder}/{page.table}{kind}">{kind[1:].upper()}</a>'
        for kind in (".csv", ".json")
        if (layout.results / f"{page.table}{kind}").exists()
    )
    size = said.parameters.get("size", "unknown")
    return (
        f'<p class="figure-files">Computed by chapter {page.chapter} on edition '
        f"{html.escape(said.edition)} at size {html.escape(str(size))}. "
        f"Files: {links}</p>"
    )


# --- the channel map


def channels(results: Results) -> dict[str, Any]:
    """The table of `channel_map` as the page's script wants it: columns by kind, heads counted
    through all layers."""
    c, meta = results.columns, results.meta
    heads = meta["heads"]
    roles = {}
    for role, members in meta["roles"].items():
        for layer, head in members:
            roles.setdefault(layer * heads + head, role)
    kinds: dict[str, dict[str, list]] = {}
    for i, kind in enumerate(c["kind"]):
        own = kinds.setdefault(
            kind, {n: [] for n in ("writer", "component", "reader", "score", "z", "effect")}
        )
        own["writer"].append(c["writer_layer"][i] * heads + c["writer_head"][i])
        own["reader"].append(c["reader_layer"][i] * heads + c["reader_head"][i])
        for name in ("component", "score", "z", "effect"):
            own[name].append(c[name][i])
    layer, head = meta["open"]
    return {
        **{name: meta[name] for name in ("layers", "heads", "rank", "random_level")},
        "roles": roles,
        "open": layer * heads + head,
        "colours": {kind: PALETTE[role] for kind, role in KIND_COLOURS.items()},
        "kinds": kinds,
    }


def channels_in_words(results: Results) -> str:
    """What the head that the map opens with is most open to, and who reads its components."""
    c, (layer, head) = results.columns, results.meta["open"]
    rows = [dict(zip(c, row, strict=True)) for row in zip(*c.values(), strict=True)]
    into = [row for row in rows if (row["reader_layer"], row["reader_head"]) == (layer, head)]
    top = []
    for kind in KIND_NAMES:
        own = [row for row in into if row["kind"] == kind]
        top += sorted(own, key=lambda row: -row["score"])[:ROWS]
    body = [
        [
            KIND_NAMES[row["kind"]],
            "{writer_layer}.{writer_head}.{component}".format_map(row),
            f"{row['score']:.3f}",
            f"{row['z']:.1f}",
            "not measured" if row["effect"] is None else f"{row['effect']:.3f}",
        ]
        for row in top
    ]
    names = ["read as", "component", "score", "standard score", "effect"]
    said = (
        f"What head {layer}.{head} is most open to: for its query, key and value the {ROWS} "
        "components of earlier heads with the highest scores."
    )
    return f"{said}\n\n{markdown_table(names, body)}"


# --- the index cube


def lists(results: Results) -> dict[str, Any]:
    """The table of `index_cube` as the page's script wants it: points and prompts by length."""
    c = results.columns
    lengths: dict[int, dict[str, dict[str, list]]] = {}
    names = {"axis 1": "x", "axis 2": "y", "axis 3": "z", "item": "item"}
    own = {"set": ("share", "chosen"), "itself": ("left_out",)}
    for i, (what, length) in enumerate(zip(c["what"], c["length"], strict=True)):
        columns = names | {name: name for name in own[what]}
        kept = lengths.setdefault(length, {}).setdefault(what, {n: [] for n in columns.values()})
        for name, short in columns.items():
            kept[short].append(c[name][i])
    scale = colormaps["plasma"]
    shades = [to_hex(scale(0.02 + 0.88 * k / (SHADES - 1))) for k in range(SHADES)]
    return {
        "names": results.meta["names"],
        "reached": results.meta["reached"],
        "colours": shades,  # those of the chapter's figures
        "lengths": lengths,
    }


def lists_in_words(results: Results) -> str:
    """By list length: which items the grid reaches, and what the model does of itself."""
    c = results.columns
    body = []
    for length in sorted(set(c["length"])):
        rows = [i for i, n in enumerate(c["length"]) if n == length]
        points = [c["item"][i] for i in rows if c["what"][i] == "set"]
        prompts = [c["item"][i] == c["left_out"][i] for i in rows if c["what"][i] == "itself"]
        shares = [_percent(points.count(k + 1) / len(points)) for k in range(length) if points]
        reached = results.meta["reached"].get(str(length))
        body.append(
            [
                str(length),
                ", ".join(shares) if shares else "not set",
                "" if reached is None else f"{_percent(reached)}%",
                f"{_percent(sum(prompts) / len(prompts))}%" if prompts else "",
            ]
        )
    names = ["items", "% of the grid, item by item", "places selected", "with nothing set"]
    said = (
        "For lists of each length: in how much of the grid each item is attended to most, in the "
        "order of the list; the share of places that the points chosen for them select on prompts "
        "they were not chosen on; and how often, with nothing set, the item left out is attended "
        "to most."
    )
    return f"{said}\n\n{markdown_table(names, body)}"


def _percent(share: float) -> str:
    """Halves rounded up, as in the page's script."""
    return str(math.floor(100 * share + 0.5))


PAGES = (
    Page(
        "channels",
        table="explore-09-channels",
        still="fig-09-map",
        chapter="09",
        button="Explore the map",
        compact=channels,
        words=channels_in_words,
    ),
    Page(
        "lists",
        table="explore-06-lists",
        still="fig-06-subspace",
        chapter="06",
        button="Turn the cube",
        compact=lists,
        words=lists_in_words,
    ),
)
