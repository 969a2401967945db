r"""Random attention weights with communication channels planted at known places.

A search for channels can be judged only where the answer is known. Here a model is noise: random
heads whose singular values fall as those of real heads do. Into this noise channels are planted:
an earlier head is made to write along certain directions, a later head to read along the same ones
through its query, key or value.

A head's rank stays d_head: in the head's own space of d_head coordinates one coordinate e is given
up to each direction w. A reader's ``W_Q`` becomes ``W_Q (I - e e^T) + g w e^T``, and so for ``W_K``
and ``W_V``; a writer's ``W_O`` becomes ``(I - e e^T) W_O + g e w^T``. With the matrix M of the
reader (`th_utils.composition`), or the writer's ``W_V W_O``, before and the planted term T after:

.. math:: \text{strength} = \frac{\|T\|_F}{\|M\|_F / \sqrt{d_{head}}} .

The denominator is the root mean square of the head's d_head singular values. So a planted term of
strength 1 is as large as a typical component of the head it sits in; its share of the head's
squared norm is about strength^2 / (d_head + strength^2). A channel of rank r divides its strength
evenly: each of its r directions has 1/sqrt(r) of it. In rotary models norms are root mean squares
over `th_utils.composition.OFFSETS`.

What shares a direction communicates, asked for or not: `plant` returns every channel there is.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from th_utils import checks
from th_utils.composition import KINDS, OFFSETS
from th_utils.errors import CompanionError
from th_utils.weights import AttentionWeights, Rotary

Head = tuple[int, int]
MAX_RANK = 3


@dataclass(frozen=True)
class Noise:
    """What the random heads are like.

    Attributes:
        layers, heads, kv_heads, d_model, d_head: the model's shape; kv_heads None for one each.
        decay: the product of the factors by which the column norms of a head's two matrices fall,
            each over d_head columns. The head's own singular values fall by about half of it (in
            GPT-2 small by about 4 in the median, by 15 and more in a tenth of the heads).
        centred: whether readers and writers have mean zero over d_model, as LayerNorm has it.
        rotary: the rotary embedding of queries and keys, None without.
    """

    layers: int = 6
    heads: int = 8
    kv_heads: int | None = None
    d_model: int = 128
    d_head: int = 16
    decay: float | int = 30.0
    centred: bool = False
    rotary: Rotary | None = None

    def __post_init__(self) -> None:
        for name in ("layers", "heads", "d_model", "d_head"):
            if getattr(self, name) < 1:
                raise CompanionError(f"{name} = {getattr(self, name)}: expected 1 or more")
        if self.kv_heads is not None and self.kv_heads < 1:
            raise CompanionError(f"kv_heads = {self.kv_heads}: expected 1 or more, or None")
        if self.heads % self.groups:
            raise CompanionError(
                f"kv_heads = {self.kv_heads}: expected a divisor of heads = {self.heads}"
            )
        room = self.d_model - self.centred
        if self.d_head > room:
            raise CompanionError(f"d_head = {self.d_head}: expected at most {room} in d_model")
        if not (math.isfinite(self.decay) and self.decay >= 1):
            raise CompanionError(f"decay = {self.decay}: expected a finite number of 1 or more")
        if self.rotary and self.rotary.dims > self.d_head:
            raise CompanionError(
                f"rotary.dims = {self.rotary.dims}: expected at most d_head = {self.d_head}"
            )

    @property
    def groups(self) -> int:
        """Key/value heads."""
        return self.heads if self.kv_heads is None else self.kv_heads


@dataclass(frozen=True)
class Channel:
    """A channel to plant.

    Attributes:
        writer, reader: (layer, head); the reader in a later layer.
        kind: what the reader takes it up with, "Q", "K" or "V".
        strength: of the planted term in the reader, see the module's formula.
        rank: number of directions, 1 to 3.
        written: strength in the writer, the same as in the reader when None.
        direction: channels of one name write and read the same directions; a name of its own for
            each when None.
    """

    writer: Head
    reader: Head
    kind: str
    strength: float | int = 1.0
    rank: int = 1
    written: float | int | None = None
    direction: str | None = None


@dataclass(frozen=True)
class Planted:
    """A channel as it is in the weights.

    Attributes:
        writer, reader, kind: where it is.
        directions: orthonormal, of the residual stream.
        written, read: strengths in the writer and in the reader, measured on the finished weights.
        asked: whether it was asked for; else it came about because directions, or the keys and
            values of a group, are shared.
    """

    writer: Head
    reader: Head
    kind: str
    directions: Float[Tensor, "d_model rank"] = field(repr=False)
    written: float
    read: float
    asked: bool


def noise_weights(noise: Noise, *, seed: int) -> AttentionWeights:
    """Random attention weights with nothing planted, in double precision.

    Each matrix is Gaussian; its columns are scaled from 1 down to 1 / sqrt(decay), then turned at
    random within the head, so that no coordinate of a head is special.

    >>> weights = noise_weights(Noise(), seed=0)
    >>> tuple(weights.W_Q.shape), weights.rotary, weights.group
    ((6, 8, 128, 16), None, 1)
    """
    generator = _generator(seed)
    scale = noise.decay ** (-torch.linspace(0, 0.5, noise.d_head, dtype=torch.float64))

    def draw(heads: int) -> Tensor:
        lead = (noise.layers, heads)
        wide = _normal(generator, *lead, noise.d_model, noise.d_head)
        turn = torch.linalg.qr(_normal(generator, *lead, noise.d_head, noise.d_head)).Q
        drawn = wide * scale @ turn / math.sqrt(noise.d_model)
        return drawn - drawn.mean(dim=-2, keepdim=True) if noise.centred else drawn

    W_Q, W_O = draw(noise.heads), draw(noise.heads).mT.contiguous()
    W_K, W_V = draw(noise.groups), draw(noise.groups)
    return AttentionWeights(W_Q, W_K, W_V, W_O, rotary=noise.rotary)


def plant(
    noise: Noise, channels: Sequence[Channel], *, seed: int
) -> tuple[AttentionWeights, list[Planted]]:
    """Random weights with these channels in them, and the list of all channels that they have.

    The noise is that of `noise_weights` with the same seed. Whoever writes a direction talks to
    everybody who reads it in a later layer; and in a model with grouped keys and values, all heads
    of a group read what one of them was given to read as key or value.

    Raises:
        CompanionError: a head that the model has not, a reader that is not in a later layer, an
            unknown kind, a rank that is not 1 to 3 or exceeds d_head, a strength that is not
            positive and finite, channels of one direction that contradict each other, more
            directions at one head than it has coordinates. The message names the channel.

    >>> weights, there = plant(Noise(), [Channel((0, 0), (1, 1), "K", strength=2.0)], seed=0)
    >>> [(p.writer, p.reader, p.kind, round(p.written, 6), round(p.read, 6)) for p in there]
    [((0, 0), (1, 1), 'K', 2.0, 2.0)]
    """
    _check(noise, channels)
    before = noise_weights(noise, seed=seed)
    after = AttentionWeights(
        *(getattr(before, name).clone() for name in ("W_Q", "W_K", "W_V", "W_O")),
        rotary=noise.rotary,
    )
    directions = _directions(noise, channels, seed)
    terms: dict[_Site, _Term] = {}
    taken: dict[tuple[bool, int, int], Tensor] = {}
    for site, strength in _sites(noise, channels).items():
        space = (site.side in ("Q", "K"), site.layer, site.head // before.group)
        used = taken.get(space, before.W_Q.new_zeros(noise.d_head, 0))
        term = _embed(before, after, site, directions[site.direction], strength, used)
        terms[site], taken[space] = term, torch.cat([used, term.coordinates], dim=1)
    return after, _all_channels(channels, before, after, directions, terms)


@dataclass(frozen=True)
class _Site:
    """A place where a direction goes into the weights; of a group's heads, the first asked for."""

    direction: str
    side: str  # "write", "Q", "K" or "V"
    layer: int
    head: int


