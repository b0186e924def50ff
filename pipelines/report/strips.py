"""The report's film strips: an episode's pictures, and under them its scores, goal by frame.

    pictures of the episode  ──► the goals that hold, are taken to hold, or come near to it, a row each
                             └─► all goals, a family a band, a pixel row a goal

Which episodes are shown is decided by the evaluation, by ground truth alone; here only which goals get a large row.
"""

import html
import json
from collections.abc import Mapping, Sequence

import numpy as np

from vlm_rewards.labelers.calibration.counts import NEVER
from vlm_rewards.labelers.rewards.rewards import successes
from vlm_rewards.pipelines.report.heat_maps import (
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
from vlm_rewards.schemas.formats.label_parts.reader import Labels
from vlm_rewards.schemas.goals import Goal

_MAX_ROWS = 24
_NEAR_ROWS = 2
_MAX_OVERVIEW_GOALS = 1000
_LEAST_WIDTH, _MOST_WIDTH = 44, 120  # of a picture, in pixels


def strips_section(quality: Mapping, shown: Mapping[tuple[str, str], ShownEpisode], labels: Labels) -> str:
    """The page's section of film strips, with a heat map of the goals that matter and one of all goals under each."""
    evaluated = {goal["id"] for goal in quality["goals"]}
    columns = [index for index, goal in enumerate(labels.metadata.goals) if goal.id in evaluated]
    goals = [labels.metadata.goals[column] for column in columns]
    strips = [strip for strip in shown_strips(quality) if (strip["unit"], strip["episode_id"]) in shown]
    episodes = [shown[strip["unit"], strip["episode_id"]] for strip in strips]
    grids = [episode_grid(episode, labels, columns) for episode in episodes]
    rule = labels.metadata.rule.select(columns)
    low, high = score_range(grids, rule.thresholds)
    figures = "".join(
        _strip(strip, episode, grid, goals, (low, high), is_first=place == 0)
        for place, (strip, episode, grid) in enumerate(zip(strips, episodes, grids, strict=True))
    )
    names = json.dumps(
        [
            [goal.text, "never fires" if threshold >= NEVER else f"{threshold:.6g}"]
            for goal, threshold in zip(goals, rule.thresholds, strict=True)
        ],
        ensure_ascii=False,
    ).replace("<", "\\u003c")
    return (
        "<section id=strips><h2>Film strips</h2><p class=note>For each family, the episodes in which most of its goals begin or "
        "cease to hold, chosen by ground truth alone, never by score. Under the pictures, in line with them, a column a frame "
        "and a row a goal. A bar above that has none below is a false positive, a bar below that has none above a false negative."
        f"</p>{heat_legend(low, high, rule.common_threshold, quality['sparse']) if strips else ''}"
        f"{figures or '<p>No goal begins or ceases to hold in any episode.</p>'}"
        f'<script type="application/json" id="goal-names">{names if strips else "[]"}</script></section>'
    )


def episode_grid(episode: ShownEpisode, labels: Labels, columns: Sequence[int]) -> ScoreGrid:
    """The scores, the truth and the successes of an episode, [F, G], for the goals in these columns of the labels."""
    shape = (episode.num_frames, len(columns))
    scores, over = np.full(shape, np.nan, np.float32), np.zeros(shape, bool)
    frames = sorted(episode.scores)
    if frames:
        scores[frames] = np.stack([episode.scores[frame][list(columns)] for frame in frames])
        over[frames] = successes(scores[frames], labels.metadata.rule.select(list(columns)))
    ids = [labels.metadata.goals[column].id for column in columns]
    truth = np.array([[goal in achieved for goal in ids] for achieved in episode.truth], bool).reshape(shape)
    return ScoreGrid(scores, truth, over)


def goals_that_matter(grid: ScoreGrid, goals: Sequence[Goal], family: str) -> tuple[list[int], int]:
    """The goals that get a large row: those that hold or are taken to, and the two of highest score that neither do.

    Of a group of goals that mean the same, those after the first are left out if they agree with it in every frame. Where there
    are more than 24, half of the rows are for the goals with most frames of disagreement, the rest for those that hold longest.

    Args:
        grid: F frames of G goals.
        goals: These goals.
        family: The family the episode was chosen for; its goals come first.

    Returns:
        Their indices, family by family, in the order in which they begin; and how many matter that are left out.
    """
    wrong = (grid.over != grid.truth).sum(axis=0)
    held = grid.truth.sum(axis=0)
    peak = np.where(np.isnan(grid.scores), -np.inf, grid.scores).max(axis=0)
    seen: dict[str, list[bytes]] = {}
    matter: list[int] = []
    near: list[int] = []
    for index in sorted(range(len(goals)), key=lambda index: (goals[index].family != family, -peak[index], index)):
        pattern = np.packbits(np.stack([grid.truth[:, index], grid.over[:, index]])).tobytes()
        twins = seen.setdefault(goals[index].group or goals[index].id, [])
        if pattern not in twins:
            twins.append(pattern)
            (matter if held[index] or grid.over[:, index].any() else near).append(index)
    by_wrong = sorted((index for index in matter if wrong[index]), key=lambda index: -wrong[index])
    by_held = sorted((index for index in matter if not wrong[index]), key=lambda index: -held[index])
    first = by_wrong[: max(_MAX_ROWS // 2, _MAX_ROWS - len(by_held))]
    chosen = [*first, *by_held[: _MAX_ROWS - len(first)]]
    num_left_out = len(matter) - len(chosen)
    chosen += near[: min(_NEAR_ROWS, _MAX_ROWS - len(chosen))]
    families = list(dict.fromkeys([family, *(goal.family for goal in goals)]))
    begins = np.where((grid.truth | grid.over).any(axis=0), (grid.truth | grid.over).argmax(axis=0), len(grid.truth))
    return sorted(chosen, key=lambda index: (families.index(goals[index].family), begins[index], index)), num_left_out


def _strip(
    strip: Mapping,
    episode: ShownEpisode,
    grid: ScoreGrid,
    goals: Sequence[Goal],
    ends: tuple[float, float],
    *,
    is_first: bool,
) -> str:
    frames = strip_frames(episode.num_frames)
    chosen, num_left_out = goals_that_matter(grid, goals, strip["family"])
    joined, span = join_frames(grid)
    pictures = "".join(f"<div>{episode.reel[frame]}{frame}</div>" for frame in frames)
    rows = [
        f'<div class="row head"><span class=name>frame</span><div class=reel '
        f'style="grid-template-columns:repeat({len(frames)},minmax(0,1fr))">{pictures}</div></div>'
    ]
    family = None
    for index in chosen:
        if goals[index].family != family:
            family = goals[index].family
            rows.append(f'<div class="row group"><span class=name>{html.escape(family)}</span></div>')
        rows.append(_row(index, goals[index].text, joined.select([index]), ends))
    left_out = f"; {num_left_out} more goals that hold or fire are only in the overview" if num_left_out else ""
    wide = f"; each column is the highest of {span} frames" if span > 1 else ""
    name = html.escape(strip["episode_id"])
    return (
        f"<figure class=heat data-frames={episode.num_frames} data-span={span} data-low={ends[0]:.9g} data-high={ends[1]:.9g}>"
        f"<h3>{html.escape(strip['family'])}: episode {name} "
        f"<span class=muted>{plural(episode.num_frames, 'frame')}{wide}{left_out}</span></h3>"
        f'<div class="film scroll" tabindex=0 role=group aria-label="Scores goal by frame of episode {name}; arrow keys go from '
        f'cell to cell"><div class=cells-of style="--reel:{_LEAST_WIDTH * len(frames)}px;--most:{_MOST_WIDTH * len(frames)}px">'
        f"{''.join(rows)}"
        f"{_overview(joined, goals, ends, is_open=is_first)}</div></div>"
        "</figure>"
    )


def _row(index: int, text: str, grid: ScoreGrid, ends: tuple[float, float]) -> str:
    scores, truth, over = (part[:, 0] for part in grid)
    return (
        f"<div class=row><span class=name>{html.escape(text)}</span><div class=cells data-goal={index} "
        f'data-values="{cell_values(scores, truth, over)}">{heat_row(scores, truth, over, *ends)}</div></div>'
    )


def _overview(grid: ScoreGrid, goals: Sequence[Goal], ends: tuple[float, float], *, is_open: bool) -> str:
    everything = range(len(goals))
    peak = np.where(np.isnan(grid.scores), -np.inf, grid.scores).max(axis=0)
    foremost = sorted(everything, key=lambda index: (not (grid.truth | grid.over)[:, index].any(), -peak[index], index))
    kept = sorted(foremost[:_MAX_OVERVIEW_GOALS])
    row_height = 4 if len(kept) <= 60 else 3 if len(kept) <= 150 else 2
    bands = []
    for family in dict.fromkeys(goals[index].family for index in kept):
        members = [index for index in kept if goals[index].family == family]
        alt = f"Scores of {len(members)} goals of the family {family}, goal by frame"
        bands.append(
            f'<div class="row band"><span class=name>{html.escape(family)}<small>{plural(len(members), "goal")}</small></span>'
            f'<div class="cells all" data-goals="{" ".join(map(str, members))}" '
            f'style="height:{max(row_height * len(members), 24)}px">'
            f"{overview_picture(grid.select(members), *ends, alt)}</div></div>"
        )
    cut = f", the {len(kept):,} with the highest scores of {len(goals):,}" if len(kept) < len(goals) else ""
    return (
        f"<details class=overview{' open' if is_open else ''}><summary><span>All {len(kept):,} goals{cut}, a line each</span>"
        f"</summary>{''.join(bands)}</details>"
    )
