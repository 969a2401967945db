"""The channel scan against the scores of models that fit into memory, and after interruptions."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks import scan_7b
from benchmarks.scan_7b import write_checkpoint
from th_utils import scan as scans
from th_utils import scan_store
from th_utils.checkpoint import open_checkpoint
from th_utils.composition import component_scores, readers, z_scores
from th_utils.errors import CompanionError
from th_utils.scan import main, scan
from th_utils.scan_store import load
from th_utils.svd import factored_svd, ov_svd
from th_utils.weights import from_checkpoint, iter_layers

SHAPES = {
    "plain": {"layers": 4, "heads": 3, "kv_heads": 3, "d_model": 24, "d_head": 4},
    "grouped": {"layers": 3, "heads": 6, "kv_heads": 2, "d_model": 40, "d_head": 4},
    "one head": {"layers": 5, "heads": 1, "kv_heads": 1, "d_model": 12, "d_head": 6},
}


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    return write_checkpoint(tmp_path / "checkpoint", **SHAPES["plain"], seed=3)


def expected_top(weights, kind: str, k: int, **how) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and z of the k strongest writers of each reader, from all scores at once."""
    all_scores = component_scores(ov_svd(weights), readers(weights, kind, **how))
    layers, heads = weights.n_layers, weights.n_heads
    score = torch.full((layers, heads, k), torch.nan, dtype=all_scores.dtype)
    z = score.clone()
    for layer in range(1, layers):
        for head in range(heads):
            of_reader = all_scores[:layer, :, :, layer, head].flatten()
            best = of_reader.topk(min(k, len(of_reader))).indices
            score[layer, head, : len(best)] = of_reader[best]
            z[layer, head, : len(best)] = z_scores(all_scores[..., layer, head])[:layer].flatten()[
                best
            ]
    return score, z


def assert_top(found, weights, k: int, *, atol: float = 1e-6, **how) -> None:
    """The scan's scores are the strongest, and its writers have these scores."""
    for i, kind in enumerate(found.kinds):
        score, z = expected_top(weights, kind, k, **how)
        torch.testing.assert_close(found.score[i], score, atol=atol, rtol=0, equal_nan=True)
        torch.testing.assert_close(found.z[i], z, atol=1e3 * atol, rtol=0, equal_nan=True)
        all_scores = component_scores(ov_svd(weights), readers(weights, kind, **how))
        layer, head, rank = torch.isfinite(score).nonzero().unbind(1)
        assert torch.equal(found.writer_layer[i] >= 0, torch.isfinite(score))
        at = (i, layer, head, rank)
        writer = (found.writer_layer[at], found.writer_head[at], found.component[at])
        named = all_scores[(*writer, layer, head)]
        torch.testing.assert_close(named, found.score[at], atol=atol, rtol=0)
        # no writer is named twice
        for b in range(1, weights.n_layers):
            for g in range(weights.n_heads):
                names = torch.stack(
                    [found.writer_layer[i], found.writer_head[i], found.component[i]], -1
                )[b, g]
                names = [tuple(name) for name in names.tolist() if name[0] >= 0]
                assert len(set(names)) == len(names)


def assert_equal(found, other) -> None:
    """Bit for bit."""
    for name in "score z writer_layer writer_head component mean std S".split():
        one, two = getattr(found, name), getattr(other, name)
        assert one.dtype == two.dtype
        assert torch.equal(one.nan_to_num(-7), two.nan_to_num(-7)), name


# --- the same as all scores at once


def test_strongest_of_each_family(tiny_model, tmp_path):
    found = scan(tiny_model, tmp_path / "scan", k=7)
    assert_top(found, from_checkpoint(tiny_model), 7)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("k", [1, 6])
def test_strongest_of_random_shapes(shape, k, tmp_path):
    path = write_checkpoint(tmp_path / "c", **SHAPES[shape], seed=1)
    assert_top(scan(path, tmp_path / "scan", k=k), from_checkpoint(path), k)


def test_in_float64(checkpoint, tmp_path):
    found = scan(checkpoint, tmp_path / "scan", k=4, dtype=torch.float64)
    assert found.score.dtype == torch.float64
    assert_top(found, from_checkpoint(checkpoint, dtype=torch.float64), 4, atol=1e-12)


