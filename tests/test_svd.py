"""Singular value decompositions of OV and QK matrices, against the dense ones in float64."""

from __future__ import annotations

import pytest
import torch
from textbook import ov, qk, random_weights

from th_utils.errors import CompanionError
from th_utils.svd import HeadSVD, factored_svd, ov_svd, qk_svd
from th_utils.weights import AttentionWeights, Rotary

ROTARY = Rotary(base=100.0, dims=4)
VARIANTS = {
    "plain": {},
    "grouped": {"heads": 6, "kv_heads": 2},
    "rotary": {"rotary": ROTARY},
    "grouped rotary": {"heads": 6, "kv_heads": 3, "rotary": ROTARY},
}
TOLERANCE = {torch.float32: 5e-6, torch.float64: 1e-12}


@pytest.fixture(params=VARIANTS)
def variant(request) -> dict:
    return VARIANTS[request.param]


def heads_of(weights: AttentionWeights) -> list[tuple[int, int]]:
    return [(layer, h) for layer in range(weights.n_layers) for h in range(weights.n_heads)]


def assert_is_svd(found: HeadSVD, layer: int, head: int, dense: torch.Tensor, tol: float) -> None:
    """Singular values, reconstruction, orthonormality, order and signs of one head."""
    U, S, V = (part[layer, head].double() for part in (found.U, found.S, found.V))
    rank = S.numel()
    expected = torch.linalg.svd(dense).S
    scale = expected[0]
    assert (S - expected[:rank]).abs().max() <= tol * scale
    assert expected[rank:].max() <= 1e-10 * scale  # there was nothing more to find
    assert (U @ torch.diag(S) @ V.T - dense).abs().max() <= 2 * tol * scale
    identity = torch.eye(rank, dtype=torch.float64)
    for vectors in (U, V):
        assert (vectors.T @ vectors - identity).abs().max() <= 2 * tol
    assert (S.diff() <= 0).all()
    largest = V.abs().argmax(dim=0)
    assert (V[largest, torch.arange(rank)] > 0).all()


