"""A model of the reader's: looked at before loading, and one clear line where it will not do."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from th_utils import channels, hub, models, own, own_tables, room
from th_utils.claims import load_claims
from th_utils.composition import KINDS, random_level
from th_utils.errors import CompanionError
from th_utils.prose import own as words
from th_utils.roles import Roles
from th_utils.weights import from_bridge, read_config

PLENTY = 10**12


@pytest.fixture(autouse=True)
def _room(monkeypatch):
    """As much memory as a test asks for, whatever this machine has left."""
    monkeypatch.setattr(room, "available", lambda device: PLENTY)


def random_model(name: str, vocab_size: int) -> torch.nn.Module:
    """A small model of an architecture that no fixture has."""
    small = dict(vocab_size=vocab_size, num_hidden_layers=2, num_attention_heads=4)
    ids = dict(bos_token_id=0, eos_token_id=0, pad_token_id=0)
    wide = dict(hidden_size=32, intermediate_size=40, max_position_embeddings=128)
    if name == "OPT":
        config = transformers.OPTConfig(
            **small, **ids, hidden_size=32, ffn_dim=40, max_position_embeddings=128,
            word_embed_proj_dim=32,
        )  # fmt: skip
    elif name == "Bloom":
        config = transformers.BloomConfig(
            vocab_size=vocab_size, hidden_size=32, n_layer=2, n_head=4, bos_token_id=0,
            eos_token_id=0,
        )  # fmt: skip
    elif name == "GPTJ":
        config = transformers.GPTJConfig(
            vocab_size=vocab_size, n_embd=32, n_layer=2, n_head=4, rotary_dim=4, bos_token_id=0,
            eos_token_id=0,
        )  # fmt: skip
    elif name == "Mamba":
        config = transformers.MambaConfig(
            vocab_size=vocab_size, hidden_size=32, num_hidden_layers=2, state_size=4
        )
    elif name == "Bert":
        return transformers.BertForMaskedLM(transformers.BertConfig(**small, **wide))
    elif name == "T5":
        config = transformers.T5Config(
            vocab_size=vocab_size, d_model=32, d_ff=40, num_layers=2, num_heads=4, d_kv=8
        )
        return transformers.T5ForConditionalGeneration(config)
    else:
        grouped = {} if name == "Phi" else dict(num_key_value_heads=2, head_dim=8)
        config = getattr(transformers, f"{name}Config")(**small, **wide, **ids, **grouped)
    return getattr(transformers, f"{name}ForCausalLM")(config)


@pytest.fixture
def save(tiny_llama, tmp_path):
    """Saves a random model by name, with a tokenizer, and returns its directory."""

    def save(name: str) -> Path:
        directory = tmp_path / name.lower()
        directory.mkdir()
        for file in tiny_llama.glob("*token*"):
            shutil.copy(file, directory)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            model = random_model(name, read_config(tiny_llama)["vocab_size"])
        model.save_pretrained(directory)
        return directory

    return save


@pytest.fixture
def attention_only(tiny_gpt2, tmp_path) -> Path:
    """The small GPT-2's attention in one file, without config."""
    tensors = load_file(tiny_gpt2 / "model.safetensors")
    file = tmp_path / "attention.safetensors"
    save_file({k: t for k, t in tensors.items() if ".attn." in k or ".ln_1." in k}, file)
    return file


