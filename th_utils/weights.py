"""Attention weights of a model, ready for weight-only work.

`AttentionWeights` holds the four matrices of every head as the residual stream sees them: the
gain of the norm in front of the block is folded into the readers (`W_Q`, `W_K`, `W_V`), and for
LayerNorm models readers and writers are centred over the residual dimension, because LayerNorm
removes the mean of whatever it reads. RMSNorm subtracts nothing, so nothing is centred there.
These are the conventions of TransformerLens' compatibility mode.

Two sources give the same value: a `TransformerBridge`, or a safetensors checkpoint that is read
tensor by tensor, so that a model need neither fit in memory nor be complete.

Everything here is in the row convention: a residual vector is a row ``x``, a head reads
``x @ W_V`` and writes ``x @ W_V @ W_O``.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from th_utils import checks
from th_utils.errors import CompanionError
from th_utils.rotary import Rotary, rotary_of


@dataclass(frozen=True)
class AttentionWeights:
    """Folded attention matrices of all heads, grouped keys and values stored once.

    Query head ``h`` uses key/value head ``h // group``; kernels index by group and copy nothing.
    In the notation of Elhage et al. 2021, a head's OV matrix is ``W_V W_O`` and its QK form
    ``W_Q R W_K^T``, with R the rotation of a rotary model and the identity otherwise.

    Raises:
        CompanionError: shapes that do not fit each other, nothing in them, d_head above d_model,
            different devices or dtypes, or values that are not finite.

    >>> W = AttentionWeights(*torch.randn(3, 2, 4, 16, 8), torch.randn(2, 4, 8, 16))
    >>> W.n_layers, W.n_heads, W.d_model, W.d_head, W.group
    (2, 4, 16, 8, 1)
    """

    W_Q: Float[Tensor, "layer head d_model d_head"]
    W_K: Float[Tensor, "layer kv_head d_model d_head"]
    W_V: Float[Tensor, "layer kv_head d_model d_head"]
    W_O: Float[Tensor, "layer head d_head d_model"]
    rotary: Rotary | None = None

    def __post_init__(self) -> None:
        four = {name: getattr(self, name) for name in ("W_Q", "W_K", "W_V", "W_O")}
        checks.shape("W_Q", self.W_Q, 4, "layer, head, d_model, d_head")
        checks.shape("W_K", self.W_K, 4, "layer, kv_head, d_model, d_head")
        layers, heads, d_model, d_head = found = tuple(self.W_Q.shape)
        kv_heads = self.W_K.shape[1]
        beside = f"beside W_Q {found}"
        checks.shape("W_K", self.W_K, (layers, None, d_model, d_head), beside)
        checks.shape("W_V", self.W_V, (layers, kv_heads, d_model, d_head), f"{beside} and W_K")
        checks.shape("W_O", self.W_O, (layers, heads, d_head, d_model), beside)
        for name, matrix in four.items():
            checks.not_empty(name, matrix)
        if heads % kv_heads:
            raise CompanionError(
                f"{heads} query heads do not share {kv_heads} key/value heads: W_Q {found}, W_K "
                f"{tuple(self.W_K.shape)}, expected a whole number of query heads to each"
            )
        if d_head > d_model:
            raise CompanionError(
                f"W_Q of shape {found} has d_head {d_head} larger than d_model {d_model}, expected "
                "at most that"
            )
        if self.rotary is not None and self.rotary.dims > d_head:
            raise CompanionError(
                f"rotary turns {self.rotary.dims} coordinates of W_Q {found}, expected at most "
                f"d_head {d_head}"
            )
        checks.alike(**four)
        try:
            checks.finite(**four)
        except CompanionError as error:
            raise CompanionError(f"{error}: checkpoint damaged?") from error

    @property
    def n_layers(self) -> int:
        return self.W_Q.shape[0]

    @property
    def n_heads(self) -> int:
        return self.W_Q.shape[1]

    @property
    def d_model(self) -> int:
        return self.W_Q.shape[2]

    @property
    def d_head(self) -> int:
        return self.W_Q.shape[3]

    @property
    def group(self) -> int:
        """Query heads per key/value head."""
        return self.n_heads // self.W_K.shape[1]

    def to(self, *args: Any, **kwargs: Any) -> AttentionWeights:
        """The same weights on another device or in another dtype (as `Tensor.to`)."""
        moved = (getattr(self, n).to(*args, **kwargs) for n in ("W_Q", "W_K", "W_V", "W_O"))
        return AttentionWeights(*moved, rotary=self.rotary)


def fold(
    matrices: tuple[Tensor, Tensor, Tensor, Tensor],
    gain: Float[Tensor, " d_model"],
    *,
    centre: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Fold the norm's gain into (W_Q, W_K, W_V) and, for LayerNorm, centre them and W_O.

    Centring a reader subtracts its mean over d_model (LayerNorm hands it inputs of mean zero
    only); centring the writer removes what every later LayerNorm would remove anyway. Without
    the centring, the gain alone gives matrices that no residual vector ever meets.

    Source: TransformerLens' compatibility mode; Elhage et al. 2021 on folding. Values are not
    looked at: `AttentionWeights` does that.

    Raises:
        CompanionError: matrices and gain of different widths, devices or dtypes.

    >>> W = torch.ones(4, 2), torch.ones(4, 2), torch.ones(4, 2), torch.ones(2, 4)
    >>> W_Q, *_ = fold(W, torch.tensor([0.0, 1.0, 2.0, 3.0]), centre=True)
    >>> W_Q[:, 0]
    tensor([-1.5000, -0.5000,  0.5000,  1.5000])
    """
    named = dict(zip(("W_Q", "W_K", "W_V", "W_O"), matrices, strict=True))
    checks.shape("gain", gain, 1, "d_model")
    for name, matrix in named.items():
        axis = -1 if name == "W_O" else -2
        if matrix.ndim < 2 or matrix.shape[axis] != len(gain):
            axes = "(..., d_head, d_model)" if name == "W_O" else "(..., d_model, d_head)"
            raise CompanionError(
                f"{name} has shape {tuple(matrix.shape)}, expected {axes} with d_model "
                f"{len(gain)} beside gain {tuple(gain.shape)}"
            )
    checks.alike(gain=gain, **named)
    *readers, W_O = matrices
    readers = [reader * gain[:, None] for reader in readers]
    if centre:
        readers = [reader - reader.mean(dim=-2, keepdim=True) for reader in readers]
        W_O = W_O - W_O.mean(dim=-1, keepdim=True)
    return (*readers, W_O)


