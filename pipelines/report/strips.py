"""The report's film strips: an episode's pictures, and below them its scores, goal by frame.

    pictures of the episode  ──► goals that hold, are labelled a success, or come close: one large row each
                             └─► all goals: one band per family, one row of pixels per goal

The evaluation chooses the episodes, by ground truth alone; this module only chooses which goals get a large row.
"""

import html
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from vlm_rewards.labelers.rewards.rewards import successes
from vlm_rewards.pipelines.report.heat_maps import (
    MAX_COLUMNS,
    ScoreGrid,
    cell_values,
    heat_legend,
    heat_row,
    join_frames,
    overview_picture,
    score_range,
)
from vlm_rewards.pipelines.report.pictures import ShownEpisode, shown_strips, strip_frames
from vlm_rewards.pipelines.report.tables import plural
from vlm_rewards.schemas.formats.label_parts.reader import EpisodeLabels, Labels, part_of_unit, read_labels
from vlm_rewards.schemas.goals import Goal
from vlm_rewards.schemas.manifests import Unit

_MAX_ROWS = 24
_NEAR_ROWS = 2
_MAX_OVERVIEW_GOALS = 1000
_MAX_OVERVIEW_PIXELS = 700_000  # of all strips together, where there are more goals than that
_LEAST_WIDTH, _MOST_WIDTH = 44, 120  # of a picture, in pixels


class StripGrid(NamedTuple):
    """The drawn part of one episode's scores.

    Attributes:
        rows: Goals with a large row, in their order.
        num_left_out: Number of goals that matter and have no large row.
        lines: Goals of the overview, rising.
        grid: Scores of `goals`, frames joined to columns.
        goals: Goals of the grid, rising.
        span: Number of frames per column.
        ends: Lowest and highest score of all goals, if any is known.
    """

    rows: list[int]
    num_left_out: int
    lines: list[int]
    grid: ScoreGrid
    goals: list[int]
    span: int
    ends: tuple[float, ...]

    def of(self, goals: Sequence[int]) -> ScoreGrid:
        """Returns the grid of these goals, which it must hold."""
        return self.grid.select(np.searchsorted(self.goals, goals).tolist())


def strips_section(
    quality: Mapping, shown: Mapping[tuple[str, str], ShownEpisode], labels: Labels, units: Sequence[Unit]
) -> str:
    """Returns the page's section of film strips, with a heat map of the goals that matter and one of all goals below each.

    The goals of the heat maps are numbered as in `quality["goals"]`, whose texts the page's script reads out.

    Args:
        quality: Contents of quality.json.
        shown: Episodes read by `pictures.gather`.
        labels: The labels.
        units: Units of the labels.
    """
    strips = [strip for strip in shown_strips(quality) if (strip["unit"], strip["episode_id"]) in shown]
    place = {goal.id: index for index, goal in enumerate(labels.metadata.goals)}
    columns = [place[goal["id"]] for goal in quality["goals"]]
    goals = [labels.metadata.goals[column] for column in columns]
    rule = labels.metadata.rule.select(columns)
    grids = _strip_grids(strips, shown, labels, units, columns)
    low, high = score_range([grid.ends for grid in grids], rule.thresholds)
    figures = "".join(
        _strip(strip, shown[strip["unit"], strip["episode_id"]], grid, goals, (low, high), is_first=number == 0)
        for number, (strip, grid) in enumerate(zip(strips, grids, strict=True))
    )
    num_strips = len(quality["film_strips"])
    cut = f" Shown are {len(strips)} of the {num_strips:,} strips in quality.json." if len(strips) < num_strips else ""
    return (
        "<section id=strips><h2>Film strips</h2><p class=note>For each family, the episodes in which most of its goals start or "
        "stop holding: chosen by ground truth, never by score. Below the pictures, each row is a goal and each column a frame. A "
        "bar above the cells without one below is a false positive; a bar below without one above is a false negative. Point at "
        f"a cell to read it, or use the arrow keys.{cut}</p>"
        f"{heat_legend(low, high, rule.common_threshold, quality['sparse']) if strips else ''}"
        f"{figures or '<p>No goal starts or stops holding in any episode.</p>'}</section>"
    )


