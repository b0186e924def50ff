"""Two small worlds whose optimal values and actions are known: a chain with discrete actions and a point with continuous ones.

chain     0 ─ 1 ─ 2 ─ 3 ─ 4        two goals: state 0 and state 4. Actions: 0 to the left, 1 to the right (the end stays)
point     -1 ────── 0 ────── 1     goals: the left end and the right end. An action moves by half of itself
"""

import pytest
import torch

from vlm_rewards.offline_rl.algorithms.agents import build_agent
from vlm_rewards.offline_rl.interfaces import Batch, Spaces

DISCOUNT = 0.9
CHAIN = Spaces(observation="embeddings", observation_shape=(5,), goal_size=2, num_actions=2)
POINT = Spaces(observation="embeddings", observation_shape=(2,), goal_size=2, action_size=1)
GOALS = torch.eye(2)
SMALL = {"width": 64, "learning_rate": 1e-3}


def optimal_values() -> torch.Tensor:
    """Q* [2 goals, 5 states, 2 actions]: the goal at distance d is worth 0.9^(d-1), and a wasted step one factor more each way.

    To the right end (goal 1) from state 3: right 1, left 0.9 * V(2) = 0.9 * 0.9 = 0.81.
    """
    values = torch.zeros(2, 5, 2)
    for state in range(4):
        right = DISCOUNT ** (3 - state)
        left = DISCOUNT * DISCOUNT ** (3 - max(state - 1, 0))
        values[1, state] = torch.tensor([left, right])
        values[0, 4 - state] = torch.tensor([right, left])
    return values


def chain_batch() -> tuple[Batch, torch.Tensor]:
    """Every action in every state that is not the goal, once a goal, and its optimal value.

    The recording walked on to the goal after a right step, so its return is the optimal one; after a wrong step it ended, return 0.
    """
    rows = [(goal, state, action) for goal in (0, 1) for state in range(5) for action in (0, 1) if state != 4 * goal]
    goals, states, actions = torch.tensor(rows).unbind(1)
    following = (states + 2 * actions - 1).clamp(0, 4)
    rewards = (following == 4 * goals).float()
    best = optimal_values()[goals, states, actions]
    batch = Batch(
        observations=torch.eye(5)[states],
        actions=actions,
        rewards=rewards,
        next_observations=torch.eye(5)[following],
        masks=1 - rewards,
        goals=GOALS[goals],
        returns=torch.where(actions == goals, best, 0.0),
        successes=actions == goals,
    )
    return batch, best


def test_the_optimal_values_are_those_reckoned_by_hand():
    values = optimal_values()
    torch.testing.assert_close(values[1, 3], torch.tensor([0.81, 1.0]))
    torch.testing.assert_close(values[1, 0], torch.tensor([0.6561, 0.729]))  # 0.9^3, and a lost step at the wall
    torch.testing.assert_close(values[0, 1], torch.tensor([1.0, 0.81]))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("iql", {"expectile": 0.99, "inverse_temperature": 10.0}),
        ("cql", {"alpha": 0.01}),
        ("cal-ql", {"alpha": 0.01}),
    ],
)
def test_values_and_policy_of_the_chain_are_optimal(name, settings):
    batch, best = chain_batch()
    agent = build_agent(name, SMALL | {"discount": DISCOUNT, "polyak": 0.05} | settings, CHAIN, seed=0)
    for _ in range(800):
        agent.update(batch)
    with torch.no_grad():
        q = agent.parts["critic"](agent.encode(batch, agent.parts), batch.actions).mean(0)
    # Off by 0.03 at most, less than half of the 0.073 that separate the worst pair of actions.
    torch.testing.assert_close(q, best, atol=0.03, rtol=0)
    towards = (batch.goals[:, 1] == 1).long()
    assert agent.act(batch.observations, batch.goals).tolist() == towards.tolist()
    if name == "iql":
        with torch.no_grad():
            values = agent.value(agent.encode(batch, agent.parts))
        distance = torch.where(towards == 1, 4 - batch.observations.argmax(1), batch.observations.argmax(1))
        torch.testing.assert_close(values, DISCOUNT ** (distance - 1), atol=0.03, rtol=0)


