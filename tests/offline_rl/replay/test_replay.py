import itertools
import json
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from labelled_corpora import relabelled
from relabelled_folders import GOALS, one_camera, write_relabelled
from torch.utils.data import DataLoader

from vlm_rewards.offline_rl.interfaces import Spaces
from vlm_rewards.offline_rl.replay.builder import build_replay
from vlm_rewards.offline_rl.replay.replay import ReplayData, open_replay
from vlm_rewards.offline_rl.replay.torch_batches import torch_batches
from vlm_rewards.schemas.fingerprints import Fingerprint


@pytest.fixture
def replay(tmp_path: Path) -> ReplayData:
    """Two episodes: "a" as in `labelled_corpora.relabelled`, "b" under an original goal that fails."""
    failed = one_camera(
        "b",
        goal_ids=["ball"],
        goal_texts=["at the ball"],
        goal_kinds=["original"],
        rewards=np.zeros((1, 5), np.float32),
        start=np.array([0], np.int32),
        stop=np.array([5], np.int32),
        terminated=np.array([False]),
    )
    source = write_relabelled(tmp_path / "relabelled", [[one_camera("a")], [failed]])
    return build_replay(source, tmp_path / "replay", goals=GOALS, discount=0.5)


def test_the_transitions_of_a_success_by_hand(replay: ReplayData) -> None:
    # original "b" is 0..4, then hindsight "ball" of "a": steps 1, 2, 3, achieved in frame 4; picture t is of value t
    batch = replay.gather(np.array([5, 6, 7]))
    assert batch.observations.shape == (3, 8, 8, 3)
    assert batch.observations[:, 0, 0, 0].tolist() == [1, 2, 3]
    assert batch.next_observations[:, 7, 7, 2].tolist() == [2, 3, 4]
    assert batch.actions.tolist() == [10, 20, 30]
    assert batch.rewards.tolist() == [0, 0, 1]
    assert batch.masks.tolist() == [1, 1, 0]
    assert batch.returns.tolist() == [0.25, 0.5, 1]  # 0.5^2, 0.5, 1: nothing of r_4 = 1, which is after the segment
    assert batch.goals.tolist() == [[1, 0, 0]] * 3  # of the ball, which is the second of the given goals
    assert batch.successes.tolist() == [True] * 3
    assert batch.states is None
    dtypes = (
        torch.uint8,
        torch.int64,
        torch.float32,
        torch.uint8,
        torch.float32,
        torch.float32,
        torch.float32,
        torch.bool,
    )
    assert tuple(value.dtype for value in batch if value is not None) == dtypes


def test_the_transitions_of_a_failure_by_hand(replay: ReplayData) -> None:
    # negative "box" of "a" comes last: 8..12; the recording ends, so the last step is bootstrapped from
    batch = replay.gather(np.arange(8, 13))
    assert batch.observations[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert batch.next_observations[:, 0, 0, 0].tolist() == [1, 2, 3, 4, 5]
    assert batch.masks.tolist() == [1] * 5
    assert batch.rewards.tolist() == batch.returns.tolist() == [0] * 5
    assert not batch.successes.any()
    assert batch.goals.tolist() == [[0, 1, 0]] * 5
    assert len(replay) == 13


def test_a_memory_reaches_back_to_the_first_frame_of_the_episode(replay: ReplayData, tmp_path: Path) -> None:
    remembering = open_replay(tmp_path / "replay", discount=0.5, frame_stack=3)
    again = pickle.loads(pickle.dumps(remembering))
    assert (again.spaces.observation_shape, again.spaces.seen_shape) == ((8, 8, 3), (8, 8, 9))
    # steps 1, 2, 3 of "a": the segment begins in frame 1, the episode in frame 0
    batch, alone = again.gather(np.array([5, 6, 7])), replay.gather(np.array([5, 6, 7]))
    assert batch.observations[:, 0, 0, ::3].tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 3]]
    assert batch.next_observations[:, 7, 7, 2::3].tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4]]
    # step 0 of "b", after which "a" must not be seen
    assert again.gather(np.array([0])).observations[0, 0, 0].tolist() == [0] * 9
    for name in ("actions", "rewards", "masks", "returns", "goals", "successes"):
        assert torch.equal(getattr(batch, name), getattr(alone, name))
    assert again.segment(0).observations.shape == (6, 8, 8, 3)
    with pytest.raises(ValueError, match="frame_stack must be at least 1, got 0"):
        open_replay(tmp_path / "replay", frame_stack=0)


