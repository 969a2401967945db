"""Sentences on removals from values say what their numbers say: other numbers, other words."""

from __future__ import annotations

from tables import changed, near

from th_utils.prose import value_removal as words


def test_through():
    numbers = {"leading": near(0.123), "whole": near(0.456)}
    text = words.through(numbers, near(0.789))
    assert "score of 0.79 (95% interval 0.78 to 0.80) falls by 0.12 (95% interval 0.11 to" in text
    assert "by 0.46 (95% interval 0.45 to 0.47) for all" in text


REMOVAL = {
    "removed": ["nothing", "some"],
    "inhibition mean": [0.45, 0.12],
    "logit difference mean": [5.31, 3.52],
}


def test_removal():
    text = words.removal(REMOVAL)
    assert "5.3 nats and 0.45 (nothing); 3.5 nats and 0.12 (some)." in text
    assert "0.99 (some)" in words.removal(changed(REMOVAL, "inhibition mean", 1, 0.99))


def test_lost():
    table = {"removed": ["nothing", "some"]}
    for name, values in (
        ("inhibition", (0.45, 0.12)),
        ("logit difference", (5.31, 3.52)),
        ("inhibition fall", (0, 0.33)),
        ("logit difference fall", (0, 1.79)),
    ):
        for end, less in (("mean", 0), ("low", 0.1), ("high", -0.1)):
            table[f"{name} {end}"] = [value - less for value in values]  # fmt: skip
    text = words.lost(table)
    assert (
        "inhibition score is 0.45 (0.35 to 0.55) and the logit difference 5.3 (5.2 to 5.4)" in text
    )
    assert text.splitlines()[-1] == "| some | 0.33 (0.23 to 0.43) | 1.8 (1.7 to 1.9) |"
    assert "| nothing |" not in text


def test_instead():
    mine = {"distance whole": 0.53, "distance leading": 0.37, "whole": 0.234, "leading": 0.1}
    theirs = {"distance whole": 0.21, "distance leading": 0.14, "whole": 0.07, "leading": 0.05}
    mine, theirs = ({k: near(x) for k, x in of.items()} for of in (mine, theirs))
    text = words.instead("induction", mine, theirs, (20, 1))
    assert "induction heads write at the second" in text and "of a role before 20.1" in text
    assert text.splitlines()[-2:] == [
        "| duplicate-token heads | 21% (20% to 22%) | 14% (13% to 15%) | 0.07 (0.06 to 0.08) | "
        "0.05 (0.04 to 0.06) |",
        "| induction heads | 53% (52% to 54%) | 37% (36% to 38%) | 0.23 (0.22 to 0.24) | "
        "0.10 (0.09 to 0.11) |",
    ]
