"""Tables of chapter 02 against counts by hand, on scores that are made up."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from th_utils import claims, composition
from th_utils.channels import (
    CLAIMS,
    KNOWN_PAIRS,
    Scan,
    _within_layers,
    auc,
    best_of,
    component_table,
    distribution_table,
    first,
    one_edition,
    outlier_p,
    pair_table,
    reader_table,
    rounding_table,
    scan,
    sender_scores,
    side_by_side,
)
from th_utils.errors import CompanionError
from th_utils.roles import ROLES, Roles, label
from th_utils.svd import HeadSVD
from th_utils.weights import from_checkpoint

LAYERS, HEADS, COMPONENTS = 4, 5, 3


def some_roles(**heads) -> Roles:
    return Roles("published", {r: heads.get(r.replace("-", "_"), []) for r in ROLES})


PLANTED = some_roles(
    inhibition=[(1, 2), (2, 4)],
    mover=[(3, 1), (3, 3), (0, 0)],  # nothing precedes the last
    duplicate_token=[(0, 3)],
)


def made_up(seed: int = 0) -> Scan:
    """Random scores where a reader comes after its writer, NaN elsewhere, as `scan` leaves them."""
    generator = torch.Generator().manual_seed(seed)
    shape = (LAYERS, HEADS, COMPONENTS, LAYERS, HEADS)
    order = torch.arange(LAYERS)
    before = (order[:, None] < order)[:, None, None, :, None]
    components = {
        kind: torch.where(before, torch.rand(shape, generator=generator) / 10, math.nan)
        for kind in composition.KINDS
    }
    S = 0.5 + torch.rand(LAYERS, HEADS, COMPONENTS, generator=generator)
    V = torch.zeros(LAYERS, HEADS, COMPONENTS, COMPONENTS)
    heads = {kind: composition.head_scores(c, S) for kind, c in components.items()}
    return Scan(HeadSVD(V, S, V), components, heads)


@pytest.fixture
def planted() -> Scan:
    """Each known inhibition head has one component, and as a whole, the highest Q scores."""
    found = made_up()
    for sender in PLANTED["inhibition"]:
        for layer, head in PLANTED["mover"][:2]:
            found.components["Q"][sender][1, layer, head] = 0.6
            found.heads["Q"][sender][layer, head] = 0.3
    return found


def row_of(table: dict, kind: str, score: str) -> dict:
    (at,) = [
        i
        for i, pair in enumerate(zip(table["kind"], table["score"], strict=True))
        if pair == (kind, score)
    ]
    return {name: values[at] for name, values in table.items()}


# --- area under the curve


@pytest.mark.parametrize("seed", range(3))
def test_area_is_the_share_of_pairs_in_order(seed):
    rng = np.random.default_rng(seed)
    positive, negative = rng.integers(0, 6, 7).astype(float), rng.integers(0, 6, 11).astype(float)
    count = sum((p > n) + 0.5 * (p == n) for p, n in itertools.product(positive, negative))
    assert auc(positive, negative) == pytest.approx(count / 77)


def test_area_at_its_ends():
    low, high = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    assert (auc(high, low), auc(low, high), auc(low, low)) == (1.0, 0.0, 0.5)


# --- pair_table


@pytest.mark.parametrize("score", ["whole", "component"])
def test_planted_senders_stand_out(planted, score):
    row = row_of(pair_table(planted, PLANTED, shuffles=500), "Q", score)
    assert (row["sender"], row["reader"]) == ("inhibition", "mover")
    assert row["auc"] == 1.0 == row["auc_same_layer"]
    assert row["p"] < 0.05 and row["null_low"] < 0.5 < row["null_high"] <= 1
    assert row["z"] > 2
    assert (row["senders"], row["readers"]) == (2, 2), "the reader of layer 0 does not count"


def test_senders_without_a_channel_do_not_stand_out(planted):
    row = row_of(pair_table(planted, PLANTED, shuffles=500), "V", "component")
    assert row["p"] > 0.05 and row["auc"] < 1


def test_p_counts_the_observed_labels_too(planted):
    row = row_of(pair_table(planted, PLANTED, shuffles=19), "Q", "component")
    assert row["p"] >= 1 / 20


def test_the_standard_score_is_over_everything_before_the_reader(planted):
    table = pair_table(planted, PLANTED, shuffles=10)
    for score, values in (("whole", planted.heads), ("component", planted.components)):
        largest = -math.inf
        for layer, head in PLANTED["mover"][:2]:
            all_of = values["Q"][:layer][..., layer, head].double().numpy()
            own = max(all_of[sender].max() for sender in PLANTED["inhibition"])
            largest = max(largest, (own - all_of.mean()) / all_of.std(ddof=1))
        assert row_of(table, "Q", score)["z"] == pytest.approx(largest, rel=1e-5)


def test_area_over_all_layers_by_hand():
    found = made_up(3)
    row = row_of(pair_table(found, PLANTED, shuffles=10), "Q", "component")
    areas = []
    for layer, head in PLANTED["mover"][:2]:
        best = {
            (at, h): float(found.components["Q"][at, h, :, layer, head].max())
            for at, h in itertools.product(range(layer), range(HEADS))
        }
        known = PLANTED["inhibition"]
        others = [x for sender, x in best.items() if sender not in known]
        areas.append(np.mean([best[k] > x for k, x in itertools.product(known, others)]))
    assert row["auc"] == pytest.approx(np.mean(areas))


def test_area_within_the_layer_by_hand():
    """Known senders against the others of their own layer, averaged over senders and readers."""
    found = made_up(4)
    table = pair_table(found, PLANTED, shuffles=10)
    shares = []
    for (layer, head), (at, own) in itertools.product(PLANTED["mover"][:2], PLANTED["inhibition"]):
        scores = found.heads["Q"][at, :, layer, head].tolist()
        others = [s for h, s in enumerate(scores) if h != own]
        shares.append(sum(scores[own] > s for s in others) / len(others))
    row = row_of(table, "Q", "whole")
    assert row["auc_same_layer"] == pytest.approx(np.mean(shares))
    assert row["auc_same_layer"] != row["auc"]


def test_the_furthest_other_head_by_hand():
    """Largest standard score of a head that is no sender, over the same readers."""
    found = made_up(6)
    table = pair_table(found, PLANTED, shuffles=10)
    for score, values in (("whole", found.heads), ("component", found.components)):
        largest = -math.inf
        for layer, head in PLANTED["mover"][:2]:
            all_of = values["Q"][:layer][..., layer, head].double().numpy()
            for sender in itertools.product(range(layer), range(HEADS)):
                if sender not in PLANTED["inhibition"]:
                    own = (all_of[sender].max() - all_of.mean()) / all_of.std(ddof=1)
                    largest = max(largest, own)
        row = row_of(table, "Q", score)
        assert row["z_other"] == pytest.approx(largest, rel=1e-5)
        assert row["z_other"] != row["z"]


def test_heads_further_out_than_any_sender_are_seen(planted):
    assert row_of(pair_table(planted, PLANTED, shuffles=5), "Q", "component")["z_other"] < 1.5
    planted.components["Q"][(0, 1)][2, 3, 3] = 0.9
    row = row_of(pair_table(planted, PLANTED, shuffles=5), "Q", "component")
    assert row["z_other"] > row["z"]


def test_draws_within_layers_keep_the_count_of_each():
    known = [(1, 2), (1, 4), (3, 0)]
    pool = list(itertools.product(range(4), range(HEADS)))
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(200):
        drawn = _within_layers(known, pool, rng)
        assert sorted(layer for layer, _ in drawn) == [1, 1, 3]
        assert len(set(drawn)) == 3 and set(drawn) <= set(pool)
        seen |= set(drawn)
    assert seen == {(layer, head) for layer in (1, 3) for head in range(HEADS)}


@pytest.mark.parametrize("score", ["whole", "component"])
def test_p_within_layers_of_planted_senders(planted, score):
    """One sender in each of two layers of 5 heads: both best in one draw of 25."""
    row = row_of(pair_table(planted, PLANTED, shuffles=2000), "Q", score)
    assert row["p_same_layer"] == pytest.approx(1 / 25, abs=0.015)
    low = row_of(pair_table(planted, PLANTED, shuffles=19), "Q", score)
    assert low["p_same_layer"] >= 1 / 20, "the observed labels count too"


def test_p_within_layers_by_hand():
    """Against every one of the 25 ways to deal two senders out within their layers."""
    found = made_up(4)
    row = row_of(pair_table(found, PLANTED, shuffles=2000), "Q", "whole")

    def area(senders):
        shares = []
        for (layer, head), (at, own) in itertools.product(PLANTED["mover"][:2], senders):
            scores = found.heads["Q"][at, :, layer, head].tolist()
            others = [s for h, s in enumerate(scores) if h != own]
            shares.append(sum(scores[own] > s for s in others) / len(others))
        return np.mean(shares)

    every = [area([(1, a), (2, b)]) for a, b in itertools.product(range(HEADS), repeat=2)]
    exact = np.mean([x >= area(PLANTED["inhibition"]) - 1e-12 for x in every])
    assert row["p_same_layer"] == pytest.approx(exact, abs=0.04)


def test_nearness_alone_is_no_channel_within_layers():
    """All heads of the senders' layer score high: an area over all layers, none within."""
    found = made_up(7)
    found.heads["Q"][2] += 1.0
    roles = some_roles(inhibition=[(2, 1), (2, 4)], mover=[(3, 1), (3, 3)])
    row = row_of(pair_table(found, roles, shuffles=500), "Q", "whole")
    assert row["auc"] > 0.75 and row["p"] < 0.1
    assert row["p_same_layer"] > 0.1


