r"""What a layer's heads do without one component's write in their query, key or value: closed form.

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

Two effects are returned. *Pattern*: the total variation between the old and the new attention of
the row that is read, :math:`\frac12 \sum_j |A'_j - A_j|`. *Output*: the length of the change of the
head's output :math:`z W_O` there, over the mean length of that output. (Both choices are ours:
*reconstruction*.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from th_utils import transformer
from th_utils.edge_sites import Site
from th_utils.transformer import Transformer

MEMORY = 2**21  # bytes of one block of patterns: what stays in the cache is fastest
# A change of a score beyond this would leave the range of float32 as an exponential; it counts as
# this much.
_LARGEST = 80.0

Found = tuple[Float[Tensor, "prompt writer"] | None, Float[Tensor, "prompt writer"] | None]


class Writers(NamedTuple):
    """All components before a layer, and what their directions are to its heads."""

    v: Float[Tensor, "writer d_model"]  # centred where the norm centres
    square: Float[Tensor, " writer"]
    seen: Float[Tensor, "writer kv_head d_head"]  # v W, gain folded in
    length: Float[Tensor, "writer head"] | None  # of v W_V W_O

    @classmethod
    def of(cls, model: Transformer, layer: int, kind: str, v: Tensor) -> Writers:
        seen, length = transformer.project(v, _weights(model, layer, kind), None), None
        if kind == "V":
            W_O, each = model.blocks[layer].W_O, []
            for head in range(model.n_heads):
                own = seen[:, head // model.group]
                each.append(((own @ (W_O[head] @ W_O[head].mT)) * own).sum(-1))
            length = torch.stack(each, -1)
        return cls(v, (v * v).sum(-1), seen, length)


@dataclass(frozen=True)
class Readers:
    """The heads of a layer at one site: what they do in the clean run, and what changes.

    After a removal the norm hands on ``n' - n = rho n - gamma v``.
    """

    model: Transformer
    layer: int
    site: Site
    writers: Writers
    rho: Float[Tensor, "prompt writer"]
    gamma: Float[Tensor, "prompt writer"]
    normed: Float[Tensor, "prompt d_model"]  # n, before gain and bias
    pattern: Float[Tensor, "prompt head pos"]  # clean, of the row that is read
    z: Float[Tensor, "prompt head d_head"]
    gram: Float[Tensor, "head d_head d_head"]  # W_O W_O^T: lengths of outputs from those of z
    length: Float[Tensor, " head"]  # mean length of the head's output

    @classmethod
    def of(
        cls,
        model: Transformer,
        layer: int,
        site: Site,
        writers: Writers,
        c: Float[Tensor, "prompt writer"],
    ) -> Readers:
        """The readers of a layer, when components write `c` along the directions of `writers`."""
        change = _change(model, layer, site, writers, c)
        W_O = model.blocks[layer].W_O
        keys = site.keys[layer].repeat_interleave(model.group, dim=2)
        values = site.values[layer].repeat_interleave(model.group, dim=2)
        scores = torch.einsum("nhe,nphe->nhp", site.query[layer], keys) / math.sqrt(model.d_head)
        pattern = scores.masked_fill(_future(site)[:, None], -math.inf).softmax(-1)
        z = torch.einsum("nhp,nphe->nhe", pattern, values)
        gram = W_O @ W_O.mT
        length = torch.einsum("nhe,hef,nhf->nh", z, gram, z).clamp_min(0).sqrt().mean(0)
        length = length.clamp_min(torch.finfo(z.dtype).tiny)
        return cls(model, layer, site, writers, *change, pattern, z, gram, length)

    def effects(self, kind: str, head: int, *, output: bool, memory: int) -> Found:
        """Effects of all removals from one head's query, key or value: pattern, and output."""
        if kind == "Q":
            return self._query(head, output, memory)
        return self._key(head, output) if kind == "K" else (None, self._value(head))

    def _query(self, head: int, output: bool, memory: int) -> Found:
        """All scores of the row change."""
        site, kv_head = self.site, head // self.model.group
        keys, seen = site.keys[self.layer, :, :, kv_head], self.writers.seen[:, head]
        prompts, positions = keys.shape[:2]
        turned = site.row[:, None].expand(prompts, positions)
        back = self._turned_back(keys[:, :, None], turned)[:, :, 0]
        A = self.pattern[:, head, :, None]
        # A softmax does not see what is added to all scores. Without their mean over the pattern
        # the new sum is at least 1 (Jensen), and nothing is divided by a small number.
        back = (back - (A * back).sum(1, keepdim=True)).masked_fill(_future(site)[..., None], 0.0)
        line = back @ self._seen("Q", head)[..., None]
        flat = back.flatten(0, 1)
        if output:
            values = site.values[self.layer, :, :, kv_head] - self.z[:, None, head]
            gram = values @ self.gram[head] @ values.mT / self.length[head] ** 2
        patterns, outputs = torch.empty_like(self.rho), torch.empty_like(self.rho)
        for part in _blocks(len(seen), prompts * positions, seen, memory):
            w = (flat @ seen[part].mT).view(prompts, positions, -1)
            w.mul_(-self.gamma[:, None, part]).addcmul_(line, self.rho[:, None, part])
            w.clamp_(max=_LARGEST).exp_().mul_(A)
            total = w.sum(1)
            w.addcmul_(A, total[:, None], value=-1)  # A' - A, times the new sum
            if output:
                outputs[:, part] = ((gram @ w) * w).sum(1).clamp_min_(0).sqrt_() / total
            patterns[:, part] = w.abs_().sum(1).div_(total).mul_(0.5)
        return patterns, outputs if output else None

    def _key(self, head: int, output: bool) -> Found:
        """One score of the row changes, that of the site."""
        site, kv_head = self.site, head // self.model.group
        query = site.query[self.layer, :, None, head][:, :, None]
        back = self._turned_back(query, site.at[:, None])[:, 0, 0]
        delta = (back * self._seen("K", kv_head)).sum(-1, keepdim=True) * self.rho
        delta.addcmul_(back @ self.writers.seen[:, kv_head].mT, self.gamma, value=-1)
        a = self._at(self.pattern[:, head])
        grown = delta.clamp_(max=_LARGEST).expm1_()
        # A'_j = A_j (1 - share) at all other positions
        share = a * grown / (grown * a + 1).clamp_min_(torch.finfo(grown.dtype).tiny)
        moved = None
        if output:
            rows = torch.arange(len(site), device=site.at.device)
            aside = site.values[self.layer, rows, site.at, kv_head] - self.z[:, head]
            length = torch.einsum("ne,ef,nf->n", aside, self.gram[head], aside).clamp_min(0).sqrt()
            moved = share.abs() * (length / self.length[head])[:, None]
        return share.mul_(1 - a).abs_(), moved

    def _value(self, head: int) -> Float[Tensor, "prompt writer"]:
        """The pattern stays; the output changes by what the site's value does."""
        kv_head = head // self.model.group
        own = self._seen("V", kv_head)
        across = own @ self.gram[head]
        line = (across * own).sum(-1, keepdim=True) * self.rho
        line.addcmul_(across @ self.writers.seen[:, kv_head].mT, self.gamma, value=-2)
        squares = line.mul_(self.rho).addcmul_(self.gamma.square(), self.writers.length[:, head])
        a = self._at(self.pattern[:, head])
        return squares.clamp_min_(0).sqrt_().mul_(a / self.length[head])

    def _seen(self, kind: str, head: int) -> Float[Tensor, "prompt d_head"]:
        """What the clean norm gives to a query, key or value, bias excepted."""
        return self.normed @ _weights(self.model, self.layer, kind)[head]

    def _at(self, row: Float[Tensor, "prompt pos"]) -> Float[Tensor, "prompt 1"]:
        """Of a row, the entry at the site."""
        return row.gather(1, self.site.at[:, None])

    def _turned_back(self, x: Tensor, positions: Tensor) -> Tensor:
        """Queries or keys with the turn of some positions undone, scaled as scores are."""
        return transformer.rotated(self.model, x, -positions) / math.sqrt(self.model.d_head)


