"""Episodes whose frames break off while they stream are dropped as a whole, and said, by `label` and by `hindsight`."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from labelled_corpora import holds, write_labels
from planted_episodes import CAMERAS, planted_episodes
from tiny_models import save_tiny_clip

from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.pipelines.hindsight.relabelling import HindsightSummary, hindsight
from vlm_rewards.pipelines.label.labelling import label
from vlm_rewards.schemas.episodes import CorpusFeatures
from vlm_rewards.schemas.formats.corpus import write_episodes
from vlm_rewards.schemas.formats.label_parts.reader import open_labels
from vlm_rewards.schemas.formats.relabelled_parts.reader import read_relabelled
from vlm_rewards.schemas.goals import Goal

NUM_STEPS = (5, 3, 8, 4)


def corpus_without_a_picture(folder: Path, camera: str) -> Path:
    """The planted episodes, of which episode 2 lacks the picture of frame 6 in a camera."""
    folder.mkdir()
    episodes = planted_episodes()
    path = folder / "a.parquet"
    write_episodes(path, CorpusFeatures.of(episodes[0]), episodes, "parquet")
    table = pq.read_table(path)
    column = f"observation.images.{camera}"
    pictures = table.column(column).to_pylist()
    pictures[sum(steps + 1 for steps in NUM_STEPS[:2]) + 6]["bytes"] = None
    place = table.schema.get_field_index(column)
    pq.write_table(table.set_column(place, table.field(place), pa.array(pictures, table.field(place).type)), path)
    return folder


def failures(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "failures" / "a.jsonl").read_text().splitlines()]


def relabel(corpus: Path, labels: Path, output: Path, container: str) -> HindsightSummary:
    return hindsight(corpus, labels, output=output, format=container, ratio=(1, 1, 0), max_failure_share=0.5, workers=1)


@pytest.mark.parametrize("container", ["parquet", "webdataset"])
def test_a_broken_episode_has_no_labels_and_is_not_relabelled(tmp_path: Path, container: str) -> None:
    corpus = corpus_without_a_picture(tmp_path / "corpus", "front")
    clip = save_tiny_clip(tmp_path / "clip")
    goal = Goal("ball", "a red ball", instructions=tuple(f"put cup {number} in the sink" for number in range(4)))
    settings = LabelerSettings(
        model=str(clip),
        goals=(goal,),
        formula="cosine",
        threshold=0.99,
        batch_size=4,
        precision="float32",
    )
    label(corpus, settings, output=tmp_path / "labels", camera="front", workers=1, max_failure_share=0.5)
    labelled = {item.episode_id: len(item.frame_indices) for item in open_labels(tmp_path / "labels").episodes()}
    assert labelled == {"episode-0000": 6, "episode-0001": 4, "episode-0003": 5}  # no frame of the broken one
    (failure,) = failures(tmp_path / "labels")
    assert (failure["scope"], failure["episode_id"], failure["reason"]) == ("episode", "episode-0002", "missing frames")
    assert "got none in frame 6" in failure["detail"]
    relabel(corpus, tmp_path / "labels", tmp_path / "relabelled", container)
    (failure,) = failures(tmp_path / "relabelled")
    assert (failure["episode_id"], failure["reason"]) == ("episode-0002", "unlabelled frame")
    read = list(read_relabelled(tmp_path / "relabelled"))  # each with the goal it was asked for
    assert [episode.episode_id for episode in read] == ["episode-0000", "episode-0001", "episode-0003"]


@pytest.mark.parametrize("container", ["parquet", "webdataset"])
@pytest.mark.parametrize("camera", CAMERAS)
def test_a_labelled_episode_that_breaks_off_is_not_relabelled_by_half(
    tmp_path: Path, container: str, camera: str
) -> None:
    """As where labels were made of another camera, or before a disk failed."""
    corpus = corpus_without_a_picture(tmp_path / "corpus", camera)
    held: Sequence[tuple[str, np.ndarray]] = [
        (episode.episode_id, holds(*["." * steps + "X"] * 4))
        for episode, steps in zip(planted_episodes(), NUM_STEPS, strict=True)
    ]
    labels = write_labels(tmp_path / "labels", corpus, [held])
    summary = relabel(corpus, labels, tmp_path / "relabelled", container)
    (failure,) = failures(tmp_path / "relabelled")
    assert (failure["episode_id"], failure["reason"]) == ("episode-0002", "missing frames")
    assert f"a picture of camera {camera!r}, got none in frame 6" in failure["detail"]
    assert summary.run.manifest["episodes"] == 3
    assert summary.run.manifest["failures"] == {"missing frames": 1}
    read = list(read_relabelled(tmp_path / "relabelled"))
    assert [episode.episode_id for episode in read] == ["episode-0000", "episode-0001", "episode-0003"]
    assert [len(list(episode.images["wrist"])) for episode in read] == [6, 4, 5]
    used = sum(count for goal in summary.usage["goals"].values() for count in goal.values())
    assert (
        used == sum(summary.usage["kinds"].values()) == sum(episode.num_goals for episode in read)
    )  # not those of the broken one