def test_statistics_and_spaces(replay: ReplayData, tmp_path: Path) -> None:
    assert replay.statistics == {
        "episodes": 2,
        "frames": 12,
        "distinct_observations": 6,  # both episodes show the pictures 0..5
        "kinds": {
            "original": {"segments": 1, "transitions": 5, "successes": 0, "reward_share": 0.0},
            "hindsight": {"segments": 1, "transitions": 3, "successes": 1, "reward_share": 1 / 3},
            "negative": {"segments": 1, "transitions": 5, "successes": 0, "reward_share": 0.0},
        },
    }
    wanted = Spaces(observation="frames", observation_shape=(8, 8, 3), goal_size=3, num_actions=41)  # actions are 0..40
    assert replay.spaces == wanted
    assert open_replay(tmp_path / "replay", num_actions=50).spaces.num_actions == 50
    assert replay.labels_fingerprint.parts["weights"] == "sha256:1"
    assert replay.goals.texts == GOALS.texts
    assert np.load(tmp_path / "replay" / "observations.npy", mmap_mode="r").shape == (
        6,
        8,
        8,
        3,
    )  # numpy alone opens it


def test_the_mix_is_drawn_and_within_a_kind_all_transitions_are(replay: ReplayData) -> None:
    generator = np.random.default_rng(0)
    batch = replay.sample(20_000, generator, mix=(1, 3, 0))
    # ball in both kinds; original is 1/4 of the draws over 5 transitions, hindsight 3/4 over 3: successes are 3/4
    assert batch.successes.float().mean().item() == pytest.approx(0.75, abs=0.015)
    drawn = Counter(zip(batch.successes.tolist(), batch.observations[:, 0, 0, 0].tolist(), strict=True))
    assert set(drawn) == {(False, t) for t in range(5)} | {(True, t) for t in (1, 2, 3)}
    for (success, _), count in drawn.items():
        assert count / 20_000 == pytest.approx(0.25 if success else 0.05, abs=0.012)
    assert not batch.goals[:, 1].any()  # the box is negative, which has no share


def test_the_mix_is_made_to_sum_to_one_over_the_kinds_there_are(tmp_path: Path) -> None:
    source = write_relabelled(tmp_path / "relabelled", [[one_camera()]])
    replay = build_replay(source, tmp_path / "replay", goals=GOALS)
    assert replay.mix_in_force() == pytest.approx({"original": 0, "hindsight": 0.625, "negative": 0.375})
    with pytest.raises(ValueError, match=r"mix must have a share of a kind .*\(hindsight, negative\), got \(1, 0, 0\)"):
        replay.mix_in_force((1, 0, 0))
    for mix in ((1, 2), (1, -1, 1), (1, 1, float("nan"))):
        with pytest.raises(
            ValueError, match="mix must be a share of at least 0 for each of original, hindsight, negative"
        ):
            replay.sample(1, np.random.default_rng(0), mix)


def test_a_draw_goes_on_from_a_saved_state(replay: ReplayData) -> None:
    generator = np.random.default_rng(3)
    replay.sample(7, generator)
    state = generator.bit_generator.state
    first = replay.sample(16, generator)
    again = np.random.default_rng()
    again.bit_generator.state = state
    second = replay.sample(16, again)
    assert all(a is None or torch.equal(a, b) for a, b in zip(first, second, strict=True) if b is not None)


