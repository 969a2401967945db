"""Figures of chapter 04."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from th_utils.figures import PALETTE, WIDE, ink, new_figure
from th_utils.plots.circuit import ORDER_COLOURS
from th_utils.results import Results

# An order has the colour of the name that is right in it: the first one in ABBA prompts.
FIRST, SECOND = ORDER_COLOURS.values()
STYLES = {"ABBA": "-", "BABA": "--"}
SIDE = {"ABBA": "left", "BABA": "right"}  # ABBA's mean is the larger one
WAYS = {"add": "added to the residual stream", "only": "in place of the head's output"}
KINDS = {
    "add": "the line, added",
    "only": "the line, in place",
    "head": "random, head's space",
    "residual": "random, anywhere",
}


def line(results: Results) -> Figure:
    """Coordinates of all prompts as histograms, and template by template."""
    c, m = results.columns, results.meta
    summary = m["templates"]
    templates = summary["template"][1:]
    size = (WIDE, 0.3 * len(templates) + 1.9)
    figure, (top, bottom) = new_figure(
        size, rows=2, sharex=True, height_ratios=[1.1, 0.3 * len(templates)]
    )
    value, order, template = (np.array(c[x]) for x in ("coordinate", "order", "template"))
    bins = np.linspace(min(value.min(), 0), max(value.max(), 0), 41)
    for name, marker, shift in (("ABBA", "o", -0.15), ("BABA", "s", 0.15)):
        colour, of = ORDER_COLOURS[name], order == name
        counts, _ = np.histogram(value[of], bins)
        top.stairs(counts, bins, fill=True, color=colour, alpha=0.75)
        for i, number in enumerate(templates):
            x = value[of & (template == number)]
            bottom.plot(
                x, np.full(len(x), i + shift), marker, ms=3.5, mec="none", color=colour, alpha=0.6
            )
        end, side = (m["abba"], "left") if name == "ABBA" else (m["baba"], "right")
        top.annotate(
            f"{name}: {'second' if name == 'ABBA' else 'first'} name repeated",
            (0.0 if side == "right" else 1.0, 1.0),
            xycoords="axes fraction",
            ha="left" if side == "right" else "right",
            va="bottom",
            color=ink(colour),
        )
        bottom.plot(end, len(templates) - 0.4, "^", ms=5, color=colour, clip_on=False)
    for axes in (top, bottom):
        axes.axvline(0, color="0.2", lw=0.8, zorder=0)
    top.set_ylabel("prompts")
    bottom.set_yticks(range(len(templates)), [f"template {t}" for t in templates])
    bottom.set_ylim(len(templates) - 0.4, -0.6)
    bottom.set_xlabel(f"coordinate along component {m['component']}")
    for i in range(len(templates) + 1):
        auc, low, high = (summary[x][i] for x in ("auc", "auc_low", "auc_high"))
        axes, y = (top, 0.45) if i == 0 else (bottom, i - 1)
        heading = "area under the curve\n" if i == 0 else ""
        axes.annotate(
            f"{heading}{auc:.2f} ({low:.2f} to {high:.2f})",
            (1.01, y),
            xycoords=("axes fraction", "axes fraction" if i == 0 else "data"),
            va="center",
            fontsize=8,
        )
    return figure


def sweep(results: Results) -> Figure:
    """The mover's attention to either name and the logits, along the line, for both orders."""
    c, m = results.columns, results.meta
    reach = max(c["alpha"])
    figure, grid = new_figure((WIDE, 4.4), rows=2, columns=2, sharex=True, sharey="row")
    for column, (how, title) in enumerate(WAYS.items()):
        for order, style in STYLES.items():
            for name, row, colour in (
                ("first", 0, FIRST),
                ("second", 0, SECOND),
                ("logits", 1, "0.2"),
            ):
                _band(grid[row, column], c, (how, order, name), colour, style)
        grid[0, column].set_title(title)
        grid[1, column].axhline(0, color="0.2", lw=0.6)
        grid[1, column].set_xlabel("α" if how == "add" else "α (then the coordinate itself)")
        for row in (0, 1):
            axes = grid[row, column]
            axes.axvline(0, color="0.85", lw=0.8, zorder=0)
            axes.margins(x=0)
            if how == "only":  # where prompts lie on their own
                for order, end in (("ABBA", m["abba"]), ("BABA", m["baba"])):
                    axes.plot(
                        end,
                        0,
                        "^",
                        ms=5,
                        color=ORDER_COLOURS[order],
                        transform=axes.get_xaxis_transform(),
                        clip_on=False,
                        zorder=5,
                    )
                    if row == 0:
                        axes.annotate(
                            order,
                            (end, 0),
                            xycoords=axes.get_xaxis_transform(),
                            xytext=(0, -5),
                            textcoords="offset points",
                            ha="center" if m["abba"] - m["baba"] > reach / 4 else SIDE[order],
                            va="top",
                            fontsize=8,
                            color=ink(ORDER_COLOURS[order]),
                        )
    grid[0, 0].set_ylabel(f"attention of mover {m['mover']}")
    grid[0, 0].set_ylim(bottom=0)
    grid[1, 0].set_ylabel("logit(first) − logit(second)\nnats")
    for name, colour in (("first", FIRST), ("second", SECOND)):
        ends = [_curve(c, ("only", order, name), "mean")[1][-1] for order in STYLES]
        grid[0, 1].annotate(
            f"{name}\nname",
            (1, float(np.mean(ends))),
            xycoords=("axes fraction", "data"),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color=ink(colour),
        )
    for order, style, y in (("ABBA", "—", 0.62), ("BABA", "- -", 0.38)):
        grid[1, 1].annotate(
            f"{style} {order}", (1, y), xycoords="axes fraction", xytext=(5, 0),
            textcoords="offset points", va="center",
        )  # fmt: skip
    return figure


