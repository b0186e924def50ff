"""LiveRewards around environments that know nothing of this package, below wrappers that know nothing of it either."""

import builtins
import importlib
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics
from live_environments import GOALS, ScriptedEnv, frames, live_labeler, vector

from vlm_rewards.labelers.labeler import Labeler
from vlm_rewards.offline_rl.online.live_reward_settings import LiveRewardSettings
from vlm_rewards.offline_rl.online.live_rewards import LiveRewards

POOL = frames(12)
RENDERED = LiveRewardSettings(frames="render")


class PlainEnv(ScriptedEnv):
    """Names no goal."""

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        frame, infos = super().reset(seed=seed, options=options)
        return frame, {key: value for key, value in infos.items() if key != "goal_id"}


@pytest.fixture(scope="module")
def labeler(tmp_path_factory: pytest.TempPathFactory) -> Labeler:
    return live_labeler(tmp_path_factory.mktemp("clip"), POOL)[0]


def actions(env: LiveRewards) -> np.ndarray:
    return np.zeros(env.num_envs, np.int64)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_goals_are_drawn_and_every_reward_is_the_labelers_for_the_goal_at_hand(
    labeler: Labeler, mode: AutoresetMode
) -> None:
    script = POOL[:4]
    envs = LiveRewards(vector(*[PlainEnv(script, reward=9.0) for _ in range(3)], mode=mode), labeler)
    scores = labeler(script)
    _, infos = envs.reset(seed=0)
    asked, t = set(), 0  # all environments show the same frame: of the script the t-th
    for _ in range(40):
        goals = [goal.id for goal in envs.current_goals]
        assert infos["goal_id"].tolist() == goals
        assert infos["goal"].tolist() == [goal.text for goal in envs.current_goals]
        columns = envs.goal_indices.copy()
        assert infos["score"].tolist() == scores[t, columns].tolist()
        observations, rewards, terminations, truncations, infos = envs.step(actions(envs))
        resets = t == 3  # only with NEXT_STEP
        t = 0 if resets else t + 1
        holds = np.zeros(3) if resets else scores[t, columns] > labeler.rule.threshold_array[columns]
        assert rewards.dtype == np.float32
        assert rewards.tolist() == holds.tolist()
        assert not terminations.any()
        assert truncations.tolist() == [t == 3] * 3
        if t == 3 and mode is AutoresetMode.SAME_STEP:
            assert infos["final_info"]["goal_id"].tolist() == goals
            assert infos["final_info"]["score"].tolist() == scores[3, columns].tolist()
            assert all(np.array_equal(last, script[3]) for last in infos["final_obs"])
            t = 0
        assert observations in envs.observation_space
        asked.update(goals)
    assert asked == {goal.id for goal in GOALS}


def test_the_same_seed_gives_the_same_goals_and_rewards(labeler: Labeler) -> None:
    def play(seed: int) -> list:
        envs = LiveRewards(vector(PlainEnv(POOL[:3]), PlainEnv(POOL[3:6]), mode=AutoresetMode.NEXT_STEP), labeler)
        told = [envs.reset(seed=seed)[1]["goal_id"].tolist()]
        for _ in range(30):
            _, rewards, _, _, infos = envs.step(actions(envs))
            told += [rewards.tolist(), infos["goal_id"].tolist()]
        return told

    assert play(3) == play(3)
    assert play(3) != play(4)


def test_an_environments_own_ends_and_infos_pass_through(labeler: Labeler) -> None:
    info = {"lives": 3, "score": 1000}
    for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
        env = vector(PlainEnv(POOL[:2], end="terminated", reward=9.0, info=info), mode=mode)
        envs = LiveRewards(env, labeler)
        _, infos = envs.reset(seed=0)
        assert infos["lives"].tolist() == [3]
        _, _, terminations, truncations, infos = envs.step(actions(envs))
        assert (terminations.tolist(), truncations.tolist()) == ([True], [False])
        assert infos["lives"].tolist() == [3]
        assert infos["score"].tolist() != [1000]  # the labeler's, which stands before the environment's own
        assert envs.environment_infos["score"].tolist() == [1000]
        assert envs.environment_rewards.tolist() == [9.0]
        if mode is AutoresetMode.SAME_STEP:
            assert infos["final_info"]["lives"].tolist() == [3]


