"""Statistics over all pairs, against their definitions and on planted cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from th_utils import blind
from th_utils.bootstrap import rank_correlation
from th_utils.errors import CompanionError
from th_utils.pairs import Pairs

PAIRS = Pairs(4, 3, 20)


def drawn(seed: int, n: int = len(PAIRS)) -> torch.Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed))


def test_hits_are_the_largest_effects():
    effect = drawn(0)
    hit = blind.hits(effect, 0.05)
    assert int(hit.sum()) == round(0.05 * len(effect))
    assert effect[hit].min() > effect[~hit].max()
    assert blind.hits(effect[:10]).sum() == 1


def test_ranks_and_their_correlation():
    x = drawn(1).mul(4).round()  # many ties
    y = (x + drawn(2)).mul(3).round()
    order = np.argsort(x.numpy(), kind="stable")
    assert blind.ranks(x)[order].diff().min() >= 0
    found = blind.correlation(blind.ranks(x), blind.ranks(y))
    assert float(found) == pytest.approx(float(rank_correlation(x.numpy(), y.numpy())), abs=1e-12)
    assert 0.5 < found < 0.99


def test_precision_counts_hits_from_the_top():
    score, hit = drawn(3), drawn(4) > 1
    order = blind.highest(score, 50)
    assert (score[order].diff() <= 0).all()
    expected = [hit[order[:k]].float().mean().item() for k in (1, 20, 50)]
    assert blind.precision(order, hit, (1, 20, 50)) == pytest.approx(expected)
    with pytest.raises(CompanionError, match="depths"):
        blind.precision(order, hit, (51,))


def test_average_precision_of_a_hand_made_order():
    rank = torch.tensor([9.0, 8, 7, 6, 5, 4, 3, 2, 1, 0])
    hit = torch.zeros(10, dtype=torch.bool)
    hit[[0, 3, 4]] = True
    expected = (1 / 1 + 2 / 4 + 3 / 5) / 3
    assert blind.average_precision(rank, hit) == pytest.approx(expected)
    assert blind.average_precision(-rank + 9, hit) < 0.4


def one_by_one(order, hit, deal, draws, seed, k):
    """A null by really dealing out: `deal` maps the pairs of one reader to others of it."""
    rng = np.random.default_rng(seed)
    shares = []
    for _ in range(draws):
        other = np.arange(len(PAIRS))
        for layer, _head, place in PAIRS.readers():
            other[place] = place.start + deal(rng, layer)
        shares.append(hit.numpy()[other[order[:k].numpy()]].mean())
    return np.array(shares)


def planted():
    """Hits and scores that hang together by reader and by writing head."""
    reader, writer = torch.randn(4, 3), torch.randn(4, 3, 1).expand(-1, -1, 20)
    effect = drawn(5) + 2 * PAIRS.of_readers(reader) + PAIRS.of_writers(writer.contiguous())
    score = drawn(6) + 2 * PAIRS.of_readers(reader) + PAIRS.of_writers(writer.contiguous())
    return blind.highest(score, 60), blind.hits(effect, 0.1)


@pytest.mark.parametrize("null", ["within", "heads"])
def test_chance_is_dealing_out_again(null):
    torch.manual_seed(7)
    order, hit = planted()

    def components(rng, layer):
        return rng.permutation(PAIRS.writers(layer))

    def heads(rng, layer):
        dealt = rng.permutation(layer * 3)
        return (dealt[:, None] * 20 + np.arange(20)).ravel()

    found = getattr(blind.chance(PAIRS, order, hit, seed=0, depths=(20, 60)), null)
    deal = {"within": components, "heads": heads}[null]
    for i, k in enumerate((20, 60)):
        expected = one_by_one(order, hit, deal, 600, 1, k)
        assert found[:, i].mean() == pytest.approx(expected.mean(), abs=0.02)
        # heads are drawn with replacement, which is a little wider where there are few
        assert 0.8 < found[:, i].std() / expected.std() < (1.4 if null == "heads" else 1.25)


def test_p_values_of_chance():
    drawn_ = np.array([[0.1, 0.5], [0.2, 0.5], [0.3, 0.5]])
    null = blind.Chance((1, 2), drawn_, drawn_)
    assert null.p(np.array([0.2, 0.6]), "within") == pytest.approx([3 / 4, 1 / 4])


def test_calibration_bins_by_score():
    score = drawn(8)
    table = blind.calibration(score, score.exp(), (0, 0.5, 0.99, 1))
    assert table["pairs"] == [540, 529, 11] and sum(table["pairs"]) == len(score)
    assert table["effect"] == sorted(table["effect"])
    half = score.sort().values[:540]
    assert table["mean"][0] == pytest.approx(float(half.mean()), abs=1e-5)
    assert table["effect"][0] == pytest.approx(float(half.exp().mean()), rel=1e-4)
    assert table["effect_low"][0] == pytest.approx(float(half.exp().quantile(0.1)), rel=0.02)
    assert table["hits"] == [0, 0, 1]


def resampled(spread: float, seed: int = 9) -> tuple[torch.Tensor, blind.Resampled]:
    """Effects whose units scatter about them."""
    effect = drawn(seed)
    noise = torch.randn(8, len(effect), generator=torch.Generator().manual_seed(1))
    units = effect + spread * (noise - noise.mean(0))
    return effect, blind.Resampled(effect, units.bfloat16(), seed=0, draws=60)


def test_without_scatter_draws_are_the_measurement():
    effect, again = resampled(0.0)
    order = blind.highest(drawn(10) + effect, 100)
    measured = blind.precision(order, blind.hits(effect), (20, 100))
    assert np.abs(again.precision(order, (20, 100)) - measured).max() <= 0.02
    rho = again.correlations([effect, drawn(11)])
    assert rho.shape == (2, 61) and rho[0].min() > 0.9999 and abs(rho[1]).max() < 0.1


def test_scatter_widens_intervals():
    widths = []
    for spread in (0.1, 1.0):
        effect, again = resampled(spread)
        order = blind.highest(drawn(10) + effect, 100)
        measured = blind.precision(order, blind.hits(effect), (100,))
        low, high = blind.interval(measured[0], again.precision(order, (100,))[:, 0])[1:]
        assert low <= measured[0] <= high
        widths.append(high - low)
    assert widths[0] < widths[1]


def test_threshold_is_that_of_all_pairs():
    """Contenders alone give the threshold that all pairs would."""
    effect, again = resampled(0.1)
    for w, threshold in zip(again.weights[:5], again.threshold, strict=False):
        everything = w @ again.units.float()
        assert float(threshold) == pytest.approx(float(torch.topk(everything, 11).values[-1]))


def test_shifted_draws_centre_on_the_whole():
    draws = np.array([0.1, 0.3, 0.2])  # the last is of the measurement
    assert blind.shifted(draws, 0.5) == pytest.approx([0.4, 0.6])


def test_one_unit_is_refused():
    with pytest.raises(CompanionError, match="one unit cannot be resampled"):
        blind.Resampled(drawn(0), drawn(0)[None], seed=0)
