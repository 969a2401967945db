"""Drawings of chapter 07 on made-up tables."""

from __future__ import annotations

import numpy as np
import pytest
from pictures import pictures

from th_utils.plots import repair
from th_utils.results import Results

KINDS = (
    "steering", "turned", "control", "control", "heads", "unaided", "weights", "weights", "control",
)  # fmt: skip
NAMES = (
    "inhibition coordinates, place told",
    "gradient directions, place told (exploratory)",
    "natural points, place told",
    "random subspaces, place told",
    "random heads, place told",
    "not told: place from main mover's attention",
    "weights of the inhibition heads",
    "weights of all heads from their layer on",
    "weights, random components",
)


def columns(names: tuple[str, ...], rows: list[tuple]) -> dict[str, list]:
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def gains() -> Results:
    means = (0.02, 0.21, 0.01, 0.1, 0.04, -0.03, 0.25, 0.31, -0.05)
    rows = [
        (name, kind, mean, mean - 0.08, mean + 0.12)
        for name, kind, mean in zip(NAMES, KINDS, means, strict=True)
    ]
    return Results(columns(("variant", "kind", "mean", "low", "high"), rows))


def lengths(known=(4, 7, 10), crowded=False) -> Results:
    panels = {
        "place told": {
            "as it is": (0.4, "clean"),
            "inhibition": (0.45, "steering"),
            "by gradient": (0.7, "turned"),
            "random subspaces": (0.42, "control"),
            "random heads": (0.41, "heads"),
        },
        "nothing told": {
            "as it is": (0.4, "clean"),
            "by rule": (0.41, "unaided"),
            "weights edited": (0.6, "weights"),
            "random edit": (0.39, "control"),
        },
    }
    rows = []
    for panel, variants in panels.items():
        for name, (start, kind) in variants.items():
            for n in known:
                mean = 0.02 if crowded else start * 4 / n
                rows.append((panel, name, kind, n, mean, max(0, mean - 0.1), mean + 0.1))
    names = ("panel", "variant", "kind", "length", "mean", "low", "high")
    return Results(columns(names, rows))


def places(known=(4, 7, 10)) -> Results:
    rows = [
        (name, kind, n, place, min(1.0, start * (0.2 + 0.8 * place / n) * 8 / n))
        for name, kind, start in (
            ("as it is", "clean", 0.3),
            ("steered, place told", "steering", 0.4),
            ("weights edited", "weights", 0.6),
        )
        for n in known
        for place in range(1, n + 1)
    ]
    return Results(columns(("variant", "kind", "length", "place", "accuracy"), rows))


def price() -> Results:
    rng = np.random.default_rng(0)
    rows = [
        (measure, variant, kind, before := rng.normal(middle, 1), before + rng.normal(change, 0.1))
        for measure, middle in (("loss on text, nats per token", 3), ("logit difference, nats", 5))
        for variant, kind, change in (
            ("weights edited", "weights", 0.3),
            ("random edit", "control", 0.0),
        )
        for _ in range(12)
    ]
    return Results(columns(("measure", "variant", "kind", "before", "after"), rows))


DRAWINGS = {
    "repair-gains": lambda: repair.gains(gains()),
    "repair-lengths": lambda: repair.lengths(lengths()),
    "repair-lengths-book": lambda: repair.lengths(lengths(tuple(range(4, 11)), crowded=True)),
    "repair-places": lambda: repair.places(places()),
    "repair-price": lambda: repair.price(price()),
}
globals().update(pictures(DRAWINGS))


def test_gains_are_written_in_points():
    (axes,) = repair.gains(gains()).axes
    said = [text.get_text() for text in axes.texts]
    assert said == ["+2", "+21", "+1", "+10", "+4", "-3", "+25", "+31", "-5"]
    dots = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]
    assert dots == pytest.approx([2, 21, 1, 10, 4, -3, 25, 31, -5])


def test_lines_end_at_their_last_accuracy():
    left, right = repair.lengths(lengths()).axes
    ends = {text.get_text(): text.xy for text in left.texts}
    assert ends["by gradient"] == pytest.approx((10, 28), abs=0.3)
    assert ends["as it is"][1] == pytest.approx(16)
    names = {text.get_text() for text in right.texts}
    assert names == {"as it is", "by rule", "weights edited", "random edit"}


@pytest.mark.parametrize("known", [(4, 7, 10), tuple(range(4, 11))])
def test_intervals_stand_side_by_side(known):
    for axes, variants in zip(repair.lengths(lengths(known)).axes, (5, 4), strict=True):
        at = sorted(s[0, 0] for bars in axes.collections for s in bars.get_segments())
        assert len(at) == variants * len(known) and np.diff(at).min() > 0.1


def test_each_place_has_its_accuracy():
    table = places()
    axes = repair.places(table).axes
    assert [len(panel.lines[0].get_xdata()) for panel in axes] == [4, 7, 10]
    drawn_values = [y for panel in axes for line in panel.lines for y in line.get_ydata()]
    assert sorted(drawn_values) == pytest.approx(sorted(100 * x for x in table["accuracy"]))


def test_prices_stand_at_before_and_after_and_the_mean_change_is_written():
    table = price()
    axes = repair.price(table).axes[0]
    said = np.array([table["before"], table["after"]]).T[:12]  # weights edited, first measure
    (dots,) = (line for line in axes.lines if line.get_marker() == "o")
    np.testing.assert_allclose(dots.get_xydata(), said)
    change = np.diff(said, axis=1).mean()
    assert axes.texts[-1].get_text() == f"weights edited: {change:+.2g}"
