"""Clean runs of list prompts in half the time: the list of each is read once.

The prompts of one list differ only in what is mentioned again. So what comes before is run once,
and each prompt continues from its keys and values. The numbers are those of `runs.clean_run`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from th_utils import transformer
from th_utils.engine import from_bridge
from th_utils.errors import CompanionError
from th_utils.progress import track
from th_utils.replay import Replay
from th_utils.runs import CleanRun
from th_utils.tasks.lists import ListPrompts
from th_utils.transformer import Block, Norm, Transformer

BATCH = 40  # prompts that are run at once


def list_run(bridge: Any, prompts: ListPrompts) -> CleanRun:
    """What `runs.clean_run` keeps of list prompts, the end's attention among it.

    Raises:
        CompanionError: prompts that are no whole lists, or a model that replay does not know.
    """
    parts = list(list_runs(bridge, prompts))
    first = {"final", "final_scale", "logits", "correct"}
    joined = {
        name: torch.cat([getattr(part, name) for part in parts], dim=0 if name in first else 1)
        for name in ("resid", "keys", "values", "query", "z", *sorted(first))
    }
    pattern = torch.cat([part.pattern["end"] for part in parts], dim=1)
    return CleanRun(prompts=prompts, pattern={"end": pattern}, **joined)


@torch.no_grad()
def list_runs(bridge: Any, prompts: ListPrompts) -> Iterator[CleanRun]:
    """The same in batches of whole lists, for measurements that need not keep all of them."""
    if len(prompts) % prompts.length:
        raise CompanionError(f"{len(prompts)} prompts are not lists of {prompts.length} items")
    engine = Replay(from_bridge(bridge))
    size = max(1, BATCH // prompts.length) * prompts.length
    for each in track(prompts.batches(size), f"batches of lists of {prompts.length}"):
        yield _run(engine, each)


def _run(engine: Replay, prompts: ListPrompts) -> CleanRun:
    """The prompts of a few lists; as much is shared as in the list that shares least."""
    model, n, end = engine.model, len(prompts), prompts.positions["end"]
    tokens = prompts.tokens[:, : int(end.max()) + 1]
    first = tokens[:: prompts.length]
    same = (tokens == first.repeat_interleave(prompts.length, 0)).all(0)
    # the end itself is never shared: it is what the prompts are read at
    shared = min(int(same.int().cumprod(0).sum()), int(end.min()))
    past = engine.trace(first[:, :shared])
    positions = torch.arange(tokens.shape[1], device=tokens.device)
    mask = positions <= positions[shared:, None]
    rows, at = torch.arange(n, device=tokens.device), end - shared
    future = positions > end[:, None, None]
    rest = (0, 0, 0, 0, 0, prompts.tokens.shape[1] - tokens.shape[1])
    kept: dict[str, list[Tensor]] = {
        name: [] for name in ("resid", "keys", "values", "query", "z", "pattern")
    }
    x = transformer.embed(model, tokens)[:, shared:]
    for layer, block in enumerate(model.blocks):
        normed = block.norm_1(x)
        query = transformer.project(normed, block.W_Q, block.b_Q)
        turned = transformer.rotated(model, query, positions[shared:])
        keys, values = (
            torch.cat([before[layer].repeat_interleave(prompts.length, 0), new], dim=1)
            for before, new in (
                (past.keys, _keys(model, block, normed, positions[shared:])),
                (past.values, transformer.project(normed, block.W_V, block.b_V)),
            )
        )
        q, k, v = (part.transpose(1, 2) for part in (turned, keys, values))
        z = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, enable_gqa=model.group > 1
        ).transpose(1, 2)
        scores = turned[rows, at][:, :, None] @ k.repeat_interleave(model.group, 1).mT
        pattern = (scores[:, :, 0] / model.d_head**0.5).masked_fill(future, -torch.inf).softmax(-1)
        found = (x[rows, at], keys, values, query[rows, at], z[rows, at], pattern)
        for name, tensor in zip(kept, found, strict=True):
            kept[name].append(tensor)
        mid = x + transformer.write_out(block, z)
        x = mid + transformer.mlp(model, block, x if model.parallel else mid)
    stacked = {name: torch.stack(tensors) for name, tensors in kept.items()}
    for name in ("keys", "values"):
        stacked[name] = functional.pad(stacked[name], rest)
    pattern = functional.pad(stacked.pop("pattern"), (0, rest[-1]))
    final = x[rows, at]
    logits = engine.logits(final)
    return CleanRun(
        prompts=prompts,
        pattern={"end": pattern},
        final=final,
        final_scale=_scale(model.final_norm, final),
        logits=logits.gather(-1, prompts.answers),
        correct=logits.argmax(-1) == prompts.right,
        **stacked,
    )


def _keys(model: Transformer, block: Block, normed: Tensor, positions: Tensor) -> Tensor:
    return transformer.rotated(model, transformer.project(normed, block.W_K, block.b_K), positions)


def _scale(norm: Norm, x: Float[Tensor, "prompt d_model"]) -> Float[Tensor, " prompt"]:
    """What a norm divides by."""
    square = x.square().mean(-1) if norm.rms else x.var(-1, correction=0)
    return (square + norm.eps).sqrt()