@pytest.mark.parametrize("offsets", [(0,), (1, 5, 9)])
def test_offsets_reach_the_readers(checkpoint, tmp_path, offsets):
    found = scan(checkpoint, tmp_path / "scan", k=4, offsets=offsets)
    assert_top(found, from_checkpoint(checkpoint), 4, offsets=offsets)


def test_some_kinds(checkpoint, tmp_path):
    every = scan(checkpoint, tmp_path / "every", k=3)
    some = scan(checkpoint, tmp_path / "some", k=3, kinds="VQ")
    assert some.kinds == "VQ"
    assert torch.equal(some.score[0].nan_to_num(-1), every.score[2].nan_to_num(-1))
    assert torch.equal(some.writer_head[1], every.writer_head[0])


def test_little_memory_gives_the_same(checkpoint, tmp_path):
    plan = scans._Plan(open_checkpoint(checkpoint), tmp_path, 3, "Q", (1,), "cpu", torch.float32,
                       2**30)  # fmt: skip
    width = plan.per_layer
    least = (scans._ALIVE * plan.d_model + 2) * width * 4
    assert plan.rows == width and plan._rows(least) == 1
    found = scan(checkpoint, tmp_path / "little", k=3, memory=least)
    assert_top(found, from_checkpoint(checkpoint), 3)
    with pytest.raises(CompanionError, match="memory=.* is too little: one layer of .* needs"):
        scan(checkpoint, tmp_path / "none", memory=least - 1)


def test_memory_that_is_said_to_be_enough_is(tmp_path):
    """From the headers of a model of 70B parameters, of which nothing else is there."""
    said = scan_7b.SHAPE_70B
    heads, kv_heads, d_model, d_head = (said[n] for n in list(said)[1:])
    read = [torch.empty(n, d_model, d_head, device="meta") for n in (heads, kv_heads, kv_heads)]
    checkpoint = open_checkpoint(write_checkpoint(tmp_path / "c", **SHAPES["plain"]))
    scheme = dataclasses.replace(
        checkpoint.scheme, n_layers=said["layers"], read=lambda *_: (*read, None)
    )
    checkpoint = dataclasses.replace(checkpoint, scheme=scheme)
    how = (checkpoint, tmp_path, 3, "Q", (1,), "cpu", torch.float32)
    with pytest.raises(CompanionError, match=r"memory=\d+ \(on the command line --memory") as error:
        scans._Plan(*how, 2 * 2**30)
    enough = int(re.findall(r"memory=(\d+)", str(error.value))[-1])
    assert enough < 3.2 * 2**30  # as the command's help says
    assert scans._Plan(*how, enough).rows == heads * d_head
    shown = float(re.findall(r"--memory (\S+)\)", str(error.value))[0])
    assert int(shown * 2**30) <= enough <= shown * 2**30 + 1
    scans._Plan(*how, int(shown * 2**30))


def test_one_layer_at_a_time_is_what_the_whole_checkpoint_gives(tiny_model):
    checkpoint = open_checkpoint(tiny_model)
    whole = list(iter_layers(tiny_model))
    assert checkpoint.n_layers == len(whole)
    for number in reversed(range(len(whole))):
        found = checkpoint.layer(number)
        for name, part in zip(("W_Q", "W_K", "W_V", "W_O"), whole[number], strict=True):
            assert torch.equal(getattr(found, name)[0], part)
    W_Q, W_K, *_ = whole[0]
    assert checkpoint.sizes() == (W_Q.shape[0], W_K.shape[0], *W_Q.shape[1:])