def cosines(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Absolute cosines of corresponding singular vectors."""
    return (first * second).sum(dim=-2).abs()


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("seed", range(3))
def test_ov_is_the_svd_of_the_product(variant, dtype, seed):
    weights = random_weights(seed, dtype=dtype, **variant)
    found = ov_svd(weights)
    assert found.S.dtype == dtype
    for layer, head in heads_of(weights):
        assert_is_svd(found, layer, head, ov(weights, layer, head), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("offset", [0, 1, 7])
def test_qk_is_the_svd_of_the_product(variant, dtype, offset):
    weights = random_weights(3, dtype=dtype, **variant)
    found = qk_svd(weights, offset=offset)
    for layer, head in heads_of(weights):
        assert_is_svd(found, layer, head, qk(weights, layer, head, offset), TOLERANCE[dtype])


def test_offset_matters_to_rotary_models_only():
    plain, turned = random_weights(0), random_weights(0, rotary=ROTARY)
    assert torch.equal(qk_svd(plain, offset=5).S, qk_svd(plain).S)
    assert torch.equal(qk_svd(turned).S, qk_svd(plain).S)
    assert not torch.allclose(qk_svd(turned, offset=5).S, qk_svd(turned).S)


def test_a_query_never_precedes_its_key():
    with pytest.raises(CompanionError, match="offset -1"):
        qk_svd(random_weights(0, rotary=ROTARY), offset=-1)


@pytest.mark.parametrize("factor", [0.25, 4.0])
def test_scaling_a_factor_scales_the_singular_values_alone(variant, factor):
    weights = random_weights(1, **variant)
    louder = AttentionWeights(
        weights.W_Q, weights.W_K, weights.W_V, factor * weights.W_O, weights.rotary
    )
    before, after = ov_svd(weights), ov_svd(louder)
    torch.testing.assert_close(after.S, factor * before.S)
    torch.testing.assert_close(after.U, before.U)
    torch.testing.assert_close(after.V, before.V)


@pytest.mark.parametrize("seed", range(3))
def test_turning_the_residual_basis_turns_the_vectors(variant, seed):
    weights = random_weights(seed, **variant)
    generator = torch.Generator().manual_seed(seed)
    square = torch.randn(20, 20, generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(square).Q
    turned = AttentionWeights(
        basis @ weights.W_Q,
        basis @ weights.W_K,
        basis @ weights.W_V,
        weights.W_O @ basis.T,
        weights.rotary,
    )
    for decompose in (ov_svd, qk_svd):
        before, after = decompose(weights), decompose(turned)
        torch.testing.assert_close(after.S, before.S)
        for name in ("U", "V"):
            expected = basis @ getattr(before, name)
            assert cosines(getattr(after, name), expected).min() > 1 - 1e-9
        # the sign is a joint one: it cancels in U V^T
        torch.testing.assert_close(
            after.U @ torch.diag_embed(after.S) @ after.V.mT,
            basis @ before.U @ torch.diag_embed(before.S) @ before.V.mT @ basis.T,
        )


def test_signs_do_not_depend_on_those_of_the_weights(variant):
    """Two factors negated, or one with its counterpart: the same product, the same vectors."""
    weights = random_weights(2, **variant)
    flipped = AttentionWeights(
        -weights.W_Q, -weights.W_K, -weights.W_V, -weights.W_O, weights.rotary
    )
    for decompose in (ov_svd, qk_svd):
        before, after = decompose(weights), decompose(flipped)
        torch.testing.assert_close(after.U, before.U)
        torch.testing.assert_close(after.V, before.V)


def test_same_on_a_second_call_and_nearly_so_on_two_threads():
    weights = random_weights(4, d_model=96, d_head=16, dtype=torch.float32)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        first, again = ov_svd(weights), ov_svd(weights)
        torch.set_num_threads(2)
        parallel = ov_svd(weights)
    finally:
        torch.set_num_threads(threads)
    for name in ("U", "S", "V"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert (parallel.S - first.S).abs().max() <= 5e-6 * first.S.max()
    # vectors are determined up to rotation among near-equal singular values: leave those out
    gap = (first.S[..., :-1] - first.S[..., 1:]) / first.S[..., :1]
    apart = torch.nn.functional.pad(gap, (1, 0), value=1.0).minimum(
        torch.nn.functional.pad(gap, (0, 1), value=1.0)
    )
    for name in ("U", "V"):
        near = cosines(getattr(parallel, name), getattr(first, name))
        assert near[apart > 0.01].min() > 1 - 1e-5


@pytest.mark.parametrize("shape", [(6, 4, 3), (5, 9, 5), (7, 7, 1)])
def test_factors_of_any_shape(shape):
    d_in, d_out, rank = shape
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(2, d_in, rank, generator=generator, dtype=torch.float64)
    right = torch.randn(2, d_out, rank, generator=generator, dtype=torch.float64)
    U, S, V = factored_svd(left, right)
    torch.testing.assert_close(U @ torch.diag_embed(S) @ V.mT, left @ right.mT)
    torch.testing.assert_close(S, torch.linalg.svdvals(left @ right.mT)[..., :rank])


def test_a_rank_beyond_the_matrix_is_refused():
    with pytest.raises(CompanionError, match="rank 5 exceeds"):
        factored_svd(torch.zeros(4, 5), torch.zeros(9, 5))


def test_a_silent_head_has_no_singular_values():
    """A head of zeros (pruned) gives zeros, and no NaN."""
    weights = random_weights(5)
    weights.W_O[1, 2] = 0
    found = ov_svd(weights)
    assert found.S[1, 2].abs().max() == 0
    assert all(torch.isfinite(getattr(found, name)).all() for name in ("U", "S", "V"))
