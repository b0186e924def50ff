"""Mean average precision of every reference model by the commands themselves, end to end, for the README and the models' cards.

    python benchmarks/ladder.py [--output FOLDER] [--cards]

Corpora of mixed policies, on levels no model was trained on. Records with `vlm-rewards record`, labels with `vlm-rewards label` as
it is by default, measures with `vlm-rewards evaluate`: frames of 56x56 pixels, and of 224x224, which the models' image processor
resizes. --cards writes the figures into the models' cards. Intervals and other settings: benchmarks/figures.py.
"""

import json
import tempfile
from pathlib import Path

from held_out import LEVELS, POLICIES, record, run
from report_result import machine, parse_arguments, write_result

from vlm_rewards.labelers.domains.babyai.pretraining import BABYAI_PRETRAINING
from vlm_rewards.labelers.encoders.checkpoints.loading import reference_models
from vlm_rewards.labelers.reference_models import REFERENCE_FOLDER
from vlm_rewards.labelers.reference_models.model_card import write_card

SEED = 0
CORPORA = {"56x56": {"episodes": 1200, "frame_size": 56}, "224x224": {"episodes": 400, "frame_size": 224}}


def measure(model: str, corpus: Path, folder: Path) -> dict:
    """Labels the corpus with the model and evaluates the labels."""
    labels, report = str(folder / "labels"), folder / "report"
    goals = str(corpus / "goals.jsonl")
    run(["label", "--input", str(corpus), "--goals", goals, "--model", model, "--output", labels])
    run(["evaluate", "--input", str(corpus), "--labels", labels, "--output", str(report)])
    quality = json.loads((report / "quality.json").read_text())
    return {
        "frames": quality["counts"]["frames"],
        "episodes": quality["counts"]["episodes"],
        "families": {
            family: {
                "mean_average_precision": figures["mean_average_precision"],
                "goals_with_positives": figures["num_goals_with_positives"],
                **figures["pooled"]["at_threshold"],
            }
            for family, figures in quality["families"].items()
        },
    }


def add_to_card(model: str, results: dict[str, dict]) -> None:
    """Writes a model's figures into its card."""
    folder = REFERENCE_FOLDER / model
    card = json.loads((folder / "card.json").read_text())
    for title, result in results.items():
        row = f"{result['episodes']:,} episodes, {title}, softmax with the neutral caption"
        card["figures"][row] = {
            family: round(figures["mean_average_precision"], 4) for family, figures in result["families"].items()
        }
    parts = [
        f"{family} {figures['precision']:.3f} and {figures['recall']:.3f}"
        for family, figures in results["56x56"]["families"].items()
    ]
    card["notes"] = [
        f"Episodes: {', '.join(LEVELS)}; policies {POLICIES};",
        f"{results['56x56']['frames']:,} frames of 56x56 pixels; measured by `benchmarks/ladder.py`. At threshold 0.5, precision",
        f"and recall are {', '.join(parts)}.",
    ]
    write_card(folder, card, BABYAI_PRETRAINING.describe(card))


def main() -> None:
    """Measures every model on every corpus."""
    arguments = parse_arguments(__doc__, cards="write the figures into the models' cards")
    results: dict[str, dict[str, dict]] = {model: {} for model in reference_models()}
    with tempfile.TemporaryDirectory() as name:
        for title, options in CORPORA.items():
            corpus = Path(name) / title
            record(corpus, seed=SEED, **options)
            for model, result in results.items():
                result[title] = measure(model, corpus, Path(name) / f"{model}-{title}")
    if arguments.cards:
        for model, result in results.items():
            add_to_card(model, result)
    write_result(
        arguments.output, "ladder", {"machine": machine(), "levels": LEVELS, "policies": POLICIES, "models": results}
    )


if __name__ == "__main__":
    main()