def test_a_layer_may_be_spread_over_files(checkpoint, tmp_path):
    spread, where = tmp_path / "spread", {}
    spread.mkdir()
    for file in checkpoint.glob("*.safetensors"):
        for name, tensor in load_file(file).items():
            where[name] = f"{name}.safetensors"
            save_file({name: tensor}, spread / where[name])
    (spread / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    (spread / "config.json").write_text((checkpoint / "config.json").read_text())
    assert_equal(scan(spread, tmp_path / "one"), scan(checkpoint, tmp_path / "other"))


def test_heads_are_asked_for_where_no_config_says_them(tiny_gpt2, tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes((tiny_gpt2 / file.name).read_bytes())
    with pytest.raises(CompanionError, match="say how many heads"):
        scan(file, tmp_path / "scan")
    found = scan(file, tmp_path / "scan", n_heads=4)
    assert_equal(found, scan(tiny_gpt2, tmp_path / "other"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_same_on_a_gpu(checkpoint, tmp_path):
    assert_top(
        scan(checkpoint, tmp_path / "scan", k=6, device="cuda"), from_checkpoint(checkpoint), 6
    )


def test_fewer_writers_than_asked_for(checkpoint, tmp_path):
    """In the first reading layer some ranks stay empty; no rank is kept that no reader fills."""
    writers = 3 * 4
    found = scan(checkpoint, tmp_path / "some", k=writers + 2, kinds="V")
    assert torch.isfinite(found.score[0, 1]).sum(-1).eq(writers).all()
    assert torch.isfinite(found.score[0, 2:]).all()
    assert_top(found, from_checkpoint(checkpoint), writers + 2)
    most = scan(checkpoint, tmp_path / "most", k=1000, kinds="V")
    assert most.score.shape[-1] == 3 * writers
    assert_top(most, from_checkpoint(checkpoint), 3 * writers)


# Rows or columns of the stored matrix that make a part of the first head of three zero.
DEAD = {
    "writes nothing": ("o_proj", (slice(None), slice(4))),
    "one component of four": ("o_proj", (slice(None), slice(1))),
    "reads no values": ("v_proj", (slice(4),)),
    "has no queries": ("q_proj", (slice(4),)),
    "has no keys": ("k_proj", (slice(4),)),
}


@pytest.mark.parametrize("dead", DEAD)
@pytest.mark.parametrize("layer", [1, 2])
def test_what_is_zero_scores_zero(dead, layer, tmp_path):
    """As in `component_scores`, for writers and for readers, and in standard scores."""
    path = write_checkpoint(tmp_path / "c", **SHAPES["plain"], seed=2)
    name, zeros = DEAD[dead]
    file = path / f"model-{layer + 1:05}-of-00004.safetensors"
    tensors = load_file(file)
    tensors[f"model.layers.{layer}.self_attn.{name}.weight"][zeros] = 0
    save_file(tensors, file)
    every = 3 * 3 * 4  # all the writers of the last layer's readers: the silent ones are last
    found = scan(path, tmp_path / "scan", k=every)
    assert_top(found, from_checkpoint(path), every)
    silent = {"writes nothing": "V", "reads no values": "V", "has no queries": "QK",
              "has no keys": "QK"}.get(dead, "")  # fmt: skip
    n = layer * 3 * 4
    for kind in silent:
        at = ("QKV".index(kind), layer, 0)
        assert (found.score[at][:n] == 0).all() and (found.z[at][:n] == 0).all()
        assert (found.writer_layer[at][:n] >= 0).all() and found.std[at] == 0
    writes = {"one component of four": 1, "writes nothing": 4, "reads no values": 4}.get(dead, 0)
    assert ((found.score[:, 3] == 0).sum(-1) == writes).all()
    share = torch.tensor(found.table().columns["share"])
    assert share.isfinite().all()


def test_the_table_is_the_result(checkpoint, tmp_path):
    found = scan(checkpoint, tmp_path / "scan", k=4)
    table = found.table()
    assert len(table) == torch.isfinite(found.score).sum()
    for row in (0, 11, len(table) - 1):
        said = {name: column[row] for name, column in table.columns.items()}
        at = ("QKV".index(said["kind"]), said["reader_layer"], said["reader_head"], said["rank"])
        assert said["score"] == found.score[at] and said["z"] == found.z[at]
        assert said["writer_layer"] == found.writer_layer[at] < said["reader_layer"]
        S = ov_svd(from_checkpoint(checkpoint)).S[said["writer_layer"], said["writer_head"]]
        share = S[said["component"]] ** 2 / (S**2).sum()
        assert said["share"] == pytest.approx(float(share), rel=1e-5)
    assert table.meta["shape"]["layers"] == 4


# --- stopped and continued


def stop_after(monkeypatch, calls: int) -> None:
    """Let the scan score so many pairs of layers, then press Ctrl-C."""
    real, left = scans.pair_scores, [calls]

    def counted(*arguments, **named):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return real(*arguments, **named)

    monkeypatch.setattr(scans, "pair_scores", counted)


@pytest.mark.parametrize("save_every", [0.0, 1e9])
@pytest.mark.parametrize("calls", [0, 1, 4, 9, 17])
def test_continued_after_an_interruption(checkpoint, tmp_path, monkeypatch, calls, save_every):
    whole = scan(checkpoint, tmp_path / "whole", k=6)
    monkeypatch.setattr(scans, "SAVE_EVERY_S", save_every)
    with monkeypatch.context() as context:
        stop_after(context, calls)
        with pytest.raises(KeyboardInterrupt):
            scan(checkpoint, tmp_path / "scan", k=6)
    with pytest.raises(CompanionError, match="no finished scan"):
        load(tmp_path / "scan")
    assert_equal(scan(checkpoint, tmp_path / "scan", k=6), whole)


def test_continued_does_nothing_twice(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(scans, "SAVE_EVERY_S", 0.0)
    with monkeypatch.context() as context:
        stop_after(context, 13)  # within the third pair of the last layer, or its fifth of six
        with pytest.raises(KeyboardInterrupt):
            scan(checkpoint, tmp_path / "scan")
    stop_after(monkeypatch, 18 - 12)  # what was done of an unfinished pair is done again
    found = scan(checkpoint, tmp_path / "scan")
    assert torch.isfinite(found.score[:, 1:, :, 0]).all()


def test_interrupted_at_every_write(checkpoint, tmp_path, monkeypatch):
    """Stopped again and again, a step further each time, it ends where the other did."""
    whole = scan(checkpoint, tmp_path / "whole", k=6)
    monkeypatch.setattr(scans, "SAVE_EVERY_S", 0.0)
    real, stops = scan_store.write_tensors, 0

    def write_and_stop(*arguments):
        real(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(scan_store, "write_tensors", write_and_stop)
        for _ in range(100):
            try:
                scan(checkpoint, tmp_path / "scan", k=6)
            except KeyboardInterrupt:
                stops += 1
                if (tmp_path / "scan" / scan_store.TENSORS).exists():
                    break
    assert stops == 3 + 6 + 1  # directions, pairs of layers, result
    assert_equal(scan(checkpoint, tmp_path / "scan", k=6), whole)


def test_continued_after_kill_9(tmp_path):
    path = write_checkpoint(
        tmp_path / "c", layers=6, heads=8, kv_heads=8, d_model=512, d_head=64, seed=4
    )
    start = [sys.executable, "-m", "th_utils.scan", str(path), "--top", "5", "--out"]
    # the same threads in all: bits are promised for these only
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    whole = [*start, str(tmp_path / "whole")]
    subprocess.run(whole, env=environment, capture_output=True, check=True)
    command, scratch = [*start, str(tmp_path / "scan")], tmp_path / "scan" / "scratch"
    for wanted in ("writers-001*", "readers-003*"):
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and not list(scratch.glob(wanted)):
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    left = scratch / ".writers-004.safetensors.half"
    left.write_bytes(b"half")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not scratch.exists()
    assert_equal(load(tmp_path / "scan"), load(tmp_path / "whole"))


def test_a_finished_scan_is_only_read(checkpoint, tmp_path, monkeypatch):
    whole = scan(checkpoint, tmp_path / "scan")
    stop_after(monkeypatch, 0)
    assert_equal(scan(checkpoint, tmp_path / "scan"), whole)
    assert_equal(load(tmp_path / "scan"), whole)
    assert not (tmp_path / "scan" / "scratch").exists()


# --- what is refused


@pytest.fixture
def begun(checkpoint, tmp_path, monkeypatch):
    """A scan that was stopped in the middle."""
    with monkeypatch.context() as context:
        stop_after(context, 5)
        with pytest.raises(KeyboardInterrupt):
            scan(checkpoint, tmp_path / "scan", k=6)
    return tmp_path / "scan"


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"k": 7}, r"another k \(6 there, 7 here\)"),
        ({"kinds": "QK"}, r"another kinds \(QKV there, QK here\)"),
        ({"offsets": (3,)}, "another offsets"),
        ({"dtype": torch.float64}, r"another dtype \(float32 there, float64 here\)"),
    ],
)
def test_another_scan_in_the_folder_is_refused(checkpoint, begun, other, said):
    with pytest.raises(CompanionError, match=said):
        scan(checkpoint, begun, **{"k": 6, **other})


def test_another_checkpoint_is_refused(checkpoint, begun, tmp_path):
    same = write_checkpoint(tmp_path / "moved", **SHAPES["plain"], seed=3)
    scan(same, begun, k=6)  # the place does not matter, and this ends it
    config = json.loads((checkpoint / "config.json").read_text())
    (same / "config.json").write_text(json.dumps({**config, "rope_theta": 5000.0}))
    with pytest.raises(CompanionError, match="another checkpoint"):
        scan(same, begun, k=6)
    trained = write_checkpoint(tmp_path / "trained", **SHAPES["plain"], seed=5)
    with pytest.raises(CompanionError, match="holds a scan with another checkpoint"):
        scan(trained, begun, k=6)
    larger = write_checkpoint(tmp_path / "larger", **{**SHAPES["plain"], "layers": 5})
    with pytest.raises(CompanionError, match=r"checkpoint, layers \(4 there, 5 here\)"):
        scan(larger, begun, k=6)


def test_another_version_of_the_kernels_is_refused(checkpoint, begun, monkeypatch):
    monkeypatch.setattr(scans, "_kernel_digest", lambda: "0123456789abcdef")
    with pytest.raises(CompanionError, match="another digest"):
        scan(checkpoint, begun, k=6)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"k": 0}, "k=0: keep one writer or more"),
        ({"k": 2.5}, "k=2.5: keep one writer or more for each reader, a whole number"),
        ({"k": True}, "k=True"),
        ({"n_heads": -2}, "n_heads -2 is not a number of heads"),
        ({"n_heads": 0}, "n_heads 0 is not a number of heads"),
        ({"device": "meta"}, r"device 'meta' cannot be used \(it holds no values\)"),
        ({"memory": 1e9}, "memory=1000000000.0: a whole number of bytes"),
        ({"kinds": ""}, "kinds=''"),
        ({"kinds": "QX"}, "kinds='QX': some of the letters QKV"),
        ({"kinds": "QQ"}, "each once"),
        ({"dtype": torch.bfloat16}, "dtype=torch.bfloat16: torch.float32 or"),
        ({"device": "abacus"}, "device 'abacus' cannot be used"),
        ({"offsets": ()}, "offsets"),
        ({"offsets": (-1,)}, "offsets"),
        ({"offsets": (1.5,)}, "offsets=.* whole numbers of tokens"),
    ],
)
def test_arguments_out_of_range(checkpoint, tmp_path, arguments, said):
    with pytest.raises(CompanionError, match=said):  # without the types that tests enforce
        inspect.unwrap(scan)(checkpoint, tmp_path / "scan", **arguments)


