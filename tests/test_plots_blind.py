"""The figures of chapter 09 on made-up tables."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from pictures import pictures

from th_utils.figures import PALETTE
from th_utils.plots import blind
from th_utils.results import Results

TASKS = ("indirect objects", "lists")
DEPTHS = (20, 50, 100, 200, 500, 1000, 2000, 5000)


def table(names: tuple[str, ...], rows: list[tuple]) -> dict[str, list]:
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def lift() -> Results:
    rows = []
    for kind, task, score in itertools.product("QKV", TASKS, blind.STYLES):
        for i, k in enumerate(DEPTHS):
            top = {"raw": 0.5, "corrected": 0.7}.get(score, 0.98) - 0.05 * i
            ends = (top - 0.1, min(1, top + 0.05)) if kind == "Q" else (None, None)
            rows.append((kind, task, score, k, top, *ends, 100 * top, 0.12 / (i + 1)))
    names = ("kind", "task", "score", "k", "precision", "low", "high", "lift", "chance_heads")
    return Results(table(names, rows))


def corrections() -> Results:
    from th_utils.corrections import CORRECTIONS

    rows = [
        (
            c.name,
            c.needs,
            c.has_score,
            task,
            0.1 + 0.05 * i + 0.1 * (task == "lists"),
            100 - 6.0 * i,
        )
        for i, c in enumerate(CORRECTIONS)
        for task in ("find", "lists")
    ]
    names = ("correction", "needs", "has_score", "task", "correlation", "lift")
    without = next(c.name for c in CORRECTIONS if not c.has_score)
    said = dict(chosen="× all sizes", chosen_on="find", other="lists", first_without=without)
    return Results(table(names, rows), said)


QUANTILES = (0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99, 0.999, 0.9999, 1)


def calibration() -> Results:
    rows = []
    for kind, score in itertools.product("QKV", ("raw", "corrected")):
        for i, (low, high) in enumerate(itertools.pairwise(QUANTILES)):
            effect = 0.002 * 2.0**i * (0.3 if score == "corrected" and i < 2 else 1)
            rows.append((kind, score, low, high, effect, effect / 40, effect * 3, 0.01))
    names = ("kind", "score", "low", "high", "effect", "effect_low", "effect_high", "mean_effect")
    return Results(table(names, rows))


def known(*, run: bool) -> Results:
    rows, rng = [], np.random.default_rng(0)
    for kind, (role, _) in blind.PAIRS.items():
        for i in range({"Q": 8, "K": 12, "V": 6}[kind]):
            rank = int(10 ** rng.uniform(0, 3.5))
            rows.append((kind, role, f"2{i % 9}.10", "23.14", rank, 10000, 1 + rank // 3))
    names = ("kind", "role", "sender", "reader", "rank", "of", "corrected_rank")
    columns = table(names, rows)
    if not run:
        columns.pop("corrected_rank")
    return Results(columns)


def edges() -> Results:
    rows, rng = [], np.random.default_rng(1)
    for kind, (role, _) in blind.PAIRS.items():
        for i in range(20):
            layer = int(rng.integers(0, 28))
            later = int(rng.integers(layer + 1, 30))
            rows.append((kind, layer, int(rng.integers(9)), later, int(rng.integers(9)),
                         1.0 / (i + 1), role if i % 5 == 0 else "other"))  # fmt: skip
    names = ("kind", "writer_layer", "writer_head", "reader_layer", "reader_head", "effect", "role")
    return Results(table(names, rows), dict(layers=30, heads=9))


def reuse() -> Results:
    tasks = ("indirect objects, to choose", "indirect objects", "lists", "random")
    rows = [
        (kind, one, other, (i + 1) / (j + 2))
        for kind, n in (("Q", 4), ("K", 3), ("V", 3))
        for (i, one), (j, other) in itertools.product(enumerate(tasks[:n]), repeat=2)
        if i < j
    ]
    return Results(table(("kind", "task", "other", "share"), rows))


DRAWINGS = {
    "blind-lift": lambda: blind.lift(lift()),
    "blind-corrections": lambda: blind.corrections(corrections()),
    "blind-calibration": lambda: blind.calibration(calibration()),
    "blind-known": lambda: blind.known(known(run=True)),
    "blind-known-weights": lambda: blind.known(known(run=False)),
    "blind-reuse": lambda: blind.reuse(reuse()),
    "blind-edges": lambda: blind.edges(edges()),
}

globals().update(pictures(DRAWINGS))


def test_open_is_raw_and_filled_corrected():
    axes = blind.known(known(run=True)).axes[0]
    marks = [line for line in axes.lines if line.get_marker() == "o"]
    filled = [line for line in marks if line.get_markerfacecolor() != "white"]
    assert len(filled) * 2 == len(marks) == 2 * 26
    c = known(run=True).columns
    assert sorted(line.get_xdata()[0] for line in filled) == pytest.approx(
        sorted(rank / 10000 for rank in c["corrected_rank"])
    )


def test_edges_have_the_colour_of_the_role():
    figure = blind.edges(edges())
    for axes, (role, _) in zip(figure.axes, blind.PAIRS.values(), strict=True):
        from matplotlib.colors import to_hex

        colours = [to_hex(patch.get_edgecolor()) for patch in axes.patches]
        assert len(colours) == 20 and colours.count(PALETTE[role].lower()) == 4


def test_reuse_is_written_where_task_and_other_meet():
    axes = blind.reuse(reuse()).axes
    said = {text.get_position(): text.get_text() for text in axes[0].texts}
    assert said[(1, 0)] == "33" and said[(3, 2)] == "60"  # columns are the other task
    assert len(axes[0].texts) == 6 and len(axes[1].texts) == 3  # no random tokens there
