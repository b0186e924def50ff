"""The playroom as Gymnasium makes it, as a level, and as random views."""

import hashlib
import multiprocessing
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from domain_play import last_infos_beside_gymnasium

import vlm_rewards.environments
from vlm_rewards.labelers.domains.playroom.domain import PLAYROOM
from vlm_rewards.labelers.domains.playroom.drawing import renderer
from vlm_rewards.labelers.domains.playroom.environment import PlayroomEnvironment
from vlm_rewards.labelers.domains.playroom.goals import ENVIRONMENTS, TOYS
from vlm_rewards.labelers.domains.playroom.rooms import FULL, Pose, draw_room
from vlm_rewards.labelers.domains.playroom.views import SHARES, Views
from vlm_rewards.labelers.domains.playroom.world import DROP, FORWARD, GRAB, LEFT

ENVS = PLAYROOM.environments()


def make(env, side=96):
    return PLAYROOM.make(env, frame_size=(side, side), cameras=("eyes",))


def solved(env, seeds, policy):
    level, found = make(env), 0
    for seed in seeds:
        random = np.random.default_rng(seed)
        level.reset(seed)
        expert, action, done, late = level.expert(), None, False, False
        while not (done or late):
            action = expert.act(action) if policy == "bot" else int(random.integers(6))
            _, _, done, late = level.step(action)
        found += done
    level.close()
    return found / len(seeds)


@pytest.mark.parametrize("env", ENVS)
def test_the_expert_does_what_is_asked_and_chance_seldom_does(env):
    assert solved(env, range(3_000_000, 3_000_012), "bot") == 1
    if ENVIRONMENTS[env].near:
        assert solved(env, range(3_000_000, 3_000_008), "random") <= 0.75


@pytest.mark.parametrize("name", ENVS)
def test_gymnasium_makes_it_and_finds_it_in_order(name):
    assert {env for env in vlm_rewards.environments.ENVIRONMENTS if "Playroom" in env} == set(ENVS)
    infos, _ = last_infos_beside_gymnasium(PLAYROOM, name, (96, 96))
    assert infos["goal_id"] in infos["achieved"]


def test_an_episode_ends_when_its_time_is_up():
    level = make("vlm-rewards/Playroom-FindNear-v0")
    level.reset(1)
    late = [level.step(DROP)[3] for _ in range(61)]
    assert late == [False] * 59 + [True, True]
    level.close()


def test_what_is_asked_for_is_in_view_at_the_start_of_a_near_room():
    for env in ENVS:
        if ENVIRONMENTS[env].near:
            level = make(env)
            for seed in range(5):
                look = level.reset(seed)
                assert len(level.world.toys) == 4
                named = [toy for toy in look.state.pixels if TOYS[toy] in level.mission]
                assert len(named) == (2 if ENVIRONMENTS[env].family == "place" else 1)
            level.close()


def test_a_goal_that_the_room_lacks_is_refused():
    env = gymnasium.make("vlm-rewards/Playroom-Find-v0")
    level = make("vlm-rewards/Playroom-Find-v0")
    level.reset(3)
    lacking = next(goal.id for goal in PLAYROOM.goals("find") if goal.id not in level.goals())
    with pytest.raises(ValueError, match=f"this room cannot be asked for the goal, .*: got '{lacking}'. Reset it with"):
        env.reset(seed=3, options={"goal_id": lacking})
    other = level.goals()[1]
    _, info = env.reset(seed=3, options={"goal_id": other})
    assert (info["goal_id"], info["mission"]) == (other, f"go near the {other.removeprefix('find-').replace('-', ' ')}")
    env.close()
    level.close()


def test_what_it_cannot_draw_is_refused():
    with pytest.raises(ValueError, match="the render mode must be 'rgb_array' or None: got 'human'. Choose"):
        PlayroomEnvironment(ENVS[0], render_mode="human")
    with pytest.raises(ValueError, match="playroom draws no frames of this size: got 97x97. Choose one of 96x96"):
        gymnasium.make(ENVS[0], frame_size=(97, 97))


def test_without_panda3d_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "panda3d", None)
    renderer._core.cache_clear()
    with pytest.raises(
        ImportError, match=r"panda3d must be installed: got none. pip install 'vlm-rewards\[playroom\]'"
    ):
        make(ENVS[0])


