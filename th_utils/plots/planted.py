"""Figures of chapter 11."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from th_utils.figures import PALETTE, SINGLE, ink, new_figure
from th_utils.prose.planted import NAMES
from th_utils.results import Results

COLOURS = {
    "whole": PALETTE["control"],
    "component": PALETTE["inhibition"],
    "sums": PALETTE["previous-token"],
    "aligned": PALETTE["mover"],
}
FOUND, MISSED = PALETTE["mover"], PALETTE["inhibition"]


def matrices(results: Results) -> Figure:
    """Scores of all pairs of one model as shades, its planted pairs ringed."""
    c, heads = results.columns, results.meta["heads"]
    size = 1 + max(max(c["writer"]), max(c["reader"]))
    figure, grid = new_figure((SINGLE, 6.9), rows=2, columns=1)
    for axes, name in zip(grid, ("whole", "component"), strict=True):
        shades = np.full((size, size), np.nan)
        shades[c["writer"], c["reader"]] = c[name]
        axes.imshow(shades, cmap="Greys", interpolation="nearest", vmin=np.nanmin(shades) * 0.9)
        for i in np.flatnonzero(c["planted"]):
            raised = c[f"{name}_alarm"][i]
            axes.plot(
                c["reader"][i],
                c["writer"][i],
                "o",
                ms=9,
                mfc="none",
                mew=1.6,
                mec=FOUND if raised else MISSED,
                ls="none",
                clip_on=False,
            )
        found = sum(p and a for p, a in zip(c["planted"], c[f"{name}_alarm"], strict=True))
        axes.set_title(f"{NAMES[name]}: {found} of {sum(c['planted'])} found")
        # Layers that never read, or never write, are left out.
        axes.set_xlim(heads - 0.5, size - 0.5)
        axes.set_ylim(size - heads - 0.5, -0.5)
        middle = np.arange(size // heads) * heads + (heads - 1) / 2
        axes.set_xticks(middle[1:], range(1, size // heads))
        axes.set_yticks(middle[:-1], range(size // heads - 1))
        for edge in np.arange(1, size // heads) * heads - 0.5:
            axes.axvline(edge, color="0.85", lw=0.5)
            axes.axhline(edge, color="0.85", lw=0.5)
        axes.tick_params(length=0)
        axes.set_ylabel("layer of the writer")
    # In the corner where no reader is later than the writer.
    for text, colour, height in (("alarm", FOUND, 0.13), ("no alarm", MISSED, 0.05)):
        across = grid[0].transAxes
        grid[0].plot(0.04, height, "o", ms=7, mfc="none", mew=1.6, mec=colour, transform=across)
        grid[0].text(
            0.075, height, f"planted, {text}", transform=across, fontsize=8, va="center",
            color=ink(colour),
        )  # fmt: skip
    grid[1].set_xlabel("layer of the reader, head by head")
    return figure


def curves(results: Results) -> Figure:
    """Recall at the stated rate of false alarms, and precision of a list, against strength."""
    c = results.columns
    figure, grid = new_figure((SINGLE, 5.2), rows=2, columns=1, sharex=True)
    titles = {
        "recall": f"found, at {results.meta['rate']:.0%} false alarms a model",
        "precision": "right, in a list as long as there are channels",
    }
    for axes, measure in zip(grid, titles, strict=True):
        for name in ("whole", "component", "aligned"):
            at = [i for i, d in enumerate(c["detector"]) if d == name]
            strength = [c["strength"][i] for i in at]
            low, high, value = ([c[f"{measure}{end}"][i] for i in at]
                                for end in ("_low", "_high", ""))  # fmt: skip
            axes.fill_between(strength, low, high, color=COLOURS[name], alpha=0.18, lw=0)
            axes.plot(strength, value, "o-", color=COLOURS[name], ms=3.5)
            _name_curve(axes, name, strength, value)
        axes.set_ylim(-0.04, 1.06)
        axes.set_title(titles[measure])
        axes.set_ylabel("share")
    ticks = [s for s in dict.fromkeys(c["strength"]) if float(np.log2(s)).is_integer()]
    names = [f"1/{round(1 / s)}" if s < 1 else f"{s:.0f}" for s in ticks]
    grid[1].set_xscale("log", base=2)
    grid[1].set_xticks(ticks, names)
    grid[1].minorticks_off()
    grid[1].set_xlabel("strength (1: a typical component of the head)")
    return figure


def _name_curve(axes: Any, name: str, strength: list[float], value: list[float]) -> None:
    """A curve's name beside where it rises; under its beginning, where it is high from there on."""
    side, height = ("right", 0.5) if name == "component" else ("left", 0.3)
    below = np.flatnonzero(np.array(value) < height)
    if len(below) and below[-1] + 1 < len(value):
        i = below[-1]
        part = (height - value[i]) / (value[i + 1] - value[i])
        x = strength[i] * (strength[i + 1] / strength[i]) ** part
        offset = (-9 if side == "right" else 9, 0)
    else:
        x, height, side, offset = strength[0], min(value[:3]), "left", (0, -19)
    axes.annotate(
        NAMES[name].replace(" ", "\n"), (x, height), xytext=offset, textcoords="offset points",
        ha=side, va="center", fontsize=8, color=ink(COLOURS[name]),
    )  # fmt: skip


