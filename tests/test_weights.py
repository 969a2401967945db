"""Attention weights from checkpoints and bridges, their folding, and rotary embeddings."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from textbook import random_weights, turn
from transformers import AutoModelForCausalLM
from transformers.models.gpt_neox.modeling_gpt_neox import (
    apply_rotary_pos_emb as neox_rotary,
)
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb as llama_rotary

from th_utils import models
from th_utils.errors import CompanionError
from th_utils.weights import (
    AttentionWeights,
    Rotary,
    fold,
    from_bridge,
    from_checkpoint,
    iter_layers,
    q4_1,
    read_config,
    rotary_of,
)

NAMES = ("W_Q", "W_K", "W_V", "W_O")
# Tensor name of the query weights of layer 1, and of the output, in each family.
QUERY = {
    "tiny_gpt2": "transformer.h.1.attn.c_attn.weight",
    "tiny_neox": "gpt_neox.layers.1.attention.query_key_value.weight",
    "tiny_llama": "model.layers.1.self_attn.q_proj.weight",
}
OUTPUT = {
    "tiny_gpt2": "transformer.h.1.attn.c_proj.weight",
    "tiny_neox": "gpt_neox.layers.1.attention.dense.weight",
    "tiny_llama": "model.layers.1.self_attn.o_proj.weight",
}


@pytest.fixture(scope="module")
def bridge(tiny_model):
    return models.load(tiny_model)


def family(directory: Path) -> str:
    return {"gpt2": "tiny_gpt2", "gpt_neox": "tiny_neox", "llama": "tiny_llama"}[
        read_config(directory)["model_type"]
    ]


def tensors_of(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")


def write(directory: Path, tensors: dict, config: dict | None) -> Path:
    """A checkpoint directory with these tensors, and a config.json unless it is None."""
    directory.mkdir(exist_ok=True)
    if config is not None:
        (directory / "config.json").write_text(json.dumps(config))
    save_file(
        {key: value.contiguous() for key, value in tensors.items()}, directory / "m.safetensors"
    )
    return directory


def assert_same(found: AttentionWeights, expected: AttentionWeights, atol: float = 1e-6) -> None:
    for name in NAMES:
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=atol, rtol=0)
    assert found.rotary == expected.rotary


# --- two sources, one value


def test_checkpoint_and_bridge_agree(tiny_model, bridge):
    found = from_checkpoint(tiny_model)
    assert_same(found, from_bridge(bridge))
    config = read_config(tiny_model)
    heads = config.get("n_head") or config["num_attention_heads"]
    assert (found.n_layers, found.n_heads, found.d_head) == (3, heads, 8)
    assert found.n_heads // found.group == found.W_K.shape[1] == found.W_V.shape[1]
    assert (found.rotary is None) == (config["model_type"] == "gpt2")


def test_scores_of_the_model_follow_from_weights_and_rotary(tiny_model, bridge):
    """Attention scores from the folded weights, biases and the rotary matrix equal the model's."""
    weights = from_checkpoint(tiny_model, dtype=torch.float64)
    tokens = torch.randint(5, 500, (2, 11), generator=torch.Generator().manual_seed(0))
    logits, cache = bridge.run_with_cache(tokens)
    lower = torch.ones(11, 11).tril().bool()
    for layer in range(weights.n_layers):
        x = cache[f"blocks.{layer}.hook_resid_pre"].double()
        centred = x if read_config(tiny_model)["model_type"] == "llama" else x - x.mean(-1, True)
        normed = centred / (centred.square().mean(-1, True) + bridge.cfg.eps).sqrt()
        attn = bridge.blocks[layer].attn
        for head in range(weights.n_heads):
            kv_head = head // weights.group
            query = normed @ weights.W_Q[layer, head]
            key = normed @ weights.W_K[layer, kv_head]
            if attn.b_Q is not None:
                query, key = query + attn.b_Q[head], key + attn.b_K[kv_head]
            if weights.rotary is None:
                scores = query @ key.mT
            else:
                turns = [[turn(weights.rotary, i - j, 8) for j in range(11)] for i in range(11)]
                turns = torch.stack([torch.stack(row) for row in turns])
                scores = torch.einsum("nid,ijde,nje->nij", query, turns, key)
            pattern = (scores / math.sqrt(8)).masked_fill(~lower, -math.inf).softmax(-1)
            found = cache[f"blocks.{layer}.attn.hook_pattern"][:, head].double()
            torch.testing.assert_close(found, pattern, atol=1e-5, rtol=0)
            measured = cache[f"blocks.{layer}.attn.hook_attn_scores"][:, head].double()
            torch.testing.assert_close(
                measured[:, lower], (scores / math.sqrt(8))[:, lower], atol=2e-5, rtol=1e-4
            )


