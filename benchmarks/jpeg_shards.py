"""Writes a corpus of 224x224 JPEG frames, each file of which is different, on all cores.

python benchmarks/jpeg_shards.py FOLDER FRAMES SHARDS
"""

import io
import itertools
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from vlm_rewards.schemas.episodes import CorpusFeatures, Episode
from vlm_rewards.schemas.formats.corpus import write_episodes

SIDE = 224
_BASES = 64
"""Different pictures of a shard; what tells their copies apart is a comment in the file, which costs nothing to decode."""
_FRAMES_PER_EPISODE = 256


def write_jpeg_shards(folder: Path, num_frames: int, num_shards: int) -> Path:
    """Writes a corpus of 224x224 JPEG frames, each file of which is different, on all cores."""
    folder.mkdir(parents=True)
    bounds = np.linspace(0, num_frames, num_shards + 1).astype(int)
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("spawn")) as pool:
        writing = [
            pool.submit(_write_shard, folder / f"shard-{number:04d}.parquet", int(first), int(last))
            for number, (first, last) in enumerate(itertools.pairwise(bounds))
        ]
        for written in writing:
            written.result()
    return folder


def _write_shard(path: Path, first: int, last: int) -> None:
    random = np.random.default_rng(first)
    bases = [_jpeg(random) for _ in range(min(_BASES, last - first))]

    def episodes() -> Iterator[Episode]:
        for start in range(first, last, _FRAMES_PER_EPISODE):
            numbers = range(start, min(start + _FRAMES_PER_EPISODE, last))
            images = [with_comment(bases[number % len(bases)], f"frame {number}") for number in numbers]
            yield Episode(
                episode_id=f"e{start:08d}", images={"view": images}, actions=np.zeros(len(images) - 1, np.int64)
            )

    features = CorpusFeatures(cameras=("view",), has_rewards=False, has_instruction=False)
    write_episodes(path, features, episodes(), "parquet")


def _jpeg(random: np.random.Generator) -> bytes:
    """A picture of large and small detail, of about the size of a photograph's file."""
    picture = sum(
        np.asarray(
            Image.fromarray(random.integers(0, 256, (cells, cells, 3), dtype=np.uint8)).resize((SIDE, SIDE)), float
        )
        * share
        for cells, share in ((4, 0.5), (28, 0.35), (112, 0.15))
    )
    file = io.BytesIO()
    Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def with_comment(jpeg: bytes, text: str) -> bytes:
    """Returns a JPEG with a comment after its first marker."""
    words = text.encode()
    return jpeg[:2] + b"\xff\xfe" + (len(words) + 2).to_bytes(2, "big") + words + jpeg[2:]


if __name__ == "__main__":
    write_jpeg_shards(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
