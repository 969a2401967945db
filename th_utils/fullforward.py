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

from th_utils.changes import at_read, check_answers, check_change, check_tokens, pick
from th_utils.replay import Kind, Readout


@dataclass(frozen=True)
class FullTrace:
    """What the clean run of an unknown model leaves behind; compare `th_utils.replay.Trace`."""

    tokens: Int[Tensor, "prompt pos"]
    read: Int[Tensor, " prompt"]
    resid: Float[Tensor, "layer prompt pos d_model"]
    z: Float[Tensor, "layer prompt pos head d_head"]
    final: Float[Tensor, "prompt d_model"]

    @property
    def n_positions(self) -> int:
        return self.tokens.shape[1]


class FullForward:
    """Interventions by hooks on a `TransformerBridge`; methods as in `th_utils.replay.Replay`."""

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

    def logits(self, final: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_vocab"]:
        """Logits of what leaves the last block."""
        normed = self.bridge.ln_final(final.reshape(1, -1, final.shape[-1]))
        return self.bridge.unembed(normed).detach().view(*final.shape[:-1], -1)

    def logit_difference(
        self, right: Int[Tensor, " prompt"], wrong: Int[Tensor, " prompt"]
    ) -> Readout:
        """A readout: logit of token `right` minus logit of token `wrong`, in nats."""
        check_answers(right, wrong, self.bridge.cfg.d_vocab)

        def readout(final: Float[Tensor, "*case prompt d_model"]) -> Float[Tensor, "*case prompt"]:
            logits = self.logits(final)
            at = [i.expand(logits.shape[:-1])[..., None] for i in (right, wrong)]
            return (logits.gather(-1, at[0]) - logits.gather(-1, at[1]))[..., 0]

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
        hooks = [f"blocks.{layer}.{n}" for layer in layers for n in ("hook_resid_pre", _Z)]
        _, cache = self.bridge.run_with_cache(tokens, names_filter=[*hooks, _FINAL])
        return FullTrace(
            tokens=tokens,
            read=read,
            resid=torch.stack([cache[f"blocks.{at}.hook_resid_pre"] for at in layers]),
            z=torch.stack([cache[f"blocks.{at}.{_Z}"] for at in layers]),
            final=pick(cache[_FINAL], read),
        )

    def write(
        self,
        base: FullTrace,
        layer: int,
        delta: Float[Tensor, "case prompt changed d_model"],
        first: int = 0,
        *,
        check: bool = True,
    ) -> Float[Tensor, "case prompt d_model"]:
        """What leaves the last block when something is added to a block's attention output."""
        check_change(self.n_layers, base, layer, delta, first, values=check)

        def add(x: Tensor, change: Tensor) -> Tensor:
            x = x.clone()
            x[:, first : first + change.shape[1]] += change
            return x

        name = f"blocks.{layer}.hook_attn_out"
        return torch.stack([self._final(base, name, add, change) for change in delta])

    def advance(
        self,
        base: FullTrace,
        layer: int,
        resid: Float[Tensor, "case prompt window d_model"],
        first: int,
        *,
        check: bool = True,
    ) -> Float[Tensor, "case prompt d_model"]:
        """What leaves the last block when another residual stream enters block `layer`."""
        check_change(self.n_layers, base, min(layer, self.n_layers - 1), resid, first, values=check)
        if layer == self.n_layers:
            out, seen = at_read(base, resid, first)
            return torch.where(seen[:, None], out, base.final)

        def put(x: Tensor, change: Tensor) -> Tensor:
            x = x.clone()
            x[:, first : first + change.shape[1]] = change
            return x

        name = f"blocks.{layer}.hook_resid_pre"
        return torch.stack([self._final(base, name, put, change) for change in resid])

    @torch.no_grad()
    def read(
        self,
        base: FullTrace,
        layer: int,
        kind: Kind,
        delta: Float[Tensor, "case prompt pos d_model"],
        *,
        check: bool = True,
    ) -> Float[Tensor, "case prompt pos head d_head"]:
        """Weighted values of each head when its own queries, keys or values see another residual.

        All heads of the layer see the change at once: none of them hears another of its layer.
        """
        check_change(self.n_layers, base, layer, delta, 0, values=check)
        bridge, name = self.bridge, f"blocks.{layer}.attn.hook_{kind.lower()}_input"
        before = bool(getattr(bridge.cfg, "use_split_qkv_input", False))
        bridge.set_use_split_qkv_input(True)
        try:
            out = []
            for change in delta:
                kept: dict[str, Tensor] = {}

                def add(x: Tensor, hook: Any, change: Tensor = change) -> Tensor:
                    return x + change[:, :, None]

                def keep(z: Tensor, hook: Any, kept: dict[str, Tensor] = kept) -> None:
                    kept["z"] = z.detach().clone()

                bridge.run_with_hooks(
                    base.tokens, fwd_hooks=[(name, add), (f"blocks.{layer}.{_Z}", keep)]
                )
                out.append(kept["z"])
        finally:
            bridge.set_use_split_qkv_input(before)
        return torch.stack(out)

    @torch.no_grad()
    def _final(self, base: FullTrace, name: str, change: Any, value: Tensor) -> Tensor:
        kept: dict[str, Tensor] = {}

        def keep(x: Tensor, hook: Any) -> None:
            kept["final"] = x.detach().clone()

        hooks = [(name, lambda x, hook: change(x, value)), (_FINAL, keep)]
        self.bridge.run_with_hooks(base.tokens, fwd_hooks=hooks)
        return pick(kept["final"], base.read)

    def chunks(self, base: FullTrace, cases: int, window: int, memory: int) -> Iterator[slice]:
        """Interventions in small groups; each is a forward pass whatever the memory."""
        yield from (slice(start, min(start + 16, cases)) for start in range(0, cases, 16))


_Z = "attn.hook_z"
_FINAL = "ln_final.hook_in"
