"""The build: what runs again and what does not, and that it can be killed at any moment."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import nbformat
import pytest
import toy

from th_utils.build import graph, notebooks, pages, refresh, run
from th_utils.build.layout import Layout
from th_utils.build.release import problems
from th_utils.errors import CompanionError

ALPHA, BETA = "01_alpha", "02_beta"


# --- notebooks, without running any ---------------------------------------------------------


def executed(edition="gpt2", size="book"):
    """A toy chapter as a run leaves it: a cell injected, outputs, times."""
    notebook = toy.chapter("alpha")
    for number, cell in enumerate(notebook.cells):
        cell.metadata["papermill"] = {"duration": number}
        if cell.cell_type == "code":
            cell.execution_count = number + 5
    injected = nbformat.v4.new_code_cell(
        f'# Parameters\nedition = "{edition}"\nsize = "{size}"\n', id="injected-parameters"
    )
    injected.metadata["tags"] = ["injected-parameters"]
    notebook.cells.insert(3, injected)
    record = {"id": "fig-alpha", "message": "New.", "alt": "A line."}
    output = nbformat.v4.new_output(
        "display_data", {"image/png": "AAAA"}, metadata={"talking_heads": {"figure": record}}
    )
    notebook.cells[-2].outputs = [output]
    notebook.cells[-2].metadata["mystnb"] = {"figure": {"name": "x", "caption": "Old."}}
    notebook.metadata["talking_heads"] = {"edition": edition, "size": size, "seconds": 61.2}
    return notebook


def test_parameters_are_those_injected():
    assert notebooks.parameters(executed()) == {"edition": "gpt2", "size": "book"}


def test_for_git_leaves_nothing_of_the_run():
    committed = toy.chapter("alpha")
    fresh = notebooks.for_git(executed(), committed)
    again = notebooks.for_git(executed(size="full"), fresh)
    text = nbformat.writes(fresh)
    assert nbformat.writes(again) == text
    assert "papermill" not in text and "injected" not in text and "seconds" not in text
    assert [cell.source for cell in fresh.cells] == [cell.source for cell in committed.cells]
    counts = [cell.execution_count for cell in fresh.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))


def test_for_git_refuses_another_source():
    committed = toy.chapter("alpha")
    committed.cells[-1].source += "\n1"
    with pytest.raises(CompanionError, match="run the chapter again"):
        notebooks.for_git(executed(), committed)


def test_for_book_shows_what_ran():
    shown = notebooks.for_book(executed(), lambda record: f"<p>{record['id']}</p>")
    by_id = {cell.id: cell for cell in shown.cells}
    assert "remove-cell" in by_id["injected-parameters"].metadata["tags"]
    assert 'size: str = "book"  # how much' in by_id["parameters"].source
    drawn = by_id["draw"].metadata["mystnb"]
    assert drawn["figure"] == {"name": "fig-alpha", "caption": "**New.** Old."}
    assert drawn["image"] == {"alt": "A line."}
    assert by_id["line-fig-alpha"].source == "<p>fig-alpha</p>"
    assert "`gpt2`, size `book`; this run took 1 min 1 s" in by_id["title"].source


def test_a_figure_stands_alone():
    notebook = executed()
    (figure,) = notebook.cells[-2].outputs
    text = nbformat.v4.new_output("display_data", {"text/markdown": "text"})
    notebook.cells[-2].outputs = [text, figure, text, text]
    shown = notebooks.for_book(notebook, lambda record: "").cells[-4:-1]
    assert [len(cell.outputs) for cell in shown] == [1, 1, 2]
    assert ["mystnb" in cell.metadata for cell in shown] == [False, True, False]
    assert ["remove-input" in notebooks.tags(cell) for cell in shown] == [False, True, True]


@pytest.mark.parametrize(
    ("said", "runs", "loads"),
    [(None, False, True), ("forward", False, True), ("weights", True, True),
     ("nothing", True, False)],
)  # fmt: skip
def test_what_a_chapter_needs_of_an_edition(tmp_path, monkeypatch, said, runs, loads):
    """Of the edition, only attention weights are at hand; the closure contains the loader."""
    notebook = toy.chapter("alpha", imports="from th_utils.chapter import Chapter")
    if said:
        notebook.metadata["talking_heads"] = {"needs": said}
    (tmp_path / "notebooks").mkdir()
    nbformat.write(notebook, tmp_path / "notebooks" / f"{ALPHA}.ipynb")
    layout = Layout(tmp_path, "gpt2")
    monkeypatch.setattr(graph.models, "can_run", lambda edition: False)
    assert graph.can_run(layout, ALPHA) == runs
    assert graph.loads_model(layout, ALPHA) == loads
    assert bool(graph.model_marker(layout, ALPHA)) == loads


def test_only_what_depends_on_the_edition_is_recorded(tmp_path):
    (tmp_path / "notebooks").mkdir()
    layout = Layout(tmp_path, "gpt2")
    layout.notebooks.mkdir(parents=True)
    layout.results.mkdir(parents=True)
    for name, needs in ((ALPHA, "nothing"), (BETA, "weights")):
        notebook = executed()
        notebook.cells[-2].outputs[0].metadata["talking_heads"]["figure"]["id"] = f"fig-{name}"
        notebook.metadata["talking_heads"]["needs"] = needs
        for folder in (tmp_path / "notebooks", layout.notebooks):
            nbformat.write(notebook, folder / f"{name}.ipynb")
        (layout.results / f"fig-{name}.json").write_text("{}")
    assert refresh.record(layout) == [f"fig-{BETA}.json", "claims.json"]


def test_a_chapter_that_cannot_run_says_so():
    page = notebooks.not_run(toy.chapter("alpha"), "gpt2")
    shown = notebooks.for_book(page, lambda record: "")
    assert notebooks.title(shown) == "The alpha"
    assert "of `gpt2` only the attention weights" in shown.cells[-1].source
    assert not [cell for cell in shown.cells if cell.cell_type == "code"]


def test_a_figure_needs_alt_text():
    notebook = executed()
    notebook.cells[-2].outputs[0].metadata["talking_heads"]["figure"]["alt"] = ""
    with pytest.raises(CompanionError, match="fig-alpha has no caption, no message or no alt text"):
        notebooks.for_book(notebook, lambda record: "")


def test_markers_are_replaced():
    text = "# T\n\n<!-- generated: claims -->\n\nend <!-- generated: claims -->\n"
    filled = pages.fill(text, {"claims": lambda: "TABLE"})
    assert filled == "# T\n\nTABLE\n\nend <!-- generated: claims -->\n"


def test_editions_that_are_paths_have_folders(tmp_path):
    assert Layout(tmp_path, "EleutherAI/pythia-160m").folder == "EleutherAI-pythia-160m"
    assert Layout(tmp_path, "/home/me/model/").folder == "home-me-model"


def test_release_check_refuses_the_placeholder():
    text = "\n".join(problems(toy.ROOT))
    written = (toy.ROOT / "pyproject.toml").read_text()
    assert ("placeholder OWNER" in text) == ("/OWNER/" in written)


@pytest.mark.parametrize(("failures", "text", "calls"), [
    (0, "", 1), (2, run.NOT_STARTED, 3), (3, run.NOT_STARTED, 3), (1, "another", 1),
])  # fmt: skip
def test_a_kernel_that_does_not_start_is_started_again(failures, text, calls):
    called = []

    def chapter():
        called.append(1)
        if len(called) <= failures:
            raise RuntimeError(text)
        return "done"

    if failures < calls:
        assert run.started(chapter) == "done"
    else:
        with pytest.raises(RuntimeError, match=text):
            run.started(chapter)
    assert len(called) == calls


# --- real builds of a tiny project -------------------------------------------------------------


def planned(root) -> set[str]:
    """The jobs that a dry run announces: chapters by name, and `book`."""
    status, output = toy.build(root, "book", "--dry-run")
    assert status == 0, output
    jobs = {f"{name}" for name in re.findall(r"wildcards: chapter=(\w+)", output)}
    return jobs | ({"book"} if re.search(r"rule book:", output) else set())


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A project that has been built once."""
    root = toy.make(tmp_path_factory.mktemp("toy") / "project")
    status, output = toy.build(root, "book")
    assert status == 0, output
    assert output.splitlines()[-1] == str(Layout(root, toy.EDITION).front_page)
    assert f"{ALPHA}  cell 7/7" in output
    return root


