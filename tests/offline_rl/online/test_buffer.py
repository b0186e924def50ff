import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from relabelled_folders import GOALS

from vlm_rewards.offline_rl.interfaces import Batch, Spaces
from vlm_rewards.offline_rl.online.buffer import OnlineBuffer
from vlm_rewards.schemas.files.digests import digest_beside

SPACES = Spaces(observation="frames", observation_shape=(8, 8, 3), goal_size=3, num_actions=41)


def frame(value: int) -> np.ndarray:
    return np.full((8, 8, 3), value, np.uint8)


def buffer(num_environments: int = 1, **given: object) -> OnlineBuffer:
    settings = {"capacity": 100, "discount": 0.5, **given}
    return OnlineBuffer(SPACES, GOALS.embeddings, num_environments=num_environments, **settings)


def step(
    to: OnlineBuffer, value: int, reward: float = 0.0, *, end: str = "", goal: int = 0, success: bool = False
) -> int:
    """One environment goes from the frame of this value to the next, by the action of this value."""
    number = to.add(
        frame(value)[None],
        np.array([value % 41]),
        frame(value + 1)[None],
        np.array([goal]),
        np.array([reward]),
        terminations=np.array([end == "termination"]),
        truncations=np.array([end == "truncation"]),
        successes=np.array([success or end == "termination"]),
    )
    return int(number[0])


def everything(of: OnlineBuffer, draws: int = 600) -> dict[int, tuple]:
    """By the value of the observation: what is sampled with it."""
    batch = of.sample(draws, np.random.default_rng(0))
    columns = [batch.observations[:, 0, 0, 0], batch.actions, batch.rewards, batch.next_observations[:, 0, 0, 0]]
    columns += [batch.masks, batch.returns, batch.successes]
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return dict(sorted((row[0], row[1:]) for row in rows))


def assert_equal(left: Batch, right: Batch) -> None:
    for one, other in zip(left, right, strict=True):
        assert one is other is None or torch.equal(one, other)


def test_episodes_by_hand() -> None:
    ring = buffer()
    numbers = [step(ring, value, float(value == 3), end="termination" if value == 3 else "") for value in (1, 2, 3)]
    for value, reward, end in ((10, 0.5, ""), (11, 0.0, "truncation")):
        numbers.append(step(ring, value, reward, end=end, goal=1))
    assert numbers == [0, 1, 2, 3, 4]
    # (action, reward, next, mask, return, success); discount 0.5: 0.25, 0.5, 1; the truncated one is no success, mask 1
    assert everything(ring) == {
        1: (1, 0.0, 2, 1.0, 0.25, True),
        2: (2, 0.0, 3, 1.0, 0.5, True),
        3: (3, 1.0, 4, 0.0, 1.0, True),
        10: (10, 0.5, 11, 1.0, 0.5, False),
        11: (11, 0.0, 12, 1.0, 0.0, False),
    }
    assert ring.state_dict()["frames_observations"][:, 0, 0, 0].tolist() == [1, 2, 3, 4, 10, 11, 12]  # each once


def test_a_memory_reaches_back_to_the_first_frame_of_the_episode() -> None:
    spaces = dataclasses.replace(SPACES, frame_stack=3)
    ring = OnlineBuffer(spaces, GOALS.embeddings, num_environments=1, capacity=8, capacity_transitions=50)
    for value in (1, 2, 3):
        step(ring, value, end="truncation" if value == 3 else "")
    step(ring, 20)
    assert ring.add_episode(np.array([0, 1, 2]), np.array([1]), np.zeros((1, 3), np.float32)) == 3

    def seen() -> set[tuple[tuple, tuple]]:
        batch = ring.sample(400, np.random.default_rng(0))
        pairs = (batch.observations[:, 0, 0, ::3], batch.next_observations[:, 0, 0, ::3])
        return set(zip(*(map(tuple, part.tolist()) for part in pairs), strict=True))

    first = {((1, 1, 1), (1, 1, 2)), ((1, 1, 2), (1, 2, 3)), ((1, 2, 3), (2, 3, 4)), ((20, 20, 20), (20, 20, 21))}
    assert seen() == first
    resumed = OnlineBuffer(spaces, GOALS.embeddings, num_environments=1, capacity=8, capacity_transitions=50)
    resumed.load_state_dict(ring.state_dict())
    assert_equal(resumed.sample(50, np.random.default_rng(1)), ring.sample(50, np.random.default_rng(1)))
    # Frames are given up two at a time: (1, 2), then (3, 4), and with them what remembers them.
    for value in range(21, 27):
        step(ring, value)
    assert not any(1 in one or 2 in one for one, _ in seen())
    assert all(one[1:] == after[:2] for one, after in seen())


