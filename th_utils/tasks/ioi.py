"""Indirect object identification: prompts, token roles and answers (Wang et al. 2022).

"Then, Mary and John went to the store. John gave a drink to" is to be continued with the indirect
object (IO, "Mary") rather than with the subject (S, "John"), which is named twice. In the ABBA
order the indirect object is named first, in the BABA order the subject is.

Templates and names are cut into two halves. Whatever is chosen by looking at the model (roles,
thresholds, components) is chosen on the split ``find`` and reported on the split ``report``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import yaml
from jaxtyping import Bool, Float, Int
from torch import Tensor

from th_utils.errors import CompanionError
from th_utils.paths import data_path

Split = Literal["find", "report"]
ORDERS = ("ABBA", "BABA")
POSITIONS = ("start", "IO", "IO+1", "S1", "S1+1", "S2", "end")


@dataclass(frozen=True)
class IOIPrompts:
    """A batch of prompts. Shorter prompts are padded on the right by repeating their last token.

    The models are causal, so nothing at or before ``end`` sees the padding.
    """

    tokens: Int[Tensor, "prompt pos"]
    positions: dict[str, Int[Tensor, " prompt"]]  # position of each role in POSITIONS
    io: Int[Tensor, " prompt"]  # token of the right answer
    s: Int[Tensor, " prompt"]  # token of the wrong one
    abba: Bool[Tensor, " prompt"]
    template: Int[Tensor, " prompt"]
    texts: tuple[str, ...]

    @property
    def answers(self) -> Int[Tensor, "prompt 2"]:
        """Tokens of the right answer and of the wrong one."""
        return torch.stack([self.io, self.s], dim=-1)

    @property
    def right(self) -> Int[Tensor, " prompt"]:
        """Token of the right answer."""
        return self.io

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: slice) -> IOIPrompts:
        """A run of prompts, still padded to the length of the whole batch."""
        return IOIPrompts(
            tokens=self.tokens[index],
            positions={role: at[index] for role, at in self.positions.items()},
            io=self.io[index],
            s=self.s[index],
            abba=self.abba[index],
            template=self.template[index],
            texts=self.texts[index],
        )

    def batches(self, size: int) -> list[IOIPrompts]:
        """The prompts in runs of at most `size`."""
        return [self[start : start + size] for start in range(0, len(self), size)]

    def to(self, device: Any) -> IOIPrompts:
        """The same prompts with their tensors on another device."""
        moved = {n: getattr(self, n).to(device) for n in ("tokens", "io", "s", "abba", "template")}
        return replace(
            self, **moved, positions={role: at.to(device) for role, at in self.positions.items()}
        )


def pair_means(per_prompt: Float[Tensor, "prompt *rest"]) -> Float[np.ndarray, "pair *rest"]:
    """Means over the two orders of each pair of prompts, as `prompts` draws them.

    The two differ in the order of the names only, so they are no independent draws: intervals are
    taken over pairs.
    """
    if len(per_prompt) % 2:
        raise CompanionError(f"{len(per_prompt)} prompts are not pairs")
    return per_prompt.double().unflatten(0, (-1, 2)).mean(1).cpu().numpy()


def vocabulary() -> dict[str, list[str]]:
    """Templates, places, objects and names of the task."""
    return yaml.safe_load(data_path("ioi.yml").read_text(encoding="utf-8"))


def token_id(tokenizer: Any, word: str) -> int | None:
    """The id of a word with a space before it, or None if it is more than one token."""
    ids = tokenizer.encode(f" {word}", add_special_tokens=False)
    return ids[0] if len(ids) == 1 else None


def names(tokenizer: Any, split: Split) -> list[str]:
    """This split's names among those that are one token for `tokenizer`.

    Names alternate between the splits in the order of the list, before the tokenizer is asked:
    a name is on the same side for every model.

    Raises:
        CompanionError: fewer than six single-token names are left.
    """
    candidates = half(vocabulary()["names"], split)
    single = [name for name in candidates if token_id(tokenizer, name) is not None]
    if len(single) < 6:
        raise CompanionError(
            f"only {len(single)} of {len(candidates)} names are one token for this tokenizer; "
            "the task needs at least 6: add names that are to data/ioi.yml"
        )
    return single


def check_single_token(tokenizer: Any, words: list[str]) -> None:
    """Raise if any word is not one token (with a space before it).

    Raises:
        CompanionError: naming the first such word and its tokens.
    """
    for word in words:
        if token_id(tokenizer, word) is None:
            pieces = tokenizer.tokenize(f" {word}")
            raise CompanionError(
                f"{word!r} is {len(pieces)} tokens ({' '.join(pieces)}), but the task needs names "
                "of one token: choose another"
            )


def prompts(tokenizer: Any, n: int, *, seed: int = 0, split: Split = "report") -> IOIPrompts:
    """`n` seeded prompts, balanced over the two orders and the templates of the split.

    Consecutive prompts come in pairs that differ only in the order of the first two names.

    Args:
        tokenizer: a Hugging Face tokenizer; no special tokens are added to the prompts.
        n: number of prompts, even.
        seed: seed of the draw; names, places, objects and order of templates depend on it.
        split: half of the templates and names to draw from.

    Raises:
        CompanionError: odd or non-positive `n`, unknown split, too few single-token names.
    """
    if n <= 0 or n % 2:
        raise CompanionError(f"number of prompts {n}: give a positive even number")
    words, pool = vocabulary(), names(tokenizer, split)
    templates = half(words["templates"], split)
    rng = np.random.default_rng([seed, ("find", "report").index(split)])
    drawn = []
    for i in range(n // 2):
        if i % len(templates) == 0:
            order = rng.permutation(len(templates))
        template = templates[order[i % len(templates)]]
        io, s = map(str, rng.choice(pool, 2, replace=False))  # NumPy's strings print as such
        place, thing = str(rng.choice(words["places"])), str(rng.choice(words["objects"]))
        for abba in (True, False):
            text = template.replace("[PLACE]", place).replace("[OBJECT]", thing)
            drawn.append(
                (_fill(text, io, s, abba), io, s, abba, words["templates"].index(template))
            )
    return encode(tokenizer, *map(list, zip(*drawn, strict=True)))


def encode(
    tokenizer: Any,
    texts: list[str],
    ios: list[str],
    subjects: list[str],
    abba: list[bool],
    template: list[int],
) -> IOIPrompts:
    """Tokenize prompts and find the positions of their roles."""
    check_single_token(tokenizer, sorted({*ios, *subjects}))
    rows = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    longest = max(map(len, rows))
    io = torch.tensor([token_id(tokenizer, name) for name in ios])
    s = torch.tensor([token_id(tokenizer, name) for name in subjects])
    tokens = torch.tensor([row + row[-1:] * (longest - len(row)) for row in rows])
    end = torch.tensor([len(row) - 1 for row in rows])
    at = {"start": torch.zeros_like(end), "end": end}
    for i, row in enumerate(rows):
        if row.count(io[i]) != 1 or row.count(s[i]) != 2:
            raise CompanionError(
                f"prompt {texts[i]!r} must name {ios[i]!r} once and {subjects[i]!r} twice"
            )
    at["IO"] = (tokens == io[:, None]).int().argmax(dim=1)
    at["S1"] = (tokens == s[:, None]).int().argmax(dim=1)
    after = torch.arange(longest) > at["S1"][:, None]
    at["S2"] = ((tokens == s[:, None]) & after).int().argmax(dim=1)
    at["IO+1"], at["S1+1"] = at["IO"] + 1, at["S1"] + 1
    return IOIPrompts(
        tokens=tokens,
        positions={role: at[role] for role in POSITIONS},
        io=io,
        s=s,
        abba=torch.tensor(abba),
        template=torch.tensor(template),
        texts=tuple(texts),
    )


def with_fresh_names(
    prompts: IOIPrompts, tokenizer: Any, *, seed: int = 0, split: Split = "report"
) -> Int[Tensor, "prompt pos"]:
    """The ABC counterpart of each prompt: its three names replaced by three other, distinct ones.

    No name is repeated in it, so nothing is to be inhibited; every other token stays. This is the
    corrupted input of Wang et al. (2022) for path patching.
    """
    pool = torch.tensor([token_id(tokenizer, name) for name in names(tokenizer, split)])
    rng = np.random.default_rng([seed, 7919])
    tokens = prompts.tokens.clone()
    for i in range(len(prompts)):
        free = pool[(pool != prompts.io[i].cpu()) & (pool != prompts.s[i].cpu())].numpy()
        fresh = rng.choice(free, 3, replace=False)
        for role, name in zip(("IO", "S1", "S2"), fresh, strict=True):
            tokens[i, prompts.positions[role][i]] = int(name)
    return tokens


def half(items: list[str], split: Split) -> list[str]:
    """Every second item: ``find`` starts with the first, ``report`` with the second.

    >>> half(["a", "b", "c"], "find"), half(["a", "b", "c"], "report")
    (['a', 'c'], ['b'])
    """
    if split not in ("find", "report"):
        raise CompanionError(f"split {split!r} is unknown: find or report")
    return items[("find", "report").index(split) :: 2]


def _fill(template: str, io: str, s: str, abba: bool) -> str:
    """A template with its names filled in and the answer cut off."""
    text = template.removesuffix(" [A]")
    if abba:  # swap the first two names only
        text = text.replace("[B]", "[X]", 1).replace("[A]", "[B]", 1).replace("[X]", "[A]", 1)
    return text.replace("[A]", io).replace("[B]", s)
