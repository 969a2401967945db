"""What single components do to a mover: several ways to the same number, and planted effects."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from th_utils import components, composition, models
from th_utils.attention import inhibition_score
from th_utils.bootstrap import rank_correlation
from th_utils.components import (
    SenderEffects,
    agreement,
    direct_effects,
    direct_fall,
    leading,
    measure,
    mover_score,
    panels_table,
    picked_and_whole,
    random_directions,
    ratio,
    scores_of,
    size_ratio,
)
from th_utils.errors import CompanionError
from th_utils.patching import direct_query, head_outputs, keep, remove
from th_utils.runs import CleanRun, clean_run
from th_utils.svd import HeadSVD, ov_svd
from th_utils.tasks import ioi
from th_utils.weights import AttentionWeights, from_bridge

SENDER, MOVER = (1, 2), (2, 1)


@pytest.fixture(scope="module")
def bridge(tiny_model):
    return models.load(tiny_model)


@pytest.fixture(scope="module")
def weights(bridge) -> AttentionWeights:
    return from_bridge(bridge)


@pytest.fixture(scope="module")
def svd(weights) -> HeadSVD:
    return ov_svd(weights)


@pytest.fixture(scope="module")
def run(bridge) -> CleanRun:
    return clean_run(bridge, ioi.prompts(bridge.tokenizer, 8, seed=5))


def close(found: Tensor, expected: Tensor, atol: float = 2e-5) -> None:
    torch.testing.assert_close(found, expected, atol=atol, rtol=1e-4)


# --- directions taken out of the mover's query


def test_mover_score_is_the_preference_of_the_clean_run(bridge, run):
    n, at = torch.arange(8), run.prompts.positions
    _, cache = bridge.run_with_cache(run.prompts.tokens)
    pattern = cache[f"blocks.{MOVER[0]}.attn.hook_pattern"][n, MOVER[1], at["end"]]
    close(mover_score(run, MOVER), pattern[n, at["IO"]] - pattern[n, at["S1"]])
    assert mover_score(run, MOVER).abs().max() > 1e-3
    clean = run.pattern["end"][MOVER[0], :, MOVER[1]][:, None].expand(-1, 3, -1)
    close(scores_of(run, clean), mover_score(run, MOVER)[:, None].expand(-1, 3))


def test_direct_effects_are_those_of_the_edits(bridge, run, svd):
    """Direction by direction against the removal of that component alone."""
    directions = svd.V[SENDER].mT
    effects = direct_effects(bridge, run, SENDER, MOVER, directions)
    assert effects.shape == (8, svd.S.shape[-1]) and effects.abs().max() > 1e-3
    for k in range(svd.S.shape[-1]):
        edit = remove(svd, *SENDER, [k])
        close(effects[:, k], direct_fall(bridge, run, SENDER, MOVER, edit))


def test_direct_fall_of_an_edit_written_out(bridge, run, svd):
    output = head_outputs(bridge, run, *SENDER)
    edit = keep(svd, *SENDER, [0, 3])
    delta = (edit.apply(output) - output)[:, None]
    pattern = direct_query(bridge, run, *MOVER, delta)
    at = run.prompts.positions
    after = inhibition_score(pattern, at["IO"], at["S1"])[:, 0]
    found = direct_fall(bridge, run, SENDER, MOVER, edit)
    close(found, mover_score(run, MOVER) - after)
    assert found.abs().max() > 1e-3


def test_a_complete_basis_removed_is_the_head_removed(bridge, run, svd):
    everything = remove(svd, *SENDER, list(range(svd.S.shape[-1])))
    whole = direct_fall(bridge, run, SENDER, MOVER)
    close(whole, direct_fall(bridge, run, SENDER, MOVER, everything))
    assert whole.abs().max() > 1e-3


def test_a_direction_the_head_does_not_write_to_does_nothing(bridge, run, svd):
    V = svd.V[SENDER]
    aside = torch.randn(2, V.shape[0], generator=torch.Generator().manual_seed(0))
    aside = aside - aside @ V @ V.mT
    aside = aside / aside.norm(dim=-1, keepdim=True)
    effects = direct_effects(bridge, run, SENDER, MOVER, aside)
    close(effects, torch.zeros_like(effects))


def test_leading_components_are_the_largest_in_the_mean():
    effects = torch.tensor([[0.0, 3.0, -9.0, 1.0], [2.0, 1.0, -9.0, 2.0]])
    assert leading(effects) == [1, 3]
    assert leading(effects, n=3) == [1, 3, 0]


def test_random_directions_lie_where_the_head_writes(svd):
    V = svd.V[SENDER]
    found = random_directions(svd, SENDER, 50, seed=3)
    assert found.shape == (50, V.shape[0])
    close(found.norm(dim=-1), torch.ones(50))
    close(found @ V @ V.mT, found)
    # all components alike: none of the mean squares is far from 1 / rank
    share = (found @ V).square().mean(0) * V.shape[1]
    assert share.min() > 0.4 and share.max() < 2
    assert torch.equal(found, random_directions(svd, SENDER, 50, seed=3))
    assert not torch.equal(found, random_directions(svd, SENDER, 50, seed=4))


# --- everything about one sender


@pytest.fixture(scope="module")
def measured(bridge, run, weights, svd) -> list[SenderEffects]:
    other = clean_run(bridge, ioi.prompts(bridge.tokenizer, 8, seed=6, split="find"))
    reader = composition.readers(weights, "Q")
    senders = [SENDER, (0, 3)]
    return measure(bridge, other, run, svd, reader, senders, MOVER, n_random=5, seed=0)


def test_sender_effects(bridge, run, weights, svd, measured):
    assert [m.sender for m in measured] == [SENDER, (0, 3)]
    scores = composition.component_scores(svd, composition.readers(weights, "Q"))
    for m in measured:
        directions = svd.V[m.sender].mT
        close(m.effects, direct_effects(bridge, run, m.sender, MOVER, directions))
        close(m.whole, direct_fall(bridge, run, m.sender, MOVER))
        edit = remove(svd, *m.sender, m.picks)
        close(m.picked, direct_fall(bridge, run, m.sender, MOVER, edit))
        close(m.scores, scores[m.sender][:, MOVER[0], MOVER[1]])
        control = random_directions(svd, m.sender, 5, seed=0)
        close(m.random, direct_effects(bridge, run, m.sender, MOVER, control))


def test_leading_components_are_chosen_on_the_other_half(bridge, svd, measured):
    other = clean_run(bridge, ioi.prompts(bridge.tokenizer, 8, seed=6, split="find"))
    for m in measured:
        effects = direct_effects(bridge, other, m.sender, MOVER, svd.V[m.sender].mT)
        assert m.picks == leading(effects) and len(m.picks) == 2


def test_the_matched_control_is_as_long_as_what_was_removed(bridge, run, svd, measured):
    """Random directions of the write space, each prompt's taken to that prompt's length."""
    for m in measured:
        output = head_outputs(bridge, run, *m.sender)
        V = svd.V[m.sender][:, m.picks]
        length = (output @ V).norm(dim=-1)  # of what `picked` takes out
        control = random_directions(svd, m.sender, 5, seed=0)
        delta = -length[:, None, None] * control
        close(delta.norm(dim=-1), length[:, None].expand(-1, 5))
        clean = mover_score(run, MOVER)[:, None]
        expected = clean - scores_of(run, direct_query(bridge, run, *MOVER, delta))
        assert m.matched.shape == (8, 5) and expected.abs().max() > 2e-4
        close(m.matched, expected)
        assert not torch.allclose(m.matched, m.random, atol=5e-5)


def test_norm_share_is_that_of_the_squared_coefficients(bridge, run, svd, measured):
    for m in measured:
        coefficients = (head_outputs(bridge, run, *m.sender) @ svd.V[m.sender]).square()
        close(m.norm_share, coefficients[:, m.picks].sum(1) / coefficients.sum(1))
        assert m.norm_share.shape == (8,)
        assert 0 < m.norm_share.min() and m.norm_share.max() < 1


def test_norm_share_and_length_of_a_hand_made_output(bridge, run, svd, weights, monkeypatch):
    """Outputs of 3 and 4 along the leading two components, 12 along another: 25 of 169."""
    reader = composition.readers(weights, "Q")
    how = dict(n_random=4, seed=1)
    picks = measure(bridge, run, run, svd, reader, [SENDER], MOVER, **how)[0].picks
    other = next(k for k in range(svd.S.shape[-1]) if k not in picks)
    V = svd.V[SENDER]
    made = (3 * V[:, picks[0]] + 4 * V[:, picks[1]] + 12 * V[:, other]).expand(8, -1)
    monkeypatch.setattr(components, "head_outputs", lambda *_: made)
    monkeypatch.setattr(components, "leading", lambda *_: picks)
    (m,) = measure(bridge, run, run, svd, reader, [SENDER], MOVER, **how)
    close(m.norm_share, torch.full((8,), 25 / 169))
    delta = (-5.0 * random_directions(svd, SENDER, 4, seed=1)).expand(8, -1, -1)
    after = scores_of(run, direct_query(bridge, run, *MOVER, delta))
    close(m.matched, mover_score(run, MOVER)[:, None] - after)


def test_without_a_sender_there_is_nothing_to_measure(bridge, run, weights, svd):
    with pytest.raises(CompanionError, match="no inhibition head before the main mover"):
        reader = composition.readers(weights, "Q")
        measure(bridge, run, run, svd, reader, [], MOVER, n_random=2, seed=0)


# --- tables of made-up effects


def planted(sender=(1, 2), *, sign: float = 1.0, seed: int = 0, rank: int = 8):
    """Component 5 inhibits most and scores highest; effects grow with scores."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.arange(rank, dtype=torch.float32) / 20
    scores[5] = 0.9
    noise = 1e-4 * torch.randn(6, rank, generator=generator)
    effects = sign * scores + noise
    whole = effects.sum(1)
    return SenderEffects(
        sender=sender,
        picks=[5, 7],
        effects=effects,
        whole=whole,
        picked=effects[:, [5, 7]].sum(1),
        random=0.01 * torch.randn(6, 40, generator=generator),
        matched=0.02 * torch.randn(6, 40, generator=generator),
        norm_share=torch.full((6,), 0.4),
        scores=scores,
    )


