"""What the figures of chapter 11 show, in one sentence that follows from their tables."""

from __future__ import annotations

import pytest

from th_utils.bootstrap import Interval
from th_utils.prose import planted


def test_matrices():
    table = {
        "planted": [True, False, False, True],
        "whole_alarm": [False, True, False, True],
        "component_alarm": [True, False, False, True],
    }
    assert planted.matrices_message(table) == (
        "Of 2 channels planted among the 4 pairs of heads of one random model, the search finds 1 "
        "by whole matrices and 2 by single components."
    )
    none = table | {"component_alarm": [False] * 4}
    assert planted.matrices_message(none).endswith("and 0 by single components.")


def curve(**recalls: list[float]) -> dict[str, list]:
    """Shares found at strengths one half, one and two."""
    rows = [
        (name, strength, share)
        for name, shares in recalls.items()
        for strength, share in zip((0.5, 1.0, 2.0), shares, strict=True)
    ]
    names = ("detector", "strength", "recall")
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


@pytest.mark.parametrize(
    "whole, component, aligned, said",
    [
        (
            [0, 0.25, 0.75], [0, 0.5, 1], [0.91, 1, 1],
            "Half of the planted channels are found by whole matrices from strength 1.4 on and by "
            "single components from strength 1 on; aligned components find at least 91% at every "
            "strength from 1/2 to 2.",
        ),
        (
            [0, 0.1, 0.4], [0.6, 1, 1], [0, 0.5, 1],
            "Half of the planted channels are found by aligned components from strength 1 on; "
            "whole matrices find at most 40% at any strength up to 2; single components find at "
            "least 60% at every strength from 1/2 to 2.",
        ),
        (
            [0, 0, 0], [0, 0, 0.2], [0, 0, 0.3],
            "Whole matrices find at most 0% at any strength up to 2; single components find at "
            "most 20% at any strength up to 2; aligned components find at most 30% at any strength "
            "up to 2.",
        ),
    ],
)  # fmt: skip
def test_recovery(whole, component, aligned, said):
    table = curve(whole=whole, component=component, aligned=aligned)
    assert planted.recovery_message(table) == said


def test_conditions():
    shares = {"whole": [0, 0.3], "component": [0.5, 0.2], "sums": [0.9, 0.1], "aligned": [1, 1]}
    rows = [
        (condition, strength, name, share if strength == 1 else 0.77)
        for name, found in shares.items()
        for condition, share in zip(("plain", "wide"), found, strict=True)
        for strength in (1.0, 2.0)
    ]
    names = ("condition", "strength", "detector", "recall")
    table = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    assert planted.conditions_message(table, 1.0) == (
        "At strength 1, depending on the condition, whole matrices find 0% to 30% of the planted "
        "channels, single components 20% to 50%, sums of components 10% to 90% and aligned "
        "components 100%."
    )
    assert "find 77% of the planted channels, single components 77%," in (
        planted.conditions_message(table, 2.0)
    )


def test_false_alarms():
    rates = {"whole": Interval(0.01, 0.0, 0.03), "component": Interval(0.025, 0.01, 0.05)}
    assert planted.false_alarms_message(rates, 0.05, 1200) == (
        "Of 1,200 random models without channels, 1.0% to 2.5%, by detector, raise a false alarm "
        "where at most 5% should; no 95% interval lies above that."
    )
    loud = rates | {"sums": Interval(0.08, 0.06, 0.1)}
    text = planted.false_alarms_message(loud, 0.05, 1200)
    assert "1.0% to 8.0%" in text
    assert text.endswith("should; for sums of components the 95% interval lies above that.")
