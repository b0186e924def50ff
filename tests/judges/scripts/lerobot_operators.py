"""Imports LeRobot beside a torch that its torchvision was not built for: two operators are declared before, none is called."""

import torch

_library = torch.library.Library("torchvision", "DEF")
_library.define("nms(Tensor a, Tensor b, float c) -> Tensor")
_library.define("qnms(Tensor a, Tensor b, float c) -> Tensor")

from lerobot.datasets.lerobot_dataset import LeRobotDataset  # noqa: E402

__all__ = ["LeRobotDataset"]
