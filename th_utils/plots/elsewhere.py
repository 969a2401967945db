"""Figures of chapter 10."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from th_utils.figures import PALETTE, WIDE, ink, new_figure
from th_utils.plots.channels import PAIRS
from th_utils.results import Results

VERDICTS = {"holds": "#009E73", "partly": "#E69F00", "fails": "#D55E00"}


def claims(results: Results) -> Figure:
    """Claims by edition: value and verdict, by colour, sign and word."""
    c = results.columns
    names, editions = list(dict.fromkeys(c["claim"])), list(dict.fromkeys(c["edition"]))
    figure, axes = new_figure((WIDE, 0.3 * len(names) + 0.7))
    signs = {"holds": "●", "partly": "◐", "fails": "○"}
    for edition, claim, value, said in zip(*(c[n] for n in c), strict=True):
        x, y = editions.index(edition), names.index(claim)
        axes.text(
            x, y, f"{signs[said]} {said}  {value:.2f}", ha="center", va="center",
            color=ink(VERDICTS[said]),
        )  # fmt: skip
    for y in range(1, len(names)):
        axes.axhline(y - 0.5, color="0.9", lw=0.6)
    axes.set_xlim(-0.5, len(editions) - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), names)
    axes.set_xticks(range(len(editions)), editions)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def ranks(results: Results) -> Figure:
    """Share of the reader's scores above each known pair's best component, by type and edition."""
    c, controls = results.columns, results.meta["controls"]
    editions = list(dict.fromkeys(c["edition"]))
    kinds = [kind for kind in PAIRS if kind in c["kind"]]
    figure, grid = new_figure(
        (WIDE, 0.62 * len(editions) * len(kinds) + 0.8),
        rows=len(kinds),
        columns=1,
        sharex=True,
        squeeze=False,
    )
    for axes, kind in zip(grid[:, 0], kinds, strict=True):
        role, title = PAIRS[kind]
        for y, edition in enumerate(editions):
            at = [n for n, k in enumerate(c["kind"]) if k == kind and c["edition"][n] == edition]
            band = [
                [controls[end][n] for end in ("low", "middle", "high")]
                for n, k in enumerate(controls["kind"])
                if k == kind and controls["edition"][n] == edition
            ]
            for low, middle, high in band:
                axes.plot([low, high], [y, y], color="0.88", lw=11, zorder=0, solid_capstyle="butt")
                axes.plot([middle] * 2, [y - 0.3, y + 0.3], color="0.6", lw=1, zorder=1)
            share = np.array([c["share"][n] for n in at])
            aside = np.linspace(-0.22, 0.22, len(at)) if len(at) > 1 else np.zeros(len(at))
            axes.plot(share, y + aside, "o", ms=4.5, color=PALETTE[role], alpha=0.8)
        axes.set_yticks(range(len(editions)), editions)
        axes.set_ylim(len(editions) - 0.4, -0.6)
        axes.set_xscale("log")
        axes.set_title(title.replace("\n", ", "), loc="left")
        axes.axvline(0.01, color="0.5", lw=0.8, ls=":")
    grid[-1, 0].set_xlabel("place of the pair's best component among all before the reader")
    ticks = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1]
    grid[-1, 0].set_xticks(ticks, ["top 0.001%", "0.01%", "0.1%", "1%", "10%", "all"])
    return figure


def width(results: Results) -> Figure:
    """Share of the whole-head score in the leading components, known pairs against random ones."""
    c = results.columns
    editions = list(dict.fromkeys(c["edition"]))
    kinds = [kind for kind in PAIRS if kind in c["kind"]]
    figure, grid = new_figure(
        (WIDE, 1.9 * len(editions) + 0.6),
        rows=len(editions),
        columns=len(kinds),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for i, edition in enumerate(editions):
        for j, kind in enumerate(kinds):
            axes, (role, title) = grid[i, j], PAIRS[kind]
            at = [n for n, k in enumerate(c["kind"]) if k == kind and c["edition"][n] == edition]
            if i == 0:
                axes.set_title(title)
            if not at:
                axes.annotate("no known pair", (0.5, 0.5), xycoords="axes fraction", ha="center")
                continue
            k, known, low, high, random = (
                np.array([c[name][n] for n in at])
                for name in ("components", "known", "low", "high", "random")
            )
            axes.fill_between(k, low, high, color="0.9", lw=0)
            axes.plot(k, random, color="0.55", lw=1)
            axes.plot(k, known, "o-", ms=4, color=PALETTE[role])
            axes.annotate(
                f"{known[0]:.0%}", (k[0], known[0]), xytext=(0, 7), textcoords="offset points",
                ha="center", fontsize=8, color=ink(PALETTE[role]),
            )  # fmt: skip
            axes.set_ylim(0, 1.05)
            axes.set_xlim(0.3, k[-1] + 0.3)
            axes.set_xticks([1, 2, 4, 6, 8])
        grid[i, 0].set_ylabel(f"{edition}\nshare of the score")
    for axes in grid[-1]:
        axes.set_xlabel("components, largest first")
    return figure