def refused(function, *args, **options) -> str:
    with pytest.raises(CompanionError) as caught:
        function(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def numbers(file: Path) -> int:
    return sum(tensor.numel() for tensor in load_file(file).values())


# --- what can be used


def test_families_that_are_read_from_the_checkpoint(tiny_model, tiny_bridge):
    plan = own.look(str(tiny_model))
    assert (plan.runs, plan.layout, plan.device) == (True, "checkpoint", "cpu")
    weights = own.attention_weights(plan, None)
    size = plan.size
    assert (size.layers, size.heads, size.d_model, size.d_head) == weights.W_Q.shape
    assert size.kv_heads == weights.W_K.shape[1]
    assert size.parameters == numbers(tiny_model / "model.safetensors")
    expected = from_bridge(tiny_bridge)
    for name in ("W_Q", "W_K", "W_V", "W_O"):
        torch.testing.assert_close(getattr(weights, name), getattr(expected, name))


@pytest.mark.parametrize("name, layout", [("Mistral", "checkpoint"), ("Qwen2", "checkpoint"),
                                          ("OPT", "bridge"), ("Phi", "bridge"),
                                          ("Starcoder2", "bridge")])  # fmt: skip
def test_other_families(save, name, layout):
    directory = save(name)
    plan = own.look(str(directory))
    assert (plan.runs, plan.layout) == (True, layout)
    bridge = models.load(directory)
    weights = own.attention_weights(plan, bridge)
    size = plan.size
    assert (size.layers, size.heads, size.d_model, size.d_head) == weights.W_Q.shape
    assert size.kv_heads == weights.W_K.shape[1]
    own.check_reads(bridge)


@pytest.mark.parametrize("matrix", ["W_Q", "W_K", "W_V"])
def test_a_matrix_that_is_not_what_a_head_reads_by(tiny_bridge, matrix):
    class Wrong:
        def __getattr__(self, name):
            value = getattr(tiny_bridge, name)
            return value * 1.01 if name == matrix else value

    own.check_reads(tiny_bridge)
    assert f"read otherwise than by {matrix}, in layer 0" in refused(own.check_reads, Wrong())


def test_a_file_of_attention_weights(attention_only):
    plan = own.look(str(attention_only), heads=4)
    assert (plan.runs, plan.layout, plan.family) == (False, "checkpoint", "no config.json")
    assert own.attention_weights(plan, None).W_Q.shape == (3, 4, 32, 8)
    assert "because it has no config.json" in words.plan(plan)
    assert "say how many heads (heads = ...)" in refused(own.look, str(attention_only))
    assert "3 heads do not divide" in refused(own.look, str(attention_only), heads=3)


# --- what cannot


@pytest.mark.parametrize(
    "name, said",
    [
        ("Qwen3", "it normalises queries or keys (model.layers.0.self_attn.q_norm)"),
        ("Bloom", "linear biases (ALiBi)"),
        ("GPTJ", "neighbouring coordinates (gptj)"),
        ("Mamba", "no attention tensors"),
        ("Bert", "'bert' are no causal language models"),
        ("T5", "'t5' are no causal language models"),
        ("Olmo2", "it normalises queries or keys (model.layers.0.self_attn.q_norm)"),
    ],
)
def test_architectures_that_the_kernels_do_not_know(save, name, said, monkeypatch):
    directory = str(save(name))
    monkeypatch.setattr(models, "load", lambda *a, **k: pytest.fail("loaded"))
    message = refused(own.look, directory)
    assert message.startswith(f"the kernels do not know the architecture of {directory}: ")
    assert said in message


def test_a_model_with_code_of_its_own(tiny_gpt2, tmp_path):
    directory = shutil.copytree(tiny_gpt2, tmp_path / "own-code")
    config = json.loads((directory / "config.json").read_text())
    config |= {"model_type": "novel", "auto_map": {"AutoModelForCausalLM": "modeling.Novel"}}
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "modeling.py").write_text("raise SystemExit('run')")
    assert "code of their own, which is never run" in refused(own.look, str(directory))


def test_pickles(tiny_gpt2, tmp_path):
    directory = shutil.copytree(tiny_gpt2, tmp_path / "pickled")
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    assert "as pickles only, which are never loaded" in refused(own.look, str(directory))


@pytest.mark.parametrize("heads", [-1, 1025, True])
def test_numbers_of_heads_that_are_none(attention_only, heads):
    assert "heads must" in refused(own.look, str(attention_only), heads=heads)


# --- memory and device


def test_the_whole_the_weights_or_nothing(tiny_gpt2, monkeypatch):
    monkeypatch.setattr(models, "load", lambda *a, **k: pytest.fail("loaded"))
    monkeypatch.setattr(room, "LIBRARIES", 0)
    whole = own.look(str(tiny_gpt2))
    light = room.weights_need(whole.size)
    assert light < whole.need
    monkeypatch.setattr(room, "available", lambda device: whole.need - 1)
    less = own.look(str(tiny_gpt2))
    assert (less.runs, less.need) == (False, light)
    assert "more than here" in words.plan(less)
    monkeypatch.setattr(room, "available", lambda device: light - 1)
    message = refused(own.look, str(tiny_gpt2))
    assert "needs about 0.0 GB of memory on cpu and 0.0 GB are free" in message
    assert "th_utils.scan" in message


def test_a_model_that_must_be_loaded_to_be_read(save, monkeypatch):
    directory = str(save("OPT"))
    need = own.look(directory).need
    monkeypatch.setattr(room, "available", lambda device: need - 1)
    assert "0.8 GB of memory on cpu" in refused(own.look, directory)


