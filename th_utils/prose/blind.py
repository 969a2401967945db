"""Sentences of chapter 09."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from th_utils.bootstrap import p_text

KINDS = {"Q": "queries", "K": "keys", "V": "values"}
FOUND = {
    "Q": "inhibition heads into movers' queries",
    "K": "previous-token heads into induction heads' keys",
    "V": "duplicate-token heads into inhibition heads' values",
}


def rows(table: dict[str, list], **where: Any) -> list[dict[str, Any]]:
    """Rows of a table in which some columns have given values."""
    found = (dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True))
    return [row for row in found if all(row[name] == value for name, value in where.items())]


def absent(edition: str) -> str:
    """Why an edition of attention weights alone has no effects."""
    return (
        f"Of {edition} only the attention weights are here. Scores need no more, and the known "
        "pairs can be ranked by them, with the published roles. Removing a component needs what it "
        "writes on a prompt, which needs the whole model: effects, corrections by activations, "
        "tasks and the map are absent from this edition."
    )


def setup(pairs: int, prompts: int, whole: bool) -> str:
    """How much was tested."""
    text = f"This model has {pairs:,} pairs of a component and a later head, for each of query, "
    text += f"key and value. Every pair was tested: queries on {prompts} prompts of each task "
    text += "(half as many for choosing, and of random tokens), "
    if whole:
        return text + "keys and values on as many, without intervals."
    return text + (
        f"keys and values on the first {prompts // 4 * 2} of them, without intervals and "
        "without random tokens (those are in the larger sizes)."
    )


def chance(row: dict[str, Any]) -> str:
    """What belongs to a lift: the nulls, and of how many heads the pairs are."""
    base = row["precision"] / row["lift"] if row["lift"] else 0.01
    return (
        f"By chance: {row['chance'] / base:.1f} when scores are dealt out among the components "
        f"that a reader could read ({p_text(row['p'])}), {row['chance_heads'] / base:.1f} when "
        f"heads are replaced by other earlier ones ({p_text(row['p_heads'])}). The pairs are of "
        f"{row['writers']} writing and {row['readers']} reading heads."
    )


def gain(corrections: dict[str, list], chosen: str, task: str) -> str:
    """Both rank correlations behind a difference, and the one without the score."""
    (after,) = rows(corrections, correction=chosen, task=task)
    (before,) = rows(corrections, correction="raw score", task=task)
    alone = _alone(corrections, task)
    return (
        f"From {before['correlation']:.2f} to {after['correlation']:.2f}. The sizes without the "
        f"score reach {alone['correlation']:.2f}."
    )


def without(corrections: dict[str, list], task: str) -> str:
    """The lift of the raw score, and that of the sizes without it."""
    (before,) = rows(corrections, correction="raw score", task=task)
    return (
        f"The raw score has a lift of {before['lift']:.0f} there, the sizes without the score "
        f"{_alone(corrections, task)['lift']:.0f}."
    )


def _alone(corrections: dict[str, list], task: str) -> dict[str, Any]:
    """The row of all sizes that a blind search can have, without the score."""
    (row,) = rows(corrections, task=task, has_score=False, needs="random tokens")
    return row


def lift(table: dict[str, list], task: str) -> str:
    """Lifts at the depth of the claims, kind by kind."""
    parts = []
    for kind in dict.fromkeys(table["kind"]):
        at = rows(table, kind=kind, task=task)
        k = max(row["k"] for row in at if row["k"] <= 100)
        by = {row["score"]: row for row in at if row["k"] == k}
        raw, deep = by["raw"], max(rows(table, kind=kind, task=task, score="raw"), key=_depth)
        on = "" if parts else f" on {task}"
        parts.append(
            f"For {KINDS[kind]}, {_share(raw)} of the {k} highest scores are hits{on}, "
            f"{_share(by['corrected'])} of the corrected ones, and {raw['chance_heads']:.0%} when "
            f"heads are replaced; of the {deep['k']:,} highest scores {_share(deep)}"
        )
    return ". ".join(parts)


def _share(row: dict[str, Any]) -> str:
    """A share of hits, with its interval where it has one."""
    ends = "" if row["low"] is None else f" (95% interval {row['low']:.0%} to {row['high']:.0%})"
    return f"{row['precision']:.0%}{ends}"


def _depth(row: dict[str, Any]) -> int:
    return row["k"]


def multiplicity(table: dict[str, list]) -> str:
    """How many tests there are, and which of them were announced."""
    quiet = sum(p <= 0.05 for p in table["p_heads"])
    return (
        f"The figure holds {len(table['k'])} such shares. Two of them were announced as claims "
        "before anything was measured, and stand for themselves; the others describe. Against the "
        f"stricter of the two nulls {quiet} have p-values of at most 0.05, which are not corrected "
        "for their number."
    )


def calibration(table: dict[str, list]) -> str:
    """How far the effect rises with the score, and how wide it spreads at the top."""
    parts = []
    for kind in dict.fromkeys(table["kind"]):
        found = rows(table, kind=kind, score="raw")
        top, mean = found[-1], found[0]["mean_effect"]
        middle, low = f"{top['effect'] / mean:.0f}", f"{top['effect_low'] / mean:.2g}"
        parts.append(
            f"those for {KINDS[kind]} {middle} and {low} times"
            if parts
            else f"The {top['pairs']:,} highest scores for {KINDS[kind]} have {middle} times the "
            f"mean effect of all pairs, and the weakest tenth of these at most {low} times"
        )
    return "; ".join(parts)


def orders(table: dict[str, list]) -> str:
    """Rank correlations, and effects at both ends of the order, by kind and task: as a table."""
    n = table["pairs"][0]
    names = ("rank correlation", f"effect of the highest {n:,}", "of the lowest fifth")
    lines = [
        "| type | task | " + " | ".join(f"{name}, raw | corrected" for name in names) + " |",
        "| --- | --- |" + " --- |" * 2 * len(names),
    ]
    for row in rows(table, score="raw"):
        (other,) = rows(table, kind=row["kind"], task=row["task"], score="corrected")
        cells = [
            f"{one[name]:{form}}"
            for name, form in (("correlation", ".2f"), ("top", ".1f"), ("bottom", ".2f"))
            for one in (row, other)
        ]
        lines.append(f"| {KINDS[row['kind']]} | {row['task']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def corrections(table: dict[str, list], chosen: str, task: str) -> str:
    """What the chosen correction and its parts do on another task than it was chosen on."""
    by = {row["correction"]: row for row in rows(table, task=task)}
    known = [row for row in by.values() if row["has_score"]]
    weights = max((r for r in known if r["needs"] == "weights"), key=lambda r: r["correlation"])
    on_task = next(row for row in known if row["needs"] == "prompts")
    alone = {row["needs"]: row for row in by.values() if not row["has_score"]}
    return (
        f"Chosen for queries was “{chosen}”. On {task} its rank correlation with the effect is "
        f"{_correlation(by[chosen])}, that of the raw score {_correlation(by['raw score'])}, and "
        f"that of the best by weights alone (“{weights['correction']}”) {_correlation(weights)}. "
        f"The sizes without the score reach {_correlation(alone['random tokens'])}, and a lift of "
        f"{alone['random tokens']['lift']:.0f} at 100 where the score times them has "
        f"{by[chosen]['lift']:.0f} and the raw score {by['raw score']['lift']:.0f}. With "
        f"activations taken on the task itself the correlation is {_correlation(on_task)} with the "
        f"score and {_correlation(alone['prompts'])} without it, the lift {on_task['lift']:.0f} "
        f"and {alone['prompts']['lift']:.0f}"
    )


def _correlation(row: dict[str, Any]) -> str:
    """A rank correlation, with its 95% interval where it has one."""
    ends = "" if row["low"] is None else f" ({row['low']:.2f} to {row['high']:.2f})"
    return f"{row['correlation']:.2f}{ends}"


def others(chosen: dict[str, str], table: dict[str, list], task: str) -> str:
    """Which corrections were chosen for the other kinds, and whether they raise the lift there.

    Args:
        chosen: names, by kind.
        table: lifts of all kinds, as for `lift`.
        task: where lifts are taken.
    """
    parts = []
    for kind, name in chosen.items():
        if kind == "Q":
            continue
        at = rows(table, kind=kind, task=task)
        k = max(row["k"] for row in at if row["k"] <= 100)
        raw, after = (
            next(row["lift"] for row in at if (row["score"], row["k"]) == (score, k))
            for score in ("raw", "corrected")
        )
        change = "raises" if after > raw else "lowers" if after < raw else "leaves"
        parts.append(
            f"for {KINDS[kind]} “{name}”, which {change} the lift at {k} on {task} "
            + (f"from {raw:.0f} to {after:.0f}" if after != raw else f"at {raw:.0f}")
        )
    return "Chosen in the same way were " + ", and ".join(parts) + "." if parts else ""


def reuse(table: dict[str, list]) -> str:
    """How much of the strongest channels of one task is strong in another, by kind."""
    parts = []
    for kind in dict.fromkeys(table["kind"]):
        found = sorted(rows(table, kind=kind), key=lambda row: row["share"])
        low, high = found[0], found[-1]
        if low["share"] == high["share"]:
            parts.append(f"{KINDS[kind]}, always {low['share']:.0%}")
            continue
        ends = [f"{r['share']:.0%} ({r['task']}, hits on {r['other']})" for r in (low, high)]
        parts.append(f"{KINDS[kind]}, {ends[0]} to {ends[1]}")
    return (
        "Of the hundred strongest channels on one task, so many are hits on another: "
        + "; ".join(parts)
    )


def strongest(tables: Sequence[dict[str, list]]) -> str:
    """The pairs with the largest effects of each kind, and of whom they are."""
    parts = []
    for table in tables:
        first, n = rows(table)[0], len(table["rank"])
        same = sum(
            (w, k) == (first["writer"], first["component"])
            for w, k in zip(table["writer"], table["component"], strict=True)
        )
        parts.append(
            f"for {KINDS[first['kind']]} from component {first['writer']}.{first['component']} "
            f"({_role(first['writer_role'])}) to {first['reader']} ({_role(first['reader_role'])}),"
            f" an effect of {first['effect']:.2f}, number {first['score_rank']:,} by raw score; "
            f"{same} of the {n} largest come from that component"
        )
    return "The largest effects of all: " + "; ".join(parts) + "."


def _role(role: str) -> str:
    return "no role" if role == "other" else role


def agreement(values: dict[str, float | None]) -> str:
    """Whether the other definition of an effect would have ranked pairs in the same way."""
    parts = [f"{value:.2f} for {KINDS[k]}" for k, value in values.items() if value is not None]
    if not parts:
        return (
            "Ranked by the change of the reader's output instead of its pattern, queries and keys "
            "are compared at the larger sizes only."
        )
    return (
        "Ranked by the change of the reader's output instead of its pattern, effects have a rank "
        "correlation of " + " and ".join(parts) + " with those used here."
    )


def known(table: dict[str, list]) -> str:
    """How many known pairs of each kind are found, and where the best of them stands."""
    parts = []
    for kind, name in FOUND.items():
        found = rows(table, kind=kind)
        if not found:
            parts.append(f"{name}: this model has no such pair")
            continue
        best = min(found, key=lambda row: row["rank"] / row["of"])
        part = f"{name}: {sum(r['found'] for r in found)} of {len(found)}"
        if "corrected_found" in best:
            part += f" ({sum(r['corrected_found'] for r in found)} by the corrected score)"
        parts.append(
            f"{part}, the best being {best['sender']}.{best['component']} into {best['reader']} at "
            f"rank {best['rank']:,} of {best['of']:,} ({best['rank_all']:,} of "
            f"{best['of_all']:,} in the whole model)"
        )
    return "Found are, " + "; ".join(parts)


def known_chance(table: dict[str, list], null: Float[np.ndarray, " shuffle"]) -> str:
    """What belongs to the share of known pairs that are found."""
    if not table or not len(null):
        return "There is no known pair of heads in this model."
    share = float(np.mean(table["found"]))
    p = (1 + int((null >= share - 1e-9).sum())) / (1 + len(null))
    return f"As many heads drawn at random in the senders' places: {null.mean():.2f} ({p_text(p)})."


def effects_of_known(table: dict[str, list]) -> str:
    """Whether what is known matters, by the effect of its strongest component."""
    parts = []
    for kind, name in FOUND.items():
        found = rows(table, kind=kind)
        if found:
            best = min(found, key=lambda row: row["effect_rank"])
            parts.append(
                f"{name}: {sum(r['hit'] for r in found)} of {len(found)} pairs have a component "
                f"that is a hit, the strongest, {best['sender']}.{best['effect_component']} into "
                f"{best['reader']}, at rank {best['effect_rank']:,} of {best['of_all']:,}"
            )
    return "By what removal does, " + "; ".join(parts) + "."


def edges(table: dict[str, list]) -> str:
    """How many channels are drawn, and how many of them were known."""
    parts = []
    for kind in dict.fromkeys(table["kind"]):
        found = rows(table, kind=kind)
        some = sum(row["role"] != "other" for row in found)
        parts.append(f"{len(found)} for {KINDS[kind]}, {some} of them between known pairs")
    return "Drawn are the strongest pairs of heads: " + "; ".join(parts)
