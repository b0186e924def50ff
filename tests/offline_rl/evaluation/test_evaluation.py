import dataclasses

import gymnasium
import numpy as np
import pytest
from live_environments import GOALS, ScriptedEnv, frames, live_labeler, vector

from vlm_rewards.labelers.domains.babyai.domain import BABYAI
from vlm_rewards.labelers.domains.babyai.goals import HELD_OUT_KINDS, goal_bank
from vlm_rewards.labelers.domains.babyai.levels import BabyAILevel, babyai_bot
from vlm_rewards.labelers.labeler import Labeler
from vlm_rewards.labelers.live import FrameEmbedder
from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.offline_rl.environments.environments import EnvironmentSettings
from vlm_rewards.offline_rl.evaluation.evaluation import evaluate_agent, verdict_of
from vlm_rewards.offline_rl.interfaces import Spaces
from vlm_rewards.offline_rl.training.held_out_goals import split_goals

GO_TO = "BabyAI-GoToLocal-v0"
FIND = tuple(goal for goal in goal_bank() if goal.family == "find")


class ColourfulEnv(gymnasium.Env):
    """Frames of random colours that never end by themselves and of which no truth is known."""

    def __init__(self, render_mode=None):
        self.observation_space = gymnasium.spaces.Box(0, 255, (32, 32, 3), np.uint8)
        self.action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._frame(), {}

    def step(self, action):
        return self._frame(), 1.0, False, False, {}

    def _frame(self):
        return frames(12)[int(self.np_random.integers(12))]


gymnasium.register("Colourful-v0", ColourfulEnv)


class Turning:
    """An agent that turns left, or does what it is given; it remembers what it was shown."""

    def __init__(self, spaces, actions=None):
        self.spaces, self.actions = spaces, actions
        self.goals, self.temperatures, self.observations = [], [], []

    def act(self, observations, goals, states=None, *, generator=None, temperature=1.0):
        self.goals.append(goals.numpy().copy())
        self.observations.append(observations.numpy().copy())
        self.temperatures.append(None if generator is None else temperature)
        if self.actions is None:
            return np.zeros(len(observations), np.int64)
        return np.full(len(observations), self.actions[len(self.goals) - 1], np.int64)


