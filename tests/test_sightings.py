"""Tables of what was seen in texts, on made-up sightings whose numbers can be counted."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch

from th_utils import sightings, wild
from th_utils.errors import CompanionError
from th_utils.sightings import Sighting
from th_utils.tasks.text import Text
from th_utils.wild import Seen

PIECES = (
    ("Tom", ",", " Ann", ",", " Sue", " and", " Bob", " met", " Ann", "."),
    ("A", " fox", " saw", " a", " fox", ".", " The", " fox", " ran", "."),
)


def made_up() -> Sighting:
    words = {piece: i for i, piece in enumerate(sorted(set(sum(PIECES, ()))))}
    tokens = torch.tensor([[words[piece] for piece in row] for row in PIECES])
    text = Text(tokens, tuple(map("".join, PIECES)), ("list", "story"), PIECES, torch.ones(2).int())
    coordinate = torch.zeros(2, 10)
    coordinate[:, 0] = 99.0  # the first position never counts
    coordinate[0, 9], coordinate[1, 8], coordinate[1, 5] = -8.0, 6.0, -1.0
    looked = torch.zeros(2, 10, dtype=torch.long)
    looked[0, 9], looked[1, 8], looked[1, 5] = 8, 4, 1
    rise = torch.full((2, 10), -0.01)
    rise[0, 9], rise[1, 8] = 0.3, 0.1
    seen = Seen(
        coordinate=coordinate,
        looked=looked,
        weight=torch.full((2, 10), 0.5),
        reader=torch.full((2, 10), 0.2),
        rise=rise,
        rise_mentions=2 * rise,
        random=torch.stack([rise * 0, rise * 0 + 0.02]),
    )
    return Sighting("ours", text, seen)


@pytest.fixture(scope="module")
def sighting() -> Sighting:
    return made_up()


def row(table: dict[str, list], at: int) -> dict:
    return {name: column[at] for name, column in table.items()}


def test_first_positions_are_left_out(sighting):
    assert sighting.activity.shape == (2, 9) and sighting.activity.max() == 8
    assert sighting.most_active.sum() == 1 and sighting.most_active[0, 8]


def test_properties(sighting):
    p = {name: flag.astype(int).tolist() for name, flag in sighting.properties.items()}
    assert set(p) == set(sightings.PROPERTIES)
    assert p["repetition"] == [[0, 0, 0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 0, 1, 0]]
    assert p["said again"] == [[0, 0, 1, 0, 0, 0, 0, 1, 0], [0, 0, 0, 1, 0, 0, 1, 0, 1]]
    assert p["first"] == [[1, 1, 1, 1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 0, 1, 1, 0, 1]]
    # the last item takes up to three words
    assert p["enumeration"] == [[1, 1, 1, 1, 1, 1, 1, 1, 0], [0] * 9]
    assert p["strict"] == p["enumeration"]


def test_where_table(sighting):
    table = sightings.where_table([sighting, sighting], seed=0)
    assert len(table["share"]) == 2 * 5 * 3
    shares = {
        (words, among): share
        for words, among, share in zip(
            table["property"], table["among"], table["share"], strict=True
        )
    }
    repetition = sightings.PROPERTIES["repetition"]
    assert shares[repetition, "all"] == pytest.approx(2 / 18)
    assert shares[repetition, "tenth"] == pytest.approx(1.0)
    assert shares[sightings.PROPERTIES["enumeration"], "all"] == pytest.approx(8 / 18)


def test_coordinates_table(sighting):
    task = {"ABBA": np.array([-20.0, -10.0]), "BABA": np.array([10.0, 20.0])}
    table = sightings.coordinates_table([sighting], task, bins=10)
    for panel, source, n in (("task", "ABBA", 2), ("task", "BABA", 2), ("text", "ours", 18)):
        at = [i for i, s in enumerate(table["source"]) if s == source]
        assert {table["panel"][i] for i in at} == {panel}
        assert sum(table["share"][i] for i in at) == pytest.approx(1.0), n
    zero = [i for i, left in enumerate(table["left"]) if left <= 0 < table["right"][i]]
    assert [table["share"][i] for i in zero] == [pytest.approx(15 / 18)]
    assert min(table["left"]) == -20 and max(table["right"]) == 20


def test_rarity(sighting):
    found = sighting.rarity(6.0, seed=0)
    assert found.value == pytest.approx(2 / 18) and found.low == found.high
    assert sighting.rarity(8.1, seed=0).value == 0
    assert sighting.rarity(8.0, seed=0).high == pytest.approx(1 / 9)


def test_texts_that_begin_alike_are_drawn_together(sighting):
    """Four texts of two openings: intervals are those of the two, each twice as long."""
    text, seen = sighting.text, sighting.seen
    twice = Sighting(
        "ours",
        Text(
            text.tokens.repeat(2, 1), text.strings * 2, text.kinds * 2, text.pieces * 2,
            text.opening.repeat(2),
        ),
        Seen(**{
            name: torch.cat([value, value], dim=-2) for name, value in vars(seen).items()
        }),
    )  # fmt: skip
    assert twice.units(twice.activity).shape == (2, 18)
    joined = np.concatenate([sighting.activity, sighting.activity], axis=1)
    assert (twice.units(twice.activity) == joined).all()
    assert twice.rarity(8.0, seed=0) == sighting.rarity(8.0, seed=0)
    assert twice.lift("enumeration", seed=0).value == sighting.lift("enumeration", seed=0).value
    assert sightings.kinds_table([twice], seed=0) == sightings.kinds_table([sighting], seed=0) | {
        "texts": [4, 2, 2]
    }
    with pytest.raises(CompanionError, match="4 texts do not have every opening equally often"):
        twice.units(twice.activity, [0, 1, 2])


def test_texts_without_an_opening_stand_alone(sighting):
    text = replace(sighting.text, tokens=sighting.text.tokens[:1].repeat(2, 1))
    assert Sighting("alike", text, sighting.seen).units(sighting.activity).shape == (1, 18)
    text = replace(text, opening=torch.zeros(2).int())
    assert Sighting("alone", text, sighting.seen).units(sighting.activity).shape == (2, 9)


def test_kinds_table(sighting):
    other = Sighting("others", sighting.text, sighting.seen)
    table = sightings.kinds_table([sighting, other], seed=0)
    assert table["kind"] == ["all ours", "list", "story", "others"] and table["texts"] == [
        2,
        1,
        1,
        2,
    ]
    assert table["active"] == pytest.approx([1 / 18, 1 / 9, 0, 1 / 18])
    assert table["enumeration"] == pytest.approx([4 / 9, 8 / 9, 0, 4 / 9])
    assert table["repetition low"][1] == table["repetition high"][1] == pytest.approx(1 / 9)


def test_removal_table(sighting):
    table = sightings.removal_table(sighting, seed=0)
    assert table["band"] == list(sightings.BANDS)
    assert table["positions"] == [9, 7, 1, 1]
    assert table["component rise"] == pytest.approx([-0.01, -0.01, 0.1, 0.3])
    assert table["component rising"] == pytest.approx([0, 0, 1, 1])
    assert table["random rise"] == pytest.approx([0.01] * 4)
    assert table["random rising"] == pytest.approx([0.5] * 4)
    assert table["component rise low"][3] == pytest.approx(0.1), "the other text twice"


def test_the_last_band_is_the_share_that_the_claim_is_about():
    """On random numbers: value and both ends of the interval are the same."""
    rng = np.random.default_rng(0)
    tokens = torch.arange(6 * 101).view(6, 101)
    pieces = tuple(tuple("x" * 101) for _ in range(6))
    text = Text(tokens, ("",) * 6, ("a",) * 6, pieces, torch.ones(6).int())
    numbers = [torch.from_numpy(rng.normal(size=(6, 101))) for _ in range(3)]
    looked = torch.zeros(6, 101, dtype=torch.long)
    random = torch.from_numpy(rng.normal(size=(2, 6, 101)))
    seen = Seen(numbers[0], looked, *numbers[1:], numbers[1], numbers[1], random)
    sighting = Sighting("ours", text, replace(seen, rise=numbers[2]))
    table = sightings.removal_table(sighting, seed=3)
    claimed = sighting.share(sightings.array(numbers[2]) > 0, seed=3)
    assert claimed.low < claimed.value < claimed.high
    ends = [table[f"component rising{end}"][-1] for end in ("", " low", " high")]
    assert ends == list(claimed)


def test_examples_are_of_texts_with_a_most_active_position(sighting):
    assert set(sightings.examples_table(sighting, 5)["example"]) == {0}, "the other's is no such"


@pytest.fixture
def both(monkeypatch, sighting):
    """The same with a tenth of all positions for a hundredth: each text has a most active one."""
    monkeypatch.setattr(wild, "most_active", functools.partial(wild.most_active, share=0.1))
    return sighting


def test_examples_show_the_most_active_position_of_each_text(both):
    sighting = both
    table = sightings.examples_table(sighting, 5)
    assert sorted(set(table["example"])) == [0, 1]
    for example, text, active, looked in ((0, 0, ".", " Ann"), (1, 1, " ran", " fox")):
        at = [i for i, e in enumerate(table["example"]) if e == example]
        marks = {table["mark"][i]: table["text"][i] for i in at if table["mark"][i]}
        assert marks == {"active": active, "looked": looked}
        assert "".join(table["text"][i] for i in at) == sighting.text.strings[text]
    assert table["title"][0] == (
        "list: coordinate -8.0; the mover's attention to what is looked at: 0.200, and without the "
        "component +0.3"
    )
    assert len(set(sightings.examples_table(sighting, 1)["example"])) == 1


def test_a_token_looked_at_far_back_is_shown(both, monkeypatch):
    monkeypatch.setattr(sightings, "BEFORE", 2)
    monkeypatch.setattr(sightings, "AFTER", 0)
    table = sightings.examples_table(both, 2)
    at = [i for i, e in enumerate(table["example"]) if e == 1]
    shown = [table["text"][i] for i in at]
    assert shown == ["A", " fox", " saw", " a", " fox", ".", " … ", " The", " fox", " ran"]
    assert [table["mark"][i] for i in at].index("looked") == 4


def test_common_tokens(sighting):
    assert sightings.common_tokens(sighting, 3) == ([(".", 1)], [(" Ann", 1)])


def test_task_ends_and_median():
    seen = made_up().seen
    ends = sightings.task_ends(seen, torch.tensor([9, 8]))
    assert ends["coordinate"].tolist() == [-8, 6]
    assert ends["rise_mentions"] == pytest.approx(2 * ends["rise"])
    assert sightings.median_distance(ends["coordinate"]) == 7
