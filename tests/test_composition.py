"""Composition scores, against the dense textbook formula in float64."""

from __future__ import annotations

import inspect
import json
import math

import pytest
import torch
from textbook import composition, ov, random_weights, reader

from th_utils import models
from th_utils.composition import (
    KINDS,
    OFFSETS,
    ceiling,
    component_scores,
    head_scores,
    random_level,
    readers,
    z_scores,
)
from th_utils.errors import CompanionError
from th_utils.svd import HeadSVD, ov_svd
from th_utils.weights import AttentionWeights, Rotary, from_bridge

ROTARY = Rotary(base=100.0, dims=4)
VARIANTS = {
    "plain": {},
    "grouped": {"heads": 6, "kv_heads": 2},
    "rotary": {"rotary": ROTARY},
    "grouped rotary": {"heads": 6, "kv_heads": 3, "rotary": ROTARY},
}


@pytest.fixture(params=VARIANTS)
def weights(request) -> AttentionWeights:
    return random_weights(7, **VARIANTS[request.param])


def scores(weights: AttentionWeights, kind: str, **how) -> tuple[torch.Tensor, torch.Tensor]:
    """Component and whole-head scores of one kind."""
    svd = ov_svd(weights)
    components = component_scores(svd, readers(weights, kind, **how))
    return components, head_scores(components, svd.S)


def pairs(weights: AttentionWeights) -> list[tuple[int, int, int, int]]:
    """Every head with every head of every later layer."""
    layers, heads = range(weights.n_layers), range(weights.n_heads)
    return [(a, h, b, g) for a in layers for b in layers if a < b for h in heads for g in heads]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("offset", [0, 3])
