"""What single components of an inhibition head do to a mover (chapter 03).

Two readings of the same component are compared: its *composition score* with the mover's query,
from weights alone, and its *inhibition score*, the fall of the mover's preference for the right
name when the component is taken out of the mover's query at the end position. The paper's
definition of the second is not known to us in full: *reconstruction*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from th_utils.attention import inhibition_score
from th_utils.bootstrap import (
    Interval,
    bootstrap,
    permutation_null,
    rank_correlation,
)
from th_utils.errors import CompanionError
from th_utils.patching import (
    ComponentEdit,
    direct_query,
    end_attention,
    head_outputs,
    remove,
)
from th_utils.roles import Head, label
from th_utils.runs import CleanRun
from th_utils.svd import HeadSVD
from th_utils.tasks import ioi


def mover_score(run: CleanRun, mover: Head) -> Float[Tensor, " prompt"]:
    """The mover's inhibition score in the clean run."""
    at = run.prompts.positions
    return inhibition_score(run.pattern["end"][mover[0]], at["IO"], at["S1"])[:, mover[1]]


def scores_of(
    run: CleanRun, patterns: Float[Tensor, "prompt case pos"]
) -> Float[Tensor, "prompt case"]:
    """Inhibition scores of one head's patterns, case by case."""
    at = run.prompts.positions
    return inhibition_score(patterns, at["IO"], at["S1"])


def direct_effects(
    bridge: Any,
    run: CleanRun,
    sender: Head,
    mover: Head,
    directions: Float[Tensor, "case d_model"],
) -> Float[Tensor, "prompt case"]:
    """Fall of the mover's inhibition score when one direction of the sender leaves its query.

    For each direction (unit vectors), the part of the sender's output along it is removed from
    the input of the mover's query; norm and softmax are recomputed, the rest stays.
    """
    output = head_outputs(bridge, run, *sender)
    delta = -(output @ directions.mT)[..., None] * directions
    return _direct_fall(bridge, run, mover, delta)


def direct_fall(
    bridge: Any, run: CleanRun, sender: Head, mover: Head, edit: ComponentEdit | None = None
) -> Float[Tensor, " prompt"]:
    """The same for an edit of the sender's output; for its removal as a whole without one."""
    output = head_outputs(bridge, run, *sender)
    edited = torch.zeros_like(output) if edit is None else edit.apply(output)
    return _direct_fall(bridge, run, mover, (edited - output)[:, None])[:, 0]


def _direct_fall(
    bridge: Any, run: CleanRun, mover: Head, delta: Float[Tensor, "prompt case d_model"]
) -> Float[Tensor, "prompt case"]:
    patterns = direct_query(bridge, run, *mover, delta)
    clean = end_attention(run, *mover, run.query[mover[0], :, mover[1]][:, None], bridge)
    return scores_of(run, clean) - scores_of(run, patterns)


def leading(effects: Float[Tensor, "prompt component"], n: int = 2) -> list[int]:
    """The components with the largest mean effect, largest first."""
    return effects.mean(0).argsort(descending=True)[:n].tolist()


def random_directions(
    svd: HeadSVD, head: Head, n: int, *, seed: int
) -> Float[Tensor, "case d_model"]:
    """Unit vectors drawn at random from the space that a head can write to: a control."""
    V = svd.V[head[0], head[1]]
    drawn = torch.randn(V.shape[1], n, generator=torch.Generator().manual_seed(seed)).to(V)
    directions = (V @ drawn).mT
    return directions / directions.norm(dim=-1, keepdim=True)


@dataclass(frozen=True)
class SenderEffects:
    """All that chapter 03 measures of one inhibition head and the main mover."""

    sender: Head
    picks: list[int]  # leading components on the split they were chosen on
    effects: Float[Tensor, "prompt component"]  # on the split reported, direct
    whole: Float[Tensor, " prompt"]  # the head's whole output removed, direct
    picked: Float[Tensor, " prompt"]  # the leading components removed together, direct
    random: Float[Tensor, "prompt case"]  # random directions of the head's write space, direct
    matched: Float[Tensor, "prompt case"]  # random vectors as long as what `picked` removed, direct
    norm_share: Float[Tensor, " prompt"]  # share of the output's squared length in `picks`
    scores: Float[Tensor, " component"]  # composition score with the mover's query


def sender_effects(
    bridge: Any,
    chosen_on: CleanRun,
    reported_on: CleanRun,
    svd: HeadSVD,
    reader: Float[Tensor, "layer head d_model d_head"],
    sender: Head,
    mover: Head,
    *,
    n_random: int,
    seed: int,
) -> SenderEffects:
    """Component by component: choose the leading ones on one run, measure on the other.

    Args:
        bridge: `TransformerBridge` in compatibility mode.
        chosen_on, reported_on: clean runs on two splits of the task.
        svd: SVD of the OV matrices.
        reader: reduced Q readers (`th_utils.composition.readers`).
        sender, mover: the heads.
        n_random: number of random directions.
        seed: of those.
    """
    directions = svd.V[sender].mT
    picks = leading(direct_effects(bridge, chosen_on, sender, mover, directions))
    unit = reader[mover] / torch.linalg.matrix_norm(reader[mover])
    control = random_directions(svd, sender, n_random, seed=seed)
    edit = remove(svd, *sender, picks)
    output = head_outputs(bridge, reported_on, *sender)
    removed = output - edit.apply(output)
    length = removed.norm(dim=-1)
    return SenderEffects(
        sender=sender,
        picks=picks,
        effects=direct_effects(bridge, reported_on, sender, mover, directions),
        whole=direct_fall(bridge, reported_on, sender, mover),
        picked=direct_fall(bridge, reported_on, sender, mover, edit),
        random=direct_effects(bridge, reported_on, sender, mover, control),
        matched=_direct_fall(bridge, reported_on, mover, -length[:, None, None] * control),
        norm_share=(length / output.norm(dim=-1)) ** 2,
        scores=torch.linalg.vector_norm(directions @ unit, dim=-1),
    )


