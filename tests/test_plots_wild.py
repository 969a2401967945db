"""Drawings of chapter 08 on made-up tables: pictures compared, texts readable and apart."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from pictures import pictures

from th_utils.plots import wild
from th_utils.results import Results
from th_utils.sightings import AMONG, BANDS, PROPERTIES


def coordinates() -> Results:
    rng = np.random.default_rng(0)
    columns: dict = {n: [] for n in ("panel", "source", "left", "right", "share")}
    edges = np.linspace(-40, 40, 61)
    for panel, source, middle, spread, n in (
        ("task", "ABBA", 27, 5, 64),
        ("task", "BABA", -26, 6, 64),
        ("text", "ours", 0, 4, 5000),
    ):
        counts, _ = np.histogram(rng.normal(middle, spread, n), bins=edges)
        for left, right, count in zip(edges[:-1], edges[1:], counts, strict=True):
            if count:
                row = (panel, source, float(left), float(right), float(count / n))
                for name, value in zip(columns, row, strict=True):
                    columns[name].append(value)
    return Results(columns, dict(median=26.5, component="20.5.63"))


def where() -> Results:
    columns: dict = {n: [] for n in ("source", "property", "among", "share", "low", "high")}
    rows = itertools.product(
        ("written by the model", "in the public domain"), PROPERTIES.values(), AMONG
    )
    for i, row in enumerate(rows):
        share = (7 * i % 31) / 30
        values = (*row, share, max(0.0, share - 0.1), min(1.0, share + 0.2))
        for name, value in zip(columns, values, strict=True):
            columns[name].append(value)
    return Results(columns)


def kinds() -> Results:
    names = ["all written by the model", "story", "news", "recipe", "dialogue", "instructions"]
    names.append("in the public domain")
    columns: dict = {"kind": names, "texts": [24, *[4] * 5, 8]}
    for j, flag in enumerate(("active", "repetition", "enumeration")):
        share = [0.1 * (j + 1) * ((3 * i + j) % 7) / 7 for i in range(len(names))]
        columns[flag] = share
        columns[f"{flag} low"] = [0.5 * x for x in share]
        columns[f"{flag} high"] = [1.7 * x for x in share]
    return Results(columns)


def removal(sign: int = 1) -> Results:
    columns: dict = {"band": list(BANDS), "positions": [50, 40, 9, 1]}
    rise = {"component": [0.0, 0.001, 0.004, sign * 0.03], "random": [0.0, 0.0, -0.001, -0.003]}
    rising = {"component": [0.4, 0.5, 0.6, 0.9], "random": [0.5, 0.5, 0.4, 0.3]}
    for name, table in (("rise", rise), ("rising", rising)):
        for what, values in table.items():
            columns[f"{what} {name}"] = values
            columns[f"{what} {name} low"] = [x - 0.2 * abs(x) for x in values]
            columns[f"{what} {name} high"] = [min(1.0, x + 0.3 * abs(x)) for x in values]
    return Results(columns)


SENTENCE = (" The| fox| saw| a| fox|.|\n|\n|1|.| $5| and| caf|é| –| mermaid|s|日| went| to| the| "
            "store|,").split("|")  # fmt: skip


def examples() -> Results:
    columns: dict = {n: [] for n in ("example", "title", "text", "coordinate", "mark")}
    for example, repeats in enumerate((3, 1)):
        for i, text in enumerate(SENTENCE * repeats):
            mark = {4: "looked", 12: "active"}.get(i, "")
            row = (example, f"story: coordinate {example}", text, 2.0 * (i % 23) - 20.0, mark)
            for name, value in zip(columns, row, strict=True):
                columns[name].append(value)
    return Results(columns, dict(limit=20.0))


DRAWINGS = {
    "wild-coordinates": lambda: wild.coordinates(coordinates()),
    "wild-where": lambda: wild.where(where()),
    "wild-kinds": lambda: wild.kinds(kinds()),
    "wild-removal": lambda: wild.removal(removal()),
    "wild-removal-down": lambda: wild.removal(removal(-1)),
    "wild-examples": lambda: wild.examples(examples()),
}

# Tokens of one text stand side by side.
globals().update(pictures(DRAWINGS, apart=2))


def test_every_token_is_written_in_order_on_its_colour():
    table = examples()
    figure = wild.examples(table)
    axes = figure.axes[0]
    written = [t for t in axes.texts if t.get_fontfamily() == ["DejaVu Sans Mono"]]
    assert len(written) == len(table["text"]) == 4 * len(SENTENCE)
    for text, token in zip(written, table.columns["text"], strict=True):
        assert text.get_text().strip() == wild.shown(token).strip()
        assert not text.get_parse_math()
    filled = [p for p in axes.patches if isinstance(p, Rectangle) and p.get_fill()]
    for patch, value in zip(filled, table.columns["coordinate"], strict=True):
        assert patch.get_facecolor()[:3] == pytest.approx(wild.tint(value, 20.0))
    framed = [p for p in axes.patches if not p.get_fill()]
    assert len(framed) == 4, "two marks in each example"
    places = [(t.get_position()[1], t.get_position()[0]) for t in written]
    assert places == sorted(places), "from left to right and down"
    assert max(x for _, x in places) <= wild.CHARACTERS


def test_tint():
    assert wild.tint(0.0, 5.0) == (1.0, 1.0, 1.0)
    assert wild.tint(9.0, 5.0) == wild.tint(5.0, 5.0) != wild.tint(-5.0, 5.0)
    light, dark = (sum(wild.tint(x, 5.0)) for x in (1.0, 4.0))
    assert light > dark > 1.2, "black text on it can be read"
