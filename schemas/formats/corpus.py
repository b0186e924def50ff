"""Opens and reads corpora of recorded episodes, whatever their format.

    corpus = open_corpus("corpus/")          a local folder or file, or a URL that fsspec opens
    corpus.features                          cameras, actions, instruction, truth, which frame is missing
    corpus.passed_over                       files below the folder that are not read, with the reason
    corpus.units(max_bytes)                  units of work; one may span several files, or be a part of one
    corpus.episodes(unit, cameras=["front"], fields=())       Episode, Failure, Episode, ... in the order of the corpus
        for frame in episode.images["front"]:                 streams: encoded bytes, or [H, W, 3] uint8 arrays
            ...                                               BrokenEpisodeError where the recording breaks off

A `Corpus` is picklable; commands use nothing else of a corpus. FORMATS is the only list of formats. Formats are defined in
`schemas.formats.interface`. This module applies the rules that hold for every format.
"""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from vlm_rewards.schemas.episodes import CorpusFeatures, Episode, Frame, Frames
from vlm_rewards.schemas.extensions import load_extensions
from vlm_rewards.schemas.folders import MANIFEST, SETTINGS
from vlm_rewards.schemas.formats.common_options import COMMON_OPTIONS, PICTURE_RANGE
from vlm_rewards.schemas.formats.exports.publishing import JOURNAL, JOURNAL_FOLDER
from vlm_rewards.schemas.formats.folder import Folder, tell_pointers, telling_pointers
from vlm_rewards.schemas.formats.hdf5_corpus.reader import HDF5
from vlm_rewards.schemas.formats.interface import (
    FIELDS,
    CorpusFormat,
    CorpusReader,
    FoundEpisode,
    InvalidEpisodeError,
    SeveralInstructionsError,
    Wanted,
    missing_camera,
)
from vlm_rewards.schemas.formats.lerobot_corpus.reader import LEROBOT
from vlm_rewards.schemas.formats.listing import PassedOver
from vlm_rewards.schemas.formats.media_folders.pictures import PICTURES
from vlm_rewards.schemas.formats.media_folders.videos import VIDEOS
from vlm_rewards.schemas.formats.minari_corpus.reader import MINARI
from vlm_rewards.schemas.formats.parquet_corpus.reader import PARQUET
from vlm_rewards.schemas.formats.passed_over import find_passed_over, passed_over_lines, passed_over_record
from vlm_rewards.schemas.formats.rlds_corpus.format import RLDS
from vlm_rewards.schemas.formats.webdataset_others.format import WEBDATASET
from vlm_rewards.schemas.formats.zarr_corpus.reader import ZARR
from vlm_rewards.schemas.manifests import Failure, Unit
from vlm_rewards.schemas.pictures import read_picture_range, scaled_picture

FORMATS: tuple[CorpusFormat, ...] = (PARQUET, WEBDATASET, HDF5, LEROBOT, MINARI, RLDS, ZARR, VIDEOS, PICTURES)
"""The formats of this package; others come from entry points of the group EXTENSIONS."""
EXTENSIONS = "vlm_rewards.formats"
MAX_UNIT_BYTES = 256 * 2**20
_MISSING_CAMERA = "missing camera"


