"""Texts that a model writes: the tokens that the probabilities say, the same however asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from th_utils import digest, models
from th_utils.engine import from_bridge
from th_utils.errors import CompanionError
from th_utils.tasks import text


@pytest.fixture(scope="module")
def bridge(tiny_model):
    return models.load(tiny_model)


OURS, GROUP = text.openings(), text.GROUP
SHORT = [("story", "Mary went to"), ("news", "The"), ("list", "a ring, a ball and a book")]


@pytest.fixture(scope="module")
def short():
    """Openings of a few tokens and groups of three: the small tokenizer spells ours letter by
    letter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "openings", lambda: SHORT)
        patch.setattr(text, "GROUP", 3)
        yield


@pytest.fixture(scope="module")
def drawn(bridge, short):
    return text.sample(bridge, 4, 14, seed=3)


def by_hand(bridge, row: list[int], given: int, chance: np.ndarray, never: list[int]) -> list[int]:
    """The same text by whole forward passes of TransformerLens, in double precision after that."""
    out = row[:given]
    for at in range(given, len(row)):
        logits = bridge(torch.tensor([out]), return_type="logits")[0, -1].double().numpy()
        logits[never] = -np.inf
        p = np.exp(logits - logits.max())
        p /= p.sum()
        order = np.argsort(-p, kind="stable")
        kept = order[: int(np.searchsorted(np.cumsum(p[order]), text.TOP_P)) + 1]
        edges = np.cumsum(p[kept]) / p[kept].sum()
        out.append(int(kept[min(np.searchsorted(edges, chance[at], "right"), len(kept) - 1)]))
    return out


def test_texts_are_what_full_forward_passes_write(bridge, drawn):
    never = bridge.tokenizer.all_special_ids
    for i in (0, 2, 3):
        row, given = drawn.tokens[i].tolist(), int(drawn.opening[i])
        chance = np.random.default_rng([3, i]).random(len(row))
        assert by_hand(bridge, row, given, chance, never) == row


def test_a_text_does_not_depend_on_the_others_nor_on_threads(bridge, drawn):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        more = text.sample(bridge, 6, 14, seed=3)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(more.tokens[:4], drawn.tokens)
    assert not torch.equal(more.tokens[3:6], more.tokens[:3]), "later groups have other numbers"
    shorter = text.sample(bridge, 2, 11, seed=3)
    assert torch.equal(shorter.tokens, drawn.tokens[:2, :11])
    other = text.sample(bridge, 1, 14, seed=4)
    assert not torch.equal(other.tokens, drawn.tokens[:1])


def test_openings_stand_in_front_and_kinds_take_turns(bridge, drawn):
    assert drawn.kinds == ("story", "news", "list", "story")
    for i, (_, words) in enumerate([*SHORT, SHORT[0]]):
        assert drawn.strings[i].startswith(words)
        ids = bridge.tokenizer.encode(words, add_special_tokens=False)
        assert int(drawn.opening[i]) == len(ids)
        assert drawn.tokens[i, : len(ids)].tolist() == ids


def test_special_tokens_are_never_written(bridge, drawn):
    assert not set(drawn.tokens.flatten().tolist()) & set(bridge.tokenizer.all_special_ids)
    model = from_bridge(bridge)
    chance = np.zeros((1, 6))
    first = text.write_on(model, [[5]], chance)
    banned = int(first[0, 1])
    assert int(text.write_on(model, [[5]], chance, never=[banned])[0, 1]) != banned


def test_chance_zero_takes_the_most_probable_token(bridge):
    found = text.write_on(from_bridge(bridge), [[5, 9, 2]], np.zeros((1, 6)))
    for at in range(3, 6):
        logits = bridge(found[:, :at], return_type="logits")[0, -1]
        assert int(logits.argmax()) == int(found[0, at])


def test_nucleus_by_hand():
    """Probabilities .5 .3 .15 .05; three tokens reach 0.9, and share the chance as 50 : 30 : 15."""
    logits = torch.tensor([[0.15, 0.5, 0.05, 0.3]]).log().expand(6, -1)
    chance = torch.tensor([0.0, 0.52, 0.53, 0.84, 0.85, 0.999999], dtype=torch.float64)
    assert text._nucleus(logits, chance, 0.9).tolist() == [1, 1, 3, 3, 0, 0]
    assert text._nucleus(logits, chance, 0.4).tolist() == [1] * 6
    unlikely = torch.tensor([[1 - 3e-5, 1e-5, 1e-5, 1e-5]]).log()
    assert text._nucleus(unlikely, torch.tensor([0.999999]).double(), 1.0).tolist() == [3]


