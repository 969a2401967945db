"""Weight edits that repair recall: which components to scale, found by gradient and search.

An edit multiplies a few components of some heads by factors, at every position of every prompt.
Which, is asked of the model: one backward pass has the derivative of the log probability of the
right answer with respect to the scale of each component. The search, among edits made of the
largest of these, scales at the end position only, where that costs little; what is reported are
edited weights. How the paper chose its edits is not known to us: *reconstruction*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from th_utils import checks
from th_utils.errors import CompanionError
from th_utils.list_trees import TreeRun, edited_answers, engine_of
from th_utils.patching import ComponentEdit, Replayed, answer_logits
from th_utils.progress import track
from th_utils.repair import scores
from th_utils.replay import Attention
from th_utils.runs import CleanRun
from th_utils.svd import HeadSVD
from th_utils.transformer import Transformer

MEMORY = 2**27  # bytes of activations in one batch

Factors = Float[Tensor, "layer head component"]


@dataclass(frozen=True)
class ScaleSearch:
    """What a search found: factors of all components, most of them 1."""

    scales: Float[Tensor, "layer head component"]
    score: float  # on the prompts searched, see `repair.scores`
    tried: int

    @property
    def changed(self) -> int:
        """Components that are scaled."""
        return int((self.scales != 1).sum())


class _Scaling:
    """Adds to each attention's output what scaling components of its heads adds."""

    def __init__(
        self, model: Transformer, svd: HeadSVD, scales: Float[Tensor, "case layer head component"]
    ) -> None:
        self.model, self.svd, self.scales = model, svd, scales
        touched = (scales.detach() != 1).any(-1).any(0) | scales.requires_grad
        self.heads = [of_layer.nonzero().flatten() for of_layer in touched]

    def __call__(self, at: int, attention: Attention) -> Tensor | None:
        heads = self.heads[at]
        if not len(heads):
            return None
        V = self.svd.V[at, heads]
        gated = self.model.blocks[at].W_O[heads] @ V  # head, d_head, component
        inner = torch.einsum("cnwhe,hek->cnwhk", attention.z[..., heads, :], gated)
        factor = (self.scales[:, at, heads] - 1)[:, None, None]
        return torch.einsum("cnwhk,hdk->cnwd", inner * factor, V)


@torch.enable_grad()
def scale_gradients(
    bridge: Any,
    run: CleanRun,
    svd: HeadSVD,
    scales: Float[Tensor, "layer head component"],
    *,
    layer: int = 0,
) -> Float[Tensor, "layer head component"]:
    """Derivative of the mean log probability of the right answer, by each component's scale.

    Args:
        bridge: `TransformerBridge` in compatibility mode.
        run: its clean run.
        svd: SVD of the OV matrices.
        scales: where the derivative is taken; they act at the end position.
        layer: the first whose components are asked about; those before it get 0.
    """
    engine, end = engine_of(bridge), run.prompts.positions["end"]
    model = engine.model
    scales = scales.detach().clone()[None].requires_grad_()
    entering = run.resid[layer][None, :, None]
    listener = _Scaling(model, svd, scales)
    final = engine.advance(run.past, layer, entering, end, listener=listener, check=False)
    said = engine.logits(final)[0].log_softmax(-1)
    said.gather(-1, run.prompts.right[:, None]).mean().backward()
    return scales.grad[0]


@torch.no_grad()
def scaled_at_end(
    bridge: Any,
    run: CleanRun,
    svd: HeadSVD,
    scales: Float[Tensor, "case layer head component"],
    *,
    layer: int = 0,
    memory: int = MEMORY,
) -> Replayed:
    """Answers with components scaled at the end position only, from `layer` on."""
    checks.shape("scales", scales, (None, *svd.S.shape), "case, layer, head, component")
    checks.finite(scales=scales)
    if bool((scales[:, :layer] != 1).any()):
        raise CompanionError(f"scales of layers before {layer} differ from 1: nothing would change")
    engine, end = engine_of(bridge), run.prompts.positions["end"]
    model = engine.model
    logits, top = [], []
    for chunk in engine.chunks(run.past, len(scales), 1, memory):
        part = scales[chunk]
        entering = run.resid[layer][None, :, None].expand(len(part), -1, -1, -1)
        listener = _Scaling(model, svd, part)
        final = engine.advance(run.past, layer, entering, end, listener=listener, check=False)
        logits.append(answer_logits(model, run, final))
        top.append(engine.logits(final).argmax(-1).T)
    return Replayed(torch.cat(logits, dim=1), {}, torch.cat(top, dim=1))