def test_a_layer_of_senders_only_has_no_others_to_compare_with():
    roles = some_roles(inhibition=[(1, h) for h in range(HEADS)] + [(2, 4)], mover=[(3, 1)])
    found = made_up(8)
    row = row_of(pair_table(found, roles, shuffles=20), "Q", "whole")
    scores = found.heads["Q"][2, :, 3, 1]
    assert row["auc_same_layer"] == pytest.approx(float((scores[4] > scores[:4]).double().mean()))
    alone = some_roles(inhibition=roles["inhibition"][:-1], mover=[(3, 1)])
    row = row_of(pair_table(found, alone, shuffles=20), "Q", "whole")
    assert math.isnan(row["auc_same_layer"]) and row["p_same_layer"] == 1


def test_no_known_pair_gives_an_empty_row(planted):
    row = row_of(pair_table(planted, PLANTED, shuffles=10), "K", "whole")
    assert all(
        row[n] is None
        for n in (
            "auc", "p", "null_low", "null_high", "auc_same_layer", "p_same_layer", "z", "z_other"
        )
    )  # fmt: skip
    assert (row["senders"], row["readers"]) == (0, 0)
    late = some_roles(inhibition=[(3, 0)], mover=[(2, 0)])  # the sender comes after its reader
    assert row_of(pair_table(planted, late, shuffles=10), "Q", "whole")["auc"] is None


