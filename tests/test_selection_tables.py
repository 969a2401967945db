"""Tables of grid searches, of made-up selections."""

from __future__ import annotations

import numpy as np
import pytest
from made_up import GOOD, HALF, selection

from th_utils import selection_tables


def test_point_table():
    table = selection_tables.point_table(selection(HALF, HALF, 3, chosen=[4, 0]))
    assert list(table) == ["length", "axis 1", "axis 2", "axis 3", "item", "share", "chosen"]
    assert table["axis 2"] == [1.0, 4.0, 7.0, 10.0, 13.0, 16.0]
    assert table["item"][:2] == [1, 2] and table["share"][:3] == [1.0, 1.0, 0.0]
    assert table["chosen"] == ["2", "", "", "", "1", ""] and table["length"] == [2] * 6
    table = selection_tables.point_table(selection(HALF, HALF, 3, chosen=[1, 1]))
    assert table["chosen"] == ["", "1, 2", "", "", "", ""]


def test_dimension_table():
    one, other = selection(GOOD, HALF, 1), selection(GOOD, GOOD, 3)
    controls = [selection(HALF, HALF, 3), selection(GOOD, GOOD, 3)]
    clean = np.array([[0.0, 1.0], [0.0, 1.0]])
    table = selection_tables.dimension_table([one, other], controls, clean, seed=0)
    assert table["what"] == ["nothing set", "1 coordinate", "3 coordinates", "3 random"]
    assert table["mean"] == pytest.approx([0.5, 0.5, 0.9, 0.7])
    assert table["found"] == pytest.approx([None, 0.9, 0.9, 0.7])
    assert table["place 1"] == pytest.approx([0.0, 0.75, 1.0, 0.875])
    assert table["place 2"] == pytest.approx([1.0, 0.25, 0.8, 0.525])
    assert table["points"] == [0, 6, 6, 6]
    assert table["low"][3] == pytest.approx(0.5) and table["high"][3] == pytest.approx(0.9)
    plain = selection_tables.dimension_table([one], [], clean, seed=0)
    assert plain["what"] == ["nothing set", "1 coordinate"]


def test_length_table():
    made = [selection(GOOD, GOOD), selection(np.eye(3), [[1.0, 1, 1], [0.5, 1, 0]])]
    own = [np.array([1.0, 0.5]), np.array([0.0, 0.0])]
    table = selection_tables.length_table(made, own, seed=0)
    assert table["length"] == [2, 3] and table["chance"] == pytest.approx([1 / 2, 1 / 3])
    assert table["selected mean"] == pytest.approx([0.9, 0.75])
    assert (table["selected low"][1], table["selected high"][1]) == (0.5, 1.0)
    assert table["itself mean"] == pytest.approx([0.75, 0.0]) and table["itself low"][0] == 0.5
