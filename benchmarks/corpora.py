"""Corpora and models that the benchmarks measure on, made here: no download."""

import itertools
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from tiny_models import build_tokenizer

from vlm_rewards.schemas.episodes import CorpusFeatures, Episode
from vlm_rewards.schemas.formats.corpus import write_episodes
from vlm_rewards.schemas.pictures import encode_png


def write_distinct_frames(
    folder: Path, num_frames: int, size: int, frames_per_episode: int = 100, num_shards: int = 4
) -> Path:
    """Writes a corpus of frames [size, size, 3] no two of which are equal, so that none is saved by the cache; on all cores."""
    folder.mkdir(parents=True)
    bounds = np.linspace(0, num_frames // frames_per_episode, num_shards + 1).astype(int) * frames_per_episode
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("spawn")) as pool:
        writing = [
            pool.submit(
                _write_shard, folder / f"shard-{shard:04d}.parquet", int(first), int(last), size, frames_per_episode
            )
            for shard, (first, last) in enumerate(itertools.pairwise(bounds))
        ]
        for written in writing:
            written.result()
    return folder


def _write_shard(path: Path, first: int, last: int, size: int, frames_per_episode: int) -> None:
    rng = np.random.default_rng(first)

    def episodes() -> Iterator[Episode]:
        for start in range(first, last, frames_per_episode):
            count = min(frames_per_episode, last - start)
            blocks = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
            frames = blocks.repeat(-(-size // 8), axis=1).repeat(-(-size // 8), axis=2)[:, :size, :size]
            images = [encode_png(np.ascontiguousarray(frame)) for frame in frames]
            yield Episode(episode_id=f"e{start:08d}", images={"view": images}, actions=np.zeros(count - 1, np.int64))

    features = CorpusFeatures(cameras=("view",), has_rewards=False, has_instruction=False)
    write_episodes(path, features, episodes(), "parquet")


def save_vit_b32(folder: Path) -> Path:
    """Saves a CLIP of ViT-B/32's shape with random weights: its speed is that of the public checkpoint, its scores are not."""
    return _save_clip(folder, {}, {})  # the config's defaults


def save_vit_l14(folder: Path) -> Path:
    """Saves a CLIP of ViT-L/14's shape with random weights, see `save_vit_b32`."""
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    text = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    return _save_clip(folder, text, {**vision, "patch_size": 14}, projection_dim=768)


def _save_clip(folder: Path, text: dict[str, int], vision: dict[str, int], **more: int) -> Path:
    tokenizer = build_tokenizer(77)
    words = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config={**text, **words}, vision_config=vision, **more))
    model.save_pretrained(folder)
    processor = CLIPProcessor(CLIPImageProcessorPil(size={"shortest_edge": 224}, crop_size=224), tokenizer)
    processor.save_pretrained(folder)
    return folder
