"""Drawings of chapter 10 on made-up tables."""

from __future__ import annotations

import numpy as np
from pictures import pictures

from th_utils.plots import elsewhere
from th_utils.results import Results

EDITIONS = ("smollm2-135m-instruct-q4", "gpt2")
CLAIMS = (
    "whole-scores-miss-previous-to-induction",
    "components-find-previous-to-induction",
    "inhibition-component-is-an-outlier",
    "blind-search-finds-the-known",
)


def claims(editions=EDITIONS) -> Results:
    said = (("holds", 0.91), ("fails", 0.42), ("partly", 7.59), ("holds", 1.0))
    rows = [
        (edition, claim, value, verdict)
        for i, edition in enumerate(editions)
        for claim, (verdict, value) in zip(CLAIMS[i:], said, strict=False)
    ]
    names = ("edition", "claim", "value", "verdict")
    return Results({name: [row[i] for row in rows] for i, name in enumerate(names)})


def ranks(editions=EDITIONS) -> Results:
    rng = np.random.default_rng(1)
    rows, controls = [], []
    for edition in editions:
        for kind in "QVK" if edition == EDITIONS[0] else "QV":
            rows += [(edition, kind, float(10**x)) for x in rng.uniform(-5, 0, 7)]
            controls.append((edition, kind, 0.0004, 0.013, 0.2))
    columns = {n: [row[i] for row in rows] for i, n in enumerate(("edition", "kind", "share"))}
    names = ("edition", "kind", "low", "middle", "high")
    bands = {name: [row[i] for row in controls] for i, name in enumerate(names)}
    return Results(columns, {"controls": bands})


def widths(editions=EDITIONS) -> Results:
    rows = []
    for edition in editions:
        for kind in "QVK" if edition == EDITIONS[0] else "QV":
            for k in range(1, 9):
                known = 1 - 0.7**k
                rows.append((edition, kind, k, known, known / 4, known / 2, known / 3))
    names = ("edition", "kind", "components", "known", "low", "high", "random")
    return Results({name: [row[i] for row in rows] for i, name in enumerate(names)})


DRAWINGS = {
    "elsewhere-claims": lambda: elsewhere.claims(claims()),
    "elsewhere-claims-one": lambda: elsewhere.claims(claims(EDITIONS[:1])),
    "elsewhere-ranks": lambda: elsewhere.ranks(ranks()),
    "elsewhere-width": lambda: elsewhere.width(widths()),
    "elsewhere-width-one": lambda: elsewhere.width(widths(EDITIONS[:1])),
}
globals().update(pictures(DRAWINGS))


def test_points_stand_where_the_pairs_do():
    table = ranks(EDITIONS[:1])
    figure = elsewhere.ranks(table)
    for axes, kind in zip(figure.axes, "QVK", strict=True):
        (points,) = [line for line in axes.lines if line.get_marker() == "o"]
        expected = [s for s, k in zip(table["share"], table["kind"], strict=True) if k == kind]
        np.testing.assert_allclose(points.get_xdata(), expected)


def test_every_claim_says_its_verdict():
    table = claims()
    written = [text.get_text() for text in elsewhere.claims(table).axes[0].texts]
    assert len(written) == len(table)
    for verdict, value, text in zip(table["verdict"], table["value"], written, strict=True):
        assert verdict in text and f"{value:.2f}" in text
