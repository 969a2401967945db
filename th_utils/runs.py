"""What one clean run over prompts leaves behind: no more than the chapters need.

Everything a chapter asks of the last position ("end") can be answered from the keys and values of
all positions and the residual stream at the end, so a run keeps those and a few rows of the
attention patterns, not the several hundred activations of a full cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from th_utils.errors import CompanionError
from th_utils.progress import track
from th_utils.replay import Past
from th_utils.weights import Rotary, rotary_of

BATCH = 32  # prompts per forward pass; logits over the vocabulary are the largest tensor


@runtime_checkable
class Prompts(Protocol):
    """What a run needs to know of a task's prompts."""

    tokens: Int[Tensor, "prompt pos"]
    positions: dict[str, Int[Tensor, " prompt"]]  # "end" among them

    @property
    def answers(self) -> Int[Tensor, "prompt answer"]:
        """Tokens whose logits are wanted."""

    @property
    def right(self) -> Int[Tensor, " prompt"]:
        """Token of the right answer."""

    def __len__(self) -> int: ...

    def batches(self, size: int) -> list[Any]:
        """The prompts in runs of at most `size`."""


@dataclass(frozen=True)
class CleanRun:
    """Activations of unpatched prompts. `pattern[role]` is the attention *from* that position."""

    prompts: Any  # of a task, see `Prompts`
    resid: Float[Tensor, "layer prompt d_model"]  # entering each block, at the end position
    keys: Float[Tensor, "layer prompt pos kv_head d_head"]  # rotated where the model rotates
    values: Float[Tensor, "layer prompt pos kv_head d_head"]
    query: Float[Tensor, "layer prompt head d_head"]  # at the end position, not rotated
    z: Float[Tensor, "layer prompt head d_head"]  # weighted values at the end, before W_O
    pattern: dict[str, Float[Tensor, "layer prompt head pos"]]
    final: Float[Tensor, "prompt d_model"]  # leaving the last block, at the end position
    final_scale: Float[Tensor, " prompt"]  # divisor of the final norm at the end position
    logits: Float[Tensor, "prompt answer"]  # of the task's answers at the end position
    correct: Bool[Tensor, " prompt"]  # the right answer is the top token of the vocabulary

    @property
    def past(self) -> Past:
        """What replay at the end position continues from."""
        end = self.prompts.positions["end"]
        return Past(self.prompts.tokens, end, self.keys, self.values, self.final)

    @property
    def logit_difference(self) -> Float[Tensor, " prompt"]:
        """Logit of the first answer minus that of the second, in nats.

        These are the indirect object and the subject.
        """
        return self.logits[:, 0] - self.logits[:, 1]


def rotary(bridge: Any) -> Rotary | None:
    """The rotary embedding of a bridge's model, None when it has none."""
    return rotary_of(bridge.original_model.config.to_dict())


@torch.no_grad()
def clean_run(
    bridge: Any,
    prompts: Prompts,
    *,
    rows: Sequence[str] = ("end",),
) -> CleanRun:
    """Run prompts through a bridge in compatibility mode and keep what the chapters need.

    Args:
        bridge: `TransformerBridge` in compatibility mode.
        prompts: the prompts; their tokens are fed as they are, nothing is prepended.
        rows: position roles from which attention is kept (keys of `prompts.positions`).
    """
    layers, turn = bridge.cfg.n_layers, rotary(bridge)
    names = [
        f"blocks.{layer}.{hook}"
        for layer in range(layers)
        for hook in ("hook_resid_pre", *(f"attn.hook_{n}" for n in ("q", "k", "v", "z", "pattern")))
    ]
    parts = []
    for batch in track(prompts.batches(BATCH), "batches of prompts"):
        logits, cache = bridge.run_with_cache(
            batch.tokens,
            names_filter=[*names, "ln_final.hook_in", "ln_final.hook_scale"],
            return_type="logits",
        )
        parts.append(_kept(cache, logits, batch, layers, rows))

    def joined(name: str, dim: int = 1) -> Tensor:
        return torch.cat([part[name] for part in parts], dim=dim)

    keys = joined("keys")
    if turn is not None:
        keys = rotate_all(keys, turn)
    return CleanRun(
        prompts=prompts,
        resid=joined("resid"),
        keys=keys,
        values=joined("values"),
        query=joined("query"),
        z=joined("z"),
        pattern={role: joined(f"pattern {role}") for role in rows},
        final=joined("final", 0),
        final_scale=joined("final_scale", 0),
        logits=joined("logits", 0),
        correct=joined("correct", 0),
    )


def _kept(
    cache: Any, logits: Tensor, batch: Prompts, layers: int, rows: Sequence[str]
) -> dict[str, Tensor]:
    """The parts of one batch's cache that a `CleanRun` keeps, stacked over layers."""
    n = torch.arange(len(batch), device=logits.device)
    end = batch.positions["end"]

    def stack(hook: str, at: Tensor | None = None) -> Tensor:
        values = [cache[f"blocks.{layer}.{hook}"] for layer in range(layers)]
        return torch.stack([v if at is None else v[n, at] for v in values])

    final = logits[n, end]
    kept = {
        "resid": stack("hook_resid_pre", end),
        "keys": stack("attn.hook_k"),
        "values": stack("attn.hook_v"),
        "query": stack("attn.hook_q", end),
        "z": stack("attn.hook_z", end),
        "final": cache["ln_final.hook_in"][n, end],
        "final_scale": cache["ln_final.hook_scale"][n, end, 0],
        "logits": final.gather(-1, batch.answers),
        "correct": final.argmax(dim=-1) == batch.right,
    }
    for role in rows:
        at = batch.positions[role]
        patterns = [cache[f"blocks.{layer}.attn.hook_pattern"] for layer in range(layers)]
        kept[f"pattern {role}"] = torch.stack([p[n, :, at] for p in patterns])
    return kept


def rotate_all(
    x: Float[Tensor, "layer prompt pos head d_head"], turn: Rotary
) -> Float[Tensor, "layer prompt pos head d_head"]:
    """Queries or keys turned by the rotary embedding of the positions they stand at."""
    turns = [
        turn.rotation(p, x.shape[-1], dtype=x.dtype, device=x.device) for p in range(x.shape[2])
    ]
    return torch.einsum("lnphd,pde->lnphe", x, torch.stack(turns))


def rotate_at(
    x: Float[Tensor, "row head d_head"], positions: Any, turn: Rotary | None
) -> Float[Tensor, "row head d_head"]:
    """Rows turned by the rotary embedding, each at its own position."""
    if turn is None:
        return x
    if len(positions) != len(x):
        raise CompanionError(f"{len(positions)} positions for {len(x)} rows")
    unique, where = torch.unique(positions, return_inverse=True)
    turns = torch.stack(
        [turn.rotation(int(p), x.shape[-1], dtype=x.dtype, device=x.device) for p in unique]
    )
    return torch.einsum("nhd,nde->nhe", x, turns[where])
