import json
from pathlib import Path

import pytest
from PIL import Image

from offline_rl.rollout import RolloutSettings, rollout

LEVEL = "BabyAI-GoToObj-v0"


def test_a_rollout_leaves_figures_records_videos_and_a_page(trained: Path, tmp_path: Path) -> None:
    evaluation = rollout(trained, tmp_path / "rollout", RolloutSettings(envs=(LEVEL,), episodes=5, videos=2))
    record = json.loads((tmp_path / "rollout" / "rollout.json").read_text())
    assert len(record["episodes"]) == record["summary"]["episodes"] == 5
    assert record["summary"]["success"]["mean"] == sum(episode["success"] for episode in record["episodes"]) / 5
    videos = sorted((tmp_path / "rollout").glob("*.gif"))
    assert [video.name for video in videos] == ["episode-000.gif", "episode-001.gif"]
    with Image.open(videos[0]) as video:
        assert video.size == (224, 258)
        assert video.n_frames >= 2
        assert (
            video.n_frames <= evaluation.episodes[0].num_steps + 1
        )  # equal frames in a row may be one of longer duration
    page = (tmp_path / "rollout" / "index.html").read_text()
    assert 'src="episode-001.gif"' in page
    assert "http" not in page


def test_the_same_levels_are_played_again(trained: Path, tmp_path: Path) -> None:
    settings = RolloutSettings(envs=(LEVEL,), episodes=3, videos=0)
    assert rollout(trained, tmp_path / "a", settings).episodes == rollout(trained, tmp_path / "b", settings).episodes


def test_an_agent_without_an_environment_must_be_told_one(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="an environment must be named, got none, .*give --env"):
        rollout(trained, tmp_path / "rollout", RolloutSettings())


def test_held_out_goals_must_have_been_held_out(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="held-out goals must be goals that the agent was never trained on, got an agent"
    ):
        rollout(trained, tmp_path / "rollout", RolloutSettings(envs=(LEVEL,), held_out_goals=True))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"episodes": 0}, "episodes must be at least 1, got 0"),
        ({"temperature": 0.0}, "temperature must be above 0 and finite, got 0.0"),
    ],
)
def test_settings_that_cannot_be(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RolloutSettings(**given)
