"""Tables of chapter 01 against the same numbers taken from the run by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from th_utils import circuit, models
from th_utils.attention import direct_logit_attribution
from th_utils.roles import LOOKS, ROLES, Roles, label
from th_utils.runs import clean_run
from th_utils.tasks import ioi


def some_roles(scores: dict | None = None, **heads) -> Roles:
    return Roles(
        "measured", {r: heads.get(r.replace("-", "_"), []) for r in ROLES}, scores=scores or {}
    )


FOUND = some_roles(mover=[(2, 1), (1, 0)], inhibition=[(1, 2)], induction=[(1, 0)])


@pytest.fixture(scope="module")
def bridge(tiny_model):
    return models.load(tiny_model)


@pytest.fixture(scope="module")
def run(bridge):
    prompts = ioi.prompts(bridge.tokenizer, 32, seed=5)
    return clean_run(bridge, prompts, rows=("end", "S2", "S1+1"))


def test_task_table(run):
    table = circuit.task_table(run, seed=0)
    prompts, difference = run.prompts, run.logit_difference.double().numpy()
    template, abba = prompts.template.numpy(), prompts.abba.numpy()
    assert (table["template"][0], table["order"][0], table["prompts"][0]) == (0, "both", 32)
    assert set(zip(table["template"][1:], table["order"][1:], strict=True)) == {
        (t + 1, order) for t in set(template.tolist()) for order in ("ABBA", "BABA")
    }
    assert sum(table["prompts"][1:]) == 32
    for i, (t, order) in enumerate(zip(table["template"], table["order"], strict=True)):
        mask = np.ones(32, dtype=bool)
        if t:
            mask = (template == t - 1) & (abba == (order == "ABBA"))
        assert table["prompts"][i] == mask.sum()
        assert table["mean"][i] == pytest.approx(difference[mask].mean())
        assert table["preferred"][i] == pytest.approx((difference[mask] > 0).mean())
        assert table["top"][i] == pytest.approx(run.correct.numpy()[mask].mean())
        assert table["low"][i] <= table["mean"][i] <= table["high"][i]
    assert table["low"][0] < table["mean"][0] < table["high"][0]


def test_interval_over_all_prompts_is_over_pairs(run):
    """Prompts twice over in place of their two orders make no interval narrower."""
    table = circuit.task_table(run, seed=0)
    pairs = ioi.pair_means(run.logit_difference)
    half = 1.96 * pairs.std() / len(pairs) ** 0.5
    width = (table["high"][0] - table["low"][0]) / 2
    assert width == pytest.approx(half, rel=0.15)


def test_attribution_table():
    dla = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0))
    dla[1, :, 2] = 4.0
    roles = some_roles(mover=[(1, 2)], inhibition=[(0, 1)])
    table = circuit.attribution_table(dla, roles, seed=0)
    at = list(zip(table["layer"], table["head"], strict=True))
    assert at == [(layer, head) for layer in range(2) for head in range(3)]
    assert table["name"] == [label(head) for head in at]
    assert table["mean"] == pytest.approx([float(dla[la, :, h].mean()) for la, h in at])
    assert table["role"] == ["other", "inhibition", "other", "other", "other", "mover"]
    assert (table["low"][5], table["high"][5]) == (4.0, 4.0)
    assert all(table["low"][i] < table["mean"][i] < table["high"][i] for i in range(5))


def test_movers_share_of_what_is_written_for_the_answer():
    dla = torch.zeros(2, 3, 2)
    dla[0, :, 0] = torch.tensor([1.0, 0.0, 2.0])
    dla[1, :, 1] = torch.tensor([3.0, 5.0, -1.0])
    dla[1, :, 0] = -7.0  # written against the answer: left out of the sum
    share = circuit.movers_share(dla, some_roles(mover=[(1, 1)]))
    assert share.tolist() == [0.75, 1.0, 0.0]
    both = circuit.movers_share(dla, some_roles(mover=[(1, 1), (0, 0)]))
    assert both.tolist() == [1.0, 1.0, 1.0]


def test_movers_share_of_a_model(bridge, run):
    dla = direct_logit_attribution(bridge, run)
    share = circuit.movers_share(dla, FOUND)
    assert share.shape == (32,) and share.min() >= 0 and share.max() <= 1
    assert 0 < share.mean() < 1


def test_attention_table(bridge, run):
    table = circuit.attention_table(run, FOUND)
    assert table["role"] == ["mover", "mover", "inhibition", "induction"]
    assert table["name"] == ["2.1", "1.0", "1.2", "1.0"]
    _, cache = bridge.run_with_cache(run.prompts.tokens)
    n, at = torch.arange(32), run.prompts.positions
    assert list(table) == ["role", "name", *(f"{start}>{to}" for start, to in LOOKS)]
    for start, to in LOOKS:
        for i, (layer, head) in enumerate(((2, 1), (1, 0), (1, 2), (1, 0))):
            pattern = cache[f"blocks.{layer}.attn.hook_pattern"][n, head, at[start], at[to]]
            found = table[f"{start}>{to}"][i]
            assert found == pytest.approx(float(pattern.mean()), abs=1e-6)


def test_roles_table():
    found = some_roles(
        {"mover": [2.0, 0.5], "induction": [0.9]}, mover=[(3, 0), (1, 2)], induction=[(1, 2)]
    )
    again = some_roles(mover=[(1, 2)], inhibition=[(3, 0)])
    assert circuit.roles_table(found, again) == {
        "role": ["mover", "mover", "induction"],
        "name": ["3.0", "1.2", "1.2"],
        "layer": [3, 1, 1],
        "head": [0, 2, 2],
        "score": [2.0, 0.5, 0.9],
        "again": [False, True, False],
    }


def test_writers_table(bridge, run):
    n = 5
    table = circuit.writers_table(bridge, run, FOUND, n=n)
    mean = direct_logit_attribution(bridge, run).mean(1)
    order = mean.abs().flatten().argsort(descending=True)[:n].tolist()
    heads = [divmod(i, mean.shape[1]) for i in order]
    assert table["name"] == [label(head) for head in heads]
    for i, head in enumerate(heads):
        assert table["io"][i] - table["s"][i] == pytest.approx(table["difference"][i], abs=1e-5)
        assert table["difference"][i] == pytest.approx(float(mean[head]), abs=1e-4)
        expected = {(2, 1): "mover", (1, 0): "mover", (1, 2): "inhibition"}.get(head, "other")
        assert table["role"][i] == expected


def test_writers_add_to_logits_counted_from_the_vocabularys_mean(bridge, run):
    """The head's output through the final norm, its divisor frozen, onto the whole vocabulary."""
    table = circuit.writers_table(bridge, run, FOUND, n=3)
    n, at = torch.arange(32), run.prompts.positions
    for i, name in enumerate(table["name"]):
        layer, head = map(int, name.split("."))
        output = run.z[layer, :, head] @ bridge.W_O[layer, head].detach()
        if bridge.cfg.normalization_type.startswith("LN"):
            output = output - output.mean(-1, keepdim=True)
        logits = output / run.final_scale[:, None] @ bridge.W_U.detach()
        logits = logits - logits.mean(-1, keepdim=True)
        for column, token in (("io", run.prompts.io), ("s", run.prompts.s)):
            assert table[column][i] == pytest.approx(float(logits[n, token].mean()), abs=1e-4)
        for to in ("IO", "S1", "S2", "start", "end"):
            pattern = run.pattern["end"][layer, n, head, at[to]]
            assert table[f"end>{to}"][i] == pytest.approx(float(pattern.mean()), abs=1e-6)
