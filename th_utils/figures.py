"""How figures look, and how they are saved: the same bytes from the same numbers.

One style file, one colour for each role of a head, two widths. Figures are made without pyplot: no
window, no global state, nothing that a notebook would show a second time.

Source of the colours: Okabe and Ito 2008, Color Universal Design.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from th_utils.paths import atomic_write

STYLE = str(Path(__file__).with_name("talking_heads.mplstyle"))

# Widths in inches: a column of text, and a page. Choose SINGLE, and stack panels, wherever the
# figure is meant to be read on a telephone; only there is text of 8 pt large enough.
SINGLE = 4.2
WIDE = 7.0

PALETTE = {
    "mover": "#D55E00",
    "negative-mover": "#CC79A7",
    "inhibition": "#0072B2",
    "duplicate-token": "#E69F00",
    "previous-token": "#009E73",
    "induction": "#56B4E9",
    "other": "#B3B3B3",
    "control": "#000000",
}

KINDS = ("svg", "pdf", "png")
# What a format would otherwise say of the time and the program that wrote it.
_METADATA: dict[str, dict[str, None]] = {
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
    "png": {"Software": None},
}


def apply_style() -> None:
    """Set the style for the whole process, whatever was set before."""
    matplotlib.style.use(["default", STYLE])


@contextmanager
def style() -> Iterator[None]:
    """Set the style for the time of the block, whatever was set before."""
    with matplotlib.style.context(STYLE, after_reset=True):
        yield


def new_figure(
    size: tuple[float | int, float | int] = (SINGLE, 2.8),
    *,
    rows: int = 1,
    columns: int = 1,
    **options: Any,
) -> tuple[Figure, Any]:
    """A figure in our style with a grid of axes.

    Args:
        size: width and height in inches; widths are `SINGLE` and `WIDE`.
        rows, columns: of the grid.
        options: further arguments of `Figure.subplots`, such as `sharex` and `squeeze`.

    Returns:
        the figure, and its axes: one, or an array, as `Figure.subplots` has it.
    """
    with style():
        figure = Figure(figsize=size)
        FigureCanvasAgg(figure)
        return figure, figure.subplots(rows, columns, **options)


def render(figure: Figure, kind: str) -> bytes:
    """The file of a figure as bytes; `kind` is one of `KINDS`. The same figure, the same bytes."""
    stream = io.BytesIO()
    with style():
        figure.savefig(stream, format=kind, metadata=_METADATA[kind])
    return stream.getvalue()


def save(figure: Figure, stem: str | os.PathLike[str]) -> dict[str, Path]:
    """Write `stem`.svg, `stem`.pdf and `stem`.png; return their paths by kind.

    Each file is at every moment absent or whole.
    """
    stem = Path(stem)
    return {
        kind: atomic_write(stem.with_name(f"{stem.name}.{kind}"), render(figure, kind))
        for kind in KINDS
    }


def close(figure: Any) -> None:
    """Forget a figure that pyplot knows, or the notebook would show it a second time."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close(figure)


def ink(colour: Any, contrast: float | int = 4.5) -> str:
    """`colour`, darkened until text in it stands out from white by `contrast` (WCAG 2.2).

    >>> ink("#D55E00", contrast=3), ink("black")
    ('#d55e00', '#000000')
    """
    rgb = np.array(to_rgb(colour))
    while 1.05 / (_luminance(rgb) + 0.05) < contrast:
        rgb = rgb * 0.97
    return matplotlib.colors.to_hex(rgb)


def label_points(
    axes: Any,
    x: Iterable[Any],
    y: Iterable[Any],
    labels: Sequence[str],
    *,
    colour: Any = "#202020",
    fontsize: float | int = 8,
    beside: Iterable[Bbox] = (),
) -> list[Any]:
    """Write names beside points, so that no name lies on another, on a point or off the axes.

    Call it when everything else has been drawn: positions are those of the layout as it is then.
    Names are placed in order, each at the first free place around its point; where none is free,
    at the one with the least overlap, tied to its point by a thin line.

    Args:
        axes: where the points were drawn.
        x, y: the points, in data units; a point that is not finite gets no name.
        labels: one name for each.
        colour: of all names, or one for each; darkened until it can be read.
        fontsize: in points.
        beside: what else no name should lie on, in data units.

    Returns:
        the annotations, in order.
    """
    x, y = list(x), list(y)
    if not labels:
        return []
    figure = axes.figure
    figure.draw_without_rendering()
    colours = [colour] * len(labels) if isinstance(colour, str | tuple) else list(colour)
    points = axes.transData.transform(np.column_stack([x, y]).astype(float))
    frame = axes.get_window_extent().frozen()
    pixel = figure.dpi / 72
    taken = [Bbox.from_bounds(px - 2.5 * pixel, py - 2.5 * pixel, 5 * pixel, 5 * pixel)
             for px, py in points if np.isfinite([px, py]).all()]  # fmt: skip
    taken += [box.transformed(axes.transData).padded(pixel) for box in beside]
    placed = []
    for (px, py), xi, yi, text, tint in zip(points, x, y, labels, colours, strict=True):
        if not np.isfinite([px, py]).all():
            continue
        note = axes.annotate(
            text, (xi, yi), xytext=(0, 0), textcoords="offset points", fontsize=fontsize,
            color=ink(tint), va="center", ha="center",
        )  # fmt: skip
        box = note.get_window_extent().padded(0.5 * pixel)
        best = None
        for distance, dx, dy in _places(box.width / pixel, box.height / pixel):
            moved = box.translated(dx * pixel, dy * pixel)
            cost = sum(_overlap(moved, other) for other in taken)
            cost += moved.width * moved.height - _overlap(moved, frame)
            if best is None or cost < best[0]:
                best = (cost, distance, dx, dy, moved)
            if cost == 0:
                break
        _, distance, dx, dy, moved = best
        note.set_position((dx, dy))
        if distance > 1:
            # The line ends at the name's border, at the place nearest to the point.
            aside = np.clip(0, dx - box.width / pixel / 2, dx + box.width / pixel / 2)
            above = np.clip(0, dy - box.height / pixel / 2, dy + box.height / pixel / 2)
            line = axes.annotate(
                "", (xi, yi), xytext=(aside, above), textcoords="offset points", zorder=0,
                arrowprops={
                    "arrowstyle": "-", "lw": 0.5, "color": ink(tint), "alpha": 0.6,
                    "shrinkA": 0, "shrinkB": 0,
                },
            )  # fmt: skip
            line.set_in_layout(False)
        # A name is drawn over the layout, but must not take part in it: axes would shrink.
        note.set_in_layout(False)
        taken.append(moved)
        placed.append(note)
    return placed


def _places(width: float, height: float) -> Iterator[tuple[int, float, float]]:
    """Places of a name's centre around its point, best first: (ring, right, up) in points."""
    for ring in range(1, 9):
        gap = 3.5 + 8.0 * (ring - 1)
        aside, above = width / 2 + gap, height / 2 + gap
        for right, up in (
            (aside, 0.0), (-aside, 0.0), (0.0, above), (0.0, -above),
            (aside, above), (-aside, above), (aside, -above), (-aside, -above),
        ):  # fmt: skip
            yield ring, right, up


def _overlap(a: Bbox, b: Bbox) -> float:
    width = min(a.x1, b.x1) - max(a.x0, b.x0)
    height = min(a.y1, b.y1) - max(a.y0, b.y0)
    return max(width, 0.0) * max(height, 0.0)


def _luminance(rgb: np.ndarray) -> float:
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ np.array([0.2126, 0.7152, 0.0722]))
