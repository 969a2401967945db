r"""Set or shift the coordinates of components at the end position, and see what the model does.

A component writes along one direction :math:`v_k`, so what it says at one position is one number,
its *coordinate* :math:`o \cdot v_k` (o the output of its head). A few components together span a
small space whose points can be set by hand: on a line (paper A, Figure 3) or on a grid (its
three-dimensional subspace). Only the end position is carried through the blocks after the change
(`th_utils.replay`), so thousands of points cost what a few forward passes do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from th_utils import checks
from th_utils.engine import from_bridge
from th_utils.errors import CompanionError
from th_utils.patching import Replayed, answer_logits, end_pattern, head_outputs
from th_utils.progress import track
from th_utils.replay import Attention, Replay
from th_utils.runs import CleanRun
from th_utils.svd import HeadSVD

Head = tuple[int, int]
How = Literal["replace", "add", "only"]

MEMORY = 2**27  # bytes of activations in one batch


@dataclass(frozen=True)
class Axes:
    """Unit directions of the residual stream, each belonging to the head that writes along it."""

    heads: tuple[Head, ...]
    directions: Float[Tensor, "axis d_model"]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.heads)

    def __getitem__(self, index: slice) -> Axes:
        return Axes(self.heads[index], self.directions[index], self.names[index])


def component_axes(svd: HeadSVD, picks: Sequence[tuple[int, int, int]]) -> Axes:
    """The write directions of components, given as (layer, head, component).

    Raises:
        CompanionError: no component, one named twice, or one that the model does not have.
    """
    if len(picks) == 0 or len(set(picks)) < len(picks):
        raise CompanionError(f"components {list(picks)}: give at least one, each once")
    layers, heads, _, rank = svd.V.shape
    for pick in picks:
        sizes = (layers, heads, rank)
        for name, at, size in zip(("layer", "head", "component"), pick, sizes, strict=True):
            checks.index(name, at, size)
    return Axes(
        heads=tuple((layer, head) for layer, head, _ in picks),
        directions=torch.stack([svd.V[layer, head][:, k] for layer, head, k in picks]),
        names=tuple(f"{layer}.{head}.{k}" for layer, head, k in picks),
    )


def random_axes(svd: HeadSVD, axes: Axes, *, seed: int) -> Axes:
    """As many random orthonormal directions of what the same heads can write: a control."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.empty_like(axes.directions)
    for head in dict.fromkeys(axes.heads):
        at = [i for i, other in enumerate(axes.heads) if other == head]
        V = svd.V[head]
        drawn = torch.randn(V.shape[1], len(at), generator=generator).to(V)
        directions[at] = torch.linalg.qr(V @ drawn).Q.mT
    return Axes(axes.heads, directions, tuple(f"random {i}" for i in range(len(axes))))


def coordinates(bridge: Any, run: CleanRun, axes: Axes) -> Float[Tensor, "prompt axis"]:
    """Coordinates of the heads' clean outputs at the end position, in residual-stream units."""
    outputs = [head_outputs(bridge, run, *head) for head in axes.heads]
    return torch.stack([o @ v for o, v in zip(outputs, axes.directions, strict=True)], dim=-1)


