"""The contrastive losses by hand."""

import math

import pytest
import torch

from vlm_rewards.labelers.reference_models.contrastive import masked_softmax_loss, shared_softmax_loss, sigmoid_loss


def test_masked_softmax_leaves_out_other_true_entries():
    logits = torch.tensor([[1.0, 3.0, 0.0]])
    # Against the false entry alone: log(1 + e^(0-1)) and log(1 + e^(0-3)).
    expected = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-3))) / 2
    assert masked_softmax_loss(logits, torch.tensor([[True, True, False]])).item() == pytest.approx(expected)
    assert masked_softmax_loss(logits, torch.tensor([[False, False, False]])).item() == 0


def test_shared_softmax_is_zero_where_the_true_entries_share_everything():
    truth = torch.tensor([[True, True, False]])
    assert shared_softmax_loss(torch.tensor([[5.0, 5.0, -100.0]]), truth).item() == pytest.approx(0, abs=1e-6)
    # Uniform over three: -log(1/3) less the entropy log(2).
    assert shared_softmax_loss(torch.zeros(1, 3), truth).item() == pytest.approx(math.log(3 / 2))
    assert shared_softmax_loss(torch.tensor([[6.0, 4.0, -100.0]]), truth).item() > 0.1  # unequal shares cost


def test_sigmoid_loss_is_summed_over_captions_and_averaged_over_images():
    logits = torch.tensor([[0.0, 2.0], [0.0, 0.0]])
    truth = torch.tensor([[True, False], [False, False]])
    expected = (3 * math.log(2) + math.log(1 + math.exp(2))) / 2
    assert sigmoid_loss(logits, truth).item() == pytest.approx(expected)
