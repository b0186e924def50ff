"""What holds of every algorithm: bits that go on, refusals, actions, goals never seen."""

import dataclasses

import numpy as np
import pytest
import torch
from random_batches import CONTINUOUS, EMBEDDINGS, FRAMES, random_batch

from vlm_rewards.offline_rl.algorithms.agents import ALGORITHMS, algorithm_settings, build_agent
from vlm_rewards.offline_rl.interfaces import Spaces

TINY = {"width": 16, "channels": 4}
CASES = [
    *[(name, FRAMES) for name in ("bc", "filtered-bc", "iql", "cql", "cal-ql")],
    *[(name, EMBEDDINGS) for name in ("iql", "cal-ql")],
    *[(name, CONTINUOUS) for name in ("bc", "filtered-bc", "iql", "rlpd", "sac-cal-ql")],
]


def weights(agent) -> list[torch.Tensor]:
    """All weights of an agent: that learn, targets, and that act."""
    parts = [*agent.parts.values(), *agent.targets.values(), *agent.acting.values()]
    return [weight.detach().clone() for part in parts for weight in part.state_dict().values()]


@pytest.mark.parametrize(("name", "spaces"), CASES)
def test_going_on_from_a_saved_state_equals_not_having_stopped(name, spaces, tmp_path):
    batches = [random_batch(spaces, seed=seed) for seed in range(6)]
    # Three critics of which a random two judge: the draw must go on too.
    settings = TINY | ({} if "bc" in name else {"num_critics": 3})
    unbroken = build_agent(name, settings, spaces, seed=1)
    stopped = build_agent(name, settings, spaces, seed=1)
    infos = [unbroken.update(batch) for batch in batches]
    for batch in batches[:3]:
        stopped.update(batch)
    torch.save(stopped.state_dict(), tmp_path / "state.pt")
    resumed = build_agent(name, settings, spaces, seed=2)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert [resumed.update(batch) for batch in batches[3:]] == infos[3:]
    assert resumed.num_updates == 6
    for mine, theirs in zip(weights(resumed), weights(unbroken), strict=True):
        assert torch.equal(mine, theirs)
    end, other = resumed.state_dict(), unbroken.state_dict()
    assert torch.equal(end["generator"], other["generator"])
    for part, optimiser in end["optimisers"].items():
        for index, kept in optimiser["state"].items():
            for key, value in kept.items():
                assert torch.equal(value, other["optimisers"][part]["state"][index][key])


@pytest.mark.parametrize(("name", "spaces"), CASES)
def test_a_state_is_a_copy_that_later_updates_leave_alone(name, spaces):
    agent = build_agent(name, TINY, spaces, seed=0)
    agent.update(random_batch(spaces))
    state = agent.state_dict()
    other = build_agent(name, TINY, spaces, seed=1)
    other.load_state_dict(state)
    before = weights(other)
    agent.update(random_batch(spaces, seed=1))
    assert all(torch.equal(mine, kept) for mine, kept in zip(weights(other), before, strict=True))
    first = {key: value.clone() for key, value in state["parts"]["encoder"].items()}
    other.update(random_batch(spaces, seed=2))
    assert all(torch.equal(state["parts"]["encoder"][key], value) for key, value in first.items())


@pytest.mark.parametrize(("name", "spaces"), CASES)
def test_the_seed_alone_decides_the_weights_and_the_global_state_is_left_alone(name, spaces):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = build_agent(name, TINY, spaces, seed=3)
    assert torch.equal(torch.rand(3), expected)
    first.update(random_batch(spaces))
    second = build_agent(name, TINY, spaces, seed=3)
    second.update(random_batch(spaces))
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(weights(first), weights(second), strict=True))
    third = build_agent(name, TINY, spaces, seed=4)
    assert any(not torch.equal(mine, theirs) for mine, theirs in zip(weights(first), weights(third), strict=True))