def test_the_null_repeats_with_its_seed():
    found = made_up(5)
    one, again, other = (pair_table(found, PLANTED, seed=s, shuffles=100) for s in (1, 1, 2))
    assert one == again
    assert one["p"] != other["p"] and one["auc"] == other["auc"]


def test_one_row_for_every_pair_and_score(planted):
    table = pair_table(planted, PLANTED, shuffles=10)
    rows = set(zip(table["sender"], table["reader"], table["kind"], table["score"], strict=True))
    assert rows == {(*pair, score) for pair in KNOWN_PAIRS for score in ("whole", "component")}
    assert len(table["kind"]) == 6


# --- everything that could write to one reader


def test_sender_scores_are_those_of_earlier_heads(planted):
    found = sender_scores(planted, "Q", (2, 1))
    assert found["whole"].shape == found["component"].shape == (2, HEADS)
    assert torch.isfinite(found["whole"]).all()
    torch.testing.assert_close(found["whole"], planted.heads["Q"][:2, :, 2, 1])
    assert float(found["component"][1, 3]) == float(planted.components["Q"][1, 3, :, 2, 1].max())


def test_component_table(planted):
    reader = (3, 1)
    table = component_table(planted, PLANTED, "Q", reader)
    assert len(table["score"]) == 3 * HEADS * COMPONENTS
    assert table["score"] == sorted(table["score"], reverse=True)
    assert table["rank"] == list(range(1, len(table["score"]) + 1))
    assert set(zip(table["head"][:2], table["component"][:2], strict=True)) == {
        ("1.2", 1),
        ("2.4", 1),
    }
    assert table["role"][:2] == ["inhibition"] * 2
    scores = planted.components["Q"][:3, :, :, 3, 1].double()
    for name, k, score, z, role in zip(
        *(table[n] for n in ("head", "component", "score", "z", "role")), strict=True
    ):
        layer, head = map(int, name.split("."))
        assert score == pytest.approx(float(scores[layer, head, k]))
        assert z == pytest.approx(float((score - scores.mean()) / scores.std()), abs=1e-4)
        expected = {"1.2": "inhibition", "2.4": "inhibition", "0.3": "duplicate-token"}
        assert role == ("mover" if name == "0.0" else expected.get(name, "other"))


