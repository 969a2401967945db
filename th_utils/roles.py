"""Which heads of a model play which role, found by measurement.

The roles are those of the indirect-object circuit (Wang et al. 2022). Each has a criterion made of
a measured score, a control that says how large the score gets where the role cannot be at work,
and a condition on where the head looks. Roles are found on one half of templates and names (split
``find``) and reported on the other. `CRITERIA` says each criterion in words; its numbers are the
constants below it. They were fixed before any model was measured.

mover, negative-mover
    write for, or against, the indirect object at the end position, and look at the names.
inhibition
    look from the end at the repeated name and, through the movers' queries alone, make the movers
    prefer the other name.
duplicate-token, induction, previous-token
    look from a repeated token at its first mention, at the token after it, and from any token at
    the one before; measured on random tokens, where nothing else helps.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from statistics import NormalDist
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from th_utils.attention import attention_to, direct_logit_attribution, inhibition_score, readout
from th_utils.errors import CompanionError
from th_utils.patching import direct_query, head_outputs
from th_utils.progress import track
from th_utils.runs import CleanRun, clean_run
from th_utils.tasks import ioi

ROLES = (
    "mover",
    "negative-mover",
    "inhibition",
    "duplicate-token",
    "previous-token",
    "induction",
)
CRITERIA = {
    "mover": "direct logit attribution above zero (95%, corrected for the number of heads), above "
    "every head's attribution to two absent names, at least a tenth of the strongest head's; looks "
    "from the end at the indirect object more than at either mention of the subject, and with at "
    "least a tenth of its attention",
    "negative-mover": "direct logit attribution below zero, by the same margins; at least a tenth "
    "of its attention from the end on the names",
    "inhibition": "exchanging its output at the end for that on a prompt without repetition, in "
    "the movers' queries alone, lowers their inhibition score (95%, corrected for the number of "
    "heads), more than any equally long random vector in place of any head, and at least a tenth "
    "as much as the strongest head; looks from the end at the second mention more than at the "
    "other names, and with at least a tenth of its attention; is no mover",
    "duplicate-token": "on repeated random tokens looks at the same token's first mention, with "
    "0.3 more of its attention than at that distance without repetition; and with at least a tenth "
    "of it in the task",
    "previous-token": "on random tokens looks at the token before, with 0.3 more of its attention "
    "than at any other distance; and with at least a tenth of it in the task",
    "induction": "on repeated random tokens looks at the token after the first mention, with 0.3 "
    "more of its attention than at that distance without repetition; and with at least a tenth of "
    "it in the task",
}
# Where the roles look: from a labelled position to a labelled position.
LOOKS = (
    ("end", "IO"),
    ("end", "S1"),
    ("end", "S2"),
    ("S2", "S1"),
    ("S2", "S1+1"),
    ("S1+1", "S1"),
)
CONFIDENCE = 0.95
SHARE_OF_STRONGEST = 0.1
LEAST_ATTENTION = 0.1
ABOVE_CONTROL = 0.3
PROMPTS = 64
SEQUENCES, BLOCK = 16, 24  # random token sequences, tokens in the block that is repeated

Head = tuple[int, int]


@dataclass(frozen=True)
class Roles:
    """Heads of each role, strongest first, and how they were found."""

    source: str  # "measured" or "published"
    heads: dict[str, list[Head]]
    scores: dict[str, list[float]] = field(default_factory=dict)  # aligned with heads
    controls: dict[str, float] = field(default_factory=dict)  # largest control score of any head

    def __getitem__(self, role: str) -> list[Head]:
        return self.heads[role]

    def main(self, role: str) -> Head | None:
        """The strongest head of a role, or None when the model has none."""
        return self.heads[role][0] if self.heads[role] else None

    def strongest(self, role: str) -> Head:
        """The strongest head of a role.

        Raises:
            CompanionError: this model has none.
        """
        head = self.main(role)
        if head is None:
            raise CompanionError(
                f"no {role} head was found in this model, and what follows needs one: "
                "chapter 01 shows which roles it has"
            )
        return head

    def to_json(self) -> str:
        """The roles as JSON text."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Roles:
        """Roles from what `to_json` wrote."""
        said = json.loads(text)
        said["heads"] = {role: [tuple(h) for h in heads] for role, heads in said["heads"].items()}
        return cls(**said)


