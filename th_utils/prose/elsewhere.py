"""Sentences of chapter 10."""

from __future__ import annotations

from typing import Any

import numpy as np

from th_utils.elsewhere import HIGHEST
from th_utils.prose.channels import NAMES, rows

_VERDICTS = {"holds": "hold", "partly": "hold in part", "fails": "fail"}


def claims(table: dict[str, list]) -> str:
    """How many claims each edition bears out, and where the editions differ."""
    editions = list(dict.fromkeys(table["edition"]))
    if not editions:
        return "No claim on weights has been measured."
    parts = []
    for edition in editions:
        said = [v for e, v in zip(table["edition"], table["verdict"], strict=True) if e == edition]
        counts = ", ".join(f"{said.count(v)} {word}" for v, word in _VERDICTS.items())
        parts.append(f"on {edition}, of {len(said)} claims {counts}")
    verdicts: dict[str, dict[str, str]] = {}
    for e, c, v in zip(table["edition"], table["claim"], table["verdict"], strict=True):
        verdicts.setdefault(c, {})[e] = v
    apart = [c for c, said in verdicts.items() if len(set(said.values())) > 1]
    text = "; ".join(parts)
    text = text[0].upper() + text[1:]
    if len(editions) > 1:
        names = ", ".join(f"`{c}`" for c in apart) if apart else "none"
        text += f". They differ on {names}"
    return text


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
