"""What tests of sentences share: tables with one number exchanged, and intervals."""

from __future__ import annotations

import copy
from typing import Any

from th_utils.bootstrap import Interval


def changed(table: dict[str, list], column: str, row: int, value: Any) -> dict[str, list]:
    """A copy of the table with one number exchanged."""
    other = copy.deepcopy(table)
    other[column][row] = value
    return other


def near(value: float, width: float = 0.01) -> Interval:
    """An interval around a value."""
    return Interval(value, value - width, value + width)
