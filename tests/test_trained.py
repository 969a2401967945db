"""Estimates against exact sweeps: reduction, mask, draws and page on small fixed data.

No trained model is loaded: the whole measurement runs once on a tiny random one.
"""

from __future__ import annotations

import itertools
import json
import re

import numpy as np
import pytest
import torch
from test_benchmarks import numbers, same, stated

from benchmarks import agreement, trained
from th_utils.bootstrap import rank_correlation
from th_utils.build import agreement as page
from th_utils.build import kernels
from th_utils.build.layout import find_root
from th_utils.replay import Replay
from th_utils.transformer import random_transformer

ROOT = find_root()


# --- the reduction ------------------------------------------------------------------------------


def noisy(prompts: int = 8, cells: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    exact = rng.standard_normal(cells) + 0.3 * rng.standard_normal((prompts, cells))
    return exact, 0.8 * exact + 0.2 * rng.standard_normal((prompts, cells))


def test_statistics_are_those_of_the_averages():
    exact, estimate = noisy()
    said = agreement.over_prompts(exact, estimate, seed=0, n_boot=50)
    x, y = exact.mean(0), estimate.mean(0)
    assert said["correlation"][0] == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert said["rank_correlation"][0] == pytest.approx(float(rank_correlation(x, y)))
    assert said["slope"][0] == pytest.approx(np.polyfit(x, y, 1)[0])
    within = [np.corrcoef(*pair)[0, 1] for pair in zip(exact, estimate, strict=True)]
    assert said["within_prompts"][0] == pytest.approx(np.mean(within))
    assert said["each_prompt"] == pytest.approx(within)
    assert said["rms_exact"] == pytest.approx(np.sqrt((x**2).mean()))
    assert said["cells"] == 200
    for name in ("correlation", "rank_correlation", "slope", "same_sign", "within_prompts"):
        value, low, high = said[name]
        assert low <= value + 0.02 and value - 0.02 <= high and low < high or name == "same_sign"


def test_intervals_are_over_prompts():
    """Prompts that are all the same leave nothing to be unsure of, however noisy the cells are."""
    exact, estimate = (np.repeat(x[:1], 8, axis=0) for x in noisy())
    said = agreement.over_prompts(exact, estimate, seed=0, n_boot=50)
    for name in ("correlation", "slope"):
        value, low, high = said[name]
        assert low == pytest.approx(value) == high


def test_a_cell_is_averaged_over_the_prompts_that_have_it():
    exact = np.array([[1.0, 2.0, np.nan, np.nan], [3.0, np.nan, 5.0, np.nan]])
    said = agreement.over_prompts(exact, -exact, seed=0, n_boot=20)
    assert said["cells"] == 3
    assert said["rms_exact"] == pytest.approx(np.sqrt(np.mean(np.square([2.0, 2.0, 5.0]))))
    assert said["correlation"][0] == pytest.approx(-1) and said["same_sign"][0] == 0


def test_signs_are_those_of_the_largest_exact_effects():
    x = np.concatenate([np.full(agreement.LARGEST, 5.0), np.full(100, -0.1)])
    y = np.concatenate([np.full(agreement.LARGEST, 0.1), np.full(100, 9.0)])
    assert agreement.same_sign(x, y) == 1
    y[: agreement.LARGEST // 2] *= -1
    assert agreement.same_sign(x, y) == 0.5


def test_ties_share_their_rank():
    x, y = torch.tensor([1.0, 1, 1, 2, 3]), torch.tensor([4.0, 2, 3, 3, 9])
    expected = np.corrcoef([2, 2, 2, 4, 5], [4, 1, 2.5, 2.5, 5])[0, 1]
    assert agreement.compare(x, y)["rank_correlation"] == pytest.approx(expected)


# --- what is measured ---------------------------------------------------------------------------


def some_prompts() -> trained.Prompts:
    """Different beginnings of the difference and different ends."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randint(50, (3, 8), generator=generator)
    source = base.clone()
    source[0, 2:5] += 1
    source[1, 3] += 1
    source[2, 1] += 1
    read = torch.tensor([7, 5, 6])
    return trained.Prompts(base, source % 50, read, torch.tensor([1, 2, 3]), torch.arange(4, 7))


@pytest.fixture(scope="module")
def engine() -> Replay:
    return Replay(random_transformer("llama", layers=6, heads=4, kv_heads=2, d_model=32))


def test_cells_without_effect_are_those_that_the_exact_sweep_leaves_at_zero(engine):
    prompts = some_prompts()
    seen = trained.has_effect(prompts, engine.n_layers)
    effect = trained._patched(engine, prompts).abs().amax(2)
    assert torch.equal(seen, effect > 1e-5) and seen.any() and not seen.all()
    assert seen[-1].sum() == len(prompts)


def test_positions_are_counted_from_the_one_read():
    values = torch.arange(8.0)[None, :, None, None].expand(2, -1, 1, 3)
    read = torch.tensor([7, 5, 6])
    found = trained.from_the_end(values, read)
    assert torch.equal(found[0, -1, 0], read.float())
    assert found[0, :, 0, 1].isnan().sum() == 2
    assert torch.equal(found[1, 2:, 0, 1], torch.arange(6.0))


def test_readers_are_drawn_from_each_third():
    for layers in (3, 6, 12, 30, 32):
        runs = trained.thirds(layers)
        assert [at for run in runs for at in run] == list(range(layers))
        assert max(map(len, runs)) - min(map(len, runs)) <= 1
    drawn = trained.draw_readers(12, 5, 4)
    assert drawn == trained.draw_readers(12, 5, 4) != trained.draw_readers(12, 5, 4, seed=1)
    for run, some in zip(trained.thirds(12), drawn, strict=True):
        assert len(set(some)) == 4
        assert all(layer in run and layer > 0 and 0 <= head < 5 for layer, head in some)
    fewer = trained.draw_readers(12, 5, 2)
    assert fewer == [some[:2] for some in drawn]


@pytest.mark.parametrize("count", [2, 5])
def test_prompts_are_independent_draws(monkeypatch, count):
    """One of each pair, in turns of either order; both runs are of the same split."""
    from th_utils.tasks import ioi

    asked = {}

    def draw(tokenizer, n, *, seed, split):
        asked["n"], asked["split"] = n, split
        tokens = torch.arange(n)[:, None].expand(-1, 9)
        end = torch.arange(n) % 2 + 5
        return ioi.IOIPrompts(
            tokens, {"end": end}, torch.arange(n), torch.arange(n), torch.arange(n) % 2 == 0,
            torch.arange(n) // 2, ("",) * n,
        )  # fmt: skip

    def fresh(prompts, tokenizer, *, seed, split):
        assert split == asked["split"] == "find"
        return prompts.tokens + 1

    monkeypatch.setattr(ioi, "prompts", draw)
    monkeypatch.setattr(ioi, "with_fresh_names", fresh)
    found = trained.draw_prompts(None, count)
    assert asked["n"] == 2 * count and len(found) == count
    assert (found.base[:, 0] // 2).tolist() == list(range(count))
    assert (found.base[:, 0] % 2).tolist() == [i % 2 for i in range(count)]
    assert found.base.shape[1] == int(found.read.max()) + 1
    assert torch.equal(found.source, found.base + 1)


@pytest.fixture(scope="module")
def measured(engine, tmp_path_factory) -> dict:
    """What the measurement gives, with what the command adds."""
    work = tmp_path_factory.mktemp("parts")
    readers = trained.draw_readers(engine.n_layers, engine.n_heads, 2)
    found = trained.measure(engine, some_prompts(), readers, work, n_boot=20)
    parameters = {"prompts": 3, "readers_of_each_third": 2, "level": 0.95, "largest": 50}
    return found | {"edition": "random", "parameters": parameters, "work": work}


def test_every_comparison_is_made(measured, engine):
    rows = {(row["estimate"], row["third"], row["kind"]): row for row in measured["table"]}
    wanted = set(itertools.product(["direct effects"], (None, *trained.THIRDS), (None, *"QKV")))
    assert set(rows) == wanted | {("attribution patching", None, None)}
    for kind in "QKV":
        cells = [rows["direct effects", third, kind]["cells"] for third in trained.THIRDS]
        assert sum(cells) == rows["direct effects", None, kind]["cells"]
    layers = [int(name.split(".")[0]) for name in measured["readers"]]
    assert rows["direct effects", None, "Q"]["cells"] == sum(layers) * engine.n_heads
    assert set(measured["seconds"]) == {*page.EXACT, *page.EXACT.values()}


def test_behind_the_last_layer_of_a_parallel_model_both_agree(tmp_path):
    """Nothing but the final norm is frozen there, so that the same pairs are compared."""
    engine = Replay(random_transformer("neox", layers=4, heads=4, d_model=64))
    readers = [[(1, 0)], [(2, 0)], [(3, head) for head in range(4)]]
    found = trained.measure(engine, some_prompts(), readers, tmp_path, n_boot=20)
    for kind in "QKV":
        row = next(x for x in found["table"] if (x["third"], x["kind"]) == ("last", kind))
        assert row["correlation"][0] > 0.9


def test_parts_that_are_done_are_not_computed_again(measured, engine, monkeypatch, capsys):
    def never(*_, **__):
        raise AssertionError("computed again")

    monkeypatch.setattr(trained.sweeps, "path_patching", never)
    monkeypatch.setattr(trained.sweeps, "activation_patching", never)
    readers = trained.draw_readers(engine.n_layers, engine.n_heads, 2)
    again = trained.measure(engine, some_prompts(), readers, measured["work"], n_boot=20)
    assert again["table"] == measured["table"]
    assert again["seconds"]["path patching"] == measured["seconds"]["path patching"]
    assert capsys.readouterr().out.count("done before") == 20


def test_the_table_can_be_read_in_a_terminal(measured):
    lines = trained.text(measured).splitlines()
    assert len(lines) == 2 + len(measured["table"])
    assert lines[2].startswith("attribution patching  all     all")


# --- the page -----------------------------------------------------------------------------------


def recorded(measured: dict, folder) -> None:
    folder.mkdir(parents=True)
    kept = {name: value for name, value in measured.items() if name != "work"}
    (folder / "trained.json").write_text(json.dumps(trained._rounded(kept)))


def test_every_number_of_the_part_is_in_the_file(measured, tmp_path):
    folder = tmp_path / "benchmarks" / "results"
    recorded(measured, folder)
    said = kernels.parts(tmp_path, None, "")["kernels_trained"]()
    known = numbers(json.loads((folder / "trained.json").read_text()))
    known += [float(len(measured["readers"]))]
    for number in stated(said):
        assert any(same(number, x) or number == abs(float(f"{x:.2f}")) for x in known), number
    lines = [line for line in said.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 1 + 1 + 3 + 3
    assert "3 prompts" in said and "6 of 20 readers" in said


def test_without_the_file_the_part_says_so(tmp_path):
    assert kernels.parts(tmp_path, None, "")["kernels_trained"]() == page.MISSING
    assert "python -m benchmarks.trained" in page.MISSING


def test_the_recorded_file_is_of_the_whole_measurement():
    """What the page's sentences rest on was not a small trial."""
    path = ROOT / "benchmarks" / "results" / "trained.json"
    if not path.exists():
        pytest.skip("nothing is recorded yet")
    found = json.loads(path.read_text())
    assert found["parameters"]["prompts"] == 8 and len(found["readers"]) == 12
    assert re.fullmatch(r"[0-9a-f]{64}", found["checksum"])
    assert "/" not in json.dumps(found["parameters"])
