"""Progress on the terminal: one line per running chapter, in place where that is possible.

A chapter's runner reports where it stands. On its own terminal it redraws one line. Below the
build command several runners share a terminal, so each writes *records* (lines that start with a
control character) which the command collects into one status line. Where there is no terminal
there are plain lines, few of them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import TextIO

RECORD = "\x1e"
COLLECTED = "TH_BOARD"  # set by the build command for its runners
LINE_EVERY = 10.0  # seconds between plain lines within a cell
DRAW_EVERY = 0.3  # seconds between looks at the progress file


def bar(done: float | int, total: float | int | None, width: int = 12) -> str:
    """Draw a bar with a percentage, or a count where the total is not known.

    >>> bar(1, 4, width=8)
    '[##......] 25 %'
    >>> bar(3, None)
    '3'
    """
    if not total:
        return f"{done:g}"
    share = min(max(done / total, 0.0), 1.0)
    full = int(share * width)
    return f"[{'#' * full}{'.' * (width - full)}] {share:.0%}".replace("%", " %")


def describe(state: dict) -> str:
    """Say where a chapter stands, in one line."""
    text = str(state["chapter"])
    if state["cells"]:
        text += f"  cell {state['cell']}/{state['cells']}"
    if state.get("desc"):
        text += f"  {bar(state['n'], state.get('total'))} {state['desc']}"
    return text


class Reporter:
    """Reports the state of one running chapter, and follows the bar inside its current cell.

    Work that has no cells gives their number as 0.
    """

    def __init__(self, chapter: str, cells: int, progress: Path, stream: TextIO | None = None):
        self.stream = stream or sys.stderr
        self.progress = progress
        self.state = {"chapter": chapter, "cell": 0, "cells": cells}
        self.in_place = self.stream.isatty() and COLLECTED not in os.environ
        self.last = ""
        self.last_time = 0.0
        self.offset = 0
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Reporter:
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop.set()
        self.thread.join()
        with self.lock:
            if COLLECTED in os.environ:
                self._write(RECORD + json.dumps({**self.state, "ended": True}) + "\n")
            elif self.in_place:
                self._write("\r\x1b[K")

    def cell(self, number: int) -> None:
        """Say that cell `number` (from 1) has begun."""
        with self.lock:
            self.state = {
                "chapter": self.state["chapter"],
                "cell": number,
                "cells": self.state["cells"],
            }
            self._draw(new=True)

    def _follow(self) -> None:
        while not self.stop.wait(DRAW_EVERY):
            with self.lock:
                if (bar_state := self._newest()) is not None:
                    self.state |= bar_state
                    self._draw(new=False)

    def _newest(self) -> dict | None:
        """Return the last whole line that appeared in the progress file since the last look."""
        try:
            with open(self.progress, encoding="utf-8") as stream:
                stream.seek(self.offset)
                text = stream.read()
        except OSError:
            return None
        whole = text[: text.rfind("\n") + 1]
        self.offset += len(whole.encode())
        for line in reversed(whole.splitlines()):
            try:
                found = json.loads(line)
                return {key: found.get(key) for key in ("desc", "n", "total")}
            except (ValueError, AttributeError):
                continue
        return None

    def _draw(self, new: bool) -> None:
        text = describe(self.state)
        if text == self.last:
            return
        if COLLECTED in os.environ:
            self._write(RECORD + json.dumps(self.state) + "\n")
        elif self.in_place:
            self._write("\r" + text[: shutil.get_terminal_size().columns - 1] + "\x1b[K")
        elif new or time.monotonic() - self.last_time > LINE_EVERY:
            self._write(text + "\n")
            self.last_time = time.monotonic()
        self.last = text

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()


# What Snakemake says of itself; the jobs' own lines say what happened.
NOISE = re.compile(
    r"(Assuming unrestricted|Building DAG|Using shell|Select jobs|Execute \d+ jobs|RuleException"
    r"|CalledProcessError in file|Command 'set -euo|Exiting because|WorkflowError:|At least one job"
    r"|Complete log\(s\)|Elapsed time|Nothing to be done|Terminating processes|Will exit after)"
)


class Board:
    """Passes on the output of all jobs and collects their records into one status line below."""

    def __init__(self, stream: TextIO | None = None):
        self.stream = stream or sys.stderr
        self.in_place = self.stream.isatty()
        self.states: dict[str, dict] = {}

    def feed(self, line: str) -> None:
        """Take one line of output: a record, or a line to pass on."""
        if line.startswith(RECORD):
            state = json.loads(line[len(RECORD) :])
            if state.get("ended"):
                self.states.pop(state["chapter"], None)
            else:
                self.states[state["chapter"]] = state
        elif line.strip() and not NOISE.match(line):
            self._write(("\r\x1b[K" if self.in_place else "") + line.rstrip("\n") + "\n")
        if self.in_place:
            text = "   ".join(describe(state) for _, state in sorted(self.states.items()))
            self._write("\r" + text[: shutil.get_terminal_size().columns - 1] + "\x1b[K")

    def close(self) -> None:
        """Remove the status line."""
        if self.in_place:
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()
