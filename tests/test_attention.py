"""Attention to labelled positions, the inhibition score, and direct logit attribution."""

from __future__ import annotations

import pytest
import torch

from th_utils import models
from th_utils.attention import attention_to, direct_logit_attribution, inhibition_score, readout
from th_utils.runs import CleanRun, clean_run
from th_utils.tasks import ioi


@pytest.fixture(scope="module")
def bridge(tiny_model):
    return models.load(tiny_model)


@pytest.fixture(scope="module")
def run(bridge) -> CleanRun:
    return clean_run(bridge, ioi.prompts(bridge.tokenizer, 10, seed=3))


# Two prompts, two heads, four positions.
PATTERN = torch.tensor(
    [
        [[0.1, 0.2, 0.7, 0.0], [0.25, 0.25, 0.25, 0.25]],
        [[0.4, 0.0, 0.1, 0.5], [0.0, 1.0, 0.0, 0.0]],
    ]
)


def test_attention_to_picks_each_prompts_own_position():
    position = torch.tensor([2, 0])
    expected = torch.tensor([[0.7, 0.25], [0.4, 0.0]])
    assert torch.equal(attention_to(PATTERN, position), expected)
    stacked = torch.stack([PATTERN, 2 * PATTERN, 3 * PATTERN])  # a layer axis before
    found = attention_to(stacked, position)
    assert torch.equal(found, torch.stack([expected, 2 * expected, 3 * expected]))


def test_inhibition_score_is_attention_to_the_one_name_minus_the_other():
    io, s1 = torch.tensor([2, 0]), torch.tensor([1, 3])
    expected = torch.tensor([[0.5, 0.0], [-0.1, 0.0]])
    torch.testing.assert_close(inhibition_score(PATTERN, io, s1), expected)
    torch.testing.assert_close(inhibition_score(PATTERN, s1, io), -expected)
    torch.testing.assert_close(inhibition_score(PATTERN[None], io, s1), expected[None])


@pytest.mark.parametrize("to", ["IO", "S1"])
def test_inhibition_score_has_its_extremes_at_full_attention(to):
    io, s1 = torch.tensor([1]), torch.tensor([2])
    pattern = torch.nn.functional.one_hot({"IO": io, "S1": s1}[to], 4)[None].float()
    assert float(inhibition_score(pattern, io, s1)) == {"IO": 1.0, "S1": -1.0}[to]


def test_readout_reads_the_logit_difference(bridge, run):
    """The residual stream at the end, times the readout, is the logit difference but for b_U."""
    prompts, n = run.prompts, torch.arange(len(run.prompts))
    _, cache = bridge.run_with_cache(prompts.tokens)
    last = cache[f"blocks.{bridge.cfg.n_layers - 1}.hook_resid_post"]
    end = last[n, prompts.positions["end"]]
    bias = bridge.b_U[prompts.io] - bridge.b_U[prompts.s]
    found = (end * readout(bridge, run)).sum(-1) + bias
    torch.testing.assert_close(found, run.logit_difference, atol=2e-5, rtol=1e-4)


def test_attributions_and_everything_else_sum_to_the_logit_difference(bridge, run):
    """Heads, attention biases, MLPs, embeddings and the unembedding's bias: nothing is lost."""
    prompts, n, direction = run.prompts, torch.arange(len(run.prompts)), readout(bridge, run)
    end = prompts.positions["end"]
    _, cache = bridge.run_with_cache(prompts.tokens)

    def read(written: torch.Tensor) -> torch.Tensor:
        return (written[n, end] * direction).sum(-1)

    total = direct_logit_attribution(bridge, run).sum(dim=(0, 2))
    total = total + bridge.b_U[prompts.io] - bridge.b_U[prompts.s]
    total = total + read(cache["blocks.0.hook_resid_pre"])
    for layer in range(bridge.cfg.n_layers):
        total = total + read(cache[f"blocks.{layer}.hook_mlp_out"])
        if bridge.blocks[layer].attn.b_O is not None:
            total = total + direction @ bridge.blocks[layer].attn.b_O
    torch.testing.assert_close(total, run.logit_difference, atol=5e-5, rtol=1e-4)


def test_each_heads_attribution_is_what_its_output_reads(bridge, run):
    """Head by head, with the output made from attention and values of a full cache."""
    prompts, n = run.prompts, torch.arange(len(run.prompts))
    end, direction = prompts.positions["end"], readout(bridge, run)
    found = direct_logit_attribution(bridge, run)
    _, cache = bridge.run_with_cache(prompts.tokens)
    for layer in range(bridge.cfg.n_layers):
        attn, stem = bridge.blocks[layer].attn, f"blocks.{layer}.attn"
        pattern, values = cache[f"{stem}.hook_pattern"], cache[f"{stem}.hook_v"]
        for head in range(bridge.cfg.n_heads):
            kv_head = head // (bridge.cfg.n_heads // values.shape[2])
            z = torch.einsum("np,npe->ne", pattern[n, head, end], values[:, :, kv_head])
            expected = ((z @ attn.W_O[head]) * direction).sum(-1)
            torch.testing.assert_close(found[layer, :, head], expected, atol=2e-5, rtol=1e-4)


def test_removing_a_head_costs_its_attribution_where_nothing_reads_it_again(tiny_neox):
    """A head of the last layer, beside an MLP that does not read it: its direct effect is all.

    The norm's divisor, which is not held in a forward pass, is divided out.
    """
    bridge = models.load(tiny_neox)
    run = clean_run(bridge, ioi.prompts(bridge.tokenizer, 10, seed=3))
    layer, head = bridge.cfg.n_layers - 1, 1
    prompts, n = run.prompts, torch.arange(len(run.prompts))
    end, scale = prompts.positions["end"], run.final_scale

    def silence(z: torch.Tensor, hook) -> torch.Tensor:
        z = z.clone()
        z[:, :, head] = 0
        return z

    scales = {}
    logits = bridge.run_with_hooks(
        prompts.tokens,
        fwd_hooks=[
            (f"blocks.{layer}.attn.hook_z", silence),
            ("ln_final.hook_scale", lambda s, hook: scales.update(now=s[n, end, 0].clone())),
        ],
    )[n, end]
    bias = bridge.b_U[prompts.io] - bridge.b_U[prompts.s]
    silenced = logits[n, prompts.io] - logits[n, prompts.s] - bias
    held = silenced * scales["now"] / scale  # back to the clean divisor
    fall = run.logit_difference - bias - held
    expected = direct_logit_attribution(bridge, run)[layer, :, head]
    torch.testing.assert_close(fall, expected, atol=5e-5, rtol=1e-3)