def test_a_sharded_checkpoint_reads_like_a_whole_one(tiny_model, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    model.save_pretrained(tmp_path, max_shard_size="60KB")
    shards = list(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1 and (tmp_path / "model.safetensors.index.json").is_file()
    assert_same(from_checkpoint(tmp_path), from_checkpoint(tiny_model), atol=0)
    # files that the index does not name are not read
    save_file({QUERY["tiny_gpt2"]: torch.zeros(2, 2)}, tmp_path / "stray.safetensors")
    assert_same(from_checkpoint(tmp_path), from_checkpoint(tiny_model), atol=0)
    shards[0].unlink()
    with pytest.raises(CompanionError, match=shards[0].name):
        from_checkpoint(tmp_path)


def test_one_file_reads_like_its_directory(tiny_model):
    file = tiny_model / "model.safetensors"
    assert_same(from_checkpoint(str(file)), from_checkpoint(tiny_model), atol=0)


def test_layers_come_one_after_another(tiny_model):
    whole = from_checkpoint(tiny_model)
    layers = list(iter_layers(tiny_model))
    assert len(layers) == whole.n_layers
    for layer, matrices in enumerate(layers):
        for name, matrix in zip(NAMES, matrices, strict=True):
            assert torch.equal(matrix, getattr(whole, name)[layer])


def test_attention_tensors_of_gpt2_are_enough(tiny_gpt2, tmp_path):
    """A bare file with nothing but attention and its norms, without the model's prefix."""
    kept = {
        key.removeprefix("transformer."): value
        for key, value in tensors_of(tiny_gpt2).items()
        if ".attn." in key or ".ln_1." in key
    }
    file = tmp_path / "attention.safetensors"
    save_file(kept, file)
    assert_same(from_checkpoint(file, n_heads=4), from_checkpoint(tiny_gpt2), atol=0)
    with pytest.raises(CompanionError, match="n_heads"):
        from_checkpoint(file)


@pytest.mark.parametrize("name", ["tiny_neox", "tiny_llama"])
def test_a_rotary_model_without_its_config_is_refused(name, request, tmp_path):
    """Without the base of its rotary embedding, its queries and keys would be silently wrong."""
    directory = write(tmp_path / "bare", tensors_of(request.getfixturevalue(name)), None)
    with pytest.raises(CompanionError, match="rotary.*config.json"):
        from_checkpoint(directory, n_heads=4 if name == "tiny_neox" else 6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_upcast_before_folding(tiny_model, tmp_path, dtype):
    tensors = {key: value.to(dtype) for key, value in tensors_of(tiny_model).items()}
    half = write(tmp_path / "half", tensors, read_config(tiny_model))
    exact = {key: value.float() for key, value in tensors.items()}
    full = write(tmp_path / "full", exact, read_config(tiny_model))
    found = from_checkpoint(half)
    assert found.W_Q.dtype == torch.float32
    assert_same(found, from_checkpoint(full), atol=0)


def test_float64_differs_from_float32_by_rounding_only(tiny_model):
    assert_same(
        from_checkpoint(tiny_model, dtype=torch.float64).to(torch.float32),
        from_checkpoint(tiny_model),
    )


# --- folding


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("centre", [True, False])
def test_folded_matrices_act_as_norm_and_matrices_do(seed, centre):
    """Explicit norm, then raw matrices == plain normalisation, then folded matrices."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    d_model, d_head = 12, 4
    readers, W_O = [draw(3, d_model, d_head) for _ in range(3)], draw(3, d_head, d_model)
    gain, x = 1 + 0.5 * draw(d_model), 2 + draw(7, d_model)
    folded = fold((*readers, W_O), gain, centre=centre)
    if centre:
        normed = torch.nn.functional.layer_norm(x, (d_model,), weight=gain, eps=0)
        plain = torch.nn.functional.layer_norm(x, (d_model,), eps=0)
    else:
        plain = x / x.square().mean(-1, keepdim=True).sqrt()
        normed = plain * gain
    for raw, reader in zip(readers, folded[:3], strict=True):
        torch.testing.assert_close(plain @ reader, normed @ raw, atol=1e-12, rtol=0)
        if centre:  # a constant in the residual stream is invisible to a reader
            shifted = plain + 3.0
            torch.testing.assert_close(shifted @ reader, plain @ reader, atol=1e-12, rtol=0)
            assert reader.mean(-2).abs().max() < 1e-12
    z = draw(3, 7, d_head)
    if centre:
        later = torch.nn.functional.layer_norm
        before, after = x + z @ W_O, x + z @ folded[3]
        torch.testing.assert_close(
            later(after, (d_model,)), later(before, (d_model,)), atol=1e-12, rtol=0
        )
        assert folded[3].mean(-1).abs().max() < 1e-12
    else:
        assert torch.equal(folded[3], W_O)


def test_gain_of_a_checkpoint_is_folded(tiny_model, tmp_path):
    """Doubling the norm's gain doubles what reads, and leaves what writes."""
    gain = {"tiny_gpt2": "ln_1.weight"}.get(family(tiny_model), "input_layernorm.weight")
    tensors = {
        key: value * (2 if key.endswith(gain) else 1)
        for key, value in tensors_of(tiny_model).items()
    }
    directory = write(tmp_path / "louder", tensors, read_config(tiny_model))
    found, before = from_checkpoint(directory), from_checkpoint(tiny_model)
    for name in NAMES[:3]:
        torch.testing.assert_close(getattr(found, name), 2 * getattr(before, name))
    assert torch.equal(found.W_O, before.W_O)


@pytest.mark.parametrize("name", ["tiny_gpt2", "tiny_neox"])  # both of 32 inputs, one block
def test_rounding_takes_blocks_of_inputs(name, request):
    """Q4_1 rounds blocks of 32 inputs: at most 16 values to each block, near the true ones."""
    tiny_model = request.getfixturevalue(name)
    exact = tensors_of(tiny_model)[QUERY[name]]
    by_output = exact.T if name == "tiny_gpt2" else exact
    rounded = q4_1(by_output)
    assert rounded.shape == by_output.shape
    step = (by_output.amax(1) - by_output.amin(1)) / 15
    assert ((rounded - by_output).abs() <= 0.51 * step[:, None] + 1e-3).all()
    assert all(len(row.unique()) <= 16 for row in rounded)
    # the same through a checkpoint, whichever way round its matrices are stored
    seen = []

    def rounding(matrix: torch.Tensor) -> torch.Tensor:
        seen.append(matrix)
        return q4_1(matrix)

    from_checkpoint(tiny_model, rounding=rounding)
    assert len(seen) == 6 and any(torch.equal(matrix, by_output) for matrix in seen)
    found = from_checkpoint(tiny_model, rounding=lambda matrix: 2 * matrix)
    assert torch.allclose(found.W_O, 2 * from_checkpoint(tiny_model).W_O)


# --- rotary embedding


@pytest.mark.parametrize(
    "apply, base, dims, d_head",
    [(llama_rotary, 10000.0, 8, 8), (llama_rotary, 500.0, 16, 16), (neox_rotary, 10000.0, 2, 8)],
)
def test_rotation_is_that_of_transformers(apply, base, dims, d_head):
    rotary = Rotary(base=base, dims=dims)
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 3, 9, d_head, generator=generator, dtype=torch.float64)
    positions = torch.arange(9, dtype=torch.float64)
    inverse = base ** (-torch.arange(0, dims, 2, dtype=torch.float64) / dims)
    angles = torch.cat([positions[:, None] * inverse] * 2, dim=-1)[None]
    turned_q, turned_k = apply(q, k, angles.cos(), angles.sin())
    scores = turned_q @ turned_k.mT
    for i in range(9):
        single = q[0, :, i] @ rotary.rotation(i, d_head, dtype=torch.float64)
        torch.testing.assert_close(single, turned_q[0, :, i], atol=1e-12, rtol=0)
        for j in range(9):
            matrix = rotary.rotation(i - j, d_head, dtype=torch.float64)
            score = torch.einsum("hd,de,he->h", q[0, :, i], matrix, k[0, :, j])
            torch.testing.assert_close(score, scores[0, :, i, j], atol=1e-12, rtol=0)


@pytest.mark.parametrize("dims", [2, 4, 6])
def test_rotations_compose_and_keep_lengths(dims):
    def matrix(offset: int) -> torch.Tensor:
        return Rotary(base=100.0, dims=dims).rotation(offset, 6, dtype=torch.float64)

    identity = torch.eye(6, dtype=torch.float64)
    torch.testing.assert_close(matrix(3) @ matrix(3).T, identity, atol=1e-14, rtol=0)
    torch.testing.assert_close(matrix(7) @ matrix(-3), matrix(4), atol=1e-14, rtol=0)
    torch.testing.assert_close(matrix(5), turn(Rotary(100.0, dims), 5, 6), atol=1e-14, rtol=0)
    assert torch.equal(matrix(9)[dims:, dims:], identity[dims:, dims:])


@pytest.mark.parametrize(
    "config, expected",
    [
        ({"model_type": "gpt2", "n_head": 12}, None),
        (
            {
                "hidden_size": 32,
                "num_attention_heads": 4,
                "rotary_emb_base": 10000,
                "rotary_pct": 0.25,
            },
            Rotary(10000.0, 2),
        ),
        ({"hidden_size": 48, "num_attention_heads": 6, "rope_theta": 1e5}, Rotary(1e5, 8)),
        (
            {"hidden_size": 48, "num_attention_heads": 6, "head_dim": 16, "rope_theta": 1e5},
            Rotary(1e5, 16),
        ),
        ({"hidden_size": 48, "num_attention_heads": 6, "model_type": "llama"}, Rotary(1e4, 8)),
        (
            {
                "hidden_size": 32,
                "num_attention_heads": 4,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 500.0,
                    "partial_rotary_factor": 0.5,
                },
            },
            Rotary(500.0, 4),
        ),
    ],
)
def test_rotary_from_old_and_new_configs(config, expected):
    assert rotary_of(config) == expected


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_rescaled_rotary_is_refused(key):
    config = {"hidden_size": 8, "num_attention_heads": 1, "rope_theta": 1e4}
    with pytest.raises(CompanionError, match="llama3"):
        rotary_of(config | {key: {"rope_type": "llama3", "factor": 8.0}})
    with pytest.raises(CompanionError, match="linear"):  # the older spelling of the key
        rotary_of(config | {key: {"type": "linear", "factor": 8.0}})


# --- what is refused, and how it is said


def test_a_missing_tensor_is_named(tiny_model, tmp_path):
    name = OUTPUT[family(tiny_model)]
    tensors = {key: value for key, value in tensors_of(tiny_model).items() if key != name}
    with pytest.raises(CompanionError, match=name.replace(".", r"\.")):
        from_checkpoint(write(tmp_path / "gap", tensors, read_config(tiny_model)))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_not_finite_are_refused(tiny_model, tmp_path, bad):
    tensors = tensors_of(tiny_model)
    tensors[QUERY[family(tiny_model)]][0, 0] = bad
    with pytest.raises(CompanionError, match="W_Q contains NaN"):
        from_checkpoint(write(tmp_path / "nan", tensors, read_config(tiny_model)))


def test_a_head_count_that_does_not_divide_is_refused(tiny_model):
    with pytest.raises(CompanionError, match="7 heads"):
        from_checkpoint(tiny_model, n_heads=7)


def test_a_file_that_is_not_safetensors_is_refused(tmp_path):
    file = tmp_path / "pytorch_model.bin"
    file.write_bytes(b"\x80\x02")
    with pytest.raises(CompanionError, match="pickled weights are refused"):
        from_checkpoint(file)
    with pytest.raises(CompanionError, match="no .safetensors file"):
        from_checkpoint(tmp_path)
    with pytest.raises(CompanionError, match="no .safetensors file|does not exist"):
        from_checkpoint(tmp_path / "nowhere")


def test_a_truncated_file_is_named(tiny_gpt2, tmp_path):
    file = tmp_path / "cut.safetensors"
    file.write_bytes((tiny_gpt2 / "model.safetensors").read_bytes()[:-1000])
    with pytest.raises(CompanionError, match="cut.safetensors.*damaged"):
        from_checkpoint(file, n_heads=4)


def test_unknown_names_are_refused(tmp_path):
    tensors = {"encoder.block.0.query.weight": torch.zeros(4, 4)}
    with pytest.raises(CompanionError, match="GPT-2, GPT-NeoX or Llama"):
        from_checkpoint(write(tmp_path / "other", tensors, {}), n_heads=2)


@pytest.mark.parametrize("model_type", ["gemma", "gemma2", "cohere", "olmo2", "phi"])
def test_families_with_another_norm_are_refused(tiny_llama, tmp_path, model_type):
    config = read_config(tiny_llama) | {"model_type": model_type}
    with pytest.raises(CompanionError, match=f"{model_type} is not supported"):
        from_checkpoint(write(tmp_path / "kin", tensors_of(tiny_llama), config))


def test_normed_queries_are_refused_without_a_known_name(tiny_llama, tmp_path):
    """Qwen 3 and others norm each query and key, so that no fixed matrix gives their scores."""
    extra = {"model.layers.0.self_attn.q_norm.weight": torch.ones(8)}
    directory = write(tmp_path / "normed", tensors_of(tiny_llama) | extra, read_config(tiny_llama))
    with pytest.raises(CompanionError, match="not supported"):
        from_checkpoint(directory)


def test_llama_names_with_layer_norm_are_refused(tiny_llama, tmp_path):
    """StableLM and others: a norm with a bias is a LayerNorm, whose readers would need centring."""
    extra = {"model.layers.0.input_layernorm.bias": torch.zeros(48)}
    directory = write(tmp_path / "kin", tensors_of(tiny_llama) | extra, read_config(tiny_llama))
    with pytest.raises(CompanionError, match="not supported"):
        from_checkpoint(directory)


def test_shapes_that_do_not_fit_are_refused():
    w = random_weights(0)
    # not through the constructor: under test, its annotations would refuse the shapes first
    bent = object.__new__(AttentionWeights)
    bent.__dict__.update(w.__dict__, W_O=w.W_O.mT)
    with pytest.raises(CompanionError, match=r"W_O has shape .* expected"):
        bent.__post_init__()
    with pytest.raises(CompanionError, match="4 query heads do not share 3"):
        AttentionWeights(w.W_Q, w.W_K[:, :3], w.W_V[:, :3], w.W_O)


def test_moving_keeps_everything():
    weights = random_weights(0, kv_heads=2, rotary=Rotary(100.0, 4))
    moved = weights.to(torch.float32)
    assert moved.W_Q.dtype == moved.W_O.dtype == torch.float32
    assert moved.rotary == weights.rotary and moved.group == weights.group == 2
