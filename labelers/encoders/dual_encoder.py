"""Dual encoders of transformers: pictures and texts to unit vectors of one space, the same bits whatever stands beside them.

    pixels [N, S, S, 3] uint8 ──► passes of B rows, the last one padded ──► image tower ──► [N, D] unit length
    texts  M strings          ──► passes of 16 rows of L tokens, padded ──► text tower  ──► [M, D] unit length

Every forward pass of a tower has one shape, so that a row's bits depend neither on its neighbours nor on its place nor on N.
That was measured for float32 and bfloat16 with one thread and with two, which gave the same bits; other processors and torch
releases may round otherwise. On a CPU, `torch.set_num_threads(1)` in every process and one process per core is the fastest way.

Shape letters: N pictures, B rows of an image pass, S sides of the model's input in pixels, M texts, L tokens of a padded text,
D size of an embedding.
"""

import dataclasses
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vlm_rewards.labelers.encoders.checkpoints.loading import load_checkpoint
from vlm_rewards.labelers.encoders.devices import check_device, resolve_precision
from vlm_rewards.labelers.encoders.encoder import DEFAULT_BATCH_SIZE, DEFAULT_ENGINE, ENGINES, Resizer, TextReading
from vlm_rewards.labelers.encoders.engines.interface import Towers
from vlm_rewards.labelers.encoders.engines.loading import load_towers
from vlm_rewards.labelers.encoders.preprocessing import Preprocessor
from vlm_rewards.labelers.encoders.readings import check_readings
from vlm_rewards.labelers.encoders.tokenization import TextTokenizer

