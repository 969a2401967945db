"""What the weight kernels refuse: one line that names the argument, its shape, what was expected.

The functions are called without the type checker that the tests put around them, which would
refuse some of this first: people who import the package do not have it.
"""

from __future__ import annotations

import functools
import inspect
import math
import shutil
import types

import pytest
import torch
from textbook import random_weights

from th_utils import composition, models, svd, weights
from th_utils.checkpoint import open_checkpoint
from th_utils.errors import CompanionError
from th_utils.rotary import Rotary, rotary_of
from th_utils.svd import HeadSVD
from th_utils.weights import AttentionWeights

ROTARY = Rotary(base=100.0, dims=4)
# 3 layers, 4 heads over 2 key/value heads, d_model 20, d_head 5
W = random_weights(0, kv_heads=2, rotary=ROTARY)
NAMES = ("W_Q", "W_K", "W_V", "W_O")


def plain(function):
    if inspect.ismethod(function):
        return functools.partial(inspect.unwrap(function.__func__), function.__self__)
    return inspect.unwrap(function)


def refused(function, *args, **kwargs) -> str:
    with pytest.raises(CompanionError) as error:
        plain(function)(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


def bent(cls, original, **changed):
    """An instance with other fields, as its constructor would get them, checks not yet run."""
    value = object.__new__(cls)
    value.__dict__.update(original.__dict__ | changed)
    return value


def spoilt(tensor: torch.Tensor, bad: float = math.nan) -> torch.Tensor:
    copy = tensor.clone()
    copy.flatten()[3] = bad
    return copy


# --- weights


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"W_Q": W.W_Q[0]}, ["W_Q has shape (4, 20, 5)", "expected 4 axes", "d_head"]),
        ({"W_K": W.W_K[0]}, ["W_K has shape (2, 20, 5)", "expected 4 axes"]),
        ({"W_K": W.W_K[:2]}, ["W_K has shape (2, 2, 20, 5)", "(3, any, 20, 5)", "(3, 4, 20, 5)"]),
        ({"W_V": W.W_V[:, :1]}, ["W_V has shape (3, 1, 20, 5)", "(3, 2, 20, 5)"]),
        ({"W_O": W.W_O.mT}, ["W_O has shape (3, 4, 20, 5)", "expected (3, 4, 5, 20)"]),
        (
            {"W_K": W.W_Q[:, :3], "W_V": W.W_Q[:, :3]},
            ["4 query heads do not share 3", "W_K (3, 3, 20, 5)", "expected"],
        ),
        ({"W_Q": "W_Q"}, ["W_Q is of type str", "expected a tensor"]),
        ({"W_V": W.W_V.float()}, ["W_Q", "torch.float64", "W_V", "torch.float32", "one dtype"]),
        ({"W_O": W.W_O.to("meta")}, ["W_Q", "on cpu", "W_O", "on meta", "one device"]),
        ({"rotary": Rotary(100.0, 6)}, ["6 coordinates", "(3, 4, 20, 5)", "at most d_head 5"]),
    ],
)
def test_weights_that_do_not_fit(changed, said):
    message = refused(bent(AttentionWeights, W, **changed).__post_init__)
    assert all(part in message for part in said), message


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite(name, bad):
    changed = {name: spoilt(getattr(W, name), bad)}
    message = refused(bent(AttentionWeights, W, **changed).__post_init__)
    shape = tuple(getattr(W, name).shape)
    assert f"{name} contains NaN or infinite values" in message and str(shape) in message


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_weights_that_are_not_of_floating_point(dtype):
    changed = {name: getattr(W, name).to(dtype) for name in NAMES}
    message = refused(bent(AttentionWeights, W, **changed).__post_init__)
    assert f"W_Q of shape (3, 4, 20, 5) is {dtype}, expected a floating" in message


@pytest.mark.parametrize("axis, said", [(0, "(0, 4, 20, 5)"), (1, "(3, 0, 20, 5)")])
def test_weights_of_no_layers_or_no_heads(axis, said):
    empty = {name: getattr(W, name).narrow(axis, 0, 0) for name in NAMES}
    message = refused(bent(AttentionWeights, W, **empty).__post_init__)
    assert f"W_Q of shape {said} is empty" in message and "expected" in message


def test_weights_without_key_heads():
    none = {"W_K": W.W_K[:, :0], "W_V": W.W_V[:, :0]}
    message = refused(bent(AttentionWeights, W, **none).__post_init__)
    assert "W_K of shape (3, 0, 20, 5) is empty" in message


