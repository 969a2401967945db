"""Role criteria on planted measurements, each condition by itself, and the measurements."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist
from types import SimpleNamespace

import pytest
import torch
import yaml
from torch import Tensor
from transformers import AutoModelForCausalLM

from th_utils import models, roles
from th_utils.attention import attention_to, direct_logit_attribution, inhibition_score
from th_utils.errors import CompanionError
from th_utils.patching import direct_query
from th_utils.paths import data_path
from th_utils.roles import ROLES, Measured, Roles, judge
from th_utils.runs import clean_run
from th_utils.tasks import ioi

LAYERS, PROMPTS, HEADS = 3, 40, 4
MOVER, SECOND_MOVER, NEGATIVE, INHIBITION = (2, 1), (2, 2), (2, 3), (1, 0)
DUPLICATE, PREVIOUS, INDUCTION = (0, 1), (0, 2), (1, 3)
PLANTED = {
    "mover": [MOVER, SECOND_MOVER],
    "negative-mover": [NEGATIVE],
    "inhibition": [INHIBITION],
    "duplicate-token": [DUPLICATE],
    "previous-token": [PREVIOUS],
    "induction": [INDUCTION],
}
LOOKS = ("end>IO", "end>S1", "end>S2", "S2>S1", "S2>S1+1", "S1+1>S1")


@pytest.fixture
def m() -> Measured:
    """What would be measured on a model with the planted heads; noise in all others."""
    generator = torch.Generator().manual_seed(0)

    def noise(size: float) -> Tensor:
        return size * torch.randn(LAYERS, PROMPTS, HEADS, generator=generator)

    def flat(value: float) -> Tensor:
        return torch.full((LAYERS, HEADS), value)

    measured = Measured(
        dla=noise(0.1),
        dla_absent=noise(0.1),
        inhibition=noise(0.01),
        inhibition_random=noise(0.01),
        looks={look: flat(0.05) for look in LOOKS},
        sequence={role: flat(0.03) for role in ROLES[3:]},
        sequence_control={role: flat(0.04) for role in ROLES[3:]},
    )
    n = slice(None)
    for head, strength in ((MOVER, 2.0), (SECOND_MOVER, 1.0), (NEGATIVE, -1.5)):
        measured.dla[head[0], n, head[1]] += strength
        measured.looks["end>IO"][head] = 0.5
    measured.inhibition[INHIBITION[0], n, INHIBITION[1]] += 0.3
    measured.looks["end>S2"][INHIBITION] = 0.4
    for role, head, look in (
        ("duplicate-token", DUPLICATE, "S2>S1"),
        ("previous-token", PREVIOUS, "S1+1>S1"),
        ("induction", INDUCTION, "S2>S1+1"),
    ):
        measured.sequence[role][head] = 0.8
        measured.looks[look][head] = 0.3
    return measured


def set_sample(per_prompt: Tensor, head: tuple[int, int], mean: float, deviation: float) -> None:
    """Give a head's values exactly this mean and (unbiased) standard deviation over prompts."""
    drawn = torch.linspace(-1, 1, PROMPTS)
    per_prompt[head[0], :, head[1]] = mean + deviation * (drawn - drawn.mean()) / drawn.std()


# --- the criteria


def test_planted_heads_are_found_strongest_first(m):
    found = judge(m)
    assert found.source == "measured"
    assert found.heads == PLANTED
    for role in ROLES:
        assert len(found.scores[role]) == len(found.heads[role])
        assert found.scores[role] == sorted(found.scores[role], reverse=True)
    assert found.scores["mover"] == pytest.approx([2.0, 1.0], abs=0.1)
    assert found.scores["negative-mover"] == pytest.approx([1.5], abs=0.1)
    assert found.scores["inhibition"] == pytest.approx([0.3], abs=0.01)
    assert found.scores["induction"] == pytest.approx([0.76])  # above its control
    assert found.controls["mover"] == float(m.dla_absent.mean(1).abs().max())
    assert found.controls["inhibition"] == float(m.inhibition_random.mean(1).abs().max())
    assert found.controls["induction"] == pytest.approx(0.04)
    assert set(found.controls) == set(ROLES)
    assert set(roles.CRITERIA) == set(ROLES)


def test_strength_decides_the_order_not_the_layer(m):
    m.dla[MOVER[0], :, MOVER[1]] -= 1.5
    assert judge(m).heads["mover"] == [SECOND_MOVER, MOVER]