def random(results: Results) -> Figure:
    """Change between the ends of the sweep along the line and along random directions."""
    c = results.columns
    figure, grid = new_figure((WIDE, 1.9), rows=1, columns=2, sharey=True)
    titles = {
        "attention": "attention, first − second name",
        "logits": "logits, first − second, nats",
    }
    for axes, (name, title) in zip(grid, titles.items(), strict=True):
        for y, kind in enumerate(KINDS):
            at = [i for i, k in enumerate(c["kind"]) if k == kind]
            mean = np.array([c[f"{name} mean"][i] for i in at])
            if len(at) == 1 and kind in WAYS:
                (i,) = at
                ends = [c[f"{name} low"][i], c[f"{name} high"][i]]
                axes.plot(ends, [y, y], color=PALETTE["inhibition"], lw=1.5)
                axes.plot(mean, [y], "o", ms=5, color=PALETTE["inhibition"])
                axes.annotate(
                    f"{mean[0]:.2f}",
                    (mean[0], y),
                    xytext=(0, 4),
                    textcoords="offset points",
                    ha="center",
                    va="bottom",
                    fontsize=8,
                    color=ink(PALETTE["inhibition"]),
                )
            else:
                axes.plot(
                    mean, np.full(len(at), y), "|", ms=9, mew=1, color=PALETTE["control"], alpha=0.5
                )
        axes.axvline(0, color="0.2", lw=0.6, zorder=0)
        axes.set_xlabel(f"change in {title}")
    grid[0].set_yticks(range(len(KINDS)), KINDS.values())
    grid[0].set_ylim(len(KINDS) - 0.5, -0.8)
    return figure


def _curve(
    c: dict[str, list], which: Sequence[str], column: str
) -> tuple[list[float], list[float]]:
    at = [
        i
        for i, found in enumerate(zip(c["how"], c["order"], c["quantity"], strict=True))
        if found == tuple(which)
    ]
    return [c["alpha"][i] for i in at], [c[column][i] for i in at]


def _band(axes: Any, c: dict[str, list], which: Sequence[str], colour: str, style: str) -> None:
    x, mean = _curve(c, which, "mean")
    low, high = (_curve(c, which, end)[1] for end in ("low", "high"))
    axes.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
    axes.plot(x, mean, style, color=colour, lw=1.5)
