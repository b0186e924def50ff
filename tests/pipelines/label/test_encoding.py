"""From frames to rows: full batches, each frame once, and every row its own frame's embedding."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from vlm_rewards.labelers.encoders.embedding_cache import EmbeddingCache
from vlm_rewards.pipelines.engine.outputs import PartWriter
from vlm_rewards.pipelines.label.encoding import encode_unit
from vlm_rewards.pipelines.label.reading import Ended, Group
from vlm_rewards.pipelines.label.shared_labelers import SharedLabeler
from vlm_rewards.schemas.formats.label_parts.writer import Rows
from vlm_rewards.schemas.manifests import Failure

BATCH = 4


@dataclasses.dataclass
class Numbers:
    """A labeler whose embedding of a frame of one pixel is its number; keeps the batches that it was given."""

    batches: list[list[int]]
    settings: SimpleNamespace = dataclasses.field(default_factory=lambda: SimpleNamespace(batch_size=BATCH))
    encoder: SimpleNamespace = dataclasses.field(default_factory=lambda: SimpleNamespace(window=1, image_size=(1, 1)))

    def resize(self, frame: np.ndarray) -> np.ndarray:
        return frame

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        self.batches.append(pixels[:, 0, 0, 0].tolist())
        return pixels[:, 0, 0, :2].astype(np.float32)


def frame(number: int) -> np.ndarray:
    return np.full((1, 1, 3), number, np.uint8)


def encode(
    episodes: dict[str, list[Any]], cache_frames: int = 100, ends: Iterable[Ended | Failure] = ()
) -> tuple[list[Rows], list[list[int]], PartWriter, set[str]]:
    """Encodes episodes in groups of three frames; the rows, the batches of the encoder, the part and the broken episodes."""
    labeler = Numbers([])
    shared = SharedLabeler(cast(Any, labeler), EmbeddingCache(2, max_bytes=cache_frames * (4 * 2 + 200)))
    groups: list[Group | Ended | Failure] = []
    for episode_id, frames in episodes.items():
        for start in range(0, len(frames), 3):
            groups.append(Group(episode_id, "file", start, frames[start : start + 3]))
        groups.append(Ended(episode_id, None))
    part, broken = PartWriter(Path("unused"), Path("unused")), set[str]()
    rows = list(encode_unit(shared, [*groups, *ends], part, broken))
    return rows, labeler.batches, part, broken


def found(rows: list[Rows]) -> list[tuple[str, int, int]]:
    """Episode, frame and number of every row."""
    return [
        (episode_id, index, int(embedding[0]))
        for group in rows
        for episode_id, index, embedding in zip(group.episode_ids, group.frame_indices, group.embeddings, strict=True)
    ]


def test_batches_are_full_across_episodes_and_rows_in_order() -> None:
    rows, batches, part, broken = encode(
        {"a": [frame(number) for number in range(5)], "b": [frame(number) for number in range(5, 11)]}
    )
    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    expected = [("a", index, index) for index in range(5)] + [("b", index, 5 + index) for index in range(6)]
    assert found(rows) == expected
    assert (part.episodes, part.failures, broken) == (2, [], set())
    assert dict(part.counts) == {"encoded_frames": 11, "cached_frames": 0}


def test_a_frame_that_repeats_within_a_batch_is_encoded_once() -> None:
    numbers = [1, 1, 2, 1, 2, 3, 3, 4]
    rows, batches, part, _ = encode({"a": [frame(number) for number in numbers]}, cache_frames=1)
    assert batches == [[1, 2, 3, 4]]  # a batch is full of frames that are new
    assert [number for _, _, number in found(rows)] == numbers
    assert dict(part.counts) == {"encoded_frames": 4, "cached_frames": 4}


@pytest.mark.parametrize("cache_frames", [1, 2, 100])
def test_a_row_is_its_own_frames_whatever_the_cache_forgets(cache_frames: int) -> None:
    numbers = np.random.default_rng(0).integers(0, 12, 200).tolist()
    rows, batches, part, _ = encode({"a": [frame(number) for number in numbers]}, cache_frames)
    assert [number for _, _, number in found(rows)] == numbers
    encoded = [number for batch in batches for number in batch]
    assert part.counts["encoded_frames"] == len(encoded)
    if cache_frames == 100:
        assert sorted(encoded) == list(range(12))
    else:
        assert all(len(set(batch)) == len(batch) for batch in batches)  # never twice in one batch
        assert len(encoded) < 200


def test_a_frame_of_the_batch_before_is_known_while_that_is_encoded() -> None:
    # The second batch is gathered before the first is encoded: 1 is on its way then, and in no cache.
    rows, batches, _, _ = encode({"a": [frame(number) for number in [1, 2, 3, 4, 1, 5, 6, 7, 8]]})
    assert batches == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert [number for _, _, number in found(rows)] == [1, 2, 3, 4, 1, 5, 6, 7, 8]


def test_frames_that_are_all_known_do_not_pile_up() -> None:
    rows, batches, _, _ = encode({"a": [frame(1)] * (40 * BATCH)})
    assert [len(group.episode_ids) for group in rows] == [16 * BATCH, 16 * BATCH, 8 * BATCH]
    assert batches == [[1]]


def test_a_frame_that_cannot_be_decoded_fails_wherever_it_occurs() -> None:
    rows, batches, part, _ = encode({"a": [frame(1), b"no picture", frame(2), b"no picture"]})
    assert found(rows) == [("a", 0, 1), ("a", 2, 2)]
    assert batches == [[1, 2]]
    assert [(failure.episode_id, failure.frame_index) for failure in part.failures] == [("a", 1), ("a", 3)]
    assert {failure.reason for failure in part.failures} == {"undecodable image"}
    assert part.failed_frames == 2
    assert dict(part.counts) == {"encoded_frames": 2, "cached_frames": 1}


def test_an_episode_that_broke_off_is_named_and_not_counted() -> None:
    failure = Failure(scope="episode", shard="file", episode_id="b", reason="cut short", detail="d", num_frames=5)
    whole = Failure(scope="shard", shard="other", reason="unreadable", detail="d", num_frames=7)
    _, _, part, broken = encode({"a": [frame(1)]}, ends=[Ended("b", failure), whole])
    assert broken == {"b"}
    assert (part.episodes, part.failures, part.failed_frames) == (1, [failure, whole], 12)