def test_panels_table():
    one, two = planted(), planted((2, 0), seed=1)
    abba = torch.tensor([True, False] * 3)
    table = panels_table([one, two], abba)
    assert list(table) == [
        "head", "component", "inhibition", "abba", "baba", "composition", "random_low",
        "random_high", "picked",
    ]  # fmt: skip
    assert table["head"] == ["1.2"] * 8 + ["2.0"] * 8
    assert table["component"] == [*range(8)] * 2
    assert [k for k in range(8) if table["picked"][k]] == [5, 7]
    for i, (m, k) in enumerate([(m, k) for m in (one, two) for k in range(8)]):
        assert table["inhibition"][i] == pytest.approx(float(m.effects[:, k].mean()))
        assert table["abba"][i] == pytest.approx(float(m.effects[::2, k].mean()))
        assert table["baba"][i] == pytest.approx(float(m.effects[1::2, k].mean()))
        assert table["composition"][i] == pytest.approx(float(m.scores[k]))
        means = m.random.mean(0).double().numpy()
        assert table["random_low"][i] == pytest.approx(np.quantile(means, 0.025))
        assert table["random_high"][i] == pytest.approx(np.quantile(means, 0.975))


def test_picked_and_whole_are_sums_over_heads_by_pair():
    one, two = planted(), planted((2, 0), seed=1)
    picked, whole = picked_and_whole([one, two])
    assert picked.shape == whole.shape == (3,)
    by_pair = (one.picked + two.picked).double().view(3, 2).mean(1)
    np.testing.assert_allclose(picked, by_pair.numpy())
    np.testing.assert_allclose(whole, (one.whole + two.whole).double().view(3, 2).mean(1).numpy())