def label(head: Head) -> str:
    """A head's name as the papers write it, layer and head from 0.

    >>> label((3, 0))
    '3.0'
    """
    return f"{head[0]}.{head[1]}"


def role_of(roles: Roles, head: Head) -> str:
    """The first role a head plays, or "other"."""
    return next((role for role, heads in roles.heads.items() if head in heads), "other")


def published(edition: str) -> Roles:
    """The roles that the literature gives for a model, for editions that cannot be run here."""
    from th_utils.models import resolve

    said = resolve(edition).entry.get("published_roles", {}).get("heads", {})
    heads = {
        role: [tuple(int(part) for part in str(h).split(".")) for h in said.get(role, [])]
        for role in ROLES
    }
    return Roles(source="published", heads=heads)


@dataclass(frozen=True)
class Measured:
    """Everything the criteria look at, per head, on one split."""

    dla: Float[Tensor, "layer prompt head"]
    dla_absent: Float[Tensor, "layer prompt head"]
    inhibition: Float[Tensor, "layer prompt head"]  # fall of the movers' inhibition score
    inhibition_random: Float[Tensor, "layer prompt head"]
    looks: dict[str, Float[Tensor, "layer head"]]  # mean attention "from>to" in the task
    sequence: dict[str, Float[Tensor, "layer head"]]  # on random tokens
    sequence_control: dict[str, Float[Tensor, "layer head"]]


def find(
    bridge: Any,
    *,
    seed: int = 0,
    split: ioi.Split = "find",
    n: int = PROMPTS,
) -> Roles:
    """Find the heads of each role in a model.

    Args:
        bridge: `TransformerBridge` in compatibility mode, with its tokenizer.
        seed: seed of prompts, random tokens and random control vectors.
        split: half of templates and names to measure on.
        n: number of prompts.
    """
    prompts = ioi.prompts(bridge.tokenizer, n, seed=seed, split=split)
    run = clean_run(bridge, prompts, rows=("end", "S2", "S1+1"))
    dla = direct_logit_attribution(bridge, run)
    dla_absent = _absent_attribution(bridge, run, seed=seed, split=split)
    look = looks(run)
    movers = _movers(dla, dla_absent, look)
    inhibition, random = inhibition_effects(
        bridge, run, _top(dla.mean(1), movers), seed=seed, split=split
    )
    sequence, control = sequence_scores(bridge, seed=seed)
    measured = Measured(dla, dla_absent, inhibition, random, look, sequence, control)
    return judge(measured)


def judge(m: Measured) -> Roles:
    """Apply the criteria to what was measured."""
    chosen: dict[str, tuple[Float[Tensor, "layer head"], Bool[Tensor, "layer head"]]] = {}
    names = m.looks["end>IO"] + m.looks["end>S1"] + m.looks["end>S2"]
    dla, dla_control = m.dla.mean(1), float(m.dla_absent.mean(1).abs().max())
    is_mover = _movers(m.dla, m.dla_absent, m.looks)
    chosen["mover"] = dla, is_mover
    chosen["negative-mover"] = -dla, _strong(-m.dla, dla_control) & (names >= LEAST_ATTENTION)
    inhibition_control = float(m.inhibition_random.mean(1).abs().max())
    chosen["inhibition"] = (
        m.inhibition.mean(1),
        _strong(m.inhibition, inhibition_control)
        & _prefers(m.looks, "end>S2", "end>IO", "end>S1")
        & ~is_mover,
    )
    for role, look in (
        ("duplicate-token", "S2>S1"),
        ("previous-token", "S1+1>S1"),
        ("induction", "S2>S1+1"),
    ):
        above = m.sequence[role] - m.sequence_control[role]
        chosen[role] = above, (above >= ABOVE_CONTROL) & (m.looks[look] >= LEAST_ATTENTION)
    heads = {role: _top(score, mask) for role, (score, mask) in chosen.items()}
    return Roles(
        source="measured",
        heads=heads,
        scores={role: [round(float(chosen[role][0][h]), 6) for h in heads[role]] for role in ROLES},
        controls={
            "mover": dla_control,
            "negative-mover": dla_control,
            "inhibition": inhibition_control,
            **{role: float(control.max()) for role, control in m.sequence_control.items()},
        },
    )


