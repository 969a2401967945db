"""Every component's write removed from every later head's query, key or value, in turn.

No forward pass is run for it: `th_utils.edge_effects` has the closed form, the two effects that are
measured and what they are exact to; `th_utils.edge_sites` runs the prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from th_utils import checks
from th_utils.edge_effects import MEMORY, Readers, Writers
from th_utils.edge_sites import Site, coefficients
from th_utils.errors import CompanionError
from th_utils.pairs import Pairs
from th_utils.progress import track
from th_utils.transformer import Transformer


class Effects(NamedTuple):
    """Effects of all pairs of one kind at one site, in the order of `Pairs`; means over prompts."""

    pattern: Float[Tensor, " pair"] | None  # total variation; None for values, which have none
    output: Float[Tensor, " pair"] | None  # relative change; None where it was not asked for
    units: Float[Tensor, "unit pair"] | None  # the effect of first interest by unit, in bfloat16


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
        writers = Writers.of(model, layer, kind, wide[: pairs.writers(layer)])
        for site, c, table in zip(at, written, found, strict=True):
            readers = Readers.of(model, layer, site, writers, c[:, : len(writers.v)])
            also = table.output is not None
            for head in range(heads):
                place = slice(pairs.start(layer, head), pairs.start(layer, head + 1))
                table.store(place, *readers.effects(kind, head, output=also, memory=memory))
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