def test_conservatism_lowers_what_was_seldom_recorded_and_calibration_stops_it_at_the_return():
    batch, best = chain_batch()
    wrong = batch.actions != (batch.goals[:, 1] == 1).long()
    # Right steps are recorded eight times, wrong ones once; both recordings then went on as well as can be.
    times = torch.where(wrong, 1, 8)
    recorded = Batch._make(
        None if part is None else part.repeat_interleave(times, dim=0) for part in batch._replace(returns=best)
    )
    error = {}
    for name in ("cql", "cal-ql"):
        agent = build_agent(name, SMALL | {"discount": DISCOUNT, "polyak": 0.05, "alpha": 0.5}, CHAIN, seed=0)
        for _ in range(800):
            agent.update(recorded)
        with torch.no_grad():
            q = agent.parts["critic"](agent.encode(batch, agent.parts), batch.actions).mean(0)
        error[name] = (q - best)[wrong].min().item()
    assert error["cql"] < -0.3
    assert error["cal-ql"] > error["cql"] + 0.2


def test_behaviour_cloning_follows_the_recording_and_filtered_the_successes():
    batch, _ = chain_batch()
    towards = (batch.goals[:, 1] == 1).long()
    chances = {}
    for name in ("bc", "filtered-bc"):
        agent = build_agent(name, SMALL, CHAIN, seed=0)
        for _ in range(200):
            agent.update(batch)
        with torch.no_grad():
            log_prob = agent.parts["policy"].log_prob(agent.encode(batch, agent.parts), towards)
        chances[name] = log_prob.exp()
    torch.testing.assert_close(chances["bc"], torch.full((16,), 0.5), atol=0.02, rtol=0)  # both actions recorded once
    assert chances["filtered-bc"].min() > 0.95


def point_batch(size: int, seed: int) -> Batch:
    """Random steps of the point; the goal is achieved within 0.25 of its end."""
    generator = torch.Generator().manual_seed(seed)
    place = 2 * torch.rand(size, generator=generator) - 1
    action = 2 * torch.rand(size, 1, generator=generator) - 1
    goal = torch.randint(0, 2, (size,), generator=generator)
    end = 2.0 * goal - 1
    following = (place + action[:, 0] / 2).clamp(-1, 1)
    rewards = ((following - end).abs() < 0.25).float()
    return Batch(
        observations=seen(place),
        actions=action,
        rewards=rewards,
        next_observations=seen(following),
        masks=1 - rewards,
        goals=GOALS[goal],
        returns=rewards,
        successes=action[:, 0] * end > 0,
    )


def seen(place: torch.Tensor) -> torch.Tensor:
    """A place as an embedding: an angle, since only the direction of an embedding counts."""
    return torch.stack([torch.cos(place), torch.sin(place)], dim=1)


@pytest.mark.parametrize(
    ("name", "settings", "num_steps"),
    [
        # The farthest start is 1.35 from the goal's edge: three steps of 0.5, and one to spare. What stays near the recording is
        # slower: the mean of uniform actions towards the goal is 0.5, a step of 0.25, of which six are needed.
        ("filtered-bc", {}, 7),
        ("iql", {"inverse_temperature": 30.0}, 7),
        ("rlpd", {"num_critics": 4}, 4),
        ("sac-cal-ql", {"alpha": 0.05, "num_sampled_actions": 4}, 7),
    ],
)
def test_the_point_goes_to_its_goal(name, settings, num_steps):
    critics = {} if name == "filtered-bc" else {"discount": DISCOUNT, "polyak": 0.02}
    agent = build_agent(name, SMALL | critics | settings, POINT, seed=0)
    for update in range(500):
        agent.update(point_batch(128, update))
    place = torch.linspace(-0.6, 0.6, 13).repeat(2)
    goals = GOALS.repeat_interleave(13, dim=0)
    end = 2 * goals[:, 1] - 1
    reached = torch.zeros(26, dtype=torch.bool)
    for _ in range(num_steps):
        action = torch.from_numpy(agent.act(seen(place), goals))[:, 0]
        place = torch.where(reached, place, (place + action / 2).clamp(-1, 1))
        reached |= (place - end).abs() < 0.25
    assert reached.all()
