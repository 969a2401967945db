"""Sentences of chapter 06."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from th_utils.bootstrap import Interval
from th_utils.index_space import Selection
from th_utils.prose.intervals import series, signed

FEW = 10  # lists; an interval over fewer is rough


def share(x: Sequence[float]) -> str:
    """A share of something with its interval.

    >>> share((0.5, 0.4, 0.61))
    '50% (40% to 61%)'
    """
    return f"{x[0]:.0%} ({x[1]:.0%} to {x[2]:.0%})"


def points(gain: Interval) -> str:
    """A gain in points, with its interval.

    >>> points(Interval(0.1, -0.014, 0.2))
    '+10 points (-1 to +20)'
    """
    value, low, high = (signed(100 * x) for x in gain)
    return f"{value} points ({low} to {high})"


def numbers(searched: Mapping[int, int], reported: Mapping[int, int]) -> str:
    """How many lists there are of each length, on the half searched and on that reported."""

    def said(lists: Mapping[int, int]) -> str:
        return series([f"{lists[n]} of {n} items" for n in sorted(lists)])

    return (
        f"Lists at this size: on the half reported, {said(reported)}; on the half *find*, "
        f"{said(searched)}."
    )


def few(reported: Mapping[int, int]) -> str:
    """What so many lists are good for."""
    least, most = min(reported.values()), max(reported.values())
    span = str(least) if least == most else f"{least} to {most}"
    text = f"At this size there are {span} lists of each length"
    if least < FEW:
        text += f"; an interval over fewer than {FEW} lists is rough, and as a rule too narrow"
    return text + "."


def accuracy(table: dict[str, list]) -> str:
    """Accuracy of the shortest and the longest lists, over the vocabulary and among the items."""
    columns = ("order", "length", "among", "mean", "low", "high")
    rows = list(zip(*(table[c] for c in columns), strict=True))
    found = {(n, among): share(x) for order, n, among, *x in rows if order == "list"}
    lengths = sorted({n for n, _ in found})
    first, last = lengths[0], lengths[-1]
    return (
        f"The item left out is the top token of the vocabulary in {found[first, 'vocabulary']} of "
        f"the prompts with lists of {first} items and in {found[last, 'vocabulary']} with lists "
        f"of {last}; among the items of the list alone it comes first in {found[first, 'listed']} "
        f"and {found[last, 'listed']}, where a guess would be right in {1 / first:.0%} and "
        f"{1 / last:.0%}"
    )


def shuffled(lengths: Sequence[int], each: Sequence[Interval]) -> str:
    """How much the order of the repeats matters, length by length."""
    parts = ", ".join(f"{points(x)} with {n} items" for n, x in zip(lengths, each, strict=True))
    return (
        f"Accuracy with repeats in list order less that with repeats shuffled, same lists: {parts}."
    )


def measured_lengths(lists: Mapping[int, int]) -> str:
    """On which lengths a claim was measured, where its statistic names a range."""
    return f"Measured on {series([f'{lists[n]} lists of {n} items' for n in sorted(lists)])}."


def places(table: dict[str, list], length: int, best: Sequence[int], worst: Sequence[int]) -> str:
    """The best and the worst place of one length, chosen elsewhere, and how good they are here.

    Args:
        table: see `recall.place_table`.
        length: of the lists.
        best, worst: places from 0, see `recall.extremes`.
    """
    columns = (table[c] for c in ("length", "place", "order", "mean", "low", "high"))
    found = {
        place: x
        for n, place, order, *x in zip(*columns, strict=True)
        if n == length and order == "list"
    }
    means = [x[0] for x in found.values()]
    return (
        f"In lists of {length}, {_ties(best, 'best')} and {_ties(worst, 'worst')} on the half "
        f"*find*; on the other half place {best[0] + 1} is recalled in {share(found[best[0] + 1])} "
        f"and place {worst[0] + 1} in {share(found[worst[0] + 1])}, and by place accuracy lies "
        f"between {min(means):.0%} and {max(means):.0%}"
    )


def _ties(places: Sequence[int], end: str) -> str:
    """The place at one end; of places that are equal the first counts."""
    if len(places) == 1:
        return f"place {places[0] + 1} was {end}"
    names = series([place + 1 for place in places])
    return f"places {names} were {end}, equally (place {places[0] + 1} counts)"


def categories(table: dict[str, list] | None) -> str:
    """Accuracy by category of nouns, where it was measured."""
    if table is None:
        return (
            "Lists whose nouns are all of one category are measured at the sizes `book` and `full` "
            "only."
        )
    parts = ", ".join(
        f"{category} {mean:.0%} ({low:.0%} to {high:.0%})"
        for category, mean, low, high in zip(
            *(table[c] for c in ("category", "mean", "low", "high")), strict=True
        )
    )
    return f"With lists of {table['length'][0]} items of one category: {parts}."


def crowding(table: dict[str, list]) -> str:
    """Discriminability of neighbouring places, by length."""
    by_length: dict[int, list[float]] = {}
    means: dict[int, tuple[float, ...]] = {}
    columns = ("length", "axis", "d", "d mean", "d low", "d high")
    for n, axis, d, *mean in zip(*(table[c] for c in columns), strict=True):
        if axis == 1 and d is not None:
            by_length.setdefault(n, []).append(d)
            means[n] = tuple(mean)
    parts = ", ".join(
        f"{x:.2f} ({low:.2f} to {high:.2f}) with {n} items"
        for n, (x, low, high) in sorted(means.items())
    )
    longest = max(by_length)
    d = by_length[longest]
    text = f"Neighbouring places lie apart by this many times their spread, on average: {parts}"
    if len(d) > 2:
        inner = float(np.mean(d[1:-1]))
        text += (
            f"; in lists of {longest} the first place and the next are {d[0]:.2f} apart, the last "
            f"two {d[-1]:.2f}, those between {inner:.2f} on average"
        )
    return text


def extent(names: Sequence[str], sizes: Sequence[float]) -> str:
    """What is set, and how far the grid reaches."""
    parts = ", ".join(f"{name} to ±{size:.0f}" for name, size in zip(names, sizes, strict=True))
    return f"The coordinates and their reach: {parts}."


def subspace(selection: Selection) -> str:
    """Which items the grid makes the mover look at."""
    n = selection.shares.shape[1]
    most = selection.shares.argmax(-1)
    parts = ", ".join(f"item {k + 1} at {float((most == k).double().mean()):.0%}" for k in range(n))
    agree = float(selection.shares.max(-1).values.mean())
    reach = ", ".join(f"item {k + 1} in {x:.0%}" for k, x in enumerate(selection.reached))
    return (
        f"Which item does the main mover look at most, in more prompts than any other? Of "
        f"{len(selection.points)} grid points it is {parts}; {agree:.0%} of the prompts agree with "
        f"it, on average. If each prompt of the half *find* may have a point of its own, some "
        f"point of the grid selects {reach} of these prompts"
    )


def nothing_set(clean: Float[np.ndarray, "list item"]) -> str:
    """What is selected when nothing is set, for it is counted among what is selected."""
    parts = ", ".join(f"{x:.0%}" for x in clean.mean(0))
    return (
        f"With nothing set the mover looks at one item of each prompt most, which by construction "
        f"selects {clean.mean():.0%} (by place {parts}); this is part of the share."
    )


def dimensions(table: dict[str, list]) -> str:
    """Share of places selected, by what was set."""
    rows = list(zip(*(table[c] for c in ("what", "mean", "low", "high")), strict=True))
    parts = ", ".join(
        f"{share(x)} with {what}{' directions' * what.endswith('random')}" for what, *x in rows[1:]
    )
    return (
        f"Share of places selected on the other half: {parts}. With {rows[0][0]} it is "
        f"{rows[0][1]:.0%}, which is chance"
    )


def which(gains: Sequence[Interval], dimensions: int) -> str:
    """The places that are selected beyond what nothing set gives."""
    parts = ", ".join(f"place {k} {points(x)}" for k, x in enumerate(gains, 1))
    more = [k for k, x in enumerate(gains, 1) if x.low > 0]
    said = {0: "at no place", 1: f"at place {series(more or [0])} only"}
    return (
        f"Beyond what is selected with nothing set, one point for each place in {dimensions} "
        f"dimensions gives: {parts}. The interval lies above zero "
        f"{said.get(len(more), f'at places {series(more or [0])}')}."
    )


def control(controls: Sequence[Selection]) -> str:
    """What each random subspace selects."""
    shares = [float(c.reported.mean()) for c in controls]
    found = float(np.mean([c.found.mean() for c in controls]))
    if len(shares) == 1:
        text = f"One random subspace selected {shares[0]:.0%}"
    else:
        text = f"{len(shares)} random subspaces selected {min(shares):.0%} to {max(shares):.0%}"
    return (
        f"{text} of the places on the other half, and {found:.0%} on the half they were searched "
        "on. The interval is over lists and "
        + ("cannot be over subspaces" if len(shares) == 1 else f"over these {len(shares)}")
    )


def shorter(table: dict[str, list]) -> str:
    """What the same search selects in lists of other lengths, and the mover's own look."""
    columns = ("mean", "low", "high")
    selected, itself = (
        list(zip(*(table[f"{name} {c}"] for c in columns), strict=True))
        for name in ("selected", "itself")
    )
    parts = ", ".join(
        f"{share(x)} with {n} items (nothing set: {chance:.0%})"
        for n, chance, x in zip(table["length"], table["chance"], selected, strict=True)
    )
    own = ", ".join(f"{share(x)} with {n}" for n, x in zip(table["length"], itself, strict=True))
    return (
        f"The same search selects, of the places, {parts}. With nothing set the main mover looks "
        f"most at the item left out in {own}"
    )


def wide(selected: Interval, widened: Interval, factor: int) -> str:
    """The same number of points on a grid that reaches further."""
    return (
        f"On a grid that reaches {factor:g} times as far, {share(widened)} of the places are "
        f"selected on the other half in place of {share(selected)}."
    )
