"""Sentences of chapter 05."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from th_utils.bootstrap import Interval
from th_utils.prose.channels import rows
from th_utils.prose.intervals import bracketed, ranged, series
from th_utils.roles import Head, Roles, label
from th_utils.width import Joint, needed
from th_utils.writer_effects import Channel
from th_utils.writers import CHANNELS

LEVELS = (0.5, 0.8)  # shares of the whole effect whose number of components is said
KNOWN = {"V": "the distance between the two orders", "K": "the attention"}
INPUT = {"V": "value", "K": "key"}


def plural(role: str) -> str:
    """Heads of a role.

    >>> plural("mover")
    'mover heads'
    """
    return f"{role} heads"


def heads(roles: Roles, found: dict[str, int], leads: dict[Head, int]) -> str:
    """How many pairs of heads each channel has, and the inhibition heads' leading components."""
    parts = []
    for kind, number in found.items():
        writers, readers, _ = CHANNELS[kind]
        if number:
            parts.append(
                f"{number} pairs of a writer and a later reader by {INPUT[kind]}, from "
                f"{plural(writers)} ({_listed(roles[writers])}) to {plural(readers)} "
                f"({_listed(roles[readers])})"
            )
        else:
            parts.append(f"no {plural(writers)} before {plural(readers)}, so nothing by "
                         f"{INPUT[kind]}")  # fmt: skip
    components = ", ".join(f"{label(head)}.{k}" for head, k in leads.items()) or "none"
    return (
        f"This model has {'; and '.join(parts)}. Leading components of the inhibition heads: "
        f"{components}."
    )


def _listed(found: Sequence[Head]) -> str:
    return ", ".join(label(head) for head in found) or "none"


def absent(roles: Roles) -> str:
    """Why an edition without a forward pass shows scores only."""
    return (
        "Of this edition only the attention weights are here, so no prompt can be run: what "
        "follows are the composition scores alone, for the heads with "
        f"{roles.source} roles, and no claim of this chapter is judged. The component of an "
        "inhibition head that stands for its leading one is that with the highest composition "
        "score with the main mover's query."
    )


def panels(table: dict[str, list]) -> str:
    """Of each pair drawn the component with the largest effect and the one with the best score."""
    parts = []
    pairs = list(zip(table["writer"], table["reader"], strict=True))
    for writer, reader in dict.fromkeys(pairs):
        at = [i for i, pair in enumerate(pairs) if pair == (writer, reader)]
        best = max(at, key=lambda i: table["composition"][i])
        said = (
            f"from {writer} to {reader} component {table['component'][best]} has the highest "
            f"composition score ({table['composition'][best]:.2f})"
        )
        if table["effect"][at[0]] is not None:
            top = max(at, key=lambda i: table["effect"][i])
            said += (
                f" and component {table['component'][top]} the largest effect "
                f"({100 * table['effect'][top]:.1f})"
            )
        parts.append(said)
    return "; ".join(parts)


def share(kind: str, channel: Channel, whole: Interval, part: Interval, others: Interval) -> str:
    """What the leading components do of all that the writers do, and how much that is."""
    writers, readers, _ = CHANNELS[kind]
    reader = channel.reader
    if kind == "V":
        n = sum(e.pair.reader == reader for e in channel.effects)
        of = f"{label(reader)}, the strongest of the {plural(readers)}, taken out of its value,"
    else:
        n = len({e.pair.writer for e in channel.effects})
        of = f"the {plural(readers)}, taken out of their keys,"
    rest = (
        " Most of it is written by others, then."
        if whole.high < 0.5
        else " Without them next to nothing of it is left."
        if whole.low > 0.9
        else ""
    )
    takes, each = ("take", " of each") if n > 1 else ("takes", "")
    return (
        f"The {f'{n} {plural(writers)}' if n > 1 else f'one {writers} head'} before {of} "
        f"{takes} away {ranged(whole, '.0%')} of {KNOWN[kind]}.{rest} The two leading "
        f"components{each} alone do {ranged(part, '.0%')} of that, as many others drawn at random "
        f"{ranged(others, '.1%')}."
    )


def of_how_much(whole: Interval) -> str:
    """How much the whole is that a share is taken of, for the claim's note."""
    return (
        "A share of what these heads do: their whole outputs take away "
        f"{ranged(whole, '.0%')} of the distance."
    )


def agreement(table: dict[str, list]) -> str:
    """How far score and effect agree over the components of each writer, pair by pair."""
    rho = np.array(table["rho"])
    first = int(np.argmax(table["strength"]))
    text = (
        f"{len(rho)} pairs of heads: rank correlations between {rho.min():.2f} and "
        f"{rho.max():.2f}, above chance (p < 0.05, components permuted) in "
        f"{sum(p < 0.05 for p in table['p'])}; {rho[first]:.2f} in the pair with the largest "
        f"effect, from {table['writer'][first]} to {table['reader'][first]}. The component with "
        f"the highest score is the one with the largest effect in {sum(table['coincide'])} of "
        "them. On average over the pairs the composition score correlates "
        f"{rho.mean():.2f} with the effect, the mere order of the components, by singular value, "
        f"{np.mean(table['order']):.2f}"
    )
    if table["facing"][0] is None:
        return text + "."
    return (
        f"{text}, and the score of two components, $|v_k \\cdot u_j|$, "
        f"{np.mean(table['facing']):.2f}."
    )