def _change(
    model: Transformer,
    layer: int,
    site: Site,
    writers: Writers,
    c: Float[Tensor, "prompt writer"],
) -> tuple[Tensor, Tensor, Tensor]:
    """Rho, gamma and n of a norm's answer to every removal, see `Readers`."""
    norm, x = model.blocks[layer].norm_1, site.resid[layer]
    x = x if norm.rms else x - x.mean(-1, keepdim=True)
    square = (x * x).mean(-1, keepdim=True) + norm.eps
    # relative to the old square, and by log1p and expm1: most changes are tiny
    grown = c * (writers.square * c - 2 * (x @ writers.v.mT)) / (model.d_model * square)
    rho = torch.expm1(-0.5 * torch.log1p(torch.maximum(grown, norm.eps / square - 1)))
    scale = square.sqrt()
    return rho, c * (1 + rho) / scale, x / scale


def _future(site: Site) -> Tensor:
    """Which positions come after the row that is read."""
    positions = torch.arange(site.keys.shape[2], device=site.row.device)
    return positions > site.row[:, None]


def _weights(model: Transformer, layer: int, kind: str) -> Float[Tensor, "head d_model d_head"]:
    block = model.blocks[layer]
    W = {"Q": block.W_Q, "K": block.W_K, "V": block.W_V}[kind]
    return W if block.norm_1.gain is None else block.norm_1.gain[:, None] * W


def _blocks(count: int, wide: int, like: Tensor, memory: int) -> list[slice]:
    """The components in runs whose patterns fit into some memory."""
    size = max(1, memory // (wide * like.element_size()))
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
