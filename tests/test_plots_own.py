"""Drawings of chapter 12 on made-up tables."""

from __future__ import annotations

import numpy as np
import pytest
from pictures import pictures

from th_utils.plots import own
from th_utils.results import Results


def layers(n: int) -> Results:
    rng = np.random.default_rng(1)
    rows = [
        (kind, sender, reader, float(1.5 + rng.exponential(1.0)))
        for kind in "QKV"
        for sender in range(n)
        for reader in range(sender + 1, n)
    ]
    names = ("kind", "sender", "reader", "ratio")
    return Results({name: [row[i] for row in rows] for i, name in enumerate(names)})


DRAWINGS = {
    "own-layers": lambda: own.layers(layers(30)),
    "own-layers-few": lambda: own.layers(layers(3)),
}
globals().update(pictures(DRAWINGS))


def test_cells_and_marks_are_where_the_layers_are():
    table = layers(5)
    figure = own.layers(table)
    for axes, kind in zip(figure.axes, "QKV", strict=False):
        shown = axes.images[0].get_array()
        rows = {
            (s, r): ratio
            for k, s, r, ratio in zip(*(table.columns[c] for c in table.columns), strict=True)
            if k == kind
        }
        for (sender, reader), ratio in rows.items():
            assert shown[sender, reader] == pytest.approx(ratio)
        assert np.isnan(np.ma.filled(shown, np.nan)[3, 2])
        (mark,) = [line for line in axes.lines if line.get_marker() == "s"]
        sender, reader = max(rows, key=rows.__getitem__)
        assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (reader, sender)
