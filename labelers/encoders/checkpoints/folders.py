"""Looks at a checkpoint's folder before anything is loaded from it: what is missing, in the way, or not what it seems.

A folder that transformers would load with something passed over (an adapter, code of its own) or would refuse in words that help
nobody (Git LFS pointers) is refused here, by name and with what to do.
"""

import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vlm_rewards.schemas.files.pointers import pointer_kind

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
_ADAPTER_KEYS = ("lora_", ".base_layer.", "ia3_l", "hada_w")
_MAX_HEADER_BYTES = 100 << 20
_CONFIGS = ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json")


def is_adapter(folder: Path) -> bool:
    """Returns whether a folder holds an adapter of another model, in the format of `peft`."""
    return (folder / ADAPTER_CONFIG).is_file()


def check_model_folder(folder: Path) -> None:
    """Refuses a folder whose model would not load, or not as it stands.

    Args:
        folder: A folder with config.json, weights, tokenizer and image processor.

    Raises:
        ValueError: A file is missing, a pointer or a dangling link; the weights are pickled, incomplete, quantized, or have an
            adapter beside them; the model has code of its own, or is one of open_clip or timm.
    """
    check_files_are_whole(folder)
    _check_config(folder)
    _check_adapters(folder)
    _check_weights(folder)


def check_files_are_whole(folder: Path) -> None:
    """Refuses a folder with dangling links, or with pointers to files in place of the files.

    Raises:
        ValueError: There is one; the message names it.
    """
    for path in sorted(folder.iterdir()):
        if path.is_symlink() and not path.exists():
            raise ValueError(
                f"{path.name} in {folder} is a link to a file that does not exist: got {path.readlink()}. Download the model "
                f"again, with 'hf download OWNER/NAME --local-dir FOLDER'."
            )
        kind = pointer_kind(path) if path.is_file() else None
        if kind:
            raise ValueError(
                f"{path.name} in {folder} is a {kind} pointer, not the file itself: got {path.stat().st_size} bytes of text. Run "
                f"'git lfs pull' in the folder, or download the model with 'hf download OWNER/NAME --local-dir FOLDER'."
            )


def read_config(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        ValueError: The file is not JSON, or no object.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: got {error}. Download or save the model again.") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path} is not a JSON object: got {type(record).__name__}. Download or save the model again.")
    return record


def _check_config(folder: Path) -> None:
    foreign = _foreign_library(folder)
    if foreign:
        raise ValueError(
            f"{folder} is a checkpoint of {foreign}, which vlm-rewards does not load. Use the same model in the format of "
            f"transformers (many are on the hub in both), or register an encoder for it: see docs/extending."
        )
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"a model folder must hold config.json, got {folder} without it; give the folder of a saved model"
        )
    for name in _CONFIGS:
        config = read_config(folder / name) if (folder / name).is_file() else {}
        if config.get("auto_map"):
            raise ValueError(
                f"{folder} asks for code of its own: got {_first_module(config['auto_map'])!r} in auto_map of {name}. "
                f"vlm-rewards never runs code from a checkpoint: choose a model that transformers knows, or register an encoder "
                f"for it."
            )
    config = read_config(folder / "config.json")
    if config.get("quantization_config"):
        method = dict(config["quantization_config"]).get("quant_method", "an unknown method")
        raise ValueError(
            f"the weights in {folder} are quantized: got {method!r} in config.json. Use the original weights: rounded ones score "
            f"otherwise on every machine."
        )


def _foreign_library(folder: Path) -> str | None:
    """Returns the library whose checkpoint a folder without transformers' config is, or None."""
    path = folder / "config.json"
    config = read_config(path) if path.is_file() else {}
    if "model_type" in config:
        return None
    if (folder / "open_clip_config.json").is_file() or any(folder.glob("open_clip_*")) or "model_cfg" in config:
        return "open_clip"
    if "architecture" in config and ("pretrained_cfg" in config or "num_features" in config):
        return "timm (an image tower alone, which reads no goals)"
    return None


def _first_module(auto_map: object) -> object:
    while isinstance(auto_map, Mapping | list | tuple) and auto_map:
        auto_map = next(iter(auto_map.values() if isinstance(auto_map, Mapping) else auto_map))
    return auto_map


