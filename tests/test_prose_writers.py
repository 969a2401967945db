"""Sentences of chapter 05 say what their numbers say: other numbers, other words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tables import changed, near

from th_utils import width
from th_utils.prose import messages_05 as messages
from th_utils.prose import writers as words
from th_utils.results import Results
from th_utils.roles import ROLES, Roles
from th_utils.width import Joint
from th_utils.writer_effects import Channel, PairEffects
from th_utils.writers import Input, Pair


def some_roles(source="measured", **heads) -> Roles:
    return Roles(source, {role: heads.get(role.replace("-", "_"), []) for role in ROLES})


def joint(kind="V", shares=(0.3, 0.6, 0.9, 1.0), whole=2.0, clean=8.0, random=0.05) -> Joint:
    by_effect = whole * np.tile(shares, (4, 1))
    every = np.full(4, whole)
    return Joint(kind, by_effect, 0.5 * by_effect, random * by_effect,
                 0.01 * whole * np.ones((4, 3)), every, np.full(4, clean))  # fmt: skip


def channel(*writers) -> Channel:
    reader, zeros = (20, 1), torch.zeros(2, 3)
    effects = [
        PairEffects(Pair("V", w, reader, zeros[0], None), [0, 1, 2], 0.0, zeros[:, 0], zeros,
                    zeros[:, 0], zeros)
        for w in writers
    ]  # fmt: skip
    return Channel({reader: Input("V", reader, zeros[:, 0], lambda d: d)}, effects)


def test_heads():
    roles = some_roles(duplicate_token=[(3, 0), (5, 1)], inhibition=[(8, 6)])
    text = words.heads(roles, {"V": 2, "K": 0}, {(8, 6): 3})
    assert "2 pairs of a writer and a later reader by value" in text
    assert "(3.0, 5.1) to inhibition heads (8.6)" in text
    assert "no previous-token heads before induction heads, so nothing by key" in text
    assert text.endswith("inhibition heads: 8.6.3.")
    assert words.heads(roles, {"V": 0, "K": 0}, {}).endswith("inhibition heads: none.")


def test_absent():
    assert "published roles" in words.absent(some_roles("published"))


PANELS = {
    "writer": ["5.1"] * 2 + ["7.3"] * 2,
    "reader": ["9.2"] * 4,
    "component": [0, 1] * 2,
    "composition": [0.1, 0.25, 0.3, 0.2],
    "facing": [0.1, 0.3, 0.4, 0.2],
    "effect": [0.02, 0.01, -0.1, 0.05],
}


def test_panels():
    text = words.panels(PANELS)
    assert "from 5.1 to 9.2 component 1 has the highest composition score (0.25)" in text
    assert "component 0 the largest effect (2.0)" in text
    assert "from 7.3 to 9.2 component 0 has the highest composition score (0.30)" in text
    assert "component 1 the largest effect (5.0)" in text
    text = words.panels(changed(PANELS, "composition", 0, 0.77))
    assert "component 0 has the highest composition score (0.77)" in text
    text = words.panels({**PANELS, "effect": [None] * 4})
    assert "effect" not in text and "component 1 has the highest" in text


def test_spread():
    text = words.spread(PANELS)
    assert text.startswith("Over the 2 pairs drawn, the highest composition score")
    assert "is 1.3 times the median" in text and "u_j|$ of a component" in text
    text = words.spread({**PANELS, "facing": [None] * 4})
    assert "u_j" not in text
    text = words.spread(changed(PANELS, "composition", 2, 3.8))
    assert "is 1.7 times the median" in text


@pytest.mark.parametrize(
    "whole, rest",
    [(near(0.25), "Most of it is written by others"), (near(0.97), "next to nothing"),
     (near(0.6), None), (near(0.49, 0.02), None), (near(0.91, 0.02), None)],
)  # fmt: skip
def test_share(whole, rest):
    both = channel((3, 0), (5, 1))
    text = words.share("V", both, whole, near(0.6), near(0.0123, 0.002))
    assert text.startswith(
        "The 2 duplicate-token heads before 20.1, the strongest of the inhibition heads, taken out "
        f"of its value, take away {whole.value:.0%} (95% interval {whole.low:.0%} to "
    )
    assert "of the distance" in text and "components of each alone do 60% (95% interval 59%" in text
    assert text.endswith("at random 1.2% (95% interval 1.0% to 1.4%).")
    for said in ("written by others", "next to nothing"):
        assert (said in text) == (rest is not None and said in rest)


def test_share_counts_the_writers_of_the_strongest_reader():
    both = channel((3, 0), (5, 1))
    other = replace(both.effects[0], pair=Pair("V", (4, 4), (9, 9), torch.zeros(3), None))
    both.effects.append(other)
    text = words.share("V", both, near(0.6), near(0.6), near(0.01))
    assert text.startswith("The 2 duplicate-token heads")


def test_share_by_key():
    text = words.share("K", channel((3, 0)), near(0.25), near(0.61), near(0.01))
    assert text.startswith(
        "The one previous-token head before the induction heads, taken out of their keys, takes "
        "away 25% (95% interval 24% to 26%) of the attention."
    )
    assert "The two leading components alone do 61%" in text


def test_of_how_much():
    assert "take away 21% (95% interval 20% to 22%) of" in words.of_how_much(near(0.21))


AGREEMENT = {
    "writer": ["3.0", "5.1", "5.2"],
    "reader": ["9.2"] * 3,
    "strength": [0.1, 0.3, 0.2],
    "rho": [0.2, 0.8, -0.1],
    "p": [0.2, 0.001, 0.7],
    "facing": [0.3, 0.5, 0.4],
    "order": [0.1, 0.3, 0.5],
    "coincide": [False, True, False],
}


def test_agreement():
    text = words.agreement(AGREEMENT)
    assert text.startswith("3 pairs of heads: rank correlations between -0.10 and 0.80")
    assert "permuted) in 1;" in text and "effect in 1 of them" in text
    assert "0.80 in the pair with the largest effect, from 5.1 to 9.2." in text
    assert "the composition score correlates 0.30 with the effect, the mere order" in text
    assert text.endswith("by singular value, 0.30, and the score of two components, "
                         "$|v_k \\cdot u_j|$, 0.40.")  # fmt: skip
    other = words.agreement(changed(AGREEMENT, "order", 0, 1.0))
    assert "singular value, 0.60, and" in other and "score correlates 0.30" in other
    assert "permuted) in 2;" in words.agreement(changed(AGREEMENT, "p", 0, 0.01))
    assert "effect in 2 of them" in words.agreement(changed(AGREEMENT, "coincide", 0, True))
    by_key = words.agreement({**AGREEMENT, "facing": [None] * 3})
    assert "cdot" not in by_key and by_key.endswith("by singular value, 0.30.")


def test_width():
    ordered = [joint("Q", (0.7, 0.9, 1.0, 1.0)), joint("V"), joint("K", (0.2, 0.4, 0.6, 1.0))]
    curves = width.curves_table(ordered, seed=0)
    lines = words.width(ordered, None, curves).splitlines()
    assert len(lines) == 3
    assert (
        "into the main mover's query: half of the whole effect takes 1 of 4 components of each "
        "writer, four fifths 2; the two leading ones do 90% (90% to 90%)"
    ) in lines[0]
    assert "value: half of the whole effect takes 2 of 4" in lines[1]
    assert "scores 30% (30% to 30%), two at random 3% (3% to 3%)." in lines[1]
    assert "keys: half of the whole effect takes 3 of 4" in lines[2]
    at = curves["components"].index(2)
    wide = changed(changed(curves, "low", at, 0.81), "high", at, 0.95)
    assert "do 90% (81% to 95%)" in words.width(ordered, None, wide)


@pytest.mark.parametrize(
    "two, verdict",
    [
        (0.55, "is wider than the one by value, where two carry 60% (60% to 60%)."),
        (0.7, "is no wider than the one by value, where two carry 60% (60% to 60%)."),
    ],
)
def test_width_before_the_softmax(two, verdict):
    ordered = [joint("V"), joint("K", (0.3, 0.65, 1.0, 1.0))]
    scores = joint("K", (0.1, two, 0.75, 1.0))
    text = words.width(ordered, scores, width.curves_table(ordered, seed=0, scores=scores))
    assert f"carry {two:.0%} ({two:.0%} to {two:.0%}) of the whole effect instead of 65%" in text
    assert "four fifths take 4 components" in text and verdict in text


def test_width_alt():
    text = words.width_alt([joint("V"), joint("K", (0.2, 0.85, 0.85, 1.0))])
    assert text == ("Four fifths of the whole effect take 3 by value and 2 by key, of each writer.")
    text = words.width_alt([joint("Q", (0.9, 1.0, 1.0, 1.0))])
    assert text == "Four fifths of the whole effect take 1 by query, of each writer."


EVERYONE = {
    "kind": ["V", "V", "V", "K", "K"],
    "reader": ["20.0"] * 3 + ["18.6"] * 2,
    "name": ["MLP 7", "17.4", "14.3", "MLP 9", "16.0"],
    "role": ["other", "induction", "duplicate-token", "other", "previous-token"],
    "mean": [0.6, 0.4, 0.1, -1.4, 0.97],
    "low": [0.5, 0.3, 0.05, -1.8, 0.95],
    "high": [0.7, 0.5, 0.15, -1.1, 0.99],
    "rank": [1, 2, 3, 1, 2],
    "of": [50, 50, 50, 40, 40],
}


def test_everyone():
    text = words.everyone(EVERYONE)
    by_value, by_key = text.split(". ")
    assert by_value == (
        "For the value of 20.0, the distance between the two orders falls most without MLP 7, by "
        "60% (95% interval 50% to 70%); the duplicate-token head 14.3 is number 3 of 50 in size, "
        "with 10% (95% interval 5% to 15%)"
    )
    assert by_key == (
        "For the key of 18.6, the attention falls most without the previous-token head 16.0, by "
        "97% (95% interval 95% to 99%); without 1 of the 2 drawn it grows instead, most without "
        "MLP 9, by 140% (95% interval 110% to 180%)"
    )


def test_everyone_otherwise():
    text = words.everyone(changed(EVERYONE, "mean", 1, 0.7))
    assert "falls most without the induction head 17.4, by 70%" in text
    text = words.everyone(changed(EVERYONE, "role", 2, "other"))
    assert "no duplicate-token head is among the 3 largest of 50" in text
    text = words.everyone(changed(EVERYONE, "mean", 4, -2.0))
    by_key = text.split(". ")[1]
    assert "falls" not in by_key and "without 2 of the 2 drawn it grows" in by_key
    assert "most without the previous-token head 16.0, by 200%" in by_key


def test_draws():
    one = joint()
    other = replace(one, others=np.tile([0.0, -0.6, 0.12], (4, 1)))
    said = "The largest of 3 single draws does 0.50 of what the leading ones do."
    assert words.draws(other) == said


def test_the_message_of_panels():
    by_value = {"kind": "V", "random_level": 0.1}
    assert messages.panels(Results(PANELS, by_value)) == (
        "The component with the highest composition score has the largest effect in none of 2 "
        "pairs of heads; the largest, of component 7.3.1, is 5.0% of the distance between the two "
        "orders of names."
    )
    other = changed(PANELS, "effect", 1, 0.0823)
    text = messages.panels(Results(other, {"kind": "K", "random_level": 0.1}))
    assert "effect in 1 of 2 pairs of heads; the largest, of component 5.1.1, is 8.2 points" in text
    assert text.endswith("points of attention.")
    one = {name: column[:2] for name, column in other.items()}
    assert "in 1 of 1 pair of heads;" in messages.panels(Results(one, by_value))
    nothing = Results({**PANELS, "effect": [0.0, -0.1, -0.2, -0.3]}, by_value)
    assert messages.panels(nothing) == (
        "No component of these duplicate-token heads lowers what is watched when it is taken out "
        "of the reader's value."
    )


def test_the_message_of_scores_alone():
    scores = Results({**PANELS, "effect": [None] * 4}, {"kind": "V", "random_level": 0.1})
    assert messages.panels(scores) == (
        "Component 7.3.0 of a duplicate-token head has the highest composition score with the "
        "value of an inhibition head: 0.30, 1.2 times the median of its head and 3.0 times a "
        "random direction's."
    )
    other = changed({**PANELS, "effect": [None] * 4}, "composition", 1, 0.5)
    text = messages.panels(Results(other, {"kind": "K", "random_level": 0.2}), "GPT-2 small")
    assert text.startswith("In GPT-2 small, component 5.1.1 of a previous-token head has")
    assert "the key of an induction head: 0.50, 1.7 times the median" in text
    assert "2.5 times a random" in text


def test_the_message_of_curves():
    ordered = [joint("V"), joint("Q", (0.7, 0.9, 1.0, 1.0)), joint("K", (0.2, 0.4, 0.6, 1.0))]
    text = messages.width(width.curves_table(ordered, seed=0))
    assert text == (
        "Of the effect of the writers' whole outputs, the two leading components of each carry 90% "
        "in the mover's query, 60% in the inhibition head's value and 40% in induction heads' keys."
    )
    scores = joint("K", (0.1, 0.25, 0.6, 1.0))
    text = messages.width(width.curves_table(ordered, seed=0, scores=scores))
    assert text.endswith("and 40% in induction heads' keys (25% on attention scores).")
    alone = messages.width(width.curves_table([joint("V")], seed=0))
    assert alone.endswith("carry 60% in the inhibition head's value.")


def test_the_message_of_removals():
    table = {
        "removed": ["nothing", "duplicate-token, leading two", "duplicate-token, all", "other"],
        "inhibition mean": [0.472, 0.441, 0.386, 0.9],
    }
    assert messages.removal(table) == (
        "Without all that duplicate-token heads write into the inhibition heads' values, the main "
        "mover's inhibition score goes from 0.47 to 0.39; without their two leading components "
        "alone, to 0.44."
    )


def test_the_message_of_everyone():
    assert messages.everyone(EVERYONE) == (
        "Without MLP 7, the two orders of names lie 60% closer in the value of head 20.0 "
        "(duplicate-token head 14.3: 10%); without previous-token head 16.0, the attention of head "
        "18.6 falls by 97%."
    )
    text = messages.everyone(changed(EVERYONE, "mean", 1, 0.7))
    assert text.startswith("Without induction head 17.4, the two orders of names lie 70% closer")
    text = messages.everyone(changed(EVERYONE, "role", 2, "other"))
    assert "head 20.0 (no duplicate-token head is drawn);" in text
    text = messages.everyone(changed(EVERYONE, "mean", 4, -0.1))
    assert text.endswith("; no writer drawn for the key of head 18.6 lowers what is watched.")
