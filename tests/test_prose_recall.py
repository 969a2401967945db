"""Sentences of chapter 06 say what their tables say: other numbers, other words."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from th_utils.bootstrap import Interval
from th_utils.index_space import Selection
from th_utils.prose import messages_06 as messages
from th_utils.prose import recall
from th_utils.recall import number_of_lists
from th_utils.results import Results
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
    "low": [0.51, 0.62, 0.0, 0.03, 0.89, 0.88],
    "high": [0.71, 0.82, 0.15, 0.23, 1.0, 1.0],
}


@pytest.mark.parametrize(
    "row, said",
    [
        (0, "in 44% (51% to 71%) of the prompts with lists of 3"),
        (1, "in 44% (62% to 82%) and 13% (3% to 23%)"),
        (2, "in 44% (0% to 15%) with lists of 10"),
        (3, "in 72% (62% to 82%) and 44% (3% to 23%)"),
    ],
)
def test_accuracy(row, said):
    text = recall.accuracy(ACCURACY)
    assert said not in text and "99%" not in text
    assert said in recall.accuracy(changed(ACCURACY, "mean", row, 0.44))
    assert text.endswith("a guess would be right in 33% and 10%")


def test_shuffled():
    text = recall.shuffled([5, 6], [Interval(0.021, -0.04, 0.08), Interval(-0.1, -0.2, 0.0)])
    assert "+2 points (-4 to +8) with 5 items, -10 points (-20 to 0) with 6 items." in text


def test_numbers_of_lists():
    text = recall.numbers({5: 4, 2: 4}, {2: 16, 3: 12, 5: 8})
    assert "half reported, 16 of 2 items, 12 of 3 items and 8 of 5 items" in text
    assert text.endswith("half *find*, 4 of 2 items and 4 of 5 items.")
    assert recall.measured_lengths({6: 4, 5: 8}) == (
        "Measured on 8 lists of 5 items and 4 lists of 6 items."
    )


def test_few_lists_are_said_to_be_few():
    text = recall.few({2: 16, 5: 8})
    assert "there are 8 to 16 lists of each length; an interval" in text and "narrow" in text
    assert recall.few({2: 12, 5: 12}) == "At this size there are 12 lists of each length."


PLACES = {
    "order": ["list"] * 4 + ["shuffled"],
    "length": [2, 2, 3, 3, 2],
    "place": [1, 2, 1, 2, 1],
    "mean": [0.2, 0.7, 0.9, 0.1, 0.0],
    "low": [0.1, 0.6, 0.8, 0.0, 0.0],
    "high": [0.3, 0.8, 1.0, 0.2, 0.1],
}


def test_places():
    text = recall.places(PLACES, 2, [0], [1])
    assert "place 1 was best and place 2 was worst on the half" in text
    assert "place 1 is recalled in 20% (10% to 30%) and place 2 in 70% (60% to 80%)" in text
    assert text.endswith("between 20% and 70%")
    text = recall.places(changed(PLACES, "mean", 0, 0.33), 2, [1], [0])
    assert "place 1 in 33% (10% to 30%)" in text and "place 2 was best" in text


def test_places_that_are_equal_are_all_named():
    text = recall.places(PLACES, 2, [1], [0, 2, 3])
    assert "place 2 was best and places 1, 3 and 4 were worst, equally (place 1 counts)" in text


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
    "d mean": [3.0] * 2 + [0.6] * 5,
    "d low": [2.0] * 2 + [0.5] * 5,
    "d high": [4.0] * 2 + [0.8] * 5,
}


def test_crowding():
    text = recall.crowding(CROWD)
    assert "3.00 (2.00 to 4.00) with 2 items, 0.60 (0.50 to 0.80) with 4 items" in text
    assert "in lists of 4 the first place and the next are 1.00 apart" in text
    assert text.endswith("the last two 0.60, those between 0.20 on average")
    short = {name: column[:2] for name, column in CROWD.items()}
    assert recall.crowding(short).endswith("4.00) with 2 items"), "one pair has nothing between"


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
    assert "Of 4 grid points it is item 1 at 75%, item 2 at 25%; 75% of the prompts agree" in text
    assert text.endswith("selects item 1 in 75%, item 2 in 12% of these prompts")
    assert "item 1 in 50%" in recall.subspace(selection(reached=(0.5, 0.125)))


def test_nothing_set():
    text = recall.nothing_set(np.array([[0.25, 0.75], [0.05, 0.95]]))
    assert "selects 50% (by place 15%, 85%)" in text


DIMENSIONS = {
    "what": ["nothing set", "1 coordinate", "3 coordinates"],
    "mean": [0.25, 0.4, 0.6],
    "low": [0.25, 0.3, 0.5],
    "high": [0.25, 0.5, 0.7],
}


def test_dimensions():
    text = recall.dimensions(DIMENSIONS)
    assert "40% (30% to 50%) with 1 coordinate, 60% (50% to 70%) with 3 coordinates" in text
    assert text.endswith("With nothing set it is 25%, which is chance")
    random = recall.dimensions(changed(DIMENSIONS, "what", 2, "3 random"))
    assert "60% (50% to 70%) with 3 random directions. With nothing" in random


def gains(*low: float) -> list[Interval]:
    return [Interval(x + 0.1, x, x + 0.3) for x in low]


def test_which():
    text = recall.which(gains(0.2, -0.1, 0.01), 3)
    assert "in 3 dimensions gives: place 1 +30 points (+20 to +50), place 2 0 points" in text
    assert text.endswith("above zero at places 1 and 3.")
    assert recall.which(gains(-0.2, 0.1), 2).endswith("above zero at place 2 only.")
    assert recall.which(gains(0.0, -0.1), 2).endswith("above zero at no place.")


def test_control():
    drawn = [selection(0.6, ((0.1, 0.3),)), selection(0.4, ((0.5, 0.7),))]
    text = recall.control(drawn)
    assert text.startswith("2 random subspaces selected 20% to 60% of the places")
    assert "and 50% on the half they were searched on" in text and "over these 2" in text
    one = recall.control(drawn[:1])
    assert one.startswith("One random subspace selected 20% of") and "cannot be over" in one


def test_shorter():
    table = {"length": [2, 5], "chance": [0.5, 0.2]}
    for name, mean in (("selected", [1.0, 0.36]), ("itself", [0.9, 0.15])):
        table |= {f"{name} mean": mean, f"{name} low": [0.3, 0.1], f"{name} high": [1.0, 0.5]}
    text = recall.shorter(table)
    assert "100% (30% to 100%) with 2 items (nothing set: 50%), 36% (10% to 50%) with 5" in text
    assert text.endswith("item left out in 90% (30% to 100%) with 2, 15% (10% to 50%) with 5")


def test_wide():
    text = recall.wide(Interval(0.38, 0.2, 0.5), Interval(0.8, 0.7, 0.9), 3)
    assert "3 times as far, 80% (70% to 90%) of the places" in text
    assert text.endswith("in place of 38% (20% to 50%).")


def test_number_of_lists():
    assert [number_of_lists(n, 24) for n in (2, 3, 5, 10)] == [12, 8, 4, 4]
    assert all(number_of_lists(n, 64) % 4 == 0 for n in range(2, 21))


def test_the_message_of_accuracy():
    text = (
        "The item left out is the top token in 61% of the prompts with lists of 3 items and in 5% "
        "with lists of 10, where a guess among the items has 10%."
    )
    assert messages.accuracy(ACCURACY) == text
    assert messages.accuracy(changed(ACCURACY, "mean", 0, 0.02)) == text.replace("61%", "2%")


def test_the_message_of_places():
    shown = Results(PLACES, {"shown": [2]})
    assert messages.places(shown) == (
        "The last item of a list and the first are recalled in 70% and 20% of the prompts with 2 "
        "items."
    )
    longer = {name: [*column, column[3]] for name, column in PLACES.items()}
    longer = changed(changed(longer, "place", 5, 3), "mean", 5, 0.4)
    assert messages.places(Results(longer, {"shown": [2, 3]})).endswith(
        "in 70% and 20% of the prompts with 2 items and 40% and 90% with 3."
    )


def test_the_message_of_coordinates():
    rows = [(n, place, axis) for n in (3, 6, 10) for place in range(1, n + 1) for axis in (1, 2)]
    length, place, axis = (list(column) for column in zip(*rows, strict=True))
    mean = [(1 if k == 1 else -n) * p * 12 / (n - 1) for n, p, k in rows]
    names = ["9.1.0" if k == 1 else "9.1.4" for k in axis]
    table = dict(length=length, place=place, axis=axis, name=names, mean=mean)
    assert messages.coordinates(Results(table, {"shown": [3, 6]})) == (
        "The places of lists of 6 span 100% of the range of lists of 3 along inhibition coordinate "
        "9.1.0 and 200% along 9.1.4."
    )
    wider = changed(table, "mean", rows.index((6, 6, 1)), 5.0)
    text = messages.coordinates(Results(wider, {"shown": [3, 6]}))
    assert "lists of 6 span 80% of" in text


def test_the_message_of_crowding():
    table = {"length": [2, 3, 3, 10], "d mean": [9.0, 1.66, 1.66, 0.31]}
    assert messages.crowding(table) == (
        "Neighbouring places lie 1.7 times their spread apart in lists of 3 items and 0.3 times in "
        "lists of 10."
    )


def test_the_message_of_a_grid():
    grid = {"length": [3] * 8, "item": [2] * 5 + [1] * 3}
    assert messages.subspace(grid) == (
        "Of 8 points of the grid, 62% make the main mover look most at item 2 of 3, none at item 3."
    )
    assert messages.subspace({**grid, "item": [1] * 8}).endswith("none at items 2 and 3.")
    assert messages.subspace({**grid, "item": [1] * 5 + [3, 3, 2]}).endswith(
        "look most at item 1 of 3, 12% at item 2, the fewest."
    )


def test_the_message_of_dimensions():
    assert messages.dimensions(DIMENSIONS) == (
        "Points in 1 and 3 inhibition coordinates select 40% and 60% of the places on lists held "
        "out; with nothing set it is 25%."
    )
    random = {name: [*column, column[1]] for name, column in DIMENSIONS.items()}
    random = changed(changed(random, "what", 3, "3 random"), "mean", 3, 0.31)
    assert "held out, in 3 random directions 31%; with" in messages.dimensions(random)


def test_the_message_of_shorter_lists():
    table = {"length": [2, 5], "chance": [0.5, 0.2], "selected mean": [1.0, 0.36]}
    assert messages.shorter(table) == (
        "In lists of 2 and 5 items the points select 100% and 36% of the places, where chance is "
        "50% and 20%."
    )
