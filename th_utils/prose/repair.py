"""Sentences of chapter 07."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from th_utils.bootstrap import Interval, mean_interval
from th_utils.prose.intervals import series, signed
from th_utils.prose.recall import share
from th_utils.repair_study import Option, Steering
from th_utils.roles import label
from th_utils.tasks.lists import list_means


def option(said: Option) -> str:
    """One way to steer, in words."""
    count = "one coordinate" if said.axes == 1 else f"{said.axes} coordinates"
    verb = {"add": "points added", "replace": "set to points"}[said.how]
    return f"{count}, {verb}, up to {said.extent:g} half-ranges out"


def searched(steering: Steering) -> str:
    """What was compared, what was chosen, and how much places were told apart."""
    tried = "; ".join(f"{option(o)}: {score:.2f}" for o, score in steering.scores.items())
    chosen = f" Chosen: {option(steering.option)}." if len(steering.scores) > 1 else ""
    return (
        f"The coordinates are {series(steering.axes.names)}. Score on lists left out in turn, half "
        f"*find*: {tried}.{chosen} In the choice of a place's point its own lists have a weight "
        f"of {steering.own:g}, and what the point does for all places has the rest."
    )


def points(gain: Interval) -> str:
    """A gain in accuracy, in points.

    >>> points(Interval(0.1, -0.014, 0.2))
    '+10 points (95% interval -1 to +20)'
    """
    value, low, high = (signed(100 * x) for x in gain)
    return f"{value} points (95% interval {low} to {high})"


def accuracy(hits: Mapping[int, Tensor], answers: Mapping[int, float], *, seed: int) -> str:
    """Accuracy of the model as it is, by length, and what a guess among the items would give.

    Args:
        hits: of the model as it is, by length.
        answers: accuracy among the listed items, by length.
        seed: of the bootstrap.
    """
    right = [
        f"{share(mean_interval(list_means(each, n), seed=seed))} of the prompts with lists of {n}"
        for n, each in hits.items()
    ]
    return (
        f"As it is, the model names the missing item in {series(right)} (95% intervals over lists "
        f"in brackets). Among the items of the list it comes first in "
        f"{series([f'{answers[n]:.0%}' for n in hits])}, where a guess has "
        f"{series([f'{1 / n:.0%}' for n in hits])}."
    )


def gains(table: dict[str, list]) -> str:
    """Every variant's gain."""
    rows = zip(table["variant"], table["mean"], table["low"], table["high"], strict=True)
    said = []
    for name, *gain in rows:
        value, low, high = (signed(100 * x) for x in gain)
        said.append(f"{name}: {value} ({low} to {high})")
    return "; ".join(said)


def largest(table: dict[str, list]) -> str:
    """The repair with the largest gain, controls and what was looked at afterwards aside."""
    at = [i for i, kind in enumerate(table["kind"]) if kind in ("steering", "unaided", "weights")]
    best = max(at, key=lambda i: table["mean"][i])
    gain = Interval(*(table[end][best] for end in ("mean", "low", "high")))
    return (
        f"The largest gain is {points(gain)}: {table['variant'][best]}. It is the largest of "
        f"{len(at)} on the same lists, which flatters it a little."
    )


def told(
    steered: Interval, turned: Interval, random: Interval, heads: Interval, natural: Interval
) -> str:
    """Steering with the place given, and its controls."""
    return (
        f"Told the place, steering along the inhibition coordinates changes accuracy by "
        f"{points(steered)}. The controls: random subspaces of what the same heads write, "
        f"{points(random)}; leading components of random other heads, {points(heads)}; the points "
        f"at which the coordinates stand by themselves, {points(natural)}. *Exploratory*: along "
        f"the directions found by gradient it is {points(turned)}."
    )


def beside(subspaces: Interval, heads: Interval) -> str:
    """Gains of the random controls less that of the inhibition coordinates."""
    return (
        f"Compared with the inhibition coordinates on the same lists, random subspaces differ by "
        f"{points(subspaces)}, random heads by {points(heads)}."
    )


def draws(count: int) -> str:
    """What the intervals of the random controls are over."""
    if count == 1:
        return "With one draw of a control its interval is over lists alone."
    return f"Intervals of the random controls are over lists and over their {count} draws."


def untold(table: dict[str, list], chosen: str) -> str:
    """Rules that are not told the place, and the one chosen."""
    return (
        f"Points gained, by rule, 95% intervals in brackets: {gains(table)}. Chosen on the half "
        f"*find*: {chosen}."
    )


