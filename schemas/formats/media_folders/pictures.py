"""Folders of pictures: each folder is an episode, its pictures are the frames in the order of their numbers.

    corpus/ep1/2.png, corpus/ep1/10.png         ──►  episode "ep1", frames 2.png, 10.png of the camera "image"
    corpus/ep1/front/000.jpg, .../wrist/000.jpg ──►  with layout=episode/camera/frame: episode "ep1", cameras "front" and "wrist"
    corpus/metadata.csv                         ──►  instructions, by episode_id or by the name of a picture; see `table`

Pictures are passed through as the bytes they are. A gap in even numbers is a frame that is missing, and its episode fails.
"""

import dataclasses
import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from vlm_rewards.schemas.episodes import CorpusFeatures, Episode, Frames, UnreadFrames
from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.interface import CorpusFormat, FoundEpisode, InvalidEpisodeError, Wanted
from vlm_rewards.schemas.formats.listing import File
from vlm_rewards.schemas.formats.media_folders.counting import find_gap
from vlm_rewards.schemas.formats.media_folders.table import (
    TABLE_OPTIONS,
    Row,
    check_count,
    find_tables,
    missing_files,
    read_table,
)
from vlm_rewards.schemas.formats.media_folders.videos import STRONGER, VIDEO_ENDINGS
from vlm_rewards.schemas.formats.units import KEPT_FILES, SHARED_BYTES, SHARED_FRAMES, file_stem
from vlm_rewards.schemas.manifests import Failure, Unit

PICTURE_ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
CAMERA = "image"
LAYOUTS = ("episode/frame", "episode/camera/frame")
_DIGITS = re.compile(r"(\d+)", re.ASCII)

EpisodeFiles = dict[str, dict[str, list[str]]]
"""Names of the pictures by episode and camera."""


@dataclasses.dataclass(frozen=True)
class PictureFolderReader:
    """An open folder of pictures; see the module's picture.

    Args:
        folder: The folder.
        features: Features of its episodes.
        has_camera_folders: Whether pictures lie in a folder per camera.
        pattern: Pattern of the pictures' names, such as "rgb_*.png"; other files are left alone.
        first: Name of the first picture.
        tables: Names of its tables.
        rows: Rows of the tables, by episode.
        missing: Lines of the tables whose files are not there.
    """

    folder: Folder
    features: CorpusFeatures
    has_camera_folders: bool
    pattern: str
    first: str
    tables: tuple[str, ...]
    rows: Mapping[str, Row]
    missing: tuple[Row, ...]

    def units(self, max_bytes: int) -> list[Unit]:
        """Returns one unit per episode, or several short episodes together; their pictures are its files."""
        sizes = {file.name: file.num_bytes for file in picture_files(self.folder, self.pattern)}
        episodes = _grouped(self.folder, sizes, self.has_camera_folders)
        shared: list[list[str]] = []  # episodes that share a unit
        num_frames = num_bytes = 0
        for name, cameras in episodes.items():
            files = [file for found in cameras.values() for file in found]
            size = sum(sizes[file] for file in files)
            num_frames, num_bytes = num_frames + len(files), num_bytes + size
            fits = num_frames <= SHARED_FRAMES and num_bytes <= min(SHARED_BYTES, max_bytes)
            if shared and fits and len(episodes) > KEPT_FILES:
                shared[-1].append(name)
            else:
                shared.append([name])
                num_frames, num_bytes = len(files), size
        return [self._unit(names, episodes, sizes) for names in shared]

    def own_files(self) -> Iterator[str]:
        """Yields the pictures and the tables."""
        yield from (file.name for file in picture_files(self.folder, self.pattern))
        yield from self.tables

    def episodes(self, unit: Unit, wanted: Wanted) -> Iterator[FoundEpisode | Failure]:
        """Streams the unit's episodes; the unit of the first picture also reports missing files that the tables name."""
        if self.first in unit.files:
            yield from missing_files(self.missing)
        for name, cameras in _grouped(self.folder, unit.files, self.has_camera_folders).items():
            yield self._found(name, cameras, wanted)

    def episode_ids(self, unit: Unit) -> list[str]:
        """Returns the ids of the unit's episodes."""
        return list(_grouped(self.folder, unit.files, self.has_camera_folders))

    def _unit(self, names: Sequence[str], episodes: EpisodeFiles, sizes: Mapping[str, int]) -> Unit:
        files = [file for name in names for found in episodes[name].values() for file in found]
        stem = file_stem(f"{names[0]}.")
        return Unit(
            name=stem if len(names) == 1 else f"{stem}-e{len(names):05d}",
            files=tuple(files),
            num_episodes=len(names),
            num_frames=sum(max(map(len, episodes[name].values())) for name in names),
            num_bytes=sum(sizes[file] for file in files),
        )

    def _found(self, name: str, cameras: Mapping[str, list[str]], wanted: Wanted) -> FoundEpisode:
        row = self.rows.get(name)
        num_frames = max(map(len, cameras.values()))

        def read() -> Episode:
            check_count(name, num_frames, row)
            images: dict[str, Frames] = {}
            for camera, files in cameras.items():
                if wanted.cameras is None or camera in wanted.cameras:
                    ordered = in_order(files)
                    images[camera] = _Pictures(self.folder, ordered) if wanted.frames else UnreadFrames(len(ordered))
            instruction = row.instruction if row is not None and "instruction" in wanted.fields else None
            return Episode(episode_id=name, images=images, instruction=instruction)

        return FoundEpisode(name, num_frames, next(iter(cameras.values()))[0], read, tuple(cameras))