@dataclass(frozen=True)
class _Term:
    """What was planted at a site: coordinates of the head, and the length each of them got."""

    coordinates: Float[Tensor, "d_head rank"]
    gains: Float[Tensor, " rank"]


def _embed(
    before: AttentionWeights,
    after: AttentionWeights,
    site: _Site,
    directions: Float[Tensor, "d_model rank"],
    strength: float,
    used: Float[Tensor, "d_head used"],
) -> _Term:
    """Give up free coordinates of a head to directions, in place.

    The coordinates are eigenvectors of the partner matrix's Gram matrix in what is free, so that
    the planted term and what is left of the noise have nothing in common on the partner's side;
    and those of middle size, so that the planted entries are neither tiny nor huge.
    """
    rank = directions.shape[1]
    free = torch.linalg.qr(torch.cat([used, torch.eye(len(used)).to(used)], dim=1)).Q
    free = free[:, used.shape[1] :]
    gram = _partner(after, site.side, site.layer, site.head)
    sizes, vectors = torch.linalg.eigh(free.T @ gram @ free)
    middle = (sizes - sizes.mean()).abs().argsort()[:rank]
    coordinates = free @ vectors[:, middle]
    unit = _typical(before, site.side, site.layer, site.head)
    gains = strength * unit / (rank * sizes[middle]).sqrt()
    left = _left(after, site.side, site.layer, site.head)
    left += (directions * gains - left @ coordinates) @ coordinates.T
    return _Term(coordinates, gains)


