"""Sentences of chapter 07 say what their numbers say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from th_utils.bootstrap import Interval
from th_utils.prose import messages_07 as messages
from th_utils.prose import repair as words
from th_utils.repair_study import Option, Steering
from th_utils.steering import Axes
from th_utils.text_loss import Price, price_table


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
    assert (
        words.option(Option(1, "add", 2.5))
        == "one coordinate, points added, up to 2.5 half-ranges out"
    )
    assert words.option(Option(3, "replace", 10.0)) == (
        "3 coordinates, set to points, up to 10 half-ranges out"
    )


def steering(own: float) -> Steering:
    axes = Axes(((1, 2), (1, 2)), torch.eye(2), ("1.2.0", "1.2.7"))
    scores = {Option(1, "add", 3.0): 0.41, Option(2, "add", 3.0): 0.62}
    return Steering(axes, Option(2, "add", 3.0), own, {}, scores)


def test_searched():
    text = words.searched(steering(0.25))
    assert text.startswith("The coordinates are 1.2.0 and 1.2.7.")
    assert "3 half-ranges out: 0.41; 2" in text and "Chosen: 2 coordinates, points added" in text
    assert "have a weight of 0.25, and" in text
    assert "have a weight of 1, and" in words.searched(steering(1.0))
    alone = dataclasses.replace(steering(1.0), scores={Option(2, "add", 3.0): 0.62})
    assert "out: 0.62. In the choice" in words.searched(alone), "nothing was there to choose"


def test_accuracy():
    hits = {2: torch.tensor([1.0, 1.0, 0.0, 0.0]), 4: torch.tensor([0.0, 0.0, 0.0, 0.0])}
    text = words.accuracy(hits, {2: 0.75, 4: 0.2}, seed=0)
    assert "in 50% (0% to 100%) of the prompts with lists of 2 and 0% (0% to 0%) of" in text
    assert text.endswith("comes first in 75% and 20%, where a guess has 50% and 25%.")


GAINS = {
    "variant": ["a", "b"],
    "kind": ["steering", "control"],
    "mean": [0.2, -0.03],
    "low": [0.1, -0.08],
    "high": [0.3, 0.02],
}


def test_gains_and_rules():
    text = words.gains(GAINS)
    assert text == "a: +20 (+10 to +30); b: -3 (-8 to +2)"
    said = words.untold(GAINS, "b")
    assert text in said and said.endswith("Chosen on the half *find*: b.")


def test_the_largest_gain_is_a_repair():
    table = dict(
        variant=["told", "seen later", "edit", "chance"],
        kind=["steering", "turned", "weights", "control"],
        mean=[0.1, 0.9, 0.2, 0.8],
        low=[0.0] * 4,
        high=[1.0] * 4,
    )
    text = words.largest(table)
    assert "gain is +20 points (95% interval 0 to +100): edit." in text and "largest of 2" in text
    assert ": told." in words.largest({**table, "mean": [0.3, 0.9, 0.2, 0.8]})


def test_told_names_each_gain_once():
    each = [Interval(x, x - 0.01, x + 0.01) for x in (0.11, 0.22, 0.33, 0.44, 0.55)]
    text = words.told(*each)
    at = [text.index(f"+{n} points") for n in (11, 22, 33, 44, 55)]
    assert text.index("inhibition coordinates") < at[0] < text.index("random subspaces") < at[2]
    assert at[2] < text.index("random other heads") < at[3] < text.index("by themselves") < at[4]
    assert at[4] < text.index("*Exploratory*") < at[1]


def test_controls_beside_the_coordinates():
    text = words.beside(Interval(-0.1, -0.2, 0.0), Interval(-0.05, -0.1, 0.1))
    assert "random subspaces differ by -10 points (95% interval -20 to 0), random heads" in text
    assert text.endswith("by -5 points (95% interval -10 to +10).")


def test_draws():
    assert "lists alone" in words.draws(1) and "their 8 draws" in words.draws(8)


def test_components():
    scales = torch.ones(3, 2, 4)
    scales[1, 0, :3] = torch.tensor([3.0, 0.0, 3.0])
    scales[2, 1, 1] = 3.0
    text = words.components(scales, "some heads", 12)
    assert "best of 12 edits scales 4 of the model's 24 components, 3 up and 1 down, by" in text
    assert "factors of 0, 3; they belong to some heads" in text
    assert text.endswith("most of them to 1.0 (3 of them) and 2.1 (1).")


def test_edited():
    each = [Interval(x, x - 0.01, x + 0.01) for x in (0.11, 0.22, 0.33)]
    text = words.edited(each[0], {"another family": each[1]}, each[2])
    assert (
        "changes accuracy by +11 points" in text
        and "; the best among another family, by +22 points" in text
    )
    assert "but for their order, change it by +33 points" in text
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


PRICES = price_table(
    {
        "weights edited": (
            "weights",
            {
                "loss on text, nats per token": Price(np.array([1.0, 2.0]), np.array([1.5, 2.25])),
                "logit difference, nats": Price(np.array([3.0]), np.array([2.0])),
            },
        ),
        "random edit": (
            "control",
            {
                "loss on text, nats per token": Price(np.array([1.0, 2.0]), np.array([0.996, 2.0])),
                "logit difference, nats": Price(np.array([3.0]), np.array([3.25])),
            },
        ),
    }
)


def test_prices_are_counted():
    assert words.prices(PRICES) == (
        "Higher with the edit than without it: loss on text, weights edited, 2 of 2; logit "
        "difference, weights edited, 0 of 1; loss on text, random edit, 0 of 2; logit difference, "
        "random edit, 1 of 1."
    )


def test_the_message_of_prices_has_mean_changes():
    assert messages.prices(PRICES) == (
        "On average the weight edit changes the loss on text by +0.38 nats per token (a random "
        "edit by -0.002) and the logit difference by -1 nats (a random edit by +0.25)."
    )


def test_the_message_of_gains():
    table = {
        "variant": ["inhibition coordinates, place told", "natural points, place told",
                    "random subspaces, place told", "not told: some rule", "weights of one",
                    "weights of all", "weights, random components"],
        "kind": ["steering", "control", "control", "unaided", "weights", "weights", "control"],
        "mean": [0.121, 0.9, -0.034, -0.02, 0.25, 0.24, -0.002],
    }  # fmt: skip
    assert messages.gains(table) == (
        "Told the place of the answer, steering changes accuracy by +12 points (random subspaces "
        "by -3); not told, steering changes it by -2, edits of weights by +25 and +24 (of random "
        "components by 0)."
    )


def test_the_message_of_lengths():
    kinds = ["clean", "steering", "control", "unaided", "weights"]
    table = {
        "kind": [kind for kind in kinds for _ in range(3)],
        "length": [4, 7, 10] * 5,
        "mean": [0.48, 0.9, 0.08, 0.62, 0.9, 0.2, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.85, 0.9, 0.19],
    }
    assert messages.lengths(table) == (
        "As it is, the model is right in 48% of the prompts with lists of 4 and in 8% with lists "
        "of 10; steered with the place told, in 62% and 20%; with edited weights, in 85% and 19%."
    )


def test_the_message_of_places():
    table = {
        "kind": ["clean"] * 3 + ["steering"] * 2 + ["weights"] * 2,
        "length": [2, 2, 5, 2, 2, 2, 2],
        "accuracy": [0.0, 0.0, 0.0, 0.1, 0.0, 0.4, 0.2],
    }
    assert messages.places(table, 2) == (
        "In lists of 2, at 2 of the 2 places the model as it is names the item in none of the "
        "prompts drawn; steered with the place told, at 1, and with edited weights at none."
    )


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


def test_places_that_are_equal_or_never_right():
    same = {**PLACES, "accuracy": [0.0, 0.0, 0.3, 0.3, 1.0]}
    assert words.places(same, 2) == (
        "In lists of 2, as it is: never right; edited: best at places 1 and 2 (30%), never right "
        "at 0 of the 2 places."
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
        "It is +10 points (95% interval +5 to +15) as a share of +20 points (95% interval +10 to "
        "+30)."
    )
    assert "ratio says little" in words.share_note(Interval(0.2, -0.1, 0.3), part)


def test_what_the_price_buys():
    assert words.bought(Interval(0.2, 0.1, 0.3)).endswith(
        "by +20 points (95% interval +10 to +30)."
    )
    assert words.bought(Interval(0.2, -0.1, 0.3)).endswith("which may be nothing.")
    assert not words.bought(Interval(-0.2, -0.3, -0.1)).endswith("which may be nothing.")
