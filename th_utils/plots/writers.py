"""Figures of chapter 05."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from th_utils.figures import PALETTE, SINGLE, WIDE, ink, new_figure
from th_utils.results import Results

ROLE = {"Q": "inhibition", "V": "duplicate-token", "K": "previous-token"}
EFFECT = {
    "V": ("fall of the distance\nbetween the orders, %", 100),
    "K": ("fall of attention,\npoints", 100),
}
INPUT = {"V": "value", "K": "key"}
WATCHED = {"V": "the distance between the orders", "K": "the attention"}
CHANNEL = {
    "Q": "inhibition → mover\nquery",
    "V": "duplicate → inhibition\nvalue",
    "K": "previous → induction\nkey",
}


def panels(results: Results) -> Figure:
    """Effect above and composition score below for each component, pair by pair of heads.

    Without effects, where nothing could be run, the scores alone.
    """
    c, m = results.columns, results.meta
    pairs = list(dict.fromkeys(zip(c["writer"], c["reader"], strict=True)))
    measured = c["effect"][0] is not None
    rows = 2 if measured else 1
    figure, grid = new_figure(
        (WIDE, 1.7 * rows + 0.4), rows=rows, columns=len(pairs), sharex=True, sharey="row",
        squeeze=False,
    )  # fmt: skip
    title, times = EFFECT[m["kind"]]
    colour = PALETTE[ROLE[m["kind"]]]
    named = []
    for j, pair in enumerate(pairs):
        at = [n for n, p in enumerate(zip(c["writer"], c["reader"], strict=True)) if p == pair]
        k = np.array([c["component"][n] for n in at])
        score = np.array([c["composition"][n] for n in at])
        picked = np.array([c["picked"][n] for n in at], dtype=bool)
        if not measured:
            picked = np.isin(k, k[np.argsort(-score)[:2]])
        colours = np.where(picked, colour, "0.65")
        bottom = grid[-1, j]
        bottom.bar(k, score, color=colours, width=0.85)
        bottom.axhline(m["random_level"], color="0.3", lw=0.8, ls="--")
        if c["facing"][at[0]] is not None:
            facing = np.array([c["facing"][n] for n in at])
            bottom.plot(k, facing, "o", ms=2.5, mfc="white", mec="0.2", mew=0.6)
        bottom.set_xlabel("component")
        named.append((bottom, k, score, pair))
        if measured:
            top, effect = grid[0, j], times * np.array([c["effect"][n] for n in at])
            band = [times * c[f"random_{end}"][at[0]] for end in ("low", "high")]
            top.axhspan(*band, color="0.9", lw=0, zorder=0)
            top.bar(k, effect, color=colours, width=0.85)
            top.axhline(0, color="0.2", lw=0.6)
            named.append((top, k, effect, pair))
        grid[0, j].set_title(" → ".join(pair))
    if measured:
        grid[0, 0].set_ylabel(title)
    grid[-1, 0].set_ylabel(f"composition score\nwith the {INPUT[m['kind']]}")
    for row in grid:
        low, high = row[0].get_ylim()
        row[0].set_ylim(low, high + 0.16 * (high - low))  # room for the names above all marks
    for axes, k, values, pair in named:
        _name_highest(axes, k, values, pair[0])
    return figure


def _name_highest(axes: Any, k: np.ndarray, values: np.ndarray, writer: str) -> None:
    """Name the component with the highest bar at the top of the panel, tied to it by a line."""
    best = int(np.argmax(values))
    low, high = axes.get_ylim()
    top = high - 0.13 * (high - low)
    axes.plot([k[best]] * 2, [values[best], top], color="0.5", lw=0.5, zorder=0)
    place = (k[best] - k[0]) / max(k[-1] - k[0], 1)
    axes.annotate(
        f"{writer}.{k[best]}",
        (k[best], top),
        xytext=(0, 1),
        textcoords="offset points",
        ha="left" if place < 0.2 else "right" if place > 0.8 else "center",
        va="bottom",
        fontsize=8,
    )


STYLES = {
    "by effect": dict(lw=2),
    "by effect, score": dict(lw=1.6, ls=":"),
    "by score": dict(lw=1.2, ls="--", color="0.2"),
    "at random": dict(lw=1.2, color="0.6"),
}
SAID = {
    "by effect": "by effect, other prompts",
    "by effect, score": "the same, before the softmax",
    "by score": "by composition score",
    "at random": "at random",
}


def width(results: Results) -> Figure:
    """Share of the whole effect against the number of components removed of each writer."""
    c = results.columns
    kinds = [kind for kind in CHANNEL if kind in c["kind"]]
    figure, grid = new_figure(
        (WIDE if len(kinds) > 1 else SINGLE, 2.8), rows=1, columns=len(kinds), sharey=True,
        squeeze=False,
    )  # fmt: skip
    keys = list(zip(c["kind"], c["order"], strict=True))
    for axes, kind in zip(grid[0], kinds, strict=True):
        drawn = [order for order in STYLES if (kind, order) in keys]
        for i, order in enumerate(drawn):
            style = dict(color=PALETTE[ROLE[kind]]) | STYLES[order]
            at = [n for n, key in enumerate(keys) if key == (kind, order)]
            x, y, low, high = (
                np.array([c[name][n] for n in at], dtype=float)
                for name in ("components", "share", "low", "high")
            )
            axes.fill_between(x, 100 * low, 100 * high, color=style["color"], alpha=0.15, lw=0)
            axes.plot(x, 100 * y, **style)
            # names stand where they are first needed: all panels have the same lines
            if axes is grid[0, 0] or order not in [o for k, o in keys if k == kinds[0]]:
                axes.annotate(
                    SAID[order],
                    (0.97, 0.03 + 0.09 * (len(drawn) - 1 - i)),
                    xycoords="axes fraction",
                    ha="right",
                    fontsize=8,
                    color=ink(style["color"]),
                )
        last = max(c["components"])
        axes.set_xscale("log", base=2)
        ticks = [2**n for n in range(0, int(np.log2(last)) + 1, 2)]
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.axhline(100, color="0.2", lw=0.6)
        axes.axhline(0, color="0.2", lw=0.6)
        axes.set_title(CHANNEL[kind])
        axes.set_xlabel("components of each writer")
    low, high = grid[0, 0].get_ylim()
    grid[0, 0].set_ylim(low - 0.4 * (high - low), high)  # room for the names of the lines
    grid[0, 0].set_yticks([0, 50, 100])
    grid[0, 0].set_ylabel("share of the whole effect, %")
    return figure


def everyone(results: Results) -> Figure:
    """The largest contributions to one value and one key, with the roles of the heads."""
    c = results.columns
    kinds = [kind for kind in CHANNEL if kind in c["kind"]]
    n = max(c["kind"].count(kind) for kind in kinds)
    figure, grid = new_figure((WIDE, 0.21 * n + 1.0), rows=1, columns=len(kinds), squeeze=False)
    for axes, kind in zip(grid[0], kinds, strict=True):
        at = [i for i, k in enumerate(c["kind"]) if k == kind]
        for y, i in enumerate(at):
            colour = PALETTE[c["role"][i]]
            axes.barh(y, 100 * c["mean"][i], color=colour, height=0.7)
            axes.plot([100 * c["low"][i], 100 * c["high"][i]], [y, y], color="0.2", lw=0.8)
            if c["role"][i] != "other":
                axes.annotate(
                    c["role"][i],
                    (100 * max(c["high"][i], 0), y),
                    xytext=(4, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8,
                    color=ink(colour),
                )
        axes.axvline(0, color="0.2", lw=0.6)
        axes.set_yticks(range(len(at)), [c["name"][i] for i in at])
        axes.set_ylim(n - 0.4, -0.6)
        axes.margins(x=0.4)
        axes.set_title(f"{INPUT[kind]} of {c['reader'][at[0]]}")
        axes.set_xlabel(f"fall of {WATCHED[kind]}, %\n(below 0 it grows)")
    return figure