def test_goals_that_are_held_out_are_never_drawn(replay: ReplayData, tmp_path: Path) -> None:
    held_out = open_replay(tmp_path / "replay", exclude_goals=["box"])
    assert len(held_out) == 8
    assert not held_out.sample(500, np.random.default_rng(0)).goals[:, 1].any()
    assert held_out.fingerprint.differing_parts(replay.fingerprint) == ["excluded_goals"]
    with pytest.raises(ValueError, match="goals to exclude must be goals of the replay, got 'bal'"):
        open_replay(tmp_path / "replay", exclude_goals=["bal"])
    with pytest.raises(ValueError, match="must have a goal to learn, got all of them excluded"):
        open_replay(tmp_path / "replay", exclude_goals=["box", "ball"])


def test_another_discount_has_returns_of_its_own(replay: ReplayData, tmp_path: Path) -> None:
    assert open_replay(tmp_path / "replay", discount=0.1).gather(np.array([5])).returns.item() == pytest.approx(0.01)
    assert replay.gather(np.array([5])).returns.item() == 0.25
    with pytest.raises(ValueError, match="discount must be from 0 to 1, got 1.5"):
        open_replay(tmp_path / "replay", discount=1.5)


def test_numbers_out_of_range_are_refused(replay: ReplayData) -> None:
    for index in (-1, 13):
        with pytest.raises(IndexError, match=f"indices must be from 0 to 12, got {index}"):
            replay.gather(np.array([index]))


def test_states_come_with_both_frames(tmp_path: Path) -> None:
    states = np.arange(12, dtype=np.float32).reshape(6, 2)
    actions = np.linspace(0, 1, 15, dtype=np.float32).reshape(5, 3)
    source = write_relabelled(tmp_path / "relabelled", [[one_camera(states=states, actions=actions)]])
    replay = build_replay(source, tmp_path / "replay", goals=GOALS)
    batch = replay.gather(np.array([0, 2]))  # steps 1 and 3
    assert batch.states is not None
    assert batch.next_states is not None
    assert batch.states.tolist() == [[2, 3], [6, 7]]
    assert batch.next_states.tolist() == [[4, 5], [8, 9]]
    assert np.array_equal(batch.actions, actions[[1, 3]])
    assert (replay.spaces.action_size, replay.spaces.num_actions, replay.spaces.state_size) == (3, None, 2)
    with pytest.raises(ValueError, match="num_actions must be None where actions are continuous, got 7"):
        open_replay(tmp_path / "replay", num_actions=7)


def test_too_few_actions_are_refused(replay: ReplayData, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="num_actions must be above the highest recorded action, 40, got 40"):
        open_replay(tmp_path / "replay", num_actions=40)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"rewards": np.zeros((2, 5), np.float32), "terminated": np.array([False, False])},
            "got 0 successes in 2 segments and 0 rewards above 0 in 8 transitions: the reward is never positive. Lower the",
        ),
        ({"terminated": np.array([False, False])}, "got 0 successes in 2 segments and 1 rewards above 0"),
        # a reward less a cost: the success is there, and is worth nothing
        ({"rewards": np.zeros((2, 5), np.float32)}, "got 1 successes in 2 segments and 0 rewards above 0"),
    ],
)
def test_a_corpus_without_a_success_is_refused(tmp_path: Path, given: dict, message: str) -> None:
    source = write_relabelled(tmp_path / "relabelled", [[one_camera(**given)]])
    with pytest.raises(ValueError, match=message):
        build_replay(source, tmp_path / "replay", goals=GOALS)


def test_a_mix_without_a_success_is_refused(replay: ReplayData) -> None:
    replay.check_mix()
    message = (
        r"mix must draw successes and rewards above 0, got \(1, 0, 1\): original, negative goals have 0 successes in"
    )
    with pytest.raises(ValueError, match=message):
        replay.check_mix((1, 0, 1))


