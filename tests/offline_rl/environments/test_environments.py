import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from gymnasium.vector import SyncVectorEnv
from live_environments import ScriptedEnv, ShapesEnv, frames, vector

from vlm_rewards.labelers.domains.babyai.domain import BABYAI
from vlm_rewards.labelers.domains.babyai.goals import HELD_OUT_KINDS, goal_bank
from vlm_rewards.labelers.domains.babyai.levels import BabyAILevel, babyai_bot
from vlm_rewards.offline_rl.environments.environments import EnvironmentSettings, make_environments, spaces_of
from vlm_rewards.offline_rl.interfaces import Spaces
from vlm_rewards.offline_rl.training.held_out_goals import split_goals
from vlm_rewards.schemas.goals import Goal

GO_TO, PICK_UP, PUT_NEXT = "BabyAI-GoToLocal-v0", "BabyAI-PickupDist-v0", "BabyAI-PutNextLocal-v0"
BANK = tuple(goal_bank())


def _play(envs: SyncVectorEnv, num_steps: int, actions_seed: int = 0):
    """Frames, goals and level seeds met under random actions, resetting what ends."""
    rng = np.random.default_rng(actions_seed)
    observations, infos = envs.reset()
    seen, seeds = [observations], list(infos["level_seed"])
    for _ in range(num_steps):
        observations, _, terminations, truncations, _ = envs.step(rng.integers(0, 7, envs.num_envs))
        seen.append(observations)
        over = terminations | truncations
        if over.any():
            observations, infos = envs.reset(options={"reset_mask": over})
            seeds += infos["level_seed"][over].tolist()
    return np.stack(seen), seeds


def test_frames_are_those_of_the_recorder_and_the_goal_is_the_missions():
    envs = make_environments(EnvironmentSettings(envs=(GO_TO,), num_envs=2), BANK)
    observations, infos = envs.reset()
    assert envs.single_observation_space == Box(0, 255, (56, 56, 3), np.uint8)
    level = BabyAILevel(GO_TO)
    for i in range(2):
        look = level.reset(int(infos["level_seed"][i]))
        np.testing.assert_array_equal(observations[i], look.frames["egocentric"])
        kind = level.mission.removeprefix("go to the ").removeprefix("go to a ").replace(" ", "-")
        assert infos["goal_id"][i] == f"find-{kind}"
        look = level.step(2)[0]
        np.testing.assert_array_equal(envs.envs[i].step(2)[0], look.frames["egocentric"])


def test_the_same_seed_gives_the_same_episodes_and_another_seed_others(capsys):
    settings = EnvironmentSettings(envs=(GO_TO, PUT_NEXT), num_envs=4, max_steps=5)
    frames_a, seeds_a = _play(make_environments(settings, BANK), 16)
    frames_b, seeds_b = _play(make_environments(settings, BANK), 16)
    np.testing.assert_array_equal(frames_a, frames_b)
    assert seeds_a == seeds_b
    _, others = _play(make_environments(EnvironmentSettings(envs=(GO_TO,), num_envs=4, max_steps=5, seed=1), BANK), 16)
    assert len(seeds_a) == len(set(seeds_a)) == 4 + 3 * 4  # every 5 steps a new episode in all
    assert not set(seeds_a) & set(others)
    assert capsys.readouterr().out == ""  # "Sampling rejected" is BabyAI's own business


def test_live_and_held_out_levels_are_never_the_same():
    for seeds, expected in (("live", BABYAI.seeds.live), ("held-out", BABYAI.seeds.held_out)):
        settings = EnvironmentSettings(envs=(GO_TO,), num_envs=4, max_steps=2, seeds=seeds)
        assert all(int(seed) in expected for seed in _play(make_environments(settings, BANK), 8)[1])


def test_a_seeded_reset_begins_the_same_episode_in_any_environment():
    envs = make_environments(EnvironmentSettings(envs=(GO_TO,), num_envs=3), BANK)
    first, _ = envs.reset(seed=[7, 8, 9])
    second, _ = envs.reset(seed=[9, 7, 8])
    np.testing.assert_array_equal(first[[2, 0, 1]], second)
    assert not np.array_equal(first[0], first[1])


