"""Attribution patching against finite differences, autograd through hooks, and exact patching."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from th_utils import engine as engines
from th_utils import models
from th_utils.attribution import attribution_patching
from th_utils.errors import CompanionError
from th_utils.fullforward import FullForward
from th_utils.replay import Replay
from th_utils.sweeps import activation_patching
from th_utils.transformer import random_transformer

FAMILIES = {
    "gpt2": dict(family="gpt2", heads=2, d_model=16),
    "neox": dict(family="neox", heads=2, d_model=24),
    "llama": dict(family="llama", heads=4, kv_heads=2, d_model=32),
}


def runs(name: str):
    """Two runs that differ from the second position on, read at other places than the last."""
    engine = Replay(random_transformer(**FAMILIES[name], seed=7, dtype=torch.float64))
    generator = torch.Generator().manual_seed(1)
    base, source = torch.randint(50, (2, 3, 5), generator=generator)
    source[:, :1] = base[:, :1]
    right, wrong = torch.randint(50, (2, 3), generator=generator)
    read = torch.tensor([4, 2, 3])
    readout = engine.logit_difference(right, wrong)
    return engine, engine.trace(base, read=read), engine.trace(source, read=read), readout


@pytest.mark.parametrize("name", FAMILIES)
def test_gradient_is_that_of_finite_differences(name):
    engine, base, source, readout = runs(name)
    found = attribution_patching(engine, base, source, readout)
    model, step = engine.model, 1e-5
    change = source.z - base.z
    for layer in range(model.n_layers):
        for at in range(base.n_positions):
            delta = torch.einsum("nhe,hed->hnd", change[layer][:, at], model.blocks[layer].W_O)
            ends = [
                readout(engine.write(base, layer, sign * step * delta[:, :, None], at))
                for sign in (1, -1)
            ]
            expected = (ends[0] - ends[1]) / (2 * step)
            torch.testing.assert_close(found[layer, at], expected, atol=1e-8, rtol=1e-6)
    assert found.abs().max() > 1e-2


@pytest.mark.parametrize("name", FAMILIES)
def test_small_changes_are_patched_exactly(name):
    engine, base, source, readout = runs(name)
    errors = []
    for share in (1e-2, 1e-3):
        near = replace(source, z=base.z + share * (source.z - base.z))
        exact = activation_patching(engine, base, near, readout) - readout(base.final)
        estimate = attribution_patching(engine, base, near, readout)
        errors.append(float((estimate - exact).abs().max() / exact.abs().max()))
    assert errors[1] < 2e-3
    assert 5 < errors[0] / errors[1] < 20, "the error has to shrink with the change"


def test_the_gradient_is_the_bridges(tiny_model):
    bridge = models.load(tiny_model)
    engine = engines.of(bridge)
    assert isinstance(engine, Replay)
    generator = torch.Generator().manual_seed(3)
    tokens, others = torch.randint(1, 500, (2, 2, 6), generator=generator)
    right, wrong = torch.randint(1, 500, (2, 2), generator=generator)
    base, source = engine.trace(tokens), engine.trace(others)
    found = attribution_patching(engine, base, source, engine.logit_difference(right, wrong))

    kept = {}

    def probe(z, hook):
        kept[hook.layer()] = torch.zeros_like(z, requires_grad=True)
        return z + kept[hook.layer()]

    names = [f"blocks.{layer}.attn.hook_z" for layer in range(bridge.cfg.n_layers)]
    with torch.enable_grad():
        logits = bridge.run_with_hooks(tokens, fwd_hooks=[(name, probe) for name in names])[:, -1]
        rows = torch.arange(2)
        value = (logits[rows, right] - logits[rows, wrong]).sum()
        gradients = torch.autograd.grad(value, [kept[layer] for layer in sorted(kept)])
    for layer, gradient in enumerate(gradients):
        gradient = gradient.view_as(base.z[layer])
        expected = (gradient * (source.z - base.z)[layer]).sum(-1).permute(1, 2, 0)
        torch.testing.assert_close(found[layer], expected, atol=1e-5, rtol=1e-4)


def test_only_what_is_before_the_position_read_counts():
    engine, base, source, readout = runs("neox")
    found = attribution_patching(engine, base, source, readout)
    for prompt, read in enumerate(base.read.tolist()):
        assert not found[:, read + 1 :, :, prompt].any()
        assert not found[-1, :read, :, prompt].any()
        assert found[-1, read, :, prompt].all()


def test_batches_of_prompts_and_the_callers_grad_mode_change_nothing():
    engine, base, source, readout = runs("llama")
    whole = attribution_patching(engine, base, source, readout)
    assert not whole.requires_grad
    with torch.no_grad():
        parts = attribution_patching(engine, base, source, readout, memory=150_000)
    torch.testing.assert_close(parts, whole, atol=1e-12, rtol=0)
    assert not engine.model.W_E.requires_grad


def test_any_differentiable_readout_will_do():
    engine, base, source, _ = runs("gpt2")

    def readout(final):
        return engine.logits(final).log_softmax(-1)[..., 5]

    near = replace(source, z=base.z + 1e-4 * (source.z - base.z))
    exact = activation_patching(engine, base, near, readout) - readout(base.final)
    estimate = attribution_patching(engine, base, near, readout)
    assert (estimate - exact).abs().max() < 1e-3 * exact.abs().max()


def test_bad_input():
    engine, base, source, readout = runs("gpt2")
    with pytest.raises(CompanionError, match=r"FullForward, expected Replay.*activation_patching"):
        attribution_patching(FullForward.__new__(FullForward), base, source, readout)
    with pytest.raises(CompanionError, match=r"source.tokens has shape \(2, 5\), expected"):
        attribution_patching(engine, base, engine.trace(source.tokens[:2]), readout)
    other = Replay(random_transformer(**FAMILIES["llama"], dtype=torch.float64))
    with pytest.raises(CompanionError, match=r"base.z has shape .*the engine's model"):
        attribution_patching(other, base, source, readout)
    broken = source.z.clone()
    broken[0, 0, 0, 0, 0] = math.inf
    with pytest.raises(CompanionError, match="source.*NaN or infinite"):
        attribution_patching(engine, base, replace(source, z=broken), readout)
    with pytest.raises(CompanionError, match=r"value of shape \(3,\) has no gradient"):
        attribution_patching(engine, base, source, lambda final: readout(final).detach())
    with pytest.raises(CompanionError, match=r"value has shape \(\), expected \(3,\)"):
        attribution_patching(engine, base, source, lambda final: readout(final).sum())
    with pytest.raises(CompanionError, match=r"memory = 1000 bytes .* one prompt of 5 positions"):
        attribution_patching(engine, base, source, readout, memory=1000)


def test_there_is_no_gradient_in_inference_mode():
    engine, base, source, readout = runs("gpt2")
    with torch.inference_mode(), pytest.raises(CompanionError, match="leave inference_mode first"):
        attribution_patching(engine, base, source, readout)
