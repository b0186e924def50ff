"""The size ladder and the prompts, measured: figures 4 (left) and 5 of Baumli et al. 2023 for the reference models.

    python benchmarks/figures.py [--budget small|full] [--work FOLDER] [--output FOLDER]

On one corpus that nothing was chosen on: precision-recall of every model, average precision against size, by the goals' wording,
by formula and by the negatives. Writes figures.json and, under figures/, a picture of each as PNG and SVG. What is recorded
and embedded stays in the work folder, so that a second run only computes.

Average precision is the mean over a family's goals that occur; its intervals are of episodes drawn again, see bootstrap.py.
"""

import argparse
import dataclasses
import itertools
import json
import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bootstrap import INTERVAL, average_precisions, episode_weights, interval_of, mean_with_interval
from drawing import draw_figures
from held_out import LEVELS, POLICIES, GroundTruth, embed, models_of, read_truth, record
from report_result import RESULTS, machine, write_result
from wordings import UNKNOWN_WORDS, WORDINGS, what_was_read

from vlm_rewards.labelers.domains.babyai.goals import NEUTRAL
from vlm_rewards.labelers.encoders.dual_encoder import DualEncoder
from vlm_rewards.labelers.labeler import Labeler
from vlm_rewards.labelers.quality.figures import thinned_points
from vlm_rewards.labelers.quality.rankings import count_scores, curve_of_counts
from vlm_rewards.labelers.scoring.formulas import FORMULAS
from vlm_rewards.labelers.scoring.negatives import NegativeSettings
from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.schemas.goals import Goal

CORPUS_SEED = 271_828
"""Fixed before any figure of this corpus was seen; models, wordings and settings were chosen on other seeds."""

BOOTSTRAP_SEED = 1
CURVE_POINTS = 120
THRESHOLD = 0.5
MINECLIP_NEGATIVES = 31
"""Fan et al. 2022 score a goal among 31 others."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """How much is measured.

    Args:
        episodes: Of the corpus.
        num_resamples: Of its episodes, for the intervals.
        sampled: Numbers of sampled negatives, k.
        negative_seeds: Draws of them.
    """

    episodes: int
    num_resamples: int
    sampled: tuple[int, ...]
    negative_seeds: int


BUDGETS = {
    "small": Budget(episodes=60, num_resamples=100, sampled=(1, 8), negative_seeds=2),
    "full": Budget(episodes=1200, num_resamples=1000, sampled=(1, 2, 4, 8, 16, 32, 64), negative_seeds=5),
}


class Measurement:
    """Scores of one model on the corpus, and what they are worth; the frames are embedded once.

    Args:
        encoder: The model.
        embeddings: [N, D] float32, of the corpus's frames.
        truth: What holds in them.
        weights: Of its episodes, see `bootstrap.episode_weights`.
    """

    def __init__(self, encoder: DualEncoder, embeddings: np.ndarray, truth: GroundTruth, weights: np.ndarray) -> None:
        self.encoder = encoder
        self.goals = truth.goals
        self._embeddings = embeddings
        self._truth = truth
        self._weights = weights
        families = dict.fromkeys(goal.family for goal in truth.goals)
        self.members = {family: [goal.family == family for goal in truth.goals] for family in families}

    def scores(self, goals: tuple[Goal, ...] | None = None, **settings: Any) -> np.ndarray:
        """[N, G] float32 scores of the goals, by default the corpus's, under settings of a labeler."""
        formula = FORMULAS[settings.get("formula", "softmax")]
        chosen = LabelerSettings(
            model=self.encoder.name,
            goals=self.goals if goals is None else goals,
            threshold=0.0 if formula.default_threshold is None else None,  # average precision needs none
            precision=self.encoder.precision,
            **settings,
        )
        return Labeler(chosen, self.encoder).score(self._embeddings)

    def average_precisions(
        self, scores: np.ndarray, columns: np.ndarray | slice = slice(None), *, resampled: bool = True
    ) -> np.ndarray:
        """[G, 1 + R] average precision of every goal, or of those of some columns of the truth; [G, 1] without resamples."""
        weights = self._weights if resampled else self._weights[:, :1]
        return average_precisions(scores, self._truth.truth[:, columns], self._truth.episode, weights)

    def by_family(self, values: np.ndarray) -> dict[str, dict]:
        """`bootstrap.mean_with_interval` of every family."""
        return {family: mean_with_interval(values[members]) for family, members in self.members.items()}

    def curves(self, scores: np.ndarray) -> dict[str, dict]:
        """The pooled precision-recall curve of every family: all scores of its goals in one ranking, beta swept."""
        curves = {}
        for family, members in self.members.items():
            truth = self._truth.truth[:, members]
            curve = curve_of_counts(count_scores(scores[:, members].ravel(), truth.ravel()))
            points = thinned_points(curve.recall, CURVE_POINTS)
            over = scores[:, members] > THRESHOLD
            true_positives = int((over & truth).sum())
            curves[family] = {
                **{name: _rounded(column[points]) for name, column in curve._asdict().items()},
                "average_precision": float((np.diff(curve.recall, prepend=0) * curve.precision).sum()),
                "share_of_positives": float(truth.mean()),
                "at_threshold": {
                    "threshold": THRESHOLD,
                    "precision": true_positives / int(over.sum()) if over.any() else None,
                    "recall": true_positives / int(truth.sum()),
                },
            }
        return curves


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.5g}") for value in values]