def conditions(results: Results) -> Figure:
    """Recall in hundredths, one row a condition, one block of columns a strength."""
    c = results.columns
    rows = list(dict.fromkeys(c["condition"]))
    strengths = sorted(set(c["strength"]))
    where = {key: i for i, key in enumerate(zip(c["condition"], c["strength"], c["detector"],
                                                strict=True))}  # fmt: skip
    figure, grid = new_figure(
        (SINGLE, 0.235 * len(rows) + 1.5), rows=1, columns=len(strengths), sharey=True,
        squeeze=False,
    )  # fmt: skip
    for axes, strength in zip(grid[0], strengths, strict=True):
        share = np.array([[c["recall"][where[row, strength, name]] for name in NAMES]
                          for row in rows])  # fmt: skip
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1.6, aspect="auto")
        for (i, j), value in np.ndenumerate(share):
            axes.text(j, i, f"{100 * value:.0f}", ha="center", va="center", fontsize=8,
                      color="0.1")  # fmt: skip
        axes.set_title(f"strength {strength:.2g}")
        axes.set_xticks(range(len(NAMES)), [name.split()[0] for name in NAMES.values()],
                        rotation=90)  # fmt: skip
        axes.tick_params(length=0)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
    grid[0, 0].set_yticks(range(len(rows)), rows)
    return figure


def false_alarms(results: Results) -> Figure:
    """Share of models without channels that raise an alarm, against the rate that was stated."""
    c = results.columns
    figure, axes = new_figure((SINGLE, 3.4))
    rates = np.geomspace(0.01, 0.5, 60)
    names = [name for name in NAMES if name in c["detector"]]
    chances = {
        name: np.array([p for p, d in zip(c["chance"], c["detector"], strict=True) if d == name])
        for name in names
    }
    models = len(chances[names[0]])
    spread = 1.96 * np.sqrt(rates * (1 - rates) / models)
    axes.fill_between(rates, np.clip(rates - spread, 0, 1), rates + spread, color="0.9", lw=0)
    axes.plot(rates, rates, color="0.5", lw=0.8, ls="--")
    ends = []
    for name in names:
        share = (chances[name][:, None] <= rates).mean(0)
        axes.plot(rates, share, color=COLOURS[name], drawstyle="steps-post")
        ends.append((float(share[-1]), NAMES[name], ink(COLOURS[name])))
    ends.append((float(rates[-1]), "as stated", "0.35"))
    axes.set_xlim(0, 0.5)
    axes.set_ylim(0, 0.56)
    _name_ends(axes, ends, gap=0.042)
    axes.set_xlabel("stated rate: chance of any false alarm")
    axes.set_ylabel(f"share of {models} models with an alarm")
    return figure


def _name_ends(axes: Any, ends: Sequence[tuple[float, str, str]], gap: float) -> None:
    """Names of lines right of where they end, moved apart until none lies on another."""
    ends = sorted(ends)
    heights = [y for y, _, _ in ends]
    for _ in range(200):
        for i in range(len(heights) - 1):
            lack = gap - (heights[i + 1] - heights[i])
            if lack > 1e-9:
                heights[i] -= lack / 2
                heights[i + 1] += lack / 2
    right = axes.get_xlim()[1]
    for (y, text, colour), height in zip(ends, heights, strict=True):
        axes.annotate(
            text, (right, y), xytext=(right * 1.05, height), fontsize=8, va="center",
            color=colour, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "lw": 0.5, "color": colour, "shrinkA": 1, "shrinkB": 1},
        )  # fmt: skip