def test_a_folder_that_is_no_replay_is_not_opened(replay: ReplayData, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"a replay must be a folder that build_replay has made, .* with none of version None"
    ):
        open_replay(tmp_path)


def test_segments_are_episodes_of_their_own(replay: ReplayData) -> None:
    kinds = [replay.segment(number).kind for number in range(len(replay.segments))]
    assert kinds == ["original", "hindsight", "negative"]
    success = replay.segment(1)
    assert (success.episode_id, success.goal, success.terminated) == ("a", 1, True)
    assert success.observations[:, 0, 0, 0].tolist() == [1, 2, 3, 4]
    assert success.actions.tolist() == [10, 20, 30]
    assert success.rewards.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (b"{", r"meta.json must be JSON, got .*. Put back what was moved, or train again"),
        (b"[]", "meta.json must hold a JSON object, got list"),
        ({"goals": None}, "goals.ids in .*meta.json must be a list of texts, got nothing. Put back"),
        ({"fingerprint": {}}, "fingerprint.relabelled in .*meta.json must be an object, got nothing"),
        (
            {"written": {"num_episodes": "two"}},
            "written.num_episodes in .*meta.json must be a whole number .* got .two.",
        ),
    ],
)
def test_a_record_that_cannot_be_is_named(replay: ReplayData, change: bytes | dict, message: str) -> None:
    path = replay._folder / "meta.json"
    content = change if isinstance(change, bytes) else json.dumps({**json.loads(path.read_text()), **change}).encode()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        open_replay(replay._folder)


def test_goals_without_their_embeddings_are_refused(replay: ReplayData) -> None:
    np.save(replay._folder / "goals.npy", replay.goals.embeddings[1:])
    meta = json.loads((replay._folder / "meta.json").read_text())
    del meta["files"], meta["digest"]  # as an earlier version wrote it
    (replay._folder / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(ValueError, match="one text and one embedding per id, got 2 ids, 2 texts and 1 embeddings"):
        open_replay(replay._folder)


def test_the_same_batches_for_any_number_of_workers(replay: ReplayData) -> None:
    def draw(workers: int, **given: int) -> list[dict[str, torch.Tensor]]:
        batches = torch_batches(replay, 4, 11, num_batches=5, **given)
        return list(DataLoader(batches, batch_size=None, num_workers=workers))

    alone, two, rest = draw(0), draw(2), draw(0, start=3)
    assert len(alone) == len(two) == 5
    assert set(alone[0]) == {
        *("observations", "actions", "rewards", "next_observations", "masks", "goals", "returns", "successes")
    }
    for one, other in itertools.chain(zip(alone, two, strict=True), zip(alone[3:], rest[:2], strict=True)):
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(alone[0]["observations"], alone[1]["observations"])
    for name, given in (("batch_size", (0, 1)), ("seed", (1, -1))):
        with pytest.raises(ValueError, match=f"{name} must be at least"):
            torch_batches(replay, *given)


def test_a_replay_pickles_as_its_path(replay: ReplayData) -> None:
    data = pickle.dumps(replay)
    assert len(data) < 1000
    assert pickle.loads(data).gather(np.array([5])).returns.item() == 0.25  # its discount of 0.5 is kept


def test_fingerprints_say_what_was_trained_on(replay: ReplayData) -> None:
    assert isinstance(replay.fingerprint, Fingerprint)
    assert {"relabelled", "relabelled_digest", "goal_embeddings", "excluded_goals"} <= set(replay.fingerprint.parts)


def test_a_camera_is_chosen(tmp_path: Path) -> None:
    source = write_relabelled(tmp_path / "relabelled", [[relabelled()]])  # cameras main and wrist
    wrist = build_replay(source, tmp_path / "wrist", goals=GOALS, camera="wrist")
    assert wrist.gather(np.array([0])).observations[0, 0, 0, 0].item() == 101
