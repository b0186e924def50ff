"""The work on one unit: episodes that break off leave no row, and nothing is kept of those that have ended."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from small_corpora import plain_episode
from tiny_models import save_tiny_clip

from vlm_rewards.labelers.scoring.windows import EpisodeScorer, WindowSettings
from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.pipelines.label.planning import LabelPlan, plan_label
from vlm_rewards.pipelines.label.settings import LabelRun
from vlm_rewards.schemas.episodes import CorpusFeatures, Episode, Frame
from vlm_rewards.schemas.formats.corpus import BrokenEpisodeError, write_episodes
from vlm_rewards.schemas.goals import Goal
from vlm_rewards.schemas.manifests import Failure

GOALS = (Goal("red", "a red ball"), Goal("blue", "a blue ball"))
EPISODES = [plain_episode(index, num_steps=150 if index == 1 else 30) for index in range(4)]
REASON = Failure(scope="episode", shard="s", episode_id="episode-0001", reason="cut short", detail="d", num_frames=151)


class BreaksOff(Sequence[Frame]):
    """The first frames of an episode, and then its end."""

    def __init__(self, frames: Sequence[Frame], kept: int) -> None:
        self._frames, self._kept = frames, kept

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: Any) -> Any:
        return self._frames[index]

    def __iter__(self) -> Iterator[Frame]:
        yield from list(self._frames)[: self._kept]
        raise BrokenEpisodeError(REASON)


@dataclasses.dataclass(frozen=True)
class Held:
    """A corpus in memory."""

    held: Sequence[Episode | Failure]

    def decoders(self, camera: str) -> dict[str, str]:
        return {}

    def episodes(self, *_: object, **__: object) -> Iterator[Episode | Failure]:
        yield from self.held


def planned(tmp_path: Path, name: str, embeddings: bool, **settings: Any) -> LabelPlan:
    if not (tmp_path / "corpus").exists():
        save_tiny_clip(tmp_path / "clip")
        (tmp_path / "corpus").mkdir()
        write_episodes(tmp_path / "corpus" / "a.parquet", CorpusFeatures.of(EPISODES[0]), EPISODES, "parquet")
    labeler = LabelerSettings(model=str(tmp_path / "clip"), goals=GOALS, batch_size=8, **settings)
    kept = tmp_path / f"{name}-embeddings" if embeddings else None
    return plan_label(tmp_path / "corpus", labeler, tmp_path / name, LabelRun(embeddings=kept))


def do(plan: LabelPlan, held: Sequence[Episode | Failure]) -> tuple[Path, Any]:
    """Labels the episodes as the plan's unit; returns its part and marker."""
    (unit,) = plan.units
    work = dataclasses.replace(plan.work, corpus=Held(held))  # type: ignore[arg-type]
    folders = [plan.output] if work.embeddings is None else [plan.output, work.embeddings]
    for folder in folders:
        for name in ("parts", "markers", "progress"):
            (folder.path / name).mkdir(parents=True, exist_ok=True)
    with plan.output.writing(unit) as part:
        work(unit, part)
    return plan.output.part_path(unit), plan.output.read_marker(unit)


@pytest.mark.parametrize("embeddings", [False, True])
@pytest.mark.parametrize(
    "kept_frames", [0, 20, 130]
)  # none, fewer than a group of 64, and two groups: those are written
def test_an_episode_that_breaks_off_leaves_no_row(tmp_path: Path, embeddings: bool, kept_frames: int) -> None:
    broken = dataclasses.replace(EPISODES[1], images={"front": BreaksOff(EPISODES[1].images["front"], kept_frames)})
    plan = planned(tmp_path, "broken", embeddings)
    part, marker = do(plan, [EPISODES[0], broken, *EPISODES[2:]])
    whole, expected = do(planned(tmp_path, "whole", embeddings), [EPISODES[0], *EPISODES[2:]])
    assert sorted(set(pq.read_table(part)["episode_id"].to_pylist())) == [
        "episode-0000",
        "episode-0002",
        "episode-0003",
    ]
    assert part.read_bytes() == whole.read_bytes()
    assert (marker.rows, marker.episodes) == (expected.rows, expected.episodes) == (3 * 31, 3)
    assert (marker.failures, marker.failed_frames) == ({"cut short": 1}, 151)
    if embeddings:
        assert plan.work.embeddings is not None
        kept = pq.read_table(plan.work.embeddings.part_path(plan.units[0]))
        assert kept["episode_id"].to_pylist() == pq.read_table(part)["episode_id"].to_pylist()


@pytest.mark.parametrize("embeddings", [False, True])
def test_an_episode_that_goes_on_elsewhere_leaves_no_row(tmp_path: Path, embeddings: bool) -> None:
    planned(tmp_path, "scattered", embeddings)
    (folder := tmp_path / "corpus" / "a.parquet").unlink()
    write_episodes(folder, CorpusFeatures.of(EPISODES[0]), EPISODES, "parquet")
    table = pq.read_table(folder)  # rows 0 to 30, 31 to 181, 182 to 212, 213 to 243
    rows = [*range(31), *range(31, 131), *range(182, 244), *range(131, 182)]  # the second goes on at the end
    pq.write_table(table.take(rows), folder)
    plan = planned(tmp_path, "scattered", embeddings)
    (unit,) = plan.units
    assert plan.work.corpus is not None
    part, marker = do(plan, list(plan.work.corpus.episodes(unit)))
    whole, expected = do(planned(tmp_path, "whole", embeddings), [EPISODES[0], *EPISODES[2:]])
    ids = ["episode-0000", "episode-0002", "episode-0003"]
    assert sorted(set(pq.read_table(part)["episode_id"].to_pylist())) == ids
    assert pq.read_table(part).equals(pq.read_table(whole))
    assert (marker.rows, marker.episodes) == (expected.rows, expected.episodes) == (3 * 31, 3)
    assert (marker.failures, marker.failed_frames) == ({"scattered episode": 1}, 151)
    (failure,) = plan.output.failures_path(unit).read_text().splitlines()
    assert "got 'episode-0001' again from frame_index 100 on. Sort the rows by episode_id and frame_index" in failure
    if embeddings:
        assert plan.work.embeddings is not None
        kept = pq.read_table(plan.work.embeddings.part_path(unit))
        assert kept["episode_id"].to_pylist() == pq.read_table(part)["episode_id"].to_pylist()


def test_windows_of_episodes_that_have_ended_are_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[EpisodeScorer] = []
    begin = EpisodeScorer.__init__

    def noted(self: EpisodeScorer, *arguments: Any) -> None:
        begin(self, *arguments)
        made.append(self)

    monkeypatch.setattr(EpisodeScorer, "__init__", noted)
    do(planned(tmp_path, "labels", False, window=WindowSettings(frames=3)), EPISODES)
    (scorer,) = made
    assert list(scorer._windows._recent) == ["episode-0003"]  # of thousands, one is in memory
