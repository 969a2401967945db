"""Figures of chapter 08."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from th_utils.figures import PALETTE, SINGLE, WIDE, new_figure
from th_utils.plots.circuit import ORDER_COLOURS
from th_utils.results import Results

POSITIVE, NEGATIVE = ORDER_COLOURS.values()  # the axis points to where ABBA prompts lie


def coordinates(results: Results) -> Figure:
    """How often the component takes which coordinate: in the task above, on text below."""
    c, m = results.columns, results.meta
    figure, grid = new_figure((SINGLE, 3.2), rows=2, columns=1, sharex=True)
    for axes, panel in zip(grid, ("task", "text"), strict=True):
        for source in dict.fromkeys(c["source"]):
            at = [i for i, s in enumerate(c["source"]) if s == source and c["panel"][i] == panel]
            if not at:
                continue
            left, right, share = (
                np.array([c[n][i] for i in at]) for n in ("left", "right", "share")
            )
            colour = ORDER_COLOURS.get(source, "0.35")
            axes.bar(left, share, right - left, align="edge", color=colour, alpha=0.75, lw=0)
            if panel == "task":
                middle = float((left + right) @ share) / 2
                axes.text(
                    middle / 2, 0.6, source, transform=axes.get_xaxis_transform(), ha="center",
                    color=colour, fontsize=8,
                )  # fmt: skip
        for sign in (-1, 1):
            axes.axvline(sign * m["median"], color="0.2", lw=0.8, ls="--")
        axes.axvline(0, color="0.2", lw=0.5)
    grid[1].set_yscale("log")
    grid[1].annotate(
        "median prompt",
        (m["median"], 0.9),
        xycoords=grid[1].get_xaxis_transform(),
        xytext=(-4, 0),
        textcoords="offset points",
        ha="right",
        fontsize=8,
    )
    grid[0].margins(y=0.2)
    grid[0].set_ylabel("share of\ntask's prompts")
    grid[1].set_ylabel("share of\npositions in text")
    grid[1].set_xlabel(f"coordinate along component {m['component']}")
    return figure


def where(results: Results) -> Figure:
    """Share of positions with a property: among all, and among the more and most active."""
    c = results.columns
    sources, names = (list(dict.fromkeys(c[n])) for n in ("source", "property"))
    figure, grid = new_figure(
        (WIDE, 0.42 * len(names) + 1.1), rows=1, columns=len(sources), sharey=True, squeeze=False
    )
    looks = {"all": ("0.55", "o", -0.18), "tenth": (PALETTE["induction"], "s", 0.0)}
    looks["hundredth"] = (PALETTE["inhibition"], "D", 0.18)
    for axes, source in zip(grid[0], sources, strict=True):
        for i, name in enumerate(names):
            for among, (colour, marker, shift) in looks.items():
                (n,) = [
                    k
                    for k in range(len(c["share"]))
                    if (c["source"][k], c["property"][k], c["among"][k]) == (source, name, among)
                ]
                y = i + shift
                axes.plot([c["low"][n], c["high"][n]], [y, y], color=colour, lw=1.2)
                axes.plot(c["share"][n], y, marker, ms=4.5, color=colour)
        axes.set_title(source)
        axes.set_xlim(-0.03, 1.03)
        axes.set_xlabel("share of positions")
        axes.grid(axis="y", color="0.92", lw=0.6)
    grid[0, 0].set_yticks(range(len(names)), names)
    grid[0, 0].set_ylim(len(names) - 0.5, -0.9)
    for (among, (colour, marker, _)), x in zip(looks.items(), (0.0, 0.26, 0.62), strict=True):
        text = {"all": "all", "tenth": "active tenth", "hundredth": "most active 1%"}[among]
        grid[0, 0].plot(x, -0.62, marker, ms=4.5, color=colour, clip_on=False)
        grid[0, 0].text(x + 0.03, -0.62, text, color=colour, va="center", fontsize=8)
    return figure


def kinds(results: Results) -> Figure:
    """Per kind of text, how active the component is, and how much of it is repetition."""
    c = results.columns
    n = len(c["kind"])
    figure, grid = new_figure((WIDE, 0.27 * n + 0.9), rows=1, columns=3, sharey=True, squeeze=False)
    panels = (
        ("active", "share of positions where\nthe component is active"),
        ("repetition", "where the head looks at\na token said before"),
        ("enumeration", "in an\nenumeration"),
    )
    for axes, (name, title) in zip(grid[0], panels, strict=True):
        for i in range(n):
            colour = PALETTE["inhibition"] if i else "0.2"  # the first row is a total
            mean, low, high = (c[f"{name}{end}"][i] for end in ("", " low", " high"))
            axes.plot([low, high], [i, i], color=colour, lw=1.4)
            axes.plot(mean, i, "o", ms=4.5, color=colour)
        axes.set_xlabel(title)
        axes.set_xlim(left=-0.04 * max(0.01, *c[f"{name} high"]))
    grid[0, 0].set_yticks(range(n), c["kind"])
    grid[0, 0].set_ylim(n - 0.4, -0.6)
    return figure


def removal(results: Results) -> Figure:
    """What the removal does to the reader's attention, by how active the component is."""
    c = results.columns
    n = len(c["band"])
    figure, grid = new_figure((WIDE, 2.9), rows=1, columns=2)
    x = np.arange(n)
    for axes, name, title in (
        (grid[0], "rise", "rise of the mover's attention"),
        (grid[1], "rising", "share of positions where it rises"),
    ):
        for what, colour, shift in (
            ("component", PALETTE["inhibition"], -0.1),
            ("random", PALETTE["control"], 0.1),
        ):
            mean, low, high = (np.array(c[f"{what} {name}{end}"]) for end in ("", " low", " high"))
            axes.vlines(x + shift, low, high, color=colour, lw=1.4)
            axes.plot(x + shift, mean, "o", ms=4.5, color=colour)
            best = int(np.argmax(np.abs(mean)))
            if axes is grid[0]:
                axes.annotate(
                    {"component": "component removed", "random": "random vectors"}[what],
                    (best + shift, high[best] if what == "component" else low[best]),
                    xytext=(0, 4 if what == "component" else -4),
                    textcoords="offset points",
                    ha="right" if best else "left",
                    va="bottom" if what == "component" else "top",
                    color=colour,
                    fontsize=8,
                )
        axes.set_xticks(x, c["band"])
        axes.set_xlabel("positions, from the least active")
        axes.set_ylabel(title)
    grid[0].axhline(0, color="0.2", lw=0.6)
    grid[0].margins(y=0.18)
    grid[1].axhline(0.5, color="0.8", lw=0.8)
    grid[1].set_ylim(0, 1)
    return figure