def test_checkpoints_that_cannot_be_scanned(checkpoint, tmp_path):
    with pytest.raises(CompanionError, match="there is no checkpoint"):
        scan(tmp_path / "absent", tmp_path / "scan")
    one = write_checkpoint(tmp_path / "one", **{**SHAPES["plain"], "layers": 1})
    with pytest.raises(CompanionError, match="has 1 layer"):
        scan(one, tmp_path / "scan")
    (tmp_path / "none").mkdir()
    with pytest.raises(CompanionError, match="holds no .safetensors file"):
        scan(tmp_path / "none", tmp_path / "scan")
    save_file({"x": torch.zeros(2)}, tmp_path / "none" / "model.safetensors")
    with pytest.raises(CompanionError, match="no attention tensors"):
        scan(tmp_path / "none", tmp_path / "scan")
    file = checkpoint / "model-00002-of-00004.safetensors"
    tensors = load_file(file)
    name = "model.layers.1.self_attn.o_proj.weight"
    tensors[name][3, 3] = torch.nan
    save_file(tensors, file)
    with pytest.raises(CompanionError, match="layer 1: W_O contains NaN"):
        scan(checkpoint, tmp_path / "nan")
    del tensors[name]
    save_file(tensors, file)
    with pytest.raises(CompanionError, match="o_proj.weight is missing"):
        scan(checkpoint, tmp_path / "missing")
    file.write_bytes(b"cut")
    with pytest.raises(CompanionError, match="missing or damaged"):
        scan(checkpoint, tmp_path / "cut")