def from_bridge(bridge: Any) -> AttentionWeights:
    """Attention weights of a `TransformerBridge` in compatibility mode (already folded).

    Raises:
        CompanionError: the attention of this model is not said by four matrices per head and a
            rotary embedding of one kind; see `unlike`.

    >>> from types import SimpleNamespace as Stub
    >>> W = dict(zip(("W_Q", "W_K", "W_V", "W_O"), torch.randn(4, 1, 2, 8, 8), strict=True))
    >>> stub = torch.nn.Module()
    >>> stub.config = Stub(to_dict=lambda: {"model_type": "gpt2"})
    >>> from_bridge(Stub(original_model=stub, **W)).d_model
    8
    """
    reason = unlike(bridge)
    if reason:
        raise CompanionError(f"attention of this model is not supported: {reason}")
    return AttentionWeights(
        *(getattr(bridge, name).detach() for name in ("W_Q", "W_K", "W_V", "W_O")),
        rotary=rotary_of(bridge.original_model.config.to_dict()),
    )


_NORMED = re.compile(r"(^|[._])(q|k|qk|query|key)_?(norm|layer_?norm|ln)(\.|$)")


def unlike(bridge: Any) -> str | None:
    """What about a bridge's attention its four matrices per head do not say, None if nothing.

    Positions that `rotary_of` refuses raise there. Here it is found in the model itself, not by
    its name: norms of queries or keys (Qwen 3), rotary embeddings of neighbouring coordinates
    (GPT-J) and those that the config does not mention.

    >>> from types import SimpleNamespace as Stub
    >>> unlike(Stub(original_model=torch.nn.ModuleDict({"q_norm": torch.nn.Identity()})))
    'it normalises queries or keys (q_norm)'
    """
    model = bridge.original_model
    for wrapped, _ in model.named_modules():
        name = wrapped.replace("._original_component", "")
        if _NORMED.search(name):
            return f"it normalises queries or keys ({name})"
    code = sys.modules.get(type(model).__module__)
    if hasattr(code, "rotate_every_two"):
        return "its rotary embedding turns neighbouring coordinates, not halves"
    if hasattr(code, "rotate_half"):
        turned = code.rotate_half(torch.arange(4.0)).tolist()
        if turned != [-2.0, -3.0, 0.0, 1.0]:
            return "its rotary embedding turns neighbouring coordinates, not halves"
    kind = getattr(getattr(bridge, "cfg", None), "positional_embedding_type", None)
    if kind == "alibi":
        return "it has linear biases (ALiBi)"
    if kind == "rotary" and rotary_of(model.config.to_dict()) is None:
        return "its config does not say the base of its rotary embedding"
    return None


