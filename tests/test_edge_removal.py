"""Closed forms against the removal itself: through replay, and through the model's own modules."""

from __future__ import annotations

import math

import pytest
import torch

from th_utils import engine, models
from th_utils.composition import write_directions
from th_utils.edge_removal import removal_effects
from th_utils.edge_sites import sites
from th_utils.errors import CompanionError
from th_utils.pairs import Pairs
from th_utils.patching import direct_query, head_outputs
from th_utils.replay import Replay
from th_utils.runs import clean_run
from th_utils.svd import ov_svd
from th_utils.tasks import ioi
from th_utils.weights import from_bridge


@pytest.fixture(scope="module")
def bridge(tiny_model):
    return models.load(tiny_model)


@pytest.fixture(scope="module")
def model(bridge):
    return engine.from_bridge(bridge)


@pytest.fixture(scope="module")
def svd(bridge):
    return ov_svd(from_bridge(bridge))


@pytest.fixture(scope="module")
def prompts(bridge):
    return ioi.prompts(bridge.tokenizer, 8, seed=5)


PLACES = {"Q": (("end", "end"),), "K": (("S2", "end"), ("S1+1", "S2")),
          "V": (("S2", "end"), ("S1+1", "S2"))}  # fmt: skip


def places(prompts, kind):
    at = prompts.positions
    return [(at[p], at[row]) for p, row in PLACES[kind]]


def measured(model, svd, prompts, kind, **options):
    directions = write_directions(svd)
    at = sites(model, prompts.tokens, places(prompts, kind))
    return removal_effects(model, directions, kind, at, **options)