def test_layers_of_different_shapes_are_refused(checkpoint, tmp_path):
    file = checkpoint / "model-00003-of-00004.safetensors"
    tensors = load_file(file)
    for name in "qkv":
        key = f"model.layers.2.self_attn.{name}_proj.weight"
        tensors[key] = torch.cat([tensors[key], tensors[key]])
    key = "model.layers.2.self_attn.o_proj.weight"
    tensors[key] = torch.cat([tensors[key], tensors[key]], dim=1)
    save_file(tensors, file)
    with pytest.raises(CompanionError, match="layer 2: W_Q .* differ from those of the first"):
        scan(checkpoint, tmp_path / "scan")


def test_a_full_disk_is_refused_before_anything_is_computed(checkpoint, tmp_path, monkeypatch):
    usage = scan_store.shutil.disk_usage(tmp_path)
    stop_after(monkeypatch, 0)
    with monkeypatch.context() as context:
        context.setattr(scan_store.shutil, "disk_usage", lambda path: usage._replace(free=2000))
        with pytest.raises(CompanionError, match="not enough disk: the scan needs .* MB under"):
            scan(checkpoint, tmp_path / "scan")
    assert not list((tmp_path / "scan" / "scratch").iterdir())
    # nothing was done, so the folder is still free for another scan
    with pytest.raises(KeyboardInterrupt):
        scan(checkpoint, tmp_path / "scan", k=3)