def test_nothing_is_found_in_noise(m):
    empty = replace(
        m,
        dla=m.dla_absent,
        inhibition=torch.zeros_like(m.inhibition),
        sequence=m.sequence_control,
    )
    found = judge(empty)
    assert found.heads == {role: [] for role in ROLES}
    assert all(found.main(role) is None for role in ROLES)
    for role in ROLES:
        with pytest.raises(CompanionError, match=f"no {role} head was found"):
            found.strongest(role)


@pytest.mark.parametrize("role", ["mover", "negative-mover", "inhibition"])
def test_a_control_as_large_as_the_score_leaves_no_head(m, role):
    control = m.inhibition_random if role == "inhibition" else m.dla_absent
    for sign in (1, -1):  # of any head, of either sign
        control[0, :, 3] = sign * 5.0
        assert judge(m).heads[role] == []
    others = set(ROLES) - {role} - ({"mover", "negative-mover"} if role != "inhibition" else set())
    assert all(judge(m).heads[other] == PLANTED[other] for other in others)


def test_a_control_between_two_heads_leaves_the_stronger(m):
    m.dla_absent[1, :, 1] = -1.2
    assert judge(m).heads["mover"] == [MOVER]


@pytest.mark.parametrize(
    "role, head",
    [("mover", SECOND_MOVER), ("negative-mover", NEGATIVE), ("inhibition", INHIBITION)],
)
def test_the_confidence_is_corrected_for_the_number_of_heads(m, role, head):
    """A head that would pass by itself, at 95%, does not among as many heads as there are."""
    quiet = replace(
        m,
        dla_absent=torch.zeros_like(m.dla_absent),
        inhibition_random=torch.zeros_like(m.inhibition_random),
    )
    values, sign = {
        "mover": (quiet.dla, 1),
        "negative-mover": (quiet.dla, -1),
        "inhibition": (quiet.inhibition, 1),
    }[role]
    alone = NormalDist().inv_cdf(0.95)
    corrected = NormalDist().inv_cdf(1 - 0.05 / (LAYERS * HEADS))
    mean = 1.0

    def found_at(z: float) -> bool:
        """Whether the head is found when its mean is z standard errors."""
        set_sample(values, head, sign * mean, mean / z * math.sqrt(PROMPTS))
        return head in judge(quiet).heads[role]

    assert corrected > 1.5 * alone
    assert not found_at(1.1 * alone) and not found_at(0.98 * corrected)
    assert found_at(1.02 * corrected)


@pytest.mark.parametrize("role, strongest", [("mover", 2.0), ("inhibition", 0.3)])
def test_less_than_a_tenth_of_the_strongest_is_too_little(m, role, strongest):
    quiet = replace(
        m,
        dla_absent=torch.zeros_like(m.dla_absent),
        inhibition_random=torch.zeros_like(m.inhibition_random),
    )
    weak, values, look = {
        "mover": (SECOND_MOVER, quiet.dla, "end>IO"),
        "inhibition": ((0, 0), quiet.inhibition, "end>S2"),
    }[role]
    first = PLANTED[role][0]
    set_sample(values, first, strongest, 0.01)
    quiet.looks[look][weak] = 0.4
    set_sample(values, weak, 0.098 * strongest, 0.001)
    assert judge(quiet).heads[role] == [first]
    set_sample(values, weak, 0.102 * strongest, 0.001)
    assert judge(quiet).heads[role] == [first, weak]


@pytest.mark.parametrize("other", ["end>S1", "end>S2"])
def test_a_mover_looks_at_the_indirect_object_most(m, other):
    m.looks[other][MOVER] = 0.5
    assert judge(m).heads["mover"] == [SECOND_MOVER]
    m.looks[other][MOVER] = 0.49
    assert judge(m).heads["mover"] == [MOVER, SECOND_MOVER]


@pytest.mark.parametrize("other", ["end>IO", "end>S1"])
def test_an_inhibition_head_looks_at_the_second_mention_most(m, other):
    m.looks[other][INHIBITION] = 0.4
    assert judge(m).heads["inhibition"] == []
    m.looks[other][INHIBITION] = 0.39
    assert judge(m).heads["inhibition"] == [INHIBITION]


