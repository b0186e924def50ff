"""Corpora in tars that other tools packed: one sample per episode or per step, named by patterns.

    ep0.frame_0.jpg ep0.frame_1.jpg ep0.json        ──►  episode "ep0"; a tar is a unit
    ep0_0.jpg ep0_0.json ep0_1.jpg │ ep0_2.jpg ep1_0.jpg
                   a.tar ──────────┘ b.tar          ──►  episode "ep0" continues in b.tar: the unit of a.tar reads its rest there

A tar is walked once by its headers, so the order of its members does not matter; pictures then stream from their places.
Episodes of a unit of several tars: those that begin in the first, from `start` on, to those in the last, up to `stop`.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vlm_rewards.schemas.episodes import CorpusFeatures, Episode, UnreadFrames
from vlm_rewards.schemas.formats.exports import own_labels
from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.interface import (
    FIELDS,
    FoundEpisode,
    InvalidEpisodeError,
    SeveralInstructionsError,
    Wanted,
)
from vlm_rewards.schemas.formats.media_folders.counting import find_gap
from vlm_rewards.schemas.formats.units import file_ranges, file_stem, share_units
from vlm_rewards.schemas.formats.webdataset_corpus.frames import Source
from vlm_rewards.schemas.formats.webdataset_corpus.members import check_size, parse_array
from vlm_rewards.schemas.formats.webdataset_corpus.reader import (
    MAX_ARRAY_BYTES,
    MAX_IMAGE_BYTES,
    MAX_JSON_BYTES,
    as_recorded,
    tar_files,
)
from vlm_rewards.schemas.formats.webdataset_others.index import Pieces, index_tar
from vlm_rewards.schemas.formats.webdataset_others.patterns import Pattern, Patterns
from vlm_rewards.schemas.formats.webdataset_others.videos import TarVideo
from vlm_rewards.schemas.manifests import Failure, Unit
from vlm_rewards.schemas.videos import VideoFrames, decoder_versions, read_video_facts

_FIELDS = {"action": "actions", "state": "states", "reward": "rewards"}


@dataclasses.dataclass(frozen=True)
class OtherTarsReader:
    """An open corpus of others' tars; see the module's picture.

    Args:
        folder: Folder of the corpus.
        patterns: Patterns of its member names.
        features: Features of its first readable episode.
        in_videos: Cameras whose frames are in videos.
    """

    folder: Folder
    patterns: Patterns
    features: CorpusFeatures
    in_videos: frozenset[str] = frozenset()

    @property
    def notes(self) -> tuple[str, ...]:
        """The patterns in use, and that videos are not read."""
        notes = []
        if self.patterns.is_guessed:
            found = {"picture": self.patterns.picture, "video": self.patterns.video, **self.patterns.members}
            said = ", ".join(f"{role}={pattern.text}" for role, pattern in found.items() if pattern is not None)
            notes.append(
                f"members are read by the names in the first tar: {said}; options of these names say otherwise"
            )
        if self.patterns.unread_video:
            notes.append(
                f"videos beside pictures are not read ({self.patterns.unread_video}): the option video makes them cameras"
            )
        return tuple(notes)

    def decoders(self, camera: str) -> dict[str, str]:
        """Returns the versions of the libraries that decode a camera's videos."""
        return decoder_versions() if camera in self.in_videos else {}

    def own_files(self) -> list[str]:
        """Returns the tars."""
        return [file.name for file in tar_files(self.folder)]

    def units(self, max_bytes: int) -> list[Unit]:
        """Returns one unit per tar, with the rest of an episode that continues in the next; small ones share a unit."""
        files = tar_files(self.folder)
        units = [Unit(name=file_stem(file.name), files=(file.name,), num_bytes=file.num_bytes) for file in files]
        if self.patterns.cuts_episodes:
            units = self._with_rests(units)
        sizes = {file.name: file.num_bytes for file in files}
        cut = [part for unit in units for part in self._cut(unit, sizes[unit.files[0]], max_bytes)]
        return share_units(self.folder, cut, max_bytes)

    def _cut(self, unit: Unit, num_bytes: int, max_bytes: int) -> list[Unit]:
        """Returns ranges of about `max_bytes` of a unit's first tar; the last includes what continues in other tars."""
        if num_bytes <= max_bytes:
            return [unit]
        episodes = list(index_tar(self.folder, unit.files[0], self.patterns).episodes.values())
        starts, held = [unit.start], 0
        for number, pieces in enumerate(episodes[unit.start :], unit.start):
            if held >= max_bytes:
                starts.append(number)
                held = 0
            held += pieces.num_bytes
        if len(starts) == 1:
            return [unit]
        parts = [
            dataclasses.replace(
                unit,
                name=f"{unit.name}-e{start:06d}",
                files=unit.files[:1],
                start=start,
                stop=stop,
                num_bytes=sum(pieces.num_bytes for pieces in episodes[start:stop]),
                num_episodes=stop - start,
            )
            for start, stop in zip(starts, [*starts[1:], len(episodes)], strict=True)
        ]
        rest = dataclasses.replace(parts[-1], files=unit.files, stop=unit.stop, num_episodes=None)
        return [*parts[:-1], rest]

    def _with_rests(self, units: Sequence[Unit]) -> list[Unit]:
        held = [list(index_tar(self.folder, unit.files[0], self.patterns).episodes) for unit in units]
        made = []
        for number, unit in enumerate(units):
            begun = number > 0 and bool(held[number]) and held[number - 1][-1:] == held[number][:1]
            if begun and len(held[number]) == 1:
                continue  # all of it is the rest of an episode that began before
            last = number
            while last + 1 < len(units) and held[last] and held[last][-1:] == held[last + 1][:1]:
                last += 1
                if len(held[last]) > 1:
                    break
            names = tuple(other.files[0] for other in units[number : last + 1])
            made.append(dataclasses.replace(unit, files=names, start=int(begun), stop=1 if last > number else -1))
        return made

    def episodes(self, unit: Unit, wanted: Wanted) -> Iterator[FoundEpisode | Failure]:
        """Yields the unit's episodes."""
        found, failures = self._index(unit)
        for episode_id, pieces in found.items():
            yield self._found(episode_id, pieces, wanted)
        yield from failures

    def episode_ids(self, unit: Unit) -> list[str]:
        """Returns the ids of the unit's episodes."""
        return list(self._index(unit)[0])

    def labelled_by(self, _unit: Unit) -> dict[str, str]:
        """Returns what stands for the model where the member of rewards is one that an export added."""
        reward = self.patterns.members.get("reward")
        model = None if reward is None else own_labels.model_of_name(reward.name)
        return {} if model is None else {own_labels.REWARDS: model}

    def _index(self, unit: Unit) -> tuple[dict[str, list[tuple[str, Pieces]]], list[Failure]]:
        """Returns the pieces of each episode with their tars, and the failures."""
        found: dict[str, list[tuple[str, Pieces]]] = {}
        failures = []
        for name, start, stop in file_ranges(unit):
            index = index_tar(self.folder, name, self.patterns)
            episodes = list(index.episodes)
            if index.broken:
                last = episodes.pop() if episodes else ""
                found.pop(last, None)
                within = f", in episode {last!r}" if last else ""
                detail = f"a tar file must be whole, got one that {index.broken}{within}; the rest of it is not read. Copy it again"
                failures.append(Failure(scope="shard", shard=name, reason="unreadable shard", detail=detail))
            for episode in episodes[start : None if stop < 0 else stop]:
                found.setdefault(episode, []).append((name, index.episodes[episode]))
        return found, failures

    def _found(self, episode_id: str, pieces: Sequence[tuple[str, Pieces]], wanted: Wanted) -> FoundEpisode:
        cameras = sorted({camera for _, piece in pieces for camera in (*piece.pictures, *piece.videos)})
        counts = [
            sum(len(piece.pictures[camera]) for _, piece in pieces if camera in piece.pictures) for camera in cameras
        ]
        return FoundEpisode(
            episode_id,
            max(counts),  # 0 for videos, whose frames are counted when they are read
            pieces[0][0],
            lambda: self._read(episode_id, pieces, cameras, wanted),
            tuple(cameras),
        )

    def _read(
        self, episode_id: str, pieces: Sequence[tuple[str, Pieces]], cameras: Sequence[str], wanted: Wanted
    ) -> Episode:
        problem = next((piece.problem for _, piece in pieces if piece.problem), None)
        if problem is not None:
            raise InvalidEpisodeError("odd member", problem)
        sources = [Source(self.folder, name) for name, _ in pieces]
        images: dict[str, Any] = {}
        numbers = np.zeros(0, np.int64)
        for camera in cameras if wanted.cameras is None else wanted.cameras:
            video = _video(self.folder, camera, pieces)
            if video is not None:
                num_frames = read_video_facts(*video).num_frames
                numbers = np.arange(num_frames)
                images[camera] = VideoFrames(*video, num_frames) if wanted.frames else UnreadFrames(num_frames)
                continue
            places = _places(camera, [piece for _, piece in pieces])
            numbers = places[:, 1]
            images[camera] = _PlacedFrames(sources, places) if wanted.frames else UnreadFrames(len(places))
        values: dict[str, Any] = {}
        for role, field in _FIELDS.items():
            if field in wanted.fields and role in self.patterns.members:
                values[field] = self._array(role, field, pieces, sources, numbers)
        if "rewards" in values:
            values["terminations"] = np.zeros(len(values["rewards"]), np.bool_)
            values["truncations"] = np.arange(len(values["rewards"])) == len(values["rewards"]) - 1
        if "instruction" in wanted.fields and "instruction" in self.patterns.members:
            values["instruction"] = self._instruction(pieces, sources)
        return Episode(episode_id=episode_id, images=images, **values)

    def _members(self, role: str, pieces: Sequence[tuple[str, Pieces]], sources: Sequence[Source]) -> dict[int, Any]:
        """Returns the values of a role by frame; -1 for the whole episode."""
        found: dict[int, Any] = {}
        for source, (_, piece) in zip(sources, pieces, strict=True):
            for frame, member in piece.members.get(role, {}).items():
                check_size(member, MAX_JSON_BYTES if member.name.endswith(".json") else MAX_ARRAY_BYTES)
                data = source.read(member.offset_data, member.size)
                found[frame] = _value(data, member.name, self.patterns.members[role])
        return found

    def _array(
        self,
        role: str,
        field: str,
        pieces: Sequence[tuple[str, Pieces]],
        sources: Sequence[Source],
        numbers: np.ndarray,
    ) -> np.ndarray:
        found = self._members(role, pieces, sources)
        if not self.patterns.members[role].is_per_step:
            if -1 not in found:
                raise InvalidEpisodeError(
                    "missing member",
                    f"an episode must have a member {self.patterns.members[role].text}, got none. Add it",
                )
            return as_recorded(field, np.asarray(found[-1]))
        wanted = numbers if field == "states" or int(numbers[-1]) in found else numbers[:-1]
        missing = [number for number in wanted.tolist() if number not in found]
        if missing:
            raise InvalidEpisodeError(
                "missing member",
                f"each step must have a member {self.patterns.members[role].text}, got none for frame {missing[0]}. Add it",
            )
        return as_recorded(field, np.stack([np.asarray(found[number]) for number in wanted.tolist()]))

    def _instruction(self, pieces: Sequence[tuple[str, Pieces]], sources: Sequence[Source]) -> str | None:
        found = self._members("instruction", pieces, sources)
        told = [found[frame] for frame in sorted(found) if found[frame] not in (None, "")]
        for text in told:
            if not isinstance(text, str):
                detail = f"an instruction must be a text, got {str(text)[:60]}. Correct it"
                raise InvalidEpisodeError("broken member", detail)
        texts = list(dict.fromkeys(told))
        if len(texts) > 1:
            raise SeveralInstructionsError(texts)
        return texts[0] if texts else None


