"""The figure of the page of timed kernels."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from th_utils.figures import PALETTE, SINGLE, ink, new_figure
from th_utils.results import Results

OURS, PEER, FLOOR = PALETTE["inhibition"], PALETTE["mover"], PALETTE["control"]
# Sides that are shown; others are comparisons of ours with ours.
PEERS = ("peer", "dense", "singly")


def kernels(results: Results) -> Figure:
    """Time of every job: ours, the peer's and the floor, open where scaled from a part."""
    jobs = by_job(results)
    figure, axes = new_figure((SINGLE, 0.42 * len(jobs) + 1.0))
    times = [
        time
        for rows in jobs
        for row in rows
        for time in (row["ours_s"], row["peer_s"], row["floor_s"])
        if time is not None
    ]
    for y, rows in enumerate(jobs):
        one = rows[0]
        peers = [row for row in rows if row["side"] in PEERS]
        far = max([one["ours_s"], *(row["peer_s"] for row in peers)])
        if one["floor_s"] is not None:
            axes.plot([one["floor_s"], one["ours_s"]], [y, y], color="0.75", lw=1, zorder=1)
            axes.plot([one["floor_s"]] * 2, [y - 0.17, y + 0.17], color=FLOOR, lw=1.5, zorder=2)
        axes.plot([one["ours_s"], far], [y, y], color="0.75", lw=1, zorder=1)
        _mark(axes, one["ours_s"], y, OURS, bool(one["ours_scale"]))
        for row in peers:
            _mark(axes, row["peer_s"], y, PEER, bool(row["peer_scale"]))
            text = f"{significant(row['ratio'], 2)}×"
            text += " dense" if row["side"] == "dense" else ""
            axes.annotate(
                text, (row["peer_s"], y), xytext=(5, 0),
                textcoords="offset points", va="center", color=ink(PEER),
                bbox={"boxstyle": "square,pad=0.1", "fc": "white", "ec": "none"},
            )  # fmt: skip
        axes.annotate(
            one["title"], (0, y - 0.3), xycoords=("axes fraction", "data"), va="bottom",
            fontsize=8.5,
        )  # fmt: skip
    axes.set_xscale("log")
    low, high = min(times), max(times)
    axes.set_xlim(low / 2, high * (high / low) ** 0.16)  # room for the last ratio
    axes.set_ylim(len(jobs) - 0.6, -1.45)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    powers = [p for p in range(-6, 7) if low / 2 <= 10.0**p <= high * 2]
    axes.set_xticks([10.0**p for p in powers], [f"{10**p:,g}" for p in powers])
    axes.minorticks_off()
    axes.grid(axis="x", color="0.93")
    axes.set_xlabel(f"{unit(results.meta)}, {where(results.meta).replace('processor ', '')}")
    for x, colour, text in (
        (0.0, OURS, "● ours"), (0.24, PEER, "● TransformerLens"), (0.79, FLOOR, "| floor"),
    ):  # fmt: skip
        axes.annotate(
            text, (x, 1), xycoords="axes fraction", va="top", color=ink(colour), weight="bold"
        )
    axes.annotate(
        "open: scaled from a part; ×: times ours", (0, 1), xycoords="axes fraction",
        xytext=(0, -13), textcoords="offset points", va="top", fontsize=8, color="0.3",
    )  # fmt: skip
    return figure


def by_job(results: Results) -> list[list[dict[str, Any]]]:
    """The rows of each job, in the table's order."""
    found: dict[str, list[dict[str, Any]]] = {}
    for values in zip(*results.columns.values(), strict=True):
        row = dict(zip(results.columns, values, strict=True))
        found.setdefault(row["job"], []).append(row)
    return list(found.values())


def where(meta: dict[str, Any]) -> str:
    """On what the times were taken, in a few words."""
    if meta["device"] != "cpu":
        return f"one {meta.get('gpu', 'GPU')}"
    threads = meta["threads"]
    return "one processor thread" if threads == 1 else f"{threads} processor threads"


def unit(meta: dict[str, Any]) -> str:
    """Which seconds: those that passed, or those that the process was running."""
    return "seconds of processor time" if meta["clock"] == "processor" else "seconds"


def significant(value: float | int, digits: int = 3) -> str:
    """A positive number with so many significant digits, thousands separated.

    >>> significant(1184.2), significant(0.2204), significant(41.66), significant(2.0, 2)
    ('1,180', '0.22', '41.7', '2')
    """
    rounded = float(f"{value:.{digits}g}")
    if 0 < abs(rounded) < 1e-3:
        return f"{rounded:g}"
    text = f"{rounded:,.10f}".rstrip("0").rstrip(".")
    return text


def _mark(axes: Any, x: float | int, y: float | int, colour: str, part: bool) -> None:
    axes.plot(x, y, "o", ms=5.5, mec=colour, mew=1.4, mfc="white" if part else colour, zorder=3)
