"""Singular value decomposition of OV and QK matrices of all heads at once.

A head's OV matrix ``W_V W_O`` is d_model x d_model but has rank d_head at most, so it is never
formed: with thin QR of both factors, ``W_V = Q_a R_a`` and ``W_O^T = Q_b R_b``, its SVD is that of
the small core ``R_a R_b^T`` turned back by Q_a and Q_b (Golub and Van Loan 2013, section 5.4.6:
the SVD of a product by way of triangular factors). The same serves ``W_Q R W_K^T``.

In the row convention ``W_OV = sum_k s_k u_k v_k^T``: component k is *gated* by ``x . u_k`` (its
read direction) and *writes* along ``v_k`` (its write direction).

How exact it is, in float32 and relative to the largest singular value: singular values 5e-6,
reconstruction 1e-5, for heads of any condition, silent ones included. A single singular vector is
determined only up to rounding divided by the gap to its neighbours, whichever way it is computed.
Weights in float64 give 1e-12; half precision is upcast to float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from th_utils import checks
from th_utils.errors import CompanionError
from th_utils.threads import one_thread
from th_utils.weights import AttentionWeights


@dataclass(frozen=True)
class HeadSVD:
    """Thin SVD of one matrix per head; components in descending order of singular value."""

    U: Float[Tensor, "layer head d_model component"]
    S: Float[Tensor, "layer head component"]
    V: Float[Tensor, "layer head d_model component"]

    def __post_init__(self) -> None:
        checks.shape("S", self.S, 3, "layer, head, component")
        layers, heads, components = found = tuple(self.S.shape)
        for name, vectors in (("U", self.U), ("V", self.V)):
            beside = f"layer, head, d_model, component beside S {found}"
            checks.shape(name, vectors, (layers, heads, None, components), beside)


def upcast(tensor: Tensor) -> Tensor:
    """float32 of half precision, which has no decompositions; anything wider as it is.

    >>> upcast(torch.ones(2, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


@one_thread()
def factored_svd(
    left: Float[Tensor, "*batch d_in rank"], right: Float[Tensor, "*batch d_out rank"]
) -> tuple[
    Float[Tensor, "*batch d_in rank"],
    Float[Tensor, "*batch rank"],
    Float[Tensor, "*batch d_out rank"],
]:
    """U, S, V of ``left @ right^T`` without forming the product.

    Signs are fixed so that the entry of largest magnitude of each column of V is positive:
    singular vectors are defined up to a joint sign only, and LAPACK's choice changes with the
    machine and the number of threads.

    Raises:
        CompanionError: the factors do not fit each other, are empty, not finite, or of two
            devices or dtypes, or the rank exceeds the matrix.

    >>> left, right = torch.randn(7, 3), torch.randn(5, 3)
    >>> U, S, V = factored_svd(left, right)
    >>> torch.allclose(U @ torch.diag(S) @ V.T, left @ right.T, atol=1e-5)
    True
    """
    _check_factors(left, right)
    return _core_svd(*torch.linalg.qr(upcast(left)), *torch.linalg.qr(upcast(right)))


def _check_factors(left: Any, right: Any) -> None:
    for name, factor in (("left", left), ("right", right)):
        if not isinstance(factor, Tensor) or factor.ndim < 2:
            checks.shape(name, factor, 2, "d, rank, with any batch axes before them")
        checks.not_empty(name, factor)
    expected = (*left.shape[:-2], None, left.shape[-1])
    checks.shape("right", right, expected, f"batch, d_out, rank beside left {tuple(left.shape)}")
    if left.shape[-1] > min(left.shape[-2], right.shape[-2]):
        raise CompanionError(
            f"rank {left.shape[-1]} exceeds the matrix: left {tuple(left.shape)} and right "
            f"{tuple(right.shape)}, expected a rank of at most "
            f"{min(left.shape[-2], right.shape[-2])}"
        )
    checks.alike(left=left, right=right)
    checks.finite(left=left, right=right)


def _core_svd(
    Q_left: Tensor, R_left: Tensor, Q_right: Tensor, R_right: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """SVD of the core R_left R_right^T, turned back by Q_left and Q_right, signs fixed."""
    core_U, S, core_Vh = torch.linalg.svd(R_left @ R_right.mT)
    V = Q_right @ core_Vh.mT
    # both extremes take a fifth of the time of looking up where the largest magnitude is
    positive = V.amax(dim=-2, keepdim=True) >= -V.amin(dim=-2, keepdim=True)
    sign = positive.to(V.dtype) * 2 - 1
    return Q_left @ (core_U * sign), S, V * sign


def per_head(weights: AttentionWeights, grouped: Tensor) -> Tensor:
    """What is stored per key/value head, repeated for the query heads that share it.

    >>> q, kv = torch.randn(1, 4, 8, 2), torch.randn(1, 2, 8, 2)  # two query heads to each
    >>> weights = AttentionWeights(q, kv, kv, q.mT)
    >>> per_head(weights, torch.tensor([[1.0, 2.0]]))
    tensor([[1., 1., 2., 2.]])
    """
    if weights.group == 1:
        return grouped
    layers, kv_heads, *rest = grouped.shape
    spread = grouped[:, :, None].expand(layers, kv_heads, weights.group, *rest)
    return spread.reshape(layers, weights.n_heads, *rest)


def _joined(layers: list[tuple[Tensor, Tensor, Tensor]]) -> HeadSVD:
    """One layer at a time keeps the factors in the cache, and needs little memory of its own."""
    return HeadSVD(*(torch.cat(parts) for parts in zip(*layers, strict=True)))


@one_thread()
def ov_svd(weights: AttentionWeights) -> HeadSVD:
    """SVD of every head's OV matrix ``W_V W_O`` (paper A, section 3; Elhage et al. 2021).

    U is what gates a component, V what it writes. Components whose singular value is zero, up to
    rounding, have directions without a meaning, orthogonal to the others.

    Raises:
        CompanionError: the weights have been edited to hold values that are not finite.

    >>> W = AttentionWeights(*torch.randn(3, 2, 4, 16, 8), torch.randn(2, 4, 8, 16))
    >>> svd = ov_svd(W)
    >>> svd.S.shape
    torch.Size([2, 4, 8])
    >>> dense = W.W_V[1, 3] @ W.W_O[1, 3]
    >>> torch.allclose(svd.U[1, 3] @ torch.diag(svd.S[1, 3]) @ svd.V[1, 3].T, dense, atol=1e-4)
    True
    """
    checks.finite(W_V=weights.W_V, W_O=weights.W_O)
    layers = []
    for W_V, W_O in zip(weights.W_V.split(1), weights.W_O.split(1), strict=True):
        Q_V, R_V = torch.linalg.qr(upcast(W_V))  # once per key/value head, shared by its group
        Q_O, R_O = torch.linalg.qr(upcast(W_O).mT)
        layers.append(_core_svd(per_head(weights, Q_V), per_head(weights, R_V), Q_O, R_O))
    return _joined(layers)


@one_thread()
def qk_svd(weights: AttentionWeights, *, offset: int = 0) -> HeadSVD:
    """SVD of every head's QK form ``W_Q R(offset) W_K^T``; U belongs to the query side.

    (Elhage et al. 2021; R is the rotation of Su et al. 2021 and the identity for models without.)

    Args:
        weights: folded attention weights.
        offset: query position minus key position, in tokens. Only rotary models depend on it.

    Raises:
        CompanionError: the offset is negative or no whole number, or the weights have been edited
            to hold values that are not finite.

    >>> W = AttentionWeights(*torch.randn(3, 2, 4, 16, 8), torch.randn(2, 4, 8, 16))
    >>> qk_svd(W).U.shape
    torch.Size([2, 4, 16, 8])
    """
    if not isinstance(offset, Integral) or isinstance(offset, bool):
        raise CompanionError(f"offset {offset!r} is not a whole number of tokens")
    if offset < 0:
        raise CompanionError(f"offset {offset} is negative: a query never precedes its key")
    checks.finite(W_Q=weights.W_Q, W_K=weights.W_K)
    turn = None
    if weights.rotary is not None:
        like = upcast(weights.W_Q[:1])
        turn = weights.rotary.rotation(offset, weights.d_head, dtype=like.dtype, device=like.device)
    layers = []
    for W_Q, W_K in zip(weights.W_Q.split(1), weights.W_K.split(1), strict=True):
        Q_Q, R_Q = torch.linalg.qr(upcast(W_Q))
        Q_K, R_K = torch.linalg.qr(upcast(W_K))
        turned = R_Q if turn is None else R_Q @ turn
        layers.append(_core_svd(Q_Q, turned, per_head(weights, Q_K), per_head(weights, R_K)))
    return _joined(layers)