def test_nothing_follows_a_success_where_the_environment_goes_on() -> None:
    ring = buffer()
    for value, reward in ((1, 0), (2, 1), (3, 1), (4, 0), (5, 0)):
        step(ring, value, reward, success=reward == 1, end="truncation" if value == 5 else "")
    # (action, reward, next, mask, return, success): up to the success, then each step on its own terms
    assert everything(ring) == {
        1: (1, 0.0, 2, 1.0, 0.5, True),
        2: (2, 1.0, 3, 0.0, 1.0, True),
        3: (3, 1.0, 4, 0.0, 1.0, True),
        4: (4, 0.0, 5, 1.0, 0.0, False),
        5: (5, 0.0, 6, 1.0, 0.0, False),
    }
    assert ring.state_dict()["frames_observations"][:, 0, 0, 0].tolist() == [1, 2, 3, 4, 5, 6]


def test_a_step_can_be_sampled_at_once_and_has_its_return_when_its_episode_ends() -> None:
    ring = buffer()
    with pytest.raises(ValueError, match="must hold a transition to sample, got none, and 0 of episodes that have not"):
        ring.sample(1, np.random.default_rng(0))
    step(ring, 1)
    step(ring, 2, 1.0)
    # (action, reward, next, mask, return, success): the episode is running, so no return yet
    assert everything(ring) == {1: (1, 0.0, 2, 1.0, 0.0, False), 2: (2, 1.0, 3, 1.0, 0.0, False)}
    step(ring, 3, 1.0, end="termination")
    assert {key: row[4] for key, row in everything(ring).items()} == {1: 0.75, 2: 1.5, 3: 1.0}


def test_with_finished_only_a_step_can_be_sampled_when_its_episode_has_ended() -> None:
    ring = buffer(finished_only=True)
    step(ring, 1)
    assert len(ring) == 0
    with pytest.raises(ValueError, match="got none, and 1 of episodes that have not ended. Warm up .* finished_only"):
        ring.sample(1, np.random.default_rng(0))
    step(ring, 2, 1.0, end="termination")
    assert {key: row[4] for key, row in everything(ring).items()} == {1: 0.5, 2: 1.0}


def test_episodes_that_end_together_can_be_sampled_in_the_order_in_which_they_began() -> None:
    ring = buffer(2, capacity=8, finished_only=True)  # the first frames are overwritten before the episodes end
    for value in range(20):
        begun = np.array([value >= 1, True])  # environment 1 begins, then environment 0
        ring.add(
            np.stack([frame(value), frame(100 + value)]),
            np.array([0, 1]),
            np.stack([frame(value + 1), frame(101 + value)]),
            np.array([0, 0]),
            np.zeros(2),
            terminations=np.array([False, False]),
            truncations=np.full(2, value == 19),
            valid=begun,
        )
    ready = ring.state_dict()["ready"]
    actions = ring.state_dict()["slots_actions"][ready % len(ring.state_dict()["slots_actions"])]
    assert actions.tolist() == sorted(actions.tolist(), reverse=True)  # all of environment 1, then all of 0
    assert set(actions.tolist()) == {0, 1}


def test_environments_take_turns() -> None:
    ring = buffer(2)
    no = np.array([False, False])
    for value, valid in ((1, [True, True]), (2, [True, False]), (3, [True, True])):
        other = 50 if value == 3 else value + 20  # environment 1 ends at once, and resets itself in the second step
        numbers = ring.add(
            np.stack([frame(value), frame(other)]),
            np.array([value, value]),
            np.stack([frame(value + 1), frame(other + 1)]),
            np.array([0, 1]),
            np.array([0.0, 1.0 if valid[1] else np.nan]),  # what is not valid is not looked at
            terminations=np.array([False, value == 1]),
            truncations=no,
            valid=np.array(valid),
        )
    assert numbers.tolist() == [3, 4]
    sampled = everything(ring)
    assert {key: row[2] for key, row in sampled.items()} == {1: 2, 2: 3, 3: 4, 21: 22, 50: 51}
    assert sampled[21] == (1, 1.0, 22, 0.0, 1.0, True)
    goals = ring.sample(200, np.random.default_rng(0))
    assert torch.equal(goals.goals[:, 1] == 1, goals.observations[:, 0, 0, 0] < 20)  # goal 0 is the second unit vector


def test_an_observation_of_the_next_episode_is_refused() -> None:
    ring = buffer()
    step(ring, 1)
    with pytest.raises(
        ValueError, match="must be the next observation of the step before, got another in environment 0"
    ):
        step(ring, 7)


