import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import build_tokenizer, save_tiny_align, save_tiny_clip, save_tiny_naflex
from transformers import BertConfig, BertModel, CLIPModel

from vlm_rewards.labelers.encoders.checkpoints import loading
from vlm_rewards.labelers.encoders.checkpoints.loading import locate
from vlm_rewards.labelers.encoders.dual_encoder import DualEncoder


def test_weights_digest_is_of_the_weights(tiny_clip: Path, tmp_path: Path) -> None:
    digest = DualEncoder.load(tiny_clip).weights_digest
    assert DualEncoder.load(save_tiny_clip(tmp_path / "again")).weights_digest == digest
    assert DualEncoder.load(save_tiny_clip(tmp_path / "other", seed=1)).weights_digest != digest
    # The same weights in two files instead of one.
    CLIPModel.from_pretrained(tiny_clip).save_pretrained(tmp_path / "again", max_shard_size="100KB")
    (tmp_path / "again" / "model.safetensors").unlink()
    assert len(list((tmp_path / "again").glob("*.safetensors"))) > 1
    assert DualEncoder.load(tmp_path / "again").weights_digest == digest


def test_a_reference_model_goes_before_a_folder(
    monkeypatch: pytest.MonkeyPatch, tiny_clip: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_clip, tmp_path / "reference-x")
    monkeypatch.setattr(loading, "REFERENCE_FOLDER", tmp_path)
    assert locate("reference-x") == (tmp_path / "reference-x", "reference-x")
    assert loading.reference_models() == ["reference-x"]
    assert locate(tiny_clip) == (tiny_clip, str(tiny_clip))


def test_a_name_that_is_neither_folder_nor_id_is_refused(tmp_path: Path) -> None:
    for name in (
        tmp_path / "missing",
        str(tmp_path / "missing"),
        "a/b/c",
        "./missing",
        "../missing",
        "~/missing",
        "reference_s",
    ):
        with pytest.raises(
            ValueError,
            match=r"must be a folder or a Hugging Face hub id \(owner/name\), got .* which is neither; .*, reference-l, ",
        ):
            DualEncoder.load(name)
    for name in ("reference-xl", "playroom-xxl"):
        with pytest.raises(
            ValueError, match=rf"must be one that ships with vlm-rewards \(.*reference-l, .*\), got {name}; choose one"
        ):
            DualEncoder.load(name)
    (tmp_path / "ViT-B-32.pt").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"must be a folder or .*: got the file .*ViT-B-32.pt. Give the folder that holds"
    ):
        DualEncoder.load(tmp_path / "ViT-B-32.pt")


def change_weights(folder: Path, name: str, tensor: torch.Tensor | None) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights[name]
    if tensor is not None:
        weights[name] = tensor
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_missing_or_mismatched_weights_are_refused(tiny_clip: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_clip, tmp_path / "missing")
    change_weights(tmp_path / "missing", "visual_projection.weight", None)
    with pytest.raises(
        ValueError, match=r"must be complete, got 1 missing keys in .*, such as visual_projection.weight; random"
    ):
        DualEncoder.load(tmp_path / "missing")
    shutil.copytree(tiny_clip, tmp_path / "other")
    change_weights(tmp_path / "other", "visual_projection.weight", torch.zeros(7, 32))
    with pytest.raises(ValueError, match="must be complete, got 1 mismatched keys"):
        DualEncoder.load(tmp_path / "other")
    shutil.copytree(tiny_clip, tmp_path / "cut")
    content = (tiny_clip / "model.safetensors").read_bytes()
    (tmp_path / "cut" / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="must have safetensors weights that can be loaded, got none"):
        DualEncoder.load(tmp_path / "cut")


def test_weights_that_the_config_does_not_describe_are_refused(tiny_clip: Path, tmp_path: Path) -> None:
    # transformers passes over the second layer of the text tower, and every goal gets another vector.
    folder = shutil.copytree(tiny_clip, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 1
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ValueError,
        match=r"16 weights in .* are not part of the model .*: got text_model.encoder.layers.1.layer_norm1.bias, ",
    ):
        DualEncoder.load(folder)


