"""What each figure of chapter 06 shows, in one sentence: the beginning of its caption."""

from __future__ import annotations

from collections import Counter

import numpy as np

from th_utils.prose.intervals import series
from th_utils.results import Results


def accuracy(table: dict[str, list]) -> str:
    """Accuracy over the vocabulary on the shortest and on the longest lists."""
    columns = (table[name] for name in ("order", "among", "length", "mean"))
    found = {
        n: mean
        for order, among, n, mean in zip(*columns, strict=True)
        if (order, among) == ("list", "vocabulary")
    }
    first, last = min(found), max(found)
    return (
        f"The item left out is the top token in {found[first]:.0%} of the prompts with lists of "
        f"{first} items and in {found[last]:.0%} with lists of {last}, where a guess among the "
        f"items has {1 / last:.0%}."
    )


def places(shown: Results) -> str:
    """How often the last item and the first are recalled, for the lengths drawn."""
    columns = (shown.columns[name] for name in ("order", "length", "place", "mean"))
    found = {
        (n, place): mean for order, n, place, mean in zip(*columns, strict=True) if order == "list"
    }
    parts = [f"{found[n, n]:.0%} and {found[n, 1]:.0%} with {n}" for n in shown.meta["shown"]]
    return (
        "The last item of a list and the first are recalled in "
        + series([parts[0].replace(" with ", " of the prompts with ") + " items", *parts[1:]])
        + "."
    )


def coordinates(shown: Results) -> str:
    """How much of the range of short lists the places of long lists span, by coordinate."""
    length, axis = shown["length"], shown["axis"]
    short, long = shown.meta["shown"][0], shown.meta["shown"][-1]
    names = list(dict.fromkeys(shown.columns["name"]))
    spans = []
    for k, name in enumerate(names, 1):
        new, old = (
            float(np.ptp(shown["mean"][(length == n) & (axis == k)])) for n in (long, short)
        )
        of = (
            f" of the range of lists of {short} along inhibition coordinate" if k == 1 else " along"
        )
        spans.append(f"{new / old:.0%}{of} {name}")
    return f"The places of lists of {long} span {series(spans)}."


def crowding(table: dict[str, list]) -> str:
    """How far apart neighbouring places lie on the shortest lists drawn and on the longest."""
    found = {
        n: mean
        for n, mean in zip(table["length"], table["d mean"], strict=True)
        if n > 2  # two items have no neighbours that could crowd them
    }
    first, last = min(found), max(found)
    return (
        f"Neighbouring places lie {found[first]:.1f} times their spread apart in lists of {first} "
        f"items and {found[last]:.1f} times in lists of {last}."
    )


def subspace(table: dict[str, list]) -> str:
    """Which item the mover looks at most at most points, and at which never."""
    n, points = table["length"][0], len(table["item"])
    counts = Counter(table["item"])
    top, most = counts.most_common(1)[0]
    never = [k for k in range(1, n + 1) if k not in counts]
    least = min(counts, key=lambda k: counts[k])
    return (
        f"Of {points} points of the grid, {most / points:.0%} make the main mover look most at "
        f"item {top} of {n}, "
        + (
            f"none at item{'s' * (len(never) > 1)} {series(never)}."
            if never
            else f"{counts[least] / points:.0%} at item {least}, the fewest."
        )
    )


def dimensions(table: dict[str, list]) -> str:
    """Share of places that each space selects, beside random directions and nothing set."""
    share = {what: f"{mean:.0%}" for what, mean in zip(table["what"], table["mean"], strict=True)}
    numbers, random = ([what for what in share if end in what] for end in ("coordinate", "random"))
    return (
        f"Points in {series([what.split()[0] for what in numbers])} inhibition coordinates select "
        f"{series([share[what] for what in numbers])} of the places on lists held out"
        + "".join(f", in {what} directions {share[what]}" for what in random)
        + f"; with nothing set it is {share['nothing set']}."
    )


def shorter(table: dict[str, list]) -> str:
    """Share of places selected, by length, and chance."""
    shares, chance = (
        series([f"{x:.0%}" for x in table[name]]) for name in ("selected mean", "chance")
    )
    return (
        f"In lists of {series(table['length'])} items the points select {shares} of the places, "
        f"where chance is {chance}."
    )
