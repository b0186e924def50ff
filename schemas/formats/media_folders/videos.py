"""A folder of videos: each file is an episode, and its id the name below the folder without the ending.

    corpus/day1/ep000.mp4    ──►  episode "day1/ep000", camera "video", no actions
    corpus/metadata.csv      ──►  instructions; and how many frames there should be, see `table`

Frames are turned as players show them. A video that breaks off, hides frames or has a gap is a failure of its episode, with both
numbers: those it promises and those that were decoded.
"""

import dataclasses
from collections.abc import Iterator, Mapping

from vlm_rewards.schemas.episodes import CorpusFeatures, Episode, UnreadFrames
from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.interface import CorpusFormat, FoundEpisode, InvalidEpisodeError, Wanted
from vlm_rewards.schemas.formats.listing import File
from vlm_rewards.schemas.formats.media_folders.table import (
    TABLE_OPTIONS,
    Row,
    check_count,
    find_tables,
    missing_files,
    read_table,
)
from vlm_rewards.schemas.formats.units import file_stem, share_units
from vlm_rewards.schemas.manifests import Failure, Unit
from vlm_rewards.schemas.videos import VideoFrames, decoder_versions, read_video_facts

VIDEO_ENDINGS = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi"})
STRONGER = frozenset({".parquet", ".tar", ".hdf5", ".h5", ".tfrecord"})
"""Endings of files beside which videos and pictures are no corpus."""
CAMERA = "video"


@dataclasses.dataclass(frozen=True)
class VideoFolderReader:
    """An open folder of videos; see the module's picture.

    Args:
        folder: The folder.
        features: Features of its episodes.
        first: Name of the first video.
        tables: Names of its tables.
        rows: Rows of the tables, by the name of the video.
        missing: Lines of the tables whose videos are not there.
    """

    folder: Folder
    features: CorpusFeatures
    first: str
    tables: tuple[str, ...]
    rows: Mapping[str, Row]
    missing: tuple[Row, ...]

    def units(self, max_bytes: int) -> list[Unit]:
        """Returns one unit per video; small ones share a unit."""
        units = [
            Unit(name=file_stem(file.name), files=(file.name,), num_episodes=1, num_bytes=file.num_bytes)
            for file in video_files(self.folder)
        ]
        return share_units(self.folder, units, max_bytes)

    def own_files(self) -> Iterator[str]:
        """Yields the videos and the tables."""
        yield from (file.name for file in video_files(self.folder))
        yield from self.tables

    def episodes(self, unit: Unit, wanted: Wanted) -> Iterator[FoundEpisode | Failure]:
        """Streams the unit's episodes; the first unit also reports missing videos that the tables name."""
        if self.first in unit.files:
            yield from missing_files(self.missing)
        for name in unit.files:
            yield self._found(name, wanted)

    def episode_ids(self, unit: Unit) -> list[str]:
        """Returns the ids of the unit's episodes."""
        return [self._id(name) for name in unit.files]

    def decoders(self, _camera: str) -> dict[str, str]:
        """Returns the versions of the libraries that decode the videos."""
        return decoder_versions()

    def _id(self, name: str) -> str:
        row = self.rows.get(name)
        return row.episode_id if row is not None and row.episode_id else without_ending(name)

    def _found(self, name: str, wanted: Wanted) -> FoundEpisode:
        row = self.rows.get(name)
        problem: InvalidEpisodeError | None = None
        num_frames = 0
        try:
            num_frames = read_video_facts(self.folder, name).num_frames
            check_count(name, num_frames, row)
        except InvalidEpisodeError as error:
            problem = error

        def read() -> Episode:
            if problem is not None:
                raise problem
            frames = VideoFrames(self.folder, name, num_frames) if wanted.frames else UnreadFrames(num_frames)
            instruction = row.instruction if row is not None and "instruction" in wanted.fields else None
            return Episode(
                episode_id=self._id(name), images={self.features.cameras[0]: frames}, instruction=instruction
            )

        return FoundEpisode(self._id(name), num_frames, name, read)


def without_ending(name: str) -> str:
    """Returns a file's name without its ending."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.rpartition(".")[0]


def video_files(folder: Folder) -> list[File]:
    """Returns the videos of a folder, in order."""
    return folder.files_ending(VIDEO_ENDINGS)


def is_video_folder(folder: Folder) -> bool:
    """Returns whether there are videos, and nothing that is a corpus by itself."""
    return bool(folder.endings & VIDEO_ENDINGS) and not folder.endings & STRONGER


def open_video_folder(folder: Folder, options: Mapping[str, str]) -> VideoFolderReader:
    """Opens a folder of videos.

    Raises:
        ValueError: No video can be opened, or a table is none.
    """
    names = [file.name for file in video_files(folder)]
    tables = find_tables(folder, options)
    rows: dict[str, Row] = {}
    for row in (row for table in tables for row in read_table(folder, table, options)):
        if not row.file:
            raise ValueError(
                f"a table of videos must say which file a line is of: got none in {row.place}. Fill in file_name"
            )
        if row.file in rows:
            raise ValueError(
                f"a table must name a video once: got {row.file} in {rows[row.file].place} and in {row.place}. Remove one line"
            )
        rows[row.file] = row
    known = set(names)
    missing = [] if folder.is_single_file else [row for row in rows.values() if row.file not in known]
    features = CorpusFeatures(
        cameras=(options.get("camera", CAMERA),),
        action_size=None,
        has_rewards=False,
        has_instruction=any(row.instruction for row in rows.values()),
    )
    first: ValueError | None = None
    for name in names:
        try:
            read_video_facts(folder, name)
            return VideoFolderReader(folder, features, names[0], tuple(tables), rows, tuple(missing))
        except InvalidEpisodeError as error:
            first = first or error
    raise ValueError(
        f"a folder of videos must have one that can be opened: got {len(names)} that cannot, the first being {first}"
    ) from first


VIDEOS = CorpusFormat(
    name="videos",
    recognizes=is_video_folder,
    open=open_video_folder,
    extension="mp4",
    options={"camera": f"name of the camera (default: {CAMERA})", **TABLE_OPTIONS},
)