def inhibition_effects(
    bridge: Any,
    run: CleanRun,
    movers: list[Head],
    *,
    seed: int = 0,
    split: ioi.Split = "find",
) -> tuple[Float[Tensor, "layer prompt head"], Float[Tensor, "layer prompt head"]]:
    """Fall of the movers' inhibition score when one head's write is exchanged in their queries.

    The head's output at the end position is exchanged for its output on the prompt's ABC
    counterpart, in the input of the movers' queries only; everything else stays.

    Returns:
        The fall per prompt (mean over movers in later layers, 0 where there is none), and the same
        for random vectors of the length of the exchange, as a control.
    """
    prompts = run.prompts
    fresh = ioi.with_fresh_names(prompts, bridge.tokenizer, seed=seed, split=split)
    other = clean_run(bridge, _with_tokens(prompts, fresh))
    effect = torch.zeros(run.z.shape[:3], device=run.z.device)
    control = torch.zeros_like(effect)
    generator = torch.Generator().manual_seed(seed)
    io, s1 = prompts.positions["IO"], prompts.positions["S1"]
    heads = range(bridge.cfg.n_heads)
    last = max((layer for layer, _ in movers), default=0)
    for layer in track(range(last), "layers searched for inhibition heads"):
        delta = torch.stack(
            [
                head_outputs(bridge, other, layer, h) - head_outputs(bridge, run, layer, h)
                for h in heads
            ],
            dim=1,
        )
        noise = torch.randn(delta.shape, generator=generator).to(delta)
        noise = noise / noise.norm(dim=-1, keepdim=True) * delta.norm(dim=-1, keepdim=True)
        later = [mover for mover in movers if mover[0] > layer]
        for reader in later:
            clean = inhibition_score(run.pattern["end"][reader[0]], io, s1)[:, reader[1], None]
            for change, out in ((delta, effect), (noise, control)):
                pattern = direct_query(bridge, run, *reader, change)
                out[layer] += (clean - inhibition_score(pattern, io, s1)) / len(later)
    return effect, control


@torch.no_grad()
def sequence_scores(
    bridge: Any, *, seed: int = 0
) -> tuple[dict[str, Float[Tensor, "layer head"]], dict[str, Float[Tensor, "layer head"]]]:
    """Attention at the offsets of three roles on repeated random tokens, and its control.

    Sequences are a block of random tokens said twice. The control is the attention at the same
    offset on sequences without repetition; for previous-token heads it is the largest attention
    at any other offset.
    """
    generator = torch.Generator().manual_seed(seed)
    vocabulary = torch.tensor(
        sorted(set(range(bridge.cfg.d_vocab)) - set(bridge.tokenizer.all_special_ids))
    )

    def draw(length: int) -> Tensor:
        rows = [
            vocabulary[torch.randperm(len(vocabulary), generator=generator)[:length]]
            for _ in range(SEQUENCES)
        ]
        return torch.stack(rows).to(bridge.cfg.device)

    block, plain = draw(BLOCK), draw(2 * BLOCK)
    repeated = _offsets(bridge, torch.cat([block, block], dim=1))
    control = _offsets(bridge, plain)
    others = torch.cat([control[..., :1], control[..., 2:BLOCK]], dim=-1)
    at = {"duplicate-token": BLOCK, "induction": BLOCK - 1}
    scores = {"previous-token": control[..., 1]} | {r: repeated[..., o] for r, o in at.items()}
    controls = {"previous-token": others.amax(-1)} | {r: control[..., o] for r, o in at.items()}
    return scores, controls


