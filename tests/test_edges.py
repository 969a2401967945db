"""Direct effects against plain float64 formulas, one sender, reader and input at a time."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from th_utils import transformer
from th_utils.edges import KINDS, direct_effects
from th_utils.errors import CompanionError
from th_utils.fullforward import FullForward
from th_utils.replay import Replay, Trace
from th_utils.transformer import Norm, Transformer, random_transformer

FAMILIES = {
    "gpt2": dict(family="gpt2", heads=3, d_model=24),
    "neox": dict(family="neox", heads=4, d_model=48),  # turns 2 of 12 coordinates
    "llama": dict(family="llama", heads=4, kv_heads=2, d_model=32),
    "narrow": dict(family="llama", heads=3, kv_heads=1, d_model=24, d_head=6),
}


def with_gain(model: Transformer, *, bias: bool) -> Transformer:
    """Norms that scale (and shift), as a model has them whose norms were not folded away."""
    generator = torch.Generator().manual_seed(5)

    def norm(old: Norm) -> Norm:
        gain, shift = torch.randn(2, model.d_model, generator=generator, dtype=model.W_E.dtype)
        return replace(old, gain=1 + 0.3 * gain, bias=0.3 * shift if bias else None)

    blocks = tuple(replace(b, norm_1=norm(b.norm_1), norm_2=norm(b.norm_2)) for b in model.blocks)
    return replace(model, blocks=blocks, final_norm=norm(model.final_norm))


def make(name: str, dtype: torch.dtype = torch.float64) -> Transformer:
    return random_transformer(**FAMILIES[name], layers=3, seed=7, dtype=dtype)


def runs(model: Transformer) -> tuple[Replay, Trace, Trace, Tensor, Tensor]:
    """Two runs that differ from the third position on, read at other places than the last."""
    generator = torch.Generator().manual_seed(1)
    base, source = torch.randint(50, (2, 2, 6), generator=generator)
    source[:, :2] = base[:, :2]
    right, wrong = torch.randint(50, (2, 2), generator=generator)
    engine, read = Replay(model), torch.tensor([5, 3])
    return engine, engine.trace(base, read=read), engine.trace(source, read=read), right, wrong


def as_double(value):
    """A model, a run or a tensor in float64, exactly."""
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, tuple):
        return tuple(as_double(each) for each in value)
    if isinstance(value, (Transformer, transformer.Block, Norm, Trace)):
        return replace(value, **{f.name: as_double(getattr(value, f.name)) for f in fields(value)})
    return value


def normalised(norm: Norm, x: Tensor, like: Tensor | None = None) -> Tensor:
    """A vector through a norm; divided by what divides `like`, if that is given."""
    like = x if like is None else like
    if norm.rms:
        out = x / (like.square().mean() + norm.eps).sqrt()
    else:
        out = (x - x.mean()) / (like.var(unbiased=False) + norm.eps).sqrt()
    out = out if norm.gain is None else out * norm.gain
    return out if norm.bias is None else out + norm.bias


def turned(model: Transformer, x: Tensor, position: int) -> Tensor:
    """A query or key as the rotary embedding turns it: pairs of coordinates, by their angles."""
    out = x.clone()
    if model.rotary is not None:
        half = model.rotary.dims // 2
        for i in range(half):
            angle = position * model.rotary.base ** (-2 * i / model.rotary.dims)
            out[i] = x[i] * math.cos(angle) - x[i + half] * math.sin(angle)
            out[i + half] = x[i + half] * math.cos(angle) + x[i] * math.sin(angle)
    return out


def weighted_value(model, layer: int, head: int, at: int, streams: dict[str, Tensor]) -> Tensor:
    """What one head attends to from position `at`; each input [pos, d_model] has its own stream."""
    block, shared = model.blocks[layer], head // model.group

    def projected(kind: str, which: int, position: int) -> Tensor:
        x = normalised(block.norm_1, streams[kind][position])
        out = x @ getattr(block, f"W_{kind}")[which]
        bias = getattr(block, f"b_{kind}")
        return out if bias is None else out + bias[which]

    query = turned(model, projected("Q", head, at), at)
    keys = [turned(model, projected("K", shared, j), j) for j in range(at + 1)]
    values = torch.stack([projected("V", shared, j) for j in range(at + 1)])
    scores = torch.stack([query @ key for key in keys]) / math.sqrt(model.d_head)
    return scores.softmax(0) @ values


def dense(model: Transformer, base: Trace, source: Trace, right: Tensor, wrong: Tensor) -> Tensor:
    """The same quantity, pair by pair, prompt by prompt."""
    layers, heads, prompts = model.n_layers, model.n_heads, len(right)
    effects = torch.full((3, layers, heads, layers, heads, prompts), math.nan, dtype=torch.float64)

    def answer(final: Tensor, n: int) -> Tensor:
        logits = normalised(model.final_norm, final, like=base.final[n]) @ model.W_U
        return logits[right[n]] - logits[wrong[n]]

    later = [(a, h, b, g) for a in range(layers) for h in range(heads)
             for b in range(a + 1, layers) for g in range(heads)]  # fmt: skip
    for n in range(prompts):
        at, final = int(base.read[n]), base.final[n]
        for a, h, b, g in later:
            x = base.resid[b, n]
            written = (source.z[a, n, :, h] - base.z[a, n, :, h]) @ model.blocks[a].W_O[h]
            clean = weighted_value(model, b, g, at, {"Q": x, "K": x, "V": x})
            for k, kind in enumerate(KINDS):
                streams = {"Q": x, "K": x, "V": x, kind: x + written}
                z = weighted_value(model, b, g, at, streams)
                changed = final + (z - clean) @ model.blocks[b].W_O[g]
                effects[k, a, h, b, g, n] = answer(changed, n) - answer(final, n)
    return effects


def off(found: Tensor, expected: Tensor) -> float:
    """Largest difference as a share of the largest value; NaN have to be in the same places."""
    assert torch.equal(found.isnan(), expected.isnan())
    worst = (found.double() - expected).nan_to_num().abs().max()
    return float(worst / expected.nan_to_num().abs().max())


@pytest.mark.parametrize("name", FAMILIES)
def test_every_pair_as_plain_formulas_have_it(name):
    engine, *rest = runs(make(name))
    expected = dense(engine.model, *rest)
    assert off(direct_effects(engine, *rest), expected) < 1e-10
    for k, kind in enumerate(KINDS):
        assert expected[k].nan_to_num().abs().max() > 1e-2, f"{kind} has no effect to speak of"


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_norms_that_were_not_folded(name):
    engine, *rest = runs(with_gain(make(name), bias=name == "gpt2"))
    assert off(direct_effects(engine, *rest), dense(engine.model, *rest)) < 1e-10


@pytest.mark.parametrize("name", FAMILIES)
def test_single_precision(name):
    engine, *rest = runs(make(name, torch.float32))
    found = direct_effects(engine, *rest)
    assert found.dtype == torch.float32
    assert off(found, dense(as_double(engine.model), *(as_double(run) for run in rest))) < 1e-5


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_readers_as_replay_computes_them_and_a_frozen_tail(name, kind):
    model = make(name)
    engine, base, source, right, wrong = runs(model)
    found = direct_effects(engine, base, source, right, wrong)[KINDS.index(kind)]
    rows = torch.arange(len(right))
    change = source.z - base.z
    for a in range(model.n_layers - 1):
        written = torch.einsum("nphe,hed->hnpd", change[a], model.blocks[a].W_O)
        for b in range(a + 1, model.n_layers):
            z = engine.read(base, b, kind, written) - base.z[b]
            z = z[:, rows, base.read]  # [sender, prompt, reader, d_head]
            out = torch.einsum("snhe,hed->shnd", z, model.blocks[b].W_O)
            if not model.final_norm.rms:
                out = out - out.mean(-1, keepdim=True)
            # the norm of x / |x| + out / |x|, divided by what the base run is divided by
            final, norm = base.final, model.final_norm
            power = final.square().mean(-1) if norm.rms else final.var(-1, unbiased=False)
            logits = out / (power + norm.eps).sqrt()[:, None] @ model.W_U
            expected = logits[..., rows, right] - logits[..., rows, wrong]
            torch.testing.assert_close(found[a, :, b], expected, atol=1e-10, rtol=0)


def test_effects_of_values_add_up_when_nothing_is_divided():
    """With a constant divisor values are linear: each head's part adds up to that of all."""
    model = make("llama")
    flat = replace(model.blocks[2].norm_1, eps=1e9)
    last = replace(model.blocks[2], norm_1=flat, W_V=model.blocks[2].W_V * 1e5)
    model = replace(model, blocks=(*model.blocks[:2], last))
    engine, base, source, right, wrong = runs(model)
    found = direct_effects(engine, base, source, right, wrong)[2, :2, :, 2].sum((0, 1))
    change = source.z[:2] - base.z[:2]
    written = sum(transformer.write_out(model.blocks[at], change[at]) for at in (0, 1))
    z = engine.read(base, 2, "V", written[None])[0] - base.z[2]
    rows = torch.arange(2)
    rho = (model.W_U[:, right] - model.W_U[:, wrong]).T
    rho = rho / (base.final.square().mean(-1, keepdim=True) + model.final_norm.eps).sqrt()
    expected = torch.einsum("nhe,hed,nd->hn", z[rows, base.read], last.W_O, rho)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_a_sender_that_undoes_nearly_all_of_the_stream():
    """An expanded square of the norm would cancel to one part in ten here."""
    model = random_transformer("gpt2", layers=2, heads=1, d_model=16, seed=2)
    engine, base, source, right, wrong = runs(model)
    x = base.resid[1].double()
    x = x - x.mean(-1, keepdim=True)
    undo = torch.linalg.solve(model.blocks[0].W_O[0].double().T, -0.999 * x[..., None])[..., 0]
    z = source.z.clone()
    z[0, :, :, 0] = (base.z[0, :, :, 0].double() + undo).float()
    source = replace(source, z=z)
    found = direct_effects(engine, base, source, right, wrong)
    args = (as_double(each) for each in (model, base, source))
    assert off(found, dense(*args, right, wrong)) < 2e-3