def from_checkpoint(
    path: Path | str,
    *,
    n_heads: int | None = None,
    dtype: torch.dtype = torch.float32,
    rounding: Callable[[Tensor], Tensor] | None = None,
) -> AttentionWeights:
    """Attention weights straight from safetensors, folded, without building a model.

    Args:
        path: a directory (``model.safetensors``, or shards with their index) or one
            ``.safetensors`` file. A ``config.json`` beside it is read when there is one.
        n_heads: number of query heads, needed when there is no config: a bare GPT-2 or GPT-NeoX
            checkpoint does not say it.
        dtype: the weights are converted to this; bf16 and fp16 are upcast before folding.
        rounding: applied to each stored matrix, turned to ``[out, in]``, before anything else
            (`q4_1`, to see what rounding to few bits does).

    Raises:
        CompanionError: no safetensors, unknown naming scheme, missing tensors, unknown number
            of heads, non-finite values, or an architecture whose attention needs more than this.

    >>> import tempfile
    >>> from safetensors.torch import save_file
    >>> names = {"attn.c_attn.weight": (8, 24), "attn.c_proj.weight": (8, 8), "ln_1.weight": (8,)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = f"{folder}/model.safetensors"
    ...     save_file({f"h.0.{name}": torch.randn(size) for name, size in names.items()}, file)
    ...     weights = from_checkpoint(file, n_heads=2)
    >>> weights.W_V.shape
    torch.Size([1, 2, 8, 4])
    """
    layers = list(iter_layers(path, n_heads=n_heads, dtype=dtype, rounding=rounding))
    W_Q, W_K, W_V, W_O = (torch.stack(parts) for parts in zip(*layers, strict=True))
    config = read_config(Path(path))
    return AttentionWeights(W_Q, W_K, W_V, W_O, rotary=rotary_of(config))


