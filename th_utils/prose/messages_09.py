"""What each figure of chapter 09 shows, in one sentence."""

from __future__ import annotations

from th_utils.prose.blind import KINDS, rows
from th_utils.prose.intervals import series, span
from th_utils.survey import IOI, LISTS


def lift(table: dict[str, list], task: str) -> str:
    """How many of the highest raw scores are hits, kind by kind, and how many farther down."""
    kinds = list(dict.fromkeys(table["kind"]))
    raw = {kind: rows(table, kind=kind, task=task, score="raw") for kind in kinds}
    near = {k: max((r for r in raw[k] if r["k"] <= 100), key=lambda r: r["k"]) for k in kinds}
    far = {k: max(raw[k], key=lambda r: r["k"]) for k in kinds}
    shares = series([f"{near[k]['precision']:.0%} into {KINDS[k]}" for k in kinds])
    deep = series([f"{far[k]['precision']:.0%}" for k in kinds])
    return (
        f"On {task}, of the {near[kinds[0]]['k']} highest composition scores of a type, {shares} "
        f"have an effect in the strongest hundredth of all pairs; of the {far[kinds[0]]['k']:,} "
        f"highest, {deep}."
    )


def calibration(table: dict[str, list]) -> str:
    """From which to which mean effect the raw score leads, kind by kind."""
    found = {kind: rows(table, kind=kind, score="raw") for kind in dict.fromkeys(table["kind"])}
    first, last = (next(iter(found.values()))[i] for i in (0, -1))
    parts = []
    for kind, at in found.items():
        low, high = (at[i]["effect"] / at[i]["mean_effect"] for i in (0, -1))
        of = "" if parts else " times that of all pairs"
        parts.append(f"{low:.2g} to {high:.2g}{of} for {KINDS[kind]}")
    return (
        f"From the lowest {first['high']:.0%} of scores to the highest {1 - last['low']:.2%}, the "
        f"mean effect goes from {series(parts)}."
    )


def corrections(table: dict[str, list], chosen: str, task: str) -> str:
    """What the chosen correction does to the rank correlation, and what sizes alone reach."""
    (before,), (after,), (alone,) = (
        rows(table, task=task, **which)
        for which in (
            {"correction": "raw score"},
            {"correction": chosen},
            {"has_score": False, "needs": "random tokens"},
        )
    )
    return (
        f"For queries on {task}, correction takes the rank correlation of score and effect from "
        f"{before['correlation']:.2f} to {after['correlation']:.2f}; the sizes alone, without the "
        f"score, reach {alone['correlation']:.2f}."
    )


def reuse(table: dict[str, list]) -> str:
    """How many of the strongest channels on names are strong on lists, and the reverse, by kind."""
    parts = []
    for kind in dict.fromkeys(table["kind"]):
        (there,) = rows(table, kind=kind, task=IOI, other=LISTS)
        (back,) = rows(table, kind=kind, task=LISTS, other=IOI)
        ends = sorted(row["share"] for row in (there, back))
        parts.append(f"{span(*ends, '.0%')} ({KINDS[kind]})")
    return (
        f"Of the hundred pairs with the largest effects on {IOI}, and of those on {LISTS}, "
        f"{series(parts)} are among the strongest hundredth on the other."
    )


def known(table: dict[str, list]) -> str:
    """How many of the known pairs a blind search finds, by the score and by the corrected one."""
    text = (
        f"Of {len(table['found'])} known pairs of heads, {sum(table['found'])} have a component "
        "in the highest hundredth of their reader's scores"
    )
    if "corrected_found" in table:
        text += f", and {sum(table['corrected_found'])} in that of the corrected scores"
    return f"{text}."


def edges(table: dict[str, list]) -> str:
    """How many of the strongest channels that were found lie between heads of a known pair."""
    parts = []
    for kind in dict.fromkeys(table["kind"]):
        found = rows(table, kind=kind)
        some = sum(row["role"] != "other" for row in found)
        parts.append(f"{some} of {len(found)} into {KINDS[kind]}")
    return (
        f"Of the strongest channels that the search finds, {series(parts)} join heads of a known "
        "pair."
    )