def test_an_episode_goes_on_when_its_mission_is_done_and_ends_at_the_time_limit():
    envs = make_environments(EnvironmentSettings(envs=(GO_TO,), num_envs=1, max_steps=40), BANK)
    envs.reset()
    env = envs.envs[0]
    bot = babyai_bot()(env._level.env.unwrapped)
    rewards, ends, done, truths, action = [], [], [], [], None
    for _ in range(40):
        action = int(bot.replan(action)) if not (done and done[-1]) else 0
        _, reward, terminations, truncations, infos = envs.step(np.array([action]))
        rewards.append(float(reward[0]))
        ends.append((bool(terminations[0]), bool(truncations[0])))
        done.append(bool(infos["mission_done"][0]))
        truths.append(bool(infos["ground_truth"][0]))
    at = done.index(True)
    assert at < 30
    assert truths[at]  # the bot faces the object when the level says so
    assert not any(truths[:at])
    assert sum(reward > 0 for reward in rewards) == 1  # once, though turning round makes it face the object again
    assert rewards[at] > 0
    assert sum(truths[at:]) > 1
    assert ends == [(False, False)] * 39 + [(False, True)]


@pytest.mark.parametrize("level", [GO_TO, PICK_UP, PUT_NEXT])
def test_ground_truth_holds_where_the_bot_has_done_the_mission(level):
    envs = make_environments(EnvironmentSettings(envs=(level,), num_envs=1), BANK)
    for _ in range(8):
        envs.reset()
        bot, action, done = babyai_bot()(envs.envs[0]._level.env.unwrapped), None, False
        for _ in range(200):
            action = int(bot.replan(action))
            _, _, _, _, infos = envs.step(np.array([action]))
            done = bool(infos["mission_done"][0])
            if done:
                break
        assert done
        assert infos["ground_truth"][0]


def test_an_episode_is_gone_on_from_its_state():
    settings = EnvironmentSettings(envs=(GO_TO, PICK_UP), num_envs=2, max_steps=9)
    envs = make_environments(settings, BANK)
    met, _ = _play(envs, 13)
    states = list(envs.call("episode_state"))
    assert [len(state["actions"]) for state in states] == [4, 4]  # 13 = 9 + 4
    assert [state["episode"] for state in states] == [1, 1]
    other = make_environments(settings, BANK)
    resumed, infos = other.reset(options={"episode_states": states})
    np.testing.assert_array_equal(resumed, met[-1])
    assert set(infos) >= {"goal_id", "ground_truth", "mission_done"}
    for action in (2, 1, 2, 0, 2):
        left, right = envs.step(np.full(2, action)), other.step(np.full(2, action))
        for a, b in zip(left[:4], right[:4], strict=True):
            np.testing.assert_array_equal(a, b)
    over = np.ones(2, np.bool_)  # 9 steps are over; the next episodes are the same too
    np.testing.assert_array_equal(
        envs.reset(options={"reset_mask": over})[0], other.reset(options={"reset_mask": over})[0]
    )


def test_environments_ask_for_the_goals_given_and_no_others():
    split = split_goals(BANK, HELD_OUT_KINDS)
    for goals in split:
        envs = make_environments(EnvironmentSettings(envs=(GO_TO,), num_envs=6, max_steps=1), goals)
        met = set()
        for _ in range(4):
            met |= set(envs.reset()[1]["goal_id"])
        assert met <= {goal.id for goal in goals}
        assert len(met) > 1


@pytest.mark.parametrize(("where", "size"), [("camera", 8), ("render", 6)])
def test_any_environment_with_frames_gets_goals_from_a_list(where, size):
    goals = (Goal("a", "one thing"), Goal("b", "another thing"))
    envs = make_environments(EnvironmentSettings(envs=("Shapes-v0",), num_envs=4, frames=where, max_steps=6), goals)
    observations, infos = envs.reset()
    assert observations.shape == (4, size, size, 3)
    met = set(infos["goal_id"])
    for _ in range(6):
        met |= set(envs.reset()[1]["goal_id"])
    assert met == {"a", "b"}
    before = observations = envs.reset(seed=3)[0]
    actions = np.random.default_rng(0).uniform(-1, 1, (4, 2)).astype(np.float32)
    observations, rewards, _, _, infos = envs.step(actions)
    np.testing.assert_array_equal(observations, before + 1)
    assert rewards.tolist() == [1.0] * 4
    assert "ground_truth" not in infos
    state = envs.call("episode_state")
    resumed, _ = envs.reset(options={"episode_states": list(state)})
    np.testing.assert_array_equal(resumed, observations)
    for env, action in zip(envs.envs, actions, strict=True):  # replayed to the last bit, as what they were
        assert env.unwrapped._env.unwrapped.last_action.dtype == np.float32
        np.testing.assert_array_equal(env.unwrapped._env.unwrapped.last_action, action)
    assert spaces_of(envs, 24) == Spaces(
        observation="frames", observation_shape=(size, size, 3), goal_size=24, action_size=2
    )
    envs.close()


