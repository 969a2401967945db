"""Sentences of chapter 05 on writers taken out of the inhibition heads' values."""

from __future__ import annotations

from typing import Any

from th_utils.bootstrap import Interval
from th_utils.prose.channels import rows
from th_utils.prose.intervals import bracketed, ranged
from th_utils.prose.writers import plural
from th_utils.roles import Head, label
from th_utils.writers import CHANNELS


def through(numbers: dict[str, Interval], clean: Interval) -> str:
    """What of the mover's inhibition goes with the distance, through one component."""
    return (
        f"What the component no longer says is missing in the main mover's query: its inhibition "
        f"score of {ranged(clean, '.2f')} falls by {ranged(numbers['leading'], '.2f')} for the "
        f"leading components and by {ranged(numbers['whole'], '.2f')} for all that these heads "
        "write, everything else held."
    )


def removal(table: dict[str, list]) -> str:
    """What is left of the mover's inhibition score and the logit difference, row by row."""
    score, logits = table["inhibition mean"], table["logit difference mean"]
    parts = [
        f"{logits[i]:.1f} nats and {score[i]:.2f} ({removed})"
        for i, removed in enumerate(table["removed"])
    ]
    return "Logit difference and inhibition score of the main mover: " + "; ".join(parts) + "."


def lost(table: dict[str, list]) -> str:
    """What the mover's inhibition score and the logit difference lose, as a table."""
    clean, *removed = rows(table)
    lines = [
        "| removed from the values | inhibition score falls by | logit difference falls by, nats |",
        "| --- | --- | --- |",
    ]
    for row in removed:
        cells = (
            _cell(row, name, form)
            for name, form in (("inhibition fall", ".2f"), ("logit difference fall", ".1f"))
        )
        lines.append(f"| {row['removed']} | {' | '.join(cells)} |")
    return (
        "As the model is, the main mover's inhibition score is "
        f"{_cell(clean, 'inhibition', '.2f')} and the logit difference "
        f"{_cell(clean, 'logit difference', '.1f')} nats; 95% intervals in brackets; a fall is "
        "taken on the same prompts before and after.\n\n" + "\n".join(lines)
    )


def instead(
    role: str, numbers: dict[str, Interval], others: dict[str, Interval], reader: Head
) -> str:
    """What heads of another role write into the same value, beside the duplicate-token heads."""
    columns = {
        "distance whole": ".0%",
        "distance leading": ".0%",
        "whole": ".2f",
        "leading": ".2f",
    }
    lines = [
        "| written by | the distance falls, all they write | two leading components of each | "
        "the mover's inhibition score falls, all they write | two leading components of each |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, found in ((CHANNELS["V"][0], others), (role, numbers)):
        cells = (bracketed(found[key], form) for key, form in columns.items())
        lines.append(f"| {plural(name)} | {' | '.join(cells)} |")
    return (
        f"Like the {plural(CHANNELS['V'][0])}, {plural(role)} write at the second mention. All "
        f"heads of a role before {label(reader)} together, taken out of its value, everything else "
        "held:\n\n" + "\n".join(lines)
    )


def _cell(row: dict[str, Any], name: str, form: str) -> str:
    return bracketed(Interval(*(row[f"{name} {end}"] for end in ("mean", "low", "high"))), form)