TEXT_BATCH = 16
"""Texts of a forward pass of the text tower."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DualEncoder:
    """A frozen model with an image tower and a text tower; load it with `DualEncoder.load`.

    Implements `labelers.encoders.encoder.Encoder`.

    Attributes:
        name: The reference model, folder or hub id, as given.
        pinned_name: The same, with the commit of a hub id.
        towers: The two towers, on the device.
        tokenizer: The model's own tokenizer.
        preprocessor: Copy of the model's own image processor.
        precision: "float32" or "bfloat16", of both towers.
        batch_size: Rows of an image batch.
        device: "cpu", "cuda" or "cuda:N".
        attention: Implementation of attention, "sdpa" or "eager".
        weights_digest: Digest of the weights in float32, whatever file format they came from.
        dim: Size of an embedding.
        logit_scale: The model's own factor of a cosine, `exp(logit_scale)` of CLIP and `1 / temperature` of ALIGN; None without
            one. Read in float32, whatever the precision.
        logit_bias: The model's own summand of a logit (SigLIP), or None without one.
        window: Frames of a vector: 1, pictures.
    """

    name: str
    pinned_name: str
    towers: Towers
    tokenizer: TextTokenizer
    preprocessor: Preprocessor
    precision: str
    batch_size: int
    device: str
    attention: str
    weights_digest: str
    dim: int
    logit_scale: float | None
    logit_bias: float | None
    window: int = 1

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        precision: str = "float32",
        batch_size: int = DEFAULT_BATCH_SIZE,
        device: str = "cpu",
        engine: str = DEFAULT_ENGINE,
    ) -> "DualEncoder":
        """Loads a model with its tokenizer and image processor; never runs code from a checkpoint, never guesses weights.

        Args:
            name: A reference model that ships with the package ("reference-s"), a local folder, or a Hugging Face hub id.
            precision: "float32", "bfloat16", or "auto": bfloat16 where the processor computes in it, else float32.
            batch_size: Rows of an image batch. Embeddings of other batch sizes can differ in their last bits.
            device: "cpu", "cuda" or "cuda:N".
            engine: "torch", "compile" or "openvino".

        Raises:
            ValueError: The device is missing, precision or engine are not to be had on it, the engine does not compute what torch
                does, or the checkpoint is not found, incomplete, pickled, or no dual encoder.
        """
        if engine not in ENGINES:
            raise ValueError(
                f"an encoder's engine must be one of {', '.join(ENGINES)}, got {engine!r}; choose one of them"
            )
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}; 64 is a good start")
        check_device(device)
        precision = resolve_precision(precision, device)
        checkpoint = load_checkpoint(name)
        logit_scale, logit_bias = _logit_scale_and_bias(checkpoint.model)
        preprocessor = Preprocessor.from_processor(checkpoint.image_processor)
        loaded = load_towers(
            engine, checkpoint.model, preprocessor, device=device, precision=precision, rows=batch_size
        )
        encoder = cls(
            name=str(name),
            pinned_name=checkpoint.located.pinned_name,
            towers=loaded.towers,
            tokenizer=TextTokenizer(checkpoint.tokenizer, checkpoint.model.config),
            preprocessor=preprocessor,
            precision=precision,
            batch_size=batch_size,
            device=device,
            attention=checkpoint.model.config._attn_implementation,
            weights_digest=checkpoint.weights_digest,
            dim=0,
            logit_scale=logit_scale,
            logit_bias=logit_bias,
        )
        image = encoder._unit_vectors("pictures", [_checked(loaded.features, "pictures")])
        features = loaded.towers.text_features(encoder.tokenizer.encode(["a"]))
        text = encoder._unit_vectors("texts", [_checked(features, "texts")])
        if image.shape[1] != text.shape[1]:
            raise ValueError(
                f"a dual encoder must embed pictures and texts in one space, got sizes {image.shape[1]} and {text.shape[1]} from "
                f"{checkpoint.located.folder}; choose another model"
            )
        return dataclasses.replace(encoder, dim=image.shape[1])

    @property
    def engine(self) -> str:
        """Name of what computes the towers."""
        return self.towers.engine

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the model's input, in pixels."""
        return self.preprocessor.size

    @property
    def max_tokens(self) -> int:
        """Tokens of a padded text, start and end tokens included."""
        return self.tokenizer.max_tokens

    @property
    def temperature(self) -> float | None:
        """The model's own temperature, in units of cosine: the inverse of `logit_scale`; None without one."""
        return None if self.logit_scale is None else 1.0 / self.logit_scale

    def resize(self, frame: np.ndarray) -> np.ndarray:
        """Resizes a frame `[H, W, 3]` uint8 to `[S, S, 3]` uint8, as the model's own image processor does."""
        return self.preprocessor.resize(frame)

    @property
    def resizer(self) -> Resizer:
        """What resizes as `resize` does, without the model; it can be pickled."""
        return self.preprocessor.resize

    def embed_images(self, pixels: np.ndarray) -> np.ndarray:
        """Embeds pictures that have the model's input size.

        Args:
            pixels: `[N, S, S, 3]` uint8 from `resize`; N may be 0.

        Returns:
            `[N, D]` float32, unit length. Row n depends on `pixels[n]` alone, bit for bit.

        Raises:
            ValueError: The pixels have another shape or type, or the model does not give one finite vector per picture.
        """
        if len(pixels) == 0:
            return np.zeros((0, self.dim), dtype=np.float32)
        self.preprocessor.check_pixels(pixels)
        rows, num_rows = [], self.towers.rows
        for start in range(0, len(pixels), num_rows):
            part = pixels[start : start + num_rows]
            padded = part
            if len(part) < num_rows:
                padded = np.zeros((num_rows, *part.shape[1:]), dtype=part.dtype)
                padded[: len(part)] = part
            rows.append(_checked(self.towers.image_features(padded), "pictures")[: len(part)])
        return self._unit_vectors("pictures", rows)

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embeds texts, each padded to a length that follows from its own, or to the model's maximum; see `TextTokenizer`.

        Args:
            texts: M texts; M may be 0.

        Returns:
            `[M, D]` float32, unit length. Row m depends on `texts[m]` alone, bit for bit.

        Raises:
            ValueError: A text has more tokens than the model reads, or no word that the tokenizer knows.
        """
        if not texts:
            return np.zeros((0, self.dim), dtype=np.float32)
        check_readings(texts, self.read_texts(texts))
        return self._embed_texts(texts)

    def _embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        passes = []
        lengths = np.array(self.tokenizer.lengths(texts))
        for length in np.unique(lengths):
            chosen = np.flatnonzero(lengths == length)
            passes += [(chosen[start : start + TEXT_BATCH], int(length)) for start in range(0, len(chosen), TEXT_BATCH)]

        def run(one: tuple[np.ndarray, int]) -> torch.Tensor:
            part = [texts[index] for index in one[0]]
            padded = part + [part[0]] * (TEXT_BATCH - len(part))
            features = self.towers.text_features(self.tokenizer.encode(padded, one[1]))
            return _checked(features, "texts")[: len(part)]

        # Where the model runs on one thread, as in a run that labels, the other cores are free: they take passes of their own.
        alone = self.device == "cpu" and torch.get_num_threads() == 1
        with ThreadPoolExecutor(len(os.sched_getaffinity(0)) if alone else 1) as pool:
            vectors = self._unit_vectors("texts", list(pool.map(run, passes)))
        return vectors[np.argsort(np.concatenate([indices for indices, _ in passes]))]

    def read_texts(self, texts: Sequence[str]) -> list[TextReading]:
        """Returns what the tokenizer makes of each text; nothing is refused here."""
        return self.tokenizer.read(texts)

    def describe_images(self) -> dict[str, object]:
        """Returns what image embeddings depend on, part by part, as JSON."""
        return {
            "weights": self.weights_digest,
            "preprocessing": self.preprocessor.describe(),
            "precision": self.precision,
            "batch_size": self.batch_size,
            "device": self.device.partition(":")[0],
            "attention": self.attention,
            **({"engine": dict(engine)} if (engine := self.towers.describe()) else {}),
        }

    def describe_texts(self) -> dict[str, object]:
        """Returns what text embeddings depend on besides `describe_images`, as JSON."""
        padded = {"padded_to": "multiples of 8 tokens"} if self.tokenizer.has_lengths else {}
        digest = self.tokenizer.digest()
        return {"batch_size": TEXT_BATCH, "max_tokens": self.max_tokens, "tokenizer": digest, **padded}

    def versions(self) -> dict[str, str]:
        """Returns the versions of the libraries that compute the embeddings, by name."""
        own = {name: version(name) for name in ("pillow", "tokenizers", "torch", "transformers")}
        return {**own, **self.towers.versions()}

    def _unit_vectors(self, of: str, batches: Sequence[torch.Tensor]) -> np.ndarray:
        vectors = torch.cat(list(batches)).cpu().double().numpy()
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        usable = np.isfinite(norms) & (norms > 0)
        if not usable.all():
            raise ValueError(
                f"embeddings of {of} must be finite and not zero, got a vector of length {norms.ravel()[np.argmin(usable)]} in "
                f"{self.precision}; try precision float32, or check the weights"
            )
        return (vectors / norms).astype(np.float32)


def _checked(features: Any, of: str) -> torch.Tensor:
    if not isinstance(features, torch.Tensor) or features.ndim != 2:
        shape = list(features.shape) if isinstance(features, torch.Tensor) else type(features).__name__
        raise ValueError(f"a dual encoder must give {of} one vector each, got {shape}; choose another model")
    return features


def _logit_scale_and_bias(model: Any) -> tuple[float | None, float | None]:
    """Returns what the model multiplies a cosine by and adds to it, None where it has no such parameter."""
    scale, temperature, bias = (getattr(model, name, None) for name in ("logit_scale", "temperature", "logit_bias"))
    factor = None
    if isinstance(scale, torch.Tensor):
        factor = float(scale.double().exp())
    elif isinstance(temperature, torch.Tensor):
        factor = 1.0 / float(temperature.double())
    return factor, float(bias.double()) if isinstance(bias, torch.Tensor) else None