def components(scales: Float[Tensor, "layer head component"], among: str, tried: int) -> str:
    """Which components a weight edit scales."""
    changed = (scales != 1).nonzero().tolist()
    up = sum(float(scales[tuple(at)]) > 1 for at in changed)
    heads: dict[str, int] = {}
    for layer, head, _ in changed:
        heads[label((layer, head))] = heads.get(label((layer, head)), 0) + 1
    (first, n), *next_ones = sorted(heads.items(), key=lambda item: -item[1])[:4]
    most = [f"{first} ({n} of them)", *(f"{head} ({n})" for head, n in next_ones)]
    factors = sorted({round(float(scales[tuple(at)]), 2) for at in changed})
    return (
        f"The best of {tried} edits scales {len(changed)} of the model's {scales.numel():,} "
        f"components, {up} up and {len(changed) - up} down, by factors of "
        f"{', '.join(f'{f:g}' for f in factors)}; they belong to {among}, most of them to "
        f"{series(most)}."
    )


def edited(chosen: Interval, others: Mapping[str, Interval], random: Interval) -> str:
    """Weight edits, the one chosen, the other families and the control."""
    rest = "".join(f"; the best among {name}, by {points(gain)}" for name, gain in others.items())
    return (
        f"Written into the weights, it changes accuracy by {points(chosen)}{rest}. As many random "
        f"components of the same layers, searched in the same way but for their order, change it "
        f"by {points(random)}."
    )


def price(
    text: Sequence[Float[np.ndarray, " text"]],
    difference: Sequence[Float[np.ndarray, " pair"]],
    right: Sequence[Float[np.ndarray, " pair"]],
    *,
    seed: int,
) -> str:
    """What the edit changes elsewhere. Each argument is a measurement before and after."""
    rise = mean_interval(text[1] - text[0], seed=seed)
    moved = mean_interval(difference[1] - difference[0], seed=seed)
    more = mean_interval(right[1] - right[0], seed=seed)
    return (
        f"On {len(text[0])} texts that the model wrote itself the loss goes from "
        f"{text[0].mean():.2f} to {text[1].mean():.2f} nats per token, by {rise.value:+.3f} (95% "
        f"interval {rise.low:+.3f} to {rise.high:+.3f}). On {2 * len(difference[0])} "
        f"indirect-object prompts the logit difference goes from {difference[0].mean():.1f} to "
        f"{difference[1].mean():.1f} nats, by {moved.value:+.2f} ({moved.low:+.2f} to "
        f"{moved.high:+.2f}), and the indirect object is the top token in {right[0].mean():.0%} "
        f"before and {right[1].mean():.0%} after, a change of {points(more)}."
    )


def prices(table: dict[str, list]) -> str:
    """How often what each edit changes is higher than before, by measurement."""
    higher: dict[tuple[str, str], list[bool]] = {}
    rows = zip(table["measure"], table["variant"], table["before"], table["after"], strict=True)
    for measure, variant, before, after in rows:
        higher.setdefault((measure.split(",")[0], variant), []).append(after > before)
    parts = [f"{name}, {variant}, {sum(x)} of {len(x)}" for (name, variant), x in higher.items()]
    return f"Higher with the edit than without it: {'; '.join(parts)}."


def places(table: dict[str, list], length: int) -> str:
    """At which places of lists of one length the model is right."""
    by: dict[str, dict[int, float]] = {}
    rows = zip(table["variant"], table["length"], table["place"], table["accuracy"], strict=True)
    for variant, n, place, value in rows:
        if n == length:
            by.setdefault(variant, {})[place] = value
    parts = []
    for variant, values in by.items():
        top = max(values.values())
        if top == 0:
            parts.append(f"{variant}: never right")
            continue
        at = [place for place, value in values.items() if value == top]
        best = f"place{'s' * (len(at) > 1)} {series(at)}"
        zero = sum(value == 0 for value in values.values())
        parts.append(
            f"{variant}: best at {best} ({top:.0%}), never right at {zero} of the {length} places"
        )
    return f"In lists of {length}, {'; '.join(parts)}."


def lengths(table: dict[str, list]) -> str:
    """Accuracy of each variant on the shortest and the longest lists."""
    ends = min(table["length"]), max(table["length"])
    found: dict[tuple[str, str], dict[int, float]] = {}
    for panel, variant, length, mean in zip(
        *(table[name] for name in ("panel", "variant", "length", "mean")), strict=True
    ):
        found.setdefault((panel, variant), {})[length] = mean
    parts = [
        f"{panel}, {variant}: {values[ends[0]]:.0%} and {values[ends[1]]:.0%}"
        for (panel, variant), values in found.items()
    ]
    return f"Right answers on lists of {ends[0]} and of {ends[1]}; {'; '.join(parts)}."


def share_note(whole: Interval, part: Interval) -> str:
    """The two gains that a share is made of, and a warning where the whole may be nothing."""
    text = f"It is {points(part)} as a share of {points(whole)}."
    if whole.low <= 0:
        text += " The second may be nothing, so their ratio says little."
    return text


def bought(gain: Interval) -> str:
    """What a price was paid for."""
    text = f"What this buys: the same edit changes accuracy on lists by {points(gain)}"
    return text + (", which may be nothing." if gain.low <= 0 <= gain.high else ".")
