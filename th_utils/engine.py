"""The fastest exact way to run interventions in a model that TransformerLens has loaded.

`of` looks at a model's settings, takes its tensors as views, compares the logits of the replay
kernels on a few tokens with the bridge's, and settles for full forward passes if anything of it
does not fit. Whether a model is known is never taken from its name.
"""

from __future__ import annotations

import warnings
import weakref
from typing import Any

import torch
from torch import Tensor

from th_utils.errors import CompanionError
from th_utils.fullforward import FullForward
from th_utils.replay import Replay
from th_utils.transformer import ACTIVATIONS, Block, Norm, Transformer
from th_utils.weights import rotary_of

# How far the logits may be from the bridge's, as a share of the largest one.
_AGREE = {torch.float64: 1e-9, torch.float32: 1e-4}
_ANGLES = 1e-5  # at least, with rotary embedding: transformers computes its angles in float32

# Bridges whose logits came out right, which is looked at once: edits of weights that come later are
# seen by both, since the tensors are views.
_compared: weakref.WeakSet[Any] = weakref.WeakSet()


def of(bridge: Any) -> Replay | FullForward:
    """What runs interventions in a `TransformerBridge` in compatibility mode.

    Known families get `Replay`. Any other model gets `FullForward`, a whole forward pass for each
    intervention, and a warning that says why.

    Raises:
        CompanionError: the heads of the model do not write ``z @ W_O`` to the residual stream, so
            that neither would be right.
    """
    try:
        return Replay(from_bridge(bridge))
    except CompanionError as error:
        warnings.warn(f"{error}; each intervention is a full forward pass", stacklevel=2)
    full = FullForward(bridge)
    _check_writes(full)
    return full


def from_bridge(bridge: Any) -> Transformer:
    """The tensors of a `TransformerBridge` in compatibility mode, as views.

    Raises:
        CompanionError: the model is not of a family that this module knows; the message says
            what stands against it.
    """
    obstacle = _obstacle(bridge)
    if obstacle:
        raise CompanionError(f"{_name(bridge)} is not of a family that replay knows: {obstacle}")
    cfg = bridge.cfg
    model = Transformer(
        W_E=bridge.W_E.detach(),
        W_pos=bridge.W_pos.detach() if cfg.positional_embedding_type == "standard" else None,
        blocks=tuple(_block(block, cfg) for block in bridge.blocks),
        final_norm=_norm(bridge.ln_final, cfg),
        W_U=bridge.W_U.detach(),
        b_U=None if bridge.b_U is None else bridge.b_U.detach(),
        rotary=rotary_of(bridge.original_model.config.to_dict()),
        parallel=bool(getattr(cfg, "parallel_attn_mlp", False)),
        activation=cfg.act_fn,
    )
    if bridge not in _compared:
        _compare(model, bridge)
        _compared.add(bridge)
    return model


def _name(bridge: Any) -> str:
    return str(getattr(bridge.cfg, "model_name", None) or "this model")


def _obstacle(bridge: Any) -> str | None:
    """What about a model's settings is not covered here, None when all is."""
    cfg, config = bridge.cfg, bridge.original_model.config.to_dict()
    if cfg.act_fn not in ACTIVATIONS:
        return f"its activation function is {cfg.act_fn!r}"
    if not str(cfg.normalization_type).startswith(("LN", "RMS")):
        return f"its normalisation is {cfg.normalization_type!r}"
    if cfg.positional_embedding_type not in ("standard", "rotary"):
        return f"its positions are {cfg.positional_embedding_type!r}"
    if getattr(cfg, "use_qk_norm", False):
        return "its queries and keys are normalised"
    if max(getattr(cfg, "attn_scores_soft_cap", 0), getattr(cfg, "output_logits_soft_cap", 0)) > 0:
        return "its attention scores or logits are capped"
    windowed = set(config.get("layer_types") or ()) - {"full_attention"}
    window = config.get("use_sliding_window", True) and config.get("sliding_window")
    if getattr(cfg, "window_size", None) or window or windowed:
        return "some of its layers attend to a window only"
    if getattr(cfg, "num_experts", None):
        return "its MLPs are mixtures of experts"
    if getattr(bridge, "ln_final", None) is None:
        return "it has no final norm"
    for layer, block in enumerate(bridge.blocks):
        for norm in ("ln1", "ln2"):
            if getattr(block, norm, None) is None:
                return f"block {layer} has no {norm}"
        for part, names in (("attn", ("W_Q", "W_K", "W_V", "W_O")), ("mlp", ("W_in", "W_out"))):
            for name in names:
                if getattr(getattr(block, part, None), name, None) is None:
                    return f"block {layer} has no {part}.{name}"
    return None


