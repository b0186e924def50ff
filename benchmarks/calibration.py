"""Calibrated thresholds on episodes that did not choose them: does the bound hold, and is one threshold per goal worth it?

    python benchmarks/calibration.py [--output FOLDER]

Records a corpus of mixed policies with a seed of its own, labels it with the shipped models, and splits its episodes at random into
two halves, again and again: one chooses thresholds, the other judges them, with the functions of `vlm-rewards calibrate`.

- bound: for --objective fpr at a level of 1 % and 95 % confidence, how often the rate that is bounded (a frame drawn by drawing an
  episode, then one of its frames in which the goal does not hold) is at most the level, a pair of goal and split counting once;
  the same by goal, over splits, and by split, over goals. On the held-out half the rate is itself an estimate from 1,000
  episodes, which makes the check stricter than the promise, which is of the expected rate. Over the whole corpus the rate is exact,
  and the half a sample of it drawn without replacement, for which the bound holds as well.
- f1: figures of the held-out half for --objective f1 as the command applies it (the labels keep their threshold of 0.5 where the
  chosen ones do worse on episodes that did not choose them), for one threshold for all goals, which is the one of highest macro F1
  on the other half, and for 0.5.
- command: `vlm-rewards calibrate` with kept embeddings, temperature included, on corpora of other seeds, judged by labels of the
  whole corpus made with its file: none of these episodes chose anything.
"""

import dataclasses
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from held_out import LEVELS, POLICIES, record, run
from report_result import machine, parse_arguments, write_result

from vlm_rewards.labelers.calibration.counts import (
    CalibrationCounts,
    EpisodeScores,
    Outcomes,
    calibration_counts,
    merge_counts,
    outcomes_at,
)
from vlm_rewards.labelers.calibration.thresholds import CalibrationSettings, OperatingPoint, choose_thresholds
from vlm_rewards.labelers.calibration.worth import (
    NUM_FOLDS,
    best_global_threshold,
    held_out_outcomes,
    is_no_worse,
    log_losses,
    macro_f1,
    mean_log_loss,
)
from vlm_rewards.pipelines.calibrate.evidence import CorpusTruth
from vlm_rewards.schemas.formats.label_parts.reader import open_labels, part_of_unit, read_labels
from vlm_rewards.schemas.formats.truth import truth_goals
from vlm_rewards.schemas.goals import Goal

EPISODES = 2_000
SEED = 42
LABELS: dict[str, tuple[str, ...]] = {
    "reference-s, softmax": ("--model", "reference-s"),
    "reference-s, cosine": ("--model", "reference-s", "--formula", "cosine", "--threshold", "0.5"),
    "reference-s, softmax over the family": ("--model", "reference-s", "--negatives", "family"),
    "reference-m, softmax": ("--model", "reference-m"),
}
BOUND = CalibrationSettings(objective="fpr", level=0.01, confidence=0.95)
BOUND_SPLITS = 100
F1_SPLITS = 10
COMMAND_EPISODES = {40: 101, 400: 102, 2_000: 103}
"""Episodes to calibrate the command with, and the seed of their corpus."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus:
    """The entries of every episode's own counts, so that those of any set of episodes are sums over a mask.

    Args:
        goals: G goals.
        keys: [B] int64, the distinct keys of all episodes.
        entry: [K] int32, the key's place of each entry of an episode.
        episode: [K] int32, which episode it is of.
        columns: positives, negatives and losses of each entry, [K] float64 each, whole numbers.
        occurs: [2, E, G] bool, whether a goal holds, or fails to, in some frame of an episode.
    """

    goals: tuple[Goal, ...]
    keys: np.ndarray
    entry: np.ndarray
    episode: np.ndarray
    columns: tuple[np.ndarray, ...]
    occurs: np.ndarray

    def counts(self, episodes: np.ndarray) -> CalibrationCounts:
        """The counts of the episodes for which the mask [E] is true."""
        chosen = episodes[self.episode]
        entry = self.entry[chosen]
        sums = [
            np.bincount(entry, column[chosen], len(self.keys)).astype(np.int64) for column in self.columns
        ]  # exact: under 2^53
        filled = sums[0] + sums[1] > 0
        positives, negatives, losses = (column[filled] for column in sums)
        positive_episodes, negative_episodes = self.occurs[:, episodes].sum(axis=1)
        return CalibrationCounts(
            num_goals=len(self.goals),
            keys=self.keys[filled],
            positives=positives,
            negatives=negatives,
            losses=losses,
            positive_episodes=positive_episodes,
            negative_episodes=negative_episodes,
        )


def joined_episodes(corpus: Path, folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Joins labels with the ground truth of their corpus: scores and truth, [F, G] each, of every episode."""
    labels = open_labels(folder)
    goals = labels.metadata.goals
    columns = {goal.id: number for number, goal in enumerate(goals)}
    opened, units = labels.open_corpus(corpus)
    source = CorpusTruth(corpus=opened, columns=columns, covered=truth_goals(opened), num_goals=len(goals), camera=None)
    for unit in units:
        truth = source.of_unit(unit)
        for episode in read_labels(part_of_unit(labels, unit)):
            yield episode.scores, truth.of_episode(episode.episode_id, episode.frame_indices).truth


