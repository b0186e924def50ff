"""Small labelled corpora: real shards, and label folders as `vlm-rewards label` leaves them, with scores given by hand."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from vlm_rewards.pipelines.engine.outputs import OutputFolder
from vlm_rewards.schemas.episodes import CorpusFeatures, Episode
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.formats.corpus import open_corpus, writable_format, write_episodes
from vlm_rewards.schemas.goals import Goal
from vlm_rewards.schemas.labels import LabelMetadata, label_schema
from vlm_rewards.schemas.relabelled import RelabelledEpisode
from vlm_rewards.schemas.rules import RewardRule

GOALS = (
    Goal(id="ball", text="at the ball", instructions=("go to the ball",)),
    Goal(id="box", text="at the box", instructions=("go to the box",)),
    Goal(id="near", text="the ball is near the box", group="side"),
    Goal(id="beside", text="the box is near the ball", group="side"),
)
THRESHOLD = 0.5


def picture(value: int) -> bytes:
    """A PNG of 8 x 8 pixels that are all of this value."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def episode(episode_id: str, num_frames: int, *, final_frame: bool = True, instruction: str | None = None) -> Episode:
    """An episode whose frame t is of value t and whose action t is 10 t; its rewards are 7, to be told from ours."""
    num_steps = num_frames - final_frame
    return Episode(
        episode_id=episode_id,
        images={"main": [picture(t % 256) for t in range(num_frames)]},
        actions=10 * np.arange(num_steps),
        rewards=np.full(num_steps, 7, np.float32),
        terminations=np.zeros(num_steps, np.bool_),
        truncations=np.zeros(num_steps, np.bool_),
        states=np.arange(2 * num_frames, dtype=np.float32).reshape(num_frames, 2),
        instruction=instruction,
    )


def write_corpus(folder: Path, shards: Sequence[Sequence[Episode]], format_name: str = "parquet") -> Path:
    """Writes one shard a list of episodes."""
    folder.mkdir(parents=True, exist_ok=True)
    features = CorpusFeatures(cameras=("main",), state_size=2)
    for index, episodes in enumerate(shards):
        path = folder / f"shard-{index:03d}.{writable_format(format_name).extension}"
        write_episodes(path, features, episodes, format_name)
    return folder


def label_metadata(goals: Sequence[Goal] = GOALS, *, sparse: bool = False) -> LabelMetadata:
    """Labels of these goals with the threshold above."""
    return LabelMetadata(
        goals=tuple(goals),
        rule=RewardRule(thresholds=(THRESHOLD,) * len(goals)),
        formula="cosine",
        fingerprint=Fingerprint({"weights": "none", "goals": [goal.id for goal in goals]}),
        sparse=sparse,
    )


def label_table(rows: Sequence[tuple[str, int, np.ndarray]], metadata: LabelMetadata) -> pa.Table:
    """A table of labels from (episode_id, frame_index, scores [G])."""
    records = []
    for episode_id, frame_index, scores in rows:
        record: dict[str, object] = {"episode_id": episode_id, "frame_index": frame_index}
        if metadata.sparse:
            over = np.flatnonzero(scores > metadata.rule.threshold_array)
            record |= {"goal_indices": over.tolist(), "goal_scores": scores[over].tolist()}
        else:
            record["scores"] = scores.tolist()
        records.append(record)
    return pa.Table.from_pylist(records, schema=label_schema(metadata))


def write_labels(
    folder: Path,
    corpus: Path,
    shards: Sequence[Sequence[tuple[str, np.ndarray]]],
    *,
    goals: Sequence[Goal] = GOALS,
    sparse: bool = False,
    without: Sequence[tuple[str, int]] = (),
) -> Path:
    """Writes a finished folder of labels.

    Args:
        folder: Where to.
        corpus: What was labelled.
        shards: For each shard, episode ids with [F, G] bool, which goals hold; scores are 0.9 and 0.1.
        goals: The goals.
        sparse: Whether to store only scores over the threshold.
        without: Episodes and frames that have no label.
    """
    metadata = label_metadata(goals, sparse=sparse)
    units = open_corpus(corpus).units()
    output = OutputFolder(
        folder, kind="labels", fingerprint=metadata.fingerprint, settings={"max_unit_bytes": 2**28}, extension="parquet"
    )
    with output.claim(units):
        for unit, episodes in zip(units, shards, strict=True):
            rows = [
                (episode_id, frame, np.where(row, 0.9, 0.1).astype(np.float32))
                for episode_id, achieved in episodes
                for frame, row in enumerate(achieved)
                if (episode_id, frame) not in without
            ]
            with output.writing(unit) as part:
                pq.write_table(label_table(rows, metadata), part.path)
                part.rows, part.episodes = len(rows), len({row[0] for row in rows})
        output.finish(units, max_failure_share=1.0)
    return folder


def write_labels_of(
    folder: Path,
    corpus: Path,
    marks: Mapping[str, np.ndarray],
    *,
    goals: Sequence[Goal] = GOALS,
    options: Mapping[str, str] | None = None,
    sparse: bool = False,
    without: Sequence[tuple[str, int]] = (),
) -> Path:
    """Writes a finished folder of labels of any corpus.

    Args:
        folder: Where to.
        corpus: What was labelled.
        marks: By episode id, [F, G] bool, which goals hold; scores are 0.9 and 0.1.
        goals: The goals.
        options: What the corpus's format was told.
        sparse: Whether to store only scores over the threshold.
        without: Episodes and frames that have no label.
    """
    metadata = label_metadata(goals, sparse=sparse)
    opened = open_corpus(corpus, options)
    units = opened.units()
    settings = {"max_unit_bytes": 2**28, "model": "some/model", "corpus_options": dict(options or {})}
    output = OutputFolder(
        folder, kind="labels", fingerprint=metadata.fingerprint, settings=settings, extension="parquet"
    )
    with output.claim(units):
        for unit in units:
            rows = [
                (name, frame, np.where(row, 0.9, 0.1).astype(np.float32))
                for name in opened.episode_ids(unit)
                for frame, row in enumerate(marks[name])
                if (name, frame) not in without
            ]
            with output.writing(unit) as part:
                pq.write_table(label_table(rows, metadata), part.path)
                part.rows, part.episodes = len(rows), len({row[0] for row in rows})
        output.finish(units, max_failure_share=1.0)
    return folder


def holds(*columns: str) -> np.ndarray:
    """[F, G] bool from one text a goal, "." and "X" a frame."""
    return np.array([[mark == "X" for mark in column] for column in columns]).T


def relabelled(episode_id: str = "a", **given: object) -> RelabelledEpisode:
    """Six frames under goal 0, achieved in frame 4 (steps 1 to 3 belong to it), and goal 1, not achieved."""
    parts = {
        "episode_id": episode_id,
        "images": {"main": [picture(t) for t in range(6)], "wrist": [picture(100 + t) for t in range(6)]},
        "actions": 10 * np.arange(5),
        "goal_ids": ["ball", "box"],
        "goal_texts": ["at the ball", "at the box"],
        "goal_kinds": ["hindsight", "negative"],
        "rewards": np.array([[0, 0, 0, 1, 1], [0, 0, 0, 0, 0]], np.float32),
        "start": np.array([1, 0], np.int32),
        "stop": np.array([4, 5], np.int32),
        "terminated": np.array([True, False]),
        **given,
    }
    return RelabelledEpisode(**parts)
