"""Tables of chapter 05, of made-up effects and of a small model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from th_utils import models, sites, writer_tables, writers
from th_utils.bootstrap import rank_correlation
from th_utils.components import ratio
from th_utils.roles import ROLES, Roles
from th_utils.svd import ov_svd
from th_utils.tasks import ioi
from th_utils.weights import from_bridge
from th_utils.writer_effects import PairEffects
from th_utils.writers import Pair


def made_up(kind="V", writer=(0, 1), reader=(1, 2), *, strength=1.0, seed=0, rank=8) -> PairEffects:
    """Component 5 does most and scores highest; effects grow with scores, signs take turns."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.arange(rank, dtype=torch.float32) / 20
    scores[5] = 0.9
    signs = torch.tensor([1.0, -1.0]).repeat(rank // 2)
    signs[5] = 1
    effects = signs * scores + 1e-4 * torch.randn(6, rank, generator=generator)
    facing = scores.flip(0) if kind == "V" else None
    return PairEffects(
        pair=Pair(kind, writer, reader, scores, facing),
        order=[5, 6, *(k for k in range(rank) if k not in (5, 6))],
        strength=strength,
        clean=torch.full((6,), 4.0),
        effects=effects,
        whole=effects.sum(1),
        random=0.01 * torch.randn(6, 40, generator=generator),
    )


def test_pairs_drawn_are_the_strongest():
    all_of = [made_up(strength=s) for s in (0.5, -2.0, 3.0, 1.0)]
    assert [e.strength for e in writer_tables.strongest(all_of, 2)] == [3.0, 1.0]
    rows = ([0.1, 0.5], [0.4, 0.4], [0.9, 0.0])
    pairs = [Pair("K", (0, 1), (1, 2), torch.tensor(row), None) for row in rows]
    found = writer_tables.highest(pairs, 2)
    assert [float(p.scores.max()) for p in found] == pytest.approx([0.9, 0.5])


@pytest.mark.parametrize("kind", ["V", "K"])
def test_panels_table(kind):
    one, two = made_up(kind), made_up(kind, (0, 3), (2, 0), seed=1)
    table = writer_tables.panels_table([one, two])
    assert table["writer"] == ["0.1"] * 8 + ["0.3"] * 8
    assert table["reader"] == ["1.2"] * 8 + ["2.0"] * 8
    assert table["component"] == [*range(8)] * 2
    assert [k for k in range(8) if table["picked"][k]] == [5, 6]
    unit = 4.0 if kind == "V" else 1.0
    for i, (e, k) in enumerate([(e, k) for e in (one, two) for k in range(8)]):
        assert table["effect"][i] == pytest.approx(float(e.effects[:, k].mean()) / unit)
        assert table["composition"][i] == pytest.approx(float(e.pair.scores[k]))
        means = e.random.mean(0).double().numpy() / unit
        assert table["random_low"][i] == pytest.approx(np.quantile(means, 0.025))
        assert table["random_high"][i] == pytest.approx(np.quantile(means, 0.975))
        facing = None if kind == "K" else pytest.approx(float(e.pair.facing[k]))
        assert table["facing"][i] == facing


def test_panels_of_weights_alone():
    table = writer_tables.panels_table([made_up().pair])
    assert table["effect"] == table["random_low"] == table["random_high"] == [None] * 8
    assert table["picked"] == [False] * 8
    assert table["composition"][5] == pytest.approx(0.9)


def test_agreement_of_planted_effects():
    """Sizes are compared, whatever the sign."""
    both = [made_up(), made_up("V", (0, 3), (2, 0), seed=1)]
    interval, rows = writer_tables.agreement(both, seed=0, shuffles=200)
    assert interval.value > 0.95 and interval.low <= interval.value <= interval.high
    assert rows["writer"] == ["0.1", "0.3"] and rows["reader"] == ["1.2", "2.0"]
    assert rows["best"] == rows["first"] == [5, 5] and rows["coincide"] == [True, True]
    assert np.mean(rows["rho"]) == pytest.approx(interval.value, abs=1e-6)
    assert max(rows["p"]) < 0.05
    for e, facing, order in zip(both, rows["facing"], rows["order"], strict=True):
        size = e.effects.mean(0).abs().double().numpy()
        expected = rank_correlation(e.pair.facing.double().numpy(), size)
        assert facing == pytest.approx(float(expected)) and facing < 0
        assert order == pytest.approx(float(rank_correlation(-np.arange(8.0), size)))


def test_agreement_says_when_there_is_none():
    e = made_up("K")
    turned = replace(e, pair=replace(e.pair, scores=e.pair.scores.flip(0)))
    interval, rows = writer_tables.agreement([turned], seed=0, shuffles=200)
    assert interval.value < 0.3 and rows["p"][0] > 0.1
    assert rows["best"] == [2] and rows["first"] == [5] and rows["coincide"] == [False]
    assert rows["facing"] == [None]


# --- everyone


def test_everyone_that_writes(tiny_model):
    bridge = models.load(tiny_model)
    at = sites.sites(bridge, ioi.prompts(bridge.tokenizer, 8, seed=5), entering=1)
    roles = Roles("measured", {role: [] for role in ROLES} | {"duplicate-token": [(0, 1)]})
    seen = [
        writers.value_input(bridge, at, ov_svd(from_bridge(bridge)), (2, 2), 0, 1.0),
        writers.key_input(bridge, at, (1, 3)),
    ]
    heads = bridge.cfg.n_heads
    table = writer_tables.everyone(bridge, at, seen, roles, seed=0, n=99)
    counts = [1 + 2 * (heads + 1), 1 + heads + 1]
    assert table["kind"] == ["V"] * counts[0] + ["K"] * counts[1]
    assert table["of"] == [counts[0]] * counts[0] + [counts[1]] * counts[1]
    assert table["rank"] == [*range(1, counts[0] + 1), *range(1, counts[1] + 1)]
    assert table["reader"] == ["2.2"] * counts[0] + ["1.3"] * counts[1]
    sizes = np.abs(table["mean"][: counts[0]])
    assert (np.diff(sizes) <= 1e-12).all()
    row = next(i for i in range(counts[0]) if table["name"][i] == "0.1")
    assert table["role"][row] == "duplicate-token"
    fall = seen[0].fall(-writers.outputs(bridge, at, "V", (0, 1))[:, None])[:, 0]
    expected = ratio(ioi.pair_means(fall), ioi.pair_means(seen[0].clean), seed=0)
    found = [table[end][row] for end in ("mean", "low", "high")]
    assert found == pytest.approx(list(expected), rel=1e-3, abs=1e-4)
    by_key = [i for i, kind in enumerate(table["kind"]) if kind == "K"]
    assert max(table["high"][i] for i in by_key) <= 1, "no more attention goes than there is"
    few = writer_tables.everyone(bridge, at, seen, roles, seed=0, n=3)
    assert few["name"] == table["name"][:3] + table["name"][counts[0] : counts[0] + 3]


def test_what_is_written_adds_up(tiny_model):
    bridge = models.load(tiny_model)
    at = sites.sites(bridge, ioi.prompts(bridge.tokenizer, 8, seed=5), entering=1)
    roles = Roles("measured", {role: [] for role in ROLES})
    seen = writers.key_input(bridge, at, (2, 0))
    names, written = writer_tables._written(bridge, at, seen, roles)
    assert written.shape[1] == len(names) and ("MLP 1", "other") in names
    biases = sum(
        bridge.blocks[layer].attn.b_O.detach()
        for layer in range(2)
        if getattr(bridge.blocks[layer].attn, "b_O", None) is not None
    )
    torch.testing.assert_close(written.sum(1) + biases, at.resid["S1+1"][2], atol=1e-4, rtol=1e-4)
    _, cache = bridge.run_with_cache(at.run.prompts.tokens)
    mlp = cache["blocks.1.hook_mlp_out"][torch.arange(8), at.run.prompts.positions["S1+1"]]
    at_mlp = names.index(("MLP 1", "other"))
    torch.testing.assert_close(written[:, at_mlp], mlp, atol=1e-4, rtol=1e-4)