def test_room_on_the_disk_is_what_a_scan_takes(checkpoint, tmp_path, monkeypatch):
    needed = []
    monkeypatch.setattr(scan_store, "need_room", lambda folder, n_bytes: needed.append(n_bytes))
    kept = scan_store.finish

    def measure(folder, found):
        taken = sum(file.stat().st_size for file in (folder / "scratch").iterdir())
        kept(folder, found)
        taken += sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
        needed.append(taken)

    monkeypatch.setattr(scan_store, "finish", measure)
    path = write_checkpoint(
        tmp_path / "c", layers=4, heads=4, kv_heads=4, d_model=256, d_head=64, seed=1
    )
    scan(path, tmp_path / "scan", k=20)
    assert needed[1] <= needed[0] <= 2 * needed[1]


def test_a_damaged_scratch_file_is_named(checkpoint, begun):
    scan_store.directions_file(begun, 0).write_bytes(b"cut")
    with pytest.raises(CompanionError, match="writers-000.safetensors is missing or damaged"):
        scan(checkpoint, begun, k=6)


def test_a_folder_that_cannot_be_made(checkpoint, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CompanionError, match="cannot make the folder"):
        scan(checkpoint, tmp_path / "file" / "scan")


# --- the command


def test_the_command_says_what_it_found(checkpoint, tmp_path, capsys):
    arguments = [str(checkpoint), "--out", str(tmp_path / "scan"), "--top", "99"]
    assert main([*arguments, "--offsets", "0,3", "--kinds", "qv"]) == 0
    out, err = capsys.readouterr()
    assert "--top 99: no reader has more than 36 writers" in out
    found = load(tmp_path / "scan")
    assert found.said["parameters"]["offsets"] == [0, 3]
    strongest = out.splitlines()[3].split()
    assert float(strongest[-1]) == pytest.approx(found.z.nan_to_num(-9).max().item(), abs=0.051)
    assert main([*arguments, "--kinds", "Z"]) == 1
    assert "kinds='Z'" in capsys.readouterr().err


def test_the_command_can_be_interrupted(checkpoint, tmp_path, capsys, monkeypatch):
    stop_after(monkeypatch, 4)
    assert main([str(checkpoint), "--out", str(tmp_path / "scan")]) == 130
    assert "the same command continues" in capsys.readouterr().err


