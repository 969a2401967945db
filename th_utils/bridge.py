"""From a local model directory to a TransformerBridge in compatibility mode.

Compatibility mode folds the gains of the norms into what reads the residual stream, centres what
writes to it and the unembedding, and folds value biases: the coordinates that every weight-based
statement here is made in. Nothing is fetched, no pickle is loaded and no remote code is run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoTokenizer

from th_utils import hub
from th_utils.errors import CompanionError
from th_utils.terminal import quiet

_TOKENIZERS = ("tokenizer.json", "vocab.json", "tokenizer.model", "vocab.txt")
# Model types for which a test compares the thrifty folding with TransformerLens' own, bit by bit.
THRIFTY = ("gpt2", "gpt_neox", "llama")


def boot(
    directory: Path, *, name: str, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> Any:
    """A TransformerBridge in compatibility mode, made from a directory.

    Args:
        directory: config.json, safetensors and tokenizer, as `save_pretrained` writes them.
        name: what the bridge calls itself (`bridge.cfg.model_name`).
        device: a torch device, such as "cpu" or "cuda".
        dtype: of the weights.

    Raises:
        CompanionError: something is missing or damaged in the directory, its weights are pickled
            or not finite, it needs code of its own, or there is no such device.
    """
    from transformer_lens.model_bridge import TransformerBridge

    check_device(device)
    config = check_directory(directory)
    with quiet():
        try:
            model, report = AutoModelForCausalLM.from_pretrained(
                directory,
                dtype=dtype,
                attn_implementation="eager",  # the others have no attention pattern to look at
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        except Exception as error:
            raise CompanionError(
                f"cannot load the model in {directory} ({error}): if it came by a download, "
                "delete it and fetch it again"
            ) from error
        # transformers would go on with random numbers for tensors that are not there.
        missing = sorted(report["missing_keys"])
        if missing:
            raise CompanionError(
                f"{directory} lacks {len(missing)} tensors of a whole model ({missing[0]}, ...): "
                "give a complete checkpoint, or keep to the weight-only chapters"
            )
        model.to(device).requires_grad_(False)
        try:
            bridge = TransformerBridge.boot_transformers(
                name, hf_model=model, tokenizer=tokenizer, device=device, dtype=dtype
            )
            with _thrifty(config.get("model_type") in THRIFTY):
                bridge.enable_compatibility_mode(disable_warnings=True)
        except Exception as error:
            raise CompanionError(
                f"TransformerLens cannot run the model in {directory} ({error}): choose a causal "
                "language model that its TransformerBridge supports"
            ) from error
    check_finite(bridge, directory)
    return bridge.eval().requires_grad_(False)


def tokens(bridge: Any, text: str | Sequence[str]) -> Int[Tensor, "batch pos"]:
    """Token ids of a text, or of several of equal length, without a token for the beginning.

    `bridge.to_tokens` would put one in front for most models; none of the papers' prompts has it.

    Raises:
        CompanionError: the texts differ in their number of tokens.
    """
    texts = [text] if isinstance(text, str) else list(text)
    ids = [bridge.tokenizer(t, add_special_tokens=False)["input_ids"] for t in texts]
    lengths = sorted({len(row) for row in ids})
    if len(lengths) != 1:
        raise CompanionError(
            f"the texts have {lengths} tokens: give texts of equal length, or one at a time"
        )
    return torch.tensor(ids, dtype=torch.long, device=bridge.cfg.device)


def check_directory(directory: Path) -> dict[str, Any]:
    """The config of a model directory that can be loaded safely.

    Raises:
        CompanionError: see `boot`.
    """
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CompanionError(
            f"{directory} has no config.json: give the directory that `save_pretrained` wrote"
        ) from error
    except ValueError as error:
        raise CompanionError(f"{directory / 'config.json'} is damaged: {error}") from error
    if not any(directory.glob("*.safetensors")):
        if any(p.suffix in hub.PICKLES for p in directory.iterdir()):
            raise CompanionError(hub.pickled(directory))
        raise CompanionError(f"{directory} holds no .safetensors file: fetch the model's weights")
    if "auto_map" in config and config.get("model_type") not in CONFIG_MAPPING:
        raise CompanionError(
            f"the model in {directory} runs only with code of its own, which is never run here: "
            "choose a model whose architecture is part of transformers"
        )
    if not any((directory / file).is_file() for file in _TOKENIZERS):
        raise CompanionError(f"{directory} holds no tokenizer: put the model's tokenizer files in")
    return config


def check_device(device: str) -> None:
    """Raise a CompanionError unless torch can use the device here."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise CompanionError(
            f"device {device!r} cannot be used here: choose device = 'cpu'"
        ) from error


def check_finite(bridge: Any, place: object) -> None:
    """Raise a CompanionError if a weight is NaN or infinite.

    A sum that is not finite comes from such a weight, or from an overflow, which the slower look
    at each number tells apart; the sum alone needs no memory.
    """
    for name, weight in bridge.named_parameters():
        if not torch.isfinite(weight.sum()) and not torch.isfinite(weight).all():
            raise CompanionError(
                f"{place}: NaN or infinite values in {name.replace('._original_component', '')}: "
                "the checkpoint is damaged, fetch it again"
            )


class _WithoutClones(TorchFunctionMode):
    """Within this mode `tensor.clone()` returns the tensor."""

    def __torch_function__(self, func, types, args=(), kwargs=None):  # noqa: ANN001
        return args[0] if func is Tensor.clone else func(*args, **(kwargs or {}))


@contextmanager
def _thrifty(wanted: bool) -> Iterator[None]:
    """Let TransformerLens fold the weights without copying the whole model at each step.

    Three of its steps begin with a clone of every tensor, although they make new tensors of what
    they change and leave the rest alone. Without the clones the default model takes 1.5 instead
    of 2.5 GB and 2.7 instead of 7.8 s, and weights that folding leaves as they are stay mapped
    from their file (private to the process, so that editing them in place never reaches it).
    """
    from transformer_lens.weight_processing import ProcessWeights

    steps = ("fold_layer_norm", "center_unembed", "fold_value_biases")
    originals = {step: vars(ProcessWeights)[step] for step in steps if step in vars(ProcessWeights)}

    def without_clones(function: Any) -> Any:
        def step(*args: Any, **kwargs: Any) -> Any:
            with _WithoutClones():
                return function(*args, **kwargs)

        return staticmethod(step)

    try:
        for step, original in originals.items() if wanted else ():
            setattr(ProcessWeights, step, without_clones(original.__func__))
        yield
    finally:
        for step, original in originals.items():
            setattr(ProcessWeights, step, original)
