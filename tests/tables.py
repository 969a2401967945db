"""Tables with one number exchanged: a sentence must say what its table says."""

from __future__ import annotations

import copy
from typing import Any


def changed(table: dict[str, list], column: str, row: int, value: Any) -> dict[str, list]:
    """A copy of the table with one number exchanged."""
    other = copy.deepcopy(table)
    other[column][row] = value
    return other