@pytest.mark.parametrize(
    "role, look, head",
    [
        ("mover", "end>IO", MOVER),
        ("inhibition", "end>S2", INHIBITION),
        ("duplicate-token", "S2>S1", DUPLICATE),
        ("previous-token", "S1+1>S1", PREVIOUS),
        ("induction", "S2>S1+1", INDUCTION),
    ],
)
def test_a_head_that_hardly_looks_there_in_the_task_has_no_role(m, role, look, head):
    for other in LOOKS:
        m.looks[other][head] = 0.0
    m.looks[look][head] = 0.099
    assert judge(m).heads[role] == [h for h in PLANTED[role] if h != head]
    m.looks[look][head] = 0.101
    assert judge(m).heads[role] == PLANTED[role]


def test_a_negative_mover_looks_at_the_names_together(m):
    for look in ("end>IO", "end>S1", "end>S2"):
        m.looks[look][NEGATIVE] = 0.03
    assert judge(m).heads["negative-mover"] == []
    m.looks["end>S1"][NEGATIVE] = 0.05
    assert judge(m).heads["negative-mover"] == [NEGATIVE]


def test_the_strongest_mover_is_no_inhibition_head(m):
    """A head cannot be both: it is one or the other by where it looks, which excludes the other."""
    m.inhibition[MOVER[0], :, MOVER[1]] += 1.0
    found = judge(m)
    assert MOVER in found.heads["mover"] and MOVER not in found.heads["inhibition"]


@pytest.mark.parametrize("role", ROLES[3:])
def test_sequence_scores_stand_above_their_own_heads_control(m, role):
    head = PLANTED[role][0]
    m.sequence_control[role][head] = 0.51
    assert judge(m).heads[role] == []
    m.sequence_control[role][head] = 0.49
    assert judge(m).heads[role] == [head]
    m.sequence_control[role][(2, 0)] = 1.0  # another head's control is its own affair
    assert judge(m).heads[role] == [head]


# --- what is measured


@pytest.fixture(scope="module")
def bridge(tiny_model):
    return models.load(tiny_model)


@pytest.fixture(scope="module")
def run(bridge):
    return clean_run(bridge, ioi.prompts(bridge.tokenizer, 8, split="find"), rows=("end", "S2"))


def test_inhibition_effects_exchange_one_head_in_the_movers_queries(bridge, run):
    """Head by head and mover by mover, with outputs from full caches of both kinds of prompts."""
    prompts, n = run.prompts, torch.arange(len(run.prompts))
    at = prompts.positions
    movers = [(2, 1), (1, 0)]
    effect, control = roles.inhibition_effects(bridge, run, movers, seed=4)
    fresh = ioi.with_fresh_names(prompts, bridge.tokenizer, seed=4, split="find")
    caches = [bridge.run_with_cache(tokens)[1] for tokens in (prompts.tokens, fresh)]
    for layer in range(bridge.cfg.n_layers):
        later = [mover for mover in movers if mover[0] > layer]
        for head in range(bridge.cfg.n_heads):
            if not later:
                assert (
                    effect[layer, :, head].abs().max() == 0 == control[layer, :, head].abs().max()
                )
                continue
            name, W_O = f"blocks.{layer}.attn.hook_z", bridge.blocks[layer].attn.W_O[head]
            clean, other = (cache[name][n, at["end"], head] @ W_O for cache in caches)
            falls = []
            for mover in later:
                before = caches[0][f"blocks.{mover[0]}.attn.hook_pattern"][n, :, at["end"]]
                after = direct_query(bridge, run, *mover, (other - clean)[:, None])
                scores = [inhibition_score(p, at["IO"], at["S1"]) for p in (before, after)]
                falls.append(scores[0][:, mover[1]] - scores[1][:, 0])
            expected = torch.stack(falls).mean(0)
            torch.testing.assert_close(effect[layer, :, head], expected, atol=2e-5, rtol=1e-3)
            assert not torch.allclose(effect[layer, :, head], control[layer, :, head])
    assert effect[0].abs().max() > 1e-3


def test_no_mover_no_effect(bridge, run):
    effect, control = roles.inhibition_effects(bridge, run, [])
    assert effect.abs().max() == 0 == control.abs().max()
    first_layer, _ = roles.inhibition_effects(bridge, run, [(0, 1)])
    assert first_layer.abs().max() == 0


