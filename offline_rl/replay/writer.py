"""Writes the arrays of a replay: relabelled trajectories, decoded once, in files that numpy maps into memory.

    observations.npy   [U, H, W, 3] uint8 or [U, D] float32   distinct observations: identical frames are stored once
    rows.npy           [F] int64           observation of every recorded frame, episode after episode
    actions.npy        [F] or [F, A]       the action taken in the frame; 0 in the last frame of an episode, never read
    states.npy         [F, S] float32      only where states were recorded
    rewards.npy        [R] float32         [K, T] of the first episode row by row, then [K, T] of the second, ...
    segments.npy       [M]                 one record per goal of an episode: SEGMENT
    episodes.jsonl                         the episodes' ids and first frames, one line each

One episode is held in memory, and the digests of at most MAX_DIGESTS distinct frames; beyond, a frame that comes back after
long is stored again, which costs disk alone.

Shape letters: F frames, U distinct observations, T steps of an episode, K goals of an episode, M segments, H and W sides of a
frame, D size of a kept embedding, S width of a state, A width of a continuous action.
"""

import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vlm_rewards.schemas.folders import FinishedFolder
from vlm_rewards.schemas.formats.label_parts.embeddings import read_embedding_rows
from vlm_rewards.schemas.formats.relabelled_parts.reader import read_relabelled
from vlm_rewards.schemas.goals import GOAL_KINDS
from vlm_rewards.schemas.pictures import decode_image, encoded_frame
from vlm_rewards.schemas.relabelled import RelabelledEpisode

MAX_DIGESTS = 4_000_000
"""Distinct frames whose digests are remembered, about 100 bytes each."""

SEGMENT = np.dtype(
    [
        ("episode", np.int64),
        ("goal", np.int32),
        ("kind", np.int8),
        ("start", np.int32),
        ("length", np.int32),
        ("frame", np.int64),
        ("reward", np.int64),
        ("terminated", np.bool_),
        ("rewarded", np.int32),
    ]
)
"""A goal of an episode: numbers of its episode, goal and kind; its first step in the episode and how many follow; where its first
frame is in rows.npy and its first reward in rewards.npy; whether its last step achieves the goal; how many rewards are above 0."""


class ArrayFile:
    """A .npy file that grows by rows; its length need not be known in advance.

    Args:
        path: File to write.
        what: Name of a row, for messages.
    """

    _HEADER_BYTES = 1024

    def __init__(self, path: Path, what: str) -> None:
        self._file = path.open("wb")
        self._file.write(b" " * self._HEADER_BYTES)
        self._what = what
        self._row: tuple[np.dtype, tuple[int, ...]] | None = None
        self.num_rows = 0

    def append(self, rows: np.ndarray) -> None:
        """Adds rows.

        Raises:
            ValueError: They are of another dtype or shape than those before.
        """
        row = rows.dtype, rows.shape[1:]
        if self._row is None:
            self._row = row
        if row != self._row:
            raise ValueError(
                f"every {self._what} must be {_describe(self._row)} as the first, got {_describe(row)}; write it to a corpus of "
                f"its own"
            )
        self._file.write(np.ascontiguousarray(rows).tobytes())
        self.num_rows += len(rows)

    def close(self) -> None:
        """Writes the header and flushes the file to the disk."""
        if self._row is not None:
            dtype, shape = self._row
            header = repr(
                {
                    "descr": np.lib.format.dtype_to_descr(dtype),
                    "fortran_order": False,
                    "shape": (self.num_rows, *shape),
                }
            )
            room = self._HEADER_BYTES - 10
            assert len(header) < room, header
            self._file.seek(0)
            self._file.write(
                b"\x93NUMPY\x01\x00" + room.to_bytes(2, "little") + header.ljust(room - 1).encode() + b"\n"
            )
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


def _describe(row: tuple[np.dtype, tuple[int, ...]]) -> str:
    return f"{list(row[1])} {row[0]}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class WrittenReplay:
    """Facts about a written replay, for its meta.json.

    Args:
        goal_ids: The goals, in the order of their numbers.
        goal_texts: Their texts.
        num_episodes: Number of episodes.
        num_frames: Number of recorded frames.
        num_observations: Number of distinct observations.
        max_action: Highest discrete action; None where actions are continuous.
        camera: Camera of the frames.
        frame_shape: Shape (H, W, 3) of the frames; with embeddings, that of the first frame behind them.
    """

    goal_ids: tuple[str, ...]
    goal_texts: tuple[str, ...]
    num_episodes: int
    num_frames: int
    num_observations: int
    max_action: int | None
    camera: str | None
    frame_shape: tuple[int, ...] | None


