"""Tells samples whose members do not lie side by side in their tar, as plain `tar cf` packs a folder in the order of the disk.

x1.json  x2.json  x1.front.000000.png  x2.front.000000.png  ──►  x1 and x2 are in two places each
"""

import re
from collections import Counter

from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.interface import SCATTERED
from vlm_rewards.schemas.formats.webdataset_corpus.members import BrokenTarError, split_name, walk
from vlm_rewards.schemas.manifests import Failure


class SamplePlaces:
    """Counts how often each sample of a tar restarts; the tar is walked on first use.

    Args:
        folder: The corpus's folder.
        name: Name of the tar.
        picture: Pattern of the suffix of a picture; its group "camera" is the camera.
    """

    def __init__(self, folder: Folder, name: str, picture: re.Pattern[str]) -> None:
        self._folder = folder
        self._name = name
        self._picture = picture
        self._runs: Counter[str] | None = None
        self._frames: Counter[tuple[str, str]] = Counter()
        self._told: set[str] = set()

    def failure(self, key: str, episode_id: str) -> Failure | None:
        """Says what is wrong with a sample in several places; None for one in a single place."""
        if self._runs is None:
            self._runs = self._walk()
        if self._runs[key] < 2:
            return None
        self._told.add(key)
        return Failure(
            scope="episode",
            shard=self._name,
            episode_id=episode_id,
            reason=SCATTERED,
            detail=f"the members of an episode must be side by side in its tar, got {episode_id!r} in {self._runs[key]} places. "
            "Pack its folder again in order, with tar --sort=name",
            num_frames=max((count for (of_key, _), count in self._frames.items() if of_key == key), default=0),
        )

    def is_told(self, key: str) -> bool:
        """Returns whether `failure` has told of this sample."""
        return key in self._told

    def _walk(self) -> Counter[str]:
        runs: Counter[str] = Counter()
        previous = None
        with self._folder.open(self._name) as file:
            try:
                for member in walk(file):
                    key, suffix = split_name(member.name)
                    runs[key] += key != previous
                    previous = key
                    match = self._picture.fullmatch(suffix)
                    if match:
                        self._frames[key, match["camera"]] += 1
            except BrokenTarError:
                pass  # reported as a Failure when the unit is read
        return runs