def test_heads_wider_than_the_model():
    wide = {n: torch.zeros(1, 1, 4, 5) for n in NAMES[:3]} | {"W_O": torch.zeros(1, 1, 5, 4)}
    message = refused(bent(AttentionWeights, W, **wide, rotary=None).__post_init__)
    assert "W_Q of shape (1, 1, 4, 5) has d_head 5 larger than d_model 4, expected" in message


def test_folding_what_does_not_fit():
    layer = [getattr(W, name)[0] for name in NAMES]
    gain = torch.ones(20, dtype=torch.float64)
    message = refused(weights.fold, layer, gain[:19], centre=True)
    assert "W_Q has shape (4, 20, 5), expected (..., d_model, d_head) with d_model 19" in message
    message = refused(weights.fold, [*layer[:3], layer[3].mT], gain, centre=True)
    assert "W_O has shape (4, 20, 5), expected (..., d_head, d_model) with d_model 20" in message
    message = refused(weights.fold, layer, gain[None], centre=True)
    assert "gain has shape (1, 20), expected 1 axis" in message
    message = refused(weights.fold, layer, gain.float(), centre=True)
    assert "gain" in message and "expected one dtype" in message
    message = refused(weights.fold, layer, gain.to("meta"), centre=True)
    assert "expected one device" in message


@pytest.mark.parametrize(
    "matrix, said",
    [
        (torch.zeros(4), "(4,), expected 2 axes"),
        (torch.zeros(4, 33), "(4, 33), expected a multiple of 32"),
        (torch.zeros(0, 32), "(0, 32) is empty"),
        (torch.zeros(4, 32, dtype=torch.int32), "torch.int32, expected a floating"),
        (torch.full((4, 32), math.nan), "matrix contains NaN"),
    ],
)
def test_rounding_what_does_not_fit(matrix, said):
    assert said in refused(weights.q4_1, matrix)


@pytest.mark.parametrize("n_heads", [0, -4])
def test_a_number_of_heads_that_is_none(tiny_llama, n_heads):
    message = refused(weights.from_checkpoint, tiny_llama, n_heads=n_heads)
    assert f"n_heads {n_heads} is not" in message and "at least 1" in message


@pytest.mark.parametrize("n_heads", [1.5, True, "4"])
def test_a_number_of_heads_that_is_not_whole(n_heads):
    assert f"n_heads {n_heads!r} is not a number of heads" in refused(weights.check_heads, n_heads)


@pytest.mark.parametrize("heads", [0, -4])
def test_a_config_with_a_number_of_heads_that_is_none(tiny_gpt2, tmp_path, heads):
    file = tmp_path / "model.safetensors"
    file.write_bytes((tiny_gpt2 / file.name).read_bytes())
    (tmp_path / "config.json").write_text(f'{{"model_type": "gpt2", "n_head": {heads}}}')
    for function in (weights.from_checkpoint, lambda path: open_checkpoint(path).sizes()):
        assert f"n_heads {heads} is not a number of heads" in refused(function, tmp_path)


def test_weights_that_require_gradients_are_scored():
    plain_scores = composition.composition_scores(W)
    parts = (getattr(W, name).clone().requires_grad_() for name in NAMES)
    scores = composition.composition_scores(AttentionWeights(*parts, rotary=ROTARY))
    assert torch.equal(scores.detach().nan_to_num(-1), plain_scores.nan_to_num(-1))


def test_a_dtype_that_is_not_of_floating_point(tiny_llama):
    message = refused(weights.from_checkpoint, tiny_llama, dtype=torch.int8)
    assert "dtype torch.int8 is not one of floating point" in message


def test_a_config_that_is_damaged(tmp_path):
    (tmp_path / "config.json").write_text('{"n_head": ')
    assert "config.json is damaged" in refused(weights.read_config, tmp_path)


# --- rotary embeddings


@pytest.mark.parametrize("base", [0.0, -1.0, math.nan, math.inf])
def test_a_rotary_base_that_is_none(base):
    with pytest.raises(CompanionError, match="rotary base"):
        Rotary(base=base, dims=4)


@pytest.mark.parametrize("dims", [0, 3, -2])
def test_rotary_dims_that_make_no_pairs(dims):
    with pytest.raises(CompanionError, match=f"rotary dims {dims} .* even"):
        Rotary(base=100.0, dims=dims)


