"""The pictures of the report: film strips with scores under them, and single frames that were hit or missed.

    quality.json: which episodes and frames ──► gather: pictures and truth from the corpus, scores from the labels ──► HTML

Which they are is decided by the evaluation; nothing is chosen here but the goals under a film strip.
"""

import base64
import dataclasses
import html
import io
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from PIL import Image

from pipelines.charts import score_track
from pipelines.corpora import read_episodes
from pipelines.images import decode_image, image_extension
from pipelines.label_parts import Labels, read_labels
from schemas.episodes import Episode
from schemas.goals import Goal
from schemas.manifests import Unit

_STRIP_PICTURES = 16
_TRUE_TRACKS = 4
_FALSE_TRACKS = 2
_SMALL_SIDE = 128
_THUMBNAIL_SIDE = 192
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
        pictures: By frame, an `img` element, or a note where the picture does not decode.
        truth: A frame each, the ids of the goals that hold.
        scores: By frame, its row of scores; only for film strips, and only of frames that have a label.
    """

    num_frames: int
    pictures: Mapping[int, str]
    truth: Sequence[frozenset[str]]
    scores: Mapping[int, np.ndarray]


def gather(quality: Mapping, units: Sequence[Unit], labels: Labels) -> dict[tuple[str, str], ShownEpisode]:
    """Reads the episodes that are shown, by unit and episode; of a unit only up to the last one that is needed."""
    frames: dict[tuple[str, str], set[int]] = {}
    for example in _examples(quality):
        frames.setdefault((example["unit"], example["episode_id"]), set()).add(example["frame_index"])
    strips = {(strip["unit"], strip["episode_id"]) for strip in quality["film_strips"]}
    camera = labels.metadata.fingerprint.parts.get("camera")
    shown = {}
    for unit in units:
        wanted = {episode_id for name, episode_id in frames.keys() | strips if name == unit.name}
        if not wanted:
            continue
        in_strips = {episode_id for name, episode_id in strips if name == unit.name}
        scores = _scores(labels, unit, in_strips)
        for episode in read_episodes(unit, images=True, cameras=None if camera is None else [str(camera)]):
            if isinstance(episode, Episode) and episode.episode_id in wanted:
                key = (unit.name, episode.episode_id)
                needed = frames.get(key, set()) | (set(strip_frames(episode.num_frames)) if key in strips else set())
                shown[key] = _shown(episode, needed, scores.get(episode.episode_id, {}))
                wanted.remove(episode.episode_id)
                if not wanted:
                    break
    return shown


def _examples(quality: Mapping) -> Iterable[Mapping]:
    return (
        example for families in quality["examples"].values() for examples in families.values() for example in examples
    )


def _scores(labels: Labels, unit: Unit, wanted: set[str]) -> dict[str, dict[int, np.ndarray]]:
    if not wanted:
        return {}
    return {
        episode.episode_id: dict(zip(episode.frame_indices.tolist(), episode.scores, strict=True))
        for episode in read_labels(labels.part(unit))
        if episode.episode_id in wanted
    }


def _shown(episode: Episode, frames: Iterable[int], scores: Mapping[int, np.ndarray]) -> ShownEpisode:
    pictures = next(iter(episode.images.values()))
    assert episode.achieved_goals is not None, "the evaluation has refused episodes without ground truth"
    return ShownEpisode(
        num_frames=episode.num_frames,
        pictures={
            frame: picture_element(pictures[frame], f"frame {frame} of {episode.episode_id}") for frame in frames
        },
        truth=[frozenset(achieved) for achieved in episode.achieved_goals],
        scores=scores,
    )


def strip_frames(num_frames: int) -> list[int]:
    """The frames of a film strip: one in the middle of each of at most 16 equal spans of the episode."""
    count = min(num_frames, _STRIP_PICTURES)
    return [int((place + 0.5) * num_frames / count) for place in range(count)]


def picture_element(data: bytes, alt: str) -> str:
    """An `img` element with the picture inside: as it is if small, else as a thumbnail of at most 192 pixels a side."""
    try:
        frame = decode_image(data)
    except ValueError:
        return '<div class="unreadable">not readable</div>'
    height, width = frame.shape[:2]
    small = max(height, width) <= _SMALL_SIDE
    if small:
        mime = _MIME[image_extension(data)]
    else:
        thumbnail = Image.fromarray(frame)
        thumbnail.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        thumbnail.save(buffer, "JPEG", quality=85)
        data, mime = buffer.getvalue(), "image/jpeg"
    source = f"data:{mime};base64,{base64.b64encode(data).decode()}"
    return f'<img{" class=small" if small else ""} alt="{html.escape(alt)}" src="{source}">'


def strips_section(quality: Mapping, shown: Mapping[tuple[str, str], ShownEpisode], labels: Labels) -> str:
    """The page's section of film strips: frames of an episode with the scores of several goals under them, and the truth."""
    strips = [
        _strip(strip, shown[strip["unit"], strip["episode_id"]], labels, {goal["id"] for goal in quality["goals"]})
        for strip in quality["film_strips"]
        if (strip["unit"], strip["episode_id"]) in shown
    ]
    return (
        "<section id=strips><h2>Film strips</h2><p class=note>For each family, the episodes in which most of its goals begin or "
        "cease to hold, chosen by ground truth alone, never by score. Under the pictures: goals that hold longest, and goals "
        "that never hold here but score highest. One bar a frame, in line with the pictures; the dashed line is the "
        'threshold.</p><p class=note><span class="swatch" style="background:var(--hot)"></span>over the threshold'
        '<span class="swatch" style="background:var(--cold)"></span>not over it'
        '<span class="swatch" style="background:var(--truth)"></span>the goal holds (ground truth)'
        '<span class="swatch" style="background:var(--missing)"></span>no label</p>'
        f"{''.join(strips) or '<p>No goal begins or ceases to hold in any episode.</p>'}</section>"
    )


