"""A toy corpus format: footage in .npy files, cut anywhere, and index.json that says which frames are which episode.

0.npy  a a a b      1.npy  b b c c      2.npy  c ...        {"goals": [...], "episodes": [{"id", "start", "actions", "truth"}]}
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from vlm_rewards.schemas.episodes import CorpusFeatures, Episode, UnreadFrames
from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.interface import CorpusFormat, FoundEpisode, Wanted
from vlm_rewards.schemas.manifests import Unit

PER_FILE = 4


@dataclasses.dataclass(frozen=True)
class StripFrames:
    folder: Folder
    start: int
    num_frames: int

    def __len__(self) -> int:
        return self.num_frames

    def __iter__(self) -> Iterator[np.ndarray]:
        for place in range(self.start, self.start + self.num_frames):
            yield np.load(self.folder.path(f"{place // PER_FILE}.npy"), mmap_mode="r")[place % PER_FILE]


@dataclasses.dataclass(frozen=True)
class StripReader:
    folder: Folder
    index: Mapping[str, Any]

    @property
    def features(self) -> CorpusFeatures:
        held = {"has_rewards": False, "has_instruction": False, "has_achieved_goals": True}
        return CorpusFeatures(cameras=("eye",), missing_frame="last", truth_goals=self.index["goals"], **held)

    def units(self, max_bytes: int) -> list[Unit]:
        units = []
        for number, record in enumerate(self.index["episodes"]):
            last = record["start"] + len(record["actions"]) - 1
            files = tuple(f"{file}.npy" for file in range(record["start"] // PER_FILE, last // PER_FILE + 1))
            units.append(Unit(name=f"episode-{number}", files=files, start=number, stop=number + 1))
        return units

    def own_files(self) -> list[str]:
        return ["index.json", *(file.name for file in self.folder.files if file.suffix == ".npy")]

    def episodes(self, unit: Unit, wanted: Wanted) -> Iterator[FoundEpisode]:
        for record in self.index["episodes"][unit.start : unit.stop]:
            yield FoundEpisode(record["id"], len(record["actions"]), unit.files[0], partial(self._read, record, wanted))

    def episode_ids(self, unit: Unit) -> list[str]:
        return [record["id"] for record in self.index["episodes"][unit.start : unit.stop]]

    def _read(self, record: Mapping[str, Any], wanted: Wanted) -> Episode:
        frames = StripFrames(self.folder, record["start"], len(record["actions"]))
        parts = {"actions": np.array(record["actions"]), "achieved_goals": record["truth"]}
        parts = {name: value for name, value in parts.items() if name in wanted.fields}
        images = {"eye": frames if wanted.frames else UnreadFrames(len(frames))}
        return Episode(episode_id=record["id"], images=images, **parts)


STRIP = CorpusFormat(
    name="strip",
    recognizes=lambda folder: folder.has_file("index.json") and folder.has_file("0.npy"),
    open=lambda folder, options: StripReader(folder, json.loads(folder.read("index.json"))),
)
