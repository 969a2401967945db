r"""Remove, keep, scale or replace single components of a head, and see what the model does then.

A head's output is :math:`o = z W_O`. With the orthonormal write directions :math:`v_k` of its OV
matrix, component k of the output is :math:`(o \cdot v_k) v_k`, whatever gated it. Editing the
output and editing the weights are the same thing, since :math:`W_O (I + (c - 1) v_k v_k^T)`
scales component k by c and leaves the others alone.

Three ways to see the effect, from narrow to wide:

`direct_query`
    only one later head's query sees the edit; its norm and softmax are recomputed, everything
    between is frozen. This is the channel that a Q-composition score speaks of.
`replay`
    everything after the edit at the end position is recomputed (earlier positions cannot see it).
`run_edited`
    a forward pass of the whole model, at chosen or all positions, with the attention patterns
    either recomputed or frozen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from th_utils import transformer
from th_utils.engine import from_bridge
from th_utils.errors import CompanionError
from th_utils.replay import Attention, Replay
from th_utils.runs import CleanRun, rotary, rotate_at
from th_utils.svd import HeadSVD


@dataclass(frozen=True)
class ComponentEdit:
    """A change to some components of one head's output.

    The part of the output inside the span of `directions` is multiplied by `inside`, the rest by
    `outside`; `value`, where given, replaces the coefficients inside (``o . v_k``): the same for
    all outputs, or one per prompt, which then holds at each of its positions.
    """

    layer: int
    head: int
    directions: Float[Tensor, "component d_model"]
    inside: float = 0.0
    outside: float = 1.0
    value: Float[Tensor, "*prompt component"] | None = None

    def apply(self, output: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """The edited output of the head."""
        v = self.directions.to(output)
        inner = output @ v.mT
        new = self.inside * inner
        if self.value is not None:
            *prompt, components = self.value.shape
            between = [1] * (inner.ndim - self.value.ndim)
            new = self.value.to(output).reshape(*prompt, *between, components).expand_as(inner)
        return self.outside * (output - inner @ v) + new @ v


def _edit(
    svd: HeadSVD, layer: int, head: int, components: Sequence[int], **how: Any
) -> ComponentEdit:
    layers, heads, _, rank = svd.V.shape
    _check_range(layers, heads, layer, head)
    bad = [k for k in components if not 0 <= k < rank]
    if bad or not components:
        raise CompanionError(f"components {list(components)}: give some of 0 to {rank - 1}")
    return ComponentEdit(layer, head, svd.V[layer, head][:, list(components)].mT, **how)


def _check_range(layers: int, heads: int, layer: int, head: int = 0) -> None:
    for name, value, size in (("layer", layer, layers), ("head", head, heads)):
        if not 0 <= value < size:
            raise CompanionError(f"{name} {value} is out of range: this model has {size}")


def remove(svd: HeadSVD, layer: int, head: int, components: Sequence[int]) -> ComponentEdit:
    """Take these components out of the head's output."""
    return _edit(svd, layer, head, components, inside=0.0)


def keep(svd: HeadSVD, layer: int, head: int, components: Sequence[int]) -> ComponentEdit:
    """Keep nothing of the head's output but these components."""
    return _edit(svd, layer, head, components, inside=1.0, outside=0.0)


def scale(
    svd: HeadSVD, layer: int, head: int, components: Sequence[int], factor: float
) -> ComponentEdit:
    """Multiply these components of the head's output."""
    return _edit(svd, layer, head, components, inside=factor)


def replace(
    svd: HeadSVD,
    layer: int,
    head: int,
    components: Sequence[int],
    value: Float[Tensor, "*prompt component"],
) -> ComponentEdit:
    """Set the coefficients of these components (``o . v_k``) to given values."""
    return _edit(svd, layer, head, components, value=value)


@contextmanager
def edited_weights(bridge: Any, edits: Sequence[ComponentEdit]) -> Iterator[None]:
    """Write edits into the model's W_O for the length of a ``with`` block.

    The original weights are put back when the block ends, also by an exception, bit for bit.
    Replacing by a value is no weight edit. With value biases folded (compatibility mode) the
    constant they add is part of b_O and is not edited.
    """
    originals = []
    try:
        with torch.no_grad():
            for edit in edits:
                if edit.value is not None:
                    raise CompanionError("replacing a component by a value is not a weight edit")
                # a view into the model's own parameter; the stacked bridge.W_O is a copy
                W_O = bridge.blocks[edit.layer].attn.W_O[edit.head]
                originals.append((W_O, W_O.detach().clone()))
                W_O.data.copy_(edit.apply(W_O.detach()))
        yield
    finally:
        with torch.no_grad():
            for W_O, original in reversed(originals):
                W_O.data.copy_(original)


