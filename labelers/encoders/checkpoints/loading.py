"""Checkpoints: the model, tokenizer and image processor that a name stands for, loaded by transformers and checked.

    name ──► locate: reference model, folder or hub ──► look at the folder ──► load ──► weights, tokenizer and end token fit

Nothing is loaded that runs code of its own, lacks weights or has weights that the model would not use.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from vlm_rewards.labelers.encoders.checkpoints.adapters import apply_adapter, read_adapter
from vlm_rewards.labelers.encoders.checkpoints.folders import adapter_key, check_model_folder, is_adapter
from vlm_rewards.labelers.encoders.checkpoints.hub import fetch_snapshot, parse_hub_name, snapshot_in_cache_folder
from vlm_rewards.labelers.encoders.tokenization import check_tokenizer
from vlm_rewards.labelers.reference_models import REFERENCE_FOLDER


class Located(NamedTuple):
    """Place of a model.

    Attributes:
        folder: Folder of the model on this machine.
        pinned_name: Name that stands for exactly these files: a hub id with its commit; else the name as given.
    """

    folder: Path
    pinned_name: str


class Checkpoint(NamedTuple):
    """A dual encoder as transformers loads it.

    Attributes:
        located: Place of the checkpoint.
        model: The model in float32 on the CPU, in evaluation mode.
        tokenizer: Its tokenizer.
        image_processor: Its image processor, of the Pillow back end.
        weights_digest: Digest of the weights in float32, whatever file format they came from.
    """

    located: Located
    model: Any
    tokenizer: Any
    image_processor: Any
    weights_digest: str


def load_checkpoint(name: str | Path) -> Checkpoint:
    """Loads a model with its tokenizer and image processor; never runs code from a checkpoint, never guesses weights.

    Args:
        name: A reference model that ships with the package ("reference-s"), a local folder, or a Hugging Face hub id.

    Raises:
        ValueError: The checkpoint is not found, incomplete, pickled, not what it seems, or no dual encoder.
    """
    located = locate(name)
    if is_adapter(located.folder) and not (located.folder / "config.json").is_file():
        return _load_adapted(located)
    folder = located.folder
    check_model_folder(folder)
    with _quiet_transformers():
        model = _load_model(folder)
        image_processor = _load_part(AutoImageProcessor, folder, "an image processor", backend="pil")
        tokenizer = _load_part(AutoTokenizer, folder, "a tokenizer")
    check_tokenizer(tokenizer, model, str(folder))
    return Checkpoint(located, model, tokenizer, image_processor, _weights_digest(model))


def _load_adapted(located: Located) -> Checkpoint:
    """Loads the model that an adapter is of, with the adapter merged."""
    adapter = read_adapter(located.folder)
    try:
        base = load_checkpoint(adapter.base)
    except ValueError as error:
        error.add_note(f"while loading the model that the adapter {adapter.folder} is of")
        raise
    with _quiet_transformers():
        tokenizer = base.tokenizer
        if (adapter.folder / "tokenizer_config.json").is_file():  # trained with words added, or texts read otherwise
            tokenizer = _load_part(AutoTokenizer, adapter.folder, "a tokenizer", config=base.model.config)
        model = apply_adapter(base.model, adapter)
    check_tokenizer(tokenizer, model, str(adapter.folder))
    # Of what was merged, not of the result: products round otherwise on another processor.
    digest = hashlib.sha256(f"{base.weights_digest} {adapter.digest}".encode()).hexdigest()[:32]
    return Checkpoint(located, model, tokenizer, base.image_processor, digest)


def locate(name: str | Path) -> Located:
    """Finds the folder of a model: first a reference model, then a local folder, then the hub.

    Raises:
        ValueError: A reference model that does not exist, a file, no folder and no hub id either, or a hub id whose model is not
            to be had.
    """
    if (REFERENCE_FOLDER / name / "config.json").is_file() and Path(name).name == str(name):
        return Located(REFERENCE_FOLDER / name, str(name))
    folder = Path(name)
    if folder.is_dir():
        return Located(snapshot_in_cache_folder(folder) or folder, str(name))
    if folder.is_file():
        raise ValueError(
            f"a model must be a folder or a Hugging Face hub id: got the file {name}. Give the folder that holds config.json, "
            f"weights, tokenizer and image processor."
        )
    shipped = ", ".join(reference_models()) or "none"
    families = {model.rpartition("-")[0] for model in reference_models()} | {"reference"}
    if folder.name == str(name) and folder.name.rpartition("-")[0] in families:
        raise ValueError(
            f"a reference model must be one that ships with vlm-rewards ({shipped}), got {name!s}; choose one"
        )
    hub_name = parse_hub_name(name) if isinstance(name, str) else None
    if hub_name is None:
        raise ValueError(
            f"a model must be a folder or a Hugging Face hub id (owner/name), got {str(name)!r}, which is neither; check the path, "
            f"or choose a model that ships with vlm-rewards: {shipped}"
        )
    snapshot = fetch_snapshot(hub_name)
    return Located(snapshot.folder, f"{hub_name.hub_id}@{snapshot.commit}")


def reference_models() -> list[str]:
    """Returns the names of the models that ship with the package."""
    return sorted(path.parent.name for path in REFERENCE_FOLDER.glob("*/config.json"))


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Holds back progress bars, of which every worker would draw one."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _load_part(loader: Any, folder: Path, what: str, **options: Any) -> Any:
    """Loads one part of a checkpoint by a transformers Auto class; says which part could not be loaded, and the remedy."""
    try:
        return loader.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True, **options)
    except (OSError, ValueError, ImportError, KeyError, TypeError, SafetensorError) as error:
        raise ValueError(
            f"a model must have {what} that can be loaded, got none from {str(folder)!r} ({_first_line(error)}); save the model, "
            f"its tokenizer and its image processor into the folder with save_pretrained"
        ) from error


def _load_model(folder: Path) -> Any:
    config = _load_part(AutoConfig, folder, "a config")
    try:
        model_class = AutoModel._model_mapping[type(config)]
        if not (hasattr(model_class, "get_image_features") and hasattr(model_class, "get_text_features")):
            raise KeyError
        attention = "sdpa" if model_class._supports_sdpa else "eager"
    except KeyError:
        raise ValueError(
            f"a model must be a dual encoder with get_image_features and get_text_features, got {config.model_type!r} from "
            f"{folder}; choose one such as CLIP, SigLIP or ALIGN"
        ) from None
    model, info = _load_part(
        AutoModel,
        folder,
        "safetensors weights",
        config=config,
        dtype=torch.float32,
        use_safetensors=True,
        attn_implementation=attention,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # so that they are listed below rather than logged
    )
    for problem in ("missing_keys", "mismatched_keys"):
        keys = sorted(str(key) for key in info[problem])
        if keys:
            raise ValueError(
                f"the weights of a model must be complete, got {len(keys)} {problem.replace('_', ' ')} in {folder}, such as "
                f"{', '.join(keys[:3])}; random weights would label at random: save the whole model again"
            )
    unexpected = sorted(str(key) for key in info["unexpected_keys"])
    if unexpected:
        adapter = adapter_key(unexpected)
        raise ValueError(
            f"{len(unexpected)} weights in {folder} are not part of the model that its config.json describes: got "
            f"{', '.join([adapter] if adapter else unexpected[:3])}. Give the config.json that the weights were saved with "
            f"(layers, sizes, model type): without them the model scores otherwise."
        )
    return model.eval().requires_grad_(False)


def _weights_digest(model: Any) -> str:
    """Returns 32 hexadecimal digits of all named weights: name, type, shape and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        array = np.ascontiguousarray(tensor.detach().numpy())
        digest.update(f"{name} {array.dtype} {list(array.shape)}\n".encode())
        digest.update(array.data if array.ndim else array.tobytes())
    return digest.hexdigest()[:32]


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
