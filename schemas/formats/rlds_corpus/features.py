"""Reads features.json of a data set: kind, shape and encoding of each feature by its path.

    steps (a Dataset)
      ├─ observation/image     Image [64, 64, 3] uint8, jpeg    ──► "steps/observation/image": one byte string per step
      ├─ action                Tensor [7] float32               ──► "steps/action": 7 floats per step
      └─ language_instruction  Text                             ──► "steps/language_instruction": one byte string per step

Source: features.proto and the feature connectors of TensorFlow Datasets 4.9.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

MIN_PICTURE_SIZE = 8
"""Height and width from which an array [H, W, 3] is taken for a picture; smaller ones are grids of symbols."""
_TEXTS = ("string", "object")
_TENSORS = ("tensor", "classLabel", "boundingBox")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Declared:
    """The declaration of one feature in features.json.

    Args:
        kind: "image", "tensor", "text", or the name of another connector.
        shape: Shape in one step (in one episode outside of steps); None for a size that varies.
        dtype: Dtype of the feature.
        encoding: "none", "bytes" or "zlib" of a tensor; "" otherwise.
        depth: Number of sequences that it is in; 1 for what is in steps alone.
    """

    kind: str
    shape: tuple[int | None, ...] = ()
    dtype: str = "string"
    encoding: str = ""
    depth: int = 0

    def __str__(self) -> str:
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.kind} [{sizes}] {self.dtype}"

    @property
    def is_text(self) -> bool:
        """Whether it is a text."""
        return self.depth <= 1 and (self.kind == "text" or (self.dtype in _TEXTS and not self.shape))

    @property
    def is_spelled(self) -> bool:
        """Whether it may be a text spelled in numbers, a byte each, with zeros after it, as Language Table has."""
        return self.is_integer and len(self.shape) == 1 and None not in self.shape and self.depth == 1

    @property
    def is_number(self) -> bool:
        """Whether its values are numbers."""
        return self.kind == "tensor" and self.dtype not in _TEXTS

    @property
    def is_integer(self) -> bool:
        """Whether its values are whole numbers or truth values."""
        return self.is_number and np.dtype(self.dtype).kind in "iub"

    @property
    def why_no_camera(self) -> str | None:
        """Why this feature of an observation is no camera, where it looks like one; None for a camera, "" for anything else."""
        if self.kind == "video" or (self.kind == "image" and self.depth > 1):
            return "several pictures per step"
        if self.kind != "image" and not (self.is_number and len(self.shape) == 3):
            return ""
        if self.dtype != "uint8":
            return f"{self.dtype} values, as depth has"
        if len(self.shape) != 3 or self.shape[2] != 3:
            return f"{self.shape[2] if len(self.shape) == 3 else 'no'} channels instead of 3"
        if any(size is not None and size < MIN_PICTURE_SIZE for size in self.shape[:2]):
            return f"{self.shape[0]} x {self.shape[1]} cells, a grid of symbols"
        if self.kind == "tensor" and None in self.shape:
            return "an array whose size varies"
        return None if self.depth == 1 else "several arrays per step"


def parse_features(text: bytes) -> dict[str, Declared]:
    """Parses features.json.

    Returns:
        Declarations by path, in the order of the file.

    Raises:
        ValueError: The text is not what TensorFlow Datasets 4 writes.
    """
    try:
        root = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it must be JSON, got {error}. Download it again") from error
    if isinstance(root, dict) and "type" in root and "pythonClassName" not in root:
        raise ValueError(
            "it must be in the form of TensorFlow Datasets 4.4 or later, got an earlier one. Write it with version 4.9"
        )
    found: dict[str, Declared] = {}
    try:
        for path, declared in _declared(root, "", 0):
            found[path] = declared
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"it must be as TensorFlow Datasets writes it, got {type(error).__name__} ({error}). Download it again"
        ) from error
    return found


def _declared(node: Mapping[str, Any], path: str, depth: int) -> Iterator[tuple[str, Declared]]:
    if "featuresDict" in node:
        for name, inner in node["featuresDict"].get("features", {}).items():
            yield from _declared(inner, f"{path}/{name}" if path else name, depth)
    elif "sequence" in node:
        yield from _declared(node["sequence"]["feature"], path, depth + 1)
    elif "image" in node:
        image = node["image"]
        shape = _shape(image)
        yield path, Declared(kind="image", shape=shape, dtype=image.get("dtype", "uint8"), depth=depth)
    elif "text" in node:
        yield path, Declared(kind="text", depth=depth)
    elif any(name in node for name in _TENSORS):
        tensor = next(node[name] for name in _TENSORS if name in node)
        dtype, encoding = tensor.get("dtype", "int64"), tensor.get("encoding", "none")
        yield path, Declared(kind="tensor", shape=_shape(tensor), dtype=dtype, encoding=encoding, depth=depth)
    else:
        yield path, Declared(kind=node["pythonClassName"].rpartition(".")[2].lower(), depth=depth)


def _shape(node: Mapping[str, Any]) -> tuple[int | None, ...]:
    sizes = [int(size) for size in node.get("shape", {}).get("dimensions", [])]
    return tuple(None if size < 0 else size for size in sizes)
