r"""Continue a forward pass from where an intervention changes it, for many interventions at once.

A forward pass of a causal model is a table of layers by positions, and an intervention at layer l
and position p changes nothing in the layers below l or at the positions before p. So one clean run
keeps the residual stream, keys and values (`Trace`), and each intervention recomputes only what
lies above and to the right of it: the keys and values of earlier positions come from the clean
run, and in the last block only the position that is read out is carried through. Interventions
that begin at the same place go through the blocks as one batch.

Nothing is approximated: the logits are those of a full forward pass with the same change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from th_utils import transformer
from th_utils.changes import (
    at_read,
    check_answers,
    check_change,
    check_kind,
    check_reach,
    check_tokens,
    pick,
)
from th_utils.errors import CompanionError
from th_utils.transformer import Block, Transformer

Kind = Literal["Q", "K", "V"]
Readout = Callable[[Float[Tensor, "*case prompt d_model"]], Float[Tensor, "*case prompt"]]

MEMORY = 2**26  # bytes of activations in one batch; more only costs fresh pages


@dataclass(frozen=True)
class Past:
    """What `Replay.advance` needs of a clean run. Layer indices count blocks."""

    tokens: Int[Tensor, "prompt pos"]
    read: Int[Tensor, " prompt"]  # the position of each prompt that is read out
    keys: Float[Tensor, "layer prompt pos kv_head d_head"]  # turned, where the model turns them
    values: Float[Tensor, "layer prompt pos kv_head d_head"]
    final: Float[Tensor, "prompt d_model"]  # leaving the last block at `read`

    @property
    def n_positions(self) -> int:
        return self.tokens.shape[1]


@dataclass(frozen=True)
class Trace(Past):
    """All that a clean run leaves behind."""

    resid: Float[Tensor, "layer prompt pos d_model"]  # entering each block
    mid: Float[Tensor, "layer prompt pos d_model"]  # the same plus the block's attention output
    query: Float[Tensor, "layer prompt pos head d_head"]  # turned, where the model turns them
    z: Float[Tensor, "layer prompt pos head d_head"]  # weighted values, before W_O


class Attention(NamedTuple):
    """The attention of one block during a replay.

    The keys are those of all positions up to the window's end, in order. Where the window begins
    elsewhere in each prompt, the window's own keys stand behind those of the whole clean run.
    """

    query: Float[Tensor, "case prompt window head d_head"]
    keys: Float[Tensor, "case prompt key kv_head d_head"]
    values: Float[Tensor, "case prompt key kv_head d_head"]
    mask: Bool[Tensor, "*#broadcast window key"]  # True where a query may look
    z: Float[Tensor, "case prompt window head d_head"]

    def pattern(self, head: int) -> Float[Tensor, "case prompt window key"]:
        """Attention probabilities of one head."""
        group = self.query.shape[-2] // self.keys.shape[-2]
        query, keys = self.query[..., head, :], self.keys[..., head // group, :]
        scores = query @ keys.mT / query.shape[-1] ** 0.5
        mask = self.mask if self.mask.ndim == 2 else self.mask[:, :, 0]
        return scores.masked_fill(~mask, -torch.inf).softmax(-1)


Listener = Callable[[int, Attention], Tensor | None]


class Replay:
    """Interventions in a known model, each recomputing no more than it changes.

    `write`, `advance` and `read` are the three ways in: something added to what a block's
    attention writes, another residual stream entering a block, and another residual stream seen
    by one kind of input of its heads alone.
    """

    def __init__(self, model: Transformer) -> None:
        self.model = model

    @property
    def n_layers(self) -> int:
        return self.model.n_layers

    @property
    def n_heads(self) -> int:
        return self.model.n_heads

    def W_O(self, layer: int) -> Float[Tensor, "head d_head d_model"]:
        return self.model.blocks[layer].W_O

    def logits(self, final: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_vocab"]:
        """Logits of what leaves the last block."""
        logits = self.model.final_norm(final) @ self.model.W_U
        return logits if self.model.b_U is None else logits + self.model.b_U

    def logit_difference(
        self, right: Int[Tensor, " prompt"], wrong: Int[Tensor, " prompt"]
    ) -> Readout:
        """A readout: logit of token `right` minus logit of token `wrong`, in nats.

        >>> engine = Replay(transformer.random_transformer())
        >>> readout = engine.logit_difference(torch.tensor([1, 2]), torch.tensor([3, 4]))
        >>> readout(engine.trace(torch.arange(12).view(2, 6)).final).shape
        torch.Size([2])
        """
        check_answers(right, wrong, self.model.W_U.shape[1])
        direction = (self.model.W_U[:, right] - self.model.W_U[:, wrong]).T
        constant = 0.0 if self.model.b_U is None else self.model.b_U[right] - self.model.b_U[wrong]

        def readout(final: Float[Tensor, "*case prompt d_model"]) -> Float[Tensor, "*case prompt"]:
            return (self.model.final_norm(final) * direction).sum(-1) + constant

        return readout

    def trace(
        self, tokens: Int[Tensor, "prompt pos"], *, read: Int[Tensor, " read"] | None = None
    ) -> Trace:
        """Run prompts and keep what replay needs.

        Args:
            tokens: prompts of equal length, or padded on the right.
            read: the position of each prompt whose output is wanted; the last one when None.

        >>> engine = Replay(transformer.random_transformer())
        >>> engine.trace(torch.arange(12).view(2, 6)).resid.shape  # 2 layers, 2 prompts
        torch.Size([2, 2, 6, 16])
        """
        check_tokens(tokens, read, self.model.W_E.shape[0], self.model.W_pos)
        if read is None:
            read = torch.full_like(tokens[:, 0], tokens.shape[1] - 1)
        x, kept = transformer.embed(self.model, tokens), []
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        for block in self.model.blocks:
            normed = block.norm_1(x)
            q, k, v = (self._heads(block, name, normed, positions) for name in "QKV")
            z = _attend(q, k, v, causal_mask(tokens.shape[1], tokens.shape[1], x.device))
            mid = x + transformer.write_out(block, z)
            kept.append((x, mid, q, k, v, z))
            x = mid + transformer.mlp(self.model, block, x if self.model.parallel else mid)
        rows = torch.arange(len(tokens), device=tokens.device)
        names = ("resid", "mid", "query", "keys", "values", "z")
        stacked = map(torch.stack, zip(*kept, strict=True))
        kept = dict(zip(names, stacked, strict=True))
        return Trace(tokens=tokens, read=read, final=x[rows, read], **kept)

    def write(
        self,
        base: Trace,
        layer: int,
        delta: Float[Tensor, "case prompt changed d_model"],
        first: int = 0,
        *,
        check: bool = True,
    ) -> Float[Tensor, "case prompt d_model"]:
        """What leaves the last block when something is added to a block's attention output.

        Args:
            base: the clean run.
            layer: the block.
            delta: what is added, at `changed` consecutive positions beginning at `first`.
            first: the first of these.
            check: refuse values that are not finite, which waits for the device once.

        Returns:
            The residual stream at `base.read`.

        >>> engine = Replay(transformer.random_transformer())
        >>> base = engine.trace(torch.arange(12).view(2, 6))
        >>> nothing = torch.zeros(3, 2, 1, 16)  # three interventions on two prompts
        >>> engine.write(base, 0, nothing, first=4).shape
        torch.Size([3, 2, 16])
        >>> torch.allclose(engine.write(base, 0, nothing, first=4), base.final, atol=1e-5)
        True
        """
        check_change(self.n_layers, base, layer, delta, first, values=check)
        block, changed = self.model.blocks[layer], slice(first, first + delta.shape[2])
        if layer == self.n_layers - 1:  # only what changes at the position read can be seen
            delta, seen = at_read(base, delta, first)
            out = self._after_attention(
                block, pick(base.resid[layer], base.read), pick(base.mid[layer], base.read), delta
            )
            return torch.where(seen[:, None], out, base.final)
        out = self._after_attention(
            block, base.resid[layer][:, changed], base.mid[layer][:, changed], delta
        )
        rest = base.resid[layer + 1][:, changed.stop :]
        out = torch.cat([out, rest.expand(len(delta), *rest.shape)], dim=2)
        return self.advance(base, layer + 1, out, first, check=False)

    def _after_attention(
        self, block: Block, x: Tensor, mid: Tensor, delta: Tensor
    ) -> Float[Tensor, "case prompt *pos d_model"]:
        """What leaves a block whose attention output is changed."""
        mid = mid + delta
        return mid + transformer.mlp(self.model, block, x if self.model.parallel else mid)

    def advance(
        self,
        base: Past,
        layer: int,
        resid: Float[Tensor, "case prompt window d_model"],
        first: int | Int[Tensor, " first"],
        *,
        listener: Listener | None = None,
        check: bool = True,
    ) -> Float[Tensor, "case prompt d_model"]:
        """What leaves the last block when another residual stream enters block `layer`.

        Args:
            base: the clean run, whose keys and values serve at the positions before `first`.
            layer: the block that `resid` enters; the number of layers for none.
            resid: the residual stream at consecutive positions, up to the last one.
            first: the first of these, which is the first that differs from the clean run; or one
                for each prompt, and then `resid` need reach no further than `base.read`.
            listener: called with every block and its attention; what it returns, unless None, is
                added to what that attention writes.
            check: refuse values that are not finite, which waits for the device once.

        Returns:
            The residual stream at `base.read`.

        >>> engine = Replay(transformer.random_transformer())
        >>> base = engine.trace(torch.arange(12).view(2, 6))
        >>> same = base.resid[1][None, :, 2:]  # one case: what enters block 1 from position 2 on
        >>> torch.allclose(engine.advance(base, 1, same, 2), base.final, atol=1e-5)
        True
        """
        at_most = min(layer, self.n_layers - 1)
        check_change(self.n_layers, base, at_most, resid, first, values=check)
        check_reach(base, resid, first, values=check)
        if layer == self.n_layers:
            out, seen = at_read(base, resid, first)
            return torch.where(seen[:, None], out, base.final)
        x = resid
        past = slice(first) if isinstance(first, int) else slice(None)
        positions, key_positions = _positions(base, first, resid.shape[2])
        mask = key_positions[..., None, :] <= positions[..., :, None]
        for at in range(layer, self.n_layers):
            block = self.model.blocks[at]
            normed = block.norm_1(x)
            k = _joined(base.keys[at][:, past], self._heads(block, "K", normed, positions))
            v = _joined(base.values[at][:, past], self._heads(block, "V", normed, positions))
            if at == self.n_layers - 1:
                # the other positions of the last block are never read: their keys and values are
                x, seen = at_read(base, x, first)
                normed, _ = at_read(base, normed, first)
                x, normed, positions = x[:, :, None], normed[:, :, None], base.read[:, None]
                mask = (key_positions <= positions)[:, None]
            q = self._heads(block, "Q", normed, positions)
            allowed = mask if mask.ndim == 2 else mask[None, :, None]  # case, prompt, head, ...
            z = _attend(q, k, v, allowed)
            mid = x + transformer.write_out(block, z)
            added = listener and listener(at, Attention(q, k, v, allowed, z))
            mid = mid if added is None else mid + added
            del normed, q, k, v, z  # not needed while the MLP, which takes most memory, runs
            x = mid + transformer.mlp(self.model, block, x if self.model.parallel else mid)
        return torch.where(seen[:, None], x[:, :, 0], base.final)

    def read(
        self,
        base: Trace,
        layer: int,
        kind: Kind,
        delta: Float[Tensor, "case prompt window d_model"],
        first: int = 0,
        *,
        check: bool = True,
    ) -> Float[Tensor, "case prompt window head d_head"]:
        """Weighted values of each head when its own queries, keys or values see another residual.

        Every query head reads by itself: where heads share keys and values, each is given a copy
        of its own of what changes.

        Args:
            base: the clean run.
            layer: the block of the readers.
            kind: which of their inputs sees the change.
            delta: what is added to the residual stream in front of that input, from `first` to the
                last position.
            first: the first position that differs from the clean run.
            check: refuse values that are not finite, which waits for the device once.

        Returns:
            z at the positions from `first` on; at earlier ones nothing can change.

        >>> engine = Replay(transformer.random_transformer())
        >>> base = engine.trace(torch.arange(12).view(2, 6))
        >>> z = engine.read(base, 1, "K", torch.zeros(1, 2, 4, 16), first=2)
        >>> torch.allclose(z[0], base.z[1][:, 2:], atol=1e-5)
        True
        """
        check_kind(kind)
        check_change(self.n_layers, base, layer, delta, first, values=check)
        check_reach(base, delta, first, values=check)
        block, window = self.model.blocks[layer], slice(first, None)
        positions, keys = _positions(base, first, delta.shape[2])
        normed = block.norm_1(base.resid[layer][:, window] + delta)
        moved = self._heads(block, kind, normed, positions)
        past = {"K": base.keys[layer], "V": base.values[layer]}
        parts = {name: part.expand(len(delta), *part.shape) for name, part in past.items()}
        query = base.query[layer][:, window].expand(len(delta), *base.query[layer][:, window].shape)
        if kind == "Q":
            query = moved
        else:
            parts[kind] = _joined(past[kind][:, :first], moved)
        return _attend(query, parts["K"], parts["V"], keys <= positions[:, None])

    def _heads(
        self, block: Block, name: str, normed: Tensor, positions: Tensor
    ) -> Float[Tensor, "*batch pos head d_head"]:
        x = transformer.project(normed, getattr(block, f"W_{name}"), getattr(block, f"b_{name}"))
        return x if name == "V" else transformer.rotated(self.model, x, positions)

    def chunks(self, base: Past, cases: int, window: int, memory: int) -> Iterator[slice]:
        """Split interventions so that the activations of one batch fit into `memory` bytes."""
        model = self.model
        wide = (3 if model.blocks[0].W_gate is not None else 2) * model.d_mlp
        attention = 3 * model.n_heads * (model.d_head + base.n_positions)
        joined = 4 * base.n_positions * model.n_kv_heads * model.d_head  # keys, values, twice
        each = len(base.tokens) * (window * (wide + 8 * model.d_model + attention) + joined)
        each *= base.keys.element_size()
        if memory < each:
            raise CompanionError(
                f"memory = {memory} bytes is too little: one intervention on {len(base.tokens)} "
                f"prompts needs {each}"
            )
        size = memory // each
        yield from (slice(start, min(start + size, cases)) for start in range(0, cases, size))


def causal_mask(queries: int, keys: int, device: Any) -> Tensor:
    """True where one of the last `queries` positions may look, of `keys` in all."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