def read_corpus(corpus: Path, folder: Path) -> Corpus:
    """Counts the labels of every episode against its ground truth."""
    goals = open_labels(folder).metadata.goals
    counted = [
        calibration_counts([EpisodeScores(scores, truth)], len(goals))
        for scores, truth in joined_episodes(corpus, folder)
    ]
    keys, entry = np.unique(np.concatenate([counts.keys for counts in counted]), return_inverse=True)
    return Corpus(
        goals=goals,
        keys=keys,
        entry=entry.astype(np.int32),
        episode=np.repeat(np.arange(len(counted), dtype=np.int32), [len(counts.keys) for counts in counted]),
        columns=tuple(
            np.concatenate([getattr(counts, name) for counts in counted]).astype(np.float64)
            for name in ("positives", "negatives", "losses")
        ),
        occurs=np.array(
            [[getattr(counts, name) > 0 for counts in counted] for name in ("positive_episodes", "negative_episodes")]
        ),
    )


def halves(corpus: Corpus, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two masks [E] that share no episode."""
    num_episodes = corpus.occurs.shape[1]
    first = np.zeros(num_episodes, dtype=bool)
    first[rng.permutation(num_episodes)[: num_episodes // 2]] = True
    return first, ~first


def measure_bound(corpus: Corpus) -> dict[str, object]:
    """How often the bound holds, over pairs of goal and split."""
    rng = np.random.default_rng(0)
    whole = corpus.counts(np.ones(corpus.occurs.shape[1], dtype=bool))
    rates: dict[str, list[np.ndarray]] = {"calibration_half": [], "held_out_half": [], "whole_corpus": []}
    recalls = []
    for _ in range(BOUND_SPLITS):
        first, second = halves(corpus, rng)
        seen, unseen = corpus.counts(first), corpus.counts(second)
        thresholds = choose_thresholds([seen], corpus.goals, BOUND).thresholds
        for name, counts in (("calibration_half", seen), ("held_out_half", unseen), ("whole_corpus", whole)):
            rates[name].append(outcomes_at(counts, thresholds).mean_losses)
        outcomes = outcomes_at(unseen, thresholds)
        recalls.append(float(outcomes.true_positives.sum() / outcomes.positives.sum()))
    return {
        "level": BOUND.level,
        "confidence": BOUND.confidence,
        "splits": BOUND_SPLITS,
        "goals": len(corpus.goals),
        "mean_recall_of_held_out_frames": float(np.mean(recalls)),
        **{name: coverage(np.array(values)) for name, values in rates.items()},
    }


def coverage(rates: np.ndarray) -> dict[str, object]:
    """Of rates [splits, goals]: their mean, and where they are at most the level."""
    assert not np.isnan(rates).any(), "every goal fails to hold in some frame of every half"
    assert BOUND.level is not None
    holds = rates <= BOUND.level
    return {
        "mean_rate": float(rates.mean()),
        "highest_rate": float(rates.max()),
        "share_of_pairs_that_hold": float(holds.mean()),
        "share_of_splits_by_goal": {"lowest": float(holds.mean(axis=0).min()), "mean": float(holds.mean())},
        "goals_that_hold_in_95_of_100_splits": int((holds.mean(axis=0) >= 0.95).sum()),
        "share_of_goals_by_split": {"lowest": float(holds.mean(axis=1).min()), "mean": float(holds.mean())},
        "splits_in_which_95_of_100_goals_hold": int((holds.mean(axis=1) >= 0.95).sum()),
        "splits_in_which_all_goals_hold": int(holds.all(axis=1).sum()),
    }


def measure_f1(corpus: Corpus, default: float) -> dict[str, object]:
    """Held-out figures of --objective f1, of one threshold for all goals, and of the labels' own."""
    rng = np.random.default_rng(1)
    figures: dict[str, list[dict[str, Any]]] = {"f1": [], "one_threshold": [], "default_threshold": []}
    strengths, kept = [], 0
    for _ in range(F1_SPLITS):
        first, second = halves(corpus, rng)
        fold = rng.integers(0, NUM_FOLDS, len(first))
        folds, unseen = [corpus.counts(first & (fold == index)) for index in range(NUM_FOLDS)], corpus.counts(second)
        usual = [default] * len(corpus.goals)
        labels = OperatingPoint(folds, usual)
        chosen = choose_thresholds(folds, corpus.goals, CalibrationSettings(), labels)
        held_out = held_out_outcomes(folds, corpus.goals, CalibrationSettings(), labels)
        is_kept = not is_no_worse(held_out, labels.outcomes())
        kept += is_kept
        one_for_all = best_global_threshold(merge_counts(folds))
        for name, thresholds in (
            ("f1", usual if is_kept else chosen.thresholds),
            ("one_threshold", [one_for_all] * len(corpus.goals)),
            ("default_threshold", usual),
        ):
            figures[name].append(figures_of(outcomes_at(unseen, thresholds)))
        strengths.append(str(chosen.strength))
    return {
        "splits": F1_SPLITS,
        "splits_that_keep_the_labels": kept,
        **{name: {figure: mean([row[figure] for row in rows]) for figure in rows[0]} for name, rows in figures.items()},
        "change_from_the_labels": {
            figure: spread(
                [
                    after[figure] - before[figure]
                    for after, before in zip(figures["f1"], figures["default_threshold"], strict=True)
                    if after[figure] is not None and before[figure] is not None
                ]
            )
            for figure in figures["f1"][0]
        },
        "family_strengths": {strength: strengths.count(strength) for strength in sorted(set(strengths))},
    }


def figures_of(outcomes: Outcomes) -> dict[str, Any]:
    """Precision (None where nothing fires), recall and F1 of all frames together, and the mean F1 over goals."""
    return {
        "precision": outcomes.precision,
        "recall": float(outcomes.true_positives.sum() / outcomes.positives.sum()),
        "pooled_f1": outcomes.pooled_f1,
        "macro_f1": macro_f1(outcomes.f1),
    }


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of the values that are defined."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """Mean, lowest and highest."""
    if not values:
        return None
    return {"mean": float(np.mean(values)), "lowest": float(np.min(values)), "highest": float(np.max(values))}


def measure_command(
    corpora: Path, options: tuple[str, ...], corpus: Path, labels: Path, kept: Path
) -> dict[str, object]:
    """What a calibration from other episodes does to the labels of the corpus."""
    results: dict[str, object] = {"before": judge(corpus, labels)}
    for episodes, seed in COMMAND_EPISODES.items():
        source, work = corpora / f"calibration-{episodes}", labels.with_name(f"{labels.name}-{episodes}")
        record(source, episodes=episodes, seed=seed)
        embeddings = corpora / f"{kept.name}-{episodes}"
        inputs = ["--input", str(source), "--goals", str(source / "goals.jsonl"), "--embeddings", str(embeddings)]
        run(["label", *inputs, *options, "--output", str(work)])
        file = work.with_suffix(".json")
        truth = ["--labels", str(work), "--input", str(source), "--embeddings", str(embeddings)]
        run(["calibrate", *truth, "--output", str(file)])
        again = [
            "label",
            "--embeddings",
            str(kept),
            "--goals",
            str(corpus / "goals.jsonl"),
            *without_threshold(options),
        ]
        calibrated = work.with_name(f"{work.name}-calibrated")
        run([*again, "--calibration", str(file), "--output", str(calibrated)])
        found = json.loads(file.read_text())
        results[f"after {episodes} episodes"] = {
            "temperature": found["temperature"],
            "temperature_search": found["temperature_search"]["outcome"],
            "goals_that_keep_the_threshold_of_the_labels": sum(
                goal["chosen_from"] == "labels" for goal in found["goals"]
            ),
            **judge(corpus, calibrated),
        }
    return results


def without_threshold(options: tuple[str, ...]) -> list[str]:
    """The options that go together with --calibration, which holds the threshold."""
    place = options.index("--threshold") if "--threshold" in options else len(options)
    return [*options[:place], *options[place + 2 :]]


def judge(corpus: Path, folder: Path) -> dict[str, Any]:
    """Figures of labels at their own thresholds; the log loss where the scores are probabilities of a softmax."""
    labels = open_labels(folder)
    thresholds = labels.metadata.rule.thresholds
    joined = read_corpus(corpus, folder)
    whole = joined.counts(np.ones(joined.occurs.shape[1], dtype=bool))
    return {
        **figures_of(outcomes_at(whole, thresholds)),
        "log_loss": log_loss(corpus, folder) if labels.metadata.formula == "softmax" else None,
    }


def log_loss(corpus: Path, folder: Path) -> float:
    """The mean log loss over all frames of all goals, in nats."""
    labels = open_labels(folder)
    sums, frames = np.zeros((2, len(labels.metadata.goals), 2), dtype=np.int64)
    for scores, truth in joined_episodes(corpus, folder):
        sums += log_losses(scores, truth)
        frames += np.stack([truth.sum(axis=0), (~truth).sum(axis=0)], axis=1)
    return float(mean_log_loss(sums[None], frames)[0])


def main() -> None:
    """Measures every kind of labels."""
    arguments = parse_arguments(__doc__)
    results: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name:
        corpus = Path(name) / "corpus"
        record(corpus, episodes=EPISODES, seed=SEED)
        goals = str(corpus / "goals.jsonl")
        for title, options in LABELS.items():
            folder = Path(name) / title.replace(", ", "-").replace(" ", "-")
            kept = str(Path(name) / f"embeddings-{options[1]}")
            source = ["--input", str(corpus), "--goals", goals, "--embeddings", kept]
            run(["label", *source, *options, "--output", str(folder)])
            joined = read_corpus(corpus, folder)
            results[title] = {
                "f1": measure_f1(joined, default=0.5),
                "command": measure_command(Path(name), options, corpus, folder, Path(kept)),
                "bound": measure_bound(joined),
            }
            print(title, results[title], flush=True)
            setting = {"levels": LEVELS, "policies": POLICIES, "episodes": EPISODES, "seed": SEED}
            write_result(arguments.output, "calibration", {"machine": machine(), **setting, "labels": results})


if __name__ == "__main__":
    main()