def test_offsets_that_are_none(checkpoint, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(checkpoint), "--out", str(tmp_path / "scan"), "--offsets", "near"])
    assert "'near' is not a range such as 1-32" in capsys.readouterr().err


@pytest.mark.parametrize("memory", ["much", "nan", "-1", "inf"])
def test_memory_that_is_none(checkpoint, tmp_path, capsys, memory):
    with pytest.raises(SystemExit):
        main([str(checkpoint), "--out", str(tmp_path / "scan"), f"--memory={memory}"])
    assert f"'{memory}' is not a number of GiB" in capsys.readouterr().err


def test_progress_counts_pairs_of_layers(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("TH_PROGRESS", str(tmp_path / "progress"))
    scan(checkpoint, tmp_path / "scan")
    last = (tmp_path / "progress").read_text().splitlines()[-1]
    assert json.loads(last) == {"desc": "pairs of layers", "n": 6, "total": 6}


# --- size


def test_operations_are_counted():
    """Against the products themselves."""
    shape = {"layers": 3, "heads": 2, "d_model": 7, "d_head": 3}
    width = 2 * 3
    one = sum(2 for _ in range(width) for _ in range(width) for _ in range(7))
    assert scans.operations(shape) == 3 * 3 * one


def test_the_benchmark_reports_what_it_measured(tmp_path, monkeypatch):
    shape = {"layers": 3, "heads": 2, "kv_heads": 2, "d_model": 64, "d_head": 16}
    monkeypatch.setattr(scan_7b, "SHAPE_7B", shape)
    out = tmp_path / "result.json"
    arguments = ["--layers", "3", "--top", "4", "--folder", str(tmp_path), "--out", str(out)]
    assert scan_7b.main([*arguments, "--kill-after", "0.2"]) == 0
    said = json.loads(out.read_text())
    assert said["shape"] == shape and said["operations"] == 9 * 2 * 32 * 32 * 64
    assert [part["exit"] for part in said["parts"]] == [-signal.SIGKILL, 0]
    assert 0 < said["cpu_seconds"] and 2**26 < said["peak_bytes"] < 2**31
    rate = said["operations"] / said["cpu_seconds"]
    assert said["estimate_70b"]["cpu_hours"] == pytest.approx(2 * 3 * 3160 * 8192**3 / rate / 3600)
    assert str(tmp_path) not in out.read_text()


@pytest.mark.slow
def test_four_layers_of_7b_width_stay_below_4_gib(tmp_path):
    """In a process of its own, whose peak is then the scan's; 4 layers take about a minute."""
    path = write_checkpoint(
        tmp_path / "c", layers=4, heads=32, kv_heads=32, d_model=4096, d_head=128
    )
    program = (
        "import re, sys; from th_utils.scan import scan; "
        "found = scan(sys.argv[1], sys.argv[2]); "
        "assert found.score.isfinite()[:, 1:].all(); "
        # Not ru_maxrss: a child starts with its parent's peak, and a test worker's is large.
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path), str(tmp_path / "scan")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < 4 * 2**30
    found = load(tmp_path / "scan")
    assert found.score.shape == (3, 4, 32, 50)
    assert_one_reader(found, open_checkpoint(path))


def assert_one_reader(found, checkpoint) -> None:
    """Its strongest writer's score by value, from the definition in float64."""
    last = checkpoint.n_layers - 1
    reader = checkpoint.layer(last, dtype=torch.float64)
    W_V, W_O = reader.W_V[0, -1], reader.W_O[0, -1]
    at = (found.kinds.index("V"), last, -1)
    strongest = tuple(int(getattr(found, n)[at][0]) for n in ("writer_layer", "writer_head"))
    writer = checkpoint.layer(strongest[0], dtype=torch.float64)
    V = factored_svd(writer.W_V[0, strongest[1]], writer.W_O[0, strongest[1]].mT)[2]
    v = V[:, int(found.component[at][0])]
    score = (v @ W_V @ W_O).norm() / (W_V @ W_O).norm()
    assert float(found.score[at][0]) == pytest.approx(float(score), abs=1e-5)
