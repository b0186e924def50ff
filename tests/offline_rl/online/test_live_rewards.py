import dataclasses
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from live_environments import ScriptedEnv, frames, live_labeler, vector

from vlm_rewards.labelers.domains.babyai.goals import goal_bank
from vlm_rewards.labelers.labeler import Labeler
from vlm_rewards.labelers.scoring.windows import WindowSettings
from vlm_rewards.labelers.settings import LabelerSettings, settings_from_json
from vlm_rewards.offline_rl.environments.environments import EnvironmentSettings, make_environments
from vlm_rewards.offline_rl.environments.goal_environments import DomainEnvironment
from vlm_rewards.offline_rl.online.live_reward_settings import LiveRewardSettings
from vlm_rewards.offline_rl.online.live_rewards import LiveRewards, LiveStep
from vlm_rewards.offline_rl.runs.folders import read_metrics
from vlm_rewards.offline_rl.runs.saved_agents import load_agent
from vlm_rewards.offline_rl.training.finetune import FinetuneSettings, finetune
from vlm_rewards.pipelines.label.labelling import label
from vlm_rewards.schemas.episodes import CorpusFeatures, Episode
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.folders import read_settings
from vlm_rewards.schemas.formats.corpus import write_episodes
from vlm_rewards.schemas.formats.label_parts.reader import open_labels, part_of_unit, read_labels
from vlm_rewards.schemas.pictures import encode_png

POOL = frames(12)
BALL, BOX = 0, 1
GO_ON = LiveRewardSettings(hide_truth=True)  # what fine-tuning with --keep-going takes
ENDING = LiveRewardSettings(hide_truth=True, end_at_success=True)  # what fine-tuning takes


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("clip")


@pytest.fixture(scope="module")
def judged(folder):
    """A labeler, and for each goal frames in which it holds and frames in which it does not."""
    labeler, holds = live_labeler(folder, POOL)
    return labeler, {goal: (POOL[holds[:, goal]], POOL[~holds[:, goal]]) for goal in (BALL, BOX)}


def _actions(env):
    return np.zeros(env.num_envs, np.int64)


def _collect(live) -> LiveStep:
    (step,) = live.collect()
    return step


def test_the_rule_judges_the_frame_after_the_action_for_the_environments_own_goal(judged):
    labeler, of = judged
    yes, no = of[BALL]
    script = np.stack([yes[0], no[0], yes[1], no[1]])  # what o_0 shows gives no reward
    live = LiveRewards(vector(ScriptedEnv(script, ["ball"]), ScriptedEnv(script, ["box"])), labeler, **vars(GO_ON))
    scores = labeler(script)
    _, infos = live.reset()
    assert live.goal_indices.tolist() == [BALL, BOX]
    assert infos["goal_id"].tolist() == ["ball", "box"]
    assert infos["score"].tolist() == [scores[0, BALL], scores[0, BOX]]
    np.testing.assert_array_equal(live.goal_embeddings, labeler.goal_embeddings)
    box = (scores[1:, BOX] > labeler.rule.threshold_array[BOX]).tolist()
    for t, ball in enumerate([False, True, False]):
        _, rewards, terminations, truncations, infos = live.step(_actions(live))
        assert rewards.tolist() == [ball, box[t]]
        assert rewards.dtype == np.float32
        assert infos["score"].tolist() == [scores[t + 1, BALL], scores[t + 1, BOX]]
        step = _collect(live)
        assert step.rewards.tolist() == [ball, box[t]]
        assert step.successes.tolist() == [ball, box[t]]
        assert step.goals.tolist() == [BALL, BOX]
        assert step.scores.tobytes() == np.stack([scores[t + 1]] * 2).tobytes()  # all goals, the bits of the labeler
        assert step.valid.all()
        assert live.collect() == []  # each once
        assert not terminations.any()
        assert truncations.tolist() == [t == 2] * 2
    assert live.statistics()["encoded"] == 4  # two environments showed the same four frames


