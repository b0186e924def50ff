import builtins
import dataclasses
import sys

import gymnasium
import numpy as np
import pytest
from minigrid.wrappers import RGBImgPartialObsWrapper
from small_corpora import assert_same

from vlm_rewards.labelers.domains.babyai import levels
from vlm_rewards.labelers.domains.babyai.domain import BABYAI
from vlm_rewards.labelers.domains.babyai.scenes import EVALUATION_SEEDS, TRAIN_SEEDS, VALIDATION_SEEDS
from vlm_rewards.pipelines.record.recording import (
    BotGaveUpError,
    RecordSettings,
    env_seed,
    parse_policy,
    plan_record,
    record,
    record_episode,
    record_unit,
)
from vlm_rewards.schemas.episodes import CorpusFeatures
from vlm_rewards.schemas.formats.corpus import FORMATS, open_corpus
from vlm_rewards.schemas.goals import read_goals
from vlm_rewards.schemas.pictures import decode_image

GO_TO = "BabyAI-GoToLocal-v0"
PUT_NEXT = "BabyAI-PutNextLocal-v0"


def _settings(**changes):
    return RecordSettings(**{"envs": (GO_TO,), "policy": "bot", "episodes": 4, **changes})


def _front_object(env):
    """What stands before the agent, read from the grid and not from the view."""
    thing = env.grid.get(*env.front_pos)
    return None if thing is None else f"{thing.color} {thing.type}"


def test_a_replay_by_hand_gives_the_same_frames_rewards_and_ground_truth():
    settings = _settings(envs=(GO_TO, "BabyAI-PickupDist-v0"), policy="noisy-bot", episodes=2)
    for index in range(2):
        episode = record_episode(settings, index)
        env = gymnasium.make(settings.envs[index])
        camera = RGBImgPartialObsWrapper(env, tile_size=8)
        observation, _ = camera.reset(seed=env_seed(settings, index))
        assert episode.instruction == observation["mission"]
        for t in range(episode.num_frames):
            np.testing.assert_array_equal(decode_image(episode.images["egocentric"][t]), observation["image"])
            goals = set(episode.achieved_goals[t])
            carried = env.unwrapped.carrying
            lifted = {f"lift-{carried.color}-{carried.type}"} if carried else set()
            assert {goal for goal in goals if goal.startswith("lift-")} == lifted
            front = _front_object(env.unwrapped)
            found = (
                {f"find-{front.replace(' ', '-')}"} if front and front.split()[1] in ("key", "ball", "box") else set()
            )
            assert {goal for goal in goals if goal.startswith("find-")} == found
            if t < episode.num_steps:
                observation, reward, terminated, truncated, _ = camera.step(episode.actions[t])
                assert np.float32(reward) == episode.rewards[t]
                assert (terminated, truncated) == (episode.terminations[t], episode.truncations[t])


def test_the_goal_of_the_mission_holds_in_the_last_frame_of_the_bot():
    settings = _settings(episodes=6)
    for index in range(6):
        episode = record_episode(settings, index)
        kind = episode.instruction.removeprefix("go to the ").removeprefix("go to a ").replace(" ", "-")
        assert f"find-{kind}" in episode.achieved_goals[-1]  # T+1 frames: the last is the one after the last action
        assert all(f"find-{kind}" not in goals for goals in episode.achieved_goals[:-1])
        assert episode.rewards[-1] > 0
        assert episode.terminations[-1]
        assert not episode.rewards[:-1].any()
        assert len(episode.images["egocentric"]) == len(episode.actions) + 1


def test_objects_put_side_by_side_are_in_the_ground_truth():
    episode = record_episode(_settings(envs=(PUT_NEXT,)), 0)
    first, second = episode.instruction.removeprefix("put the ").split(" next to the ")
    slugs = [text.replace(" ", "-") for text in (first, second)]
    assert f"place-{slugs[0]}-next-to-{slugs[1]}" in episode.achieved_goals[-1]
    assert f"place-{slugs[1]}-next-to-{slugs[0]}" in episode.achieved_goals[-1]


@pytest.mark.parametrize("format_name", [known.name for known in FORMATS if known.write is not None])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path, format_name):
    settings = _settings(policy="bot:1,noisy-bot:2,random:1", format=format_name, max_steps=12)
    (unit,) = plan_record(settings)
    for name, of in (("a", settings), ("b", settings), ("c", dataclasses.replace(settings, seed=1))):
        recorded = record_unit(of, unit, tmp_path / name)
        assert recorded.episodes == 4
        assert recorded.failures == ()
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


