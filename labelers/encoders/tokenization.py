"""What a checkpoint's tokenizer makes of texts: token ids, and words that it does not know.

Shape letters: M texts, L tokens of a padded text.
"""

import hashlib
import json
import threading
from collections.abc import Sequence
from typing import Any

import torch

from vlm_rewards.labelers.encoders.encoder import TextReading

_LARGEST_ID = 2
"""The eos_token_id of old CLIP configs, by which transformers means the largest id in a text."""

_LOWER_CASE = ("siglip", "siglip2")
"""Model types that were trained on texts in lower case; the tokenizer of SigLIP 2 leaves that to its user."""

_MADE_UP = ("bos_token", "cls_token", "mask_token", "sep_token", "unk_token")
"""Special tokens that transformers' classes add to a vocabulary without them; only a text that spells one out has it."""

_TEXT_LENGTHS = {"align": 64}
"""Tokens to which a processor pads texts where that is less than its model could read (AlignProcessor)."""


_READ_TO_THE_END = ("clip",)
"""Model types whose text tower reads from left to right and takes a text's vector at its end: what is behind it changes nothing."""

_LENGTH_STEP = 8
_MAX_LENGTH_WITHOUT_STEPS = 32  # up to here, padding to one length costs little


class TextTokenizer:
    """A checkpoint's tokenizer; safe to share between threads.

    Args:
        tokenizer: A transformers tokenizer.
        config: Config of the model, which bounds the length of a text.

    Attributes:
        tokenizer: As given.
        max_tokens: Most tokens of a padded text, start and end tokens included.
        has_lengths: Whether a text is padded to the next multiple of 8 tokens rather than to `max_tokens`: that is a fifth of the
            work where goals are short, and the length depends on the text alone.
    """

    def __init__(self, tokenizer: Any, config: Any) -> None:
        self.tokenizer = tokenizer
        self.max_tokens = _max_tokens(config, tokenizer)
        self._num_rows = _num_rows(config)
        self._lower_case = config.model_type in _LOWER_CASE and _reads_case(tokenizer)
        self.has_lengths = (
            config.model_type in _READ_TO_THE_END
            and self.max_tokens > _MAX_LENGTH_WITHOUT_STEPS
            and tokenizer.padding_side == "right"
        )
        self._lock = threading.Lock()  # a fast tokenizer keeps the padding of a call as state

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Returns the length L to which each text is padded."""
        if not self.has_lengths:
            return [self.max_tokens] * len(texts)
        with self._lock:
            ids = self.tokenizer(self._as_trained(texts), verbose=False)["input_ids"]
        return [min(self.max_tokens, -(-len(of_text) // _LENGTH_STEP) * _LENGTH_STEP) for of_text in ids]

    def encode(self, texts: Sequence[str], length: int | None = None) -> dict[str, torch.Tensor]:
        """Returns the text tower's inputs, `[M, L]` int64 by name.

        Args:
            texts: M texts.
            length: L; None for `max_tokens`.
        """
        with self._lock:
            return dict(
                self.tokenizer(
                    self._as_trained(texts),
                    padding="max_length",
                    max_length=self.max_tokens if length is None else length,
                    return_tensors="pt",
                )
            )

    def read(self, texts: Sequence[str]) -> list[TextReading]:
        """Returns what becomes of each text; nothing is refused here."""
        if not texts:
            return []
        with self._lock:
            encoded = self.tokenizer(self._as_trained(texts), verbose=False, return_special_tokens_mask=True)
        special = set(self.tokenizer.all_special_ids)
        readings = []
        for text, ids, added in zip(texts, encoded["input_ids"], encoded["special_tokens_mask"], strict=True):
            # OpenAI's end token is the unknown token too: only where the text itself gave it is it an unknown word.
            is_unknown = any(self._is_unknown(token) and not mark for token, mark in zip(ids, added, strict=True))
            readings.append(
                TextReading(
                    ids=tuple(ids),
                    unknown=self._unknown_words(text) if is_unknown else (),
                    num_words=sum(token not in special for token in ids),
                    num_dropped=max(0, len(ids) - self.max_tokens),
                )
            )
        return readings

    def _as_trained(self, texts: Sequence[str]) -> list[str]:
        return [text.lower() for text in texts] if self._lower_case else list(texts)

    def _unknown_words(self, text: str) -> tuple[str, ...]:
        words = list(dict.fromkeys(text.split()))
        with self._lock:
            pieces = self.tokenizer(self._as_trained(words), add_special_tokens=False, verbose=False)["input_ids"]
        found = tuple(word for word, ids in zip(words, pieces, strict=True) if any(map(self._is_unknown, ids)))
        return found or (text,)  # unknown only together with what stands beside them

    def _is_unknown(self, token: int) -> bool:
        return token == self.tokenizer.unk_token_id or token >= self._num_rows

    def digest(self) -> str:
        """Returns 32 hexadecimal digits of the tokenizer's whole definition, which for a fast tokenizer is one JSON text."""
        tokenizer = self.tokenizer
        definition: list[object] = []
        if (backend := getattr(tokenizer, "backend_tokenizer", None)) is not None:
            with self._lock:
                record = json.loads(backend.to_str())
            record.update(padding=None, truncation=None)  # state of the last call, set anew by every call
            definition.append(record)
        elif (pieces := getattr(tokenizer, "sp_model", None)) is not None:
            settings = {name: str(tokenizer.init_kwargs.get(name)) for name in ("do_lower_case", "sp_model_kwargs")}
            definition += [type(tokenizer).__name__, hashlib.sha256(pieces.serialized_model_proto()).hexdigest()]
            definition += [settings, sorted(tokenizer.get_added_vocab().items())]
        else:
            definition.append(sorted(tokenizer.get_vocab().items()))
        definition += [tokenizer.pad_token_id, tokenizer.padding_side, list(tokenizer.model_input_names)]
        if self._lower_case:
            definition.append("lower case")
        return hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()[:32]


