"""A corpus format of your own: a folder of .npz files, one episode each.

Install the examples, so that every command and worker process opens such a folder, and run this:

    pip install ./examples
    python examples/custom_format.py
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

import vlm_rewards as vr
from vlm_rewards.schemas.episodes import CorpusFeatures, Episode, UnreadFrames
from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.interface import CorpusFormat, FoundEpisode, Wanted
from vlm_rewards.schemas.formats.units import file_stem
from vlm_rewards.schemas.manifests import Unit


@dataclasses.dataclass(frozen=True)
class NpzReader:
    """Reads files with `frames` [T+1, H, W, 3] uint8 and `actions` [T] int64; one file is one unit of work.

    Args:
        folder: The folder.
    """

    folder: Folder

    features = CorpusFeatures(cameras=("front",), has_rewards=False, has_instruction=False)

    def units(self, max_bytes: int) -> list[Unit]:
        """Lists the files. A format that can read a part of a file cuts larger ones into ranges."""
        return [
            Unit(name=file_stem(file.name), files=(file.name,), num_bytes=file.num_bytes)
            for file in self.folder.files
            if file.suffix == ".npz"
        ]

    def own_files(self) -> list[str]:
        """Lists the files that are read; others in the folder are named as passed over."""
        return [file.name for file in self.folder.files if file.suffix == ".npz"]

    def episodes(self, unit: Unit, wanted: Wanted) -> Iterator[FoundEpisode]:
        """Finds the unit's episodes; `read` puts one together, from no more than what is wanted."""
        for name in unit.files:
            with self.folder.open(name) as file, np.load(file) as arrays:
                read = functools.partial(_episode, file_stem(name), dict(arrays), wanted)
                yield FoundEpisode(file_stem(name), len(arrays["frames"]), name, read)

    def episode_ids(self, unit: Unit) -> list[str]:
        """Lists the ids of the unit's episodes."""
        return [file_stem(name) for name in unit.files]


def _episode(episode_id: str, arrays: Mapping[str, np.ndarray], wanted: Wanted) -> Episode:
    return Episode(
        episode_id=episode_id,
        images={"front": list(arrays["frames"]) if wanted.frames else UnreadFrames(len(arrays["frames"]))},
        actions=arrays["actions"] if "actions" in wanted.fields else None,
    )


NPZ = CorpusFormat(
    name="npz",
    recognizes=lambda folder: any(file.suffix == ".npz" for file in folder.files),
    open=lambda folder, options: NpzReader(folder),
    extension="npz",
)


def main() -> None:
    """Writes two episodes of noise, opens them as a corpus and labels them."""
    Path("recordings").mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    for number in range(2):
        frames = random.integers(0, 256, (6, 56, 56, 3), np.uint8)
        np.savez(f"recordings/run-{number}.npz", frames=frames, actions=np.zeros(5, np.int64))
    for episode in vr.open_corpus("recordings/"):
        print(episode)
    negatives = {"explicit": ["a wall"]}
    labeler = vr.load_labeler("reference-s", ["a red ball", "a green box"], negatives=negatives)
    print(vr.label("recordings/", labeler.settings, output="labels/"))


if __name__ == "__main__":
    main()