def test_first_and_best(planted):
    table = component_table(planted, PLANTED, "Q", (3, 1))
    assert first(table, 4) == {name: values[:4] for name, values in table.items()}
    assert best_of(table, "inhibition") == {name: values[0] for name, values in table.items()}
    duplicate = best_of(table, "duplicate-token")
    assert duplicate["head"] == "0.3"
    assert duplicate["rank"] == 1 + table["role"].index("duplicate-token")
    assert best_of(table, "induction") is None


def test_reader_table_skips_what_comes_too_late(planted):
    table = reader_table(planted, "Q", [(2, 4), (1, 2), (3, 0)], (3, 3))
    assert table["head"] == ["2.4"] * COMPONENTS + ["1.2"] * COMPONENTS
    assert table["component"] == [*range(COMPONENTS)] * 2
    expected = [planted.components["Q"][s][k, 3, 3] for s in ((2, 4), (1, 2)) for k in range(3)]
    assert table["composition"] == pytest.approx([float(x) for x in expected])


def test_planted_senders_are_outliers(planted):
    """2 of 15 heads lie furthest out; a draw of two meets one of them in 27 of 105."""
    table = component_table(planted, PLANTED, "Q", (3, 1))
    p = outlier_p(table, PLANTED["inhibition"], seed=0)
    best = {name: max(z for h, z in zip(table["head"], table["z"], strict=True) if h == name)
            for name in table["head"]}  # fmt: skip
    assert sorted(best, key=best.get)[-2:] in (["1.2", "2.4"], ["2.4", "1.2"])
    assert best["1.2"] == best["2.4"]
    assert p == pytest.approx(27 / 105, abs=0.04)
    one = outlier_p(table, [(1, 2)], seed=0)
    assert one == pytest.approx(2 / 15, abs=0.03)
    assert p == outlier_p(table, PLANTED["inhibition"], seed=0)
    assert p != outlier_p(table, PLANTED["inhibition"], seed=1)


def test_the_one_outlier_among_many_heads():
    generator = torch.Generator().manual_seed(0)
    names = [f"0.{h}" for h in range(200) for _ in range(3)]
    z = torch.randn(600, generator=generator)
    z[3 * 17 + 1] = 9.0
    table = {"head": names, "z": z.tolist()}
    assert outlier_p(table, [(0, 17)], seed=0) < 0.02
    assert outlier_p(table, [(0, 17)], seed=0, shuffles=9) >= 0.1, "the senders count too"
    # the least head of all is as far out as every other
    least = int(z.view(200, 3).amax(1).argmin())
    assert outlier_p(table, [(0, least)], seed=0) == 1.0


def test_heads_without_a_channel_are_no_outliers(planted):
    table = component_table(planted, PLANTED, "Q", (3, 1))
    assert outlier_p(table, PLANTED["duplicate-token"], seed=0) > 0.05
    # a sender that comes too late is left out of the draw
    late = [*PLANTED["inhibition"], (3, 4)]
    kept = outlier_p(table, PLANTED["inhibition"], seed=0)
    assert outlier_p(table, late, seed=0) == kept
    with pytest.raises(CompanionError, match="none of these heads comes before"):
        outlier_p(table, [(3, 4)], seed=0)


# --- distributions


def test_distributions_count_every_score(planted):
    columns, known = distribution_table(planted, PLANTED, bins=7)
    counts: dict = {}
    for kind, score, n in zip(*(columns[c] for c in ("kind", "score", "count")), strict=True):
        counts.setdefault((kind, score), []).append(n)
    # movers: two readers of layer 3; inhibition heads as readers of V: one of layer 1, one of 2
    heads = {"Q": 2 * 3 * HEADS, "V": (1 + 2) * HEADS}
    assert {pair: (len(n), sum(n)) for pair, n in counts.items()} == {
        (kind, score): (7, n * (COMPONENTS if score == "component" else 1))
        for kind, n in heads.items()
        for score in ("whole", "component")
    }
    assert all(a < b for a, b in zip(columns["left"], columns["right"], strict=True))
    assert len(known) == 2 * (2 * 2 + 1 + 1)


