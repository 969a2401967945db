"""Activation patching of every head at every position, and its estimate by one backward pass."""

from __future__ import annotations

import pytest
import torch

from benchmarks import agreement, floors
from th_utils import sweeps

PATCHES = 24  # that the peer is timed on in one turn: half a second each


# The whole sweep takes minutes: one turn, the peer before and after it.
@pytest.mark.sequence("product peer ours copy product peer product peer")
def test_activation_patching(timed, yardstick, model, kept, side, turn):
    job, shape = "activation", model.shape
    if yardstick(job):
        return
    readout = model.engine.logit_difference(model.right, model.wrong)
    if side == "ours":
        kept["exact"] = timed(
            lambda: sweeps.activation_patching(model.engine, *model.traces, readout),
            job,
            warm=False,
            operations=floors.activation_patching(shape),
            bytes=floors.sweep_bytes(shape, shape.patches),
        )
    else:
        picked = draw(shape, PATCHES, turn)
        kept[turn] = (
            picked,
            timed(
                lambda: peer(model, picked),
                job,
                warm=turn == 0 and shape.d_model > 100,
                label="`get_act_patch_attn_head_out_by_pos`",
                part=f"{{count}} of {shape.patches:,} patches at random",
                count=len(picked),
                scale=shape.patches / len(picked),
            ),
        )
    if "exact" in kept:
        off = [
            (values - torch.stack([kept["exact"][layer, at, h] for layer, at, h in cells])).abs()
            for cells, values in (kept[key] for key in kept if isinstance(key, int))
        ]
        timed.info["agreement"] = max(float(x.max()) for x in off) if off else None
        timed.info["agreement_of"] = "logit difference of each prompt, absolute"


def draw(shape, count: int, seed: int) -> list[list[int]]:
    """Random (layer, position, head), each at most once."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randperm(shape.patches, generator=generator)[:count]
    sizes = shape.layers, shape.positions, shape.heads
    return torch.stack(torch.unravel_index(cells, sizes), dim=1).tolist()


def peer(model, picked):
    """The peer's own function on some rows only, a value for each prompt."""
    import pandas
    from transformer_lens import patching

    _, clean = model.caches
    result = patching.get_act_patch_attn_head_out_by_pos(
        model.bridge,
        model.base,
        clean,
        model.metric,
        index_axis_names=None,
        index_df=pandas.DataFrame(picked, columns=["layer", "pos", "head"]),
        reduce="none",
    )
    return result.values


@pytest.mark.sequence("ours product copy ours product copy ours product copy")
def test_attribution(timed, yardstick, model, kept, side):
    job, shape = "attribution", model.shape
    attribution = pytest.importorskip("th_utils.attribution")
    if yardstick(job):
        return
    base, source = model.traces
    readout = model.engine.logit_difference(model.right, model.wrong)
    estimate = timed(
        lambda: attribution.attribution_patching(model.engine, base, source, readout),
        job,
        operations=floors.attribution(shape),
        bytes=floors.sweep_bytes(shape, shape.patches),
    )
    if "exact" in kept:
        # All of the sweep but what no output can see: other positions of the last block.
        effect = kept["exact"] - readout(base.final)
        effect[-1, :-1] = torch.nan
        timed.info["faithful"] = agreement.compare(effect, estimate)
        timed.info["faithful_to"] = "activation"
