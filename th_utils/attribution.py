"""Attribution patching: what patching each head's output would do, estimated by one gradient.

Activation patching (`th_utils.sweeps.activation_patching`) replays the model once for each head
and position. To first order its effect is the change of the activation times the gradient of the
readout, and one backward pass has that gradient for all of them. The estimate errs where the
readout bends on the way: at saturated softmaxes, and at norms of a stream that changes a lot.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.graph import GradientEdge

from th_utils import checks
from th_utils.changes import check_pair
from th_utils.errors import CompanionError
from th_utils.progress import track
from th_utils.replay import Readout, Replay, Trace
from th_utils.transformer import Transformer

MEMORY = 2**28  # bytes; a batch has to hold the activations of all layers until they are used


def attribution_patching(
    engine: Any, base: Trace, source: Trace, readout: Readout, *, memory: int = MEMORY
) -> Float[Tensor, "layer pos head prompt"]:
    r"""First-order estimate of the change that patching each head at each position makes.

    .. math:: \left( z^{source}_{l,p,h} - z^{base}_{l,p,h} \right) \cdot
              \left. \frac{\partial f}{\partial z_{l,p,h}} \right|_{base}

    for the readout f and weighted values z (Nanda 2023, "Attribution Patching: Activation Patching
    at Industrial Scale"; evaluated by Syed et al. 2023, "Attribution Patching Outperforms
    Automated Circuit Discovery").

    Args:
        engine: `th_utils.engine.of(bridge)`, for a model that it knows.
        base: run to patch into (``engine.trace(tokens)``).
        source: run to take activations from.
        readout: a differentiable number per prompt, such as
            ``engine.logit_difference(right, wrong)``.
        memory: bytes that the activations of one batch of prompts may take.

    Returns:
        Estimates of ``activation_patching(..., site="z") - readout(base.final)``, in the unit of
        the readout.

    Raises:
        CompanionError: the model is not of a known family, the runs do not fit each other, values
            are not finite, the readout has no gradient, or `memory` is too little for one prompt.

    >>> from th_utils.transformer import random_transformer
    >>> engine = Replay(random_transformer())
    >>> base, source = (engine.trace(t) for t in torch.arange(24).view(2, 2, 6))
    >>> readout = engine.logit_difference(torch.tensor([1, 2]), torch.tensor([3, 4]))
    >>> attribution_patching(engine, base, source, readout).shape
    torch.Size([2, 6, 2, 2])
    """
    if not isinstance(engine, Replay):
        raise CompanionError(
            f"engine is {type(engine).__name__}, expected Replay: the gradient is that of a known "
            "family's forward pass; sweeps.activation_patching works for this model"
        )
    if torch.is_inference_mode_enabled():
        raise CompanionError("attribution patching takes a gradient: leave inference_mode first")
    model, prompts = engine.model, len(base.tokens)
    meaning = "layer, prompt, position, head, d_head of the engine's model"
    shape = (model.n_layers, prompts, None, model.n_heads, model.d_head)
    checks.shape("base.z", base.z, shape, meaning)
    check_pair(base, source)
    # By the chain rule the readout is needed once, for all prompts, whatever the batches.
    at_final = _gradient(readout, base.final)
    change = source.z - base.z
    estimates = torch.empty_like(change[..., 0])
    for part in track(list(_chunks(model, base, memory)), "attribution patching"):
        gradient = _gradient_at_z(model, base, part, at_final[part])
        estimates[:, part] = (gradient * change[:, part]).sum(-1)
    return estimates.permute(0, 2, 3, 1)


@torch.enable_grad()
def _gradient(
    readout: Readout, final: Float[Tensor, "prompt d_model"]
) -> Float[Tensor, "prompt d_model"]:
    """Gradient of each prompt's readout, at what leaves the last block."""
    final = final.detach().requires_grad_()
    values = readout(final)
    checks.shape("the readout's value", values, (len(final),), "one number for each prompt")
    if not values.requires_grad:
        raise CompanionError(
            f"the readout's value of shape {tuple(values.shape)} has no gradient: expected a "
            "differentiable function of what leaves the last block"
        )
    (gradient,) = torch.autograd.grad(values.sum(), final)
    return gradient


@torch.enable_grad()
def _gradient_at_z(
    model: Transformer, base: Trace, part: slice, at_final: Float[Tensor, "prompt d_model"]
) -> Float[Tensor, "layer prompt pos head d_head"]:
    """The gradient carried back from what leaves the last block to each head's weighted values."""
    # Something has to ask for gradients for there to be a graph; that of W_E is never computed.
    model = replace(model, W_E=model.W_E.detach().requires_grad_())
    run = Replay(model).trace(base.tokens[part], read=base.read[part])
    # `z` stacks what the layers hand on: autograd stops at what went into the stack.
    layers = [GradientEdge(*edge) for edge in run.z.grad_fn.next_functions]
    return torch.stack(torch.autograd.grad(run.final, layers, grad_outputs=at_final))


def _chunks(model: Transformer, base: Trace, memory: int) -> Iterator[slice]:
    """Prompts in groups whose activations, kept for the backward pass, fit into `memory` bytes."""
    prompts, positions = base.tokens.shape
    wide = (5 if model.blocks[0].W_gate is not None else 3) * model.d_mlp + 10 * model.d_model
    attention = model.n_heads * (8 * model.d_head + 3 * positions)
    each = model.n_layers * positions * (wide + attention) * base.final.element_size()
    if memory < each:
        raise CompanionError(
            f"memory = {memory} bytes is too little: one prompt of {positions} positions needs "
            f"{each}"
        )
    size = memory // each
    yield from (slice(start, min(start + size, prompts)) for start in range(0, prompts, size))
