"""Values cut at the second mention: replay against hooked forward passes of the whole model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from th_utils import models, sites, value_removal, writers
from th_utils.attention import inhibition_score
from th_utils.bootstrap import mean_interval
from th_utils.components import mover_score, ratio
from th_utils.errors import CompanionError
from th_utils.patching import direct_query, head_outputs
from th_utils.svd import ov_svd
from th_utils.tasks import ioi
from th_utils.weights import from_bridge
from th_utils.width import Written, one_by_one

FIRST, SECOND = (0, 2), (1, 1)


@pytest.fixture(scope="module")
def at(bridge) -> sites.Sites:
    return sites.sites(bridge, ioi.prompts(bridge.tokenizer, 8, seed=5), entering=0)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(found: Tensor, expected: Tensor, atol: float = 1e-4) -> None:
    torch.testing.assert_close(found, expected, atol=atol, rtol=1e-4)


@torch.no_grad()
def hooked(bridge, at: sites.Sites, cut: dict, mover) -> tuple[Tensor, Tensor]:
    """Inhibition score and logit difference of a full forward with the cut, by hooks."""
    prompts, n = at.run.prompts, torch.arange(len(at.run.prompts))
    s2, end = prompts.positions["S2"], prompts.positions["end"]
    seen: dict = {}
    hooks = []
    for (layer, head), delta in cut.items():
        block = bridge.blocks[layer]
        W_V = block.attn.W_V.detach()
        W_V = W_V[head * len(W_V) // bridge.cfg.n_heads]

        def resid(x, hook, layer=layer):
            seen["resid", layer] = x[n, s2].clone()

        def pattern(p, hook, layer=layer):
            seen["pattern", layer] = p.clone()

        def z(x, hook, layer=layer, head=head, block=block, W_V=W_V, delta=delta):
            before = seen["resid", layer]
            moved = (block.ln1(before + delta) - block.ln1(before)) @ W_V
            x = x.clone()
            x[:, :, head] += seen["pattern", layer][n, head, :, s2][..., None] * moved[:, None]
            return x

        hooks += [
            (f"blocks.{layer}.hook_resid_pre", resid),
            (f"blocks.{layer}.attn.hook_pattern", pattern),
            (f"blocks.{layer}.attn.hook_z", z),
        ]

    def watch(p, hook):
        seen["mover"] = p[n, mover[1], end].clone()

    hooks.append((f"blocks.{mover[0]}.attn.hook_pattern", watch))
    logits = bridge.run_with_hooks(prompts.tokens, fwd_hooks=hooks, return_type="logits")[n, end]
    score = inhibition_score(
        seen["mover"][:, None], prompts.positions["IO"], prompts.positions["S1"]
    )[:, 0]
    return score, logits[n, prompts.io] - logits[n, prompts.s]


@pytest.mark.parametrize("mover", [(1, 3), (2, 1)], ids=["within", "last block"])
@pytest.mark.parametrize("rows", [4096, 1], ids=["one batch", "case by case"])
def test_cut_values_are_a_full_forward(bridge, at, mover, rows, monkeypatch):
    d = at.stream.shape[-1]
    cuts = [{FIRST: draw(8, d, seed=1)}, {(0, 0): draw(8, d, seed=2), FIRST: draw(8, d, seed=3)}]
    if mover[0] > 1:  # a second layer, which reads what the first has changed
        cuts.append({FIRST: draw(8, d, seed=4), SECOND: 3 * draw(8, d, seed=5)})
    monkeypatch.setattr(value_removal, "ROWS", rows)
    found = value_removal.cut_values(bridge, at, cuts, mover)
    for case, cut in enumerate(cuts):
        score, difference = hooked(bridge, at, cut, mover)
        close(found["inhibition"][:, case], mover_score(at.run, mover) - score)
        close(found["logit difference"][:, case], at.run.logit_difference - difference)
    assert found["inhibition"].abs().max() > 1e-3


def test_nothing_cut_nothing_changes(bridge, at):
    nothing = {FIRST: torch.zeros(8, at.stream.shape[-1])}
    for fall in value_removal.cut_values(bridge, at, [nothing], (2, 1)).values():
        close(fall, torch.zeros(8, 1))


@pytest.mark.parametrize(
    "cuts, mover",
    [([{SECOND: 1}], (2, 1)), ([{FIRST: 1}], (0, 1)), ([], (2, 1))],
    ids=["another layer", "mover too early", "no cuts"],
)
def test_heads_that_do_not_fit(bridge, at, cuts, mover):
    cuts = [{head: torch.zeros(8, at.stream.shape[-1]) for head in cut} for cut in cuts]
    with pytest.raises(CompanionError, match="the stream kept before layer 0"):
        value_removal.cut_values(bridge, at, cuts, mover)


def value_of(bridge, at, svd, reader=SECOND, lead=2) -> writers.Input:
    return writers.value_input(bridge, at, svd, reader, lead, sign=-1.0)


def test_through_the_mover(bridge, at, svd):
    """The coordinate's change, put into the mover's query."""
    mover, direction = (2, 1), svd.V[SECOND][:, 2]
    seen = value_of(bridge, at, svd)
    delta = 5 * draw(8, 3, at.stream.shape[-1])
    falls = seen.fall(delta)
    found = value_removal.through_mover(bridge, at, seen, direction, falls, mover)
    signs = torch.where(at.run.prompts.abba, -2.0, 2.0)[:, None]
    moved = (-falls / signs)[..., None] * direction
    patterns = direct_query(bridge, at.run, *mover, moved)
    where = at.run.prompts.positions
    after = inhibition_score(patterns, where["IO"], where["S1"])
    close(found, mover_score(at.run, mover)[:, None] - after)
    assert found.abs().max() > 1e-4
    # all of the coordinate gone is the component removed from the query
    clean = head_outputs(bridge, at.run, *SECOND) @ direction
    gone = value_removal.through_mover(bridge, at, seen, direction, seen.clean[:, None], mover)[
        :, 0
    ]
    pattern = direct_query(bridge, at.run, *mover, -(clean[:, None] * direction)[:, None])
    score = inhibition_score(pattern, where["IO"], where["S1"])[:, 0]
    close(gone, mover_score(at.run, mover) - score)


def some_written(bridge, at, svd, writer) -> Written:
    directions = svd.V[writer].mT
    order = list(range(len(directions)))
    return Written(writers.outputs(bridge, at, "V", writer), directions, order[::-1], order)


def test_by_value_alone(bridge, at, svd):
    seen, mover = value_of(bridge, at, svd), (2, 1)
    two = [some_written(bridge, at, svd, writer) for writer in ((0, 1), (0, 3))]
    found = value_removal.by_value_alone(bridge, at, seen, svd.V[SECOND][:, 2], two, mover, seed=0)
    whole = seen.fall(-(two[0].output + two[1].output)[:, None])
    gone = [w.directions[w.by_effect[:2]] for w in two]
    delta = -sum((w.output @ v.T) @ v for w, v in zip(two, gone, strict=True))
    part = seen.fall(delta[:, None])
    clean = ioi.pair_means(seen.clean)
    for name, falls in (("whole", whole), ("leading", part)):
        share = ratio(ioi.pair_means(falls)[:, 0], clean, seed=0)
        assert found[f"distance {name}"] == pytest.approx(share, rel=1e-3, abs=1e-4)
        through = value_removal.through_mover(bridge, at, seen, svd.V[SECOND][:, 2], falls, mover)
        expected = mean_interval(ioi.pair_means(through)[:, 0], seed=0)
        assert found[name] == pytest.approx(expected, abs=1e-5)
        assert found[name].low < found[name].high


def test_removal_table(tiny_gpt2):
    bridge = models.load(tiny_gpt2)
    svd = ov_svd(from_bridge(bridge))
    at = sites.sites(bridge, ioi.prompts(bridge.tokenizer, 8, seed=5), entering=1)
    mover, readers = (2, 1), [SECOND, (1, 0)]
    mine = {reader: [some_written(bridge, at, svd, (0, 1))] for reader in readers}
    theirs = {SECOND: [some_written(bridge, at, svd, (0, 3))]}
    result = value_removal.remove_from_values(
        bridge, at, mine, mover, draws=3, seed=0, also={"induction": theirs}
    )
    table = result.table
    assert table["removed"] == [
        "nothing",
        "duplicate-token, leading two",
        "duplicate-token, all",
        "induction, leading two",
        "induction, all",
        "all of these, all",
        "duplicate-token, random others",
    ]
    assert table["control"] == [False] * 6 + [True]

    def whole(of: dict) -> dict:
        return {reader: -sum(w.output for w in written) for reader, written in of.items()}

    def two(of: dict) -> dict:
        return {r: sum(one_by_one(w, w.by_effect)[:, 1] for w in ws) for r, ws in of.items()}

    joined = whole(mine)
    joined[SECOND] = joined[SECOND] + whole(theirs)[SECOND]
    cuts = [two(mine), whole(mine), two(theirs), whole(theirs), joined]
    for row, cut in enumerate(cuts, 1):
        score, difference = hooked(bridge, at, cut, mover)
        assert table["inhibition mean"][row] == pytest.approx(float(score.mean()), abs=1e-4)
        mean = table["logit difference mean"][row]
        assert mean == pytest.approx(float(difference.mean()), abs=1e-4)
        low, high = (table[f"inhibition {end}"][row] for end in ("low", "high"))
        assert low <= table["inhibition mean"][row] <= high
        paired = {
            "inhibition": mover_score(at.run, mover) - score,
            "logit difference": at.run.logit_difference - difference,
        }
        for name, fall in paired.items():
            ends = [table[f"{name} fall {end}"][row] for end in ("mean", "low", "high")]
            expected = mean_interval(ioi.pair_means(fall), seed=0)
            assert ends == pytest.approx(list(expected), abs=2e-4)
    assert [table[f"inhibition fall {end}"][0] for end in ("mean", "low", "high")] == [0.0] * 3
    np.testing.assert_allclose(result.clean, ioi.pair_means(mover_score(at.run, mover)))
    for found, cut in ((result.leading, cuts[0]), (result.whole, cuts[1])):
        fall = mover_score(at.run, mover) - hooked(bridge, at, cut, mover)[0]
        np.testing.assert_allclose(found, ioi.pair_means(fall), atol=1e-4)
    assert result.others.shape == (4, 3)
    left = result.clean.mean() - result.others.mean()
    assert table["inhibition mean"][-1] == pytest.approx(left)
    alone = value_removal.remove_from_values(bridge, at, mine, mover, draws=3, seed=0)
    assert len(alone.table["removed"]) == 4
    np.testing.assert_allclose(alone.others, result.others, atol=1e-6)
