"""What a chapter or a module depends on, found without running it, and a digest of that.

The *static import closure* of a notebook is the notebook, every `th_utils` module that its code
cells import (followed through relative and function-level imports), every data file that those
sources name in a call of `data_path`, and every file beside a module that the module names (a
matplotlib style, say). Two digests are taken of a closure:

- `digest` identifies *results*: code cells, modules and data. Prose does not count, nor does the
  cell tagged `setup`, nor `data/recorded/`: recorded results carry this digest themselves and
  cannot contain it.
- `build_digest` decides whether a chapter *runs again*: it counts prose, cell metadata and
  recorded results as well.

Content decides, never a modification time. Nothing here imports more than the standard library.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from th_utils.errors import CompanionError
from th_utils.paths import PACKAGE_DIR, data_path

PACKAGE = "th_utils"
DECLARATION = "DATA_FILES"
RECORDED = "recorded"
SETUP = "setup"
DATA_FILES = ()  # this module walks through the data folder, but depends on no file in it


class ClosureError(CompanionError):
    """A source whose dependencies cannot be read off; the message says what to write instead."""


def closure_of_notebook(path: str | Path) -> list[Path]:
    """Return the sorted files that the notebook at `path` depends on, itself included.

    Raises ClosureError when a dependency cannot be found by reading the source.
    """
    path = Path(path).resolve()
    code = "\n".join(_python_of(cell) for cell in _cells(path) if cell["cell_type"] == "code")
    tree = _parse(code, path)
    return sorted({path, *_data_files(tree, path), *_closure(_imports(tree, "", False))})


def closure_of_module(name: str) -> list[Path]:
    """Return the sorted files that the module `name` (`"th_utils.x"`) depends on, itself included.

    >>> [path.name for path in closure_of_module("th_utils.digest")]
    ['__init__.py', 'digest.py', 'errors.py', 'paths.py']
    """
    if _module_file(name) is None:
        raise ClosureError(f"there is no module {name}")
    return sorted(_closure([name]))


def digest(files: Iterable[str | Path]) -> str:
    """Return 16 hex digits that identify the results computed from `files`.

    Of a notebook only the code cells count, without the setup cell; `data/recorded/` does not count
    at all.
    """
    recorded = data_path().resolve() / RECORDED
    return _hash(path for path in _paths(files) if recorded not in path.parents)


def build_digest(files: Iterable[str | Path]) -> str:
    """Return 16 hex digits that change whenever the chapter built from `files` could change."""
    return _hash(_paths(files), prose=True)


def _closure(names: Iterable[str]) -> set[Path]:
    """Follow the imports of modules; names that are no module of this package are passed over."""
    files: set[Path] = set()
    seen: set[str] = set()
    waiting = list(names)
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        if "." in module:  # importing a.b runs a/__init__.py first
            waiting.append(module.rpartition(".")[0])
        if (file := _module_file(module)) is None:
            continue  # a name inside a module: `from th_utils.x import name`
        tree = _parse(file.read_text(encoding="utf-8"), file)
        files.update({file, *_data_files(tree, file), *_neighbours(tree, file)})
        waiting.extend(_imports(tree, module, file.name == "__init__.py"))
    return files


def _paths(files: Iterable[str | Path]) -> list[Path]:
    return [Path(file).resolve() for file in files]


def _hash(paths: Iterable[Path], prose: bool = False) -> str:
    whole = hashlib.sha256()
    for label, path in sorted((_label(path), path) for path in paths):
        content = _notebook_source(path, prose) if path.suffix == ".ipynb" else path.read_bytes()
        whole.update(f"{label}\0{hashlib.sha256(content).hexdigest()}\n".encode())
    return whole.hexdigest()[:16]


def _label(path: Path) -> str:
    """Name a file the same in a checkout, in a wheel and in another folder."""
    data = data_path().resolve()
    if data in path.parents:
        return f"data/{path.relative_to(data).as_posix()}"
    if PACKAGE_DIR in path.parents:
        return f"{PACKAGE}/{path.relative_to(PACKAGE_DIR).as_posix()}"
    return path.name


def _cells(path: Path) -> list[dict]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError) as error:
        raise ClosureError(f"{path.name} cannot be read as a notebook ({error})") from error


def _source(cell: dict) -> str:
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def _notebook_source(path: Path, prose: bool) -> bytes:
    """Return what counts of a notebook: never outputs, counters or what a run leaves behind."""
    if prose:
        kept = [
            (cell["cell_type"], _source(cell), cell.get("id"), cell.get("metadata", {}))
            for cell in _cells(path)
        ]
    else:
        # The setup cell installs and computes nothing: a release writes its version into it.
        kept = [
            _source(cell)
            for cell in _cells(path)
            if cell["cell_type"] == "code" and SETUP not in cell.get("metadata", {}).get("tags", ())
        ]
    return json.dumps(kept, sort_keys=True).encode()


def _python_of(cell: dict) -> str:
    """Return the Python of a code cell, with lines for IPython replaced by `pass`."""
    lines = []
    for line in _source(cell).splitlines():
        bare = line.lstrip()
        magic = bare.startswith(("%", "!"))
        lines.append(line[: len(line) - len(bare)] + "pass" if magic else line)
    return "\n".join(lines)


def _parse(code: str, path: Path) -> ast.Module:
    try:
        return ast.parse(code)
    except SyntaxError as error:
        raise ClosureError(f"{path.name}: not Python: {error.msg} (line {error.lineno})") from error


def _module_file(name: str) -> Path | None:
    head, *rest = name.split(".")
    if head != PACKAGE:
        return None
    stem = PACKAGE_DIR.joinpath(*rest)
    for file in (stem / "__init__.py", stem.with_name(stem.name + ".py")):
        if file.is_file():
            return file
    return None


def _imports(tree: ast.Module, module: str, is_package: bool) -> Iterator[str]:
    """Yield the names of this package that `tree` imports, anywhere in it.

    `from a import b` yields both `a` and `a.b`: whether b is a module, the file system says.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == PACKAGE:
                    yield alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                keep = len(parts) - node.level + (1 if is_package else 0)
                base = ".".join(parts[:keep] + ([base] if base else []))
            if base.split(".")[0] == PACKAGE:
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names)


