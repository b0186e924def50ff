"""Writes a data set with LeRobot's own writer: FOLDER KIND, KIND being "image" or "video".

Frame k of the data set is a picture whose pixels follow from k; three episodes of 12, 1 and 7 frames; the last has another task.
"""

import inspect
import sys

import numpy as np
from lerobot_operators import LeRobotDataset

folder, kind = sys.argv[1:]
LENGTHS = (12, 1, 7)
TASKS = ("lift the cup", "lift the cup", "open the drawer")


def picture(k: int) -> np.ndarray:
    """A picture with blocks that tell its number, so that lossy codecs keep them."""
    pixels = np.zeros((64, 96, 3), np.uint8)
    for bit in range(6):
        pixels[16:48, bit * 16 : bit * 16 + 16] = 230 if k >> bit & 1 else 25
    pixels[:8] = (200, 40, 90)
    return pixels


names = ["height", "width", "channels"]
dataset = LeRobotDataset.create(
    "judged/corpus",
    fps=10,
    root=folder,
    features={
        "observation.images.front": {"dtype": kind, "shape": (64, 96, 3), "names": names},
        "wrist cam": {"dtype": kind, "shape": (64, 96, 3), "names": names},
        "observation.state": {"dtype": "float32", "shape": (2,), "names": None},
        "action": {"dtype": "float32", "shape": (2,), "names": None},
    },
    use_videos=kind == "video",
)
takes_task = "task" in inspect.signature(dataset.add_frame).parameters
frame_number = 0
for length, task in zip(LENGTHS, TASKS, strict=True):
    for step in range(length):
        frame = {
            "observation.images.front": picture(frame_number),
            "wrist cam": picture(63 - frame_number),
            "observation.state": np.array([frame_number, step], np.float32),
            "action": np.array([step, -step], np.float32),
        }
        if takes_task:
            dataset.add_frame(frame, task=task)
        else:
            dataset.add_frame({**frame, "task": task})
        frame_number += 1
    dataset.save_episode()
if hasattr(dataset, "finalize"):
    dataset.finalize()
