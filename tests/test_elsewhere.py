"""Weight statistics side by side: against counts by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from th_utils import channels, claims, elsewhere, recorded
from th_utils.roles import ROLES, Roles
from th_utils.weights import AttentionWeights

LAYERS, HEADS, RANK, WIDTH = 4, 3, 4, 24


def some_roles(**heads) -> Roles:
    return Roles("published", {r: heads.get(r.replace("-", "_"), []) for r in ROLES})


ROLES_HERE = some_roles(
    inhibition=[(1, 2), (2, 0)],
    mover=[(2, 1), (3, 1), (0, 0)],  # nothing precedes the last
    duplicate_token=[(0, 1)],
)


@pytest.fixture(scope="module")
def scan():
    generator = torch.Generator().manual_seed(0)
    q, k, v, o = (torch.randn(LAYERS, HEADS, WIDTH, RANK, generator=generator) for _ in range(4))
    return channels.scan(AttentionWeights(q, k, v, o.mT))


def rows(table: dict) -> list[dict]:
    return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]


def every_score(scan, kind, reader) -> list[float]:
    senders = itertools.product(range(reader[0]), range(HEADS), range(RANK))
    return [float(scan.components[kind][(*sender, *reader)]) for sender in senders]


def test_ranks_are_counts(scan):
    found = rows(elsewhere.rank_table(scan, ROLES_HERE))
    pairs = [(row["kind"], row["sender"], row["reader"]) for row in found]
    assert pairs == [
        ("Q", "1.2", "2.1"),
        ("Q", "1.2", "3.1"),
        ("Q", "2.0", "3.1"),
        ("V", "0.1", "1.2"),
        ("V", "0.1", "2.0"),
    ]
    for row in found:
        sender, reader = (tuple(map(int, row[x].split("."))) for x in ("sender", "reader"))
        everything = every_score(scan, row["kind"], reader)
        own = [float(scan.components[row["kind"]][(*sender, k, *reader)]) for k in range(RANK)]
        assert row["score"] == max(own) and own[row["component"]] == max(own)
        assert row["rank"] == 1 + sum(score > max(own) for score in everything)
        assert row["of"] == len(everything) and row["share"] == row["rank"] / row["of"]
        assert row["ratio"] == pytest.approx(row["score"] * WIDTH**0.5)


def test_controls_are_the_other_heads(scan):
    found = {row["kind"]: row for row in rows(elsewhere.rank_controls(scan, ROLES_HERE))}
    assert set(found) == {"Q", "V"}, "no induction head, no control"
    shares = []
    for reader in ROLES_HERE["inhibition"]:
        everything = every_score(scan, "V", reader)
        for sender in itertools.product(range(reader[0]), range(HEADS)):
            if sender not in ROLES_HERE["duplicate-token"]:
                best = float(scan.components["V"][sender][:, reader[0], reader[1]].max())
                shares.append((1 + sum(s > best for s in everything)) / len(everything))
    assert found["V"]["heads"] == len(shares)
    assert found["V"]["middle"] == pytest.approx(np.median(shares), rel=1e-5)


def test_concentration_adds_up_to_the_whole_score(scan):
    sender, reader = (1, 2), (3, 1)
    found = elsewhere.concentration(scan, "Q", sender, reader)
    assert found[-1] == pytest.approx(1)
    assert bool((found.diff() >= 0).all())
    s = scan.svd.S[sender].double()
    terms = (s * scan.components["Q"][sender][:, 3, 1].double()) ** 2
    whole = scan.heads["Q"][sender][reader].double() ** 2 * (s**2).sum()
    assert float(terms.sum()) == pytest.approx(float(whole), rel=1e-5)
    assert float(found[0]) == pytest.approx(float(terms.max() / terms.sum()))


def test_a_pair_of_one_component_is_narrow(scan):
    table = elsewhere.width_table(scan, ROLES_HERE, seed=1, controls=50, upto=3)
    assert [row["components"] for row in rows(table)] == [1, 2, 3] * 2
    before = table["known"][0]
    other = channels.Scan(scan.svd, {k: v.clone() for k, v in scan.components.items()}, scan.heads)
    for sender in ROLES_HERE["inhibition"]:
        other.components["Q"][sender][1:] = 1e-3
    after = elsewhere.width_table(other, ROLES_HERE, seed=1, controls=50, upto=3)["known"][0]
    assert before < 0.9 < 0.99 < after


LEDGER = [id for id, claim in claims.load_claims().items() if claim.needs == "weights"]


def test_verdicts_are_the_ledgers():
    one, two = LEDGER[:2]
    claim = claims.load_claims()[one]
    beyond = 1.0 if claim.direction == "at-least" else 0.0
    table = elsewhere.claims_table({"a": {one: beyond, two: 0.5}, "b": {one: 1 - beyond}})
    assert table["edition"] == ["a", "b", "a"] and table["claim"] == [one, one, two]
    assert table["verdict"][:2] == ["holds", "fails"]


def test_agreement_counts_what_both_measured():
    table = {
        "edition": ["a", "b", "a", "b", "a"],
        "claim": ["x", "x", "y", "y", "z"],
        "verdict": ["holds", "holds", "partly", "fails", "holds"],
    }
    third = {"edition": "c", "claim": "x", "verdict": "fails"}
    table = {name: [*values, third[name]] for name, values in table.items()}
    assert elsewhere.agreement(table, "a", "b") == (0.5, 2)
    assert elsewhere.agreement(table, "c", "a") == (0.0, 1)
    alone = {name: values[4:5] for name, values in table.items()}
    assert elsewhere.agreement(alone, "a", "b") is None


def test_values_are_those_of_the_tables(scan):
    pairs = channels.pair_table(scan, ROLES_HERE, shuffles=20)
    ranked = elsewhere.rank_table(scan, ROLES_HERE)
    found = elsewhere.measured_values(scan, ROLES_HERE, pairs, ranked)
    assert "components-find-previous-to-induction" not in found, "this model has no such pair"
    at = pairs["kind"].index("Q")
    assert found[channels.CLAIMS["Q", pairs["score"][at]]] == pairs["auc"][at]
    among = [share <= 0.01 for share in ranked["share"]]
    assert found["blind-search-finds-the-known"] == sum(among) / len(among)
    assert set(found) <= set(claims.load_claims())


def test_recorded_values_rest_on_weights():
    needs = {id: claim.needs for id, claim in claims.load_claims().items()}
    said = [{"id": id, "value": 1.0} for id in needs] + [{"id": "no-such-claim", "value": 2.0}]
    assert set(elsewhere.recorded_values(said)) == {id for id in needs if needs[id] == "weights"}
    for edition in recorded.editions():
        assert elsewhere.recorded_values(recorded.claims(edition))
    assert recorded.claims("no-such-edition") == []