class BrokenEpisodeError(ValueError):
    """Raised when the frames of an episode break off while they stream; the whole episode is invalid.

    Attributes:
        failure: The failure, in the form of the corpus's other failures.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


@dataclasses.dataclass(frozen=True)
class Corpus:
    """An open corpus, as returned by `open_corpus`.

    Args:
        folder: Folder of the corpus.
        format_name: Name of its format.
        options: Options of its format.
        reader: Reader of its format.

    Example:
        >>> import vlm_rewards as vr
        >>> corpus = vr.open_corpus("corpus/")
        >>> next(iter(corpus))
        Episode('BabyAI-GoToLocal-v0-seed3-000000': ... frames of egocentric, ... steps, instruction 'go to ...', ground truth)
    """

    folder: Folder
    format_name: str
    options: Mapping[str, str]
    reader: CorpusReader

    def __repr__(self) -> str:
        return f"Corpus({str(self.folder)!r}: {self.format_name}, cameras {', '.join(self.features.cameras)})"

    def __iter__(self) -> Iterator[Episode | Failure]:
        """Yields all episodes, and a Failure for each that cannot be read; see `episodes`."""
        for unit in self.units():
            yield from self.episodes(unit)

    @property
    def features(self) -> CorpusFeatures:
        """Features of its episodes."""
        return self.reader.features

    @property
    def passed_over(self) -> tuple[PassedOver, ...]:
        """Files and folders below the corpus's folder that are not read, with the reason, sorted by name."""
        return find_passed_over(self.folder, self.format_name, self.reader.own_files())

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user, in sentences, such as where its metadata disagrees with its rows."""
        return tuple(getattr(self.reader, "notes", ()))

    def decoders(self, camera: str) -> dict[str, str]:
        """Returns the versions of the libraries that decode a camera, by name; empty if its frames are encoded pictures."""
        decoders = getattr(self.reader, "decoders", None)
        return {} if decoders is None else dict(decoders(camera))

    def labelled_by(self, unit: Unit) -> dict[str, str]:
        """Returns the models whose labels a unit's "rewards" or "success" are, where an export wrote them; empty elsewhere."""
        labelled_by = getattr(self.reader, "labelled_by", None)
        return {} if labelled_by is None else dict(labelled_by(unit))

    def units(self, max_bytes: int = MAX_UNIT_BYTES) -> list[Unit]:
        """Cuts the corpus into units of work, in its order.

        Args:
            max_bytes: Larger files are cut into units of about this size, where the format allows.

        Returns:
            Units; their names are derived from their files and ranges, and are valid file names.

        Raises:
            ValueError: Two units have the same name, or `max_bytes` is less than 1.
        """
        if max_bytes < 1:
            raise ValueError(f"max_unit_bytes must be at least 1, got {max_bytes}. Leave it out for {MAX_UNIT_BYTES}")
        units = self.reader.units(max_bytes)
        twice = [name for name, count in Counter(unit.name for unit in units).items() if count > 1]
        if twice:
            raise ValueError(
                f"every unit must have a name of its own, got {twice[0]!r} twice; rename a shard in {self.folder}"
            )
        digests = self.folder.digests(name for unit in units for name in unit.files)
        return [dataclasses.replace(unit, content=_joined(digests[name] for name in unit.files)) for unit in units]

    def episodes(
        self,
        unit: Unit,
        cameras: Sequence[str] | None = None,
        frames: bool = True,
        fields: Collection[str] = FIELDS,
    ) -> Iterator[Episode | Failure]:
        """Yields a unit's episodes, and a Failure for each that cannot be read. Frames are streamed, not held in memory.

        Args:
            unit: One of `units`.
            cameras: Cameras to read; all by default. An episode without one of them is a Failure; if all episodes of a file
                lack it, the file is.
            frames: Whether to read the pictures. Without them reading is much faster; only the number of frames is known.
            fields: Other fields to read, of `schemas.formats.interface.FIELDS`; the rest is neither read nor checked.
                Rewards and success include the actions, which give the number of steps.

        Yields:
            Episodes, whose frames may raise BrokenEpisodeError while they stream.
        """
        unknown = sorted(set(fields) - FIELDS)
        assert not unknown, unknown
        chosen = frozenset(fields) | ({"actions"} if {"rewards", "success"} & set(fields) else set())
        wanted = Wanted(None if cameras is None else tuple(cameras), frames, chosen)
        picture_range = read_picture_range(self.options[PICTURE_RANGE]) if PICTURE_RANGE in self.options else None
        return tell_pointers(self.folder, _checked(self.reader, unit, wanted, picture_range))

    def instructions(self, unit: Unit) -> Iterator[tuple[str | None, ...] | Failure]:
        """Yields the instruction of each episode of a unit; no frame is read.

        Yields:
            The text, or None if there is none; several texts in order if the task changes within an episode; or a Failure.
        """
        for found in self.reader.episodes(unit, Wanted(frames=False, fields=frozenset({"instruction"}))):
            if isinstance(found, Failure):
                yield found
                continue
            try:
                yield (found.read().instruction,)
            except SeveralInstructionsError as error:
                yield error.texts
            except ValueError as error:
                yield _failure(found, error)

    def episode_ids(self, unit: Unit) -> list[str]:
        """Returns the ids of a unit's episodes in order, each once, without reading the episodes.

        Episodes that cannot be read are left out; `episodes` reports why.
        """
        return list(dict.fromkeys(self.reader.episode_ids(unit)))

    def has_content(self, unit: Unit, content: str) -> bool:
        """Returns whether a unit of this corpus has the given content digest, also one in the form of version 0.2."""
        if "-" in content or len(unit.files) != 1:
            return unit.content == content
        return self.folder.digest_of_version_0_2(unit.files[0]) == content

    def place(self, unit: Unit) -> str:
        """Returns the location of a unit's files, for messages."""
        return self.folder.path(unit.files[0]) if len(unit.files) == 1 else f"{unit.shard} in {self.folder}"


