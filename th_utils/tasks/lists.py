"""List recall, the laundry-list task of *Talking Heads*: prompts, token roles and answers.

"Today we need to buy a dog, a cat and a fox. We already bought the fox and the dog. We still need
to buy the" is to be continued with the one item that is not mentioned again. With two items it is
the indirect-object task in another dress. The paper's templates and nouns are not known to us:
*reconstruction*.

Templates and nouns are cut into two halves, as names are in `th_utils.tasks.ioi`: whatever is
chosen is chosen on the split ``find`` and reported on the split ``report``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import yaml
from jaxtyping import Float, Int
from torch import Tensor

from th_utils.errors import CompanionError
from th_utils.paths import data_path
from th_utils.tasks.ioi import Split, check_single_token, half, token_id

Order = Literal["list", "shuffled"]
SHORTEST, LONGEST = 2, 20


@dataclass(frozen=True)
class ListPrompts:
    """Prompts on lists of one length, padded on the right by repeating their last token.

    Each drawn list gives as many consecutive prompts as it has items, one for each item left out;
    nothing else differs between them but the order of the repeats. They are no independent draws:
    intervals are taken over lists (`list_means`).
    """

    tokens: Int[Tensor, "prompt pos"]
    positions: dict[str, Int[Tensor, " prompt"]]  # "start" and "end"
    items: Int[Tensor, "prompt item"]  # position of each item's first mention
    again: Int[Tensor, "prompt item"]  # position of its second mention, -1 for the target
    answers: Int[Tensor, "prompt item"]  # token of each item, in list order
    target: Int[Tensor, " prompt"]  # which item is left out
    template: Int[Tensor, " prompt"]
    texts: tuple[str, ...]

    @property
    def length(self) -> int:
        """Items of a list."""
        return self.answers.shape[1]

    @property
    def right(self) -> Int[Tensor, " prompt"]:
        """Token of the right answer."""
        return self.answers[torch.arange(len(self), device=self.target.device), self.target]

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: slice) -> ListPrompts:
        """A run of prompts, still padded to the length of the whole batch."""
        picked = {name: getattr(self, name)[index] for name in (*_TENSORS, "texts")}
        at = {role: position[index] for role, position in self.positions.items()}
        return ListPrompts(**picked, positions=at)

    def batches(self, size: int) -> list[ListPrompts]:
        """The prompts in runs of at most `size`."""
        return [self[start : start + size] for start in range(0, len(self), size)]

    def to(self, device: Any) -> ListPrompts:
        """The same prompts with their tensors on another device."""
        moved = {name: getattr(self, name).to(device) for name in _TENSORS}
        at = {role: position.to(device) for role, position in self.positions.items()}
        return replace(self, **moved, positions=at)


_TENSORS = ("tokens", "items", "again", "answers", "target", "template")


def list_means(
    per_prompt: Float[Tensor, "prompt *rest"], length: int
) -> Float[np.ndarray, "list *rest"]:
    """Means over the prompts of each list, as `prompts` draws them."""
    if len(per_prompt) % length:
        raise CompanionError(f"{len(per_prompt)} prompts are not lists of {length} items")
    return per_prompt.double().unflatten(0, (-1, length)).mean(1).cpu().numpy()


def vocabulary() -> dict[str, Any]:
    """Templates, and nouns by category."""
    return yaml.safe_load(data_path("lists.yml").read_text(encoding="utf-8"))


def nouns(tokenizer: Any, split: Split, category: str | None = None) -> list[str]:
    """This split's nouns among those that are one token for `tokenizer`.

    Nouns alternate between the splits within their category, before the tokenizer is asked: a noun
    is on the same side for every model.

    Raises:
        CompanionError: there is no such category.
    """
    known = vocabulary()["nouns"]
    if category is not None and category not in known:
        raise CompanionError(f"category {category!r} is unknown: {', '.join(known)}")
    picked = known.values() if category is None else [known[category]]
    candidates = [word for words in picked for word in half(words, split)]
    return [word for word in candidates if token_id(tokenizer, word) is not None]


def prompts(
    tokenizer: Any,
    lists: int,
    length: int,
    *,
    seed: int = 0,
    split: Split = "report",
    order: Order = "list",
    category: str | None = None,
    words: list[str] | None = None,
) -> ListPrompts:
    """Seeded prompts: `lists` lists of `length` items, each with every item left out once.

    Templates of the split take turns. With the same seed, both orders of mention have the same
    lists, and so have all tokenizers that know the same nouns.

    Args:
        tokenizer: a Hugging Face tokenizer; no special tokens are added to the prompts.
        lists: number of lists; prompts are `lists` times `length`.
        length: items of a list, 2 to 20.
        seed: of the draw.
        split: half of templates and nouns to draw from.
        order: whether the others are mentioned again in list order or shuffled.
        category: draw all items of a list from one category of nouns.
        words: nouns to draw from in place of our own.

    Raises:
        CompanionError: a length out of range or for which there are not enough nouns, a noun of
            more than one token, no lists, an unknown order, category or split.
    """
    if not SHORTEST <= length <= LONGEST:
        raise CompanionError(f"lists of {length} items: give a length of {SHORTEST} to {LONGEST}")
    if lists < 1:
        raise CompanionError(f"number of lists {lists}: give at least 1")
    if order not in ("list", "shuffled"):
        raise CompanionError(f"order {order!r} is unknown: list or shuffled")
    if words is not None:
        check_single_token(tokenizer, words)
    pool = nouns(tokenizer, split, category) if words is None else list(dict.fromkeys(words))
    if len(pool) < length:
        kind = f" of category {category}" if category else ""
        raise CompanionError(
            f"lists of {length} items need as many nouns of one token, and there are "
            f"{len(pool)}{kind} on the split {split}: shorten the lists or add nouns to "
            "data/lists.yml"
        )
    known = vocabulary()["templates"]
    templates = half(known, split)
    rng = np.random.default_rng([seed, ("find", "report").index(split), length])
    rows: list[tuple] = []
    for i in range(lists):
        if i % len(templates) == 0:
            turn = rng.permutation(len(templates))
        template = templates[turn[i % len(templates)]]
        items = [str(word) for word in rng.choice(pool, length, replace=False)]
        for target in range(length):
            others = [k for k in range(length) if k != target]
            shuffled = [others[k] for k in rng.permutation(len(others))]  # drawn in both orders
            again = shuffled if order == "shuffled" else others
            rows.append((template, items, target, again, known.index(template)))
    return _encode(tokenizer, rows)


def enumeration(words: list[str]) -> str:
    """Words as a list in a sentence.

    >>> enumeration(["a dog", "a cat", "a fox"]), enumeration(["the dog"])
    ('a dog, a cat and a fox', 'the dog')
    """
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else words[0]


def _encode(tokenizer: Any, rows: list[tuple]) -> ListPrompts:
    """Tokenize prompts and find where each item stands."""
    texts, encoded, first, second = [], [], [], []
    for template, items, target, again, _ in rows:
        text = template.replace("[ITEMS]", enumeration([f"a {word}" for word in items]))
        text = text.replace("[OTHERS]", enumeration([f"the {items[k]}" for k in again]))
        ids = tokenizer.encode(text, add_special_tokens=False)
        tokens = [token_id(tokenizer, word) for word in items]
        at = [[p for p, token in enumerate(ids) if token == t] for t in tokens]
        if [len(found) for found in at] != [1 if k == target else 2 for k in range(len(items))]:
            raise CompanionError(
                f"prompt {text!r} must name {items[target]!r} once and the other items twice"
            )
        texts.append(text)
        encoded.append(ids)
        first.append([found[0] for found in at])
        second.append([-1 if k == target else found[1] for k, found in enumerate(at)])
    longest = max(map(len, encoded))
    end = torch.tensor([len(ids) - 1 for ids in encoded])
    return ListPrompts(
        tokens=torch.tensor([ids + ids[-1:] * (longest - len(ids)) for ids in encoded]),
        positions={"start": torch.zeros_like(end), "end": end},
        items=torch.tensor(first),
        again=torch.tensor(second),
        answers=torch.tensor([[token_id(tokenizer, word) for word in row[1]] for row in rows]),
        target=torch.tensor([row[2] for row in rows]),
        template=torch.tensor([row[4] for row in rows]),
        texts=tuple(texts),
    )
