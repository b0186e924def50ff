"""What every domain must do. A domain is tested by one line in CASES."""

import dataclasses
import itertools
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from domain_play import digest_of, make_level, play
from dot_domain import DOT
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import TransformObservation

from vlm_rewards.labelers.domains import domain as domain_module
from vlm_rewards.labelers.domains.agent_facts import agent_facts_of
from vlm_rewards.labelers.domains.babyai.domain import BABYAI
from vlm_rewards.labelers.domains.domain import Domain, ExpertGaveUpError, SeedRanges
from vlm_rewards.labelers.domains.openapp.domain import OPENAPP
from vlm_rewards.labelers.domains.openapp.levels import cell_centre
from vlm_rewards.labelers.domains.playroom.domain import PLAYROOM
from vlm_rewards.labelers.domains.pretraining import Resources
from vlm_rewards.labelers.reference_models import REFERENCE_FOLDER
from vlm_rewards.labelers.reference_models.pretraining import frame_geometry, tokenizer_of
from vlm_rewards.labelers.reference_models.tokenizer import MAX_TOKENS
from vlm_rewards.labelers.rewards.hindsight import original_goals
from vlm_rewards.offline_rl.environments.goal_environments import DomainEnvironment, Stream
from vlm_rewards.pipelines.record.recording import env_seed, record_episode
from vlm_rewards.pipelines.record.settings import POLICIES, RecordSettings
from vlm_rewards.schemas.episodes import CorpusFeatures
from vlm_rewards.schemas.goals import Goal, check_goals, normalize_instruction
from vlm_rewards.schemas.pictures import decode_image

CASES = [
    (BABYAI, ("BabyAI-GoToLocal-v0", "BabyAI-PickupDist-v0", "BabyAI-PutNextLocal-v0", "BabyAI-GoTo-v0")),
    (OPENAPP, ("vlm-rewards/OpenApp-v0", "vlm-rewards/OpenAppHard-v0")),
    (
        PLAYROOM,
        tuple(f"vlm-rewards/Playroom-{name}-v0" for name in ("Find", "Place", "FindNear", "LiftNear", "PlaceNear")),
    ),
    (DOT, ("Dot-v0",)),
]
"""Domains, each with environments in which its expert succeeds."""

by_domain = pytest.mark.parametrize(("domain", "envs"), CASES, ids=lambda value: getattr(value, "name", ""))
MAX_STEPS = 400


@pytest.fixture(autouse=True)
def silence(capfd):
    """Nothing may be printed: standard output belongs to the commands."""
    yield
    assert capfd.readouterr().out == ""


def bank_of(domain) -> dict[str, Goal]:
    return {goal.id: goal for bank in domain.banks for goal in domain.goals(bank)}


@by_domain
def test_it_is_a_domain_that_can_be_pickled(domain, envs):
    assert isinstance(domain, Domain)
    again = pickle.loads(pickle.dumps(domain))
    assert (again.name, again.environments(), again.goals(domain.banks[0])) == (
        domain.name,
        domain.environments(),
        domain.goals(domain.banks[0]),
    )


@by_domain
def test_its_names_and_sizes_are_plain_data(domain, envs):
    CorpusFeatures(cameras=domain.cameras)  # which refuses names that cannot be columns
    for names in (domain.environments(), domain.cameras, domain.banks, domain.frame_sizes, domain.policies):
        assert names
        assert len(set(names)) == len(names)
        assert isinstance(names, tuple)
    assert set(envs) <= set(domain.environments())
    assert all(min(size) > 0 and len(size) == 2 for size in domain.frame_sizes)
    assert set(domain.policies) <= set(POLICIES)
    # A shipped model, or, with pathlib's rule for absolute paths, a folder of the domain's own.
    assert domain.default_model is None or (REFERENCE_FOLDER / domain.default_model / "config.json").is_file()


@by_domain
def test_its_seeds_by_use_are_disjoint(domain, envs):
    seeds = domain.seeds
    assert type(seeds) is SeedRanges  # which refuses ranges that share a seed
    ranges = [getattr(seeds, field.name) for field in dataclasses.fields(seeds)]
    for one, other in itertools.combinations(ranges, 2):
        assert max(one.start, other.start) >= min(one.stop, other.stop)


