"""How exact the weight kernels are, on the shapes of GPT-2, GPT-NeoX and Llama.

The reference is `textbook`: dense d_model x d_model matrices in float64, made from the very weights
that the kernel is given (rounded ones where they are of lower precision). The bounds, relative to
a matrix's largest singular value unless said otherwise:

===============  ========  ========
                 float32   float64
===============  ========  ========
singular values  5e-6      1e-12
reconstruction   1e-5      1e-12     largest entry, and Frobenius norm against the matrix's own
orthonormality   1e-5      1e-12     largest entry of V^T V - 1
scores           1e-6      1e-12     absolute
===============  ========  ========
"""

from __future__ import annotations

import pytest
import torch
from textbook import FAMILIES, component, composition, family, ov, qk, reader
from torch import Tensor

from th_utils.composition import (
    KINDS,
    component_scores,
    composition_scores,
    head_scores,
    readers,
)
from th_utils.svd import HeadSVD, factored_svd, ov_svd, qk_svd
from th_utils.weights import AttentionWeights

VALUES = {torch.float32: 5e-6, torch.float64: 1e-12}
RECONSTRUCTION = {torch.float32: 1e-5, torch.float64: 1e-12}
SCORES = {torch.float32: 1e-6, torch.float64: 1e-12}
# Two distances between query and key, and a set of them for the averaged readers.
OFFSETS = {"one": (3,), "several": (1, 2, 8, 40)}


@pytest.fixture(scope="module", params=FAMILIES)
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module", params=list(VALUES), ids=["fp32", "fp64"])
def dtype(request) -> torch.dtype:
    return request.param


@pytest.fixture(scope="module")
def weights(name, dtype) -> AttentionWeights:
    return family(name, dtype=dtype)


@pytest.fixture(scope="module")
def svd(weights) -> HeadSVD:
    return ov_svd(weights)


def some_heads(weights: AttentionWeights) -> list[tuple[int, int]]:
    """The first and the last head, of different layers and key/value groups."""
    return [(0, 0), (weights.n_layers - 1, weights.n_heads - 1)]


def assert_decomposes(parts: tuple[Tensor, Tensor, Tensor], dense: Tensor, dtype) -> None:
    """Singular values, reconstruction, orthonormality, order and signs."""
    assert all(part.dtype == dtype for part in parts)
    U, S, V = (part.double() for part in parts)
    expected = torch.linalg.svdvals(dense)[: len(S)]
    largest = expected[0]
    assert (S - expected).abs().max() <= VALUES[dtype] * largest
    assert (S.diff() <= 0).all() and S[-1] >= 0
    apart = U @ torch.diag(S) @ V.T - dense
    assert apart.abs().max() <= RECONSTRUCTION[dtype] * largest
    assert apart.norm() <= RECONSTRUCTION[dtype] * dense.norm()
    for vectors in (U, V):
        off = vectors.T @ vectors - torch.eye(len(S), dtype=torch.float64)
        assert off.abs().max() <= RECONSTRUCTION[dtype]
    ends = V.amax(dim=0), -V.amin(dim=0)
    assert (ends[0] >= ends[1] * (1 - 1e-6)).all()  # the sign rule, but for ties


def test_ov_svd(weights, svd, dtype):
    for layer, head in some_heads(weights):
        parts = tuple(part[layer, head] for part in (svd.U, svd.S, svd.V))
        assert_decomposes(parts, ov(weights, layer, head), dtype)


@pytest.mark.parametrize("offset", [0, 1, 700])
def test_qk_svd(weights, dtype, offset):
    if weights.rotary is None and offset:
        pytest.skip("without rotary embedding there is one QK form")
    found = qk_svd(weights, offset=offset)
    for layer, head in some_heads(weights):
        parts = tuple(part[layer, head] for part in (found.U, found.S, found.V))
        assert_decomposes(parts, qk(weights, layer, head, offset), dtype)


def test_factored_svd(weights, dtype):
    parts = factored_svd(weights.W_V[1], weights.W_O[1, : weights.W_V.shape[1]].mT)
    dense = weights.W_V[1, -1].double() @ weights.W_O[1, weights.W_V.shape[1] - 1].double()
    assert_decomposes(tuple(part[-1] for part in parts), dense, dtype)


