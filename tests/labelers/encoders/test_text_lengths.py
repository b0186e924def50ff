"""Texts padded to a length that follows from their own: the vector of the full length, and bits that depend on the text alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import save_tiny_clip, save_tiny_siglip

from vlm_rewards.labelers.encoders.dual_encoder import DualEncoder

TEXTS = ["a red ball", "ball " * 40, "a key", "a " * 6, "a " * 7, "the agent carries a blue key in a room"]
TEXTS += ["key " * number for number in range(1, 40)]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> DualEncoder:
    return DualEncoder.load(save_tiny_clip(tmp_path_factory.mktemp("model") / "clip", length=77))


def test_lengths_are_multiples_of_eight(encoder: DualEncoder) -> None:
    # Start and end are tokens, too: 6 words are 8, and 7 are 9.
    assert encoder.tokenizer.lengths(["a red ball", "a " * 6, "a " * 7, "a " * 75]) == [8, 8, 16, 77]
    assert encoder.describe_texts()["padded_to"] == "multiples of 8 tokens"


def test_vectors_are_those_of_the_full_length(encoder: DualEncoder) -> None:
    full = encoder.towers.text_features(encoder.tokenizer.encode(TEXTS)).double().numpy()
    full /= np.linalg.norm(full, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.embed_texts(TEXTS), full, atol=1e-6)


@pytest.mark.parametrize("num_threads", [1, 2])
def test_bits_depend_on_the_text_alone(encoder: DualEncoder, num_threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        rows = encoder.embed_texts(TEXTS)
        order = np.random.default_rng(0).permutation(len(TEXTS))
        shuffled = encoder.embed_texts([TEXTS[index] for index in order])
        alone = np.concatenate([encoder.embed_texts([text]) for text in TEXTS])
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(shuffled, rows[order])
    assert np.array_equal(alone, rows)


def test_towers_that_read_padding_and_short_ones_have_one_length(tmp_path: Path) -> None:
    for model, length in ((save_tiny_siglip(tmp_path / "siglip"), 16), (save_tiny_clip(tmp_path / "clip"), 16)):
        encoder = DualEncoder.load(model)
        assert encoder.tokenizer.lengths(["a", "a red ball " * 3]) == [length, length]
        assert "padded_to" not in encoder.describe_texts()
