"""Figures of chapter 05: pictures to compare with, and what has to be in them."""

from __future__ import annotations

import numpy as np
import pytest
from pictures import drawn, pictures

from th_utils import figures
from th_utils.plots import writers
from th_utils.results import Results

COMPONENTS = 64
LEVEL = 1 / 24


def panels(kind: str = "V", *, measured: bool = True, pairs: int = 3) -> Results:
    rng = np.random.default_rng(0)
    names = ("writer", "reader", "component", "composition", "facing", "picked", "effect",
             "random_low", "random_high")  # fmt: skip
    columns: dict = {name: [] for name in names}
    for p in range(pairs):
        score = 0.04 + 0.06 * rng.random(COMPONENTS)
        effect = 0.002 * rng.normal(size=COMPONENTS)
        score[3 + p], effect[3 + p], effect[7] = 0.13, 0.05, 0.03
        for k in range(COMPONENTS):
            row = (f"1{p}.{p}", "20.3", k, score[k],
                   abs(rng.normal()) * 0.08 if kind == "V" else None,
                   measured and k in (7, 3 + p), effect[k] if measured else None,
                   -0.004 if measured else None, 0.01 if measured else None)  # fmt: skip
            for name, value in zip(names, row, strict=True):
                columns[name].append(value)
    return Results(columns, dict(kind=kind, random_level=LEVEL))


def width(kinds: str = "QVK") -> Results:
    columns: dict = {n: [] for n in ("kind", "order", "components", "share", "low", "high")}
    orders = {"by effect": 0.3, "by score": 0.6, "at random": 2.0}
    curves = [(kind, order, power) for kind in kinds for order, power in orders.items()]
    if "K" in kinds:
        curves.append(("K", "by effect, score", 0.9))
    for kind, order, power in curves:
        for n in range(1, COMPONENTS + 1):
            share = (n / COMPONENTS) ** power
            row = (kind, order, n, share, share - 0.03, share + 0.03)
            for name, value in zip(columns, row, strict=True):
                columns[name].append(value)
    return Results(columns)


def everyone() -> Results:
    names = ("kind", "reader", "name", "role", "mean", "low", "high", "rank", "of")
    roles = ["other", "induction", "previous-token", "duplicate-token", "inhibition"]
    rows = [
        (kind, reader, f"MLP {n}" if n % 3 == 0 else f"{n + 8}.{n}",
         roles[n % 5 if n % 3 else 0], scale * (-0.8) ** n, scale * (-0.8) ** n - 0.04,
         scale * (-0.8) ** n + 0.04, n + 1, 200)
        for kind, reader, scale in (("V", "20.3", 0.6), ("K", "18.6", -1.4))
        for n in range(12)
    ]  # fmt: skip
    return Results({name: [row[i] for row in rows] for i, name in enumerate(names)})


DRAWINGS = {
    "writers-value-panels": lambda: writers.panels(panels()),
    "writers-key-panels": lambda: writers.panels(panels("K", pairs=4)),
    "writers-weight-panels": lambda: writers.panels(panels(measured=False)),
    "writers-width": lambda: writers.width(width()),
    "writers-width-one": lambda: writers.width(width("V")),
    "writers-everyone": lambda: writers.everyone(everyone()),
}

globals().update(pictures(DRAWINGS))


def test_chosen_components_are_coloured_and_named():
    table = panels()
    figure = writers.panels(table)
    colour = figures.PALETTE["duplicate-token"].lower()
    for j, axes in enumerate(figure.axes[:3]):
        bars = [bar for bar in axes.patches if bar.get_width() < 1]
        assert len(bars) == COMPONENTS
        tinted = [k for k, bar in enumerate(bars)
                  if figures.ink(bar.get_facecolor()[:3], contrast=1) == colour]  # fmt: skip
        assert tinted == sorted([3 + j, 7])
        assert [text.get_text() for text in axes.texts] == [f"1{j}.{j}.{3 + j}"]
        below = figure.axes[3 + j]
        heights = [bar.get_height() for bar in below.patches]
        assert [text.get_text() for text in below.texts] == [f"1{j}.{j}.{np.argmax(heights)}"]
        assert bars[3 + j].get_height() == pytest.approx(5.0), "in per cent"


def test_weights_alone_have_one_row_with_the_two_highest_in_colour():
    figure = writers.panels(panels("K", measured=False))
    assert len(figure.axes) == 3
    colour = figures.PALETTE["previous-token"].lower()
    for j, axes in enumerate(figure.axes):
        heights = np.array([bar.get_height() for bar in axes.patches])
        tinted = [k for k, bar in enumerate(axes.patches)
                  if figures.ink(bar.get_facecolor()[:3], contrast=1) == colour]  # fmt: skip
        assert tinted == sorted(np.argsort(-heights)[:2]) and 3 + j in tinted


@pytest.mark.parametrize("highest", [0, 1, 29, 61, 63])
@pytest.mark.parametrize("kind", ["V", "K"])
def test_names_lie_on_no_mark(kind, highest):
    """Whichever component it is: neither on a bar nor on a circle, and inside the panel."""
    table = panels(kind, measured=False)
    for row, k in enumerate(table.columns["component"]):
        table.columns["composition"][row] = 0.12 if k == highest else 0.11
    figure, _ = drawn(lambda: writers.panels(table))
    for axes in figure.axes:
        (name,) = axes.texts
        box, frame = name.get_window_extent(), axes.get_window_extent()
        assert name.get_text().endswith(f".{highest}")
        assert box.y1 <= frame.y1 + 1 and box.x0 >= frame.x0 - 1 and box.x1 <= frame.x1 + 1
        top = max(bar.get_window_extent().y1 for bar in axes.patches)
        for line in axes.lines:
            if line.get_marker() == "o":
                top = max(top, axes.transData.transform(line.get_xydata())[:, 1].max())
        assert box.y0 > top


def test_curves_are_drawn_in_per_cent():
    figure = writers.width(width())
    for axes, lines in zip(figure.axes, (3, 3, 4), strict=True):
        curves = [line for line in axes.lines if len(line.get_xdata()) == COMPONENTS]
        assert len(curves) == lines
        for line in curves:
            assert line.get_ydata()[-1] == pytest.approx(100)
    names = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert len(names[0]) == 3 and names[1] == [] and names[2] == ["the same, before the softmax"]


def test_roles_are_said_where_there_are_any():
    table = everyone()
    for axes, kind in zip(writers.everyone(table).axes, "VK", strict=True):
        at = [i for i, k in enumerate(table.columns["kind"]) if k == kind]
        said = [text.get_text() for text in axes.texts]
        assert said == [r for r in (table.columns["role"][i] for i in at) if r != "other"]
        widths = [bar.get_width() for bar in axes.patches]
        assert widths == pytest.approx([100 * table.columns["mean"][i] for i in at])
