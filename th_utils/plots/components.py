"""Figures of chapter 03."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from th_utils.figures import PALETTE, SINGLE, WIDE, label_points, new_figure
from th_utils.results import Results


def panels(results: Results) -> Figure:
    """Inhibition score above, composition score below, per component of each head."""
    c, m = results.columns, results.meta
    heads = list(dict.fromkeys(c["head"]))
    figure, grid = new_figure(
        (WIDE, 3.6), rows=2, columns=len(heads), sharex=True, sharey="row", squeeze=False
    )
    for j, head in enumerate(heads):
        at = [n for n, h in enumerate(c["head"]) if h == head]
        k = np.array([c["component"][n] for n in at])
        measured, score = (np.array([c[x][n] for n in at]) for x in ("inhibition", "composition"))
        picked = np.array([c["picked"][n] for n in at], dtype=bool)
        top, bottom = grid[0, j], grid[1, j]
        colours = np.where(picked, PALETTE["inhibition"], "0.65")
        top.axhspan(c["random_low"][at[0]], c["random_high"][at[0]], color="0.9", lw=0, zorder=0)
        top.bar(k, measured, color=colours, width=0.85)
        for name, marker in (("abba", "^"), ("baba", "v")):
            values = np.array([c[name][n] for n in at])
            top.plot(k[picked], values[picked], marker, ms=4, mfc="none", mec="0.2", mew=0.8)
        top.axhline(0, color="0.2", lw=0.6)
        bottom.bar(k, score, color=colours, width=0.85)
        bottom.axhline(m["random_level"], color="0.3", lw=0.8, ls="--")
        for axes, values in ((top, measured), (bottom, score)):
            best = int(np.argmax(values))
            axes.annotate(
                f"{head}.{k[best]}",
                (k[best], values[best]),
                xytext=(5, -1),
                textcoords="offset points",
                va="bottom",
                fontsize=8,
            )
        top.set_title(f"inhibition head {head}")
        bottom.set_xlabel("component")
    grid[0, 0].set_ylabel("inhibition score\n(fall when removed)")
    grid[1, 0].set_ylabel(f"composition score\nwith query of {m['mover']}")
    return figure


def removal(results: Results) -> Figure:
    """What is left of the mover's preference and of the logit difference after removals."""
    c = results.columns
    n = len(c["removed"])
    figure, grid = new_figure((WIDE, 0.3 * n + 1.0), rows=1, columns=2, sharey=True, squeeze=False)
    quantities = (
        ("inhibition", "inhibition score of the main mover"),
        ("logit difference", "logit difference, nats"),
    )
    for axes, (name, title) in zip(grid[0], quantities, strict=True):
        for i in range(n):
            colour = PALETTE["control"] if c["control"][i] else PALETTE["inhibition"]
            if i == 0:
                colour = "0.2"
            mean, low, high = (c[f"{name} {end}"][i] for end in ("mean", "low", "high"))
            axes.plot([low, high], [i, i], color=colour, lw=1.5)
            axes.plot(mean, i, "o", ms=5, color=colour)
            axes.annotate(
                f"{mean:.2f}",
                (high, i),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=colour,
            )
        axes.axvline(c[f"{name} mean"][0], color="0.8", lw=0.8, zorder=0)
        axes.axvline(0, color="0.2", lw=0.6)
        axes.set_xlabel(title)
        axes.margins(x=0.15)
    grid[0, 0].set_yticks(range(n), c["removed"])
    grid[0, 0].set_ylim(n - 0.4, -0.6)
    return figure


def in_turn(results: Results) -> Figure:
    """Effect of each component in the mover's query alone, and with everything recomputed."""
    c = results.columns
    heads = list(dict.fromkeys(c["head"]))
    figure, grid = new_figure(
        (WIDE if len(heads) > 1 else SINGLE, 2.7), rows=1, columns=len(heads), squeeze=False
    )
    named = []
    for axes, head in zip(grid[0], heads, strict=True):
        at = [n for n, h in enumerate(c["head"]) if h == head]
        direct, full = (np.array([c[x][n] for n in at]) for x in ("direct", "full"))
        ends = [min(direct.min(), full.min(), 0), max(direct.max(), full.max())]
        axes.plot(ends, ends, color="0.75", lw=0.8, zorder=0)
        axes.plot(direct, full, "o", ms=3.5, color=PALETTE["inhibition"], alpha=0.8)
        axes.axhline(0, color="0.2", lw=0.5)
        axes.axvline(0, color="0.2", lw=0.5)
        axes.set_title(f"inhibition head {head}")
        axes.set_xlabel("fall, mover's query alone")
        best = np.argsort(-direct)[:2]
        names = [f"{head}.{c['component'][at[n]]}" for n in best]
        named.append((axes, direct[best], full[best], names))
    grid[0, 0].set_ylabel("fall, everything recomputed")
    for axes, x, y, names in named:
        label_points(axes, x, y, names)
    return figure
