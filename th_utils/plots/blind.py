"""Figures of chapter 09."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from th_utils.figures import PALETTE, SINGLE, WIDE, ink, new_figure
from th_utils.results import Results

KINDS = {"Q": "query", "K": "key", "V": "value"}
PAIRS = {
    "Q": ("inhibition", "mover"),
    "K": ("previous-token", "induction"),
    "V": ("duplicate-token", "inhibition"),
}
RAW, CORRECTED, TASK, CHANCE = "#000000", "#0072B2", "#009E73", "#888888"
STYLES = {
    "raw": (RAW, "-", "raw score"),
    "corrected": (CORRECTED, "-", "corrected"),
    "with the task's activations": (TASK, "--", "+ task's activations"),
}
NEEDS = {"weights": RAW, "random tokens": CORRECTED, "prompts": TASK}


def rows(table: dict[str, list], **where: Any) -> list[dict[str, Any]]:
    """Rows of a table in which some columns have given values."""
    found = (dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True))
    return [row for row in found if all(row[name] == value for name, value in where.items())]


def lift(results: Results) -> Figure:
    """Lift over the base rate by depth of the list, for each kind (columns) and task (rows)."""
    c = results.columns
    kinds = [kind for kind in KINDS if kind in c["kind"]]
    tasks = list(dict.fromkeys(c["task"]))
    figure, grid = new_figure(
        (WIDE, 2.0 * len(tasks) + 0.5), rows=len(tasks), columns=len(kinds), sharex=True,
        sharey=True, squeeze=False,
    )  # fmt: skip
    for i, task in enumerate(tasks):
        for j, kind in enumerate(kinds):
            axes = grid[i, j]
            for score, (colour, line, _) in STYLES.items():
                found = rows(c, kind=kind, task=task, score=score)
                k = [row["k"] for row in found]
                base = [row["lift"] / row["precision"] if row["precision"] else np.nan
                        for row in found]  # fmt: skip
                if found and found[0]["low"] is not None:
                    ends = [[row[end] * b for row, b in zip(found, base, strict=True)]
                            for end in ("low", "high")]  # fmt: skip
                    axes.fill_between(k, *ends, color=colour, alpha=0.15, lw=0)
                axes.plot(k, [row["lift"] for row in found], line, color=colour, lw=1.4)
                if score == "raw":
                    chance = [row["chance_heads"] * b for row, b in zip(found, base, strict=True)]
                    axes.plot(k, chance, ":", color=CHANCE, lw=1.2)
            axes.set(xscale="log", yscale="log", ylim=(0.9, 200))
            axes.set_xticks([20, 100, 1000, 5000], ["20", "100", "1000", "5000"])
            axes.set_yticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
            axes.minorticks_off()
            axes.axhline(1, color="0.7", lw=0.6)
            if i == 0:
                axes.set_title(KINDS[kind])
            if i == len(tasks) - 1:
                axes.set_xlabel("highest scores looked at")
        grid[i, 0].set_ylabel(f"{task}\nlift over base rate")
    texts = [(0.04, 0.03, CHANCE, "chance, whole heads")]
    texts += [(0.04, 0.105 + 0.075 * i, STYLES[s][0], STYLES[s][2]) for i, s in enumerate(STYLES)]
    for x, y, colour, text in texts:
        grid[0, -1].annotate(text, (x, y), xycoords="axes fraction", color=ink(colour), fontsize=8)
    return figure


def corrections(results: Results) -> Figure:
    """Rank correlation and lift of each correction, on the task for choosing and on another."""
    c, m = results.columns, results.meta
    names = list(dict.fromkeys(c["correction"]))
    figure, grid = new_figure((WIDE, 0.23 * len(names) + 0.9), columns=2, sharey=True)
    for axes, column, title in zip(
        grid, ("correlation", "lift"), ("rank correlation with the effect", "lift at 100"),
        strict=True,
    ):  # fmt: skip
        for i, name in enumerate(names):
            (one,), (two,) = (rows(c, correction=name, task=m[t]) for t in ("chosen_on", "other"))
            colour = NEEDS[one["needs"]]
            axes.plot([one[column], two[column]], [i, i], color=colour, lw=0.8, alpha=0.5)
            axes.plot(one[column], i, "o", mfc="white", mec=colour, ms=5)
            axes.plot(two[column], i, "o", color=colour, ms=5)
        axes.set_xlabel(title)
        axes.axhline(names.index(m["first_without"]) - 0.5, color="0.7", lw=0.6)
        axes.grid(axis="y", color="0.93", lw=0.6)
        axes.set_axisbelow(True)
    grid[0].set_yticks(range(len(names)), names)
    for tick, name in zip(grid[0].get_yticklabels(), names, strict=True):
        tick.set_color(ink(NEEDS[rows(c, correction=name)[0]["needs"]]))
        tick.set_fontweight("bold" if name == m["chosen"] else "normal")
    grid[0].set_ylim(len(names) - 0.4, -0.6)
    return figure


def calibration(results: Results) -> Figure:
    """Mean effect in bins of the score, relative to the mean of all pairs."""
    c = results.columns
    kinds = [kind for kind in KINDS if kind in c["kind"]]
    figure, grid = new_figure((WIDE, 2.7), columns=len(kinds), sharey=True, squeeze=False)
    for axes, kind in zip(grid[0], kinds, strict=True):
        for score in ("raw", "corrected"):
            found = rows(c, kind=kind, score=score)
            colour, x = STYLES[score][0], np.arange(len(found))
            mean = found[0]["mean_effect"]
            low, high = ([row[e] / mean for row in found] for e in ("effect_low", "effect_high"))
            if score == "raw":
                axes.fill_between(x, low, high, color="0.85", lw=0)
            axes.plot(x, [row["effect"] / mean for row in found], "o-", ms=3.5, color=colour)
        names = [_share(1 - row["low"]) for row in found]
        axes.set_xticks(x, [name if i % 2 == 0 else "" for i, name in enumerate(names)])
        axes.set_yscale("log")
        axes.axhline(1, color="0.6", lw=0.6)
        axes.set(title=KINDS[kind], xlabel="bin of the score, top share")
    grid[0, 0].set_ylabel("effect, in means of all pairs")
    for y, name in ((0.9, "raw"), (0.8, "corrected")):
        grid[0, 0].annotate(
            STYLES[name][2], (0.04, y), xycoords="axes fraction", color=STYLES[name][0], fontsize=8
        )
    return figure


def _share(x: float | int) -> str:
    return f"{100 * x:.3g}%"


def reuse(results: Results) -> Figure:
    """Share of the strongest on one task (rows) that are hits on another (columns), by kind."""
    c = results.columns
    kinds = [kind for kind in KINDS if kind in c["kind"]]
    tasks = list(dict.fromkeys([*c["task"], *c["other"]]))
    names = [task.replace(", ", ",\n") for task in tasks]
    figure, grid = new_figure((WIDE, 3.0), columns=len(kinds), sharey=True, squeeze=False)
    for axes, kind in zip(grid[0], kinds, strict=True):
        share = np.full((len(tasks), len(tasks)), np.nan)
        for row in rows(c, kind=kind):
            share[tasks.index(row["task"]), tasks.index(row["other"])] = row["share"]
        axes.imshow(share, cmap="Blues", vmin=0, vmax=2, aspect="auto")  # texts are dark
        for (i, j), value in np.ndenumerate(share):
            if np.isfinite(value):
                axes.annotate(f"{100 * value:.0f}", (j, i), ha="center", va="center", fontsize=8)
        axes.set_xticks(range(len(tasks)), names, rotation=90)
        axes.set(title=KINDS[kind], xlabel="% that are hits on")
        axes.tick_params(length=0)
    grid[0, 0].set_yticks(range(len(tasks)), names)
    grid[0, 0].set_ylabel("strongest hundred on")
    return figure


def known(results: Results) -> Figure:
    """Place of the best component of each known pair among all scores of its reader."""
    c = results.columns
    pairs = [row for kind in PAIRS for row in rows(c, kind=kind)]
    gaps = [i + 1.6 * list(PAIRS).index(row["kind"]) for i, row in enumerate(pairs)]
    figure, axes = new_figure((SINGLE, 0.145 * (len(pairs) + 5) + 0.6))
    for y, row in zip(gaps, pairs, strict=True):
        colour = PALETTE[row["role"]]
        raw = row["rank"] / row["of"]
        if row.get("corrected_rank") is not None:
            other = row["corrected_rank"] / row["of"]
            axes.plot([raw, other], [y, y], color=colour, lw=0.8, alpha=0.6)
            axes.plot(other, y, "o", ms=4, color=colour)
        axes.plot(raw, y, "o", ms=4, mfc="white", mec=colour)
    axes.axvline(0.01, color="0.4", lw=0.8, ls="--")
    axes.set_xscale("log")
    axes.set_yticks(gaps, [f"{row['sender']} → {row['reader']}" for row in pairs], fontsize=8)
    axes.tick_params(axis="y", length=0)
    for kind, (role, reader) in PAIRS.items():
        at = [y for y, row in zip(gaps, pairs, strict=True) if row["kind"] == kind]
        if at:
            axes.annotate(
                f"{role} → {reader}, {KINDS[kind]}", (0.99, at[0] - 1.0),
                xycoords=("axes fraction", "data"), ha="right", va="center", fontsize=8,
                color=ink(PALETTE[role]), backgroundcolor="white",
            )  # fmt: skip
    axes.set_ylim((gaps[-1] if gaps else 0) + 0.8, -1.7)
    axes.set_xlabel("rank among the reader's scores, share of all")
    return figure


def edges(results: Results) -> Figure:
    """Heads by layer, the strongest found channels between them; known pairs by colour."""
    c, m = results.columns, results.meta
    kinds = [kind for kind in KINDS if kind in c["kind"]]
    figure, grid = new_figure(
        (WIDE, 2.15 * len(kinds) + 0.3), rows=len(kinds), sharex=True, squeeze=False
    )
    for axes, kind in zip(grid[:, 0], kinds, strict=True):
        x, y = np.meshgrid(range(m["layers"]), range(m["heads"]))
        axes.plot(x.ravel(), y.ravel(), "o", ms=1.5, color="0.82", zorder=1)
        found = rows(c, kind=kind)
        most = max(row["effect"] for row in found)
        for row in sorted(found, key=lambda row: row["role"] != "other"):
            ends = [(row[f"{end}_layer"], row[f"{end}_head"]) for end in ("writer", "reader")]
            colour = PALETTE[row["role"]] if row["role"] != "other" else "0.45"
            axes.add_patch(
                FancyArrowPatch(
                    *ends, arrowstyle="-|>,head_length=2.5,head_width=1.2", shrinkA=2, shrinkB=2,
                    connectionstyle="arc3,rad=-0.18", color=colour, zorder=3,
                    lw=0.5 + 1.8 * (row["effect"] / most) ** 0.5,
                    alpha=0.95 if row["role"] != "other" else 0.5,
                )
            )  # fmt: skip
            axes.plot(*zip(*ends, strict=True), "o", ms=3.5, color=colour, zorder=4, ls="none")
        role, reader = PAIRS[kind]
        axes.set_title(KINDS[kind], loc="left")
        axes.set_title(f"{role} → {reader}", loc="right", color=ink(PALETTE[role]), fontsize=8)
        axes.set(ylabel="head", ylim=(m["heads"] - 0.3, -0.7), xlim=(-0.7, m["layers"] - 0.3))
    grid[-1, 0].set_xlabel("layer")
    return figure