def _block(block: Any, cfg: Any) -> Block:
    def get(part: Any, name: str) -> Tensor | None:
        value = getattr(part, name, None)
        return None if value is None else value.detach()

    attention = {n: get(block.attn, n) for n in ("W_Q", "W_K", "W_V", "W_O")}
    biases = {n: get(block.attn, n) for n in ("b_Q", "b_K", "b_V", "b_O")}
    names = ("W_in", "b_in", "W_gate", "b_gate", "W_out", "b_out")
    return Block(
        norm_1=_norm(block.ln1, cfg),
        norm_2=_norm(block.ln2, cfg),
        **attention,
        **biases,
        **{n: get(block.mlp, n) for n in names},
    )


def _norm(module: Any, cfg: Any) -> Norm:
    gain, bias = (getattr(module, name, None) for name in ("weight", "bias"))
    return Norm(
        eps=float(cfg.eps),
        rms=str(cfg.normalization_type).startswith("RMS"),
        gain=None if gain is None or bool((gain == 1).all()) else gain.detach(),
        bias=None if bias is None or bool((bias == 0).all()) else bias.detach(),
    )


@torch.no_grad()
def _compare(model: Transformer, bridge: Any) -> None:
    """Raise unless the model gives the bridge's logits on a dozen tokens."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(len(model.W_E), [1, 12], generator=generator).to(model.W_E.device)
    expected = bridge(tokens, return_type="logits")[:, -1]
    replay = Replay(model)
    found = replay.logits(replay.trace(tokens).final)
    off = float((found - expected).abs().max() / expected.abs().max())
    allowed = max(_AGREE.get(found.dtype, 0.05), _ANGLES if model.rotary else 0.0)
    if not off <= allowed:
        raise CompanionError(
            f"{_name(bridge)} is not of a family that replay knows: its logits come out "
            f"{off:.1e} of the largest away from TransformerLens'"
        )


@torch.no_grad()
def _check_writes(full: FullForward) -> None:
    """Raise unless changing a head's z is adding ``change @ W_O`` to what its attention writes.

    Norms and multipliers between the two, as in Gemma 2 and Granite, show in the logits.
    """
    for block in full.bridge.blocks:
        if getattr(getattr(block, "attn", None), "W_O", None) is None:
            raise CompanionError(f"{_name(full.bridge)} has blocks without heads that write by W_O")
    tokens = torch.arange(8)[None].to(full.bridge.cfg.device)
    base = full.trace(tokens)
    change = 0.5 * base.z[0][:, -2:, 0]
    delta = (change @ full.W_O(0)[0])[None]
    found = full.write(base, 0, delta, tokens.shape[1] - 2)[0]
    expected = full.with_z(base, 0, 0, change, tokens.shape[1] - 2)
    effect = (expected - base.final).abs().max()
    if not (found - expected).abs().max() <= 1e-3 * effect + 1e-6:
        raise CompanionError(
            f"{_name(full.bridge)} does not add z @ W_O of its heads to the residual stream as it "
            "is (a norm or a factor stands between): interventions in it are not covered"
        )