def width(joints: Sequence[Joint], scores: Joint | None, curves: dict[str, list]) -> str:
    """How many components of each writer are needed, channel by channel, in plain words.

    `curves` is `width.curves_table` of the same channels.
    """
    two = {
        (row["kind"], row["order"]): bracketed(
            Interval(row["share"], row["low"], row["high"]), ".0%"
        )
        for row in rows(curves)
        if row["components"] == 2
    }
    lines = []
    names = {
        "Q": "inhibition heads into the main mover's query",
        "V": "duplicate-token heads into the inhibition head's value",
        "K": "previous-token heads into the induction heads' keys",
    }
    for joint in joints:
        half, most = (needed(joint, level) for level in LEVELS)
        lines.append(
            f"- {names[joint.kind]}: half of the whole effect takes {half} of "
            f"{joint.by_effect.shape[1]} components of each writer, four fifths {most}; the two "
            f"leading ones do {two[joint.kind, 'by effect']}, the two with the highest composition "
            f"scores {two[joint.kind, 'by score']}, two at random {two[joint.kind, 'at random']}."
        )
    text = "\n".join(lines)
    if scores is None:
        return text
    text += (
        "\n\nAttention is bounded: once it is gone, removing more changes nothing, so that few "
        "components can seem to do the work of all. Looked at afterwards (exploratory), on the "
        "attention *score*, before the softmax, the two leading components carry "
        f"{two[scores.kind, 'by effect, score']} of the whole effect instead of "
        f"{two[scores.kind, 'by effect']}, and four fifths take {needed(scores, LEVELS[1])} "
        "components of each writer."
    )
    value = next((joint for joint in joints if joint.kind == "V"), None)
    if value is None:
        return text
    wider = _share(scores.leading, scores.whole) < _share(value.leading, value.whole)
    return text + (
        f" By this measure the channel by key is {'wider' if wider else 'no wider'} than the one "
        f"by value, where two carry {two['V', 'by effect']}."
    )


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    return float(part.mean() / whole.mean())


def everyone(table: dict[str, list]) -> str:
    """Who takes most from each input, who adds most to it, and where the known writers are."""
    return ". ".join(
        _of_one([row for row in rows(table) if row["kind"] == kind])
        for kind in dict.fromkeys(table["kind"])
    )


def _of_one(drawn: list[dict[str, Any]]) -> str:
    kind, role = drawn[0]["kind"], CHANNELS[drawn[0]["kind"]][0]
    mine = [row for row in drawn if row["role"] == role]
    falls = [row for row in drawn if row["mean"] > 0]
    rises = [row for row in drawn if row["mean"] < 0]
    said = []
    if falls:
        most = max(falls, key=lambda row: row["mean"])
        said.append(
            f"{KNOWN[kind]} falls most without {_named(most)}, by {_percent(most)}"
            + ("" if most in mine or not mine else f"; {_named(mine[0])} is number "
               f"{mine[0]['rank']} of {mine[0]['of']} in size, with {_percent(mine[0])}")
        )  # fmt: skip
    if rises:
        most = min(rises, key=lambda row: row["mean"])
        said.append(
            f"without {len(rises)} of the {len(drawn)} drawn it grows instead, most without "
            f"{_named(most)}, by {_percent(most, -1)}"
        )
    if not mine:
        said.append(f"no {role} head is among the {len(drawn)} largest of {drawn[0]['of']}")
    return f"For the {INPUT[kind]} of {drawn[0]['reader']}, {'; '.join(said)}"


def _named(row: dict[str, Any]) -> str:
    return row["name"] if row["role"] == "other" else f"the {row['role']} head {row['name']}"


def _percent(row: dict[str, Any], sign: int = 1) -> str:
    low, high = sorted((sign * row["low"], sign * row["high"]))
    return ranged(Interval(sign * row["mean"], low, high), ".0%")


def draws(joint: Joint) -> str:
    """The largest effect of any single random draw of other components."""
    means = joint.others.mean(axis=0) / joint.leading.mean()
    return (
        f"The largest of {len(means)} single draws does {np.abs(means).max():.2f} of what the "
        "leading ones do."
    )


def width_alt(joints: Sequence[Joint]) -> str:
    """How many components carry most of the effect, channel by channel."""
    names = {"Q": "query"} | INPUT
    parts = [f"{needed(joint, LEVELS[1])} by {names[joint.kind]}" for joint in joints]
    return f"Four fifths of the whole effect take {series(parts)}, of each writer."


def spread(table: dict[str, list]) -> str:
    """How far the best component stands out of its head, by either score, over the pairs drawn."""
    pairs = list(zip(table["writer"], table["reader"], strict=True))
    said = []
    titles = {"composition": "composition score", "facing": "$|v_k \\cdot u_j|$"}
    for name, title in titles.items():
        if table[name][0] is None:
            continue
        times = []
        for one in dict.fromkeys(pairs):
            scores = [x for x, pair in zip(table[name], pairs, strict=True) if pair == one]
            times.append(max(scores) / np.median(scores))
        said.append(f"the highest {title} of a component is {np.mean(times):.1f} times the median")
    drawn = len(dict.fromkeys(pairs))
    return f"Over the {drawn} pairs drawn, {' and '.join(said)} of its head."
