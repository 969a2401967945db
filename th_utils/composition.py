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
same left Gram matrix, and one product per pair of layers scores all components of the one against
all readers of the other: what it gives is small enough to be summed before it leaves the cache.

What is zero scores zero: a reader that reads nothing, and a writer, or one of its components, that
writes nothing. A component counts as silent when its singular value is not above rounding (that of
its dtype times the number of components, relative to the largest of its head), since its direction
is then whatever the decomposition filled in. NaN has one meaning only: the reader is not in a later
layer than the writer.

Scores are exact to 1e-6 in float32 and 1e-12 in float64 for the directions given; half precision is
upcast to float32. On a CUDA device this holds for torch's own default of products in full float32
(`torch.set_float32_matmul_precision("highest")`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from th_utils import checks
from th_utils.errors import CompanionError
from th_utils.progress import track
from th_utils.svd import HeadSVD, per_head, upcast
from th_utils.threads import one_thread
from th_utils.weights import AttentionWeights

Kind = Literal["Q", "K", "V"]
KINDS: tuple[Kind, ...] = ("Q", "K", "V")

# Rotary models: the reader matrix depends on how far the query stands after the key. The default
# takes the root mean square over the distances that occur in prompts of one or two sentences.
OFFSETS: tuple[int, ...] = tuple(range(1, 33))


def random_level(d_model: int) -> float:
    """The score 1/sqrt(d_model) that a random write direction has in the root mean square.

    Raises:
        CompanionError: a width below 1.

    >>> random_level(64)
    0.125
    """
    if d_model < 1:
        raise CompanionError(f"d_model {d_model} is not a width: expected at least 1")
    return 1 / math.sqrt(d_model)


@one_thread()
def readers(
    weights: AttentionWeights, kind: Kind, *, offsets: Sequence[int] = OFFSETS
) -> Float[Tensor, "layer head d_model d_head"]:
    """Reduced reader matrices F with ``F F^T = M M^T`` for each head's M of this kind.

    M is ``W_QK`` for Q, its transpose for K and ``W_OV`` for V (Elhage et al. 2021). For rotary
    models Q and K readers satisfy ``F F^T = mean over offsets of M M^T``: in scores made from them,
    both norms of the reader's side are root mean squares over `offsets` (query position minus key
    position, tokens; our reconstruction). One offset gives the reader at that distance.

    Raises:
        CompanionError: another kind, offsets that are none, negative or no whole numbers, or
            weights that have been edited to hold values that are not finite.

    >>> W = AttentionWeights(*torch.randn(3, 2, 4, 16, 8), torch.randn(2, 4, 8, 16))
    >>> F, M = readers(W, "V")[1, 3], W.W_V[1, 3] @ W.W_O[1, 3]
    >>> torch.allclose(F @ F.T, M @ M.T, atol=1e-3)
    True
    """
    _check_weights(weights, (kind,), offsets)
    return _readers(weights, kind, offsets)


def _check_weights(weights: AttentionWeights, kinds: Sequence[Any], offsets: Sequence[Any]) -> None:
    """The one look at the weights' values that a kernel takes, and what else it is told."""
    for kind in kinds:
        if kind not in KINDS:
            raise CompanionError(f"composition kind {kind!r} is unknown: Q, K or V")
    if weights.rotary is not None:
        for offset in offsets:
            if not isinstance(offset, Integral) or isinstance(offset, bool):
                raise CompanionError(f"offsets hold {offset!r}: expected whole numbers of tokens")
        if len(offsets) == 0 or min(offsets) < 0:
            raise CompanionError(f"offsets {list(offsets)}: expected at least one, none negative")
    names = ("W_Q", "W_K", "W_V", "W_O")
    checks.finite(**{name: getattr(weights, name) for name in names})


def _readers(weights: AttentionWeights, kind: str, offsets: Sequence[int]) -> Tensor:
    if kind == "V":
        R_O = torch.linalg.qr(upcast(weights.W_O).mT, mode="r").R
        return per_head(weights, upcast(weights.W_V)) @ R_O.mT
    if kind == "Q":
        R_K = torch.linalg.qr(upcast(weights.W_K), mode="r").R
        other = _averaged(weights, R_K, offsets, transpose=False)
        return upcast(weights.W_Q) @ per_head(weights, other).mT
    R_Q = torch.linalg.qr(upcast(weights.W_Q), mode="r").R
    other = _averaged(weights, R_Q, offsets, transpose=True)
    return per_head(weights, upcast(weights.W_K)) @ other.mT


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
    turns = weights.rotary.rotations(offsets, weights.d_head, dtype=R.dtype, device=R.device)
    # key side: q R(o) k^T = q (k R(o)^T)^T, query side: k R(o)^T q^T = k (q R(o))^T
    turned = R[:, :, None] @ (turns if transpose else turns.mT)
    stacked = turned.flatten(2, 3) / math.sqrt(len(offsets))
    return torch.linalg.qr(stacked, mode="r").R


def component_scores(
    svd: HeadSVD, reader: Float[Tensor, "layer head d_model d_head"]
) -> Float[Tensor, "layer head component reader_layer reader_head"]:
    """Score of every component of every head with every head of every later layer.

    ``CS_k = |v_k^T M| / |M|_F`` (paper A, section 3), as ``|v_k^T F| / |F|_F`` with a reduced
    reader F.

    Args:
        svd: SVD of the OV matrices (`th_utils.svd.ov_svd`). V gives the directions; S only says
            which of them are silent.
        reader: reduced readers of one kind (`readers`).

    Returns:
        Scores in [0, 1]; NaN where the reader is not in a later layer than the writer.

    Raises:
        CompanionError: writers and readers of different models, devices or dtypes, or values that
            are not finite.

    >>> from th_utils.svd import ov_svd
    >>> W = AttentionWeights(*torch.randn(3, 2, 4, 16, 8), torch.randn(2, 4, 8, 16))
    >>> svd, M = ov_svd(W), W.W_V[1, 3] @ W.W_O[1, 3]
    >>> scores = component_scores(svd, readers(W, "V"))
    >>> torch.allclose(scores[0, 2, 5, 1, 3], (svd.V[0, 2, :, 5] @ M).norm() / M.norm(), atol=1e-5)
    True
    """
    checks.shape("reader", reader, 4, "layer, head, d_model, d_head")
    checks.not_empty("reader", reader)
    checks.not_empty("svd.V", svd.V)
    if svd.V.shape[:3] != reader.shape[:3]:
        raise CompanionError(
            f"writers {tuple(svd.V.shape)} and readers {tuple(reader.shape)} are of two models: "
            "expected the same layers, heads and d_model"
        )
    checks.alike(**{"svd.V": svd.V, "svd.S": svd.S, "reader": reader})
    checks.finite(**{"svd.V": svd.V, "svd.S": svd.S, "reader": reader})
    return _norms(write_directions(svd), upcast(reader), "composition scores by layer")


def write_directions(svd: HeadSVD) -> Float[Tensor, "layer head component d_model"]:
    """What each component of each head writes along, as rows of norm one; zeros of silent ones.

    Silent is a component whose singular value is not above rounding: ``s_k <= eps d_head s_1``.
    Its direction is arbitrary, and with zeros in its place it scores zero with every reader.

    >>> eye, S = torch.eye(3, 2)[None, None], torch.tensor([[[2.0, 0.0]]])
    >>> write_directions(HeadSVD(eye, S, eye))[0, 0]
    tensor([[1., 0., 0.],
            [0., 0., 0.]])
    """
    S = upcast(svd.S)
    threshold = torch.finfo(S.dtype).eps * S.shape[-1] * S.amax(dim=-1, keepdim=True)
    return upcast(svd.V).mT * (S > threshold).to(S.dtype)[..., None]


def _norms(
    writers: Float[Tensor, "layer head row d_model"],
    reader: Float[Tensor, "layer head d_model d_head"],
    progress: str,
) -> Float[Tensor, "layer head row reader_layer reader_head"]:
    """Length of every row of every writer as each later reader, of norm 1, sees it."""
    layers, heads, d_model, d_head = reader.shape
    rows = writers.shape[2]
    joined = unit(reader).transpose(1, 2).reshape(layers, d_model, heads * d_head)
    scores = reader.new_full((layers, heads, rows, layers, heads), math.nan)
    for layer in track(range(layers - 1), progress):
        written = writers[layer].reshape(heads * rows, d_model)
        for later in range(layer + 1, layers):
            parts = (written @ joined[later]).view(heads, rows, heads, d_head)
            scores[layer, :, :, later] = torch.linalg.vector_norm(parts, dim=-1)
    return scores


def unit(matrices: Float[Tensor, "*batch n m"]) -> Float[Tensor, "*batch n m"]:
    """Matrices divided by their Frobenius norms; those of zeros stay so.

    >>> unit(torch.tensor([[[3.0, 4.0]], [[0.0, 0.0]]]))[:, 0]
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    one = torch.ones((), dtype=matrices.dtype, device=matrices.device)
    # by the largest entry first: squares of very small or very large numbers leave the range
    peak = torch.maximum(matrices.amax(dim=(-2, -1)), -matrices.amin(dim=(-2, -1)))
    scaled = matrices / torch.where(peak > 0, peak, one)[..., None, None]
    # in two stages: one sum over all the squares loses a digit in float32
    rows = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    norm = torch.linalg.vector_norm(rows, dim=-2, keepdim=True)
    return scaled.div_(torch.where(norm > 0, norm, one))


def head_scores(
    scores: Float[Tensor, "layer head component reader_layer reader_head"],
    S: Float[Tensor, "layer head component"],
) -> Float[Tensor, "layer head reader_layer reader_head"]:
    """Whole-matrix composition scores from the component scores and the singular values.

    ``CS^2 = sum_k s_k^2 CS_k^2 / sum_k s_k^2``, exact for an SVD of the whole matrix: the right
    singular vectors are orthonormal, so that squared Frobenius norms add up. A head whose singular
    values are all zero scores zero.

    Raises:
        CompanionError: shapes, devices or dtypes that do not fit, or S not finite.

    >>> S, scores = torch.tensor([[[3.0, 4.0]]]), torch.tensor([1.0, 0.5]).reshape(1, 1, 2, 1, 1)
    >>> math.isclose(head_scores(scores, S).item(), (9 * 1 + 16 / 4) ** 0.5 / 5, rel_tol=1e-6)
    True
    """
    checks.shape("scores", scores, 5, "layer, head, component, reader_layer, reader_head")
    checks.not_empty("scores", scores)
    checks.shape("S", S, tuple(scores.shape[:3]), f"beside scores {tuple(scores.shape)}")
    checks.alike(scores=scores, S=S)
    checks.finite(S=S)
    share = unit(upcast(S)[..., None]).squeeze(-1) ** 2
    return torch.einsum("lhkmn,lhk->lhmn", upcast(scores) ** 2, share).sqrt()


def composition_scores(
    weights: AttentionWeights,
    kinds: Sequence[Kind] = KINDS,
    *,
    offsets: Sequence[int] = OFFSETS,
) -> Float[Tensor, "kind layer head reader_layer reader_head"]:
    """Whole-head scores of every pair of heads, for each kind in the order given.

    ``CS = |W_OV M|_F / (|W_OV|_F |M|_F)`` (Elhage et al. 2021). The same numbers as `head_scores`
    of `component_scores`, without a decomposition of the writers.

    Args:
        weights: folded attention weights.
        kinds: of composition, such as ``KINDS``, ``"QK"`` or ``["V"]``.
        offsets: for rotary models, see `readers`.

    Returns:
        Scores in [0, 1]; NaN where the reader is not in a later layer than the writer.

    Raises:
        CompanionError: see `readers`; or no kind at all.

    >>> W = AttentionWeights(*torch.randn(3, 2, 4, 16, 8), torch.randn(2, 4, 8, 16))
    >>> writer, M = W.W_V[0, 1] @ W.W_O[0, 1], W.W_Q[1, 3] @ W.W_K[1, 3].T
    >>> found = composition_scores(W, "QK")[0, 0, 1, 1, 3]
    >>> torch.allclose(found, (writer @ M).norm() / (writer.norm() * M.norm()), atol=1e-5)
    True
    """
    if len(kinds) == 0:
        raise CompanionError("kinds is empty: expected at least one of Q, K and V")
    _check_weights(weights, kinds, offsets)
    with one_thread():
        R_V = torch.linalg.qr(upcast(weights.W_V), mode="r").R
    writers = unit(per_head(weights, R_V) @ upcast(weights.W_O))
    layers, heads = weights.n_layers, weights.n_heads
    scores = writers.new_empty((len(kinds), layers, heads, layers, heads))
    for at, kind in enumerate(kinds):
        with one_thread():
            reader = _readers(weights, kind, offsets)
        rows = _norms(writers, reader, f"{kind} composition by layer")
        scores[at] = torch.linalg.vector_norm(rows, dim=2)
    return scores


def ceiling(reader: Float[Tensor, "d_model d_head"]) -> float:
    """The largest score that any write direction can have with one reduced reader.

    It is the reader's largest singular value over its Frobenius norm: 1 only for a reader of rank
    one, 1/8 for one of rank 64 that reads 64 directions equally, 0 for one that reads nothing. A
    number for people, on the host.

    Raises:
        CompanionError: no matrix, an empty one, or values that are not finite.

    >>> ceiling(torch.eye(100, 64))
    0.125
    """
    checks.shape("reader", reader, 2, "d_model, d_head")
    checks.not_empty("reader", reader)
    checks.alike(reader=reader)
    checks.finite(reader=reader)
    return float(torch.linalg.svdvals(unit(upcast(reader)))[0])


def z_scores(
    scores: Float[Tensor, "sender_layer sender *rest"],
) -> Float[Tensor, "sender_layer sender *rest"]:
    """Standard scores over everything that could have written to the reader.

    `scores` are those of one reader (any further axes, NaN where nothing can be written); mean
    and standard deviation run over all finite entries, and equal scores give zeros. The
    normalisation is our reconstruction: the paper's own is not known.

    Raises:
        CompanionError: fewer than two finite scores.

    >>> z_scores(torch.tensor([[1.0, 2.0, 3.0, math.nan]]))
    tensor([[-1.,  0.,  1., nan]])
    """
    checks.alike(scores=scores)
    scores = upcast(scores)
    finite = torch.isfinite(scores)
    n = finite.sum()
    if n < 2:  # the one wait for the device
        raise CompanionError(
            f"scores of shape {tuple(scores.shape)}: a reader without at least two writers before "
            "it has no z-scores"
        )
    apart = scores - scores.where(finite, 0).sum() / n
    deviation = (apart.where(finite, 0).square().sum() / (n - 1)).sqrt()
    return apart / deviation.where(deviation > 0, 1)
