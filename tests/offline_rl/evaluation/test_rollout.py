import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from vlm_rewards.offline_rl.evaluation.rollout import RolloutSettings, rollout
from vlm_rewards.offline_rl.training.train import TrainSettings, resolve_held_out, train

LEVEL = "BabyAI-GoToObj-v0"


def test_a_rollout_leaves_figures_records_videos_and_a_page(trained: Path, tmp_path: Path) -> None:
    evaluation = rollout(trained, output=tmp_path / "rollout", envs=(LEVEL,), episodes=5, videos=2)
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
    assert (
        rollout(trained, output=tmp_path / "a", **vars(settings)).episodes
        == rollout(trained, output=tmp_path / "b", **vars(settings)).episodes
    )


def test_an_agent_without_an_environment_must_be_told_one(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="an environment must be named: got none, .*Give --env. Name one such as Bab"):
        rollout(trained, output=tmp_path / "rollout")


def test_an_agent_folder_does_not_choose_what_is_imported(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "from_elsewhere.py").write_text(
        "from pathlib import Path\n\nPath(__file__).with_suffix('.ran').touch()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    agent = shutil.copytree(trained, tmp_path / "agent")
    record = json.loads((agent / "agent.json").read_text())
    envs = [LEVEL, "from_elsewhere:Room-v0"]
    (agent / "agent.json").write_text(json.dumps({**record, "envs": envs}))
    message = (
        r"modules are imported only where the command names them, got 'from_elsewhere:Room-v0' in the agent folder .*agent. "
        rf"If you trust the module 'from_elsewhere', add: --env {LEVEL} --env from_elsewhere:Room-v0$"
    )
    with pytest.raises(ValueError, match=message):
        rollout(agent, output=tmp_path / "rollout", episodes=2)
    assert not (tmp_path / "from_elsewhere.ran").exists()
    assert not (tmp_path / "rollout").exists()
    # Named by the caller, it is imported; it registers no such environment.
    with pytest.raises(ValueError, match="or registered with gymnasium: got 'from_elsewhere:Room-v0'"):
        rollout(agent, output=tmp_path / "rollout", episodes=2, envs=tuple(envs))
    assert (tmp_path / "from_elsewhere.ran").exists()


def test_held_out_goals_must_have_been_held_out(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="held-out goals must be goals that the agent was never trained on, got an agent"
    ):
        rollout(trained, output=tmp_path / "rollout", envs=(LEVEL,), held_out_goals=True)


def test_progress_is_told_an_episode_at_a_time(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rollout(trained, output=tmp_path / "rollout", envs=(LEVEL,), episodes=3, videos=0)
    assert "rollout: 100%" in capsys.readouterr().err
    assert "levels that nothing was trained on." in (tmp_path / "rollout" / "index.html").read_text()


def test_held_out_goals_alone_are_asked_for(relabelled: Path, tmp_path: Path) -> None:
    held_out = resolve_held_out(relabelled, ["green box", "yellow ball"])
    small = TrainSettings(
        steps=1, batch_size=16, num_actions=7, hold_out=held_out, algorithm_settings={"width": 8, "channels": 8}
    )
    train(relabelled, output=tmp_path / "agent", **vars(small))
    settings = RolloutSettings(envs=(LEVEL,), episodes=3, videos=0, held_out_goals=True)
    evaluation = rollout(tmp_path / "agent", output=tmp_path / "rollout", **vars(settings))
    assert {record.goal_id for record in evaluation.episodes} <= set(held_out)
    assert "asked for goals that were held out of its training" in (tmp_path / "rollout" / "index.html").read_text()


@pytest.mark.parametrize(
    ("part", "other", "message"),
    [
        ("weights", "of another model", "got other weights"),
        ("camera", "wrist", r'got other camera \(camera is "wrist" there and "egocentric" here\)'),
    ],
)
def test_a_model_or_camera_other_than_the_labels_judges_nothing(
    trained: Path, tmp_path: Path, part: str, other: str, message: str
) -> None:
    agent = shutil.copytree(trained, tmp_path / "agent")
    record = json.loads((agent / "agent.json").read_text())
    record["labels_fingerprint"][part] = other
    (agent / "agent.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=message):
        rollout(agent, output=tmp_path / "rollout", envs=(LEVEL,), episodes=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"camera": "top"},
            "must show the camera that the agent was trained on, 'top', got 'egocentric'; train an agent",
        ),
        (
            {"frames": "lidar"},
            "frames must be 'observation', 'render' or a key of CartPole-v1's observation, got 'lidar'",
        ),
        ({"frames": "render"}, r"must have the observation_shape that the agent was trained on, \(56, 56, 3\), got"),
    ],
)
def test_an_agent_says_which_frames_it_is_shown(trained: Path, tmp_path: Path, change: dict, message: str) -> None:
    agent = shutil.copytree(trained, tmp_path / "agent")
    record = json.loads((agent / "agent.json").read_text())
    (agent / "agent.json").write_text(json.dumps({**record, **change}))
    env = "CartPole-v1" if "frames" in change else LEVEL
    with pytest.raises(ValueError, match=message):
        rollout(agent, output=tmp_path / "rollout", envs=(env,), episodes=3)


def test_frames_and_camera_can_be_given(trained: Path, tmp_path: Path) -> None:
    settings = RolloutSettings(envs=("CartPole-v1",), episodes=3)
    with pytest.raises(ValueError, match=r"must be an RGB frame, .*; choose the frame with --frames"):
        rollout(trained, output=tmp_path / "rollout", **vars(settings))
    with pytest.raises(ValueError, match=r"must have the observation_shape .* \(56, 56, 3\), got"):
        rollout(trained, output=tmp_path / "rollout", **vars(dataclasses.replace(settings, frames="render")))
    with pytest.raises(ValueError, match="must show the camera that the agent was trained on, 'egocentric', got 'top'"):
        rollout(trained, output=tmp_path / "rollout", **vars(dataclasses.replace(settings, camera="top")))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"episodes": 0}, "episodes must be at least 1, got 0"),
        ({"temperature": -1.0}, "temperature must be above 0 and finite, got -1.0"),
    ],
)
def test_settings_that_cannot_be(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RolloutSettings(**given)
