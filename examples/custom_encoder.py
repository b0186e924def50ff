"""An encoder of your own: another library's checkpoint, a video model or a remote scorer takes this place.

This one compares the mean colour of a frame with the colours that a text names. Install the examples, and run this:

    pip install ./examples
    python examples/custom_encoder.py
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

import vlm_rewards as vr
from vlm_rewards.labelers.encoders.encoder import EncoderKind, TextReading

COLOURS_BY_NAME = {"red": 0, "green": 1, "blue": 2}


@dataclasses.dataclass(frozen=True)
class ColourEncoder:
    """Embeds frames and texts as unit vectors of red, green and blue.

    A row depends on its own frame or text alone, and calls from several threads do not meet: there is no state.
    """

    name: str
    precision: str
    batch_size: int
    device: str

    engine = "colours"
    weights_digest = "colours-1"  # another one whenever an embedding would change
    dim = 3
    image_size = (1, 1)
    window = 1
    logit_scale = 50.0
    logit_bias = None

    @property
    def pinned_name(self) -> str:
        """The name under which a worker process loads the same encoder."""
        return self.name

    def resize(self, frame: np.ndarray) -> np.ndarray:
        """`[H, W, 3]` uint8 to `[1, 1, 3]` uint8."""
        return frame.mean(axis=(0, 1)).round().astype(np.uint8)[None, None]

    def embed_images(self, pixels: np.ndarray) -> np.ndarray:
        """`[N, 1, 1, 3]` uint8 to `[N, 3]` float32 of unit length."""
        return _unit(pixels[:, 0, 0].astype(np.float64) + 1)

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """N texts to `[N, 3]` float32 of unit length."""
        return _unit(np.array([np.bincount(reading.ids, minlength=3) for reading in self.read_texts(texts)]))

    def read_texts(self, texts: Sequence[str]) -> list[TextReading]:
        """What the encoder makes of each text; words that it does not know are refused by whoever asked."""
        words = [text.lower().split() for text in texts]
        return [
            TextReading(
                ids=tuple(COLOURS_BY_NAME[word] for word in text if word in COLOURS_BY_NAME),
                unknown=tuple(word for word in text if word not in COLOURS_BY_NAME),
            )
            for text in words
        ]

    def describe_images(self) -> Mapping[str, object]:
        """What a frame's embedding depends on; part of the fingerprint."""
        return {"weights": self.weights_digest, "precision": self.precision, "device": self.device}

    def describe_texts(self) -> Mapping[str, object]:
        """What a text's embedding depends on; part of the fingerprint."""
        return {"words": COLOURS_BY_NAME}

    def versions(self) -> Mapping[str, str]:
        """Versions of the libraries that compute the embeddings."""
        return {"numpy": np.__version__}


def _unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32).reshape(-1, 3)


def load(name: str, *, precision: str, batch_size: int, device: str) -> ColourEncoder:
    """Loads the encoder of a name."""
    return ColourEncoder(name, "float32" if precision == "auto" else precision, batch_size, device)


COLOURS = EncoderKind("colours", lambda name: name.startswith("colours:"), load)


def main() -> None:
    """Labels a corpus of plain colours, and prints the scores."""
    frames = np.zeros((3, 8, 8, 3), np.uint8)
    for index in range(3):
        frames[index, ..., index] = 200  # a red, a green and a blue frame
    vr.write_corpus([vr.Episode(episode_id="colours", images={"front": frames})], output="corpus/")
    labeler = vr.load_labeler("colours:mean", ["red", "green", "blue"], precision="float32")
    vr.label("corpus/", labeler.settings, output="labels/")
    print(vr.open_labels("labels/").to_pandas().round(2))


if __name__ == "__main__":
    main()