def test_the_random_control_is_as_long_as_the_exchange(bridge, run, monkeypatch):
    seen = []

    def spy(bridge, run, layer, head, delta):
        seen.append(delta)
        return direct_query(bridge, run, layer, head, delta)

    monkeypatch.setattr(roles, "direct_query", spy)
    roles.inhibition_effects(bridge, run, [(2, 0)])
    assert len(seen) == 4  # exchange and control, for each of two earlier layers
    for exchange, random in zip(seen[::2], seen[1::2], strict=True):
        torch.testing.assert_close(exchange.norm(dim=-1), random.norm(dim=-1), rtol=1e-4, atol=1e-6)
        cosine = torch.cosine_similarity(exchange, random, dim=-1)
        assert cosine.abs().mean() < 0.4


def test_absent_names_are_absent_and_attributed_like_the_real_ones(bridge, run):
    absent = roles._absent_attribution(bridge, run, seed=0, split="find")
    prompts, n = run.prompts, torch.arange(len(run.prompts))
    fresh = ioi.with_fresh_names(prompts, bridge.tokenizer, seed=1, split="find")
    io, s = (fresh[n, prompts.positions[role]] for role in ("IO", "S1"))
    for i in range(len(prompts)):
        assert not {int(io[i]), int(s[i])} & set(prompts.tokens[i].tolist())
    swapped = replace(run, prompts=replace(prompts, io=io, s=s))
    torch.testing.assert_close(absent, direct_logit_attribution(bridge, swapped))
    assert not torch.allclose(absent, direct_logit_attribution(bridge, run))


def test_looks_are_mean_attentions(bridge):
    run = clean_run(bridge, ioi.prompts(bridge.tokenizer, 6), rows=("end", "S2", "S1+1"))
    looks, at = roles.looks(run), run.prompts.positions
    assert set(looks) == set(LOOKS) == {f"{row}>{to}" for row, to in roles.LOOKS}
    _, cache = bridge.run_with_cache(run.prompts.tokens)
    for layer in range(bridge.cfg.n_layers):
        full = cache[f"blocks.{layer}.attn.hook_pattern"]
        for look in LOOKS:
            row, to = look.split(">")
            expected = torch.stack([full[i, :, at[row][i], at[to][i]] for i in range(6)]).mean(0)
            torch.testing.assert_close(looks[look][layer], expected, atol=1e-6, rtol=1e-4)
    assert torch.equal(looks["end>IO"], attention_to(run.pattern["end"], at["IO"]).mean(1))


class ByContent:
    """A bridge of one layer whose four heads look by rule, whatever the tokens are."""

    cfg = SimpleNamespace(n_layers=1, d_vocab=200, device="cpu")
    tokenizer = SimpleNamespace(all_special_ids=[0, 5])
    RULES = ("previous", "same", "after same", "distance")

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def run_with_cache(self, tokens: Tensor, names_filter: list[str]):
        self.seen.append(tokens)
        pattern = torch.zeros(len(tokens), 4, tokens.shape[1], tokens.shape[1])
        for i, row in enumerate(tokens.tolist()):
            for p in range(len(row)):
                first = row.index(row[p])
                after = first + 1 if first < p else p
                to = (max(p - 1, 0), first, after, max(p - roles.BLOCK, 0))
                for head, column in enumerate(to):
                    pattern[i, head, p, column] = 1
        return None, {name: pattern for name in names_filter}


def test_sequence_scores_tell_content_from_distance():
    bridge = ByContent()
    scores, control = roles.sequence_scores(bridge, seed=0)
    found = {role: score[0].tolist() for role, score in scores.items()}
    assert found["previous-token"] == [1, 0, 0, 0]
    assert found["duplicate-token"] == [0, 1, 0, 1]
    assert found["induction"] == [0, 0, 1, 0]
    said = {role: score[0].tolist() for role, score in control.items()}
    # the same distance without a repetition: only the head that goes by distance looks there
    assert said["duplicate-token"] == [0, 0, 0, 1]
    assert said["induction"] == [0, 0, 0, 0]
    # without a repetition, the two that go by content look at themselves: another distance
    assert said["previous-token"] == [0, 1, 1, 0]


def test_sequences_are_random_without_repetition_but_the_intended_one():
    bridge = ByContent()
    roles.sequence_scores(bridge, seed=0)
    repeated, plain = bridge.seen
    assert repeated.shape == plain.shape == (roles.SEQUENCES, 2 * roles.BLOCK)
    assert torch.equal(repeated[:, : roles.BLOCK], repeated[:, roles.BLOCK :])
    for rows, kinds in ((repeated, roles.BLOCK), (plain, 2 * roles.BLOCK)):
        assert all(len(set(row)) == kinds for row in rows.tolist())
        assert not {0, 5} & set(rows.flatten().tolist())  # special tokens mean something
    again = ByContent()
    roles.sequence_scores(again, seed=0)
    assert torch.equal(again.seen[0], repeated)
    roles.sequence_scores(again, seed=1)
    assert not torch.equal(again.seen[2], repeated)


