"""Sentences of chapter 09 say what their tables say."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from th_utils.prose import blind as words
from th_utils.prose import messages_09 as messages


def changed(table: dict, column: str, row: int, value) -> dict:
    other = copy.deepcopy(table)
    other[column][row] = value
    return other


LIFT = {
    "kind": ["Q"] * 3 + ["K"] * 3,
    "task": ["indirect objects"] * 6,
    "score": ["raw", "corrected", "raw"] * 2,
    "k": [100, 100, 5000] * 2,
    "precision": [0.51, 0.62, 0.22, 0.41, 0.33, 0.19],
    "low": [0.43, 0.52, 0.2, None, None, None],
    "high": [0.54, 0.7, 0.23, None, None, None],
    "lift": [51.0, 62.0, 22.0, 41.0, 33.0, 19.0],
    "chance": [0.02] * 6,
    "p": [0.0005] * 6,
    "chance_heads": [0.08, 0.2, 0.04, 0.1, 0.1, 0.1],
    "p_heads": [0.003, 0.2, 0.04, 0.01, 0.01, 0.01],
    "readers": [38] * 6,
    "writers": [32] * 6,
}


@pytest.mark.parametrize(
    "column, row, value, said",
    [
        ("precision", 0, 0.77, "queries, 77% (95% interval 43% to 54%) of the 100 highest scores"),
        ("high", 1, 0.99, "62% (95% interval 52% to 99%) of the corrected ones"),
        ("chance_heads", 0, 0.3, "and 30% when heads are replaced"),
        ("precision", 2, 0.09, "of the 5,000 highest scores 9% (95%"),
        ("precision", 3, 0.01, "For keys, 1% of the 100 highest scores are hits, 33% of the"),
    ],
)
def test_lift(column, row, value, said):
    assert said not in words.lift(LIFT, "indirect objects")
    text = words.lift(changed(LIFT, column, row, value), "indirect objects")
    assert said in text and "are hits on indirect objects" in text


def test_chance():
    row = words.rows(LIFT)[0]
    text = words.chance(row)
    assert "By chance: 2.0 when scores are dealt out" in text and "(p < 0.001)" in text
    assert "8.0 when heads are replaced" in text and "(p = 0.003)" in text
    assert text.endswith("32 writing and 38 reading heads.")
    assert "3.0 when heads are" in words.chance(row | {"chance_heads": 0.03})


def test_multiplicity():
    assert "holds 6 such shares" in words.multiplicity(LIFT)
    assert "nulls 5 have p-values of at most 0.05" in words.multiplicity(LIFT)
    assert "nulls 4 have" in words.multiplicity(changed(LIFT, "p_heads", 0, 0.9))


def test_setup_and_absent():
    some, everything = words.setup(2255040, 16, False), words.setup(2255040, 48, True)
    assert "2,255,040 pairs" in some and "the first 8 of them" in some
    assert "48 prompts" in everything and everything.endswith("on as many, without intervals.")
    assert words.absent("this-model").startswith("Of this-model only the attention weights")


CALIBRATION = {
    "kind": ["Q", "Q"],
    "score": ["raw", "raw"],
    "pairs": [400, 20],
    "effect": [0.7, 30.0],
    "effect_low": [0.1, 0.5],
    "effect_high": [1.0, 99.0],
    "mean_effect": [2.0, 2.0],
}


def test_calibration():
    assert words.calibration(CALIBRATION) == (
        "The 20 highest scores for queries have 15 times the mean effect of all pairs, and the "
        "weakest tenth of these at most 0.25 times"
    )
    assert "have 4 times" in words.calibration(changed(CALIBRATION, "effect", 1, 8.0))
    more = {name: [*column, *column] for name, column in CALIBRATION.items()}
    more = changed(changed(more | {"kind": ["Q", "Q", "K", "K"]}, "effect", 3, 6.0), "pairs", 3, 9)
    assert words.calibration(more).endswith("; those for keys 3 and 0.25 times")


ORDER = {
    "kind": ["Q", "Q", "V", "V"],
    "task": ["lists"] * 4,
    "score": ["raw", "corrected"] * 2,
    "pairs": [226] * 4,
    "correlation": [0.23, 0.64, 0.07, 0.421],
    "top": [14.02, 11.4, 15.4, 8.6],
    "bottom": [0.741, 0.17, 0.83, 0.24],
}


def test_orders():
    header, _, queries, values = words.orders(ORDER).splitlines()
    assert "effect of the highest 226, raw | corrected" in header
    assert queries == "| queries | lists | 0.23 | 0.64 | 14.0 | 11.4 | 0.74 | 0.17 |"
    assert values == "| values | lists | 0.07 | 0.42 | 15.4 | 8.6 | 0.83 | 0.24 |"
    assert len({line.count("|") for line in words.orders(ORDER).splitlines()}) == 1


def correction_rows() -> dict:
    names = ["raw score", "× norm", "× all sizes", "× on the task", "without", "without, run",
             "without, task"]  # fmt: skip
    needs = ["weights", "weights", "random tokens", "prompts", "weights", "random tokens",
             "prompts"]  # fmt: skip
    return {
        "correction": names,
        "needs": needs,
        "has_score": [True] * 4 + [False] * 3,
        "task": ["lists"] * 7,
        "correlation": [0.23, 0.44, 0.64, 0.84, 0.4, 0.62, 0.82],
        "low": [0.22, 0.43, 0.61, 0.8, 0.3, 0.6, None],
        "high": [0.24, 0.45, 0.65, 0.9, 0.5, 0.63, None],
        "lift": [47.0, 13.0, 50.0, 99.0, 9.0, 45.0, 96.0],
    }


def test_corrections():
    table = correction_rows()
    text = words.corrections(table, "× all sizes", "lists")
    assert "Chosen for queries was “× all sizes”" in text
    assert "is 0.64 (0.61 to 0.65), that of the raw score 0.23 (0.22 to 0.24)" in text
    assert "(“× norm”) 0.44 (0.43" in text
    assert "without the score reach 0.62 (0.60 to 0.63), and a lift of 45" in text
    assert "has 50 and the raw score 47" in text
    assert "0.84 (0.80 to 0.90) with the score and 0.82 without it, the lift 99 and 96" in text
    assert "(“raw score”) 0.50" in words.corrections(
        changed(table, "correlation", 0, 0.5), "× all sizes", "lists"
    )
    assert words.gain(table, "× all sizes", "lists") == (
        "From 0.23 to 0.64. The sizes without the score reach 0.62."
    )
    assert words.without(table, "lists") == (
        "The raw score has a lift of 47 there, the sizes without the score 45."
    )
    assert "without the score 9." in words.without(changed(table, "lift", 5, 9.0), "lists")


@pytest.mark.parametrize(
    "after, said",
    [(33.0, "lowers the lift at 100 on indirect objects from 41 to 33."),
     (50.0, "raises the lift at 100 on indirect objects from 41 to 50."),
     (41.0, "leaves the lift at 100 on indirect objects at 41.")],
)  # fmt: skip
def test_others(after, said):
    table = changed(LIFT, "lift", 4, after)
    text = words.others({"Q": "a", "K": "b"}, table, "indirect objects")
    assert text == f"Chosen in the same way were for keys “b”, which {said}"
    assert words.others({"Q": "a"}, table, "indirect objects") == ""


def test_reuse():
    table = {
        "kind": ["Q", "Q", "K"],
        "task": ["a", "b", "a"],
        "other": ["b", "a", "b"],
        "share": [0.91, 0.5, 1.0],
    }
    text = words.reuse(table)
    assert "queries, 50% (b, hits on a) to 91% (a, hits on b); keys, always 100%" in text


STRONGEST = {
    "kind": ["Q"] * 3,
    "rank": [1, 2, 3],
    "writer": ["7.3", "7.3", "7.3"],
    "component": [0, 1, 0],
    "reader": ["9.9", "9.6", "9.6"],
    "effect": [0.34, 0.2, 0.1],
    "score_rank": [12345, 2, 3],
    "writer_role": ["inhibition"] * 3,
    "reader_role": ["other"] * 3,
}


def test_strongest():
    text = words.strongest([STRONGEST])
    assert "from component 7.3.0 (inhibition) to 9.9 (no role), an effect of 0.34" in text
    assert "number 12,345 by raw score; 2 of the 3 largest come" in text
    assert "3 of the 3 largest" in words.strongest([changed(STRONGEST, "component", 1, 0)])


def test_agreement():
    assert "rank correlation of 0.91 for queries and 0.80 for keys with" in words.agreement(
        {"Q": 0.91, "K": 0.8, "V": None}
    )
    assert "larger sizes only" in words.agreement({"Q": None})


KNOWN = {
    "kind": ["Q", "Q"],
    "sender": ["7.3", "7.9"],
    "reader": ["9.9", "9.9"],
    "component": [4, 2],
    "rank": [3, 500],
    "of": [1000, 1000],
    "found": [True, False],
    "rank_all": [40, 9000],
    "of_all": [60000, 60000],
}
MORE = KNOWN | {
    "corrected_found": [True, True],
    "effect_component": [1, 2],
    "effect_rank": [77, 6],
    "hit": [True, False],
}


def test_known():
    null = np.array([0.0, 0.5, 1.0, 0.0])
    text = words.known(KNOWN)
    assert "movers' queries: 1 of 2, the best being 7.3.4 into 9.9 at rank 3" in text
    assert "(40 of 60,000 in the whole model)" in text and "keys: this model has no such" in text
    assert "1 of 2 (2 by the corrected score)" in words.known(MORE)
    assert "2 of 2, the best" in words.known(changed(KNOWN, "found", 1, True))
    assert words.known_chance(KNOWN, null).endswith("senders' places: 0.38 (p = 0.600).")
    assert words.known_chance({}, null) == "There is no known pair of heads in this model."


def test_effects_of_known():
    text = words.effects_of_known(MORE)
    assert "queries: 1 of 2 pairs have a component that is a hit" in text
    assert "7.9.2 into 9.9, at rank 6 of 60,000" in text
    assert "7.3.1 into 9.9, at rank 5 of" in words.effects_of_known(
        changed(MORE, "effect_rank", 0, 5)
    )


def test_edges():
    table = {"kind": ["Q", "Q", "V"], "role": ["inhibition", "other", "other"]}
    assert words.edges(table) == (
        "Drawn are the strongest pairs of heads: 2 for queries, 1 of them between known pairs; 1 "
        "for values, 0 of them between known pairs"
    )


def test_lift_message():
    assert messages.lift(LIFT, "indirect objects") == (
        "On indirect objects, of the 100 highest composition scores of a type, 51% into queries "
        "and 41% into keys have an effect in the strongest hundredth of all pairs; of the 5,000 "
        "highest, 22% and 19%."
    )
    text = messages.lift(changed(LIFT, "precision", 5, 0.02), "indirect objects")
    assert "41% into keys" in text and text.endswith("22% and 2%.")
    assert "77% into queries" in messages.lift(
        changed(LIFT, "precision", 0, 0.77), "indirect objects"
    )


def test_calibration_message():
    table = CALIBRATION | {"low": [0, 0.9999], "high": [0.2, 1]}
    assert messages.calibration(table) == (
        "From the lowest 20% of scores to the highest 0.01%, the mean effect goes from 0.35 to 15 "
        "times that of all pairs for queries."
    )
    assert "from 4 to 15 times" in messages.calibration(changed(table, "effect", 0, 8.0))
    both = {name: [*column, *column] for name, column in table.items()}
    both = changed(both | {"kind": ["Q", "Q", "K", "K"]}, "effect", 3, 1.0)
    assert messages.calibration(both).endswith("pairs for queries and 0.35 to 0.5 for keys.")


def test_corrections_message():
    table = correction_rows()
    assert messages.corrections(table, "× all sizes", "lists") == (
        "For queries on lists, correction takes the rank correlation of score and effect from 0.23 "
        "to 0.64; the sizes alone, without the score, reach 0.62."
    )
    text = messages.corrections(changed(table, "correlation", 5, 0.7), "× norm", "lists")
    assert "from 0.23 to 0.44" in text and text.endswith("reach 0.70.")


def test_reuse_message():
    table = {
        "kind": ["Q", "Q", "Q", "K", "K"],
        "task": ["lists", "indirect objects", "lists", "lists", "indirect objects"],
        "other": ["indirect objects", "lists", "random", "indirect objects", "lists"],
        "share": [0.91, 0.5, 0.1, 1.0, 1.0],
    }
    assert messages.reuse(table) == (
        "Of the hundred pairs with the largest effects on indirect objects, and of those on lists, "
        "50% to 91% (queries) and 100% (keys) are among the strongest hundredth on the other."
    )
    assert "and 20% to 100% (keys)" in messages.reuse(changed(table, "share", 3, 0.2))


def test_known_message():
    assert messages.known(KNOWN) == (
        "Of 2 known pairs of heads, 1 have a component in the highest hundredth of their reader's "
        "scores."
    )
    assert messages.known(MORE).endswith("scores, and 2 in that of the corrected scores.")
    assert "heads, 2 have" in messages.known(changed(KNOWN, "found", 1, True))


def test_edges_message():
    table = {"kind": ["Q", "Q", "V"], "role": ["inhibition", "other", "other"]}
    assert messages.edges(table) == (
        "Of the strongest channels that the search finds, 1 of 2 into queries and 0 of 1 into "
        "values join heads of a known pair."
    )
    assert "2 of 2 into queries" in messages.edges(changed(table, "role", 1, "inhibition"))
