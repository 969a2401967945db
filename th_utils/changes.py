"""What both engines ask of a change to a run, and how they find the position that is read."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from th_utils import checks
from th_utils.errors import CompanionError


def check_tokens(
    tokens: Tensor, read: Tensor | None, d_vocab: int, W_pos: Tensor | None = None
) -> None:
    """Raise a CompanionError unless prompts can be run and read where it is said."""
    checks.shape("tokens", tokens, 2, "prompt, position")
    checks.not_empty("tokens", tokens)
    low, high = torch.stack(tokens.aminmax()).tolist()
    if low < 0 or high >= d_vocab:
        raise CompanionError(f"tokens run from {low} to {high}, expected 0 to {d_vocab - 1}")
    if W_pos is not None and tokens.shape[1] > len(W_pos):
        raise CompanionError(
            f"tokens has shape {tuple(tokens.shape)}: this model takes {len(W_pos)} positions"
        )
    if read is not None:
        checks.shape("read", read, (len(tokens),), "one position for each prompt")
        low, high = torch.stack(read.aminmax()).tolist()
        if low < 0 or high >= tokens.shape[1]:
            raise CompanionError(
                f"read runs from {low} to {high}, expected 0 to {tokens.shape[1] - 1}"
            )


def check_change(
    n_layers: int, base: Any, layer: int, change: Tensor, first: int | Tensor, *, values: bool
) -> None:
    """Raise a CompanionError unless a change fits the clean run that it is made in.

    With `values` it also has to be finite, which takes a wait for the device.
    """
    prompts, positions = base.tokens.shape
    # runs made for one position keep no residual stream, those of unknown models end in logits
    stream = getattr(base, "resid", base.final)
    checks.index("layer", layer, n_layers)
    checks.shape(
        "the change",
        change,
        (None, prompts, None, stream.shape[-1]),
        "case, prompt, position, d_model",
    )
    checks.not_empty("the change", change)
    if isinstance(first, Tensor):
        checks.shape("first", first, (prompts,), "one position for each prompt")
        low, high = torch.stack(first.aminmax()).tolist() if values else (0, 0)
    else:
        low, high = first, first + change.shape[2] - 1
    if low < 0 or high >= positions:
        raise CompanionError(
            f"the change is to positions {low} to {high}, expected 0 to {positions - 1}"
        )
    checks.alike(base=stream, change=change)
    if values:
        checks.finite(change=change)


def check_reach(base: Any, resid: Tensor, first: int | Tensor, *, values: bool) -> None:
    """Raise a CompanionError unless a residual stream reaches as far as it has to."""
    window = resid.shape[2]
    if isinstance(first, int):
        if first + window != base.n_positions:
            raise CompanionError(
                f"resid has {window} positions from {first} on, expected "
                f"{base.n_positions - first}: all to the end of the prompt"
            )
    elif values and not bool((base.read < first + window).all()):
        raise CompanionError(
            f"resid has {window} positions: expected as many as reach the position read"
        )


def check_answers(right: Tensor, wrong: Tensor, d_vocab: int) -> None:
    """Raise a CompanionError unless two answers are given for each prompt."""
    for name, tokens in (("right", right), ("wrong", wrong)):
        checks.shape(name, tokens, right.shape[:1], "one token for each prompt")
        checks.not_empty(name, tokens)
    both = torch.stack([right, wrong])
    low, high = torch.stack(both.aminmax()).tolist()
    if low < 0 or high >= d_vocab:
        raise CompanionError(
            f"right and wrong hold tokens from {low} to {high}, expected 0 to {d_vocab - 1}"
        )


def check_kind(kind: str) -> None:
    """Raise a CompanionError unless `kind` is an input of a head."""
    if kind not in ("Q", "K", "V"):
        raise CompanionError(f"kind {kind!r} is unknown: 'Q', 'K' or 'V'")


def check_pair(base: Any, source: Any) -> None:
    """Raise a CompanionError unless activations of one run can be put into the other."""
    checks.shape("source.tokens", source.tokens, tuple(base.tokens.shape), "as base.tokens")
    checks.shape("source.z", source.z, tuple(base.z.shape), "as base.z: two runs of one model")
    checks.alike(base=base.z, source=source.z)
    checks.finite(base=base.z, source=source.z)


def pick(x: Float[Tensor, "prompt pos d_model"], at: Int[Tensor, " prompt"]) -> Tensor:
    """One position of each prompt."""
    return x[torch.arange(len(x), device=x.device), at]


def at_read(
    base: Any, x: Float[Tensor, "case prompt window d_model"], first: int | Int[Tensor, " prompt"]
) -> tuple[Float[Tensor, "case prompt d_model"], Tensor]:
    """The position read of each prompt, in a window that begins at `first`; and if it is in it."""
    where = base.read - first
    seen = (where >= 0) & (where < x.shape[2])
    index = where.clamp(0, x.shape[2] - 1)[None, :, None, None]
    return x.gather(2, index.expand(len(x), -1, 1, x.shape[-1]))[:, :, 0], seen
