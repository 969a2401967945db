"""Sentences of chapter 05 say what their numbers say: other numbers, other words."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from th_utils.bootstrap import Interval
from th_utils.prose import writers as words
from th_utils.roles import ROLES, Roles
from th_utils.width import Joint
from th_utils.writer_effects import Channel, PairEffects
from th_utils.writers import Input, Pair


def changed(table: dict, column: str, row: int, value) -> dict:
    other = copy.deepcopy(table)
    other[column][row] = value
    return other


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
    "whole, rest", [(2.0, "Most of it is written by others"), (7.9, "next to nothing"), (5.0, None)]
)
def test_share(whole, rest):
    text = words.share("V", channel((3, 0), (5, 1)), joint(whole=whole), Interval(0.6, 0.5, 0.7))
    assert "All 2 duplicate-token heads together" in text
    assert "the strongest of the inhibition heads, 20.1, read by value" in text
    assert f"take away {whole / 8:.0%} of the distance" in text
    assert "do 60% of that (95% interval 50% to 70%)" in text and "at random 1.0%" in text
    for said in ("written by others", "next to nothing"):
        assert (said in text) == (rest is not None and said in rest)


def test_share_by_key():
    text = words.share("K", channel((3, 0)), joint("K"), Interval(0.61, 0.5, 0.7))
    assert (
        "All 1 previous-token heads together" in text and "the induction heads read by key" in text
    )
    assert "25% of the attention" in text


def test_through():
    text = words.through({"leading": 0.123, "whole": 0.456}, 0.789)
    assert "score of 0.79 falls by 0.12 for" in text and "by 0.46 for all" in text


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
    assert "correlates 0.30 with the effect in the mean" in text and text.endswith("0.40.")
    assert "permuted) in 2;" in words.agreement(changed(AGREEMENT, "p", 0, 0.01))
    assert "effect in 2 of them" in words.agreement(changed(AGREEMENT, "coincide", 0, True))
    by_key = words.agreement({**AGREEMENT, "facing": [None] * 3})
    assert "cdot" not in by_key and by_key.endswith("0.30 with the effect in the mean.")


def test_width():
    ordered = [joint("Q", (0.7, 0.9, 1.0, 1.0)), joint("V"), joint("K", (0.2, 0.4, 0.6, 1.0))]
    lines = words.width(ordered, None).splitlines()
    assert len(lines) == 3
    assert "into the main mover's query: 1 of 4 components" in lines[0]
    assert "half of the whole effect, 2 for four fifths; the two leading ones 90%" in lines[0]
    assert "value: 2 of 4 components" in lines[1] and "scores 30%, two at random 3%" in lines[1]
    assert "keys: 3 of 4 components" in lines[2]


@pytest.mark.parametrize(
    "two, verdict",
    [
        (0.2, "is wider than the one by value, where two carry 60%, and two components are not"),
        (0.55, "is wider than the one by value, where two carry 60%."),
        (0.7, "is no wider than the one by value, where two carry 60%."),
    ],
)
def test_width_before_the_softmax(two, verdict):
    ordered = [joint("V"), joint("K", (0.3, 0.65, 1.0, 1.0))]
    text = words.width(ordered, joint("K", (0.1, two, 0.75, 1.0)))
    assert f"carry {two:.0%} of the whole effect instead of 65%" in text
    assert "four fifths take 4 components" in text and verdict in text


def test_width_alt():
    text = words.width_alt([joint("V"), joint("K", (0.2, 0.4, 0.85, 1.0))])
    assert "V: two components 60% of the whole effect, four fifths with 3" in text
    assert "K: two components 40% of the whole effect, four fifths with 3" in text


REMOVAL = {
    "removed": ["nothing", "some"],
    "inhibition mean": [0.45, 0.12],
    "logit difference mean": [5.31, 3.52],
}


def test_removal():
    text = words.removal(REMOVAL)
    assert "5.3 nats and 0.45 (nothing); 3.5 nats and 0.12 (some)." in text
    assert "0.99 (some)" in words.removal(changed(REMOVAL, "inhibition mean", 1, 0.99))


EVERYONE = {
    "kind": ["V", "V", "V", "K"],
    "reader": ["20.0"] * 3 + ["18.6"],
    "name": ["MLP 7", "17.4", "14.3", "16.0"],
    "role": ["other", "induction", "duplicate-token", "previous-token"],
    "mean": [0.6, 0.4, 0.1, 0.97],
    "rank": [1, 2, 3, 1],
    "of": [50, 50, 50, 40],
}


def test_everyone():
    text = words.everyone(EVERYONE)
    assert text.startswith("The value of 20.0 loses most of what is watched (60%) without MLP 7 ")
    assert "the strongest duplicate-token head, 14.3, is number 3 of 50 in size with 10%)" in text
    assert text.endswith("the key of 18.6 loses most of what is watched (97%) without "
                         "previous-token head 16.0.")  # fmt: skip
    text = words.everyone(changed(EVERYONE, "mean", 1, 0.7))
    assert "(70%) without induction head 17.4 (the strongest" in text
    text = words.everyone(changed(EVERYONE, "role", 2, "other"))
    assert "no duplicate-token head is among the first 3 of 50" in text


def test_instead():
    mine = {"distance whole": 0.53, "distance leading": 0.37, "whole": 0.234, "leading": 0.1}
    theirs = {"distance whole": 0.21, "distance leading": 0.14, "whole": 0.07, "leading": 0.05}
    text = words.instead("induction", mine, theirs)
    assert text.startswith("The induction heads look") and "takes away 53%" in text
    assert "heads' 21%)" in text and "components 37% (14%)" in text and "by 0.23 (0.07)" in text


def test_draws():
    one = joint()
    other = replace(one, others=np.tile([0.0, -0.6, 0.12], (4, 1)))
    assert words.draws(other) == "largest of 3 single draws 0.50 of the leading ones"
