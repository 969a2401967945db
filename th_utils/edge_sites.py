"""Clean runs, of which is kept what the removal of components at some positions needs.

The removal itself is in `th_utils.edge_removal`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from th_utils import checks
from th_utils.errors import CompanionError
from th_utils.replay import Replay
from th_utils.transformer import Transformer

BATCH = 16  # prompts to a forward pass


@dataclass(frozen=True)
class Site:
    """A position at which writes are removed, and the row that reads it, in clean runs."""

    resid: Float[Tensor, "layer prompt d_model"]  # entering each block, where writes are removed
    written: Float[Tensor, "layer prompt head d_head"]  # weighted values there, before W_O
    at: Int[Tensor, " prompt"]  # where writes are removed
    row: Int[Tensor, " prompt"]  # from where the readers look
    query: Float[Tensor, "layer prompt head d_head"]  # at the row, turned where the model turns
    keys: Float[Tensor, "layer prompt pos kv_head d_head"]  # turned likewise
    values: Float[Tensor, "layer prompt pos kv_head d_head"]

    def __len__(self) -> int:
        return len(self.at)

    def __getitem__(self, index: slice) -> Site:
        """Some of the prompts."""
        many = {n: getattr(self, n)[:, index] for n in _BY_LAYER}
        return Site(**many, at=self.at[index], row=self.row[index])


_BY_LAYER = ("resid", "written", "query", "keys", "values")


@torch.no_grad()
def sites(
    model: Transformer,
    tokens: Int[Tensor, "prompt pos"],
    places: Sequence[tuple[Int[Tensor, " prompt"], Int[Tensor, " prompt"]]],
) -> list[Site]:
    """Clean runs of some prompts, and of them what the removal at each place needs.

    Args:
        model: the tensors of a model (`th_utils.engine.from_bridge`).
        tokens: prompts, padded on the right.
        places: pairs of positions per prompt: where writes are removed, and the row that reads.

    Raises:
        CompanionError: a row before the position that it should read, or one out of range.
    """
    for at, row in places:
        for name, position in (("at", at), ("row", row)):
            checks.shape(name, position, (len(tokens),), "one position for each prompt")
        if bool((at < 0).any() or (row < at).any() or (row >= tokens.shape[1]).any()):
            raise CompanionError(
                "a row reads positions up to itself: expected 0 <= at <= row < "
                f"{tokens.shape[1]} for each prompt"
            )
    last = 1 + max(int(row.max()) for _, row in places)
    engine, parts = Replay(model), [[] for _ in places]
    for start in range(0, len(tokens), BATCH):
        batch = slice(start, start + BATCH)
        run = engine.trace(tokens[batch, :last])
        rows = torch.arange(len(run.tokens), device=tokens.device)
        for kept, (at, row) in zip(parts, places, strict=True):
            at, row = at[batch], row[batch]
            kept.append((run.resid[:, rows, at], run.z[:, rows, at], run.query[:, rows, row]))
        if start == 0:
            keys, values = [], []
        keys.append(run.keys)
        values.append(run.values)
    keys, values = torch.cat(keys, 1), torch.cat(values, 1)  # shared by all sites
    found = []
    for kept, (at, row) in zip(parts, places, strict=True):
        resid, written, query = (torch.cat(part, 1) for part in zip(*kept, strict=True))
        found.append(Site(resid, written, at, row, query, keys, values))
    return found


def coefficients(
    model: Transformer, directions: Float[Tensor, "layer head component d_model"], site: Site
) -> Float[Tensor, "prompt writer"]:
    """How strongly each component writes at the site: ``c = z W_O . v``."""
    parts = []
    for layer, block in enumerate(model.blocks):
        into = block.W_O @ directions[layer].mT
        parts.append(torch.einsum("nhe,hek->nhk", site.written[layer], into).flatten(1))
    return torch.cat(parts, 1)