@torch.no_grad()
def run_edited(
    bridge: Any,
    tokens: Int[Tensor, "prompt pos"],
    edits: Sequence[ComponentEdit],
    *,
    positions: Int[Tensor, " prompt"] | None = None,
    freeze_attention: bool = False,
    keep_hooks: Sequence[str] = (),
) -> tuple[Float[Tensor, "prompt pos d_vocab"], dict[str, Tensor]]:
    """Forward pass of the whole model with edited head outputs.

    Args:
        bridge: `TransformerBridge` in compatibility mode; no hook stays on it.
        tokens: input tokens.
        edits: what to change; those of one head follow one another.
        positions: one position per prompt where the edits apply; everywhere when None.
        freeze_attention: hold every attention pattern at its value in the unedited run, so that
            the edit acts through values only.
        keep_hooks: hook names whose activations to return.

    Returns:
        Logits, and the activations asked for.
    """
    n = torch.arange(len(tokens), device=tokens.device)
    hooks: list[tuple[str, Any]] = []
    if freeze_attention:
        names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(bridge.cfg.n_layers)]
        _, clean = bridge.run_with_cache(tokens, names_filter=names)
        hooks += [(name, lambda _, hook, p=clean[name]: p) for name in names]
    by_head: dict[tuple[int, int], list[ComponentEdit]] = {}
    for edit in edits:
        by_head.setdefault((edit.layer, edit.head), []).append(edit)
    for (layer, head), of_head in by_head.items():
        hooks += _output_hooks(bridge, layer, head, of_head, n, positions)
    kept: dict[str, Tensor] = {}

    def store(activation: Tensor, hook: Any, name: str) -> None:
        kept[name] = activation.detach().clone()

    for name in keep_hooks:
        hooks.append((name, lambda a, hook, name=name: store(a, hook, name)))
    logits = bridge.run_with_hooks(tokens, fwd_hooks=hooks, return_type="logits")
    return logits, kept


def _output_hooks(
    bridge: Any,
    layer: int,
    head: int,
    edits: Sequence[ComponentEdit],
    n: Tensor,
    positions: Tensor | None,
) -> list[tuple[str, Any]]:
    """Hooks that replace one head's share of the attention block's output by its edited value."""
    change: dict[str, Tensor] = {}
    W_O = bridge.blocks[layer].attn.W_O[head].detach()

    def read(z: Tensor, hook: Any) -> None:
        output = (z[:, :, head] if positions is None else z[n, positions, head]) @ W_O
        edited = output
        for edit in edits:
            edited = edit.apply(edited)
        change["delta"] = edited - output

    def write(attn_out: Tensor, hook: Any) -> Tensor:
        attn_out = attn_out.clone()
        if positions is None:
            attn_out += change["delta"]
        else:
            attn_out[n, positions] += change["delta"]
        return attn_out

    stem = f"blocks.{layer}"
    return [(f"{stem}.attn.hook_z", read), (f"{stem}.hook_attn_out", write)]


def head_outputs(
    bridge: Any, run: CleanRun, layer: int, head: int
) -> Float[Tensor, "prompt d_model"]:
    """What a head writes to the residual stream at the end position of each prompt."""
    _check_range(bridge.cfg.n_layers, bridge.cfg.n_heads, layer, head)
    return run.z[layer, :, head] @ bridge.blocks[layer].attn.W_O[head].detach()


def end_attention(
    run: CleanRun, layer: int, head: int, query: Float[Tensor, "prompt case d_head"], bridge: Any
) -> Float[Tensor, "prompt case pos"]:
    """A head's attention pattern at the end position for other queries (not yet rotated)."""
    n, cases, d_head = query.shape
    end = run.prompts.positions["end"]
    kv_head = head // (bridge.cfg.n_heads // run.keys.shape[3])
    turned = rotate_at(query, end, rotary(bridge))
    scores = torch.einsum("nce,npe->ncp", turned, run.keys[layer, :, :, kv_head])
    future = torch.arange(scores.shape[-1], device=scores.device) > end[:, None, None]
    return (scores / d_head**0.5).masked_fill(future, float("-inf")).softmax(dim=-1)


@torch.no_grad()
def direct_query(
    bridge: Any,
    run: CleanRun,
    layer: int,
    head: int,
    delta: Float[Tensor, "prompt case d_model"],
) -> Float[Tensor, "prompt case pos"]:
    """Attention of one head at the end position when only its query sees a changed residual.

    Args:
        bridge: `TransformerBridge` in compatibility mode.
        run: its clean run.
        layer, head: the reader.
        delta: what is added to the residual stream in front of the reader, case by case.

    Returns:
        The reader's attention patterns. Its norm and softmax are recomputed; its keys and
        everything between the edit and its query are as in the clean run.
    """
    _check_range(bridge.cfg.n_layers, bridge.cfg.n_heads, layer, head)
    block = bridge.blocks[layer]
    W_Q = block.attn.W_Q[head].detach()
    clean = run.resid[layer][:, None]
    moved = block.ln1(clean + delta) - block.ln1(clean)
    query = run.query[layer, :, head][:, None] + moved @ W_Q  # biases are in the clean query
    return end_attention(run, layer, head, query, bridge)


