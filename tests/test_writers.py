"""One input of one head at one position: closed forms against replay and against hooks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from th_utils import composition, engine, sites, writer_effects, writers
from th_utils.components import direct_effects, direct_fall, leading
from th_utils.fullforward import FullForward
from th_utils.patching import head_outputs, remove
from th_utils.roles import ROLES, Roles
from th_utils.runs import clean_run
from th_utils.tasks import ioi

WRITER, READER, MOVER = (0, 1), (1, 2), (2, 1)
LEAD = 3


def some_roles(**heads) -> Roles:
    return Roles("measured", {role: heads.get(role.replace("-", "_"), []) for role in ROLES})


ROLES_HERE = some_roles(
    mover=[MOVER], inhibition=[READER, (2, 0), (1, 0)], duplicate_token=[WRITER, (0, 2), (1, 1)],
    induction=[(1, 3), (2, 3)], previous_token=[(0, 0), (1, 1)],
)  # fmt: skip


@pytest.fixture(scope="module")
def at(bridge) -> sites.Sites:
    prompts = ioi.prompts(bridge.tokenizer, 8, seed=5)
    return sites.sites(bridge, prompts, entering=1)


def close(found: Tensor, expected: Tensor, atol: float = 2e-5) -> None:
    torch.testing.assert_close(found, expected, atol=atol, rtol=1e-4)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- what a run leaves


def test_the_clean_run_is_that_of_the_other_way(bridge, at):
    expected = clean_run(bridge, at.run.prompts)
    names = ("resid", "keys", "values", "query", "z", "final", "final_scale", "logits")
    for name in names:
        close(getattr(at.run, name), getattr(expected, name), atol=1e-4)
    close(at.run.pattern["end"], expected.pattern["end"])
    assert torch.equal(at.run.correct, expected.correct)


def test_sites_are_what_hooks_see(bridge, at):
    prompts = at.run.prompts
    _, cache = bridge.run_with_cache(prompts.tokens)
    n, where = torch.arange(8), prompts.positions
    for layer in range(3):
        for site in ("S2", "S1+1"):
            resid, z = (
                cache[f"blocks.{layer}.{name}"] for name in ("hook_resid_pre", "attn.hook_z")
            )
            close(at.resid[site][layer], resid[n, where[site]], atol=1e-4)
            close(at.z[site][layer], z[n, where[site]], atol=1e-4)
        pattern = cache[f"blocks.{layer}.attn.hook_pattern"]
        close(at.attention[layer], pattern[n, :, where["S2"], where["S1+1"]])
    close(at.stream, cache["blocks.1.hook_resid_pre"], atol=1e-4)


def test_batches_join(bridge, at, monkeypatch):
    monkeypatch.setattr(sites, "BATCH", 4)
    other = sites.sites(bridge, at.run.prompts, entering=1)
    for name in ("query", "attention", "stream"):
        close(getattr(other, name), getattr(at, name))
    close(other.run.logits, at.run.logits, atol=1e-4)


# --- one input alone


def at_site(at: sites.Sites, site: str, delta: Tensor) -> Tensor:
    """A change at one position of each prompt, as [case, prompt, pos, d_model]."""
    whole = delta.new_zeros(delta.shape[1], *at.stream.shape)
    whole[:, torch.arange(len(delta)), at.run.prompts.positions[site]] = delta.transpose(0, 1)
    return whole


@pytest.fixture(scope="module")
def both(bridge, at):
    """Replay, and forward passes of the whole model hooked in front of one input."""
    fast, full = engine.of(bridge), FullForward(bridge)
    tokens = at.run.prompts.tokens
    return (fast, fast.trace(tokens)), (full, full.trace(tokens))


def test_value_input_is_what_replay_and_hooks_give(bridge, at, svd, both):
    run, (layer, head) = at.run, READER
    seen = writers.value_input(bridge, at, svd, READER, LEAD, sign=-1.0)
    delta = draw(8, 3, at.stream.shape[-1])
    found = seen.fall(delta)
    rows, end = torch.arange(8), run.prompts.positions["end"]
    signs = torch.where(run.prompts.abba, -2.0, 2.0)
    for way, base in both:
        z = way.read(base, layer, "V", at_site(at, "S2", delta))[:, rows, end, head]
        moved = (z - base.z[layer][rows, end, head]) @ way.W_O(layer)[head]
        close(found, -(moved @ svd.V[READER][:, LEAD]).T * signs[:, None], atol=1e-4)
    assert found.abs().max() > 1e-2


def test_key_input_is_what_replay_and_hooks_give(bridge, at, both):
    """Of the attention to one key all other weights follow, and with them the weighted values."""
    (layer, head), where, rows = READER, at.run.prompts.positions, torch.arange(8)
    seen = writers.key_input(bridge, at, READER)
    delta = draw(8, 3, at.stream.shape[-1], seed=1)
    p = seen.clean[:, None]
    after = p - seen.fall(delta)
    values = both[0][1].values[layer]
    value = values[rows, where["S1+1"], head * values.shape[2] // bridge.cfg.n_heads]
    clean = both[0][1].z[layer][rows, where["S2"], head]
    rest = clean - p * value
    expected = (
        after[..., None] * value[:, None] + ((1 - after) / (1 - p))[..., None] * rest[:, None]
    )
    for way, base in both:
        z = way.read(base, layer, "K", at_site(at, "S1+1", delta))[:, rows, where["S2"], head]
        close(z.transpose(0, 1), expected, atol=1e-4)
    assert seen.fall(delta).abs().max() > 1e-2


def test_the_score_falls_by_what_the_attention_says(bridge, at):
    seen = writers.key_input(bridge, at, READER)
    delta = draw(8, 2, at.stream.shape[-1], seed=2)
    p = seen.clean[:, None]
    close(seen.score_fall(delta), torch.logit(p) - torch.logit(p - seen.fall(delta)), atol=1e-3)


def test_query_input_is_that_of_chapter_03(bridge, at, svd):
    edit = remove(svd, *READER, [0, 4])
    output = head_outputs(bridge, at.run, *READER)
    found = writers.query_input(bridge, at, MOVER).fall((edit.apply(output) - output)[:, None])
    close(found[:, 0], direct_fall(bridge, at.run, READER, MOVER, edit))
    assert found.abs().max() > 1e-4


def test_nothing_changed_is_nothing_seen(bridge, at, svd):
    nothing = at.stream.new_zeros(8, 2, at.stream.shape[-1])
    for seen in (
        writers.value_input(bridge, at, svd, READER, LEAD, 1.0),
        writers.key_input(bridge, at, READER),
        writers.query_input(bridge, at, MOVER),
    ):
        close(seen.fall(nothing), torch.zeros(8, 2))


def test_what_is_watched_by_value_is_the_distance_of_a_pair(bridge, at, svd):
    sign = writers.line_sign(bridge, at.run, svd, READER, LEAD)
    seen = writers.value_input(bridge, at, svd, READER, LEAD, sign)
    along = head_outputs(bridge, at.run, *READER) @ svd.V[READER][:, LEAD]
    abba, baba = along[0::2], along[1::2]
    assert at.run.prompts.abba[::2].all()
    found = torch.as_tensor(ioi.pair_means(seen.clean)).float()
    close(found, sign * (abba - baba))
    assert float(found.mean()) >= 0, "the sign makes the mean distance positive"
    other = writers.value_input(bridge, at, svd, READER, LEAD, -sign)
    close(other.clean, -seen.clean)


def test_outputs_are_what_a_head_writes_there(bridge, at):
    _, cache = bridge.run_with_cache(at.run.prompts.tokens)
    for kind, site in (("V", "S2"), ("K", "S1+1")):
        z = cache["blocks.0.attn.hook_z"][torch.arange(8), at.run.prompts.positions[site], 1]
        found = writers.outputs(bridge, at, kind, WRITER)
        close(found, z @ bridge.blocks[0].attn.W_O[1].detach(), atol=1e-4)


# --- pairs and weights


def test_known_pairs():
    """Later readers only; inhibition heads before the main mover only."""
    assert writers.known(ROLES_HERE, "V") == [
        (WRITER, READER), ((0, 2), READER), (WRITER, (1, 0)), ((0, 2), (1, 0)),
    ]  # fmt: skip
    assert writers.known(ROLES_HERE, "K") == [
        ((0, 0), (1, 3)), ((0, 0), (2, 3)), ((1, 1), (2, 3)),
    ]  # fmt: skip
    assert writers.known(ROLES_HERE, "V", "previous-token") == [
        ((0, 0), READER), ((0, 0), (1, 0)),
    ]  # fmt: skip
    assert writers.known(some_roles(inhibition=[READER], duplicate_token=[WRITER]), "V") == []
    assert writers.known(some_roles(), "K") == []


def test_weights_say_what_dense_matrices_say(weights, svd):
    leads = {READER: LEAD, (1, 0): 0}
    for pair in writers.weigh(svd, weights, ROLES_HERE, "V", leads):
        layer, head = pair.reader
        kv = head // (weights.n_heads // weights.W_V.shape[1])
        ov = weights.W_V[layer, kv] @ weights.W_O[layer, head]
        written = svd.V[pair.writer].mT
        close(pair.scores, (written @ ov).norm(dim=-1) / ov.norm(), atol=1e-5)
        close(pair.facing, (written @ svd.U[pair.reader][:, leads[pair.reader]]).abs())
    scores = composition.component_scores(svd, composition.readers(weights, "K"))
    keys = writers.weigh(svd, weights, ROLES_HERE, "K", {})
    assert [(p.writer, p.reader) for p in keys] == writers.known(ROLES_HERE, "K")
    for pair in keys:
        close(pair.scores, scores[pair.writer][:, pair.reader[0], pair.reader[1]])
        assert pair.facing is None
    assert writers.name(keys[0]) == "0.0 → 1.3"


def test_leading_components(bridge, at, weights, svd):
    by_effect = writers.leads_by_effect(bridge, at.run, svd, ROLES_HERE)
    by_weight = writers.leads_by_weight(svd, weights, ROLES_HERE)
    assert list(by_effect) == list(by_weight) == [READER, (1, 0)]
    scores = composition.component_scores(svd, composition.readers(weights, "Q"))
    for head in by_effect:
        effects = direct_effects(bridge, at.run, head, MOVER, svd.V[head].mT)
        assert by_effect[head] == leading(effects)[0]
        assert by_weight[head] == int(scores[head][:, MOVER[0], MOVER[1]].argmax())


# --- component by component


@pytest.fixture(scope="module")
def halves(bridge) -> tuple[sites.Sites, sites.Sites]:
    return writers.halves(bridge, ROLES_HERE, 8, seed=3)


def test_halves_are_the_two_splits(bridge, halves):
    for at, split in zip(halves, ("find", "report"), strict=True):
        expected = ioi.prompts(bridge.tokenizer, 8, seed=3, split=split)
        assert at.run.prompts.texts == expected.texts and at.entering == 1


@pytest.mark.parametrize("kind", ["V", "K"])
def test_effects_are_chosen_on_one_half_and_measured_on_the_other(
    bridge, weights, svd, halves, kind
):
    found, reported = halves
    leads = {READER: LEAD, (1, 0): 0}
    pairs = writers.weigh(svd, weights, ROLES_HERE, kind, leads)
    channel = writer_effects.measure(bridge, pairs, found, reported, svd, leads, n_random=5, seed=0)
    assert len(channel) == len(pairs) and channel.reader == pairs[0].reader
    for e in channel.effects:
        assert e.pair in pairs
        reader, writer = e.pair.reader, e.pair.writer
        inputs = []
        for at in halves:
            if kind == "V":
                sign = writers.line_sign(bridge, found.run, svd, reader, leads[reader])
                seen = writers.value_input(bridge, at, svd, reader, leads[reader], sign)
            else:
                seen = writers.key_input(bridge, at, reader)
            inputs.append((at, seen))
        per_half = []
        for at, seen in inputs:
            output = writers.outputs(bridge, at, kind, writer)
            each = [-(output @ v)[:, None] * v for v in svd.V[writer].mT]
            per_half.append(seen.fall(torch.stack(each, dim=1)))
        assert e.order == per_half[0].mean(0).argsort(descending=True).tolist()
        assert e.picks == e.order[:2]
        close(e.effects, per_half[1])
        close(e.clean, inputs[1][1].clean)
        close(e.whole, inputs[1][1].fall(-output[:, None])[:, 0])
        earlier = writers.outputs(bridge, found, kind, writer)
        strength = float(inputs[0][1].fall(-earlier[:, None]).mean())
        assert e.strength == pytest.approx(strength, abs=1e-6)
        assert e.random.shape == (8, 5) and not torch.allclose(e.random[:, 0], e.random[:, 1])
        assert e.whole.abs().max() > 1e-4


def test_no_pairs_no_channel(bridge, svd, halves):
    channel = writer_effects.measure(bridge, [], *halves, svd, {}, n_random=2, seed=0)
    assert len(channel) == 0


def test_a_few_cases_at_a_time_or_all_at_once(bridge, at, svd, monkeypatch):
    delta = draw(8, 5, at.stream.shape[-1], seed=7)

    def falls() -> Tensor:
        inputs = (
            writers.value_input(bridge, at, svd, READER, LEAD, 1.0),
            writers.key_input(bridge, at, READER),
        )
        return torch.stack([seen.fall(delta) for seen in inputs])

    expected = falls()
    monkeypatch.setattr(writers, "CASES", 2)
    close(falls(), expected, atol=1e-5)
