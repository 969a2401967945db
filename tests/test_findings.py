"""A survey of small models from end to end, and its tables on planted scores and effects."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from th_utils import blind, channels, engine, findings, known, models, study, survey
from th_utils.corrections import CORRECTIONS, RAW
from th_utils.edge_removal import removal_effects
from th_utils.edge_sites import sites
from th_utils.pairs import Pairs
from th_utils.roles import ROLES, Roles
from th_utils.survey import FIND, IOI, LISTS, RANDOM, KindSurvey, Measured
from th_utils.svd import HeadSVD

PAIRS = Pairs(3, 4, 8)


def some_roles(**heads) -> Roles:
    return Roles("measured", {r: heads.get(r.replace("-", "_"), []) for r in ROLES})


HERE = some_roles(inhibition=[(1, 2)], mover=[(2, 1), (2, 3)], duplicate_token=[(0, 0), (0, 3)])


# --- tasks


@pytest.fixture(scope="module")
def bridge(tiny_llama):
    return models.load(tiny_llama)


def test_places_of_indirect_objects(bridge):
    task = survey.ioi_task(bridge.tokenizer, 6, seed=0)
    rows = torch.arange(6)
    first = task.tokens[rows, task.after - 1]
    assert torch.equal(first, task.tokens[rows, task.second]) and task.unit == 2
    assert (task.after <= task.second).all() and (task.second < task.end).all()
    assert survey.ioi_task(bridge.tokenizer, 6, seed=0, split="find").name == FIND


def test_places_of_random_tokens(bridge):
    task = survey.random_task(bridge, 5, seed=3)
    rows = torch.arange(5)
    assert torch.equal(task.tokens[rows, task.after - 1], task.tokens[rows, task.second])
    assert task.tokens.shape[1] == survey.BLOCK + survey.AGAIN == int(task.end[0]) + 1
    assert not torch.equal(task.tokens, survey.random_tokens(bridge, 5, seed=4))


class Words:
    """A tokenizer that knows every word of the lists."""

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        words = text.replace(",", " ,").replace(".", " .").split()
        return [self.ids.setdefault(word, len(self.ids)) for word in words]


def test_places_of_lists():
    task = survey.list_task(Words(), 9, seed=2)
    rows = torch.arange(9)
    assert torch.equal(task.tokens[rows, task.after - 1], task.tokens[rows, task.second])
    assert (task.after < task.second).all() and (task.second < task.end).all() and task.unit == 1
    assert len(set(map(tuple, task.tokens.tolist()))) == 9


# --- from end to end


@pytest.fixture(scope="module")
def scan(bridge):
    from th_utils.weights import from_bridge

    return channels.scan(from_bridge(bridge))


@pytest.fixture(scope="module")
def runs(bridge):
    model = engine.from_bridge(bridge)
    tasks = [survey.ioi_task(bridge.tokenizer, 6, seed=0), survey.random_task(bridge, 4, seed=1)]
    return survey.runs(model, tasks)


@pytest.mark.parametrize("kind", ["Q", "K", "V"])
def test_a_survey_holds_scores_and_effects_in_one_order(bridge, scan, runs, kind):
    from th_utils import composition, corrections
    from th_utils.weights import from_bridge

    model = engine.from_bridge(bridge)
    directions = composition.write_directions(scan.svd)
    typical = corrections.sizes(model, directions, runs[1].task.tokens)
    reader = composition.readers(from_bridge(bridge), kind)
    found = survey.survey(
        model, scan.svd, kind, reader, scan.components[kind], typical, runs,
        prompts=4, outputs=[IOI], units=[IOI],
    )  # fmt: skip
    assert torch.equal(found.score(RAW), found.pairs.flatten(scan.components[kind]))
    task = runs[0].task
    places = [(at[:4], row[:4]) for at, row in task.places][
        slice(0, 1) if kind == "Q" else slice(1, 3)
    ]
    at = sites(model, task.tokens[:4], places)
    effects = removal_effects(model, directions, kind, at)
    name = "output" if kind == "V" else "pattern"
    expected = torch.stack([getattr(e, name) for e in effects]).mean(0)
    measured = found.measured[IOI]
    torch.testing.assert_close(measured.effect, expected, rtol=1e-3, atol=1e-6)
    assert measured.units.shape == (2, len(found.pairs))
    assert found.measured[RANDOM].units is None and found.measured[RANDOM].other is None
    assert (measured.other is None) == (kind == "V")
    assert int(measured.hit.sum()) == round(0.01 * len(found.pairs))


# --- tables of made-up scores and effects


def made_up(noise: float = 0.5, kind: str = "Q") -> KindSurvey:
    """The activation alone makes effects; lists have those of indirect objects, and some noise."""
    generator = torch.Generator().manual_seed(0)

    def draw(scale: float = 1.0) -> torch.Tensor:
        return (scale * torch.randn(len(PAIRS), generator=generator)).exp()

    names = ("score", "singular", "norm", "ceiling", "near", "activation", "stream", "freedom")
    factors = {name: draw(0.1) for name in names}
    factors["activation"] = draw(2.0)
    base = factors["score"] * factors["activation"]
    measured = {}
    for task in (FIND, IOI, LISTS):
        units = base * torch.stack([draw(noise) for _ in range(6)])
        effect = units.mean(0)
        measured[task] = Measured(effect, effect**2, units.bfloat16(), blind.hits(effect))
    on_task = {task: factors["activation"] for task in measured}
    return KindSurvey(kind, PAIRS, factors, on_task, measured)


def fake_scan() -> channels.Scan:
    layers, heads, rank = 3, 4, 8
    generator = torch.Generator().manual_seed(2)
    size = (layers, heads, rank, layers, heads)
    table = torch.rand(size, generator=generator)
    later = torch.arange(layers)[:, None, None, None, None] >= torch.arange(layers)[:, None]
    table = table.masked_fill(later.expand(size), float("nan"))
    svd = HeadSVD(torch.rand(layers, heads, 16, rank), torch.rand(layers, heads, rank),
                  torch.rand(layers, heads, 16, rank))  # fmt: skip
    return channels.Scan(svd, {kind: table.clone() for kind in "QKV"}, {})


@pytest.fixture(scope="module")
def judged():
    scan = fake_scan()
    return study.findings(made_up(), scan, HERE, known.known_table(scan, HERE), seed=0)


def rows(table, **where):
    found = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    return [row for row in found if all(row[n] == v for n, v in where.items())]


def test_the_correction_that_makes_effects_is_chosen(judged):
    assert judged.chosen.factors == ("score", "activation")
    assert len(judged.corrections["task"]) == 3 * len(CORRECTIONS)
    (raw,) = rows(judged.corrections, correction="raw score", task=LISTS)
    (best,) = rows(judged.corrections, correction=judged.chosen.name, task=LISTS)
    assert best["correlation"] > 0.9 > 0.3 > raw["correlation"]
    assert best["average_precision"] > 3 * raw["average_precision"]


def test_correlations_have_intervals_over_prompts_where_prompts_were_kept(judged):
    for row in rows(judged.corrections):
        if row["task"] == FIND:
            assert row["low"] is None and row["high"] is None
        else:
            assert row["low"] <= row["correlation"] <= row["high"] < row["low"] + 0.4
    said = judged.claims["blind-scores-rank-effects"]
    (raw,) = rows(judged.corrections, correction="raw score", task=IOI)
    assert (raw["low"], raw["high"]) == pytest.approx((said.low, said.high))


def test_orders_are_told_by_task(judged):
    found, table = made_up(), judged.order
    assert set(table["task"]) == {IOI, LISTS} and len(table["task"]) == 4
    (row,) = rows(table, task=LISTS, score="corrected")
    (same,) = rows(judged.corrections, correction=judged.chosen.name, task=LISTS)
    assert row["correlation"] == same["correlation"] and row["pairs"] == 1
    effect, score = found.measured[LISTS].effect, found.score(judged.chosen)
    assert row["top"] == pytest.approx(float(effect[score.argmax()] / effect.mean()), rel=1e-4)
    low = score <= score.quantile(0.2)
    assert row["bottom"] == pytest.approx(float(effect[low].mean() / effect.mean()), rel=0.02)
    assert row["top"] > 5 > 0.2 > row["bottom"]


def test_what_needs_the_task_or_no_score_is_never_chosen():
    found = made_up()
    found.measured[FIND] = found.measured[IOI]
    table = findings.correction_table(found, seed=0)
    for i, row in enumerate(rows(table)):
        table["average_precision"][i] = 1.0 if row["needs"] == "prompts" else 0.5
        if not row["has_score"]:
            table["average_precision"][i] = 2.0
        if row["correction"] == "÷ reader's ceiling" and row["task"] == LISTS:
            table["average_precision"][i] = 0.9  # on the task for reporting: does not count
        if row["correction"] == "× activation" and row["task"] == FIND:
            table["average_precision"][i] = 0.6
    assert findings.choose(table).name == "× activation"


def test_claims_are_the_numbers_of_the_tables(judged):
    found, claims = made_up(), judged.claims
    assert len(claims) == 5
    row = findings.claimed_row(judged.precision, LISTS, "corrected")
    assert claims["corrected-scores-find-channels"].value == pytest.approx(row["lift"])
    rank = blind.correlation(
        blind.ranks(found.factors["score"]), blind.ranks(found.measured[IOI].effect)
    )
    assert claims["blind-scores-rank-effects"].value == pytest.approx(float(rank), abs=1e-6)
    two = [rows(judged.corrections, correction=n, task=LISTS)[0]["correlation"]
           for n in (judged.chosen.name, "raw score")]  # fmt: skip
    assert claims["correction-beats-the-raw-score"].value == pytest.approx(two[0] - two[1])
    for value, low, high in claims.values():
        assert low <= value <= high
    ranked = claims["blind-scores-rank-effects"]
    assert ranked.low < ranked.high


def test_reuse_is_the_share_of_one_task_in_another(judged):
    found = made_up()
    order = blind.highest(found.measured[IOI].effect, 100)
    share = float(found.measured[LISTS].hit[order].float().mean())
    (row,) = rows(judged.reuse, task=IOI, other=LISTS)
    assert row["share"] == pytest.approx(share)
    assert judged.claims["channels-are-reused-across-tasks"].value == pytest.approx(share)


def test_depths_are_no_deeper_than_a_tenth(judged):
    assert max(judged.precision["k"]) * 10 <= len(PAIRS)
    assert findings.depths(Pairs(30, 9, 64)) == blind.DEPTHS


def test_kinds_without_units_have_no_intervals():
    found = made_up(kind="K")
    for task, m in found.measured.items():
        found.measured[task] = Measured(m.effect, None, None, m.hit)
    scan = fake_scan()
    judged = study.findings(found, scan, HERE, known.known_table(scan, HERE), seed=0)
    assert judged.claims == {} and judged.agreement is None
    assert set(judged.precision["low"]) == {None}


def test_known_pairs_are_ranked_among_the_readers_scores():
    scan = fake_scan()
    scan.components["Q"][1, 2, 5, 2, 1] = 2.0
    scan.components["Q"][1, 2, :, 2, 3] = 0.0
    table = known.known_table(scan, HERE)
    assert table["kind"] == ["Q", "Q", "V", "V"]
    first, second = rows(table)[:2]
    assert (first["sender"], first["reader"], first["component"]) == ("1.2", "2.1", 5)
    assert (first["rank"], first["of"], first["rank_all"], first["found"]) == (1, 64, 1, False)
    assert second["rank"] == 64 - 7 and not second["found"]
    share = known.share_found(table | {"found": [True, False, False, True]})
    assert share == 0.5


def test_dealing_out_roles_finds_the_share_of_heads_that_would_be_found():
    scan = fake_scan()
    for reader in range(4):
        scan.components["Q"][0, 1, 0, 2, reader] = 3.0  # the one highest for every reader
    chance = known.known_by_chance(scan, some_roles(inhibition=[(1, 2)], mover=[(2, 1)]), seed=0)
    assert chance.mean() == pytest.approx(1 / 8, abs=0.03) and set(chance) <= {0.0, 1.0}
    assert len(known.known_by_chance(scan, some_roles(), seed=0)) == 0


def test_effects_of_known_pairs(judged):
    found, table_ = made_up(), known.known_table(fake_scan(), HERE)
    (row, _) = rows(known.known_effects(found, table_, judged.chosen, IOI))
    table = torch.zeros(3, 4, 8, 3, 4)
    table[1, 2, :, 2, 1] = 1
    own = PAIRS.flatten(table).bool()
    effect, score = found.measured[IOI].effect, found.score(judged.chosen)
    assert row["effect_rank"] == 1 + int((effect > effect[own].max()).sum())
    assert row["effect_component"] == int(effect[own].argmax())
    reader = torch.zeros(3, 4)
    reader[2, 1] = 1
    among = PAIRS.of_readers(reader).bool()
    assert row["corrected_rank"] == 1 + int((score[among] > score[own].max()).sum())


def test_the_map_draws_found_pairs_once_strongest_first():
    found = made_up()
    found.factors["score"] = found.measured[IOI].effect  # everything is found
    table = findings.map_table(found, HERE, IOI, edges=5)
    assert table["effect"] == sorted(table["effect"], reverse=True)
    names = ("writer_layer", "writer_head", "reader_layer", "reader_head")
    edges = list(zip(*(table[n] for n in names), strict=True))
    assert len(set(edges)) == len(edges) <= 5
    for edge, role in zip(edges, table["role"], strict=True):
        named = edge[:2] == (1, 2) and edge[2:] in ((2, 1), (2, 3))
        assert role == ("inhibition" if named else "other")
    place = np.array([[w, h, k, r, o] for (w, h, r, o), k in zip(edges, table["component"],
                                                                 strict=True)])  # fmt: skip
    assert (
        place[0].tolist()
        == PAIRS.where(np.array([int(found.measured[IOI].effect.argmax())]))[0].tolist()
    )


def test_tables_join_kinds_and_keep_the_order_of_known_pairs():
    scan = fake_scan()
    ranked = known.known_table(scan, HERE)
    judged = {k: study.findings(made_up(kind=k), scan, HERE, ranked, seed=0) for k in "QKV"}
    tables = study.tables(judged, ranked, layers=3, heads=4)
    assert tables["known"].columns["sender"] == ranked["sender"]
    assert set(tables["lift"].columns["kind"]) == set("QKV")
    one = rows(tables["known"].columns, kind="V")[1]
    (other,) = rows(judged["V"].known, sender=one["sender"], reader=one["reader"])
    assert one["effect_rank"] == other["effect_rank"]
    assert study.number_of_pairs(scan) == len(PAIRS)
