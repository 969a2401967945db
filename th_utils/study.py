"""A whole model scored, tested and judged: queries, keys and values in turn (chapter 09)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from th_utils import blind, composition, corrections, survey
from th_utils.bootstrap import Interval
from th_utils.channels import Scan
from th_utils.corrections import CORRECTIONS, ON_TASK, RAW, Correction
from th_utils.engine import from_bridge
from th_utils.findings import (
    DEPTH,
    Table,
    calibration_table,
    choose,
    claimed_row,
    correction_table,
    map_table,
    order_table,
    precision_table,
    reuse_table,
    strongest_table,
)
from th_utils.known import known_effects
from th_utils.pairs import Pairs
from th_utils.results import Results
from th_utils.roles import Roles
from th_utils.survey import FIND, IOI, LISTS, KindSurvey
from th_utils.weights import AttentionWeights

_PAIR = ("kind", "sender", "reader")


@dataclass(frozen=True)
class Findings:
    """All tables of one kind, and which correction was chosen."""

    kind: str
    chosen: Correction
    corrections: Table
    precision: Table
    calibration: Table
    order: Table
    reuse: Table
    known: Table
    map: Table
    strongest: Table
    agreement: float | None  # rank correlation of the two effects, where both were measured
    claims: dict[str, Interval]
    effect: Float[Tensor, " pair"]  # of every pair, on indirect objects


def findings(found: KindSurvey, scan: Scan, roles: Roles, known: Table, *, seed: int) -> Findings:
    """Judge a survey of one kind; the claims are about queries, and measured on those only."""
    tasks = [task for task in (IOI, LISTS) if task in found.measured]
    resampled = {
        task: blind.Resampled(m.effect, m.units, seed=seed)
        for task, m in found.measured.items()
        if m.units is not None and task in tasks
    }
    compared = correction_table(found, seed=seed, resampled=resampled)
    chosen = choose(compared)
    both = {"raw": RAW, "corrected": chosen}
    scores = both | {"with the task's activations": ON_TASK}
    precision = precision_table(found, scores, tasks, resampled, seed=seed)
    other, agreement = found.measured[IOI], None
    if other.other is not None:
        agreement = float(blind.correlation(blind.ranks(other.effect), blind.ranks(other.other)))
    return Findings(
        kind=found.kind,
        chosen=chosen,
        corrections=compared,
        precision=precision,
        calibration=calibration_table(found, both, IOI),
        order=order_table(found, both, compared),
        reuse=reuse_table(found),
        known=known_effects(found, known, chosen, IOI),
        map=map_table(found, roles, IOI),
        strongest=strongest_table(found, roles, IOI),
        agreement=agreement,
        claims=_claims(found, chosen, precision, resampled) if IOI in resampled else {},
        effect=other.effect,
    )


def _claims(
    found: KindSurvey,
    chosen: Correction,
    precision: Table,
    resampled: dict[str, blind.Resampled],
) -> dict[str, Interval]:
    """Values and intervals of the claims; those of the ledger are about queries."""
    said: dict[str, Interval] = {}
    for claim, task, score in (
        ("blind-scores-find-channels", IOI, "raw"),
        ("corrected-scores-find-channels", LISTS, "corrected"),
    ):
        row, base = claimed_row(precision, task, score), found.measured[task].hit.double().mean()
        said[claim] = Interval(*(row[end] / float(base) for end in ("precision", "low", "high")))
    pair = [found.score(RAW), found.score(chosen)]
    draws = {task: resampled[task].correlations(pair) for task in (IOI, LISTS)}
    raw, better = map(blind.ranks, pair)
    effect = {task: blind.ranks(found.measured[task].effect) for task in (IOI, LISTS)}
    value = float(blind.correlation(raw, effect[IOI]))
    spread = blind.shifted(draws[IOI][0], value)
    said["blind-scores-rank-effects"] = blind.interval(value, spread)
    both = [blind.correlation(score, effect[LISTS]) for score in (better, raw)]
    value = float(both[0] - both[1])
    spread = blind.shifted(draws[LISTS][1] - draws[LISTS][0], value)
    said["correction-beats-the-raw-score"] = blind.interval(value, spread)
    said["channels-are-reused-across-tasks"] = reuse(found, resampled)
    return said


def reuse(found: KindSurvey, resampled: dict[str, blind.Resampled]) -> Interval:
    """Share of the hundred largest effects on one task that are hits on the other.

    Both tasks are resampled, each by its own prompts, so that the hundred change too.
    """
    order = blind.highest(found.measured[IOI].effect, DEPTH)
    value = float(found.measured[LISTS].hit[order].double().mean())
    one, other = resampled[IOI], resampled[LISTS]
    near = one.contenders
    first = torch.topk(one.effects(near), min(DEPTH, len(near)), dim=1).indices
    hit = other.hit(near)
    draws: Tensor = hit.gather(1, first).double().mean(1)
    return blind.interval(value, draws.cpu().numpy())


def study(
    bridge: Any,
    weights: AttentionWeights,
    scan: Scan,
    roles: Roles,
    known: Table,
    *,
    prompts: int,
    seed: int,
    whole: bool = False,
) -> dict[str, Findings]:
    """Score, test and judge all pairs of a model, queries, keys and values in turn.

    Args:
        bridge: `TransformerBridge` in compatibility mode.
        weights: its attention weights.
        scan: their composition scores (`channels.scan`).
        roles: of its heads.
        known: `known_table` of these.
        prompts: of each task.
        seed: of prompts, draws and samples.
        whole: leave nothing out. Otherwise keys and values are tested on half of the prompts, not
            on random tokens, and the second effect of queries and keys is not measured. Intervals
            are taken for queries only, which the claims are about.
    """
    model = from_bridge(bridge)
    directions = composition.write_directions(scan.svd)
    tokens = survey.random_tokens(bridge, prompts, seed=seed)
    typical = corrections.sizes(model, directions, tokens)
    runs = survey.runs(model, survey.tasks(bridge, prompts, seed=seed))
    said = {}
    for kind in composition.KINDS:
        found = survey.survey(
            model,
            scan.svd,
            kind,
            composition.readers(weights, kind),
            scan.components[kind],
            typical,
            [run for run in runs if whole or kind == "Q" or run.task.name != survey.RANDOM],
            prompts=None if whole or kind == "Q" else prompts // 4 * 2,
            outputs=[IOI] if whole else [],
            units=[IOI, LISTS] if kind == "Q" else [],  # the table of draws is the largest of all
        )
        said[kind] = findings(found, scan, roles, known, seed=seed)
    return said


def tables(study: dict[str, Findings], known: Table, *, layers: int, heads: int) -> dict[str, Any]:
    """The tables of all kinds together, as the chapter's figures and sentences want them."""

    def joined(name: str) -> Table:
        parts = [table for each in study.values() if (table := getattr(each, name))]
        return {n: [x for part in parts for x in part[n]] for n in parts[0]} if parts else {}

    query = study["Q"]
    without = next(c.name for c in CORRECTIONS if not c.has_score)
    said = dict(chosen=query.chosen.name, chosen_on=FIND, other=LISTS, first_without=without)
    more = joined("known")
    at = {key: i for i, key in enumerate(zip(*(more.get(n, []) for n in _PAIR), strict=True))}
    places = [at[key] for key in zip(*(known.get(n, []) for n in _PAIR), strict=True)]
    beside = {n: [values[i] for i in places] for n, values in more.items() if n not in _PAIR}
    return {
        "lift": Results(joined("precision")),
        "corrections": Results(query.corrections, said),
        "calibration": Results(joined("calibration")),
        "order": joined("order"),
        "reuse": Results(joined("reuse")),
        "known": Results(known | beside),
        "map": Results(joined("map"), dict(layers=layers, heads=heads)),
    }


def number_of_pairs(scan: Scan) -> int:
    """Pairs of a component and a later head."""
    return len(Pairs(*scan.svd.S.shape))
