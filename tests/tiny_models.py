"""Tiny dual encoders with random weights, saved as real checkpoints: config, safetensors, tokenizer, image processor."""

import io
import json
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import (
    AlignConfig,
    AlignModel,
    AlignProcessor,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    EfficientNetImageProcessorPil,
    PreTrainedTokenizerFast,
    Siglip2Config,
    Siglip2ImageProcessorPil,
    Siglip2Model,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    SiglipProcessor,
)

SPECIAL = ("<pad>", "<unk>", "<start>")
WORDS = (
    "a an the agent is in on front of next to carries red green blue purple yellow grey ball key box door room nothing photo "
    "picture cup sink table empty"
)
END = "<end>"


def build_tokenizer(
    length: int, model_input_names: tuple[str, ...] = ("input_ids", "attention_mask")
) -> PreTrainedTokenizerFast:
    """A word-level tokenizer that reads "<start> words <end>"; the end token has the largest id."""
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *WORDS.split(), END])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"<start> $A {END}", special_tokens=[("<start>", vocabulary["<start>"]), (END, vocabulary[END])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<start>",
        eos_token=END,
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=length,
        padding_side="right",
        model_input_names=list(model_input_names),
    )


def save_tiny_clip(folder: Path, image_size: int = 32, width: int = 32, seed: int = 0, length: int = 16) -> Path:
    """Saves a CLIP of two layers a tower with random weights; its embeddings have 24 numbers."""
    tokenizer = build_tokenizer(length)
    text = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 2, "num_attention_heads": 2}
    text |= {"vocab_size": len(tokenizer), "max_position_embeddings": length}
    text |= {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": image_size, "patch_size": 8}
    torch.manual_seed(seed)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24))
    image_processor = CLIPImageProcessorPil(size={"shortest_edge": image_size}, crop_size=image_size)
    return _save(folder, model, CLIPProcessor(image_processor=image_processor, tokenizer=tokenizer))


def save_tiny_siglip(folder: Path) -> Path:
    """Saves a SigLIP, whose text tower reads padding too; it is also the class of fixed-resolution SigLIP 2 checkpoints."""
    tokenizer = build_tokenizer(16, ("input_ids",))
    torch.manual_seed(1)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**tower, "vocab_size": len(tokenizer), "max_position_embeddings": 16, "projection_size": 32}
    text |= {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    model = SiglipModel(SiglipConfig(text_config=text, vision_config={**tower, "image_size": 32, "patch_size": 8}))
    torch.nn.init.constant_(model.logit_scale, 2.0)
    torch.nn.init.constant_(model.logit_bias, -3.0)
    processor = SiglipProcessor(SiglipImageProcessorPil(size={"height": 32, "width": 32}), tokenizer)
    return _save(folder, model, processor)


def save_siglip_of_the_hub(folder: Path) -> Path:
    """Saves a SigLIP as Google's lie on the hub: spiece.model and tokenizer_config.json, no tokenizer.json."""
    folder.mkdir()
    pieces = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, "pad_piece": "<pad>"}
    size = _train_pieces(folder / "spiece.model", model_type="unigram", vocab_size=64, **pieces)
    tokenizer = {"tokenizer_class": "SiglipTokenizer", "do_lower_case": True, "model_max_length": 16}
    tokenizer |= {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>", "model_input_names": ["input_ids"]}
    return _save_siglip_towers(folder, tokenizer, size)


def save_siglip2_of_the_hub(folder: Path) -> Path:
    """Saves a SigLIP 2 as Google's lie on the hub: a SiglipModel with the tokenizer of Gemma, which leaves case as it is."""
    folder.mkdir()
    pieces = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "pad_piece": "<pad>", "eos_piece": "<eos>"}
    pieces |= {"bos_piece": "<bos>", "byte_fallback": True, "add_dummy_prefix": False}
    size = _train_pieces(folder / "tokenizer.model", model_type="bpe", vocab_size=400, **pieces)
    tokenizer = {"tokenizer_class": "GemmaTokenizer", "add_bos_token": False, "add_eos_token": True}
    tokenizer |= {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    tokenizer |= {"model_max_length": 16, "padding_side": "right", "model_input_names": ["input_ids"]}
    return _save_siglip_towers(folder, tokenizer, size)


def _train_pieces(path: Path, **settings: Any) -> int:
    """Trains a sentencepiece model on a few sentences; returns its number of pieces."""
    model, words = io.BytesIO(), WORDS.split()
    sentences = [" ".join(words[start : start + length]) for start in range(len(words)) for length in (1, 2, 4)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=model, hard_vocab_limit=False, minloglevel=2, **settings
    )
    path.write_bytes(model.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).get_piece_size()


def _save_siglip_towers(folder: Path, tokenizer: dict[str, Any], vocab_size: int) -> Path:
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    torch.manual_seed(1)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**tower, "vocab_size": vocab_size, "max_position_embeddings": 16, "projection_size": 32}
    text |= {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 1}
    config = SiglipConfig(text_config=text, vision_config={**tower, "image_size": 32, "patch_size": 8})
    SiglipModel(config).eval().save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def save_tiny_align(folder: Path, text_size: int = 24) -> Path:
    """Saves an ALIGN: EfficientNet and BERT. Its pictures have 24 numbers, whatever its texts have."""
    tokenizer = build_tokenizer(80)
    torch.manual_seed(2)
    text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text |= {"vocab_size": len(tokenizer), "max_position_embeddings": 80, "pad_token_id": tokenizer.pad_token_id}
    vision: dict[str, Any] = {
        "image_size": 32,
        "width_coefficient": 1.0,
        "depth_coefficient": 1.0,
        "hidden_dim": 24,
        "depth_divisor": 4,
    }
    vision |= {"in_channels": [32, 8], "out_channels": [8, 24], "kernel_sizes": [3, 3], "strides": [1, 2]}
    vision |= {"num_block_repeats": [1, 1], "expand_ratios": [1, 4], "depthwise_padding": []}
    model = AlignModel(
        AlignConfig(text_config=text, vision_config=vision, projection_dim=text_size, temperature_init_value=0.25)
    )
    for parameter in model.parameters():  # the default initialisation makes pictures indistinguishable
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    image_processor = EfficientNetImageProcessorPil(
        size={"height": 40, "width": 40},
        do_center_crop=True,
        crop_size={"height": 32, "width": 32},
        rescale_offset=True,
    )
    return _save(folder, model, AlignProcessor(image_processor, tokenizer))


def save_tiny_naflex(folder: Path) -> Path:
    """Saves a SigLIP 2 of variable resolution (NaFlex), which a labeler refuses."""
    tokenizer = build_tokenizer(16, ("input_ids",))
    torch.manual_seed(3)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**tower, "vocab_size": len(tokenizer), "max_position_embeddings": 16, "projection_size": 32}
    text |= {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    model = Siglip2Model(Siglip2Config(text_config=text, vision_config={**tower, "patch_size": 8, "num_patches": 16}))
    model.save_pretrained(folder)
    Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _save(folder: Path, model: torch.nn.Module, processor: object) -> Path:
    model.eval().save_pretrained(folder)  # type: ignore[operator]
    processor.save_pretrained(folder)  # type: ignore[attr-defined]
    return folder
