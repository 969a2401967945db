r"""Ordinary text that is free to use: the model writes it itself (`sample`).

Each text begins with one of our own neutral openings (`data/openings.yml`) and goes on as the model
pleases: tokens are drawn at temperature 1 from the most probable ones that make up `TOP_P` of the
probability (nucleus sampling, Holtzman et al. 2020, section 3.1), special tokens excepted.

A text depends on the weights, the seed, its number and the openings, and on nothing else: every
text has random numbers of its own, one per token, and is written by one thread together with the
same others however many are asked for. Longer texts continue shorter ones.

`public_domain` gives the beginnings of a few well-known works, to compare with.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import yaml
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from th_utils import transformer
from th_utils.engine import from_bridge
from th_utils.errors import CompanionError
from th_utils.memory import remember
from th_utils.paths import data_path
from th_utils.progress import track
from th_utils.threads import one_thread
from th_utils.transformer import Transformer

LENGTH = 96  # tokens of a text; chapters that use the same share what was written
GROUP = 24  # texts written together: one of each opening
TOP_P = 0.9
_UNLIKELY = 1e-4  # of the most probable token's probability


@dataclass(frozen=True)
class Text:
    """Texts of equal length in tokens."""

    tokens: Int[Tensor, "text pos"]
    strings: tuple[str, ...]  # each text whole, its opening included
    kinds: tuple[str, ...]  # which kind of opening
    pieces: tuple[tuple[str, ...], ...]  # what each token adds to the string
    opening: Int[Tensor, " text"]  # tokens of the opening, which the model did not write

    def __len__(self) -> int:
        return len(self.strings)

    def batches(self, size: int) -> list[Int[Tensor, "text pos"]]:
        """The tokens in runs of at most `size` texts."""
        return list(self.tokens.split(size))


def openings() -> list[tuple[str, str]]:
    """Kind and words of every opening; the kinds take turns."""
    known = yaml.safe_load(data_path("openings.yml").read_text(encoding="utf-8"))
    turns = zip(*known.values(), strict=True)
    return [pair for turn in turns for pair in zip(known, turn, strict=True)]


def sample(
    bridge: Any, n: int, length: int = LENGTH, *, seed: int, checksum: str | None = None
) -> Text:
    """Texts that the model writes.

    Args:
        bridge: `TransformerBridge` in compatibility mode.
        n: number of texts; the openings take turns.
        length: tokens of each text, the opening included.
        seed: of the draw; 0 or more.
        checksum: of the model's weights (`Chapter.checksum`). Where it is given the texts are kept
            in the cache, and whoever asks for them again, or for fewer, gets the same at once.

    Raises:
        CompanionError: no texts, a length that leaves nothing to write or is longer than the model
            can read, or a model that `th_utils.engine` does not know.
    """
    if n < 1:
        raise CompanionError(f"{n} texts: ask for at least 1")
    if seed < 0:
        raise CompanionError(f"seed {seed}: give 0 or more")
    begun = openings()
    encoded = [_encode(bridge.tokenizer, words) for _, words in begun]
    if length <= max(map(len, encoded)):
        raise CompanionError(
            f"texts of {length} tokens: the longest opening has {max(map(len, encoded))}, ask for "
            "more"
        )
    limit = getattr(bridge.cfg, "n_ctx", None)
    if limit and length > limit:
        raise CompanionError(f"texts of {length} tokens: the model reads {limit} at most")
    rows: list[list[int]] = []
    for group in track(range(-(-n // GROUP)), "texts written"):
        rows += _group(bridge, encoded, group, length, seed, checksum)
    kinds = tuple(begun[i % len(begun)][0] for i in range(n))
    opening = torch.tensor([len(encoded[i % len(begun)]) for i in range(n)])
    return _text(bridge.tokenizer, rows[:n], kinds, opening)


def public_domain(tokenizer: Any, length: int = LENGTH) -> Text:
    """The beginnings of works in the public domain (`data/public_domain.yml`).

    Raises:
        CompanionError: one of them has fewer tokens than `length`.
    """
    known = yaml.safe_load(data_path("public_domain.yml").read_text(encoding="utf-8"))
    rows = [_encode(tokenizer, entry["text"]) for entry in known]
    if not 0 < length <= min(map(len, rows)):
        raise CompanionError(
            f"texts of {length} tokens: the shortest work has {min(map(len, rows))}, ask for 1 to "
            "as many"
        )
    kinds = tuple(entry["kind"] for entry in known)
    return _text(tokenizer, [row[:length] for row in rows], kinds, torch.zeros(len(rows)).long())


def _encode(tokenizer: Any, words: str) -> list[int]:
    return tokenizer.encode(words, add_special_tokens=False)


def _text(
    tokenizer: Any, rows: Sequence[Sequence[int]], kinds: tuple[str, ...], opening: Tensor
) -> Text:
    cut = tuple(tuple(pieces(tokenizer, row)) for row in rows)
    return Text(torch.tensor(rows), tuple(map("".join, cut)), kinds, cut, opening)


def pieces(tokenizer: Any, row: Sequence[int]) -> list[str]:
    """What each token adds to the decoded text; a character of several tokens is at its last.

    Together they are the text.
    """
    found, start, said = [], 0, ""
    for i in range(len(row)):
        # decoded from the last boundary on: a token alone may be a part of a character
        new = tokenizer.decode(row[start : i + 1], clean_up_tokenization_spaces=False)
        if new.endswith("�") and i + 1 < len(row):
            found.append("")
            continue
        found.append(new)
        start = i + 1
        said += new
    return found


def _group(
    bridge: Any,
    encoded: list[list[int]],
    group: int,
    length: int,
    seed: int,
    checksum: str | None,
) -> list[list[int]]:
    """One group of texts, from the cache where it is there."""

    def write() -> str:
        numbers = range(group * GROUP, (group + 1) * GROUP)
        begun = [encoded[i % len(encoded)] for i in numbers]
        chance = np.stack([np.random.default_rng([seed, i]).random(length) for i in numbers])
        never = bridge.tokenizer.all_special_ids
        return json.dumps(write_on(from_bridge(bridge), begun, chance, never=never).tolist())

    if checksum is None:
        return json.loads(write())
    from th_utils import digest

    sources = digest.digest(digest.closure_of_module(__name__))
    key = ["text", checksum, sources, seed, group, length, str(bridge.cfg.device).partition(":")[0]]
    return json.loads(remember(key, write))


@torch.no_grad()
@one_thread()
def write_on(
    model: Transformer,
    begun: Sequence[Sequence[int]],
    chance: Float[np.ndarray, "text pos"],
    *,
    never: Sequence[int] = (),
    top_p: float = TOP_P,
) -> Int[Tensor, "text pos"]:
    """Continue texts token by token.

    Args:
        model: the model.
        begun: tokens each text begins with, at least one.
        chance: a number between 0 and 1 for every token; where it falls among the probabilities,
            the most probable token first, is the token taken.
        never: tokens that are not written.
        top_p: share of the probability that the tokens to choose from make up.
    """
    n, length = chance.shape
    device = model.W_E.device
    shape = (model.n_layers, n, length, model.n_kv_heads, model.d_head)
    keys, values = (model.W_E.new_zeros(shape) for _ in "kv")
    tokens = torch.zeros(n, length, dtype=torch.long, device=device)
    given = torch.zeros(n, length, dtype=torch.bool, device=device)
    for row, said in enumerate(begun):
        tokens[row, : len(said)] = torch.tensor(said, device=device)
        given[row, : len(said)] = True
    drawn = torch.from_numpy(chance).to(device)
    start, stop = 0, min(map(len, begun))
    while stop < length:
        final = _forward(model, tokens[:, start:stop], keys, values, start)
        logits = model.final_norm(final) @ model.W_U
        logits = logits if model.b_U is None else logits + model.b_U
        logits[:, list(never)] = -torch.inf
        new = _nucleus(logits, drawn[:, stop], top_p)
        tokens[:, stop] = torch.where(given[:, stop], tokens[:, stop], new)
        start, stop = stop, stop + 1
    return tokens


def _nucleus(
    logits: Float[Tensor, "text d_vocab"], chance: Float[Tensor, " text"], top_p: float
) -> Int[Tensor, " text"]:
    """The token at `chance` of the way through the most probable ones that make up `top_p`."""
    total = logits.logsumexp(-1).tolist()
    found = []
    for row, log_sum, at in zip(logits.cpu().numpy(), total, chance.tolist(), strict=True):
        # sorting the whole vocabulary would take as long as the model does
        ids = np.flatnonzero(row > row.max() + np.log(_UNLIKELY))
        share = np.exp(row[ids].astype(np.float64) - log_sum)
        if share.sum() < top_p:
            ids = np.flatnonzero(np.isfinite(row))
            share = np.exp(row[ids].astype(np.float64) - log_sum)
        order = np.argsort(-share, kind="stable")
        summed = share[order].cumsum()
        # the token that reaches top_p is among them
        size = min(int(np.searchsorted(summed, top_p)) + 1, len(order))
        taken = int(np.searchsorted(summed[:size], at * summed[size - 1], "right"))
        found.append(int(ids[order[min(taken, size - 1)]]))
    return torch.tensor(found, device=logits.device)


def _forward(
    model: Transformer, tokens: Int[Tensor, "text new"], keys: Tensor, values: Tensor, start: int
) -> Float[Tensor, "text d_model"]:
    """What leaves the last block at the last of some new tokens, whose keys and values are kept."""
    stop = start + tokens.shape[1]
    positions = torch.arange(start, stop, device=tokens.device)
    mask = None
    if tokens.shape[1] > 1:  # a single new token sees everything
        mask = torch.arange(stop, device=tokens.device) <= positions[:, None]
    x = model.W_E[tokens]
    if model.W_pos is not None:
        x = x + model.W_pos[positions]
    for layer, block in enumerate(model.blocks):
        normed = block.norm_1(x)
        q, k, v = (
            transformer.project(normed, getattr(block, f"W_{name}"), getattr(block, f"b_{name}"))
            for name in "QKV"
        )
        q, k = (transformer.rotated(model, part, positions) for part in (q, k))
        keys[layer, :, start:stop], values[layer, :, start:stop] = k, v
        z = functional.scaled_dot_product_attention(
            q.transpose(1, 2),
            keys[layer, :, :stop].transpose(1, 2),
            values[layer, :, :stop].transpose(1, 2),
            attn_mask=mask,
            enable_gqa=model.group > 1,
        ).transpose(1, 2)
        mid = x + transformer.write_out(block, z)
        x = mid + transformer.mlp(model, block, x if model.parallel else mid)
    return x[:, -1]


def repeated(tokens: Int[Tensor, "text pos"], words: int = 4) -> Float[np.ndarray, "text pos"]:
    """1 where a token ends a run of `words` tokens that stood before in the same text, else 0."""
    found = np.zeros(tuple(tokens.shape))
    for row, ids in enumerate(tokens.tolist()):
        seen: set[tuple[int, ...]] = set()
        for end in range(words, len(ids) + 1):
            run = tuple(ids[end - words : end])
            found[row, end - 1] = run in seen
            seen.add(run)
    return found