class _Pictures:
    """Pictures, each in a file of its own."""

    def __init__(self, folder: Folder, files: Sequence[str]) -> None:
        self._folder = folder
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[bytes]:
        for name in self._files:
            try:
                yield self._folder.read(name)
            except FileNotFoundError as error:
                raise InvalidEpisodeError("missing frames", f"{name} is not there any more. Copy it again") from error


def in_order(files: Sequence[str]) -> list[str]:
    """Puts the pictures of one camera of one episode in the order of their numbers: 2 goes before 10.

    Raises:
        InvalidEpisodeError: Two have the same numbers, so that their order is not known; or a number is missing between others.
    """
    pieces = {name: _DIGITS.split(name.rpartition("/")[2]) for name in files}
    numbers = {name: tuple(map(int, parts[1::2])) for name, parts in pieces.items()}
    ordered = sorted(files, key=lambda name: (_natural(pieces[name]), name))
    by_number: dict[tuple[int, ...], str] = {}
    for name in ordered:
        other = by_number.setdefault(numbers[name], name)
        if other != name and numbers[name]:
            raise InvalidEpisodeError(
                "unclear order",
                f"each frame must be one picture, got {other} and {name}. Choose pictures with the option pattern, or put each "
                "camera in a folder of its own and give the option layout=episode/camera/frame",
            )
    _check_gaps(ordered, [pieces[name][::2] for name in ordered], [numbers[name] for name in ordered])
    return ordered


def _natural(pieces: Sequence[str]) -> list[tuple[str, int]]:
    """Returns a key that sorts texts as texts and numbers as numbers."""
    return [(piece, 0) if index % 2 == 0 else ("", int(piece)) for index, piece in enumerate(pieces)]


def _check_gaps(names: Sequence[str], texts: Sequence[list[str]], numbers: Sequence[tuple[int, ...]]) -> None:
    """Refuses names that count evenly but for gaps of whole counts; names that do not count are left as they are."""
    if any(text != texts[0] for text in texts):
        return
    table = np.array(numbers, object).reshape(len(names), -1)
    counting = np.flatnonzero((table != table[0]).any(0))
    if len(counting) != 1 or table[:, counting[0]].max() > np.iinfo(np.int64).max:
        return
    gap = find_gap(table[:, counting[0]].astype(np.int64))
    if gap is not None:
        raise InvalidEpisodeError(
            "missing frames",
            f"the numbers of its pictures leave room for {gap.num_expected} frames, got {len(names)}: none lies between "
            f"{names[gap.before]} and {names[gap.before + 1]}. Copy it too, or leave the episode out",
        )


