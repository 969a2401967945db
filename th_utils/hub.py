"""Files from the Hugging Face hub: safetensors, config and tokenizer, and nothing that runs."""

from __future__ import annotations

import json
import re
import shutil
import socket
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from th_utils.errors import CompanionError
from th_utils.terminal import in_kernel, quiet, tell

# What a model directory needs. Neither pickles nor code are ever fetched.
_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
_OTHERS = re.compile(r"[\w.-]+\.(json|jinja|model)|(merges|vocab)\.txt")
PICKLES = (".bin", ".pt", ".pth", ".ckpt")


def fetch_model(repository: str, revision: str | None = None) -> Path:
    """The directory of a model in the hub's own cache, downloaded where it is not there yet.

    A whole copy in the cache is taken as it is, without asking the hub for a newer one, so that
    a figure does not change because somebody pushed.

    Raises:
        CompanionError: no such model, no access to it, no connection, no room, or weights that
            exist as pickles only.
    """
    cached = cached_model(repository, revision)
    if cached is not None:
        return cached
    _need_connection(repository)
    import huggingface_hub

    with quiet(bars=not in_kernel()):
        try:
            info = huggingface_hub.HfApi().model_info(
                repository, revision=revision, files_metadata=True
            )
            sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
            wanted = wanted_files(repository, sizes)
            _need_room(repository, sum(sizes[name] for name in wanted))
            tell(f"{repository}: downloading from the hub into its cache")
            folder = huggingface_hub.snapshot_download(
                repository, revision=revision, allow_patterns=wanted
            )
        except CompanionError:
            raise
        except Exception as error:
            raise explained(error, repository) from error
    return Path(folder)


def cached_model(repository: str, revision: str | None = None) -> Path | None:
    """The directory of a model that is whole in the hub's cache, or None; asks nobody."""
    import huggingface_hub

    try:
        folder = Path(
            huggingface_hub.snapshot_download(repository, revision=revision, local_files_only=True)
        )
    except Exception:  # several kinds of "not there", depending on the version
        return None
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files = set(json.loads(index.read_text())["weight_map"].values())
    else:
        files = {"model.safetensors"}
    whole = all((folder / name).is_file() for name in files | {"config.json"})
    return folder if whole else None


def look(
    repository: str, revision: str | None = None
) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    """The config of a model on the hub, and names and shapes of its tensors; no weights.

    Raises:
        CompanionError: no such model, no access to it, no connection, or weights that exist as
            pickles only.
    """
    _need_connection(repository)
    import huggingface_hub

    with quiet(bars=False):
        try:
            file = huggingface_hub.hf_hub_download(repository, "config.json", revision=revision)
            found = huggingface_hub.HfApi().get_safetensors_metadata(repository, revision=revision)
        except Exception as error:
            raise explained(error, repository) from error
    config = json.loads(Path(file).read_text(encoding="utf-8"))
    shapes = {
        name: tuple(tensor.shape)
        for part in found.files_metadata.values()
        for name, tensor in part.tensors.items()
    }
    return config, shapes


def fetch_file(repository: str, name: str, revision: str, folder: Path) -> Path:
    """One file of a repository at a fixed revision, downloaded into `folder`.

    Raises:
        CompanionError: it cannot be had.
    """
    _need_connection(repository)
    import huggingface_hub

    with quiet(bars=not in_kernel()):
        try:
            return Path(
                huggingface_hub.hf_hub_download(
                    repository, name, revision=revision, local_dir=folder
                )
            )
        except Exception as error:
            raise explained(error, repository) from error


def wanted_files(repository: str, names: Iterable[str]) -> list[str]:
    """The files of a repository's top level that make a model directory.

    Raises:
        CompanionError: there are no safetensors.

    >>> wanted_files("a/b", ["config.json", "model.safetensors", "model.h5", "onnx/config.json"])
    ['config.json', 'model.safetensors']
    """
    names = sorted(names)
    weights = [name for name in names if _WEIGHTS.fullmatch(name)]
    if not weights:
        if any(name.endswith(PICKLES) for name in names):
            raise CompanionError(pickled(repository))
        raise CompanionError(f"{repository} holds no model.safetensors: choose another model")
    return sorted(weights + [name for name in names if _OTHERS.fullmatch(name)])


def pickled(place: object) -> str:
    """What is said of a model whose weights are pickles only."""
    return (
        f"{place} has its weights as pickles only, which are never loaded because loading one runs "
        "what is in it: convert it to safetensors where you trust it, and give that directory"
    )


def explained(error: Exception, repository: str) -> CompanionError:
    """What an exception of the hub's library means to a person."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "GatedRepoError" in kinds:
        return CompanionError(
            f"{repository} is gated: accept its terms on its page on the hub, make a token that "
            "may read it, and give that as HF_TOKEN in the environment (on Colab, among the "
            "secrets) or by `hf auth login`; then run again"
        )
    if "NotASafetensorsRepoError" in kinds:
        return CompanionError(pickled(repository))
    if kinds & {"RepositoryNotFoundError", "HFValidationError", "HfUriError"}:
        return CompanionError(f"the hub has no public model {repository}: check the spelling")
    if kinds & {"RevisionNotFoundError", "RemoteEntryNotFoundError"}:
        return CompanionError(f"{repository} on the hub has not what was asked for: {error}")
    if "OfflineModeIsEnabled" in kinds:
        return CompanionError(
            f"{repository} is not in the hub's cache and HF_HUB_OFFLINE is set: unset it, or give "
            "a local directory"
        )
    return _unreachable(repository, error)


def _unreachable(repository: str, error: object) -> CompanionError:
    return CompanionError(
        f"cannot reach the hub for {repository} ({error}): look at the connection, or give a "
        "directory with the model's config.json, safetensors and tokenizer"
    )


def _need_connection(repository: str) -> None:
    """Fail within seconds where there is no way to the hub; its library would retry for long."""
    from huggingface_hub import constants

    address = urlsplit(constants.ENDPOINT)
    # Behind a proxy the name need not resolve here; the library says what is wrong there.
    if urllib.request.getproxies() or constants.HF_HUB_OFFLINE:
        return
    try:
        port = address.port or (443 if address.scheme == "https" else 80)
        socket.create_connection((address.hostname or "", port), timeout=10).close()
    except OSError as error:
        raise _unreachable(repository, error.strerror or error) from error


def _need_room(repository: str, need: int) -> None:
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < need:
        raise CompanionError(
            f"not enough disk for {repository}: {need / 1e6:.0f} MB are needed under {folder} and "
            f"{free / 1e6:.0f} MB are free; make room, or set HF_HOME to a folder on another disk"
        )
