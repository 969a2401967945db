r"""Corrections of the composition score: cheap factors that might say which channels matter.

The score of a component with a reader knows directions alone. How far a removal moves the reader
depends on sizes too: with a reader M, a component that writes :math:`c` along :math:`v` and a
residual stream of length :math:`\sigma\sqrt d`, the scores of the reader's attention change by
about :math:`(c/\sigma)\, |v M|` times the length of what stands at the other end, and
:math:`|v M|` is the composition score times the norm of M. Each factor below is one of these sizes,
or stands in for one; what it takes to know it is said with it. (All are ours.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from th_utils.edge_sites import Site, coefficients
from th_utils.pairs import Pairs
from th_utils.replay import Replay
from th_utils.svd import HeadSVD
from th_utils.transformer import Transformer

Needs = Literal["weights", "random tokens", "prompts"]


@dataclass(frozen=True)
class Correction:
    """A product of factors that stands for the effect of a pair."""

    name: str
    factors: tuple[str, ...]
    needs: Needs

    @property
    def has_score(self) -> bool:
        """Whether the composition score is in it; without it, it is a control."""
        return "score" in self.factors


def _listed() -> tuple[Correction, ...]:
    size = ("activation", "stream", "norm")
    return (
        Correction("raw score", ("score",), "weights"),
        Correction("× singular value", ("score", "singular"), "weights"),
        Correction("× reader's norm", ("score", "norm"), "weights"),
        Correction("÷ reader's ceiling", ("score", "ceiling"), "weights"),
        Correction("÷ layers between", ("score", "near"), "weights"),
        Correction("× singular value × norm", ("score", "singular", "norm"), "weights"),
        Correction("× reader's freedom", ("score", "freedom"), "random tokens"),
        Correction("× activation", ("score", "activation"), "random tokens"),
        Correction("× activation ÷ stream", ("score", "activation", "stream"), "random tokens"),
        Correction("× activation ÷ stream × norm", ("score", *size), "random tokens"),
        Correction("× all sizes", ("score", *size, "freedom"), "random tokens"),
        Correction(
            "× all sizes, on the task",
            ("score", "on task", "stream", "norm", "freedom"),
            "prompts",
        ),
        Correction("without score: singular × norm", ("singular", "norm"), "weights"),
        Correction("without score: all sizes", (*size, "freedom"), "random tokens"),
        Correction(
            "without score: on the task", ("on task", "stream", "norm", "freedom"), "prompts"
        ),
    )


CORRECTIONS = _listed()
RAW = CORRECTIONS[0]
# The last of those with the score in it: what a run of the task itself would add.
ON_TASK = next(c for c in reversed(CORRECTIONS) if c.has_score and c.needs == "prompts")


def blind(correction: Correction) -> bool:
    """Whether a correction is one of the score, and knows nothing of the task."""
    return correction.has_score and correction.needs != "prompts"


@dataclass(frozen=True)
class Sizes:
    """Typical sizes in a model's runs on random tokens, of which half are said twice."""

    activation: Float[Tensor, "layer head component"]  # root mean square of c
    stream: Float[Tensor, " layer"]  # divisor of the norm in front of each block
    freedom: Float[Tensor, "layer head"]  # 1 - sum_j A_j^2 of its attention, mean over rows


@torch.no_grad()
def sizes(
    model: Transformer,
    directions: Float[Tensor, "layer head component d_model"],
    tokens: Int[Tensor, "prompt pos"],
) -> Sizes:
    """Measure `Sizes` at all positions but the first.

    The first is left out because it sees itself alone, and in many models stands apart.
    """
    run = Replay(model).trace(tokens)
    norm = model.blocks[0].norm_1
    activation, stream, freedom = [], [], []
    positions = torch.arange(tokens.shape[1], device=tokens.device)
    for layer, block in enumerate(model.blocks):
        z = run.z[layer][:, 1:].flatten(0, 1)
        c = torch.einsum("nhe,hek->nhk", z, block.W_O @ directions[layer].mT)
        activation.append(c.square().mean(0).sqrt())
        x = run.resid[layer][:, 1:]
        x = x if norm.rms else x - x.mean(-1, keepdim=True)
        stream.append((x.square().mean(-1) + norm.eps).sqrt().mean())
        keys = run.keys[layer].repeat_interleave(model.group, dim=2)
        scores = torch.einsum("nqhe,nkhe->nhqk", run.query[layer], keys) / math.sqrt(model.d_head)
        future = positions > positions[:, None]
        pattern = scores.masked_fill(future, -math.inf).softmax(-1)[:, :, 1:]
        freedom.append((1 - pattern.square().sum(-1)).mean((0, 2)))
    return Sizes(torch.stack(activation), torch.stack(stream), torch.stack(freedom))


def weight_factors(
    pairs: Pairs,
    svd: HeadSVD,
    reader: Float[Tensor, "layer head d_model d_head"],
    scores: Float[Tensor, "layer head component reader_layer reader_head"],
) -> dict[str, Float[Tensor, " pair"]]:
    """Factors that weights alone give: score, singular, norm, ceiling (its inverse), near."""
    norm = torch.linalg.matrix_norm(reader)
    largest = torch.linalg.eigvalsh(reader.mT @ reader)[..., -1].clamp_min(0).sqrt()
    inverse = torch.where(largest > 0, norm / largest, torch.zeros_like(norm))
    return {
        "score": pairs.flatten(scores),
        "singular": pairs.of_writers(svd.S),
        "norm": pairs.of_readers(norm),
        "ceiling": pairs.of_readers(inverse),
        "near": 1 / pairs.distance().to(norm),
    }


def run_factors(pairs: Pairs, sizes: Sizes) -> dict[str, Float[Tensor, " pair"]]:
    """Factors that runs on random tokens give: activation, stream (its inverse), freedom."""
    stream = (1 / sizes.stream)[:, None].expand(-1, pairs.heads)
    return {
        "activation": pairs.of_writers(sizes.activation),
        "stream": pairs.of_readers(stream),
        "freedom": pairs.of_readers(sizes.freedom),
    }


def task_factor(
    pairs: Pairs,
    model: Transformer,
    directions: Float[Tensor, "layer head component d_model"],
    at: list[Site],
) -> Float[Tensor, " pair"]:
    """How strongly components write at the sites of a task: root mean square over prompts."""
    squares = torch.stack([coefficients(model, directions, s).square().mean(0) for s in at])
    shape = (pairs.layers, pairs.heads, pairs.rank)
    return pairs.of_writers(squares.mean(0).sqrt().view(shape))


def corrected(
    correction: Correction, factors: Mapping[str, Float[Tensor, " pair"]]
) -> Float[Tensor, " pair"]:
    """The product of a correction's factors."""
    first, *rest = (factors[name] for name in correction.factors)
    for factor in rest:
        first = first * factor
    return first
