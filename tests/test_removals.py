"""Removals with everything after recomputed, against forward passes of the whole model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from th_utils import models
from th_utils.bootstrap import mean_interval
from th_utils.components import SenderEffects, direct_effects, mover_score, scores_of
from th_utils.patching import ComponentEdit, keep, remove, run_edited, scale
from th_utils.removals import (
    in_turn_table,
    random_components,
    removals,
    removed_in_turn,
    removed_together,
)
from th_utils.runs import CleanRun, clean_run
from th_utils.svd import HeadSVD, ov_svd
from th_utils.tasks import ioi
from th_utils.weights import from_bridge

MOVER = (2, 1)
# Random models prefer neither name much: their attention moves by a few thousandths only.
ATOL = {"inhibition": 1e-5, "logit difference": 1e-4}


@pytest.fixture(scope="module")
def bridge(tiny_model):
    return models.load(tiny_model)


@pytest.fixture(scope="module")
def svd(bridge) -> HeadSVD:
    return ov_svd(from_bridge(bridge))


@pytest.fixture(scope="module")
def run(bridge) -> CleanRun:
    return clean_run(bridge, ioi.prompts(bridge.tokenizer, 8, seed=5))


def fall(bridge, run: CleanRun, edits: list[ComponentEdit]) -> dict[str, Tensor]:
    """Both falls from a forward pass of the whole model."""
    prompts, n = run.prompts, torch.arange(len(run.prompts))
    end, name = prompts.positions["end"], f"blocks.{MOVER[0]}.attn.hook_pattern"
    logits, kept = run_edited(bridge, prompts.tokens, edits, positions=end, keep_hooks=[name])
    final = logits[n, end]
    pattern = kept[name][n, MOVER[1], end][:, None]
    return {
        "inhibition": mover_score(run, MOVER) - scores_of(run, pattern)[:, 0],
        "logit difference": run.logit_difference
        - (final[n, prompts.io] - final[n, prompts.s]).detach(),
    }


def agree(found: dict[str, Tensor], case: int, expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    for name in expected:
        torch.testing.assert_close(found[name][:, case], expected[name], atol=ATOL[name], rtol=1e-4)


@pytest.mark.parametrize("sender", [(1, 2), (0, 0)])
def test_removed_in_turn_is_a_forward_pass_each(bridge, run, svd, sender):
    found = removed_in_turn(bridge, run, svd, sender, MOVER)
    rank = svd.S.shape[-1]
    assert all(values.shape == (8, rank) for values in found.values())
    assert found["logit difference"].abs().max() > 1e-2
    assert found["inhibition"].abs().max() > 10 * ATOL["inhibition"]
    for k in range(rank):
        agree(found, k, fall(bridge, run, [remove(svd, *sender, [k])]))


def test_removed_together_is_a_forward_pass_each(bridge, run, svd):
    """Edits of several heads in several layers, also two of one head and layers that differ."""
    cases = [
        [remove(svd, 1, 2, [0, 1])],
        [remove(svd, 0, 1, [0, 3]), remove(svd, 1, 2, [0, 1]), keep(svd, 1, 0, [2])],
        [scale(svd, 0, 0, [1], -3.0), remove(svd, 0, 3, [0])],
        [remove(svd, 2, 0, [0]), remove(svd, 0, 1, [2])],
    ]
    found = removed_together(bridge, run, MOVER, cases)
    assert all(values.shape == (8, len(cases)) for values in found.values())
    for case, edits in enumerate(cases):
        agree(found, case, fall(bridge, run, edits))
        assert found["logit difference"][:, case].abs().max() > 1e-2


def test_one_removal_together_is_the_same_in_turn(bridge, run, svd):
    turn = removed_in_turn(bridge, run, svd, (1, 2), MOVER)
    together = removed_together(bridge, run, MOVER, [[remove(svd, 1, 2, [k])] for k in (3, 0)])
    for name, values in together.items():
        torch.testing.assert_close(values, turn[name][:, [3, 0]], atol=2e-5, rtol=1e-4)


# --- random other components


def spans(edit: ComponentEdit, svd: HeadSVD) -> list[int]:
    """The components that an edit removes, read off its directions."""
    overlap = (edit.directions @ svd.V[edit.layer, edit.head]).abs()
    return sorted(overlap.argmax(1).tolist())


def test_random_components_are_others_of_the_same_heads(svd):
    picks = {(1, 2): [0, 5], (0, 1): [3]}
    drawn: dict = {head: set() for head in picks}
    for seed in range(40):
        edits = random_components(svd, picks, seed=seed)
        assert [(e.layer, e.head) for e in edits] == list(picks)
        for edit in edits:
            components = spans(edit, svd)
            chosen = picks[edit.layer, edit.head]
            assert len(set(components)) == len(chosen) and not set(components) & set(chosen)
            assert (edit.inside, edit.outside) == (0.0, 1.0)
            drawn[edit.layer, edit.head] |= set(components)
    everything = set(range(svd.S.shape[-1]))
    assert drawn == {head: everything - set(chosen) for head, chosen in picks.items()}


def test_random_components_repeat_with_their_seed(svd):
    picks = {(1, 2): [0, 5], (0, 1): [3]}
    draws = [[spans(e, svd) for e in random_components(svd, picks, seed=s)] for s in (1, 1, 2, 3)]
    assert draws[0] == draws[1] and draws[1:] != [draws[1]] * 3


# --- tables


def test_in_turn_table(bridge, run, svd):
    senders = [(1, 2), (0, 0)]
    full = [removed_in_turn(bridge, run, svd, s, MOVER) for s in senders]
    nothing = torch.zeros(8)
    measured = []
    for sender in senders:
        effects = direct_effects(bridge, run, sender, MOVER, svd.V[sender].mT)
        measured.append(
            SenderEffects(
                sender=sender,
                picks=[3, 1] if sender == (1, 2) else [0, 2],
                effects=effects,
                whole=nothing,
                picked=nothing,
                random=effects,
                matched=effects,
                norm_share=nothing,
                scores=svd.S[sender],
            )
        )
    table = in_turn_table(measured, full)
    assert list(table) == ["head", "component", "first", "direct", "full", "logit"]
    rank = svd.S.shape[-1]
    assert table["head"] == ["1.2"] * rank + ["0.0"] * rank
    assert table["component"] == [*range(rank)] * 2
    # the component chosen first on the other half, whatever inhibits most on this one
    assert [i for i, first in enumerate(table["first"]) if first] == [3, rank]
    for i in range(2 * rank):
        which, k = divmod(i, rank)
        assert table["direct"][i] == pytest.approx(float(measured[which].effects[:, k].mean()))
        assert table["full"][i] == pytest.approx(float(full[which]["inhibition"][:, k].mean()))
        logit = full[which]["logit difference"][:, k].mean()
        assert table["logit"][i] == pytest.approx(float(logit))


def test_removals(bridge, run, svd):
    picks, draws, seed = {(1, 2): [0, 5], (0, 1): [3, 1]}, 3, 7
    found = removals(bridge, run, svd, MOVER, picks, draws=draws, seed=seed)
    table = found.table
    assert table["removed"] == [
        "nothing", "1.2.0, 1.2.5", "0.1.3, 0.1.1", "all of these", "random others (3 draws)"
    ]  # fmt: skip
    assert table["control"] == [False] * 4 + [True]
    edits = [remove(svd, *head, components) for head, components in picks.items()]
    random = [random_components(svd, picks, seed=seed + 1 + i) for i in range(draws)]
    falls = [fall(bridge, run, case) for case in ([edits[0]], [edits[1]], edits, *random)]
    clean = {"inhibition": mover_score(run, MOVER), "logit difference": run.logit_difference}
    for name, before in clean.items():
        control = torch.stack([f[name] for f in falls[3:]]).mean(0)
        left = [before, *(before - f[name] for f in falls[:3]), before - control]
        for row, values in enumerate(left):
            interval = mean_interval(ioi.pair_means(values), seed=seed)
            said = tuple(table[f"{name} {end}"][row] for end in ("mean", "low", "high"))
            assert said == pytest.approx(interval, abs=1e-4)
    assert found.clean == pytest.approx(ioi.pair_means(clean["inhibition"]), abs=1e-5)
    assert found.leading == pytest.approx(ioi.pair_means(falls[2]["inhibition"]), abs=1e-4)
    assert found.random.shape == (4, draws)
    for draw in range(draws):
        expected = ioi.pair_means(falls[3 + draw]["inhibition"])
        assert found.random[:, draw] == pytest.approx(expected, abs=1e-4)
    assert abs(found.leading).max() > 1e-3
