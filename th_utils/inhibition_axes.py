"""The inhibition coordinates: components of inhibition heads, ranked by what they do to the mover.

Which components span the space that indexes a list is not known to us (paper A names three of one
model): *reconstruction*. They are ranked on the task of two names, never on lists: all components
of all inhibition heads before the main mover, by the size of their mean effect on its inhibition
score in its query alone (`components.direct_effects`), on the split ``find``.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from th_utils.components import direct_effects
from th_utils.errors import CompanionError
from th_utils.memory import remember
from th_utils.roles import Head, Roles, label
from th_utils.runs import CleanRun, clean_run
from th_utils.steering import Axes, component_axes
from th_utils.svd import HeadSVD
from th_utils.tasks import ioi


@dataclass(frozen=True)
class Ranking:
    """Components of several heads, the one with the largest mean effect, whatever its sign, first.

    An effect is the fall of the main mover's inhibition score when the component leaves its query.
    """

    picks: list[tuple[int, int, int]]  # layer, head, component
    effects: list[float]  # mean over prompts, aligned with picks


def senders(roles: Roles) -> list[Head]:
    """The inhibition heads before the main mover, strongest first.

    Raises:
        CompanionError: there is no mover, or no inhibition head before it.
    """
    mover = roles.strongest("mover")
    found = [head for head in roles["inhibition"] if head[0] < mover[0]]
    if not found:
        raise CompanionError(
            f"no inhibition head before the main mover {label(mover)} was found in this model: it "
            "has no inhibition coordinates (chapter 01 shows which roles it has)"
        )
    return found


def ranked(bridge: Any, run: CleanRun, svd: HeadSVD, heads: list[Head], mover: Head) -> Ranking:
    """Every component of these heads, by the size of its mean effect over a run's prompts."""
    effects: Float[Tensor, "head component"] = torch.stack(
        [direct_effects(bridge, run, head, mover, svd.V[head].mT).mean(0) for head in heads]
    )
    flat = effects.flatten()
    order = flat.abs().argsort(descending=True, stable=True)
    n = effects.shape[1]
    return Ranking(
        picks=[(*heads[i // n], i % n) for i in order.tolist()],
        effects=flat[order].tolist(),
    )


def rank(bridge: Any, svd: HeadSVD, roles: Roles, *, seed: int, prompts: int = 64) -> Ranking:
    """Rank the components of all inhibition heads on the find split of the task of two names.

    Args:
        bridge: `TransformerBridge` in compatibility mode, with its tokenizer.
        svd: SVD of the OV matrices.
        roles: of the model.
        seed: of the prompts.
        prompts: how many.

    Raises:
        CompanionError: the model lacks a mover or an inhibition head before it.
    """
    heads, mover = senders(roles), roles.strongest("mover")
    drawn = ioi.prompts(bridge.tokenizer, prompts, seed=seed, split="find")
    return ranked(bridge, clean_run(bridge, drawn), svd, heads, mover)


def leading_axes(
    bridge: Any, svd: HeadSVD, roles: Roles, n: int, *, seed: int, prompts: int = 64
) -> Axes:
    """The first `n` inhibition coordinates; ``axes[:k]`` are the first k.

    Args:
        bridge: `TransformerBridge` in compatibility mode, with its tokenizer.
        svd: SVD of the OV matrices.
        roles: of the model.
        n: how many.
        seed: of the prompts that rank them.
        prompts: how many of those.

    Raises:
        CompanionError: more coordinates than the inhibition heads have components, or none; or
            the model lacks a mover or an inhibition head before it.
    """
    return axes_of(svd, rank(bridge, svd, roles, seed=seed, prompts=prompts), n)


def other_axes(
    bridge: Any, svd: HeadSVD, roles: Roles, n: int, *, draws: int, seed: int, prompts: int = 64
) -> list[Axes]:
    """The first `n` coordinates of random heads that are no inhibition heads: a control.

    In each draw there are as many heads as inhibition heads, of the same layers, and their
    components are ranked in the same way.

    Args:
        bridge: `TransformerBridge` in compatibility mode, with its tokenizer.
        svd: SVD of the OV matrices.
        roles: of the model.
        n: how many coordinates.
        draws: how often heads are drawn.
        seed: of the heads and of the prompts that rank their components.
        prompts: how many of those.

    Raises:
        CompanionError: all heads of these layers are inhibition heads, or as for `leading_axes`.
    """
    heads, mover = senders(roles), roles.strongest("mover")
    layers = sorted({layer for layer, _ in heads})
    pool = [(layer, head) for layer in layers for head in range(svd.S.shape[1])]
    pool = [head for head in pool if head not in roles["inhibition"]]
    if not pool:
        raise CompanionError("all heads of these layers are inhibition heads: there are no others")
    rng = np.random.default_rng([seed, 1])
    picked = [
        sorted(pool[i] for i in rng.choice(len(pool), min(len(heads), len(pool)), replace=False))
        for _ in range(draws)
    ]
    drawn = ioi.prompts(bridge.tokenizer, prompts, seed=seed, split="find")
    run = clean_run(bridge, drawn)
    return [axes_of(svd, ranked(bridge, run, svd, each, mover), n) for each in picked]


def axes_of_chapter(chapter: Any, svd: HeadSVD, n: int) -> Axes:
    """The first `n` inhibition coordinates of a chapter's edition, ranked once for all chapters.

    The ranking is kept in the cache, as the roles are, and like them it does not depend on the
    chapter's seed: chapters with different seeds speak of the same coordinates.
    """
    from th_utils import digest

    sources = digest.digest(digest.closure_of_module("th_utils.inhibition_axes"))
    key = [
        "inhibition axes",
        chapter.checksum,
        sources,
        {"seed": 0},
        chapter.device.partition(":")[0],
    ]
    text = remember(
        key, lambda: json.dumps(asdict(rank(chapter.bridge, svd, chapter.roles, seed=0)))
    )
    said = json.loads(text)
    return axes_of(svd, Ranking([tuple(pick) for pick in said["picks"]], said["effects"]), n)


def axes_of(svd: HeadSVD, ranking: Ranking, n: int) -> Axes:
    """The first `n` axes of a ranking.

    Raises:
        CompanionError: there are not as many.
    """
    if not 1 <= n <= len(ranking.picks):
        raise CompanionError(
            f"{n} inhibition coordinates: give 1 to {len(ranking.picks)}, as many as the "
            "inhibition heads have components"
        )
    return component_axes(svd, ranking.picks[:n])