def test_old_transitions_are_overwritten() -> None:
    ring = buffer(capacity=16, capacity_transitions=16)
    for value in range(60):
        step(ring, value, 1.0)
    kept = len(ring)
    assert 12 <= kept <= 18
    sampled = everything(ring)
    assert list(sampled) == list(range(60 - kept, 60))  # the last ones, each with its own frames
    assert all(row[:4] == (key % 41, 1.0, key + 1, 1.0) for key, row in sampled.items())
    step(ring, 60, 1.0, end="truncation")
    returns = {key: row[4] for key, row in everything(ring).items()}
    assert returns[60] == 1
    assert returns[58] == 1.75  # 1 + 0.5 + 0.25: of the steps that are still there


def test_room_can_be_made_before_a_step_is_added() -> None:
    ring, other = buffer(capacity=16, capacity_transitions=16), buffer(capacity=16, capacity_transitions=16)
    lengths = []
    for value in range(60):
        step(ring, value, 1.0)
        before = len(other)
        other.make_room()
        lengths.append(before - len(other))
        step(other, value, 1.0)
        assert_equal(ring.sample(8, np.random.default_rng(value)), other.sample(8, np.random.default_rng(value)))
    assert set(lengths) == {0, 2}  # now and then a block of two
    assert everything(ring) == everything(other)


def test_the_ring_is_right_after_many_turns() -> None:
    ring = buffer(capacity=30, capacity_transitions=60)
    rng = np.random.default_rng(0)
    for episode in range(40):
        first = 6 * (episode % 40)
        length = int(rng.integers(2, 6))
        ends = [t == length - 1 for t in range(length)]
        numbers = [step(ring, first + t, float(end), end="truncation" if end else "") for t, end in enumerate(ends)]
        ring.add_episode(np.array(numbers), np.array([1]), np.zeros((1, length)))
        batch = ring.sample(50, rng)
        assert torch.equal(batch.observations + 1, batch.next_observations)
        assert torch.equal(batch.actions, batch.observations[:, 0, 0, 0].long() % 41)
        original = batch.goals[:, 1] == 1
        assert torch.equal(batch.returns > 0, original)  # 1, 0.5, 0.25 ... under the goal it had, 0 under the other
    assert len(ring) <= 62


def test_an_episode_of_which_a_part_is_overwritten_is_not_stored_again() -> None:
    ring = buffer(capacity=16, capacity_transitions=16)
    numbers = np.array([step(ring, value, end="truncation" if value == 29 else "") for value in range(30)])
    assert ring.add_episode(numbers[:3], np.array([1]), np.zeros((1, 3))) == 0
    assert ring.add_episode(numbers[-3:], np.array([1]), np.zeros((1, 3))) == 3


def test_a_finished_episode_under_other_goals() -> None:
    ring = buffer()
    numbers = np.array([step(ring, value, end="truncation" if value == 4 else "") for value in (1, 2, 3, 4)])
    stored = ring.add_episode(
        numbers,
        np.array([1, 0]),
        np.array([[0, 1, 0, 0], [0, 0, 0, 0]]),
        stop=np.array([2, 4]),
        terminated=np.array([True, False]),
    )
    assert stored == 6
    batch = ring.sample(3000, np.random.default_rng(1))
    hindsight = batch.goals[:, 0] == 1  # goal 1 is the first unit vector: steps 1 and 2, achieved in the second
    rows = set(zip(*(v[hindsight].tolist() for v in (batch.actions, batch.rewards, batch.masks)), strict=True))
    assert rows == {(1, 0.0, 1.0), (2, 1.0, 0.0)}
    assert batch.successes[hindsight].all()
    assert set(batch.returns[hindsight].tolist()) == {0.5, 1.0}
    assert not batch.rewards[~hindsight].any()
    assert batch.masks[~hindsight].all()
    assert hindsight.float().mean().item() == pytest.approx(0.2, abs=0.03)  # 2 of 4 + 6 transitions
    assert len(ring.state_dict()["frames_observations"]) == 5  # no frame was copied


def test_bad_episodes_are_refused() -> None:
    ring = buffer(capacity_transitions=8)
    numbers = np.array([step(ring, value, end="truncation" if value == 3 else "") for value in (1, 2, 3)])
    one, zeros = np.array([0]), np.zeros((1, 3))
    with pytest.raises(ValueError, match=r"3 steps under 1 goals must have finite rewards \[1, 3\]"):
        ring.add_episode(numbers, one, np.zeros((2, 3)))
    with pytest.raises(ValueError, match="goals must be numbers from 0 to 1"):
        ring.add_episode(numbers, np.array([2]), zeros)
    with pytest.raises(ValueError, match="transitions must be numbers that add returned"):
        ring.add_episode(numbers + 1, one, zeros)
    with pytest.raises(ValueError, match="transitions must be those of one episode in order"):
        ring.add_episode(numbers[::-1], one, zeros)
    with pytest.raises(ValueError, match="capacity_transitions must hold an episode under all its goals, 9"):
        ring.add_episode(numbers, np.array([0, 0, 0]), np.zeros((3, 3)))


