"""What a blind search finds, in tables: one kind of composition at a time (chapter 09)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from th_utils import blind, composition, corrections, survey
from th_utils.bootstrap import Interval
from th_utils.channels import KNOWN_PAIRS, Scan
from th_utils.corrections import CORRECTIONS, ON_TASK, RAW, Correction
from th_utils.corrections import blind as is_blind
from th_utils.engine import from_bridge
from th_utils.pairs import Pairs
from th_utils.results import Results
from th_utils.roles import Head, Roles, label, role_of
from th_utils.survey import FIND, IOI, LISTS, KindSurvey
from th_utils.weights import AttentionWeights

DEPTH = 100  # at which claims are judged
TOP_SHARE = 0.01  # of a reader's scores: a known pair there counts as found
MAP_SHARE = 0.001  # of all scores: what the map takes as found
EDGES = 40  # on the map, of each kind
_PAIR = ("kind", "sender", "reader")
_SAMPLE = 200_000  # pairs over which corrections are compared

Table = dict[str, list]


def columns(rows: Sequence[dict[str, Any]]) -> Table:
    """Rows as a table; without rows, an empty one."""
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


def depths(pairs: Pairs) -> tuple[int, ...]:
    """How far down the lists are read: no further than a tenth of all pairs."""
    return tuple(k for k in blind.DEPTHS if 10 * k <= len(pairs)) or (1,)


def choose(table: Table) -> Correction:
    """The blind correction of highest average precision on the task for choosing."""
    rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    known = {c.name: c for c in CORRECTIONS if is_blind(c)}
    rows = [row for row in rows if row["task"] == FIND and row["correction"] in known]
    return known[max(rows, key=lambda row: row["average_precision"])["correction"]]


def correction_table(found: KindSurvey, *, seed: int) -> Table:
    """How well each correction does on each task.

    Returns:
        Columns: kind, correction, needs, has_score, task, correlation (of ranks, with the effect),
        lift (among the hundred highest), average_precision. Correlation and average precision are
        taken over pairs drawn evenly, at most 200,000.
    """
    rng = np.random.default_rng(seed)
    n = len(found.pairs)
    sample = torch.from_numpy(rng.choice(n, min(n, _SAMPLE), replace=False))
    effects = {
        task: (blind.ranks(m.effect[sample]), m.hit[sample]) for task, m in found.measured.items()
    }
    rows = []
    for correction in CORRECTIONS:
        for task, measured in found.measured.items():
            if (
                not rows
                or correction.needs == "prompts"
                or rows[-1]["correction"] != (correction.name)
            ):
                score = found.score(correction, task)
                order = blind.highest(score, DEPTH)
                ranks = blind.ranks(score[sample])
            rank, hit = effects[task]
            rows.append(
                dict(
                    kind=found.kind,
                    correction=correction.name,
                    needs=correction.needs,
                    has_score=correction.has_score,
                    task=task,
                    correlation=float(blind.correlation(ranks, rank)),
                    lift=float(measured.hit[order].double().mean() / measured.hit.double().mean()),
                    average_precision=blind.average_precision(ranks, hit),
                )
            )
    return columns(rows)


def precision_table(
    found: KindSurvey,
    scores: dict[str, Correction],
    tasks: Sequence[str],
    resampled: dict[str, blind.Resampled],
    *,
    seed: int,
) -> Table:
    """Precision and lift of some scores by depth, with intervals and chance.

    Returns:
        Columns: kind, task, score, k, precision, low, high (None where prompts were not kept
        apart), lift, chance and p (scores dealt out among what each reader could read),
        chance_heads and p_heads (earlier heads exchanged as wholes), readers, writers (how many
        heads the pairs are of).
    """
    rows = []
    ks = depths(found.pairs)
    for task in tasks:
        hit = found.measured[task].hit
        base = float(hit.double().mean())
        for name, correction in scores.items():
            order = blind.highest(found.score(correction, task), ks[-1])
            value = blind.precision(order, hit, ks)
            null = blind.chance(found.pairs, order, hit, seed=seed, depths=ks)
            p, p_heads = null.p(value, "within"), null.p(value, "heads")
            draws = resampled[task].precision(order, ks) if task in resampled else None
            where = found.pairs.where(order.cpu().numpy())
            for i, k in enumerate(ks):
                ends = (None, None)
                if draws is not None:
                    ends = blind.interval(float(value[i]), draws[:, i])[1:]
                rows.append(
                    dict(
                        kind=found.kind, task=task, score=name, k=k, precision=float(value[i]),
                        low=ends[0], high=ends[1], lift=float(value[i]) / base,
                        chance=float(null.within[:, i].mean()), p=float(p[i]),
                        chance_heads=float(null.heads[:, i].mean()), p_heads=float(p_heads[i]),
                        readers=len(np.unique(where[:k, 3:], axis=0)),
                        writers=len(np.unique(where[:k, :2], axis=0)),
                    )
                )  # fmt: skip
    return columns(rows)


def calibration_table(found: KindSurvey, scores: dict[str, Correction], task: str) -> Table:
    """Effects by place in the order of each score; columns of `blind.calibration` and its own."""
    effect, rows = found.measured[task].effect, []
    for name, correction in scores.items():
        bins = blind.calibration(found.score(correction, task), effect)
        for row in zip(*bins.values(), strict=True):
            said = dict(kind=found.kind, score=name, mean_effect=float(effect.mean()))
            rows.append(said | dict(zip(bins, row, strict=True)))
    return columns(rows)


def reuse_table(found: KindSurvey) -> Table:
    """The strongest channels of one task in another.

    Returns:
        Columns: kind, task, other, share (of the hundred largest effects on `task` that are hits
        on `other`), correlation (of ranks, over pairs drawn evenly).
    """
    every = torch.arange(0, len(found.pairs), max(1, len(found.pairs) // _SAMPLE))
    ranks = {task: blind.ranks(m.effect[every]) for task, m in found.measured.items()}
    rows = []
    for task, m in found.measured.items():
        order = blind.highest(m.effect, DEPTH)
        for other, n in found.measured.items():
            if task != other:
                share = float(n.hit[order].double().mean())
                together = float(blind.correlation(ranks[task], ranks[other]))
                rows.append(
                    dict(kind=found.kind, task=task, other=other, share=share, correlation=together)
                )
    return columns(rows)


def known_table(scan: Scan, roles: Roles) -> Table:
    """Where the raw score ranks the known pairs of heads, from weights alone.

    Returns:
        Columns: kind, role (of the sender), sender, reader, component (the sender's best), score,
        rank and of (among the reader's scores, from 1), found (among the highest hundredth of
        these), rank_all and of_all (among all pairs of this kind).
    """
    rows = []
    for sender_role, reader_role, kind in KNOWN_PAIRS:
        table = scan.components[kind]
        everything = table[~table.isnan()]
        for reader in roles[reader_role]:
            own = table[: reader[0], :, :, reader[0], reader[1]]
            for sender in roles[sender_role]:
                if sender[0] < reader[0]:
                    best = int(own[sender].argmax())
                    score = own[sender][best]
                    rank = 1 + int((own > score).sum())
                    rows.append(
                        dict(
                            kind=kind, role=sender_role, sender=label(sender), reader=label(reader),
                            component=best, score=float(score), rank=rank, of=own.numel(),
                            found=rank <= TOP_SHARE * own.numel(),
                            rank_all=1 + int((everything > score).sum()),
                            of_all=everything.numel(),
                        )
                    )  # fmt: skip
    return columns(rows)


def known_by_chance(
    scan: Scan, roles: Roles, *, seed: int, shuffles: int = 2000
) -> Float[np.ndarray, " shuffle"]:
    """The share of pairs found when each role's senders are dealt out among all earlier heads.

    The same heads serve all readers of a role, as the known ones do.
    """
    rng, parts = np.random.default_rng(seed), []
    for sender_role, reader_role, kind in KNOWN_PAIRS:
        readers = [r for r in roles[reader_role] if any(s[0] < r[0] for s in roles[sender_role])]
        if not readers:
            continue
        heads = scan.components[kind].shape[1]
        deepest = max(layer for layer, _ in readers)
        found = []  # one row of heads for each reader; NaN where they come too late
        for layer, head in readers:
            own = scan.components[kind][:layer, :, :, layer, head]
            k = max(1, int(TOP_SHARE * own.numel()))
            threshold = torch.topk(own.flatten(), k).values[-1]
            row = np.full(deepest * heads, np.nan)
            row[: layer * heads] = (own >= threshold).any(-1).flatten().cpu().numpy()
            found.append(row)
        senders = sum(layer < deepest for layer, _ in roles[sender_role])
        deal = np.stack(
            [rng.choice(deepest * heads, senders, replace=False) for _ in range(shuffles)]
        )
        parts.append(np.stack(found)[:, deal])  # reader, shuffle, sender
    if not parts:
        return np.zeros(0)
    joined = np.concatenate([part.transpose(1, 0, 2).reshape(shuffles, -1) for part in parts], 1)
    counted = (~np.isnan(joined)).sum(1)
    return np.nansum(joined, 1)[counted > 0] / counted[counted > 0]


def known_effects(found: KindSurvey, known: Table, chosen: Correction, task: str) -> Table:
    """Beside the ranks of the known pairs of this kind: by the correction, and by the effect.

    Returns:
        Columns: sender, reader, kind, corrected_rank (best component among the reader's scores),
        corrected_found, effect_component (of largest effect), effect_rank (among all pairs of the
        kind), effect_rank_reader (among the reader's), hit.
    """
    score, measured = found.score(chosen, task), found.measured[task]
    rows, pairs = [], found.pairs
    for kind, sender, reader in zip(known["kind"], known["sender"], known["reader"], strict=True):
        if kind != found.kind:
            continue
        (layer, head), (later, other) = (_head(name) for name in (sender, reader))
        place = slice(pairs.start(later, other), pairs.start(later, other + 1))
        first = place.start + (layer * pairs.heads + head) * pairs.rank
        own = slice(first, first + pairs.rank)
        best = float(score[own].max())
        rank = 1 + int((score[place] > best).sum())
        effect = float(measured.effect[own].max())
        rows.append(
            dict(
                kind=kind, sender=sender, reader=reader, corrected_rank=rank,
                corrected_found=rank <= TOP_SHARE * (place.stop - place.start),
                effect_component=int(measured.effect[own].argmax()), effect=effect,
                effect_rank=1 + int((measured.effect > effect).sum()),
                effect_rank_reader=1 + int((measured.effect[place] > effect).sum()),
                hit=bool(measured.hit[own].any()),
            )
        )  # fmt: skip
    return columns(rows)


def map_table(found: KindSurvey, roles: Roles, task: str, edges: int = EDGES) -> Table:
    """The strongest channels that the raw score finds, one row to a pair of heads.

    Found are hits among the highest thousandth of scores; the strongest are drawn.

    Returns:
        Columns: kind, writer_layer, writer_head, component, reader_layer, reader_head, effect, role
        (of the writer, where reader and writer are a known pair, else "other").
    """
    measured, score = found.measured[task], found.factors["score"]
    top = blind.highest(score, max(edges, round(MAP_SHARE * len(score))))
    top = top[measured.hit[top]]
    order = top[measured.effect[top].argsort(descending=True)].cpu().numpy()
    known = [(s, r) for s, r, kind in KNOWN_PAIRS if kind == found.kind]
    seen, rows = set(), []
    for index, at in zip(order, found.pairs.where(order), strict=True):
        layer, head, component, later, other = map(int, at)
        if (layer, head, later, other) in seen or len(rows) == edges:
            continue
        seen.add((layer, head, later, other))
        roles_of = (s for s, r in known if (layer, head) in roles[s] and (later, other) in roles[r])
        rows.append(
            dict(
                kind=found.kind, writer_layer=layer, writer_head=head, component=component,
                reader_layer=later, reader_head=other, effect=float(measured.effect[index]),
                role=next(roles_of, "other"),
            )
        )  # fmt: skip
    return columns(rows)


def strongest_table(found: KindSurvey, roles: Roles, task: str, n: int = 10) -> Table:
    """The pairs with the largest effects: writer, component, reader, effect, and both ranks."""
    order = blind.highest(found.measured[task].effect, n)
    score = found.factors["score"]
    rows = []
    for i, (index, at) in enumerate(
        zip(order.tolist(), found.pairs.where(order.cpu().numpy()), strict=True)
    ):
        writer, reader = (int(at[0]), int(at[1])), (int(at[3]), int(at[4]))
        rows.append(
            dict(
                kind=found.kind, rank=i + 1, writer=label(writer), component=int(at[2]),
                reader=label(reader), effect=float(found.measured[task].effect[index]),
                score_rank=1 + int((score > score[index]).sum()),
                writer_role=role_of(roles, writer), reader_role=role_of(roles, reader),
            )
        )  # fmt: skip
    return columns(rows)


def _head(name: str) -> Head:
    layer, head = name.split(".")
    return int(layer), int(head)


@dataclass(frozen=True)
class Findings:
    """All tables of one kind, and which correction was chosen."""

    kind: str
    chosen: Correction
    corrections: Table
    precision: Table
    calibration: Table
    reuse: Table
    known: Table
    map: Table
    strongest: Table
    agreement: float | None  # rank correlation of the two effects, where both were measured
    claims: dict[str, Interval]


def findings(found: KindSurvey, scan: Scan, roles: Roles, known: Table, *, seed: int) -> Findings:
    """Judge a survey of one kind; the claims are about queries, and measured on those only."""
    compared = correction_table(found, seed=seed)
    chosen = choose(compared)
    scores = {"raw": RAW, "corrected": chosen, "with the task's activations": ON_TASK}
    tasks = [task for task in (IOI, LISTS) if task in found.measured]
    resampled = {
        task: blind.Resampled(m.effect, m.units, seed=seed)
        for task, m in found.measured.items()
        if m.units is not None and task in tasks
    }
    precision = precision_table(found, scores, tasks, resampled, seed=seed)
    other, agreement = found.measured[IOI], None
    if other.other is not None:
        agreement = float(blind.correlation(blind.ranks(other.effect), blind.ranks(other.other)))
    return Findings(
        kind=found.kind,
        chosen=chosen,
        corrections=compared,
        precision=precision,
        calibration=calibration_table(found, {"raw": RAW, "corrected": chosen}, IOI),
        reuse=reuse_table(found),
        known=known_effects(found, known, chosen, IOI),
        map=map_table(found, roles, IOI),
        strongest=strongest_table(found, roles, IOI),
        agreement=agreement,
        claims=_claims(found, chosen, precision, resampled) if IOI in resampled else {},
    )


def claimed_row(precision: Table, task: str, score: str) -> dict[str, Any]:
    """The row of a precision table at the depth at which claims are judged, or the next before."""
    rows = [dict(zip(precision, r, strict=True)) for r in zip(*precision.values(), strict=True)]
    return max(
        (r for r in rows if (r["task"], r["score"]) == (task, score) and r["k"] <= DEPTH),
        key=lambda row: row["k"],
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
            on random tokens and without intervals, and the second effect of queries and keys is
            not measured.
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
            units=[IOI, LISTS] if whole or kind == "Q" else [],
        )
        said[kind] = findings(found, scan, roles, known, seed=seed)
    return said


def tables(study: dict[str, Findings], known: Table, *, layers: int, heads: int) -> dict[str, Any]:
    """The tables of all kinds together, as the chapter's figures want them."""

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
        "known": Results(known | beside),
        "map": Results(joined("map"), dict(layers=layers, heads=heads)),
    }


def share_found(known: Table) -> float:
    """Share of the known pairs with a component among the highest hundredth."""
    return float(np.mean(known["found"]))


def number_of_pairs(scan: Scan) -> int:
    """Pairs of a component and a later head."""
    return len(Pairs(*scan.svd.S.shape))
