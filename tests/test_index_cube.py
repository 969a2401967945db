"""The table behind the cube, of made-up searches and runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from th_utils import index_cube
from th_utils.errors import CompanionError
from th_utils.index_space import Selection
from th_utils.recall import Recalled
from th_utils.steering import Axes
from th_utils.tasks.lists import ListPrompts

NAMES = ("a", "b", "c")


def selection(dimensions: int = 3) -> Selection:
    n = 2
    axes = Axes(((0, 1),) * dimensions, torch.eye(dimensions, 8), NAMES[:dimensions])
    return Selection(
        axes=axes,
        points=torch.arange(4.0 * dimensions).reshape(4, dimensions),
        shares=torch.tensor(
            [[0.75, 0.25], [0.0, 1.0], [0.5, 0.5], [1.0, 0.0]], dtype=torch.float64
        ),
        chosen=torch.arange(n),
        found=np.ones((1, n)),
        reported=np.full((2, n), 0.5),
        attention=np.ones(n),
        reached=np.ones(n),
    )


def run(n: int, lists: int) -> Recalled:
    count = n * lists
    zeros = torch.zeros(count, n, dtype=torch.long)
    prompts = ListPrompts(
        tokens=zeros, positions={}, items=zeros, again=zeros, answers=zeros,
        target=torch.arange(n).repeat(lists), template=zeros[:, 0], texts=("",) * count,
    )  # fmt: skip
    looks = torch.zeros(count, n)
    looks[torch.arange(count), (torch.arange(count) + 1) % n] = 1.0
    coordinates = torch.arange(4.0 * count).reshape(count, 4) / 8
    return Recalled(prompts, looks, torch.zeros(count, dtype=torch.bool), coordinates, looks)


def test_points_and_prompts_by_length():
    found = index_cube.index_cube([selection()], [run(3, 1), run(2, 2)], NAMES + ("d",))
    c = found.columns
    assert c["what"] == ["set"] * 4 + ["itself"] * 7
    assert c["length"] == [2] * 8 + [3] * 3
    assert c["axis 2"][:6] == [1.0, 4.0, 7.0, 10.0, 0.125, 0.625]
    assert c["item"] == [1, 2, 1, 1, 2, 1, 2, 1, 2, 3, 1]
    assert c["share"][:4] == [0.75, 1.0, 0.5, 1.0] and set(c["share"][4:]) == {None}
    assert c["chosen"] == ["1", "2", "", ""] + [""] * 7
    assert c["left_out"] == [None] * 4 + [1, 2, 1, 2, 1, 2, 3]
    assert found.meta == {"names": ["a", "b", "c"], "reached": {"2": 0.5}}


def test_only_some_prompts_are_shown_but_whole_lists(monkeypatch):
    monkeypatch.setattr(index_cube, "PROMPTS", 7)
    found = index_cube.index_cube([], [run(3, 4), run(10, 3)], NAMES)
    assert found.columns["length"] == [3] * 6 + [10] * 10
    assert found.meta["reached"] == {}


def test_what_cannot_be_a_cube_is_refused():
    with pytest.raises(CompanionError, match="a grid in 2 coordinates: expected 3"):
        index_cube.index_cube([selection(dimensions=2)], [], NAMES[:2])
    with pytest.raises(CompanionError, match="two grids of one list length"):
        index_cube.index_cube([selection(), selection()], [], NAMES)