@pytest.mark.slow
def test_nothing_runs_again_without_a_change(built):
    for path in (*(built / "notebooks").iterdir(), *(built / "th_utils").glob("*.py")):
        path.touch()
    front = Layout(built, toy.EDITION).front_page
    before, started = front.stat().st_mtime_ns, time.monotonic()
    status, output = toy.build(built, "book")
    assert status == 0, output
    assert time.monotonic() - started < 30
    assert front.stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "old", "new", "expected"),
    [
        ("notebooks/02_beta.ipynb", "It is a line", "It is the line", {BETA, "book"}),
        ("th_utils/progress.py", "Progress", "progress", {ALPHA, "book"}),
        ("th_utils/errors.py", "The one", "the one", {ALPHA, "book"}),
        ("th_utils/digest.py", "What", "what", set()),
        ("data/alpha.yml", "1", "2", {ALPHA, "book"}),
        ("data/claims.yml", "It falls", "It sinks", {"book"}),
        ("book/index.md", "Welcome", "Hello", {"book"}),
        ("th_utils/__init__.py", "Kernels", "kernels", {ALPHA, BETA, "book"}),
    ],
)
def test_a_change_reruns_what_depends_on_it(built, name, old, new, expected):
    path = built / name
    text = path.read_text()
    assert old in text
    try:
        path.write_text(text.replace(old, new, 1))
        assert planned(built) == expected
    finally:
        path.write_text(text)