def edits_of(svd: HeadSVD, scales: Float[Tensor, "layer head component"]) -> list[ComponentEdit]:
    """The weight edits that scale components so, one for each factor of each head."""
    edits = []
    for layer, head in (scales != 1).any(-1).nonzero().tolist():
        of_head = scales[layer, head]
        for factor in of_head[of_head != 1].unique().tolist():
            V = svd.V[layer, head][:, (of_head == factor).nonzero().flatten()]
            edits.append(ComponentEdit(layer, head, V.mT, inside=factor))
    return edits


def candidates(
    order: Float[Tensor, "layer head component"],
    start: Float[Tensor, "layer head component"],
    counts: Sequence[int],
    steps: Sequence[float | int],
) -> Float[Tensor, "case layer head component"]:
    """Scales with the components largest in `order` changed, none below zero.

    Args:
        order: how much each is to be changed, by its size, and in which direction, by its sign.
        start: the scales to change.
        counts: numbers of components.
        steps: what is added to the scale of a component of positive sign, or taken off.
    """
    ranked = order.flatten().abs().argsort(descending=True, stable=True)
    cases = []
    for count, step in product(counts, steps):
        picked = torch.zeros_like(order).flatten()
        picked[ranked[:count]] = step
        cases.append((start + picked.view_as(order) * order.sign()).clamp_min(0))
    return torch.stack(cases)


def search_scales(
    bridge: Any,
    runs: Sequence[TreeRun],
    svd: HeadSVD,
    among: Bool[Tensor, "layer head"],
    *,
    counts: Sequence[int],
    steps: Sequence[float | int],
    turns: int = 1,
    finalists: int = 1,
    random: int | None = None,
) -> ScaleSearch:
    """The best edit of a few components of some heads.

    In each turn components are ordered by the size of the derivative, the first few are scaled up
    or down by its sign, as many as `counts` and as far as `steps` say, and the best case is where
    the next turn starts. Lists of every length count alike.

    Args:
        bridge: `TransformerBridge` in compatibility mode.
        runs: over lists of several lengths, of the split that is searched.
        svd: SVD of the OV matrices.
        among: heads whose components may be scaled.
        counts, steps: see `candidates`.
        turns: how often the derivative is taken.
        finalists: how many of the best edits are tried as edited weights, at all positions; with
            one, scaling at the end decides.
        random: seed of an order drawn at random in place of the derivative: a control.
    """
    if not bool(among.any()):
        raise CompanionError("no head is left whose components may be scaled")
    layer = runs[0].layer
    mask = among[..., None].expand_as(svd.S)
    generator = None if random is None else torch.Generator().manual_seed(random)
    scales, tried = torch.ones_like(svd.S), []
    for _ in range(turns):
        if generator is None:
            each = [scale_gradients(bridge, r.run, svd, scales, layer=layer) for r in runs]
            order = torch.stack(each).mean(0)
        else:
            order = torch.randn(svd.S.shape, generator=generator).to(svd.S)
        cases = candidates(torch.where(mask, order, 0), scales, counts, steps)
        found = [
            scores(scaled_at_end(bridge, r.run, svd, cases, layer=layer), r.prompts).mean(0)
            for r in track(runs, "components scaled")
        ]
        mean = torch.stack(found).mean(0)
        tried += list(zip(mean.tolist(), cases, strict=True))
        scales = cases[int(mean.argmax())]
    tried.sort(key=lambda case: -case[0])
    best = tried[:finalists]
    if finalists > 1:
        best = [(_everywhere(bridge, runs, svd, case), case) for _, case in best]
    score, scales = max(best, key=lambda case: case[0])
    return ScaleSearch(scales, score, len(tried))


def _everywhere(bridge: Any, runs: Sequence[TreeRun], svd: HeadSVD, scales: Factors) -> float:
    """Mean score over lists, with the weights edited."""
    total = 0.0
    for run in runs:
        said = edited_answers(bridge, run, edits_of(svd, scales))
        found = Replayed(said.logits[:, None], {}, said.top[:, None])
        total += float(scores(found, run.prompts).mean())
    return total / len(runs)