def _strip_grids(
    strips: Sequence[Mapping],
    shown: Mapping[tuple[str, str], ShownEpisode],
    labels: Labels,
    units: Sequence[Unit],
    columns: Sequence[int],
) -> list[StripGrid]:
    """Returns the grid of each strip; only one episode's scores of all goals are in memory at a time."""
    goals = [labels.metadata.goals[column] for column in columns]
    max_lines = overview_goals(len(goals), [shown[strip["unit"], strip["episode_id"]].num_frames for strip in strips])
    grids: dict[tuple[str, str, str], StripGrid] = {}
    for unit in units:
        wanted = [strip for strip in strips if strip["unit"] == unit.name]
        for episode in read_labels(part_of_unit(labels, unit)) if wanted else ():
            families = [strip["family"] for strip in wanted if strip["episode_id"] == episode.episode_id]
            if families:
                grid = episode_grid(episode, shown[unit.name, episode.episode_id], labels, columns)
            for family in families:
                grids[unit.name, episode.episode_id, family] = strip_grid(grid, goals, family, max_lines)
    return [grids[strip["unit"], strip["episode_id"], strip["family"]] for strip in strips]


def strip_grid(grid: ScoreGrid, goals: Sequence[Goal], family: str, max_lines: int) -> StripGrid:
    """Chooses the goals that are drawn of an episode, and keeps only their scores.

    Args:
        grid: Scores and truth of F frames and G goals.
        goals: The G goals.
        family: Family that the episode was chosen for.
        max_lines: Number of goals in the overview.
    """
    rows, num_left_out = goals_that_matter(grid, goals, family)
    foremost = np.lexsort([-_peaks(grid), ~(grid.truth | grid.over).any(axis=0)])
    lines = sorted(foremost[:max_lines].tolist())
    kept = sorted({*rows, *lines})
    joined, span = join_frames(grid.select(kept))
    known = grid.scores[np.isfinite(grid.scores)]
    ends = (float(known.min()), float(known.max())) if known.size else ()
    return StripGrid(rows, num_left_out, lines, joined, kept, span, ends)


