"""Cuts LeRobot data sets into units: ranges of episodes, by size, that keep together what shares a video or a data file.

episodes   0  1  2  3 | 4  5  6 | 7 ...
videos     file-000   | file-001| file-002          units: episodes 0-4, 4-7, ...; a longer video is cut between episodes,
data       file-000                                 and each of its units begins at a keyframe of its own
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.lerobot_corpus.episodes import EpisodeTable, VideoPlace
from vlm_rewards.schemas.formats.lerobot_corpus.info import Camera, Info
from vlm_rewards.schemas.formats.units import file_stem, share_units
from vlm_rewards.schemas.manifests import Unit

Place = Callable[[Camera, int], VideoPlace | None]


def plan_units(folder: Folder, info: Info, table: EpisodeTable, place: Place, max_bytes: int) -> list[Unit]:
    """Cuts the episodes into units; a data file that cannot be read is one, too, and says so when it is read.

    Args:
        folder: The data set's folder.
        info: Contents of its info.json.
        table: Table of its episodes.
        place: Function that returns the place of an episode in a camera's videos.
        max_bytes: Largest size of a unit, unless an episode is larger.
    """
    sizes = {file.name: file.num_bytes for file in folder.files}
    lengths = table.lengths.tolist()
    files = [_files(info, table, place, position) for position in range(len(table))]
    frames: dict[str, int] = {}  # per file
    for length, names in zip(lengths, files, strict=True):
        for name in names:
            frames[name] = frames.get(name, 0) + length
    shares = [
        sum(sizes.get(name, 0) * length / frames[name] for name in names)
        for length, names in zip(lengths, files, strict=True)
    ]
    units = []
    for start, stop in _ranges(files, shares, max_bytes):
        names = list(dict.fromkeys(name for several in files[start:stop] for name in several if name in sizes))
        ids = [table.id(position) for position in range(start, stop)]
        units.append(
            Unit(
                name="",
                files=tuple(names),
                start=start,
                stop=stop,
                num_episodes=stop - start,
                num_frames=sum(lengths[start:stop]),
                num_bytes=int(sum(shares[start:stop])),
                id_bounds=(min(ids), max(ids)),
            )
        )
    shared = share_units(folder, units, max_bytes)
    named = [dataclasses.replace(unit, name=f"episodes-{unit.start:06d}-{unit.stop:06d}") for unit in shared]
    broken = [
        Unit(name=file_stem(name), files=(name,), start=0, stop=0, num_bytes=sizes[name], id_bounds=None)
        for name in table.broken
    ]
    return named + broken


def _files(info: Info, table: EpisodeTable, place: Place, position: int) -> list[str]:
    """Returns the names of the files of an episode: of its rows, then of its videos, as far as it is known."""
    names = [piece.file for piece in table.pieces(position)]
    places = [place(camera, position) for camera in info.cameras if camera.is_video]
    return names + [found.name for found in places if found is not None]


def _ranges(files: Sequence[Sequence[str]], shares: Sequence[float], max_bytes: int) -> Iterator[tuple[int, int]]:
    """Cuts where no file is shared, and where the size asks for it.

    Args:
        files: Files of each episode.
        shares: Bytes of each episode: of each file, its share of the frames.
        max_bytes: Size of a range.
    """
    start, num_bytes = 0, 0.0
    for position, own in enumerate(shares):
        if position > start:
            is_apart = set(files[position]).isdisjoint(files[position - 1])
            if is_apart or num_bytes + own > max_bytes:
                yield start, position
                start, num_bytes = position, 0.0
        num_bytes += own
    yield start, len(shares)
