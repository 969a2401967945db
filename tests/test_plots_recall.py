"""Drawings of chapter 06 on made-up tables."""

from __future__ import annotations

import numpy as np
import pytest
from pictures import pictures

from th_utils.plots import recall
from th_utils.results import Results

QUICK, BOOK = (2, 3, 5, 6, 10), (2, 3, 4, 5, 6, 8, 10, 12, 16, 20)


def columns(names: tuple[str, ...], rows: list[tuple]) -> dict[str, list]:
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def accuracy(lengths=QUICK, shuffled=(5, 6)) -> Results:
    rows = []
    for order, given in (("list", lengths), ("shuffled", shuffled)):
        for n in given:
            for among, better in (("vocabulary", 0.0), ("listed", 0.04)):
                mean = 2 / n ** (1.4 if order == "list" else 1.6) + better
                mean = min(0.98, mean)
                rows.append((order, n, among, mean, max(0, mean - 0.1), min(1, mean + 0.1)))
    return Results(columns(("order", "length", "among", "mean", "low", "high"), rows))


def places(shown=(3, 6, 10)) -> Results:
    rows = []
    for n in shown:
        for place in range(1, n + 1):
            mean = (place / n) ** 2 * 2 / n**0.5
            rows.append(("list", n, place, mean, 0.5 * mean, min(1, 1.5 * mean), mean + 0.05))
    names = ("order", "length", "place", "mean", "low", "high", "listed")
    return Results(columns(names, rows), dict(shown=list(shown)))


def coordinates(lengths=QUICK, shown=(3, 6, 10)) -> Results:
    rows = []
    for n in lengths:
        for place in range(1, n + 1):
            d = None if place == n else 4 / n * (2 if place in (1, n - 1) else 0.3)
            for axis, name in enumerate(("20.0.0", "20.0.13", "19.2.57"), 1):
                mean = 30 * (place / n - 0.5) / (n * axis) + n
                row = (n, place, axis, name, mean, mean - 3 / axis, mean + 3 / axis, d)
                rows.append((*row, 2 / n, 1.5 / n, 3 / n))
    names = ("length", "place", "axis", "name", "mean", "low", "high", "d")
    names += ("d mean", "d low", "d high")
    return Results(columns(names, rows), dict(shown=list(shown)))


def subspace(levels=5) -> Results:
    unit = np.linspace(-1, 1, levels)
    at = np.array(np.meshgrid(unit, unit, unit, indexing="ij")).reshape(3, -1)
    item = 1 + np.clip(np.round(2 + 1.4 * at.sum(0)), 0, 4)
    chosen = [""] * len(item)
    for place in (1, 2, 4, 5):
        point = int(np.flatnonzero(item == place)[place % 3])
        chosen[point] = "3, 4" if place == 4 else str(place)
    table = {f"axis {k + 1}": (at[k] * size).tolist() for k, size in enumerate((33.0, 31.0, 9.9))}
    table |= dict(length=[5] * len(item), item=item.astype(int).tolist(), chosen=chosen)
    table["share"] = (0.4 + 0.6 * np.abs(at[0])).tolist()
    return Results(table, dict(names=["20.0.0", "20.0.3", "19.2.7"]))


def dimensions() -> Results:
    what = ["nothing set", *(f"{d} coordinate{'s' * (d > 1)}" for d in (1, 2, 3, 4)), "3 random"]
    mean = np.array([0.2, 0.4, 0.63, 0.88, 0.9, 0.24])
    table: dict = dict(what=what, mean=mean.tolist(), low=(mean - 0.07).tolist())
    table |= dict(high=(mean + 0.07).tolist(), found=[None, *(mean[1:] + 0.1).clip(max=1).tolist()])
    for place in range(1, 6):
        table[f"place {place}"] = (mean + 0.1 * (place - 3)).clip(0, 1).tolist()
    return Results(table)


def shorter() -> Results:
    table: dict = dict(length=[2, 3, 5], chance=[1 / 2, 1 / 3, 1 / 5])
    for name, mean in (("selected", [1.0, 0.5, 0.36]), ("itself", [1.0, 0.58, 0.2])):
        table[f"{name} mean"] = mean
        table[f"{name} low"] = [m - 0.08 for m in mean]
        table[f"{name} high"] = [min(1.0, m + 0.08) for m in mean]
    return Results(table)


DRAWINGS = {
    "recall-accuracy": lambda: recall.accuracy(accuracy()),
    "recall-accuracy-book": lambda: recall.accuracy(accuracy(BOOK, (4, 5, 6, 7, 8))),
    "recall-places": lambda: recall.places(places()),
    "recall-coordinates": lambda: recall.coordinates(coordinates()),
    "recall-crowding": lambda: recall.crowding(coordinates()),
    "recall-subspace": lambda: recall.subspace(subspace()),
    "recall-subspace-book": lambda: recall.subspace(subspace(6)),
    "recall-dimensions": lambda: recall.dimensions(dimensions()),
    "recall-shorter": lambda: recall.shorter(shorter()),
}
globals().update(pictures(DRAWINGS))


def test_cells_have_the_colour_of_their_item_and_chosen_points_their_number():
    table = subspace()
    axes = recall.subspace(table).axes
    colours = recall._items(5)
    slices = sorted(set(table["axis 3"]))
    assert len(axes) == len(slices) == 5
    for panel, level in zip(axes, slices, strict=True):
        at = np.flatnonzero(table["axis 3"] == level)
        expected = [colours[int(table["item"][i]) - 1] for i in at]
        assert [bar.get_facecolor() for bar in panel.patches] == expected
        said = {text.get_text() for text in panel.texts}
        assert said == {table.columns["chosen"][i] for i in at} - {""}


def test_pairs_that_nothing_can_crowd_are_not_shown():
    (axes,) = recall.crowding(coordinates()).axes
    drawn = [x for line in axes.lines for x in line.get_xdata()]
    assert sorted(set(drawn)) == [3, 5, 6, 10]
    (bars,) = axes.collections
    ends = [segment[:, 1].tolist() for segment in bars.get_segments()]
    assert ends == [pytest.approx([1.5 / n, 3 / n]) for n in (3, 5, 6, 10)]


@pytest.mark.parametrize("lengths, orders", [(QUICK, (5, 6)), (BOOK, (4, 5, 6, 7, 8))])
def test_intervals_of_accuracy_do_not_lie_on_each_other(lengths, orders):
    (axes,) = recall.accuracy(accuracy(lengths, orders)).axes
    at = sorted(segment[0, 0] for bars in axes.collections for segment in bars.get_segments())
    assert len(at) == 2 * (len(lengths) + len(orders)) and np.diff(at).min() > 0.15


def test_numbers_of_places_are_those_of_the_table():
    table = dimensions()
    _, right = recall.dimensions(table).axes
    for text in right.texts:
        j, i = text.get_position()
        assert text.get_text() == f"{100 * table[f'place {int(j) + 1}'][int(i)]:.0f}"
    assert len(right.texts) == 30
