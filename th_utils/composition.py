r"""Composition scores: how much of what one head writes lies where a later head reads.

The score of Elhage et al. (2021) for a writer :math:`W_{OV}` and a reader matrix :math:`M` is

.. math:: CS = \frac{\|W_{OV} M\|_F}{\|W_{OV}\|_F \, \|M\|_F},

with :math:`M = W_{QK}` for composition with the reader's query (Q), :math:`W_{QK}^T` with its key
(K) and the reader's own :math:`W_{OV}` with its value (V). Paper A scores a *single component*
:math:`s_k u_k v_k^T` of the writer instead; then neither :math:`s_k` nor :math:`u_k` matters:

.. math:: CS_k = \|v_k^T M\|_2 / \|M\|_F , \qquad CS^2 = \sum_k s_k^2 CS_k^2 / \sum_k s_k^2 ,

so the whole-head score is the mean of the component scores weighted by :math:`s_k^2`, and costs
nothing more. Over a complete orthonormal basis the squares of the component scores sum to 1: a
random direction scores about :math:`1/\sqrt{d_{model}}`.

Nothing of size d_model x d_model is formed. Each reader is reduced to d_model x d_head with the
same left Gram matrix, and one product per sender layer scores all components against all later
readers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from th_utils.errors import CompanionError
from th_utils.progress import track
from th_utils.svd import HeadSVD
from th_utils.threads import one_thread
from th_utils.weights import AttentionWeights

Kind = Literal["Q", "K", "V"]
KINDS: tuple[Kind, ...] = ("Q", "K", "V")

# Rotary models: the reader matrix depends on how far the query stands after the key. The default
# takes the root mean square over the distances that occur in prompts of one or two sentences.
OFFSETS: tuple[int, ...] = tuple(range(1, 33))


def random_level(d_model: int) -> float:
    """The score 1/sqrt(d_model) that a random write direction has in the root mean square.

    >>> random_level(64)
    0.125
    """
    return 1 / math.sqrt(d_model)


@one_thread()
def readers(
    weights: AttentionWeights, kind: Kind, *, offsets: Sequence[int] = OFFSETS
) -> Float[Tensor, "layer head d_model d_head"]:
    """Reduced reader matrices F with ``F F^T = M M^T`` for each head's M of this kind.

    For rotary models Q and K readers satisfy ``F F^T = mean over offsets of M M^T``: in scores made
    from them, both norms of the reader's side are root mean squares over `offsets` (query position
    minus key position, tokens).
    """
    group = torch.arange(weights.n_heads, device=weights.W_Q.device) // weights.group
    if kind == "V":
        R_O = torch.linalg.qr(weights.W_O.mT, mode="r").R
        return weights.W_V[:, group] @ R_O.mT
    if kind == "Q":
        R_K = torch.linalg.qr(weights.W_K, mode="r").R
        other = _averaged(weights, R_K, offsets, transpose=False)
        return weights.W_Q @ other[:, group].mT
    if kind == "K":
        R_Q = torch.linalg.qr(weights.W_Q, mode="r").R
        other = _averaged(weights, R_Q, offsets, transpose=True)
        return weights.W_K[:, group] @ other.mT
    raise CompanionError(f"composition kind {kind!r} is unknown: Q, K or V")


def _averaged(
    weights: AttentionWeights,
    R: Float[Tensor, "layer head d_head d_head"],
    offsets: Sequence[int],
    *,
    transpose: bool,
) -> Float[Tensor, "layer head d_head d_head"]:
    """A square root of the mean over offsets of the Gram matrix of R turned by each offset."""
    if weights.rotary is None:
        return R
    if not offsets or min(offsets) < 0:
        raise CompanionError(f"offsets {list(offsets)}: at least one, none negative")
    turns = [
        weights.rotary.rotation(o, weights.d_head, dtype=R.dtype, device=R.device) for o in offsets
    ]
    # key side: q R(o) k^T = q (k R(o)^T)^T, query side: k R(o)^T q^T = k (q R(o))^T
    turned = [R @ (turn if transpose else turn.mT) for turn in turns]
    stacked = torch.cat(turned, dim=-2) / math.sqrt(len(offsets))
    return torch.linalg.qr(stacked, mode="r").R


def component_scores(
    svd: HeadSVD, reader: Float[Tensor, "layer head d_model d_head"]
) -> Float[Tensor, "layer head component reader_layer reader_head"]:
    """Score of every component of every head with every head of every later layer.

    Args:
        svd: SVD of the OV matrices (`th_utils.svd.ov_svd`); only V is used.
        reader: reduced readers of one kind (`readers`).

    Returns:
        Scores in [0, 1]; NaN where the reader is not in a later layer than the writer.
    """
    layers, heads, d_model, d_head = reader.shape
    if svd.V.shape[:3] != (layers, heads, d_model):
        raise CompanionError(
            f"writers {tuple(svd.V.shape)} and readers {tuple(reader.shape)} are of two models"
        )
    components = svd.V.shape[-1]
    unit = reader / torch.linalg.matrix_norm(reader)[..., None, None]
    joined = unit.permute(2, 0, 1, 3).reshape(d_model, -1)  # d_model x (layer head d_head)
    scores = reader.new_full((layers, heads, components, layers, heads), math.nan)
    for layer in track(range(layers - 1), "composition scores by layer"):
        writers = svd.V[layer].mT.reshape(-1, d_model)
        later = joined[:, (layer + 1) * heads * d_head :]
        parts = (writers @ later).view(heads, components, -1, heads, d_head)
        scores[layer, :, :, layer + 1 :] = torch.linalg.vector_norm(parts, dim=-1)
    return scores


def head_scores(
    scores: Float[Tensor, "layer head component reader_layer reader_head"],
    S: Float[Tensor, "layer head component"],
) -> Float[Tensor, "layer head reader_layer reader_head"]:
    """Whole-matrix composition scores from the component scores and the singular values."""
    share = S**2 / (S**2).sum(dim=-1, keepdim=True)
    return torch.einsum("lhkmn,lhk->lhmn", scores**2, share).sqrt()


def ceiling(reader: Float[Tensor, "d_model d_head"]) -> float:
    """The largest score that any write direction can have with one reduced reader.

    It is the reader's largest singular value over its Frobenius norm: 1 only for a reader of rank
    one, 1/8 for one of rank 64 that reads 64 directions equally.
    """
    S = torch.linalg.svdvals(reader)
    return float(S[0] / torch.linalg.vector_norm(S))


def z_scores(
    scores: Float[Tensor, "sender_layer sender *rest"],
) -> Float[Tensor, "sender_layer sender *rest"]:
    """Standard scores over everything that could have written to the reader.

    `scores` are those of one reader (any further axes, NaN where nothing can be written); mean
    and standard deviation run over all finite entries. The normalisation is our reconstruction:
    the paper's own is not known.
    """
    finite = scores[torch.isfinite(scores)]
    if finite.numel() < 2:
        raise CompanionError("a reader without at least two writers before it has no z-scores")
    return (scores - finite.mean()) / finite.std()
