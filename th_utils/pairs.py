"""All pairs of a component and a later head that could read it, in one fixed order.

A model of some thirty layers has millions of them. Tables over all pairs are kept as one long row:
reader by reader in order of (layer, head), and for each reader every component of every earlier
layer in order of (layer, head, component). Nothing is stored for pairs that cannot be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from th_utils import checks
from th_utils.errors import CompanionError


@dataclass(frozen=True)
class Pairs:
    """The layout of such rows for a model of some size."""

    layers: int
    heads: int
    rank: int  # components of a head

    def __post_init__(self) -> None:
        if self.layers < 2 or self.heads < 1 or self.rank < 1:
            raise CompanionError(
                f"{self.layers} layers of {self.heads} heads with {self.rank} components hold no "
                "pair of an earlier component and a later head: expected two layers at least"
            )

    def __len__(self) -> int:
        return self.start(self.layers)

    def writers(self, layer: int) -> int:
        """Components before a layer: as many as each of its heads could read.

        >>> Pairs(3, 2, 8).writers(2)
        32
        """
        return layer * self.heads * self.rank

    def start(self, layer: int, head: int = 0) -> int:
        """Where the pairs of one reader begin.

        >>> Pairs(3, 2, 8).start(1), Pairs(3, 2, 8).start(2, 1)
        (0, 64)
        """
        before = layer * (layer - 1) // 2 * self.heads * self.rank * self.heads
        return before + head * self.writers(layer)

    def readers(self) -> list[tuple[int, int, slice]]:
        """Layer and head of each reader that has writers before it, and where its pairs are."""
        return [
            (layer, head, slice(self.start(layer, head), self.start(layer, head + 1)))
            for layer in range(1, self.layers)
            for head in range(self.heads)
        ]

    def flatten(
        self, table: Float[Tensor, "layer head component reader_layer reader_head"]
    ) -> Float[Tensor, " pair"]:
        """The row of a table over writers and readers, such as `composition.component_scores`.

        >>> Pairs(2, 1, 3).flatten(torch.arange(12.0).view(2, 1, 3, 2, 1))
        tensor([1., 3., 5.])
        """
        sizes = (self.layers, self.heads, self.rank, self.layers, self.heads)
        checks.shape("table", table, sizes, "layer, head, component, reader_layer, reader_head")
        parts = [
            table[:layer, :, :, layer].movedim(-1, 0).flatten() for layer in range(1, self.layers)
        ]
        return torch.cat(parts)

    def of_writers(self, values: Float[Tensor, "layer head component"]) -> Float[Tensor, " pair"]:
        """A number of each component, at every pair that it writes in."""
        sizes = (self.layers, self.heads, self.rank)
        checks.shape("values", values, sizes, "layer, head, component")
        parts = [
            values[:layer].flatten().expand(self.heads, -1).flatten()
            for layer in range(1, self.layers)
        ]
        return torch.cat(parts)

    def of_readers(self, values: Float[Tensor, "layer head"]) -> Float[Tensor, " pair"]:
        """A number of each head, at every pair that it reads in."""
        checks.shape("values", values, (self.layers, self.heads), "layer, head")
        parts = [
            values[layer][:, None].expand(-1, self.writers(layer)).flatten()
            for layer in range(1, self.layers)
        ]
        return torch.cat(parts)

    def distance(self) -> Float[Tensor, " pair"]:
        """Layers between writer and reader, 1 for neighbours."""
        layer = torch.arange(self.layers, dtype=torch.float32)
        written = layer[:, None, None].expand(-1, self.heads, self.rank)
        read = layer[:, None].expand(-1, self.heads)
        return self.of_readers(read) - self.of_writers(written)

    def where(self, index: Int[np.ndarray, " n"]) -> Int[np.ndarray, "n 5"]:
        """Layer, head and component of the writer, layer and head of the reader.

        >>> Pairs(3, 2, 8).where(np.array([0, 64]))
        array([[0, 0, 0, 1, 0],
               [0, 0, 0, 2, 1]])
        """
        index = np.asarray(index, dtype=np.int64)
        if index.size and (index.min() < 0 or index.max() >= len(self)):
            raise CompanionError(f"pairs are numbered 0 to {len(self) - 1}")
        starts = np.array([self.start(layer) for layer in range(1, self.layers + 1)])
        reader = np.searchsorted(starts, index, side="right")
        head, writer = np.divmod(index - starts[reader - 1], reader * self.heads * self.rank)
        layer, rest = np.divmod(writer, self.heads * self.rank)
        return np.stack([layer, *np.divmod(rest, self.rank), reader, head], axis=-1)

    def reader(self, index: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Number of each pair's reader, counting heads through all layers."""
        at = self.where(index)
        return at[:, 3] * self.heads + at[:, 4]