def _left(weights: AttentionWeights, side: str, layer: int, head: int) -> Tensor:
    """The matrix, d_model x d_head, that faces the residual stream on this side of a head."""
    if side in ("Q", "write"):
        return weights.W_Q[layer, head] if side == "Q" else weights.W_O[layer, head].mT
    return (weights.W_K if side == "K" else weights.W_V)[layer, head // weights.group]


def _partner(
    weights: AttentionWeights, side: str, layer: int, head: int
) -> Float[Tensor, "d_head d_head"]:
    """Gram matrix of what the side is multiplied with; mean over offsets in rotary models."""
    other = {"Q": "K", "K": "Q", "V": "write", "write": "V"}[side]
    right = _left(weights, other, layer, head)
    gram = right.T @ right
    if weights.rotary is None or side in ("V", "write"):
        return gram
    turns = _turns(weights.rotary, len(gram))
    turns = turns if side == "Q" else turns.mT
    return (turns @ gram @ turns.mT).mean(0)


@functools.lru_cache(maxsize=4)
def _turns(rotary: Rotary, d_head: int) -> Float[Tensor, "offset d_head d_head"]:
    turns = [rotary.rotation(offset, d_head, dtype=torch.float64) for offset in OFFSETS]
    return torch.stack(turns)


def _typical(weights: AttentionWeights, side: str, layer: int, head: int) -> Float[Tensor, ""]:
    """Root mean square of the d_head singular values of a head's matrix."""
    left = _left(weights, side, layer, head)
    gram = _partner(weights, side, layer, head)
    return ((left.T @ left) * gram).sum().div(len(gram)).sqrt()


def _all_channels(
    channels: Sequence[Channel],
    before: AttentionWeights,
    after: AttentionWeights,
    directions: dict[str, Tensor],
    terms: dict[_Site, _Term],
) -> list[Planted]:
    """Every writer of a direction with everybody that reads it later."""

    def strength(site: _Site, head: int) -> float:
        term = terms[site]
        gram = _partner(after, site.side, site.layer, head)
        sizes = ((gram @ term.coordinates) * term.coordinates).sum(0)
        unit = _typical(before, site.side, site.layer, head)
        return float((term.gains**2 * sizes).sum().sqrt() / unit)

    asked = {(_name(i, c), c.writer, c.reader, c.kind) for i, c in enumerate(channels)}
    found = []
    for writer in terms:
        for reader in terms:
            alike = reader.direction == writer.direction and writer.layer < reader.layer
            if writer.side != "write" or reader.side == "write" or not alike:
                continue
            first = reader.head // after.group * after.group
            heads = range(first, first + after.group) if reader.side in ("K", "V") else ()
            for head in heads or (reader.head,):
                places = ((writer.layer, writer.head), (reader.layer, head))
                found.append(
                    Planted(
                        *places,
                        reader.side,
                        directions=directions[writer.direction],
                        written=strength(writer, writer.head),
                        read=strength(reader, head),
                        asked=(writer.direction, *places, reader.side) in asked,
                    )
                )
    return found


def _name(index: int, channel: Channel) -> str:
    """The name of a channel's direction; one that nobody shares is named by its number."""
    return f"#{index}" if channel.direction is None else f"={channel.direction}"


def _directions(
    noise: Noise, channels: Iterable[Channel], seed: int
) -> dict[str, Float[Tensor, "d_model rank"]]:
    """Random orthonormal directions for each name."""
    generator = _generator(seed, 1)
    found: dict[str, Tensor] = {}
    for index, channel in enumerate(channels):
        if (name := _name(index, channel)) not in found:
            drawn = _normal(generator, noise.d_model, channel.rank)
            found[name] = torch.linalg.qr(drawn - noise.centred * drawn.mean(dim=0)).Q
    return found


def _sites(noise: Noise, channels: Sequence[Channel]) -> dict[_Site, float]:
    """Where which direction goes, with its strength there."""
    group = noise.heads // noise.groups
    sites: dict[_Site, float] = {}
    kept: dict[tuple, tuple[_Site, int]] = {}
    need: dict[tuple[bool, int, int], int] = {}
    for index, channel in enumerate(channels):
        written = channel.strength if channel.written is None else channel.written
        ends = (
            ("write", channel.writer, written),
            (channel.kind, channel.reader, channel.strength),
        )
        for side, (layer, head), strength in ends:
            holder = head // group if side in ("K", "V") else head
            site = _Site(_name(index, channel), side, layer, head)
            same, first = kept.setdefault((site.direction, side, layer, holder), (site, index))
            if sites.setdefault(same, strength) != strength:
                raise CompanionError(
                    f"channels[{index}] has strength {strength} on a side that channels[{first}] "
                    f"of the same direction gives {sites[same]}: expected the same"
                )
            if first == index:
                space = (side in ("Q", "K"), layer, head // group)
                need[space] = need.get(space, 0) + channel.rank
                if need[space] > noise.d_head:
                    raise CompanionError(
                        f"channels[{index}] does not fit: {need[space]} directions at the "
                        f"{'queries and keys' if space[0] else 'values and outputs'} of head "
                        f"{(layer, head)}, expected at most d_head = {noise.d_head}"
                    )
    return sites


def _check(noise: Noise, channels: Sequence[Channel]) -> None:
    """What can be seen of each channel by itself, and that those of one direction agree."""
    ranks: dict[str, int] = {}
    for index, channel in enumerate(channels):
        at = f"channels[{index}]"
        for end in ("writer", "reader"):
            for name, value, size in zip(
                ("layer", "head"), getattr(channel, end), (noise.layers, noise.heads), strict=True
            ):
                checks.index(f"{at}.{end}: {name}", value, size)
        if channel.reader[0] <= channel.writer[0]:
            raise CompanionError(
                f"{at}: reader {channel.reader} is not in a later layer than writer "
                f"{channel.writer}"
            )
        if channel.kind not in KINDS:
            raise CompanionError(f"{at}.kind is {channel.kind!r}: expected Q, K or V")
        if not 1 <= channel.rank <= min(MAX_RANK, noise.d_head):
            raise CompanionError(
                f"{at}.rank is {channel.rank}: expected 1 to {min(MAX_RANK, noise.d_head)}"
            )
        for name in ("strength", "written"):
            value = getattr(channel, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise CompanionError(f"{at}.{name} is {value}: expected a positive finite number")
        if ranks.setdefault(_name(index, channel), channel.rank) != channel.rank:
            raise CompanionError(
                f"{at}.rank is {channel.rank}: expected {ranks[_name(index, channel)]}, as of the "
                f"other channels of direction {channel.direction!r}"
            )


def _generator(seed: int, stream: int = 0) -> torch.Generator:
    """Random numbers of their own for each seed and use."""
    state = np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)
