"""Sentences of chapter 03."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from th_utils.bootstrap import Interval, p_text
from th_utils.components import SenderEffects, leading
from th_utils.roles import label


def panels(measured: Sequence[SenderEffects]) -> str:
    """The leading components of each head by both readings."""
    parts = []
    for m in measured:
        first, best = leading(m.effects)[0], int(m.scores.argmax())
        parts.append(
            f"in head {label(m.sender)} component {first} inhibits most "
            f"({float(m.effects[:, first].mean()):.2f} of the {float(m.whole.mean()):.2f} that the "
            f"whole head does) and component {best} has the highest composition score "
            f"({float(m.scores[best]):.2f})"
        )
    text = "; ".join(parts)
    return text[0].upper() + text[1:] + "."


def agreement(table: dict[str, list]) -> str:
    """Head by head, how far the two readings agree."""
    lines = [
        f"- head {head}: rank correlation {rho:.2f} ({p_text(p)}, components permuted); the "
        f"highest composition score is at component {best}, {'one' if same else 'not one'} of "
        "the two that inhibit most"
        for head, rho, p, best, same in zip(*table.values(), strict=True)
    ]
    return "\n".join(lines)


def in_turn(table: dict[str, list]) -> str:
    """The largest effects, in the mover's query alone and with everything recomputed."""
    parts = []
    for head in dict.fromkeys(table["head"]):
        at = [i for i, h in enumerate(table["head"]) if h == head]
        first = max(at, key=lambda i: table["direct"][i])
        rest = np.mean([abs(table["full"][i]) for i in at if i != first])
        parts.append(
            f"{head}.{table['component'][first]} alone takes {table['direct'][first]:.2f} from the "
            f"mover's inhibition score in its query, {table['full'][first]:.2f} with everything "
            f"recomputed, and {table['logit'][first]:.1f} nats from the logit difference; the "
            f"other components of the head {rest:.3f} in the mean"
        )
    text = "; ".join(parts)
    return text[0].upper() + text[1:]


def share(measured: Sequence[SenderEffects], part: Interval) -> str:
    """What the leading components do of all that the heads do."""
    return (
        f"{panels(measured)} Removing the two leading components of each head from the mover's "
        f"query has {part.value:.0%} of the effect of removing the heads' whole output (95% "
        f"interval {part.low:.0%} to {part.high:.0%})."
    )


def removal(table: dict[str, list]) -> str:
    """What is left without the leading components, and without random others."""
    score, logits = table["inhibition mean"], table["logit difference mean"]
    return (
        f"The main mover's inhibition score is {score[0]:.2f}, {score[-2]:.2f} without the leading "
        f"components and {score[-1]:.2f} without as many random others; the logit difference is "
        f"{logits[0]:.1f}, {logits[-2]:.1f} and {logits[-1]:.1f} nats"
    )