def test_vectors_span_what_the_dense_ones_do(weights, svd, dtype):
    """Where the singular values have a gap, the vectors on either side of it span one space."""
    for layer, head in some_heads(weights):
        U, S, Vh = torch.linalg.svd(ov(weights, layer, head))
        gaps = (S[:63] - S[1:64]) / S[0]
        cut = int(gaps[3:].argmax()) + 4  # the widest beyond the first few
        for found, expected in ((svd.U, U), (svd.V, Vh.T)):
            V = found[layer, head, :, :cut].double()
            outside = V - expected[:, :cut] @ (expected[:, :cut].T @ V)
            sine = torch.linalg.matrix_norm(outside, 2)  # of the largest angle between the spaces
            assert sine <= VALUES[dtype] / gaps[cut - 1]


def skip_repetition(weights: AttentionWeights, kind: str, offsets: str) -> None:
    if offsets == "several" and (weights.rotary is None or kind == "V"):
        pytest.skip("the offset does not matter")


def dense_readers(weights, kind: str, layer: int, head: int, offsets) -> list[Tensor]:
    offsets = offsets if weights.rotary is not None and kind != "V" else (0,)
    return [reader(weights, kind, layer, head, offset) for offset in offsets]


@pytest.mark.parametrize("offsets", OFFSETS)
@pytest.mark.parametrize("kind", KINDS)
def test_readers(weights, dtype, kind, offsets):
    """F F^T is M M^T: of the one offset, or the mean over those stated."""
    skip_repetition(weights, kind, offsets)
    found = readers(weights, kind, offsets=OFFSETS[offsets])
    assert found.dtype == dtype
    for layer, head in some_heads(weights):
        matrices = dense_readers(weights, kind, layer, head, OFFSETS[offsets])
        expected = sum(M @ M.T for M in matrices) / len(matrices)
        F = found[layer, head].double()
        assert (F @ F.T - expected).norm() <= RECONSTRUCTION[dtype] * expected.norm()


@pytest.mark.parametrize("offsets", OFFSETS)
@pytest.mark.parametrize("kind", KINDS)
def test_scores_of_components_and_of_heads(weights, svd, dtype, kind, offsets):
    """Every component of the first layer, and two of its heads, with readers of the second."""
    skip_repetition(weights, kind, offsets)
    components = component_scores(svd, readers(weights, kind, offsets=OFFSETS[offsets]))
    heads = head_scores(components, svd.S)
    direct = composition_scores(weights, kind, offsets=OFFSETS[offsets])[0]
    assert components.dtype == heads.dtype == direct.dtype == dtype
    writers = {h: ov(weights, 0, h) for h in (1, weights.n_heads - 2)}
    for g in (0, weights.n_heads - 1):
        matrices = dense_readers(weights, kind, 1, g, OFFSETS[offsets])
        expected = component(svd.V[0].double().mT, matrices)
        assert (components[0, :, :, 1, g] - expected).abs().max() <= SCORES[dtype]
        joined = torch.cat(matrices, dim=1)  # mean squares: one matrix beside the other
        for h, writer in writers.items():
            whole = composition(writer, joined)
            assert abs(float(heads[0, h, 1, g]) - whole) <= SCORES[dtype]
            assert abs(float(direct[0, h, 1, g]) - whole) <= SCORES[dtype]
    later = torch.isfinite(components)
    assert later[0, :, :, 1].all() and later.sum() == later[0, :, :, 1].sum()


def test_components_score_as_those_of_a_dense_decomposition(name):
    """In float32 too, as far as the vectors are determined: rounding over the gap, and 1e-6."""
    weights = family(name).to(torch.float32)
    svd = ov_svd(weights)
    _, S, Vh = torch.linalg.svd(ov(weights, 0, 0))
    S = S[:64] / S[0]
    above = torch.cat([torch.ones(1).double(), S[:-1] - S[1:]])
    below = torch.cat([S[:-1] - S[1:], S[-1:]])
    determined = 1e-6 + 2e-7 / above.minimum(below)
    assert (determined < 3e-5).sum() >= 16  # the statement is not an empty one
    for kind in KINDS:
        found = component_scores(svd, readers(weights, kind, offsets=(3,)))[0, 0, :, 1, 0]
        expected = component(Vh[:64], dense_readers(weights, kind, 1, 0, (3,)))
        assert ((found - expected).abs() <= determined).all()


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_is_upcast_and_judged_by_the_rounded_weights(name, half):
    weights = family(name, dtype=half)
    svd, turned = ov_svd(weights), qk_svd(weights, offset=2)
    assert_decomposes((svd.U[0, 0], svd.S[0, 0], svd.V[0, 0]), ov(weights, 0, 0), torch.float32)
    assert_decomposes(
        (turned.U[0, 0], turned.S[0, 0], turned.V[0, 0]), qk(weights, 0, 0, 2), torch.float32
    )
    for kind, offset in (("K", 3), ("V", 0)):
        found = composition_scores(weights, kind, offsets=(3,))
        expected = composition(ov(weights, 0, 1), reader(weights, kind, 1, 2, offset))
        assert found.dtype == torch.float32
        assert abs(float(found[0, 0, 1, 1, 2]) - expected) <= SCORES[torch.float32]
        components = component_scores(svd, readers(weights, kind, offsets=(3,)))
        expected = component(svd.V[0, 1].double().T, [reader(weights, kind, 1, 2, offset)])
        assert (components[0, 1, :, 1, 2] - expected).abs().max() <= SCORES[torch.float32]
    narrow = [part.to(half) for part in factored_svd(weights.W_V[0, 0], weights.W_O[0, 0].mT)]
    assert all(torch.isfinite(part).all() for part in narrow)


