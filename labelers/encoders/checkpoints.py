"""Checkpoints: the folder or hub id that a name stands for, and its model, tokenizer and image processor, loaded."""

import hashlib
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from vlm_rewards.labelers.encoders.hub import hub_answers, quiet_hub

REFERENCE_FOLDER = Path(__file__).parent.parent / "reference_models" / "weights"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class Checkpoint(NamedTuple):
    """A dual encoder as transformers loads it.

    Attributes:
        source: Its folder or hub id.
        model: The model in float32 on the CPU, in evaluation mode.
        tokenizer: Its tokenizer.
        image_processor: Its image processor, of the Pillow back end.
        weights_digest: Digest of the weights in float32, whatever file format they came from.
    """

    source: str
    model: Any
    tokenizer: Any
    image_processor: Any
    weights_digest: str


def load_checkpoint(name: str | Path) -> Checkpoint:
    """Loads a model with its tokenizer and image processor; never runs code from a checkpoint, never guesses weights.

    Args:
        name: A reference model that ships with the package ("reference-s"), a local folder, or a Hugging Face hub id.

    Raises:
        ValueError: The checkpoint is not found, incomplete, pickled, or no dual encoder.
    """
    source = resolve_model(name)
    with quiet_hub():
        local = {"local_files_only": not (Path(source).is_dir() or hub_answers(source))}
        model = _load_model(source, **local)
        image_processor = _load_part(AutoImageProcessor, source, "an image processor", backend="pil", **local)
        tokenizer = _load_part(AutoTokenizer, source, "a tokenizer", **local)
    _check_tokenizer(tokenizer, source)
    return Checkpoint(source, model, tokenizer, image_processor, _weights_digest(model))


def _check_tokenizer(tokenizer: Any, source: str) -> None:
    words = tokenizer.get_vocab().keys() - set(tokenizer.all_special_tokens)
    if len(words) < 2:
        raise ValueError(
            f"a tokenizer must know words besides its special tokens, got {len(words)} from {source}, tokenizer.json (or the "
            f"tokenizer's other files) missing; save the tokenizer into the folder with save_pretrained"
        )
    if tokenizer.pad_token_id is None:
        raise ValueError(
            f"a tokenizer must have a pad token, got none in {source}; set pad_token in its tokenizer_config.json"
        )


def resolve_model(name: str | Path) -> str:
    """The folder or hub id that a name stands for: first a reference model, then a local folder, then the hub.

    Raises:
        ValueError: A folder without a config or without safetensors weights, a reference model that does not exist, or no
            folder and no hub id either.
    """
    if (REFERENCE_FOLDER / name / "config.json").is_file() and Path(name).name == str(name):
        name = REFERENCE_FOLDER / name
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ValueError(
                f"a model folder must hold config.json, got {folder} without it; give the folder of a saved model"
            )
        if not list(folder.glob("*.safetensors")):
            pickled = sorted(path.name for path in [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")])
            found = f"only pickled weights ({pickled[0]})" if pickled else "none"
            raise ValueError(
                f"a model folder must hold its weights as *.safetensors, got {found} in {folder}; load the model where you trust "
                f"it and save it with save_pretrained, or download its safetensors file"
            )
        return str(folder)
    shipped = ", ".join(reference_models()) or "none"
    if folder.name == str(name) and folder.name.startswith("reference-"):
        raise ValueError(
            f"a reference model must be one that ships with vlm-rewards ({shipped}), got {name!s}; choose one"
        )
    if not isinstance(name, str) or not _HUB_ID.fullmatch(name):
        raise ValueError(
            f"a model must be a folder or a Hugging Face hub id (owner/name), got {str(name)!r}, which is neither; check the path, "
            f"or choose a model that ships with vlm-rewards: {shipped}"
        )
    return name


def reference_models() -> list[str]:
    """Names of the models that ship with the package."""
    return sorted(path.parent.name for path in REFERENCE_FOLDER.glob("*/config.json"))


def _load_part(loader: Any, source: str, what: str, **options: Any) -> Any:
    """One part of a checkpoint, by a transformers Auto class; says which part of what could not be loaded, and the remedy."""
    try:
        return loader.from_pretrained(source, trust_remote_code=False, **options)
    except (OSError, ValueError, ImportError, KeyError, SafetensorError) as error:
        if Path(source).is_dir():
            remedy = "save the model, its tokenizer and its image processor into the folder with save_pretrained"
        else:
            shipped = ", ".join(reference_models()) or "none"
            remedy = (
                f"check the path or the id, and the network; without a network (HF_HUB_OFFLINE=1) only the hub's cache is read: "
                f"download the model elsewhere with 'hf download {source} --local-dir FOLDER' and give the folder; models that "
                f"ship with vlm-rewards: {shipped}"
            )
        raise ValueError(
            f"a model must have {what} that can be loaded, got none from {source!r} ({_first_line(error)}); {remedy}"
        ) from error


def _load_model(source: str, **options: Any) -> Any:
    config = _load_part(AutoConfig, source, "a config", **options)
    transformers_logging.disable_progress_bar()  # every worker would draw one
    try:
        model_class = AutoModel._model_mapping[type(config)]
        if not (hasattr(model_class, "get_image_features") and hasattr(model_class, "get_text_features")):
            raise KeyError
        attention = "sdpa" if model_class._supports_sdpa else "eager"
    except KeyError:
        raise ValueError(
            f"a model must be a dual encoder with get_image_features and get_text_features, got {config.model_type!r} from "
            f"{source}; choose one such as CLIP, SigLIP or ALIGN"
        ) from None
    model, info = _load_part(
        AutoModel,
        source,
        "safetensors weights",
        config=config,
        dtype=torch.float32,
        use_safetensors=True,
        attn_implementation=attention,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # so that they are listed below rather than logged
        **options,
    )
    for problem in ("missing_keys", "mismatched_keys"):
        keys = sorted(str(key) for key in info[problem])
        if keys:
            raise ValueError(
                f"the weights of a model must be complete, got {len(keys)} {problem.replace('_', ' ')} in {source}, such as "
                f"{', '.join(keys[:3])}; random weights would label at random: save the whole model again"
            )
    return model.eval().requires_grad_(False)


def _weights_digest(model: Any) -> str:
    """32 hexadecimal digits of all named weights: name, type, shape and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        array = np.ascontiguousarray(tensor.detach().numpy())
        digest.update(f"{name} {array.dtype} {list(array.shape)}\n".encode())
        digest.update(array.data if array.ndim else array.tobytes())
    return digest.hexdigest()[:32]


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