def test_a_gpu_where_it_has_room(tiny_gpt2, monkeypatch):
    plan = own.look(str(tiny_gpt2), device="auto")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert own.look(str(tiny_gpt2), device="auto").device == "cuda"
    free = {"cuda": plan.need - 1, "cpu": PLENTY}
    monkeypatch.setattr(room, "available", free.__getitem__)
    assert own.look(str(tiny_gpt2), device="auto").device == "cpu"
    assert "no device 'gpu'" in refused(own.look, str(tiny_gpt2), device="gpu")


@pytest.mark.parametrize(
    "files, rest",
    [
        ({}, []),
        ({"memory.max": "max\n", "memory.current": "5\n"}, []),
        ({"memory.max": "100\n", "memory.current": "30\n"}, [70]),
        ({"memory.max": "10\n", "memory.current": "30\n"}, [0]),
    ],
)
def test_limits_of_a_container(tmp_path, files, rest):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert room.container_rest(tmp_path) == rest


def test_a_larger_model_needs_more():
    small = room.Size(10**8, 12, 12, 12, 768, 64, 50000)
    large = room.Size(10**9, 24, 24, 24, 1536, 64, 50000)
    assert room.forward_need(small, thrifty=True) < room.forward_need(large, thrifty=True)
    assert room.forward_need(small, thrifty=True) < room.forward_need(small, thrifty=False)
    assert room.weights_need(small) < room.weights_need(large)
    # at least the weights themselves, in fp32
    assert room.forward_need(large, thrifty=True) > 4 * 10**9


# --- the hub


def test_a_model_on_the_hub_is_looked_at_by_its_headers(tiny_llama, monkeypatch):
    asked = []

    def look(repository, revision=None):
        asked.append(repository)
        return read_config(tiny_llama), own.local_shapes(tiny_llama)

    monkeypatch.setattr(hub, "look", look)
    monkeypatch.setattr(hub, "cached_model", lambda *a: None)
    monkeypatch.setattr(hub, "fetch_model", lambda *a: pytest.fail("fetched"))
    plan = own.look("someone/small")
    assert plan.size == own.look(str(tiny_llama)).size
    assert asked == ["someone/small"]


def test_headers_of_the_hub(tiny_llama, monkeypatch):
    import huggingface_hub

    shapes = own.local_shapes(tiny_llama)
    tensors = {name: SimpleNamespace(shape=list(shape)) for name, shape in shapes.items()}
    parts = {"model.safetensors": SimpleNamespace(tensors=tensors)}
    found = SimpleNamespace(files_metadata=parts)
    monkeypatch.setattr(hub, "_need_connection", lambda repository: None)
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda *a, **k: str(tiny_llama / "config.json")
    )
    monkeypatch.setattr(
        huggingface_hub.HfApi, "get_safetensors_metadata", lambda *a, **k: found, raising=True
    )
    assert hub.look("someone/small") == (read_config(tiny_llama), shapes)

    def gated(*args, **options):
        raise type("GatedRepoError", (Exception,), {})("403")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", gated)
    message = refused(hub.look, "someone/small")
    assert "someone/small is gated: accept its terms" in message and "HF_TOKEN" in message


def test_pickles_on_the_hub():
    error = type("NotASafetensorsRepoError", (Exception,), {})("no")
    assert "pickles only" in str(hub.explained(error, "a/b"))


# --- tables and sentences


@pytest.fixture(scope="module")
def scan(tiny_llama):
    return channels.scan(models.attention_weights(tiny_llama))


ROLES = Roles("measured", {r: [] for r in ("mover", "negative-mover", "duplicate-token",
                                           "previous-token", "induction")}
              | {"inhibition": [(0, 1)]}, {}, {})  # fmt: skip


def test_the_strongest_channels_by_hand(scan):
    table = own_tables.strongest(scan, None, 4)
    assert table["kind"] == [kind for kind in KINDS for _ in range(4)]
    assert set(table["sender_role"]) == {"unknown"}
    level = random_level(scan.svd.V.shape[2])
    for kind in KINDS:
        scores = scan.components[kind]
        layers, heads = scores.shape[:2]
        by_hand = []
        for a, c in itertools.combinations(range(layers), 2):
            for b, d in itertools.product(range(heads), repeat=2):
                own_scores = scores[a, b, :, c, d]
                row = (float(own_scores.max()), f"{a}.{b}", int(own_scores.argmax()), f"{c}.{d}")
                by_hand.append(row)
        by_hand.sort(reverse=True)
        at = [i for i, k in enumerate(table["kind"]) if k == kind]
        names = ("score", "sender", "component", "reader")
        assert [tuple(table[name][i] for name in names) for i in at] == by_hand[:4]
        for i in at:
            assert table["ratio"][i] == pytest.approx(table["score"][i] / level)


