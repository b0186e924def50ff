"""Dual encoders of transformers: pictures and texts to unit vectors of one space, the same bits whatever stands beside them.

    pixels [N, S, S, 3] uint8 ──► batches of B rows, the last one padded ──► normalise ──► image tower ──► [N, D] unit length
    texts  M strings          ──► batches of 16 rows of L tokens, padded ──►              text tower  ──► [M, D] unit length

Every forward pass of a tower has one shape, so that a row's bits depend neither on its neighbours nor on its place nor on N.
That was measured for float32 and bfloat16 with one thread and with two, which gave the same bits; other processors and torch
releases may round otherwise. On a CPU, `torch.set_num_threads(1)` in every process and one process a core is the fastest way.

Shape letters: N pictures, B rows of an image batch, S sides of the model's input in pixels, M texts, L tokens of a padded text,
D size of an embedding.
"""

import contextlib
import dataclasses
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import torch
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from vlm_rewards.labelers.encoders.encoder import DEFAULT_BATCH_SIZE, PRECISIONS
from vlm_rewards.labelers.encoders.exact_float32 import EXACT_FLOAT32
from vlm_rewards.labelers.encoders.preprocessing import Preprocessor

REFERENCE_FOLDER = Path(__file__).parent.parent / "reference_models" / "weights"
TEXT_BATCH = 16
"""Texts of a forward pass of the text tower."""

_TEXT_LENGTHS = {"align": 64}
"""Tokens to which a processor pads texts where that is less than its model could read (AlignProcessor)."""

_LAUNCH_LOCK = threading.Lock()
"""One thread at a time starts a GPU's work: several would hand Python's own lock around at every operation."""

