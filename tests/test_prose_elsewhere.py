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
