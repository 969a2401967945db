r"""Activation patching and path patching of everything at once.

Two runs on prompts of the same shape: the *base* run is what the model is run on, and into it go
activations of the *source* run. (TransformerLens calls them corrupted and clean.) The results are
exactly those of one forward pass per intervention; `th_utils.replay` says how the passes are
spared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from th_utils import checks
from th_utils.changes import check_kind, check_pair
from th_utils.errors import CompanionError
from th_utils.fullforward import FullForward, FullTrace
from th_utils.progress import track
from th_utils.replay import MEMORY, Kind, Readout, Replay, Trace


@torch.no_grad()
def activation_patching(
    engine: Replay | FullForward,
    base: Trace | FullTrace,
    source: Trace | FullTrace,
    readout: Readout,
    *,
    site: str = "z",
    memory: int = MEMORY,
) -> Float[Tensor, "layer pos head prompt"] | Float[Tensor, "layer pos prompt"]:
    """The readout after each single activation of the base run is replaced by the source's.

    Meng et al. (2022) patch residual streams so, Wang et al. (2022) the outputs of heads.

    Args:
        engine: `th_utils.engine.of(bridge)`.
        base: run to patch into (``engine.trace(tokens)``).
        source: run to take activations from.
        readout: a number per prompt, such as ``engine.logit_difference(right, wrong)``.
        site: "z", each head's output at each position; "attn_out", that of all heads of a layer
            together; or "resid_pre", the residual stream entering a block.
        memory: bytes that the activations of one batch of interventions may take.

    Returns:
        Values of the readout, not differences. The axis `head` is there for "z" only.

    Raises:
        CompanionError: the runs do not fit each other, a value is not finite, the site is
            unknown, or `memory` is too little for one intervention.

    >>> from th_utils.transformer import random_transformer
    >>> engine = Replay(random_transformer())  # of a real model: th_utils.engine.of(bridge)
    >>> base, source = (engine.trace(t) for t in torch.arange(24).view(2, 2, 6))
    >>> readout = engine.logit_difference(torch.tensor([1, 2]), torch.tensor([3, 4]))
    >>> activation_patching(engine, base, source, readout).shape
    torch.Size([2, 6, 2, 2])
    """
    clean = _clean(engine, base, source, readout)
    if site not in ("z", "attn_out", "resid_pre"):
        raise CompanionError(f"site {site!r} is unknown: 'z', 'attn_out' or 'resid_pre'")
    layers, positions = engine.n_layers, base.n_positions
    values = clean.expand(layers, positions, engine.n_heads if site == "z" else 1, -1).clone()
    which = (base.resid, source.resid) if site == "resid_pre" else (base.z, source.z)
    first = _first(*which)
    cells = [(layer, at) for layer in range(layers) for at in range(first, positions)]
    for layer, at in track(cells, "activation patching"):
        here = slice(at, at + 1)
        if site == "resid_pre":
            enter = engine.advance
            change = torch.cat([source.resid[layer][:, here], base.resid[layer][:, at + 1 :]], 1)
            change = change[None]
        else:
            enter = engine.write
            change = source.z[layer][:, here] - base.z[layer][:, here]
            change = torch.einsum("nphe,hed->hnpd", change, engine.W_O(layer))
            change = change if site == "z" else change.sum(0, keepdim=True)
        parts = engine.chunks(base, len(change), positions - at, memory)
        final = torch.cat([enter(base, layer, change[p], at, check=False) for p in parts])
        values[layer, at] = readout(final)
    return values if site == "z" else values[:, :, 0]


@torch.no_grad()
def path_patching(
    engine: Replay | FullForward,
    base: Trace | FullTrace,
    source: Trace | FullTrace,
    readout: Readout,
    kind: Kind,
    *,
    readers: Sequence[tuple[int, int]] | None = None,
    memory: int = MEMORY,
) -> Float[Tensor, "layer head reader_layer reader_head prompt"]:
    """The readout when one head's output reaches one later head's Q, K or V from the source run.

    The direct path only (Wang et al. 2022, section 3.1): what the sender writes in the source run
    replaces, at every position, what it writes in the base run, in front of that one input of that
    one reader; every other reader sees the base run. What the reader then does differently goes on
    through the rest of the model, all of it recomputed. Heads that share keys and values each read
    a copy of their own.

    Args:
        engine: `th_utils.engine.of(bridge)`.
        base: run to patch into.
        source: run from which the sender's output is taken.
        readout: a number per prompt.
        kind: the reader's input: "Q", "K" or "V".
        readers: (layer, head) pairs; all of the model when None.
        memory: bytes that the activations of one batch of interventions may take.

    Returns:
        Values of the readout, NaN for readers that are not asked for, or not in a later layer
        than the sender.

    Raises:
        CompanionError: the runs do not fit each other, a value is not finite, the kind or a
            reader is unknown, or `memory` is too little for one intervention.

    >>> from th_utils.transformer import random_transformer
    >>> engine = Replay(random_transformer())  # of a real model: th_utils.engine.of(bridge)
    >>> base, source = (engine.trace(t) for t in torch.arange(24).view(2, 2, 6))
    >>> readout = engine.logit_difference(torch.tensor([1, 2]), torch.tensor([3, 4]))
    >>> path_patching(engine, base, source, readout, "Q").shape
    torch.Size([2, 2, 2, 2, 2])
    """
    _clean(engine, base, source, readout)
    check_kind(kind)
    layers, heads = engine.n_layers, engine.n_heads
    wanted = readers
    if wanted is None:
        wanted = [(layer, head) for layer in range(layers) for head in range(heads)]
    if not wanted:
        raise CompanionError("readers is empty: expected at least one (layer, head)")
    for layer, head in wanted:
        checks.index("layer of a reader", layer, layers)
        checks.index("head of a reader", head, heads)
    values = base.final.new_full((layers, heads, layers, heads, len(base.tokens)), math.nan)
    first = min(_first(base.z, source.z), base.n_positions - 1)
    change = (source.z - base.z)[:, :, first:]
    of_layer = {layer: [h for at, h in wanted if at == layer] for layer, _ in wanted if layer > 0}
    for layer in track(sorted(of_layer), f"path patching, {kind}, by reader layer"):
        W_O, senders = engine.W_O(layer), layer * heads
        found = values.new_empty(len(of_layer[layer]), senders, len(base.tokens))
        for part in engine.chunks(base, senders, base.n_positions - first, memory):
            delta = _writes(engine, change, range(senders)[part])
            moved = engine.read(base, layer, kind, delta, first, check=False)
            moved -= base.z[layer][:, first:]
            for i, head in enumerate(of_layer[layer]):
                delta = moved[:, :, :, head] @ W_O[head]
                found[i, part] = readout(engine.write(base, layer, delta, first, check=False))
        for i, head in enumerate(of_layer[layer]):
            values[:layer, :, layer, head] = found[i].unflatten(0, (layer, heads))
    return values


def _writes(
    engine: Replay | FullForward,
    change: Float[Tensor, "layer prompt pos head d_head"],
    senders: range,
) -> Float[Tensor, "sender prompt pos d_model"]:
    """What some heads, counted through all layers, write more in the source run."""
    pieces = []
    for layer in range(senders.start // engine.n_heads, (senders.stop - 1) // engine.n_heads + 1):
        offset = layer * engine.n_heads
        part = slice(max(senders.start - offset, 0), min(senders.stop - offset, engine.n_heads))
        W_O = engine.W_O(layer)[part]
        pieces.append(torch.einsum("nphe,hed->hnpd", change[layer][:, :, part], W_O))
    return torch.cat(pieces)


def _first(base: Float[Tensor, "*shape"], source: Float[Tensor, "*shape"]) -> int:
    """The first position at which two runs differ: before it there is nothing to patch."""
    differs = (base != source).transpose(0, 2).flatten(1).any(dim=1)  # position is the third axis
    return int((differs.long().cumsum(0) == 0).sum())


def _clean(
    engine: Replay | FullForward,
    base: Trace | FullTrace,
    source: Trace | FullTrace,
    readout: Readout,
) -> Float[Tensor, " prompt"]:
    """The readout of the base run, after a look at all arguments of a sweep."""
    d_head = engine.W_O(0).shape[1]
    shape = (engine.n_layers, len(base.tokens), base.n_positions, engine.n_heads, d_head)
    checks.shape("base.z", base.z, shape, "layer, prompt, position, head, d_head of this engine")
    check_pair(base, source)
    try:
        clean = readout(base.final)
    except (RuntimeError, IndexError) as error:
        raise CompanionError(f"readout does not take the runs of base: {error}") from error
    checks.shape("readout(base.final)", clean, (len(base.tokens),), "a number for each prompt")
    return clean