def _positions(
    base: Past, first: int | Tensor, window: int
) -> tuple[Int[Tensor, "*prompt window"], Int[Tensor, "*prompt key"]]:
    """Positions of a window, and of the keys before and in it.

    Where the window begins elsewhere in each prompt, all keys of the clean run stand before it,
    and those that the window replaces are moved behind everything, where nothing looks at them.
    """
    device = base.tokens.device
    if isinstance(first, int):
        keys = torch.arange(first + window, device=device)
        return keys[first:], keys
    positions = first[:, None] + torch.arange(window, device=device)
    before = torch.arange(base.n_positions, device=device)
    before = torch.where(before < first[:, None], before, torch.iinfo(before.dtype).max)
    return positions, torch.cat([before, positions], dim=1)


def _joined(past: Tensor, new: Tensor) -> Tensor:
    """Keys or values of the clean run in front of those of each case."""
    if past.shape[1] == 0:
        return new
    return torch.cat([past.expand(len(new), *past.shape), new], dim=2)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Weighted values; the leading axes (case, prompt) are flattened for the fused kernel."""
    lead, group = q.shape[:-3], q.shape[-2] // k.shape[-2]
    q, k, v = (x.flatten(0, -4).transpose(1, 2) for x in (q, k, v))
    if mask.ndim > 2:  # (case, prompt, head, query, key), broadcast over cases
        mask = mask.expand(*lead, *mask.shape[-3:]).flatten(0, -4)
    z = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=group > 1)
    return z.transpose(1, 2).unflatten(0, lead)
