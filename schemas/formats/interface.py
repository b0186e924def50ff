"""What a corpus format is: how a folder is recognised, opened and read, and perhaps written.

    CorpusFormat.recognizes(folder) ──► .open(folder, options) ──► CorpusReader
                                          ├─ features
                                          ├─ units(max_bytes)       ──► Unit, Unit, ...
                                          └─ episodes(unit, wanted) ──► FoundEpisode, Failure, FoundEpisode, ...

A format knows its files and nothing else. What all formats share stands once, in `schemas.formats.corpus`: duplicate ids,
missing cameras, episodes that do not hold together, names of units, options that are unknown. A format is one file (or folder)
here and one line of FORMATS there, or an entry point of the group "vlm_rewards.formats" in another package.

Every entry below a corpus's folder is read, failed, or named as passed over. A reader says in `own_files` which files are its
own: those that its units name, and those whose metadata it uses or that go with them (an index, statistics). The name of a folder
with "/" at its end stands for all that lies below it, which suits stores of many small chunks. All others are named with a reason
in the output and the manifest, see `schemas.formats.passed_over`; a file that cannot be read is the reader's own, and a Failure.

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


class Wanted(NamedTuple):
    """What of an episode is needed: a reader neither reads nor checks the rest.

    Attributes:
        cameras: Names of the cameras; None for all that the episode has.
        frames: Whether the pictures will be read; otherwise each camera is `schemas.episodes.UnreadFrames`.
        fields: Of FIELDS, those to read; the others are None in the episode.
    """

    cameras: tuple[str, ...] | None = None
    frames: bool = True
    fields: frozenset[str] = FIELDS


class FoundEpisode(NamedTuple):
    """An episode that a reader has found, before it is put together and checked.

    Attributes:
        episode_id: Its id; any text, or "" where the recording has none, which is then refused.
        num_frames: Frames in it, as far as they can be counted; for failures.
        file: Name of the file that holds it, below the folder; for failures.
        read: Puts the episode together from what was wanted; called at most once, before the next episode is asked for.
            Raises InvalidEpisodeError, or any ValueError.
        cameras: Cameras that this episode has; None where it has those of the corpus.
    """

    episode_id: str
    num_frames: int
    file: str
    read: Callable[[], Episode]
    cameras: tuple[str, ...] | None = None


class InvalidEpisodeError(ValueError):
    """An episode that cannot be used; also raised by an iterator of frames that breaks off.

    Args:
        reason: A short class of reasons to count by, such as "missing frames".
        detail: What is wrong, with the value and the remedy.
        scope: "episode"; "shard" where the rest of the file cannot be read either.
    """

    def __init__(self, reason: str, detail: str, *, scope: str = "episode") -> None:
        super().__init__(detail)
        self.reason = reason
        self.scope = scope


class SeveralInstructionsError(InvalidEpisodeError):
    """An episode whose task changes, so that it has no single instruction.

    Attributes:
        texts: Its different instructions, in order.
    """

    def __init__(self, texts: Sequence[str | None]) -> None:
        super().__init__(
            "several instructions",
            f"an episode must have one instruction, got {texts[0]!r} and {texts[1]!r}. Split the episode",
        )
        self.texts = tuple(texts)


class CorpusReader(Protocol):
    """An open corpus as its format sees it; picklable, since workers get a copy.

    It may have two more members: `notes`, sentences that people should read, such as where metadata disagrees with the rows; and
    `decoders(camera)`, versions of the libraries that make the pixels of a camera by name, where frames are no encoded pictures
    but arrays and another release may give other pixels. They become part of what labels depend on.
    """

    @property
    def features(self) -> CorpusFeatures:
        """What the episodes hold."""

    def units(self, max_bytes: int) -> list[Unit]:
        """Cuts the corpus into units of work of about `max_bytes` at most, in the order of the corpus.

        A unit names its files in order; `start` is where its range begins in the first and `stop` where it ends in the last of
        them, as the format counts (rows, bytes, episodes). An episode is in one unit. A unit that is one whole file has the name
        `file_stem(name)`, a range of a file that and a suffix.
        """

    def own_files(self) -> Iterable[str]:
        """Names of the files that the corpus consists of, or of folders, with "/" at their end: what is read, and its metadata."""

    def episodes(self, unit: Unit, wanted: Wanted) -> Iterator[FoundEpisode | Failure]:
        """Streams the episodes of a unit in order, and a Failure of scope "shard" for each file that cannot be read to its end."""

    def episode_ids(self, unit: Unit) -> Iterable[str]:
        """Ids of a unit's episodes in order, without what else they hold; what cannot be read is left out."""


Writer = Callable[[Path, CorpusFeatures, Iterable[Episode]], None]
"""Writes one file: its path, what every episode holds, and the episodes, read one at a time."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorpusFormat:
    """A way in which corpora lie on disk.

    Args:
        name: How people name it, such as "parquet".
        recognizes: Whether a folder is a corpus of this format, by the names of its files; reads no large file.
        open: Opens a recognised folder with the options that people gave; raises ValueError where no episode can be read.
        write: Writes a file; None for a format that is only read.
        extension: Ending of its files without the dot, where any file of that ending is a corpus; None where the layout of the
            folder tells, which goes before.
        options: What `open` may be told, by name, with a sentence for people.
    """

    name: str
    recognizes: Callable[[Folder], bool]
    open: Callable[[Folder, Mapping[str, str]], CorpusReader]
    write: Writer | None = None
    extension: str | None = None
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)


def missing_camera(camera: str, cameras: Sequence[str], shard: str) -> str:
    """What is said of an episode or a file that lacks a camera."""
    return (
        f"a camera must be one of {', '.join(cameras)} in {shard}, got {camera!r}; read the shard by itself with its own "
        "camera, or leave it out"
    )