def test_it_needs_no_display_and_says_nothing():
    code = (
        "import gymnasium; env = gymnasium.make('vlm_rewards.environments:vlm-rewards/Playroom-Lift-v0');"
        "print(env.reset(seed=0)[0].shape)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert (done.stdout, done.stderr) == ("(96, 96, 3)\n", "")


def _digest_of_an_episode():
    level = make("vlm-rewards/Playroom-PlaceNear-v0")
    looks = [level.reset(4)] + [level.step(action)[0] for action in (LEFT, FORWARD, GRAB, FORWARD, DROP) * 3]
    level.close()
    return hashlib.sha256(b"".join(look.frames["eyes"].tobytes() for look in looks)).hexdigest()


def test_a_forked_process_draws_the_same():
    alone = _digest_of_an_episode()
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=lambda: there.send(_digest_of_an_episode()))
    process.start()
    assert here.poll(60)
    assert here.recv() == alone
    process.join()
    assert process.exitcode == 0


def test_a_toy_is_seen_where_it_is_and_before_the_eyes_when_it_is_held():
    random = np.random.default_rng(0)
    room, stage = draw_room(random, FULL), renderer.Stage(96)
    stage.furnish(room, ())
    x, y = room.width / 2, room.depth / 2
    bare = stage.draw(Pose(x, y, 0), None, True)
    assert not bare.ids.any()
    toy = renderer.Toy(TOYS.index("red ball"), x + 1.0, y + 0.3, 0.0)
    stage.furnish(room, (toy,))
    shown = stage.draw(Pose(x, y, 0), None, True)
    rows, columns = np.nonzero(shown.ids)
    assert set(np.unique(shown.ids)) == {0, 1}
    # 0.3 m to the left at 1 m: tan(angle) = 0.3 of tan(40 degrees) = 0.839, so 18 % of the picture left of its middle.
    assert columns.mean() == pytest.approx(32 - 0.5 * 64 * 0.3 / 0.839, abs=2)
    assert rows.mean() > 32  # its middle is 0.2 m above the floor, below the eyes
    red, green, _ = shown.frame[(rows * 1.5).astype(int), (columns * 1.5).astype(int)].mean(axis=0)
    assert red > 2 * green
    assert np.array_equal(stage.draw(Pose(x, y, 8), None, True).ids, np.zeros((64, 64)))
    stage.lift(0, toy.kind)
    held = [stage.draw(Pose(x, y, heading), 0, True).ids for heading in range(16)]
    assert all(np.array_equal(ids, held[0]) for ids in held)
    assert np.nonzero(held[0])[1].mean() == pytest.approx(31.5, abs=1)
    assert (held[0] > 0).sum() > (shown.ids > 0).sum()
    stage.put(0, toy)
    assert np.array_equal(stage.draw(Pose(x, y, 0), None, True).frame, shown.frame)
    stage.close()


def test_views_hold_what_they_say_and_every_family_often():
    views = Views((96, 96), PLAYROOM.seeds.models)
    drawn = [views.draw(np.random.default_rng(5)) for _ in range(1)]
    random = np.random.default_rng(6)
    drawn += [views.draw(random) for _ in range(119)]
    views.close()
    again = Views((96, 96), PLAYROOM.seeds.models)
    assert np.array_equal(again.draw(np.random.default_rng(5)).frame, drawn[0].frame)
    again.close()
    assert sum(SHARES.values()) == pytest.approx(1)
    for view in drawn:
        assert view.frame.shape == (96, 96, 3)
        shown, counts = np.unique(view.ids, return_counts=True)
        pixels = {int(toy) - 1: int(count) for toy, count in zip(shown, counts, strict=True) if toy}
        assert view.sight.pixels == {toy: count for toy, count in pixels.items() if count >= 8}
        assert set(view.sight.near) <= set(view.sight.pixels)
        assert {toy for pair in view.sight.pairs for toy in pair} <= set(view.sight.pixels)
    shares = [np.mean([bool(holds(view.sight)) for view in drawn]) for holds in (_near, _held, _pairs)]
    assert min(shares) > 0.15
    assert np.mean([not view.sight.goals() for view in drawn]) > 0.1


def _near(sight):
    return sight.near


def _held(sight):
    return sight.held is not None


def _pairs(sight):
    return sight.pairs