def write_arrays(
    source: FinishedFolder, folder: Path, *, camera: str | None, embeddings: FinishedFolder | None
) -> WrittenReplay:
    """Writes the arrays of the module's docstring.

    Args:
        source: Relabelled trajectories.
        folder: Folder to write to.
        camera: Camera of the frames; None where there is only one.
        embeddings: Kept embeddings to store instead of frames; None for frames.

    Raises:
        ValueError: An episode has no actions, no text for a goal, several cameras of which none was chosen, no embedding of
            a frame, or other features than the first; the note names episode and part.
    """
    writer = _Writer(folder, by_embedding=embeddings is not None)
    try:
        for part in source.parts:
            kept = None if embeddings is None else _KeptEmbeddings(embeddings, part.stem)
            for episode in read_relabelled(part, camera=camera):
                try:
                    writer.add(episode, None if kept is None else kept.of(episode))
                except ValueError as error:
                    error.add_note(f"in episode {episode.episode_id!r} of {part}")
                    raise
    finally:
        writer.close()
    return writer.found()


class _Writer:
    def __init__(self, folder: Path, *, by_embedding: bool) -> None:
        names = {"observations": "embedding" if by_embedding else "frame", "rows": "row", "actions": "action"}
        names |= {"rewards": "reward", "segments": "segment"}
        self._arrays = {name: ArrayFile(folder / f"{name}.npy", what) for name, what in names.items()}
        self._states: ArrayFile | None = None
        self._folder = folder
        self._episodes = (folder / "episodes.jsonl").open("w", encoding="utf-8")
        self._num_episodes = 0
        self._digests: dict[bytes, int] = {}
        self._goals: dict[str, tuple[int, str]] = {}
        self._max_action: int | None = None
        self._camera: str | None = None
        self._frame_shape: tuple[int, ...] | None = None

    def add(self, episode: RelabelledEpisode, embeddings: np.ndarray | None) -> None:
        pictures = self._pictures(episode)
        actions = self._check_actions(episode)
        goals = [self._goal(goal_id, text) for goal_id, text in zip(episode.goal_ids, episode.goal_texts, strict=True)]
        if (episode.states is not None) != (self._states is not None):
            if self._num_episodes:
                raise ValueError(
                    "every episode must have a state or none must, got both; write them to corpora of their own"
                )
            self._states = ArrayFile(self._folder / "states.npy", "state")
        first_frame, first_reward = self._arrays["rows"].num_rows, self._arrays["rewards"].num_rows
        if self._frame_shape is None:
            self._frame_shape = decode_image(pictures[0]).shape
        rows = [self._row(frame) for frame in (pictures if embeddings is None else embeddings)]
        self._arrays["rows"].append(np.array(rows, np.int64))
        self._arrays["actions"].append(np.concatenate([actions, np.zeros_like(actions[:1])]))
        if self._states is not None:
            self._states.append(np.asarray(episode.states, np.float32))
        self._arrays["rewards"].append(np.asarray(episode.rewards, np.float32).ravel())
        segments = np.zeros(episode.num_goals, SEGMENT)
        for k, segment in enumerate(segments):
            start, stop = int(episode.start[k]), int(episode.stop[k])
            segment["episode"], segment["goal"] = self._num_episodes, goals[k]
            segment["kind"], segment["terminated"] = GOAL_KINDS.index(episode.goal_kinds[k]), episode.terminated[k]
            segment["start"], segment["length"] = start, stop - start
            segment["frame"], segment["reward"] = first_frame + start, first_reward + k * episode.num_steps + start
            segment["rewarded"] = np.count_nonzero(episode.rewards[k, start:stop] > 0)
        self._arrays["segments"].append(segments)
        self._episodes.write(json.dumps([episode.episode_id, first_frame]) + "\n")
        self._num_episodes += 1

    def close(self) -> None:
        for array in [*self._arrays.values(), *([] if self._states is None else [self._states])]:
            array.close()
        self._episodes.flush()
        os.fsync(self._episodes.fileno())
        self._episodes.close()

    def found(self) -> WrittenReplay:
        return WrittenReplay(
            goal_ids=tuple(self._goals),
            goal_texts=tuple(text for _, text in self._goals.values()),
            num_episodes=self._num_episodes,
            num_frames=self._arrays["rows"].num_rows,
            num_observations=self._arrays["observations"].num_rows,
            max_action=self._max_action,
            camera=self._camera,
            frame_shape=self._frame_shape,
        )

    def _pictures(self, episode: RelabelledEpisode) -> list[bytes]:
        if len(episode.images) > 1:
            raise ValueError(
                f"a camera must be chosen where there are several, got {', '.join(sorted(episode.images))}; name one"
            )
        (camera,) = episode.images
        self._camera = self._camera or camera
        if camera != self._camera:
            raise ValueError(
                f"every episode must have the camera of the first, {self._camera!r}, got {camera!r}; give it a corpus of its own"
            )
        return [encoded_frame(frame) for frame in episode.images[camera]]

    def _check_actions(self, episode: RelabelledEpisode) -> np.ndarray:
        if episode.actions is None:
            raise ValueError(
                f"an episode must have actions to learn from, got none in {episode.episode_id!r}; record them or leave it out"
            )
        if episode.actions.ndim > 1:
            return np.asarray(episode.actions, np.float32)
        if episode.actions.min() < 0:
            raise ValueError(
                f"discrete actions must be numbers from 0, got {episode.actions.min()}; renumber the actions of the corpus"
            )
        self._max_action = max(self._max_action or 0, int(episode.actions.max()))
        return np.asarray(episode.actions, np.int64)

    def _goal(self, goal_id: str, text: str) -> int:
        if not text or not text.strip():
            raise ValueError(
                f"a goal must have a text to be embedded, got {text!r} for goal {goal_id!r}; give it one and relabel the corpus"
            )
        number, known = self._goals.setdefault(goal_id, (len(self._goals), text))
        if known != text:
            raise ValueError(
                f"a goal must have one text, got {known!r} and {text!r} for goal {goal_id!r}; relabel the corpus with one list of "
                f"goals"
            )
        return number

    def _row(self, observation: bytes | np.ndarray) -> int:
        data = observation if isinstance(observation, bytes) else observation.tobytes()
        digest = hashlib.blake2b(data, digest_size=16).digest()
        row = self._digests.get(digest)
        if row is None:
            row = self._arrays["observations"].num_rows
            decoded = decode_image(observation) if isinstance(observation, bytes) else observation
            self._arrays["observations"].append(decoded[None])
            if len(self._digests) >= MAX_DIGESTS:
                for oldest in list(itertools.islice(self._digests, MAX_DIGESTS // 16 + 1)):
                    del self._digests[oldest]
            self._digests[digest] = row
        return row


class _KeptEmbeddings:
    """The kept embeddings of a part: both hold the episodes in the order of the corpus, so they are joined as they are read."""

    def __init__(self, embeddings: FinishedFolder, name: str) -> None:
        self._path = embeddings.path / "parts" / f"{name}.parquet"
        if self._path not in embeddings.parts:
            raise ValueError(
                f"kept embeddings must have a part for every part of the relabelled trajectories, got none named {name!r} in "
                f"{embeddings.path}; give the embeddings of this corpus"
            )
        self._episodes = self._read()

    def of(self, episode: RelabelledEpisode) -> np.ndarray:
        """Returns [F, D] float32."""
        for episode_id, indices, vectors in self._episodes:
            if episode_id == episode.episode_id:
                if indices != list(range(episode.num_frames)):
                    raise ValueError(
                        f"kept embeddings must have a row for every frame, got {len(indices)} for {episode.num_frames} frames; "
                        f"label the corpus again and keep its embeddings"
                    )
                return vectors
        raise ValueError(
            f"kept embeddings must have every relabelled episode, in the order of the corpus, got none of "
            f"{episode.episode_id!r} in {self._path}; give the embeddings of this corpus, or label it again and keep them"
        )

    def _read(self) -> Iterator[tuple[str, list[int], np.ndarray]]:
        current: tuple[str, list[int], list[np.ndarray]] | None = None
        for read in read_embedding_rows(self._path):
            for episode_id, group in itertools.groupby(range(len(read.episode_ids)), key=read.episode_ids.__getitem__):
                rows = list(group)
                if current is not None and current[0] != episode_id:
                    yield current[0], current[1], np.concatenate(current[2])
                    current = None
                current = current or (episode_id, [], [])
                current[1].extend(read.frame_indices[rows[0] : rows[-1] + 1])
                current[2].append(read.embeddings[rows[0] : rows[-1] + 1])
        if current is not None:
            yield current[0], current[1], np.concatenate(current[2])
