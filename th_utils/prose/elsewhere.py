"""Sentences of chapter 10."""

from __future__ import annotations

import numpy as np

from th_utils.prose.channels import NAMES


def claims(table: dict[str, list]) -> str:
    """How many claims each edition bears out, and where the editions differ."""
    editions = list(dict.fromkeys(table["edition"]))
    if not editions:
        return "No claim on weights has been measured."
    parts = []
    for edition in editions:
        said = [v for e, v in zip(table["edition"], table["verdict"], strict=True) if e == edition]
        counts = ", ".join(f"{said.count(v)} {v}" for v in ("holds", "partly", "fails"))
        parts.append(f"on {edition}, of {len(said)} claims: {counts}")
    verdicts: dict[str, dict[str, str]] = {}
    for e, c, v in zip(table["edition"], table["claim"], table["verdict"], strict=True):
        verdicts.setdefault(c, {})[e] = v
    apart = [c for c, said in verdicts.items() if len(set(said.values())) > 1]
    text = "; ".join(parts)
    text = text[0].upper() + text[1:] + "."
    if len(editions) > 1:
        text += (
            f" They differ on {', '.join(f'`{c}`' for c in apart)}."
            if apart
            else " They differ on none."
        )
    return text


def ranks(table: dict[str, list], controls: dict[str, list]) -> str:
    """Type by type, the share of known pairs in the highest hundredth, and of other heads' best."""
    lines = []
    for kind, name in NAMES.items():
        parts = []
        for edition in dict.fromkeys(table["edition"]):
            share = np.array(
                [
                    s
                    for e, k, s in zip(table["edition"], table["kind"], table["share"], strict=True)
                    if (e, k) == (edition, kind)
                ]
            )
            middle = [
                m
                for e, k, m in zip(
                    controls["edition"], controls["kind"], controls["middle"], strict=True
                )
                if (e, k) == (edition, kind)
            ]
            if len(share) == 0:
                parts.append(f"on {edition} there is no such pair")
                continue
            parts.append(
                f"on {edition} {int((share <= 0.01).sum())} of {len(share)} pairs have a component "
                f"in the reader's highest hundredth, the median pair's best is at the "
                f"{_percent(float(np.median(share)))} and the median other head's at the "
                f"{_percent(middle[0])}"
            )
        lines.append(f"- {name}: " + "; ".join(parts) + ".")
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"top {100 * share:.2g}%"


def width(table: dict[str, list]) -> str:
    """Type by type, how much of the whole-head score one and two components make up."""
    lines = []
    for kind, name in NAMES.items():
        parts = []
        for edition in dict.fromkeys(table["edition"]):
            rows = {
                n: (known, random)
                for e, k, n, known, random in zip(
                    *(table[x] for x in ("edition", "kind", "components", "known", "random")),
                    strict=True,
                )
                if (e, k) == (edition, kind)
            }
            if not rows:
                continue
            parts.append(
                f"on {edition} the largest component makes up {rows[1][0]:.0%} of the squared "
                f"score and the two largest {rows[2][0]:.0%}, with random heads as senders "
                f"{rows[1][1]:.0%} and {rows[2][1]:.0%}"
            )
        if parts:
            lines.append(f"- {name}: " + "; ".join(parts) + ".")
    return "\n".join(lines)
