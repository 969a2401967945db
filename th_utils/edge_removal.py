r"""One component's write, removed from one later head's query, key or value, for all pairs at once.

A component writes :math:`c\,v` at a position (:math:`c = o \cdot v`, o the output of its head).
Take that away from what one later head sees there, in front of its query, its key or its value
alone, normalise anew, and leave everything else as it was. What the norm hands to the head is then

.. math::

    n' = \frac{x - c v}{\sigma'}, \qquad
    \sigma'^2 = \frac{|x|^2 - 2 c\, x \cdot v + c^2 |v|^2}{d} + \epsilon, \qquad
    n' - n = \rho\, n - \gamma\, v,

with :math:`\rho = \sigma / \sigma' - 1` and :math:`\gamma = c / \sigma'`; LayerNorm takes the means
of x and v away first. So :math:`v W` is needed once for all components and readers of a layer, and
each intervention is two numbers: no forward pass is run. Nothing is approximated; float32 leaves
patterns right to 1e-7. With softmax weights A and changes :math:`\delta_j` of its scores the new
pattern is :math:`A_j e^{\delta_j} / \sum_i A_i e^{\delta_i}`; a key changes one score only, a value
none.

Two effects are returned, each averaged over prompts. *Pattern*: the total variation between the old
and the new attention of the row that is read, :math:`\frac12 \sum_j |A'_j - A_j|`. *Output*: the
length of the change of the head's output :math:`z W_O` there, over the mean length of that output.
(Both choices are ours: *reconstruction*.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from th_utils import checks, transformer
from th_utils.errors import CompanionError
from th_utils.pairs import Pairs
from th_utils.progress import track
from th_utils.replay import Replay
from th_utils.transformer import Transformer

MEMORY = 2**21  # bytes of one block of patterns: what stays in the cache is fastest
BATCH = 16  # prompts to a forward pass
# A change of a score beyond this would leave the range of float32 as an exponential; it counts as
# this much.
_LARGEST = 80.0


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


class Effects(NamedTuple):
    """Effects of all pairs of one kind at one site, in the order of `Pairs`."""

    pattern: Float[Tensor, " pair"] | None  # total variation; None for values, which have none
    output: Float[Tensor, " pair"] | None  # relative change; None where it was not asked for
    units: Float[Tensor, "unit pair"] | None  # the effect of first interest by unit, in bfloat16


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


@torch.no_grad()
def removal_effects(
    model: Transformer,
    directions: Float[Tensor, "layer head component d_model"],
    kind: str,  # Q, K or V
    at: Sequence[Site],
    *,
    output: bool | Sequence[bool] = True,
    units: Sequence[int | None] | None = None,
    memory: int = MEMORY,
) -> list[Effects]:
    """Effects of removing every component from every later head's query, key or value.

    Args:
        model: the tensors of a model (`th_utils.engine.from_bridge`).
        directions: what each component writes along (`composition.write_directions`), which says
            what is removed; zeros remove nothing.
        kind: which input of the reader does not see the component any more.
        at: where; all of them share the products that depend on weights alone.
        output: also the change of the reader's output, for queries at twice the time; one answer,
            or one for each site. Of values it is the only effect there is.
        units: for each site the number of consecutive prompts that are one independent draw, or
            None; the effect of first interest (the pattern for queries and keys, the output for
            values) is then also returned draw by draw.
        memory: bytes of one block of work.

    Returns:
        One `Effects` for each site.

    Raises:
        CompanionError: an unknown kind, or directions, sites or units that do not fit.
    """
    if kind not in ("Q", "K", "V"):
        raise CompanionError(f"kind {kind!r} is unknown: Q, K or V")
    shape = (model.n_layers, model.n_heads, None, model.d_model)
    checks.shape("directions", directions, shape, "layer, head, component, d_model of the model")
    outputs = [output] * len(at) if isinstance(output, bool) else list(output)
    together = [None] * len(at) if units is None else list(units)
    for site, unit, _ in zip(at, together, outputs, strict=True):
        if unit is not None and (unit < 1 or len(site) % unit):
            raise CompanionError(f"{len(site)} prompts are not units of {unit}")
    layers, heads, rank = directions.shape[:3]
    pairs, norm = Pairs(layers, heads, rank), model.blocks[0].norm_1
    centred = directions if norm.rms else directions - directions.mean(-1, keepdim=True)
    wide, written = centred.flatten(0, 2), [coefficients(model, directions, site) for site in at]
    found = [
        _Table(kind, wide, len(pairs), len(site), also or kind == "V", unit)
        for site, also, unit in zip(at, outputs, together, strict=True)
    ]
    for layer in track(range(1, layers), f"{kind} removals by layer"):
        writers = _Writers.of(model, layer, kind, wide[: pairs.writers(layer)])
        for site, c, table in zip(at, written, found, strict=True):
            change = _change(model, layer, site, c[:, : len(writers.v)], writers)
            reader = _Reader.of(model, layer, site)
            for head in range(heads):
                of = (model, layer, site, reader, head, change, writers, table.output is not None)
                result = {"Q": _query, "K": _key, "V": _value}[kind](*of, memory)
                start = pairs.start(layer, head)
                table.store(slice(start, start + len(writers.v)), *result)
    return [Effects(table.pattern, table.output, table.units) for table in found]


class _Table:
    """Effects at one site, filled block by block."""

    def __init__(
        self, kind: str, like: Tensor, pairs: int, prompts: int, output: bool, unit: int | None
    ) -> None:
        self.unit, self.by_output = unit, kind == "V"
        self.pattern = None if kind == "V" else like.new_empty(pairs)
        self.output = like.new_empty(pairs) if output else None
        self.units = None
        if unit is not None:
            # its range is that of float32, and three digits are enough to resample
            self.units = like.new_empty(prompts // unit, pairs, dtype=torch.bfloat16)

    def store(
        self,
        where: slice,
        pattern: Float[Tensor, "prompt writer"] | None,
        output: Float[Tensor, "prompt writer"] | None,
    ) -> None:
        if pattern is not None:
            self.pattern[where] = pattern.mean(0)
        if output is not None:
            self.output[where] = output.mean(0)
        if self.units is not None:
            each = (output if self.by_output else pattern).unflatten(0, (-1, self.unit))
            self.units[:, where] = each.mean(1).bfloat16()


class _Change(NamedTuple):
    """What the norm hands on after each removal: ``n' - n = rho n - gamma v``."""

    rho: Float[Tensor, "prompt writer"]
    gamma: Float[Tensor, "prompt writer"]
    normed: Float[Tensor, "prompt d_model"]  # n, before gain and bias