_TOKENIZER_LOCK = threading.Lock()  # a fast tokenizer keeps the padding of a call as state
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_TIMEOUT_S = 5.0
_DEVICE = re.compile(r"cpu|cuda(:\d+)?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DualEncoder:
    """A frozen model with an image tower and a text tower; load it with `DualEncoder.load`.

    Attributes:
        name: The reference model, folder or hub id, as given.
        model: The transformers model, in evaluation mode.
        tokenizer: Its own tokenizer.
        preprocessor: The copy of its own image processor.
        precision: "float32" or "bfloat16", of both towers.
        batch_size: Rows of an image batch.
        device: "cpu", "cuda" or "cuda:N".
        attention: Implementation of attention, "sdpa" or "eager".
        weights_digest: Digest of the weights in float32, whatever file format they came from.
        dim: Size of an embedding.
        max_tokens: Tokens of a padded text, start and end tokens included.
        logit_scale: The model's own factor of a cosine, `exp(logit_scale)` of CLIP and `1 / temperature` of ALIGN; None without
            one. Read in float32, whatever the precision.
        logit_bias: The model's own summand of a logit (SigLIP), or None without one.
    """

    name: str
    model: Any
    tokenizer: Any
    preprocessor: Preprocessor
    precision: str
    batch_size: int
    device: str
    attention: str
    weights_digest: str
    dim: int
    max_tokens: int
    logit_scale: float | None
    logit_bias: float | None

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        precision: str = "auto",
        batch_size: int = DEFAULT_BATCH_SIZE,
        device: str = "cpu",
    ) -> "DualEncoder":
        """Loads a model with its tokenizer and image processor; never runs code from a checkpoint, never guesses weights.

        Args:
            name: A reference model that ships with the package ("reference-s"), a local folder, or a Hugging Face hub id.
            precision: "float32", "bfloat16", or "auto": bfloat16 where the processor computes in it, else float32.
            batch_size: Rows of an image batch. Embeddings of other batch sizes can differ in their last bits.
            device: "cpu", "cuda" or "cuda:N".

        Raises:
            ValueError: The device is missing, the precision is not to be had on it, or the checkpoint is not found,
                incomplete, pickled, or no dual encoder.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}; 64 is a good start")
        check_device(device)
        precision = resolve_precision(precision, device)
        source = resolve_model(name)
        with _quiet_hub():
            local = {"local_files_only": not (Path(source).is_dir() or _hub_answers(source))}
            model = _load_model(source, **local)
            image_processor = _load_part(AutoImageProcessor, source, "an image processor", backend="pil", **local)
            tokenizer = _load_part(AutoTokenizer, source, "a tokenizer", **local)
        digest = _weights_digest(model)
        preprocessor = Preprocessor.from_processor(image_processor)
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
        logit_scale, logit_bias = _logit_scale_and_bias(model)
        model = model.to(device=device, dtype=getattr(torch, precision))
        encoder = cls(
            name=str(name),
            model=model,
            tokenizer=tokenizer,
            preprocessor=preprocessor,
            precision=precision,
            batch_size=batch_size,
            device=device,
            attention=model.config._attn_implementation,
            weights_digest=digest,
            dim=0,
            max_tokens=_max_tokens(model.config, tokenizer),
            logit_scale=logit_scale,
            logit_bias=logit_bias,
        )
        image = encoder.embed_images(np.zeros((1, *preprocessor.size, 3), dtype=np.uint8))
        text = encoder._embed_texts(["a"])
        if image.shape[1] != text.shape[1]:
            raise ValueError(
                f"a dual encoder must embed pictures and texts in one space, got sizes {image.shape[1]} and {text.shape[1]} from "
                f"{source}; choose another model"
            )
        return dataclasses.replace(encoder, dim=image.shape[1])

    @property
    def temperature(self) -> float | None:
        """The model's own temperature, in units of cosine: the inverse of `logit_scale`; None without one."""
        return None if self.logit_scale is None else 1.0 / self.logit_scale

    def embed_images(self, pixels: np.ndarray) -> np.ndarray:
        """Embeds pictures that have the model's input size.

        Args:
            pixels: `[N, S, S, 3]` uint8 from `preprocessor.resize`; N may be 0.

        Returns:
            `[N, D]` float32, unit length. Row n depends on `pixels[n]` alone, bit for bit.

        Raises:
            ValueError: The pixels have another shape or type, or the model gives something other than one finite vector a
                picture.
        """
        if len(pixels) == 0:
            return np.zeros((0, self.dim), dtype=np.float32)
        rows = []
        for start in range(0, len(pixels), self.batch_size):
            part = pixels[start : start + self.batch_size]
            padded = part
            if len(part) < self.batch_size:
                padded = np.zeros((self.batch_size, *part.shape[1:]), dtype=part.dtype)
                padded[: len(part)] = part
            inputs = self.preprocessor.normalize(padded, self.device).to(self.model.dtype)
            rows.append(self._features("get_image_features", {"pixel_values": inputs})[: len(part)])
        return self._unit_vectors("get_image_features", rows)

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embeds texts, each padded to the model's maximum length.

        Args:
            texts: M texts; M may be 0.

        Returns:
            `[M, D]` float32, unit length. Row m depends on `texts[m]` alone, bit for bit.

        Raises:
            ValueError: A text has more tokens than the model reads or no word that the tokenizer knows, or two texts differ in
                unknown words alone.
        """
        if not texts:
            return np.zeros((0, self.dim), dtype=np.float32)
        self._check_texts(texts)
        return self._embed_texts(texts)

    def _check_texts(self, texts: Sequence[str]) -> None:
        special, unknown = set(self.tokenizer.all_special_ids), _unknown_id(self.tokenizer)
        seen: dict[tuple[int, ...], str] = {}
        with _TOKENIZER_LOCK:
            unpadded = self.tokenizer(list(texts), verbose=False)["input_ids"]
        for text, ids in zip(texts, unpadded, strict=True):
            if len(ids) > self.max_tokens:
                raise ValueError(
                    f"a text must have at most {self.max_tokens} tokens for this model, got {len(ids)} tokens in {text!r}; "
                    f"shorten the goal or the template"
                )
            if special.issuperset(ids):
                raise ValueError(
                    f"a text must have at least one word that the model's tokenizer knows, got {text!r}; reword it"
                )
            if unknown in ids:
                other = seen.setdefault(tuple(ids), text)
                if other.lower().split() != text.lower().split():
                    raise ValueError(
                        f"two texts must differ in words that the model's tokenizer knows, got {other!r} and {text!r}, which it "
                        f"reads as one; reword one, or choose another model"
                    )

    def _embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        rows = []
        for start in range(0, len(texts), TEXT_BATCH):
            part = list(texts[start : start + TEXT_BATCH])
            padded = part + [part[0]] * (TEXT_BATCH - len(part))
            with _TOKENIZER_LOCK:
                inputs = self.tokenizer(padded, padding="max_length", max_length=self.max_tokens, return_tensors="pt")
            inputs = {key: value.to(self.device) for key, value in inputs.items()}
            rows.append(self._features("get_text_features", inputs)[: len(part)])
        return self._unit_vectors("get_text_features", rows)

    def describe_images(self) -> dict[str, object]:
        """What image embeddings depend on, part by part, as JSON."""
        return {
            "weights": self.weights_digest,
            "preprocessing": self.preprocessor.describe(),
            "precision": self.precision,
            "batch_size": self.batch_size,
            "device": self.device.partition(":")[0],
            "attention": self.attention,
        }

    def describe_texts(self) -> dict[str, object]:
        """What text embeddings depend on besides `describe_images`, as JSON."""
        return {"batch_size": TEXT_BATCH, "max_tokens": self.max_tokens, "tokenizer": _tokenizer_digest(self.tokenizer)}

    def _features(self, method: str, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """What a tower gives for a batch, still on the device: a GPU begins the next batch while this one is on its way."""
        with torch.inference_mode(), EXACT_FLOAT32, _LAUNCH_LOCK if self.device != "cpu" else contextlib.nullcontext():
            features = getattr(self.model, method)(**inputs)
            features = getattr(features, "pooler_output", features)  # transformers 5 wraps the vector in an object
        if not isinstance(features, torch.Tensor) or features.ndim != 2:
            shape = list(features.shape) if isinstance(features, torch.Tensor) else type(features).__name__
            raise ValueError(
                f"{method} of a dual encoder must give one vector a row, got {shape}; choose another model"
            )
        return features

    def _unit_vectors(self, method: str, batches: Sequence[torch.Tensor]) -> np.ndarray:
        vectors = torch.cat(list(batches)).cpu().double().numpy()
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        usable = np.isfinite(norms) & (norms > 0)
        if not usable.all():
            raise ValueError(
                f"embeddings must be finite and not zero, got a vector of length {norms.ravel()[np.argmin(usable)]} from "
                f"{method} in {self.precision}; try precision float32, or check the weights"
            )
        return (vectors / norms).astype(np.float32)


def check_device(device: str) -> None:
    """Checks that a device exists; a GPU that is missing is never replaced by the CPU.

    Raises:
        ValueError: The device is not named "cpu", "cuda" or "cuda:N", or this machine does not have it.
    """
    if not _DEVICE.fullmatch(device):
        raise ValueError(f"device must be cpu, cuda or cuda:N, got {device!r}; choose one of them")
    if device == "cpu":
        return
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(device.partition(":")[2] or 0) >= count:
        raise ValueError(
            f"device must be one that this machine has, got {device!r} with {count} CUDA devices; choose cpu, or install a "
            f"CUDA build of torch and its driver"
        )


def resolve_precision(precision: str, device: str) -> str:
    """The precision that "auto" stands for on this device; others are checked.

    bfloat16 runs 1.4 to 4 times as fast as float32 where the processor computes in it, for towers of 0.09 M to 88 M
    parameters alike; where the processor does not, it is far slower. Its embeddings have cosines of 0.9999 to those of float32
    on average. At a temperature of 0.01 that moved 2 % of a reference model's labels across the threshold, as many up as down:
    precision and recall stayed the same.

    Raises:
        ValueError: An unknown precision, or bfloat16 on a device without it.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}; choose one of them")
    if precision == "float32":
        return precision
    if device == "cpu":
        has_bfloat16 = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    else:
        has_bfloat16 = torch.cuda.get_device_capability(device) >= (8, 0)
    if precision == "bfloat16" and not has_bfloat16:
        raise ValueError(
            f"precision bfloat16 must be computed by the device, got {device} without it; choose float32 or auto"
        )
    return "bfloat16" if has_bfloat16 else "float32"


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