def test_rotations_that_do_not_fit():
    assert "rotary dims 4 exceed d_head 3" in refused(Rotary.rotation, ROTARY, 1, 3)
    for offset in (1.5, True, "1"):
        message = refused(Rotary.rotations, ROTARY, [0, offset], 4)
        assert f"offset {offset!r} is not a whole number" in message


def test_a_config_without_the_width_of_a_head():
    message = refused(rotary_of, {"rope_theta": 1e4, "hidden_size": 64})
    assert "expected head_dim" in message
    none = {"rope_theta": 1e4, "hidden_size": 64, "num_attention_heads": 0}
    assert refused(rotary_of, none) == message


# --- decompositions


A, B = torch.randn(2, 7, 3), torch.randn(2, 5, 3)


@pytest.mark.parametrize(
    "left, right, said",
    [
        (A[0, 0], B, "left has shape (3,), expected 2 axes"),
        (A, [1.0], "right is of type list, expected a tensor"),
        (A, B[0], "right has shape (5, 3), expected (2, any, 3): batch, d_out, rank beside left"),
        (A, B[:, :, :2], "right has shape (2, 5, 2), expected (2, any, 3)"),
        (A, B[:1], "right has shape (1, 5, 3), expected (2, any, 3)"),
        (A[:, :2], B, "rank 3 exceeds the matrix: left (2, 2, 3) and right (2, 5, 3), expected"),
        (A[:0], B[:0], "left of shape (0, 7, 3) is empty"),
        (A[..., :0], B[..., :0], "left of shape (2, 7, 0) is empty"),
        (spoilt(A), B, "left contains NaN or infinite values: 1 of 42, shape (2, 7, 3)"),
        (A, spoilt(B, math.inf), "right contains NaN or infinite values: 1 of 30"),
        (A, B.double(), "right of shape (2, 5, 3) is torch.float64, expected one dtype"),
        (A, B.to("meta"), "right of shape (2, 5, 3) is on meta, expected one device"),
        (A.long(), B.long(), "left of shape (2, 7, 3) is torch.int64, expected a floating"),
    ],
)
def test_factors_that_do_not_fit(left, right, said):
    assert said in refused(svd.factored_svd, left, right)


@pytest.mark.parametrize("offset, said", [(-1, "negative"), (1.0, "whole"), (True, "whole")])
def test_offsets_that_are_none(offset, said):
    assert f"offset {offset}" in (message := refused(svd.qk_svd, W, offset=offset))
    assert said in message


def test_weights_edited_to_nan_are_noticed_by_each_kernel():
    """In place, behind the back of the constructor."""
    edited = AttentionWeights(*(getattr(W, name).clone() for name in NAMES), rotary=ROTARY)
    edited.W_Q[1, 2, 3, 4] = edited.W_V[1, 0, 0, 0] = math.nan
    assert "W_V contains NaN" in refused(svd.ov_svd, edited)
    assert "W_Q contains NaN" in refused(svd.qk_svd, edited)
    for kind in composition.KINDS:
        assert "W_Q contains NaN" in refused(composition.readers, edited, kind)
    assert "W_Q contains NaN" in refused(composition.composition_scores, edited)


@pytest.mark.parametrize(
    "name, shape, said",
    [
        ("S", (3, 4), "S has shape (3, 4), expected 3 axes"),
        ("U", (3, 4, 20, 6), "U has shape (3, 4, 20, 6), expected (3, 4, any, 5)"),
        ("V", (3, 5, 20, 5), "V has shape (3, 5, 20, 5), expected (3, 4, any, 5)"),
    ],
)
def test_parts_of_a_decomposition_that_do_not_fit(name, shape, said):
    made = bent(HeadSVD, svd.ov_svd(W), **{name: torch.zeros(shape)})
    assert said in refused(made.__post_init__)


# --- scores


@pytest.fixture(scope="module")
def parts() -> HeadSVD:
    return svd.ov_svd(W)


@pytest.fixture(scope="module")
def reader() -> torch.Tensor:
    return composition.readers(W, "Q")


@pytest.mark.parametrize("kernel", [composition.readers, composition.composition_scores])
@pytest.mark.parametrize(
    "offsets, said",
    [
        ((), "offsets []: expected at least one"),
        ((1, -1), "offsets [1, -1]: expected at least one, none negative"),
        ((1, 2.5), "offsets hold 2.5: expected whole numbers"),
    ],
)
def test_sets_of_offsets_that_are_none(kernel, offsets, said):
    assert said in refused(kernel, W, "Q", offsets=offsets)


