"""Numbers with their intervals, and words in a row, as sentences and tables have them."""

from __future__ import annotations

from collections.abc import Sequence

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


def span(low: float | int, high: float | int, form: str) -> str:
    """From the least to the most, or one number where both read the same.

    >>> span(0.5, 0.75, ".0%"), span(0.5, 0.501, ".0%")
    ('50% to 75%', '50%')
    """
    ends = f"{low:{form}}", f"{high:{form}}"
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def signed(x: float) -> str:
    """A signed whole number, without the sign of a rounded nothing.

    >>> signed(2.4), signed(-0.3)
    ('+2', '0')
    """
    return "0" if round(x) == 0 else f"{x:+.0f}"


def series(words: Sequence[object]) -> str:
    """Words in a row.

    >>> series([1]), series([1, 2]), series([1, 2, 3])
    ('1', '1 and 2', '1, 2 and 3')
    """
    said = [str(word) for word in words]
    return ", ".join(said[:-1]) + " and " + said[-1] if len(said) > 1 else said[0]