def test_spaces_of_embeddings_have_their_own_size():
    envs = vector(ScriptedEnv(frames(3)))
    assert spaces_of(envs, 24) == Spaces(
        observation="frames", observation_shape=(32, 32, 3), goal_size=24, num_actions=3
    )
    assert spaces_of(envs, 24, "embeddings", 16).observation_shape == (16,)
    assert spaces_of(envs, 24, "embeddings").observation_shape == (24,)


def test_observations_and_actions_that_no_agent_takes_are_refused():
    grey = ScriptedEnv(frames(3))
    grey.observation_space = Box(0, 255, (32, 32), np.uint8)
    with pytest.raises(
        ValueError, match=r"the observation must be an RGB frame, .* uint8, got Box\(0.*; choose the frame with"
    ):
        spaces_of(vector(grey), 24)
    floats = ScriptedEnv(frames(3))
    floats.observation_space = Box(0, 1, (32, 32, 3), np.float32)
    with pytest.raises(ValueError, match="must be an RGB frame.* float32"):
        spaces_of(vector(floats), 24)
    for actions in (MultiDiscrete([2, 2]), Discrete(3, start=1)):
        several = ScriptedEnv(frames(3))
        several.action_space = actions
        with pytest.raises(ValueError, match=r"actions must be Discrete from 0 or Box \[A\], got"):
            spaces_of(vector(several), 24)
    wide = ScriptedEnv(frames(3))
    wide.action_space = Box(np.array([-1, -2], np.float32), np.array([1, 2], np.float32))
    with pytest.raises(
        ValueError, match=r"continuous actions must be from -1 to 1, got Box.*; register .* RescaleAction"
    ):
        spaces_of(vector(wide), 24)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"envs": ()}, "envs must name at least one environment: got none. Name one such as BabyAI-GoToLocal-v0"),
        ({"envs": ("BabyAI-GoToLocl-v0",)}, "got 'BabyAI-GoToLocl-v0'. Did you mean BabyAI-GoToLocal-v0"),
        ({"envs": ("CartPol-v1",)}, r"or registered with gymnasium: got 'CartPol-v1'. Did you mean CartPole-v\d"),
        ({"envs": ("??",)}, r"got '\?\?'. Name the module that registers it: MODULE:NAME"),
        (
            {"envs": ("no_such_module:Shapes-v0",)},
            "module of an environment must be importable, got 'no_such_module:Sh.*PYTHONPATH",
        ),
        ({"envs": ("live_environments:Shape-v0",)}, "got 'live_environments:Shape-v0'. Did you mean .*Shapes-v0"),
        ({"num_envs": 0}, "num_envs must be at least 1, got 0"),
        ({"envs": (GO_TO, PICK_UP), "num_envs": 1}, "num_envs must be at least the number of .* named, 2, got 1"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"frame_size": (10, 20)}, "babyai draws no frames of this size: got 10x20. Choose one of 56x56"),
        ({"max_steps": 0}, "max_steps must be at least 1, got 0"),
        ({"seeds": "train"}, "seeds must be one of live, held-out, got 'train'"),
        ({"camera": "top"}, "cameras of babyai must be some of its own, each once: got top. Choose among egocentric"),
        ({"frames": ""}, "frames must be 'observation', 'render' or a key of the observation, got ''"),
    ],
)
def test_settings_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        EnvironmentSettings(**{"envs": (GO_TO,), **changes})