@pytest.mark.parametrize("kernel", [composition.readers, composition.composition_scores])
def test_kinds_that_are_none(kernel):
    assert "kind 'W' is unknown: Q, K or V" in refused(kernel, W, "W")
    assert "expected at least one" in refused(composition.composition_scores, W, "")


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda r: r[0], "reader has shape (4, 20, 5), expected 4 axes"),
        (lambda r: r[:, :3], "readers (3, 3, 20, 5) are of two models: expected the same layers"),
        (lambda r: r[:, :, :9], "readers (3, 4, 9, 5) are of two models"),
        (lambda r: r[:0], "reader of shape (0, 4, 20, 5) is empty"),
        (lambda r: spoilt(r), "reader contains NaN or infinite values: 1 of 1200"),
        (lambda r: r.float(), "reader of shape (3, 4, 20, 5) is torch.float32, expected one dtype"),
        (lambda r: r.to("meta"), "reader of shape (3, 4, 20, 5) is on meta, expected one device"),
        (lambda r: r.tolist(), "reader is of type list, expected a tensor"),
    ],
)
def test_readers_that_do_not_fit(parts, reader, change, said):
    assert said in refused(composition.component_scores, parts, change(reader))


@pytest.mark.parametrize("name", ["V", "S"])
def test_writers_that_are_not_finite(parts, reader, name):
    made = bent(HeadSVD, parts, **{name: spoilt(getattr(parts, name))})
    message = refused(composition.component_scores, made, reader)
    assert f"svd.{name} contains NaN or infinite values" in message


def test_writers_of_no_components(parts, reader):
    none = HeadSVD(parts.U[..., :0], parts.S[..., :0], parts.V[..., :0])
    message = refused(composition.component_scores, none, reader)
    assert "svd.V of shape (3, 4, 20, 0) is empty" in message


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda c, S: (c[0], S), "scores has shape (4, 5, 3, 4), expected 5 axes"),
        (lambda c, S: (c, S[..., :2]), "S has shape (3, 4, 2), expected (3, 4, 5): beside scores"),
        (lambda c, S: (c[:0], S[:0]), "scores of shape (0, 4, 5, 3, 4) is empty"),
        (lambda c, S: (c, spoilt(S)), "S contains NaN or infinite values: 1 of 60"),
        (lambda c, S: (c, S.float()), "S of shape (3, 4, 5) is torch.float32, expected one dtype"),
        (lambda c, S: (c, S.to("meta")), "S of shape (3, 4, 5) is on meta, expected one device"),
        (lambda c, S: (c.long(), S), "scores of shape (3, 4, 5, 3, 4) is torch.int64, expected"),
    ],
)
def test_component_scores_that_do_not_fit(parts, reader, change, said):
    components = composition.component_scores(parts, reader)
    assert said in refused(composition.head_scores, *change(components, parts.S))


@pytest.mark.parametrize(
    "reader, said",
    [
        (torch.zeros(2, 3, 4), "reader has shape (2, 3, 4), expected 2 axes"),
        (torch.zeros(0, 4), "reader of shape (0, 4) is empty"),
        (torch.full((3, 2), math.nan), "reader contains NaN or infinite values: 6 of 6"),
        (torch.ones(3, 2, dtype=torch.int64), "torch.int64, expected a floating"),
    ],
)
def test_ceilings_of_what_is_no_reader(reader, said):
    assert said in refused(composition.ceiling, reader)


def test_a_reader_of_zeros_has_a_ceiling_of_zero():
    assert composition.ceiling(torch.zeros(4, 2)) == 0


@pytest.mark.parametrize(
    "scores, said",
    [
        (torch.full((2, 3), math.nan), "scores of shape (2, 3): a reader without at least two"),
        (torch.zeros(0, 3), "scores of shape (0, 3): a reader without at least two"),
        (torch.ones(2, 3, dtype=torch.int64), "torch.int64, expected a floating"),
    ],
)
def test_standard_scores_of_too_little(scores, said):
    assert said in refused(composition.z_scores, scores)


def test_standard_scores_of_equal_scores_are_zero():
    assert (composition.z_scores(torch.full((2, 3), 0.1)) == 0).all()


@pytest.mark.parametrize("d_model", [0, -3])
def test_levels_of_no_width(d_model):
    assert f"d_model {d_model} is not a width" in refused(composition.random_level, d_model)