@pytest.mark.parametrize(("name", "spaces"), CASES)
def test_actions_fit_the_spaces_and_depend_on_generator_and_goal(name, spaces):
    agent = build_agent(name, TINY, spaces, seed=0)
    batch = random_batch(spaces, size=64)
    for _ in range(3):
        agent.update(batch)
    unseen = torch.nn.functional.normalize(-batch.goals.roll(1, dims=0), dim=1)
    greedy = agent.act(batch.observations, unseen, batch.states)
    if spaces.num_actions is not None:
        assert greedy.shape == (64,)
        assert greedy.dtype == np.int64
        assert set(greedy.tolist()) <= set(range(spaces.num_actions))
    else:
        assert greedy.shape == (64, 2)
        assert greedy.dtype == np.float32
        assert np.abs(greedy).max() <= 1
        assert np.isfinite(greedy).all()
    drawn = [
        agent.act(
            batch.observations, unseen, batch.states, generator=torch.Generator().manual_seed(seed), temperature=2.0
        )
        for seed in (0, 0, 1)
    ]
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
    # Nearly no temperature: what is drawn is the most likely action.
    cold = agent.act(
        batch.observations, unseen, batch.states, generator=torch.Generator().manual_seed(0), temperature=1e-5
    )
    np.testing.assert_allclose(cold, greedy, atol=1e-3)
    with torch.no_grad():
        features = [agent.parts["encoder"](batch.observations, goals, batch.states) for goals in (batch.goals, unseen)]
    assert not torch.allclose(*features)
    assert all(torch.isfinite(seen).all() for seen in features)


@pytest.mark.parametrize(("name", "spaces"), CASES)
def test_an_action_does_not_depend_on_its_neighbours(name, spaces):
    agent = build_agent(name, TINY, spaces, seed=0)
    batch = random_batch(spaces, size=9)
    together = agent.act(batch.observations, batch.goals, batch.states)
    for index in range(9):
        states = None if batch.states is None else batch.states[index : index + 1]
        alone = agent.act(batch.observations[index : index + 1], batch.goals[index : index + 1], states)
        np.testing.assert_allclose(alone[0], together[index], atol=1e-6)


@pytest.mark.parametrize(("name", "spaces"), CASES)
def test_every_part_learns_and_targets_follow(name, spaces):
    agent = build_agent(name, TINY, spaces, seed=0)
    before = weights(agent)
    info = agent.update(random_batch(spaces))
    assert all(isinstance(value, float) and np.isfinite(value) for value in info.values())
    assert all(not torch.equal(mine, kept) for mine, kept in zip(weights(agent), before, strict=True))
    for part in agent.targets:
        assert part in agent.parts


def test_a_target_moves_by_its_share():
    agent = build_agent("cql", TINY | {"polyak": 0.25}, FRAMES, seed=0)
    before = agent.targets["critic"].out.bias.clone()
    agent.update(random_batch(FRAMES))
    after = agent.parts["critic"].out.bias.detach()
    torch.testing.assert_close(agent.targets["critic"].out.bias, 0.75 * before + 0.25 * after)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"rewards": torch.full((8,), torch.nan)},
            "rewards must be finite, got 8 values that are not. Look for failed labels",
        ),
        ({"returns": torch.zeros(7)}, r"returns must be \[8\] float32, got \[7\] float32"),
        ({"masks": torch.ones(8, dtype=torch.float64)}, r"masks must be \[8\] float32, got \[8\] float64"),
        ({"successes": torch.ones(8)}, r"successes must be \[8\] bool, got \[8\] float32"),
        ({"goals": torch.zeros(8, 5)}, r"goals must be \[8, 6\] float32, got \[8, 5\] float32"),
        (
            {"observations": torch.zeros(8, 16, 24, 3)},
            r"observations must be \[8, 16, 24, 3\] uint8, got \[8, 16, 24, 3\] float32",
        ),
        (
            {"next_observations": torch.zeros(8, 16, 24, 4, dtype=torch.uint8)},
            r"next_observations must be .*, got \[8, 16, 24, 4\]",
        ),
        (
            {"actions": torch.zeros(8, 2)},
            r"actions must be \[8\] int64, got \[8, 2\] float32. Use the agent with the corpus",
        ),
        ({"actions": torch.full((8,), 4)}, "actions must be between 0 and 3, got 4 to 4. Build the agent for as many"),
        ({"states": torch.zeros(8, 3)}, r"states must be left out for an agent of state_size None, got shape \(8, 3\)"),
    ],
)
@pytest.mark.parametrize("name", ["bc", "iql", "cql"])
def test_a_batch_that_does_not_fit_is_refused(name, changes, message):
    agent = build_agent(name, TINY, FRAMES, seed=0)
    before = weights(agent)
    with pytest.raises(ValueError, match=message):
        agent.update(random_batch(FRAMES)._replace(**changes))
    assert all(torch.equal(mine, kept) for mine, kept in zip(weights(agent), before, strict=True))


