"""Heads of cells: every cell is judged alike, by its own channels and by the whole frame."""

import math

import pytest
import torch

from vlm_rewards.offline_rl.algorithms.agents import build_agent
from vlm_rewards.offline_rl.interfaces import Batch, Spaces
from vlm_rewards.offline_rl.networks.encoder import Encoder, NetworkSettings
from vlm_rewards.offline_rl.networks.grid_heads import GridCritic, GridHead

SPACES = Spaces(observation="frames", observation_shape=(16, 24, 3), goal_size=6, num_actions=8)
GRID = {"action_grid": "2x3", "width": 16, "channels": 4}


def test_a_cell_is_judged_by_what_is_in_it_wherever_it_is():
    torch.manual_seed(0)
    whole, cells = torch.rand(5, 16), torch.rand(5, 6, 4)
    order = torch.tensor([3, 0, 5, 1, 2, 4])
    features, moved = (torch.cat([whole, part.flatten(1)], dim=1) for part in (cells, cells[:, order]))
    head, critic = GridHead(16, 6, 4, 8), GridCritic(16, 6, 4, 8, 3)
    for values, after in ((head(features), head(moved)), (critic.values(features), critic.values(moved))):
        assert values.shape[-2:] == (5, 8)
        torch.testing.assert_close(after[..., :6], values[..., :6][..., order])
        torch.testing.assert_close(after[..., 6:], values[..., 6:])  # the others do not look at cells
        assert values[..., :6].std(-1).min() > 1e-3
    actions = torch.tensor([0, 5, 6, 7, 2])
    expected = critic.values(features)[:, torch.arange(5), actions]
    torch.testing.assert_close(critic(features, actions), expected)


def test_all_actions_may_be_cells():
    features = torch.rand(5, 16 + 6 * 4)
    assert GridHead(16, 6, 4, 6)(features).shape == (5, 6)
    assert GridCritic(16, 6, 4, 6, 2).values(features).shape == (2, 5, 6)


def test_features_of_cells_follow_those_of_the_frame_and_lie_where_the_cells_do():
    torch.manual_seed(0)
    encoder = Encoder(NetworkSettings(**GRID), SPACES)  # tiles of 8: the cells are the tiles
    plain = Encoder(NetworkSettings(width=16, channels=4), SPACES)
    plain.load_state_dict(encoder.state_dict())
    frames, goals = torch.randint(0, 256, (2, 16, 24, 3), dtype=torch.uint8), torch.rand(2, 6)
    features = encoder(frames, goals)
    torch.testing.assert_close(features[:, :16], plain(frames, goals))
    changed = frames.clone()
    changed[:, 8:, 16:] = 255 - changed[:, 8:, 16:]  # cell 5, the last of the second row; its neighbours are mixed in
    moved = (encoder(changed, goals) - features)[:, 16:].unflatten(1, (6, 4)).abs().sum(-1)
    assert (moved[:, 5] > moved[:, 0]).all()
    torch.testing.assert_close(moved[:, [0, 3]], torch.zeros(2, 2))  # two columns away
    # a convolution of 2x3 cells of 8 pixels, or of more cells, is pooled to them
    assert Encoder(NetworkSettings(encoder="impala", **GRID), SPACES)(frames, goals).shape == (2, 16 + 6 * 4)


@pytest.mark.parametrize(
    ("algorithm", "updates"), [("bc", 40), ("filtered-bc", 40), ("iql", 2), ("cql", 2), ("cal-ql", 2)]
)
def test_every_algorithm_takes_cells_and_cloning_finds_the_one_that_looks_right(algorithm, updates):
    """One tile is white and the right action is to touch it; all cells share weights, so 40 updates are enough to clone that."""
    random = torch.Generator().manual_seed(0)
    agent = build_agent(algorithm, {**GRID, "width": 32, "channels": 16, "learning_rate": 3e-3}, SPACES, 0)

    def draw(num: int) -> tuple[torch.Tensor, torch.Tensor]:
        target = torch.randint(0, 6, (num,), generator=random)
        frames = torch.randint(0, 100, (num, 16, 24, 3), generator=random, dtype=torch.uint8)
        for frame, cell in zip(frames, target.tolist(), strict=True):
            row, column = divmod(cell, 3)
            frame[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 255
        return frames, target

    goals = torch.nn.functional.normalize(torch.ones(64, 6), dim=1)
    for _ in range(updates):
        frames, target = draw(64)
        ones = torch.ones(64)
        losses = agent.update(
            Batch(
                observations=frames,
                actions=target,
                rewards=ones,
                next_observations=frames,
                masks=torch.zeros(64),
                goals=goals,
                returns=ones,
                successes=torch.ones(64, dtype=torch.bool),
            )
        )
    agent.acting = {name: agent.parts[name] for name in agent.acting_names}  # not the slow mean of 40 updates
    frames, target = draw(64)
    actions = agent.act(frames, goals, generator=random)
    assert 0 <= actions.min() <= actions.max() < 8
    assert all(math.isfinite(loss) for loss in losses.values())
    if updates == 40:
        assert (agent.act(frames, goals) == target.numpy()).mean() > 0.9


def test_grids_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="action_grid must be rows and columns such as 10x6, or None, got '10'"):
        NetworkSettings(action_grid="10")
    with pytest.raises(ValueError, match="action_grid must have no more cells than the encoder, 2x3, got 2x4"):
        build_agent("iql", {"action_grid": "2x4"}, SPACES, 0)
    with pytest.raises(ValueError, match="at most one cell per discrete action, got 2x5 for 8 actions"):
        build_agent("iql", {"action_grid": "2x5"}, SPACES, 0)
    continuous = Spaces(observation="frames", observation_shape=(16, 24, 3), goal_size=6, action_size=2)
    with pytest.raises(ValueError, match="at most one cell per discrete action, got 2x3 for continuous actions"):
        build_agent("iql", {"action_grid": "2x3"}, continuous, 0)
    embedded = Spaces(observation="embeddings", observation_shape=(9,), goal_size=6, num_actions=8)
    with pytest.raises(ValueError, match="action_grid must be left out for an agent of embeddings, got 2x3"):
        build_agent("iql", {"action_grid": "2x3"}, embedded, 0)