# --- a whole search


def test_find_is_deterministic_and_travels_as_json(bridge):
    found = roles.find(bridge, n=8, seed=2)
    assert found.source == "measured" and set(found.heads) == set(ROLES)
    again = roles.find(bridge, n=8, seed=2)
    assert again == found and again.to_json() == found.to_json()
    assert Roles.from_json(found.to_json()) == found
    assert not [name for name, hook in bridge.hook_dict.items() if hook.fwd_hooks]
    other = roles.find(bridge, n=8, seed=2, split="report")
    assert other.controls != found.controls


def test_json_keeps_heads_as_pairs(m):
    found = judge(m)
    back = Roles.from_json(found.to_json())
    assert back == found and back["mover"] == [MOVER, SECOND_MOVER]
    assert back.main("mover") == MOVER and isinstance(back["mover"][0], tuple)
    assert back.strongest("mover") == MOVER
    assert roles.role_of(found, MOVER) == "mover" and roles.role_of(found, (0, 0)) == "other"


def test_heads_planted_in_a_models_weights_are_found(tiny_neox, tmp_path):
    """A head that looks one position back, by the rotary embedding, and one that looks for its
    own token, by the embeddings: found in a model of random weights, and nothing else.
    """
    model = AutoModelForCausalLM.from_pretrained(tiny_neox)
    previous, duplicate = (1, 0), (0, 2)
    config = model.config
    d_head = config.hidden_size // config.num_attention_heads

    def queries_and_keys(layer: int, head: int) -> tuple[Tensor, Tensor]:
        fused = model.gpt_neox.layers[layer].attention.query_key_value
        shape = (config.num_attention_heads, 3, d_head)
        return fused.weight.data.view(*shape, -1)[head], fused.bias.data.view(shape)[head]

    with torch.no_grad():
        # the first pair of coordinates turns by one radian a position: q leads k by one of them
        weight, bias = queries_and_keys(*previous)
        weight[:2], bias[:2] = 0, 0
        bias[0, 0], bias[0, 1] = 30 * math.cos(1), -30 * math.sin(1)
        bias[1, 0] = 30
        # the coordinates that do not turn compare tokens; no token here is longer than another
        embeddings = model.gpt_neox.embed_in.weight
        generator = torch.Generator().manual_seed(0)
        axes = torch.randn(embeddings.shape[0], d_head - 2, generator=generator)
        axes = axes / axes.norm(dim=-1, keepdim=True)
        embeddings.mul_(0.1)
        embeddings[:, : d_head - 2] = axes
        embeddings -= embeddings.mean(-1, keepdim=True)
        norm = model.gpt_neox.layers[duplicate[0]].input_layernorm
        norm.weight.fill_(1)
        norm.bias.fill_(0)
        weight, bias = queries_and_keys(*duplicate)
        weight[:2], bias[:2] = 0, 0
        for i in range(d_head - 2):
            weight[0, 2 + i, i] = weight[1, 2 + i, i] = 6.0
    model.save_pretrained(tmp_path)
    for file in tiny_neox.glob("tokenizer*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    found = roles.find(models.load(tmp_path), n=16)
    assert found["previous-token"] == [previous]
    assert found["duplicate-token"] == [duplicate]
    assert found["induction"] == []


# --- published roles


def test_published_roles_are_those_of_the_data():
    said = yaml.safe_load(data_path("models.yml").read_text(encoding="utf-8"))
    with_roles = [name for name, entry in said.items() if "published_roles" in entry]
    assert "gpt2" in with_roles
    for name in with_roles:
        found = roles.published(name)
        assert found.source == "published" and set(found.heads) == set(ROLES)
        for role in ROLES:
            labels = said[name]["published_roles"]["heads"].get(role, [])
            assert [roles.label(head) for head in found[role]] == labels
            layers, heads = said[name]["layers"], said[name]["heads"]
            assert all(layer < layers and head < heads for layer, head in found[role])
        assert Roles.from_json(found.to_json()) == found


def test_an_edition_without_published_roles_has_none():
    assert roles.published(models.DEFAULT).heads == {role: [] for role in ROLES}
    with pytest.raises(CompanionError, match="gpt2"):
        roles.published("gtp2")