@contextlib.contextmanager
def _quiet_hub() -> Iterator[None]:
    """Holds back the hub's warnings, such as one line a retry: what fails is raised, with its remedy."""
    verbosity = huggingface_hub.logging.get_verbosity()
    huggingface_hub.logging.set_verbosity_error()
    try:
        yield
    finally:
        huggingface_hub.logging.set_verbosity(verbosity)


def _hub_answers(hub_id: str) -> bool:
    """Whether the hub answers, be it that it has no such model. Loading itself would ask for half a minute before it gives up."""
    try:
        huggingface_hub.HfApi().model_info(hub_id, timeout=_HUB_TIMEOUT_S)
    except HfHubHTTPError as error:
        return error.response.status_code < 500
    except Exception:  # no network, HF_HUB_OFFLINE, a timeout: the HTTP library's own errors, whichever it is
        return False
    return True


def _unknown_id(tokenizer: Any) -> int | None:
    """The token of unknown words alone; None where there is none, or, as in CLIP's, another token also stands for them."""
    others = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    return None if tokenizer.unk_token_id in others else tokenizer.unk_token_id


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


def _logit_scale_and_bias(model: Any) -> tuple[float | None, float | None]:
    """What the model multiplies a cosine by and adds to it, None where it has no such parameter."""
    scale, temperature, bias = (getattr(model, name, None) for name in ("logit_scale", "temperature", "logit_bias"))
    factor = None
    if isinstance(scale, torch.Tensor):
        factor = float(scale.double().exp())
    elif isinstance(temperature, torch.Tensor):
        factor = 1.0 / float(temperature.double())
    return factor, float(bias.double()) if isinstance(bias, torch.Tensor) else None