@dataclass(frozen=True)
class Replayed:
    """What a replay from one layer on gives, per prompt and case."""

    logits: Float[Tensor, "prompt case answer"]  # of the task's answers
    patterns: dict[tuple[int, int], Float[Tensor, "prompt case pos"]]
    top: Int[Tensor, "prompt case"] | None = None  # the token of the vocabulary, where asked for

    @property
    def logit_difference(self) -> Float[Tensor, "prompt case"]:
        """Logit of the first answer minus that of the second, in nats."""
        return self.logits[..., 0] - self.logits[..., 1]


@torch.no_grad()
def replay(
    bridge: Any,
    run: CleanRun,
    layer: int,
    delta: Float[Tensor, "prompt case d_model"],
    *,
    watch: Sequence[tuple[int, int]] = (),
    edits: Sequence[Sequence[ComponentEdit]] = (),
) -> Replayed:
    """Everything after an edit of the attention output at the end position, recomputed.

    No other position can see the edit, so their keys and values come from the clean run and only
    the end position is carried through the blocks (`th_utils.replay`): some twenty times cheaper
    than a forward pass.

    Args:
        bridge: `TransformerBridge` in compatibility mode.
        run: its clean run.
        layer: the block whose attention output is edited.
        delta: what is added to that output, case by case (``edit.apply(o) - o``).
        watch: (layer, head) pairs, later than `layer`, whose end attention is returned.
        edits: per case, further edits of heads in this layer or later ones.

    Raises:
        CompanionError: heads or edits that are not after `layer`, or a model that replay does not
            know (`run_edited` runs any).
    """
    for pair in ((layer, 0), *watch):
        _check_range(bridge.cfg.n_layers, bridge.cfg.n_heads, *pair)
    early = [pair for pair in watch if pair[0] <= layer]
    if early:
        raise CompanionError(f"heads {early} are not after layer {layer}: nothing changes there")
    early = [edit for listed in edits for edit in listed if edit.layer < layer]
    if early or len(edits) not in (0, delta.shape[1]):
        raise CompanionError(
            f"edits: one list per case ({delta.shape[1]}), none before layer {layer}"
        )
    model = from_bridge(bridge)
    block, end = model.blocks[layer], run.prompts.positions["end"]
    patterns: dict[tuple[int, int], Tensor] = {}

    def listener(at: int, attention: Attention) -> Tensor | None:
        for pair in watch:
            if pair[0] == at:
                patterns[pair] = end_pattern(attention, pair[1], end)
        change = _changes(edits, at, attention.z[:, :, 0], model.blocks[at].W_O)
        return None if change is None else change[:, :, None]

    z = run.z[layer]
    written = transformer.write_out(block, z) + delta.transpose(0, 1)
    change = _changes(edits, layer, z.expand(delta.shape[1], *z.shape), block.W_O)
    mid = run.resid[layer] + (written if change is None else written + change)
    x = mid + transformer.mlp(model, block, run.resid[layer] if model.parallel else mid)
    final = Replay(model).advance(
        run.past, layer + 1, x[:, :, None], end, listener=listener, check=False
    )
    return Replayed(logits=answer_logits(model, run, final), patterns=patterns)


def end_pattern(
    attention: Attention, head: int, end: Int[Tensor, " prompt"]
) -> Float[Tensor, "prompt case pos"]:
    """A head's pattern in a replay of the end position, by the positions of the prompt."""
    pattern = attention.pattern(head)[:, :, 0]  # the end sees the past and, behind it, itself
    index = end[None, :, None].expand(*pattern.shape[:2], 1)
    return pattern[..., :-1].scatter(-1, index, pattern[..., -1:]).transpose(0, 1)


def answer_logits(
    model: transformer.Transformer, run: CleanRun, final: Float[Tensor, "case prompt d_model"]
) -> Float[Tensor, "prompt case answer"]:
    """Logits of a run's answers, of what leaves the last block."""
    answers = run.prompts.answers
    logits = torch.einsum("cnd,dna->nca", model.final_norm(final), model.W_U[:, answers])
    return logits if model.b_U is None else logits + model.b_U[answers][:, None]


def _changes(
    edits: Sequence[Sequence[ComponentEdit]],
    layer: int,
    z: Float[Tensor, "case prompt head d_head"],
    W_O: Float[Tensor, "head d_head d_model"],
) -> Float[Tensor, "case prompt d_model"] | None:
    """What the edits of one layer add to its attention output, None where there are none."""
    here = [(case, edit) for case, listed in enumerate(edits) for edit in listed]
    here = [(case, edit) for case, edit in here if edit.layer == layer]
    if not here:
        return None
    change = z.new_zeros(*z.shape[:2], W_O.shape[-1])
    for case, edit in here:
        output = z[case, :, edit.head] @ W_O[edit.head]
        change[case] += edit.apply(output) - output
    return change