@pytest.mark.slow
def test_plain_snakemake_is_the_same_build(built):
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--config", "edition=toy"]
    done = subprocess.run(
        command, cwd=built, env=toy.environment(built), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Nothing to be done" in done.stderr


@pytest.mark.slow
def test_refresh_gives_no_difference_on_a_rerun(tmp_path):
    root = toy.make(tmp_path / "project")
    layout = Layout(root)  # refreshing is for the default edition
    assert toy.build(root, "refresh")[1].splitlines()[-1] == f"changed: {ALPHA}, {BETA}"
    texts = [layout.source(name).read_bytes() for name in (ALPHA, BETA)]
    assert b"image/png" in texts[0]
    for name in (ALPHA, BETA):
        layout.executed(name).unlink()
    assert toy.build(root, "refresh")[1].splitlines()[-1] == "nothing changed"
    assert [layout.source(name).read_bytes() for name in (ALPHA, BETA)] == texts


def add_code(root, name, code):
    """Put `code` into the set-up cell of a chapter."""
    path = root / "notebooks" / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].source += f"\n{code}"
    nbformat.write(notebook, path)


@pytest.mark.slow
def test_one_failure_keeps_the_other_chapter(tmp_path):
    root = toy.make(tmp_path / "project")
    add_code(root, BETA, "1 / 0")
    status, output = toy.build(root, "book")
    layout = Layout(root, toy.EDITION)
    assert status == 1
    assert f"chapter {BETA}: ZeroDivisionError: division by zero (log: " in output
    assert output.splitlines()[-1].startswith(f"the build failed (chapters not done: {BETA};")
    assert layout.executed(ALPHA).exists()
    assert not layout.executed(BETA).exists()
    assert not (layout.figures / "fig-beta.png").exists()
    assert (layout.logs / f"{BETA}.log").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failing", "message"),
    [
        ("from th_utils.errors import CompanionError as E; raise E('do this')", "do this"),
        ("from th_utils.paths import data_path as d; d; data_path(edition)", "declare the files"),
        ("def", "not Python"),
        ("import os; os._exit(9)", "its process died"),
    ],
)
def test_a_failure_is_one_line(tmp_path, failing, message):
    root = toy.make(tmp_path / "project")
    add_code(root, BETA, failing)
    status, output = toy.build(root, "chapter", "2")
    assert status == 1
    assert re.search(rf"^chapter {BETA}: .*{re.escape(message)}", output, re.MULTILINE), output
    assert "Traceback" not in output