# --- heads that are hard to decompose


def conditioned(condition: float, rank: int, dtype, d_model: int = 256) -> tuple[Tensor, Tensor]:
    """Factors whose product has this condition, and is of this rank out of 64."""
    generator = torch.Generator().manual_seed(rank)

    def basis(n: int) -> Tensor:
        square = torch.randn(n, 64, generator=generator, dtype=torch.float64)
        return torch.linalg.qr(square).Q

    spectrum = torch.logspace(0, 0.5, 64, base=1 / condition, dtype=torch.float64)
    spectrum[rank:] = 0
    left, right = basis(d_model) * spectrum, basis(d_model) * spectrum
    turned = basis(64)
    return (left @ turned).to(dtype), (right @ turned).to(dtype)


@pytest.mark.parametrize("rank", [64, 5, 1, 0], ids=lambda rank: f"rank {rank}")
@pytest.mark.parametrize("condition", [1e3, 1e4])
def test_badly_conditioned_products(condition, rank, dtype):
    left, right = conditioned(condition, rank, dtype)
    dense = left.double() @ right.double().T
    parts = factored_svd(left, right)
    if rank:
        assert_decomposes(parts, dense, dtype)
    else:
        assert parts[1].abs().max() == 0
        for vectors in (parts[0], parts[2]):  # orthonormal all the same
            identity = torch.eye(64, dtype=dtype)
            assert (vectors.T @ vectors - identity).abs().max() <= RECONSTRUCTION[dtype]
    if 0 < rank < 64:
        assert parts[1][rank:].max() <= VALUES[dtype] * parts[1][0]


def hard(dtype) -> AttentionWeights:
    """Two layers of four heads: condition 1e4, rank 5 (reader: 1), silent, and an ordinary one."""
    weights = family("neox", dtype=torch.float64)
    parts = {n: getattr(weights, n)[:, :4].clone() for n in ("W_Q", "W_K", "W_V", "W_O")}
    for layer in range(2):
        left, right = conditioned(1e4, 64, torch.float64, 512)
        parts["W_V"][layer, 0], parts["W_O"][layer, 0] = left, right.T
        parts["W_Q"][layer, 0], parts["W_K"][layer, 0] = left, right
        parts["W_V"][layer, 1, :, 5:] = 0
        parts["W_Q"][layer, 1, :, 1:] = 0
        parts["W_O"][layer, 2] = 0
        parts["W_K"][layer, 2] = 0
    return AttentionWeights(**parts).to(dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_of_hard_heads(dtype, kind):
    """Exact where something is written and read, zero where nothing is, never anything else."""
    weights = hard(dtype)
    svd = ov_svd(weights)
    components = component_scores(svd, readers(weights, kind))
    heads, direct = head_scores(components, svd.S), composition_scores(weights, kind)[0]
    for h in range(4):
        for g in range(4):
            matrix = reader(weights, kind, 1, g)
            expected = composition(ov(weights, 0, h), matrix) if h != 2 and g != 2 else 0.0
            assert abs(float(heads[0, h, 1, g]) - expected) <= SCORES[dtype]
            assert abs(float(direct[0, h, 1, g]) - expected) <= SCORES[dtype]
            if g != 2:
                found = components[0, h, :, 1, g]
                written = {1: 5, 2: 0}.get(h, 64)  # components that are not silent
                expected = component(svd.V[0, h].double().T, [matrix])
                if written:
                    assert (found - expected)[:written].abs().max() <= SCORES[dtype]
                assert (found[written:] == 0).all()
    assert (components[0, :, :, 1, 2] == 0).all() and (heads[0, 2, 1] == 0).all()
    assert torch.isfinite(components[0, :, :, 1]).all()


@pytest.mark.parametrize("size", [1e-30, 1e-18, 1e18, 1e30])
def test_the_size_of_readers_and_writers_does_not_matter(size):
    """Their squares would leave the range of float32."""
    weights = family("neox", dtype=torch.float32)
    svd, reader_ = ov_svd(weights), readers(weights, "V")
    expected = component_scores(svd, reader_)
    found = component_scores(HeadSVD(svd.U, svd.S * size, svd.V), reader_ * size)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0, equal_nan=True)
    torch.testing.assert_close(
        head_scores(expected, svd.S * size), head_scores(expected, svd.S), equal_nan=True
    )


