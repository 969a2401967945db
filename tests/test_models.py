"""Models by name: what a name means, loading, and one clear line for whatever goes wrong."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from th_utils import bridge as bridges
from th_utils import hub, models, terminal
from th_utils.errors import CompanionError

TEXT = "Then, Mary and John went to the store. John gave a drink to"


@pytest.fixture(autouse=True)
def _no_outside(monkeypatch, tmp_path):
    """No test here may reach the network or the weights that happen to lie on this machine."""
    for variable in [name for name in os.environ if name.startswith("TH_WEIGHTS")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("TH_WEIGHTS_DIR", str(tmp_path / "no-weights"))

    def refuse(*args, **kwargs):
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(hub.urllib.request, "getproxies", dict)


@pytest.fixture
def copy(tiny_gpt2, tmp_path) -> Path:
    """A copy of the small GPT-2 for a test to damage."""
    return Path(shutil.copytree(tiny_gpt2, tmp_path / "model"))


@pytest.fixture
def attention_only(tiny_gpt2, tmp_path) -> Path:
    """The small GPT-2's attention side in one file without config, bare names."""
    tensors = {
        name.removeprefix("transformer."): tensor
        for name, tensor in load_file(tiny_gpt2 / "model.safetensors").items()
        if ".attn." in name or ".ln_1." in name
    }
    file = tmp_path / "attention.safetensors"
    save_file(tensors, file)
    return file


def edit(directory: Path, change) -> None:
    """Rewrite a model directory's tensors."""
    file = directory / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


# Names


def test_every_edition_says_what_a_reader_needs():
    for name, entry in models.editions().items():
        for key in ("model", "licence", "size", "source", "runs", "layers", "heads", "d_model"):
            assert entry.get(key), f"{name} does not say {key}"
        assert entry["heads"] % entry["kv_heads"] == 0
        for heads in entry.get("published_roles", {}).get("heads", {}).values():
            for head in heads:
                assert isinstance(head, str), f"{name}: quote {head}"
                layer, number = (int(part) for part in head.split("."))
                assert layer < entry["layers"] and number < entry["heads"]
    assert models.DEFAULT in models.editions()