class _PlacedFrames:
    """Pictures at places in several tars."""

    def __init__(self, sources: Sequence[Source], places: np.ndarray) -> None:
        self._sources = sources
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[bytes]:
        for source, number, offset, size in self._places.tolist():
            if size > MAX_IMAGE_BYTES:
                raise InvalidEpisodeError(
                    "oversized member",
                    f"a picture must have at most {MAX_IMAGE_BYTES} bytes, got {size} in frame {number}. Scale it down",
                )
            yield self._sources[source].read(offset, size)


def _video(folder: Folder, camera: str, pieces: Sequence[tuple[str, Pieces]]) -> tuple[TarVideo, str] | None:
    """Returns the place and the name of a camera's video; None where it has pictures."""
    found = [(tar, piece.videos[camera]) for tar, piece in pieces if camera in piece.videos]
    if not found:
        return None
    if len(found) > 1 or any(camera in piece.pictures for _, piece in pieces):
        raise InvalidEpisodeError(
            "odd member",
            f"a camera must be one video, or pictures: got {found[0][1].name} and others of camera {camera!r}. Remove one",
        )
    tar, member = found[0]
    return TarVideo(folder, tar, member.offset_data, member.size), member.name


def _places(camera: str, pieces: Sequence[Pieces]) -> np.ndarray:
    """Returns [N, 4] int64: number of the tar, frame, offset and size, in the order of the frames."""
    parts = []
    for number, piece in enumerate(pieces):
        if camera in piece.pictures:
            places = piece.pictures[camera].places()
            parts.append(np.column_stack([np.full(len(places), number), places]))
    places = np.concatenate(parts)
    places = places[np.argsort(places[:, 1], kind="stable")]
    frames = places[:, 1]
    twice = np.flatnonzero(np.diff(frames) == 0)
    if twice.size:
        raise InvalidEpisodeError(
            "duplicate frame",
            f"a frame must occur once, got {frames[twice[0]]} of camera {camera!r} in two tars. Remove one",
        )
    gap = find_gap(frames)
    if gap is not None:
        raise InvalidEpisodeError(
            "missing frames",
            f"camera {camera!r} must have {gap.num_expected} frames by their numbers, got {len(frames)}: none lies between "
            f"{frames[gap.before]} and {frames[gap.before + 1]}. Leave the episode out",
        )
    return places


