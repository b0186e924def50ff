"""Reads a data set with TFDS: FOLDER SPLIT OUT.npz. FOLDER holds dataset_info.json."""

import sys

import numpy as np
import tensorflow_datasets as tfds

folder, split, out = sys.argv[1:]
dataset = tfds.builder_from_directory(folder).as_dataset(split=split, shuffle_files=False)
columns: dict[str, list] = {name: [] for name in ("frames", "actions", "rewards", "states", "instructions", "lengths")}
for episode in tfds.as_numpy(dataset):
    steps = list(episode["steps"])
    columns["lengths"].append(len(steps))
    for step in steps:
        columns["frames"].append(step["observation"]["image"])
        columns["actions"].append(step["action"])
        columns["rewards"].append(step["reward"])
        columns["states"].append(step["observation"]["state"])
        columns["instructions"].append(step["language_instruction"].decode())
np.savez(out, **{name: np.stack(values) for name, values in columns.items()})