def test_resolving_needs_no_torch():
    code = (
        "import sys; from th_utils import models; models.resolve('gpt2'); models.editions();"
        "assert not {'torch', 'transformers'} & set(sys.modules), 'slow import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names(tiny_gpt2):
    assert models.resolve("gpt2").hub == "openai-community/gpt2"
    assert models.resolve("openai-community/gpt2").name == "gpt2"
    assert models.resolve("someone/some-model").hub == "someone/some-model"
    assert models.resolve(tiny_gpt2).path == tiny_gpt2


@pytest.mark.parametrize(
    "name, part",
    [
        ("gtp2", "did you mean 'gpt2'"),
        ("smollm2", "smollm2-135m-instruct-q4"),
        ("./nowhere", "no model at nowhere"),
        ("/no/where", "no model at /no/where"),
        ("", "no edition ''"),
    ],
)
def test_unknown_names(name, part):
    with pytest.raises(CompanionError, match="no ") as error:
        models.resolve(name)
    assert part in str(error.value) and "\n" not in str(error.value)


def test_other_files_are_refused(tmp_path):
    file = tmp_path / "model.bin"
    file.write_bytes(b"")
    with pytest.raises(CompanionError, match="never loaded"):
        models.resolve(file)


def test_a_variable_points_an_edition_at_a_checkpoint(monkeypatch, tiny_gpt2):
    monkeypatch.setenv("TH_WEIGHTS_GPT2", str(tiny_gpt2))
    assert models.locate("gpt2") == tiny_gpt2
    assert models.attention_weights("gpt2").W_Q.shape == (3, 4, 32, 8)
    monkeypatch.setenv("TH_WEIGHTS_GPT2", "/no/where")
    with pytest.raises(CompanionError, match="TH_WEIGHTS_GPT2 names /no/where"):
        models.resolve("gpt2")


# Loading


def test_log_probabilities_agree_with_transformers(tiny_model, tiny_bridge):
    from transformers import AutoModelForCausalLM

    reference = AutoModelForCausalLM.from_pretrained(tiny_model, attn_implementation="eager")
    ids = models.tokens(tiny_bridge, TEXT)
    with torch.no_grad():
        expected = reference(ids).logits.log_softmax(-1)
        found = tiny_bridge(ids).log_softmax(-1)
    # Folding changes the order of sums; logits themselves differ by the centred unembedding.
    torch.testing.assert_close(found, expected, atol=5e-5, rtol=0)


def test_thrifty_folding_is_transformer_lens_own(tiny_model, tiny_bridge, monkeypatch):
    monkeypatch.setattr(bridges, "THRIFTY", ())
    plain = models.load(tiny_model)
    for kind in ("named_parameters", "named_buffers"):
        found, expected = dict(getattr(tiny_bridge, kind)()), dict(getattr(plain, kind)())
        assert found.keys() == expected.keys()
        for name, weight in expected.items():
            assert torch.equal(found[name], weight), name
    for name in ("W_Q", "W_K", "W_V", "W_O", "W_E", "W_U"):
        assert torch.equal(getattr(tiny_bridge, name), getattr(plain, name)), name


def test_transformer_lens_is_left_as_it_was(tiny_gpt2):
    from transformer_lens.weight_processing import ProcessWeights

    before = dict(vars(ProcessWeights))
    models.load(tiny_gpt2)
    assert dict(vars(ProcessWeights)) == before


def test_edits_change_the_forward_and_never_the_file(tiny_model, tiny_bridge):
    file = tiny_model / "model.safetensors"
    before = file.read_bytes()
    ids = models.tokens(tiny_bridge, TEXT)
    with torch.no_grad():
        first = tiny_bridge(ids)
        for block in tiny_bridge.blocks:
            block.attn.W_O.data.zero_()
        tiny_bridge.embed.W_E.data.mul_(2)
        assert not torch.allclose(tiny_bridge(ids), first)
        again = models.load(tiny_model)(ids)
    assert torch.equal(again, first)
    assert file.read_bytes() == before


def test_dtype(tiny_gpt2):
    bridge = models.load(tiny_gpt2, dtype=torch.float64)
    assert bridge.W_Q.dtype == torch.float64


def test_tokens_have_no_beginning(tiny_bridge):
    ids = models.tokens(tiny_bridge, TEXT)
    assert tiny_bridge.tokenizer.decode(ids[0]) == TEXT
    assert models.tokens(tiny_bridge, [TEXT, TEXT]).shape == (2, ids.shape[1])
    with pytest.raises(CompanionError, match=r"\[1, 2\] tokens"):
        models.tokens(tiny_bridge, [" Mary", " Mary John"])


def test_weights_agree_with_the_bridge(tiny_model, tiny_bridge):
    weights = models.attention_weights(tiny_model)
    for name in ("W_Q", "W_K", "W_V", "W_O"):
        torch.testing.assert_close(
            getattr(weights, name), getattr(tiny_bridge, name), atol=1e-6, rtol=1e-5
        )


def test_checksum(tiny_gpt2, tmp_path):
    import hashlib

    from transformers import AutoModelForCausalLM

    one = models.checksum(tiny_gpt2)
    assert one == hashlib.sha256((tiny_gpt2 / "model.safetensors").read_bytes()).hexdigest()
    model = AutoModelForCausalLM.from_pretrained(tiny_gpt2)
    model.save_pretrained(tmp_path / "shards", max_shard_size="50KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    assert len(models.checksum(tmp_path / "shards")) == 64
    weights = models.attention_weights(tmp_path / "shards")
    assert torch.equal(weights.W_O, models.attention_weights(tiny_gpt2).W_O)


# Attention weights alone


def test_attention_only(attention_only, tiny_gpt2, monkeypatch):
    assert models.can_run(tiny_gpt2) and not models.can_run(attention_only)
    with pytest.raises(CompanionError, match="no forward pass"):
        models.load(attention_only)
    entry = {"hub": "a/b", "heads": 4}
    monkeypatch.setattr(models, "_editions", lambda: {"small": entry})
    monkeypatch.setenv("TH_WEIGHTS_SMALL", str(attention_only))
    assert not models.can_run("small")
    models.prepare("small")
    weights, whole = models.attention_weights("small"), models.attention_weights(tiny_gpt2)
    assert torch.equal(weights.W_Q, whole.W_Q) and torch.equal(weights.W_O, whole.W_O)
    with pytest.raises(CompanionError, match="no forward pass"):
        models.load("small")


def test_the_folder_of_attention_weights(attention_only, monkeypatch):
    said = {"file": attention_only.name, "heads": 4, "sha256": "0" * 64}
    entry = {"hub": "a/b", "heads": 4, "checkpoint": said}
    monkeypatch.setattr(models, "_editions", lambda: {"small": entry})
    assert models.can_run("small")  # nothing here: the hub is believed to have all of it
    monkeypatch.setenv("TH_WEIGHTS_DIR", str(attention_only.parent))
    assert not models.can_run("small")
    assert models.attention_weights("small").W_Q.shape == (3, 4, 32, 8)
    with pytest.raises(CompanionError, match="wrong checksum"):
        models.verify("small")


def test_the_head_count_must_be_known(attention_only):
    with pytest.raises(CompanionError, match="how many heads"):
        models.attention_weights(attention_only)


def test_a_config_does_not_make_attention_weights_whole(attention_only, tiny_gpt2):
    attention_only.rename(attention_only.parent / "model.safetensors")
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_gpt2 / file, attention_only.parent / file)
    assert not models.can_run(attention_only.parent)
    with pytest.raises(CompanionError, match="no forward pass"):
        models.load(attention_only.parent)


# Damage


def test_missing_tensor(copy):
    edit(copy, lambda tensors: tensors.pop("transformer.h.1.mlp.c_fc.weight"))
    with pytest.raises(CompanionError, match="lacks 1 tensors.*h.1.mlp.c_fc.weight"):
        models.load(copy)
    edit(copy, lambda tensors: tensors.pop("transformer.h.1.attn.c_attn.weight"))
    with pytest.raises(CompanionError, match="missing from the checkpoint"):
        models.attention_weights(copy)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["transformer.h.1.mlp.c_proj.weight", "transformer.wte.weight"])