def test_an_empty_batch_a_missing_state_and_actions_out_of_range_are_refused():
    agent = build_agent("bc", TINY, EMBEDDINGS, seed=0)
    batch = random_batch(EMBEDDINGS)
    with pytest.raises(ValueError, match="a batch must have at least 1 transition, got 0"):
        agent.update(random_batch(EMBEDDINGS, size=0))
    with pytest.raises(ValueError, match="next_states must be given for an agent of state_size 3, got none"):
        agent.update(batch._replace(next_states=None))
    with pytest.raises(ValueError, match="observations must be finite, got 1 values that are not"):
        observations = batch.observations.clone()
        observations[0, 0] = torch.inf
        agent.update(batch._replace(observations=observations))
    with pytest.raises(
        ValueError, match=r"actions must be between -1 and 1, got -2\.0 to .*. Scale the corpus's actions"
    ):
        actions = random_batch(CONTINUOUS).actions.clone()
        actions[0, 0] = -2
        build_agent("bc", TINY, CONTINUOUS, seed=0).update(random_batch(CONTINUOUS)._replace(actions=actions))


def test_acting_refuses_what_does_not_fit():
    agent = build_agent("bc", TINY, FRAMES, seed=0)
    batch = random_batch(FRAMES)
    with pytest.raises(ValueError, match="temperature must be above 0, got 0. Leave the generator out"):
        agent.act(batch.observations, batch.goals, temperature=0)
    with pytest.raises(ValueError, match=r"observations must be \[8, 16, 24, 3\] uint8, got \[7, 16, 24, 3\]"):
        agent.act(batch.observations[:7], batch.goals)


def test_a_state_of_another_agent_is_refused():
    agent = build_agent("iql", TINY, FRAMES, seed=0)
    with pytest.raises(ValueError, match="a saved state must be of the agent's own algorithm, 'Iql', got 'Bc'"):
        agent.load_state_dict(build_agent("bc", TINY, FRAMES, seed=0).state_dict())
    with pytest.raises(
        ValueError, match=r"own settings: expectile, 0\.8, got 0\.7. Build the agent as the saved one was"
    ):
        agent.load_state_dict(build_agent("iql", TINY | {"expectile": 0.7}, FRAMES, seed=0).state_dict())
    with pytest.raises(ValueError, match="own spaces: num_actions, 4, got 5"):
        other = dataclasses.replace(FRAMES, num_actions=5)
        agent.load_state_dict(build_agent("iql", TINY, other, seed=0).state_dict())