@by_domain
def test_a_goal_is_the_same_in_every_bank_and_its_kinds_are_no_ids(domain, envs):
    bank = bank_of(domain)
    for name in domain.banks:
        goals = domain.goals(name)
        check_goals(goals)
        assert isinstance(goals, tuple)
        assert all(bank[goal.id] == goal for goal in goals)
        for goal in goals:
            kinds = domain.kinds(goal)
            assert isinstance(kinds, frozenset)
            assert not kinds & bank.keys()
            assert all(isinstance(kind, str) and kind for kind in kinds)
    assert domain.kinds(Goal("some-goal", "a goal of another world")) == frozenset()


@by_domain
def test_the_same_seed_gives_the_same_episode_beside_others_too(domain, envs):
    for env in envs:
        alone = play(domain, env, 7)
        assert play(domain, env, 7) == alone
        first, second = make_level(domain, env), make_level(domain, envs[0])
        random, others = np.random.default_rng(7), np.random.default_rng(8)
        beside = [digest_of(first, first.reset(7))]
        second.reset(8)
        for _ in range(30):
            look, *rest = first.step(int(random.integers(first.num_actions)))
            second.step(int(others.integers(second.num_actions)))  # which draws, and shares whatever is shared
            beside.append(digest_of(first, look) + repr(rest))
        assert beside == alone
        first.reset(9)
        assert digest_of(first, first.reset(7)) == alone[0]  # whatever was played before
        for level in (first, second):
            level.close()
        assert len({play(domain, env, seed, 0)[0] for seed in range(8)}) > 1


@by_domain
def test_another_process_gives_the_same_episode(domain, envs):
    root = Path(__file__).parents[3]
    code = (
        "import pickle, sys; from domain_play import play; "
        "print(play(pickle.loads(bytes.fromhex(sys.argv[1])), sys.argv[2], 7))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, pickle.dumps(domain).hex(), envs[0]],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")]), "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{play(domain, envs[0], 7)}\n"


@by_domain
def test_frames_are_of_the_size_and_the_cameras_asked_for_and_stay_as_they_were(domain, envs):
    for size in domain.frame_sizes[:2]:
        for cameras in (domain.cameras, domain.cameras[-1:]):
            level = make_level(domain, envs[0], size, cameras)
            looks = [level.reset(3)]
            kept = [{camera: frame.copy() for camera, frame in looks[0].frames.items()}]
            for action in range(level.num_actions):
                looks.append(level.step(action)[0])
                kept.append({camera: frame.copy() for camera, frame in looks[-1].frames.items()})
            for look, copy in zip(looks, kept, strict=True):
                assert set(look.frames) == set(cameras)
                for camera, frame in look.frames.items():
                    assert (frame.shape, frame.dtype) == ((*size, 3), np.uint8)
                    assert np.array_equal(frame, copy[camera])
            level.close()


@by_domain
def test_every_action_can_be_taken_after_the_end_too(domain, envs):
    for env in envs:
        level = make_level(domain, env)
        level.reset(1)
        for action in [*range(level.num_actions)] * 12:
            look, reward, terminated, truncated = level.step(action)
            assert (type(reward), type(terminated), type(truncated)) == (float, bool, bool)
            assert isinstance(level.facts(look), frozenset)
        level.close()


@by_domain
def test_an_episode_is_asked_only_for_goals_of_the_bank_and_says_so_in_its_mission(domain, envs):
    bank = bank_of(domain)
    goals = list(bank.values())
    asked_for = original_goals(goals)
    met = 0
    for env in envs:
        level = make_level(domain, env)
        for seed in range(6):
            level.reset(seed)
            mission, possible = level.mission, level.goals()
            assert isinstance(possible, tuple)
            assert set(possible) <= bank.keys()
            assert len(set(possible)) == len(possible)
            found = asked_for.get(normalize_instruction(mission))
            if found is not None:  # a mission may be none of the bank's goals, but a goal that it is must be the first
                assert possible[0] == goals[found].id
            for goal_id in possible[:20]:
                level.ask(goal_id)
                assert goals[asked_for[normalize_instruction(level.mission)]].id == goal_id
                assert level.goals()[0] == goal_id
                assert set(level.goals()) == set(possible)
            other = next(goal_id for goal_id in bank if goal_id not in possible)
            with pytest.raises(ValueError, match=other):
                level.ask(other)
            level.reset(seed)
            assert (level.mission, level.goals()) == (mission, possible)
            met += len(possible)
        level.close()
    assert met