# --- killing -----------------------------------------------------------------------------------


def processes_of(root) -> dict[int, str]:
    """The living processes that work in the project `root`, by id."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = open(f"/proc/{pid}/cmdline", "rb").read().replace(b"\0", b" ").decode()
            where = os.readlink(f"/proc/{pid}/cwd")
            state = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z" and (where == str(root) or where.startswith(f"{root}/")):
            found[int(pid)] = command
    return found


def wait_for(condition, seconds: float = 90.0):
    """Wait until `condition()` is true and return its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return value


def with_text(root, text) -> list[int]:
    return [pid for pid, command in processes_of(root).items() if text in command]


needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs Linux's /proc")


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("victim", ["th_utils.build book", "snakemake", "th_utils.build.run"])
def test_killed_while_chapters_run(tmp_path, victim):
    root = toy.make(tmp_path / "project", slow=600)
    layout = Layout(root, toy.EDITION)
    running = toy.start(root, "book")
    wait_for(lambda: len(with_text(root, "th_utils.build.kernel")) == 2)
    wait_for(lambda: len(list(layout.work.glob("*/progress.jsonl"))) == 2)
    for pid in with_text(root, victim):
        os.kill(pid, signal.SIGKILL)
    running.wait(timeout=60)
    wait_for(lambda: not processes_of(root), 15)  # nothing is left running
    assert not list(layout.base.glob("notebooks/*/*.ipynb"))
    assert not list(layout.base.glob("figures/**/*.png"))
    for path in (root / "notebooks").iterdir():
        path.write_text(path.read_text().replace("time.sleep(60.0)", "pass"))
    status, output = toy.build(root, "book")
    assert status == 0, output
    assert layout.front_page.exists()
    assert not list(layout.work.iterdir())


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("delay", [1.5, 4.0])
def test_killed_at_any_moment(built, delay):
    layout = Layout(built, toy.EDITION)
    path = layout.source(ALPHA)
    word = f"word{int(10 * delay)}"
    path.write_text(path.read_text().replace("It is", f"It is {word}", 1))  # so there is work
    running = toy.start(built, "book")
    time.sleep(delay)
    running.kill()
    running.wait()
    wait_for(lambda: not processes_of(built), 15)
    status, output = toy.build(built, "book")
    assert status == 0, output
    assert word in (layout.html / "notebooks" / f"{ALPHA}.html").read_text()


@needs_proc
@pytest.mark.slow
def test_interrupted_with_control_c(tmp_path):
    root = toy.make(tmp_path / "project", slow=600)
    running = toy.start(root, "chapter", "1")
    wait_for(lambda: with_text(root, "th_utils.build.kernel"))
    for pid in processes_of(root):  # as a terminal does, to every process
        if "th_utils.build.kernel" not in processes_of(root).get(pid, ""):
            os.kill(pid, signal.SIGINT)
    assert running.wait(timeout=60) == 130
    wait_for(lambda: not processes_of(root), 15)
    assert "the same command goes on from here" in (root / "build.log").read_text()


@pytest.mark.slow
def test_two_builds_at_once_wait_for_each_other(built):
    path = Layout(built, toy.EDITION).source(BETA)
    path.write_text(path.read_text().replace("a line", "one line", 1))
    first = toy.start(built, "book")
    wait_for(lambda: (built / "build.log").read_text())
    (built / "build.log").rename(built / "first.log")
    status, output = toy.build(built, "book")
    assert first.wait() == 0 and status == 0
    assert "another build is running" in output
    assert "cell" not in output  # the second found nothing left to do
