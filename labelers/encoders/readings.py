"""Checks what an encoder's tokenizer makes of texts, before they are embedded."""

from collections.abc import Sequence

from vlm_rewards.labelers.encoders.encoder import TextReading


def check_readings(texts: Sequence[str], readings: Sequence[TextReading]) -> None:
    """Refuses texts that the encoder would not read as they stand.

    Args:
        texts: The texts.
        readings: What `Encoder.read_texts` makes of them.

    Raises:
        ValueError: A text has more tokens than the model reads or no word that the tokenizer knows, or two texts differ in
            unknown words alone.
    """
    seen: dict[tuple[int, ...], str] = {}
    for text, reading in zip(texts, readings, strict=True):
        if reading.num_dropped:
            length = len(reading.ids)
            raise ValueError(
                f"a text must have at most {length - reading.num_dropped} tokens for this model, got {length} tokens in {text!r}; "
                f"shorten the goal or the template"
            )
        if not reading.num_words:
            raise ValueError(
                f"a text must have at least one word that the model's tokenizer knows, got {text!r}; reword it"
            )
        if reading.unknown:
            other = seen.setdefault(reading.ids, text)
            if other.lower().split() != text.lower().split():
                raise ValueError(
                    f"two texts must differ in words that the model's tokenizer knows, got {other!r} and {text!r}, which it "
                    f"reads as one; reword one, or choose another model"
                )