def test_ratio_of_means_with_its_interval():
    rng = np.random.default_rng(0)
    whole = rng.normal(2.0, 0.5, 200)
    part = 0.6 * whole + rng.normal(0, 0.1, 200)
    found = ratio(part, whole, seed=0)
    assert found.value == pytest.approx(part.mean() / whole.mean())
    assert found.low < 0.6 < found.high and found.high - found.low < 0.05
    # pairs stay together: an exact share has no interval at all
    exact = ratio(0.3 * whole, whole, seed=0)
    assert exact == pytest.approx((0.3, 0.3, 0.3))
    assert ratio(part, whole, seed=0) == found


def test_size_ratio_does_not_mind_the_sign():
    rng = np.random.default_rng(1)
    whole, part = rng.normal(2.0, 0.1, 50), rng.normal(-0.5, 0.1, 50)
    found = size_ratio(part, whole, seed=0)
    assert found.value == pytest.approx(abs(part.mean()) / whole.mean())
    assert 0.2 < found.low < found.value < found.high < 0.3
    assert ratio(part, whole, seed=0).value == pytest.approx(-found.value)
    # a mean of about nothing: the size stays above zero, the interval ends near it
    nothing = size_ratio(part - part.mean(), whole, seed=0)
    assert 0 <= nothing.value < 1e-12 and 0 <= nothing.low < nothing.high < 0.05


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_agreement_of_planted_effects(sign):
    """Sizes are compared: effects of the other sign rank alike, but inhibit least."""
    interval, rows = agreement(
        [planted(sign=sign), planted((2, 0), sign=sign, seed=1)], seed=0, shuffles=200
    )
    assert interval.value > 0.95 and interval.low <= interval.value <= interval.high
    assert rows["head"] == ["1.2", "2.0"] and rows["best"] == [5, 5]
    assert rows["rho"] == pytest.approx([interval.value] * 2, abs=0.06)
    assert max(rows["p"]) < 0.05
    assert rows["coincide"] == [sign > 0] * 2


