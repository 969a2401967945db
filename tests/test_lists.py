"""List-recall prompts: balanced, labelled where the words stand, and refused in one line."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from th_utils.errors import CompanionError
from th_utils.tasks import lists

WORDS = ["ring", "book", "ball", "bone", "kiss", "snack", "drink", "store"]


@pytest.fixture(scope="module")
def tokenizer(tiny_gpt2):
    return AutoTokenizer.from_pretrained(tiny_gpt2)


def drawn(tokenizer, n=4, length=4, **options):
    return lists.prompts(tokenizer, n, length, words=WORDS, **options)


@pytest.mark.parametrize("length", [2, 3, 8])
@pytest.mark.parametrize("order", ["list", "shuffled"])
def test_items_stand_where_they_are_said_to(tokenizer, length, order):
    found = drawn(tokenizer, 3, length, order=order)
    assert len(found) == 3 * length and found.length == length
    rows = torch.arange(len(found))
    assert torch.equal(found.tokens[rows[:, None], found.items], found.answers)
    assert torch.equal(found.target, torch.arange(length).repeat(3))
    left_out = torch.zeros(len(found), length, dtype=torch.bool)
    left_out[rows, found.target] = True
    assert torch.equal(found.again == -1, left_out)
    repeated = found.tokens[rows[:, None], found.again.clamp(min=0)]
    assert torch.equal(repeated[~left_out], found.answers[~left_out])
    assert torch.equal(found.right, found.answers[left_out])
    for text, row, end in zip(found.texts, found.tokens, found.positions["end"], strict=True):
        assert text.endswith(" the")
        assert tokenizer.decode(row[: end + 1]) == text
        assert bool((row[end:] == row[end]).all()), "padded by the last token"


def test_list_order_and_shuffled_differ_in_the_order_of_the_repeats_alone(tokenizer):
    plain, shuffled = (drawn(tokenizer, 6, 5, order=order) for order in ("list", "shuffled"))
    assert torch.equal(plain.answers, shuffled.answers)
    assert torch.equal(plain.template, shuffled.template)
    mentioned = [row[row >= 0] for row in plain.again]
    assert all(bool((row.diff() > 0).all()) for row in mentioned)
    mentioned = [row[row >= 0] for row in shuffled.again]
    assert not all(bool((row.diff() > 0).all()) for row in mentioned)


def test_templates_take_turns_and_splits_share_nothing(tokenizer):
    find, report = (drawn(tokenizer, 8, 2, split=split) for split in ("find", "report"))
    for found in (find, report):
        assert sorted(np.unique(found.template.numpy(), return_counts=True)[1]) == [4] * 4
    assert not set(find.template.tolist()) & set(report.template.tolist())
    known = lists.vocabulary()["nouns"]
    halves = [
        set(lists.half(known[c], "find")) & set(lists.half(known[c], "report")) for c in known
    ]
    assert not any(halves)


def test_no_noun_twice_and_none_in_a_template():
    words = [word for listed in lists.vocabulary()["nouns"].values() for word in listed]
    assert len(words) == len(set(words))
    said = {w.strip(".,") for template in lists.vocabulary()["templates"] for w in template.split()}
    assert not said & set(words)
    assert not [word for word in words if word[0] in "aeiou"], "prompts say 'a', never 'an'"


def test_the_seed_decides(tokenizer):
    first, same, other = (drawn(tokenizer, seed=seed).texts for seed in (1, 1, 2))
    assert first == same != other


def test_a_slice_is_a_batch(tokenizer):
    found = drawn(tokenizer)
    parts = found.batches(5)
    assert [len(part) for part in parts] == [5, 5, 5, 1]
    assert torch.equal(torch.cat([part.right for part in parts]), found.right)
    assert parts[0].tokens.shape[1] == found.tokens.shape[1]


def test_means_over_lists():
    values = torch.arange(6.0)
    assert lists.list_means(values, 3).tolist() == [1.0, 4.0]
    with pytest.raises(CompanionError, match="6 prompts are not lists of 4"):
        lists.list_means(values, 4)


@pytest.mark.parametrize(
    "arguments, said",
    [
        (dict(length=1), "lists of 1 items: give a length of 2 to 20"),
        (dict(length=21), "lists of 21 items"),
        (dict(n=0), "number of lists 0"),
        (dict(length=9), "lists of 9 items need as many nouns of one token, and there are 8"),
    ],
)
def test_bad_numbers(tokenizer, arguments, said):
    with pytest.raises(CompanionError, match=said):
        drawn(tokenizer, **arguments)


def test_bad_words(tokenizer):
    with pytest.raises(CompanionError, match="'zebra' is .* tokens"):
        lists.prompts(tokenizer, 1, 2, words=["ring", "zebra"])
    with pytest.raises(CompanionError, match="category 'fruit' is unknown: animals, "):
        lists.nouns(tokenizer, "find", "fruit")
    with pytest.raises(CompanionError, match="there are [0-9]+ of category animals on the split"):
        lists.prompts(tokenizer, 1, 20, category="animals")
