"""Writes a data set with TFDS: FOLDER. Two splits, by the RLDS specification: the last step has no action, zeros stand for it.

Frame k of the data set is a picture of value 3 k; the action of step t is [t + 1, -t], its reward 10 e + t + 1 for episode e.
"""

import sys

import numpy as np
import tensorflow_datasets as tfds

LENGTHS = {"train": (5, 3), "val": (4,)}


class Judged(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        picture = tfds.features.Image(shape=(16, 24, 3), encoding_format="png")
        steps = {
            "observation": {"image": picture, "state": tfds.features.Tensor(shape=(2,), dtype=np.float32)},
            "action": tfds.features.Tensor(shape=(2,), dtype=np.float32),
            "reward": np.float32,
            "is_first": np.bool_,
            "is_last": np.bool_,
            "is_terminal": np.bool_,
            "language_instruction": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "steps": tfds.features.Dataset(steps),
                    "episode_metadata": {"file_path": tfds.features.Text()},
                }
            ),
        )

    def _split_generators(self, manager: object) -> dict:
        return {split: self._episodes(split) for split in LENGTHS}

    def _generate_examples(self) -> None:
        raise NotImplementedError  # splits give their own

    def _episodes(self, split: str):
        frame = 0 if split == "train" else sum(LENGTHS["train"])
        for number, length in enumerate(LENGTHS[split]):
            steps = []
            for t in range(length):
                steps.append(
                    {
                        "observation": {
                            "image": np.full((16, 24, 3), 3 * frame, np.uint8),
                            "state": np.array([frame, t], np.float32),
                        },
                        "action": np.array([t + 1, -t], np.float32) * (t < length - 1),
                        "reward": np.float32((10 * number + t + 1) * (t < length - 1)),
                        "is_first": t == 0,
                        "is_last": t == length - 1,
                        "is_terminal": t == length - 1,
                        "language_instruction": f"task {number} of {split}",
                    }
                )
                frame += 1
            yield number, {"steps": steps, "episode_metadata": {"file_path": f"{split}/{number}"}}


builder = Judged(data_dir=sys.argv[1], file_format="tfrecord")
builder.download_and_prepare()
print(builder.data_dir)
