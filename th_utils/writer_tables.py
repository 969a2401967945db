"""Tables and statistics of chapter 05: pairs of heads, agreement of readings, all who write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from th_utils.bootstrap import (
    Interval,
    bootstrap,
    permutation_null,
    rank_correlation,
)
from th_utils.components import ratio
from th_utils.roles import Roles, label, role_of
from th_utils.sites import Sites
from th_utils.tasks import ioi
from th_utils.writer_effects import PairEffects
from th_utils.writers import CHANNELS, Input, Pair


def strongest(effects: Sequence[PairEffects], n: int) -> list[PairEffects]:
    """The pairs with the largest effect of the whole writer, on the half it was chosen on."""
    return sorted(effects, key=lambda e: -e.strength)[:n]


def highest(pairs: Sequence[Pair], n: int) -> list[Pair]:
    """The pairs with the highest score of a single component: all that weights can say."""
    return sorted(pairs, key=lambda pair: -float(pair.scores.max()))[:n]


def panels_table(shown: Sequence[PairEffects | Pair]) -> dict[str, list]:
    """Both readings of every component of the writers, pair by pair.

    Returns:
        Columns: writer, reader, component, composition, facing (None by key), picked (bool),
        effect, random_low, random_high (95% of the mean effects of random directions of the same
        writer; None, like the effect, where nothing was run). Effects by value are shares of the
        clean distance, effects by key points of attention.
    """
    rows = []
    for one in shown:
        pair = one if isinstance(one, Pair) else one.pair
        effect, low, high = None, None, None
        if isinstance(one, PairEffects):
            unit = float(one.clean.mean()) if pair.kind == "V" else 1.0
            effect = (one.effects.mean(0) / unit).tolist()
            random = (one.random.mean(0) / unit).double().cpu().numpy()
            low, high = np.quantile(random, [0.025, 0.975]).tolist()
        for k, score in enumerate(pair.scores.tolist()):
            rows.append(
                dict(
                    writer=label(pair.writer),
                    reader=label(pair.reader),
                    component=k,
                    composition=score,
                    facing=None if pair.facing is None else float(pair.facing[k]),
                    picked=isinstance(one, PairEffects) and k in one.picks,
                    effect=None if effect is None else effect[k],
                    random_low=low,
                    random_high=high,
                )
            )
    return {name: [row[name] for row in rows] for name in rows[0]}


def agreement(
    effects: Sequence[PairEffects], *, seed: int, shuffles: int = 500
) -> tuple[Interval, dict[str, list]]:
    """Rank correlation of composition score and size of effect over a writer's components.

    Returns:
        The mean over pairs of heads with a bootstrap interval over pairs of prompts; and per pair
        of heads: writer, reader, rho, p (one-sided, components permuted), facing (rank correlation
        with ``|v_k . u_j|``, None by key), order (with the order of the components alone, first
        component first), best (highest composition score), first (largest effect), coincide.
    """
    rows = []
    for e in effects:
        size = e.effects.mean(0).abs().double().cpu().numpy()
        scores = e.pair.scores.double().cpu().numpy()
        test = permutation_null(
            lambda s, size=size: rank_correlation(s, size),
            scores,
            seed=seed,
            n=shuffles,
            batched=True,
        )
        facing = None
        if e.pair.facing is not None:
            facing = float(rank_correlation(e.pair.facing.double().cpu().numpy(), size))
        order = float(rank_correlation(-np.arange(len(size), dtype=float), size))
        best, first = int(scores.argmax()), int(size.argmax())
        rows.append(
            dict(
                writer=label(e.pair.writer),
                reader=label(e.pair.reader),
                rho=test.value,
                p=test.p,
                facing=facing,
                order=order,
                best=best,
                first=first,
                coincide=best == first,
                strength=e.strength,
            )
        )
    measured = np.stack([ioi.pair_means(e.effects) for e in effects], axis=1)
    scores = np.stack([e.pair.scores.double().cpu().numpy() for e in effects])

    def mean_rho(sample: np.ndarray) -> float:
        return float(rank_correlation(scores, np.abs(sample.mean(axis=0))).mean())

    interval = bootstrap(mean_rho, [measured], seed=seed, n_boot=500)
    return interval, {name: [row[name] for row in rows] for name in rows[0]}


def everyone(
    bridge: Any, at: Sites, inputs: Sequence[Input], roles: Roles, *, seed: int, n: int = 12
) -> dict[str, list]:
    """All that is written in front of some readers' inputs: heads, MLPs and the embedding.

    Each is removed whole from that input alone. Looked at after the claims: exploratory.

    Returns:
        For each input the `n` largest falls whatever the sign, largest size first. Columns: kind,
        reader, name, role, mean, low, high (mean fall as a share of the mean clean value, with a
        95% bootstrap interval over pairs of prompts, both resampled together); rank, of (how many
        there are).
    """
    rows = []
    for seen in inputs:
        names, written = _written(bridge, at, seen, roles)
        falls, clean = ioi.pair_means(_in_parts(seen, written)), ioi.pair_means(seen.clean)
        first = np.argsort(-np.abs(falls.mean(0)), kind="stable")[:n]
        for rank, i in enumerate(first, 1):
            mean, low, high = ratio(falls[:, i], clean, seed=seed)
            rows.append(
                dict(
                    kind=seen.kind,
                    reader=label(seen.reader),
                    name=names[i][0],
                    role=names[i][1],
                    mean=mean,
                    low=low,
                    high=high,
                    rank=rank,
                    of=len(names),
                )
            )
    return {name: [row[name] for row in rows] for name in rows[0]}


def _written(
    bridge: Any, at: Sites, seen: Input, roles: Roles
) -> tuple[list[tuple[str, str]], Float[Tensor, "prompt writer d_model"]]:
    """Names and roles of all that is summed in front of an input, and what each of them writes."""
    site = CHANNELS[seen.kind][2]
    resid, z = at.resid[site], at.z[site]
    names, written = [("embedding", "other")], [resid[0]]
    for layer in range(seen.reader[0]):
        attn = bridge.blocks[layer].attn
        each = torch.einsum("nhe,hed->hnd", z[layer], attn.W_O.detach())
        names += [(label((layer, h)), role_of(roles, (layer, h))) for h in range(len(each))]
        written += list(each)
        bias = getattr(attn, "b_O", None)
        attended = each.sum(0) if bias is None else each.sum(0) + bias.detach()
        names.append((f"MLP {layer}", "other"))
        written.append(resid[layer + 1] - resid[layer] - attended)
    return names, torch.stack(written, dim=1)


def _in_parts(seen: Input, written: Tensor, cases: int = 32) -> Tensor:
    """Falls when each thing written is removed, a few at a time."""
    parts = [seen.fall(-part) for part in written.split(cases, dim=1)]
    return torch.cat(parts, dim=1)
