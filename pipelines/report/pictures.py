"""The pictures of the report: the episodes and frames of the corpus that it shows.

    quality.json: which episodes and frames ──► gather: pictures and truth from the corpus ──► HTML

The evaluation chooses them; this module chooses nothing.
"""

import base64
import contextlib
import dataclasses
import html
import io
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
from PIL import Image

from vlm_rewards.schemas.episodes import Episode, Frame, Frames
from vlm_rewards.schemas.formats.corpus import BrokenEpisodeError, Corpus
from vlm_rewards.schemas.formats.label_parts.reader import Labels
from vlm_rewards.schemas.goals import Goal
from vlm_rewards.schemas.manifests import Unit
from vlm_rewards.schemas.pictures import decoded_frame, encoded_frame, image_extension

MAX_STRIPS = 12
_EXAMPLES_PER_KIND = 64
_STRIP_PICTURES = 16
_SHORT_EPISODE = 20
_SMALL_SIDE = 128
_CARD_SIDE = 192
_REEL_SIDE = 96
_PICTURE_BYTES = 2_400_000
_THUMBNAILS = ((1.0, 85), (1.0, 60), (2 / 3, 75), (2 / 3, 50), (1 / 3, 60))  # shares of the side, and JPEG qualities
_MIME = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp", "bmp": "image/bmp"}
_KINDS = {
    "true_positives": ("True positives", "Labelled a success, and the goal holds: the highest scores."),
    "false_positives": ("False positives", "Labelled a success, but the goal does not hold: the highest scores."),
    "false_negatives": (
        "False negatives",
        "Not labelled a success, but the goal holds: the lowest scores.",
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShownEpisode:
    """The parts of an episode that the report keeps: the pictures it shows and the ground truth.

    Args:
        num_frames: Number of frames of the episode.
        pictures: `img` elements of the single frames that are shown, by frame; a note where a picture does not decode.
        reel: The same, smaller, of the frames of a film strip; empty where the episode has none.
        truth: Ids of the goals that hold, per frame.
    """

    num_frames: int
    pictures: Mapping[int, str]
    reel: Mapping[int, str]
    truth: Sequence[frozenset[str]]


def gather(
    quality: Mapping, corpus: Corpus, units: Sequence[Unit], labels: Labels
) -> dict[tuple[str, str], ShownEpisode]:
    """Reads the episodes that are shown, by unit and episode; of a unit only up to the last one that is needed.

    All pictures together take at most about 2.4 MB, 3.2 MB of the page: large ones are made smaller where there are many.
    """
    frames: dict[tuple[str, str], set[int]] = {}
    for example in _examples(quality):
        frames.setdefault((example["unit"], example["episode_id"]), set()).add(example["frame_index"])
    strips = {(strip["unit"], strip["episode_id"]) for strip in shown_strips(quality)}
    max_bytes = _PICTURE_BYTES // max(1, sum(1 for _ in _examples(quality)) + _SHORT_EPISODE * len(strips))
    camera = labels.metadata.fingerprint.parts.get("camera")
    shown = {}
    for unit in units:
        wanted = {episode_id for name, episode_id in frames.keys() | strips if name == unit.name}
        if not wanted:
            continue
        cameras = None if camera is None else [str(camera)]
        for episode in corpus.episodes(unit, cameras, fields=("achieved_goals",)):
            if isinstance(episode, Episode) and episode.episode_id in wanted:
                key = (unit.name, episode.episode_id)
                reel = strip_frames(episode.num_frames) if key in strips else []
                shown[key] = _shown(episode, frames.get(key, ()), reel, max_bytes)
                wanted.remove(episode.episode_id)
                if not wanted:
                    break
    return shown


def _examples(quality: Mapping) -> Iterable[Mapping]:
    for kind in _KINDS:
        for examples in _shown_examples(quality, kind).values():
            yield from examples
    for worst in quality["worst_goals"]["goals"]:
        yield from worst["false_positives"]
        yield from worst["false_negatives"]


def shown_strips(quality: Mapping) -> list[Mapping]:
    """Chooses at most 12 film strips, the first of every family before the second of any, in the order of the families."""
    places: dict[str, int] = {}
    ranked = []
    for order, strip in enumerate(quality["film_strips"]):
        ranked.append((places.get(strip["family"], 0), order, strip))
        places[strip["family"]] = places.get(strip["family"], 0) + 1
    chosen = sorted(ranked, key=lambda entry: entry[:2])[:MAX_STRIPS]
    return [strip for _, _, strip in sorted(chosen, key=lambda entry: entry[1])]


def _shown_examples(quality: Mapping, kind: str) -> dict[str, Sequence[Mapping]]:
    """Returns the examples of each family of the report, at most about 64 in all, at least one per family."""
    limit = max(1, _EXAMPLES_PER_KIND // len(quality["families"]))
    return {family: quality["examples"][kind][family][:limit] for family in quality["families"]}


def _shown(episode: Episode, frames: Collection[int], reel: Collection[int], max_bytes: int) -> ShownEpisode:
    images = _pick(next(iter(episode.images.values())), {*frames, *reel})
    assert episode.achieved_goals is not None, "the evaluation has refused episodes without ground truth"
    return ShownEpisode(
        num_frames=episode.num_frames,
        pictures={
            frame: picture_element(images.get(frame), f"frame {frame} of {episode.episode_id}", _CARD_SIDE, max_bytes)
            for frame in frames
        },
        reel={frame: picture_element(images.get(frame), f"frame {frame}", _REEL_SIDE, max_bytes) for frame in reel},
        truth=[frozenset(achieved) for achieved in episode.achieved_goals],
    )


def _pick(frames: Frames, wanted: set[int]) -> dict[int, Frame]:
    """Reads the wanted frames, up to the last of them or to where the recording breaks off."""
    found: dict[int, Frame] = {}
    with contextlib.suppress(BrokenEpisodeError):  # the picture is then shown as one that is not readable
        for index, frame in enumerate(frames):
            if index in wanted:
                found[index] = frame
            if len(found) == len(wanted):
                break
    return found


def strip_frames(num_frames: int) -> list[int]:
    """Returns the frames of a film strip: all of at most 20, else the middle of each of 16 equal spans of the episode."""
    count = num_frames if num_frames <= _SHORT_EPISODE else _STRIP_PICTURES
    return [int((place + 0.5) * num_frames / count) for place in range(count)]


def picture_element(picture: Frame | None, alt: str, side: int, max_bytes: int | None = None) -> str:
    """Returns an `img` element that holds the picture.

    Args:
        picture: The picture; None where it could not be read.
        alt: Text in place of the picture.
        side: Side of the thumbnail of a picture of more than 128 pixels; a smaller picture stays as it is.
        max_bytes: Largest size of the picture; a larger one becomes a thumbnail, in lower quality and smaller until it fits, but
            no smaller than a third of `side`.
    """
    try:
        pixels = None if picture is None else decoded_frame(picture)
    except ValueError:
        pixels = None
    if picture is None or pixels is None:
        return '<div class="unreadable">not readable</div>'
    small = max(pixels.shape[:2]) <= _SMALL_SIDE
    data = encoded_frame(picture) if small else b""
    is_kept = small and (max_bytes is None or len(data) <= max_bytes)
    mime = _MIME[image_extension(data)] if is_kept else "image/jpeg"
    for share, quality in () if is_kept else _THUMBNAILS:
        data = _thumbnail(pixels, int(side * share), quality)
        if max_bytes is None or len(data) <= max_bytes:
            break
    source = f"data:{mime};base64,{base64.b64encode(data).decode()}"
    return f'<img{" class=small" if is_kept else ""} alt="{html.escape(alt)}" src="{source}">'


def _thumbnail(pixels: np.ndarray, side: int, quality: int) -> bytes:
    thumbnail = Image.fromarray(pixels)
    thumbnail.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    thumbnail.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def threshold_words(quality: Mapping) -> str:
    """Returns the labels' threshold in words."""
    return "one per goal" if quality["threshold"] is None else f"{quality['threshold']:g}"


def examples_section(quality: Mapping, shown: Mapping[tuple[str, str], ShownEpisode], goals: Mapping[str, Goal]) -> str:
    """Returns the page's section of true positives, false positives and false negatives, with one picture each."""
    parts = ["<section id=examples><h2>Hits and misses</h2>"]
    parts.append(
        f"<p class=note>At the labels' own threshold, {threshold_words(quality)}. A few frames of each family and kind, at most "
        "one per goal and one per episode.</p>"
    )
    for kind, (title, meaning) in _KINDS.items():
        parts.append(f"<h3>{title} <span class=muted>{meaning}</span></h3>")
        for family, examples in _shown_examples(quality, kind).items():
            cards = "".join(example_card(example, shown, goals) for example in examples)
            empty = '<span class="note">none</span>'
            parts.append(
                f'<div class=kind><p class="note">{html.escape(family)}</p>'
                f"{f'<div class=cards>{cards}</div>' if cards else empty}</div>"
            )
    return "".join([*parts, "</section>"])


def example_card(
    example: Mapping,
    shown: Mapping[tuple[str, str], ShownEpisode],
    goals: Mapping[str, Goal],
    *,
    names_goal: bool = True,
) -> str:
    """Returns one frame: its picture, goal, score and source and, for a false positive, its cause and what holds instead.

    Args:
        example: Example of quality.json.
        shown: Episodes read by `gather`.
        goals: The labels' goals by id.
        names_goal: Whether the caption names the goal.
    """
    goal, frame = goals[example["goal"]], example["frame_index"]
    episode = shown.get((example["unit"], example["episode_id"]))
    picture = episode.pictures[frame] if episode else '<div class="unreadable">not readable</div>'
    score = "not over the threshold" if example["score"] is None else f"{example['score']:.3f}"
    here = f"<br>{html.escape(example['cause'])}" if "cause" in example else ""
    if episode and goal.id not in episode.truth[frame]:
        true = [
            goals[name] for name in sorted(episode.truth[frame]) if name in goals and goals[name].family == goal.family
        ]
        groups = {other.group or other.id: other.text for other in true}
        here += f"<br>holds here: {html.escape('; '.join(list(groups.values())[:2]) or 'none of this family')}"
    name = f"<b>{html.escape(goal.text)}</b>" if names_goal else ""
    return (
        f"<figure>{picture}<figcaption>{name}score {score}{here}<br><span class=source>"
        f"{html.escape(example['episode_id'])}, frame {frame}</span></figcaption></figure>"
    )