def test_a_success_ends_the_episode_and_the_others_go_on(judged):
    labeler, of = judged
    yes, no = of[BALL]
    fast, slow = np.stack([no[0], yes[0], no[1]]), np.stack([no[0], no[1], no[2], yes[0]])
    live = LiveRewards(vector(ScriptedEnv(fast, end="never"), ScriptedEnv(slow)), labeler, **vars(ENDING))
    live.reset()
    _, rewards, terminations, truncations, _ = live.step(_actions(live))
    assert (rewards.tolist(), terminations.tolist(), truncations.tolist()) == ([1, 0], [True, False], [False, False])
    with pytest.raises(ValueError, match=r"must be reset before they are stepped again, got \[0\] that have ended"):
        live.step(_actions(live))
    observations, _ = live.reset(options={"reset_mask": terminations | truncations})
    np.testing.assert_array_equal(observations, np.stack([no[0], no[1]]))  # the second went on
    _, rewards, terminations, truncations, _ = live.step(_actions(live))
    assert (terminations.tolist(), truncations.tolist()) == ([True, False], [False, False])
    live.reset(options={"reset_mask": terminations})
    _, rewards, terminations, truncations, _ = live.step(_actions(live))
    # Success and time limit at once: nothing follows, so it is a termination.
    assert (terminations.tolist(), truncations.tolist()) == ([True, True], [False, False])
    counts = {name: count for name, count in live.monitor.counts.items() if name != "steps"}
    assert counts == {"episodes": 4, "episodes_with_success": 4, "positive_rewards": 4}


def _outputs(live, num_steps):
    """All that the learner is given."""

    def flat(infos):
        for key in sorted(infos):
            yield key
            if isinstance(infos[key], dict):
                yield from flat(infos[key])
            elif key == "final_obs":
                yield from infos[key]
            else:
                yield infos[key]

    observations, infos = live.reset(seed=0)
    told = [observations, *flat(infos)]
    for _ in range(num_steps):
        *step, infos = live.step(_actions(live))
        told += [*step, *flat(infos), *_collect(live)]
        over = step[2] | step[3]
        if over.any() and live.metadata["autoreset_mode"] is AutoresetMode.DISABLED:
            live.reset(options={"reset_mask": over})
    return told


@pytest.mark.parametrize("mode", AutoresetMode)
def test_the_learner_is_told_nothing_of_the_environments_rewards_ends_and_infos(judged, mode):
    labeler, _ = judged
    plain = [ScriptedEnv(POOL[:4], end="truncated"), ScriptedEnv(POOL[4:9], end="truncated")]
    poison = {"success": True, "ground_truth": True, "reward": np.nan}
    spiked = [
        ScriptedEnv(env.script, end="terminated", reward=reward, info=poison)
        for env, reward in zip(plain, (np.nan, 1e9), strict=True)
    ]
    told = [_outputs(LiveRewards(vector(*envs, mode=mode), labeler, **vars(GO_ON)), 11) for envs in (plain, spiked)]
    assert len(told[0]) == len(told[1])
    for left, right in zip(*told, strict=True):
        np.testing.assert_array_equal(left, right)
    live = LiveRewards(vector(*spiked, mode=mode), labeler, **vars(GO_ON))
    live.reset()
    for _ in range(3):
        infos = live.step(_actions(live))[-1]
        np.testing.assert_array_equal(live.environment_rewards, [np.nan, 1e9])  # there for whoever evaluates
        assert live.environment_infos["success"].all()
        for told in (infos, infos.get("final_info", {})):
            assert {"success", "ground_truth", "reward"}.isdisjoint(told)
    assert ("final_info" in infos) == (mode is AutoresetMode.SAME_STEP)


def test_fine_tuning_learns_the_same_whatever_the_environment_says_of_itself(trained, tmp_path, monkeypatch):
    settings = FinetuneSettings(
        envs=("BabyAI-GoToObj-v0",),
        steps=400,
        num_envs=4,
        batch_size=16,
        warmup_steps=16,
        capacity=1000,
        eval_episodes=0,
    )
    plain = finetune(trained, output=tmp_path / "plain", **vars(settings))
    act = DomainEnvironment.act

    def poisoned(self, action):
        frame, _, terminated, truncated, infos = act(self, action)
        return frame, 1e9, terminated, truncated, {name: not verdict for name, verdict in infos.items()}

    monkeypatch.setattr(DomainEnvironment, "act", poisoned)
    spiked = finetune(trained, output=tmp_path / "spiked", **vars(settings))
    assert spiked.agent.num_updates > load_agent(trained).agent.num_updates
    assert spiked.steps == plain.steps
    for part in plain.agent.parts:
        for left, right in zip(
            plain.agent.parts[part].parameters(), spiked.agent.parts[part].parameters(), strict=True
        ):
            assert torch.equal(left, right), part
    # The poison was there: the truth that is recorded, for whoever evaluates, is another.
    truths = [
        [record["success"] for record in read_metrics(tmp_path / name) if record["kind"] == "episodes"]
        for name in ("plain", "spiked")
    ]
    assert truths[0] != truths[1]


