"""What the end position is given from another prompt: whole forward passes with the same change."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from th_utils import line, line_controls, line_limits, line_steering, steering
from th_utils.components import random_directions
from th_utils.errors import CompanionError
from th_utils.patching import direct_query, head_outputs
from th_utils.runs import CleanRun, clean_run
from th_utils.tasks import ioi

SENDER, OTHER, MOVER = (0, 1), (1, 2), (2, 1)


@pytest.fixture(scope="module")
def run(bridge) -> CleanRun:
    return clean_run(bridge, ioi.prompts(bridge.tokenizer, 8, seed=5))


@pytest.fixture(scope="module")
def lines(bridge, svd, run) -> list[line.Line]:
    return [line.choose(bridge, run, svd, head, MOVER) for head in (SENDER, OTHER)]


@pytest.fixture(scope="module")
def given(bridge, run) -> dict[str, CleanRun]:
    return line_limits.donors(bridge, run)


def right_first(run: CleanRun, logits: torch.Tensor) -> torch.Tensor:
    """logit(first name) - logit(second name) at the end of a whole forward pass."""
    prompts, rows = run.prompts, torch.arange(len(run.prompts))
    final = logits[rows, prompts.positions["end"]]
    difference = final[rows, prompts.io] - final[rows, prompts.s]
    return torch.where(prompts.abba, difference, -difference)


def test_names_are_exchanged_everywhere(bridge):
    texts = ["Then , Mary and John went . John gave to", "Then , John and Mary went . John gave to"]
    words = [["Mary", "Mary"], ["John", "John"], [True, False], [0, 0]]
    prompts = ioi.encode(bridge.tokenizer, texts, *words)
    swapped = [t.replace("Mary", "X").replace("John", "Mary").replace("X", "John") for t in texts]
    expected = ioi.encode(bridge.tokenizer, swapped, words[1], words[0], *words[2:])
    assert torch.equal(line_limits.names_exchanged(prompts), expected.tokens)


def test_donors_are_runs_of_the_counterparts(bridge, run, given):
    prompts = run.prompts
    assert list(given) == list(line_limits.DONORS)
    other, exchanged = given.values()
    texts = list(prompts.texts)
    for i, text in enumerate(texts):
        twin = i + 1 if i % 2 == 0 else i - 1
        assert texts[twin] != text and sorted(texts[twin]) == sorted(text)
        torch.testing.assert_close(other.z[:, i], run.z[:, twin])
        torch.testing.assert_close(other.resid[:, i], run.resid[:, twin])
    tokens = line_limits.names_exchanged(prompts)
    again = clean_run(bridge, dataclasses.replace(prompts, tokens=tokens))
    torch.testing.assert_close(exchanged.resid, again.resid)
    torch.testing.assert_close(exchanged.z, again.z)
    assert float((exchanged.z - run.z).abs().max()) > 1e-2


def test_donors_need_pairs(bridge, run):
    alone = dataclasses.replace(run.prompts, abba=torch.ones(8, dtype=torch.bool))
    with pytest.raises(CompanionError, match="not pairs"):
        line_limits.donors(bridge, dataclasses.replace(run, prompts=alone))


def test_a_given_head_is_a_forward_pass(bridge, svd, run, given):
    """All components of two heads set, against hooks that write the donor's outputs."""
    donor = given["names exchanged"]
    axes = line_limits.joint([line_limits.whole_head(svd, head) for head in (SENDER, OTHER)])
    found = line_limits.with_coordinates(bridge, run, donor, axes, MOVER)
    rows, end = torch.arange(8), run.prompts.positions["end"]

    def write(z, hook, layer, head):
        z = z.clone()
        z[rows, end, head] = donor.z[layer, :, head]
        return z

    hooks = [
        (f"blocks.{layer}.attn.hook_z", lambda z, hook, at=layer, h=head: write(z, hook, at, h))
        for layer, head in (SENDER, OTHER)
    ]
    with torch.no_grad():
        logits = bridge.run_with_hooks(run.prompts.tokens, fwd_hooks=hooks, return_type="logits")
    expected = right_first(run, logits)
    torch.testing.assert_close(found.logits[:, 0], expected, atol=1e-4, rtol=0)
    assert float((found.logits - line_steering.clean(run, MOVER).logits).abs().max()) > 1e-2


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_given_residual_stream_is_a_forward_pass(bridge, run, given, layer):
    donor = given["other order"]
    found = line_limits.with_residual(bridge, run, donor, layer, MOVER)
    rows, end = torch.arange(8), run.prompts.positions["end"]
    kept = {}

    def write(resid, hook):
        resid = resid.clone()
        resid[rows, end] = donor.resid[layer]
        return resid

    def read(pattern, hook):
        kept["pattern"] = pattern[rows, MOVER[1], end].detach()

    hooks = [
        (f"blocks.{layer}.hook_resid_pre", write),
        (f"blocks.{MOVER[0]}.attn.hook_pattern", read),
    ]
    with torch.no_grad():
        logits = bridge.run_with_hooks(run.prompts.tokens, fwd_hooks=hooks, return_type="logits")
    expected = right_first(run, logits)
    torch.testing.assert_close(found.logits[:, 0], expected, atol=1e-4, rtol=0)
    at = run.prompts.positions
    io, s1 = (kept["pattern"][rows, at[role]] for role in ("IO", "S1"))
    attention = torch.where(run.prompts.abba, io - s1, s1 - io)
    torch.testing.assert_close(found.attention[:, 0], attention, atol=1e-5, rtol=0)
    if layer:  # at the first block the last token is all there is, and it is the same
        assert float((found.logits - line_steering.clean(run, MOVER).logits).abs().max()) > 1e-2