CHARACTERS, LINE = 101, 1.35  # characters in a line of tokens, height of one
_SHOWN = "–—‘’“”…•°£€×½¼¾é"


def examples(results: Results) -> Figure:
    """Texts with every token coloured by its coordinate."""
    c, m = results.columns, results.meta
    placed, y = [], 0.0
    for example in dict.fromkeys(c["example"]):
        at = [i for i, e in enumerate(c["example"]) if e == example]
        placed.append(("title", c["title"][at[0]], 0, y, None, None))
        y += LINE
        column = 0
        for i in at:
            text = shown(c["text"][i])
            if column + len(text) > CHARACTERS and column:
                column, y = 0, y + LINE
                text = text[1:] if text.startswith(" ") and len(text) > 1 else text
            placed.append(("token", text, column, y, c["coordinate"][i], c["mark"][i]))
            column += len(text)
        y += LINE + 0.55
    figure, axes = new_figure((WIDE, 0.118 * y + 0.05))
    axes.set_axis_off()
    axes.set_xlim(-0.5, CHARACTERS + 0.5)
    axes.set_ylim(y - 0.3, -0.9)
    for kind, text, x, line, value, mark in placed:
        if kind == "title":
            axes.text(x, line, text, fontsize=8, color="0.35", va="center", parse_math=False)
            continue
        axes.add_patch(
            Rectangle((x, line - 0.6), len(text), 1.2, lw=0, color=tint(value, m["limit"]))
        )
        if mark:
            axes.add_patch(
                Rectangle(
                    (x, line - 0.6), len(text), 1.2, fill=False, zorder=3,
                    lw=1.2 if mark == "active" else 0.9,
                    ls="-" if mark == "active" else (0, (2, 1.2)),
                    ec="0.1",
                )
            )  # fmt: skip
        axes.text(
            x + len(text) / 2, line, text, fontsize=8, family="DejaVu Sans Mono", ha="center",
            va="center", parse_math=False, color="black",
        )  # fmt: skip
    return figure


def shown(text: str) -> str:
    """A token as it is written in a figure: line ends as arrows, what has no glyph as a dot.

    >>> shown(" a\\n"), shown("日")
    (' a↵', '·')
    """
    known = ("↵" if x == "\n" else x if " " <= x <= "~" or x in _SHOWN else "·" for x in text)
    return "".join(known)


def tint(value: float | int, limit: float | int) -> tuple[float, ...]:
    """White at zero, towards orange above and blue below; text on it can always be read."""
    strength = 0.6 * min(1.0, abs(value) / limit)
    colour = np.array(to_rgb(POSITIVE if value > 0 else NEGATIVE))
    return tuple((1 - strength * (1 - colour)).tolist())
