import dataclasses
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import save_siglip2_of_the_hub, save_siglip_of_the_hub
from transformers import (
    AlignModel,
    AutoProcessor,
    AutoTokenizer,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    SiglipModel,
)

from vlm_rewards.labelers.encoders.dual_encoder import DualEncoder, _logit_scale_and_bias
from vlm_rewards.labelers.encoders.exact_float32 import EXACT_FLOAT32
from vlm_rewards.schemas.pictures import to_rgb

HAS_BFLOAT16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
PRECISIONS = ["float32", pytest.param("bfloat16", marks=pytest.mark.skipif(not HAS_BFLOAT16, reason="no bfloat16"))]
FAMILIES = ("tiny_clip", "tiny_siglip", "tiny_align")
TEXTS = ["a red ball", "the agent is in front of a blue box", "the agent carries nothing", "a"]


def pictures() -> list[Image.Image]:
    """Pictures of many sizes, and of all modes with 8 bits; the library clips those with more, which are refused here."""
    random = np.random.default_rng(0)
    found = []
    for height, width in ((32, 32), (200, 90), (1, 50), (70, 3), (33, 31), (400, 300)):
        rgba = Image.fromarray(random.integers(0, 256, (height, width, 4), dtype=np.uint8), mode="RGBA")
        rgb = rgba.convert("RGB")
        found += [
            rgb,
            rgba,
            rgb.convert("L"),
            rgb.convert("P"),
            rgb.convert("CMYK"),
            rgb.convert("1"),
            rgba.convert("LA"),
        ]
    return found