def removed(model, svd, prompts, kind, place, writer, reader):
    """One removal written out: pattern and output of the reader, before and after, per prompt."""
    at, row = place
    run = Replay(model).trace(prompts.tokens)
    rows = torch.arange(len(prompts))
    (layer, head, k), (later, head_2) = writer, reader
    v = svd.V[layer, head][:, k]
    delta = torch.zeros_like(run.resid[0])
    out = run.z[layer][rows, at, head] @ model.blocks[layer].W_O[head]
    delta[rows, at] = -(out @ v)[:, None] * v
    z = Replay(model).read(run, later, kind, delta[None])[0][rows, row, head_2]
    W_O = model.blocks[later].W_O[head_2]
    before = run.z[later][rows, row, head_2]
    output = ((z - before) @ W_O).norm(dim=-1).mean() / (before @ W_O).norm(dim=-1).mean()
    # the pattern, from the norm and the matrices of the block
    block, positions = model.blocks[later], torch.arange(prompts.tokens.shape[1])
    query, keys = run.query[later][:, :, head_2], run.keys[later][:, :, head_2 // model.group]
    W, b = (block.W_Q, block.b_Q) if kind == "Q" else (block.W_K, block.b_K)
    which = head_2 if kind == "Q" else head_2 // model.group
    own = block.norm_1(run.resid[later] + delta) @ W[which] + (0 if b is None else b[which])
    if model.rotary is not None:
        turns = [model.rotary.rotation(p, model.d_head) for p in positions.tolist()]
        own = torch.einsum("npe,pef->npf", own, torch.stack(turns))
    new = {"Q": (own, keys), "K": (query, own), "V": (query, keys)}[kind]
    patterns = []
    for q, key in ((query, keys), new):
        scores = torch.einsum("ne,npe->np", q[rows, row], key) / math.sqrt(model.d_head)
        patterns.append(scores.masked_fill(positions > row[:, None], -math.inf).softmax(-1))
    return (patterns[1] - patterns[0]).abs().sum(-1).mean() / 2, output


# writers of both earlier layers, readers of both later ones, heads that share keys among them
EDGES = [((0, 1, 0), (1, 0)), ((0, 3, 5), (2, 3)), ((1, 2, 1), (2, 1)), ((1, 0, 7), (2, 2))]


@pytest.mark.parametrize("kind", ["Q", "K", "V"])
def test_closed_form_is_the_removal_itself(model, svd, prompts, kind):
    found = measured(model, svd, prompts, kind)
    pairs = Pairs(*svd.S.shape)
    seen = 0.0
    for place, effects in zip(places(prompts, kind), found, strict=True):
        for (layer, head, k), (later, head_2) in EDGES:
            table = torch.zeros(*svd.S.shape, *svd.S.shape[:2])
            table[layer, head, k, later, head_2] = 1
            index = int(pairs.flatten(table).argmax())
            edge = (layer, head, k), (later, head_2)
            pattern, output = removed(model, svd, prompts, kind, place, *edge)
            seen = max(seen, float(output))
            torch.testing.assert_close(effects.output[index], output, rtol=5e-4, atol=2e-6)
            if kind == "V":
                assert effects.pattern is None
            else:
                torch.testing.assert_close(effects.pattern[index], pattern, rtol=5e-4, atol=1e-6)
    assert seen > 1e-3, "the removals did something"


def test_query_patterns_are_those_of_a_query_patched_in_the_model(bridge, model, svd, prompts):
    """The bridge's own norm, against the closed form."""
    (found,) = measured(model, svd, prompts, "Q", output=False)
    assert found.output is None
    run, pairs = clean_run(bridge, prompts), Pairs(*svd.S.shape)
    (layer, head), (later, head_2) = (1, 2), (2, 1)
    out, V = head_outputs(bridge, run, layer, head), svd.V[layer, head].mT
    pattern = direct_query(bridge, run, later, head_2, -(out @ V.mT)[..., None] * V)
    clean = run.pattern["end"][later, :, head_2][:, None]
    expected = (pattern - clean).abs().sum(-1).mean(0) / 2
    start = pairs.start(later, head_2) + (layer * model.n_heads + head) * len(V)
    torch.testing.assert_close(
        found.pattern[start : start + len(V)], expected, rtol=5e-4, atol=1e-6
    )
    assert expected.max() > 1e-3


@pytest.mark.parametrize("kind", ["Q", "K", "V"])
def test_blocks_and_outputs_do_not_matter(model, svd, prompts, kind):
    (found, *_) = measured(model, svd, prompts, kind)
    (other, *_) = measured(model, svd, prompts, kind, memory=2**12, output=False)
    name = "output" if kind == "V" else "pattern"
    torch.testing.assert_close(getattr(found, name), getattr(other, name), rtol=1e-4, atol=1e-7)
    assert getattr(found, name).max() > 1e-3


@pytest.mark.parametrize("kind", ["Q", "K", "V"])
def test_units_average_to_the_effect(model, svd, prompts, kind):
    for effects in measured(model, svd, prompts, kind, units=[2] * len(PLACES[kind])):
        first = effects.output if kind == "V" else effects.pattern
        assert effects.units.shape == (4, len(first))
        torch.testing.assert_close(effects.units.float().mean(0), first, rtol=1e-2, atol=1e-7)
        assert effects.units.float().std(0).max() > 1e-4


def test_what_is_not_written_is_not_missed(model, svd, prompts):
    """A component without a direction, and all of a head that says nothing at the site."""
    directions = write_directions(svd).clone()
    directions[0, 1, 3] = 0
    at = sites(model, prompts.tokens, places(prompts, "Q"))
    at[0].written[1, :, 2] = 0
    (found,) = removal_effects(model, directions, "Q", at)
    pairs = Pairs(*svd.S.shape)
    silent = torch.zeros(svd.S.shape)
    silent[0, 1, 3] = silent[1, 2] = 1
    is_silent = pairs.of_writers(silent).bool()
    for effect in (found.pattern, found.output):
        assert effect[is_silent].abs().max() < 1e-6
        assert effect[~is_silent].quantile(0.05) > 1e-6


def test_a_write_that_is_all_of_the_stream_leaves_nothing(model, svd, prompts):
    """The norm then divides by its epsilon alone: large, but no NaN."""
    directions = write_directions(svd)
    at = sites(model, prompts.tokens, places(prompts, "K"))
    c = at[0].written[0, :, 0] @ model.blocks[0].W_O[0] @ directions[0, 0, 0]
    at[0].resid[1:] = c[:, None] * directions[0, 0, 0]
    for kind in ("Q", "K", "V"):
        for effects in removal_effects(model, directions, kind, at[:1]):
            for values in effects[:2]:
                assert values is None or values.isfinite().all()


def test_what_does_not_fit_is_refused(model, svd, prompts):
    directions = write_directions(svd)
    end, s2 = prompts.positions["end"], prompts.positions["S2"]
    with pytest.raises(CompanionError, match="a row reads positions up to itself"):
        sites(model, prompts.tokens, [(end, s2)])
    at = sites(model, prompts.tokens, [(end, end)])
    with pytest.raises(CompanionError, match="kind 'O' is unknown"):
        removal_effects(model, directions, "O", at)
    with pytest.raises(CompanionError, match="8 prompts are not units of 3"):
        removal_effects(model, directions, "Q", at, units=[3])
    with pytest.raises(CompanionError, match="directions has shape"):
        removal_effects(model, directions[:2], "Q", at)
