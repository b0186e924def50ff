"""Relabels a labelled corpus in hindsight: each episode once, with the goals it achieved and some it did not.

    pass 1   labels ──► achievements of each unit ──► sum by goal (Beam) ──► goal_statistics.json
                                                                                   │ how rare a goal is
    pass 2   each unit: labels, actions ──► choose goals ◄───────────────────┘
                                                └──► rewards [K, T] ──┬──► part (a row or sample per episode)
                        frames, streamed ─────────────────────────────┘

Pass 1 reads no frame. Pass 2 reads the frames once, after the goals of their episode are chosen, and holds a few of them.
"""

import contextlib
import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Unpack

import numpy as np

from vlm_rewards.labelers.rewards.hindsight import (
    HindsightSettings,
    choose_goals,
    goal_groups,
    original_goals,
    quotas,
)
from vlm_rewards.labelers.rewards.rewards import rewards_of_scores, successes
from vlm_rewards.pipelines.engine.driver import RunSummary, run_units
from vlm_rewards.pipelines.engine.outputs import OutputFolder, PartWriter
from vlm_rewards.pipelines.hindsight.goal_statistics import goal_statistics
from vlm_rewards.pipelines.hindsight.settings import HindsightKeywords, HindsightRun
from vlm_rewards.pipelines.record.recorded_environments import recorded_environments
from vlm_rewards.schemas.episodes import CorpusFeatures, Episode
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.folders import read_settings, write_atomically
from vlm_rewards.schemas.formats.corpus import BrokenEpisodeError, Corpus
from vlm_rewards.schemas.formats.label_parts.reader import (
    EpisodeLabels,
    Labels,
    check_units,
    open_labels,
    part_of_unit,
    read_labels,
)
from vlm_rewards.schemas.formats.passed_over import passed_over_record, without_outputs
from vlm_rewards.schemas.formats.relabelled_parts.writer import EXTENSIONS, check_relabelled_format, open_writer
from vlm_rewards.schemas.formats.truth import tells_of
from vlm_rewards.schemas.goals import GOAL_KINDS, Goal, normalize_instruction
from vlm_rewards.schemas.manifests import Failure, Unit
from vlm_rewards.schemas.options import build_settings, shows_settings
from vlm_rewards.schemas.relabelled import RelabelledEpisode
from vlm_rewards.schemas.rules import RewardRule

USAGE_NAME = "goal_usage.json"


class GoalTable(NamedTuple):
    """What relabelling needs to know of the goals; from `goal_table`.

    Attributes:
        goals: The G goals, in the order of the scores.
        rule: When a goal counts as achieved, and what a step is worth.
        originals: By normalized instruction, the index of the goal it asks for.
        groups: [G] int64, numbers of the groups.
        counts: [G] int64, the episodes of the corpus that achieve each goal.
    """

    goals: tuple[Goal, ...]
    rule: RewardRule
    originals: dict[str, int]
    groups: np.ndarray
    counts: np.ndarray


def goal_table(goals: Sequence[Goal], rule: RewardRule, counts: Sequence[int]) -> GoalTable:
    """Prepares the goals for `relabel_episode`; see `GoalTable`."""
    return GoalTable(tuple(goals), rule, original_goals(goals), goal_groups(goals), np.asarray(counts))


def relabel_episode(
    episode: Episode, scores: np.ndarray, table: GoalTable, settings: HindsightSettings
) -> tuple[RelabelledEpisode | None, Counter[str]]:
    """Relabels one episode with the goals it is worth training on.

    Args:
        episode: The recorded episode.
        scores: [F, G] float32, its labels, one row per frame.
        table: The goals.
        settings: Settings of the choice of goals.

    Returns:
        The relabelled episode, None if there is no goal for it, and counts: what became of its instruction, and the goals
        used, by kind ("original_goals") and by kind and goal ("original/<id>").
    """
    achieved = successes(scores, table.rule)
    instruction = None if episode.instruction is None else normalize_instruction(episode.instruction)
    original = None if instruction is None else table.originals.get(instruction)
    chosen = choose_goals(
        achieved,
        original=original,
        groups=table.groups,
        counts=table.counts,
        settings=settings,
        episode_id=episode.episode_id,
    )
    counts: Counter[str] = Counter()
    if instruction is None:
        counts["no_instruction"] += 1
    elif original is None:
        counts["instruction_matches_no_goal"] += 1
    elif any(item.kind == "original" for item in chosen):
        counts["original_achieved"] += chosen[0].terminated
    elif quotas(settings.goals_per_episode, settings.ratio)[0] and len(achieved) > 1:
        counts["original_holds_from_the_start"] += 1
    for item in chosen:
        counts[f"{item.kind}_goals"] += 1
        counts[f"{item.kind}/{table.goals[item.goal].id}"] += 1
    if not chosen:
        counts["episodes_without_a_goal"] += 1
        counts["episodes_of_one_frame"] += len(achieved) == 1
        return None, counts
    goals = [table.goals[item.goal] for item in chosen]
    return RelabelledEpisode(
        episode_id=episode.episode_id,
        images=episode.images,
        actions=None if episode.actions is None else episode.actions[episode.complete_steps],
        states=episode.states,
        instruction=episode.instruction,
        goal_ids=[goal.id for goal in goals],
        goal_texts=[goal.text for goal in goals],
        goal_kinds=[item.kind for item in chosen],
        rewards=rewards_of_scores(scores, table.rule)[:, [item.goal for item in chosen]].T.copy(),
        start=np.array([item.start for item in chosen], np.int32),
        stop=np.array([item.stop for item in chosen], np.int32),
        terminated=np.array([item.terminated for item in chosen], np.bool_),
    ), counts


