"""What a clean run keeps, against a plain run of each prompt by itself, without padding."""

from __future__ import annotations

import json

import pytest
import torch
from textbook import turn

from th_utils import models, runs
from th_utils.errors import CompanionError
from th_utils.runs import clean_run, rotary, rotate_all, rotate_at
from th_utils.tasks import ioi
from th_utils.weights import Rotary

ROWS = ("end", "S2", "S1+1")


@pytest.fixture(scope="module")
def bridge(tiny_model):
    return models.load(tiny_model)


@pytest.fixture(scope="module")
def prompts(bridge):
    return ioi.prompts(bridge.tokenizer, 12, seed=0)


@pytest.fixture(scope="module")
def run(bridge, prompts):
    return clean_run(bridge, prompts, rows=ROWS)


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_a_run_keeps_what_each_prompt_gives_alone(bridge, prompts, run):
    assert len({len(bridge.tokenizer.encode(text)) for text in prompts.texts}) > 1
    for i, text in enumerate(prompts.texts):
        ids = torch.tensor([bridge.tokenizer.encode(text, add_special_tokens=False)])
        logits, cache = bridge.run_with_cache(ids)
        length, final = ids.shape[1], logits[0, -1]
        close(run.logits[i], final[[int(prompts.io[i]), int(prompts.s[i])]])
        close(run.logit_difference[i], final[prompts.io[i]] - final[prompts.s[i]])
        assert bool(run.correct[i]) == (int(final.argmax()) == int(prompts.io[i]))
        close(run.final_scale[i], cache["ln_final.hook_scale"][0, -1, 0])
        close(run.final[i], cache["ln_final.hook_in"][0, -1])
        for layer in range(bridge.cfg.n_layers):
            stem = f"blocks.{layer}"
            close(run.resid[layer, i], cache[f"{stem}.hook_resid_pre"][0, -1])
            close(run.query[layer, i], cache[f"{stem}.attn.hook_q"][0, -1])
            close(run.z[layer, i], cache[f"{stem}.attn.hook_z"][0, -1])
            close(run.values[layer, i, :length], cache[f"{stem}.attn.hook_v"][0])
            for row in ROWS:
                at = int(prompts.positions[row][i])
                pattern = cache[f"{stem}.attn.hook_pattern"][0, :, at]
                close(run.pattern[row][layer, i, :, :length], pattern)
                # what stands after the row cannot be seen from it
                assert run.pattern[row][layer, i, :, at + 1 :].abs().sum() == 0


def test_kept_keys_are_those_that_queries_meet(bridge, prompts, run):
    """Softmax of (turned) query times kept key is the model's own attention."""
    n, heads = len(prompts), bridge.cfg.n_heads
    end, embedding = prompts.positions["end"], rotary(bridge)
    group = heads // run.keys.shape[3]
    for layer in range(bridge.cfg.n_layers):
        for i in range(n):
            at = int(end[i])
            for head in range(heads):
                query = run.query[layer, i, head].double()
                if embedding is not None:
                    query = query @ turn(embedding, at, len(query))
                keys = run.keys[layer, i, : at + 1, head // group].double()
                pattern = (keys @ query / len(query) ** 0.5).softmax(-1)
                close(run.pattern["end"][layer, i, head, : at + 1].double(), pattern)


def test_values_weighted_by_the_pattern_are_z(bridge, run):
    group = bridge.cfg.n_heads // run.values.shape[3]
    values = run.values.repeat_interleave(group, dim=3)
    close(torch.einsum("lnhp,lnphe->lnhe", run.pattern["end"], values), run.z)


def test_the_batch_does_not_matter(bridge, prompts, run, monkeypatch):
    monkeypatch.setattr(runs, "BATCH", 5)
    again = clean_run(bridge, prompts, rows=ROWS)
    for name in ("resid", "keys", "values", "query", "z", "final_scale", "logits", "correct"):
        close(getattr(again, name).float(), getattr(run, name).float())
    for row in ROWS:
        close(again.pattern[row], run.pattern[row])


def test_padding_changes_nothing(bridge, prompts, run):
    """More of it, of another token: everything up to the end position stays."""
    n, length = prompts.tokens.shape
    other = torch.full((n, 4), 7)
    longer = ioi.IOIPrompts(
        **{**prompts.__dict__, "tokens": torch.cat([prompts.tokens, other], dim=1)}
    )
    again = clean_run(bridge, longer, rows=ROWS)
    for name in ("resid", "query", "z", "final_scale", "logits"):
        close(getattr(again, name), getattr(run, name))
    for row in ROWS:
        close(again.pattern[row][..., :length], run.pattern[row])


def test_the_residual_stream_runs_through_norm_and_unembedding(bridge, prompts, run):
    """The final scale is the divisor of the final norm."""
    n = torch.arange(len(prompts))
    _, cache = bridge.run_with_cache(prompts.tokens)
    last = cache[f"blocks.{bridge.cfg.n_layers - 1}.hook_resid_post"]
    x = last[n, prompts.positions["end"]]
    if bridge.cfg.normalization_type.startswith("LN"):
        x = x - x.mean(-1, keepdim=True)
    close(run.final_scale, (x.square().mean(-1) + bridge.cfg.eps).sqrt())
    final = x / run.final_scale[:, None] @ bridge.W_U + bridge.b_U
    close(run.logits[:, 0], final[n, prompts.io])
    close(run.logits[:, 1], final[n, prompts.s])


def test_no_hook_is_left(bridge, run):
    assert not [name for name, hook in bridge.hook_dict.items() if hook.fwd_hooks]


def test_progress_counts_the_batches(bridge, prompts, tmp_path, monkeypatch):
    monkeypatch.setenv("TH_PROGRESS", str(tmp_path / "progress"))
    monkeypatch.setattr(runs, "BATCH", 4)
    clean_run(bridge, prompts)
    last = json.loads((tmp_path / "progress").read_text().splitlines()[-1])
    assert (last["n"], last["total"]) == (3, 3)


@pytest.mark.parametrize("seed", range(3))
def test_turning_all_positions_or_some(seed):
    generator, embedding = torch.Generator().manual_seed(seed), Rotary(100.0, 4)
    x = torch.randn(2, 3, 7, 2, 6, generator=generator, dtype=torch.float64)
    everywhere = rotate_all(x, embedding)
    for p in range(7):
        expected = x[:, :, p] @ turn(embedding, p, 6)
        torch.testing.assert_close(everywhere[:, :, p], expected, atol=1e-13, rtol=0)
    positions = torch.tensor([6, 0, 3])
    rows = x[0, torch.arange(3), positions]
    expected = everywhere[0, torch.arange(3), positions]
    torch.testing.assert_close(rotate_at(rows, positions, embedding), expected)
    assert rotate_at(rows, positions, None) is rows
    with pytest.raises(CompanionError, match="2 positions for 3 rows"):
        rotate_at(rows, positions[:2], embedding)
