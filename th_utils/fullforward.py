"""The same interventions as `th_utils.replay`, each by a forward pass of the whole model.

For models that replay does not know. It needs nothing of a model but the hooks that TransformerLens
gives every one, and it is what the tests hold replay against.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from th_utils.changes import (
    check_answers,
    check_change,
    check_kind,
    check_reach,
    check_tokens,
    pick,
)
from th_utils.errors import CompanionError
from th_utils.replay import Kind, Readout


@dataclass(frozen=True)
class FullTrace:
    """What the clean run of an unknown model leaves behind; compare `th_utils.replay.Trace`.

    Between the last block and the logits an unknown model may do anything, so `final` is what
    comes out of it.
    """

    tokens: Int[Tensor, "prompt pos"]
    read: Int[Tensor, " prompt"]
    resid: Float[Tensor, "layer prompt pos d_model"]
    z: Float[Tensor, "layer prompt pos head d_head"]
    final: Float[Tensor, "prompt d_vocab"]  # logits at `read`

    @property
    def n_positions(self) -> int:
        return self.tokens.shape[1]


class FullForward:
    """Interventions by hooks on a `TransformerBridge`; methods as in `th_utils.replay.Replay`.

    What they return are logits, for the readouts made here.
    """

    def __init__(self, bridge: Any) -> None:
        self.bridge = bridge

    @property
    def n_layers(self) -> int:
        return self.bridge.cfg.n_layers

    @property
    def n_heads(self) -> int:
        return self.bridge.cfg.n_heads

    def W_O(self, layer: int) -> Float[Tensor, "head d_head d_model"]:
        return self.bridge.blocks[layer].attn.W_O.detach()

    def logits(self, final: Float[Tensor, "*batch d_vocab"]) -> Float[Tensor, "*batch d_vocab"]:
        """What the model gave, as it is."""
        return final

    def logit_difference(
        self, right: Int[Tensor, " prompt"], wrong: Int[Tensor, " prompt"]
    ) -> Readout:
        """A readout: logit of token `right` minus logit of token `wrong`, in nats."""
        check_answers(right, wrong, self.bridge.cfg.d_vocab)

        def readout(final: Float[Tensor, "*case prompt d_vocab"]) -> Float[Tensor, "*case prompt"]:
            at = [i.expand(final.shape[:-1])[..., None] for i in (right, wrong)]
            return (final.gather(-1, at[0]) - final.gather(-1, at[1]))[..., 0]

        return readout

    @torch.no_grad()
    def trace(
        self, tokens: Int[Tensor, "prompt pos"], *, read: Int[Tensor, " read"] | None = None
    ) -> FullTrace:
        """Run prompts and keep what the sweeps need."""
        check_tokens(tokens, read, self.bridge.cfg.d_vocab)
        if read is None:
            read = torch.full_like(tokens[:, 0], tokens.shape[1] - 1)
        layers = range(self.n_layers)
        hooks = [f"blocks.{layer}.{n}" for layer in layers for n in (_RESID, _Z)]
        logits, cache = self.bridge.run_with_cache(tokens, names_filter=hooks, return_type="logits")
        return FullTrace(
            tokens=tokens,
            read=read,
            resid=torch.stack([cache[f"blocks.{at}.{_RESID}"] for at in layers]),
            z=torch.stack([cache[f"blocks.{at}.{_Z}"] for at in layers]),
            final=pick(logits, read),
        )

    def write(
        self,
        base: FullTrace,
        layer: int,
        delta: Float[Tensor, "case prompt changed d_model"],
        first: int = 0,
        *,
        check: bool = True,
    ) -> Float[Tensor, "case prompt d_vocab"]:
        """The logits when something is added to a block's attention output."""
        check_change(self.n_layers, base, layer, delta, first, values=check)

        def add(x: Tensor, change: Tensor) -> Tensor:
            x = x.clone()
            x[:, first : first + change.shape[1]] += change
            return x

        name = f"blocks.{layer}.hook_attn_out"
        return torch.stack([self._final(base, name, add, change) for change in delta])

    def with_z(
        self,
        base: FullTrace,
        layer: int,
        head: int,
        change: Float[Tensor, "prompt changed d_head"],
        first: int,
    ) -> Float[Tensor, "prompt d_vocab"]:
        """The logits when something is added to one head's weighted values."""

        def add(z: Tensor, change: Tensor) -> Tensor:
            z = z.clone()
            z[:, first : first + change.shape[1], head] += change
            return z

        return self._final(base, f"blocks.{layer}.{_Z}", add, change)

    def advance(
        self,
        base: FullTrace,
        layer: int,
        resid: Float[Tensor, "case prompt window d_model"],
        first: int,
        *,
        check: bool = True,
    ) -> Float[Tensor, "case prompt d_vocab"]:
        """The logits when another residual stream enters block `layer`."""
        check_change(self.n_layers, base, layer, resid, first, values=check)

        def put(x: Tensor, change: Tensor) -> Tensor:
            x = x.clone()
            x[:, first : first + change.shape[1]] = change
            return x

        name = f"blocks.{layer}.{_RESID}"
        return torch.stack([self._final(base, name, put, change) for change in resid])

    @torch.no_grad()
    def read(
        self,
        base: FullTrace,
        layer: int,
        kind: Kind,
        delta: Float[Tensor, "case prompt window d_model"],
        first: int = 0,
        *,
        check: bool = True,
    ) -> Float[Tensor, "case prompt window head d_head"]:
        """Weighted values of each head when its own queries, keys or values see another residual.

        All heads of the layer see the change at once: none of them hears another of its layer.

        Raises:
            CompanionError: TransformerLens has no input of its own for `kind` in this model.
        """
        check_kind(kind)
        check_change(self.n_layers, base, layer, delta, first, values=check)
        check_reach(base, delta, first, values=check)
        bridge, name = self.bridge, f"blocks.{layer}.attn.hook_{kind.lower()}_input"
        before = bool(getattr(bridge.cfg, "use_split_qkv_input", False))
        bridge.set_use_split_qkv_input(True)
        try:
            out = []
            for change in delta:
                kept: dict[str, Tensor] = {}

                def add(
                    x: Tensor, hook: Any, change: Tensor = change, kept: dict[str, Tensor] = kept
                ) -> Tensor:
                    kept["input"] = x
                    x = x.clone()
                    x[:, first:] += change[:, :, None]
                    return x

                def keep(z: Tensor, hook: Any, kept: dict[str, Tensor] = kept) -> None:
                    kept["z"] = z.detach().clone()

                bridge.run_with_hooks(
                    base.tokens, fwd_hooks=[(name, add), (f"blocks.{layer}.{_Z}", keep)]
                )
                if "input" not in kept:
                    raise CompanionError(
                        f"kind {kind!r}: TransformerLens has no {name} in this model, so that its "
                        "paths cannot be told apart"
                    )
                out.append(kept["z"][:, first:])
        finally:
            bridge.set_use_split_qkv_input(before)
        return torch.stack(out)

    @torch.no_grad()
    def _final(self, base: FullTrace, name: str, change: Any, value: Tensor) -> Tensor:
        hooks = [(name, lambda x, hook: change(x, value))]
        logits = self.bridge.run_with_hooks(base.tokens, fwd_hooks=hooks, return_type="logits")
        return pick(logits, base.read)

    def chunks(self, base: FullTrace, cases: int, window: int, memory: int) -> Iterator[slice]:
        """Interventions in small groups; each is a forward pass of its own whatever the memory."""
        yield from (slice(start, min(start + 16, cases)) for start in range(0, cases, 16))


_Z = "attn.hook_z"
_RESID = "hook_resid_pre"
