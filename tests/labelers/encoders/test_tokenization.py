import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_models import build_tokenizer, save_siglip_of_the_hub
from tokenizers.models import WordLevel
from transformers import AutoConfig, AutoTokenizer

from vlm_rewards.labelers.encoders.encoder import TextReading
from vlm_rewards.labelers.encoders.tokenization import TextTokenizer


@pytest.fixture
def tokenizer() -> TextTokenizer:
    text_config = SimpleNamespace(max_position_embeddings=16, vocab_size=len(build_tokenizer(16)))
    config = SimpleNamespace(model_type="clip", get_text_config=lambda: text_config)
    return TextTokenizer(build_tokenizer(16), config)


def test_a_reading_tells_ids_unknown_words_and_dropped_tokens(tokenizer: TextTokenizer) -> None:
    vocabulary = tokenizer.tokenizer.get_vocab()
    start, red, ball, end, unknown = (vocabulary[token] for token in ("<start>", "red", "ball", "<end>", "<unk>"))
    known, other, long, nothing = tokenizer.read(["Red  ball", "red zebra ball lion zebra", "ball " * 20, " "])
    assert known == TextReading((start, red, ball, end), (), 2, 0)
    assert other == TextReading((start, red, unknown, ball, unknown, unknown, end), ("zebra", "lion"), 2, 0)
    assert (long.num_words, long.num_dropped) == (20, 6)  # 22 tokens, 16 read
    assert nothing == TextReading((start, end), (), 0, 0)
    assert tokenizer.read([]) == []


def test_an_end_token_that_stands_for_unknown_words_too(tokenizer: TextTokenizer) -> None:
    # As in OpenAI's CLIP: every text has an end token, which is an unknown word only where the text itself gave it.
    model = WordLevel(tokenizer.tokenizer.get_vocab(), unk_token="<end>")
    tokenizer.tokenizer.backend_tokenizer.model = model
    tokenizer.tokenizer.unk_token = "<end>"
    known, unknown = tokenizer.read(["a red ball", "a red zebra"])
    assert known.unknown == ()
    assert unknown.unknown == ("zebra",)


def test_the_digest_depends_on_the_definition_and_not_on_the_last_call(tokenizer: TextTokenizer) -> None:
    before = tokenizer.digest()
    tokenizer.encode(["a red ball"])
    tokenizer.read(["a red ball"])
    assert tokenizer.digest() == before
    tokenizer.tokenizer.add_tokens(["zebra"])
    assert tokenizer.digest() != before


def test_the_digest_of_sentencepiece_depends_on_its_pieces_and_settings_and_not_on_its_place(tmp_path: Path) -> None:
    folder = save_siglip_of_the_hub(tmp_path / "one")
    other = shutil.copytree(folder, tmp_path / "other")
    config = AutoConfig.from_pretrained(folder)
    digests = [TextTokenizer(AutoTokenizer.from_pretrained(path), config).digest() for path in (folder, other)]
    settings = json.loads((other / "tokenizer_config.json").read_text())
    (other / "tokenizer_config.json").write_text(json.dumps({**settings, "do_lower_case": False}))
    digests.append(TextTokenizer(AutoTokenizer.from_pretrained(other), config).digest())
    pieces = (other / "spiece.model").read_bytes()
    assert pieces.count("▁red".encode()) == 1
    (other / "spiece.model").write_bytes(pieces.replace("▁red".encode(), "▁der".encode()))
    digests.append(TextTokenizer(AutoTokenizer.from_pretrained(other), config).digest())
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
