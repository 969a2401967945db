"""Figures of chapter 02."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from th_utils.figures import PALETTE, SINGLE, WIDE, ink, label_points, new_figure
from th_utils.results import Results

PAIRS = {
    "Q": ("inhibition", "inhibition → mover\nquery"),
    "V": ("duplicate-token", "duplicate → inhibition\nvalue"),
    "K": ("previous-token", "previous → induction\nkey"),
}
SCORES = {"whole": "whole matrices", "component": "single components"}


def distributions(results: Results) -> Figure:
    """Histograms of standard scores, with the known pairs marked below them."""
    c, known = results.columns, results.meta["known"]
    kinds = [kind for kind in PAIRS if kind in c["kind"]]
    figure, grid = new_figure(
        (WIDE, 1.75 * len(kinds) + 0.5), rows=len(kinds), columns=2, sharex="col", squeeze=False
    )
    for i, kind in enumerate(kinds):
        role, title = PAIRS[kind]
        for j, score in enumerate(SCORES):
            axes = grid[i, j]
            at = [n for n, k in enumerate(c["kind"]) if k == kind and c["score"][n] == score]
            left = np.array([c["left"][n] for n in at])
            width = np.array([c["right"][n] for n in at]) - left
            counts = np.array([c["count"][n] for n in at])
            axes.bar(left, np.where(counts > 0, counts, np.nan), width, align="edge", color="0.8")
            axes.set_yscale("log")
            top = counts.max()
            axes.set_ylim(0.35, top * 40)  # names fit in above the bars
            mine = [k for k in known if k["kind"] == kind and k["score"] == score]
            best = sorted(mine, key=lambda k: -k["z"])
            for k in best:
                axes.plot([k["z"]] * 2, [0.35, 0.75], color=PALETTE[role], lw=1.2, alpha=0.8)
            # The second name ends further left: the first one's line passes it on the right.
            places = ((0.99, 0.97, (1, 0)), (0.86, 0.84, (0.5, 0)))
            for (end, height, start), k in zip(places, best[:2], strict=False):
                part = "" if k["component"] is None else f".{k['component']}"
                axes.annotate(
                    f"{k['sender']}{part} → {k['reader']}: "
                    f"rank {k['rank']:,} of {k['of']:,}".replace(",", "\u2009"),
                    xy=(k["z"], 0.8),
                    xytext=(end, height),
                    textcoords="axes fraction",
                    ha="right",
                    va="top",
                    color=ink(PALETTE[role]),
                    fontsize=8,
                    arrowprops=dict(
                        arrowstyle="-",
                        color=PALETTE[role],
                        lw=0.5,
                        alpha=0.6,
                        relpos=start,
                        shrinkA=1,
                    ),
                )
            if i == 0:
                axes.set_title(SCORES[score])
            if j == 0:
                axes.set_ylabel(f"{title}\nnumber")
            if i == len(kinds) - 1:
                axes.set_xlabel("standard deviations from the reader's mean")
    return figure


def areas(results: Results) -> Figure:
    """Area under the curve of known senders per type and score, with the null's 95%."""
    c = results.columns
    rows = [
        (edition, kind, score)
        for edition in dict.fromkeys(c["edition"])
        for kind in PAIRS
        for score in SCORES
    ]
    where = {(c["edition"][n], c["kind"][n], c["score"][n]): n for n in range(len(c["kind"]))}
    editions = list(dict.fromkeys(c["edition"]))
    figure, grid = new_figure(
        (WIDE if len(editions) > 1 else SINGLE, 2.6),
        rows=1,
        columns=len(editions),
        sharey=True,
        squeeze=False,
    )
    for axes, edition in zip(grid[0], editions, strict=True):
        mine = [row for row in rows if row[0] == edition]
        for i, row in enumerate(mine):
            n, y = where[row], i + 0.35 * (i // 2)
            if c["auc"][n] is None:
                axes.annotate("no known pair", (0.5, y), ha="center", va="center", color="0.5")
                continue
            colour = PALETTE[PAIRS[row[1]][0]]
            axes.plot([c["null_low"][n], c["null_high"][n]], [y, y], color="0.85", lw=7, zorder=0)
            filled = colour if row[2] == "component" else "white"
            axes.plot(c["auc"][n], y, "o", ms=6, mec=colour, mew=1.6, mfc=filled)
        axes.set_title(edition)
        axes.axvline(0.5, color="0.6", lw=0.8, ls=":")
        axes.set_xlim(0, 1.02)
        axes.set_xlabel("P(known sender above another head)")
    ticks = [i + 0.35 * (i // 2) for i in range(len(PAIRS) * 2)]
    names = [f"{kind}  {SCORES[score]}" for kind in PAIRS for score in SCORES]
    grid[0, 0].set_yticks(ticks, names)
    grid[0, 0].set_ylim(ticks[-1] + 0.6, -0.6)
    return figure


def ranking(results: Results) -> Figure:
    """The best components for one reader, named, with the level of a random direction."""
    c, m = results.columns, results.meta
    n = len(c["score"])
    figure, axes = new_figure((SINGLE, 0.21 * n + 0.9))
    colours = [PALETTE[role] for role in c["role"]]
    axes.barh(range(n), c["score"], color=colours, height=0.7)
    axes.axvline(m["random_level"], color="0.3", lw=0.8, ls="--")
    axes.annotate(
        "random direction",
        (m["random_level"], n - 0.1),
        xytext=(3, 0),
        textcoords="offset points",
        fontsize=8,
        va="center",
        color="0.3",
    )
    names = [f"{h}.{k}" for h, k in zip(c["head"], c["component"], strict=True)]
    axes.set_yticks(range(n), names)
    for i, role in enumerate(c["role"]):
        text = f"z = {c['z'][i]:.1f}" + ("" if role == "other" else f"   {role}")
        axes.annotate(
            text,
            (c["score"][i], i),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=ink(colours[i]),
        )
    axes.set_ylim(n + 0.3, -0.7)
    axes.set_xlim(0, max(c["score"]) * 1.45)
    axes.set_xlabel(f"composition score with the query of {m['reader']}")
    return figure


def rounding(results: Results) -> Figure:
    """Best component score of each head, exact against rounded weights; known senders named."""
    c = results.columns
    figure, grid = new_figure((WIDE, 2.6), rows=1, columns=len(PAIRS), squeeze=False)
    for axes, kind in zip(grid[0], PAIRS, strict=True):
        role = PAIRS[kind][0]
        at = [n for n, k in enumerate(c["kind"]) if k == kind]
        exact, rounded = (np.array([c[name][n] for n in at]) for name in ("exact", "rounded"))
        known = np.array([c["known"][n] for n in at], dtype=bool)
        axes.plot(exact[~known], rounded[~known], "o", ms=2, color="0.75")
        axes.plot(exact[known], rounded[known], "o", ms=4, color=PALETTE[role])
        ends = [min(exact.min(), rounded.min()), max(exact.max(), rounded.max())]
        axes.plot(ends, ends, color="0.4", lw=0.7, zorder=0)
        diagonal = [(x, x) for x in np.linspace(*ends, 50)]
        named = sorted((n for n in at if c["known"][n]), key=lambda n: -c["exact"][n])[:3]
        label_points(
            axes,
            [c["exact"][n] for n in named],
            [c["rounded"][n] for n in named],
            [f"{c['sender'][n]} → {c['reader'][n]}" for n in named],
            colour=PALETTE[role],
            beside=[Bbox([p, p]) for p in [*zip(exact, rounded, strict=True), *diagonal]],
        )
        axes.set_title(PAIRS[kind][1].replace("\n", ", "), fontsize=8)
        axes.set_xlabel("exact weights")
    grid[0, 0].set_ylabel("rounded to 4 bits")
    return figure


def per_component(results: Results) -> Figure:
    """Composition scores of every component of several heads with one reader."""
    c, m = results.columns, results.meta
    heads = list(dict.fromkeys(c["head"]))
    figure, grid = new_figure(
        (WIDE, 2.1), rows=1, columns=len(heads), sharex=True, sharey=True, squeeze=False
    )
    named = []
    for axes, head in zip(grid[0], heads, strict=True):
        at = [n for n, h in enumerate(c["head"]) if h == head]
        score = np.array([c["composition"][n] for n in at])
        best = np.argsort(-score)[:2]
        colours = ["0.65"] * len(score)
        for n in best:
            colours[n] = PALETTE["inhibition"]
        axes.bar(range(len(score)), score, color=colours, width=0.85)
        axes.axhline(m["random_level"], color="0.3", lw=0.8, ls="--")
        axes.set_title(f"head {head}")
        axes.set_xlabel("component")
        bars = [Bbox([[n - 0.5, 0], [n + 0.5, high]]) for n, high in enumerate(score)]
        named.append((axes, best, score[best], [f"{head}.{n}" for n in best], bars))
    grid[0, 0].set_ylabel(f"composition score\nwith query of {m['mover']}")
    for axes, x, y, names, bars in named:
        label_points(axes, x, y, names, beside=bars)
    return figure
