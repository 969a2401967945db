"""How many components a channel takes: leading ones of several writers removed together (05).

All writers of one reader's input lose their first n components at once, n = 1, 2, 3, ...; the
share of what happens when their whole outputs go says how low the channel's rank is. In which
order the components go is chosen elsewhere: by effect on other prompts, by composition score
alone, or at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from th_utils.bootstrap import Interval, bootstrap
from th_utils.components import direct_effects, leading
from th_utils.errors import CompanionError
from th_utils.patching import head_outputs
from th_utils.roles import Head
from th_utils.sites import Sites
from th_utils.svd import HeadSVD
from th_utils.tasks import ioi
from th_utils.writer_effects import PairEffects
from th_utils.writers import Input, outputs


@dataclass(frozen=True)
class Written:
    """What one writer puts in front of a reader, and in which orders its components may go."""

    output: Float[Tensor, "prompt d_model"]
    directions: Float[Tensor, "component d_model"]
    by_effect: list[int]
    by_score: list[int]


@dataclass(frozen=True)
class Joint:
    """Falls of what is watched when components of all writers go, mean over the readers."""

    kind: str
    by_effect: Float[np.ndarray, "pair n"]  # n = 1, 2, ... leading components of each writer
    by_score: Float[np.ndarray, "pair n"]
    random: Float[np.ndarray, "pair n"]  # mean over the draws of an order
    others: Float[np.ndarray, "pair draw"]  # two that are not leading, of each writer
    whole: Float[np.ndarray, " pair"]
    clean: Float[np.ndarray, " pair"]

    @property
    def leading(self) -> Float[np.ndarray, " pair"]:
        """The two leading components of each writer."""
        return self.by_effect[:, 1]


def one_by_one(written: Written, order: Sequence[int]) -> Float[Tensor, "prompt n d_model"]:
    """What takes the first 1, 2, ... components in an order out of a writer's output."""
    v = written.directions[list(order)]
    return -((written.output @ v.mT)[..., None] * v).cumsum(dim=1)


def remove_jointly(
    readers: Sequence[tuple[Input, Sequence[Written]]],
    *,
    draws: int,
    seed: int,
    scores: bool = False,
) -> Joint:
    """Remove components of all writers of each reader's input together.

    Args:
        readers: inputs of one kind, each with what its writers write.
        draws: of random orders, and of random others.
        seed: of those.
        scores: follow the attention score instead of the attention (keys only).
    """
    parts = [_joint(input, written, draws, seed + 1009 * i, scores)
             for i, (input, written) in enumerate(readers)]  # fmt: skip
    mean = {name: np.mean([part[name] for part in parts], axis=0) for name in parts[0]}
    return Joint(kind=readers[0][0].kind, **mean)


def _joint(
    input: Input, written: Sequence[Written], draws: int, seed: int, scores: bool
) -> dict[str, Float[np.ndarray, "pair *rest"]]:
    generator = torch.Generator().manual_seed(seed)
    n = len(written[0].directions)
    watch = input.score_fall if scores else input.fall
    if watch is None:
        raise CompanionError(f"an input of kind {input.kind!r} has no attention score: K has")

    def fall(orders: Sequence[Sequence[int]]) -> Tensor:
        return watch(sum(one_by_one(w, order) for w, order in zip(written, orders, strict=True)))

    drawn = [[torch.randperm(n, generator=generator).tolist() for _ in written]
             for _ in range(draws)]  # fmt: skip
    # of each order the first two that are not leading: as many other components
    spare = [
        [[k for k in order if k not in w.by_effect[:2]][:2]
         for w, order in zip(written, orders, strict=True)]
        for orders in drawn
    ]  # fmt: skip
    falls = {
        "by_effect": fall([w.by_effect for w in written]),
        "by_score": fall([w.by_score for w in written]),
        "random": torch.stack([fall(orders) for orders in drawn]).mean(0),
        "others": torch.stack([fall(orders)[:, -1] for orders in spare], dim=1),
        "whole": watch(-sum(w.output for w in written)[:, None])[:, 0],
        "clean": input.clean,
    }
    return {name: ioi.pair_means(values) for name, values in falls.items()}


