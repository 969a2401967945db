"""Costly measurements are taken once, also by processes that ask at the same time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from th_utils.memory import remember

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("TALKING_HEADS_CACHE", str(tmp_path))
    return tmp_path


def never() -> str:
    raise AssertionError("measured a second time")


def test_measured_once_for_each_key():
    assert remember(["a", {"seed": 0}], lambda: "[1]") == "[1]"
    assert remember(["a", {"seed": 0}], never) == "[1]"
    assert remember(["a", {"seed": 1}], lambda: "[2]") == "[2]"
    assert remember(["a", {"seed": 0}], never) == "[1]"


def test_a_damaged_file_is_measured_again(cache):
    remember(["a"], lambda: '{"x": 1}')
    (path,) = (cache / "measurements").glob("*.json")
    path.write_text('{"x": ')
    assert remember(["a"], lambda: '{"x": 2}') == '{"x": 2}'
    assert remember(["a"], never) == '{"x": 2}'


def test_a_failed_measurement_leaves_nothing(cache):
    with pytest.raises(AssertionError):
        remember(["a"], never)
    assert not list((cache / "measurements").glob("*.json"))
    assert remember(["a"], lambda: "1") == "1"


SCRIPT = """
import sys, time
from th_utils.memory import remember
def measure():
    with open(sys.argv[1], "a") as stream:
        stream.write("x")
    time.sleep(1)
    return "[7]"
print(remember(["k"], measure))
"""


def test_two_processes_measure_once(tmp_path):
    count = tmp_path / "count"
    search = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    running = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(count)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": search},
        )
        for _ in range(2)
    ]
    assert [process.communicate(timeout=60)[0] for process in running] == ["[7]\n", "[7]\n"]
    assert count.read_text() == "x"
