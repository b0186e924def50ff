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

_TEXT_LENGTHS = {"align": 64}
"""Tokens to which a processor pads texts where that is less than its model could read (AlignProcessor)."""


class TextTokenizer:
    """A checkpoint's tokenizer, padded to one length; safe to share between threads.

    Args:
        tokenizer: A transformers tokenizer.
        config: Config of the model, which bounds the length of a text.

    Attributes:
        tokenizer: As given.
        max_tokens: L, tokens of a padded text, start and end tokens included.
    """

    def __init__(self, tokenizer: Any, config: Any) -> None:
        self.tokenizer = tokenizer
        self.max_tokens = _max_tokens(config, tokenizer)
        self._lock = threading.Lock()  # a fast tokenizer keeps the padding of a call as state

    def encode(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Returns the text tower's inputs, `[M, L]` int64 by name."""
        with self._lock:
            return dict(
                self.tokenizer(list(texts), padding="max_length", max_length=self.max_tokens, return_tensors="pt")
            )

    def read(self, texts: Sequence[str]) -> list[TextReading]:
        """Returns what becomes of each text; nothing is refused here."""
        if not texts:
            return []
        with self._lock:
            encoded = self.tokenizer(list(texts), verbose=False, return_special_tokens_mask=True)
        special, unknown_id = set(self.tokenizer.all_special_ids), self.tokenizer.unk_token_id
        readings = []
        for text, ids, added in zip(texts, encoded["input_ids"], encoded["special_tokens_mask"], strict=True):
            # OpenAI's end token is the unknown token too: only where the text itself gave it is it an unknown word.
            is_unknown = any(token == unknown_id and not mark for token, mark in zip(ids, added, strict=True))
            readings.append(
                TextReading(
                    ids=tuple(ids),
                    unknown=self._unknown_words(text) if is_unknown else (),
                    num_words=sum(token not in special for token in ids),
                    num_dropped=max(0, len(ids) - self.max_tokens),
                )
            )
        return readings

    def _unknown_words(self, text: str) -> tuple[str, ...]:
        words = list(dict.fromkeys(text.split()))
        with self._lock:
            pieces = self.tokenizer(words, add_special_tokens=False, verbose=False)["input_ids"] if words else []
        unknown_id = self.tokenizer.unk_token_id
        found = tuple(word for word, ids in zip(words, pieces, strict=True) if unknown_id in ids)
        return found or (text,)  # unknown only together with what stands beside them

    def digest(self) -> str:
        """Returns 32 hexadecimal digits of the tokenizer's whole definition, which for a fast tokenizer is one JSON text."""
        tokenizer = self.tokenizer
        if (backend := getattr(tokenizer, "backend_tokenizer", None)) is not None:
            with self._lock:
                definition = json.loads(backend.to_str())
            definition.update(padding=None, truncation=None)  # state of the last call, set anew by every call
        else:
            definition = sorted(tokenizer.get_vocab().items())
        definition = [definition, tokenizer.pad_token_id, tokenizer.padding_side, list(tokenizer.model_input_names)]
        return hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()[:32]


def _max_tokens(config: Any, tokenizer: Any) -> int:
    """Returns the most tokens that tokenizer, text tower and processor allow."""
    text_config = config.get_text_config()
    limits = [tokenizer.model_max_length, getattr(text_config, "max_position_embeddings", tokenizer.model_max_length)]
    limits.append(_TEXT_LENGTHS.get(config.model_type, limits[0]))
    return int(min(limits))
