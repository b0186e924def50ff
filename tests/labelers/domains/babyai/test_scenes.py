"""Drawn scenes against MiniGrid itself."""

import builtins
import contextlib
import io

import numpy as np
import pytest

from vlm_rewards.labelers.domains.babyai import scenes
from vlm_rewards.labelers.domains.babyai.goals import ground_truth
from vlm_rewards.labelers.domains.babyai.scenes import (
    draw_scenes,
    load_layouts,
    render,
    tile_table,
    view_tiles,
    visible_cells,
)

gymnasium = pytest.importorskip("gymnasium")
pytest.importorskip("minigrid")

LEVELS = (
    "BabyAI-GoToLocal-v0",
    "BabyAI-PutNextLocal-v0",
    "BabyAI-GoTo-v0",
    "BabyAI-UnlockPickup-v0",
    "BabyAI-BossLevel-v0",
)


@pytest.fixture(scope="module")
def layouts():
    return load_layouts(range(3), num_rooms=1, num_mazes=3)


def random_states(level: str, seed: int, num_steps: int):
    """Steps of a policy that likes to pick up, drop and open."""
    env = gymnasium.make(level).unwrapped
    rng = np.random.default_rng(seed)
    with contextlib.redirect_stdout(io.StringIO()):
        observation, _ = env.reset(seed=seed)
    for _ in range(num_steps):
        yield env, observation
        observation = env.step(int(rng.choice([0, 1, 2, 2, 2, 3, 4, 5])))[0]


@pytest.mark.parametrize("level", LEVELS)
def test_frames_equal_minigrids_own_bit_for_bit(level):
    for seed in range(2):
        for env, observation in random_states(level, seed, 60):
            tiles = view_tiles(observation["image"][None])
            for tile_size in (8, 32):
                assert np.array_equal(render(tiles, tile_size)[0], env.get_frame(tile_size=tile_size, agent_pov=True))


def test_the_compared_states_cover_carrying_and_doors():
    states = [observation["image"] for level in LEVELS for _, observation in random_states(level, 1, 60)]
    types = np.stack(states)[..., 0]
    assert np.isin(types[:, 3, 6], (5, 6, 7)).any()
    assert {1, 2, 4, 5, 6, 7} <= set(np.unique(types))


@pytest.mark.parametrize("level", LEVELS)
def test_visible_cells_equal_minigrids_mask(level):
    for env, _ in random_states(level, 7, 60):
        left, top, _, _ = env.get_view_exts()
        whole = env.grid.slice(left, top, 7, 7)
        for _ in range(env.agent_dir + 1):
            whole = whole.rotate_left()
        view = whole.encode()[None]
        _, mask = env.gen_obs_grid()
        assert np.array_equal(visible_cells(view)[0], mask)


def test_crops_equal_minigrids_observations():
    """An emptied level seen from every fourth of its cells, in all directions."""
    layouts = load_layouts([5], room_levels=["BabyAI-GoToLocal-v0"], maze_levels=["BabyAI-GoTo-v0"], num_mazes=1)
    env = gymnasium.make("BabyAI-GoTo-v0").unwrapped
    with contextlib.redirect_stdout(io.StringIO()):
        env.reset(seed=5)
    for index, thing in enumerate(env.grid.grid):
        if thing is not None and thing.type in ("key", "ball", "box"):
            env.grid.grid[index] = None
    for position in layouts.free[layouts.first_free[1] :: 4]:
        if env.grid.get(*(position - 6)) is not None:
            continue  # a door, still closed
        for direction in range(4):
            env.agent_pos, env.agent_dir = tuple(position - 6), direction
            view = scenes._crop(layouts.cells, np.array([1]), position[None], np.array([direction]))
            view[:, 3, 6] = (1, 0, 0)
            view[~visible_cells(view)] = 0
            assert np.array_equal(view[0], env.gen_obs()["image"])


def test_drawn_views_render_as_minigrid_renders_them(layouts):
    from minigrid.core.grid import Grid

    drawn = draw_scenes(layouts, np.random.default_rng(0), 64)
    frames = render(drawn.tiles)
    for view, frame in zip(drawn.view, frames, strict=True):
        grid, mask = Grid.decode(view)
        assert np.array_equal(frame, grid.render(8, agent_pos=(3, 6), agent_dir=3, highlight_mask=mask))


def test_scenes_follow_from_the_seed(layouts):
    one, other = (draw_scenes(layouts, np.random.default_rng(3), 50) for _ in range(2))
    assert np.array_equal(one.view, other.view)
    assert np.array_equal(one.carrying, other.carrying)
    assert not np.array_equal(one.view, draw_scenes(layouts, np.random.default_rng(4), 50).view)


def test_every_goal_is_drawn_and_the_carried_object_is_the_one_in_the_agents_cell(layouts):
    drawn = draw_scenes(layouts, np.random.default_rng(0), 20_000)
    truth = ground_truth(drawn.view, drawn.carrying)
    assert truth.any(axis=0).all()
    assert np.array_equal(truth, ground_truth(drawn.view))
    assert 0.3 < truth[:, 18:36].any(axis=1).mean() < 0.6  # a good share with and without something carried
    assert 0.3 < truth[:, 36:].any(axis=1).mean() < 0.8


def test_tiles_are_58_and_all_different():
    table = tile_table(8)
    assert table.shape == (58, 8, 8, 3)
    assert len(np.unique(table.reshape(58, -1), axis=0)) == 58


def test_seeds_for_training_validation_and_evaluation_do_not_meet():
    assert scenes.TRAIN_SEEDS.stop <= scenes.VALIDATION_SEEDS.start
    assert scenes.VALIDATION_SEEDS.stop <= scenes.EVALUATION_SEEDS.start


def test_a_view_with_lava_is_refused():
    view = np.ones((1, 7, 7, 3), dtype=np.uint8)
    view[0, 2, 2] = (9, 0, 0)
    with pytest.raises(ValueError, match="walls, doors, keys, balls and boxes only, got MiniGrid type 9"):
        view_tiles(view)


def test_missing_minigrid_names_the_extra(monkeypatch):
    real_import = builtins.__import__

    def no_minigrid(name, *args, **kwargs):
        if name.startswith("minigrid"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    scenes._minigrid.cache_clear()
    monkeypatch.setattr(builtins, "__import__", no_minigrid)
    with pytest.raises(ImportError, match=r"pip install 'vlm-rewards\[babyai\]'"):
        load_layouts(range(1))
