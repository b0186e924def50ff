"""Adapters of the package `peft` (LoRA and its kin), merged into the weights of the model that they were trained for."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from vlm_rewards.labelers.encoders.checkpoints.folders import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    check_files_are_whole,
    read_config,
)


class Adapter(NamedTuple):
    """An adapter as it lies in its folder.

    Attributes:
        folder: Its folder.
        base: Folder or hub id of the model that it adapts, with the revision if it names one.
        digest: Digest of its config and weights.
    """

    folder: Path
    base: str
    digest: str


def read_adapter(folder: Path) -> Adapter:
    """Reads an adapter's base model and digest.

    Args:
        folder: A folder with adapter_config.json, as `peft` saves it.

    Raises:
        ValueError: The folder lacks the weights, holds a pointer in their place, or does not name its model.
    """
    check_files_are_whole(folder)
    if not (folder / ADAPTER_WEIGHTS).is_file():
        others = sorted(path.name for path in folder.iterdir() if path.name.startswith("adapter_model"))
        raise ValueError(
            f"the adapter {folder} has no weights in safetensors format: got {', '.join(others) or 'none'} in place of "
            f"{ADAPTER_WEIGHTS}. Load it with peft where you trust it and save it with save_pretrained."
        )
    config = read_config(folder / ADAPTER_CONFIG)
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(base, str) or not base:
        raise ValueError(
            f"the adapter {folder} does not say which model it adapts: got {base!r} for base_model_name_or_path in "
            f"{ADAPTER_CONFIG}. Write the model's folder or hub id there."
        )
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, tensor in sorted(_weights(folder).items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(np.ascontiguousarray(tensor.contiguous().view(torch.uint8).numpy()).tobytes())
    is_hub_id = not Path(base).is_dir() and not (folder / base).is_dir()
    if (folder / base).is_dir() and not Path(base).is_dir():
        base = str(folder / base)
    return Adapter(folder, f"{base}@{revision}" if revision and is_hub_id else base, digest.hexdigest()[:32])


def apply_adapter(model: Any, adapter: Adapter) -> Any:
    """Merges an adapter into the weights of its model.

    Args:
        model: The transformers model that the adapter was trained for, in float32.
        adapter: The adapter.

    Returns:
        The model with the adapter merged; it has the same layers as before.

    Raises:
        ValueError: The package peft is not installed, or the adapter does not fit the model or cannot be merged.
    """
    try:
        from peft import PeftConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
    except ImportError as error:
        raise ValueError(
            f"{adapter.folder} is an adapter of {adapter.base}, which needs the package peft: got none. Install it with "
            f"'pip install vlm-rewards[adapters]', or merge the adapter and save the whole model."
        ) from error
    names = set(model.state_dict())
    try:
        config = PeftConfig.from_pretrained(str(adapter.folder))
        config.inference_mode = True
        config.base_model_name_or_path = None  # peft would warn that the model lies elsewhere now
        if config.is_prompt_learning:
            raise ValueError(f"{config.peft_type.value} puts tokens before every text")
        record = read_config(adapter.folder / ADAPTER_CONFIG)
        newer = sorted(name for name in record.keys() - config.to_dict().keys() - {"peft_version"} if record[name])
        if newer:  # which peft would pass over with a warning
            raise ValueError(f"the setting {newer[0]}, newer than the installed peft")
        wrapped = get_peft_model(model, config)
        weights = _weights(adapter.folder)
        odd = sorted(weights.keys() ^ get_peft_model_state_dict(wrapped, save_embedding_layers=False).keys())
        if odd:
            raise ValueError(f"{len(odd)} weights are in one of them alone, such as {odd[0]}")
        set_peft_model_state_dict(wrapped, weights)
        merged = wrapped.merge_and_unload(safe_merge=True)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ValueError(
            f"the adapter {adapter.folder} does not fit into the model {adapter.base}: got {reason}. Check "
            f"base_model_name_or_path in {ADAPTER_CONFIG}, or merge the adapter where it was trained and save the whole model."
        ) from error
    assert set(merged.state_dict()) == names, "merging must leave the layers of the model"
    return merged.eval().requires_grad_(False)


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(folder / ADAPTER_WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"{ADAPTER_WEIGHTS} in {folder} cannot be read: got {str(error).splitlines()[0]}. Download or save the adapter again."
        ) from error