@torch.no_grad()
def steer(
    bridge: Any,
    run: CleanRun,
    axes: Axes,
    values: Float[Tensor, "case #prompt axis"],
    *,
    how: How = "replace",
    watch: Sequence[Head] = (),
    vocabulary: bool = False,
    logits: bool = True,
    memory: int = MEMORY,
    engine: Replay | None = None,
) -> Replayed:
    """Set coordinates at the end position and recompute everything after.

    Args:
        bridge: `TransformerBridge` in compatibility mode.
        run: its clean run.
        axes: what is set. Directions of one head have to be orthonormal (components are).
        values: the points, the same for all prompts or one for each.
        how: "replace" sets the coordinates and leaves the rest of the heads' outputs; "add" adds
            ``value * direction`` to the residual stream where the head writes; "only" puts
            ``value * direction`` in place of the head's whole output.
        watch: (layer, head) pairs, later than the first layer set, whose end attention is returned.
        vocabulary: also find the top token of the vocabulary, which costs about as much again as
            four layers.
        logits: carry the end position to the logits. Without them the last layer watched is the
            last one computed, and the answers' logits are left empty.
        memory: bytes of activations that one batch may take.
        engine: of the same model, for callers that steer it many times: to look at the model takes
            as long as some hundred points.

    Raises:
        CompanionError: values that do not fit or are not finite, heads to be watched that come
            before the change, an unknown `how`, neither logits nor heads asked for, or a model
            that replay does not know.
    """
    if how not in ("replace", "add", "only"):
        raise CompanionError(f"how {how!r} is unknown: replace, add or only")
    shape = (None, None, len(axes))
    checks.shape("values", values, shape, f"case, prompt, axis, with {len(axes)} axes")
    checks.not_empty("values", values)
    if values.shape[1] not in (1, len(run.prompts)):
        raise CompanionError(
            f"values has shape {tuple(values.shape)}: expected 1 or {len(run.prompts)} prompts"
        )
    checks.alike(values=values, resid=run.resid)
    checks.finite(values=values)
    layer = min(head[0] for head in axes.heads)
    early = [pair for pair in watch if pair[0] <= layer]
    if early:
        raise CompanionError(f"heads {early} are not after layer {layer}: nothing changes there")
    model = from_bridge(bridge) if engine is None else engine.model
    if not logits:
        if vocabulary or not watch:
            raise CompanionError(
                "without logits there is no top token, and heads have to be watched"
            )
        model = replace(model, blocks=model.blocks[: max(pair[0] for pair in watch) + 1])
    engine = Replay(model)
    chunks = list(engine.chunks(run.past, len(values), 1, memory))
    parts = [
        _steer(engine, run, axes, values[chunk], layer, how, watch, vocabulary, logits)
        for chunk in (track(chunks, "points set") if len(chunks) > 1 else chunks)
    ]
    return Replayed(
        logits=torch.cat([part.logits for part in parts], dim=1),
        patterns={pair: torch.cat([p.patterns[pair] for p in parts], dim=1) for pair in watch},
        top=torch.cat([part.top for part in parts], dim=1) if vocabulary else None,
    )


def _steer(
    engine: Replay,
    run: CleanRun,
    axes: Axes,
    values: Float[Tensor, "case #prompt axis"],
    layer: int,
    how: How,
    watch: Sequence[Head],
    vocabulary: bool,
    logits: bool,
) -> Replayed:
    end = run.prompts.positions["end"]
    patterns: dict[Head, Tensor] = {}

    def listener(at: int, attention: Attention) -> Tensor | None:
        for pair in watch:
            if pair[0] == at:
                patterns[pair] = end_pattern(attention, pair[1], end)
        change = None
        for head in dict.fromkeys(head for head in axes.heads if head[0] == at):
            of_head = [i for i, other in enumerate(axes.heads) if other == head]
            v, new = axes.directions[of_head], values[..., of_head]
            if how != "add":
                output = attention.z[:, :, 0, head[1]] @ engine.W_O(at)[head[1]]
                new = new - output @ v.mT
            moved = new @ v
            if how == "only":  # what is left of the output outside these directions goes too
                moved = moved - (output - (output @ v.mT) @ v)
            change = moved if change is None else change + moved
        if change is None:
            return None
        return change.expand(*attention.z.shape[:2], -1)[:, :, None]

    resid = run.resid[layer][:, None].expand(len(values), -1, -1, -1)
    final = engine.advance(run.past, layer, resid, end, listener=listener, check=False)
    top = engine.logits(final).argmax(-1).T if vocabulary else None
    empty = final.new_empty(len(run.prompts), len(values), 0)
    answers = answer_logits(engine.model, run, final) if logits else empty
    return Replayed(answers, patterns, top)