def test_unknown_algorithms_settings_and_spaces_are_refused():
    with pytest.raises(ValueError, match="algorithm must be one of bc, .*, got 'dqn'"):
        build_agent("dqn", None, FRAMES, seed=0)
    with pytest.raises(ValueError, match="settings of bc must be among .*, got expectile. Leave them out"):
        build_agent("bc", {"expectile": 0.9}, FRAMES, seed=0)
    with pytest.raises(ValueError, match="settings of iql must be IqlSettings, got BcSettings"):
        build_agent("iql", ALGORITHMS["bc"][0](), FRAMES, seed=0)
    for name in ("cql", "cal-ql"):
        with pytest.raises(
            ValueError, match="actions must be discrete for cql and cal-ql, got action_size 2. Use sac-cal-ql"
        ):
            build_agent(name, None, CONTINUOUS, seed=0)
    for name in ("rlpd", "sac-cal-ql"):
        with pytest.raises(
            ValueError, match="actions must be continuous for rlpd and sac-cal-ql, got num_actions 4. Use iql"
        ):
            build_agent(name, None, FRAMES, seed=0)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("bc", {"learning_rate": 0.0}, r"learning_rate must be above 0, got 0\.0. Change this setting"),
        ("iql", {"discount": 1.0}, r"discount must be at least 0 and below 1, got 1\.0"),
        ("iql", {"polyak": 0.0}, r"polyak must be above 0 and at most 1, got 0\.0"),
        ("iql", {"num_critics": 0}, "num_critics must be at least 1, got 0"),
        ("iql", {"num_critics": 1}, "num_min_critics must be between 1 and num_critics 1, got 2"),
        ("iql", {"expectile": 1.0}, r"expectile must be above 0 and below 1, got 1\.0"),
        ("iql", {"inverse_temperature": -1.0}, r"inverse_temperature must be at least 0, got -1\.0"),
        ("iql", {"max_weight": 0.0}, r"max_weight must be above 0, got 0\.0"),
        ("cql", {"alpha": -1.0}, r"alpha must be at least 0, got -1\.0"),
        ("cal-ql", {"policy_temperature": 0.0}, r"policy_temperature must be above 0, got 0\.0"),
        ("rlpd", {"initial_temperature": 0.0}, r"initial_temperature must be above 0, got 0\.0"),
        ("rlpd", {"alpha": -1.0}, r"alpha must be at least 0, got -1\.0"),
        ("sac-cal-ql", {"num_sampled_actions": 0}, "num_sampled_actions must be at least 1, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(name, changes, message):
    with pytest.raises(ValueError, match=message):
        ALGORITHMS[name][0](**changes)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("iql", {"width": 1.5}, "got width 1.5. Give a whole number"),
        ("iql", {"width": True}, "got width True. Give a whole number"),
        ("iql", {"expectile": "high"}, "got expectile 'high'. Give a number"),
        ("iql", {"discount": None}, "got discount None. Give a number"),
        (
            "cal-ql",
            {"calibrated": "False"},
            "got calibrated 'False'. Give true or false",
        ),  # a text, which would be true
        ("bc", {"encoder": 1}, "got encoder 1. Give a text or null"),
        ("rlpd", {"target_entropy": "low"}, "got target_entropy 'low'. Give a number or null"),
    ],
)
def test_settings_of_another_type_are_refused(name, given, message):
    with pytest.raises(ValueError, match=f"settings of {name} must be of their defaults' types, {message}"):
        algorithm_settings(name, given)


def test_settings_may_be_whole_numbers_where_they_are_numbers():
    assert algorithm_settings("iql", {"inverse_temperature": 10, "encoder": None}) == ALGORITHMS["iql"][0]()


def test_settings_may_come_from_json():
    given = ALGORITHMS["cal-ql"][0](alpha=0.3)
    agent = build_agent("cal-ql", dataclasses.asdict(given), FRAMES, seed=0)
    assert agent.settings == given
    assert agent.settings.calibrated
    assert agent.spaces == Spaces(**dataclasses.asdict(FRAMES))


def test_what_acts_is_a_moving_mean_of_what_learns():
    agent = build_agent("bc", TINY | {"acting_polyak": 0.25}, FRAMES, seed=0)
    learned = []
    for seed in range(5):
        agent.update(random_batch(FRAMES, seed=seed))
        learned.append(agent.parts["policy"].logits.out.weight.detach().clone())
    # shares 1, 1/2, 1/3 and 1/4 make the mean of the first four; the fifth moves by 0.25
    expected = 0.75 * torch.stack(learned[:4]).mean(0) + 0.25 * learned[4]
    assert torch.allclose(agent.acting["policy"].logits.out.weight, expected, atol=1e-6)
    batch = random_batch(FRAMES)
    before = agent.act(batch.observations, batch.goals)
    for part in agent.parts.values():
        for weight in part.parameters():
            weight.data.zero_()
    assert np.array_equal(agent.act(batch.observations, batch.goals), before)


def test_an_agent_acts_by_what_it_learned_last_where_the_share_is_1():
    agent = build_agent("bc", TINY | {"acting_polyak": 1.0}, FRAMES, seed=0)
    assert agent.acting["policy"] is agent.parts["policy"]
    assert agent.acting["encoder"] is agent.parts["encoder"]