def measure_wordings(measurement: Measurement) -> list[dict[str, Any]]:
    """Every wording beside one and the same negative, the neutral caption; a family with unknown words is not measured."""
    results: list[dict[str, Any]] = []
    for wording in WORDINGS:
        texts = wording.texts(measurement.goals)
        families: dict[str, dict] = {}
        for family, members in measurement.members.items():
            columns = np.flatnonzero(members)
            own = what_was_read(measurement.encoder.tokenizer.tokenizer, [texts[column] for column in columns])
            own |= {"pattern": getattr(wording, family), "example": texts[columns[0]]}
            if own["class"] != UNKNOWN_WORDS:
                goals = tuple(dataclasses.replace(measurement.goals[g], text=texts[g]) for g in columns)
                own |= mean_with_interval(measurement.average_precisions(measurement.scores(goals), columns))
            families[family] = own
        results.append({"name": wording.name, "style": wording.style, "families": families})
    return results


def formula_settings() -> dict[str, dict[str, Any]]:
    """The settings of every formula of the list by a title, in several variants where a formula has something to choose."""
    many = {"negatives": NegativeSettings(kind="sampled", k=MINECLIP_NEGATIVES)}
    variants: dict[str, dict[str, dict[str, Any]]] = {
        "goal-baseline": {f", alpha {alpha:g}": {"alpha": alpha, "baseline": NEUTRAL} for alpha in (0.25, 0.5, 1.0)},
        "softmax": {"": {}, f", {MINECLIP_NEGATIVES} more negatives": many},
        "shifted-softmax": {"": {}, f", {MINECLIP_NEGATIVES} more negatives": many},
    }
    return {
        f"{name}{title}": {"formula": name, **settings}
        for name in FORMULAS
        for title, settings in variants.get(name, {"": {}}).items()
    }


def measure_formulas(measurement: Measurement) -> list[dict[str, Any]]:
    """Every formula that the model has what it takes for, beside the neutral caption; of the others, why not."""
    results: list[dict[str, Any]] = []
    for title, settings in formula_settings().items():
        try:
            scores = measurement.scores(**settings)
        except ValueError as error:
            results.append({"name": title, "not_measured": str(error)})
        else:
            families = measurement.by_family(measurement.average_precisions(scores))
            results.append({"name": title, "families": families})
    return results


def measure_negatives(measurement: Measurement, budget: Budget) -> dict[str, list[dict]]:
    """The softmax among other goals, alone and with the neutral caption beside them: `goals` and `goals and neutral`."""
    bare = tuple(dataclasses.replace(goal, negatives=()) for goal in measurement.goals)
    kinds: list[tuple[str, list[NegativeSettings]]] = [
        (str(k), [NegativeSettings(kind="sampled", k=k, seed=seed) for seed in range(budget.negative_seeds)])
        for k in budget.sampled
    ]
    kinds += [(kind, [NegativeSettings(kind=kind)]) for kind in ("family", "all")]
    results: dict[str, list[dict]] = {"goals": [], "goals and neutral": []}
    results["goals and neutral"].append(_spread(measurement, "0", measurement.goals, [NegativeSettings()]))
    for name, choices in kinds:
        results["goals"].append(_spread(measurement, name, bare, choices))
        results["goals and neutral"].append(_spread(measurement, name, measurement.goals, choices))
    return results


def _spread(
    measurement: Measurement, name: str, goals: tuple[Goal, ...], choices: Iterable[NegativeSettings]
) -> dict[str, Any]:
    """Mean average precision of every draw of the negatives, by family."""
    draws = [
        measurement.average_precisions(measurement.scores(goals, negatives=choice), resampled=False)
        for choice in choices
    ]
    means = {
        family: [float(np.nanmean(values[members])) for values in draws]
        for family, members in measurement.members.items()
    }
    return {"negatives": name, "families": means}


