"""Singular value decomposition of OV and QK matrices of all heads at once.

A head's OV matrix ``W_V W_O`` is d_model x d_model but has rank d_head at most, so it is never
formed: with thin QR of both factors, ``W_V = Q_a R_a`` and ``W_O^T = Q_b R_b``, its SVD is that of
the small core ``R_a R_b^T`` turned back by Q_a and Q_b. The same serves ``W_Q R W_K^T``.

In the row convention ``W_OV = sum_k s_k u_k v_k^T``: component k is *gated* by ``x . u_k`` (its
read direction) and *writes* along ``v_k`` (its write direction).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from th_utils.errors import CompanionError
from th_utils.threads import one_thread
from th_utils.weights import AttentionWeights


@dataclass(frozen=True)
class HeadSVD:
    """Thin SVD of one matrix per head; components in descending order of singular value."""

    U: Float[Tensor, "layer head d_model component"]
    S: Float[Tensor, "layer head component"]
    V: Float[Tensor, "layer head d_model component"]


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

    >>> left, right = torch.randn(7, 3), torch.randn(5, 3)
    >>> U, S, V = factored_svd(left, right)
    >>> torch.allclose(U @ torch.diag(S) @ V.T, left @ right.T, atol=1e-5)
    True
    """
    if left.shape[-1] > min(left.shape[-2], right.shape[-2]):
        raise CompanionError(
            f"rank {left.shape[-1]} exceeds the matrix: factors {tuple(left.shape)} and "
            f"{tuple(right.shape)}"
        )
    Q_left, R_left = torch.linalg.qr(left)
    Q_right, R_right = torch.linalg.qr(right)
    return _core_svd(Q_left, R_left, Q_right, R_right)


def _core_svd(
    Q_left: Tensor, R_left: Tensor, Q_right: Tensor, R_right: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """SVD of the core R_left R_right^T, turned back by Q_left and Q_right, signs fixed."""
    core_U, S, core_Vh = torch.linalg.svd(R_left @ R_right.mT)
    U, V = Q_left @ core_U, Q_right @ core_Vh.mT
    at = V.abs().argmax(dim=-2, keepdim=True)
    sign = torch.gather(V, -2, at).sign()
    return U * sign, S, V * sign


@one_thread()
def ov_svd(weights: AttentionWeights) -> HeadSVD:
    """SVD of every head's OV matrix ``W_V W_O`` (paper A, section 3; Elhage et al. 2021)."""
    Q_V, R_V = torch.linalg.qr(weights.W_V)  # once per key/value head, shared by its group
    Q_O, R_O = torch.linalg.qr(weights.W_O.mT)
    group = torch.arange(weights.n_heads, device=weights.W_V.device) // weights.group
    return HeadSVD(*_core_svd(Q_V[:, group], R_V[:, group], Q_O, R_O))


@one_thread()
def qk_svd(weights: AttentionWeights, *, offset: int = 0) -> HeadSVD:
    """SVD of every head's QK form ``W_Q R(offset) W_K^T``; U belongs to the query side.

    Args:
        weights: folded attention weights.
        offset: query position minus key position, in tokens. Only rotary models depend on it.
    """
    if offset < 0:
        raise CompanionError(f"offset {offset} is negative: a query never precedes its key")
    Q_Q, R_Q = torch.linalg.qr(weights.W_Q)
    Q_K, R_K = torch.linalg.qr(weights.W_K)
    group = torch.arange(weights.n_heads, device=weights.W_K.device) // weights.group
    if weights.rotary is not None:
        turn = weights.rotary.rotation(offset, weights.d_head, dtype=R_Q.dtype, device=R_Q.device)
        R_Q = R_Q @ turn
    return HeadSVD(*_core_svd(Q_Q, R_Q, Q_K[:, group], R_K[:, group]))
