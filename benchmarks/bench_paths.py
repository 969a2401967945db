"""Exact direct path patching of every pair of heads, and the direct effects beside it."""

from __future__ import annotations

import pytest
import torch

from benchmarks import agreement, floors
from th_utils import sweeps

KINDS = "QKV"


def patch(timed, yardstick, model, kept, side, turn, whole, kind):
    job, shape = f"path-{kind.lower()}", model.shape
    if yardstick(job):
        return
    if side == "ours":
        readers = None if whole else draw_readers(shape, KINDS.index(kind))
        part = {} if whole else {
            "part": f"{{count}} of {shape.heads * len(readers):,} readers, one drawn at random "
            "from each layer, with all senders before it",
            "count": len(readers),
            "scale": shape.heads,
        }  # fmt: skip
        readout = model.engine.logit_difference(model.right, model.wrong)
        kept["ours", kind] = timed(
            lambda: sweeps.path_patching(
                model.engine, *model.traces, readout, kind, readers=readers
            ),
            job,
            warm=False,
            operations=floors.path_patching(shape, kind),
            bytes=floors.sweep_bytes(shape, shape.head_pairs),
            **part,
        )
    else:
        layer, head = draw_sender(shape, KINDS.index(kind) + len(KINDS) * turn)
        count = (shape.layers - 1 - layer) * shape.heads
        found = timed(
            lambda: peer(model, kind, layer, head),
            job,
            warm=False,
            label="`get_act_patch_direct_path`",
            part=f"{{count}} of {shape.head_pairs:,} pairs, all of senders drawn from the "
            "last third of the layers at random",
            count=count,
            scale=shape.head_pairs / count,
        )
        found[: layer + 1] = torch.nan
        kept["peer", kind, layer, head] = found
    if ("ours", kind) in kept:
        ours = kept["ours", kind].mean(-1)
        off = torch.cat([
            (ours[key[2], key[3]] - value)[~(ours[key[2], key[3]].isnan() | value.isnan())]
            for key, value in kept.items() if key[:2] == ("peer", kind)
        ] or [torch.zeros(0)])  # fmt: skip
        if len(off):
            timed.info["agreement"] = float(off.abs().max())
            timed.info["agreement_of"] = f"mean logit difference, {len(off)} pairs, absolute"


# The peer before and after ours, which takes a minute for each kind.
SEQUENCE = "product peer ours copy peer product peer"


@pytest.mark.sequence(SEQUENCE)
def test_path_q(timed, yardstick, model, kept, side, turn, whole):
    patch(timed, yardstick, model, kept, side, turn, whole, "Q")


@pytest.mark.sequence(SEQUENCE)
def test_path_k(timed, yardstick, model, kept, side, turn, whole):
    patch(timed, yardstick, model, kept, side, turn, whole, "K")


@pytest.mark.sequence(SEQUENCE)
def test_path_v(timed, yardstick, model, kept, side, turn, whole):
    patch(timed, yardstick, model, kept, side, turn, whole, "V")


def draw_readers(shape, seed: int) -> list[tuple[int, int]]:
    """One reader of each layer that has layers before it: all readers of a layer cost the same."""
    generator = torch.Generator().manual_seed(seed)
    heads = torch.randint(shape.heads, (shape.layers,), generator=generator)
    return [(layer, int(heads[layer])) for layer in range(1, shape.layers)]


def draw_sender(shape, seed: int) -> tuple[int, int]:
    """A head of the last third of the layers that has readers: each pair costs the peer the same,
    and a sender further down has more of them than there is time for."""
    generator = torch.Generator().manual_seed(seed)
    low, high = max(0, shape.layers * 2 // 3 - 1), shape.layers - 1
    layer = int(torch.randint(low, high, (), generator=generator))
    return layer, int(torch.randint(shape.heads, (), generator=generator))


def peer(model, kind, layer, head):
    from transformer_lens.patching import get_act_patch_direct_path

    corrupted, clean = model.caches
    return get_act_patch_direct_path(
        model.bridge,
        model.base,
        clean,
        corrupted,
        lambda logits: model.metric(logits).mean(),
        layer,
        head,
        component=kind.lower(),
        verbose=False,
    )


@pytest.mark.sequence("ours product copy " * 3)
def test_direct_effects(timed, yardstick, model, kept, side):
    job, shape = "direct", model.shape
    edges = pytest.importorskip("th_utils.edges")
    if yardstick(job):
        return
    base, source = model.traces
    effects = timed(
        lambda: edges.direct_effects(model.engine, base, source, model.right, model.wrong),
        job,
        operations=floors.direct_effects(shape),
        bytes=floors.sweep_bytes(shape, 3 * shape.head_pairs),
    )
    clean = model.engine.logit_difference(model.right, model.wrong)(base.final)
    for index, kind in enumerate(KINDS):
        if ("ours", kind) in kept:
            exact = kept["ours", kind] - clean
            timed.info[f"faithful_{kind}"] = agreement.compare(exact, effects[index])
    timed.info["faithful_to"] = "path"
