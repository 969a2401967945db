"""Sentences of chapter 10 say what their tables say."""

from __future__ import annotations

import pytest

from th_utils.prose import elsewhere

CLAIMS = {
    "edition": ["one", "two", "one", "two", "one"],
    "claim": ["a", "a", "b", "b", "c"],
    "verdict": ["holds", "holds", "fails", "partly", "holds"],
}


def test_claims():
    text = elsewhere.claims(CLAIMS)
    assert "On one, of 3 claims 2 hold, 0 hold in part, 1 fail" in text
    assert "on two, of 2 claims 1 hold, 1 hold in part, 0 fail" in text
    assert text.endswith("They differ on `b`")
    same = CLAIMS | {"verdict": ["holds", "holds", "fails", "fails", "holds"]}
    assert elsewhere.claims(same).endswith("They differ on none")
    alone = {name: values[4:] for name, values in CLAIMS.items()}
    assert "differ" not in elsewhere.claims(alone)
    assert elsewhere.claims({name: [] for name in CLAIMS}).startswith("No claim")


def test_ranks():
    table = {"edition": ["one"] * 3, "kind": ["Q"] * 3, "share": [0.001, 0.005, 0.3]}
    controls = {"edition": ["one"], "kind": ["Q"], "low": [0.02], "middle": [0.12]}
    text = elsewhere.ranks(table, controls)
    assert "2 of 3 pairs have a component in the reader's highest hundredth" in text
    assert "median pair's best is in the top 0.5%" in text
    assert "(their median: top 12%)" in text
    assert "inhibition heads' values: On one there is no such pair" in text


@pytest.mark.parametrize(
    "middle, said",
    [(0.019, "above the middle 95% of other heads"), (0.03, "in the upper half of other heads"),
     (0.13, "in the lower half of other heads")],
)  # fmt: skip
def test_ranks_say_how_known_pairs_compare(middle, said):
    table = {"edition": ["one"], "kind": ["Q"], "share": [middle]}
    controls = {"edition": ["one"], "kind": ["Q"], "low": [0.02], "middle": [0.12]}
    assert said in elsewhere.ranks(table, controls)


def test_width():
    table = {
        "edition": ["one", "one"],
        "kind": ["V", "V"],
        "components": [1, 2],
        "known": [0.42, 0.61],
        "random": [0.11, 0.2],
        "high": [0.4, 0.7],
    }
    text = elsewhere.width(table)
    assert "largest component makes up 42% of the squared score and the two largest 61%" in text
    assert "with random heads as senders 11% and 20%" in text
    assert "queries" not in text


@pytest.mark.parametrize(
    "known, said",
    [(0.41, "above the middle 95% of random pairs."),
     (0.39, "above the mean of random pairs, within their middle 95%."),
     (0.1, "no larger than in random pairs on average.")],
)  # fmt: skip
def test_width_says_how_known_pairs_compare(known, said):
    table = {
        "edition": ["one"] * 2, "kind": ["V"] * 2, "components": [1, 2], "known": [known, 0.5],
        "random": [0.11, 0.2], "high": [0.4, 0.7],
    }  # fmt: skip
    assert f"as senders 11% and 20%: the largest is {said}" in elsewhere.width(table)


def test_claims_message():
    assert elsewhere.claims_message(CLAIMS) == (
        "Of the claims on weights, 2 of 3 hold on one and 1 of 2 on two; 1 of 2 get the same "
        "verdict on both."
    )
    same = CLAIMS | {"verdict": ["holds", "holds", "fails", "fails", "holds"]}
    assert elsewhere.claims_message(same).endswith("; 2 of 2 get the same verdict on both.")
    third = {"edition": "three", "claim": "a", "verdict": "fails"}
    more = {name: [*values, third[name]] for name, values in CLAIMS.items()}
    assert elsewhere.claims_message(more).endswith(
        "and 0 of 1 on three; 0 of 1 get the same verdict on all 3."
    )
    alone = {name: values[4:] for name, values in CLAIMS.items()}
    assert elsewhere.claims_message(alone) == "Of the claims on weights, 1 of 1 hold on one."
    nothing = {name: [] for name in CLAIMS}
    assert elsewhere.claims_message(nothing) == "No claim on weights has been measured."


RANKS = {
    "edition": ["one", "one", "one", "two"],
    "kind": ["Q", "Q", "V", "Q"],
    "share": [0.001, 0.3, 0.005, 0.01],
}
OTHERS = {"edition": ["one", "one", "two"], "kind": ["Q", "V", "Q"], "middle": [0.12, 0.1, 0.005]}


def test_ranks_message():
    assert elsewhere.ranks_message(RANKS, OTHERS) == (
        "Of known pairs, 2 of 3 (one) and 1 of 1 (two) have a component in the highest hundredth; "
        "in 1 of 3 rows their median ranks above that of other heads."
    )
    higher = elsewhere.ranks_message(RANKS, OTHERS | {"middle": [0.2, 0.1, 0.02]})
    assert "; in 3 of 3 rows" in higher
    lower = RANKS | {"share": [0.001, 0.3, 0.011, 0.01]}
    assert "1 of 3 (one)" in elsewhere.ranks_message(lower, OTHERS)


WIDTH = {
    "edition": ["one"] * 4,
    "kind": ["Q", "Q", "V", "V"],
    "components": [1, 2, 1, 2],
    "known": [0.42, 0.6, 0.1, 0.9],
    "random": [0.11, 0.2, 0.11, 0.2],
    "high": [0.4, 0.7, 0.4, 0.7],
}


@pytest.mark.parametrize(
    "known, said",
    [
        ([0.42, 0.6, 0.1, 0.9], "makes up 10% to 42% of"),
        ([0.42, 0.6, 0.1, 0.9], "senders in 1 of 2, above their middle 95% in 1."),
        ([0.39, 0.6, 0.12, 0.9], "senders in 2 of 2, above their middle 95% in none."),
        ([0.1, 0.6, 0.1, 0.9], "senders in 0 of 2, above their middle 95% in none."),
        ([0.1, 0.6, 0.1, 0.9], "makes up 10% of the known pairs' squared score, by panel"),
    ],
)
def test_width_message(known, said):
    assert said in elsewhere.width_message(WIDTH | {"known": known})