@by_domain
def test_the_expert_does_the_mission_and_the_last_frame_shows_it(domain, envs):
    for env in envs:
        level = make_level(domain, env)
        for seed in range(4):
            look = level.reset(seed)
            if not level.goals():
                continue
            goal_id = level.goals()[-1]
            level.ask(goal_id)
            assert goal_id not in level.facts(look)
            expert, action, reward, steps = level.expert(), None, 0.0, 0
            while not reward:
                action = expert.act(action)
                assert action in range(level.num_actions)
                look, reward, terminated, truncated = level.step(action)
                steps += 1
                assert not truncated or reward
                assert steps < MAX_STEPS
            assert terminated
            assert goal_id in level.facts(look)
        level.close()


@by_domain
def test_the_expert_is_told_what_was_done_and_may_give_up(domain, envs):
    random = np.random.default_rng(0)
    for env in envs:
        level = make_level(domain, env)
        level.reset(5)
        expert, taken, done = level.expert(), None, False
        for _ in range(60):
            try:
                advice = expert.act(taken)
            except ExpertGaveUpError:
                break
            assert advice in range(level.num_actions)
            taken = int(random.integers(level.num_actions)) if random.random() < 0.5 else advice
            _, _, done, _ = level.step(taken)
            if done:
                break
        level.close()


@by_domain
def test_facts_are_goals_of_the_bank_and_a_function_of_the_look(domain, envs):
    bank = bank_of(domain)
    random = np.random.default_rng(0)
    for env in envs:
        level = make_level(domain, env)
        looks = [level.reset(2)]
        looks += [level.step(int(random.integers(level.num_actions)))[0] for _ in range(40)]
        facts = [level.facts(look) for look in looks]
        assert all(isinstance(found, frozenset) and found <= bank.keys() for found in facts)
        assert [level.facts(look) for look in looks] == facts  # also of looks that are past
        level.close()


@by_domain
def test_frames_met_live_are_those_that_are_recorded(domain, envs, monkeypatch):
    monkeypatch.setattr(domain_module, "_domains", lambda *_: {domain.name: domain})
    settings = RecordSettings(envs=envs, cameras=domain.cameras, episodes=len(envs), policy="random", max_steps=8)
    for index, env in enumerate(envs):
        episode = record_episode(settings, index)
        level = make_level(domain, env)
        looks = [level.reset(env_seed(settings, index))]
        looks += [level.step(int(action))[0] for action in episode.actions]
        for camera in domain.cameras:
            for look, encoded in zip(looks, episode.images[camera], strict=True):
                assert np.array_equal(look.frames[camera], decode_image(encoded))
        assert [set(goals) for goals in episode.achieved_goals] == [level.facts(look) for look in looks]
        level.close()


@by_domain
@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version")
def test_gymnasium_finds_its_environments_in_order(domain, envs):
    stream = Stream(name=envs[0], index=0, key="0/0", seeds=domain.seeds, use="live", max_steps=20)
    env = DomainEnvironment(stream, domain.goals(domain.banks[0]), domain, domain.frame_sizes[0], domain.cameras[0])
    # Frames are read-only and may be shared, which the checker forbids: it is shown copies.
    check_env(TransformObservation(env, np.copy, env.observation_space), skip_render_check=True)
    env.close()


@by_domain
def test_memory_is_flat_over_resets(domain, envs):
    level = make_level(domain, envs[0])

    def pages() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1])

    for seed in range(50):
        level.reset(seed)
    before = pages()
    for seed in range(200):
        level.reset(seed)
    assert (pages() - before) * 4096 < 12 << 20  # 60 kB a reset
    level.close()


