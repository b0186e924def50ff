import numpy as np
import pytest
from live_environments import ScriptedEnv, frames, vector

from vlm_rewards.offline_rl.online.episode_goals import EpisodeGoals
from vlm_rewards.schemas.goals import Goal

GOALS = tuple(Goal(id=name, text=f"at the {name}") for name in ("box", "ball", "key", "door"))
ALL = np.arange(3)


def draws(goals: EpisodeGoals, episodes: int, envs: np.ndarray = ALL) -> list[list[int]]:
    """The goals of so many episodes, drawn one after the other."""
    drawn = []
    for _ in range(episodes):
        goals.begin(envs, {})
        drawn.append(goals.indices[envs].tolist())
    return drawn


def test_every_allowed_goal_is_drawn_equally_often_and_no_other() -> None:
    goals = EpisodeGoals(GOALS, 3, ["key", "ball"])
    goals.seed(0, ALL)
    assert goals.indices.tolist() == [-1, -1, -1]
    drawn = np.array(draws(goals, 400))
    assert set(drawn.ravel().tolist()) == {1, 2}
    assert (drawn == 2).mean(axis=0) == pytest.approx([0.5] * 3, abs=0.08)
    assert set(np.array(draws(EpisodeGoals(GOALS, 3), 100)).ravel().tolist()) == {0, 1, 2, 3}


def test_an_environment_draws_the_same_goals_whatever_the_others_do() -> None:
    goals, other = EpisodeGoals(GOALS, 3), EpisodeGoals(GOALS, 3)
    goals.seed(5, ALL)
    other.seed([5, 6, 7], ALL)  # as gymnasium reads the seed 5
    together = draws(goals, 20)
    assert [row[1] for row in together] == [row[0] for row in draws(other, 20, np.array([1]))]
    assert [row[0] for row in together] != [row[1] for row in together]
    goals.seed([None, 6, None], ALL)  # the second stream begins again, the others go on
    again = draws(goals, 20)
    assert [row[1] for row in again] == [row[1] for row in together]
    assert [row[0] for row in again] != [row[0] for row in together]


def test_a_goal_that_the_environment_names_is_taken() -> None:
    goals = EpisodeGoals(GOALS, 3)
    goals.seed(0, ALL)
    names = np.array(["door", None, "box"], object)
    goals.begin(ALL, {"goal_id": names, "_goal_id": np.array([True, False, True])})
    assert goals.indices[[0, 2]].tolist() == [3, 0]
    assert 0 <= goals.indices[1] < 4
    goals.begin(np.array([2]), {"goal_id": np.array(["box", "box", "key"], object)})  # without a mask: all name one
    assert goals.indices[[0, 2]].tolist() == [3, 2]


def test_an_environment_says_which_goals_its_episode_can_be_asked_for() -> None:
    goals = EpisodeGoals(GOALS, 3, ["box", "ball", "key"])
    possible = np.empty(3, object)
    possible[:] = [("door", "key", "ball"), None, ["box"]]
    drawn = []
    for _ in range(60):
        goals.begin(ALL, {"goal_ids": possible, "_goal_ids": np.array([True, False, True])})
        drawn.append(goals.indices.tolist())
    assert [set(column) for column in np.array(drawn).T.tolist()] == [
        {1, 2},
        {0, 1, 2},
        {0},
    ]  # the door may not be asked for
    possible[0] = ("door", "window")
    with pytest.raises(
        ValueError, match=r"environment 0 can be asked for none of the 3 goals .* \['door', 'window'\]. Allow"
    ):
        goals.begin(ALL, {"goal_ids": possible})


def test_a_goal_that_may_not_be_asked_for_is_refused() -> None:
    named = {"goal_id": np.array(["door"], object), "_goal_id": np.array([True])}
    EpisodeGoals(GOALS, 1).begin(np.array([0]), named)
    goals = EpisodeGoals(GOALS, 1, ["box", "ball"])
    message = r"one of the 2 goals that may be asked for \(box, ball, ...\), got 'door' in environment 0. Make the env"
    with pytest.raises(ValueError, match=message):
        goals.begin(np.array([0]), named)


def test_goals_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="goals must be ids of the 4 goals .* got 'cup'. Give ids such as 'box'"):
        EpisodeGoals(GOALS, 1, ["box", "cup"])
    with pytest.raises(ValueError, match="goals must be ids of the 4 goals of the labeler, at least one, got 'none'"):
        EpisodeGoals(GOALS, 1, [])


def test_draws_resume_from_a_state() -> None:
    goals, other = EpisodeGoals(GOALS, 3), EpisodeGoals(GOALS, 3)
    draws(goals, 5)
    other.load_state_dict(goals.state_dict())
    assert other.indices.tolist() == goals.indices.tolist()
    assert draws(other, 20) == draws(goals, 20)


def test_states_of_goals_that_environments_name_are_equal() -> None:
    """Nothing random is kept where nothing was drawn, or checkpoints of equal runs would differ."""
    first, second = EpisodeGoals(GOALS, 3), EpisodeGoals(GOALS, 3)
    for goals in (first, second):
        goals.begin(ALL, {"goal_id": np.array(["key", "ball", "door"], object)})
    assert first.state_dict()["draws"] == second.state_dict()["draws"] == [None] * 3
    second.load_state_dict(first.state_dict())
    assert len({tuple(row) for row in draws(second, 50)}) > 1  # an unseeded stream begins with its first draw


def test_what_an_environment_says_comes_through_gymnasiums_vector() -> None:
    envs = vector(ScriptedEnv(frames(2), info={"goal_ids": ("key", "door")}), ScriptedEnv(frames(2)))
    _, infos = envs.reset()
    goals = EpisodeGoals(GOALS, 2, ["key", "box"])
    goals.begin(np.array([0]), {name: value for name, value in infos.items() if "goal_ids" in name})
    assert goals.indices.tolist() == [2, -1]
    goals.begin(np.array([1]), {name: value for name, value in infos.items() if "goal_ids" in name})  # it says nothing
    assert goals.indices[1] in (0, 2)
