"""The picture on the front page: what chapter 03 found, from the tables of two of its figures."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from th_utils.figures import PALETTE, SINGLE, ink, new_figure
from th_utils.prose.finding import leading
from th_utils.results import Results


def finding(panels: Results, removal: Results) -> Figure:
    """One head's components as the weights and the model see them, and what is left without.

    Args:
        panels: scores and effects of all components (`fig-03-panels`).
        removal: the mover's preference with components removed (`fig-03-removal`).
    """
    found = leading(panels, removal)
    figure, (top, middle, bottom) = new_figure((SINGLE, 4.6), rows=3)
    k = np.arange(len(found.scores))
    colours = np.where(k == found.component, PALETTE["inhibition"], "0.72")
    for axes, values in ((top, found.scores), (middle, found.falls)):
        axes.bar(k, values, color=colours, width=0.85)
        axes.axhline(0, color="0.2", lw=0.6)
        axes.annotate(
            f"component {found.component}", (found.component + 0.45, values[found.component]),
            xytext=(4, 0), textcoords="offset points", va="top",
            color=ink(PALETTE["inhibition"]), fontsize=9,
        )  # fmt: skip
        axes.set_xticks([])
        axes.spines.bottom.set_visible(False)
    top.axhline(panels.meta["random_level"], color="0.3", lw=0.8, ls="--")
    top.annotate(
        "chance", (1, panels.meta["random_level"]), xycoords=("axes fraction", "data"),
        xytext=(2, 0), textcoords="offset points", va="center", fontsize=8, color="0.2",
    )  # fmt: skip
    top.set_title("1  Weights: how well it can be read")
    middle.set_title("2  Model: what it does to the mover")
    top.set_ylabel("score")
    middle.set_ylabel("effect")
    middle.set_xlabel(f"the {len(k)} components of one head", labelpad=4)
    rows = (
        ("as it is", found.intact, "0.2"),
        (f"{found.n_removed} taken out", found.without, PALETTE["inhibition"]),
        ("random others", found.control, "0.2"),
    )
    for i, (_, (mean, low, high), colour) in enumerate(rows):
        bottom.plot([low, high], [i, i], color=colour, lw=1.6)
        bottom.plot(mean, i, "o", ms=6, color=colour)
        bottom.annotate(
            f"{mean:.2f}", (high, i), xytext=(5, 0), textcoords="offset points", va="center",
            fontsize=9, color=ink(colour),
        )  # fmt: skip
    bottom.axvline(found.intact[0], color="0.8", lw=0.8, zorder=0)
    bottom.axvline(0, color="0.2", lw=0.6)
    bottom.set_yticks(range(len(rows)), [name for name, *_ in rows])
    bottom.set_ylim(len(rows) - 0.5, -0.6)
    bottom.margins(x=0.15)
    bottom.set_title("3  Taken out: the mover's preference")
    bottom.set_xlabel("attention to the right name − to the wrong one")
    return figure
