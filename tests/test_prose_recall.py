"""Sentences of chapter 06 say what their tables say: other numbers, other words."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from th_utils.bootstrap import Interval
from th_utils.index_space import Selection
from th_utils.prose import recall
from th_utils.recall import number_of_lists
from th_utils.steering import Axes


def changed(table: dict, column: str, row: int, value) -> dict:
    other = copy.deepcopy(table)
    other[column][row] = value
    return other


ACCURACY = {
    "order": ["list"] * 4 + ["shuffled"] * 2,
    "length": [3, 3, 10, 10, 3, 3],
    "among": ["vocabulary", "listed"] * 3,
    "mean": [0.61, 0.72, 0.05, 0.13, 0.99, 0.98],
}


@pytest.mark.parametrize(
    "row, said",
    [
        (0, "in 44% of the prompts with lists of 3"),
        (1, "in 44% and 13%"),
        (2, "in 44% with lists of 10"),
        (3, "in 72% and 44%"),
    ],
)
def test_accuracy(row, said):
    text = recall.accuracy(ACCURACY)
    assert said not in text and "99%" not in text
    assert said in recall.accuracy(changed(ACCURACY, "mean", row, 0.44))
    assert text.endswith("a guess would be right in 33% and 10%")


def test_shuffled():
    text = recall.shuffled([5, 6], [Interval(0.021, -0.04, 0.08), Interval(-0.1, -0.2, 0.0)])
    assert "+2 points (-4 to +8) with 5 items, -10 points (-20 to +0) with 6 items." in text


PLACES = {
    "order": ["list"] * 4 + ["shuffled"],
    "length": [2, 2, 3, 3, 2],
    "place": [1, 2, 1, 2, 1],
    "mean": [0.2, 0.7, 0.9, 0.1, 0.0],
}


def test_places():
    text = recall.places(PLACES, 2, 0, 1)
    assert "place 1 was best and place 2 worst" in text
    assert "recalled in 20% and 70%" in text and text.endswith("between 20% and 70%")
    text = recall.places(changed(PLACES, "mean", 0, 0.33), 2, 1, 0)
    assert "recalled in 70% and 33%" in text and "place 2 was best" in text


def test_categories():
    table = dict(category=["food", "tools"], length=[4, 4], mean=[0.3, 0.5], low=[0.2, 0.4],
                 high=[0.4, 0.6])  # fmt: skip
    text = recall.categories(table)
    assert "lists of 4 items" in text and "food 30% (20% to 40%), tools 50% (40% to 60%)" in text
    assert "sizes `book` and `full`" in recall.categories(None)


CROWD = {
    "length": [2, 2, 4, 4, 4, 4, 4],
    "axis": [1, 1, 1, 1, 1, 1, 2],
    "d": [3.0, None, 1.0, 0.2, 0.6, None, 9.0],
}


def test_crowding():
    text = recall.crowding(CROWD)
    assert "3.00 with 2 items, 0.60 with 4 items" in text
    assert "in lists of 4 the first place and the next are 1.00 apart" in text
    assert text.endswith("the last two 0.60, those between 0.20 on average")
    short = {name: column[:2] for name, column in CROWD.items()}
    assert recall.crowding(short).endswith("3.00 with 2 items"), "one pair has nothing between"


def test_extent():
    assert recall.extent(["1.2.3", "0.1.0"], [32.8, 9.9]) == (
        "The coordinates and their reach: 1.2.3 to ±33, 0.1.0 to ±10."
    )


def selection(found=0.5, reported=((0.5, 0.25),), reached=(0.75, 0.125)) -> Selection:
    return Selection(
        axes=Axes(((0, 1),), torch.eye(1, 4), ("0.1.0",)),
        points=torch.zeros(4, 1),
        shares=torch.tensor([[1.0, 0.0], [0.75, 0.25], [0.5, 0.25], [0.25, 0.75]]).double(),
        chosen=torch.tensor([0, 3]),
        found=np.full((2, 2), found),
        reported=np.array(reported),
        attention=np.zeros(2),
        reached=np.array(reached),
    )


def test_subspace():
    text = recall.subspace(selection())
    assert "Of 4 grid points" in text and "item 1 at 75%, item 2 at 25%" in text
    assert "on average 75% of the prompts agree" in text
    assert text.endswith("some point of the grid selects item 1 to 2 in 75%, 12%")
    assert "in 50%, 12%" in recall.subspace(selection(reached=(0.5, 0.125)))


DIMENSIONS = {
    "what": ["nothing set", "1 coordinate", "3 coordinates"],
    "mean": [0.25, 0.4, 0.6],
    "place 1": [0.1, 0.2, 0.7],
    "place 2": [0.1, 0.2, 0.25],
    "place 3": [0.1, 0.2, 0.5],
    "place 4": [0.1, 0.2, 0.1],
}


def test_dimensions():
    text = recall.dimensions(DIMENSIONS)
    assert "25% with nothing set, 40% with 1 coordinate, 60% with 3 coordinates" in text
    assert text.endswith("chance is 25%")


def test_which():
    text = recall.which(DIMENSIONS)
    assert "more than half of the prompts: 1; in some: 3; " in text
    assert text.endswith("no more often than by chance: 2, 4.")
    text = recall.which(changed(DIMENSIONS, "place 1", 2, 0.0))
    assert "more than half of the prompts: none; " in text and text.endswith("1, 2, 4.")


def test_control():
    drawn = [selection(0.6, ((0.1, 0.3),)), selection(0.4, ((0.5, 0.7),))]
    text = recall.control(drawn)
    assert text.startswith("2 random subspaces selected 20% to 60% of the places")
    assert "and 50% on the half they were searched on" in text


def test_shorter():
    table = {
        "length": [2, 5],
        "chance": [0.5, 0.2],
        "selected mean": [1.0, 0.36],
        "itself mean": [0.9, 0.15],
    }
    text = recall.shorter(table)
    assert "with 2 items 100% of the places (chance 50%)" in text
    assert text.endswith("with 5 items 36% of the places (chance 20%), and of itself it looks most "
                         "at the answer in 15% of the prompts")  # fmt: skip


def test_wide():
    text = recall.wide(selection(), selection(reported=((0.9, 0.7),)), 3)
    assert "3 times as far, 80% of the places" in text and "in place of 38%" in text
    assert "(by place 90%, 70%)" in text


def test_number_of_lists():
    assert [number_of_lists(n, 24) for n in (2, 3, 5, 10)] == [12, 8, 4, 4]
    assert all(number_of_lists(n, 64) % 4 == 0 for n in range(2, 21))