def test_an_environment_that_ends_is_a_truncation_whatever_it_calls_it(judged):
    labeler, of = judged
    _, no = of[BALL]
    live = LiveRewards(vector(ScriptedEnv(no[:3], end="terminated", reward=1.0)), labeler, **vars(ENDING))
    live.reset()
    assert not any(live.step(_actions(live))[2:4])
    _, rewards, terminations, truncations, _ = live.step(_actions(live))
    assert (rewards.tolist(), terminations.tolist(), truncations.tolist()) == ([0], [False], [True])


def test_autoreset_at_the_next_step_makes_no_transition(judged):
    labeler, _ = judged
    script = POOL[:3]
    live = LiveRewards(
        vector(ScriptedEnv(script, ["ball", "box"]), mode=AutoresetMode.NEXT_STEP), labeler, **vars(GO_ON)
    )
    live.reset()
    seen, valid, rewards, goals, shown = [], [], [], [], []
    for _ in range(5):
        observations, reward, _, _, infos = live.step(_actions(live))
        step = _collect(live)
        np.testing.assert_array_equal(observations, step.next_observations)
        seen.append(next(k for k in range(3) if np.array_equal(observations[0], script[k])))
        valid.append(bool(step.valid[0]))
        rewards.append(float(reward[0]))
        goals.append(int(live.goal_indices[0]))
        shown.append((infos["goal_id"][0], infos["score"][0]))
    scores = labeler(script)
    holds = scores > labeler.rule.threshold_array
    assert seen == [1, 2, 0, 1, 2]
    assert valid == [True, True, False, True, True]
    assert goals == [BALL, BALL, BOX, BOX, BOX]
    assert rewards == [holds[1, BALL], holds[2, BALL], 0, holds[1, BOX], holds[2, BOX]]
    assert [goal for goal, _ in shown] == ["ball", "ball", "box", "box", "box"]
    assert [score for _, score in shown] == [scores[t, goal] for t, goal in zip(seen, goals, strict=True)]


def test_autoreset_in_the_same_step_judges_the_last_frame_and_not_the_first_of_the_next(judged):
    labeler, _ = judged
    script = POOL[:3]
    env = vector(ScriptedEnv(script, ["ball", "box"]), mode=AutoresetMode.SAME_STEP)
    live = LiveRewards(env, labeler, **vars(GO_ON))
    live.reset()
    live.step(_actions(live))
    observations, rewards, _, truncations, infos = live.step(_actions(live))
    scores = labeler(script)
    step = _collect(live)
    assert truncations.all()
    np.testing.assert_array_equal(observations[0], script[0])
    np.testing.assert_array_equal(step.next_observations[0], script[2])
    np.testing.assert_array_equal(step.scores[0], scores[2])
    assert rewards[0] == (scores[2, BALL] > labeler.rule.threshold_array[BALL])
    # What is returned is of the next episode; what is final, of the one that ended.
    assert (step.goals.tolist(), live.goal_indices.tolist()) == ([BALL], [BOX])
    assert (infos["goal_id"].tolist(), infos["score"].tolist()) == (["box"], [scores[0, BOX]])
    np.testing.assert_array_equal(infos["final_obs"][0], script[2])
    final = infos["final_info"]
    assert (final["goal_id"].tolist(), final["score"].tolist()) == (["ball"], [scores[2, BALL]])
    live.step(_actions(live))
    step = _collect(live)
    assert step.goals.tolist() == [BOX]
    np.testing.assert_array_equal(step.observations[0], script[0])


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_a_success_can_end_no_episode_of_an_environment_that_resets_itself(judged, mode):
    with pytest.raises(ValueError, match=f"autoreset_mode must be DISABLED where a success ends .* got {mode.name}"):
        LiveRewards(vector(ScriptedEnv(POOL), mode=mode), judged[0], **vars(ENDING))