def threshold_words(quality: Mapping) -> str:
    """The labels' threshold in words."""
    return "one a goal" if quality["threshold"] is None else f"{quality['threshold']:g}"


def _strip(strip: Mapping, episode: ShownEpisode, labels: Labels, evaluated: set[str]) -> str:
    frames = strip_frames(episode.num_frames)
    tracks = track_goals(labels.metadata.goals, episode, strip["family"], evaluated)
    columns = [index for index, _ in tracks]
    known = [row[columns] for row in episode.scores.values()]
    thresholds = labels.metadata.rule.thresholds
    finite = [score for row in known for score in row.tolist() if np.isfinite(score)]
    finite += [thresholds[column] for column in columns]
    low, high = min(0.0, *finite), max(finite)
    pictures = "".join(f"<div>{episode.pictures[frame]}{frame}</div>" for frame in frames)
    rows = ""
    for index, goal in tracks:
        scores = [float(episode.scores[f][index]) if f in episode.scores else None for f in range(episode.num_frames)]
        truth = [goal.id in achieved for achieved in episode.truth]
        track = score_track(scores, truth, thresholds[index], low, high)
        rows += f"<div class=track><span class=name>{html.escape(goal.text)}</span>{track}</div>"
    return (
        f"<h3>{html.escape(strip['family'])}: episode {html.escape(strip['episode_id'])} <span class=muted>"
        f"({episode.num_frames} frames; bars from {low:.3g} to {high:.3g})</span></h3>"
        f'<div class=film tabindex=0><div style="min-width:{44 * len(frames)}px">'
        f'<div class=reel style="grid-template-columns:repeat({len(frames)},minmax(0,1fr))">{pictures}</div>{rows}</div></div>'
    )


def track_goals(
    goals: Sequence[Goal], episode: ShownEpisode, family: str, evaluated: set[str]
) -> list[tuple[int, Goal]]:
    """The goals shown under a film strip, with their column in the scores.

    Up to four that hold, those that hold in most frames first, then up to two that never do, those with the highest score
    first; of a group of goals that mean the same only one.
    """
    holds = {goal.id: sum(goal.id in achieved for achieved in episode.truth) for goal in goals if goal.family == family}
    peak = np.max(list(episode.scores.values()), axis=0) if episode.scores else np.zeros(len(goals))
    members = [(index, goal) for index, goal in enumerate(goals) if goal.family == family and goal.id in evaluated]
    true = sorted((member for member in members if holds[member[1].id]), key=lambda member: -holds[member[1].id])
    false = sorted((member for member in members if not holds[member[1].id]), key=lambda member: -peak[member[0]])
    seen: set[str] = set()

    def distinct(candidates: Iterable[tuple[int, Goal]]) -> Iterator[tuple[int, Goal]]:
        for index, goal in candidates:
            group = goal.group or goal.id
            if group not in seen:
                seen.add(group)
                yield index, goal

    return [*itertools.islice(distinct(true), _TRUE_TRACKS), *itertools.islice(distinct(false), _FALSE_TRACKS)]


def examples_section(quality: Mapping, shown: Mapping[tuple[str, str], ShownEpisode], goals: Mapping[str, Goal]) -> str:
    """The page's section of true positives, false positives and false negatives, a picture each."""
    parts = ["<section id=examples><h2>Hits and misses</h2>"]
    parts.append(
        f"<p class=note>At the labels' own threshold, {threshold_words(quality)}; of each family at most eight of a kind, one a "
        "goal and one an episode.</p>"
    )
    for kind, (title, meaning) in _KINDS.items():
        parts.append(f"<h3>{title} <span class=muted>{meaning}</span></h3>")
        for family, examples in quality["examples"][kind].items():
            cards = "".join(_card(example, shown, goals) for example in examples)
            empty = '<p class="note">None.</p>'
            parts.append(
                f"<p class=note>{html.escape(family)}</p>{f'<div class=cards>{cards}</div>' if cards else empty}"
            )
    return "".join([*parts, "</section>"])


def _card(example: Mapping, shown: Mapping[tuple[str, str], ShownEpisode], goals: Mapping[str, Goal]) -> str:
    goal, frame = goals[example["goal"]], example["frame_index"]
    episode = shown.get((example["unit"], example["episode_id"]))
    picture = episode.pictures[frame] if episode else '<div class="unreadable">not readable</div>'
    score = "not over the threshold" if example["score"] is None else f"{example['score']:.3f}"
    here = ""
    if episode and goal.id not in episode.truth[frame]:
        true = [
            goals[name] for name in sorted(episode.truth[frame]) if name in goals and goals[name].family == goal.family
        ]
        groups = {other.group or other.id: other.text for other in true}
        here = f"<br>true here: {html.escape('; '.join(list(groups.values())[:2]) or 'none of this family')}"
    return (
        f"<figure>{picture}<figcaption><b>{html.escape(goal.text)}</b>score {score}<br>"
        f"{html.escape(example['episode_id'])}, frame {frame}{here}</figcaption></figure>"
    )
