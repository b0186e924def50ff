"""The losses of `labelers.reference_models.pretraining`, on logits of every image with every caption.

Shape letters: B images, C captions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def shared_softmax_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy of a softmax over each row whose target is shared equally by the row's true entries.

    So the true captions of an image end up with equal cosines, and none outweighs another in a softmax over all goals.

    Args:
        logits: `[B, C]` float.
        truth: `[B, C]` bool, at least one true a row.

    Returns:
        Scalar, 0 at best: the rows' entropies log(number of true entries) are taken off.
    """
    count = truth.sum(dim=1)
    losses = -(logits.log_softmax(dim=1) * truth).sum(dim=1) / count
    return (losses - count.log()).mean()


def masked_softmax_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy of every true entry against the false entries of its row; other true ones are left out.

        mean over true (i, j) of  log(1 + sum over k false of exp(s_ik - s_ij))

    Args:
        logits: `[B, C]` float.
        truth: `[B, C]` bool.

    Returns:
        Scalar; 0 if nothing is true.
    """
    falses = logits.masked_fill(truth, -torch.inf).logsumexp(dim=1, keepdim=True)
    losses = F.softplus(falses - logits)
    return (losses * truth).sum() / truth.sum().clamp(min=1)


def sigmoid_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Binary cross-entropy of every image with every caption, summed over captions, averaged over images.

    As in SigLIP (Zhai et al. 2023), with the cosine of a neutral caption in place of their learned bias, so that what is learned
    is the softmax over a caption and the neutral one.

    Args:
        logits: `[B, C]` float, less that of the neutral caption.
        truth: `[B, C]` bool.

    Returns:
        Scalar.
    """
    return F.binary_cross_entropy_with_logits(logits, truth.float(), reduction="sum") / len(logits)
