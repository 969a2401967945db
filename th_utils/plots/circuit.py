"""Figures of chapter 01."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from th_utils.figures import PALETTE, SINGLE, WIDE, ink, label_points, new_figure
from th_utils.results import Results

ORDER_COLOURS = {"ABBA": PALETTE["mover"], "BABA": PALETTE["inhibition"]}


def task(results: Results) -> Figure:
    """Mean logit difference by template and order of the names, with intervals."""
    c = results.columns
    templates = sorted({t for t in c["template"] if t})
    figure, axes = new_figure((SINGLE, 0.34 * len(templates) + 1.1))
    for i, template in enumerate(c["template"]):
        mean, low, high = c["mean"][i], c["low"][i], c["high"][i]
        if template == 0:
            axes.axvline(mean, color="0.6", lw=1, zorder=0)
            axes.annotate(
                f"all prompts: {mean:.1f}", (mean, -0.75), ha="center", va="bottom", color="0.35"
            )
            continue
        order = c["order"][i]
        y = templates.index(template) + (-0.14 if order == "ABBA" else 0.14)
        axes.plot([low, high], [y, y], color=ORDER_COLOURS[order], lw=1.5)
        axes.plot(mean, y, "o" if order == "ABBA" else "s", ms=4.5, color=ORDER_COLOURS[order])
    axes.axvline(0, color="0.2", lw=0.8)
    axes.set_yticks(range(len(templates)), [f"template {t}" for t in templates])
    axes.set_ylim(len(templates) - 0.5, -0.8)
    axes.set_xlabel("logit(indirect object) − logit(subject), nats")
    for x, order, text in ((0.0, "ABBA", "● ABBA"), (0.2, "BABA", "■ BABA")):
        axes.annotate(
            text,
            (x, 1),
            xycoords="axes fraction",
            xytext=(0, 16),  # above the line that names the mean
            textcoords="offset points",
            va="bottom",
            color=ink(ORDER_COLOURS[order]),
        )
    return figure


def attribution(results: Results) -> Figure:
    """Direct logit attribution of every head, layer by head; heads with a role are named."""
    c = results.columns
    layers, heads = max(c["layer"]) + 1, max(c["head"]) + 1
    grid = np.zeros((heads, layers))
    grid[c["head"], c["layer"]] = c["mean"]
    limit = float(np.abs(grid).max())
    figure, axes = new_figure((WIDE, 0.2 * heads + 1.3))
    image = axes.imshow(
        grid, cmap="PuOr_r", norm=TwoSlopeNorm(0, -limit, limit), aspect="auto", origin="lower"
    )
    strongest = sorted(range(len(c["mean"])), key=lambda i: -abs(c["mean"][i]))[:8]
    taken = {(c["layer"][i], c["head"][i]) for i in strongest}
    for i in strongest:
        x, y = c["layer"][i], c["head"][i]
        (right, up), covered = _beside(x, y, taken, grid.shape[::-1])
        taken |= covered
        axes.annotate(
            c["name"][i],
            (x + 0.5 * right, y + 0.5 * up),
            xytext=(2 * right, 2 * up),
            textcoords="offset points",
            ha=("center", "left", "right")[right],
            va=("center", "bottom", "top")[up],
            fontsize=8,
        )
    axes.set_xticks(range(0, layers, 2 if layers > 16 else 1))
    axes.set_yticks(range(0, heads, 2 if heads > 10 else 1))
    axes.set_xlabel("layer")
    axes.set_ylabel("head")
    bar = figure.colorbar(image, ax=axes, pad=0.015)
    bar.set_label("nats")
    return figure


def _beside(
    x: int, y: int, taken: set[tuple[int, int]], shape: tuple[int, int]
) -> tuple[tuple[int, int], set[tuple[int, int]]]:
    """On which side of its cell a name has room, and the cells that it covers there."""
    layers, heads = shape
    reach = range(1, 3 if layers > 16 else 2)  # cells that a name is wide
    sides = {
        (-1, 0): {(x - n, y) for n in reach},
        (1, 0): {(x + n, y) for n in reach},
        (0, 1): {(x + n, y + 1) for n in (-1, 0, 1)},
        (0, -1): {(x + n, y - 1) for n in (-1, 0, 1)},
    }
    for side, cells in sides.items():
        if not cells & taken and all(0 <= a < layers and 0 <= b < heads for a, b in cells):
            return side, cells
    return (-1, 0), sides[-1, 0]


def attention(results: Results) -> Figure:
    """Mean attention of the heads with a role between labelled positions, as a table."""
    c = results.columns
    looks = [name for name in c if ">" in name]
    grid = np.array([c[look] for look in looks], dtype=float).T
    rows = len(c["name"])
    figure, axes = new_figure((SINGLE + 0.6, 0.21 * rows + 1.0))
    axes.imshow(grid, cmap="Greys", vmin=0, vmax=1, aspect="auto")
    for i, j in np.ndindex(*grid.shape):
        axes.annotate(
            f"{grid[i, j]:.2f}",
            (j, i),
            ha="center",
            va="center",
            fontsize=8,
            color="white" if grid[i, j] > 0.55 else "black",
        )
    axes.set_xticks(range(len(looks)), [look.replace(">", "\n→ ") for look in looks])
    axes.xaxis.tick_top()
    axes.set_yticks(range(rows), [f"{r}  {n}" for r, n in zip(c["role"], c["name"], strict=True)])
    for tick, role in zip(axes.get_yticklabels(), c["role"], strict=True):
        tick.set_color(ink(PALETTE[role]))
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for i in range(1, rows):
        if c["role"][i] != c["role"][i - 1]:
            axes.axhline(i - 0.5, color="0.5", lw=0.6)
    return figure


def roles_map(results: Results) -> Figure:
    """Heads with a role in the plane of layers and heads; open where not found again."""
    c, m = results.columns, results.meta
    figure, axes = new_figure((WIDE, 0.2 * m["heads"] + 1.5))
    named: set[str] = set()
    for i, role in enumerate(c["role"]):
        x, y, colour = c["layer"][i], c["head"][i], PALETTE[role]
        axes.plot(x, y, "s", ms=5.5, mec=colour, mew=1.3, mfc=colour if c["again"][i] else "white")
        named.add(role)
    roles = [role for role in PALETTE if role in named]
    width = np.array([len(role) + 3 for role in roles])  # to each as much room as it has letters
    middle = (np.cumsum(width) - width / 2) / width.sum()
    for role, at in zip(roles, middle.tolist(), strict=True):
        axes.annotate(
            role,
            (at, 1.02),
            xycoords="axes fraction",
            color=ink(PALETTE[role]),
            ha="center",
            va="bottom",
        )
    axes.set_xlim(-0.8, m["layers"] - 0.2)
    axes.set_ylim(-0.8, m["heads"] - 0.1)
    axes.set_xlabel("layer")
    axes.set_ylabel("head")
    axes.grid(color="0.93", lw=0.5)
    label_points(
        axes, c["layer"], c["head"], c["name"], colour=[PALETTE[role] for role in c["role"]]
    )
    return figure