@pytest.fixture(scope="module")
def labeler(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    live_labeler(folder, frames(4))
    return Labeler.build(
        LabelerSettings(model=str(folder), goals=FIND, formula="cosine", threshold=0.05, precision="float32")
    )


def _spaces(labeler, **changes):
    return Spaces(
        **{
            "observation": "frames",
            "observation_shape": (56, 56, 3),
            "goal_size": labeler.dim,
            "num_actions": 7,
            **changes,
        }
    )


def test_episodes_are_the_same_levels_whatever_their_number_and_the_seeds_of_training(labeler):
    settings = EnvironmentSettings(envs=(GO_TO,), num_envs=3, max_steps=6, seeds="live")
    few = evaluate_agent(Turning(_spaces(labeler)), labeler, settings, num_episodes=5)
    many = evaluate_agent(Turning(_spaces(labeler)), labeler, settings, num_episodes=8)
    assert few.episodes == many.episodes[:5]
    assert [record.episode for record in many.episodes] == list(range(8))
    assert all(record.level_seed in BABYAI.seeds.held_out for record in many.episodes)
    assert len({record.level_seed for record in many.episodes}) == 8
    reseeded = EnvironmentSettings(envs=(GO_TO,), seed=1, max_steps=6)
    other = evaluate_agent(Turning(_spaces(labeler)), labeler, reseeded, num_episodes=4)
    assert not {record.level_seed for record in many.episodes} & {record.level_seed for record in other.episodes}


def test_the_bots_actions_succeed_and_the_episode_ends_there(labeler):
    settings = EnvironmentSettings(envs=(GO_TO,), num_envs=1)
    (record,) = evaluate_agent(Turning(_spaces(labeler)), labeler, settings, num_episodes=1).episodes
    level = BabyAILevel(GO_TO)
    level.reset(record.level_seed)
    bot, actions, done = babyai_bot()(level.env.unwrapped), [], False
    while not done:
        actions.append(int(bot.replan(actions[-1] if actions else None)))
        _, _, done, _ = level.step(actions[-1])
    agent = Turning(_spaces(labeler), actions)
    evaluation = evaluate_agent(agent, labeler, settings, num_episodes=1, keep_frames=1)
    (record,) = evaluation.episodes
    assert (record.success, record.mission_done, record.num_steps) == (True, True, len(actions))
    assert record.false_frames == len(actions) - 1  # it holds in the last frame alone
    (met,) = evaluation.frames
    assert met.shape == (len(actions) + 1, 56, 56, 3)
    np.testing.assert_array_equal(met[:-1], np.concatenate(agent.observations))
    # What the model says of these frames, by its own function.
    goal = next(index for index, goal in enumerate(FIND) if goal.id == record.goal_id)
    rewards = labeler.rewards(labeler(met))[:, goal]
    first = int(rewards.argmax()) + 1 if rewards.any() else None
    assert (record.vlm_step, record.vlm_success, record.vlm_return) == (first, first is not None, float(rewards.any()))
    assert record.vlm_true == (None if first is None else first == len(actions))


def test_the_agent_is_told_the_goals_it_is_asked_for(labeler):
    held_out = split_goals(FIND, HELD_OUT_KINDS).held_out
    settings = EnvironmentSettings(envs=(GO_TO,), num_envs=4, max_steps=2)
    agent = Turning(_spaces(labeler))
    evaluation = evaluate_agent(agent, labeler, settings, goals=held_out, num_episodes=4, temperature=0.5)
    wanted = [next(i for i, goal in enumerate(FIND) if goal.id == record.goal_id) for record in evaluation.episodes]
    assert {record.goal_id for record in evaluation.episodes} <= {goal.id for goal in held_out}
    np.testing.assert_array_equal(agent.goals[0], labeler.goal_embeddings[wanted])
    assert set(agent.temperatures) == {0.5}
    own = np.eye(len(FIND), dtype=np.float32)
    agent = Turning(_spaces(labeler, goal_size=len(FIND)))
    evaluate_agent(agent, labeler, settings, goals=held_out, goal_embeddings=own, num_episodes=4)
    np.testing.assert_array_equal(agent.goals[0], own[wanted])
    assert set(agent.temperatures) == {None}


def test_an_agent_of_embeddings_sees_the_models(labeler):
    spaces = _spaces(labeler, observation="embeddings", observation_shape=(labeler.dim,))
    agent, embedder = Turning(spaces), FrameEmbedder(labeler)
    settings = EnvironmentSettings(envs=(GO_TO,), num_envs=2, max_steps=3)
    evaluation = evaluate_agent(agent, labeler, settings, num_episodes=2, keep_frames=2, embedder=embedder)
    np.testing.assert_array_equal(agent.observations[0], embedder(np.stack([met[0] for met in evaluation.frames])))
    assert embedder.counts["cached"] > 0


def test_without_ground_truth_the_model_alone_is_reported(tmp_path):
    labeler, _ = live_labeler(tmp_path, frames(12))
    spaces = _spaces(labeler, observation_shape=(32, 32, 3), num_actions=2)
    settings = EnvironmentSettings(envs=("Colourful-v0",), num_envs=2, max_steps=4)
    evaluation = evaluate_agent(Turning(spaces), labeler, settings, num_episodes=5)
    assert all((record.success, record.vlm_true, record.num_steps) == (None, None, 4) for record in evaluation.episodes)
    assert {record.goal_id for record in evaluation.episodes} <= {goal.id for goal in GOALS}
    assert evaluation.vlm_success.mean > 0
    assert evaluation.summary()["success"] is None


class DecidedEnv(gymnasium.Env):
    """Shows one frame, whatever the action, and knows in which steps the goal holds, whatever the frame shows."""

    def __init__(self, frame, holds_at, render_mode=None):
        self.frame, self.holds_at = frame, holds_at
        self.observation_space = gymnasium.spaces.Box(0, 255, (32, 32, 3), np.uint8)
        self.action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return self.frame.copy(), {"goal_id": "ball"}

    def step(self, action):
        self.t += 1
        return self.frame.copy(), 0.0, False, False, {"ground_truth": self.t in self.holds_at}


def test_success_is_what_holds_in_truth_whatever_the_model_says(tmp_path):
    labeler, holds = live_labeler(tmp_path, frames(12))
    yes, no = (frames(12)[holds[:, 0] == said][0] for said in (True, False))
    registered = {"Alarm-v0": (yes, ()), "Missed-v0": (no, (3,)), "Early-v0": (yes, (2,))}
    for name, (frame, holds_at) in registered.items():
        gymnasium.register(name, DecidedEnv, kwargs={"frame": frame, "holds_at": holds_at})
    settings = EnvironmentSettings(envs=("Alarm-v0", "Missed-v0", "Early-v0", "Alarm-v0"), num_envs=4, max_steps=5)
    spaces = _spaces(labeler, observation_shape=(32, 32, 3), num_actions=2)
    evaluation = evaluate_agent(Turning(spaces), labeler, settings, num_episodes=4)
    told = [
        (record.success, record.num_steps, record.vlm_success, record.vlm_step, record.vlm_true, record.vlm_return)
        for record in evaluation.episodes
    ]
    assert told == [
        (False, 5, True, 1, False, 1.0),  # rewarded in vain: it goes on to the time limit
        (True, 3, False, None, None, 0.0),  # achieved, unseen by the model: it ends there
        (True, 2, True, 1, False, 1.0),  # rewarded a step too early
        (False, 5, True, 1, False, 1.0),
    ]
    assert [record.vlm_false_frames for record in evaluation.episodes] == [5, 0, 1, 5]
    assert [record.false_frames for record in evaluation.episodes] == [5, 2, 1, 5]
    assert (evaluation.success.mean, evaluation.vlm_success.mean) == (0.5, 0.75)
    assert evaluation.summary()["success"]["mean"] == 0.5
    assert evaluation.false_positive_share[::3] == (1.0, 3)


def test_an_environment_that_does_not_know_the_truth_is_not_told_by_its_neighbour():
    envs = vector(
        ScriptedEnv(frames(3), info={"ground_truth": True}),
        ScriptedEnv(frames(3)),
        ScriptedEnv(frames(3), info={"x": 1}),
    )
    envs.reset()
    infos = envs.step(np.zeros(3, np.int64))[4]
    assert [verdict_of(infos, "ground_truth", i) for i in range(3)] == [True, None, None]
    assert verdict_of(infos, "mission_done", 0) is None


def test_what_does_not_fit_is_refused(labeler):
    settings = EnvironmentSettings(envs=(GO_TO,))
    with pytest.raises(ValueError, match="num_episodes must be at least 1, got 0"):
        evaluate_agent(Turning(_spaces(labeler)), labeler, settings, num_episodes=0)
    both = dataclasses.replace(settings, envs=(GO_TO, "BabyAI-PickupDist-v0"))
    with pytest.raises(ValueError, match="num_episodes must be at least the number of environments, 2, got 1"):
        evaluate_agent(Turning(_spaces(labeler)), labeler, both, num_episodes=1)
    with pytest.raises(ValueError, match="the environment must have the num_actions .* 3, got 7"):
        evaluate_agent(Turning(_spaces(labeler, num_actions=3)), labeler, settings)
