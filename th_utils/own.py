"""A reader's own model, looked at before anything of it is loaded (chapter 12).

From the config and from the headers of the safetensors alone: what kind of model it is, whether
what this book computes can be computed on it, how much memory that takes and whether there is as
much. Of a model on the hub these are fetched, a few kilobytes, and nothing else. No pickle is
opened and no code of the model's is run.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import torch

from th_utils import engine, hub, models, roles, room
from th_utils.bridge import THRIFTY
from th_utils.checkpoint import Checkpoint
from th_utils.errors import CompanionError
from th_utils.parameters import check_parameters, check_whole_number
from th_utils.roles import Roles
from th_utils.room import Size
from th_utils.weights import (
    from_bridge,
    naming_scheme,
    open_shard,
    read_config,
    safetensors_files,
    scheme_rotary,
    unlike,
)

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Plan:
    """What can be done with a model here.

    `runs` says whether its forward pass is used; if not, `reason` says why. `layout` says where the
    attention matrices come from: read from the checkpoint, or from the loaded model.
    """

    edition: str
    family: str  # the config's model_type, or the naming of the tensors
    size: Size
    device: str
    runs: bool
    reason: str
    layout: Literal["checkpoint", "bridge"]
    need: int  # bytes of memory, about
    n_heads: int | None  # where no config says it


def look(edition: str, *, device: str = "cpu", heads: int = 0) -> Plan:
    """Look at a model, and at this machine, and say what will be done; loads nothing.

    Args:
        edition: name, hub id, directory or safetensors file, see `th_utils.models.resolve`.
        device: a torch device, or "auto" for the first GPU that has room.
        heads: number of query heads, for a file without config.json; 0 where there is one.

    Raises:
        CompanionError: no such model or no access to it, an architecture that the kernels do not
            know, weights that are pickles or need code of their own, or too little memory.
    """
    check_parameters(edition=edition, size="quick", seed=0, device="cpu")
    check_whole_number("heads", heads, low=0, high=1024)
    known = models.resolve(edition)
    path = models.present(edition)
    if path is None and known.hub is None:
        path = models.locate(edition)  # the default edition, whose memory is known to be small
    if path is None:
        config, shapes = hub.look(known.hub or "", known.entry.get("revision"))
    else:
        config, shapes = read_config(path), local_shapes(path)
    n_heads = heads or (None if config else known.entry.get("heads"))
    family = str(config.get("model_type") or "no config.json")
    obstacle = unknown = forward_obstacle(config)
    if unknown is None and not models.can_run(edition):
        obstacle = "the checkpoint holds no more than attention weights"
    found = _from_headers(shapes, config, n_heads)
    if isinstance(found, str) and not obstacle:
        found = _from_config(config, shapes)
    if isinstance(found, str):
        why = unknown if unknown and config else found
        raise CompanionError(f"the kernels do not know the architecture of {edition}: {why}")
    size, layout = found
    return _fitted(edition, family, size, layout, obstacle, device, n_heads)


def _fitted(
    edition: str,
    family: str,
    size: Size,
    layout: Literal["checkpoint", "bridge"],
    obstacle: str | None,
    wanted: str,
    n_heads: int | None,
) -> Plan:
    """The plan that fits into memory: the whole model, or its attention weights alone."""
    light = room.weights_need(size)
    heavy = max(room.forward_need(size, thrifty=family in THRIFTY), light)
    remedy = "take a machine with more, or a smaller model"
    if obstacle is None:
        device = room.choose_device(wanted, heavy)
        fits = room.available(device) >= heavy
        if fits or layout == "bridge":
            room.check_room(edition, device, heavy, remedy)
            return Plan(edition, family, size, device, True, "", layout, heavy, n_heads)
        obstacle = f"its forward pass needs about {room.gigabytes(heavy)} of memory, more than here"
    remedy = "`python -m th_utils.scan` goes through a checkpoint of any size layer by layer"
    room.check_room(f"{edition}, even its attention weights alone,", "cpu", light, remedy)
    return Plan(edition, family, size, "cpu", False, obstacle, layout, light, n_heads)


def forward_obstacle(config: Mapping[str, Any]) -> str | None:
    """Why a model of this config cannot be run here, None where it can.

    Raises:
        CompanionError: it runs only with code of its own.
    """
    if not config:
        return "it has no config.json"
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    family = config.get("model_type")
    if family not in CONFIG_MAPPING:
        if "auto_map" in config:
            raise CompanionError(
                f"models of type {family!r} run only with code of their own, which is never run "
                "here: choose a model whose architecture is part of transformers"
            )
        return f"transformers does not know models of type {family!r}"
    kinds = config.get("architectures") or []
    if family not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or any("Masked" in kind for kind in kinds):
        return f"models of type {family!r} are no causal language models"
    from transformer_lens.factories import architecture_adapter_factory as adapters

    kind = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[family]
    if kind not in adapters.SUPPORTED_ARCHITECTURES:
        return f"TransformerLens has no bridge for {kind}"
    return None


def local_shapes(path: Path) -> Shapes:
    """Names and shapes of a checkpoint's tensors, from its headers.

    Raises:
        CompanionError: pickles only, or no weights.
    """
    if path.is_dir() and not any(path.glob("*.safetensors")):
        if any(file.suffix in hub.PICKLES for file in path.iterdir()):
            raise CompanionError(hub.pickled(path))
    shapes: Shapes = {}
    for file in safetensors_files(path):
        with open_shard(file) as handle:
            shapes |= {key: tuple(handle.get_slice(key).get_shape()) for key in handle.keys()}
    return shapes


def _from_headers(
    shapes: Shapes, config: Mapping[str, Any], n_heads: int | None
) -> tuple[Size, Literal["checkpoint"]] | str:
    """The size of a model whose tensors are named and laid out as the kernels read them; else why
    they are not."""
    nowhere = Path("checkpoint")
    try:
        scheme = naming_scheme(shapes, config)
        rotary = scheme_rotary(scheme, config, nowhere)
        heads = n_heads or config.get(scheme.heads_field)
        files = dict.fromkeys(shapes, nowhere)
        checkpoint = Checkpoint(nowhere, config, scheme, shapes, files, heads, rotary)
        n, kv, d_model, d_head = checkpoint.sizes()
    except CompanionError as error:
        return str(error).removeprefix("checkpoint: ").replace("n_heads=...", "heads = ...")
    vocabulary = int(config.get("vocab_size") or 0)
    return Size(_count(shapes), scheme.n_layers, n, kv, d_model, d_head, vocabulary), "checkpoint"


def _from_config(config: Mapping[str, Any], shapes: Shapes) -> tuple[Size, Literal["bridge"]] | str:
    """The size of a model whose matrices TransformerLens knows how to find; else why not.

    The model is made without weights, to see what it is built of.
    """
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    from th_utils.rotary import rotary_of
    from th_utils.terminal import quiet

    try:
        rotary_of(config)
    except CompanionError as error:
        return str(error)
    with quiet(), torch.device("meta"):
        said = CONFIG_MAPPING[config["model_type"]].from_dict(dict(config))
        empty = AutoModelForCausalLM.from_config(said)
    different = unlike(SimpleNamespace(original_model=empty))
    if different:
        return f"attention of this model is not supported: {different}"
    if not getattr(said, "num_attention_heads", None):
        return "its config names no heads of attention"
    heads, d_model = int(said.num_attention_heads), int(said.hidden_size)
    kv_heads = int(getattr(said, "num_key_value_heads", None) or heads)
    d_head = int(getattr(said, "head_dim", None) or d_model // heads)
    layers, vocabulary = int(said.num_hidden_layers), int(said.vocab_size)
    return Size(_count(shapes), layers, heads, kv_heads, d_model, d_head, vocabulary), "bridge"


def _count(shapes: Shapes) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def roles_of(plan: Plan, chapter: Any) -> Roles | None:
    """The roles of the heads: measured where the model runs, else published, else None."""
    if plan.runs:
        return chapter.roles
    found = roles.published(plan.edition)
    return found if any(found.heads.values()) else None


def attention_weights(plan: Plan, bridge: Any | None) -> Any:
    """The folded attention weights of the model that was looked at.

    Args:
        plan: from `look`.
        bridge: the loaded model, None where it does not run.

    Raises:
        CompanionError: the loaded model does not use its matrices as the kernels take them.
    """
    if plan.layout == "bridge":
        check_reads(bridge)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that interventions would be slow: none is made here
            engine.of(bridge)  # checks how the heads write
        return from_bridge(bridge)
    return models.attention_weights(plan.edition, n_heads=plan.n_heads)


def check_reads(bridge: Any) -> None:
    """Refuse a model whose heads read the residual stream otherwise than by W_Q, W_K and W_V.

    For families whose layout was not known beforehand: on a dozen tokens, differences between the
    queries (keys, values) at two positions must be those of the normed residual stream, times the
    matrix. Biases drop out of differences.

    Raises:
        CompanionError: they are not.
    """
    layers = range(bridge.cfg.n_layers)
    hooks = ("hook_resid_pre", "attn.hook_q", "attn.hook_k", "attn.hook_v")
    tokens = torch.arange(12, device=bridge.cfg.device)[None] + 5
    with torch.no_grad():
        _, cache = bridge.run_with_cache(
            tokens, names_filter=[f"blocks.{layer}.{hook}" for layer in layers for hook in hooks]
        )
        for layer in layers:
            read = bridge.blocks[layer].ln1(cache[f"blocks.{layer}.hook_resid_pre"])[0]
            for name in "qkv":
                W = getattr(bridge, f"W_{name.upper()}")[layer].to(read)
                expected = torch.einsum("pd,hde->phe", read[1:] - read[:1], W)
                found = cache[f"blocks.{layer}.attn.hook_{name}"][0]
                found = (found[1:] - found[:1]).reshape(len(found) - 1, -1, W.shape[-1])
                fits = found.shape == expected.shape
                if not fits or not (found - expected).abs().max() <= 1e-3 * expected.abs().max():
                    raise CompanionError(
                        f"the kernels do not know the architecture of {bridge.cfg.model_name}: its "
                        f"heads read otherwise than by W_{name.upper()}, in layer {layer} first"
                    )
