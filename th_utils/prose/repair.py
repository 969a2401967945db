"""Sentences of chapter 07."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from th_utils.bootstrap import Interval, mean_interval
from th_utils.repair_study import Option, Steering
from th_utils.roles import label


def option(said: Option) -> str:
    """One way to steer, in words."""
    count = "one axis" if said.axes == 1 else f"{said.axes} axes"
    verb = {"add": "added to", "replace": "set in place of"}[said.how]
    return f"{count}, {verb} what is there, up to {said.extent:g} natural half-ranges out"


def searched(steering: Steering) -> str:
    """What was compared, what was chosen, and how much places were told apart."""
    tried = "; ".join(f"{option(o)}: {score:.2f}" for o, score in steering.scores.items())
    return (
        f"Axes: {', '.join(steering.axes.names)}. Scores on lists left out in turn, of the half "
        f"*find* ({tried}). Chosen: {option(steering.option)}; in the choice "
        f"of a place's point its own lists have a weight of {steering.own:g}, the rest is what the "
        "point does for all places."
    )


def points(gain: Interval) -> str:
    """A gain in accuracy, in points.

    >>> points(Interval(0.1, -0.014, 0.2))
    '+10 points (95% interval -1 to +20)'
    """
    value, low, high = (_whole(100 * x) for x in gain)
    return f"{value} points (95% interval {low} to {high})"


def _whole(x: float) -> str:
    """A signed whole number, without the sign of a rounded nothing."""
    return "0" if round(x) == 0 else f"{x:+.0f}"


def accuracy(hits: Mapping[int, Tensor], answers: Mapping[int, float]) -> str:
    """Accuracy of the model as it is, by length, and what a guess among the items would give.

    Args:
        hits: of the model as it is, by length.
        answers: accuracy among the listed items, by length.
    """
    parts = [
        f"{float(each.mean()):.0%} of lists of {length} ({answers[length]:.0%} among the listed "
        f"items, where a guess has {1 / length:.0%})"
        for length, each in hits.items()
    ]
    return f"As it is, the model names the missing item in {', '.join(parts)}."


def gains(table: dict[str, list]) -> str:
    """Every variant's gain."""
    rows = zip(table["variant"], table["mean"], table["low"], table["high"], strict=True)
    return "; ".join(f"{name}: {points(Interval(*gain))}" for name, *gain in rows) + "."


def told(steered: Interval, turned: Interval, random: Interval, natural: Interval) -> str:
    """Steering with the place given, and its controls."""
    return (
        f"Told the place, steering along the inhibition coordinates changes accuracy by "
        f"{points(steered)}; to where the place has its coordinates by itself, by "
        f"{points(natural)}; in random subspaces of what the same heads write, by "
        f"{points(random)}. *Exploratory*: along the directions of the main inhibition head's "
        f"output in which places differ most by the gradient, it is {points(turned)}."
    )


def untold(table: dict[str, list], chosen: str) -> str:
    """Rules that are not told the place, and the one chosen."""
    return f"By rule: {gains(table)} Chosen on the half *find*: {chosen}."


def components(scales: Float[Tensor, "layer head component"], among: str, tried: int) -> str:
    """Which components a weight edit scales."""
    changed = (scales != 1).nonzero().tolist()
    up = sum(float(scales[tuple(at)]) > 1 for at in changed)
    heads: dict[str, int] = {}
    for layer, head, _ in changed:
        heads[label((layer, head))] = heads.get(label((layer, head)), 0) + 1
    most = sorted(heads.items(), key=lambda item: -item[1])[:4]
    factors = sorted({round(float(scales[tuple(at)]), 2) for at in changed})
    return (
        f"The best of {tried} edits scales {len(changed)} of {scales.numel()} components, {up} up "
        f"and {len(changed) - up} down, by factors of {', '.join(f'{f:g}' for f in factors)}; they "
        f"belong to {among}, most of them to {', '.join(f'{h} ({n})' for h, n in most)}."
    )


def edited(chosen: Interval, others: Mapping[str, Interval], random: Interval) -> str:
    """Weight edits, the one chosen, the other families and the control."""
    rest = "".join(f"; {name}: {points(gain)}" for name, gain in others.items())
    return (
        f"Written into the weights, it changes accuracy by {points(chosen)}{rest}. As many random "
        f"components of the same layers, searched in the same way but for their order: "
        f"{points(random)}."
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


def places(table: dict[str, list], length: int) -> str:
    """Which places of the longest lists gain most."""
    by: dict[str, dict[int, float]] = {}
    rows = zip(table["variant"], table["length"], table["place"], table["accuracy"], strict=True)
    for variant, n, place, value in rows:
        if n == length:
            by.setdefault(variant, {})[place] = value
    parts = []
    for variant, values in by.items():
        best = max(values, key=lambda place: values[place])
        zero = sum(value == 0 for value in values.values())
        parts.append(
            f"{variant}: best at place {best} ({values[best]:.0%}), never right at {zero} of the "
            f"{length} places"
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
    text = f"The gains are {points(part)} and {points(whole)}."
    if whole.low <= 0:
        text += " The second may be nothing, so their ratio says little."
    return text
