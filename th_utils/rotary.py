"""Rotary position embedding: what it does to a query and a key, and what a model's config says.

Rotary embedding (Su et al. 2021, RoFormer, section 3.2.2) turns queries and keys by angles that
grow with their positions. A score then depends on the distance alone, and one matrix per distance
says how, so that a head still has a QK form: a different one at each distance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from th_utils.errors import CompanionError


@dataclass(frozen=True)
class Rotary:
    """Rotary position embedding in the half-split layout of Hugging Face's Llama and GPT-NeoX.

    The first `dims` coordinates of a query or key are turned, coordinate ``i`` with
    ``i + dims/2``, by the angle ``position * base ** (-2 i / dims)``; the rest stays as it is.
    """

    base: float
    dims: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.base) and self.base > 0):
            raise CompanionError(f"rotary base {self.base} is not a positive number")
        if self.dims < 2 or self.dims % 2:
            raise CompanionError(f"rotary dims {self.dims} is not an even number of at least 2")

    def rotation(
        self, offset: int, d_head: int, *, dtype: torch.dtype = torch.float32, device: Any = None
    ) -> Float[Tensor, "d_head d_head"]:
        """The matrix R with ``score = (q @ R) . k`` for a query `offset` positions after the key.

        Positions i (query) and j (key) enter a score only through i - j, so one matrix serves
        every pair of positions that far apart.

        >>> Rotary(base=10000.0, dims=4).rotation(0, 6).equal(torch.eye(6))
        True
        """
        return self.rotations([offset], d_head, dtype=dtype, device=device)[0]

    def rotations(
        self,
        offsets: Sequence[int],
        d_head: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: Any = None,
    ) -> Float[Tensor, "offset d_head d_head"]:
        """The matrices of `rotation` for several offsets.

        Raises:
            CompanionError: more coordinates are turned than there are, or an offset is not a
                whole number.

        >>> turns = Rotary(base=10000.0, dims=4).rotations([1, 2], 6, dtype=torch.float64)
        >>> torch.allclose(turns[0] @ turns[0], turns[1])
        True
        """
        if self.dims > d_head:
            raise CompanionError(f"rotary dims {self.dims} exceed d_head {d_head}")
        for offset in offsets:
            if not isinstance(offset, Integral) or isinstance(offset, bool):
                raise CompanionError(f"offset {offset!r} is not a whole number of tokens")
        # In float64 on the host, whatever the device: large angles lose their digits in float32,
        # some devices have no float64, and nothing here waits for a device.
        half = self.dims // 2
        power = -torch.arange(half, dtype=torch.float64) * 2 / self.dims
        angle = torch.tensor(list(offsets), dtype=torch.float64)[:, None] * self.base**power
        turns = torch.eye(d_head, dtype=torch.float64).repeat(len(offsets), 1, 1)
        i = torch.arange(half)
        turns[:, i, i] = turns[:, i + half, i + half] = torch.cos(angle)
        turns[:, i, i + half] = torch.sin(angle)
        turns[:, i + half, i] = -torch.sin(angle)
        return turns.to(dtype).to(device, non_blocking=True)


_COMMON_BASE = ("gpt_neox", "llama", "mistral")
# Families that turn neighbouring coordinates instead of halves, whatever their tensors are called.
_INTERLEAVED = ("gptj", "codegen", "cohere", "glm", "helium", "ernie4_5", "llama4", "deepseek")


def rotary_of(config: Mapping[str, Any]) -> Rotary | None:
    """Rotary embedding said by a Hugging Face config, None for models without (GPT-2).

    Raises:
        CompanionError: positions that one matrix per offset does not cover: rescaled frequencies
            (Llama 3's and others), neighbouring coordinates turned (GPT-J), layers that turn
            nothing (SmolLM3) or otherwise (Gemma 3), and linear biases (ALiBi).

    >>> rotary_of({"hidden_size": 64, "num_attention_heads": 4, "rope_theta": 1e5})
    Rotary(base=100000.0, dims=16)
    """
    refuse_positions(config)
    said = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    kind = said.get("rope_type") or said.get("type") or "default"
    if kind != "default":
        raise CompanionError(f"rotary embedding of type {kind!r} is not supported")
    base = said.get("rope_theta") or config.get("rope_theta") or config.get("rotary_emb_base")
    if base is None and config.get("model_type") in _COMMON_BASE:
        base = 10000.0  # what transformers takes where the config of such a model is silent
    if base is None:
        return None
    heads, width = config.get("num_attention_heads"), config.get("hidden_size")
    d_head = config.get("head_dim") or (width // heads if heads and width else None)
    if not d_head:
        raise CompanionError(
            "a config with rotary embedding says no width of a head: expected head_dim, or "
            "hidden_size and num_attention_heads"
        )
    share = said.get("partial_rotary_factor") or config.get("rotary_pct") or 1.0
    return Rotary(base=float(base), dims=int(d_head * share))


def refuse_positions(config: Mapping[str, Any]) -> None:
    """Refuse a config whose positions enter attention in a way that is not covered.

    Raises:
        CompanionError: one line that says which way; see `rotary_of`.

    >>> refuse_positions({"model_type": "smollm3", "no_rope_layers": [1, 1, 1, 0]})
    Traceback (most recent call last):
    th_utils.errors.CompanionError: layers without rotary embedding among others with it \
(no_rope_layers, layer 3) are not supported
    """
    if (
        config.get("alibi")
        or config.get("position_embedding_type") == "alibi"
        or (config.get("attn_config") or {}).get("alibi")
        or config.get("model_type") == "bloom"
    ):
        raise CompanionError("attention with linear biases (ALiBi) is not supported")
    if str(config.get("model_type", "")).startswith(_INTERLEAVED) or config.get("rotary_dim"):
        raise CompanionError(
            f"rotary embedding of neighbouring coordinates ({config.get('model_type')}) is not "
            "supported: only the half-split layout of Llama and GPT-NeoX is"
        )
    # one entry per layer, 1 where it turns queries and keys
    turning = [bool(turns) for turns in config.get("no_rope_layers") or ()]
    if not all(turning):
        raise CompanionError(
            "layers without rotary embedding among others with it (no_rope_layers, layer "
            f"{turning.index(False)}) are not supported"
        )
    said = config.get("rope_parameters") or {}
    if any(isinstance(value, Mapping) for value in said.values()):
        raise CompanionError(
            f"rotary embeddings that differ by layer ({', '.join(said)}) are not supported"
        )
