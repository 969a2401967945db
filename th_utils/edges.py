r"""Direct effects: what one head changes in the answer through the Q, K or V of one later head.

A sender writes :math:`\Delta` more to the residual stream in the source run than in the base run.
One later head sees it, in front of its query, key or value alone; what that head writes then goes
to the logits as if nothing stood between: every other head, every MLP and the divisor of the final
norm stay those of the base run. This is what Elhage et al. (2021, "A Mathematical Framework for
Transformer Circuits") call a path through two heads, with the reader's own norm and softmax kept
as they are instead of linearised. It is another quantity than path patching
(`th_utils.sweeps.path_patching`), where everything after the reader is recomputed.

Only scalars of what the reader sees matter, so that its projections are folded into directions of
the residual stream: an attention score is the product of the normalised residual with
:math:`W_K R_j^\top q_r` (at the key's position j) or with :math:`W_Q R_r^\top k_j` (at the
position r that is read), and what a value adds to the answer is its product with
:math:`W_V W_O \rho`, for the direction :math:`\rho` that the frozen final norm and the unembedding
of the two answers make. R turns by the rotary embedding, and is 1 for models without.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from th_utils import checks, transformer
from th_utils.changes import check_answers, check_pair
from th_utils.errors import CompanionError
from th_utils.progress import track
from th_utils.replay import Replay, Trace
from th_utils.transformer import Block, Norm, Transformer

KINDS = ("Q", "K", "V")  # order of the first axis of `direct_effects`

MEMORY = 2**28  # bytes; one prompt of a small model of 128 positions fits


@torch.no_grad()
def direct_effects(
    engine: Any,
    base: Trace,
    source: Trace,
    right: Int[Tensor, " right"],
    wrong: Int[Tensor, " wrong"],
    *,
    memory: int = MEMORY,
) -> Float[Tensor, "kind layer head reader_layer reader_head prompt"]:
    r"""Direct effect of every head through every later head's Q, K and V on an answer.

    .. math:: \left( z'_{r} - z_{r} \right) W_O \cdot \rho, \qquad
              \rho = \frac{W_U[:, \mathrm{right}] - W_U[:, \mathrm{wrong}]}{\sigma(x_{final})}

    where z' is the reader's weighted value at the position r that is read, after its query (at r)
    or its keys or values (at all positions) saw the sender's output of the source run in place of
    that of the base run, normalised anew; :math:`\sigma` is the divisor of the final norm in the
    base run. Everything behind the reader is frozen (see the module), so this is not what path
    patching measures, and the two need not agree. Heads that share keys and values each read a
    copy of their own.

    Args:
        engine: `th_utils.engine.of(bridge)`, for a model that it knows.
        base: run to patch into (``engine.trace(tokens)``).
        source: run from which the sender's output is taken.
        right, wrong: the two answers to each prompt, token ids.
        memory: bytes that the activations of one batch of prompts may take.

    Returns:
        Changes of the logit of `right` minus that of `wrong` at ``base.read``, in nats; `kind` in
        the order Q, K, V; NaN where the reader is not in a later layer than the sender.

    Raises:
        CompanionError: the model is not of a known family, runs and answers do not fit, values
            are not finite, or `memory` is too little for one prompt.

    >>> from th_utils.transformer import random_transformer
    >>> engine = Replay(random_transformer(layers=2))
    >>> base, source = (engine.trace(t) for t in torch.arange(12).view(2, 1, 6))
    >>> effects = direct_effects(engine, base, source, torch.tensor([1]), torch.tensor([2]))
    >>> effects.shape  # Q, K, V; sender; reader; prompt
    torch.Size([3, 2, 2, 2, 2, 1])
    >>> effects[:, 0, :, 1].isnan().any().item()  # the one pair of layers that has effects
    False
    """
    if not isinstance(engine, Replay):
        raise CompanionError(
            f"engine is {type(engine).__name__}, expected Replay: direct effects fold the weights "
            "of a known family; sweeps.path_patching works for this model"
        )
    model = engine.model
    layers, heads, prompts = model.n_layers, model.n_heads, len(base.tokens)
    meaning = "layer, prompt, position, head, d_head of the engine's model"
    checks.shape("base.z", base.z, (layers, prompts, None, heads, model.d_head), meaning)
    check_pair(base, source)
    checks.shape("right", right, (prompts,), "one token for each prompt of base")
    check_answers(right, wrong, model.W_U.shape[1])
    effects = base.final.new_full((len(KINDS), layers, heads, layers, heads, prompts), math.nan)
    rho = _direction(model, base.final, right, wrong)
    for part in track(list(_chunks(model, base, memory)), "direct effects"):
        run = _part(base, part)
        delta = _writes(model, source.z[:, part] - run.z)
        for layer in range(1, layers):
            found = _read(model, layer, run, delta[:, :, :layer].flatten(2, 3), rho[part])
            effects[:, :layer, :, layer, :, part] = found.unflatten(1, (layer, heads))
    return effects


def _direction(
    model: Transformer, final: Float[Tensor, "prompt d_model"], right: Tensor, wrong: Tensor
) -> Float[Tensor, "prompt d_model"]:
    """What is added to the answer by a unit along each axis, the final norm's divisor frozen."""
    norm = model.final_norm
    rho = (model.W_U[:, right] - model.W_U[:, wrong]).T
    rho = rho if norm.gain is None else rho * norm.gain
    return _centred(rho, norm) * _inverse(_centred(final, norm), norm)[:, None]


def _writes(
    model: Transformer, change: Float[Tensor, "layer prompt pos head d_head"]
) -> Float[Tensor, "prompt pos sender_layer head d_model"]:
    """What each head of all layers but the last writes more, as the readers' norms centre it."""
    layers, prompts, positions, heads, _ = change.shape
    delta = change.new_empty(prompts, positions, layers - 1, heads, model.d_model)
    for layer in range(layers - 1):
        W_O = _centred(model.blocks[layer].W_O, model.blocks[0].norm_1)
        delta[:, :, layer] = torch.einsum("nphe,hed->nphd", change[layer], W_O)
    return delta


def _read(
    model: Transformer,
    layer: int,
    base: Trace,
    delta: Float[Tensor, "prompt pos sender d_model"],
    rho: Float[Tensor, "prompt d_model"],
) -> Float[Tensor, "kind sender reader_head prompt"]:
    """Direct effects through the heads of one layer."""
    block = model.blocks[layer]
    x = _centred(base.resid[layer], block.norm_1)
    before = _inverse(x, block.norm_1)
    # The sum is made, not expanded into three products, which cancel where a sender undoes what
    # stands in the stream.
    each = delta.split(model.n_heads, dim=2)  # a sum of one layer's senders stays in the cache
    after = torch.cat([_inverse(x[:, :, None] + part, block.norm_1) for part in each], dim=2)

    def seen(x: Tensor, delta: Tensor, before: Tensor, after: Tensor, along: Tensor) -> Tensor:
        """How the products of the normalised stream with some directions change."""
        along = along if block.norm_1.gain is None else along * block.norm_1.gain
        clean = (along @ x[..., None]).mT
        grown = (after - before[..., None])[..., None]
        return (delta @ along.mT).mul_(after[..., None]).add_(clean * grown)

    worth = torch.einsum("hed,nd->nhe", block.W_O, rho)
    scores, query, key, value = _directions(model, block, layer, base, worth)
    heads = model.n_heads
    moved = seen(x, delta, before, after, torch.cat([key, value], dim=2))
    at_key, of_value = moved[..., :heads], moved[..., heads:]
    rows = torch.arange(len(rho), device=rho.device)
    at_read = (part[rows, base.read] for part in (x, delta, before, after))
    at_query = seen(*at_read, query.flatten(1, 2))
    at_query = at_query.unflatten(-1, (base.n_positions, heads)).transpose(1, 2)

    pattern = scores.softmax(dim=1)
    values = base.values[layer].repeat_interleave(model.group, dim=2)
    paid = torch.einsum("nphe,nhe->nph", values, worth)
    # Attention sums to one: what all positions have in common cancels exactly if it goes first.
    paid = paid - (pattern * paid).sum(1, keepdim=True)
    return torch.stack(
        [
            *(
                torch.einsum("npsh,nph->shn", (scores[:, :, None] + by).softmax(dim=1), paid)
                for by in (at_query, at_key)
            ),
            torch.einsum("npsh,nph->shn", of_value, pattern),
        ]
    )


def _directions(
    model: Transformer,
    block: Block,
    layer: int,
    base: Trace,
    worth: Float[Tensor, "prompt head d_head"],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Clean scores of the position read [prompt, pos, head], and the directions that change them.

    The directions [prompt, pos, head, d_model] are those of the query (against each key), of each
    key, and of each value, whose products with the normalised residual stream are scores and,
    for values, parts of the answer.
    """
    group, positions = model.group, torch.arange(base.n_positions, device=worth.device)
    rows = torch.arange(len(worth), device=worth.device)
    query = base.query[layer][rows, base.read] / math.sqrt(model.d_head)
    query = query[:, None].expand(-1, base.n_positions, -1, -1)
    keys = base.keys[layer].repeat_interleave(group, dim=2)
    scores = (query * keys).sum(-1)
    scores = scores.masked_fill((positions > base.read[:, None])[..., None], -math.inf)
    # The turn of a position is undone by the turn of minus that position.
    back = transformer.rotated(model, query, -positions)
    turned = -base.read[:, None].expand_as(base.tokens)
    keys = transformer.rotated(model, base.keys[layer], turned) / math.sqrt(model.d_head)
    keys = keys.repeat_interleave(group, dim=2)

    def fold(x: Float[Tensor, "prompt pos head d_head"], W: Tensor) -> Tensor:
        grouped = x.unflatten(2, (len(W), -1))
        return torch.einsum("npkge,kde->npkgd", grouped, W).flatten(2, 3)

    value = fold(worth[:, None], block.W_V).expand(-1, base.n_positions, -1, -1)
    return scores, fold(keys, block.W_Q), fold(back, block.W_K), value


def _centred(x: Float[Tensor, "*batch d_model"], norm: Norm) -> Float[Tensor, "*batch d_model"]:
    """What a norm divides: LayerNorm takes the mean away, RMSNorm does not."""
    return x if norm.rms else x - x.mean(-1, keepdim=True)


def _inverse(x: Float[Tensor, "*batch d_model"], norm: Norm) -> Float[Tensor, "*batch"]:
    """One over the divisor of a norm, for a vector that is already centred."""
    return (torch.linalg.vector_norm(x, dim=-1).square() / x.shape[-1] + norm.eps).rsqrt()


def _part(run: Trace, part: slice) -> Trace:
    """Some prompts of a run."""
    rows = {name: getattr(run, name)[part] for name in ("tokens", "read", "final")}
    names = ("resid", "mid", "query", "keys", "values", "z")
    return replace(run, **rows, **{name: getattr(run, name)[:, part] for name in names})


def _chunks(model: Transformer, base: Trace, memory: int) -> Iterator[slice]:
    """Prompts in groups whose activations fit into `memory` bytes."""
    prompts, senders = len(base.tokens), (model.n_layers - 1) * model.n_heads
    wide = (2 * senders + 8 * model.n_heads) * model.d_model
    each = base.n_positions * (wide + 10 * senders * model.n_heads) * base.final.element_size()
    if memory < each:
        raise CompanionError(
            f"memory = {memory} bytes is too little: one prompt of {base.n_positions} positions "
            f"needs {each}"
        )
    size = memory // each
    yield from (slice(start, min(start + size, prompts)) for start in range(0, prompts, size))
