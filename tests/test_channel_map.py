"""The pairs that the map to explore keeps, against a search through all of them."""

from __future__ import annotations

import math

import pytest
import torch

from th_utils import channel_map, channels
from th_utils.errors import CompanionError
from th_utils.pairs import Pairs
from th_utils.roles import ROLES, Roles
from th_utils.weights import AttentionWeights

LAYERS, HEADS, RANK = 4, 3, 6


def some_roles(**heads) -> Roles:
    return Roles("measured", {role: [] for role in ROLES} | heads)


@pytest.fixture(scope="module")
def scan() -> channels.Scan:
    torch.manual_seed(3)
    q, k, v, o = torch.randn(4, LAYERS, HEADS, 24, RANK)
    return channels.scan(AttentionWeights(q, k, v, o.mT))


@pytest.fixture(scope="module")
def effects() -> dict[str, torch.Tensor]:
    n = len(Pairs(LAYERS, HEADS, RANK))
    return {kind: torch.rand(n, generator=torch.Generator().manual_seed(4)) for kind in "QKV"}


def rows(table) -> set[tuple]:
    names = ("kind", "writer_layer", "writer_head", "component", "reader_layer", "reader_head")
    return set(zip(*(table.columns[name] for name in names), strict=True))


def every(scan, kind):
    """All pairs of a kind with their scores, one by one."""
    scores = scan.components[kind]
    for layer, head, component, later, other in torch.cartesian_prod(
        *(torch.arange(n) for n in scores.shape)
    ).tolist():
        if later > layer:
            key = (kind, layer, head, component, later, other)
            yield key, float(scores[layer, head, component, later, other])


def expected(scan, effects) -> set[tuple]:
    kept = set()
    for kind in "QKV":
        pairs = dict(every(scan, kind))
        felt = dict.fromkeys(pairs, 0.0)
        if effects:
            flat = Pairs(LAYERS, HEADS, RANK).where(torch.arange(len(pairs)).numpy())
            for at, effect in zip(flat.tolist(), effects[kind].tolist(), strict=True):
                felt[(kind, *at)] = effect
        for head in {key[4:] for key in pairs}:
            own = [key for key in pairs if key[4:] == head]
            kept |= set(sorted(own, key=pairs.get)[-channel_map.READ :])
            if effects:
                kept |= set(sorted(own, key=felt.get)[-channel_map.FELT :])
        for head in {key[1:3] for key in pairs}:
            best = []
            for component in range(RANK):
                own = [key for key in pairs if key[1:4] == (*head, component)]
                best.append(max(own, key=pairs.get))
            kept |= set(sorted(best, key=pairs.get)[-channel_map.WRITTEN :])
    return kept


@pytest.mark.parametrize("tested", [True, False])
def test_the_best_of_every_head_are_kept(scan, effects, tested, monkeypatch):
    monkeypatch.setattr(channel_map, "READ", 3)
    monkeypatch.setattr(channel_map, "FELT", 2)
    monkeypatch.setattr(channel_map, "WRITTEN", 2)
    found = channel_map.channel_map(scan, some_roles(), effects if tested else None)
    assert rows(found) == expected(scan, effects if tested else None)
    assert len(rows(found)) == len(found)


def test_numbers_are_those_of_the_scan(scan, effects):
    found = channel_map.channel_map(scan, some_roles(), effects)
    c = found.columns
    pairs = Pairs(LAYERS, HEADS, RANK)
    for i in range(0, len(found), 7):
        kind, reader = c["kind"][i], (c["reader_layer"][i], c["reader_head"][i])
        writer = (c["writer_layer"][i], c["writer_head"][i], c["component"][i])
        own = scan.components[kind][: reader[0], :, :, *reader]
        assert c["score"][i] == pytest.approx(float(own[writer]), abs=1e-4)
        z = (own[writer] - own.mean()) / own.std()
        assert c["z"][i] == pytest.approx(float(z), abs=0.011)
        at = pairs.start(*reader) + (writer[0] * HEADS + writer[1]) * RANK + writer[2]
        assert c["effect"][i] == pytest.approx(float(effects[kind][at]), abs=1e-5)


def test_rows_go_by_kind_and_reader_and_score(scan):
    c = channel_map.channel_map(scan, some_roles()).columns
    names = ("kind", "reader_layer", "reader_head", "score")
    keys = [("QKV".index(k), a, b, -s) for k, a, b, s in zip(*(c[n] for n in names), strict=True)]
    assert keys == sorted(keys)
    assert set(c["effect"]) == {None}


def test_the_map_opens_with_the_main_mover(scan):
    found = channel_map.channel_map(scan, some_roles(mover=[(2, 1), (3, 0)]))
    assert found.meta["open"] == [2, 1] and found.meta["roles"]["mover"] == [[2, 1], [3, 0]]
    nobody = channel_map.channel_map(scan, some_roles())
    assert nobody.meta["open"] == [LAYERS - 1, HEADS - 1]
    assert (found.meta["layers"], found.meta["heads"], found.meta["rank"]) == (LAYERS, HEADS, RANK)
    assert found.meta["random_level"] == pytest.approx(1 / math.sqrt(24))


def test_silent_components_are_left_out(scan):
    quiet = {kind: table.clone() for kind, table in scan.components.items()}
    for table in quiet.values():
        table[1, 2][~table[1, 2].isnan()] = 0
    found = channel_map.channel_map(channels.Scan(scan.svd, quiet, scan.heads), some_roles())
    assert not {row for row in rows(found) if row[1:3] == (1, 2)}


def test_less_is_kept_of_each_head_where_there_are_many(scan, monkeypatch):
    full = channel_map.channel_map(scan, some_roles())
    monkeypatch.setattr(channel_map, "MANY", LAYERS * HEADS / 4)
    less = channel_map.channel_map(scan, some_roles())
    assert less.meta["kept"] == {"read": 2, "felt": 1, "written": 3}
    assert rows(less) < rows(full)


def test_effects_of_other_pairs_are_refused(scan):
    with pytest.raises(CompanionError, match="effects has shape"):
        channel_map.channel_map(scan, some_roles(), {"Q": torch.zeros(5)})