@pytest.mark.parametrize("mode", AutoresetMode)
def test_scores_that_come_later_are_the_same(judged, mode):
    labeler, _ = judged

    def envs():
        return vector(ScriptedEnv(POOL[:5], ["ball", "box"]), ScriptedEnv(POOL[3:11]), mode=mode)

    settings = dataclasses.replace(GO_ON, asynchronous=True, max_pending=3)
    at_once, later = LiveRewards(envs(), labeler, **vars(GO_ON)), LiveRewards(envs(), labeler, **vars(settings))
    at_once.reset()
    later.reset()
    expected, collected = [], []
    for _ in range(20):
        _, _, _, truncations, _ = at_once.step(_actions(at_once))
        expected += at_once.collect()
        _, waiting, _, _, infos = later.step(_actions(later))
        assert waiting.tolist() == [0, 0]  # a number, but not the reward
        assert np.isnan(infos["score"]).all()
        assert not infos["_score"].any()
        collected += later.collect()
        if mode is AutoresetMode.DISABLED and truncations.any():
            at_once.reset(options={"reset_mask": truncations})
            later.reset(options={"reset_mask": truncations})
    collected += later.collect(wait=True)
    assert len(collected) == len(expected) == 20
    for one, other in zip(collected, expected, strict=True):  # in the order in which they were taken
        for name in LiveStep._fields:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert later.collect(wait=True) == []
    later.close()


def test_scores_on_their_way_are_not_saved(judged):
    live = LiveRewards(vector(ScriptedEnv(POOL)), judged[0], **vars(dataclasses.replace(GO_ON, asynchronous=True)))
    live.reset()
    live.step(_actions(live))
    with pytest.raises(ValueError, match=r"must be collected before saving, got 1 pending. Call collect\(wait=True\)"):
        live.state_dict()
    live.close()


def test_what_goes_wrong_in_the_thread_is_raised(judged):
    live = LiveRewards(vector(ScriptedEnv(POOL)), judged[0], **vars(dataclasses.replace(GO_ON, asynchronous=True)))
    live.reset()
    live.collect(wait=True)
    live.embedder.labeler = None  # type: ignore[assignment]
    live.step(_actions(live))
    with pytest.raises(AttributeError, match="NoneType"):
        live.collect(wait=True)
    live.close()


def test_an_agent_can_see_embeddings_in_place_of_frames(judged):
    labeler, _ = judged
    script = POOL[:4]
    embeddings = labeler.embed(np.stack([labeler.resize(frame) for frame in script]))
    settings = dataclasses.replace(GO_ON, observation="embeddings")
    for mode in AutoresetMode:
        live = LiveRewards(vector(ScriptedEnv(script), mode=mode), labeler, **vars(settings))
        assert live.spaces.observation_shape == live.single_observation_space.shape == (labeler.dim,)
        np.testing.assert_array_equal(live.reset()[0], embeddings[:1])
        for t in (1, 2, 3):
            observations, _, _, _, infos = live.step(_actions(live))
            step = _collect(live)
            np.testing.assert_array_equal(step.observations[0], embeddings[t - 1])
            np.testing.assert_array_equal(step.next_observations[0], embeddings[t])
        last = 0 if mode is AutoresetMode.SAME_STEP else 3
        np.testing.assert_array_equal(observations[0], embeddings[last])
        assert observations in live.observation_space
        if mode is AutoresetMode.SAME_STEP:
            np.testing.assert_array_equal(infos["final_obs"][0], embeddings[3])
        if mode is AutoresetMode.NEXT_STEP:
            np.testing.assert_array_equal(live.step(_actions(live))[0][0], embeddings[0])