def iter_layers(
    path: Path | str,
    *,
    n_heads: int | None = None,
    dtype: torch.dtype = torch.float32,
    rounding: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Folded (W_Q, W_K, W_V, W_O) of one layer after another; see `from_checkpoint`.

    >>> next(iter_layers("nowhere"))
    Traceback (most recent call last):
    th_utils.errors.CompanionError: nowhere holds no .safetensors file
    """
    path = Path(path)
    if not dtype.is_floating_point:
        raise CompanionError(f"dtype {dtype} is not one of floating point")
    check_heads(n_heads)
    config = read_config(path)
    with ExitStack() as stack:
        tensors: dict[str, Any] = {}
        for file in safetensors_files(path):
            handle = stack.enter_context(open_shard(file))
            tensors.update(dict.fromkeys(handle.keys(), handle))
        scheme = naming_scheme(tensors, config)
        scheme_rotary(scheme, config, path)
        for layer in range(scheme.n_layers):

            def read(name: str, layer: int = layer) -> Tensor:
                key = scheme.key(layer, name)
                if key not in tensors:
                    raise CompanionError(f"{path}: tensor {key} is missing from the checkpoint")
                tensor = tensors[key].get_tensor(key).to(dtype)
                if rounding is None or tensor.ndim < 2:
                    return tensor
                return rounding(tensor.T).T if scheme.conv1d else rounding(tensor)

            matrices = scheme.read(read, n_heads or config.get(scheme.heads_field), config)
            yield fold(matrices, read(scheme.gain), centre=scheme.layer_norm)


def check_heads(n_heads: Any) -> None:
    """Refuse a number of query heads that is none; None stands for one that a config says.

    Raises:
        CompanionError: not a whole number, or below 1.

    >>> check_heads(0)
    Traceback (most recent call last):
    th_utils.errors.CompanionError: n_heads 0 is not a number of heads: expected at least 1
    """
    whole = isinstance(n_heads, Integral) and not isinstance(n_heads, bool)
    if n_heads is not None and not (whole and n_heads >= 1):
        raise CompanionError(f"n_heads {n_heads!r} is not a number of heads: expected at least 1")


def open_shard(file: Path) -> Any:
    """A safetensors file, opened to read tensor by tensor; a context manager.

    Raises:
        CompanionError: missing or damaged.

    >>> open_shard(Path("nowhere.safetensors"))
    Traceback (most recent call last):
    th_utils.errors.CompanionError: nowhere.safetensors is missing or damaged (...
    """
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CompanionError(
            f"{file} is missing or damaged ({error}): fetch the checkpoint again"
        ) from error


def scheme_rotary(scheme: _Scheme, config: Mapping[str, Any], path: Path) -> Rotary | None:
    """Rotary embedding of a checkpoint in `path`, None for families without.

    Raises:
        CompanionError: the family has one and the config does not say its base; see `rotary_of`.

    >>> scheme = naming_scheme({"h.0.attn.c_attn.weight": None}, {})  # GPT-2
    >>> print(scheme_rotary(scheme, {}, Path("model")))
    None
    """
    rotary = rotary_of(config)
    if scheme.rotary and rotary is None:
        raise CompanionError(
            f"{path}: the base of the rotary embedding is not known, and queries and keys mean "
            "nothing without it: put the model's config.json beside the weights"
        )
    return rotary


def q4_1(matrix: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
    """A matrix rounded to the Q4_1 format of GGUF files: 4 bits, scale and minimum per 32 inputs.

    The default edition's weights went through this once; applied to another model's, it says how
    far the rounding moves what the book measures.

    Each block of 32 values x becomes ``minimum + step * round((x - minimum) / step)``, with
    ``step = (maximum - minimum) / 15`` and both in fp16 (llama.cpp, `quantize_row_q4_1`).

    Raises:
        CompanionError: not a matrix of whole blocks, or values that are not finite.

    >>> q4_1(torch.arange(64.0).reshape(2, 32)).unique().numel()
    32
    """
    checks.shape("matrix", matrix, 2, "out, in")
    checks.not_empty("matrix", matrix)
    if matrix.shape[1] % 32:
        raise CompanionError(
            f"matrix has shape {tuple(matrix.shape)}, expected a multiple of 32 inputs"
        )
    checks.alike(matrix=matrix)
    checks.finite(matrix=matrix)
    import gguf

    kind = gguf.GGMLQuantizationType.Q4_1
    packed = gguf.quants.quantize(matrix.contiguous().float().cpu().numpy(), kind)
    rounded = torch.from_numpy(gguf.quants.dequantize(packed, kind))
    return rounded.to(matrix)


def read_config(path: Path) -> dict[str, Any]:
    """The ``config.json`` of a checkpoint, or an empty dict when there is none.

    >>> read_config(Path("nowhere"))
    {}
    """
    file = (path if path.is_dir() else path.parent) / "config.json"
    if not file.is_file():
        return {}
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CompanionError(f"{file} is damaged ({error}): fetch it again") from error


def safetensors_files(path: Path) -> list[Path]:
    """The safetensors files of a checkpoint: one file, or the shards its index names.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     shards = '{"weight_map": {"W_Q": "b.safetensors", "W_K": "a.safetensors"}}'
    ...     _ = (Path(folder) / "model.safetensors.index.json").write_text(shards)
    ...     [file.name for file in safetensors_files(Path(folder))]
    ['a.safetensors', 'b.safetensors']
    """
    if path.is_file():
        if path.suffix != ".safetensors":
            raise CompanionError(f"{path} is not a .safetensors file; pickled weights are refused")
        return [path]
    index = path / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        return [path / name for name in names]
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise CompanionError(f"{path} holds no .safetensors file")
    return files


@dataclass(frozen=True)
class _Scheme:
    """How one family names and lays out its attention tensors."""

    pattern: str  # of one key, with the layer number as a group; a prefix may stand before it
    gain: str
    heads_field: str
    layer_norm: bool
    read: Any  # (reader, n_heads, config) -> W_Q, W_K, W_V, W_O of one layer
    conv1d: bool = False  # matrices are stored as [in, out]
    rotary: bool = True
    prefix: str = ""
    n_layers: int = 0

    def key(self, layer: int, name: str) -> str:
        return f"{self.prefix}{layer}.{name}"


def _heads(n_heads: int | None, d_model: int) -> int:
    if n_heads is None:
        raise CompanionError("this checkpoint has no config.json: say how many heads (n_heads=...)")
    check_heads(n_heads)
    if d_model % n_heads:
        raise CompanionError(f"{n_heads} heads do not divide d_model = {d_model}")
    return n_heads


def _read_gpt2(read: Any, n_heads: int | None, config: Mapping[str, Any]) -> tuple[Tensor, ...]:
    joined, out = read("attn.c_attn.weight"), read("attn.c_proj.weight")  # Conv1D: [in, out]
    d_model = joined.shape[0]
    n_heads = _heads(n_heads, d_model)
    split = joined.reshape(d_model, 3, n_heads, -1).permute(1, 2, 0, 3)
    return (*split, out.reshape(n_heads, -1, d_model))


def _read_neox(read: Any, n_heads: int | None, config: Mapping[str, Any]) -> tuple[Tensor, ...]:
    joined, out = read("attention.query_key_value.weight"), read("attention.dense.weight")
    d_model = joined.shape[1]
    n_heads = _heads(n_heads, d_model)
    split = joined.reshape(n_heads, 3, -1, d_model).permute(1, 0, 3, 2)  # fused per head
    return (*split, out.T.reshape(n_heads, -1, d_model))


def _read_llama(read: Any, n_heads: int | None, config: Mapping[str, Any]) -> tuple[Tensor, ...]:
    query, key, value = (read(f"self_attn.{name}_proj.weight") for name in "qkv")
    out = read("self_attn.o_proj.weight")
    d_model = query.shape[1]
    if not n_heads or n_heads < 1:
        _heads(n_heads, d_model)
    d_head = query.shape[0] // n_heads
    if query.shape[0] % n_heads or key.shape[0] % d_head:
        raise CompanionError(
            f"{n_heads} heads do not divide the {query.shape[0]} rows of queries and "
            f"{key.shape[0]} of keys"
        )
    split = [w.reshape(-1, d_head, d_model).transpose(1, 2) for w in (query, key, value)]
    return (*split, out.T.reshape(n_heads, d_head, d_model))


_SCHEMES = (
    _Scheme(
        r"h\.(\d+)\.attn\.c_attn\.weight",
        "ln_1.weight",
        "n_head",
        True,
        _read_gpt2,
        conv1d=True,
        rotary=False,
    ),
    _Scheme(
        r"layers\.(\d+)\.attention\.query_key_value\.weight",
        "input_layernorm.weight",
        "num_attention_heads",
        True,
        _read_neox,
    ),
    _Scheme(
        r"layers\.(\d+)\.self_attn\.q_proj\.weight",
        "input_layernorm.weight",
        "num_attention_heads",
        False,
        _read_llama,
    ),
)
# Families that share Llama's tensor names but change what the matrices mean.
_UNLIKE_LLAMA = ("gemma", "cohere", "olmo2", "phi")


def naming_scheme(tensors: Mapping[str, Any], config: Mapping[str, Any]) -> _Scheme:
    """Which family's naming a checkpoint follows, with its prefix and number of layers.

    Raises:
        CompanionError: none of those known, or one whose attention needs more than these names.

    >>> naming_scheme({"model.layers.0.self_attn.q_proj.weight": None}, {}).key(4, "x")
    'model.layers.4.x'
    """
    model_type = str(config.get("model_type", ""))
    normed = any(re.search(r"self_attn\.[qk]_norm", key) for key in tensors)
    # a norm with a bias is a LayerNorm, as in StableLM: its readers would have to be centred too
    biased = any(re.search(r"layers\.\d+\.self_attn\.q_proj", key) for key in tensors) and any(
        key.endswith("input_layernorm.bias") for key in tensors
    )
    if model_type.startswith(_UNLIKE_LLAMA) or normed or biased:
        raise CompanionError(
            f"attention of {model_type or 'this model'} is not supported: its norm is not the "
            "plain gain that can be folded into the readers"
        )
    for scheme in _SCHEMES:
        found = [m for key in tensors if (m := re.fullmatch(rf"(.*?){scheme.pattern}", key))]
        if found:
            stem = scheme.pattern.split(r"\.(\d+)")[0]
            return _Scheme(
                **{
                    **scheme.__dict__,
                    "prefix": f"{found[0].group(1)}{stem}.",
                    "n_layers": 1 + max(int(m.group(2)) for m in found),
                }
            )
    raise CompanionError(
        "no attention tensors with GPT-2, GPT-NeoX or Llama names in this checkpoint"
    )
