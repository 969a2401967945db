"""Sentences of chapter 10 say what their tables say."""

from __future__ import annotations

from th_utils.prose import elsewhere

CLAIMS = {
    "edition": ["one", "two", "one", "two", "one"],
    "claim": ["a", "a", "b", "b", "c"],
    "verdict": ["holds", "holds", "fails", "partly", "holds"],
}


def test_claims():
    text = elsewhere.claims(CLAIMS)
    assert "On one, of 3 claims: 2 holds, 0 partly, 1 fails" in text
    assert "on two, of 2 claims: 1 holds, 1 partly, 0 fails" in text
    assert text.endswith("They differ on `b`.")
    same = CLAIMS | {"verdict": ["holds", "holds", "fails", "fails", "holds"]}
    assert elsewhere.claims(same).endswith("They differ on none.")
    alone = {name: values[4:] for name, values in CLAIMS.items()}
    assert "differ" not in elsewhere.claims(alone)
    assert elsewhere.claims({name: [] for name in CLAIMS}).startswith("No claim")


def test_ranks():
    table = {"edition": ["one"] * 3, "kind": ["Q"] * 3, "share": [0.001, 0.005, 0.3]}
    controls = {"edition": ["one"], "kind": ["Q"], "middle": [0.12]}
    text = elsewhere.ranks(table, controls)
    assert "2 of 3 pairs have a component in the reader's highest hundredth" in text
    assert "median pair's best is at the top 0.5%" in text
    assert "and the median other head's at the top 12%" in text
    assert "inhibition heads' values: on one there is no such pair" in text


def test_width():
    table = {
        "edition": ["one", "one"],
        "kind": ["V", "V"],
        "components": [1, 2],
        "known": [0.42, 0.61],
        "random": [0.11, 0.2],
    }
    text = elsewhere.width(table)
    assert "largest component makes up 42% of the squared score and the two largest 61%" in text
    assert "with random heads as senders 11% and 20%" in text
    assert "queries" not in text