@dataclasses.dataclass(frozen=True, kw_only=True)
class RelabelUnit:
    """Relabels one unit; see the module's picture.

    Args:
        corpus: The corpus.
        labels: Its labels.
        counts: By goal, the episodes of the corpus that achieve it.
        settings: Settings of the choice of goals.
        format_name: "parquet" or "webdataset".
        fingerprint: Fingerprint of the output.
    """

    corpus: Corpus
    labels: Labels
    counts: tuple[int, ...]
    settings: HindsightSettings
    format_name: str
    fingerprint: Fingerprint

    def __call__(self, unit: Unit, part: PartWriter) -> None:
        """Writes the unit's relabelled episodes."""
        table = goal_table(self.labels.metadata.goals, self.labels.metadata.rule, self.counts)
        episodes = self.corpus.episodes(unit, fields=("actions", "states", "instruction"))
        pairs = join_labels(episodes, read_labels(part_of_unit(self.labels, unit)))
        features = self.corpus.features
        with contextlib.closing(open_writer(self.format_name, part.path, features, self.fingerprint)) as writer:
            for episode, labels in _timed(pairs, part):
                failure = episode if isinstance(episode, Failure) else self._refusal(episode, labels)
                if failure is not None:
                    part.fail(failure, num_rows=1)  # a row of this output is an episode: so are its losses
                    continue
                assert isinstance(episode, Episode)
                assert labels is not None
                with part.timing("choose"):
                    relabelled, counts = relabel_episode(episode, labels.scores, table, self.settings)
                if relabelled is not None:
                    try:
                        with part.timing("write"):
                            writer.write(relabelled)
                    except BrokenEpisodeError as error:
                        part.fail(error.failure, num_rows=1)
                        continue
                    part.episodes += 1
                    part.advance(1)
                part.counts.update(counts)

    def _refusal(self, episode: Episode, labels: EpisodeLabels | None) -> Failure | None:
        labelled = [] if labels is None else labels.frame_indices.tolist()
        if labelled != list(range(episode.num_frames)):
            missing = sorted(set(range(episode.num_frames)) - set(labelled))
            return Failure(
                scope="episode",
                shard=episode.source,
                episode_id=episode.episode_id,
                reason="unlabelled frame",
                detail=f"every frame must have a label, got {len(labelled)} labels for {episode.num_frames} frames, the "
                f"first missing being of frame {missing[0] if missing else None}; see the failures of the labels, fix "
                "the recording and label it again",
            )
        own = CorpusFeatures.of(episode)
        for name in ("cameras", "action_size", "state_size"):
            expected = getattr(self.corpus.features, name)
            if getattr(own, name) != (tuple(sorted(expected)) if name == "cameras" else expected):
                return Failure(
                    scope="episode",
                    shard=episode.source,
                    episode_id=episode.episode_id,
                    reason="other features",
                    detail=f"every episode must have the {name} {expected} of its corpus, got {getattr(own, name)}; "
                    "write it to a corpus of its own",
                )
        return None


def join_labels(
    episodes: Iterable[Episode | Failure], labels: Iterable[EpisodeLabels]
) -> Iterator[tuple[Episode | Failure, EpisodeLabels | None]]:
    """Pairs a unit's episodes with their labels, both in the order of the corpus, holding one of each.

    Yields:
        Each episode with its labels, None if it has none; each failure to read one, with None.

    Raises:
        ValueError: There are labels of an episode that is not in its place in the corpus.
    """
    remaining = iter(labels)
    waiting = next(remaining, None)
    cut_short = False
    for episode in episodes:
        found = waiting is not None and waiting.episode_id == episode.episode_id
        yield episode, waiting if found and isinstance(episode, Episode) else None
        if found:
            waiting = next(remaining, None)
        cut_short |= isinstance(episode, Failure) and episode.scope == "shard"
    if waiting is not None and not cut_short:
        raise ValueError(
            f"labels must be of the episodes of the corpus, in their order, got labels of episode {waiting.episode_id!r}, "
            "which is not there; give the labels of this corpus, or label it again"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class HindsightSummary:
    """Summary of a run of `hindsight`.

    Args:
        run: Units and manifest.
        usage: What `goal_usage` says.
        has_ground_truth: Whether the corpus says of one of the goals in which frames it holds.
    """

    run: RunSummary
    usage: dict
    has_ground_truth: bool

    def __repr__(self) -> str:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.usage["kinds"].items())
        return f"HindsightSummary({self.run.manifest['episodes']:,} episodes with {kinds} goals{self.left_out})"

    @property
    def left_out(self) -> str:
        """Says how many episodes have no goal to train on, and how many of them have one frame; "" where none is left out."""
        without, single = (self.usage["episodes"][f"episodes_{name}"] for name in ("without_a_goal", "of_one_frame"))
        if not without:
            return ""
        return f"; {without:,} left out without a goal" + (f", {single:,} of them of one frame" if single else "")


