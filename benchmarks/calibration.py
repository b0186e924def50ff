"""Calibrated thresholds on episodes that did not choose them: does the bound hold, and is a threshold a goal worth it?

    python benchmarks/calibration.py [--output FOLDER]

Records a corpus of mixed policies with a seed of its own, labels it with the shipped models, and splits its episodes at random into
two halves, again and again: one chooses thresholds, the other judges them, with the functions of `vlm-rewards calibrate`.

- bound: for --objective fpr at a level of 1 % and 95 % confidence, how often the rate that is bounded (a frame drawn by drawing an
  episode, then one of its frames in which the goal does not hold) is at most the level, a pair of goal and split counting once;
  the same by goal, over splits, and by split, over goals. On the held-out half the rate is itself an estimate from 1,000
  episodes, which makes the check stricter than the promise, which is of the expected rate. Over the whole corpus the rate is exact,
  and the half a sample of it drawn without replacement, for which the bound holds as well.
- f1: macro F1 on the held-out half of a threshold a goal, of one threshold for all goals, which is the one of highest macro F1 on
  the other half and so the hardest to beat, and of 0.5.
"""

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
from held_out import LEVELS, POLICIES, record, run
from report_result import machine, parse_arguments, write_result

from vlm_rewards.labelers.calibration.counts import (
    CalibrationCounts,
    EpisodeScores,
    calibration_counts,
    merge_counts,
    outcomes_at,
)
from vlm_rewards.labelers.calibration.thresholds import CalibrationSettings, choose_thresholds
from vlm_rewards.labelers.calibration.worth import best_global_threshold, macro_f1
from vlm_rewards.pipelines.calibrate.evidence import CorpusTruth
from vlm_rewards.schemas.formats.label_parts.reader import open_labels, read_labels
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
F1_SPLITS = 30


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


def read_corpus(corpus: Path, folder: Path) -> Corpus:
    """Joins labels with the ground truth of their corpus, episode by episode."""
    labels = open_labels(folder)
    goals = labels.metadata.goals
    columns = {goal.id: number for number, goal in enumerate(goals)}
    source = CorpusTruth(columns=columns, num_goals=len(goals), camera=None)
    counted = []
    for unit in labels.open_corpus(corpus)[1]:
        truth = source.of_unit(unit)
        for episode in read_labels(labels.part(unit)):
            known = truth.of_episode(episode.episode_id, episode.frame_indices)
            counted.append(calibration_counts([EpisodeScores(episode.scores, known.truth)], len(goals)))
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
    """Held-out macro F1 of a threshold a goal and of one for all."""
    rng = np.random.default_rng(1)
    own, one, usual, strengths = [], [], [], []
    for _ in range(F1_SPLITS):
        first, second = halves(corpus, rng)
        fold = rng.integers(0, 2, len(first)).astype(bool)
        folds, unseen = [corpus.counts(first & fold), corpus.counts(first & ~fold)], corpus.counts(second)
        chosen = choose_thresholds(folds, corpus.goals, CalibrationSettings())
        one_for_all = best_global_threshold(merge_counts(folds))
        own.append(macro_f1(outcomes_at(unseen, chosen.thresholds).f1))
        one.append(macro_f1(outcomes_at(unseen, [one_for_all] * len(corpus.goals)).f1))
        usual.append(macro_f1(outcomes_at(unseen, [default] * len(corpus.goals)).f1))
        strengths.append(str(chosen.strength))
    gain = np.subtract(own, one)
    return {
        "splits": F1_SPLITS,
        "a_threshold_a_goal": float(np.mean(own)),
        "one_threshold": float(np.mean(one)),
        "default_threshold": float(np.mean(usual)),
        "gain_over_one_threshold": {
            "mean": float(gain.mean()),
            "lowest": float(gain.min()),
            "highest": float(gain.max()),
            "splits_with_a_gain": int((gain > 0).sum()),
            "splits_with_a_loss": int((gain < 0).sum()),
        },
        "family_strengths": {strength: strengths.count(strength) for strength in sorted(set(strengths))},
    }


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
            results[title] = {"f1": measure_f1(joined, default=0.5), "bound": measure_bound(joined)}
            print(title, results[title], flush=True)
            setting = {"levels": LEVELS, "policies": POLICIES, "episodes": EPISODES, "seed": SEED}
            write_result(arguments.output, "calibration", {"machine": machine(), **setting, "labels": results})


if __name__ == "__main__":
    main()