class _Writers(NamedTuple):
    """All components before a layer, and what their directions are to its heads."""

    v: Float[Tensor, "writer d_model"]  # centred where the norm centres
    square: Float[Tensor, " writer"]
    seen: Float[Tensor, "writer kv_head d_head"]  # v W, gain folded in
    length: Float[Tensor, "writer head"] | None  # of v W_V W_O

    @classmethod
    def of(cls, model: Transformer, layer: int, kind: str, v: Tensor) -> _Writers:
        seen, length = transformer.project(v, _weights(model, layer, kind), None), None
        if kind == "V":
            W_O, each = model.blocks[layer].W_O, []
            for head in range(model.n_heads):
                own = seen[:, head // model.group]
                each.append(((own @ (W_O[head] @ W_O[head].mT)) * own).sum(-1))
            length = torch.stack(each, -1)
        return cls(v, (v * v).sum(-1), seen, length)


class _Reader(NamedTuple):
    """The clean attention of a layer at the row that is read."""

    pattern: Float[Tensor, "prompt head pos"]
    z: Float[Tensor, "prompt head d_head"]
    gram: Float[Tensor, "head d_head d_head"]  # W_O W_O^T: lengths of outputs from those of z
    length: Float[Tensor, " head"]  # mean length of the head's output

    @classmethod
    def of(cls, model: Transformer, layer: int, site: Site) -> _Reader:
        W_O = model.blocks[layer].W_O
        keys = site.keys[layer].repeat_interleave(model.group, dim=2)
        values = site.values[layer].repeat_interleave(model.group, dim=2)
        scores = torch.einsum("nhe,nphe->nhp", site.query[layer], keys) / math.sqrt(model.d_head)
        future = torch.arange(keys.shape[1], device=keys.device) > site.row[:, None]
        pattern = scores.masked_fill(future[:, None], -math.inf).softmax(-1)
        z = torch.einsum("nhp,nphe->nhe", pattern, values)
        gram = W_O @ W_O.mT
        length = torch.einsum("nhe,hef,nhf->nh", z, gram, z).clamp_min(0).sqrt().mean(0)
        return cls(pattern, z, gram, length.clamp_min(torch.finfo(z.dtype).tiny))


def coefficients(
    model: Transformer, directions: Float[Tensor, "layer head component d_model"], site: Site
) -> Float[Tensor, "prompt writer"]:
    """How strongly each component writes at the site: ``c = z W_O . v``."""
    parts = []
    for layer, block in enumerate(model.blocks):
        into = block.W_O @ directions[layer].mT
        parts.append(torch.einsum("nhe,hek->nhk", site.written[layer], into).flatten(1))
    return torch.cat(parts, 1)


def _change(
    model: Transformer,
    layer: int,
    site: Site,
    c: Float[Tensor, "prompt writer"],
    writers: _Writers,
) -> _Change:
    norm, x = model.blocks[layer].norm_1, site.resid[layer]
    x = x if norm.rms else x - x.mean(-1, keepdim=True)
    square = (x * x).mean(-1, keepdim=True) + norm.eps
    # relative to the old square, and by log1p and expm1: most changes are tiny
    grown = c * (writers.square * c - 2 * (x @ writers.v.mT)) / (model.d_model * square)
    rho = torch.expm1(-0.5 * torch.log1p(torch.maximum(grown, norm.eps / square - 1)))
    scale = square.sqrt()
    return _Change(rho, c * (1 + rho) / scale, x / scale)


def _weights(model: Transformer, layer: int, kind: str) -> Float[Tensor, "head d_model d_head"]:
    block = model.blocks[layer]
    W = {"Q": block.W_Q, "K": block.W_K, "V": block.W_V}[kind]
    return W if block.norm_1.gain is None else block.norm_1.gain[:, None] * W


def _blocks(count: int, wide: int, like: Tensor, memory: int) -> list[slice]:
    """The components in runs whose patterns fit into some memory."""
    size = max(1, memory // (wide * like.element_size()))
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _turned_back(model: Transformer, x: Tensor, positions: Tensor) -> Tensor:
    """Queries or keys with the turn of some positions undone."""
    return transformer.rotated(model, x, -positions)


def _query(
    model: Transformer,
    layer: int,
    site: Site,
    reader: _Reader,
    head: int,
    change: _Change,
    writers: _Writers,
    output: bool,
    memory: int,
) -> tuple[Tensor, Tensor | None]:
    """Effects through the query: all scores of the row change."""
    kv_head = head // model.group
    keys, seen = site.keys[layer, :, :, kv_head], writers.seen[:, head]
    prompts, positions = keys.shape[:2]
    turned = site.row[:, None].expand(prompts, positions)
    back = _turned_back(model, keys[:, :, None], turned)[:, :, 0] / math.sqrt(model.d_head)
    future = torch.arange(positions, device=keys.device) > site.row[:, None]
    A = reader.pattern[:, head, :, None]
    # A softmax does not see what is added to all scores. Without their mean over the pattern the
    # new sum is at least 1 (Jensen), and nothing is divided by a small number.
    back = (back - (A * back).sum(1, keepdim=True)).masked_fill(future[..., None], 0.0)
    line = back @ (change.normed @ _weights(model, layer, "Q")[head])[..., None]
    flat = back.flatten(0, 1)
    if output:
        values = site.values[layer, :, :, kv_head] - reader.z[:, None, head]
        gram = values @ reader.gram[head] @ values.mT / reader.length[head] ** 2
    patterns, outputs = torch.empty_like(change.rho), torch.empty_like(change.rho)
    for part in _blocks(len(seen), prompts * positions, seen, memory):
        w = (flat @ seen[part].mT).view(prompts, positions, -1)
        w.mul_(-change.gamma[:, None, part]).addcmul_(line, change.rho[:, None, part])
        w.clamp_(max=_LARGEST).exp_().mul_(A)
        total = w.sum(1)
        w.addcmul_(A, total[:, None], value=-1)  # A' - A, times the new sum
        if output:
            outputs[:, part] = ((gram @ w) * w).sum(1).clamp_min_(0).sqrt_() / total
        patterns[:, part] = w.abs_().sum(1).div_(total).mul_(0.5)
    return patterns, outputs if output else None


def _key(
    model: Transformer,
    layer: int,
    site: Site,
    reader: _Reader,
    head: int,
    change: _Change,
    writers: _Writers,
    output: bool,
    memory: int,
) -> tuple[Tensor, Tensor | None]:
    """Effects through the key at the site: one score of the row changes."""
    kv_head, rows = head // model.group, torch.arange(len(site), device=site.at.device)
    query = site.query[layer, :, None, head][:, :, None]
    back = _turned_back(model, query, site.at[:, None])[:, 0, 0] / math.sqrt(model.d_head)
    own = change.normed @ _weights(model, layer, "K")[kv_head]
    delta = (back * own).sum(-1, keepdim=True) * change.rho
    delta.addcmul_(back @ writers.seen[:, kv_head].mT, change.gamma, value=-1)
    a = reader.pattern[rows, head, site.at][:, None]
    grown = delta.clamp_(max=_LARGEST).expm1_()
    # A'_j = A_j (1 - share) at all other positions
    share = a * grown / (grown * a + 1).clamp_min_(torch.finfo(grown.dtype).tiny)
    moved = None
    if output:
        aside = site.values[layer, rows, site.at, kv_head] - reader.z[:, head]
        length = torch.einsum("ne,ef,nf->n", aside, reader.gram[head], aside).clamp_min(0).sqrt()
        moved = share.abs() * (length / reader.length[head])[:, None]
    return share.mul_(1 - a).abs_(), moved


def _value(
    model: Transformer,
    layer: int,
    site: Site,
    reader: _Reader,
    head: int,
    change: _Change,
    writers: _Writers,
    output: bool,
    memory: int,
) -> tuple[None, Tensor]:
    """Effects through the value at the site: the pattern stays."""
    kv_head, rows = head // model.group, torch.arange(len(site), device=site.at.device)
    own = change.normed @ _weights(model, layer, "V")[kv_head]
    across = own @ reader.gram[head]
    line = (across * own).sum(-1, keepdim=True) * change.rho
    line.addcmul_(across @ writers.seen[:, kv_head].mT, change.gamma, value=-2).mul_(change.rho)
    squares = line.addcmul_(change.gamma.square(), writers.length[:, head])
    a = reader.pattern[rows, head, site.at][:, None]
    return None, squares.clamp_min_(0).sqrt_().mul_(a / reader.length[head])
