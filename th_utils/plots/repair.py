"""Figures of chapter 07."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from th_utils.figures import PALETTE, WIDE, ink, new_figure
from th_utils.results import Results

COLOURS = {
    "clean": "0.2",
    "steering": PALETTE["inhibition"],
    "turned": PALETTE["mover"],
    "unaided": PALETTE["duplicate-token"],
    "weights": PALETTE["previous-token"],
    "control": "0.6",
    "heads": "0.45",  # a control too
}


def gains(results: Results) -> Figure:
    """Accuracy gained by every way to repair, with intervals, in points."""
    c = results.columns
    n = len(c["variant"])
    figure, axes = new_figure((WIDE, 0.28 * n + 0.9))
    for i, kind in enumerate(c["kind"]):
        colour = COLOURS[kind]
        mean, low, high = (100 * c[end][i] for end in ("mean", "low", "high"))
        axes.plot([low, high], [i, i], color=colour, lw=1.6)
        axes.plot(mean, i, "o", ms=5, color=colour)
        axes.annotate(
            "0" if round(mean) == 0 else f"{mean:+.0f}",
            (high, i),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=ink(colour),
        )
    axes.axvline(0, color="0.2", lw=0.6)
    axes.set_yticks(range(n), c["variant"])
    for tick, kind in zip(axes.get_yticklabels(), c["kind"], strict=True):
        tick.set_color(ink(COLOURS[kind]))
    axes.set_ylim(n - 0.4, -0.6)
    axes.margins(x=0.1)
    axes.set_xlabel("gain in accuracy over the full vocabulary, points")
    return figure


def lengths(results: Results) -> Figure:
    """Accuracy by length of the list, for panels of variants."""
    c = results.columns
    panels = list(dict.fromkeys(c["panel"]))
    figure, grid = new_figure((WIDE, 3.0), rows=1, columns=len(panels), sharey=True, squeeze=False)
    known = sorted(set(c["length"]))
    span = known[-1] - known[0]
    named = []
    for axes, panel in zip(grid[0], panels, strict=True):
        ends = []
        rows = [i for i, name in enumerate(c["panel"]) if name == panel]
        variants = list(dict.fromkeys(c["variant"][i] for i in rows))
        for k, variant in enumerate(variants):
            at = [i for i in rows if c["variant"][i] == variant]
            x, mean, low, high = (
                np.array([c[name][i] for i in at], dtype=float)
                for name in ("length", "mean", "low", "high")
            )
            kind = c["kind"][at[0]]
            colour = COLOURS[kind]
            x = x + 0.02 * span * (k - (len(variants) - 1) / 2)  # or intervals hide each other
            axes.vlines(x, 100 * low, 100 * high, color=colour, lw=1.1)
            line = "--" if kind == "heads" else "-"
            axes.plot(x, 100 * mean, "o", ls=line, ms=3.5, lw=1.3, color=colour)
            ends.append((x[-1], 100 * mean[-1], variant, colour))
        axes.set_xticks(known)
        axes.set_xlim(known[0] - 0.06 * span, known[-1] + 0.56 * span)
        axes.set_title(panel)
        axes.set_xlabel("items of the list")
        named.append((axes, ends))
    grid[0, 0].set_ylabel("right answers, %")
    grid[0, 0].set_ylim(bottom=0)
    for axes, ends in named:
        _name_ends(axes, ends)
    return figure


def _name_ends(axes, ends: list[tuple[float, float, str, str]]) -> None:
    """Names to the right of lines' ends, moved apart where they would touch."""
    low, high = axes.get_ylim()
    width = float(np.ptp(axes.get_xlim()))
    gap = (high - low) * 0.075
    ordered = sorted(ends, key=lambda end: end[1])
    heights: list[float] = []
    for _, y, _, _ in ordered:
        heights.append(max(y, heights[-1] + gap if heights else low + gap / 2))
    over = heights[-1] - (high - gap / 2)
    if over > 0:  # push down from the top
        heights[-1] -= over
        for i in range(len(heights) - 2, -1, -1):
            heights[i] = min(heights[i], heights[i + 1] - gap)
    for (x, y, name, colour), height in zip(ordered, heights, strict=True):
        axes.annotate(
            name,
            (x, y),
            xytext=(max(end[0] for end in ends) + 0.06 * width, height),
            textcoords="data",
            fontsize=8,
            va="center",
            color=ink(colour),
            arrowprops={
                "arrowstyle": "-",
                "lw": 0.4,
                "color": ink(colour),
                "shrinkB": 2,
                "relpos": (0, 0.5),
            },  # from the name's left, or it would cross others
        )


def places(results: Results) -> Figure:
    """Accuracy by place of the answer, a panel for each length."""
    c = results.columns
    known = list(dict.fromkeys(c["length"]))
    figure, grid = new_figure((WIDE, 2.7), rows=1, columns=len(known), sharey=True, squeeze=False)
    for axes, length in zip(grid[0], known, strict=True):
        for variant in dict.fromkeys(c["variant"]):
            at = [
                i for i, v in enumerate(c["variant"]) if v == variant and c["length"][i] == length
            ]
            x, y = (np.array([c[name][i] for i in at]) for name in ("place", "accuracy"))
            axes.plot(x, 100 * y, "o-", ms=3, lw=1.2, color=COLOURS[c["kind"][at[0]]])
        axes.set_xticks(range(1, length + 1))
        axes.set_xlim(0.6, length + 0.4)
        axes.set_title(f"{length} items")
        axes.set_xlabel("place of the answer")
    grid[0, 0].set_ylabel("right answers, %")
    grid[0, 0].set_ylim(-4, 104)
    variants = dict(zip(c["variant"], c["kind"], strict=True))
    for i, (variant, kind) in enumerate(variants.items()):
        grid[0, -1].text(
            0.98,
            0.97 - 0.08 * i,
            variant,
            transform=grid[0, -1].transAxes,
            ha="right",
            va="top",
            fontsize=8,
            color=ink(COLOURS[kind]),
        )
    return figure


def price(results: Results) -> Figure:
    """Each text and pair of prompts without an edit and with it, a panel for each measurement."""
    c = results.columns
    measures, variants = (list(dict.fromkeys(c[name])) for name in ("measure", "variant"))
    figure, grid = new_figure((WIDE, 3.4), columns=len(measures), squeeze=False)
    for axes, measure in zip(grid[0], measures, strict=True):
        at = [i for i, name in enumerate(c["measure"]) if name == measure]
        values = [c[end][i] for end in ("before", "after") for i in at]
        margin = 0.06 * (max(values) - min(values))
        ends = (min(values) - margin, max(values) + margin)
        axes.plot(ends, ends, color="0.6", lw=0.8, zorder=0)
        # the first is drawn last: it is what the figure is about
        for k, variant in reversed(list(enumerate(variants))):
            rows = [i for i in at if c["variant"][i] == variant]
            before, after = (np.array([c[end][i] for i in rows]) for end in ("before", "after"))
            colour = COLOURS[c["kind"][rows[0]]]
            axes.plot(before, after, "os"[k % 2], ms=4, mfc="none" if k else colour, color=colour)
            axes.text(
                0.03, 0.97 - 0.075 * k, f"{variant}: {(after - before).mean():+.2g}",
                transform=axes.transAxes, va="top", fontsize=8, color=ink(colour),
            )  # fmt: skip
        axes.set(xlim=ends, ylim=ends, aspect="equal", title=measure, xlabel="as it is")
    grid[0, 0].set_ylabel("edited")
    return figure