def of_pairs(
    bridge: Any, at: Sites, svd: HeadSVD, effects: Sequence[PairEffects]
) -> dict[Head, list[Written]]:
    """What the writers of each reader write, with the orders of `writer_effects.pair_effects`."""
    readers: dict[Head, list[Written]] = {}
    for e in effects:
        pair = e.pair
        readers.setdefault(pair.reader, []).append(
            Written(
                output=outputs(bridge, at, pair.kind, pair.writer),
                directions=svd.V[pair.writer].mT,
                by_effect=e.order,
                by_score=pair.scores.argsort(descending=True).tolist(),
            )
        )
    return readers


def of_inhibition(
    bridge: Any,
    found: Sites,
    reported: Sites,
    svd: HeadSVD,
    senders: Sequence[Head],
    mover: Head,
    reader: Float[Tensor, "d_model d_head"],
) -> list[Written]:
    """What the inhibition heads write at the end, for comparison: the channel of chapter 03.

    Args:
        reader: the reduced, normalised query reader of the main mover.
    """
    written = []
    for head in senders:
        directions = svd.V[head].mT
        effects = direct_effects(bridge, found.run, head, mover, directions)
        scores = torch.linalg.vector_norm(directions @ reader, dim=-1)
        written.append(
            Written(
                output=head_outputs(bridge, reported.run, *head),
                directions=directions,
                by_effect=leading(effects, effects.shape[1]),
                by_score=scores.argsort(descending=True).tolist(),
            )
        )
    return written


def difference(one: Joint, other: Joint, *, seed: int) -> Interval:
    """Share that the leading components carry, of one channel less that of another."""

    def statistic(*arrays: np.ndarray) -> np.ndarray:
        a, b, c, d = (x.mean(axis=1) for x in arrays)
        return a / b - c / d

    arrays = [one.leading, one.whole, other.leading, other.whole]
    return bootstrap(statistic, arrays, seed=seed, batched=True)


def needed(joint: Joint, level: float) -> int:
    """How many leading components of each writer carry this share of the whole effect."""
    shares = joint.by_effect.mean(axis=0) / joint.whole.mean()
    enough = np.flatnonzero(shares >= level)
    return int(enough[0]) + 1 if len(enough) else len(shares)


def curves_table(
    joints: Sequence[Joint], *, seed: int, scores: Joint | None = None
) -> dict[str, list]:
    """Share of the whole effect against the number of components removed of each writer.

    Args:
        joints: of several channels.
        seed: of the bootstrap.
        scores: the channel by key once more, with the attention score followed.

    Returns:
        Columns: kind, order ("by effect", "by score", "at random", and "by effect, score" of what
        `scores` holds), components, share, low, high (95% bootstrap interval over pairs of
        prompts).
    """
    curves = [
        (joint.kind, order, falls, joint.whole)
        for joint in joints
        for order, falls in (
            ("by effect", joint.by_effect),
            ("by score", joint.by_score),
            ("at random", joint.random),
        )
    ]
    if scores is not None:
        curves.append((scores.kind, "by effect, score", scores.by_effect, scores.whole))
    rows = [
        (kind, order, n + 1, *_ratio(falls[:, n], whole, seed))
        for kind, order, falls, whole in curves
        for n in range(falls.shape[1])
    ]
    names = ("kind", "order", "components", "share", "low", "high")
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def _ratio(part: np.ndarray, whole: np.ndarray, seed: int) -> Interval:
    return bootstrap(
        lambda p, w: p.mean(axis=1) / w.mean(axis=1),
        [part, whole],
        seed=seed,
        n_boot=500,
        batched=True,
    )
