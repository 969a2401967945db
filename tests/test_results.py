"""Tables: what is written is what is read, in the same bytes, and says nothing of the machine."""

import csv
import json
import math
import re

import numpy as np
import pandas
import pytest

from th_utils.errors import CompanionError
from th_utils.results import (
    TOLERANCE,
    Provenance,
    Results,
    as_results,
    gather,
    load_table,
    public,
    rounded,
    save_table,
)

PROVENANCE = Provenance("gpt2", "random", {"seed": 0}, {"numpy": "2"}, "0123456789abcdef")


def test_round_trip(tmp_path):
    table = {
        "table": {
            "head": ["0.1", "ä, b"],
            "layer": np.array([0, 11]),
            "score": (1 / 3, float("nan")),
            "known": np.array([True, False]),
        },
        "extra": {"level": np.float32(0.1), "pairs": [{"z": 2 / 3, "rank": np.int64(4)}]},
    }
    files = save_table(table, "fig-a", PROVENANCE, tmp_path)
    read = load_table("fig-a", folder=tmp_path)
    assert read.columns == {
        "head": ["0.1", "ä, b"],
        "layer": [0, 11],
        "score": [0.3333333, None],
        "known": [True, False],
    }
    assert read.meta == {"level": 0.1, "pairs": [{"z": 0.6666667, "rank": 4}]}
    assert read.provenance == PROVENANCE
    assert read["known"].dtype == bool
    assert read["score"][0] == 0.3333333 and math.isnan(read["score"][1])
    assert len(read) == 2
    with open(files["csv"], encoding="utf-8", newline="") as stream:
        assert list(csv.reader(stream)) == [
            ["head", "layer", "score", "known"],
            ["0.1", "0", "0.3333333", "True"],
            ["ä, b", "11", "", "False"],
        ]


def test_tensors_are_columns_and_values():
    torch = pytest.importorskip("torch")
    table = {"x": torch.tensor([0.1, 2.0]), "y": torch.arange(4).reshape(2, 2)}
    found = as_results({"table": table, "extra": {"m": torch.tensor(0.25)}})
    assert found.columns == {"x": [0.1, 2.0], "y": [[0, 1], [2, 3]]}
    assert found.meta == {"m": 0.25}


def test_saving_what_was_read_gives_the_same_bytes(tmp_path):
    x = np.random.default_rng(0).normal(size=200) * 10.0 ** np.arange(-100, 100)
    once = save_table({"x": x}, "a", PROVENANCE, tmp_path / "1")
    twice = save_table(load_table("a", folder=tmp_path / "1"), "a", PROVENANCE, tmp_path / "2")
    for kind in ("json", "csv"):
        assert once[kind].read_bytes() == twice[kind].read_bytes()


def test_order_of_keys_does_not_matter_but_order_of_columns_is_kept(tmp_path):
    one = {"table": {"b": [1], "a": [2]}, "extra": {"y": 1, "x": {"q": 1, "p": 2}}}
    two = {"extra": {"x": {"p": 2, "q": 1}, "y": 1}, "table": {"b": [1], "a": [2]}}
    first = save_table(one, "a", PROVENANCE, tmp_path / "1")
    second = save_table(two, "a", PROVENANCE, tmp_path / "2")
    assert first["json"].read_bytes() == second["json"].read_bytes()
    assert list(load_table("a", folder=tmp_path / "1").columns) == ["b", "a"]


def test_noise_below_seven_digits_changes_nothing(tmp_path):
    a = save_table({"x": [0.12345678]}, "a", PROVENANCE, tmp_path / "1")
    b = save_table({"x": [0.12345681]}, "a", PROVENANCE, tmp_path / "2")
    c = save_table({"x": [0.1234578]}, "a", PROVENANCE, tmp_path / "3")
    assert a["json"].read_bytes() == b["json"].read_bytes() != c["json"].read_bytes()


def test_file_is_strict_json_of_records(tmp_path):
    path = save_table({"x": [1.5, math.inf], "y": ["a", "b"]}, "a", PROVENANCE, tmp_path)["json"]

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    said = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert set(said) == {"id", "provenance", "columns", "rows", "meta", "tolerance"}
    assert said["tolerance"] == TOLERANCE
    assert said["id"] == "a"
    assert said["rows"] == [[1.5, "a"], [None, "b"]]
    assert said["provenance"]["digest"] == "0123456789abcdef"