def test_not_finite(copy, name, value):
    edit(copy, lambda tensors: tensors[name].view(-1)[7:8].fill_(value))
    with pytest.raises(CompanionError, match="NaN or infinite"):
        models.load(copy)


def test_pickles_are_refused(copy):
    torch.save({}, copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(CompanionError, match="pickles"):
        models.load(copy)


def test_remote_code_is_refused(copy):
    marker = copy / "ran"
    (copy / "modeling_own.py").write_text(f"open({str(marker)!r}, 'w')\nclass Own: pass\n")
    config = json.loads((copy / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoModelForCausalLM": "modeling_own.Own"}}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(CompanionError, match="code of its own"):
        models.load(copy)
    assert not marker.exists()


def test_truncated_safetensors(copy):
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CompanionError, match="damaged"):
        models.load(copy)


@pytest.mark.parametrize(
    "file, part", [("config.json", "no config.json"), ("tokenizer.json", "no tokenizer")]
)
def test_missing_files(copy, file, part):
    (copy / file).unlink()
    with pytest.raises(CompanionError, match=part):
        models.load(copy)


def test_an_empty_directory(tmp_path):
    with pytest.raises(CompanionError, match="no config.json"):
        models.load(tmp_path)


def test_unknown_architecture(copy):
    config = json.loads((copy / "config.json").read_text()) | {"model_type": "no-such-type"}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(CompanionError, match="cannot load the model"):
        models.load(copy)


def test_no_such_device(tiny_gpt2):
    with pytest.raises(CompanionError, match="choose device = 'cpu'"):
        models.load(tiny_gpt2, device="no-such-device")


# Silence


def test_a_kernel_is_told_nothing(monkeypatch, capsys):
    terminal.tell("at a terminal")
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert terminal.in_kernel()
    terminal.tell("in a kernel")
    assert capsys.readouterr().err == "at a terminal\n"


def test_quiet_lasts_for_the_block(capsys):
    logger = logging.getLogger()
    level, stream = logger.level, sys.stderr
    with terminal.quiet():
        logger.warning("unheard")
        print("unheard", file=sys.stderr)
        warnings.warn("unheard", stacklevel=1)
    assert logger.level == level and sys.stderr is stream
    assert capsys.readouterr().err == ""


# The hub


@pytest.fixture
def fake_hub(monkeypatch, tiny_gpt2):
    """A hub with the small GPT-2, whose list of files a test may change."""
    import huggingface_hub

    sizes = {path.name: path.stat().st_size for path in tiny_gpt2.iterdir()}
    fake = SimpleNamespace(sizes=sizes, cached=False, fetched=None)

    def snapshot_download(repository, revision=None, local_files_only=False, allow_patterns=None):
        if local_files_only and not fake.cached:
            raise FileNotFoundError("not cached")
        if not local_files_only:
            fake.fetched = allow_patterns
        return str(tiny_gpt2)

    class HfApi:
        def model_info(self, repository, revision=None, files_metadata=False):
            files = [SimpleNamespace(rfilename=name, size=size) for name, size in sizes.items()]
            return SimpleNamespace(siblings=files)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(huggingface_hub, "HfApi", HfApi)
    monkeypatch.setattr(hub, "_need_connection", lambda repository: None)
    return fake


def test_from_the_hub(fake_hub, tiny_gpt2):
    fake_hub.sizes |= {"pytorch_model.bin": 1, "modeling.py": 1, "onnx/model.safetensors": 1}
    assert models.load("someone/small").cfg.n_layers == 3
    assert "model.safetensors" in fake_hub.fetched and "config.json" in fake_hub.fetched
    refused = {"pytorch_model.bin", "modeling.py", "onnx/model.safetensors"}
    assert not refused & set(fake_hub.fetched)


def test_a_cached_model_asks_nobody(fake_hub, tiny_gpt2):
    fake_hub.cached = True
    assert models.locate("gpt2") == tiny_gpt2 and models.can_run("gpt2")
    assert fake_hub.fetched is None


def test_pickles_on_the_hub_are_not_fetched(fake_hub):
    fake_hub.sizes.pop("model.safetensors")
    fake_hub.sizes["pytorch_model.bin"] = 10
    with pytest.raises(CompanionError, match="pickles"):
        models.load("someone/small")
    assert fake_hub.fetched is None


def test_no_room_for_a_model_of_the_hub(fake_hub, monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    fake_hub.sizes["model.safetensors"] = 10**18
    with pytest.raises(CompanionError, match="not enough disk.*HF_HOME"):
        models.load("someone/small")


def test_hub_unreachable(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(CompanionError, match="cannot reach the hub for openai-community/gpt2"):
        models.load("gpt2")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CompanionError, match="HF_HUB_OFFLINE is set"):
        models.load("gpt2")


@pytest.mark.parametrize(
    "kind, part",
    [
        ("GatedRepoError", "is gated"),
        ("RepositoryNotFoundError", "no public model a/b"),
        ("ConnectTimeout", "cannot reach the hub"),
    ],
)
def test_what_the_hub_may_answer(kind, part):
    error = type(kind, (Exception,), {})("a long\nmessage")
    assert part in str(hub.explained(error, "a/b"))


# The default edition


@pytest.mark.model
def test_default_edition_agrees_with_transformers(default_bridge):
    from transformers import AutoModelForCausalLM

    directory = models.locate(models.DEFAULT)
    reference = AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager")
    ids = models.tokens(default_bridge, TEXT)
    assert ids[0, 0] != default_bridge.tokenizer.bos_token_id
    with torch.no_grad():
        expected = reference(ids).logits.log_softmax(-1)
        found = default_bridge(ids).log_softmax(-1)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)
    assert default_bridge.tokenizer.decode(found[0, -1].argmax()) == " Mary"


@pytest.mark.model
def test_default_edition_is_the_recorded_one():
    entry = models.editions()[models.DEFAULT]
    models.verify(models.DEFAULT)
    assert models.checksum(models.DEFAULT) == entry["converted"]["sha256"]
    config = json.loads((models.locate(models.DEFAULT) / "config.json").read_text())
    assert config["num_hidden_layers"] == entry["layers"]
    assert config["num_attention_heads"] == entry["heads"]
    assert config["num_key_value_heads"] == entry["kv_heads"]
    assert config["hidden_size"] == entry["d_model"] and config["head_dim"] == entry["d_head"]


@pytest.mark.slow
@pytest.mark.model
def test_default_edition_loads_fast_and_small():
    code = (
        "import re, time, torch, transformers, th_utils.bridge\n"
        "from pathlib import Path\n"
        "from transformer_lens.model_bridge import TransformerBridge\n"
        "from th_utils import models\n"
        "start = time.perf_counter(); models.load(models.DEFAULT)\n"
        # Not ru_maxrss: a child starts with its parent's peak, and a test worker's is large.
        "peak = re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text()).group(1)\n"
        "print(time.perf_counter() - start, int(peak) / 2**20)"
    )
    models.prepare(models.DEFAULT)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    seconds, gibibytes = (float(part) for part in done.stdout.split())
    assert seconds < 8 and gibibytes < 2
    assert done.stderr == ""
