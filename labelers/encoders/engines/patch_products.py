"""The first layer of a vision transformer as a matrix product: its convolution looks at every pixel once."""

import torch
import torch.nn.functional as F
from torch import nn


class PatchProduct(nn.Conv2d):
    """A convolution whose stride is its kernel, computed as one product of patches with the kernels.

    A matrix product keeps a GPU's tensor cores busy where the convolution of three channels does not.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Returns `[B, D, rows, columns]` of `[B, channels, height, width]`."""
        batch, channels, height, width = input.shape
        tall, wide = self.kernel_size
        split = input.reshape(batch, channels, height // tall, tall, width // wide, wide)
        patches = split.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * tall * wide)
        features = F.linear(patches, self.weight.flatten(1), self.bias)
        return features.transpose(1, 2).unflatten(2, (height // tall, width // wide))


def use_patch_products(model: nn.Module, size: tuple[int, int]) -> int:
    """Turns the convolutions over patches into products, in place: the weights stay as they are.

    Args:
        model: The model.
        size: Height and width of the pictures.

    Returns:
        How many were turned: one for a vision transformer, none for a convolutional network.
    """
    found = [module for module in model.modules() if type(module) is nn.Conv2d and _cuts_patches(module, size)]
    for module in found:
        module.__class__ = PatchProduct
    return len(found)


def _cuts_patches(convolution: nn.Conv2d, size: tuple[int, int]) -> bool:
    kernel = convolution.kernel_size
    return (
        convolution.in_channels == 3
        and convolution.groups == 1
        and convolution.stride == kernel
        and convolution.padding in ("valid", (0, 0))
        and convolution.dilation == (1, 1)
        and all(side % patch == 0 for side, patch in zip(size, kernel, strict=True))
    )
