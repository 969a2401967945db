"""Whether results computed again, by another machine, are the same results."""

from __future__ import annotations

from typing import Any

import pytest

from th_utils.results import TOLERANCE


def same(found: Any, expected: Any, where: str) -> None:
    """Assert that numbers agree within the tolerance that results state, all else exactly."""
    if isinstance(expected, dict):
        assert set(found) == set(expected), where
        for name in expected:
            same(found[name], expected[name], f"{where}, {name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for i, (one, other) in enumerate(zip(found, expected, strict=True)):
            same(one, other, f"{where} {i}")
    elif isinstance(expected, float):
        within = {"abs": TOLERANCE["absolute"], "rel": TOLERANCE["relative"]}
        assert found == pytest.approx(expected, **within), where
    elif isinstance(expected, int) and not isinstance(expected, bool):
        assert abs(found - expected) <= TOLERANCE["counts"], where
    else:
        assert found == expected, where
