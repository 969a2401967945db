"""Sizes against what they are, written out; corrections against their factors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from th_utils import composition, corrections, engine, models
from th_utils.edge_sites import sites
from th_utils.pairs import Pairs
from th_utils.replay import Replay
from th_utils.svd import ov_svd
from th_utils.tasks import ioi
from th_utils.weights import from_bridge

NAMES = [c.name for c in corrections.CORRECTIONS]


@pytest.fixture(scope="module")
def bridge(tiny_model):
    return models.load(tiny_model)


@pytest.fixture(scope="module")
def model(bridge):
    return engine.from_bridge(bridge)


@pytest.fixture(scope="module")
def svd(bridge):
    return ov_svd(from_bridge(bridge))


TOKENS = torch.arange(24).view(4, 6)


def test_sizes(bridge, model, svd):
    directions = composition.write_directions(svd)
    found = corrections.sizes(model, directions, TOKENS)
    run = Replay(model).trace(TOKENS)
    out = run.z[1][:, 1:, 2] @ model.blocks[1].W_O[2]
    c = out @ svd.V[1, 2]
    assert found.activation[1, 2] == pytest.approx(c.square().mean((0, 1)).sqrt(), rel=1e-4)
    normed = model.blocks[2].norm_1(run.resid[2])[:, 1:]
    x = run.resid[2][:, 1:]
    x = x if model.blocks[2].norm_1.rms else x - x.mean(-1, keepdim=True)
    divisor = (x.norm(dim=-1) / normed.norm(dim=-1)).mean()
    assert float(found.stream[2]) == pytest.approx(float(divisor), rel=1e-4)
    name = "blocks.2.attn.hook_pattern"
    _, cache = bridge.run_with_cache(TOKENS, names_filter=[name])
    free = 1 - cache[name][:, :, 1:].square().sum(-1)
    assert found.freedom[2] == pytest.approx(free.mean((0, 2)).detach(), abs=1e-5)


@pytest.mark.parametrize("kind", ["Q", "V"])
def test_factors_at_one_pair(bridge, model, svd, kind):
    weights, pairs = from_bridge(bridge), Pairs(*svd.S.shape)
    reader = composition.readers(weights, kind, offsets=[2])
    scores = composition.component_scores(svd, reader)
    factors = corrections.weight_factors(pairs, svd, reader, scores)
    typical = corrections.sizes(model, composition.write_directions(svd), TOKENS)
    factors |= corrections.run_factors(pairs, typical)
    index = len(pairs) // 2
    ((layer, head, k, later, other),) = pairs.where(np.array([index])).tolist()
    M = reader[later, other]
    expected = {
        "score": scores[layer, head, k, later, other],
        "singular": svd.S[layer, head, k],
        "norm": M.norm(),
        "ceiling": 1 / composition.ceiling(M),
        "near": 1 / (later - layer),
        "activation": typical.activation[layer, head, k],
        "stream": 1 / typical.stream[later],
        "freedom": typical.freedom[later, other],
    }
    for name, value in expected.items():
        assert float(factors[name][index]) == pytest.approx(float(value), rel=1e-4), name
    # what the score and the reader's norm are together
    both = corrections.corrected(corrections.CORRECTIONS[NAMES.index("× reader's norm")], factors)
    assert float(both[index]) == pytest.approx(
        float((svd.V[layer, head][:, k] @ M).norm()), rel=1e-4
    )


def test_task_factor_is_the_activation_at_the_site(bridge, model, svd):
    prompts = ioi.prompts(bridge.tokenizer, 4, seed=1)
    end, s2 = prompts.positions["end"], prompts.positions["S2"]
    pairs, directions = Pairs(*svd.S.shape), composition.write_directions(svd)
    at = sites(model, prompts.tokens, [(end, end), (s2, end)])
    found = corrections.task_factor(pairs, model, directions, at)
    run, rows = Replay(model).trace(prompts.tokens), torch.arange(4)
    squares = []
    for position in (end, s2):
        out = run.z[0][rows, position, 1] @ model.blocks[0].W_O[1]
        squares.append((out @ svd.V[0, 1]).square().mean(0))
    table = torch.zeros(*svd.S.shape)
    table[0, 1] = torch.stack(squares).mean(0).sqrt()
    picked = pairs.of_writers(table)
    torch.testing.assert_close(found[picked > 0], picked[picked > 0], rtol=1e-3, atol=1e-6)


def test_corrections_are_products():
    factors = {name: torch.rand(5) for name in ("score", "singular", "norm")}
    one = corrections.Correction("x", ("score", "singular", "norm"), "weights")
    expected = factors["score"] * factors["singular"] * factors["norm"]
    torch.testing.assert_close(corrections.corrected(one, factors), expected)
    assert corrections.corrected(corrections.RAW, factors) is factors["score"]


def test_what_is_blind():
    blind = [c.name for c in corrections.CORRECTIONS if corrections.blind(c)]
    assert "raw score" in blind and len(set(NAMES)) == len(NAMES)
    assert corrections.ON_TASK.name not in blind and corrections.ON_TASK.has_score
    assert not any(name.startswith("without score") for name in blind)
