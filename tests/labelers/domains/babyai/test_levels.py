import builtins
import sys

import gymnasium
import numpy as np
import pytest
from minigrid import wrappers

from vlm_rewards.labelers.domains.babyai.domain import BABYAI
from vlm_rewards.labelers.domains.babyai.goals import ground_truth
from vlm_rewards.labelers.domains.babyai.level_names import LEVEL_NAMES
from vlm_rewards.labelers.domains.babyai.levels import CAMERA, BabyAILevel, _Frames, babyai_bot, without_rejections
from vlm_rewards.labelers.domains.babyai.scenes import EVALUATION_SEEDS, TRAIN_SEEDS, VALIDATION_SEEDS
from vlm_rewards.labelers.domains.domain import ExpertGaveUpError

GO_TO = "BabyAI-GoToLocal-v0"


def test_the_models_seeds_are_of_their_range():
    for seeds in (TRAIN_SEEDS, VALIDATION_SEEDS, EVALUATION_SEEDS):
        assert seeds.start in BABYAI.seeds.models
        assert seeds.stop - 1 in BABYAI.seeds.models


def test_the_names_are_those_that_minigrid_registers():
    registered = {name for name in gymnasium.registry if name.startswith("BabyAI-")}
    assert len(LEVEL_NAMES) == 96
    assert set(LEVEL_NAMES) == registered


@pytest.mark.parametrize("name", [GO_TO, "BabyAI-PickupDist-v0", "BabyAI-PutNextLocal-v0", "BabyAI-OpenRedDoor-v0"])
def test_an_episode_can_be_asked_for_the_goal_of_its_mission_alone(name):
    bank = {goal.id: goal for goal in BABYAI.goals("default")}
    level = BabyAILevel(name)
    asked_for = 0
    for seed in range(10):
        level.reset(seed)
        asked = level.goals()
        matching = [goal.id for goal in bank.values() if level.mission in goal.instructions]
        assert list(asked) == matching
        asked_for += len(asked)
        for goal_id in asked:
            level.ask(goal_id)
        other = next(goal_id for goal_id in bank if goal_id not in asked)
        with pytest.raises(
            ValueError, match=f"cannot be asked for the goal: got '{other}', its mission being '.*'. Reset"
        ):
            level.ask(other)
    # "open the red door" is no goal of the bank, nor is "pick up a grey object", which PickupDist asks for now and then.
    assert asked_for == {"BabyAI-OpenRedDoor-v0": 0, "BabyAI-PickupDist-v0": 3}.get(name, 10)


def test_facts_are_the_ground_truth_of_the_view():
    ids = [goal.id for goal in BABYAI.goals("default")]
    level = BabyAILevel("BabyAI-PutNextLocal-v0")
    random = np.random.default_rng(0)
    looks = [level.reset(3)] + [level.step(int(random.integers(6)))[0] for _ in range(60)]
    for look in [*looks, *looks]:  # again, from the cache
        assert level.facts(look) == {ids[i] for i in np.flatnonzero(ground_truth(look.state))}
    assert len({level.facts(look) for look in looks}) > 3


def test_a_bot_that_does_not_know_what_to_do_gives_up():
    level = BabyAILevel("BabyAI-PutNextS5N2Carrying-v0")  # which the bot fails on
    level.reset(0)
    expert, action = level.expert(), None
    for _ in range(3):
        action = expert.act(action)
        level.step(action)
    with pytest.raises(ExpertGaveUpError, match="BabyAI's bot knows no action: got AssertionError.*nothing left"):
        expert.act(action)


def test_a_level_goes_on_after_its_mission_is_done():
    level = BabyAILevel(GO_TO)
    level.reset(0)
    bot = babyai_bot()(level.env.unwrapped)
    terminated, action = False, None
    while not terminated:
        action = int(bot.replan(action))
        look, reward, terminated, _ = level.step(action)
    assert reward > 0
    after, _, _, _ = level.step(0)
    assert after.frames[CAMERA].shape == (56, 56, 3)
    assert not np.array_equal(after.frames[CAMERA], look.frames[CAMERA])
    level.close()


def test_the_frame_is_as_large_as_its_tiles():
    look = BabyAILevel(GO_TO, tile_size=4).reset(0)
    assert look.frames[CAMERA].shape == (28, 28, 3)
    assert look.frames[CAMERA].dtype == np.uint8
    assert look.state.shape == (7, 7, 3)


def test_frames_that_come_back_are_minigrids_own_pixels():
    # Every action there is, a carried object, doors that open: what the cache gives must be what MiniGrid draws.
    random = np.random.default_rng(0)
    for name in (GO_TO, "BabyAI-PickupLoc-v0", "BabyAI-OpenDoorColor-v0"):
        level = BabyAILevel(name)
        drawn = wrappers.RGBImgPartialObsWrapper(level.env, tile_size=8)
        looks = [level.reset(0)]
        for action in random.integers(6, size=150).tolist():
            looks.append(level.step(action)[0])
            assert np.array_equal(looks[-1].frames[CAMERA], drawn.observation({"mission": ""})["image"])
        assert len({id(look.frames[CAMERA]) for look in looks}) < len(looks)  # some came back
        with pytest.raises(ValueError, match="read-only"):
            looks[0].frames[CAMERA][0, 0, 0] = 0


def test_the_cache_of_frames_forgets_the_one_unused_longest():
    frames = _Frames(max_bytes=8)
    frames.put((8, b"a"), np.zeros(3, np.uint8))
    frames.put((8, b"b"), np.zeros(3, np.uint8))
    assert frames.get((8, b"a")) is not None
    frames.put((8, b"c"), np.zeros(3, np.uint8))  # 9 bytes are over the limit
    assert frames.get((8, b"b")) is None
    assert frames.get((8, b"a")) is not None
    assert frames.get((8, b"c")) is not None
    assert frames.get((4, b"c")) is None  # of tiles of another size


def test_babyais_rejections_are_held_back_and_nothing_else(capsys):
    with without_rejections():
        print("Sampling rejected: unreachable object at (1, 2)")
        print("something else")
    assert capsys.readouterr().out == "something else\n"


def test_without_minigrid_the_remedy_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("minigrid"):
            raise ModuleNotFoundError("No module named 'minigrid'")
        return real(name, *args, **kwargs)

    for name in [name for name in sys.modules if name.startswith("minigrid")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'vlm-rewards\[babyai\]'"):
        BabyAILevel(GO_TO)
