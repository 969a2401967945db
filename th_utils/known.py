"""The known pairs of heads: where scores rank them, and what removing them does (chapter 09)."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

from th_utils.channels import KNOWN_PAIRS, Scan
from th_utils.corrections import Correction
from th_utils.findings import TOP_SHARE, Table, columns
from th_utils.roles import Head, Roles, label
from th_utils.survey import KindSurvey


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


def share_found(known: Table) -> float:
    """Share of the known pairs with a component among the highest hundredth."""
    return float(np.mean(known["found"]))


def _head(name: str) -> Head:
    layer, head = name.split(".")
    return int(layer), int(head)