def _reads_case(tokenizer: Any) -> bool:
    upper, lower = tokenizer(["A RED BALL", "a red ball"])["input_ids"]
    return upper != lower


def check_tokenizer(tokenizer: Any, model: Any, source: str) -> None:
    """Refuses a tokenizer that does not belong to a model.

    Args:
        tokenizer: A transformers tokenizer.
        model: The dual encoder.
        source: Name of the checkpoint, for messages.

    Raises:
        ValueError: The tokenizer knows no words, has no pad token, has more tokens than the model, or ends a text otherwise than
            the model expects.
    """
    vocabulary = tokenizer.get_vocab()
    words = vocabulary.keys() - set(tokenizer.all_special_tokens)
    if len(words) < 2:
        raise ValueError(
            f"a tokenizer must know words besides its special tokens, got {len(words)} from {source}, tokenizer.json (or the "
            f"tokenizer's other files) missing; save the tokenizer into the folder with save_pretrained"
        )
    if tokenizer.pad_token_id is None:
        raise ValueError(
            f"a tokenizer must have a pad token, got none in {source}; set pad_token in its tokenizer_config.json"
        )
    num_rows = _num_rows(model.config)
    unused = {getattr(tokenizer, name) for name in _MADE_UP} - {tokenizer.eos_token, tokenizer.pad_token}
    beyond = sorted(token for token, index in vocabulary.items() if index >= num_rows and token not in unused)
    if beyond:
        raise ValueError(
            f"the tokenizer in {source} has tokens beyond the {num_rows} of the model: got {len(beyond)}, such as {beyond[0]!r}. "
            f"They do not belong together: resize the model (resize_token_embeddings), train it, and save both into one folder; or "
            f"copy the tokenizer that it was trained with."
        )
    _check_end_token(tokenizer, model, source)


def _check_end_token(tokenizer: Any, model: Any, source: str) -> None:
    """Refuses an end token that a CLIP's text tower would not find: it takes a text's vector from there."""
    end = getattr(getattr(model, "text_model", None), "eos_token_id", None)
    if end is None:
        return
    length = _max_tokens(model.config, tokenizer)
    ids = tokenizer(["a"], padding="max_length", max_length=length)["input_ids"][0]
    expected = len(tokenizer(["a"])["input_ids"][0]) - 1
    if end == _LARGEST_ID:
        taken, rule = ids.index(max(ids)), "the token with the largest id"
        vocabulary = tokenizer.get_vocab()
        larger = [token for token, index in vocabulary.items() if index > ids[expected]]
        if taken == expected and larger:
            raise ValueError(
                f"the model in {source} takes a text's end for {rule} (eos_token_id {end}), but other tokens have larger ids than "
                f"the end token: got {min(larger, key=vocabulary.__getitem__)!r}. Set eos_token_id to {ids[expected]} in "
                f"text_config of config.json, or use the tokenizer that the model was trained with."
            )
    else:
        taken, rule = (ids.index(end) if end in ids else 0), f"token {end}"
    if taken != expected:
        token = tokenizer.convert_ids_to_tokens(ids[expected])
        raise ValueError(
            f"the model in {source} takes a text's end for {rule} (eos_token_id), but the tokenizer ends a text with "
            f"{token!r}: got token {ids[expected]}. Set eos_token_id to it in text_config of config.json, or use the tokenizer "
            f"that the model was trained with."
        )


def _num_rows(config: Any) -> int:
    return int(config.get_text_config().vocab_size)


def _max_tokens(config: Any, tokenizer: Any) -> int:
    """Returns the most tokens that tokenizer, text tower and processor allow."""
    text_config = config.get_text_config()
    limits = [tokenizer.model_max_length, getattr(text_config, "max_position_embeddings", tokenizer.model_max_length)]
    limits.append(_TEXT_LENGTHS.get(config.model_type, limits[0]))
    return int(min(limits))