# --- models whose attention is more than four matrices and one rotary embedding


def stand_in(config: dict, model: object = None, kind: str = "rotary"):
    """A bridge of which nothing but its config and its model is ever asked."""
    model = model if model is not None else torch.nn.Module()
    model.config = types.SimpleNamespace(to_dict=lambda: config)
    cfg = types.SimpleNamespace(positional_embedding_type=kind)
    return types.SimpleNamespace(original_model=model, cfg=cfg)


LLAMA = {"model_type": "llama", "hidden_size": 48, "num_attention_heads": 6}


@pytest.mark.parametrize(
    "config, said",
    [
        (LLAMA | {"no_rope_layers": [1, 1, 0]}, "no_rope_layers, layer 2"),
        ({"model_type": "gptj", "rotary_dim": 8}, "neighbouring coordinates"),
        (LLAMA | {"model_type": "glm4"}, "neighbouring coordinates"),
        (LLAMA | {"alibi": True}, "ALiBi"),
        ({"model_type": "bloom"}, "ALiBi"),
        ({"model_type": "mpt", "attn_config": {"alibi": True}}, "ALiBi"),
        (
            LLAMA | {"rope_parameters": {"full_attention": {"rope_type": "default"}}},
            "differ by layer",
        ),
    ],
)
def test_positions_that_are_not_covered(config, said):
    assert said in refused(rotary_of, config)
    assert said in refused(weights.from_bridge, stand_in(config))


@pytest.mark.parametrize("norm", ["q_norm", "k_norm", "q_layernorm", "query_layernorm", "qk_norm"])
def test_normed_queries_and_keys(norm):
    model, attention = torch.nn.Module(), torch.nn.Module()
    attention.add_module(norm, torch.nn.LayerNorm(4))
    model.add_module("self_attn", attention)
    message = refused(weights.from_bridge, stand_in(LLAMA, model))
    assert f"it normalises queries or keys (self_attn.{norm})" in message


@pytest.mark.parametrize("name", ["ln_1", "input_layernorm", "final_norm", "mask_norm", "k_proj"])
def test_other_norms_are_not_taken_for_them(name):
    model = torch.nn.Module()
    model.add_module(name, torch.nn.LayerNorm(4))
    assert weights.unlike(stand_in(LLAMA, model)) is None


def test_a_rotary_embedding_that_the_config_does_not_mention():
    message = refused(weights.from_bridge, stand_in({"model_type": "other"}))
    assert "does not say the base" in message
    message = refused(weights.from_bridge, stand_in({"model_type": "other"}, kind="alibi"))
    assert "ALiBi" in message


def small(name: str, vocab_size: int) -> torch.nn.Module:
    """Random models of real architectures, one for each thing that is refused."""
    import transformers

    ids = {"vocab_size": vocab_size, "bos_token_id": 0, "eos_token_id": 0}
    if name == "GPTJ":
        return transformers.GPTJForCausalLM(
            transformers.GPTJConfig(n_embd=32, n_layer=1, n_head=4, rotary_dim=4, **ids)
        )
    if name == "Bloom":
        return transformers.BloomForCausalLM(
            transformers.BloomConfig(hidden_size=32, n_layer=1, n_head=4, **ids)
        )
    config = getattr(transformers, f"{name}Config")(
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=4,  # every fourth of SmolLM3 turns nothing
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        pad_token_id=0,
        **ids,
    )
    return getattr(transformers, f"{name}ForCausalLM")(config)


@pytest.mark.parametrize(
    "name, said",
    [
        ("Qwen3", "it normalises queries or keys (model.layers.0.self_attn.q_norm)"),
        ("GPTJ", "its rotary embedding turns neighbouring coordinates"),
        ("SmolLM3", "layers without rotary embedding among others with it (no_rope_layers"),
        ("Bloom", "it has linear biases (ALiBi)"),
        ("Qwen2", None),
    ],
)
def test_models_through_the_bridge(name, said, tiny_llama, tmp_path):
    vocab_size = weights.read_config(tiny_llama)["vocab_size"]
    for file in tiny_llama.glob("*token*"):
        shutil.copy(file, tmp_path)
    small(name, vocab_size).save_pretrained(tmp_path)
    bridge = models.load(tmp_path)
    if said is None:
        assert weights.from_bridge(bridge).rotary == Rotary(10000.0, 8)
    else:
        assert said in refused(weights.from_bridge, bridge)
