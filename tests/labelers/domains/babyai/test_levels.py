import builtins
import itertools
import sys

import numpy as np
import pytest
from minigrid import wrappers

from vlm_rewards.labelers.domains.babyai.levels import (
    HELD_OUT_SEEDS,
    LIVE_SEEDS,
    RECORDED_SEEDS,
    BabyAILevel,
    _Frames,
    babyai_bot,
    check_levels,
    draw_seed,
    level_names,
    without_rejections,
)
from vlm_rewards.labelers.domains.babyai.scenes import EVALUATION_SEEDS, TRAIN_SEEDS, VALIDATION_SEEDS

GO_TO = "BabyAI-GoToLocal-v0"


def test_no_two_uses_share_a_seed():
    ranges = sorted(
        (TRAIN_SEEDS, VALIDATION_SEEDS, EVALUATION_SEEDS, RECORDED_SEEDS, LIVE_SEEDS, HELD_OUT_SEEDS),
        key=lambda seeds: seeds.start,
    )
    assert all(before.stop <= after.start for before, after in itertools.pairwise(ranges))
    assert HELD_OUT_SEEDS.stop <= 2**32  # what every generator of random numbers takes for a seed


def test_a_drawn_seed_is_of_the_range_and_depends_on_the_key_alone():
    assert draw_seed(range(5, 6), "a") == 5
    drawn = [draw_seed(LIVE_SEEDS, str(key)) for key in range(200)]
    assert drawn == [draw_seed(LIVE_SEEDS, str(key)) for key in range(200)]
    assert len(set(drawn)) == 200
    assert all(seed in LIVE_SEEDS for seed in drawn)


def test_a_level_goes_on_after_its_mission_is_done():
    level = BabyAILevel(GO_TO)
    level.reset(RECORDED_SEEDS.start)
    bot = babyai_bot()(level.env.unwrapped)
    terminated, action = False, None
    while not terminated:
        action = int(bot.replan(action))
        look, reward, terminated, _ = level.step(action)
    assert reward > 0
    after, _, _, _ = level.step(0)
    assert after.frame.shape == (56, 56, 3)
    assert not np.array_equal(after.frame, look.frame)
    level.close()


def test_the_frame_is_as_large_as_its_tiles():
    look = BabyAILevel(GO_TO, tile_size=4).reset(RECORDED_SEEDS.start)
    assert look.frame.shape == (28, 28, 3)
    assert look.frame.dtype == np.uint8
    assert look.view.shape == (7, 7, 3)


def test_frames_that_come_back_are_minigrids_own_pixels():
    # Every action there is, a carried object, doors that open: what the cache gives must be what MiniGrid draws.
    random = np.random.default_rng(0)
    for name in (GO_TO, "BabyAI-PickupLoc-v0", "BabyAI-OpenDoorColor-v0"):
        level = BabyAILevel(name)
        drawn = wrappers.RGBImgPartialObsWrapper(level.env, tile_size=8)
        looks = [level.reset(RECORDED_SEEDS.start)]
        for action in random.integers(6, size=150).tolist():
            looks.append(level.step(action)[0])
            assert np.array_equal(looks[-1].frame, drawn.observation({"mission": ""})["image"])
        assert len({id(look.frame) for look in looks}) < len(looks)  # some came back
        with pytest.raises(ValueError, match="read-only"):
            looks[0].frame[0, 0, 0] = 0


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


def test_levels_are_checked_by_name():
    assert GO_TO in level_names()
    check_levels([GO_TO])
    with pytest.raises(ValueError, match="envs must name at least one level, got none"):
        check_levels([])
    with pytest.raises(ValueError, match=r"got 'BabyAI-GoToLocl-v0'; did you mean BabyAI-GoToLocal-v0"):
        check_levels(["BabyAI-GoToLocl-v0"])


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
