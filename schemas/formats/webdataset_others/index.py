"""Indexes a tar of other tools in one walk over its headers."""

import dataclasses
import tarfile
from collections.abc import Mapping

from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.webdataset_corpus.frames import PicturePlaces
from vlm_rewards.schemas.formats.webdataset_corpus.members import BrokenTarError, walk
from vlm_rewards.schemas.formats.webdataset_others.patterns import CAMERA, VIDEO, Patterns


@dataclasses.dataclass
class Pieces:
    """The parts of one episode in one tar.

    Args:
        pictures: Places of its pictures, by camera.
        videos: Its videos, by camera.
        members: Members by role and frame; the frame is -1 for one of the whole episode.
        num_bytes: Size of its pictures and videos in bytes.
        problem: Problem with its members, or "".
    """

    pictures: dict[str, PicturePlaces] = dataclasses.field(default_factory=dict)
    videos: dict[str, tarfile.TarInfo] = dataclasses.field(default_factory=dict)
    members: dict[str, dict[int, tarfile.TarInfo]] = dataclasses.field(default_factory=dict)
    num_bytes: int = 0
    problem: str = ""


@dataclasses.dataclass
class TarIndex:
    """The contents of one tar.

    Args:
        episodes: Parts by episode, in the order in which they begin.
        broken: Why the tar cannot be read to its end; "" where it can.
    """

    episodes: Mapping[str, Pieces]
    broken: str


def index_tar(folder: Folder, name: str, patterns: Patterns) -> TarIndex:
    """Walks over a tar."""
    episodes: dict[str, Pieces] = {}
    broken = ""
    with folder.open(name) as file:
        try:
            for member in walk(file):
                _add(episodes, member, patterns)
        except BrokenTarError as error:
            broken = str(error)
    return TarIndex(
        {episode: pieces for episode, pieces in episodes.items() if pieces.pictures or pieces.videos}, broken
    )


def _add(episodes: dict[str, Pieces], member: tarfile.TarInfo, patterns: Patterns) -> None:
    name = member.name.removeprefix("./")
    match = None if patterns.video is None else patterns.video.match(name)
    if match is not None:
        pieces = episodes.setdefault(match["episode"], Pieces())
        camera = match.groupdict().get("camera", VIDEO)
        pieces.num_bytes += member.size
        if not member.isreg() or member.sparse is not None:
            pieces.problem = pieces.problem or _no_plain_file(name)
        elif camera in pieces.videos:
            pieces.problem = pieces.problem or f"a video must occur once, got {name} again. Remove one"
        pieces.videos.setdefault(camera, member)
        return
    match = None if patterns.picture is None else patterns.picture.match(name)
    if match is not None:
        found = match.groupdict()
        pieces = episodes.setdefault(found["episode"], Pieces())
        pieces.num_bytes += member.size
        places = pieces.pictures.setdefault(found.get("camera", CAMERA), PicturePlaces())
        if not member.isreg() or member.sparse is not None:
            pieces.problem = pieces.problem or _no_plain_file(name)
        elif not places.add(int(found["frame"]), member.offset_data, member.size):
            pieces.problem = pieces.problem or f"a frame must occur once, got {name} again. Remove one"
        return
    for role, pattern in patterns.members.items():
        match = pattern.match(name)
        if match is not None:
            frame = int(match["frame"]) if pattern.is_per_step else -1
            episodes.setdefault(match["episode"], Pieces()).members.setdefault(role, {})[frame] = member


def _no_plain_file(name: str) -> str:
    return f"{name} must be a plain file, got a link, device or other. Pack it with tar --dereference"
