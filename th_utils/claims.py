"""The claims ledger: what the papers say, and the rule by which a measured value judges it.

`data/claims.yml` states each claim with the statistic that tests it and two thresholds, written
down before the statistic was computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import yaml

from th_utils.errors import CompanionError, near_matches
from th_utils.paths import data_path

Verdict = Literal["holds", "partly", "fails"]
VERDICTS: tuple[Verdict, ...] = ("holds", "partly", "fails")

# Kinds of admonition that the book's theme colours: green, yellow, red.
_CLASSES = {"holds": "tip", "partly": "warning", "fails": "danger"}


@dataclass(frozen=True)
class Claim:
    """One claim of a paper, in our words.

    Attributes:
        id: permanent name.
        chapter: number of the chapter that tests it, "02".
        paper: letter of the paper.
        where: section or abstract.
        claim: one sentence.
        statistic: what is measured.
        direction: "at-least" or "at-most".
        holds: threshold from which the claim holds, in the statistic's unit.
        partly: threshold from which it holds partly.
        reconstruction: whether the definition is ours because the paper leaves it open.
        needs: "forward" or "weights", what the statistic is computed from.
    """

    id: str
    chapter: str
    paper: str
    where: str
    claim: str
    statistic: str
    direction: Literal["at-least", "at-most"]
    holds: float | int
    partly: float | int
    reconstruction: bool
    needs: Literal["forward", "weights"]


def load_claims() -> dict[str, Claim]:
    """The claims of `data/claims.yml` by id, in the order of the file.

    Raises:
        CompanionError: the file breaks its own rules; the message names the claim.
    """
    return dict(_load(data_path("claims.yml")))


def find_claim(id: str) -> Claim:
    """The claim of that id; near matches are offered where there is none."""
    known = load_claims()
    if id not in known:
        raise CompanionError(f"data/claims.yml has no claim {id!r}: {near_matches(id, known)}")
    return known[id]


def parse_claims(entries: Any) -> dict[str, Claim]:
    """Claims from the list that the ledger holds, see `load_claims`."""
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise CompanionError("data/claims.yml must have a list of claims under `claims:`")
    found: dict[str, Claim] = {}
    for entry in entries:
        claim = _claim(entry)
        if claim.id in found:
            raise CompanionError(f"data/claims.yml has two claims {claim.id!r}: rename one")
        found[claim.id] = claim
    return found


def verdict(
    claim: Claim,
    value: float | int,
    low: float | int | None = None,
    high: float | int | None = None,
) -> Verdict:
    """Judge a measured value.

    The pessimistic end of the interval (the lower for at-least, the upper for at-most; the value
    itself where there is no interval) is compared with `holds`, then with `partly`.

    Args:
        claim: with its thresholds.
        value: of the statistic, in the unit of the thresholds.
        low, high: ends of its interval, both or neither.

    Raises:
        ValueError: a number is not finite, or they are not in order.
    """
    if (low is None) != (high is None):
        raise ValueError(f"claim {claim.id}: give both ends of the interval, or none")
    if not all(math.isfinite(number) for number in (value, low, high) if number is not None):
        raise ValueError(f"claim {claim.id}: {value} ({low} to {high}) is not finite")
    if low is not None and high is not None and low > high:
        raise ValueError(f"claim {claim.id}: the interval {low} to {high} is upside down")
    if claim.direction == "at-least":
        pessimistic, sign = (value if low is None else low), 1
    else:
        pessimistic, sign = (value if high is None else high), -1
    for name in VERDICTS[:2]:
        if sign * pessimistic >= sign * getattr(claim, name):
            return name
    return "fails"


def render(claim: Claim, record: Mapping[str, Any]) -> str:
    """The line that a chapter shows for a claim, as a MyST admonition.

    Args:
        claim: the claim.
        record: `value`, `low`, `high`, `verdict` and `note`, as `th_utils.chapter` records them.
    """
    thresholds = (claim.holds, claim.partly)
    measured = number(record["value"], thresholds)
    if record.get("low") is not None:
        low, high = (number(record[end], thresholds) for end in ("low", "high"))
        measured += f" (95% interval {low} to {high})"
    sign = "≥" if claim.direction == "at-least" else "≤"
    said = record["verdict"]
    lines = [
        f":::{{admonition}} Claim: {said}",
        f":class: {_CLASSES[said]} claim claim-{said}",
        f"{claim.claim}",
        "",
        f"Measured: {claim.statistic}: **{measured}**. "
        f"Holds from {sign} {claim.holds:g}, partly from {sign} {claim.partly:g}: **{said}**.",
    ]
    if claim.reconstruction:
        lines[-1] += " *(Reconstruction: the definition is ours.)*"
    if record.get("note"):
        lines[-1] += f" {record['note']}"
    return "\n".join([*lines, ":::"])


def summary(records: Iterable[Mapping[str, Any]]) -> str:
    """What the claims of a chapter came to, as a list: those that hold first.

    Args:
        records: `id`, `value`, `low`, `high` and `verdict` of each, as `th_utils.chapter` records
            them.
    """
    records = list(records)
    if not records:
        return "None of this chapter's claims could be measured on this edition."
    lines = []
    for said in VERDICTS:
        for record in (each for each in records if each["verdict"] == said):
            claim = find_claim(record["id"])
            thresholds = (claim.holds, claim.partly)
            measured = number(record["value"], thresholds)
            if record.get("low") is not None:
                low, high = (number(record[end], thresholds) for end in ("low", "high"))
                measured += f", {low} to {high}"
            lines.append(f"- **{said.capitalize()}** ({measured}): {claim.claim}")
    counts = {said: [each["verdict"] for each in records].count(said) for said in VERDICTS}
    words = {"holds": ("holds", "hold"), "partly": ("holds in part", "hold in part"),
             "fails": ("fails", "fail")}  # fmt: skip
    parts = ", ".join(f"{n} {words[said][n > 1]}" for said, n in counts.items() if n)
    return "\n".join(
        [
            f"Of this chapter's claims {parts}. In brackets, what was measured with its 95% "
            "interval, of which the less favourable end decides.",
            "",
            *lines,
        ]
    )


def number(value: float | int, thresholds: Iterable[float | int] = ()) -> str:
    """A number with few digits, but enough to show on which side of a threshold it lies.

    >>> number(0.93154), number(0.8996, (0.9,)), number(1234.5), number(0.00123)
    ('0.93', '0.8996', '1234', '0.0012')
    """
    size = abs(value)
    digits = (
        0 if size >= 100 else 2 if size >= 0.1 or size == 0 else 1 - math.floor(math.log10(size))
    )
    for more in range(digits, digits + 8):
        text = f"{value:.{more}f}"
        if all((float(text) >= t) == (value >= t) and (float(text) > t) == (value > t)
               for t in thresholds):  # fmt: skip
            break
    return text


@lru_cache(maxsize=1)
def _load(path: Path) -> dict[str, Claim]:
    said = yaml.safe_load(path.read_text(encoding="utf-8"))
    return parse_claims(said.get("claims") if isinstance(said, Mapping) else None)


def _claim(entry: Mapping[str, Any]) -> Claim:
    name = f"claim {entry.get('id', '(without id)')!r} of data/claims.yml"
    wanted = {field.name for field in fields(Claim) if field.default is MISSING}
    if missing := sorted(wanted - set(entry)):
        raise CompanionError(f"{name} lacks {', '.join(missing)}")
    if extra := sorted(set(entry) - wanted):
        raise CompanionError(f"{name} has an unknown key {', '.join(extra)}")
    for key in sorted(wanted - {"holds", "partly", "reconstruction"}):
        if not isinstance(entry[key], str):
            raise CompanionError(f"{name}: {key} must be text in quotes, not {entry[key]!r}")
    for key in ("holds", "partly"):
        if isinstance(entry[key], bool) or not isinstance(entry[key], int | float):
            raise CompanionError(f"{name}: {key} must be a number, not {entry[key]!r}")
    if not isinstance(entry["reconstruction"], bool):
        raise CompanionError(f"{name}: reconstruction must be true or false")
    for key, allowed in (("direction", ("at-least", "at-most")), ("needs", ("forward", "weights"))):
        if entry[key] not in allowed:
            raise CompanionError(f"{name}: {key} must be {' or '.join(allowed)}")
    sign = 1 if entry["direction"] == "at-least" else -1
    if sign * entry["partly"] > sign * entry["holds"]:
        raise CompanionError(f"{name}: `partly` must be easier to reach than `holds`")
    return Claim(**entry)