@shows_settings(HindsightSettings, HindsightRun)
def hindsight(
    corpus: str | Path, labels: str | Path, *, output: str | Path, **settings: Unpack[HindsightKeywords]
) -> HindsightSummary:
    """Relabels a labelled corpus; run again after an interruption, it does what is missing.

    Args:
        corpus: Corpus that was labelled, a folder or one shard.
        labels: Folder of its labels, finished.
        output: Folder for the relabelled trajectories.
        settings: Fields of `HindsightSettings`, which goals to choose, and of `HindsightRun`, how to write.

    Returns:
        What was done. Beside the parts, the output has goal_statistics.json (how many episodes achieve each goal) and
        goal_usage.json (how often each goal was used).

    Raises:
        ValueError: The corpus, the labels, the format or the output folder do not fit; see the message.

    Example:
        >>> import vlm_rewards as vr
        >>> vr.hindsight("corpus/", "labels/", output="relabelled-2/", strategy="first")
        HindsightSummary(12 episodes with ... original, ... hindsight, ... negative goals)
    """
    which, run = build_settings(settings, HindsightSettings, HindsightRun)
    format_name, beam_options, workers = run.format, run.beam_options, run.workers
    check_relabelled_format(format_name)
    opened = open_labels(labels)
    source, units = opened.open_corpus(corpus)
    num_episodes = check_units(opened, source, units)
    recorded = {**dataclasses.asdict(which), "format": format_name}
    fingerprint = Fingerprint(
        {"labels": dict(opened.metadata.fingerprint.parts), "labels_digest": opened.digest, "hindsight": recorded}
    )
    folder = OutputFolder(
        output,
        kind="relabelled",
        fingerprint=fingerprint,
        settings={
            "source": str(corpus),
            "recorded_envs": recorded_environments(source.folder),
            "labels": str(labels),
            "labels_settings": read_settings(opened.folder)["settings"],
            "labels_fingerprint": dict(opened.metadata.fingerprint.parts),
            **recorded,
        },
        extension=EXTENSIONS[format_name],
    )
    with folder.claim(units):
        statistics = goal_statistics(opened, units, folder, beam_options=beam_options, workers=workers)
    summary = run_units(
        units,
        RelabelUnit(
            corpus=source,
            labels=opened,
            counts=tuple(statistics["goals"][goal.id]["achieved"] for goal in opened.metadata.goals),
            settings=which,
            format_name=format_name,
            fingerprint=fingerprint,
        ),
        folder,
        beam_options=beam_options,
        workers=workers,
        log_format=run.log_format,
        max_failure_share=run.max_failure_share,
        title="hindsight",
        counted_name="episodes",
        total=num_episodes,
        manifest_extra={
            "passed_over": passed_over_record(without_outputs(source.passed_over, source.folder, [output]))
        },
    )
    usage = goal_usage(folder, units)
    write_atomically(folder.path / USAGE_NAME, json.dumps(usage, indent=1, sort_keys=True) + "\n")
    return HindsightSummary(
        run=summary,
        usage=usage,
        has_ground_truth=tells_of(source.features, [goal.id for goal in opened.metadata.goals]),
    )


def goal_usage(folder: OutputFolder, units: Sequence[Unit]) -> dict:
    """Sums up from the markers of a finished output how often goals were used.

    Returns:
        {"kinds": goals used by kind, "ratio": their shares, "goals": {id: by kind}, "episodes": what became of the
        episodes' instructions, and episodes left out because there was no goal for them; among them those of one frame,
        which have no step}.
    """
    counts: Counter[str] = Counter()
    for unit in units:
        marker = folder.read_marker(unit)
        assert marker is not None, unit.name
        counts.update(marker.counts)
    kinds = {kind: counts[f"{kind}_goals"] for kind in GOAL_KINDS}
    goals: dict[str, dict[str, int]] = {}
    for name, count in sorted(counts.items()):
        kind, slash, goal_id = name.partition("/")
        if slash:
            goals.setdefault(goal_id, {})[kind] = count
    outcomes = (
        "original_achieved",
        "original_holds_from_the_start",
        "instruction_matches_no_goal",
        "no_instruction",
        "episodes_without_a_goal",
        "episodes_of_one_frame",
    )
    return {
        "kinds": kinds,
        "ratio": {kind: round(count / max(sum(kinds.values()), 1), 4) for kind, count in kinds.items()},
        "goals": goals,
        "episodes": {name: counts[name] for name in outcomes},
    }


def _timed(
    pairs: Iterator[tuple[Episode | Failure, EpisodeLabels | None]], part: PartWriter
) -> Iterator[tuple[Episode | Failure, EpisodeLabels | None]]:
    while True:
        with part.timing("read"):
            pair = next(pairs, None)
        if pair is None:
            return
        yield pair
