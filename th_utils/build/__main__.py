"""The build's command line: `python -m th_utils.build book --edition gpt2 --size book`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from th_utils.build.layout import DEFAULT_EDITION, DEFAULT_SIZE, SIZES, Layout, find_root
from th_utils.errors import CompanionError


def book(layout: Layout, options: argparse.Namespace) -> int:
    """Build the book and print its front page's path last."""
    status = _build(layout, ["book"], options)
    if status == 0 and not options.dry_run:
        print(layout.front_page)
    return status


def chapter(layout: Layout, options: argparse.Namespace) -> int:
    """Run one chapter and print the executed notebook's path last."""
    target = layout.executed(_named(layout, options.chapter))
    status = _build(layout, [str(target)], options)
    if status == 0 and not options.dry_run:
        print(target)
    return status


def refresh(layout: Layout, options: argparse.Namespace) -> int:
    """Run the chapters on the defaults and bring their outputs back into notebooks/."""
    from th_utils.build.refresh import refresh

    layout = Layout(layout.root)  # what is committed is the default edition at the default size
    names = [_named(layout, options.chapter)] if options.chapter else layout.chapters()
    status = _build(layout, [str(layout.executed(name)) for name in names], options)
    if status == 0:
        changed = refresh(layout, names)
        print(f"changed: {', '.join(changed)}" if changed else "nothing changed")
    return status


def record(layout: Layout, options: argparse.Namespace) -> int:
    """Run the chapters on an edition and keep its results in data/recorded/."""
    from th_utils.build.refresh import record

    status = _build(layout, [str(layout.executed(name)) for name in layout.chapters()], options)
    if status == 0:
        print(f"recorded for {layout.edition}: {', '.join(record(layout))}")
    return status


def model(layout: Layout, options: argparse.Namespace) -> int:
    """Fetch and convert the edition's model, so that chapters side by side find it ready."""
    from th_utils import models
    from th_utils.build.display import Reporter

    with tempfile.TemporaryDirectory() as folder:
        progress = Path(folder) / "progress.jsonl"
        os.environ["TH_PROGRESS"] = str(progress)
        with Reporter(f"model {layout.edition}", 0, progress):
            models.prepare(layout.edition)
    return 0


def render(layout: Layout, options: argparse.Namespace) -> int:
    """Render the book of the chapters executed so far."""
    from th_utils.build.render import render

    print("rendering the book", file=sys.stderr)
    render(layout)
    return 0


def pdf(layout: Layout, options: argparse.Namespace) -> int:
    """Build the book, print it, and print the PDF's path last."""
    from th_utils.build.pdf import make_pdf

    status = _build(layout, ["book"], options)
    if status == 0 and not options.dry_run:
        print("printing the book", file=sys.stderr)
        print(make_pdf(layout))
    return status


def rerun(layout: Layout, options: argparse.Namespace) -> int:
    """Run chapters, each alone, from a wheel in a new environment."""
    from th_utils.build.rerun import rerun

    names = [_named(layout, chapter) for chapter in options.chapters] or layout.chapters()
    wrong = rerun(
        layout,
        names,
        python=options.python,
        newest=options.newest,
        torch_index=options.torch_index,
    )
    print("\n".join(wrong) if wrong else f"{len(names)} chapters run from a wheel")
    return 1 if wrong else 0


def clear_cache(layout: Layout, options: argparse.Namespace) -> int:
    """Remove the converted models and the measurements kept for all builds of this user."""
    from th_utils import store

    print(f"removed {store.clear_cache() / 1e6:.0f} MB")
    return 0


def name_figures(layout: Layout, options: argparse.Namespace) -> int:
    """Add new figures to the list of names that are never given again."""
    from th_utils.build.published import add

    new = add(layout)
    print(f"added: {', '.join(new)}" if new else "no new figures")
    return 0


def pin(layout: Layout, options: argparse.Namespace) -> int:
    """Have the chapters' setup cells install this version; --remove: what is newest."""
    from th_utils import __version__
    from th_utils.build.pin import pin

    changed = pin(layout, None if options.remove else __version__)
    print(f"changed: {', '.join(changed)}" if changed else "nothing changed")
    return 0


def release_check(layout: Layout, options: argparse.Namespace) -> int:
    """List what stands against a release."""
    from th_utils.build.release import problems

    found = problems(layout.root)
    print("\n".join(found) if found else "ready for a release")
    return 1 if found else 0


COMMANDS = (
    book,
    chapter,
    refresh,
    record,
    model,
    render,
    pdf,
    rerun,
    clear_cache,
    name_figures,
    pin,
    release_check,
)


def _named(layout: Layout, number: str | None) -> str:
    """Return the chapter that `number` (`3`, `03` or `03_inhibition`) means."""
    known = layout.chapters()
    wanted = (number or "").zfill(2)
    for name in known:
        if name == wanted or name.split("_")[0] == wanted:
            return name
    raise CompanionError(f"no chapter {number or '(none given)'}; there are {', '.join(known)}")


def _build(layout: Layout, targets: list[str], options: argparse.Namespace) -> int:
    from th_utils import models
    from th_utils.build import graph
    from th_utils.build.workflow import build

    if not layout.chapters():
        raise CompanionError(f"there are no chapters in {layout.root / 'notebooks'}")
    if any(graph.loads_model(layout, name) for name in layout.chapters()):
        models.resolve(layout.edition)  # one line now instead of one from every chapter
    status = build(layout, targets, options.cores, options.dry_run)
    if status:
        missing = [name for name in layout.chapters() if not layout.executed(name).exists()]
        done = f"chapters not done: {', '.join(missing)}; " if missing else ""
        print(f"the build failed ({done}what was done is kept)", file=sys.stderr)
    return status


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run one command."""
    parser = argparse.ArgumentParser(prog="python -m th_utils.build", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    for function in COMMANDS:
        name = function.__name__.replace("_", "-")
        command = commands.add_parser(name, help=(function.__doc__ or "").splitlines()[0])
        command.set_defaults(function=function)
        if function in (chapter, refresh):
            command.add_argument("chapter", nargs=None if function is chapter else "?")
        if function is rerun:
            command.add_argument("chapters", nargs="*", help="numbers; all where none is given")
            command.add_argument("--python", default=sys.executable)
            command.add_argument("--newest", action="store_true", help="not the locked versions")
            command.add_argument("--torch-index", default="", help="where torch comes from")
        if function is pin:
            command.add_argument("--remove", action="store_true", help="take the version out")
        command.add_argument("--edition", default=DEFAULT_EDITION)
        command.add_argument("--size", default=DEFAULT_SIZE, choices=SIZES)
        command.add_argument("--cores", type=int, default=2)
        command.add_argument("--dry-run", action="store_true", help="only say what would run")
    options = parser.parse_args(arguments)
    parent = os.environ.pop("TH_PARENT", None)
    if parent:
        from th_utils.build.processes import die_with_parent

        die_with_parent(int(parent))
    edition = options.edition
    if os.sep in edition and Path(edition).expanduser().exists():
        edition = str(Path(edition).expanduser().resolve())  # chapters run in another folder
    try:
        return options.function(Layout(find_root(), edition, options.size), options)
    except CompanionError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