def test_settings_that_cannot_be() -> None:
    for name, given in (
        ("num_environments", {"num_environments": 0}),
        ("capacity", {"capacity": 3}),
        ("capacity_transitions", {"capacity_transitions": 3}),
    ):
        with pytest.raises(ValueError, match=f"{name} must be at least"):
            buffer(**given)
    with pytest.raises(ValueError, match="discount must be from 0 to 1, got 2"):
        buffer(discount=2)
    with pytest.raises(ValueError, match=r"goal_embeddings must be \[G, 3\], got \[2, 5\]"):
        OnlineBuffer(SPACES, np.zeros((2, 5)), num_environments=1, capacity=10)


def test_a_step_that_is_refused_leaves_nothing_behind() -> None:
    ring = buffer()
    step(ring, 1)
    before = {name: value.copy() for name, value in ring.state_dict().items()}
    good = {"observations": frame(2)[None], "actions": np.array([1]), "next_observations": frame(3)[None]}
    good |= {"goals": np.array([0]), "rewards": np.array([1.0])}
    good |= {"terminations": np.array([False]), "truncations": np.array([False])}
    for given, message in (
        ({"observations": frame(2)}, r"observations must be \[1, 8, 8, 3\], got \[8, 8, 3\]"),
        ({"valid": np.array([True, True])}, r"valid must be \[1\], got \[2\]"),
        ({"next_observations": np.zeros((1, 8, 8, 3))}, "observations must be uint8, got uint8 and float64"),
        ({"states": np.zeros((1, 2))}, "states and next_states must be None"),
        ({"goals": np.array([2])}, "goals must be numbers from 0 to 1"),
        ({"rewards": np.array([np.nan])}, "rewards must be finite, got .nan.. Score these frames again"),
        ({"successes": np.array([True, False])}, r"successes must be \[1\], got \[2\]"),
    ):
        with pytest.raises(ValueError, match=message):
            ring.add(**{**good, **given})
    after = ring.state_dict()
    assert all(np.array_equal(value, after[name]) for name, value in before.items())
    ring.add(**good)  # it goes on as if nothing had been tried


def test_states_are_stored_with_frames() -> None:
    spaces = Spaces(observation="embeddings", observation_shape=(2,), goal_size=3, action_size=1, state_size=1)
    ring = OnlineBuffer(spaces, GOALS.embeddings, num_environments=1, capacity=8)
    ring.add(
        np.array([[1, 2]], np.float32),
        np.array([[0.5]], np.float32),
        np.array([[3, 4]], np.float32),
        np.array([0]),
        np.array([0.25]),
        terminations=np.array([False]),
        truncations=np.array([True]),
        states=np.array([[7.0]]),
        next_states=np.array([[8.0]]),
    )
    batch = ring.sample(1, np.random.default_rng(0))
    assert batch.states is not None
    assert batch.next_states is not None
    values = [batch.observations, batch.actions, batch.next_observations, batch.states, batch.next_states]
    assert [value.tolist() for value in values] == [[[1, 2]], [[0.5]], [[3, 4]], [[7]], [[8]]]


def test_a_saved_buffer_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    def resume(ring: OnlineBuffer) -> Batch:
        for value in range(26, 41):
            step(ring, value, 0.5, end="truncation" if value == 40 else "")
        return ring.sample(64, np.random.default_rng(5))

    ring = buffer(capacity=16)
    for value in range(26):
        step(ring, value, 0.25)
    ring.save(tmp_path / "online.npz")
    other = buffer(capacity=16)
    other.load(tmp_path / "online.npz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["online.npz", "online.npz.sha256"]
    assert_equal(resume(ring), resume(other))
    for name, value in ring.state_dict().items():
        assert np.array_equal(value, other.state_dict()[name]), name
    with pytest.raises(ValueError, match=r"must be made as the saved one, .* got .*'capacity': 17"):
        buffer(capacity=17).load(tmp_path / "online.npz")
    stranger = OnlineBuffer(SPACES, GOALS.embeddings[::-1], num_environments=1, capacity=16, discount=0.5)
    with pytest.raises(ValueError, match="and other goals. Use the settings of the run that is resumed"):
        stranger.load(tmp_path / "online.npz")


@pytest.mark.parametrize("spoil", [lambda data: b"", lambda data: b"buffer", lambda data: data[: len(data) // 2]])
def test_a_file_that_is_no_saved_buffer_is_named(tmp_path: Path, spoil) -> None:
    path = tmp_path / "online.npz"
    buffer().save(path)
    digest_beside(path).unlink()  # as an earlier version left it
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(
        ValueError, match=r"online.npz must be a saved buffer, got .*. Remove it and the checkpoint of the"
    ):
        buffer().load(path)