def test_an_environment_that_rests_shows_its_last_frame_until_it_is_reset():
    environments = make_environments(EnvironmentSettings(envs=(GO_TO,), num_envs=2), BANK)
    environments.reset()
    last, *_ = environments.step(np.array([0, 1]))
    options = {"reset_mask": np.array([True, False]), "resting": np.array([True, False])}
    assert np.array_equal(environments.reset(options=options)[0], last)
    for _ in range(3):
        frames_, rewards, terminations, truncations, infos = environments.step(np.array([2, 0]))
        assert np.array_equal(frames_[0], last[0])
        assert (rewards[0], terminations[0], truncations[0]) == (0, False, False)
        assert infos["_ground_truth"].tolist() == [False, True]  # it says nothing of itself
    states = environments.call("episode_state")
    assert (len(states[0]["actions"]), len(states[1]["actions"])) == (1, 4)
    _, infos = environments.reset(options={"reset_mask": np.array([True, False])})
    assert infos["_goal_id"].tolist() == [True, False]
    environments.step(np.array([0, 0]))
    assert len(environments.call("episode_state")[0]["actions"]) == 1
    environments.close()


def test_an_environment_of_ones_own_is_named_with_its_module(tmp_path, monkeypatch):
    (tmp_path / "grey_rooms.py").write_text(
        "import gymnasium\nfrom live_environments import ShapesEnv\ngymnasium.register('GreyRooms-v0', ShapesEnv)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    settings = EnvironmentSettings(envs=("grey_rooms:GreyRooms-v0",), num_envs=2, frames="camera")
    environments = make_environments(settings, BANK)
    frames_, infos = environments.reset()
    assert frames_.shape == (2, 8, 8, 3)
    assert set(infos["goal_id"]) <= {goal.id for goal in BANK}
    environments.close()


def test_goals_that_cannot_be_are_refused():
    settings = EnvironmentSettings(envs=(GO_TO,), num_envs=1)
    with pytest.raises(ValueError, match="goals must be at least one, got none"):
        make_environments(settings, ())
    lift = tuple(goal for goal in BANK if goal.family == "lift")
    with pytest.raises(
        ValueError,
        match="BabyAI-GoToLocal-v0 can be asked for none of the 18 goals: got none in 1000 levels, .* 'go to the",
    ):
        make_environments(settings, lift).reset()
    with pytest.raises(
        ValueError, match="frames must be 'observation', 'render' or a key .* got 'lidar'; its keys are camera"
    ):
        make_environments(EnvironmentSettings(envs=("Shapes-v0",), frames="lidar"), BANK)


def test_without_gymnasium_the_remedy_is_named():
    code = "import sys; sys.modules['gymnasium'] = None; import vlm_rewards.offline_rl.environments.environments"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: to play environments, gymnasium 1.1 or newer must be installed, got import of" in done.stderr
    assert "pip install 'gymnasium>=1.1'" in done.stderr


class _ChoosyEnv(ShapesEnv):
    """Says which goals an episode can be asked for: "a" in half of the episodes, "b" and "c" in the others."""

    def reset(self, *, seed=None, options=None):
        observation, _ = super().reset(seed=seed)
        return observation, {"goal_ids": ("a",) if self.shade % 2 else ("b", "c")}


gymnasium.register("Choosy-v0", _ChoosyEnv)


def test_an_environment_says_which_goals_its_episodes_can_be_asked_for():
    goals = {key: Goal(key, f"thing {key}") for key in "abcd"}
    settings = EnvironmentSettings(envs=("Choosy-v0",), num_envs=4, frames="camera")

    def met(given, episodes=12):
        envs = make_environments(settings, [goals[key] for key in given])
        found = []
        for _ in range(episodes):
            frames_, infos = envs.reset()
            assert "goal_ids" not in infos
            found += zip(infos["goal_id"].tolist(), (frames_[:, 0, 0, 0] % 2).tolist(), strict=True)
        return found

    everything = met("abcd")
    assert {goal for goal, odd in everything if odd} == {"a"}
    assert {goal for goal, odd in everything if not odd} == {"b", "c"}
    assert set(met("ad")) == {("a", 1)}  # episodes that can be asked for none of the goals are drawn again
    assert {goal for goal, _ in met("bd")} == {"b"}
    with pytest.raises(
        ValueError,
        match=r"Choosy-v0 can be asked for none of the 1 goals: got none in 1000 levels, .* with the goal_ids \['",
    ):
        met("d")
