"""OpenApp as Gymnasium makes it, and as a level."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from domain_play import last_infos_beside_gymnasium

import vlm_rewards.environments
from vlm_rewards.labelers.domains.domain import ExpertGaveUpError
from vlm_rewards.labelers.domains.openapp.domain import OPENAPP
from vlm_rewards.labelers.domains.openapp.environment import OpenAppEnvironment
from vlm_rewards.labelers.domains.openapp.levels import NUM_ACTIONS, cell_centre

ENVS = OPENAPP.environments()


def solved(env, seeds, advised=1.0):
    """Share of episodes that end with the app in front; a share of the actions is the expert's, the others are random."""
    level, found = OPENAPP.make(env, frame_size=(160, 96), cameras=("screen",)), 0
    for seed in seeds:
        random = np.random.default_rng(seed)
        level.reset(seed)
        expert, action, done, late = level.expert(), None, False, False
        while not (done or late):
            expertly = random.random() < advised
            action = expert.act(action) if expertly else int(random.integers(NUM_ACTIONS))
            _, _, done, late = level.step(action)
        found += done
    return found / len(seeds)


@pytest.mark.parametrize("env", ENVS)
def test_the_expert_opens_every_app_and_chance_few(env):
    assert solved(env, range(30)) == 1
    assert solved(env, range(10), advised=0.6) > 0.8
    assert solved(env, range(12), advised=0) < 0.5


def test_the_expert_has_no_more_to_say_when_the_app_is_in_front():
    level = OPENAPP.make(ENVS[0], frame_size=(160, 96), cameras=("screen",))
    level.reset(0)
    expert, done = level.expert(), False
    while not done:
        _, _, done, _ = level.step(expert.act(None))
    with pytest.raises(ExpertGaveUpError, match=f"the app is in front: got '{level.asked_app}'"):
        expert.act(None)


def test_a_touch_lands_in_the_middle_of_its_cell():
    assert cell_centre(0) == (0.5 / 6, 0.5 / 10)
    assert cell_centre(59) == (5.5 / 6, 9.5 / 10)
    assert NUM_ACTIONS == 66


def test_an_app_that_the_phone_lacks_is_refused():
    env = gymnasium.make(ENVS[0])
    _, info = env.reset(seed=3)
    level = OPENAPP.make(ENVS[0], frame_size=(160, 96), cameras=("screen",))
    level.reset(3)
    lacking = next(goal.id for goal in OPENAPP.goals("default") if goal.id not in level.goals())
    with pytest.raises(ValueError, match=f"this phone cannot be asked for the goal, .*: got '{lacking}'. Reset it"):
        env.reset(seed=3, options={"goal_id": lacking})
    other = level.goals()[1]
    _, info = env.reset(seed=3, options={"goal_id": other})
    assert (info["goal_id"], info["mission"]) == (other, f"open the {other.removeprefix('open-')} app")


@pytest.mark.parametrize("name", ENVS)
def test_gymnasium_makes_it_and_finds_it_in_order(name):
    assert {env for env in vlm_rewards.environments.ENVIRONMENTS if "OpenApp" in env} == set(ENVS)
    infos, mission = last_infos_beside_gymnasium(OPENAPP, name, (96, 96))
    assert mission == f"open the {infos['app']} app"


def test_what_it_cannot_draw_is_refused():
    with pytest.raises(ValueError, match="the render mode must be 'rgb_array' or None: got 'ansi'. Choose"):
        OpenAppEnvironment(ENVS[0], render_mode="ansi")
    with pytest.raises(ValueError, match="openapp draws no frames of this size: got 97x96. Choose one of 160x96"):
        gymnasium.make(ENVS[0], frame_size=(97, 96))


def test_gymnasium_imports_it_by_the_name_of_the_module():
    code = (
        "import gymnasium; env = gymnasium.make('vlm_rewards.environments:vlm-rewards/OpenAppHard-v0');"
        "print(env.reset(seed=0)[0].shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(160, 96, 3)"


def test_without_gymnasium_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    monkeypatch.delitem(sys.modules, "vlm_rewards.environments")
    with pytest.raises(ImportError, match=r"gymnasium must be installed: got none. pip install 'gymnasium>=1.1'"):
        import vlm_rewards.environments  # noqa: F401


def test_goals_hold_out_by_their_app():
    assert len(OPENAPP.goals("default")) == 60
    assert [goal.family for goal in OPENAPP.goals("common")] == ["common"] * 10
    assert OPENAPP.kinds(OPENAPP.goals("common")[0]) == {"mail"}