def test_known_pairs_are_ranked_among_all_scores_of_their_reader(planted):
    _, known = distribution_table(planted, PLANTED)
    for pair in known:
        layer, head = map(int, pair["reader"].split("."))
        sender = tuple(map(int, pair["sender"].split(".")))
        values = planted.heads if pair["score"] == "whole" else planted.components
        scores = values[pair["kind"]][:layer][..., layer, head]
        best = scores[sender].max()
        assert pair["rank"] == 1 + int((scores > best).sum())
        assert pair["of"] == scores.numel()
        if pair["score"] == "whole":
            assert pair["component"] is None
        else:
            assert scores[sender][pair["component"]] == best
    of_q = [pair for pair in known if (pair["kind"], pair["score"]) == ("Q", "component")]
    assert len(of_q) == 4 and all(p["component"] == 1 and p["rank"] <= 2 for p in of_q)


def test_without_known_readers_there_is_nothing_to_show(planted):
    columns, known = distribution_table(planted, some_roles(mover=[(0, 1)], inhibition=[(1, 1)]))
    assert set(columns["kind"]) == {"V"} and known == []


# --- rounding


def test_rounding_to_the_same_scores_moves_nothing(planted):
    table = rounding_table(planted, planted, PLANTED)
    assert table["exact"] == table["rounded"] and table["exact_rank"] == table["rounded_rank"]
    # readers: two movers of layer 3, and inhibition heads of layers 1 and 2
    assert len(table["kind"]) == (3 + 3 + 1 + 2) * HEADS
    for kind, sender, known in zip(*(table[n] for n in ("kind", "sender", "known")), strict=True):
        senders = PLANTED["inhibition"] if kind == "Q" else PLANTED["duplicate-token"]
        assert known == (sender in [label(s) for s in senders])
    at = [i for i, r in enumerate(table["reader"]) if (table["kind"][i], r) == ("Q", "3.1")]
    assert sorted(table["exact_rank"][i] for i in at)[2:] == list(range(3, 3 * HEADS + 1))


def test_rounding_shows_what_moved(planted):
    moved = made_up()  # the same scores without the planted ones
    table = rounding_table(planted, moved, PLANTED)
    for kind, known, exact, rounded, before, after in zip(
        *(table[n] for n in ("kind", "known", "exact", "rounded", "exact_rank", "rounded_rank")),
        strict=True,
    ):
        if kind == "Q" and known:
            assert exact == pytest.approx(0.6) and rounded < 0.11 and before == 1 <= after
        else:
            assert exact == rounded
    assert table["exact_rank"] != table["rounded_rank"]


# --- several editions, claims


def test_editions_side_by_side_and_apart(planted):
    one, two = (pair_table(planted, PLANTED, seed=s, shuffles=20) for s in (0, 1))
    both = side_by_side({"a": one, "b": two})
    assert both["edition"] == ["a"] * 6 + ["b"] * 6
    assert both["null_high"] == one["null_high"] + two["null_high"]
    assert one_edition(both) == one
    assert one_edition(side_by_side({"b": two, "a": one})) == two


def test_every_pair_and_score_has_its_claim():
    ids = set(claims.load_claims())
    assert set(CLAIMS) == {(k, s) for _, _, k in KNOWN_PAIRS for s in ("whole", "component")}
    assert set(CLAIMS.values()) <= ids
    assert len(set(CLAIMS.values())) == len(CLAIMS)


def test_claims_are_about_their_pair():
    ledger = claims.load_claims()
    for sender, _, kind in KNOWN_PAIRS:
        for score in ("whole", "component"):
            text = ledger[CLAIMS[kind, score]].statistic
            assert f", {kind}" in text and sender in text
            assert ("best component" in text) == (score == "component")


# --- a whole model


def test_scan_of_a_model(tiny_model):
    weights = from_checkpoint(tiny_model)
    found = scan(weights, offsets=(1, 2))
    for kind in composition.KINDS:
        reader = composition.readers(weights, kind, offsets=(1, 2))
        torch.testing.assert_close(
            found.components[kind],
            composition.component_scores(found.svd, reader),
            equal_nan=True,
        )
        whole = composition.head_scores(found.components[kind], found.svd.S)
        torch.testing.assert_close(found.heads[kind], whole, equal_nan=True)
    assert not torch.equal(found.heads["Q"].nan_to_num(), found.heads["K"].nan_to_num()), (
        "each kind has readers of its own"
    )