def test_old_weights_hold_positions_that_nobody_needs(tiny_clip: Path, tmp_path: Path) -> None:
    # OpenAI's checkpoints were saved when the numbers 0, 1, 2, ... were kept with the weights.
    folder = shutil.copytree(tiny_clip, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["text_model.embeddings.position_ids"] = torch.arange(16)[None]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert DualEncoder.load(folder).weights_digest == DualEncoder.load(tiny_clip).weights_digest


def test_models_that_are_no_dual_encoders_are_refused(tmp_path: Path) -> None:
    tower = BertModel(
        BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9)
    )
    tower.save_pretrained(tmp_path / "bert")
    with pytest.raises(
        ValueError, match="must be a dual encoder with get_image_features and get_text_features, got 'bert'"
    ):
        DualEncoder.load(tmp_path / "bert")
    with pytest.raises(ValueError, match="embed pictures and texts in one space, got sizes 24 and 12"):
        DualEncoder.load(save_tiny_align(tmp_path / "align", text_size=12))
    with pytest.raises(ValueError, match="NaFlex"):
        DualEncoder.load(save_tiny_naflex(tmp_path / "naflex"))


def test_a_tokenizer_without_a_pad_token_is_refused(tiny_clip: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_clip, tmp_path / "clip")
    tokenizer = build_tokenizer(16)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path / "clip")
    with pytest.raises(ValueError, match="a tokenizer must have a pad token, got none"):
        DualEncoder.load(tmp_path / "clip")


@pytest.mark.parametrize("family", ["tiny_clip", "tiny_align"])
def test_a_folder_without_tokenizer_files_is_refused(
    family: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    # transformers then makes up a tokenizer of the special tokens alone, which reads every text as unknown words.
    folder = shutil.copytree(request.getfixturevalue(family), tmp_path / "model")
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(
        ValueError,
        match=r"must know words besides its special tokens, got 0 from .*model, tokenizer.json \(or .*\) missing; save the",
    ):
        DualEncoder.load(folder)


def test_a_tokenizer_that_is_larger_than_its_model_is_refused(tiny_clip: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_clip, tmp_path / "model")
    tokenizer = build_tokenizer(16)
    size = len(tokenizer)
    tokenizer.add_tokens(["cupboard"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(
        ValueError,
        match=rf"has tokens beyond the {size} of the model: got 1, such as 'cupboard'. They do not belong",
    ):
        DualEncoder.load(folder)


def save_grown_clip(folder: Path, tiny_clip: Path, **text_config: object) -> Path:
    """A CLIP with a word more than it was trained with, whose id is larger than that of the end token."""
    shutil.copytree(tiny_clip, folder)
    tokenizer = build_tokenizer(16)
    tokenizer.add_tokens(["cupboard"])
    tokenizer.save_pretrained(folder)
    model = CLIPModel.from_pretrained(tiny_clip)
    model.text_model.set_input_embeddings(torch.nn.Embedding(len(tokenizer), 32))
    model.config.text_config.update({"vocab_size": len(tokenizer), **text_config})
    model.save_pretrained(folder)
    return folder


def test_an_end_token_that_the_model_would_miss_is_refused(tiny_clip: Path, tmp_path: Path) -> None:
    end = build_tokenizer(16).eos_token_id
    grown = save_grown_clip(tmp_path / "grown", tiny_clip)
    vectors = DualEncoder.load(grown).embed_texts(["a cupboard ball", "a cupboard key"])
    assert not np.array_equal(*vectors)
    # Old configs call the end token 2, by which transformers means the largest id: here that of the new word.
    old = save_grown_clip(tmp_path / "old", tiny_clip, eos_token_id=2)
    with pytest.raises(
        ValueError,
        match=rf"the token with the largest id \(eos_token_id 2\), but .*: got 'cupboard'. Set eos_token_id to {end} in text_con",
    ):
        DualEncoder.load(old)
    # A token that no text has: every text would get the vector of its start token.
    other = save_grown_clip(tmp_path / "other", tiny_clip, eos_token_id=7)
    with pytest.raises(
        ValueError,
        match=rf"takes a text's end for token 7 \(eos_token_id\), but .* with '<end>': got token {end}. Set eos_tok",
    ):
        DualEncoder.load(other)


def test_padding_that_would_be_taken_for_the_end_is_refused(tiny_clip: Path, tmp_path: Path) -> None:
    # Padding by the end token is fine behind a text, where the first one counts, and not before it.
    folder = shutil.copytree(tiny_clip, tmp_path / "model")
    tokenizer = build_tokenizer(16)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)
    assert DualEncoder.load(folder).dim == 24
    tokenizer.padding_side = "left"
    tokenizer.save_pretrained(folder)
    with pytest.raises(ValueError, match="takes a text's end for token .*, but the tokenizer ends a text with '<end>'"):
        DualEncoder.load(folder)