def compare_sizes(values: Mapping[str, np.ndarray], parameters: Mapping[str, int]) -> dict[str, Any]:
    """Whether average precision rises with size, and by how much between neighbours, in the same resamples.

    Args:
        values: By model, [G, 1 + R] average precision of one family's goals.
        parameters: By model, its size.
    """
    order = sorted(values, key=lambda model: parameters[model])
    means = {model: np.nanmean(values[model], axis=0) for model in order}
    whole = {model: mean_with_interval(values[model]) for model in order}
    smallest, largest = (np.array(whole[model]["interval"]) for model in (order[0], order[-1]))
    steps = [
        {
            "from": smaller,
            "to": larger,
            "difference": float(means[larger][0] - means[smaller][0]),
            "interval": interval_of((means[larger] - means[smaller])[1:]),
        }
        for smaller, larger in itertools.pairwise(order)
    ]
    return {
        "order": order,
        "monotone": bool(all(step["difference"] > 0 for step in steps)),
        "smallest_and_largest_apart": bool(smallest[1] < largest[0]),
        "steps": steps,
    }


def measure(budget: Budget, work: Path, say: Callable[[str], None], models: Sequence[str]) -> dict[str, Any]:
    """Records, embeds and measures; see the module.

    Args:
        budget: How much.
        work: Folder for the corpus and the embeddings; what is finished there is kept.
        say: Takes a line of progress.
        models: Reference models to measure.

    Returns:
        What figures.json holds, but for the command and the machine.
    """
    corpus = work / "corpus"
    record(corpus, episodes=budget.episodes, seed=CORPUS_SEED)
    truth = read_truth(corpus)
    weights = episode_weights(truth.num_episodes, budget.num_resamples, BOOTSTRAP_SEED)
    results: dict[str, Any] = {"models": {}, "precision_recall": {}, "size": {}, "wordings": {}, "formulas": {}}
    results["negatives"] = {}
    of_size: dict[str, np.ndarray] = {}
    for model in models:
        encoder = DualEncoder.load(model)
        measurement = Measurement(encoder, embed(model, corpus, work / model, truth), truth, weights)
        scores = measurement.scores()
        of_size[model] = measurement.average_precisions(scores)
        results["models"][model] = {
            "image_parameters": sum(weight.numel() for weight in encoder.towers.model.vision_model.parameters()),
            "text_parameters": sum(weight.numel() for weight in encoder.towers.model.text_model.parameters()),
            "embedding": encoder.dim,
            "precision": encoder.precision,
            "temperature": encoder.temperature,
            "weights": encoder.weights_digest,
        }
        results["precision_recall"][model] = measurement.curves(scores)
        results["size"][model] = measurement.by_family(of_size[model])
        say(f"{model}: Place {results['size'][model]['place']}")
        results["wordings"][model] = measure_wordings(measurement)
        say(f"{model}: wordings")
        results["formulas"][model] = measure_formulas(measurement)
        say(f"{model}: formulas")
        results["negatives"][model] = measure_negatives(measurement, budget)
        say(f"{model}: negatives")
    parameters = {model: own["image_parameters"] for model, own in results["models"].items()}
    occurring = {
        family: int(truth.truth[:, members].any(axis=0).sum()) for family, members in measurement.members.items()
    }
    results["ladder"] = {
        family: compare_sizes({model: values[members] for model, values in of_size.items()}, parameters)
        for family, members in measurement.members.items()
    }
    results["corpus"] = {
        "levels": LEVELS,
        "policies": POLICIES,
        "seed": CORPUS_SEED,
        "episodes": truth.num_episodes,
        "frames": len(truth.truth),
        "goals": {family: sum(members) for family, members in measurement.members.items()},
        "goals_that_occur": occurring,
    }
    results["bootstrap"] = {
        "unit": "episodes",
        "resamples": budget.num_resamples,
        "seed": BOOTSTRAP_SEED,
        "interval": INTERVAL,
        "kind": "percentile",
    }
    results["neutral"] = NEUTRAL
    return results


def main() -> None:
    """Measures and draws everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", choices=tuple(BUDGETS), default="full", help="small takes a minute or two")
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="corpus and embeddings (default: build/figures-BUDGET)"
    )
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="DIR", help="default: benchmarks/results")
    options = parser.parse_args()
    started = time.perf_counter()

    def say(line: str) -> None:
        print(f"{time.perf_counter() - started:6.0f} s  {line}", flush=True)

    work = options.work or Path("build", f"figures-{options.budget}")
    results = measure(BUDGETS[options.budget], work, say, sorted(models_of("babyai")))
    results |= {
        "command": shlex.join(["python", "benchmarks/figures.py", "--budget", options.budget]),
        "budget": dataclasses.asdict(BUDGETS[options.budget]),
        "machine": machine(),
    }
    write_result(options.output, "figures", results)
    draw_figures(json.loads((options.output / "figures.json").read_text()), options.output / "figures")
    say(f"written to {options.output / 'figures.json'} and {options.output / 'figures'}")


if __name__ == "__main__":
    main()
