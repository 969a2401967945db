"""Sentences of chapter 12."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from th_utils.claims import load_claims, number
from th_utils.own import Plan
from th_utils.results import public
from th_utils.roles import ROLES, Roles, label
from th_utils.room import gigabytes

KINDS = {"Q": "queries", "K": "keys", "V": "values"}
SIGNS = {"at-least": "≥", "at-most": "≤"}


def plan(plan: Plan) -> str:
    """What the model is, what of it is used here, where, and how much memory that takes."""
    s = plan.size
    shared = "" if s.kv_heads == s.heads else f" ({s.kv_heads} of keys and values)"
    text = (
        f"`{public(plan.edition)}` ({plan.family}) has {s.layers} layers of {s.heads} "
        f"heads{shared}, {s.d_model} dimensions in the residual stream and {s.d_head} in a head; "
        f"{_count(s.parameters)} numbers are stored. "
    )
    if plan.runs:
        text += f"It runs here, on `{plan.device}`, and"
    else:
        text += f"Only its attention weights are used, because {plan.reason}; this"
    return text + f" takes about {gigabytes(plan.need)} of memory, for which there is room."


def _count(numbers: int | float) -> str:
    for unit, size in (("billion", 1e9), ("million", 1e6), ("thousand", 1e3)):
        if numbers >= size:
            return f"{numbers / size:.3g} {unit}"
    return str(numbers)


def roles(found: Roles | None) -> str:
    """The heads of each role with their scores, as a table."""
    if found is None:
        return (
            "Which heads play which role is found by running the model, and that is not done here: "
            "what follows knows heads by their numbers only."
        )
    lines = ["| role | heads (score) |", "| --- | --- |"]
    for role in ROLES:
        scores = found.scores.get(role) or [None] * len(found[role])
        heads = ", ".join(
            label(head) + ("" if score is None else f" ({score:.2f})")
            for head, score in zip(found[role], scores, strict=True)
        )
        lines.append(f"| {role} | {heads or 'none'} |")
    text = "\n".join(lines)
    if found.source == "published":
        text += "\n\nThese roles are published ones, not measured here."
    return text


def layers_message(table: dict[str, list]) -> str:
    """Between which layers the strongest channel of all runs, and how strong the others are."""
    best = {
        name: max((row[3], row[1], row[2]) for row in rows)
        for kind, name in KINDS.items()
        if (rows := [row for row in zip(*table.values(), strict=True) if row[0] == kind])
    }
    if not best:
        return "This model has one layer only, and no channel between layers."
    first, *others = sorted(best, key=best.__getitem__, reverse=True)
    ratio, sender, reader = best[first]
    rest = " and ".join(f"{best[name][0]:.1f} times into {name}" for name in others)
    return (
        f"The strongest channel of this model runs into {first}, from layer {sender} to layer "
        f"{reader}, at {ratio:.1f} times a random direction" + (f" ({rest})." if rest else ".")
    )


def layers(table: dict[str, list]) -> str:
    """Between which layers the strongest channel of each kind runs."""
    parts = []
    for kind, name in KINDS.items():
        rows = [
            (ratio, sender, reader)
            for k, sender, reader, ratio in zip(*table.values(), strict=True)
            if k == kind
        ]
        if rows:
            ratio, sender, reader = max(rows)
            parts.append(
                f"into {name} from layer {sender} to layer {reader}, {ratio:.1f} times a random "
                "direction"
            )
    return "The strongest channel runs " + "; ".join(parts) if parts else "There is one layer only"


def channels(table: dict[str, list]) -> str:
    """The strongest channels as a table."""
    lines = [
        "| into | component that writes | head that reads | score | times a random direction |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kind, sender, component, reader, score, ratio, *roles in zip(*table.values(), strict=True):
        said = ["" if role in ("other", "unknown") else f" ({role})" for role in roles]
        lines.append(
            f"| {KINDS[kind]} | {sender}.{component}{said[0]} | {reader}{said[1]} | {score:.2f} | "
            f"{ratio:.1f} |"
        )
    return "\n".join(lines)


def among_roles(table: dict[str, list]) -> str:
    """How many of the strongest channels join two heads with roles."""
    pairs = list(zip(table["sender_role"], table["reader_role"], strict=True))
    if any("unknown" in pair for pair in pairs):
        return "Whether these join heads with roles cannot be said without running the model."
    both = sum("other" not in pair for pair in pairs)
    one = sum(pair.count("other") == 1 for pair in pairs)
    return (
        f"Of these {len(pairs)}, {both} join two heads with a role and {one} one such head with "
        "another."
    )


def claims(table: dict[str, list], intervals: Mapping[str, Sequence[float]]) -> str:
    """The claims measured on this model, in words, with value, interval, verdict and thresholds.

    Args:
        table: `th_utils.own_tables.claims_table`.
        intervals: claim id to value, low and high, where there is an interval.
    """
    ledger = load_claims()
    lines = ["| claim | measured | verdict | holds, partly |", "| --- | --- | --- | --- |"]
    for id, value, said in zip(table["claim"], table["value"], table["verdict"], strict=True):
        claim = ledger[id]
        limits = (claim.holds, claim.partly)
        ends = [number(end, limits) for end in intervals.get(id, ())[1:]]
        between = f" ({' to '.join(ends)})" if ends else ""
        sign = SIGNS[claim.direction]
        lines.append(
            f"| {claim.claim} `{id}` | {number(value, limits)}{between} | **{said}** | "
            f"{sign} {claim.holds:g}, {sign} {claim.partly:g} |"
        )
    return "\n".join(lines)


def verdicts_message(table: dict[str, list]) -> str:
    """How many of the claims measured hold."""
    said = table["verdict"]
    holds, partly, fails = (said.count(v) for v in ("holds", "partly", "fails"))
    return (
        f"Of {len(said)} claims measured on this model, {holds} hold{'s' * (holds == 1)}, {partly} "
        f"hold{'s' * (partly == 1)} in part and {fails} fail{'s' * (fails == 1)}."
    )


def verdicts(table: dict[str, list]) -> str:
    """The same, and how many of the ledger were not measured here."""
    left = sum(id not in table["claim"] for id in load_claims())
    return (
        f"{verdicts_message(table)} {left} more are in the ledger; the chapters that measure them "
        "take the same `edition`"
    )
