"""Sweeps against TransformerLens' own, one forward pass per intervention."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformer_lens import patching

from th_utils import engine, models, sweeps
from th_utils.errors import CompanionError
from th_utils.fullforward import FullForward
from th_utils.replay import Replay
from th_utils.transformer import random_transformer


@pytest.fixture(scope="module")
def tiny_bridge(tiny_model):
    """Each small model in turn, loaded once; nothing here edits its weights."""
    return models.load(tiny_model)


@pytest.fixture(scope="module")
def pair():
    """Tokens of a base and a source run that begin alike, and answers."""
    generator = torch.Generator().manual_seed(3)
    base = torch.randint(1, 500, (2, 6), generator=generator)
    source = torch.randint(1, 500, (2, 6), generator=generator)
    source[:, :2] = base[:, :2]
    right, wrong = torch.randint(1, 500, (2, 2), generator=generator)
    return base, source, right, wrong


@pytest.fixture(scope="module")
def runs(tiny_bridge, pair):
    fast = engine.of(tiny_bridge)
    assert isinstance(fast, Replay)
    base, source, right, wrong = pair
    return fast, fast.trace(base), fast.trace(source), fast.logit_difference(right, wrong)


def metric(pair):
    rows = torch.arange(2)
    _, _, right, wrong = pair
    return lambda logits: (logits[rows, -1, right] - logits[rows, -1, wrong]).mean()


def test_every_head_at_every_position_as_transformerlens_patches_it(tiny_bridge, pair, runs):
    found = sweeps.activation_patching(*runs)
    _, cache = tiny_bridge.run_with_cache(pair[1])
    expected = patching.get_act_patch_attn_head_out_by_pos(
        tiny_bridge, pair[0], cache, metric(pair)
    )
    assert torch.allclose(found.mean(-1), expected, atol=1e-4)
    assert not torch.allclose(expected, expected[0, 0, 0], atol=1e-3)


@pytest.mark.parametrize(
    "site, theirs",
    [
        ("resid_pre", patching.get_act_patch_resid_pre),
        ("attn_out", patching.get_act_patch_attn_out),
    ],
)
def test_other_sites(tiny_bridge, pair, runs, site, theirs):
    found = sweeps.activation_patching(*runs, site=site)
    _, cache = tiny_bridge.run_with_cache(pair[1])
    expected = theirs(tiny_bridge, pair[0], cache, metric(pair))
    assert torch.allclose(found.mean(-1), expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["Q", "K", "V"])
def test_every_path_as_transformerlens_patches_it(tiny_bridge, pair, runs, kind):
    found = sweeps.path_patching(*runs, kind).mean(-1)
    if kind != "Q" and tiny_bridge.cfg.n_key_value_heads is not None:
        pytest.skip("TransformerLens refuses keys and values of grouped heads")
    _, clean = tiny_bridge.run_with_cache(pair[1])
    _, corrupted = tiny_bridge.run_with_cache(pair[0])
    expected = patching.get_act_patch_direct_path_all_sources(
        tiny_bridge, pair[0], clean, corrupted, metric(pair), kind.lower(), verbose=False
    )
    for layer in range(1, 3):
        assert torch.allclose(found[:layer, :, layer], expected[:layer, :, layer], atol=1e-4)
        assert found[layer:, :, layer].isnan().all()


@pytest.mark.parametrize("kind", ["Q", "K", "V"])
def test_every_path_by_full_forward_passes(tiny_bridge, pair, runs, kind):
    """The slow engine says the same, for grouped models too."""
    full = FullForward(tiny_bridge)
    base, source, right, wrong = pair
    readers = [(1, 0), (2, 1), (2, 3)]
    found = sweeps.path_patching(*runs, kind, readers=readers)
    expected = sweeps.path_patching(
        full,
        full.trace(base),
        full.trace(source),
        full.logit_difference(right, wrong),
        kind,
        readers=readers,
    )
    assert torch.allclose(found, expected, atol=1e-4, equal_nan=True)
    assert found.isfinite().any(dim=0).any(dim=0).all(-1).nonzero().tolist() == [
        list(reader) for reader in readers
    ]


def test_all_sites_by_full_forward_passes(tiny_bridge, pair, runs):
    full = FullForward(tiny_bridge)
    base, source, right, wrong = pair
    for site in ("z", "attn_out", "resid_pre"):
        found = sweeps.activation_patching(*runs, site=site)
        expected = sweeps.activation_patching(
            full,
            full.trace(base),
            full.trace(source),
            full.logit_difference(right, wrong),
            site=site,
        )
        assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "neox", "llama"])
@pytest.mark.parametrize("kind", ["Q", "K", "V"])
def test_all_edges_into_an_input_together_are_its_full_patch(family, kind):
    """Without MLPs and with the same first tokens, heads are all that can differ in front of
    block 1: seeing what all of them write in the source run is seeing the source run."""
    model = random_transformer(family, layers=2, dtype=torch.float64)
    blocks = tuple(replace(b, W_out=0 * b.W_out, b_out=None) for b in model.blocks)
    fast = Replay(replace(model, blocks=blocks))
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 50, (2, 3, 5), generator=generator)
    base, source = fast.trace(tokens[0]), fast.trace(tokens[1])
    change = source.z - base.z
    together = sweeps._writes(fast, change, range(fast.n_heads)).sum(0, keepdim=True)
    embedded = source.resid[0] - base.resid[0]
    z = fast.read(base, 1, kind, together + embedded)[0]
    inputs = {"Q": ("query",), "K": ("keys",), "V": ("values",)}[kind]
    seen = replace(base, **{name: getattr(source, name) for name in inputs})
    assert torch.allclose(z, fast.read(seen, 1, kind, together + embedded)[0], atol=1e-12)
    assert torch.allclose(base.resid[1] + together[0] + embedded, source.resid[1], atol=1e-12)


def test_edited_activations_are_patched_in_though_the_tokens_are_the_same():
    """Zero ablation: the source is the base run with all heads silent."""
    fast = Replay(random_transformer(layers=3))
    base = fast.trace(torch.arange(6)[None])
    silent = replace(base, z=torch.zeros_like(base.z))
    readout = fast.logit_difference(torch.tensor([3]), torch.tensor([4]))
    found = sweeps.activation_patching(fast, base, silent, readout)
    expected = fast.write(base, 1, -(base.z[1][:, 2:3, 1] @ fast.W_O(1)[1])[None], 2)
    assert torch.allclose(found[1, 2, 1], readout(expected)[0], atol=1e-6)
    assert not torch.allclose(found, readout(base.final).expand_as(found), atol=1e-3)


def test_a_model_of_one_layer_has_no_paths():
    fast = Replay(random_transformer(layers=1))
    base, source = fast.trace(torch.arange(6)[None]), fast.trace(torch.arange(6, 12)[None])
    readout = fast.logit_difference(torch.tensor([3]), torch.tensor([4]))
    assert sweeps.path_patching(fast, base, source, readout, "Q").isnan().all()
    assert sweeps.activation_patching(fast, base, source, readout).isfinite().all()


@pytest.mark.parametrize("memory", [2**14, 2**17])
def test_the_size_of_a_batch_changes_nothing(memory):
    fast = Replay(random_transformer(layers=3))
    tokens = torch.arange(8).view(2, 1, 4)
    runs = fast.trace(tokens[0]), fast.trace(tokens[1])
    readout = fast.logit_difference(torch.tensor([3]), torch.tensor([4]))
    large = sweeps.path_patching(fast, *runs, readout, "K", memory=2**30)
    small = sweeps.path_patching(fast, *runs, readout, "K", memory=memory)
    assert torch.allclose(large, small, atol=1e-6, equal_nan=True)


def test_before_the_prompts_differ_nothing_can_change():
    fast = Replay(random_transformer())
    tokens = torch.arange(6)[None]
    other = tokens.clone()
    other[0, 4] = 30
    base, source = fast.trace(tokens), fast.trace(other)
    readout = fast.logit_difference(torch.tensor([3]), torch.tensor([4]))
    found = sweeps.activation_patching(fast, base, source, readout)
    clean = readout(base.final)
    assert torch.equal(found[:, :4], clean.expand_as(found[:, :4]))
    assert not torch.allclose(found[:, 4:], clean.expand_as(found[:, 4:]))


def test_the_same_prompts_change_nothing():
    fast = Replay(random_transformer(layers=3))
    base = fast.trace(torch.arange(6)[None])
    readout = fast.logit_difference(torch.tensor([3]), torch.tensor([4]))
    clean = readout(base.final)
    patched = sweeps.activation_patching(fast, base, base, readout)
    assert torch.allclose(patched, clean.expand_as(patched), atol=1e-6)
    paths = sweeps.path_patching(fast, base, base, readout, "V")
    assert torch.allclose(paths[paths.isfinite()], clean, atol=1e-6)


class TestBadInput:
    fast = Replay(random_transformer())
    base = fast.trace(torch.arange(6).view(2, 3))
    readout = staticmethod(fast.logit_difference(torch.tensor([3, 1]), torch.tensor([4, 2])))

    def test_runs_of_different_shapes(self):
        source = self.fast.trace(torch.arange(8).view(2, 4))
        with pytest.raises(CompanionError, match=r"source.tokens has shape \(2, 4\)"):
            sweeps.activation_patching(self.fast, self.base, source, self.readout)

    def test_runs_of_different_models(self):
        other = Replay(random_transformer(heads=4)).trace(torch.arange(6).view(2, 3))
        with pytest.raises(CompanionError, match="two runs of one model"):
            sweeps.path_patching(self.fast, self.base, other, self.readout, "Q")
        with pytest.raises(CompanionError, match=r"base.z has shape .* of this engine"):
            sweeps.path_patching(self.fast, other, other, self.readout, "Q")
        deeper = Replay(random_transformer(layers=3))
        with pytest.raises(CompanionError, match=r"base.z has shape .* of this engine"):
            sweeps.activation_patching(deeper, self.base, self.base, self.readout)

    @pytest.mark.parametrize(
        "readout, said",
        [
            (lambda final: final.sum(), "a number for each prompt"),
            (fast.logit_difference(torch.tensor([3]), torch.tensor([4])), None),
            (
                fast.logit_difference(torch.tensor([3, 1, 2]), torch.tensor([4, 2, 1])),
                "readout does not take the runs of base|number for each prompt",
            ),
        ],
    )
    def test_readouts_of_other_prompts(self, readout, said):
        if said is None:  # one pair of answers serves all prompts
            assert sweeps.activation_patching(self.fast, self.base, self.base, readout).shape == (
                2,
                3,
                2,
                2,
            )
            return
        with pytest.raises(CompanionError, match=said):
            sweeps.activation_patching(self.fast, self.base, self.base, readout)

    def test_no_reader_and_no_kind(self):
        with pytest.raises(CompanionError, match="readers is empty"):
            sweeps.path_patching(self.fast, self.base, self.base, self.readout, "Q", readers=[])

    def test_too_little_memory_for_a_residual_stream(self):
        other = self.fast.trace(torch.arange(6, 12).view(2, 3))
        with pytest.raises(CompanionError, match="memory = 8 bytes is too little"):
            sweeps.activation_patching(
                self.fast, self.base, other, self.readout, site="resid_pre", memory=8
            )

    def test_a_run_that_is_not_finite(self):
        z = self.base.z.clone()
        z[0, 1, 2] = torch.nan
        broken = type(self.base)(**{**vars(self.base), "z": z})
        with pytest.raises(CompanionError, match="source contains NaN or infinite values: 16 of"):
            sweeps.path_patching(self.fast, self.base, broken, self.readout, "Q")

    def test_a_site_that_is_not_there(self):
        with pytest.raises(CompanionError, match="site 'mlp' is unknown"):
            sweeps.activation_patching(self.fast, self.base, self.base, self.readout, site="mlp")

    def test_a_reader_that_is_not_there(self):
        with pytest.raises(
            CompanionError, match="head of a reader 2 is out of range: expected 0 to 1"
        ):
            sweeps.path_patching(
                self.fast, self.base, self.base, self.readout, "Q", readers=[(1, 2)]
            )

    def test_too_little_memory(self):
        with pytest.raises(CompanionError, match="memory = 8 bytes is too little"):
            sweeps.activation_patching(
                self.fast,
                self.base,
                self.fast.trace(torch.arange(6, 12).view(2, 3)),
                self.readout,
                memory=8,
            )