# --- identities


@pytest.mark.parametrize("kind", KINDS)
def test_squares_over_a_complete_basis_sum_to_one(weights, dtype, kind):
    d_model = weights.d_model
    generator = torch.Generator().manual_seed(0)
    square = torch.randn(d_model, d_model, generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(square).Q.to(dtype).expand(2, 1, -1, -1)
    complete = HeadSVD(basis, torch.ones(2, 1, d_model, dtype=dtype), basis)
    scores = component_scores(complete, readers(weights, kind)[:, -1:])
    total = scores[0, 0, :, 1, 0].double().square().sum()
    assert abs(float(total) - 1) <= SCORES[dtype]


def test_removing_a_component_is_projecting_the_output_matrix(weights, svd, dtype):
    """W_O (1 - v_k v_k^T) lacks component k and no other, in the SVD and in every score."""
    k = 2
    v = svd.V[..., k, None].mT  # [layer, head, 1, d_model]
    W_O = weights.W_O - (weights.W_O @ v.mT) @ v
    less = AttentionWeights(weights.W_Q, weights.W_K, weights.W_V, W_O, weights.rotary)
    rest = torch.cat([svd.S[..., :k], svd.S[..., k + 1 :]], dim=-1)
    largest = svd.S[..., :1]
    found = ov_svd(less).S
    assert ((found[..., :-1] - rest) / largest).abs().max() <= 2 * VALUES[dtype]
    assert (found[..., -1:] / largest).max() <= 2 * VALUES[dtype]
    components = component_scores(svd, readers(weights, "V"))
    kept = torch.cat([components[:, :, :k], components[:, :, k + 1 :]], dim=2)
    found = component_scores(ov_svd(less), readers(weights, "V"))[0, :, -1, 1]
    assert (found == 0).all()  # the last component is silent now
    # a V reader is an OV matrix too: change that of the writing layer alone
    W_O = torch.stack([W_O[0], weights.W_O[1]])
    writing = AttentionWeights(weights.W_Q, weights.W_K, weights.W_V, W_O, weights.rotary)
    apart = composition_scores(writing, "V")[0] - head_scores(kept, rest)
    assert apart[0, :, 1].abs().max() <= SCORES[dtype]


# --- a second implementation


def test_transformer_lens_decomposes_alike(weights, svd, dtype):
    from transformer_lens import FactoredMatrix

    for layer, head in some_heads(weights):
        kv_head = head // weights.group
        theirs = FactoredMatrix(weights.W_V[layer, kv_head], weights.W_O[layer, head]).svd()
        apart = (theirs[1] - svd.S[layer, head]).abs().max()
        assert apart <= 2 * VALUES[dtype] * svd.S[layer, head, 0]
        product = theirs[0] @ torch.diag(theirs[1]) @ theirs[2].T
        ours = svd.U[layer, head] @ torch.diag(svd.S[layer, head]) @ svd.V[layer, head].T
        assert (product - ours).abs().max() <= 2 * RECONSTRUCTION[dtype] * theirs[1][0]


@pytest.mark.parametrize("kind", KINDS)
def test_transformer_lens_scores_alike(weights, dtype, kind):
    from transformer_lens import FactoredMatrix
    from transformer_lens.utilities.matrix import composition_scores as their_scores

    ours = composition_scores(weights, kind, offsets=(3,))[0, 0, :, 1]
    grouped = [getattr(weights, n).repeat_interleave(weights.group, dim=1) for n in ("W_K", "W_V")]
    W_K, W_V = grouped
    W_Q = weights.W_Q
    if weights.rotary is not None:
        W_Q = W_Q @ weights.rotary.rotation(3, weights.d_head, dtype=dtype)
    right = {
        "Q": FactoredMatrix(W_Q[1], W_K[1].mT),
        "K": FactoredMatrix(W_K[1], W_Q[1].mT),
        "V": FactoredMatrix(W_V[1], weights.W_O[1]),
    }[kind]
    theirs = their_scores(FactoredMatrix(W_V[0], weights.W_O[0]), right)
    assert (ours - theirs).abs().max() <= SCORES[dtype]
