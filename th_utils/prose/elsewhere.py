"""Sentences of chapter 10."""

from __future__ import annotations

from typing import Any

import numpy as np

from th_utils.elsewhere import HIGHEST
from th_utils.prose.channels import NAMES, rows
from th_utils.prose.intervals import series, span

_VERDICTS = {"holds": "hold", "partly": "hold in part", "fails": "fail"}


def claims(table: dict[str, list]) -> str:
    """How many claims each edition bears out, and where the editions differ."""
    editions = list(dict.fromkeys(table["edition"]))
    if not editions:
        return "No claim on weights has been measured."
    verdicts = _verdicts(table)
    parts = []
    for edition in editions:
        said = [each[edition] for each in verdicts.values() if edition in each]
        counts = ", ".join(f"{said.count(v)} {word}" for v, word in _VERDICTS.items())
        parts.append(f"on {edition}, of {len(said)} claims {counts}")
    apart = [c for c, said in verdicts.items() if len(set(said.values())) > 1]
    text = "; ".join(parts)
    text = text[0].upper() + text[1:]
    if len(editions) > 1:
        names = ", ".join(f"`{c}`" for c in apart) if apart else "none"
        text += f". They differ on {names}"
    return text


def claims_message(table: dict[str, list]) -> str:
    """How many claims hold on each edition, and on how many the editions agree."""
    verdicts, parts = _verdicts(table), []
    for edition in dict.fromkeys(table["edition"]):
        said = [each[edition] for each in verdicts.values() if edition in each]
        hold = "" if parts else "hold "
        parts.append(f"{said.count('holds')} of {len(said)} {hold}on {edition}")
    if not parts:
        return "No claim on weights has been measured."
    text = f"Of the claims on weights, {series(parts)}"
    if len(parts) == 1:
        return f"{text}."
    shared = [set(each.values()) for each in verdicts.values() if len(each) == len(parts)]
    same = sum(len(said) == 1 for said in shared)
    both = "both" if len(parts) == 2 else f"all {len(parts)}"
    return f"{text}; {same} of {len(shared)} get the same verdict on {both}."


def _verdicts(table: dict[str, list]) -> dict[str, dict[str, str]]:
    """Of each claim, the verdict by edition."""
    found: dict[str, dict[str, str]] = {}
    for e, c, v in zip(table["edition"], table["claim"], table["verdict"], strict=True):
        found.setdefault(c, {})[e] = v
    return found


def ranks(table: dict[str, list], controls: dict[str, list]) -> str:
    """Type by type, the place of known pairs, against that of other heads' best components."""
    lines = []
    for kind, name in NAMES.items():
        parts = []
        for edition in dict.fromkeys(table["edition"]):
            share = np.array([row["share"] for row in _of(table, edition, kind)])
            if len(share) == 0:
                parts.append(f"on {edition} there is no such pair")
                continue
            (other,) = _of(controls, edition, kind)
            middle = float(np.median(share))
            parts.append(
                f"on {edition} {int((share <= HIGHEST).sum())} of {len(share)} pairs have a "
                "component in the reader's highest hundredth; the median pair's best is in the "
                f"{_percent(middle)}, {_among(middle, other)} (their median: "
                f"{_percent(other['middle'])})"
            )
        lines.append(f"- {name}: " + ". ".join(map(_capital, parts)) + ".")
    return "\n".join(lines)


def ranks_message(table: dict[str, list], controls: dict[str, list]) -> str:
    """How many known pairs come high, by edition, and where the median pair is above the others."""
    shares: dict[tuple[str, str], list[float]] = {}
    for row in rows(table):
        shares.setdefault((row["edition"], row["kind"]), []).append(row["share"])
    parts = []
    for edition in dict.fromkeys(table["edition"]):
        each = [x for (name, _), found in shares.items() if name == edition for x in found]
        parts.append(f"{sum(x <= HIGHEST for x in each)} of {len(each)} ({edition})")
    above = sum(
        float(np.median(found)) < _of(controls, *key)[0]["middle"] for key, found in shares.items()
    )
    return (
        f"Of known pairs, {series(parts)} have a component in the highest hundredth; in {above} of "
        f"{len(shares)} rows their median ranks above that of other heads."
    )


def _among(middle: float, other: dict[str, Any]) -> str:
    """Where the median known pair stands among other heads; a smaller share is higher up."""
    if middle < other["low"]:
        return "above the middle 95% of other heads"
    return f"in the {'upper' if middle < other['middle'] else 'lower'} half of other heads"


def width(table: dict[str, list]) -> str:
    """Type by type, how much of the whole-head score one and two components make up."""
    lines = []
    for kind, name in NAMES.items():
        parts = []
        for edition in dict.fromkeys(table["edition"]):
            by = {row["components"]: row for row in _of(table, edition, kind)}
            if not by:
                continue
            one, two = by[1], by[2]
            parts.append(
                f"on {edition} the largest component makes up {one['known']:.0%} of the squared "
                f"score and the two largest {two['known']:.0%}, with random heads as senders "
                f"{one['random']:.0%} and {two['random']:.0%}: {_narrower(one)}"
            )
        if parts:
            lines.append(f"- {name}: " + ". ".join(map(_capital, parts)) + ".")
    return "\n".join(lines)


def width_message(table: dict[str, list]) -> str:
    """How much of the score the largest component makes up, and where that is more than chance."""
    first = [row for row in rows(table) if row["components"] == 1]
    known = [row["known"] for row in first]
    more = sum(row["known"] > row["random"] for row in first)
    beyond = sum(row["known"] > row["high"] for row in first)
    return (
        f"The largest component makes up {span(min(known), max(known), '.0%')} of the known pairs' "
        f"squared score, by panel: more than with random heads as senders in {more} of "
        f"{len(first)}, above their middle 95% in {beyond or 'none'}."
    )


def _narrower(one: dict[str, Any]) -> str:
    """Whether the largest component of known pairs makes up more than that of random ones."""
    if one["known"] > one["high"]:
        return "the largest is above the middle 95% of random pairs"
    if one["known"] > one["random"]:
        return "the largest is above the mean of random pairs, within their middle 95%"
    return "the largest is no larger than in random pairs on average"


def _of(table: dict[str, list], edition: str, kind: str) -> list[dict[str, Any]]:
    return [row for row in rows(table) if (row["edition"], row["kind"]) == (edition, kind)]


def _percent(share: float) -> str:
    return f"top {100 * share:.2g}%"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
