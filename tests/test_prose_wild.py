"""Sentences of chapter 08 say what their tables say: other numbers, other words."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from th_utils.bootstrap import Interval
from th_utils.line import Line
from th_utils.prose import wild as words
from th_utils.sightings import PROPERTIES, Sighting
from th_utils.steering import Axes
from th_utils.tasks.text import Text
from th_utils.wild import Seen


def changed(table: dict, column: str, row: int, value) -> dict:
    other = copy.deepcopy(table)
    other[column][row] = value
    return other


def some_sighting(n: int = 4, length: int = 51) -> Sighting:
    tokens = torch.arange(n * length).view(n, length)
    pieces = tuple(tuple(f" w{x}" for x in row) for row in tokens.tolist())
    coordinate = torch.zeros(n, length)
    coordinate[0, 7], coordinate[0, 8], coordinate[2, 9] = 9.0, -8.0, 7.0
    zero = torch.zeros(n, length)
    seen = Seen(coordinate, zero.long(), zero, zero + 0.25, zero, zero, zero[None])
    strings, opening = tuple("".join(row) for row in pieces), torch.ones(n).int()
    return Sighting("of ours", Text(tokens, strings, ("a",) * n, pieces, opening), seen)


def test_component():
    axes = Axes(((4, 2),), torch.eye(3)[:1], ("4.2.13",))
    line = Line((4, 2), 13, axes, 1.0, -1.0)
    text = words.component(line, (7, 1))
    assert "component 13 of head 4.2" in text and "main mover 7.1" in text


def test_texts():
    again = np.zeros((4, 51))
    again[1, :17] = 1
    text = words.texts([some_sighting()], [again])
    assert text.startswith("- of ours: 4 texts of 51 tokens; 8.3% of the tokens end a run of four")
    assert "33% in the most repetitive one; 0% are a token" in text


def test_coordinates():
    activity = np.linspace(0, 10, 101).reshape(1, 101)
    assert words.coordinates(activity, 27.86) == (
        "On the median prompt of the task the coordinate is 27.9 away from the origin. In text the "
        "median position is 5.0 away, the most active hundredth begins at 9.9, and the farthest "
        "position is at 10.0"
    )


def where() -> dict:
    rows = [(s, p, a) for s in ("of ours", "of others") for p in PROPERTIES.values()
            for a in ("all", "tenth", "hundredth")]  # fmt: skip
    table = {
        name: [row[i] for row in rows] for i, name in enumerate(("source", "property", "among"))
    }
    return table | {"share": [0.01 * i for i in range(len(rows))]}


def test_where_and_repetition():
    assert words.where(where(), "repetition", "of others") == (
        "In text of others, the head looks at a token said before at 15% of all positions, 16% of "
        "the most active tenth and 17% of the most active hundredth"
    )
    text = words.repetition(where(), ["of ours", "of others"])
    assert "0% of all positions, 1%" in text and "15% of all positions" in text
    assert "looks at the first token at 6% of all positions" in text
    assert "at 88% of all positions" in words.repetition(
        changed(where(), "share", 0, 0.88), ["of ours"]
    )


@pytest.mark.parametrize(
    "ends, said",
    [((1.4, 0.2, 3.96), "has 1.4 times the share of all positions (95% interval 0.2 to 4.0)"),
     ((2.0, 1.5, 2.5), "has 2.0 times the share of all positions (95% interval 1.5 to 2.5)")],
)  # fmt: skip
def test_lists(ends, said):
    text = words.lists(where(), {"strict": Interval(*ends)}, "of ours")
    assert said in text and "enumerations hold 9% of all positions" in text


def test_kinds():
    table = {
        "kind": ["all ours", "story", "news"],
        "texts": [9, 5, 4],
        "active": [0.01, 0.032, 0.0],
    }
    assert words.kinds(table) == (
        "Share of active positions by kind of text: story 3.2%, news 0.0% (4 texts or more of each "
        "kind)"
    )
    assert "news 7.0%" in words.kinds(changed(table, "active", 2, 0.07))


def test_concentration():
    assert words.concentration(some_sighting()) == (
        "The most active hundredth is 2 positions in 1 of 4 texts, 2 of them in one"
    )


def test_beside():
    assert words.beside({"of others": Interval(9.5, 0.0, 38.04)}) == (
        "The same in text of others: 9.50 (95% interval 0.00 to 38.04)."
    )
    assert words.beside({}) == ""


def test_rare():
    assert words.rare(some_sighting(), 9.0) is None
    assert words.rare(some_sighting(), 9.1) == (
        "None of 200 positions is so far from the origin, and resampling zeros gives no width. "
        "With none in 4 independent texts, up to 53% of such texts may still hold one (exact "
        "binomial, 95%)."
    )
    assert 0.473**4 == pytest.approx(0.05, rel=0.01)
    assert "up to 14% of such" in words.rare(some_sighting(20), 9.1)


REMOVAL = {
    "component rise": [-0.0001, 0.1, 0.0244],
    "component rise low": [-1.0, 0.0, 0.0022],
    "component rise high": [1.0, 1.0, 0.0551],
    "random rise": [0.0, 0.2, -0.002],
    "random rise low": [-1.0, 0.0, -0.005],
    "random rise high": [1.0, 1.0, 0.001],
}


@pytest.mark.parametrize(
    "column, row, value, said",
    [
        ("component rise", 2, -0.5, "changes by -0.500 on average"),
        ("component rise low", 2, -0.1, "(95% interval -0.100 to +0.055)"),
        ("random rise high", 2, 0.09, "(-0.005 to +0.090)"),
        ("component rise", 0, 0.0123, "changes it by +0.0123"),
        ("random rise", 2, 0.031, "by +0.031 when equally long"),
    ],
)
def test_removal(column, row, value, said):
    text = words.removal(REMOVAL)
    assert said not in text and "changes by +0.024 on average" in text
    assert said in words.removal(changed(REMOVAL, column, row, value))


def test_readings():
    sighting = some_sighting()
    text = words.readings(sighting, Interval(0.96, 0.57, 1.0), (0.53, 0.99))
    assert "rises on 53% of the prompts, and to all mentions of the name on 99%" in text
    assert "96% of the most active positions (95% interval 57% to 100%)" in text
    assert "the one position 0.25 of its attention" in text
    assert "where the head looks at a repetition" not in text, "there is none"
    other = replace(sighting, seen=replace(sighting.seen, reader=sighting.seen.reader * 3))
    assert "0.75 of its" in words.readings(other, Interval(0.96, 0.57, 1.0), (0.53, 0.99))
    tokens = sighting.text.tokens.clone()
    tokens[0, 6] = tokens[0, 5] = tokens[0, 4]
    looked, rise = sighting.seen.looked.clone(), sighting.seen.rise.clone()
    looked[0, 7], looked[0, 8], rise[0, 7] = 5, 6, 0.2
    repeating = Sighting(
        "of ours",
        replace(sighting.text, tokens=tokens),
        replace(sighting.seen, looked=looked, rise=rise, rise_mentions=rise + 0.1),
    )
    text = words.readings(repeating, Interval(0.96, 0.57, 1.0), (0.53, 0.99))
    assert "At the 2 of them where the head looks at a repetition it rises at 50%" in text
    assert "the one position, at 100% over all mentions" in text


EXAMPLES = {
    "example": [0, 0, 0, 1, 1],
    "rise": [0.1, 0.1, 0.1, -0.1, -0.1],
    "text": [" fox", " ran", "\n", " a", "`b"],
    "mark": ["looked", "", "active", "", "active"],
    "coordinate": [0.1, 0.2, -8.04, 0.3, 5.0],
}


def test_examples():
    common = ([(" and", 3), ("\n", 2)], [(" fox", 4), ("`", 1)])
    assert words.examples(EXAMPLES, common) == (
        "Shown: the farthest position of 2 texts, each among the most active hundredth. At 1 of "
        "these 2 positions the mover looks more at the token looked at when the component leaves "
        "its query. Among all of the most active hundredth, the commonest tokens are `and` (3), a "
        "line end (2); the head looks from there most often at `fox` (4), `` ` `` (1)"
    )
    assert "At 2 of these 2" in words.examples(changed(EXAMPLES, "rise", 4, 0.01), common)
    assert words.examples_alt(EXAMPLES) == (
        "Texts with tokens coloured by the component's coordinate: at a line end it is -8.0 and "
        "the head looks at fox; at `b it is +5.0 and the head looks at `b."
    )


def test_coordinates_message():
    activity = np.linspace(0, 10, 101).reshape(1, 101)
    assert words.coordinates_message(activity, 27.86, "4.2.1") == (
        "At none of 101 positions of text is the coordinate along component 4.2.1 as far from zero "
        "as on the task's median prompt: at most 10.0, against 27.9."
    )
    assert words.coordinates_message(activity, 9.9, "4.2.1") == (
        "At 2 of 101 positions of text (1.98%) the coordinate along component 4.2.1 is as far from "
        "zero as on the task's median prompt (9.9) or farther."
    )


def test_where_message():
    assert words.where_message(where(), ["of ours", "of others"]) == (
        "The inhibition head looks at a token said before at 2% of the most active hundredth of "
        "positions against 0% of all in text of ours and 17% against 15% in text of others."
    )
    assert "at 88% of the most" in words.where_message(
        changed(where(), "share", 2, 0.88), ["of ours"]
    )


KINDS = {
    "kind": ["all ours", "story", "news", "list"],
    "texts": [9, 5, 4, 4],
    "active": [0.01, 0.032, 0.004, 0.004],
    "active low": [0.0, 0.006, 0.0, 0.001],
    "active high": [0.02, 0.09, 0.005, 0.006],
}


def test_kinds_message():
    assert words.kinds_message(KINDS) == (
        "By kind of text, the component is active at 0.4% (news and list) to 3.2% (story) of "
        "positions; the 95% intervals of least and most overlap."
    )
    apart = changed(KINDS, "active low", 1, 0.0061)
    assert words.kinds_message(apart).endswith("of least and most do not overlap.")
    assert "0.1% (list) to" in words.kinds_message(changed(KINDS, "active", 3, 0.001))
    assert words.kinds_message(KINDS | {"active": [0.01, 0.02, 0.02, 0.02]}) == (
        "The component is active at 2.0% of positions in every kind of text."
    )
    unseen = changed(changed(KINDS, "active", 3, 0.0), "active high", 3, 0.0)
    assert words.kinds_message(unseen) == (
        "By kind of text, the component is active at 0.0% (list) to 3.2% (story) of positions."
    )
    many = {name: [*column, *[column[-1]] * 2] for name, column in KINDS.items()}
    assert "at 0.4% (4 kinds) to" in words.kinds_message(many)


@pytest.mark.parametrize(
    "ends, said",
    [
        ((0.0244, 0.002, 0.055), "rises by 0.024 (95% interval +0.002 to +0.055) without"),
        ((-0.0244, -0.055, -0.002), "falls by 0.024 (95% interval -0.055 to -0.002) without"),
        ((0.0244, -0.002, 0.055), "changes by +0.024 (95% interval -0.002 to +0.055) without"),
    ],
)
def test_removal_message(ends, said):
    table = copy.deepcopy(REMOVAL)
    for end, value in zip(("", " low", " high"), ends, strict=True):
        table[f"component rise{end}"][-1] = value
    text = words.removal_message(table)
    assert said in text
    assert text.endswith("the component, and changes by -0.002 without random vectors.")
    table["random rise"][-1] = -0.0001
    assert "by +0.000 without random" in words.removal_message(table)


def test_examples_message():
    assert words.examples_message(EXAMPLES) == (
        "At 1 of the 2 positions with a solid frame, removing the component makes the mover look "
        "more at the token that the inhibition head looks at."
    )
    assert "At 2 of the 2" in words.examples_message(changed(EXAMPLES, "rise", 4, 0.01))