def picture_files(folder: Folder, pattern: str = "*") -> list[File]:
    """Returns the pictures of a folder whose names have a pattern, in order."""
    return [
        file
        for file in folder.files_ending(PICTURE_ENDINGS)
        if fnmatch.fnmatchcase(file.name.rpartition("/")[2], pattern)
    ]


def _grouped(folder: Folder, files: Iterable[str], has_camera_folders: bool) -> EpisodeFiles:
    """Returns the files by episode and camera."""
    found: EpisodeFiles = {}
    for name in files:
        place = name.rpartition("/")[0]
        camera = CAMERA
        if has_camera_folders:
            place, _, camera = place.rpartition("/")
        found.setdefault(place or folder.name, {}).setdefault(camera, []).append(name)
    return found


def is_picture_folder(folder: Folder) -> bool:
    """Returns whether there are pictures, and nothing that is a corpus by itself."""
    return bool(folder.endings & PICTURE_ENDINGS) and not folder.endings & (STRONGER | VIDEO_ENDINGS)


def open_picture_folder(folder: Folder, options: Mapping[str, str]) -> PictureFolderReader:
    """Opens a folder of pictures.

    Raises:
        ValueError: An option has a value that is none, no picture has the pattern, or a table is none.
    """
    layout, pattern = options.get("layout", LAYOUTS[0]), options.get("pattern", "*")
    if layout not in LAYOUTS:
        raise ValueError(f"the option layout must be {' or '.join(LAYOUTS)}: got {layout!r}. Choose one of them")
    has_camera_folders = layout == LAYOUTS[1]
    names = [file.name for file in picture_files(folder, pattern)]
    if not names:
        raise ValueError(
            f"there must be a picture of the pattern {pattern!r}: got none in {folder}, but {picture_files(folder)[0].name}. Give "
            "another pattern"
        )
    for name in names:
        if has_camera_folders and "/" not in name:
            raise ValueError(
                f"with layout={layout} each picture must lie in a folder for its camera: got {name} in {folder}. Move it"
            )
    episodes = _grouped(folder, names, has_camera_folders)
    tables = find_tables(folder, options)
    rows: dict[str, Row] = {}
    missing: list[Row] = []
    known = set(names)
    for row in (row for table in tables for row in read_table(folder, table, options)):
        episode, is_there = row.episode_id, True
        if row.file and File(row.file, 0).suffix in PICTURE_ENDINGS:
            is_there = row.file in known
            (episode,) = _grouped(folder, [row.file], has_camera_folders)
        elif row.file:
            episode = row.file.rstrip("/")
        if not is_there or episode not in episodes:
            missing.append(row)
        else:
            rows[episode] = _merged(rows[episode], row, episode) if episode in rows else row
    cameras = dict.fromkeys(camera for found in episodes.values() for camera in found)
    features = CorpusFeatures(
        cameras=tuple(sorted(cameras)),
        action_size=None,
        has_rewards=False,
        has_instruction=any(row.instruction for row in rows.values()),
    )
    if folder.is_single_file:
        missing = []
    return PictureFolderReader(
        folder, features, has_camera_folders, pattern, names[0], tuple(tables), rows, tuple(missing)
    )


def _merged(first: Row, row: Row, episode: str) -> Row:
    """Merges two table rows of the same episode, which must not contradict each other."""
    values = {}
    for name in ("instruction", "num_frames"):
        mine, theirs = getattr(first, name), getattr(row, name)
        if None not in (mine, theirs) and mine != theirs:
            raise ValueError(
                f"an episode must have one {name}: got {mine!r} in {first.place} and {theirs!r} in {row.place} for {episode!r}. "
                "Correct one of them, or split the episode"
            )
        values[name] = theirs if mine is None else mine
    return first._replace(**values)


PICTURES = CorpusFormat(
    name="pictures",
    recognizes=is_picture_folder,
    open=open_picture_folder,
    extension="png",
    options={
        "layout": "episode/frame, or episode/camera/frame where pictures lie in a folder per camera (default: episode/frame)",
        "pattern": "pattern of the names of pictures, such as rgb_*.png (default: all)",
        **TABLE_OPTIONS,
    },
)
