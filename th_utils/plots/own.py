"""Figures of chapter 12."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from th_utils.figures import PALETTE, WIDE, new_figure
from th_utils.results import Results

KINDS = {"Q": "into queries", "K": "into keys", "V": "into values"}


def layers(results: Results) -> Figure:
    """The highest component score between any two layers, a panel for each kind of composition."""
    c = results.columns
    n = max(c["reader"]) + 1
    highest = max(c["ratio"])
    figure, grid = new_figure((WIDE, 2.6), rows=1, columns=len(KINDS), sharey=True, squeeze=False)
    for axes, (kind, title) in zip(grid[0], KINDS.items(), strict=True):
        table = np.full((n, n), np.nan)
        for k, sender, reader, ratio in zip(*c.values(), strict=True):
            if k == kind:
                table[sender, reader] = ratio
        image = axes.imshow(table, origin="lower", cmap="cividis_r", vmin=0, vmax=highest)
        best = np.unravel_index(np.nanargmax(table), table.shape)
        axes.plot(best[1], best[0], "s", ms=6, mfc="none", mec=PALETTE["mover"], mew=1.5)
        axes.annotate(
            f"highest {table[best]:.1f}",
            (0.04, 0.96),
            xycoords="axes fraction",
            ha="left",
            va="top",
        )
        axes.set_xlim(-0.5, n - 0.5)
        axes.set_ylim(-0.5, n - 0.5)
        axes.set_title(title)
        axes.set_xlabel("layer of the reader")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    grid[0, 0].set_ylabel("layer of the writer")
    bar = figure.colorbar(image, ax=list(grid[0]), pad=0.015, shrink=0.8)
    bar.set_label("times a random direction")
    return figure