def _max_tokens(config: Any, tokenizer: Any) -> int:
    """The most tokens that tokenizer, text tower and processor allow."""
    text_config = config.get_text_config()
    limits = [tokenizer.model_max_length, getattr(text_config, "max_position_embeddings", tokenizer.model_max_length)]
    limits.append(_TEXT_LENGTHS.get(config.model_type, limits[0]))
    return int(min(limits))


def _weights_digest(model: Any) -> str:
    """32 hexadecimal digits of all named weights: name, type, shape and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        array = np.ascontiguousarray(tensor.detach().numpy())
        digest.update(f"{name} {array.dtype} {list(array.shape)}\n".encode())
        digest.update(array.data if array.ndim else array.tobytes())
    return digest.hexdigest()[:32]


def _tokenizer_digest(tokenizer: Any) -> str:
    """32 hexadecimal digits of the tokenizer's whole definition, which for a fast tokenizer is one JSON text."""
    if (backend := getattr(tokenizer, "backend_tokenizer", None)) is not None:
        definition = json.loads(backend.to_str())
        definition.update(padding=None, truncation=None)  # state of the last call, set anew by every call
    else:
        definition = sorted(tokenizer.get_vocab().items())
    definition = [definition, tokenizer.pad_token_id, tokenizer.padding_side, list(tokenizer.model_input_names)]
    return hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()[:32]


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
