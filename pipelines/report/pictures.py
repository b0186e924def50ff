"""The pictures of the report: what of the corpus it shows, and single frames that were hit or missed.

    quality.json: which episodes and frames ──► gather: pictures and truth from the corpus, scores from the labels ──► HTML

Which they are is decided by the evaluation; nothing is chosen here.
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
from vlm_rewards.schemas.formats.label_parts.reader import Labels, read_labels
from vlm_rewards.schemas.goals import Goal
from vlm_rewards.schemas.manifests import Unit
from vlm_rewards.schemas.pictures import decoded_frame, encoded_frame, image_extension

MAX_STRIPS = 12
_EXAMPLES_A_KIND = 64
_STRIP_PICTURES = 16
_SHORT_EPISODE = 20
_SMALL_SIDE = 128
_CARD_SIDE = 192
_REEL_SIDE = 96
_MIME = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp", "bmp": "image/bmp"}
_KINDS = {
    "true_positives": ("True positives", "Over the threshold, and the goal holds: the highest scores."),
    "false_positives": ("False positives", "Over the threshold, though the goal does not hold: the highest scores."),
    "false_negatives": (
        "False negatives",
        "The goal holds, yet its score is not over the threshold: the lowest scores.",
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShownEpisode:
    """What the report keeps of an episode: the pictures it shows and the ground truth.

    Args:
        num_frames: Frames of the episode.
        pictures: By frame, an `img` element, or a note where the picture does not decode; of single frames that are shown.
        reel: The same, smaller, of the frames of a film strip; empty where the episode has none.
        truth: A frame each, the ids of the goals that hold.
        scores: By frame, its row of scores; only for film strips, and only of frames that have a label.
    """

    num_frames: int
    pictures: Mapping[int, str]
    reel: Mapping[int, str]
    truth: Sequence[frozenset[str]]
    scores: Mapping[int, np.ndarray]


def gather(
    quality: Mapping, corpus: Corpus, units: Sequence[Unit], labels: Labels
) -> dict[tuple[str, str], ShownEpisode]:
    """Reads the episodes that are shown, by unit and episode; of a unit only up to the last one that is needed."""
    frames: dict[tuple[str, str], set[int]] = {}
    for example in _examples(quality):
        frames.setdefault((example["unit"], example["episode_id"]), set()).add(example["frame_index"])
    strips = {(strip["unit"], strip["episode_id"]) for strip in shown_strips(quality)}
    camera = labels.metadata.fingerprint.parts.get("camera")
    shown = {}
    for unit in units:
        wanted = {episode_id for name, episode_id in frames.keys() | strips if name == unit.name}
        if not wanted:
            continue
        in_strips = {episode_id for name, episode_id in strips if name == unit.name}
        scores = _scores(labels, unit, in_strips)
        cameras = None if camera is None else [str(camera)]
        for episode in corpus.episodes(unit, cameras, fields=("achieved_goals",)):
            if isinstance(episode, Episode) and episode.episode_id in wanted:
                key = (unit.name, episode.episode_id)
                reel = strip_frames(episode.num_frames) if key in strips else []
                shown[key] = _shown(episode, frames.get(key, ()), reel, scores.get(episode.episode_id, {}))
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
    """At most 12 film strips, the first of every family before the second of any, in the order of the families."""
    places: dict[str, int] = {}
    ranked = []
    for order, strip in enumerate(quality["film_strips"]):
        ranked.append((places.get(strip["family"], 0), order, strip))
        places[strip["family"]] = places.get(strip["family"], 0) + 1
    chosen = sorted(ranked, key=lambda entry: entry[:2])[:MAX_STRIPS]
    return [strip for _, _, strip in sorted(chosen, key=lambda entry: entry[1])]


def _shown_examples(quality: Mapping, kind: str) -> dict[str, Sequence[Mapping]]:
    """By family: as many examples each as keep the kind at about 64 pictures, at least one."""
    families = quality["examples"][kind]
    limit = max(1, _EXAMPLES_A_KIND // len(families))
    return {family: examples[:limit] for family, examples in list(families.items())[:_EXAMPLES_A_KIND]}


def _scores(labels: Labels, unit: Unit, wanted: set[str]) -> dict[str, dict[int, np.ndarray]]:
    if not wanted:
        return {}
    return {
        episode.episode_id: dict(zip(episode.frame_indices.tolist(), episode.scores, strict=True))
        for episode in read_labels(labels.part(unit))
        if episode.episode_id in wanted
    }


def _shown(
    episode: Episode, frames: Collection[int], reel: Collection[int], scores: Mapping[int, np.ndarray]
) -> ShownEpisode:
    images = _pick(next(iter(episode.images.values())), {*frames, *reel})
    assert episode.achieved_goals is not None, "the evaluation has refused episodes without ground truth"
    return ShownEpisode(
        num_frames=episode.num_frames,
        pictures={
            frame: picture_element(images.get(frame), f"frame {frame} of {episode.episode_id}", _CARD_SIDE)
            for frame in frames
        },
        reel={frame: picture_element(images.get(frame), f"frame {frame}", _REEL_SIDE) for frame in reel},
        truth=[frozenset(achieved) for achieved in episode.achieved_goals],
        scores=scores,
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
    """The frames of a film strip: all of at most 20, else one in the middle of each of 16 equal spans of the episode."""
    count = num_frames if num_frames <= _SHORT_EPISODE else _STRIP_PICTURES
    return [int((place + 0.5) * num_frames / count) for place in range(count)]


def picture_element(picture: Frame | None, alt: str, side: int) -> str:
    """An `img` element with the picture inside: as it is if of at most 128 pixels a side, else as a thumbnail of at most `side`."""
    try:
        pixels = None if picture is None else decoded_frame(picture)
    except ValueError:
        pixels = None
    if picture is None or pixels is None:
        return '<div class="unreadable">not readable</div>'
    small = max(pixels.shape[:2]) <= _SMALL_SIDE
    if small:
        data = encoded_frame(picture)
        mime = _MIME[image_extension(data)]
    else:
        thumbnail = Image.fromarray(pixels)
        thumbnail.thumbnail((side, side), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        thumbnail.save(buffer, "JPEG", quality=85)
        data, mime = buffer.getvalue(), "image/jpeg"
    source = f"data:{mime};base64,{base64.b64encode(data).decode()}"
    return f'<img{" class=small" if small else ""} alt="{html.escape(alt)}" src="{source}">'


def threshold_words(quality: Mapping) -> str:
    """The labels' threshold in words."""
    return "one a goal" if quality["threshold"] is None else f"{quality['threshold']:g}"


def examples_section(quality: Mapping, shown: Mapping[tuple[str, str], ShownEpisode], goals: Mapping[str, Goal]) -> str:
    """The page's section of true positives, false positives and false negatives, a picture each."""
    parts = ["<section id=examples><h2>Hits and misses</h2>"]
    parts.append(
        f"<p class=note>At the labels' own threshold, {threshold_words(quality)}; of each family a few of a kind, at most one a "
        "goal and one an episode.</p>"
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
    """One frame: its picture, the goal, its score, where it is from and, of a false positive, what is true there.

    Args:
        example: As quality.json holds it.
        shown: What `gather` read.
        goals: The labels' goals by id.
        names_goal: Whether the goal is in the caption; not where all cards are of one goal.
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
        here += f"<br>true here: {html.escape('; '.join(list(groups.values())[:2]) or 'none of this family')}"
    name = f"<b>{html.escape(goal.text)}</b>" if names_goal else ""
    return (
        f"<figure>{picture}<figcaption>{name}score {score}{here}<br><span class=source>"
        f"{html.escape(example['episode_id'])}, frame {frame}</span></figcaption></figure>"
    )