def _data_files(tree: ast.Module, path: Path) -> Iterator[Path]:
    """Yield the data files that a source names in `data_path(...)` or declares in `DATA_FILES`."""
    declared = _declared(tree)
    for pattern in declared or ():
        yield from _expand(pattern)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "id", getattr(node.func, "attr", None))
        if name != "data_path":
            continue
        parts = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
        if parts and len(parts) == len(node.args) and all(isinstance(p, str) for p in parts):
            yield from _expand("/".join(parts))
        elif declared is None:
            raise ClosureError(
                f"{path.name}, line {node.lineno}: data_path() takes literals only; otherwise "
                f'declare the files in a constant {DECLARATION} = ("folder/*.json",)'
            )


def _declared(tree: ast.Module) -> tuple[str, ...] | None:
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            targets = [node.target]
        if any(getattr(target, "id", None) == DECLARATION for target in targets):
            return tuple(ast.literal_eval(node.value))
    return None


def _expand(pattern: str) -> Iterator[Path]:
    """Yield the existing files below the data folder that match; a folder stands for all in it."""
    for path in data_path().glob(pattern):
        found = path.rglob("*") if path.is_dir() else [path]
        yield from (
            file.resolve() for file in found if file.is_file() and not file.name.startswith(".")
        )


def _neighbours(tree: ast.Module, path: Path) -> Iterator[Path]:
    """Yield the files beside a module, other than Python, that the module names in a string."""
    beside = {
        file.name: file for file in path.parent.iterdir() if file.is_file() and file.suffix != ".py"
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in beside:
            yield beside[node.value]
