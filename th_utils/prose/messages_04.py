"""First sentences of the captions of chapter 04, and alternative text that goes on from there."""

from __future__ import annotations

import numpy as np

from th_utils.line import Line
from th_utils.prose.channels import rows
from th_utils.prose.intervals import span
from th_utils.prose.line import sweep_ends


def line_message(table: dict[str, list], line: Line) -> str:
    """How many prompts lie on their order's side, and how well the coordinate tells the orders."""
    whole, *_ = rows(table)
    side = whole["side"]
    form = ".1%" if 0.995 <= side < 1 else ".0%"  # no 100% where there are exceptions
    return (
        f"Along component {line.name}, {'all' if side == 1 else f'{side:{form}} of the'} held-out "
        "prompts lie on the side of the origin that goes with the order of their names; the area "
        f"under the curve is {whole['auc']:.2f}."
    )


def line_alt(table: dict[str, list], line: Line) -> str:
    """The same, and the range over templates."""
    _, *each = rows(table)
    areas = [row["auc"] for row in each]
    return (
        f"{line_message(table, line)} In each of {len(each)} templates alone it is "
        f"{span(min(areas), max(areas), '.2f')}."
    )


def sweep_message(table: dict[str, list]) -> str:
    """What adding the direction does from end to end, to attention and logits."""
    first, logits = (sweep_ends(table, "add", quantity) for quantity in ("first", "logits"))
    return (
        "Averaged over both orders, adding the line from one end to the other takes the main "
        f"mover's attention to the first name from {first[0]:.2f} to {first[1]:.2f}, and "
        f"that name's logit less the second's from {logits[0]:+.1f} to {logits[1]:+.1f} nats."
    )


def random_message(table: dict[str, list]) -> str:
    """The line's change beside that of random directions."""
    found = rows(table)
    line = next(row for row in found if row["kind"] == "add")
    random = [row for row in found if row["kind"] in ("head", "residual")]
    attention, logits = (
        np.abs([row[f"{quantity} mean"] for row in random]) for quantity in ("attention", "logits")
    )
    return (
        f"The line changes the mover's attention by {line['attention mean']:.2f} and the logits by "
        f"{line['logits mean']:.1f} nats, {len(random)} equally long random directions by "
        f"{attention.mean():.2f} and {logits.mean():.1f} nats on average, {attention.max():.2f} "
        f"and {logits.max():.1f} nats at most."
    )
