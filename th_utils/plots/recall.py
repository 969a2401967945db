"""Figures of chapter 06."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from th_utils.figures import PALETTE, SINGLE, WIDE, ink, new_figure
from th_utils.results import Results

AMONG = {"vocabulary": ("whole vocabulary", "mover"), "listed": ("among the items", "inhibition")}


def accuracy(results: Results) -> Figure:
    """Accuracy by length, over the vocabulary and among the items, in both orders of mention."""
    figure, axes = new_figure((SINGLE, 3.2))
    order, among = np.array(results.columns["order"]), np.array(results.columns["among"])
    length = results["length"]
    ends = []
    # side by side, or intervals would lie on each other; as far apart as lengths leave room
    step = min(0.25, 0.025 * float(np.ptp(length)))
    for i, (name, (text, role)) in enumerate(AMONG.items()):
        colour = PALETTE[role]
        for kind, marker, fill in (("list", "o", colour), ("shuffled", "s", "white")):
            at = np.flatnonzero((among == name) & (order == kind))
            at = at[np.argsort(length[at])]
            x = length[at] + step * (i - 0.5 if kind == "list" else i + 1.5)
            y, low, high = (results[end][at] for end in ("mean", "low", "high"))
            axes.vlines(x, low, high, color=colour, lw=1)
            line = "-" if kind == "list" else ""
            axes.plot(x, y, marker, ls=line, color=colour, mfc=fill, ms=4.5, lw=1.2)
            if kind == "list":
                ends.append((y[-1], length.max() + step, text, colour))
    chance = np.arange(length.min(), length.max() + 1)
    axes.plot(chance, 1 / chance, color="0.5", ls="--", lw=1)
    ends.append((1 / chance[-1], chance[-1] + step, "a guess among them", "0.35"))
    _labels(axes, ends)
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("items of the list")
    axes.set_ylabel("accuracy")
    if "shuffled" in order:
        axes.set_title("filled: repeats in list order; open: shuffled", weight="normal")
    return figure


def _labels(axes, ends: list[tuple]) -> None:
    """Names at the right ends of lines, apart from each other; `ends` holds y, x, text, colour."""
    least, placed = 0.075, -1.0
    for y, x, text, colour in sorted(ends):
        placed = max(y, placed + least)
        axes.annotate(
            text,
            (x, placed),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=ink(colour),
            annotation_clip=False,
        )


def _places(longest: int) -> list[int]:
    """Ticks for places: all of a short list, every second one of a long one."""
    return list(range(1, longest + 1, 1 if longest <= 8 else 2 if longest <= 14 else 4))


def places(results: Results) -> Figure:
    """Accuracy by the place of the item left out, one panel for each length shown."""
    length, order = results["length"], np.array(results.columns["order"])
    shown = results.meta["shown"]
    figure, grid = new_figure(
        (WIDE, 2.5), columns=len(shown), sharey=True, squeeze=False,
        width_ratios=[max(3, n) for n in shown],
    )  # fmt: skip
    for axes, n in zip(grid[0], shown, strict=True):
        at = np.flatnonzero((length == n) & (order == "list"))
        place, mean, low, high, listed = (
            results[name][at] for name in ("place", "mean", "low", "high", "listed")
        )
        axes.bar(place, mean, color=PALETTE["mover"], width=0.8, alpha=0.75)
        axes.vlines(place, low, high, color="0.2", lw=1)
        axes.plot(place, listed, "_", color=PALETTE["inhibition"], ms=9, mew=2)
        axes.axhline(1 / n, color="0.5", ls="--", lw=1)
        axes.set_title(f"{n} items")
        axes.set_xlabel("place of the answer")
        axes.set_xticks(_places(n))
    grid[0, 0].set_ylim(0, 1.03)
    grid[0, 0].set_ylabel("accuracy")
    return figure


def _shades(n: int) -> list:
    """Colours from light to dark, for lists from short to long."""
    return [colormaps["viridis_r"](x) for x in np.linspace(0.15, 0.95, n)]


def coordinates(results: Results) -> Figure:
    """Each coordinate by the place of the item left out, a line for each length."""
    length, axis = results["length"], results["axis"]
    names = list(dict.fromkeys(results.columns["name"]))
    shown = results.meta["shown"]
    figure, grid = new_figure((WIDE, 2.8), columns=len(names), squeeze=False)
    for k, (axes, name) in enumerate(zip(grid[0], names, strict=True), 1):
        for n, colour in zip(shown, _shades(len(shown)), strict=True):
            at = np.flatnonzero((length == n) & (axis == k))
            place, mean, low, high = (results[c][at] for c in ("place", "mean", "low", "high"))
            axes.fill_between(place, low, high, color=colour, alpha=0.15, lw=0)
            axes.plot(place, mean, "o-", color=colour, ms=3.5)
            axes.annotate(
                str(n),
                (place[-1], mean[-1]),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=ink(colour[:3]),
            )
        axes.axhline(0, color="0.6", lw=0.6, zorder=0)
        axes.set_title(f"coordinate {k}: {name}")
        axes.set_xlabel("place of the answer")
        axes.set_xticks(_places(max(shown)))
        axes.margins(x=0.12)
    grid[0, 0].set_ylabel("mean coordinate")
    return figure


def crowding(results: Results) -> Figure:
    """Discriminability of neighbouring places by length: each pair, and the mean."""
    axis, length = results["axis"], results["length"]
    d, place = results["d"], results["place"]
    figure, axes = new_figure((SINGLE, 2.8))
    # a list of two has one pair of neighbours, which nothing can crowd
    lengths = [n for n in sorted(set(length.astype(int))) if n > 2]
    means = []
    for n in lengths:
        at = np.flatnonzero((length == n) & (axis == 1) & np.isfinite(d))
        means.append(d[at].mean())
        ends = (place[at] == 1) | (place[at] == n - 1)
        axes.plot(length[at][~ends], d[at][~ends], "o", ms=3.5, color="0.7")
        axes.plot(length[at][ends], d[at][ends], "o", ms=5, color="0.35", mfc="white")
    first = [int(np.flatnonzero(length == n)[0]) for n in lengths]
    low, high = (results[f"d {end}"][first] for end in ("low", "high"))
    axes.vlines(lengths, low, high, color=PALETTE["inhibition"], lw=1.2, zorder=3)
    axes.plot(lengths, means, "-", color=PALETTE["inhibition"], zorder=3)
    axes.plot(lengths, means, "o", ms=5.5, color=PALETTE["inhibition"], zorder=3)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("items of the list")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("distance of neighbouring places\nin units of their spread")
    axes.set_title("blue: mean; open: first and last pair", weight="normal")
    return figure


def _items(n: int) -> list:
    """One colour for each place of a list, in order."""
    return [colormaps["plasma"](x) for x in np.linspace(0.02, 0.9, n)]


def subspace(results: Results) -> Figure:
    """The grid in slices along the third axis, coloured by the item looked at most."""
    x, y, z = (results[f"axis {k}"] for k in (1, 2, 3))
    item, share, chosen = results["item"], results["share"], results.columns["chosen"]
    n, slices = int(results["length"][0]), sorted(set(z))
    names = results.meta["names"]
    colours = _items(n)
    step = [np.diff(sorted(set(v))).min() for v in (x, y)]
    figure, grid = new_figure(
        (WIDE, 2.7), columns=len(slices), sharex=True, sharey=True, squeeze=False
    )
    for axes, level in zip(grid[0], slices, strict=True):
        for i in np.flatnonzero(z == level):
            # the larger the share of prompts that agree, the fuller the cell
            side = 0.3 + 0.65 * share[i]
            width, height = side * step[0], side * step[1]
            axes.bar(x[i], height, width, y[i] - height / 2, color=colours[int(item[i]) - 1], lw=0)
            if chosen[i]:
                axes.annotate(
                    chosen[i],
                    (x[i], y[i]),
                    ha="center",
                    va="center",
                    fontsize=8,
                    bbox=dict(boxstyle="round,pad=0.2", fc="white", ec="0.2", lw=0.8),
                )
        axes.set_title(f"{level:.0f}", weight="normal")
        for reach, along in ((x, axes.set_xlim), (y, axes.set_ylim)):
            pad = 0.6 * (step[0] if along == axes.set_xlim else step[1])
            along(reach.min() - pad, reach.max() + pad)
    grid[0, 0].set_ylabel(names[1])
    middle = grid[0, len(slices) // 2]
    middle.set_xlabel(names[0])
    figure.suptitle(f"slices along {names[2]}", x=0.01, ha="left", fontsize=9.5)
    handles = [
        middle.plot([], [], "s", ms=8, color=colour, label=f"item {k}")[0]
        for k, colour in enumerate(colours, 1)
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=n, handletextpad=0.1, columnspacing=1
    )
    return figure


def dimensions(results: Results) -> Figure:
    """Share of places selected, by what was set; and which places."""
    what = results.columns["what"]
    names = [name for name in results.columns if name.startswith("place ")]
    share = np.array([results[name] for name in names]).T
    chance, n = 1 / len(names), len(what)
    figure, grid = new_figure(
        (WIDE, 0.32 * n + 1.1), columns=2, sharey=True, squeeze=False, width_ratios=[1.1, 1]
    )
    left, right = grid[0]
    mean, low, high, found = (results[name] for name in ("mean", "low", "high", "found"))
    for i, name in enumerate(what):
        colour = PALETTE["inhibition"]
        if name.endswith("random"):
            colour = PALETTE["control"]
        elif i == 0:
            colour = "0.4"
        left.plot([low[i], high[i]], [i, i], color=colour, lw=1.5)
        left.plot(mean[i], i, "o", ms=5, color=colour)
        if np.isfinite(found[i]):
            left.plot(found[i], i, "|", ms=9, mew=1.5, color=colour)
    left.axvline(chance, color="0.5", ls="--", lw=1, zorder=0)
    left.set_xlim(0, 1)
    left.set_yticks(range(n), what)
    left.set_ylim(n - 0.5, -0.5)
    left.set_xlabel("share of places selected")
    right.imshow(share, cmap="Blues", vmin=0, vmax=1.3, aspect="auto")
    for i in range(n):
        for j in range(len(names)):
            right.annotate(f"{100 * share[i, j]:.0f}", (j, i), ha="center", va="center", fontsize=8)
    right.set_xticks(range(len(names)), [name.removeprefix("place ") for name in names])
    right.set_xlabel("place: selected in % of prompts")
    right.tick_params(length=0)
    return figure


def shorter(results: Results) -> Figure:
    """What is selected in lists of each length, and where the mover looks of itself."""
    length = results["length"]
    figure, axes = new_figure((SINGLE, 2.8))
    ends = []
    for name, text, role in (
        ("selected", "places selected", "inhibition"),
        ("itself", "looks at the answer\nof itself", "mover"),
    ):
        mean, low, high = (results[f"{name} {end}"] for end in ("mean", "low", "high"))
        x = length + (0.0 if name == "selected" else 0.06)
        axes.vlines(x, low, high, color=PALETTE[role], lw=1.5)
        axes.plot(x, mean, "o-", color=PALETTE[role])
        ends.append((mean[-1], length[-1], text, PALETTE[role]))
    many = np.linspace(length.min(), length.max(), 50)
    axes.plot(many, 1 / many, color="0.5", ls="--", lw=1)
    ends.append((1 / length[-1], length[-1], "chance", "0.35"))
    placed = -1.0
    for y, x, text, colour in sorted(ends):
        placed = max(y, placed + 0.12)
        axes.annotate(
            text, (x, placed), xytext=(9, 0), textcoords="offset points", va="center",
            fontsize=8, color=ink(colour), annotation_clip=False,
        )  # fmt: skip
    axes.set_ylim(0, 1.03)
    axes.set_xticks(length)
    axes.set_xlabel("items of the list")
    axes.set_ylabel("share")
    return figure