def open_corpus(path: str | Path, options: Mapping[str, str] | None = None) -> Corpus:
    """Opens a corpus.

    Args:
        path: A folder, whose files may be in subfolders; a single file; the output folder of `record`; or a URL.
        options: Options of its format, see `CorpusFormat.options`, and COMMON_OPTIONS.

    Raises:
        ValueError: There is no corpus, no format or several formats recognise it, it is unfinished, or an option is unknown.

    Example:
        >>> import vlm_rewards as vr
        >>> corpus = vr.open_corpus("corpus/")
        >>> corpus
        Corpus('corpus/parts': parquet, cameras egocentric)
        >>> corpus.features.has_achieved_goals
        True
    """
    folder = _opened_folder(path)
    chosen = _format_of(folder)
    options = dict(options or {})
    unknown = sorted(options.keys() - chosen.options.keys() - COMMON_OPTIONS.keys())
    if unknown:
        known = ", ".join([*chosen.options, *COMMON_OPTIONS])
        raise ValueError(
            f"the format {chosen.name} has no option {unknown[0]!r}: its options are {known}. Leave it out"
        )
    if PICTURE_RANGE in options:
        read_picture_range(options[PICTURE_RANGE])
    of_format = {name: value for name, value in options.items() if name in chosen.options}
    with telling_pointers(folder):
        reader = chosen.open(folder, of_format)
    return Corpus(folder=folder, format_name=chosen.name, options=options, reader=reader)


def corpus_formats() -> tuple[CorpusFormat, ...]:
    """Returns all formats: those of other packages, then FORMATS.

    Raises:
        ValueError: Another package declares something that is not a format, or uses the name of a built-in format.
    """
    added = load_extensions(EXTENSIONS)
    ours = {known.name for known in FORMATS}
    for name, found in added.items():
        if not isinstance(found, CorpusFormat):
            raise ValueError(
                f"an entry point of the group {EXTENSIONS!r} must be a CorpusFormat: got {type(found).__name__} for {name!r}. "
                "Fix or uninstall that package"
            )
        if found.name in ours:
            raise ValueError(
                f"a format's name must be its own: got {found.name!r} from the entry point {name!r}. Rename that format"
            )
    return (*(found for found in added.values() if isinstance(found, CorpusFormat)), *FORMATS)


def write_episodes(path: str | Path, features: CorpusFeatures, episodes: Iterable[Episode], format_name: str) -> None:
    """Writes one file of a corpus; the same episodes give the same bytes. After an error no file is left.

    Args:
        path: The file; replaced if it exists. Its name need not have the ending of the format.
        features: Features that every episode has.
        episodes: The episodes, read one at a time.
        format_name: Name of a writable format.

    Raises:
        ValueError: The format is unknown, or an episode does not fit `features`.
    """
    write = writable_format(format_name).write
    assert write is not None
    path = Path(path)
    try:
        write(path, features, episodes)
    except BaseException:
        path.unlink(missing_ok=True)  # a properly closed half file would look complete
        raise


def writable_format(format_name: str) -> CorpusFormat:
    """Returns the writable format with this name.

    Raises:
        ValueError: There is no such format.
    """
    writable = {known.name: known for known in corpus_formats() if known.write is not None}
    if format_name not in writable:
        raise ValueError(f"a format must be one of {', '.join(writable)}, got {format_name!r}; choose one")
    return writable[format_name]


def _opened_folder(path: str | Path) -> Folder:
    folder = Folder.at(path)
    if folder.has_file(f"{JOURNAL_FOLDER}/{JOURNAL}"):
        raise ValueError(
            f"an export into {path} was interrupted, and some of its files are new: got {JOURNAL_FOLDER}/{JOURNAL}. Run the same "
            "vlm-rewards export again, which undoes it first"
        )
    if not folder.only and folder.has_file(SETTINGS):
        if not folder.has_file(MANIFEST):
            raise ValueError(
                f"a corpus must be finished, got {path}, which has no manifest.json; run the command that made it again"
            )
        return Folder(folder.location, only="parts" if folder.has_folder("parts") else "")
    return folder


def _format_of(folder: Folder) -> CorpusFormat:
    formats = corpus_formats()
    found = [known for known in formats if known.recognizes(folder)]
    found = [known for known in found if known.extension is None] or found
    if len(found) == 1:
        return found[0]
    endings = ", ".join(f".{known.extension}" for known in formats if known.extension is not None)
    if found:
        names = " and ".join(_example(known, folder) for known in found)
        raise ValueError(f"a corpus must be of one format, got {names} in {folder}; give the folder of one of them")
    if folder.is_single_file:
        raise ValueError(f"a shard's name must end with one of {endings}, got {folder}; rename or convert it")
    others = passed_over_lines(passed_over_record(find_passed_over(folder, None, ())))
    instead = f" but what is {'; '.join(others)}" if others else ""
    raise ValueError(f"a corpus must hold shards ({endings}), got none in {folder}{instead}. Check the path")


