import numpy as np
import pytest
from dot_domain import CORNERS, DOT, GOALS

from vlm_rewards.labelers.domains import domain as domain_module
from vlm_rewards.offline_rl.environments.environments import EnvironmentSettings, make_environments
from vlm_rewards.schemas.goals import Goal


@pytest.fixture(autouse=True)
def dots(monkeypatch):
    """The toy domain alone is there."""
    monkeypatch.setattr(domain_module, "_domains", lambda *_: {"dot": DOT})


def begin(goals, episodes=40):
    """Goal, colour and mission of some episodes, with the environments after them."""
    envs = make_environments(EnvironmentSettings(envs=("Dot-v0",), num_envs=2, max_steps=9), goals)
    found = []
    for _ in range(episodes // 2):
        _, infos = envs.reset()
        for index, env in enumerate(envs.envs):
            found.append((infos["goal_id"][index], env._level.colour, infos["mission"][index]))
    return found, envs


def test_an_episode_is_asked_for_a_goal_of_its_level_that_is_among_the_goals_given():
    given = [GOALS["red", "top left"], GOALS["green", "bottom left"], GOALS["green", "bottom right"]]
    met, _ = begin(given)
    # A dot keeps its colour: levels of blue dots are passed over, and no red dot is sent to a green dot's corner.
    assert {(goal, colour) for goal, colour, _ in met} == {
        ("red-top-left", "red"),
        ("green-bottom-left", "green"),
        ("green-bottom-right", "green"),
    }
    by_id = {goal.id: goal for goal in given}
    assert all(mission == by_id[goal].instructions[0] for goal, _, mission in met)  # the level was told


def test_with_all_goals_the_levels_own_mission_is_kept():
    met, _ = begin(list(GOALS.values()))
    assert {goal for goal, _, _ in met} == {goal.id for goal in GOALS.values()}
    level = DOT.make("Dot-v0", frame_size=(32, 32), cameras=("top",))
    envs = make_environments(EnvironmentSettings(envs=("Dot-v0",), num_envs=2), list(GOALS.values()))
    for _ in range(6):
        _, infos = envs.reset()
        for index in range(2):
            level.reset(int(infos["level_seed"][index]))
            assert infos["mission"][index] == level.mission


def test_a_goal_of_ones_own_is_found_by_its_instruction():
    own = Goal("mine", "something red up there", instructions=("Move the red dot to the top left corner.",))
    met, envs = begin([own], episodes=6)
    assert {(goal, colour) for goal, colour, _ in met} == {("mine", "red")}
    _, _, _, _, infos = envs.step(np.zeros(2, np.int64))
    assert "ground_truth" not in infos  # the domain does not know this goal
    assert infos["mission_done"].tolist() == [False, False]


def test_goals_that_no_level_can_be_asked_for_are_refused():
    with pytest.raises(
        ValueError, match="Dot-v0 can be asked for none of the 1 goals: got none in 1000 levels, .* 'move the"
    ):
        begin([Goal("lift-red-dot", "the agent carries a red dot")], episodes=2)


def test_the_truth_and_the_level_judge_the_goal_that_was_asked_for():
    _, envs = begin([GOALS["red", "bottom right"]], episodes=2)
    infos = None
    for action in (1, 1, 3, 3):  # right and down, from one of the four cells in the middle
        _, rewards, terminations, _, infos = envs.step(np.full(2, action))
    at = [env._level.cell for env in envs.envs]
    assert at == [CORNERS["bottom right"]] * 2
    assert infos["ground_truth"].tolist() == infos["mission_done"].tolist() == [True, True]
    assert not terminations.any()
    _, rewards, _, _, infos = envs.step(np.zeros(2, np.int64))  # to the left: it holds no more
    assert infos["ground_truth"].tolist() == [False, False]
    assert infos["mission_done"].tolist() == [True, True]
    assert rewards.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("camera", ["top", "mirror"])
def test_the_camera_and_the_size_asked_for_are_shown(camera):
    settings = EnvironmentSettings(envs=("Dot-v0",), num_envs=1, camera=camera, frame_size=(64, 64))
    envs = make_environments(settings, list(GOALS.values()))
    frames, infos = envs.reset()
    level = DOT.make("Dot-v0", frame_size=(64, 64), cameras=("top",))
    top = level.reset(int(infos["level_seed"][0])).frames["top"]
    np.testing.assert_array_equal(frames[0], top if camera == "top" else top[:, ::-1])
