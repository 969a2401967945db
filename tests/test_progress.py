"""Progress goes into the runner's file and nowhere else."""

import json
import time

import pytest

from th_utils.progress import track


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def report(monkeypatch, tmp_path):
    path = tmp_path / "progress.jsonl"
    monkeypatch.setenv("TH_PROGRESS", str(path))
    return path


def test_silent_without_a_file(monkeypatch, capfd):
    monkeypatch.delenv("TH_PROGRESS", raising=False)
    assert list(track([1, 2, 3], "numbers")) == [1, 2, 3]
    assert capfd.readouterr() == ("", "")


def test_first_and_last_are_reported(report, capfd):
    assert list(track(range(1000), "Zahlen ü")) == list(range(1000))
    said = lines(report)
    assert said[0] == {"desc": "Zahlen ü", "n": 0, "total": 1000}
    assert said[-1] == {"desc": "Zahlen ü", "n": 1000, "total": 1000}
    assert len(said) < 5, "a fast loop reports hardly more than its ends"
    assert capfd.readouterr() == ("", "")


def test_at_most_five_reports_a_second(report):
    started = time.monotonic()
    for _ in track(range(60), "steps"):
        time.sleep(0.01)
    seconds = time.monotonic() - started
    said = lines(report)
    assert 3 <= len(said) <= 2 + 5 * seconds
    assert [line["n"] for line in said] == sorted(line["n"] for line in said)


def test_total_unknown_until_the_end(report):
    assert list(track(iter("ab"), "letters")) == ["a", "b"]
    assert [(line["n"], line["total"]) for line in lines(report)] == [(0, None), (2, 2)]


def test_total_given(report):
    list(track(iter("ab"), "letters", total=5))
    assert {line["total"] for line in lines(report)} == {5}


def test_lines_are_appended(report):
    list(track("a", "first"))
    list(track("b", "second"))
    assert {line["desc"] for line in lines(report)} == {"first", "second"}


def test_work_goes_on_when_nothing_can_be_written(monkeypatch, tmp_path):
    monkeypatch.setenv("TH_PROGRESS", str(tmp_path / "absent" / "progress"))
    assert list(track("abc", "letters")) == ["a", "b", "c"]
