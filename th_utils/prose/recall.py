"""Sentences of chapter 06."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from th_utils.bootstrap import Interval
from th_utils.index_space import Selection


def accuracy(table: dict[str, list]) -> str:
    """Accuracy of the shortest and the longest lists, over the vocabulary and among the items."""
    rows = list(zip(*(table[c] for c in ("order", "length", "among", "mean")), strict=True))
    found = {(n, among): mean for order, n, among, mean in rows if order == "list"}
    lengths = sorted({n for n, _ in found})
    first, last = lengths[0], lengths[-1]
    return (
        f"The item left out is the top token of the vocabulary in {found[first, 'vocabulary']:.0%} "
        f"of the prompts with lists of {first} items and in {found[last, 'vocabulary']:.0%} with "
        f"lists of {last}; among the items of the list alone it comes first in "
        f"{found[first, 'listed']:.0%} and {found[last, 'listed']:.0%}, where a guess would be "
        f"right in {1 / first:.0%} and {1 / last:.0%}"
    )


def shuffled(lengths: Sequence[int], each: Sequence[Interval]) -> str:
    """How much the order of the repeats matters, length by length."""
    parts = ", ".join(
        f"{100 * x.value:+.0f} points ({100 * x.low:+.0f} to {100 * x.high:+.0f}) with {n} items"
        for n, x in zip(lengths, each, strict=True)
    )
    return (
        f"Accuracy with repeats in list order less that with repeats shuffled, same lists: {parts}."
    )


def places(table: dict[str, list], length: int, best: int, worst: int) -> str:
    """The best and the worst place of one length, chosen elsewhere, and how good they are here."""
    mean = {
        place: value
        for n, place, value, order in zip(
            *(table[c] for c in ("length", "place", "mean", "order")), strict=True
        )
        if n == length and order == "list"
    }
    return (
        f"In lists of {length}, place {best + 1} was best and place {worst + 1} worst on the other "
        f"half; here they are recalled in {mean[best + 1]:.0%} and {mean[worst + 1]:.0%}, and by "
        f"place accuracy lies between {min(mean.values()):.0%} and {max(mean.values()):.0%}"
    )


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
    for n, axis, d in zip(*(table[c] for c in ("length", "axis", "d")), strict=True):
        if axis == 1 and d is not None:
            by_length.setdefault(n, []).append(d)
    parts = ", ".join(f"{np.mean(d):.2f} with {n} items" for n, d in sorted(by_length.items()))
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
    reach = ", ".join(f"{x:.0%}" for x in selection.reached)
    return (
        f"Of {len(selection.points)} grid points, the item that the main mover looks at most in "
        f"the largest share of prompts is {parts}; on average {agree:.0%} of the prompts agree. "
        f"Taken prompt by prompt, some point of the grid selects item 1 to {n} in {reach}"
    )


def dimensions(table: dict[str, list]) -> str:
    """Share of places selected, by what was set."""
    chance = 1 / sum(name.startswith("place ") for name in table)
    parts = ", ".join(
        f"{mean:.0%} with {what}" for what, mean in zip(table["what"], table["mean"], strict=True)
    )
    return f"Share of places selected on the other half: {parts}, where chance is {chance:.0%}"


def which(table: dict[str, list], dimensions: int = 3) -> str:
    """The places that can be selected, and those that cannot."""
    row = table["what"].index(f"{dimensions} coordinates")
    names = [name for name in table if name.startswith("place ")]
    shares = {name.removeprefix("place "): table[name][row] for name in names}
    groups = {
        "selected in more than half of the prompts": [k for k, x in shares.items() if x > 0.5],
        "in some": [k for k, x in shares.items() if 1 / len(names) < x <= 0.5],
        "no more often than by chance": [k for k, x in shares.items() if x <= 1 / len(names)],
    }
    parts = "; ".join(f"{text}: {', '.join(ks) or 'none'}" for text, ks in groups.items())
    return f"Places by what one point each does in {dimensions} dimensions, {parts}."


def control(controls: Sequence[Selection]) -> str:
    """What each random subspace selects."""
    shares = [float(c.reported.mean()) for c in controls]
    return (
        f"{len(shares)} random subspaces selected {min(shares):.0%} to {max(shares):.0%} of the "
        f"places on the other half, and {np.mean([c.found.mean() for c in controls]):.0%} on the "
        "half they were searched on"
    )


def shorter(table: dict[str, list]) -> str:
    """What the same search selects in lists of other lengths, and the mover's own look."""
    parts = "; ".join(
        f"with {n} items {selected:.0%} of the places (chance {chance:.0%}), and of itself it "
        f"looks most at the answer in {itself:.0%} of the prompts"
        for n, chance, selected, itself in zip(
            *(table[c] for c in ("length", "chance", "selected mean", "itself mean")), strict=True
        )
    )
    return f"The same search by length of the list: the main mover is made to select, {parts}"


def wide(selection: Selection, widened: Selection, factor: int) -> str:
    """The same number of points on a grid that reaches further."""
    shares = ", ".join(f"{x:.0%}" for x in widened.reported.mean(0))
    return (
        f"On a grid that reaches {factor:g} times as far, {widened.reported.mean():.0%} of the "
        f"places are selected on the other half in place of {selection.reported.mean():.0%} (by "
        f"place {shares})."
    )