def test_pieces_put_together_are_the_text(tiny_gpt2):
    tokenizer = AutoTokenizer.from_pretrained(tiny_gpt2)
    said = "Mary gave a café – and 😀 to John."
    row = tokenizer.encode(said, add_special_tokens=False)
    found = text.pieces(tokenizer, row)
    assert len(found) == len(row) and "".join(found) == said
    assert "😀" in "".join(found) and found[0] == "Mary"
    broken = text.pieces(tokenizer, row[: row.index(row[-1])][:-8])
    assert len(broken) == len(row[: row.index(row[-1])][:-8])


def test_our_openings():
    found = OURS
    kinds = list(dict.fromkeys(kind for kind, _ in found))
    assert len(kinds) == 6 and [kind for kind, _ in found[:12]] == kinds * 2
    assert len(found) == GROUP == len({words for _, words in found})


def test_texts_are_kept_and_shared(tiny_gpt2, short, tmp_path, monkeypatch):
    monkeypatch.setenv("TALKING_HEADS_CACHE", str(tmp_path))
    # sources that are edited while this runs are no other text
    monkeypatch.setattr(digest, "digest", lambda files: "as they were")
    bridge, calls = models.load(tiny_gpt2), []

    def counted(model, begun, chance, *, never):
        calls.append(chance)
        return torch.randint(5, 40, chance.shape)

    monkeypatch.setattr(text, "write_on", counted)
    first = text.sample(bridge, 2, 15, seed=1, checksum="abc")
    again = text.sample(bridge, 3, 15, seed=1, checksum="abc")
    assert len(calls) == 1 and torch.equal(again.tokens[:2], first.tokens)
    text.sample(bridge, 2, 15, seed=2, checksum="abc")
    text.sample(bridge, 2, 15, seed=1, checksum="abd")
    text.sample(bridge, 2, 16, seed=1, checksum="abc")
    text.sample(bridge, 4, 15, seed=1, checksum="abc")
    assert len(calls) == 5, "another seed, model, length and group are written anew"
    monkeypatch.setattr(digest, "digest", lambda files: "edited")
    text.sample(bridge, 2, 15, seed=1, checksum="abc")
    assert len(calls) == 6, "and so where the sources are others"
    text.sample(bridge, 2, 15, seed=1)
    assert len(calls) == 7, "without a checksum nothing is kept"


def test_repeated_runs():
    tokens = torch.tensor([[1, 2, 3, 1, 2, 3, 1], [1, 1, 1, 1, 1, 2, 3]])
    assert text.repeated(tokens, 3).tolist() == [
        [0, 0, 0, 0, 0, 1, 1],
        [0, 0, 0, 1, 1, 0, 0],
    ]
    assert text.repeated(tokens, 8).sum() == 0


@pytest.mark.parametrize(
    "n, length, seed, said",
    [
        (0, 20, 0, "0 texts: ask for at least 1"),
        (2, 5, 0, "texts of 5 tokens: the longest opening has"),
        (2, 20, -1, "seed -1: give 0 or more"),
    ],
)
def test_what_cannot_be_written_is_refused(tiny_gpt2, short, n, length, seed, said):
    with pytest.raises(CompanionError, match=said):
        text.sample(models.load(tiny_gpt2), n, length, seed=seed)


def test_texts_longer_than_the_model_reads(tiny_gpt2, short):
    with pytest.raises(CompanionError, match="texts of 200 tokens: the model reads 128 at most"):
        text.sample(models.load(tiny_gpt2), 2, 200, seed=0)


def test_works_in_the_public_domain(tiny_gpt2):
    tokenizer = AutoTokenizer.from_pretrained(tiny_gpt2)
    found = text.public_domain(tokenizer, 100)
    assert found.tokens.shape == (8, 100) and found.strings[0].startswith("Alice was beginning")
    assert all(string.isascii() for string in found.strings)
    assert all("".join(cut) == said for cut, said in zip(found.pieces, found.strings, strict=True))
    with pytest.raises(CompanionError, match="texts of 9000 tokens: the shortest work has"):
        text.public_domain(tokenizer, 9000)
