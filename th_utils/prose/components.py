"""Sentences of chapter 03."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from th_utils.bootstrap import Interval, p_text
from th_utils.components import SenderEffects
from th_utils.roles import label


def panels(measured: Sequence[SenderEffects]) -> str:
    """The leading component of each head, as chosen, and the one with the highest score."""
    parts = []
    for m in measured:
        first, best = m.picks[0], int(m.scores.argmax())
        parts.append(
            f"in head {label(m.sender)} component {first} was chosen first and inhibits by "
            f"{float(m.effects[:, first].mean()):.2f}, where the whole head does by "
            f"{float(m.whole.mean()):.2f}; component {best} has the highest composition score "
            f"({float(m.scores[best]):.2f})"
        )
    return _sentence(parts)


def panels_message(table: dict[str, list], mover: str) -> str:
    """The component with the largest effect, and in how many heads the score finds such a one."""
    most: dict[str, dict[str, int]] = {}
    for i, head in enumerate(table["head"]):
        for reading in ("inhibition", "composition"):
            best = most.setdefault(head, {})
            best[reading] = max(best.get(reading, i), i, key=lambda j, r=reading: table[r][j])
    agree = sum(best["inhibition"] == best["composition"] for best in most.values())
    first = max((best["inhibition"] for best in most.values()), key=table["inhibition"].__getitem__)
    return (
        f"Removing component {table['head'][first]}.{table['component'][first]} lowers the "
        f"preference of mover {mover} for the right name most, by "
        f"{table['inhibition'][first]:.2f} in attention; in {agree} of {len(most)} inhibition "
        "heads the component with the largest effect has the highest composition score."
    )


def agreement(table: dict[str, list]) -> str:
    """Head by head, how far the two readings agree, and how far mere order explains it."""
    lines = [
        f"- head {head}: rank correlation {rho:.2f} ({p_text(p)}, components permuted); the order "
        f"of the components alone correlates {order:.2f} with their inhibition, and with the order "
        f"held fixed {partial:.2f} is left; the highest composition score is at component {best}, "
        f"{'one' if same else 'not one'} of the two that inhibit most"
        for head, rho, p, order, partial, best, same in zip(*table.values(), strict=True)
    ]
    return "\n".join(lines)


def in_turn_message(table: dict[str, list]) -> str:
    """The leading component with the largest effect, in the query alone and recomputed."""
    first = max(
        (i for i, chosen in enumerate(table["first"]) if chosen), key=table["direct"].__getitem__
    )
    direct, full = (
        f"{'falls' if fall > 0 else 'rises'} by {abs(fall):.2f}"
        for fall in (table["direct"][first], table["full"][first])
    )
    rest = max(
        abs(table[way][i]) for way in ("direct", "full") for i in range(len(table["head"]))
        if i != first
    )  # fmt: skip
    return (
        f"Without component {table['head'][first]}.{table['component'][first]} in its query the "
        f"mover's preference for the right name {direct} in attention, and with everything "
        f"recomputed it {full}; any other component moves it by {rest:.2f} at most."
    )


def in_turn(table: dict[str, list]) -> str:
    """The largest effects, in the mover's query alone and with everything recomputed."""
    parts = []
    for head in dict.fromkeys(table["head"]):
        at = [i for i, h in enumerate(table["head"]) if h == head]
        first = next(i for i in at if table["first"][i])
        rest = np.mean([abs(table["full"][i]) for i in at if i != first])
        parts.append(
            f"{head}.{table['component'][first]} alone takes {table['direct'][first]:.2f} from the "
            f"mover's inhibition score in its query, {table['full'][first]:.2f} with everything "
            f"recomputed, and {table['logit'][first]:.1f} nats from the logit difference; each "
            f"other component of the head changes the inhibition score by {rest:.3f} on average, "
            "whatever the sign, everything recomputed"
        )
    return _sentence(parts).removesuffix(".")


def share(measured: Sequence[SenderEffects], part: Interval) -> str:
    """What the leading components do of all that the heads do, and controls of the same length."""
    heads = ", ".join(
        f"{float(m.picked.mean() / m.whole.mean()):.0%} in {label(m.sender)} (where they are "
        f"{float(m.norm_share.mean()):.0%} of the output's squared length; random vectors as long "
        f"as what was removed change it by {abs(float(m.matched.mean())):.3f} in its place)"
        for m in measured
    )
    return (
        f"{panels(measured)} Each head by itself, removing its two leading components from the "
        f"mover's query has this share of the effect of removing its whole output: {heads}. Summed "
        f"over the heads it is {part.value:.0%} (95% interval {part.low:.0%} to {part.high:.0%})."
    )


def removal(table: dict[str, list]) -> str:
    """What is left without the leading components, and without random others."""
    score, logits = table["inhibition mean"], table["logit difference mean"]
    return (
        f"The main mover's inhibition score is {score[0]:.2f}, {score[-2]:.2f} without the leading "
        f"components and {score[-1]:.2f} without as many random others; the logit difference is "
        f"{logits[0]:.1f}, {logits[-2]:.1f} and {logits[-1]:.1f} nats"
    )


def removal_message(table: dict[str, list]) -> str:
    """What share is left without the leading components, and without random others."""
    score, logits = table["inhibition mean"], table["logit difference mean"]
    if min(score[0], logits[0]) <= 0:
        return f"{removal(table)}."
    without, control = ([x[row] / x[0] for x in (score, logits)] for row in (-2, -1))
    return (
        f"Without the leading components of the inhibition heads {without[0]:.0%} of the mover's "
        f"preference for the right name and {without[1]:.0%} of the model's are left, without as "
        f"many random others {control[0]:.0%} and {control[1]:.0%}."
    )


def draws(falls: Float[np.ndarray, "pair draw"]) -> str:
    """The largest effect of any single random draw."""
    means = falls.mean(axis=0)
    return f"largest of {len(means)} single draws {np.abs(means).max():.3f} in the inhibition score"


def _sentence(parts: list[str]) -> str:
    text = "; ".join(parts)
    return text[0].upper() + text[1:] + "."