def _value(data: bytes, name: str, pattern: Pattern) -> Any:
    """Returns the content of a member: an array, a value in JSON, or a text."""
    if name.endswith(".npy"):
        return parse_array(data, name)
    try:
        if not name.endswith(".json"):
            return data.decode().strip()
        record = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidEpisodeError(
            "broken member", f"{name!r} must be JSON or a text, got {data[:40]!r} ({error}). Correct it"
        ) from error
    if not pattern.key:
        return record
    if not isinstance(record, dict):
        raise InvalidEpisodeError(
            "broken member", f"{name!r} must be a JSON object, got {str(record)[:40]}. Correct it"
        )
    return record.get(pattern.key)


def open_others(folder: Folder, patterns: Patterns) -> OtherTarsReader:
    """Opens a folder of others' tars.

    Raises:
        ValueError: No episode can be read; the message says what is wrong with the first.
    """
    failure: object = "it must hold pictures that the pattern fits, got none. Give another option picture"
    for file in tar_files(folder):
        reader = OtherTarsReader(folder, patterns, CorpusFeatures(cameras=("?",)))
        for fields in (
            FIELDS,
            frozenset[str](),
        ):  # one that is broken in what labels do not need still tells its cameras
            for found in reader.episodes(Unit(name="first", files=(file.name,)), Wanted(None, False, fields)):
                if isinstance(found, Failure):
                    failure = found
                    continue
                try:
                    features = _features(found.read(), patterns)
                    pieces = index_tar(folder, file.name, patterns).episodes[found.episode_id]
                    return dataclasses.replace(reader, features=features, in_videos=frozenset(pieces.videos))
                except ValueError as error:
                    failure = f"{file.name}, episode {found.episode_id}: {error}"
    raise ValueError(f"a corpus must have an episode that can be read, got none in {folder} ({failure})")


def _features(episode: Episode, patterns: Patterns) -> CorpusFeatures:
    features = CorpusFeatures.of(episode)
    lacks_last = episode.actions is not None and not episode.has_final_frame
    return dataclasses.replace(
        features, has_instruction="instruction" in patterns.members, missing_frame="last" if lacks_last else None
    )
