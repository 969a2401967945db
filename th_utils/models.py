"""Models by name: which editions there are, where their weights lie, how they are loaded.

A name is one of three things: an edition of `data/models.yml`, a model on the hub (``owner/name``),
or a local path: a directory as `save_pretrained` writes it, or a safetensors file that may hold the
attention weights only. Where a named edition's weights come from, the first that applies:

1. ``$TH_WEIGHTS_<EDITION>`` (``TH_WEIGHTS_GPT2`` for `gpt2`), a path;
2. for the default edition, the store of converted models, which makes it if need be;
3. the hub's cache, if the whole model is there;
4. for weight-only work, a checkpoint of attention weights in ``$TH_WEIGHTS_DIR``;
5. the hub.

Importing this module imports neither torch nor transformers.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from th_utils import hub, store
from th_utils.errors import CompanionError, near_matches
from th_utils.paths import checkout_root, data_path
from th_utils.store import cache_size, clear_cache

__all__ = [
    "DEFAULT",
    "Edition",
    "attention_weights",
    "cache_size",
    "can_run",
    "checksum",
    "clear_cache",
    "editions",
    "load",
    "locate",
    "prepare",
    "present",
    "resolve",
    "tokens",
    "verify",
]

DEFAULT = "smollm2-135m-instruct-q4"


@dataclass(frozen=True)
class Edition:
    """A model that a book can be computed on.

    `path` is set when a local path was named, by itself or by an environment variable; `hub` when
    the hub has it. `entry` is what `data/models.yml` says, empty for a model it does not list.
    """

    name: str
    path: Path | None
    hub: str | None
    entry: dict[str, Any]


@lru_cache(maxsize=1)
def _editions() -> dict[str, dict[str, Any]]:
    return yaml.safe_load(data_path("models.yml").read_text(encoding="utf-8"))


def editions() -> dict[str, dict[str, Any]]:
    """The known editions, name to entry of `data/models.yml`."""
    return {name: dict(entry) for name, entry in _editions().items()}


def resolve(name: str | os.PathLike[str]) -> Edition:
    """What a name means; loads and fetches nothing.

    Raises:
        CompanionError: no such edition (near matches are offered) or no such path.
    """
    text = os.fspath(name)
    known = _editions()
    for edition, entry in known.items():
        if text in (edition, entry.get("hub")):
            return Edition(edition, _named_path(edition), entry.get("hub"), entry)
    path = Path(text).expanduser()
    if text and path.exists():
        if path.is_file() and path.suffix != ".safetensors":
            raise CompanionError(
                f"{path} is neither a directory nor a .safetensors file; other files, pickles "
                "above all, are never loaded"
            )
        return Edition(text, path.absolute(), None, {})
    if text.startswith((".", "/", "~")):
        raise CompanionError(f"there is no model at {path}: check the path")
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", text):
        return Edition(text, None, text, {})
    raise CompanionError(
        f"no edition {text!r}: {near_matches(text, known)} (a model on the hub is named "
        "owner/name, a local one by its directory)"
    )


def variable(edition: str) -> str:
    """The environment variable that points an edition at a checkpoint.

    >>> variable("pythia-160m")
    'TH_WEIGHTS_PYTHIA_160M'
    """
    return "TH_WEIGHTS_" + re.sub(r"[^A-Za-z0-9]", "_", edition).upper()


def locate(name: str | os.PathLike[str]) -> Path:
    """The local directory of a whole model, fetched or converted first where it must be.

    Raises:
        CompanionError: it cannot be had, or only its attention weights are here.
    """
    edition = resolve(name)
    if edition.path is not None:
        if not _is_whole_model(edition.path):
            raise CompanionError(
                f"{edition.path} holds attention weights only, so there is no forward pass: keep "
                "to the weight-only chapters, or name a complete model"
            )
        return edition.path if edition.path.is_dir() else edition.path.parent
    if "gguf" in edition.entry:
        return store.converted(edition.name, edition.entry)
    if edition.hub is None:
        raise CompanionError(f"{edition.name}: nothing says where its weights are")
    return hub.fetch_model(edition.hub, edition.entry.get("revision"))


def prepare(name: str | os.PathLike[str]) -> None:
    """Fetch and convert what an edition needs, so that several processes find it ready."""
    _weights_path(resolve(name))


def load(name: str | os.PathLike[str], *, device: str = "cpu", dtype: Any = None) -> Any:
    """A model as a TransformerBridge in compatibility mode, see `th_utils.bridge.boot`.

    Args:
        name: an edition, a model on the hub, or a local directory.
        device: a torch device.
        dtype: a torch dtype, float32 when None.

    Raises:
        CompanionError: see `locate` and `th_utils.bridge.boot`.
    """
    edition = resolve(name)
    directory = locate(name)
    import torch

    from th_utils.bridge import boot

    # TransformerLens knows some architectures' exceptions by the model's name on the hub.
    known_as = edition.hub or edition.name
    return boot(directory, name=known_as, device=device, dtype=dtype or torch.float32)


def tokens(bridge: Any, text: str | Sequence[str]) -> Any:
    """Token ids ``[batch, pos]`` of texts of equal length, see `th_utils.bridge.tokens`."""
    from th_utils.bridge import tokens

    return tokens(bridge, text)


def can_run(name: str | os.PathLike[str]) -> bool:
    """Whether the model has a forward pass: not so for attention weights alone.

    Fetches nothing: of a model on the hub it is believed.
    """
    path = _present_path(resolve(name))
    return path is None or _is_whole_model(path)


def present(name: str | os.PathLike[str]) -> Path | None:
    """What is here of a model, a directory or a safetensors file; None when it must be fetched.

    Also None for an edition that is converted from another format; fetches nothing.
    """
    return _present_path(resolve(name))


def attention_weights(
    name: str | os.PathLike[str],
    *,
    n_heads: int | None = None,
    dtype: Any = None,
    rounding: Any = None,
) -> Any:
    """Folded attention matrices of a model, read from its safetensors without building it.

    Args:
        name: see `resolve`.
        n_heads: number of query heads, where neither a config nor our list says it.
        dtype: of the matrices, fp32 by default.
        rounding: see `th_utils.weights.from_checkpoint`.

    Returns:
        `th_utils.weights.AttentionWeights`.

    Raises:
        CompanionError: see `locate` and `th_utils.weights.from_checkpoint`.
    """
    edition = resolve(name)
    path = _weights_path(edition)
    import torch

    from th_utils.weights import from_checkpoint, read_config

    # A config knows better than our list, which is of the published model.
    n_heads = n_heads or (None if read_config(path) else edition.entry.get("heads"))
    return from_checkpoint(path, n_heads=n_heads, dtype=dtype or torch.float32, rounding=rounding)


def checksum(name: str | os.PathLike[str]) -> str:
    """SHA-256 of a model's weights, for provenance.

    Of the safetensors file; of the list of names and checksums where there are several. For the
    default edition it is the one in its manifest, taken when the file was made.
    """
    edition = resolve(name)
    path = _weights_path(edition)
    if edition.path is None and "gguf" in edition.entry:
        return store.read_manifest(path)["files"]["model.safetensors"]["sha256"]
    from th_utils.weights import safetensors_files

    files = safetensors_files(path)
    if len(files) == 1:
        return store.file_checksum(files[0])
    lines = [f"{store.file_checksum(file)}  {file.name}\n" for file in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def verify(name: str | os.PathLike[str]) -> None:
    """Compare all of a model's files with the checksums that are known of it.

    Raises:
        CompanionError: a file is damaged.
    """
    edition = resolve(name)
    path = _weights_path(edition)
    if edition.path is None and "gguf" in edition.entry:
        store.verify(path)
    expected = edition.entry.get("checkpoint", {})
    if path.name == expected.get("file") and store.file_checksum(path) != expected["sha256"]:
        raise CompanionError(f"wrong checksum: {path} is not the file it is named after")


def _named_path(edition: str) -> Path | None:
    said = os.environ.get(variable(edition))
    if not said:
        return None
    path = Path(said).expanduser().absolute()
    if not path.exists():
        raise CompanionError(f"{variable(edition)} names {path}, which does not exist: correct it")
    return path


def _weights_path(edition: Edition) -> Path:
    """Where the attention weights are: the present path, else what `locate` fetches."""
    return _present_path(edition) or locate(edition.name)


def _present_path(edition: Edition) -> Path | None:
    """What is here of a model, whole or attention only; None when it is still to be fetched."""
    if edition.path is not None or "gguf" in edition.entry:
        return edition.path
    if edition.hub is not None:
        cached = hub.cached_model(edition.hub, edition.entry.get("revision"))
        if cached is not None:
            return cached
    return _attention_checkpoint(edition)


def _attention_checkpoint(edition: Edition) -> Path | None:
    """The file with the edition's attention weights in $TH_WEIGHTS_DIR, if it is there."""
    file = edition.entry.get("checkpoint", {}).get("file")
    said = os.environ.get("TH_WEIGHTS_DIR")
    root = checkout_root()
    if said:
        folder = Path(said).expanduser().absolute()
    elif root is not None:
        folder = root.parent / "shared" / "weights"
    else:
        return None
    return folder / file if file and (folder / file).is_file() else None


def _is_whole_model(path: Path) -> bool:
    """Whether a checkpoint can have a forward pass: a config, embeddings and MLPs.

    A directory without safetensors counts as whole: loading it says what is wrong with it.
    """
    if path.is_file() and path.name != "model.safetensors":
        return False
    directory = path if path.is_dir() else path.parent
    from safetensors import SafetensorError, safe_open

    names: set[str] = set()
    for file in sorted(directory.glob("*.safetensors")):
        try:
            with safe_open(file, framework="np") as tensors:
                names |= set(tensors.keys())
        except (SafetensorError, OSError) as error:
            raise CompanionError(f"{file} is damaged ({error}): fetch it again") from error
    if not names:
        return True
    embeds = any(re.search(r"(^|\.)(wte|\w*embed\w*)\.weight$", name) for name in names)
    return embeds and any(
        re.search(r"mlp|ffn|feed_forward|fc_?1|moe|experts", name) for name in names
    )
