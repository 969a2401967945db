"""A checkpoint of any size, one layer at a time and in any order.

`th_utils.weights.iter_layers` goes through a checkpoint from its first layer and keeps every shard
mapped until its end, so that in the end the whole attention of the model is in memory. A scan that
is resumed begins in the middle, and has to let go of what it has used: here a layer's shards are
opened for that layer alone. Naming, folding and the conventions are those of `th_utils.weights`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from th_utils.errors import CompanionError
from th_utils.rotary import Rotary
from th_utils.weights import (
    AttentionWeights,
    check_heads,
    fold,
    naming_scheme,
    open_shard,
    read_config,
    safetensors_files,
    scheme_rotary,
)


@dataclass(frozen=True)
class Checkpoint:
    """Where a checkpoint's attention tensors lie, and how its family lays them out."""

    path: Path
    config: Mapping[str, Any]
    scheme: Any
    shapes: Mapping[str, tuple[int, ...]]
    files: Mapping[str, Path]  # which file holds a tensor
    n_heads: int | None
    rotary: Rotary | None

    @property
    def n_layers(self) -> int:
        return self.scheme.n_layers

    def sizes(self) -> tuple[int, int, int, int]:
        """Query heads, key/value heads, d_model and d_head, from the headers alone."""

        def read(name: str) -> Tensor:
            return torch.empty(self.shapes[self._key(0, name)], device="meta")

        W_Q, W_K, *_ = self.scheme.read(read, self.n_heads, self.config)
        return W_Q.shape[0], W_K.shape[0], W_Q.shape[1], W_Q.shape[2]

    def layer(self, number: int, *, dtype: torch.dtype = torch.float32) -> AttentionWeights:
        """The folded weights of one layer, upcast to `dtype`; the files are closed again.

        Raises:
            CompanionError: a tensor is missing, does not fit or is not finite.
        """
        with ExitStack() as stack:
            handles: dict[Path, Any] = {}

            def read(name: str) -> Tensor:
                key = self._key(number, name)
                file = self.files[key]
                if file not in handles:
                    handles[file] = stack.enter_context(open_shard(file))
                return handles[file].get_tensor(key).to(dtype)

            matrices = self.scheme.read(read, self.n_heads, self.config)
            parts = fold(matrices, read(self.scheme.gain), centre=self.scheme.layer_norm)
        try:
            return AttentionWeights(*(part[None] for part in parts), rotary=self.rotary)
        except CompanionError as error:
            raise CompanionError(f"{self.path}, layer {number}: {error}") from error

    def fingerprint(self) -> list[dict[str, Any]]:
        """Name, size and digest of every file, to tell two checkpoints apart.

        Of the weights only samples are read: of a checkpoint of 100 GB the whole would take longer
        than many a scan. Two trainings of one architecture differ nearly everywhere.
        """
        config = (self.path if self.path.is_dir() else self.path.parent) / "config.json"
        files = [*safetensors_files(self.path), *([config] if config.is_file() else [])]
        return [
            {"file": file.name, "bytes": file.stat().st_size, "digest": _sampled_digest(file)}
            for file in files
        ]

    def _key(self, layer: int, name: str) -> str:
        key = self.scheme.key(layer, name)
        if key not in self.files:
            raise CompanionError(f"{self.path}: tensor {key} is missing from the checkpoint")
        return key


def open_checkpoint(path: Path | str, *, n_heads: int | None = None) -> Checkpoint:
    """Read the headers of a safetensors checkpoint, and none of its weights.

    Args:
        path: as in `th_utils.weights.from_checkpoint`.
        n_heads: number of query heads, where no config.json says it.

    Raises:
        CompanionError: no such checkpoint, a damaged file, an unknown naming scheme, rotary
            embeddings of unknown base, or a number of heads that is none.

    >>> import tempfile
    >>> from safetensors.torch import save_file
    >>> names = {"attn.c_attn.weight": (8, 24), "attn.c_proj.weight": (8, 8), "ln_1.weight": (8,)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = f"{folder}/model.safetensors"
    ...     save_file({f"h.0.{name}": torch.randn(size) for name, size in names.items()}, file)
    ...     checkpoint = open_checkpoint(file, n_heads=2)
    ...     checkpoint.n_layers, checkpoint.sizes(), checkpoint.layer(0).W_V.shape
    (1, (2, 2, 8, 4), torch.Size([1, 2, 8, 4]))
    """
    check_heads(n_heads)
    path = Path(path)
    if not path.exists():
        raise CompanionError(f"there is no checkpoint {path}")
    config = read_config(path)
    shapes: dict[str, tuple[int, ...]] = {}
    files: dict[str, Path] = {}
    for file in safetensors_files(path):
        with open_shard(file) as handle:
            for key in handle.keys():
                shapes[key] = tuple(handle.get_slice(key).get_shape())
                files[key] = file
    scheme = naming_scheme(files, config)
    rotary = scheme_rotary(scheme, config, path)
    heads = config.get(scheme.heads_field) if n_heads is None else n_heads
    return Checkpoint(path, config, scheme, shapes, files, heads, rotary)


def _sampled_digest(file: Path, samples: int = 16, size: int = 4096) -> str:
    """Of a file's beginning, which in safetensors is the header, and of samples of the rest."""
    whole = hashlib.sha256()
    with open(file, "rb") as stream:
        start = 8 + int.from_bytes(stream.read(8), "little") if file.suffix != ".json" else 0
        length = file.stat().st_size
        stream.seek(0)
        whole.update(stream.read(max(start, size)))
        for sample in range(samples):
            stream.seek(start + (length - start) * sample // samples)
            whole.update(stream.read(size))
        stream.seek(max(start, length - size))
        whole.update(stream.read(size))
    return whole.hexdigest()[:16]
