"""Attention algebra written out: dense matrices in float64, one head at a time, nothing clever.

The kernels avoid every matrix of size d_model x d_model; the tests compare them with these.
"""

from __future__ import annotations

import torch
from torch import Tensor

from th_utils.weights import AttentionWeights, Rotary


def random_weights(
    seed: int,
    *,
    layers: int = 3,
    heads: int = 4,
    kv_heads: int | None = None,
    d_model: int = 20,
    d_head: int = 5,
    rotary: Rotary | None = None,
    dtype: torch.dtype = torch.float64,
) -> AttentionWeights:
    """Gaussian attention weights, every head on a scale of its own."""
    generator = torch.Generator().manual_seed(seed)
    kv_heads = heads if kv_heads is None else kv_heads

    def draw(n: int, *shape: int) -> Tensor:
        size = 0.5 + torch.rand(layers, n, 1, 1, generator=generator, dtype=torch.float64)
        drawn = torch.randn(layers, n, *shape, generator=generator, dtype=torch.float64)
        return (size * drawn).to(dtype)

    return AttentionWeights(
        W_Q=draw(heads, d_model, d_head),
        W_K=draw(kv_heads, d_model, d_head),
        W_V=draw(kv_heads, d_model, d_head),
        W_O=draw(heads, d_head, d_model),
        rotary=rotary,
    )


def ov(weights: AttentionWeights, layer: int, head: int) -> Tensor:
    """W_V W_O of one head, d_model x d_model."""
    kv_head = head // (weights.W_O.shape[1] // weights.W_V.shape[1])
    return weights.W_V[layer, kv_head].double() @ weights.W_O[layer, head].double()


def qk(weights: AttentionWeights, layer: int, head: int, offset: int = 0) -> Tensor:
    """W_Q R(offset) W_K^T of one head, d_model x d_model."""
    kv_head = head // (weights.W_Q.shape[1] // weights.W_K.shape[1])
    W_Q, W_K = weights.W_Q[layer, head].double(), weights.W_K[layer, kv_head].double()
    if weights.rotary is None:
        return W_Q @ W_K.T
    return W_Q @ turn(weights.rotary, offset, weights.d_head) @ W_K.T


def turn(rotary: Rotary, offset: int, d_head: int) -> Tensor:
    """The rotary matrix: 2 x 2 rotations of pairs of coordinates half of `dims` apart."""
    matrix = torch.eye(d_head, dtype=torch.float64)
    half = rotary.dims // 2
    for i in range(half):
        angle = torch.tensor(offset * rotary.base ** (-2 * i / rotary.dims), dtype=torch.float64)
        cosine, sine = angle.cos(), angle.sin()
        pair = torch.tensor([[cosine, sine], [-sine, cosine]], dtype=torch.float64)
        at = torch.tensor([i, i + half])
        matrix[at[:, None], at] = pair
    return matrix


def reader(weights: AttentionWeights, kind: str, layer: int, head: int, offset: int = 0) -> Tensor:
    """The matrix that a writer's output meets: query, key or value side of a head."""
    if kind == "V":
        return ov(weights, layer, head)
    matrix = qk(weights, layer, head, offset)
    return matrix if kind == "Q" else matrix.T


def composition(first: Tensor, second: Tensor) -> float:
    """Frobenius norm of the product over the product of the norms (Elhage et al. 2021)."""
    return float((first @ second).norm() / (first.norm() * second.norm()))


# --- the shapes of real families, narrow enough for dense float64 matrices of every head


FAMILIES = {
    "gpt2": {"heads": 12, "d_model": 768},
    "neox": {"heads": 8, "d_model": 512, "rotary": Rotary(base=10000.0, dims=16)},
    "llama": {"heads": 9, "kv_heads": 3, "d_model": 576, "rotary": Rotary(base=100000.0, dims=64)},
}


def family(
    name: str, seed: int = 0, *, layers: int = 2, dtype: torch.dtype = torch.float64
) -> AttentionWeights:
    """Random weights with the widths, heads, rotary embedding and norm of a model family.

    The spectrum of each factor falls tenfold, and the norms' gains are folded: readers and writers
    of GPT-2 and GPT-NeoX are centred, since those have LayerNorm, those of Llama are not.
    """
    weights = random_weights(seed, layers=layers, d_head=64, **FAMILIES[name])
    generator = torch.Generator().manual_seed(seed + 1000)
    fall = torch.logspace(0, -1, 64, dtype=torch.float64)
    gain = 1 + 0.3 * torch.randn(
        layers, 1, weights.d_model, 1, generator=generator, dtype=torch.float64
    )
    readers = [gain * matrix * fall for matrix in (weights.W_Q, weights.W_K, weights.W_V)]
    W_O = weights.W_O * fall[:, None]
    if name != "llama":
        readers = [matrix - matrix.mean(dim=-2, keepdim=True) for matrix in readers]
        W_O = W_O - W_O.mean(dim=-1, keepdim=True)
    return AttentionWeights(*readers, W_O, weights.rotary).to(dtype)


def component(v: Tensor, matrices: list[Tensor]) -> Tensor:
    """Score of write directions ``v [..., d_model]``: the length of v M against that of M.

    Several matrices (a rotary reader at several offsets) enter by their mean squares.
    """
    seen = sum((v @ M).square().sum(dim=-1) for M in matrices)
    return (seen / sum(M.square().sum() for M in matrices)).sqrt()
