"""Numbers with their intervals, as sentences and tables have them."""

from __future__ import annotations

from th_utils.bootstrap import Interval


def ranged(x: Interval, form: str) -> str:
    """A number and its interval in a sentence.

    >>> ranged(Interval(0.5, 0.4, 0.61), ".0%")
    '50% (95% interval 40% to 61%)'
    """
    return f"{x.value:{form}} (95% interval {x.low:{form}} to {x.high:{form}})"


def bracketed(x: Interval, form: str) -> str:
    """The same where it has been said that brackets hold 95% intervals.

    >>> bracketed(Interval(0.5, 0.4, 0.61), "+.1f")
    '+0.5 (+0.4 to +0.6)'
    """
    return f"{x.value:{form}} ({x.low:{form}} to {x.high:{form}})"