def test_roles_in_the_list_of_channels(scan):
    table = own_tables.strongest(scan, ROLES, 100)
    said = dict(zip(table["sender"], table["sender_role"], strict=True))
    assert said["0.1"] == "inhibition" and said["0.0"] == "other"
    text = words.among_roles(table)
    one = sum("0.1" == sender for sender in table["sender"])
    assert f"0 join two heads with a role and {one} one such head" in text
    assert "(inhibition)" in words.channels(table)


def test_layers_and_the_list_agree(scan):
    layers, pairs = own_tables.layer_table(scan), own_tables.strongest(scan, None, 1)
    for kind in KINDS:
        highest = max(
            ratio for k, ratio in zip(layers["kind"], layers["ratio"], strict=True) if k == kind
        )
        assert highest == pytest.approx(pairs["ratio"][pairs["kind"].index(kind)])
        assert f"{highest:.1f} times" in words.layers(layers)
    assert all(s < r for s, r in zip(layers["sender"], layers["reader"], strict=True))


def test_the_message_of_the_layers():
    rows = [("Q", 0, 1, 2.5), ("Q", 0, 2, 3.25), ("K", 1, 2, 5.0), ("K", 0, 2, 4.0)]
    rows += [("V", 0, 1, 1.5)]
    names = ("kind", "sender", "reader", "ratio")
    table = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    assert words.layers_message(table) == (
        "The strongest channel of this model runs into keys, from layer 1 to layer 2, at 5.0 times "
        "a random direction (3.2 times into queries and 1.5 times into values)."
    )
    table["ratio"][4] = 6.5
    text = words.layers_message(table)
    assert "into values, from layer 0 to layer 1, at 6.5 times a random direction (5.0 tim" in text
    only = {name: values[:2] for name, values in table.items()}
    assert words.layers_message(only).endswith("to layer 2, at 3.2 times a random direction.")
    none: dict[str, list] = {name: [] for name in names}
    assert "one layer only" in words.layers_message(none)


def test_claims_by_the_rule_of_the_ledger():
    on_weights = {"components-find-inhibition-to-mover": 0.99}
    on_prompts = {"task-is-solved": (0.95, 0.8, 1.0)}
    table = own_tables.claims_table("/a/path/mine", on_weights, on_prompts)
    assert table["claim"] == ["task-is-solved", "components-find-inhibition-to-mover"]
    assert table["verdict"] == ["partly", "holds"]  # the lower end decides
    assert set(table["edition"]) == {"mine"}
    text = words.claims(table, on_prompts)
    assert "0.95 (0.80 to 1.00) | **partly** | ≥ 0.9, ≥ 0.7 |" in text
    said = words.verdicts(table)
    assert said.startswith(
        "Of 2 claims measured on this model, 1 holds, 1 holds in part and 0 fail. "
    )
    fails = table | {"verdict": ["fails", "fails"]}
    assert words.verdicts_message(fails).endswith("model, 0 hold, 0 hold in part and 2 fail.")
    assert f"{len(load_claims()) - 2} more" in said


def test_roles_as_a_table():
    assert "| inhibition | 0.1 |" in words.roles(ROLES)
    assert "| mover | none |" in words.roles(ROLES)
    assert "by their numbers only" in words.roles(None)
    published = Roles("published", ROLES.heads)
    assert "published ones, not measured" in words.roles(published)


def test_roles_where_the_model_does_not_run(attention_only, tiny_gpt2, monkeypatch):
    plan = own.look(str(attention_only), heads=4)
    assert own.roles_of(plan, None) is None
    monkeypatch.setattr(own.roles, "published", lambda name: ROLES)
    assert own.roles_of(plan, None) is ROLES
    running = own.look(str(tiny_gpt2))
    assert own.roles_of(running, SimpleNamespace(roles=ROLES)) is ROLES


@pytest.mark.parametrize(
    "count, said", [(42, "42"), (42_500, "42.5 thousand"), (1.35e8, "135 million")]
)
def test_counts(count, said):
    assert words._count(count) == said
