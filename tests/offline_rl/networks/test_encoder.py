"""Encoders and heads: against torch's own layers, by hand, and what they tell apart."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from random_batches import EMBEDDINGS, FRAMES, random_batch
from torch import nn

from vlm_rewards.offline_rl.interfaces import Spaces
from vlm_rewards.offline_rl.networks.encoder import (
    Encoder,
    Film,
    Gate,
    ImpalaCells,
    NatureCells,
    NetworkSettings,
    TileCells,
)

TINY = NetworkSettings(width=16, channels=4)
IMPALA = NetworkSettings(encoder="impala", width=16, channels=4)


def test_tiles_equal_a_convolution_with_kernel_and_stride_of_a_tile():
    cells = TileCells(TINY, (16, 24, 3))
    frames = random_batch(FRAMES).observations
    kernel = cells.linear.weight.unflatten(1, (8, 8, 3)).permute(0, 3, 1, 2)
    expected = F.conv2d(frames.permute(0, 3, 1, 2) / 255, kernel, cells.linear.bias, stride=8)
    torch.testing.assert_close(cells(frames), expected.permute(0, 2, 3, 1))
    assert cells.shape == (2, 3, 4)


def test_a_gate_opens_by_the_agreement_of_goal_and_cell_by_hand():
    gate = Gate(goal_size=1, channels=4)  # four heads of one channel
    with torch.no_grad():
        gate.query.weight.copy_(torch.tensor([[1.0], [0.0], [-1.0], [1.0]]))
        gate.key.weight.copy_(torch.eye(4))
        gate.query.bias.zero_()
        gate.key.bias.zero_()
    # Goal log 3, cell 1, 1, 1, 0: agreements log 3, 0, -log 3, 0, whose sigmoids are 3/4, 1/2, 1/4, 1/2.
    out = gate(torch.tensor([1.0, 1.0, 1.0, 0.0]).reshape(1, 1, 1, 4), torch.tensor([[math.log(3)]]))
    assert out.flatten().tolist() == pytest.approx([1.5, 1.0, 0.5, 0.0])


def test_film_scales_and_shifts_by_hand():
    film = Film(goal_size=1, channels=2)
    with torch.no_grad():
        film.linear.weight.copy_(torch.tensor([[1.0], [2.0], [10.0], [20.0]]))
        film.linear.bias.zero_()
    # Goal 3: scales 3 and 6, shifts 30 and 60. 5 * (1 + 3) + 30 = 50; 7 * (1 + 6) + 60 = 109.
    out = film(torch.tensor([5.0, 7.0]).reshape(1, 1, 1, 2), torch.tensor([[3.0]]))
    assert out.flatten().tolist() == [50.0, 109.0]


@pytest.mark.parametrize(("side", "cells"), [(8, 1), (23, 2), (56, 7), (96, 12)])
def test_nature_reduces_the_sides_to_an_eighth_and_a_cell_lies_where_its_pixels_do(side, cells):
    nature = NatureCells(IMPALA, (side, side, 3))
    frames = torch.zeros(2, side, side, 3, dtype=torch.uint8)
    frames[1, 8 * (cells - 1) + 2 : 8 * (cells - 1) + 6, 2:6] = 255
    values = nature(frames)
    assert values.shape == (2, *nature.shape) == (2, cells, cells, 4)
    changed = (values[1] - values[0]).abs().sum(-1)
    assert changed[-1, 0] > 0
    assert not changed[: max(cells - 3, 0)].any()  # a cell sees some two cells around it
    with pytest.raises(ValueError, match="the frame's sides must be at least 8 pixels for nature, got 7x8"):
        NatureCells(IMPALA, (7, 8, 3))


@pytest.mark.parametrize(
    ("settings", "spaces"),
    [(TINY, FRAMES), (IMPALA, FRAMES), (dataclasses.replace(IMPALA, encoder="nature"), FRAMES), (TINY, EMBEDDINGS)],
)
def test_features_depend_on_everything_seen(settings, spaces):
    torch.manual_seed(0)
    encoder = Encoder(settings, spaces)
    batch, other = random_batch(spaces), random_batch(spaces, seed=1)
    features = encoder(batch.observations, batch.goals, batch.states)
    assert features.shape == (8, 16)
    assert features.dtype == torch.float32
    assert features.min() >= 0
    assert not torch.allclose(features, encoder(other.observations, batch.goals, batch.states))
    assert not torch.allclose(features, encoder(batch.observations, other.goals, batch.states))
    if batch.states is not None:
        assert not torch.allclose(features, encoder(batch.observations, batch.goals, other.states))


@pytest.mark.parametrize(("settings", "spaces"), [(TINY, FRAMES), (IMPALA, FRAMES), (TINY, EMBEDDINGS)])
def test_prepared_observations_give_the_same_bits(settings, spaces):
    encoder, batch = Encoder(settings, spaces), random_batch(spaces)
    prepared = encoder.prepare(batch.observations)
    assert prepared.dtype == torch.float32
    assert torch.equal(
        encoder(prepared, batch.goals, batch.states), encoder(batch.observations, batch.goals, batch.states)
    )


@pytest.mark.parametrize(("side", "cells"), [(56, 7), (60, 8), (9, 2)])
def test_impala_halves_the_sides_three_times(side, cells):
    frames = torch.zeros(2, side, side, 3, dtype=torch.uint8)
    impala = ImpalaCells(IMPALA, (side, side, 3))
    assert impala(frames).shape == (2, *impala.shape) == (2, cells, cells, 4)


def test_a_tile_elsewhere_gives_other_features():
    torch.manual_seed(0)
    encoder = Encoder(TINY, FRAMES)
    frames = torch.zeros(2, 16, 24, 3, dtype=torch.uint8)
    frames[0, :8, :8] = 255
    frames[1, 8:, 16:] = 255
    first, second = encoder(frames, torch.ones(2, 6))
    assert not torch.allclose(first, second)


def test_the_length_of_an_embedding_and_of_a_goal_does_not_count():
    torch.manual_seed(0)
    encoder = Encoder(TINY, EMBEDDINGS)
    batch = random_batch(EMBEDDINGS)
    features = encoder(batch.observations, batch.goals, batch.states)
    torch.testing.assert_close(
        encoder(7 * batch.observations, 3 * batch.goals, batch.states), features, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize(
    ("settings", "spaces", "message"),
    [
        ({"encoder": "mlp"}, FRAMES, "the encoder of frames must be tiles, nature or impala, got mlp"),
        ({"encoder": "tiles"}, EMBEDDINGS, "the encoder of embeddings must be mlp, got tiles"),
        ({"tile_size": 5}, FRAMES, "the frame's sides must be multiples of tile_size 5, got 16x24. Set tile_size"),
    ],
)
def test_encoders_that_do_not_fit_are_refused(settings, spaces, message):
    with pytest.raises(ValueError, match=message):
        Encoder(NetworkSettings(**settings), spaces)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "resnet"}, "encoder must be one of tiles, nature, impala, mlp or None, got 'resnet'"),
        ({"tile_size": 0}, "tile_size must be at least 1, got 0"),
        ({"channels": 0}, "channels must be a multiple of 4, got 0"),
        ({"channels": 6}, "channels must be a multiple of 4, got 6"),
        ({"width": 0}, "width must be at least 1, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        NetworkSettings(**changes)


def test_one_row_of_tiles_mixes_too():
    spaces = Spaces(observation="frames", observation_shape=(8, 24, 3), goal_size=6, num_actions=4)
    encoder = Encoder(TINY, spaces)
    assert isinstance(encoder.mix, nn.Conv2d)
    assert encoder(torch.zeros(2, 8, 24, 3, dtype=torch.uint8), torch.ones(2, 6)).shape == (2, 16)
