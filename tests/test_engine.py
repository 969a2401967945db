"""What `engine.of` makes of real architectures, with random weights, that replay does not know."""

from __future__ import annotations

import shutil
import warnings

import pytest
import torch
import transformers

from th_utils import bridge as bridges
from th_utils import engine, models, sweeps, weights
from th_utils.errors import CompanionError
from th_utils.fullforward import FullForward
from th_utils.replay import Replay

LENGTH = 20  # longer than the windows below, and than the tokens that `of` compares


def make(name: str, vocab_size: int, **more) -> torch.nn.Module:
    ids = {"vocab_size": vocab_size, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    if name == "GPTJ":
        config = transformers.GPTJConfig(n_embd=32, n_layer=2, n_head=4, rotary_dim=4, **ids)
        return transformers.GPTJForCausalLM(config)
    config = getattr(transformers, f"{name}Config")(
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        **ids,
        **more,
    )
    return getattr(transformers, f"{name}ForCausalLM")(config)


@pytest.fixture
def boot(tiny_llama, tmp_path):
    """A function that saves a random model and loads it as a bridge."""

    def run(name: str, **more):
        vocab_size = weights.read_config(tiny_llama)["vocab_size"]
        for file in tiny_llama.glob("*token*"):
            shutil.copy(file, tmp_path)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            make(name, vocab_size, **more).save_pretrained(tmp_path)
        return models.load(tmp_path)

    return run


UNKNOWN = {
    "Mistral": ({"sliding_window": 8}, "window"),
    "Qwen3": ({}, "queries and keys are normalised|its logits come out"),
    "GPTJ": ({}, "block 0 has no ln2|positions|rotary"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_model_gets_full_forward_passes(boot, name):
    more, why = UNKNOWN[name]
    bridge = boot(name, **more)
    with pytest.warns(UserWarning, match=why):
        run = engine.of(bridge)
    assert isinstance(run, FullForward)
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, bridge.cfg.d_vocab, (2, 1, LENGTH), generator=generator)
    tokens[1, :, :-1] = tokens[0, :, :-1]  # differ in the last token: few forward passes
    base, source = run.trace(tokens[0]), run.trace(tokens[1])
    assert torch.allclose(base.final, bridge(tokens[0])[:, -1], atol=1e-5)
    readout = run.logit_difference(torch.tensor([3]), torch.tensor([4]))
    found = sweeps.activation_patching(run, base, source, readout)

    def put(z, hook):
        z = z.clone()
        z[:, -1, 1] = source.z[0][:, -1, 1]
        return z

    expected = bridge.run_with_hooks(tokens[0], fwd_hooks=[("blocks.0.attn.hook_z", put)])
    assert torch.allclose(found[0, -1, 1], readout(expected[:, -1]), atol=1e-5)
    assert not torch.allclose(found[0, -1, 1], readout(base.final), atol=1e-6)


@pytest.mark.parametrize("name, more", [("Gemma2", {}), ("Granite", {"residual_multiplier": 0.3})])
def test_heads_that_write_through_something_are_refused(boot, name, more):
    bridge = boot(name, **more)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(CompanionError, match="a norm or a factor stands between"):
            engine.of(bridge)


def test_a_known_family_under_another_name_is_known(boot):
    """Mistral without a window is Llama."""
    bridge = boot("Mistral", sliding_window=None)
    run = engine.of(bridge)
    assert isinstance(run, Replay)
    tokens = torch.arange(1, LENGTH + 1)[None]
    logits = run.logits(run.trace(tokens).final)
    assert torch.allclose(logits, bridge(tokens)[:, -1], atol=1e-4)


def test_a_model_in_float64_is_known(tiny_model):
    bridge = bridges.boot(tiny_model, name="tiny", dtype=torch.float64)
    run = engine.of(bridge)
    assert isinstance(run, Replay)
    tokens = torch.arange(1, LENGTH + 1)[None]
    base = run.trace(tokens)
    assert base.final.dtype == torch.float64
    assert torch.allclose(run.logits(base.final), bridge(tokens)[:, -1], atol=1e-5)