def unit(vectors: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(vectors, dim=-1).detach().numpy()


def test_clip_embeddings_equal_those_of_the_library(tiny_clip: Path) -> None:
    encoder = DualEncoder.load(tiny_clip, precision="float32", batch_size=8)
    model, processor = (
        CLIPModel.from_pretrained(tiny_clip).eval(),
        CLIPProcessor.from_pretrained(tiny_clip, backend="pil"),
    )
    images = encoder.embed_images(np.stack([encoder.resize(to_rgb(picture)) for picture in pictures()]))
    texts = encoder.embed_texts(TEXTS)
    with torch.no_grad():
        # Padding as the processor does it, to the longest text, and one picture at a time.
        for row, picture in zip(images, pictures(), strict=True):
            output = model(**processor(text=TEXTS, images=picture, padding=True, return_tensors="pt"))
            np.testing.assert_allclose(row, unit(output.image_embeds)[0], atol=1e-5)
            np.testing.assert_allclose(row @ texts.T * encoder.logit_scale, output.logits_per_image[0], atol=1e-4)
            np.testing.assert_allclose(texts, unit(output.text_embeds), atol=1e-5)
    assert encoder.temperature == pytest.approx(float(torch.exp(-model.logit_scale.detach())), rel=1e-6)
    assert encoder.logit_bias is None


@pytest.mark.parametrize(("family", "model_class"), [("tiny_siglip", SiglipModel), ("tiny_align", AlignModel)])
def test_other_families_equal_the_library(family: str, model_class: Any, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(family)
    encoder = DualEncoder.load(folder, precision="float32", batch_size=8)
    model, processor = model_class.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder, backend="pil")
    originals = [picture.convert("RGB") for picture in pictures()]
    images = encoder.embed_images(np.stack([encoder.resize(to_rgb(picture)) for picture in originals]))
    texts = encoder.embed_texts(TEXTS)
    with torch.no_grad():
        output = model(**processor(text=TEXTS, images=originals, padding="max_length", return_tensors="pt"))
    np.testing.assert_allclose(images, unit(output.image_embeds), atol=1e-5)
    np.testing.assert_allclose(texts, unit(output.text_embeds), atol=1e-5)
    logits = images @ texts.T * encoder.logit_scale + (encoder.logit_bias or 0.0)
    np.testing.assert_allclose(logits, output.logits_per_image, atol=1e-4)


@pytest.mark.parametrize("save", [save_siglip_of_the_hub, save_siglip2_of_the_hub])
def test_siglip_as_it_lies_on_the_hub_equals_the_library(save: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = save(tmp_path / "siglip")
    assert not (folder / "tokenizer.json").is_file()
    encoder = DualEncoder.load(folder, precision="float32")
    model, tokenizer = SiglipModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        tokens = tokenizer([text.lower() for text in TEXTS], padding="max_length", max_length=16, return_tensors="pt")
        expected = unit(model.get_text_features(**tokens).pooler_output)
    np.testing.assert_allclose(encoder.embed_texts(TEXTS), expected, atol=1e-5)
    # It was trained on texts in lower case, whether its tokenizer sees to that or not.
    shouted = [text.upper() for text in TEXTS]
    assert np.array_equal(encoder.embed_texts(shouted), encoder.embed_texts(TEXTS))
    assert encoder.read_texts(shouted) == encoder.read_texts(TEXTS)


def test_openai_tokens_and_their_old_end_token_equal_the_library(tiny_clip: Path, tmp_path: Path) -> None:
    # OpenAI's checkpoints pad with the end token, and their configs call it 2, by which CLIPTextModel means the largest id.
    shutil.copytree(tiny_clip, tmp_path / "clip")
    letters = [*"abcdefghijklmnopqrstuvwxyz", *(f"{letter}</w>" for letter in "abcdefghijklmnopqrstuvwxyz")]
    vocabulary = {token: index for index, token in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=16).save_pretrained(tmp_path / "clip")
    model = CLIPModel.from_pretrained(tiny_clip)
    model.text_model.set_input_embeddings(torch.nn.Embedding(len(vocabulary), 32))
    model.config.text_config.update({"vocab_size": len(vocabulary), "eos_token_id": 2, "pad_token_id": 1})
    model.save_pretrained(tmp_path / "clip")
    encoder = DualEncoder.load(tmp_path / "clip", precision="float32")
    model, tokenizer = (
        CLIPModel.from_pretrained(tmp_path / "clip").eval(),
        CLIPTokenizer.from_pretrained(tmp_path / "clip"),
    )
    with torch.no_grad():
        expected = model.get_text_features(
            **tokenizer([*TEXTS[:1], "a", "box"], padding=True, return_tensors="pt")
        ).pooler_output
    np.testing.assert_allclose(encoder.embed_texts([*TEXTS[:1], "a", "box"]), unit(expected), atol=1e-5)


def test_temperature_and_bias_of_each_family(tiny_siglip: Path, tiny_align: Path) -> None:
    # The tiny SigLIP has log scale 2 and bias -3, the tiny ALIGN temperature 0.25.
    siglip, align = DualEncoder.load(tiny_siglip), DualEncoder.load(tiny_align)
    assert siglip.logit_scale == pytest.approx(np.exp(2.0))
    assert (siglip.temperature, siglip.logit_bias) == (pytest.approx(np.exp(-2.0)), -3.0)
    assert (align.temperature, align.logit_scale, align.logit_bias) == (0.25, 4.0, None)
    encoder = dataclasses.replace(align, logit_scale=None)
    assert encoder.temperature is None
    assert _logit_scale_and_bias(torch.nn.Linear(1, 1)) == (None, None)


@pytest.mark.skipif(not HAS_BFLOAT16, reason="no bfloat16")
def test_temperature_is_not_rounded_to_bfloat16(tiny_clip: Path) -> None:
    # bfloat16 has 8 bits: it would move CLIP's log(100) = 4.605 to 4.594, the temperature by 1 %.
    exact, fast = (DualEncoder.load(tiny_clip, precision=precision) for precision in ("float32", "bfloat16"))
    assert exact.temperature == fast.temperature


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_embedding_depends_on_its_own_picture_or_text_alone(
    family: str, precision: str, random_frames: np.ndarray, request: pytest.FixtureRequest
) -> None:
    encoder = DualEncoder.load(request.getfixturevalue(family), precision=precision)
    pixels, number = random_frames, len(random_frames)
    embeddings = encoder.embed_images(pixels)
    assert (embeddings.dtype, embeddings.shape) == (np.float32, (number, encoder.dim))
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    order = np.random.default_rng(1).permutation(number)
    assert np.array_equal(encoder.embed_images(pixels[order]), embeddings[order])
    for cut in (1, 30, 64):
        assert np.array_equal(
            np.concatenate([encoder.embed_images(pixels[:cut]), encoder.embed_images(pixels[cut:])]), embeddings
        )
    texts = [
        f"{text} {colour}" for text in TEXTS for colour in ("red", "green ball", "next to a blue key", "box", "photo")
    ]
    together = encoder.embed_texts(texts)
    assert np.array_equal(encoder.embed_texts(texts[::-1]), together[::-1])
    assert np.array_equal(np.concatenate([encoder.embed_texts([text]) for text in texts]), together)


@pytest.mark.skipif(not HAS_BFLOAT16, reason="no bfloat16")
def test_bfloat16_is_near_float32(tiny_clip: Path, random_frames: np.ndarray) -> None:
    exact, fast = (DualEncoder.load(tiny_clip, precision=precision) for precision in ("float32", "bfloat16"))
    cosine = (exact.embed_images(random_frames) * fast.embed_images(random_frames)).sum(axis=1)
    assert 0.999 < cosine.min() < 1 - 1e-7


@pytest.fixture
def own_precision() -> Iterator[None]:
    """Lets a test turn torch's switches for the precision of products."""
    yield
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("switch", ["older", "newer"])
def test_float32_is_exact_whatever_precision_the_program_chose_for_its_own_products(
    switch: str, tiny_clip: Path, random_frames: np.ndarray, own_precision: None
) -> None:
    encoder = DualEncoder.load(tiny_clip, precision="float32")
    expected = encoder.embed_images(random_frames)

    def switches() -> tuple[str, str, bool]:
        products = (torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision)
        return *products, torch.backends.cudnn.allow_tf32

    if switch == "older":
        torch.set_float32_matmul_precision("medium")
    else:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    chosen = switches()
    assert chosen[:2] == ("tf32", "bf16")
    within = []
    handle = encoder.towers.model.visual_projection.register_forward_hook(lambda *_: within.append(switches()))
    got = encoder.embed_images(random_frames)
    handle.remove()
    assert set(within) == {("ieee", "ieee", False)}
    assert switches() == chosen
    assert np.array_equal(got, expected)


def test_float32_stays_exact_until_the_last_thread_is_done(tiny_clip: Path, own_precision: None) -> None:
    # The first thread comes in first and goes out first; what the second does afterwards must still be exact.
    torch.set_float32_matmul_precision("medium")
    second_is_in, first_is_out = threading.Event(), threading.Event()
    found = []

    def first() -> None:
        with EXACT_FLOAT32:
            assert second_is_in.wait(10)
        first_is_out.set()

    thread = threading.Thread(target=first)
    thread.start()
    with EXACT_FLOAT32:
        second_is_in.set()
        assert first_is_out.wait(10)
        found.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
    thread.join()
    found.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
    assert found == [("highest", False), ("medium", True)]


def test_nothing_gives_no_rows(tiny_clip: Path) -> None:
    encoder = DualEncoder.load(tiny_clip)
    assert encoder.embed_images(np.zeros((0, 32, 32, 3), dtype=np.uint8)).shape == (0, 24)
    assert encoder.embed_texts([]).shape == (0, 24)


def test_description_names_what_embeddings_depend_on(tiny_clip: Path) -> None:
    encoder = DualEncoder.load(tiny_clip, precision="float32", batch_size=8)
    description = encoder.describe_images()
    assert sorted(description) == ["attention", "batch_size", "device", "precision", "preprocessing", "weights"]
    assert (description["attention"], description["batch_size"], description["device"]) == ("sdpa", 8, "cpu")
    before = encoder.describe_texts()
    encoder.embed_texts(["a red ball"])
    assert encoder.describe_texts() == before
    assert before["max_tokens"] == 16


def test_text_length_is_the_least_that_tokenizer_tower_and_processor_allow(tiny_align: Path) -> None:
    # AlignProcessor pads to 64 though the tiny BERT reads 80.
    assert DualEncoder.load(tiny_align).max_tokens == 64


def test_text_of_too_many_tokens_is_refused(tiny_clip: Path) -> None:
    # 16 tokens with start and end: 14 words fit.
    encoder = DualEncoder.load(tiny_clip)
    assert len(encoder.embed_texts(["ball " * 14])) == 1
    with pytest.raises(ValueError, match="at most 16 tokens for this model, got 17 tokens in 'ball"):
        encoder.embed_texts(["a", "ball " * 15])


def test_pixels_that_are_not_of_the_models_size_are_refused(tiny_clip: Path) -> None:
    with pytest.raises(ValueError, match=r"pixels must be \[B, 32, 32, 3\] uint8"):
        DualEncoder.load(tiny_clip).embed_images(np.zeros((2, 33, 32, 3), dtype=np.uint8))


def test_weights_that_are_not_numbers_are_refused(tiny_clip: Path) -> None:
    encoder = DualEncoder.load(tiny_clip, precision="float32")
    torch.nn.init.constant_(encoder.towers.model.visual_projection.weight, float("nan"))
    with pytest.raises(
        ValueError, match="embeddings of pictures must be finite and not zero, got a vector of length nan in float32"
    ):
        encoder.embed_images(np.zeros((1, 32, 32, 3), dtype=np.uint8))


def test_features_that_are_not_one_vector_a_row_are_refused(tiny_clip: Path) -> None:
    encoder = DualEncoder.load(tiny_clip)
    tokens = SimpleNamespace(rows=64, image_features=lambda pixels: torch.ones(64, 17, 24))
    with pytest.raises(ValueError, match=r"must give pictures one vector each, got \[64, 17, 24\]"):
        dataclasses.replace(encoder, towers=tokens).embed_images(np.zeros((1, 32, 32, 3), dtype=np.uint8))


def test_batch_size_must_be_positive(tiny_clip: Path) -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        DualEncoder.load(tiny_clip, batch_size=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_that_the_tokenizer_does_not_know_are_refused(family: str, request: pytest.FixtureRequest) -> None:
    encoder = DualEncoder.load(request.getfixturevalue(family))
    for text in ("zebra", "a red zebra"):
        with pytest.raises(
            ValueError, match=f"tokenizer does not know 'zebra': got '{text}', which it reads without it. Rew"
        ):
            encoder.embed_texts(["a red ball", text])
    with pytest.raises(ValueError, match="a text has no word for the model's tokenizer: got ' '. Reword it."):
        encoder.embed_texts([" "])
    assert len(encoder.embed_texts(["a red ball", "A red  ball", "a red ball"])) == 3


def test_words_of_a_model_in_another_language_need_no_english(tiny_clip: Path, tmp_path: Path) -> None:
    # The letter "a", by which the loader tries the text tower, is unknown to it.
    folder = shutil.copytree(tiny_clip, tmp_path / "model")
    tokenizer = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(tokenizer.replace('"a":', '"один":'))
    encoder = DualEncoder.load(folder)
    assert len(encoder.embed_texts(["один"])) == 1
