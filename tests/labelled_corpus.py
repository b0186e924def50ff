"""A small labelled corpus for tests: real shards, real label parts, scores and truth drawn by hand or at random."""

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from vlm_rewards.pipelines.engine.outputs import OutputFolder
from vlm_rewards.schemas.episodes import CorpusFeatures, Episode
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.formats.corpus import MAX_UNIT_BYTES, open_corpus, writable_format, write_episodes
from vlm_rewards.schemas.goals import Goal, write_goals
from vlm_rewards.schemas.labels import LabelMetadata, label_schema
from vlm_rewards.schemas.manifests import Failure
from vlm_rewards.schemas.rules import RewardRule

GOALS = (
    Goal("see-ball", "a ball is <b>seen</b>", "see"),
    Goal("see-box", "a box is seen", "see"),
    Goal("hold-ball", "a ball is held", "hold & carry"),
    Goal("hold-box", "a box is held", "hold & carry"),
)
THRESHOLD = 0.5


@dataclasses.dataclass(frozen=True)
class Labelled:
    """One episode: truth [F, G] bool, scores [F, G] float32, and the frames that have a label."""

    episode_id: str
    truth: np.ndarray
    scores: np.ndarray
    frames: Sequence[int]


def draw_episodes(num_episodes: int, seed: int = 0, num_goals: int = len(GOALS)) -> list[Labelled]:
    """Episodes of 5 to 29 frames; the scores tell truth from falsehood most of the time."""
    rng = np.random.default_rng(seed)
    episodes = []
    for number in range(num_episodes):
        num_frames = int(rng.integers(5, 30))
        truth = rng.random((num_frames, num_goals)) < 0.15
        scores = 1 / (1 + np.exp(-rng.normal(-3, 2, truth.shape) - 5 * truth))
        episodes.append(Labelled(f"episode-{number:03d}", truth, scores.astype(np.float32), range(num_frames)))
    return episodes


def picture(seed: int, size: int = 12) -> bytes:
    """A PNG."""
    pixels = np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_corpus(
    folder: Path,
    episodes: Sequence[Labelled],
    *,
    num_shards: int = 2,
    format_name: str = "parquet",
    goals: Sequence[Goal] = GOALS,
    with_truth: bool = True,
    picture_size: int = 12,
    instructions: Sequence[str] | None = None,
) -> Path:
    """Writes shards and goals.jsonl."""
    folder.mkdir(parents=True)
    write_goals(goals, folder / "goals.jsonl")
    for shard, numbers in enumerate(np.array_split(np.arange(len(episodes)), num_shards)):
        records = [
            Episode(
                episode_id=episode.episode_id,
                images={"front": [picture(frame, picture_size) for frame in range(len(episode.truth))]},
                actions=np.zeros(len(episode.truth) - 1, np.int64),
                achieved_goals=[[goals[g].id for g in np.flatnonzero(row)] for row in episode.truth]
                if with_truth
                else None,
                instruction=None if instructions is None else instructions[number],
            )
            for number, episode in ((number, episodes[number]) for number in numbers)
        ]
        path = folder / f"shard-{shard:02d}.{writable_format(format_name).extension}"
        write_episodes(path, CorpusFeatures.of(records[0]), records, format_name)
    return folder


def write_labels(
    folder: Path,
    corpus: Path,
    episodes: Sequence[Labelled],
    *,
    goals: Sequence[Goal] = GOALS,
    sparse: bool = False,
    max_unit_bytes: int = MAX_UNIT_BYTES,
    rule: RewardRule | None = None,
) -> Path:
    """Writes a finished folder of labels, a part for every unit of the corpus."""
    fingerprint = Fingerprint({"weights": "sha256:0", "camera": "front", "goals": [goal.id for goal in goals] * 20})
    metadata = LabelMetadata(
        goals=tuple(goals),
        rule=rule or RewardRule(thresholds=(THRESHOLD,) * len(goals)),
        formula="softmax",
        fingerprint=fingerprint,
        sparse=sparse,
    )
    output = OutputFolder(
        folder, kind="labels", fingerprint=fingerprint, settings={"max_unit_bytes": max_unit_bytes}, extension="parquet"
    )
    by_id = {episode.episode_id: episode for episode in episodes}
    opened = open_corpus(corpus)
    units = opened.units(max_unit_bytes)
    with output.claim(units):
        for unit in units:
            with output.writing(unit) as part:
                labelled = [by_id[name] for name in opened.episode_ids(unit) if name in by_id]
                for episode in labelled:
                    for frame in sorted(set(range(len(episode.truth))) - set(episode.frames)):
                        detail = "a picture must be whole, got <i>half</i>"
                        shard = unit.shard
                        failure = Failure(
                            scope="frame",
                            shard=shard,
                            episode_id=episode.episode_id,
                            frame_index=frame,
                            reason="undecodable image",
                            detail=detail,
                        )
                        part.fail(failure, 1)
                _write_part(part.path, metadata, labelled)
                part.rows = sum(len(episode.frames) for episode in labelled)
                part.episodes = len(labelled)
                part.seconds.update(encode=1.5, write=0.5)
                part.counts.update(encoded_frames=part.rows - 3, cached_frames=3)
        output.finish(units, max_failure_share=1.0)
    return folder


def _write_part(path: Path, metadata: LabelMetadata, episodes: Sequence[Labelled]) -> None:
    rows = [episode.scores[frame] for episode in episodes for frame in episode.frames]
    columns: list[pa.Array] = [
        pa.array([episode.episode_id for episode in episodes for _ in episode.frames], pa.string()),
        pa.array([frame for episode in episodes for frame in episode.frames], pa.int32()),
    ]
    schema = label_schema(metadata)
    if metadata.sparse:
        over = [np.flatnonzero(row > metadata.rule.threshold_array) for row in rows]
        columns.append(pa.array(over, schema.field("goal_indices").type))
        columns.append(
            pa.array([row[found] for row, found in zip(rows, over, strict=True)], schema.field("goal_scores").type)
        )
    else:
        columns.append(pa.array(rows, schema.field("scores").type))
    pq.write_table(pa.table(columns, schema=schema), path)