def test_embeddings_of_environments_that_are_not_reset_stay(judged):
    labeler, _ = judged
    embeddings = labeler.embed(np.stack([labeler.resize(frame) for frame in POOL[:4]]))
    settings = dataclasses.replace(GO_ON, observation="embeddings")
    live = LiveRewards(vector(ScriptedEnv(POOL[:2]), ScriptedEnv(POOL[:4])), labeler, **vars(settings))
    live.reset()
    live.step(_actions(live))
    observations, infos = live.reset(options={"reset_mask": np.array([True, False])})
    np.testing.assert_array_equal(observations, embeddings[[0, 1]])
    assert infos["score"].tolist() == [labeler.score(embeddings)[0, BALL], labeler.score(embeddings)[1, BALL]]
    live.step(_actions(live))
    step = _collect(live)
    np.testing.assert_array_equal(step.observations, embeddings[[0, 1]])
    np.testing.assert_array_equal(step.next_observations, embeddings[[1, 2]])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"hysteresis": 0.02, "min_frames": 2},
        {"reward": "difference"},
        {"window": WindowSettings(frames=3)},
        {"window": WindowSettings(frames=3, over="embeddings")},
    ],
    ids=["success", "steady", "difference", "window", "window-embeddings"],
)
def test_a_frame_labelled_by_the_pipeline_and_live_gets_the_same_bits(folder, tmp_path, changes):
    live_labeler(folder, POOL)  # writes the model
    goals = tuple(goal for goal in goal_bank() if goal.family == "find")
    labeler = Labeler.build(
        LabelerSettings(
            model=str(folder),
            goals=goals,
            formula="cosine",
            threshold=0.1,
            precision="float32",
            batch_size=4,
            **changes,
        )
    )
    environments = EnvironmentSettings(envs=("BabyAI-GoToLocal-v0",), num_envs=3, max_steps=7)
    live = LiveRewards(make_environments(environments, goals), labeler, **vars(GO_ON))
    rng = np.random.default_rng(0)
    observations, _ = live.reset()
    met, scores, rewards = [observations], [], []
    for _ in range(7):
        actions = rng.integers(0, 7, 3)
        observations, reward, _, _, _ = live.step(actions)
        met.append(observations)
        scores.append(_collect(live).scores)
        rewards.append(reward)
    episodes = [
        Episode(
            episode_id=f"episode-{i}",
            images={"egocentric": [encode_png(step[i]) for step in met]},
            actions=np.zeros(7, np.int64),
        )
        for i in range(3)
    ]
    (tmp_path / "corpus").mkdir()
    write_episodes(tmp_path / "corpus/shard-0.parquet", CorpusFeatures.of(episodes[0]), episodes, "parquet")
    label(tmp_path / "corpus", labeler.settings, output=tmp_path / "labels", workers=1)
    opened = open_labels(tmp_path / "labels")
    (unit,) = opened.open_corpus(tmp_path / "corpus")[1]
    for i, labels in enumerate(read_labels(part_of_unit(opened, unit))):
        assert labels.scores[1:].tobytes() == np.stack(scores)[:, i].tobytes()
        expected = labeler.rewards(labels.scores)[:, live.goal_indices[i]]
        assert expected.tobytes() == np.stack(rewards)[:, i].tobytes()
    # The labels say what they were made with; the same labeler is taken, another camera's refused.
    settings = read_settings(tmp_path / "labels")["settings"]
    again = Labeler.build(settings_from_json(settings["labeler"]))
    shown = dataclasses.replace(GO_ON, camera="egocentric")
    LiveRewards(live.env, again, **vars(shown), labels=opened.metadata.fingerprint, spaces=live.spaces)
    with pytest.raises(ValueError, match="got other camera"):
        LiveRewards(
            live.env, again, **vars(dataclasses.replace(GO_ON, camera="top")), labels=opened.metadata.fingerprint
        )


@pytest.mark.parametrize("changes", [{}, {"window": WindowSettings(frames=3)}], ids=["frames", "windows"])
def test_a_run_goes_on_from_its_state_to_the_bit(folder, changes):
    live_labeler(folder, POOL)
    goals = tuple(goal for goal in goal_bank() if goal.family == "find")
    labeler = Labeler.build(
        LabelerSettings(
            model=str(folder),
            goals=goals,
            formula="cosine",
            threshold=0.1,
            min_frames=2,
            precision="float32",
            **changes,
        )
    )
    environments = EnvironmentSettings(envs=("BabyAI-GoToLocal-v0",), num_envs=2, max_steps=6)

    def play(live, steps, rng):
        told = []
        for _ in range(steps):
            observations, *rest, infos = live.step(rng.integers(0, 7, 2))
            over = rest[1] | rest[2]
            told += [observations, *rest, infos["score"], infos["goal_id"], *_collect(live)]
            if over.any():
                told.append(live.reset(options={"reset_mask": over})[0])
        return told

    live = LiveRewards(make_environments(environments, goals), labeler, **vars(ENDING))
    live.reset()
    rng = np.random.default_rng(0)
    play(live, 10, rng)
    state, draws = live.state_dict(), rng.bit_generator.state
    unbroken = play(live, 10, rng)
    other = LiveRewards(make_environments(environments, goals), labeler, **vars(ENDING))
    observations = other.load_state_dict(state)
    assert observations.shape == (2, 56, 56, 3)
    rng.bit_generator.state = draws
    for left, right in zip(unbroken, play(other, 10, rng), strict=True):
        np.testing.assert_array_equal(left, right)
    assert other.monitor.counts == live.monitor.counts
    # What scoring has cost is of the whole run, what came before the interruption included.
    assert other.statistics()["frames"] == live.statistics()["frames"]
    assert other.statistics()["seconds_scoring"] > state["judge"]["seconds"] > 0
    assert other.statistics()["seconds_waited"] > state["judge"]["seconds_waited"] > 0