def _example(known: CorpusFormat, folder: Folder) -> str:
    """Returns an example file name of the format, or the format's name if it has no file ending of its own."""
    return next((file.name for file in folder.files_ending({f".{known.extension}"})), known.name)


def _joined(digests: Iterable[str]) -> str:
    """Returns one digest of a unit's files; for a single file, the file's own digest."""
    several = list(digests)
    if len(several) == 1:
        return several[0]
    return f"{len(several)}-{hashlib.blake2b(' '.join(several).encode(), digest_size=8).hexdigest()}"


class _GuardedFrames:
    """Frames that name their episode and file if they break off, and that check their number."""

    def __init__(self, frames: Frames, found: FoundEpisode, picture_range: tuple[float, float] | None) -> None:
        self._frames = frames
        self._found = found
        self._picture_range = picture_range

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[Frame]:
        count = 0
        try:
            for frame in self._frames:
                count += 1
                if count <= len(self._frames):
                    scale = self._picture_range is not None and isinstance(frame, bytes)
                    yield scaled_picture(frame, *self._picture_range) if scale else frame  # type: ignore[arg-type,misc]
        except InvalidEpisodeError as error:
            raise BrokenEpisodeError(_failure(self._found, error)) from error
        if count != len(self._frames):
            raise BrokenEpisodeError(
                _failure(
                    self._found,
                    InvalidEpisodeError(
                        "missing frames",
                        f"an episode of {len(self._frames)} rows must have as many frames, got {count}. Leave it out",
                    ),
                )
            )


def _failure(found: FoundEpisode, error: ValueError) -> Failure:
    reason = error.reason if isinstance(error, InvalidEpisodeError) else "invalid episode"
    if isinstance(error, InvalidEpisodeError) and error.scope == "shard":
        return Failure(scope="shard", shard=found.file, reason=reason, detail=str(error))
    return Failure(
        scope="episode",
        shard=found.file,
        episode_id=found.episode_id,
        reason=reason,
        detail=str(error),
        num_frames=found.num_frames,
    )


def _checked(
    reader: CorpusReader, unit: Unit, wanted: Wanted, picture_range: tuple[float, float] | None
) -> Iterator[Episode | Failure]:
    seen: set[str] = set()
    file = ""
    lacking: list[Failure] = []  # episodes of this file without a camera, as long as no episode has it
    has_camera = False
    for found in reader.episodes(unit, wanted):
        if isinstance(found, Failure):
            yield found
            continue
        if found.file != file:
            yield from _of_file(lacking)
            file, lacking, has_camera = found.file, [], False
        item = _read(reader.features, found, wanted, seen, picture_range)
        if isinstance(item, Failure) and item.reason == _MISSING_CAMERA and not has_camera:
            lacking.append(item)
            continue
        if isinstance(item, Episode) and not has_camera:
            has_camera = True
            yield from lacking
            lacking = []
        yield item
    yield from _of_file(lacking)


def _of_file(lacking: Sequence[Failure]) -> Iterator[Failure]:
    if lacking:
        first = lacking[0]
        yield Failure(scope="shard", shard=first.shard, reason=_MISSING_CAMERA, detail=first.detail)


def _read(
    features: CorpusFeatures,
    found: FoundEpisode,
    wanted: Wanted,
    seen: set[str],
    picture_range: tuple[float, float] | None,
) -> Episode | Failure:
    try:
        if found.episode_id in seen:
            detail = f"an episode_id must occur once, got {found.episode_id!r} again; rename or remove one"
            raise InvalidEpisodeError("duplicate episode", detail)
        seen.add(found.episode_id)
        cameras = features.cameras if found.cameras is None else found.cameras
        for camera in wanted.cameras or ():
            if camera not in cameras:
                detail = missing_camera(camera, cameras, found.file)
                raise InvalidEpisodeError(_MISSING_CAMERA, detail)
        episode = found.read()
    except ValueError as error:
        return _failure(found, error)
    except Exception as error:
        error.add_note(f"while reading episode {found.episode_id} of {found.file}")
        raise
    guarded = {camera: _GuardedFrames(frames, found, picture_range) for camera, frames in episode.images.items()}
    return episode.with_frames(guarded, found.file)
