"""Interface of corpus formats: recognise, open, read and optionally write a folder.

    CorpusFormat.recognizes(folder) ──► .open(folder, options) ──► CorpusReader
                                          ├─ features
                                          ├─ units(max_bytes)       ──► Unit, Unit, ...
                                          └─ episodes(unit, wanted) ──► FoundEpisode, Failure, FoundEpisode, ...

A format handles its files only. What all formats share is in `schemas.formats.corpus`: duplicate ids,
missing cameras, inconsistent episodes, names of units, unknown options. A format is one file (or folder)
here and one line of FORMATS there, or an entry point of the group "vlm_rewards.formats" in another package.

Every entry below a corpus's folder is read, reported as a failure, or listed as passed over. `own_files` names the reader's
own files: those of its units, and those that hold metadata or belong to them (an index, statistics). The name of a folder
with "/" at its end stands for everything below it, which suits stores of many small chunks. All others are listed with a reason
in the output and the manifest, see `schemas.formats.passed_over`. An unreadable file is the reader's own, and a Failure.

How formats of several files and of arrays map to this:

    LeRobot       recognised by meta/info.json. A unit is a range of episodes, its files the data files and videos that hold them;
                  what meta/ says is read at `open`. Frames of videos are arrays: decoded once and in order, by one cursor per
                  camera that the episodes of a unit share. `missing_frame="last"`; the truth covers nothing.
    RLDS          recognised by dataset_info.json and features.json. A unit is a range of records of one file, or several small
                  files. Frames are the encoded pictures of `steps/observation/<camera>`; options such as {"channels": "bgr"}.
    Minari, HDF5  recognised by main_data.hdf5 or the attributes of data/. A unit is a range of episodes of one file. Frames are
                  slices of a data set along its first axis, read some hundred at a time; raw LIBERO has `missing_frame="first"`.
    folder of mp4 recognised by its files' ending. A unit is several files, each an episode. An iterator decodes; a video that
                  ends early raises InvalidEpisodeError from it, and the whole episode fails.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from vlm_rewards.schemas.episodes import CorpusFeatures, Episode
from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.manifests import Failure, Unit

FIELDS = frozenset({"actions", "rewards", "success", "states", "instruction", "achieved_goals"})
"""Parts of an episode that a reader may be asked for beside the frames; "rewards" stands for terminations and truncations, too, and
"success" for what the recording itself says of it, in each step or of the episode."""

SCATTERED = "scattered episode"
"""Reason of a Failure for an episode that goes on in another place of its unit; what was read of it before is part of it."""


class Wanted(NamedTuple):
    """The parts of an episode that are needed; a reader neither reads nor checks the rest.

    Attributes:
        cameras: Names of the cameras; None for all of the episode.
        frames: Whether the pictures will be read; otherwise each camera is `schemas.episodes.UnreadFrames`.
        fields: Names of the fields to read, of FIELDS; the others are None in the episode.
    """

    cameras: tuple[str, ...] | None = None
    frames: bool = True
    fields: frozenset[str] = FIELDS


class FoundEpisode(NamedTuple):
    """An episode that a reader has found, before it is assembled and checked.

    Attributes:
        episode_id: Id of the episode; any text. "" if the recording has none, which is then refused.
        num_frames: Number of frames, as far as they can be counted; for failures.
        file: Name of the file that holds it, below the folder; for failures.
        read: Function that assembles the wanted parts; called at most once, before the next episode is requested.
            Raises InvalidEpisodeError, or any ValueError.
        cameras: Cameras of this episode; None if they are those of the corpus.
    """

    episode_id: str
    num_frames: int
    file: str
    read: Callable[[], Episode]
    cameras: tuple[str, ...] | None = None


class InvalidEpisodeError(ValueError):
    """Raised for an episode that cannot be used, also by an iterator of frames that breaks off.

    Args:
        reason: Short category to count by, such as "missing frames".
        detail: Description of the error, with the value and the fix.
        scope: "episode", or "shard" if the rest of the file cannot be read either.
    """

    def __init__(self, reason: str, detail: str, *, scope: str = "episode") -> None:
        super().__init__(detail)
        self.reason = reason
        self.scope = scope


class SeveralInstructionsError(InvalidEpisodeError):
    """Raised for an episode whose task changes, so that it has no single instruction.

    Attributes:
        texts: Different instructions of the episode, in order.
    """

    def __init__(self, texts: Sequence[str | None]) -> None:
        super().__init__(
            "several instructions",
            f"an episode must have one instruction, got {texts[0]!r} and {texts[1]!r}. Split the episode",
        )
        self.texts = tuple(texts)


class CorpusReader(Protocol):
    """Reader of an open corpus in one format; picklable, since workers get a copy.

    It may have three more members: `notes`, sentences for the user, such as where metadata disagrees with the rows;
    `decoders(camera)`, versions by name of the libraries that decode a camera, for frames that are not encoded pictures
    but arrays, whose pixels may differ between releases, which become part of the fingerprint of labels; and
    `labelled_by(unit)`, see `schemas.formats.exports.own_labels`.
    """

    @property
    def features(self) -> CorpusFeatures:
        """Features of the episodes."""

    def units(self, max_bytes: int) -> list[Unit]:
        """Cuts the corpus into units of work of about `max_bytes` at most, in the order of the corpus.

        A unit names its files in order; `start` is the start of its range in the first file and `stop` its end in the last,
        in the format's own count (rows, bytes, episodes). An episode is in one unit. A unit of one whole file is named
        `file_stem(name)`; a range of a file has a suffix after that.
        """

    def own_files(self) -> Iterable[str]:
        """Returns the names of the files that the corpus consists of, metadata included; folders end with "/"."""

    def episodes(self, unit: Unit, wanted: Wanted) -> Iterator[FoundEpisode | Failure]:
        """Yields the episodes of a unit in order, and a Failure of scope "shard" for each file that cannot be read to its end."""

    def episode_ids(self, unit: Unit) -> Iterable[str]:
        """Returns the ids of a unit's episodes in order, without reading the rest; unreadable episodes are left out."""


Writer = Callable[[Path, CorpusFeatures, Iterable[Episode]], None]
"""Writes one file: its path, what every episode holds, and the episodes, read one at a time."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorpusFormat:
    """A storage format of corpora.

    Args:
        name: Name for users, such as "parquet".
        recognizes: Function that returns whether a folder is a corpus of this format, by its file names; reads no large file.
        open: Function that opens a recognised folder with options; raises ValueError if no episode can be read.
        write: Function that writes a file; None for a read-only format.
        extension: File ending without the dot, if any file of that ending is a corpus; None if the layout of the folder
            decides, which takes precedence.
        options: Options of `open` by name, each with a sentence for the user.
    """

    name: str
    recognizes: Callable[[Folder], bool]
    open: Callable[[Folder, Mapping[str, str]], CorpusReader]
    write: Writer | None = None
    extension: str | None = None
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)


def missing_camera(camera: str, cameras: Sequence[str], shard: str) -> str:
    """Returns the error message for an episode or a file that lacks a camera."""
    return (
        f"a camera must be one of {', '.join(cameras)} in {shard}, got {camera!r}; read the shard by itself with its own "
        "camera, or leave it out"
    )