def test_data_frames_and_results_are_tables(tmp_path):
    frame = pandas.DataFrame({"x": [1, 2], "y": [0.5, None], "z": ["p", "q"]})
    expected = {"x": [1, 2], "y": [0.5, None], "z": ["p", "q"]}
    assert as_results(frame).columns == expected
    assert as_results(Results(expected, {"m": 1})) == Results(expected, {"m": 1})
    assert as_results({"table": frame, "extra": {"m": 1}}) == Results(expected, {"m": 1})
    assert list(Results(expected).frame()["z"]) == ["p", "q"]


def test_a_table_of_nested_cells_has_no_csv(tmp_path):
    save_table({"x": [1, 2]}, "a", PROVENANCE, tmp_path)
    assert (tmp_path / "a.csv").exists()
    files = save_table({"x": [[1, 2], [3, 4]]}, "a", PROVENANCE, tmp_path)
    assert set(files) == {"json"}
    assert not (tmp_path / "a.csv").exists(), "left over from the flat table"
    assert load_table("a", folder=tmp_path).columns == {"x": [[1, 2], [3, 4]]}


@pytest.mark.parametrize("table", [{}, {"x": []}, {"table": {}, "extra": {"a": 1}}])
def test_empty_tables(tmp_path, table):
    save_table(table, "a", PROVENANCE, tmp_path)
    assert load_table("a", folder=tmp_path) == Results(
        as_results(table).columns, as_results(table).meta, PROVENANCE
    )


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="different lengths"):
        as_results({"x": [1], "y": [1, 2]})


@pytest.mark.parametrize("table", [{"x": [object()]}, {"x": 3}, [1, 2], {"x": [1 + 2j]}])
def test_what_json_cannot_say_is_refused(table):
    with pytest.raises(TypeError):
        as_results(table)


@pytest.mark.parametrize("name", ["", "Fig", "a/b", "../a", ".a", "a b", "-a", "a\n"])
def test_names_that_are_no_file_names(tmp_path, name):
    with pytest.raises(CompanionError, match="cannot name a figure"):
        save_table({"x": [1]}, name, PROVENANCE, tmp_path)


def test_missing_and_damaged_tables_are_one_line(tmp_path):
    with pytest.raises(CompanionError, match="run the chapter that makes it"):
        load_table("a", folder=tmp_path)
    path = save_table({"x": list(range(50))}, "a", PROVENANCE, tmp_path)["json"]
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"[]", whole.replace(b"[7]", b"[7, 8]")):
        path.write_bytes(damaged)
        with pytest.raises(CompanionError, match="not a whole table.*run its chapter again"):
            load_table("a", folder=tmp_path)


def test_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("TH_OUTPUT", str(tmp_path))
    provenance = Provenance("EleutherAI/pythia-160m", "random")
    files = save_table({"x": [1]}, "a", provenance)
    assert files["json"] == tmp_path / "results" / "EleutherAI-pythia-160m" / "a.json"
    assert load_table("a", "EleutherAI/pythia-160m").columns == {"x": [1]}


def test_gather_names_versions_and_no_place_or_time(tmp_path):
    found = gather(
        "/home/someone/models/mine", "random", {"edition": "/home/someone/models/mine"}, None
    )
    assert found.edition == "mine" and found.parameters == {"edition": "mine"}
    assert set(found.packages) == {
        "th_utils", "torch", "transformers", "transformer-lens", "numpy", "matplotlib",
    }  # fmt: skip
    assert found.packages["numpy"] == np.__version__
    text = save_table({"x": [1]}, "a", found, tmp_path)["json"].read_text()
    assert "/home" not in text and not re.search(r"\d{4}-\d\d-\d\d|\d\d:\d\d", text)


def test_public_and_rounded():
    assert public("~/models/mine") == "mine" and public("a/b") == "a/b"
    assert rounded(123456789.0) == 123456800.0 and str(rounded(-0.0)) == "0.0"