def test_only_goals_that_are_allowed_are_asked_for(labeler: Labeler) -> None:
    envs = LiveRewards(vector(PlainEnv(POOL[:2]), mode=AutoresetMode.NEXT_STEP), labeler, goals=["box"])
    asked = {envs.reset()[1]["goal_id"][0]} | {envs.step(actions(envs))[4]["goal_id"][0] for _ in range(40)}
    assert asked == {"box"}
    other = LiveRewards(vector(ScriptedEnv(POOL[:2], ["ball"])), labeler, goals=["box"])
    with pytest.raises(ValueError, match=r"goal_id in the infos of a reset must be one of the 1 goals .* got 'ball'"):
        other.reset()


def test_rendered_frames_are_judged_and_the_observation_is_the_environments_own(labeler: Labeler) -> None:
    envs = LiveRewards(gymnasium.make_vec("CartPole-v1", 2, render_mode="rgb_array"), labeler, **vars(RENDERED))
    observations, infos = envs.reset(seed=1)
    envs.action_space.seed(1)
    assert observations.shape == (2, 4)
    steps = ends = 0
    while not (steps > 10 and ends):
        goals = envs.goal_indices.copy()
        resetting = envs._ended.copy()
        observations, rewards, terminations, _, infos = envs.step(envs.action_space.sample())
        assert observations in envs.observation_space
        scores = labeler(np.stack(envs.env.render()))
        assert infos["score"].tolist() == scores[np.arange(2), envs.goal_indices].tolist()
        expected = (scores[np.arange(2), goals] > labeler.rule.threshold_array[goals]) & ~resetting
        assert rewards.tolist() == expected.tolist()
        steps, ends = steps + 1, ends + int(terminations.sum())
    envs.close()


def test_environments_in_processes_of_their_own(labeler: Labeler) -> None:
    apart, here = (
        LiveRewards(
            gymnasium.make_vec("CartPole-v1", 2, render_mode="rgb_array", vectorization_mode=mode),
            labeler,
            **vars(RENDERED),
        )
        for mode in ("async", "sync")
    )
    told = []
    for envs in (apart, here):
        envs.reset(seed=2)
        played = [envs.step(np.array([t % 2, 1])) for t in range(15)]
        told.append([(rewards.tolist(), infos["score"].tolist()) for _, rewards, _, _, infos in played])
        envs.close()
    assert told[0] == told[1]


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_gymnasiums_own_wrappers_stand_on_it(labeler: Labeler, mode: AutoresetMode) -> None:
    script = POOL[:5]
    live = LiveRewards(vector(PlainEnv(script), PlainEnv(script), mode=mode), labeler)
    envs = DictInfoToList(RecordEpisodeStatistics(live))
    _, infos = envs.reset(seed=0)
    assert [sorted(info) for info in infos] == [["goal", "goal_id", "score"]] * 2
    episodes, returns, now = [], np.zeros(2), np.zeros(2, np.bool_)
    for _ in range(20):
        _, rewards, _, truncations, infos = envs.step(actions(live))
        returns = np.where(now & (mode is AutoresetMode.NEXT_STEP), 0, returns) + rewards
        for index in np.flatnonzero(truncations):
            episodes.append((infos[index]["episode"]["r"], returns[index]))
            assert infos[index]["episode"]["l"] == 4
        returns = np.where(truncations & (mode is AutoresetMode.SAME_STEP), 0, returns)
        now = truncations
    assert len(episodes) >= 6
    assert all(recorded == own for recorded, own in episodes)


def test_what_is_missing_is_said_before_anything_is_made(labeler: Labeler) -> None:
    with pytest.raises(ValueError, match=r"the frames 'observation' must be RGB, .* Set frames to 'render'"):
        LiveRewards(gymnasium.make_vec("CartPole-v1", 1), labeler)
    with pytest.raises(ValueError, match="render_mode must be 'rgb_array' where frames are rendered, got None"):
        LiveRewards(gymnasium.make_vec("CartPole-v1", 1), labeler, **vars(RENDERED))
    with pytest.raises(ValueError, match="goals must be ids of the 2 goals of the labeler, at least one, got 'cup'"):
        LiveRewards(vector(PlainEnv(POOL)), labeler, goals=["cup"])


def test_without_gymnasium_its_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "vlm_rewards.offline_rl.online.live_rewards"
    ordinary = builtins.__import__

    def without(module: str, *args: object, **kwargs: object) -> object:
        if module.startswith("gymnasium"):
            raise ModuleNotFoundError(f"No module named {module!r}")
        return ordinary(module, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, name)
        patch.setattr(builtins, "__import__", without)
        with pytest.raises(
            ImportError, match=r"live rewards need gymnasium 1.1 or newer, got .* pip install 'gymnasium>=1.1'"
        ):
            importlib.import_module(name)