def _check_adapters(folder: Path) -> None:
    """Refuses what transformers would pass over: an adapter beside the weights of a whole model."""
    named = [folder / ADAPTER_CONFIG, *sorted(folder.glob("adapter_model.*"))]
    named += [path for path in sorted(folder.iterdir()) if "lora" in path.name.lower() and path.suffix in _PICKLED]
    found = next((path.name for path in named if path.is_file()), None)
    if found is None:
        loaded = set(weight_files(folder))
        for path in sorted(folder.glob("*.safetensors")):
            key = adapter_key(safetensors_keys(path)) if path not in loaded else None
            if key:
                found = f"{path.name} with {key!r}"
                break
    if found:
        raise ValueError(
            f"{folder} holds a whole model and an adapter beside it, and does not say whether the adapter is in the weights: got "
            f"{found}. Move the adapter to a folder of its own and give that folder, or remove it if it is merged."
        )


def _check_weights(folder: Path) -> None:
    files = weight_files(folder)
    if not files:
        others = sorted(
            path.name for path in folder.iterdir() if path.suffix in (*_PICKLED, ".safetensors", ".h5", ".msgpack")
        )
        raise ValueError(missing_weights(str(folder), others))
    for path in files:
        if not path.is_file():
            raise ValueError(
                f"{path.name} is missing in {folder}, although {INDEX} names it. Download or copy the model again, in full."
            )
        key = adapter_key(safetensors_keys(path))
        if key:
            raise ValueError(
                f"the weights in {folder} hold an adapter that is not merged: got {key!r} in {path.name}. Merge it where the model "
                f"was trained (peft: merge_and_unload) and save the whole model, or save the adapter alone with its "
                f"{ADAPTER_CONFIG}."
            )


def weight_files(folder: Path) -> list[Path]:
    """Returns the safetensors files that transformers loads from a folder; empty where it has none."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        return []
    names = read_config(folder / INDEX).get("weight_map", {})
    return [folder / name for name in sorted(set(dict(names).values()))]


def missing_weights(source: str, others: Iterable[str]) -> str:
    """Returns the message of a checkpoint without safetensors weights, with a remedy for what it has in their place.

    Args:
        source: Its folder or hub id.
        others: Names of its other weight files.
    """
    found = list(others)
    pickled = [name for name in found if name.endswith(_PICKLED)]
    if "pytorch_model.bin" in pickled or any(name.startswith("pytorch_model-") for name in pickled):
        return (
            f"the weights of {source} are pickled: got {pickled[0]}, which can hold code, and no {WEIGHTS}. Save them as "
            f"safetensors once, into a folder, and give that folder:\n  {conversion_command(source)}"
        )
    name = found[0] if found else "none"
    return (
        f"{source} has no weights in safetensors format under the name {WEIGHTS}: got {name}. Load the model where you trust it "
        f"and save it with save_pretrained, or download its safetensors file."
    )


def conversion_command(source: str) -> str:
    """Returns a command that saves a checkpoint with pickled weights as safetensors, with its tokenizer and image processor.

    transformers reads such weights with weights_only, so that nothing but tensors is unpickled.
    """
    output = f"{source.rstrip('/').rpartition('/')[2]}-safetensors"
    code = (
        "import sys; from transformers import AutoModel, AutoProcessor; a, b = sys.argv[1:]; "
        "[part.from_pretrained(a).save_pretrained(b) for part in (AutoModel, AutoProcessor)]"
    )
    return f'python -c "{code}" {source} {output}'


def safetensors_keys(path: Path) -> Iterator[str]:
    """Yields the names of the tensors in a safetensors file, from its header alone; none where it is no such file."""
    with path.open("rb") as file:
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 0 < length <= _MAX_HEADER_BYTES:
            return
        try:
            header = json.loads(file.read(length))
        except ValueError:
            return  # cut or damaged: loading it says so
    yield from (key for key in header if key != "__metadata__")


def adapter_key(keys: Iterable[str]) -> str | None:
    """Returns the first key that belongs to an adapter's weights (loralib, peft), or None."""
    return next((key for key in keys if any(mark in key for mark in _ADAPTER_KEYS)), None)