def measure(
    bridge: Any,
    chosen_on: CleanRun,
    reported_on: CleanRun,
    svd: HeadSVD,
    reader: Float[Tensor, "layer head d_model d_head"],
    senders: Sequence[Head],
    mover: Head,
    *,
    n_random: int,
    seed: int,
) -> list[SenderEffects]:
    """`sender_effects` of several inhibition heads.

    Raises:
        CompanionError: there is none.
    """
    if not senders:
        raise CompanionError(
            "no inhibition head before the main mover was found in this model: there is nothing to "
            "take apart (chapter 01 shows which roles it has)"
        )
    return [
        sender_effects(
            bridge, chosen_on, reported_on, svd, reader, sender, mover, n_random=n_random, seed=seed
        )
        for sender in senders
    ]


def panels_table(measured: Sequence[SenderEffects], abba: Bool[Tensor, " prompt"]) -> dict:
    """Both readings of every component of the strongest inhibition heads.

    Returns:
        Columns: head, component, inhibition (mean over prompts), abba, baba (means over each
        order), composition, random_low, random_high (95% of the mean effects of random
        directions of the same head's write space), picked (bool).
    """
    rows = []
    for m in measured:
        random = m.random.mean(0).double().cpu().numpy()
        low, high = np.quantile(random, [0.025, 0.975])
        for k in range(m.effects.shape[1]):
            effect = m.effects[:, k]
            rows.append(
                dict(
                    head=label(m.sender),
                    component=k,
                    inhibition=float(effect.mean()),
                    abba=float(effect[abba].mean()),
                    baba=float(effect[~abba].mean()),
                    composition=float(m.scores[k]),
                    random_low=float(low),
                    random_high=float(high),
                    picked=k in m.picks,
                )
            )
    return {name: [row[name] for row in rows] for name in rows[0]}


def picked_and_whole(
    measured: Sequence[SenderEffects],
) -> tuple[Float[np.ndarray, " pair"], Float[np.ndarray, " pair"]]:
    """Effects of the leading components and of the whole output, summed over the heads."""
    picked, whole = (sum(getattr(m, name) for m in measured) for name in ("picked", "whole"))
    return ioi.pair_means(picked), ioi.pair_means(whole)


def ratio(
    part: Float[np.ndarray, " pair"], whole: Float[np.ndarray, " pair"], *, seed: int
) -> Interval:
    """Mean of one effect as a share of the mean of another, interval over pairs of prompts."""
    return bootstrap(
        lambda p, w: p.mean(axis=1) / w.mean(axis=1), [part, whole], seed=seed, batched=True
    )


def size_ratio(
    part: Float[np.ndarray, " pair"], whole: Float[np.ndarray, " pair"], *, seed: int
) -> Interval:
    """The same for the size of the part's mean, whatever its sign."""
    return bootstrap(
        lambda p, w: np.abs(p.mean(axis=1)) / w.mean(axis=1), [part, whole], seed=seed, batched=True
    )


def agreement(
    measured: Sequence[SenderEffects], *, seed: int, shuffles: int = 2000
) -> tuple[Interval, dict[str, list]]:
    """Rank correlation of composition score and size of inhibition over a head's components.

    Returns:
        The mean over heads with a bootstrap interval over pairs of prompts; and per head: head,
        rho, p (one-sided, components permuted), order (rank correlation of the inhibition with
        the order of the components alone, first component first), partial (rho with that order
        held fixed), best (component with the highest composition score), coincide (it is one of
        the two that inhibit most).
    """
    rows = []
    for m in measured:
        size = m.effects.mean(0).abs().double().cpu().numpy()
        scores = m.scores.double().cpu().numpy()
        test = permutation_null(
            lambda s, size=size: rank_correlation(s, size), scores, seed=seed, n=shuffles
        )
        best = int(scores.argmax())
        order = -np.arange(len(size), dtype=float)
        by_order = float(rank_correlation(order, size))
        between = float(rank_correlation(order, scores))
        free = (1 - by_order**2) * (1 - between**2)
        # an order that says everything of one of them leaves nothing to correlate
        partial = (test.value - by_order * between) / np.sqrt(free) if free > 1e-12 else 0.0
        coincide = best in leading(m.effects)
        rows.append((label(m.sender), test.value, test.p, by_order, partial, best, coincide))
    effects = np.stack([ioi.pair_means(m.effects) for m in measured], axis=1)
    scores = np.stack([m.scores.double().cpu().numpy() for m in measured])

    def mean_rho(sample: np.ndarray) -> float:
        sizes = np.abs(sample.mean(axis=0))
        return float(np.mean([rank_correlation(s, e) for s, e in zip(scores, sizes, strict=True)]))

    interval = bootstrap(mean_rho, [effects], seed=seed)
    names = ("head", "rho", "p", "order", "partial", "best", "coincide")
    return interval, {name: [row[i] for row in rows] for i, name in enumerate(names)}