def overview_goals(num_goals: int, num_frames: Sequence[int]) -> int:
    """Returns the number of goals that an overview shows, for strips of these lengths: all, if there are at most 1,000.

    Of more, as many as keep all overviews together at 0.7 million pixels, about 1 MB of the page; at most 1,000, at least 100.
    """
    columns = sum(min(frames, MAX_COLUMNS) for frames in num_frames)
    if num_goals <= _MAX_OVERVIEW_GOALS:
        return num_goals
    return min(_MAX_OVERVIEW_GOALS, max(100, _MAX_OVERVIEW_PIXELS // max(columns, 1)))


def episode_grid(labelled: EpisodeLabels, episode: ShownEpisode, labels: Labels, columns: Sequence[int]) -> ScoreGrid:
    """Returns scores, truth and successes of an episode, [F, G], for the goals in these columns of the labels."""
    shape = (episode.num_frames, len(columns))
    scores, over, truth = np.full(shape, np.nan, np.float32), np.zeros(shape, bool), np.zeros(shape, bool)
    scores[labelled.frame_indices] = labelled.scores[:, list(columns)]
    over[labelled.frame_indices] = successes(scores[labelled.frame_indices], labels.metadata.rule.select(list(columns)))
    place = {labels.metadata.goals[column].id: index for index, column in enumerate(columns)}
    for frame, achieved in enumerate(episode.truth):
        truth[frame, [place[goal] for goal in achieved if goal in place]] = True
    return ScoreGrid(scores, truth, over)


def goals_that_matter(grid: ScoreGrid, goals: Sequence[Goal], family: str) -> tuple[list[int], int]:
    """Chooses the goals that get a large row: those that hold or are labelled a success, and two more of the highest scores.

    Of a group of goals that mean the same, those after the first are left out if they agree with it in every frame. Where more
    than 24 goals matter, half of the rows are for the goals with most wrong frames, the others for those that hold longest.

    Args:
        grid: Scores and truth of F frames and G goals.
        goals: The G goals.
        family: Family that the episode was chosen for; its goals come first.

    Returns:
        Indices of the goals, family by family, in the order in which they begin; and the number of goals that matter and are
        left out.
    """
    wrong = (grid.over != grid.truth).sum(axis=0)
    held = grid.truth.sum(axis=0)
    is_on = grid.truth | grid.over
    matters = is_on.any(axis=0)
    patterns = np.packbits(np.concatenate([grid.truth, grid.over]), axis=0).T
    is_other = np.array([goal.family != family for goal in goals])
    seen: dict[str, list[bytes]] = {}
    matter: list[int] = []
    near: list[int] = []
    for index in np.lexsort([-_peaks(grid), is_other]).tolist():
        pattern = patterns[index].tobytes()
        twins = seen.setdefault(goals[index].group or goals[index].id, [])
        if pattern not in twins:
            twins.append(pattern)
            (matter if matters[index] else near).append(index)
    by_wrong = sorted((index for index in matter if wrong[index]), key=lambda index: -wrong[index])
    by_held = sorted((index for index in matter if not wrong[index]), key=lambda index: -held[index])
    first = by_wrong[: max(_MAX_ROWS // 2, _MAX_ROWS - len(by_held))]
    chosen = [*first, *by_held[: _MAX_ROWS - len(first)]]
    num_left_out = len(matter) - len(chosen)
    chosen += near[: min(_NEAR_ROWS, _MAX_ROWS - len(chosen))]
    families = list(dict.fromkeys([family, *(goal.family for goal in goals)]))
    begins = np.where(matters, is_on.argmax(axis=0), len(grid.truth))
    return sorted(chosen, key=lambda index: (families.index(goals[index].family), begins[index], index)), num_left_out


def _peaks(grid: ScoreGrid) -> np.ndarray:
    """Returns [G] the highest score of each goal; -inf where none is known."""
    return np.where(np.isnan(grid.scores), -np.inf, grid.scores).max(axis=0)


def _strip(
    strip: Mapping,
    episode: ShownEpisode,
    drawn: StripGrid,
    goals: Sequence[Goal],
    ends: tuple[float, float],
    *,
    is_first: bool,
) -> str:
    frames = strip_frames(episode.num_frames)
    pictures = "".join(f"<div>{episode.reel[frame]}{frame}</div>" for frame in frames)
    rows = [
        f'<div class="row head"><span class=name>frame</span><div class=reel '
        f'style="grid-template-columns:repeat({len(frames)},minmax(0,1fr))">{pictures}</div></div>'
    ]
    family = None
    for index in drawn.rows:
        if goals[index].family != family:
            family = goals[index].family
            rows.append(f'<div class="row group"><span class=name>{html.escape(family)}</span></div>')
        rows.append(_row(index, goals[index].text, drawn.of([index]), ends))
    left_out = ""
    if drawn.num_left_out:
        left_out = f"; {drawn.num_left_out:,} more goals hold or are labelled a success and have no large row"
    wide = f"; each column shows the highest score of {drawn.span} frames" if drawn.span > 1 else ""
    name = html.escape(strip["episode_id"])
    return (
        f"<figure class=heat data-frames={episode.num_frames} data-span={drawn.span} data-low={ends[0]:.9g} "
        f"data-high={ends[1]:.9g}><h3>{html.escape(strip['family'])}: episode {name} "
        f"<span class=muted>{plural(episode.num_frames, 'frame')}{wide}{left_out}</span></h3>"
        f'<div class="film scroll" tabindex=0 role=group aria-label="Scores of episode {name}, one row per goal; arrow keys move '
        f'from cell to cell"><div class=cells-of style="--reel:{_LEAST_WIDTH * len(frames)}px;'
        f'--most:{_MOST_WIDTH * len(frames)}px">'
        f"{''.join(rows)}{_overview(drawn, goals, ends, is_open=is_first)}</div></div></figure>"
    )


def _row(index: int, text: str, grid: ScoreGrid, ends: tuple[float, float]) -> str:
    scores, truth, over = (part[:, 0] for part in grid)
    return (
        f"<div class=row><span class=name>{html.escape(text)}</span><div class=cells data-goal={index} "
        f'data-values="{cell_values(scores, truth, over)}">{heat_row(scores, truth, over, *ends)}</div></div>'
    )


def _overview(drawn: StripGrid, goals: Sequence[Goal], ends: tuple[float, float], *, is_open: bool) -> str:
    row_height = 4 if len(drawn.lines) <= 60 else 3 if len(drawn.lines) <= 150 else 2
    members: dict[str, list[int]] = {}
    for index in drawn.lines:
        members.setdefault(goals[index].family, []).append(index)
    bands = []
    for family, indices in members.items():
        alt = f"Scores of {len(indices)} goals of the family {family}, one row per goal, one column per frame"
        bands.append(
            f'<div class="row band"><span class=name>{html.escape(family)}<small>{plural(len(indices), "goal")}</small></span>'
            f'<div class="cells all" data-goals="{" ".join(map(str, indices))}" '
            f'style="height:{max(row_height * len(indices), 24)}px">'
            f"{overview_picture(drawn.of(indices), *ends, alt)}</div></div>"
        )
    which = f"All {len(goals):,} goals"
    if len(drawn.lines) < len(goals):
        which = (
            f"{len(drawn.lines):,} of {len(goals):,} goals: first those that hold or are labelled a success, then those with the "
            "highest scores"
        )
    return (
        f"<details class=overview{' open' if is_open else ''}><summary><span>{which}, one line each</span>"
        f"</summary>{''.join(bands)}</details>"
    )