def test_episodes_do_not_depend_on_the_units(tmp_path):
    settings = _settings(envs=(GO_TO, PUT_NEXT), episodes=5, episodes_per_shard=2, max_steps=6)
    units = plan_record(settings)
    assert [(u.name, u.start, u.stop, u.num_episodes) for u in units] == [
        ("episodes-000000-000002", 0, 2, 2),
        ("episodes-000002-000004", 2, 4, 2),
        ("episodes-000004-000005", 4, 5, 1),
    ]
    rows = 0
    for unit in reversed(units):
        rows += record_unit(settings, unit, tmp_path / f"{unit.name}.parquet").rows
    opened = open_corpus(tmp_path)
    read = [episode for unit in opened.units() for episode in opened.episodes(unit)]
    assert rows == sum(episode.num_frames for episode in read)
    for index, episode in enumerate(read):
        assert episode.episode_id == f"{settings.envs[index % 2]}-seed0-{index:06d}"
        assert_same(record_episode(settings, index), episode)
    assert CorpusFeatures.of(read[0]) == CorpusFeatures(cameras=("egocentric",), action_size=0, has_achieved_goals=True)


def test_a_recorded_corpus_opens_and_has_its_goals_beside_it(tmp_path):
    settings = _settings(episodes=3, episodes_per_shard=2, max_steps=4)
    summary = record(output=tmp_path / "corpus", **vars(settings))
    opened = open_corpus(tmp_path / "corpus")
    read = [episode for unit in opened.units() for episode in opened.episodes(unit)]
    assert summary.manifest["rows"] == sum(episode.num_frames for episode in read)
    for index, episode in enumerate(read):
        assert_same(record_episode(settings, index), episode)
    known = {goal.id for goal in read_goals(tmp_path / "corpus" / "goals.jsonl")}
    assert {goal for episode in read for goals in episode.achieved_goals for goal in goals} <= known


def test_frames_are_of_the_size_asked_for():
    assert _settings().frame_size == (56, 56)  # the domain's first
    for side in (56, 224):
        episode = record_episode(_settings(frame_size=[side, side], max_steps=1), 0)
        assert decode_image(episode.images["egocentric"][0]).shape == (side, side, 3)


def test_policies_differ_in_what_they_do():
    bot = record_episode(_settings(), 0)
    without_noise = record_episode(_settings(policy="noisy-bot", noise=0), 0)
    np.testing.assert_array_equal(bot.actions, without_noise.actions)
    all_noise = record_episode(_settings(policy="noisy-bot", noise=1, max_steps=200), 0)
    assert len(set(all_noise.actions.tolist())) == 7  # left, right, forward, pickup, drop, toggle, done
    mixed = [record_episode(_settings(policy="bot:1,random:1", max_steps=30), i) for i in range(8)]
    lone = [record_episode(_settings(max_steps=30), i) for i in range(8)]
    same = [np.array_equal(a.actions, b.actions) for a, b in zip(mixed, lone, strict=True)]
    assert 0 < sum(same) < 8


def test_an_episode_cut_by_max_steps_is_truncated():
    episode = record_episode(_settings(policy="random", max_steps=3), 0)
    assert episode.num_steps == 3
    assert episode.truncations.tolist() == [False, False, True]
    assert not episode.terminations.any()


def test_recorded_levels_are_none_that_a_model_was_trained_or_measured_on():
    known = max(seeds.stop for seeds in (TRAIN_SEEDS, VALIDATION_SEEDS, EVALUATION_SEEDS))
    settings = [_settings(seed=seed) for seed in range(20)]
    seeds = [env_seed(of, index) for of in settings for index in range(200)]
    assert min(seeds) >= BABYAI.seeds.recorded.start >= known
    assert max(seeds) < BABYAI.seeds.recorded.stop
    assert len(set(seeds)) == len(seeds)


class _StoppingBot:
    """A demonstrator that knows so many actions and no more."""

    def __init__(self, num_actions):
        self.num_actions = num_actions

    def __call__(self, env):
        self.calls = 0
        return self

    def replan(self, action_taken):
        self.calls += 1
        assert self.calls <= self.num_actions
        return 0


def _with_bot(monkeypatch, num_actions):
    monkeypatch.setattr(levels, "babyai_bot", lambda: _StoppingBot(num_actions))


