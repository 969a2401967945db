"""Sentences of chapter 07 say what their numbers say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from th_utils.bootstrap import Interval
from th_utils.prose import repair as words
from th_utils.repair_study import Option, Steering
from th_utils.steering import Axes


@pytest.mark.parametrize(
    "gain, text",
    [
        ((0.1234, -0.05, 0.25), "+12 points (95% interval -5 to +25)"),
        ((-0.004, -0.2, 0.004), "0 points (95% interval -20 to 0)"),
    ],
)
def test_points(gain, text):
    assert words.points(Interval(*gain)) == text


def test_option():
    assert words.option(Option(1, "add", 2.5)).startswith("one axis, added to what is there, up to")
    assert "3 axes, set in place of" in words.option(Option(3, "replace", 10.0))
    assert "up to 10 natural half-ranges" in words.option(Option(3, "replace", 10.0))


def steering(own: float) -> Steering:
    axes = Axes(((1, 2), (1, 2)), torch.eye(2), ("1.2.0", "1.2.7"))
    scores = {Option(1, "add", 3.0): 0.41, Option(2, "add", 3.0): 0.62}
    return Steering(axes, Option(2, "add", 3.0), own, {}, scores)


def test_searched():
    text = words.searched(steering(0.25))
    assert text.startswith("Axes: 1.2.0, 1.2.7.") and "3 natural half-ranges out: 0.41; 2" in text
    assert "Chosen: 2 axes, added" in text and "have a weight of 0.25, the rest" in text
    assert "have a weight of 1, the rest" in words.searched(steering(1.0))


def test_accuracy():
    hits = {4: torch.tensor([1.0, 1.0, 0.0, 0.0]), 10: torch.tensor([0.0, 0.0])}
    text = words.accuracy(hits, {4: 0.75, 10: 0.2})
    assert "50% of lists of 4 (75% among the listed items, where a guess has 25%)" in text
    assert "0% of lists of 10 (20% among the listed items, where a guess has 10%)" in text


GAINS = {
    "variant": ["a", "b"],
    "kind": ["steering", "control"],
    "mean": [0.2, -0.03],
    "low": [0.1, -0.08],
    "high": [0.3, 0.02],
}


def test_gains_and_rules():
    text = words.gains(GAINS)
    assert text == (
        "a: +20 points (95% interval +10 to +30); b: -3 points (95% interval -8 to +2)."
    )
    assert words.untold(GAINS, "b") == f"By rule: {text} Chosen on the half *find*: b."


def test_told_names_each_gain_once():
    each = [Interval(x, x - 0.01, x + 0.01) for x in (0.11, 0.22, 0.33, 0.44)]
    text = words.told(*each)
    at = [text.index(f"+{n} points") for n in (11, 22, 33, 44)]
    assert text.index("inhibition coordinates") < at[0] < text.index("by itself") < at[3]
    assert text.index("random subspaces") < at[2] < text.index("*Exploratory*") < at[1]


def test_components():
    scales = torch.ones(3, 2, 4)
    scales[1, 0, :3] = torch.tensor([3.0, 0.0, 3.0])
    scales[2, 1, 1] = 3.0
    text = words.components(scales, "some heads", 12)
    assert "best of 12 edits scales 4 of 24 components, 3 up and 1 down, by factors of 0, 3" in text
    assert "belong to some heads, most of them to 1.0 (3), 2.1 (1)." in text


def test_edited():
    each = [Interval(x, x - 0.01, x + 0.01) for x in (0.11, 0.22, 0.33)]
    text = words.edited(each[0], {"another family": each[1]}, each[2])
    assert "changes accuracy by +11 points" in text and "; another family: +22 points" in text
    assert "searched in the same way but for their order: +33 points" in text
    assert "another" not in words.edited(each[0], {}, each[2])


def test_price():
    text = words.price(
        (np.array([2.0, 3.0]), np.array([2.1, 3.3])),
        (np.array([4.0, 4.0, 4.0]), np.array([3.0, 3.0, 3.0])),
        (np.array([1.0, 1.0, 1.0]), np.array([0.5, 0.5, 0.5])),
        seed=0,
    )
    assert "On 2 texts" in text and "from 2.50 to 2.70 nats per token, by +0.200" in text
    assert "(95% interval +0.100 to +0.300)" in text
    assert "On 6 indirect-object prompts the logit difference goes from 4.0 to 3.0 nats" in text
    assert "in 100% before and 50% after, a change of -50 points" in text


PLACES = {
    "variant": ["as it is", "as it is", "edited", "edited", "edited"],
    "length": [2, 2, 2, 2, 5],
    "place": [1, 2, 1, 2, 1],
    "accuracy": [0.0, 0.4, 0.9, 0.3, 1.0],
}


def test_places_of_one_length():
    assert words.places(PLACES, 2) == (
        "In lists of 2, as it is: best at place 2 (40%), never right at 1 of the 2 places; "
        "edited: best at place 1 (90%), never right at 0 of the 2 places."
    )


def test_lengths_at_both_ends():
    table = dict(
        panel=["p"] * 3 + ["q"] * 3,
        variant=["a"] * 6,
        length=[4, 7, 10] * 2,
        mean=[0.5, 0.3, 0.1, 0.6, 0.2, 0.0],
    )
    assert words.lengths(table) == (
        "Right answers on lists of 4 and of 10; p, a: 50% and 10%; q, a: 60% and 0%."
    )


def test_a_share_of_what_may_be_nothing_is_said_to_be_one():
    part = Interval(0.1, 0.05, 0.15)
    assert words.share_note(Interval(0.2, 0.1, 0.3), part) == (
        "The gains are +10 points (95% interval +5 to +15) and +20 points (95% interval +10 to "
        "+30)."
    )
    assert "ratio says little" in words.share_note(Interval(0.2, -0.1, 0.3), part)
