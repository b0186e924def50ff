"""A third party's encoder: the mean colour of a frame against colours named in a text. numpy alone, one file, one line to register.

[vlm_rewards.encoders]
colours = toy_encoder:COLOURS
"""

import dataclasses

import numpy as np

from vlm_rewards.labelers.encoders.encoder import EncoderKind, TextReading

WORDS = {"red": 0, "green": 1, "blue": 2}


@dataclasses.dataclass(frozen=True)
class ColourEncoder:
    name: str
    precision: str
    batch_size: int
    device: str
    pinned_name = property(lambda self: self.name)
    engine = "colours"
    weights_digest = "colours-1"
    dim = 3
    image_size = (1, 1)
    window = 1
    logit_scale = 50.0
    logit_bias = None

    def resize(self, frame):
        return frame.mean(axis=(0, 1)).round().astype(np.uint8)[None, None]

    def embed_images(self, pixels):
        return self._unit(pixels[:, 0, 0].astype(np.float64) + 1)

    def embed_texts(self, texts):
        return self._unit(np.array([np.bincount(reading.ids, minlength=3) for reading in self.read_texts(texts)]))

    def _unit(self, rows):
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32).reshape(-1, 3)

    def read_texts(self, texts):
        words = [text.lower().split() for text in texts]
        return [
            TextReading(
                ids=tuple(WORDS[word] for word in text if word in WORDS),
                unknown=tuple(word for word in text if word not in WORDS),
                num_words=sum(word in WORDS for word in text),
            )
            for text in words
        ]

    def describe_images(self):
        return {"weights": self.weights_digest, "precision": self.precision, "device": self.device}

    def describe_texts(self):
        return {"words": WORDS}

    def versions(self):
        return {"numpy": np.__version__}


def load(name, *, precision, batch_size, device):
    return ColourEncoder(name, "float32" if precision == "auto" else precision, batch_size, device)


COLOURS = EncoderKind("colours", lambda name: name.startswith("colours:"), load)
