"""Editing single components: the three ways agree with one another and with plain algebra."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from textbook import turn
from torch import Tensor
from transformers import AutoModelForCausalLM

from th_utils import models
from th_utils.errors import CompanionError
from th_utils.patching import (
    ComponentEdit,
    direct_query,
    edited_weights,
    end_attention,
    head_outputs,
    keep,
    remove,
    replace,
    replay,
    run_edited,
    scale,
)
from th_utils.runs import CleanRun, clean_run, rotary
from th_utils.svd import HeadSVD, ov_svd
from th_utils.tasks import ioi
from th_utils.weights import from_bridge


@pytest.fixture(scope="module")
def bridge(tiny_model):
    return models.load(tiny_model)


@pytest.fixture(scope="module")
def svd(bridge) -> HeadSVD:
    return ov_svd(from_bridge(bridge))


@pytest.fixture(scope="module")
def run(bridge) -> CleanRun:
    return clean_run(bridge, ioi.prompts(bridge.tokenizer, 8, seed=5))


@pytest.fixture(scope="module")
def tokens(run) -> Tensor:
    return run.prompts.tokens


def close(found: Tensor, expected: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(found.float(), expected.float(), atol=atol, rtol=1e-5)


def differs(first: Tensor, second: Tensor) -> bool:
    """By enough that agreement within the tolerances here would be no accident."""
    return float((first - second).abs().max()) > 1e-2


def hooks_on(bridge) -> list[str]:
    return [name for name, hook in bridge.hook_dict.items() if hook.fwd_hooks]


def forward(
    bridge,
    tokens: Tensor,
    edits: tuple[ComponentEdit, ...] = (),
    positions: Tensor | None = None,
    patterns: list[Tensor] | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """Logits and attention patterns [prompt, head, pos, pos], attention written out head by head.

    `patterns`, where given, are used in place of the model's own.
    """
    n, length = tokens.shape
    _, cache = bridge.run_with_cache(tokens, names_filter=["blocks.0.hook_resid_pre"])
    x = cache["blocks.0.hook_resid_pre"]
    heads, d_head = bridge.cfg.n_heads, bridge.cfg.d_head
    later = torch.ones(length, length).triu(1).bool()
    embedding, used = rotary(bridge), []
    turns = torch.eye(d_head).expand(length, -1, -1)
    if embedding is not None:
        turns = torch.stack([turn(embedding, p, d_head).float() for p in range(length)])
    for layer in range(bridge.cfg.n_layers):
        block, attn = bridge.blocks[layer], bridge.blocks[layer].attn
        group = heads // attn.W_K.shape[0]
        normed, out, seen = block.ln1(x), torch.zeros_like(x), []

        def project(name: str, i: int, attn=attn, normed=normed) -> Tensor:
            bias = getattr(attn, f"b_{name}")
            return normed @ getattr(attn, f"W_{name}")[i] + (0 if bias is None else bias[i])

        for head in range(heads):
            query = torch.einsum("npd,pde->npe", project("Q", head), turns)
            key = torch.einsum("npd,pde->npe", project("K", head // group), turns)
            scores = (query @ key.mT / math.sqrt(d_head)).masked_fill(later, -math.inf)
            pattern = scores.softmax(-1) if patterns is None else patterns[layer][:, head]
            seen.append(pattern)
            output = pattern @ project("V", head // group) @ attn.W_O[head]
            for edit in edits:
                if (edit.layer, edit.head) == (layer, head):
                    if positions is None:
                        output = edit.apply(output)
                    else:
                        at = torch.arange(n), positions
                        output = output.clone()
                        output[at] = edit.apply(output[at])
            out = out + output
        used.append(torch.stack(seen, dim=1))
        out = out if attn.b_O is None else out + attn.b_O
        if bridge.cfg.parallel_attn_mlp:
            x = x + out + block.mlp(block.ln2(x))
        else:
            x = x + out
            x = x + block.mlp(block.ln2(x))
    return bridge.ln_final(x) @ bridge.W_U + bridge.b_U, used


def test_the_forward_pass_written_out_is_the_models(bridge, tokens):
    """The yardstick of this module measures right."""
    logits, patterns = forward(bridge, tokens)
    measured, cache = bridge.run_with_cache(tokens)
    close(logits, measured, atol=2e-5)
    for layer, pattern in enumerate(patterns):
        close(pattern, cache[f"blocks.{layer}.attn.hook_pattern"])


# --- one edit as algebra


@pytest.fixture(scope="module")
def toy() -> tuple[HeadSVD, Tensor]:
    """Random write directions of one layer of two heads, and some outputs of the second head."""
    generator = torch.Generator().manual_seed(0)
    square = torch.randn(1, 2, 9, 9, generator=generator, dtype=torch.float64)
    V = torch.linalg.qr(square).Q[..., :4]
    S = torch.ones(1, 2, 4, dtype=torch.float64)
    return HeadSVD(V, S, V), torch.randn(3, 5, 9, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("components", [[0], [2, 1], [0, 1, 2, 3]])
def test_edits_of_an_output(toy, components):
    svd, output = toy
    V = svd.V[0, 1]
    coefficients = output @ V[:, components]
    inside = coefficients @ V[:, components].T
    others = [k for k in range(4) if k not in components]

    def edited(edit: ComponentEdit) -> Tensor:
        found = edit.apply(output)
        torch.testing.assert_close(found @ V[:, others], edit.outside * output @ V[:, others])
        return found

    removed, kept = edited(remove(svd, 0, 1, components)), edited(keep(svd, 0, 1, components))
    torch.testing.assert_close(removed, output - inside)
    torch.testing.assert_close(kept, inside)
    torch.testing.assert_close(removed + kept, output)
    torch.testing.assert_close(remove(svd, 0, 1, components).apply(removed), removed)
    for factor in (-1.0, 0.0, 1.0, 2.5):
        scaled = edited(scale(svd, 0, 1, components, factor))
        torch.testing.assert_close(scaled, output + (factor - 1) * inside)
    value = torch.arange(1.0, 1 + len(components), dtype=torch.float64)
    replaced = edited(replace(svd, 0, 1, components, value))
    torch.testing.assert_close(replaced @ V[:, components], value.expand(3, 5, -1))
    torch.testing.assert_close(edited(replace(svd, 0, 1, components, coefficients)), output)


def test_editing_outputs_is_editing_weights(toy):
    svd, z = toy[0], torch.randn(6, 4, generator=torch.Generator().manual_seed(1)).double()
    W_O = torch.randn(4, 9, generator=torch.Generator().manual_seed(2)).double()
    for edit in (remove(svd, 0, 0, [1]), keep(svd, 0, 0, [1, 3]), scale(svd, 0, 0, [0], 3.0)):
        torch.testing.assert_close(edit.apply(z @ W_O), z @ edit.apply(W_O))


def test_a_component_of_a_head_is_what_its_svd_says(bridge, svd, run):
    """Removing all components silences a head; each writes s_k (x . u_k) along v_k."""
    layer, head = 1, 2
    rank = svd.S.shape[-1]
    output = head_outputs(bridge, run, layer, head)
    close(remove(svd, layer, head, list(range(rank))).apply(output), torch.zeros_like(output))
    W_V = from_bridge(bridge).W_V[layer, head // (bridge.cfg.n_heads // run.values.shape[3])]
    x = torch.randn(5, W_V.shape[0], generator=torch.Generator().manual_seed(0))
    written = x @ W_V @ bridge.blocks[layer].attn.W_O[head]
    U, S, V = (part[layer, head] for part in (svd.U, svd.S, svd.V))
    for k in range(rank):
        expected = S[k] * (x @ U[:, k])[:, None] * V[:, k]
        close(written - remove(svd, layer, head, [k]).apply(written), expected)


# --- the forward pass with edits


def edit_of(svd: HeadSVD, kind: str, layer: int = 1, head: int = 2) -> ComponentEdit:
    return {
        "remove": lambda: remove(svd, layer, head, [0, 3]),
        "keep": lambda: keep(svd, layer, head, [1]),
        "scale": lambda: scale(svd, layer, head, [0], -4.0),
    }[kind]()


@pytest.mark.parametrize("kind", ["remove", "keep", "scale"])
def test_edited_forward_weights_and_algebra_agree(bridge, svd, tokens, kind):
    edit = edit_of(svd, kind)
    logits, _ = run_edited(bridge, tokens, [edit])
    expected, _ = forward(bridge, tokens, (edit,))
    close(logits, expected, atol=2e-5)
    with edited_weights(bridge, [edit]):
        close(bridge(tokens), logits)
    assert differs(logits, bridge(tokens))


def test_an_edited_checkpoint_says_the_same(tiny_model, bridge, svd, tokens, tmp_path):
    """The component taken out of the raw weights on disk, and the model loaded by transformers.

    A raw value bias passes through the output weights too. Compatibility mode keeps what it adds
    in b_O, unedited; so it is given back here.
    """
    layer, head, k = 1, 2, 0
    heads, d_head = bridge.cfg.n_heads, bridge.cfg.d_head
    v = svd.V[layer, head, :, k]
    W_O = from_bridge(bridge).W_O[layer, head]
    change = -(W_O @ v)[:, None] * v  # of the folded weights; centred directions need no more
    tensors = load_file(tiny_model / "model.safetensors")
    config = json.loads((tiny_model / "config.json").read_text())
    at = slice(head * d_head, (head + 1) * d_head)
    if config["model_type"] == "gpt2":
        stem = f"transformer.h.{layer}"
        tensors[f"{stem}.attn.c_proj.weight"][at] += change
        value = slice(2 * heads * d_head + at.start, 2 * heads * d_head + at.stop)
        bias = tensors[f"{stem}.attn.c_attn.bias"][value]
        weight = tensors[f"{stem}.attn.c_attn.weight"][:, value]
        bias = bias + tensors[f"{stem}.ln_1.bias"] @ weight
        tensors[f"{stem}.attn.c_proj.bias"] -= bias @ change
    elif config["model_type"] == "gpt_neox":
        stem = f"gpt_neox.layers.{layer}"
        tensors[f"{stem}.attention.dense.weight"][:, at] += change.T
        fused = tensors[f"{stem}.attention.query_key_value.weight"].view(heads, 3, d_head, -1)
        bias = tensors[f"{stem}.attention.query_key_value.bias"].view(heads, 3, d_head)[head, 2]
        bias = bias + fused[head, 2] @ tensors[f"{stem}.input_layernorm.bias"]
        tensors[f"{stem}.attention.dense.bias"] -= bias @ change
    else:
        tensors[f"model.layers.{layer}.self_attn.o_proj.weight"][:, at] += change.T
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with torch.no_grad():
        edited = AutoModelForCausalLM.from_pretrained(tmp_path)(tokens).logits.log_softmax(-1)
        before = AutoModelForCausalLM.from_pretrained(tiny_model)(tokens).logits.log_softmax(-1)
    logits, _ = run_edited(bridge, tokens, [remove(svd, layer, head, [k])])
    close(logits.log_softmax(-1), edited, atol=5e-5)
    assert differs(edited, before)


def test_edits_of_several_heads_and_layers(bridge, svd, tokens):
    edits = (
        remove(svd, 0, 1, [0, 1]),
        keep(svd, 2, 3, [2]),
        scale(svd, 0, 0, [1], 3.0),
        remove(svd, 0, 1, [4]),
    )
    expected, _ = forward(bridge, tokens, edits)
    close(run_edited(bridge, tokens, edits)[0], expected, atol=2e-5)
    with edited_weights(bridge, edits):
        close(bridge(tokens), expected, atol=2e-5)


@pytest.mark.parametrize(
    "first, second, alone",
    [
        (("scale", [0], 2.0), ("scale", [0], 3.0), ("scale", [0], 6.0)),
        (("keep", [0, 1]), ("keep", [1, 2]), ("keep", [1])),
        (("remove", [0]), ("remove", [0, 1]), ("remove", [0, 1])),
    ],
)
def test_edits_of_one_head_follow_one_another(bridge, svd, tokens, first, second, alone):
    def make(kind: str, *how) -> ComponentEdit:
        return {"scale": scale, "keep": keep, "remove": remove}[kind](svd, 1, 2, *how)

    expected, _ = run_edited(bridge, tokens, [make(*alone)])
    both = [make(*first), make(*second)]
    close(run_edited(bridge, tokens, both)[0], expected)
    with edited_weights(bridge, both):
        close(bridge(tokens), expected)


def test_edits_at_one_position_leave_those_before_it_alone(bridge, svd, run, tokens):
    positions = run.prompts.positions["S2"]
    for edit in (edit_of(svd, "remove"), edit_of(svd, "scale", layer=0)):
        logits, _ = run_edited(bridge, tokens, [edit], positions=positions)
        expected, _ = forward(bridge, tokens, (edit,), positions)
        close(logits, expected, atol=2e-5)
        clean = bridge(tokens)
        for i, at in enumerate(positions.tolist()):
            close(logits[i, :at], clean[i, :at])
            assert differs(logits[i, at:], clean[i, at:])


def test_nothing_changes_without_a_change(bridge, svd, tokens):
    clean = bridge(tokens)
    close(run_edited(bridge, tokens, [])[0], clean, atol=0)
    close(run_edited(bridge, tokens, [scale(svd, 1, 0, [0, 1], 1.0)])[0], clean)
    everything = list(range(svd.S.shape[-1]))
    close(run_edited(bridge, tokens, [keep(svd, 1, 0, everything)])[0], clean)
    close(run_edited(bridge, tokens, [], freeze_attention=True)[0], clean)


def test_replacing_sets_the_coefficients(bridge, svd, run, tokens):
    """By values for all, for each prompt, at one position or at all of them."""
    n, length = tokens.shape
    layer, head, components = 1, 2, [0, 3]
    per_prompt = torch.randn(n, 2, generator=torch.Generator().manual_seed(0))
    end = run.prompts.positions["end"]
    edit = replace(svd, layer, head, components, per_prompt)
    close(
        run_edited(bridge, tokens, [edit], positions=end)[0],
        forward(bridge, tokens, (edit,), end)[0],
        atol=2e-5,
    )
    common = replace(svd, layer, head, components, per_prompt[0])
    close(run_edited(bridge, tokens, [common])[0], forward(bridge, tokens, (common,))[0], 2e-5)
    spread = replace(svd, layer, head, components, per_prompt[:, None].expand(n, length, 2))
    expected = forward(bridge, tokens, (spread,))[0]
    close(run_edited(bridge, tokens, [spread])[0], expected, atol=2e-5)
    close(run_edited(bridge, tokens, [edit])[0], expected, atol=2e-5)
    # as many positions as prompts: a value for each prompt must not be taken for one each position
    square, few = tokens[:, :n], per_prompt[:, None].expand(n, n, 2)
    expected = forward(bridge, square, (replace(svd, layer, head, components, few),))[0]
    close(run_edited(bridge, square, [edit])[0], expected, atol=2e-5)


def test_replacing_by_zero_is_removing(bridge, svd, tokens):
    edit = replace(svd, 1, 2, [0], torch.zeros(1))
    removed = run_edited(bridge, tokens, [remove(svd, 1, 2, [0])])[0]
    close(run_edited(bridge, tokens, [edit])[0], removed)


def test_frozen_attention_is_the_clean_attention(bridge, svd, run, tokens):
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(bridge.cfg.n_layers)]
    clean_logits, clean = forward(bridge, tokens)
    for positions in (None, run.prompts.positions["end"]):
        edit = edit_of(svd, "scale", layer=0)
        frozen, kept = run_edited(
            bridge, tokens, [edit], positions=positions, freeze_attention=True, keep_hooks=names
        )
        free, moved = run_edited(bridge, tokens, [edit], positions=positions, keep_hooks=names)
        for name, pattern in zip(names, clean, strict=True):
            close(kept[name], pattern)
        assert any(differs(moved[name], p) for name, p in zip(names, clean, strict=True))
        close(frozen, forward(bridge, tokens, (edit,), positions, clean)[0], atol=2e-5)
        assert differs(frozen, free) and differs(frozen, clean_logits)


def test_kept_activations_are_those_of_the_edited_run(bridge, svd, tokens):
    edit = edit_of(svd, "remove", layer=0)
    name = "blocks.1.attn.hook_pattern"
    _, kept = run_edited(bridge, tokens, [edit], keep_hooks=[name])
    assert list(kept) == [name]
    close(kept[name], forward(bridge, tokens, (edit,))[1][1])


# --- nothing stays behind


def parameters(bridge) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in bridge.named_parameters()}


def assert_untouched(bridge, before: dict[str, Tensor]) -> None:
    for name, parameter in bridge.named_parameters():
        assert torch.equal(parameter, before[name]), name


def test_weights_are_restored_bit_for_bit(bridge, svd, tokens):
    before, logits = parameters(bridge), bridge(tokens)
    edits = [edit_of(svd, "remove"), edit_of(svd, "scale"), edit_of(svd, "keep", layer=0)]
    with edited_weights(bridge, edits):
        changed = [n for n, p in bridge.named_parameters() if not torch.equal(p, before[n])]
        assert changed and all("attn" in name or "attention" in name for name in changed)
    assert_untouched(bridge, before)
    assert torch.equal(bridge(tokens), logits)


def test_weights_are_restored_after_an_exception(bridge, svd):
    before = parameters(bridge)
    with pytest.raises(KeyError), edited_weights(bridge, [edit_of(svd, "remove")]):
        raise KeyError("inside")
    assert_untouched(bridge, before)
    # an exception between two edits
    by_value = replace(svd, 1, 2, [0], torch.zeros(1))
    with pytest.raises(CompanionError, match="not a weight edit"):
        with edited_weights(bridge, [edit_of(svd, "remove"), by_value]):
            pass
    assert_untouched(bridge, before)


def test_only_the_edited_head_changes(bridge, svd):
    before = from_bridge(bridge).W_O.clone()
    with edited_weights(bridge, [edit_of(svd, "remove")]):
        during = from_bridge(bridge).W_O.clone()
    same = (before == during).flatten(2).all(-1)
    assert (~same).nonzero().tolist() == [[1, 2]]


def test_no_hook_is_left(bridge, svd, tokens):
    for freeze in (False, True):
        names = ["blocks.1.attn.hook_pattern"]
        run_edited(
            bridge, tokens, [edit_of(svd, "keep")], freeze_attention=freeze, keep_hooks=names
        )
        assert not hooks_on(bridge)


def test_no_hook_is_left_after_an_exception(bridge, svd, tokens):
    class Interrupted(ComponentEdit):
        def apply(self, output):
            raise KeyboardInterrupt

    before = bridge(tokens)
    edit = edit_of(svd, "remove")
    for freeze in (False, True):
        with pytest.raises(KeyboardInterrupt):
            run_edited(bridge, tokens, [Interrupted(**edit.__dict__)], freeze_attention=freeze)
        assert not hooks_on(bridge)
        assert torch.equal(bridge(tokens), before)


# --- replay: the end position alone


def cases(bridge, svd: HeadSVD, run: CleanRun, layer: int) -> list[ComponentEdit]:
    last = bridge.cfg.n_heads - 1
    return [
        remove(svd, layer, 0, [0]),
        scale(svd, layer, last, [0, 1, 2], -3.0),
        keep(svd, layer, 1, [2]),
        replace(svd, layer, last, [1], 2 * torch.ones(len(run.prompts), 1)),
    ]


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_replay_is_the_forward_pass(bridge, svd, run, tokens, layer):
    prompts, n = run.prompts, torch.arange(len(run.prompts))
    end, n_layers = prompts.positions["end"], bridge.cfg.n_layers
    watch = [(at, h) for at in range(layer + 1, n_layers) for h in range(bridge.cfg.n_heads)]
    edits = cases(bridge, svd, run, layer)
    outputs = [head_outputs(bridge, run, layer, edit.head) for edit in edits]
    delta = torch.stack([e.apply(o) - o for e, o in zip(edits, outputs, strict=True)], dim=1)
    found = replay(bridge, run, layer, delta, watch=watch)
    assert found.logits.shape == (len(n), len(edits), 2) and set(found.patterns) == set(watch)
    names = [f"blocks.{at}.attn.hook_pattern" for at in range(n_layers)]
    for case, edit in enumerate(edits):
        logits, kept = run_edited(bridge, tokens, [edit], positions=end, keep_hooks=names)
        final = logits[n, end]
        close(found.logits[:, case, 0], final[n, prompts.io], atol=1e-4)
        close(found.logits[:, case, 1], final[n, prompts.s], atol=1e-4)
        close(
            found.logit_difference[:, case], final[n, prompts.io] - final[n, prompts.s], atol=1e-4
        )
        for at, head in watch:
            pattern = kept[f"blocks.{at}.attn.hook_pattern"][n, head, end]
            close(found.patterns[at, head][:, case], pattern, atol=2e-5)
    assert differs(found.logit_difference, run.logit_difference[:, None])
    assert not hooks_on(bridge)


def test_replay_of_nothing_is_the_clean_run(bridge, run):
    delta = torch.zeros(len(run.prompts), 2, bridge.cfg.d_model)
    last = bridge.cfg.n_layers - 1
    found = replay(bridge, run, 0, delta, watch=[(last, 1)])
    close(found.logits, run.logits[:, None].expand(-1, 2, -1), atol=2e-5)
    close(found.patterns[last, 1], run.pattern["end"][last, :, 1][:, None].expand(-1, 2, -1))


def test_replay_watches_later_heads_only(bridge, run):
    delta = torch.zeros(len(run.prompts), 1, bridge.cfg.d_model)
    with pytest.raises(CompanionError, match="not after layer 1"):
        replay(bridge, run, 1, delta, watch=[(2, 0), (1, 0)])
    for pair in ((bridge.cfg.n_layers, 0), (2, bridge.cfg.n_heads), (2, -1)):
        with pytest.raises(CompanionError, match="out of range"):
            replay(bridge, run, 1, delta, watch=[pair])
    for layer in (-1, bridge.cfg.n_layers):
        with pytest.raises(CompanionError, match="out of range"):
            replay(bridge, run, layer, delta)


# --- direct_query: one reader's query alone


def test_direct_query_of_nothing_is_the_clean_pattern(bridge, run):
    delta = torch.zeros(len(run.prompts), 2, bridge.cfg.d_model)
    for layer in range(bridge.cfg.n_layers):
        for head in range(bridge.cfg.n_heads):
            clean = run.pattern["end"][layer, :, head]
            found = direct_query(bridge, run, layer, head, delta)
            close(found, clean[:, None].expand(-1, 2, -1))
            query = run.query[layer, :, head][:, None]
            close(end_attention(run, layer, head, query, bridge)[:, 0], clean)


@pytest.mark.parametrize("seed", range(2))
def test_direct_query_recomputes_norm_and_softmax(bridge, run, tokens, seed):
    """Against norm, query and scores written out, with the keys of the model's own cache."""
    prompts, n = run.prompts, torch.arange(len(run.prompts))
    end, embedding = prompts.positions["end"], rotary(bridge)
    generator = torch.Generator().manual_seed(seed)
    delta = torch.randn(len(n), 3, bridge.cfg.d_model, generator=generator)
    weights = from_bridge(bridge)
    _, cache = bridge.run_with_cache(tokens)
    for layer, head in ((1, 0), (2, bridge.cfg.n_heads - 1)):
        attn, stem = bridge.blocks[layer].attn, f"blocks.{layer}"
        x = cache[f"{stem}.hook_resid_pre"][n, end][:, None] + delta
        if bridge.cfg.normalization_type.startswith("LN"):
            x = x - x.mean(-1, keepdim=True)
        normed = x / (x.square().mean(-1, keepdim=True) + bridge.cfg.eps).sqrt()
        query = normed @ weights.W_Q[layer, head]
        if attn.b_Q is not None:
            query = query + attn.b_Q[head]
        found = direct_query(bridge, run, layer, head, delta)
        keys = cache[f"{stem}.attn.hook_k"][:, :, head // weights.group]
        for i in n.tolist():
            at = int(end[i])
            scores = torch.zeros(3, at + 1)
            for p in range(at + 1):
                key = keys[i, p]
                if embedding is not None:
                    key = turn(embedding, at - p, len(key)).float() @ key
                scores[:, p] = query[i] @ key / math.sqrt(bridge.cfg.d_head)
            close(found[i, :, : at + 1], scores.softmax(-1), atol=2e-5)
            assert found[i, :, at + 1 :].abs().sum() == 0
        assert differs(found, run.pattern["end"][layer, :, head][:, None])


def test_direct_query_agrees_with_replay_where_nothing_is_between(tiny_neox):
    """A head's write, one layer before the reader, beside an MLP that does not read it.

    Replay recomputes the reader's key at the end position too, so the attention to all earlier
    positions is compared, as shares of its sum.
    """
    bridge = models.load(tiny_neox)
    svd = ov_svd(from_bridge(bridge))
    run = clean_run(bridge, ioi.prompts(bridge.tokenizer, 8, seed=5))
    layer, reader = 1, (2, 1)
    output = head_outputs(bridge, run, layer, 0)
    delta = (scale(svd, layer, 0, [0, 1], -3.0).apply(output) - output)[:, None]
    direct = direct_query(bridge, run, *reader, delta)
    full = replay(bridge, run, layer, delta, watch=[reader]).patterns[reader]
    for i, at in enumerate(run.prompts.positions["end"].tolist()):
        shares = [pattern[i, 0, :at] / pattern[i, 0, :at].sum() for pattern in (direct, full)]
        close(*shares, atol=2e-5)
    assert differs(direct[:, 0], run.pattern["end"][reader[0], :, reader[1]])


@pytest.mark.parametrize("layer, head", [(-1, 0), (3, 0), (1, -1), (1, 99)])
def test_readers_out_of_range_are_refused(bridge, run, layer, head):
    delta = torch.zeros(len(run.prompts), 1, bridge.cfg.d_model)
    with pytest.raises(CompanionError, match="out of range"):
        direct_query(bridge, run, layer, head, delta)
    with pytest.raises(CompanionError, match="out of range"):
        head_outputs(bridge, run, layer, head)


# --- what is refused


@pytest.mark.parametrize("make", [remove, keep, lambda *at: scale(*at, 2.0)])
def test_heads_and_components_out_of_range_are_refused(svd, make):
    layers, heads, _, rank = svd.V.shape
    for layer in (-1, layers):
        with pytest.raises(CompanionError, match=f"layer {layer} is out of range: .* {layers}"):
            make(svd, layer, 0, [0])
    for head in (-1, heads):
        with pytest.raises(CompanionError, match=f"head {head} is out of range: .* {heads}"):
            make(svd, 0, head, [0])
    for components in ([], [rank], [0, -1]):
        with pytest.raises(CompanionError, match=f"give some of 0 to {rank - 1}"):
            make(svd, 0, 0, components)
