"""Checks what an encoder makes of texts: that it reads each of them as it stands, and no two of them as one.

Shape letters: C candidates, D size of an embedding.
"""

from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from vlm_rewards.labelers.encoders.encoder import TextReading

_DECIMALS = 6
"""Digits by which two unit vectors are compared: closer ones have a cosine of 1 in float32."""


def check_readings(texts: Sequence[str], readings: Sequence[TextReading]) -> None:
    """Refuses texts that the encoder would not read as they stand.

    Args:
        texts: Texts to check.
        readings: Readings of the texts by `Encoder.read_texts`.

    Raises:
        ValueError: A text has more tokens than the model reads, or a word that its tokenizer does not know, or no word.
    """
    for text, reading in zip(texts, readings, strict=True):
        if reading.num_dropped:
            length = len(reading.ids)
            raise ValueError(
                f"a text must have at most {length - reading.num_dropped} tokens for this model, got {length} tokens in {text!r}; "
                f"shorten the goal or the template"
            )
        if not reading.num_words and not reading.unknown:
            raise ValueError(f"a text has no word for the model's tokenizer: got {text!r}. Reword it.")
        if reading.unknown:
            words = ", ".join(map(repr, reading.unknown))
            raise ValueError(
                f"the model's tokenizer does not know {words}: got {text!r}, which it reads without it. Reword it, or choose "
                f"a model that knows its words."
            )


def check_prompts_differ(name: str, prompts: Sequence[str], readings: Sequence[TextReading]) -> None:
    """Refuses two prompts of one goal that the model reads as one: the text would count twice in their mean.

    Args:
        name: The goal, for messages.
        prompts: Prompts of the goal.
        readings: Readings of the prompts by `Encoder.read_texts`.

    Raises:
        ValueError: Two prompts have equal token ids.
    """
    seen: dict[Hashable, str] = {}
    for prompt, reading in zip(prompts, readings, strict=True):
        other = seen.setdefault(reading.ids, prompt)
        if other is not prompt:
            raise ValueError(
                f"two prompts of {name} are one text for the model: got {other!r} and {prompt!r}. Remove one of the two, or of the "
                f"templates that give them."
            )


def check_texts_differ(names: Sequence[str], readings: Sequence[Iterable[TextReading]]) -> None:
    """Refuses candidates that the model reads as one, such as "a red ball" and "A red ball " for most tokenizers.

    They would stand in each other's softmax with one and the same vector, and neither could get more than half of it.

    Args:
        names: Each candidate, for messages: its id and text.
        readings: Readings of each candidate's prompts by `Encoder.read_texts`.

    Raises:
        ValueError: Two have the same token ids, in any order of their prompts.
    """
    keys = [tuple(sorted(reading.ids for reading in prompts)) for prompts in readings]
    _check_keys_differ(names, keys, "are one text for the model, whose tokenizer gives both the same tokens")


def check_vectors_differ(names: Sequence[str], vectors: np.ndarray) -> None:
    """Refuses candidates that have one vector although their texts or pictures differ.

    Args:
        names: Each candidate, for messages: its id and text.
        vectors: `[C, D]` of unit length.

    Raises:
        ValueError: Two are equal to six digits.
    """
    keys = [row.tobytes() for row in np.round(vectors, _DECIMALS) + 0.0]  # -0.0 becomes 0.0
    _check_keys_differ(names, keys, "have one vector, although their texts or pictures differ")


def _check_keys_differ(names: Sequence[str], keys: Sequence[Hashable], what: str) -> None:
    first: dict[Hashable, str] = {}
    same = [
        (other, name) for name, key in zip(names, keys, strict=True) if (other := first.setdefault(key, name)) != name
    ]
    if same:
        more = f", and {len(same) - 1} more" if len(same) > 1 else ""
        raise ValueError(
            f"two of the goals and negatives {what}: got {same[0][0]} and {same[0][1]}{more}. Remove or reword one: in "
            f"one softmax, neither could get more than half."
        )