def test_where_the_bot_gives_up_the_episode_ends_as_truncated_and_is_counted(tmp_path, monkeypatch):
    settings = _settings(episodes=2)
    _with_bot(monkeypatch, 2)
    episode = record_episode(settings, 0)
    assert episode.actions.tolist() == [0, 0]
    assert episode.truncations.tolist() == [False, True]
    recorded = record_unit(settings, plan_record(settings)[0], tmp_path / "a")
    assert recorded.counts == {"succeeded": 0, "bot_gave_up": 2}
    assert (recorded.rows, recorded.failures) == (6, ())


def test_where_the_bot_knows_no_first_action_the_episode_is_a_failure(tmp_path, monkeypatch):
    settings = _settings(episodes=2)
    _with_bot(monkeypatch, 0)
    with pytest.raises(
        BotGaveUpError, match="must know an action in the first state of BabyAI-GoToLocal-v0-seed0-000000"
    ):
        record_episode(settings, 0)
    recorded = record_unit(settings, plan_record(settings)[0], tmp_path / "a")
    assert (recorded.rows, recorded.episodes) == (0, 0)
    assert [(failure.reason, failure.episode_id) for failure in recorded.failures] == [
        ("bot gave up", "BabyAI-GoToLocal-v0-seed0-000000"),
        ("bot gave up", "BabyAI-GoToLocal-v0-seed0-000001"),
    ]


def test_shares_of_a_mix():
    assert parse_policy("bot") == {"bot": 1.0}
    assert parse_policy("bot:1, noisy-bot:2,random:1") == {"bot": 0.25, "noisy-bot": 0.5, "random": 0.25}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"envs": ()}, "no environment is named. Name one such as BabyAI-GoToLocal-v0"),
        ({"envs": ("BabyAI-GoToLocl-v0",)}, r"got 'BabyAI-GoToLocl-v0' .* Did you mean BabyAI-GoToLocal-v0 or .*\?$"),
        ({"envs": ("?",)}, r"no domain has this environment: got '\?' \(96 of babyai, 2 of openapp, 6 of playroom\)"),
        (
            {"envs": ("CartPole-v1",)},
            r"got 'CartPole-v1' \(96 of babyai, 2 of openapp, 6 of playroom\). Name one such as BabyAI-GoToLocal-v0 or "
            r"vlm-rewards/OpenApp-v0 or vlm-rewards/Playroom-Find-v0$",
        ),
        ({"policy": "expert"}, "a policy must be one of bot, noisy-bot, random, got 'expert'"),
        ({"policy": ""}, "a policy must be one of bot, noisy-bot, random, got ''"),
        ({"policy": "bot:1,bot:2"}, "a mix must name each policy once, got 'bot' twice"),
        ({"policy": "bot:0,random:1"}, "weight of a policy must be a positive number, got '0'"),
        ({"policy": "bot:much"}, "weight of a policy must be a positive number, got 'much'"),
        ({"format": "hdf5"}, "a format must be one of parquet, webdataset, got 'hdf5'"),
        ({"episodes": 0}, "episodes must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"frame_size": (57, 57)}, "babyai draws no frames of this size: got 57x57. Choose one of 56x56, 28x28, 84x84"),
        (
            {"cameras": ("top",)},
            "cameras of babyai must be some of its own, each once: got top. Choose among egocentric",
        ),
        ({"cameras": ("egocentric",) * 2}, "must be some of its own, each once: got egocentric, egocentric"),
        ({"bank": "doors"}, "babyai has no such bank of goals: got 'doors'. Choose one of default"),
        ({"episodes_per_shard": 0}, "episodes_per_shard must be at least 1, got 0"),
        ({"max_steps": 0}, "max_steps must be at least 1 or None, got 0"),
        ({"noise": 1.5}, "noise must be a probability from 0 to 1, got 1.5"),
    ],
)
def test_settings_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        _settings(**changes)


def test_without_minigrid_the_remedy_is_named_and_no_folder_is_claimed(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("minigrid"):
            raise ModuleNotFoundError("No module named 'minigrid'")
        return real(name, *args, **kwargs)

    for name in [name for name in sys.modules if name.startswith("minigrid")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'vlm-rewards\[babyai\]'"):
        record(output=tmp_path / "corpus", **vars(_settings()))
    assert not (tmp_path / "corpus").exists()
