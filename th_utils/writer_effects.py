"""What single components of a writer do to one input of a later head (chapter 05)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from th_utils.components import leading, random_directions
from th_utils.progress import track
from th_utils.roles import Head
from th_utils.sites import Sites
from th_utils.svd import HeadSVD
from th_utils.writers import Input, Pair, key_input, line_sign, outputs, value_input


@dataclass(frozen=True)
class PairEffects:
    """What the components of one writer do to what one reader is watched for."""

    pair: Pair
    order: list[int]  # components by their effect on the split they were chosen on, largest first
    strength: float  # effect of the whole output on that split
    clean: Float[Tensor, " prompt"]  # what is watched; here and below on the split reported
    effects: Float[Tensor, "prompt component"]
    whole: Float[Tensor, " prompt"]
    random: Float[Tensor, "prompt case"]  # random directions of the writer's write space

    @property
    def picks(self) -> list[int]:
        """The two leading components."""
        return self.order[:2]


def along_directions(
    output: Float[Tensor, "prompt d_model"], directions: Float[Tensor, "case d_model"]
) -> Float[Tensor, "prompt case d_model"]:
    """What is to be added to take an output's part along each direction away."""
    return -(output @ directions.mT)[..., None] * directions


def pair_effects(
    bridge: Any,
    pair: Pair,
    found: tuple[Sites, Input],
    reported: tuple[Sites, Input],
    svd: HeadSVD,
    *,
    n_random: int,
    seed: int,
) -> PairEffects:
    """Components of one writer, ranked on one half of the prompts and measured on the other."""
    directions = svd.V[pair.writer].mT
    earlier, output = (outputs(bridge, at, pair.kind, pair.writer) for at, _ in (found, reported))
    chosen = found[1].fall(along_directions(earlier, directions))
    control = random_directions(svd, pair.writer, n_random, seed=seed)
    fall = reported[1].fall
    return PairEffects(
        pair=pair,
        order=leading(chosen, chosen.shape[1]),
        strength=float(found[1].fall(-earlier[:, None]).mean()),
        clean=reported[1].clean,
        effects=fall(along_directions(output, directions)),
        whole=fall(-output[:, None])[:, 0],
        random=fall(along_directions(output, control)),
    )


@dataclass(frozen=True)
class Channel:
    """One channel of a model: its pairs of heads, and the readers' inputs on the split reported."""

    inputs: dict[Head, Input]
    effects: list[PairEffects]

    @property
    def reader(self) -> Head:
        """The strongest reader."""
        return next(iter(self.inputs))

    def __len__(self) -> int:
        return len(self.effects)


def measure(
    bridge: Any,
    pairs: Sequence[Pair],
    found: Sites,
    reported: Sites,
    svd: HeadSVD,
    leads: dict[Head, int],
    *,
    n_random: int,
    seed: int,
) -> Channel:
    """`pair_effects` of the pairs of one channel.

    Args:
        bridge: `TransformerBridge` in compatibility mode.
        pairs: of one kind, strongest readers first (`writers.weigh`).
        found, reported: the two halves; components are ranked on the first, and the sign of an
            inhibition component is fixed there.
        svd: SVD of the OV matrices.
        leads: the leading component of each inhibition head.
        n_random: number of random directions.
        seed: of those.
    """
    both = {}
    for reader in dict.fromkeys(pair.reader for pair in pairs):
        if pairs[0].kind == "V":
            lead = leads[reader]
            sign = line_sign(bridge, found.run, svd, reader, lead)
            how = (svd, reader, lead, sign)
            both[reader] = tuple(value_input(bridge, at, *how) for at in (found, reported))
        else:
            both[reader] = tuple(key_input(bridge, at, reader) for at in (found, reported))
    effects = [
        pair_effects(
            bridge,
            pair,
            (found, both[pair.reader][0]),
            (reported, both[pair.reader][1]),
            svd,
            n_random=n_random,
            seed=seed,
        )
        for pair in track(pairs, "pairs of heads")
    ]
    return Channel({reader: two[1] for reader, two in both.items()}, effects)