def _offsets(bridge: Any, tokens: Tensor) -> Float[Tensor, "layer head offset"]:
    """Mean attention from the second half of each sequence to the token `offset` before."""
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(bridge.cfg.n_layers)]
    _, cache = bridge.run_with_cache(tokens, names_filter=names)
    half = tokens.shape[1] // 2
    rows = torch.arange(half, tokens.shape[1], device=tokens.device)
    columns = rows[:, None] - torch.arange(half + 1, device=tokens.device)
    return torch.stack([cache[name][:, :, rows[:, None], columns].mean((0, 2)) for name in names])


def looks(run: CleanRun) -> dict[str, Float[Tensor, "layer head"]]:
    """Mean attention of every head between the pairs of positions in `LOOKS` ("end>IO", ...)."""
    at = run.prompts.positions
    return {f"{row}>{to}": attention_to(run.pattern[row], at[to]).mean(1) for row, to in LOOKS}


def _movers(dla: Tensor, absent: Tensor, look: dict[str, Tensor]) -> Bool[Tensor, "layer head"]:
    """The criterion of the movers."""
    control = float(absent.mean(1).abs().max())
    return _strong(dla, control) & _prefers(look, "end>IO", "end>S1", "end>S2")


def _absent_attribution(
    bridge: Any, run: CleanRun, *, seed: int, split: ioi.Split
) -> Float[Tensor, "layer prompt head"]:
    """Direct logit attribution to two names that the prompt does not contain: the control."""
    prompts = run.prompts
    fresh = ioi.with_fresh_names(prompts, bridge.tokenizer, seed=seed + 1, split=split)
    n = torch.arange(len(prompts), device=fresh.device)
    io, s = (fresh[n, prompts.positions[role]] for role in ("IO", "S1"))
    absent = CleanRun(
        **{**run.__dict__, "prompts": ioi.IOIPrompts(**{**prompts.__dict__, "io": io, "s": s})}
    )
    read = torch.einsum("lhed,nd->lnhe", bridge.W_O.detach(), readout(bridge, absent))
    return (run.z * read).sum(dim=-1)


def _strong(per_prompt: Float[Tensor, "layer prompt head"], control: float) -> Tensor:
    """Above zero (corrected for the number of heads), above the control, a tenth of the largest."""
    n = per_prompt.shape[1]
    heads = per_prompt.shape[0] * per_prompt.shape[2]
    z = NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / heads)
    mean = per_prompt.mean(1)
    low = mean - z * per_prompt.std(1) / n**0.5
    return (low > 0) & (mean > control) & (mean >= SHARE_OF_STRONGEST * mean.max())


def _prefers(looks: dict[str, Tensor], first: str, *others: str) -> Tensor:
    """Looks at the first position with enough attention, and more than at each of the others."""
    mask = looks[first] >= LEAST_ATTENTION
    for other in others:
        mask = mask & (looks[first] > looks[other])
    return mask


def _top(score: Float[Tensor, "layer head"], mask: Bool[Tensor, "layer head"]) -> list[Head]:
    """The heads in the mask, highest score first."""
    found = [tuple(map(int, h)) for h in mask.nonzero()]
    return sorted(found, key=lambda h: -float(score[h]))


def _with_tokens(prompts: ioi.IOIPrompts, tokens: Tensor) -> ioi.IOIPrompts:
    return ioi.IOIPrompts(**{**prompts.__dict__, "tokens": tokens})