def test_first_frames_that_are_judged_late_do_not_reach_a_state_that_was_loaded(folder):
    live_labeler(folder, POOL)
    goals = tuple(goal for goal in goal_bank() if goal.family == "find")
    labeler = Labeler.build(
        LabelerSettings(
            model=str(folder), goals=goals, formula="cosine", threshold=0.1, min_frames=2, precision="float32"
        )
    )
    environments = EnvironmentSettings(envs=("BabyAI-GoToLocal-v0",), num_envs=2)
    settings = dataclasses.replace(GO_ON, asynchronous=True)
    live, other = (LiveRewards(make_environments(environments, goals), labeler, **vars(settings)) for _ in range(2))
    live.reset()
    for _ in range(5):
        live.step(np.full(2, 2))
    live.collect(wait=True)
    state = live.state_dict()
    gate = threading.Event()
    other._judge._worker.submit(gate.wait, 60.0)
    other.reset()  # its first frames wait behind the gate
    opening = threading.Timer(0.5, gate.set)
    opening.start()
    other.load_state_dict(state)
    opening.join()
    other.collect(wait=True)
    for name, value in state["judge"]["rule"].items():
        np.testing.assert_array_equal(other.state_dict()["judge"]["rule"][name], value)
    live.close()
    other.close()


def test_a_goal_that_holds_from_the_start_can_be_left_out(judged):
    labeler, of = judged
    yes, no = of[BALL]
    script = np.stack([yes[0], yes[1], no[0], yes[2]])
    for ignore, expected in ((False, [1, 0, 1]), (True, [0, 0, 1])):
        settings = dataclasses.replace(GO_ON, ignore_initial_success=ignore)
        live = LiveRewards(vector(ScriptedEnv(script)), labeler, **vars(settings))
        live.reset()
        assert [live.step(_actions(live))[1].item() for _ in range(3)] == expected


def test_what_does_not_fit_is_refused_before_the_first_step(judged):
    labeler, _ = judged
    env = vector(ScriptedEnv(POOL))
    with pytest.raises(
        ValueError,
        match=r"goal_id in the infos .* one of the 2 goals that may be asked for \(ball, box, ...\), got 'cup'",
    ):
        LiveRewards(vector(ScriptedEnv(POOL, ["cup"])), labeler).reset()
    other = dataclasses.replace(LiveRewards(env, labeler).spaces, num_actions=7)
    with pytest.raises(
        ValueError, match="the live environment must have the num_actions .* 7, got 3. Use .* --num-actions 3"
    ):
        LiveRewards(env, labeler, spaces=other)
    with pytest.raises(ValueError, match="same fingerprint as this run, got other .*weights"):
        parts = {**labeler.fingerprint.parts, "camera": "egocentric", "sparse": False, "weights": "others"}
        LiveRewards(env, labeler, labels=Fingerprint(parts))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observation": "pixels"}, "observation must be 'frames' or 'embeddings', got 'pixels'"),
        (
            {"asynchronous": True, "end_at_success": True},
            "asynchronous must be False where a success ends the episode, got True",
        ),
        ({"frames": ""}, "frames must be 'observation', 'render' or a key of the observation, got ''"),
        (
            {"asynchronous": True, "observation": "embeddings"},
            "asynchronous must be False where the agent sees embeddings, got True",
        ),
        ({"max_pending": 0}, "max_pending must be at least 1, got 0"),
    ],
)
def test_settings_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        LiveRewardSettings(**changes)
