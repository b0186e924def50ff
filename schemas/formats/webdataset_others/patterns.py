"""Patterns of member names, which identify pictures with their frames, actions, states, rewards and instructions.

    {episode}.frame_{frame}.jpg     ep0000.frame_0003.jpg     one sample per episode
    {episode}_{frame}.{camera}.*    ep0000_0003.wrist.png     one sample per step; * stands for any ending of a picture
    {episode}.{camera}.mp4          ep0000.wrist.mp4          a video per episode; * stands for any ending of a video
    {episode}.json:instruction      ep0000.json               the value of a key in it

By default the first known pattern that fits all pictures of the first tar is taken; without such, one of videos. Videos beside
pictures are read where the option `video` says so.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Iterable, Mapping, Sequence

PICTURE_ENDINGS = r"(?:png|jpe?g|webp|bmp)"
VIDEO_ENDINGS = r"(?:mp4|m4v|mov|mkv|webm|avi)"
CAMERA, VIDEO = "image", "video"
"""The camera where names of pictures, or of videos, tell none."""
ROLES = ("action", "state", "reward", "instruction")

_PLACEHOLDERS = {"episode": r"(?P<episode>.+?)", "camera": r"(?P<camera>.+?)", "frame": r"(?P<frame>\d{1,18})"}
_PICTURE = re.compile(rf".+\.{PICTURE_ENDINGS}", re.IGNORECASE)
_VIDEO = re.compile(rf".+\.{VIDEO_ENDINGS}", re.IGNORECASE)
_KNOWN_VIDEOS = ("{episode}.{camera}.*", "{episode}.*")
_WORDS = ("frame", "frames", "image", "images", "img", "rgb", "step", "obs", "t")
_SAMPLES = (  # of an episode, then of a step
    "{episode}.{frame}",
    *(f"{{episode}}.{word}{mark}{{frame}}" for word in _WORDS for mark in ("_", "-", "", ".")),
    "{episode}.{camera}.{frame}",
    "{episode}.{camera}_{frame}",
    *(f"{{episode}}{mark}{word}{{frame}}" for word in (*(f"{word}_" for word in _WORDS), "") for mark in "/_-"),
)
_KNOWN_PICTURES = (
    *(f"{sample}.*" for sample in _SAMPLES),
    *(f"{{episode}}{mark}{{frame}}.{{camera}}.*" for mark in "/_-"),
)
_KNOWN_MEMBERS = {
    "action": ("action.npy", "actions.npy", "json:action", "json:actions"),
    "state": ("state.npy", "states.npy", "json:state"),
    "reward": ("reward.npy", "rewards.npy", "json:reward", "json:rewards"),
    "instruction": ("json:instruction", "json:language_instruction", "json:task", "instruction.txt", "txt"),
}

_BY_NAMES = "for tars of others (default: by the names in the first tar)"
OPTIONS = {
    "picture": f"names of pictures, such as {{episode}}.frame_{{frame}}.jpg or {{episode}}_{{frame}}.{{camera}}.*, {_BY_NAMES}",
    "video": f"names of videos, such as {{episode}}.mp4 or {{episode}}.{{camera}}.*, {_BY_NAMES}",
    **{
        role: f"member that holds the {role}, such as {{episode}}.{role}.npy or {{episode}}.json:{role}, {_BY_NAMES}"
        for role in ROLES
    },
}


@dataclasses.dataclass(frozen=True)
class Pattern:
    """The pattern of the names of some members.

    Args:
        text: The pattern, as people write it.
        endings: Regular expression of the endings that * stands for.
    """

    text: str
    endings: str = PICTURE_ENDINGS

    def __post_init__(self) -> None:
        names = re.findall(r"\{(\w*)\}", self.name)
        unknown = [name for name in names if name not in _PLACEHOLDERS]
        if unknown or names.count("episode") != 1 or len(set(names)) < len(names):
            raise ValueError(
                f"a pattern must have {{episode}} once, and {{frame}} and {{camera}} at most once: got {self.text!r}. Correct it"
            )

    @property
    def name(self) -> str:
        """The pattern of the name, without the key in the member."""
        return self.text.partition(":")[0]

    @property
    def key(self) -> str:
        """The key whose value counts; "" for the whole member."""
        return self.text.partition(":")[2]

    @property
    def is_per_step(self) -> bool:
        """Whether there is such a member for each frame."""
        return "{frame}" in self.name

    @functools.cached_property
    def _regex(self) -> re.Pattern[str]:
        pieces = re.split(r"(\{\w+\}|\*)", self.name)
        made = [
            _PLACEHOLDERS[p[1:-1]] if p.startswith("{") else self.endings if p == "*" else re.escape(p) for p in pieces
        ]
        return re.compile("".join(made), re.IGNORECASE)

    def match(self, name: str) -> re.Match[str] | None:
        """Returns the match of a name with the pattern; None if it does not match."""
        return self._regex.fullmatch(name)


@dataclasses.dataclass(frozen=True)
class Patterns:
    """The patterns of a corpus.

    Args:
        picture: Pattern of pictures; None where frames are in videos alone.
        video: Pattern of videos; None where none are read.
        members: Patterns of other members, by their role.
        is_guessed: Whether the patterns of pictures and videos follow from the names.
        unread_video: Name of a video that is not read; "" where there is none.
    """

    picture: Pattern | None
    video: Pattern | None
    members: Mapping[str, Pattern]
    is_guessed: bool
    unread_video: str = ""

    @property
    def frames(self) -> Pattern:
        """The pattern of what tells an episode."""
        found = self.picture or self.video
        assert found is not None
        return found

    def episode_of(self, name: str) -> str | None:
        """Returns the episode that a picture or video is of; None for other members."""
        for pattern in (self.picture, self.video):
            match = None if pattern is None else pattern.match(name)
            if match is not None:
                return match["episode"]
        return None

    @property
    def cuts_episodes(self) -> bool:
        """Whether a sample is a step, so that an episode may continue in the next tar."""
        key = self.frames.name.rpartition("/")[2].partition(".")[0]
        return "{frame}" in key


def choose_patterns(names: Sequence[str], first_json: bytes, options: Mapping[str, str], place: str) -> Patterns:
    """Chooses the patterns of a corpus.

    Args:
        names: Names of the first members.
        first_json: The first member that ends with .json, or nothing.
        options: Options that the user gave; see OPTIONS.
        place: The tar, for messages.

    Raises:
        ValueError: No known pattern fits the pictures, or one that was given is none or fits nothing.
    """
    pictures = [name for name in names if _PICTURE.fullmatch(name)]
    videos = [name for name in names if _VIDEO.fullmatch(name)]
    shown = ", ".join(pictures[:3] or names[:3])
    picture: Pattern | None = None
    video = None if "video" not in options else _given_video(options["video"], names, place)
    if "picture" in options:
        picture = Pattern(options["picture"])
        if not picture.is_per_step:
            raise ValueError(
                f"a pattern of pictures must have {{frame}}: got {picture.text!r}. Say where the number is"
            )
        if not any(picture.match(name) for name in names):
            raise ValueError(
                f"pictures must have names like {picture.text!r}: got {shown} in {place}. Give another option picture"
            )
    else:
        known = (Pattern(text) for text in _KNOWN_PICTURES)
        picture = next((p for p in known if pictures and all(_fits(p, name) for name in pictures)), None)
        if picture is None and video is None:
            known = (Pattern(text, VIDEO_ENDINGS) for text in _KNOWN_VIDEOS)
            video = next((p for p in known if videos and all(_fits(p, name) for name in videos)), None)
        if picture is None and video is None:
            raise ValueError(
                f"a tar of others must have pictures whose names tell episode and frame: got {shown} in "
                f"{place}. Say what they are like with the option picture, such as picture={{episode}}.frame_{{frame}}.jpg"
            )
    frames = picture or video
    assert frames is not None
    members = {role: Pattern(options[role]) for role in ROLES if role in options}
    for role in ROLES:
        if role not in members:
            chosen = _known_member(role, frames, names, first_json)
            if chosen is not None:
                members[role] = chosen
    unread = videos[0] if videos and video is None else ""
    return Patterns(picture, video, members, not options.keys() & {"picture", "video"}, unread)


def _given_video(text: str, names: Sequence[str], place: str) -> Pattern:
    pattern = Pattern(text, VIDEO_ENDINGS)
    if pattern.is_per_step:
        raise ValueError(
            f"a pattern of videos must be without {{frame}}: got {text!r}. Remove it, as a video holds all frames"
        )
    if not any(pattern.match(name) for name in names):
        raise ValueError(
            f"videos must have names like {text!r}: got {', '.join(names[:3])} in {place}. Give another option video"
        )
    return pattern


def _fits(pattern: Pattern, name: str) -> bool:
    """Returns whether a name has the pattern, with an episode that has no dots: those end a key in WebDataset."""
    match = pattern.match(name)
    return match is not None and "." not in match["episode"].rpartition("/")[2]


def _known_member(role: str, picture: Pattern, names: Iterable[str], first_json: bytes) -> Pattern | None:
    """Returns the first known pattern of a role that a member has."""
    folder, slash, base = picture.name.rpartition("/")
    key = folder + slash + base.partition(".")[0]  # as WebDataset cuts names: at the first dot
    held = _keys(first_json)
    for suffix in _KNOWN_MEMBERS[role]:
        ending, _, inner = suffix.partition(":")
        pattern = Pattern(f"{key}.{suffix}")
        if any(pattern.match(name) for name in names if name.endswith(ending)) and (not inner or inner in held):
            return pattern
    return None


def _keys(text: bytes) -> Iterable[str]:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    return record.keys() if isinstance(record, dict) else ()