def test_whole_heads_score_as_the_textbook_says(weights, kind, offset):
    _, found = scores(weights, kind, offsets=(offset,))
    for a, h, b, g in pairs(weights):
        expected = composition(ov(weights, a, h), reader(weights, kind, b, g, offset))
        assert float(found[a, h, b, g]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("offset", [0, 3])
def test_components_score_as_rank_one_heads_would(weights, kind, offset):
    found, _ = scores(weights, kind, offsets=(offset,))
    for a, h, b, g in pairs(weights):
        U, S, Vh = torch.linalg.svd(ov(weights, a, h))
        for k in range(weights.d_head):
            rank_one = S[k] * U[:, k, None] * Vh[k]
            expected = composition(rank_one, reader(weights, kind, b, g, offset))
            assert float(found[a, h, k, b, g]) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("kind", ["Q", "K"])
@pytest.mark.parametrize("variant", ["rotary", "grouped rotary"])
def test_several_offsets_give_the_root_mean_square(variant, kind):
    """Product and reader norm are averaged apart, both squared, over the offsets."""
    weights, offsets = random_weights(8, **VARIANTS[variant]), (0, 2, 5, 11)
    found, whole = scores(weights, kind, offsets=offsets)
    svd = ov_svd(weights)
    for a, h, b, g in pairs(weights):
        matrices = [reader(weights, kind, b, g, offset) for offset in offsets]
        norm = torch.stack([m.norm().square() for m in matrices]).mean().sqrt()
        for k in range(weights.d_head):
            products = [(svd.V[a, h, :, k] @ m).norm().square() for m in matrices]
            expected = torch.stack(products).mean().sqrt() / norm
            assert float(found[a, h, k, b, g]) == pytest.approx(float(expected), abs=1e-12)
        writer = ov(weights, a, h)
        products = torch.stack([(writer @ m).norm().square() for m in matrices]).mean().sqrt()
        expected = products / (writer.norm() * norm)
        assert float(whole[a, h, b, g]) == pytest.approx(float(expected), abs=1e-12)


def test_offsets_are_those_of_a_sentence_or_two_by_default():
    weights = random_weights(8, rotary=ROTARY)
    assert torch.equal(readers(weights, "Q"), readers(weights, "Q", offsets=OFFSETS))
    assert not torch.allclose(
        scores(weights, "Q")[1], scores(weights, "Q", offsets=(0,))[1], equal_nan=True
    )


@pytest.mark.parametrize("kind", KINDS)
def test_offsets_do_not_matter_without_rotary(kind):
    weights = random_weights(8)
    assert torch.equal(readers(weights, kind), readers(weights, kind, offsets=(4,)))


@pytest.mark.parametrize("kind", KINDS)
def test_readers_have_the_gram_matrix_of_the_dense_reader(weights, kind):
    """Of the one reader there is without rotary embedding, of the mean over offsets with it."""
    offsets = (0, 3, 8)
    found = readers(weights, kind, offsets=offsets)
    for layer in range(weights.n_layers):
        for head in range(weights.n_heads):
            dense = [reader(weights, kind, layer, head, offset) for offset in offsets]
            F = found[layer, head]
            torch.testing.assert_close(F @ F.T, torch.stack([m @ m.T for m in dense]).mean(0))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_written_to_the_same_or_an_earlier_layer(weights, kind):
    components, heads = scores(weights, kind)
    layer = torch.arange(weights.n_layers)
    for found, later in (
        (components, (layer[:, None] < layer)[:, None, None, :, None].expand_as(components)),
        (heads, (layer[:, None] < layer)[:, None, :, None].expand_as(heads)),
    ):
        assert torch.equal(torch.isfinite(found), later)
        assert found[later].min() >= 0 and found[later].max() <= 1 + 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_squares_over_a_complete_basis_sum_to_one(weights, kind):
    layers, heads, d_model, d_head = weights.W_Q.shape
    generator = torch.Generator().manual_seed(0)
    square = torch.randn(layers, heads, d_model, d_model, generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(square).Q
    complete = HeadSVD(basis, torch.ones(layers, heads, d_model, dtype=torch.float64), basis)
    found = component_scores(complete, readers(weights, kind))
    total = found.square().sum(dim=2)
    later = torch.isfinite(total)
    assert later.any()
    torch.testing.assert_close(total[later], torch.ones_like(total[later]))
    # hence the level that a random direction has, in the root mean square
    mean = found.square().mean(dim=2)[later].sqrt()
    torch.testing.assert_close(mean, torch.full_like(mean, random_level(d_model)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_component_scores_at_most_what_the_best_direction_does(weights, kind):
    found, _ = scores(weights, kind, offsets=(2,))
    for b in range(1, weights.n_layers):
        for g in range(weights.n_heads):
            dense = reader(weights, kind, b, g, 2)
            bound = float(torch.linalg.matrix_norm(dense, 2) / dense.norm())
            assert float(found[:b, :, :, b, g].max()) <= bound + 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_channel_is_found(kind):
    """A writer's component laid along what a reader reads best scores the upper bound."""
    weights = random_weights(9, d_model=40)
    dense = reader(weights, kind, 2, 1)
    U, S, _ = torch.linalg.svd(dense)
    best, found_in = U[:, 0], torch.linalg.qr(weights.W_O[0, 3].T).Q
    rest = found_in[:, 1:] - best[:, None] * (best @ found_in[:, 1:])
    rest = torch.linalg.qr(rest).Q
    weights.W_O[0, 3] = torch.cat([best[None], 0.1 * rest.T])
    components, _ = scores(weights, kind)
    of_reader = components[:2, :, :, 2, 1]
    where = divmod(int(of_reader.argmax()), weights.d_head)
    assert where[0] == 3  # layer 0, head 3
    near = (ov_svd(weights).V[0, 3, :, where[1]] @ best).abs()
    assert float(near) > 0.95
    assert float(of_reader.max()) == pytest.approx(float(S[0] / S.norm()), rel=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_scale_does_not_matter(weights, kind):
    louder = AttentionWeights(
        3.0 * weights.W_Q, 0.1 * weights.W_K, 7.0 * weights.W_V, 0.3 * weights.W_O, weights.rotary
    )
    for found, expected in zip(scores(louder, kind), scores(weights, kind), strict=True):
        torch.testing.assert_close(found, expected, equal_nan=True)


@pytest.mark.parametrize("kind", KINDS)
def test_the_residual_basis_does_not_matter(weights, kind):
    generator = torch.Generator().manual_seed(1)
    basis = torch.linalg.qr(torch.randn(20, 20, generator=generator, dtype=torch.float64)).Q
    turned = AttentionWeights(
        basis @ weights.W_Q,
        basis @ weights.W_K,
        basis @ weights.W_V,
        weights.W_O @ basis.T,
        weights.rotary,
    )
    for found, expected in zip(scores(turned, kind), scores(weights, kind), strict=True):
        torch.testing.assert_close(found, expected, equal_nan=True, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_the_head_score_is_the_weighted_mean_of_its_components(weights, kind):
    components, heads = scores(weights, kind)
    S = ov_svd(weights).S
    for a, h, b, g in pairs(weights):
        share = S[a, h].square() / S[a, h].square().sum()
        expected = (components[a, h, :, b, g].square() * share).sum().sqrt()
        torch.testing.assert_close(heads[a, h, b, g], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_transformer_lens_scores_whole_heads_alike(tiny_gpt2, kind):
    """A second implementation; GPT-2 only, since theirs knows no rotary embedding."""
    bridge = models.load(tiny_gpt2)
    _, found = scores(from_bridge(bridge), kind)
    theirs = bridge.all_composition_scores(kind)  # [layer, head, layer, head], 0 where not later
    later = torch.isfinite(found)
    assert later.any() and theirs[~later].abs().max() == 0
    torch.testing.assert_close(found[later], theirs[later].detach(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_float32_is_near_float64(kind):
    weights = random_weights(10, d_model=64, d_head=8)
    _, found = scores(weights.to(torch.float32), kind)
    _, expected = scores(weights, kind)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, equal_nan=True, atol=1e-6, rtol=0)


def test_progress_counts_the_layers_that_write(tmp_path, monkeypatch):
    monkeypatch.setenv("TH_PROGRESS", str(tmp_path / "progress"))
    weights = random_weights(0)
    component_scores(ov_svd(weights), readers(weights, "V"))
    last = (tmp_path / "progress").read_text().splitlines()[-1]
    assert json.loads(last) == {"desc": "composition scores by layer", "n": 2, "total": 2}


def test_what_is_refused():
    with pytest.raises(CompanionError, match="kind 'W' is unknown: Q, K or V"):
        inspect.unwrap(readers)(random_weights(0), "W")  # its annotation would refuse it first
    weights = random_weights(0, rotary=ROTARY)
    with pytest.raises(CompanionError, match="offsets"):
        readers(weights, "Q", offsets=())
    with pytest.raises(CompanionError, match="offsets"):
        readers(weights, "K", offsets=(-1, 2))
    other = random_weights(0, d_model=24)
    with pytest.raises(CompanionError, match="two models"):
        component_scores(ov_svd(other), readers(weights, "V"))


@pytest.mark.parametrize("kind", KINDS)
def test_ceiling_is_what_the_dense_readers_best_direction_scores(weights, kind):
    reduced = readers(weights, kind, offsets=(2,))
    for layer in range(weights.n_layers):
        for head in range(weights.n_heads):
            dense = reader(weights, kind, layer, head, 2)
            U, S, _ = torch.linalg.svd(dense)
            found = ceiling(reduced[layer, head])
            assert found == pytest.approx(float(S[0] / S.norm()), abs=1e-12)
            assert found == pytest.approx(float((U[:, 0] @ dense).norm() / dense.norm()))


def test_ceiling_of_flat_readers_and_of_rank_one():
    """The fewer directions a reader reads, the higher a single one can score."""
    generator = torch.Generator().manual_seed(2)
    basis = torch.linalg.qr(torch.randn(100, 64, generator=generator, dtype=torch.float64)).Q
    assert ceiling(3.0 * basis) == pytest.approx(1 / 8)
    assert ceiling(basis[:, :4]) == pytest.approx(1 / 2)
    assert ceiling(torch.outer(basis[:, 0], torch.arange(1.0, 9.0).double())) == pytest.approx(1)


@pytest.mark.parametrize("d_model", [64, 576, 768])
def test_random_level(d_model):
    assert random_level(d_model) == pytest.approx(1 / math.sqrt(d_model))


def test_z_scores_run_over_what_can_write():
    weights = random_weights(11)
    components, _ = scores(weights, "Q")
    of_reader = components[..., 2, 1]  # every component of every head, for one reader
    found = z_scores(of_reader)
    assert torch.equal(torch.isnan(found), torch.isnan(of_reader))
    finite = torch.isfinite(found)
    assert finite.sum() == 2 * weights.n_heads * weights.d_head
    assert found[finite].mean().abs() < 1e-12
    assert found[finite].std() == pytest.approx(1.0)
    expected = (of_reader[0, 3, 2] - of_reader[:2].mean()) / of_reader[:2].std()
    torch.testing.assert_close(found[0, 3, 2], expected)
    with pytest.raises(CompanionError, match="at least two writers"):
        z_scores(components[..., 0, 1])
