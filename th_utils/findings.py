"""What a blind search finds, in tables: one kind of composition at a time (chapter 09)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from th_utils import blind
from th_utils.channels import KNOWN_PAIRS
from th_utils.corrections import CORRECTIONS, Correction
from th_utils.corrections import blind as is_blind
from th_utils.pairs import Pairs
from th_utils.roles import Roles, label, role_of
from th_utils.survey import FIND, KindSurvey

DEPTH = 100  # at which claims are judged
TOP_SHARE = 0.01  # of a reader's scores: a known pair there counts as found
MAP_SHARE = 0.001  # of all scores: what the map takes as found
EDGES = 40  # on the map, of each kind
ENDS = (0.0001, 0.2)  # shares of all scores, from the highest and from the lowest
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


def correction_table(
    found: KindSurvey, *, seed: int, resampled: Mapping[str, blind.Resampled] | None = None
) -> Table:
    """How well each correction does on each task.

    Returns:
        Columns: kind, correction, needs, has_score, task, correlation (of ranks, with the effect),
        low and high (its interval over prompts; None where these were not kept apart), lift (among
        the hundred highest), average_precision. Correlation and average precision are taken over
        pairs drawn evenly, at most 200,000.
    """
    draws = {
        task: some.correlations(found.score(c, task) for c in CORRECTIONS)
        for task, some in (resampled or {}).items()
    }
    rng = np.random.default_rng(seed)
    n = len(found.pairs)
    sample = torch.from_numpy(rng.choice(n, min(n, _SAMPLE), replace=False))
    effects = {
        task: (blind.ranks(m.effect[sample]), m.hit[sample]) for task, m in found.measured.items()
    }
    rows = []
    for i, correction in enumerate(CORRECTIONS):
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
            value, ends = float(blind.correlation(ranks, rank)), (None, None)
            if task in draws:
                ends = blind.interval(value, blind.shifted(draws[task][i], value))[1:]
            rows.append(
                dict(
                    kind=found.kind,
                    correction=correction.name,
                    needs=correction.needs,
                    has_score=correction.has_score,
                    task=task,
                    correlation=value,
                    low=ends[0],
                    high=ends[1],
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


def order_table(found: KindSurvey, scores: dict[str, Correction], compared: Table) -> Table:
    """How well scores put all pairs in order, on each task that is reported.

    Args:
        found: the survey.
        scores: what to look at, by name.
        compared: `correction_table` of the survey.

    Returns:
        Columns: kind, task, score, correlation (of ranks), pairs (how many the highest
        ten-thousandth is), top (its mean effect) and bottom (that of the lowest fifth), in means of
        all pairs.
    """
    keys = zip(compared["correction"], compared["task"], strict=True)
    said = dict(zip(keys, compared["correlation"], strict=True))
    rows = []
    for task, m in found.measured.items():
        for name, correction in scores.items():
            if task != FIND:
                pairs, top, bottom = blind.ends(found.score(correction, task), m.effect, *ENDS)
                rows.append(
                    dict(
                        kind=found.kind, task=task, score=name, pairs=pairs, top=top, bottom=bottom,
                        correlation=said[correction.name, task],
                    )
                )  # fmt: skip
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


def claimed_row(precision: Table, task: str, score: str) -> dict[str, Any]:
    """The row of a precision table at the depth at which claims are judged, or the next before."""
    rows = [dict(zip(precision, r, strict=True)) for r in zip(*precision.values(), strict=True)]
    return max(
        (r for r in rows if (r["task"], r["score"]) == (task, score) and r["k"] <= DEPTH),
        key=lambda row: row["k"],
    )
