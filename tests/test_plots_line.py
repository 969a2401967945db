"""The drawings of chapter 04 on made-up tables: pictures compared, texts readable and apart."""

from __future__ import annotations

import itertools

import numpy as np
from pictures import check_apart, drawn, pictures

from th_utils.plots import line
from th_utils.results import Results

COMPONENT = "20.5.63"  # as long as names get


def coordinates(n: int = 70) -> Results:
    """Seven templates, one in which the orders overlap; all on one side of the origin for some."""
    rng = np.random.default_rng(0)
    columns: dict = dict(template=[], order=[], coordinate=[])
    for i in range(n):
        for order, mean in (("ABBA", 14.0), ("BABA", -9.0)):
            template = 2 * (i % 7) + 2
            shift = 8 if template == 6 and order == "BABA" else 0
            row = (template, order, mean + shift + 3 * rng.normal())
            for name, value in zip(columns, row, strict=True):
                columns[name].append(value)
    templates = [0, *range(2, 16, 2)]
    summary = dict(template=templates, auc=[0.98] + [1.0] * 7, auc_low=[0.95] + [0.9] * 7)
    summary["auc_high"] = [0.99] + [1.0] * 7
    meta = dict(templates=summary, component=COMPONENT, abba=14.0, baba=-9.0)
    return Results(columns, meta)


def sweep(points: int = 9, *, together: bool = False) -> Results:
    """Attention that crosses over, the same for both orders in the second way."""
    columns: dict = {n: [] for n in ("how", "order", "quantity", "alpha", "mean", "low", "high")}
    for how, order, quantity in itertools.product(
        ("add", "only"), ("ABBA", "BABA"), ("first", "second", "logits")
    ):
        for alpha in np.linspace(-25, 25, points):
            at = alpha + (0 if how == "only" or together else 12 if order == "ABBA" else -12)
            mean = 0.8 / (1 + np.exp(-0.3 * at))
            mean = {"first": mean, "second": 0.8 - mean, "logits": 0.3 * at}[quantity]
            row = (how, order, quantity, alpha, mean, mean - 0.05, mean + 0.05)
            for name, value in zip(columns, row, strict=True):
                columns[name].append(value)
    return Results(columns, dict(mover="23.14", abba=14.0, baba=-9.0))


def random(draws: int = 16) -> Results:
    rng = np.random.default_rng(1)
    kinds = ["add", "only", *(k for k in ("head", "residual") for _ in range(draws))]
    columns: dict = dict(kind=kinds)
    for name, size in (("attention", 1.4), ("logits", 11.0)):
        mean = np.array([size, 0.6 * size, *(0.05 * size * rng.normal(size=2 * draws))])
        columns |= {f"{name} mean": mean.tolist()}
        columns |= {f"{name} low": (mean - 0.05).tolist(), f"{name} high": (mean + 0.05).tolist()}
    return Results(columns)


DRAWINGS = {
    "line": lambda: line.line(coordinates()),
    "line-sweep": lambda: line.sweep(sweep()),
    "line-sweep-together": lambda: line.sweep(sweep(together=True)),
    "line-random": lambda: line.random(random()),
}


globals().update(pictures(DRAWINGS))


def test_each_prompt_is_drawn_once_in_the_row_of_its_template():
    table = coordinates()
    strips = line.line(table).axes[1]
    drawn = sorted(
        (round(float(y)), round(float(x), 6))
        for plotted in strips.lines
        if plotted.get_marker() in ("o", "s")
        for x, y in zip(*plotted.get_data(), strict=True)
    )
    c = table.columns
    rows = sorted(set(c["template"]))
    assert drawn == sorted(
        (rows.index(t), round(x, 6)) for t, x in zip(c["template"], c["coordinate"], strict=True)
    )


def test_histograms_count_all_prompts_of_their_order():
    top = line.line(coordinates(21)).axes[0]
    assert [patch.get_data().values.sum() for patch in top.patches] == [21, 21]


def test_sweep_draws_the_curves_of_the_table():
    table = sweep()
    axes = np.array(line.sweep(table).axes).reshape(2, 2)
    curves = [plotted for plotted in axes[0, 0].lines if len(plotted.get_xdata()) == 9]
    styles = [(plotted.get_linestyle(), plotted.get_color()) for plotted in curves]
    assert styles == [(s, c) for s in ("-", "--") for c in (line.FIRST, line.SECOND)]
    for plotted, (order, name) in zip(
        curves, itertools.product(("ABBA", "BABA"), ("first", "second")), strict=True
    ):
        x, y = line._curve(table.columns, ("add", order, name), "mean")
        assert plotted.get_xdata().tolist() == x and plotted.get_ydata().tolist() == y


def test_orders_are_named_where_their_prompts_lie():
    near = sweep()
    near.meta.update(abba=0.3, baba=-0.2)
    for table in (sweep(), near):
        figure, found = drawn(lambda table=table: line.sweep(table))
        check_apart(found)
        axes = figure.axes[1]
        named = {text.get_text(): text.xy[0] for text in axes.texts if text.get_text() in "ABBABA"}
        assert named == {"ABBA": table.meta["abba"], "BABA": table.meta["baba"]}


def test_random_draws_every_direction():
    table = random(5)
    for axes, name in zip(line.random(table).axes, ("attention", "logits"), strict=True):
        ticks = [plotted for plotted in axes.lines if plotted.get_marker() == "|"]
        expected = table.columns[f"{name} mean"]
        assert [plotted.get_xdata().tolist() for plotted in ticks] == [expected[2:7], expected[7:]]