def test_batches_of_prompts_change_nothing():
    engine, *rest = runs(make("neox"))
    whole = direct_effects(engine, *rest)
    for memory in (150_000, 300_000):
        found = direct_effects(engine, *rest, memory=memory)
        torch.testing.assert_close(found, whole, equal_nan=True, atol=1e-12, rtol=0)


def test_the_same_run_twice_has_no_effect():
    engine, base, _, right, wrong = runs(make("llama"))
    found = direct_effects(engine, base, base, right, wrong)
    assert found.nan_to_num().abs().max() < 1e-14


def test_one_layer_has_no_later_heads():
    model = random_transformer(layers=1)
    engine, *rest = runs(model)
    assert direct_effects(engine, *rest).isnan().all()


def test_bad_input():
    engine, base, source, right, wrong = runs(make("gpt2"))
    with pytest.raises(CompanionError, match=r"FullForward, expected Replay.*path_patching"):
        direct_effects(FullForward.__new__(FullForward), base, source, right, wrong)
    with pytest.raises(CompanionError, match=r"right has shape \(1,\), expected \(2,\)"):
        direct_effects(engine, base, source, right[:1], wrong[:1])
    with pytest.raises(CompanionError, match=r"wrong has shape \(1,\), expected \(2,\)"):
        direct_effects(engine, base, source, right, wrong[:1])
    with pytest.raises(CompanionError, match="hold tokens from .* to 50, expected 0 to 49"):
        direct_effects(engine, base, source, right, torch.full_like(wrong, 50))
    with pytest.raises(CompanionError, match=r"source.tokens has shape \(1, 6\), expected"):
        direct_effects(engine, base, engine.trace(source.tokens[:1]), right, wrong)
    other = Replay(make("llama"))
    with pytest.raises(CompanionError, match=r"base.z has shape .*the engine's model"):
        direct_effects(other, base, source, right, wrong)
    with pytest.raises(CompanionError, match=r"source.*torch.float32"):
        direct_effects(engine, base, replace(source, z=source.z.float()), right, wrong)
    broken = source.z.clone()
    broken[0, 0, 0, 0, 0] = math.nan
    with pytest.raises(CompanionError, match="source.*NaN or infinite"):
        direct_effects(engine, base, replace(source, z=broken), right, wrong)
    with pytest.raises(CompanionError, match=r"memory = 1000 bytes .* one prompt of 6 positions"):
        direct_effects(engine, base, source, right, wrong, memory=1000)