def test_agreement_says_when_there_is_none():
    one = planted()
    reverse = SenderEffects(**{**one.__dict__, "scores": one.scores.flip(0)})
    interval, rows = agreement([reverse], seed=0, shuffles=200)
    assert interval.value < 0.3 and rows["p"][0] > 0.1
    assert rows["best"] == [2] and rows["coincide"] == [False]


def ordered(scores: np.ndarray, sizes: np.ndarray) -> SenderEffects:
    """Effects whose means have these sizes, signs taking turns, with these scores."""
    signs = np.where(np.arange(len(sizes)) % 3 == 1, -1, 1)
    effects = torch.tensor(np.tile(signs * sizes, (6, 1)))
    return SenderEffects(
        **{**planted().__dict__, "effects": effects, "scores": torch.tensor(scores)}
    )


def residual(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    """What a straight line through the order leaves of ranks."""
    ranks = values.argsort().argsort().astype(float)
    return ranks - np.polyval(np.polyfit(order, ranks, 1), order)


def test_nothing_is_left_where_the_order_says_everything():
    falling = np.array([4.0, 3.0, 2.0, 1.0])
    _, rows = agreement([ordered(falling, falling)], seed=0, shuffles=50)
    assert (rows["rho"], rows["order"]) == (pytest.approx([1.0]), pytest.approx([1.0]))
    assert rows["partial"] == [0.0]


@pytest.mark.parametrize("own, common", [(0.0, 1.0), (1.0, 0.0), (1.0, 1.0)])
def test_partial_correlation_is_that_of_the_residuals(own, common):
    """Scores and effects share the order of the components, a cause of their own, or both."""
    rng = np.random.default_rng(4)
    n = 200
    order, cause = np.linspace(1, 0, n), rng.uniform(size=n)
    scores, sizes = (2 + common * order + own * cause + 0.2 * rng.uniform(size=n) for _ in range(2))
    _, rows = agreement([ordered(scores, sizes)], seed=0, shuffles=100)
    position = np.arange(n)
    expected = np.corrcoef(residual(scores, position), residual(sizes, position))[0, 1]
    assert rows["partial"][0] == pytest.approx(expected, abs=1e-9)
    ranks = [x.argsort().argsort() for x in (scores, sizes)]
    assert rows["rho"][0] == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert rows["order"][0] == pytest.approx(-np.corrcoef(position, ranks[1])[0, 1])
    assert rows["order"][0] == pytest.approx(float(rank_correlation(-position * 1.0, sizes)))
    if not own:
        assert rows["rho"][0] > 0.8 and abs(rows["partial"][0]) < 0.2, "the order explains it"
    else:
        assert rows["partial"][0] > 0.8
    if not common:
        assert abs(rows["order"][0]) < 0.2
    assert list(rows) == ["head", "rho", "p", "order", "partial", "best", "coincide"]


def test_order_and_partial_by_hand():
    """Sizes fall with the order but for one exchange; scores 1, 3, 2, 4 reversed alike."""
    _, rows = agreement(
        [ordered(np.array([4.0, 2.0, 3.0, 1.0]), np.array([3.0, 4.0, 2.0, 1.0]))],
        seed=0, shuffles=50,
    )  # fmt: skip
    assert rows["order"][0] == pytest.approx(0.8)  # 1 - 6 * 2 / (4 * 15)
    assert rows["rho"][0] == pytest.approx(0.4)  # 1 - 6 * 6 / 60
    assert rows["partial"][0] == pytest.approx((0.4 - 0.8 * 0.8) / 0.36)
