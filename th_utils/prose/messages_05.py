"""What each figure of chapter 05 shows, in one sentence: the beginning of its caption."""

from __future__ import annotations

from typing import Any

import numpy as np

from th_utils.prose.channels import rows
from th_utils.prose.intervals import series
from th_utils.results import Results
from th_utils.writers import CHANNELS

FELL = {"V": "% of the distance between the two orders of names", "K": " points of attention"}
INPUT = {"V": "value", "K": "key"}
INTO = {"Q": "the mover's query", "V": "the inhibition head's value", "K": "induction heads' keys"}
WATCHED = {
    "V": "the two orders of names lie {0:.0%} closer in the value of head {1}",
    "K": "the attention of head {1} falls by {0:.0%}",
}


def panels(shown: Results, of: str = "") -> str:
    """Whether the best score picks out the largest effect; the best score where nothing ran.

    Args:
        shown: see `writer_tables.panels_table`; meta says the kind and a random direction's score.
        of: name of the model, where it is not the edition's.
    """
    pairs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows(shown.columns):
        pairs.setdefault((row["writer"], row["reader"]), []).append(row)
    if shown.columns["effect"][0] is None:
        return _by_weights(pairs, shown.meta, of)
    kind = shown.meta["kind"]
    best = [max(each, key=lambda row: row["composition"]) for each in pairs.values()]
    tops = [max(each, key=lambda row: row["effect"]) for each in pairs.values()]
    same = sum(one is other for one, other in zip(best, tops, strict=True))
    top = max(tops, key=lambda row: row["effect"])
    if top["effect"] <= 0:
        return (
            f"No component of these {CHANNELS[kind][0]} heads lowers what is watched when it is "
            f"taken out of the reader's {INPUT[kind]}."
        )
    return (
        f"The component with the highest composition score has the largest effect in "
        f"{same or 'none'} of {len(pairs)} pair{'s' * (len(pairs) > 1)} of heads; the largest, "
        f"of component {top['writer']}.{top['component']}, is "
        f"{100 * top['effect']:.1f}{FELL[kind]}."
    )


def _by_weights(pairs: dict[Any, list[dict[str, Any]]], meta: dict[str, Any], of: str) -> str:
    """The best score, beside the median of its head and the score of a random direction."""
    best, each = max(
        ((row, each) for each in pairs.values() for row in each),
        key=lambda found: found[0]["composition"],
    )
    score, (writer, reader, _) = best["composition"], CHANNELS[meta["kind"]]
    return (
        f"{f'In {of}, component' if of else 'Component'} {best['writer']}.{best['component']} of "
        f"a {writer} head has the highest composition score with the {INPUT[meta['kind']]} of an "
        f"{reader} head: {score:.2f}, "
        f"{score / np.median([row['composition'] for row in each]):.1f} times the median of its "
        f"head and {score / meta['random_level']:.1f} times a random direction's."
    )


def width(curves: dict[str, list]) -> str:
    """What two components of each writer do of the whole effect, channel by channel."""
    two = {
        (row["kind"], row["order"]): row["share"] for row in rows(curves) if row["components"] == 2
    }
    said = [
        f"{two[kind, 'by effect']:.0%} in {name}"
        for kind, name in INTO.items()
        if (kind, "by effect") in two
    ]
    score = two.get(("K", "by effect, score"))
    return (
        "Of the effect of the writers' whole outputs, the two leading components of each carry "
        + series(said)
        + ("" if score is None else f" ({score:.0%} on attention scores)")
        + "."
    )


def removal(table: dict[str, list]) -> str:
    """What all that the usual writers write does to the mover, and what two components do."""
    name = CHANNELS["V"][0]
    score = dict(zip(table["removed"], table["inhibition mean"], strict=True))
    return (
        f"Without all that {name} heads write into the inhibition heads' values, the main mover's "
        f"inhibition score goes from {score['nothing']:.2f} to {score[f'{name}, all']:.2f}; "
        f"without their two leading components alone, to {score[f'{name}, leading two']:.2f}."
    )


def everyone(table: dict[str, list]) -> str:
    """Without which writer each input loses most, and what the known writers do beside it."""
    drawn: dict[str, list[dict[str, Any]]] = {}
    for row in rows(table):
        drawn.setdefault(row["kind"], []).append(row)
    said = "; ".join(_of_one(kind, each) for kind, each in drawn.items())
    return f"{said[0].upper()}{said[1:]}."


def _of_one(kind: str, drawn: list[dict[str, Any]]) -> str:
    role, reader = CHANNELS[kind][0], drawn[0]["reader"]
    top = max(drawn, key=lambda row: row["mean"])
    if top["mean"] <= 0:
        return f"no writer drawn for the {INPUT[kind]} of head {reader} lowers what is watched"
    mine = max(
        (row for row in drawn if row["role"] == role), key=lambda row: row["mean"], default=None
    )
    beside = ""
    if mine is None:
        beside = f" (no {role} head is drawn)"
    elif mine is not top:
        beside = f" ({role} head {mine['name']}: {mine['mean']:.0%})"
    named = top["name"] if top["role"] == "other" else f"{top['role']} head {top['name']}"
    return f"without {named}, {WATCHED[kind].format(top['mean'], reader)}{beside}"