@by_domain
def test_its_reference_models_can_be_trained(domain, envs, tmp_path):
    pretraining = domain.pretraining()
    if pretraining is None:
        return
    wordings = pretraining.wordings()
    owners: dict[str, int] = {}
    for state, captions in enumerate(wordings):
        assert captions
        assert all(owners.setdefault(text, state) == state for text in captions)  # no caption of two states
    tokenizer = tokenizer_of(pretraining)
    read = tokenizer([text for captions in wordings for text in captions]).input_ids
    assert max(map(len, read)) <= MAX_TOKENS
    assert not any(tokenizer.unk_token_id in ids for ids in read)
    for name, recipe in pretraining.sizes.items():
        assert recipe.size == name
        image_size, patch_size = frame_geometry(pretraining, recipe)
        recipe.check_frames(image_size // patch_size, pretraining.least_kept)
    recipe = dataclasses.replace(next(iter(pretraining.sizes.values())), batch_size=16, num_resized=16, num_frames=16)
    image_size, patch_size = frame_geometry(pretraining, recipe)
    side = image_size // patch_size
    resources = Resources("cpu", 1, tmp_path)
    scenes = pretraining.open(recipe, np.random.default_rng(0), resources)
    for kept in (recipe.patches_kept, side**2):
        batch, again = (scenes.draw(np.random.default_rng(1), kept) for _ in range(2))
        values = 3 * patch_size**2
        assert batch.patches.shape == (16, kept, values)
        assert batch.places.shape == batch.classes.shape == (16, kept)
        assert batch.marks.shape == (16, kept, pretraining.num_marks)
        assert batch.truth.shape == (16, len(batch.states))
        assert batch.truth.any(dim=1).all()
        assert set(batch.states) <= set(range(len(wordings) - 1))
        assert -1 <= int(batch.classes.min()) <= int(batch.classes.max()) < pretraining.num_classes
        assert (batch.places.diff(dim=1) > 0).all()
        assert all((getattr(batch, name) == getattr(again, name)).all() for name in batch._fields)
    for validation in pretraining.validation(10, 4, resources).values():
        frames = np.concatenate(list(validation.batches))
        assert frames.shape[0] == 10
        assert frames.shape[1:3] in [*domain.frame_sizes, (image_size, image_size)]
        assert (frames.shape[3], frames.dtype) == (3, np.uint8)
        assert validation.truth.shape == (10, len(validation.goals))


@by_domain
def test_what_it_states_for_agents_is_so(domain, envs):
    for frame_size in dict.fromkeys((domain.frame_sizes[0], domain.frame_sizes[1 % len(domain.frame_sizes)])):
        facts = agent_facts_of(domain, frame_size)  # which checks that there are as many actions as cells
        level = domain.make(envs[0], frame_size=frame_size, cameras=domain.cameras[:1])
        if facts.num_actions is not None:
            assert facts.num_actions == level.num_actions
        if facts.frame_grid is not None:  # whole tiles, of which many are equal
            tiles = _tiles(level.reset(domain.seeds.models[0]).frames[domain.cameras[0]], facts.frame_grid)
            assert len({tile.tobytes() for tile in tiles}) <= len(tiles) // 2
        level.close()


def _tiles(frame, grid):
    height, width = frame.shape[0] / grid[0], frame.shape[1] / grid[1]
    assert height == width == int(height)
    side = int(height)
    return [
        frame[side * row : side * (row + 1), side * column : side * (column + 1)]
        for row, column in itertools.product(range(grid[0]), range(grid[1]))
    ]


def test_a_cell_of_the_action_grid_is_touched_in_its_middle():
    """The order of cells that the heads of agents assume: row by row, from the top left."""
    rows, columns = agent_facts_of(OPENAPP, OPENAPP.frame_sizes[0]).action_grid
    middles = [
        ((column + 0.5) / columns, (row + 0.5) / rows) for row, column in itertools.product(range(rows), range(columns))
    ]
    assert [cell_centre(action) for action in range(rows * columns)] == middles
