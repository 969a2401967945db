"""Prompts of indirect object identification: templates, roles of tokens, balance, splits."""

from __future__ import annotations

import inspect

import pytest
import torch
from transformers import AutoTokenizer

from th_utils.errors import CompanionError
from th_utils.tasks import ioi

SPLITS = ("find", "report")
NAMES = ("IO", "S1", "S2")


@pytest.fixture(scope="module")
def tokenizer(tiny_gpt2):
    return AutoTokenizer.from_pretrained(tiny_gpt2)


@pytest.fixture(scope="module", params=SPLITS)
def split(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def prompts(tokenizer, split) -> ioi.IOIPrompts:
    return ioi.prompts(tokenizer, 64, seed=1, split=split)


def word(tokenizer, token: int) -> str:
    return tokenizer.decode([int(token)]).strip()


def by_hand(template: str, io: str, s: str, place: str, thing: str, abba: bool) -> str:
    """A prompt made the plain way: names go in one by one, from left to right."""
    said = template[: template.rindex(" [A]")]
    said = said.replace("[PLACE]", place).replace("[OBJECT]", thing)
    first_two = [io, s] if abba else [s, io]
    for name in (*first_two, s):  # the third name is the subject's second mention
        where = min(i for i in (said.find("[A]"), said.find("[B]")) if i >= 0)
        said = said[:where] + name + said[where + 3 :]
    return said


# --- every template, both orders


@pytest.mark.parametrize("abba", [True, False])
def test_every_template_in_both_orders(tokenizer, abba):
    words = ioi.vocabulary()
    assert len(words["templates"]) == 15 == len(set(words["templates"]))
    texts = [by_hand(t, "Mary", "John", "store", "drink", abba) for t in words["templates"]]
    found = ioi.encode(tokenizer, texts, ["Mary"] * 15, ["John"] * 15, [abba] * 15, list(range(15)))
    for i, text in enumerate(texts):
        end = int(found.positions["end"][i])
        assert tokenizer.decode(found.tokens[i, : end + 1]) == text
        at = {role: int(found.positions[role][i]) for role in ioi.POSITIONS}
        row = [word(tokenizer, token) for token in found.tokens[i]]
        assert [row[at[role]] for role in NAMES] == ["Mary", "John", "John"]
        assert row[at["end"]] in ("to",) and at["start"] == 0
        assert (at["IO"] < at["S1"]) == abba and max(at["IO"], at["S1"]) < at["S2"] < at["end"]
        assert (at["IO+1"], at["S1+1"]) == (at["IO"] + 1, at["S1"] + 1)


def test_prompts_are_templates_filled_in(tokenizer, prompts):
    """Each text is some place and thing in its template, with its names in its order."""
    words = ioi.vocabulary()
    for i in range(len(prompts)):
        io, s = word(tokenizer, prompts.io[i]), word(tokenizer, prompts.s[i])
        template = words["templates"][int(prompts.template[i])]
        candidates = {
            by_hand(template, io, s, place, thing, bool(prompts.abba[i]))
            for place in words["places"]
            for thing in words["objects"]
        }
        assert prompts.texts[i] in candidates
        assert type(prompts.texts[i]) is str


def test_positions_point_at_their_tokens(tokenizer, prompts):
    n = torch.arange(len(prompts))
    assert set(prompts.positions) == set(ioi.POSITIONS)
    for role, expected in (("IO", prompts.io), ("S1", prompts.s), ("S2", prompts.s)):
        assert torch.equal(prompts.tokens[n, prompts.positions[role]], expected)
    assert (prompts.positions["S1"] < prompts.positions["S2"]).all()
    assert torch.equal(prompts.positions["IO"] < prompts.positions["S1"], prompts.abba)
    lengths = torch.tensor([len(tokenizer.encode(text)) for text in prompts.texts])
    assert torch.equal(prompts.positions["end"], lengths - 1)


def test_the_answer_is_cut_off(prompts):
    """The indirect object is named once only, and what is left ends before its name."""
    for i, text in enumerate(prompts.texts):
        assert text.endswith(" to")
        assert (prompts.tokens[i] == prompts.io[i]).sum() == 1
        assert "[" not in text and "]" not in text


def test_shorter_prompts_are_padded_with_their_last_token(tokenizer, prompts):
    longest = prompts.tokens.shape[1]
    lengths = {int(end) + 1 for end in prompts.positions["end"]}
    assert len(lengths) > 1 and max(lengths) == longest
    for i, text in enumerate(prompts.texts):
        row = tokenizer.encode(text)
        padding = [row[-1]] * (longest - len(row))
        assert prompts.tokens[i].tolist() == row + padding


# --- balance, seeds, splits


def test_orders_come_in_pairs_that_differ_in_nothing_else(prompts):
    assert prompts.abba.tolist() == [True, False] * (len(prompts) // 2)
    for i in range(0, len(prompts), 2):
        first, second = prompts.texts[i], prompts.texts[i + 1]
        assert first != second and sorted(first) == sorted(second)
        for name in ("io", "s", "template"):
            assert getattr(prompts, name)[i] == getattr(prompts, name)[i + 1]
        a, b = ({r: int(prompts.positions[r][j]) for r in NAMES} for j in (i, i + 1))
        assert (a["IO"], a["S1"], a["S2"]) == (b["S1"], b["IO"], b["S2"])


def test_templates_are_balanced(prompts, split):
    templates = 8 if split == "find" else 7
    counts = torch.bincount(prompts.template, minlength=15)
    assert (counts > 0).sum() == templates
    assert counts[counts > 0].max() - counts[counts > 0].min() <= 2  # one pair


def test_names_places_and_things_vary(tokenizer, prompts, split):
    pool = set(ioi.names(tokenizer, split))
    for answers in (prompts.io, prompts.s):
        seen = {word(tokenizer, token) for token in answers}
        assert seen <= pool and len(seen) > len(pool) / 2
    assert (prompts.io != prompts.s).all()
    assert len(set(prompts.texts)) > len(prompts) / 2


def test_the_same_seed_gives_the_same_prompts(tokenizer, prompts, split):
    again = ioi.prompts(tokenizer, 64, seed=1, split=split)
    assert again.texts == prompts.texts and torch.equal(again.tokens, prompts.tokens)
    assert ioi.prompts(tokenizer, 64, seed=2, split=split).texts != prompts.texts
    # more prompts of a seed begin with the fewer
    assert ioi.prompts(tokenizer, 20, seed=1, split=split).texts == prompts.texts[:20]


def test_splits_share_no_template_and_no_name(tokenizer):
    found, reported = (ioi.prompts(tokenizer, 120, seed=0, split=split) for split in SPLITS)
    assert not set(found.template.tolist()) & set(reported.template.tolist())
    assert len(set(found.template.tolist()) | set(reported.template.tolist())) == 15
    names = [{*p.io.tolist(), *p.s.tolist()} for p in (found, reported)]
    assert not names[0] & names[1]
    assert not set(ioi.names(tokenizer, "find")) & set(ioi.names(tokenizer, "report"))


def test_a_name_is_on_the_same_side_for_every_tokenizer(tokenizer):
    everything = ioi.vocabulary()["names"]
    assert len(everything) == len(set(everything))
    for split in SPLITS:
        offset = SPLITS.index(split)
        assert all(everything.index(name) % 2 == offset for name in ioi.names(tokenizer, split))


# --- fresh names


def test_fresh_names_replace_the_three_names_and_nothing_else(tokenizer, prompts, split):
    fresh = ioi.with_fresh_names(prompts, tokenizer, seed=3, split=split)
    pool = {ioi.token_id(tokenizer, name) for name in ioi.names(tokenizer, split)}
    for i in range(len(prompts)):
        changed = (fresh[i] != prompts.tokens[i]).nonzero().flatten().tolist()
        assert changed == sorted(int(prompts.positions[role][i]) for role in NAMES)
        names = fresh[i, changed].tolist()
        assert len(set(names)) == 3 and set(names) <= pool
        assert not {int(prompts.io[i]), int(prompts.s[i])} & set(names)
    assert torch.equal(fresh, ioi.with_fresh_names(prompts, tokenizer, seed=3, split=split))
    other = ioi.with_fresh_names(prompts, tokenizer, seed=4, split=split)
    assert not torch.equal(fresh, other)


def test_fresh_names_leave_the_prompts_alone(tokenizer, prompts, split):
    before = prompts.tokens.clone()
    ioi.with_fresh_names(prompts, tokenizer, split=split)
    assert torch.equal(prompts.tokens, before)


# --- slices, batches, pairs


def test_batches_are_runs_of_the_whole(prompts):
    batches = prompts.batches(10)
    assert [len(batch) for batch in batches] == [10] * 6 + [4]
    assert torch.equal(torch.cat([batch.tokens for batch in batches]), prompts.tokens)
    assert sum((batch.texts for batch in batches), ()) == prompts.texts
    for role in ioi.POSITIONS:
        parts = [batch.positions[role] for batch in batches]
        assert torch.equal(torch.cat(parts), prompts.positions[role])
    for name in ("io", "s", "abba", "template"):
        parts = [getattr(batch, name) for batch in batches]
        assert torch.equal(torch.cat(parts), getattr(prompts, name))


def test_moving_to_a_device_moves_every_tensor(prompts):
    moved = prompts.to("meta")
    tensors = [moved.tokens, moved.io, moved.s, moved.abba, moved.template]
    assert all(t.device.type == "meta" for t in [*tensors, *moved.positions.values()])
    assert moved.texts == prompts.texts


def test_pair_means_are_over_the_two_orders():
    values = torch.tensor([1.0, 3.0, 10.0, 20.0])
    assert ioi.pair_means(values).tolist() == [2.0, 15.0]
    per_case = torch.stack([values, -values], dim=1)
    assert ioi.pair_means(per_case).tolist() == [[2.0, -2.0], [15.0, -15.0]]
    with pytest.raises(CompanionError, match="3 prompts are not pairs"):
        ioi.pair_means(values[:3])


# --- what is refused


@pytest.mark.parametrize("n", [3, 0, -2])
def test_numbers_of_prompts_that_cannot_be_balanced_are_refused(tokenizer, n):
    with pytest.raises(CompanionError, match=f"number of prompts {n}: give a positive even"):
        ioi.prompts(tokenizer, n)


def test_an_unknown_split_is_refused():
    half = inspect.unwrap(ioi.half)  # under test, its annotation would refuse the split first
    with pytest.raises(CompanionError, match="split 'train' is unknown: find or report"):
        half(["a", "b"], "train")


def test_a_name_of_several_tokens_is_refused_with_its_pieces(tokenizer):
    pieces = tokenizer.tokenize(" Bartholomew")
    assert len(pieces) > 1
    with pytest.raises(CompanionError) as refused:
        ioi.check_single_token(tokenizer, ["Mary", "Bartholomew"])
    assert "'Bartholomew'" in str(refused.value) and "Mary" not in str(refused.value)
    assert f"{len(pieces)} tokens ({' '.join(pieces)})" in str(refused.value)
    text = "Then, Mary and Bartholomew went to the store. Bartholomew gave a ring to"
    with pytest.raises(CompanionError, match="'Bartholomew' is"):
        ioi.encode(tokenizer, [text], ["Mary"], ["Bartholomew"], [True], [0])


@pytest.mark.parametrize(
    "text",
    [
        "Then, Mary and John went to the store. Mary gave a drink to",  # the wrong one twice
        "Then, Mary and John went to the store. He gave a drink to",
        "Then, Mary and John went to the store. John gave John a drink to",
    ],
)
def test_a_prompt_that_names_its_names_otherwise_is_refused(tokenizer, text):
    with pytest.raises(CompanionError, match="must name 'Mary' once and 'John' twice"):
        ioi.encode(tokenizer, [text], ["Mary"], ["John"], [True], [0])


def test_too_few_names_are_refused():
    class Letters:
        """A tokenizer to which every word is several tokens, but for a few short names."""

        def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
            return list(range(len(text) - 2))

    with pytest.raises(CompanionError, match=r"only \d of \d+ names are one token .* at least 6"):
        ioi.names(Letters(), "find")