def test_exchanges(bridge, svd, run, lines, given):
    table = line_limits.exchanges(bridge, run, svd, lines, MOVER, seed=0)
    each = list(dict.fromkeys(table["given"]))
    assert len(each) == 5 and table["given"] == each * 2
    assert table["donor"] == [name for name in line_limits.DONORS for _ in range(5)]
    donor = given["other order"]
    everything = line_limits.with_residual(bridge, run, donor, OTHER[0] + 1, MOVER)
    alone = line_limits.with_coordinates(bridge, run, donor, lines[0].axes, MOVER)
    before = line_steering.clean(run, MOVER)
    for row, after in ((0, alone), (4, everything)):
        for name, quantity in (("attention", "attention"), ("answer", "logits")):
            was, now = (
                line_steering.against(getattr(p, quantity), run.prompts.abba).mean()
                for p in (before, after)
            )
            expected = float((was - now) / (2 * was))
            assert table[f"{name} value"][row] == pytest.approx(expected, rel=1e-3, abs=1e-4)
            assert table[f"{name} low"][row] <= table[f"{name} high"][row]
    one = line_limits.exchanges(bridge, run, svd, lines[:1], MOVER, seed=0)
    assert len(one["given"]) == 6


def test_in_query(bridge, svd, run):
    directions = random_directions(svd, SENDER, 3, seed=0)
    found = line_limits.in_query(bridge, run, directions, 5.0, MOVER)
    at, rows = run.prompts.positions, torch.arange(8)
    for case, direction in enumerate(directions):
        ends = []
        for end in (-5.0, 5.0):
            pattern = direct_query(bridge, run, *MOVER, (end * direction).expand(8, 1, -1))[:, 0]
            ends.append(pattern[rows, at["IO"]] - pattern[rows, at["S1"]])
        change = ends[1] - ends[0]
        expected = torch.where(run.prompts.abba, change, -change)
        torch.testing.assert_close(found[:, case], expected, atol=1e-5, rtol=0)
    assert float(found.abs().max()) > 1e-3


def test_ranges(bridge, svd, run, lines):
    far = dataclasses.replace(lines[0], abba=4.0, baba=-2.0)
    table = line_limits.ranges(bridge, run, svd, far, MOVER, [0.5, 2], draws=3, seed=1)
    assert table["factor"] == [0.5, 2]
    random = random_directions(svd, SENDER, 3, seed=1)
    for row, end in enumerate((1.5, 6.0)):
        ends = torch.tensor([-end, end])[:, None, None]
        line_after = line_steering.moved(bridge, run, far.axes, ends, MOVER)
        change = line_steering.between_ends(line_after.attention).mean()
        assert table["full value"][row] == pytest.approx(change, abs=1e-6)
        sizes = []
        for direction in random:
            axes = steering.Axes((SENDER,), direction[None], ("random",))
            after = line_steering.moved(bridge, run, axes, ends, MOVER)
            sizes.append(abs(line_steering.between_ends(after.attention).mean()))
        assert table["full random"][row] == pytest.approx(np.mean(sizes), abs=1e-6)
        query = line_limits.in_query(
            bridge, run, torch.cat([far.axes.directions, random]), end, MOVER
        ).mean(0)
        assert table["query value"][row] == pytest.approx(float(query[0]), abs=1e-6)
        assert table["query random"][row] == pytest.approx(float(query[1:].abs().mean()), abs=1e-6)


def test_ranges_take_what_is_known(bridge, svd, run, lines):
    """The controls of the sweep are those that `ranges` would make again."""
    far = dataclasses.replace(lines[0], abba=4.0, baba=-2.0)
    how = dict(draws=3, seed=1)
    control = line_controls.controls(bridge, run, svd, far, MOVER, 2 * far.spread, **how)["head"]
    table = line_limits.ranges(bridge, run, svd, far, MOVER, [1, 2], **how)
    again = line_limits.ranges(bridge, run, svd, far, MOVER, [1, 2], **how, known={2: control})
    assert again == table
    other = dataclasses.replace(control, attention=control.attention + 1)
    again = line_limits.ranges(bridge, run, svd, far, MOVER, [1, 2], **how, known={2: other})
    assert again["full random"][0] == table["full random"][0]
    assert again["full random"][1] == pytest.approx(np.abs(other.attention.mean(0)).mean())


def test_components_table(bridge, svd, run, lines):
    table = line_limits.components_table(bridge, run, svd, lines[0], MOVER, 5.0)
    assert table["component"] == list(range(svd.V.shape[-1]))
    assert [k for k, found in enumerate(table["leading"]) if found] == [lines[0].component]
    found, abba = head_outputs(bridge, run, *SENDER), run.prompts.abba
    for k in table["component"]:
        v = svd.V[SENDER][:, k]
        apart = abs(float((found[abba] @ v).mean() - (found[~abba] @ v).mean()))
        change = line_limits.in_query(bridge, run, v[None], 5.0, MOVER).mean()
        assert table["apart"][k] == pytest.approx(apart, abs=1e-5)
        assert table["change"][k] == pytest.approx(abs(float(change)), abs=1e-6)
