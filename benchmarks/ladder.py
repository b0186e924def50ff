"""Mean average precision of a domain's reference models by the commands themselves, end to end, for the docs and the models' cards.

    python benchmarks/ladder.py [--domain babyai|openapp|playroom] [--episodes N] [--output FOLDER] [--cards]

Corpora of mixed policies, on levels no model was trained on. Records with `vlm-rewards record`, labels with `vlm-rewards label` as
it is by default, measures with `vlm-rewards evaluate`. BabyAI: frames of 56x56 pixels, and of 224x224, which the models' image
processor resizes. OpenApp: easy and hard phones. Playroom: full and small rooms of each family. --cards writes the figures into the
models' cards. Intervals and other settings, for BabyAI: benchmarks/figures.py.
"""

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path

from held_out import LEVELS, POLICIES, models_of, record, run
from report_result import RESULTS, machine, write_result

from vlm_rewards.labelers.domains.domain import domain_named
from vlm_rewards.labelers.reference_models import REFERENCE_FOLDER
from vlm_rewards.labelers.reference_models.model_card import write_card
from vlm_rewards.labelers.reference_models.pretraining import pretraining_of

SEED = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus:
    """What is recorded.

    Args:
        levels: Environments, of which each has the same number of episodes.
        episodes: Episodes of all together.
        frame_size: Height and width of a frame in pixels; None for the domain's first.
    """

    levels: tuple[str, ...]
    episodes: int
    frame_size: int | None = None


ROOMS = ("Find", "Lift", "Place")
CORPORA = {
    "babyai": {
        "56x56": Corpus(levels=LEVELS, episodes=1200, frame_size=56),
        "224x224": Corpus(levels=LEVELS, episodes=400, frame_size=224),
    },
    "openapp": {
        "easy phones": Corpus(levels=("vlm-rewards/OpenApp-v0",), episodes=200),
        "hard phones": Corpus(levels=("vlm-rewards/OpenAppHard-v0",), episodes=200),
    },
    "playroom": {
        "small rooms": Corpus(levels=tuple(f"vlm-rewards/Playroom-{family}Near-v0" for family in ROOMS), episodes=300),
        "full rooms": Corpus(levels=tuple(f"vlm-rewards/Playroom-{family}-v0" for family in ROOMS), episodes=300),
    },
}


def measure(model: str, corpus: Path, folder: Path) -> dict:
    """Labels the corpus with the model and evaluates the labels."""
    labels, report = str(folder / "labels"), folder / "report"
    goals = str(corpus / "goals.jsonl")
    start = time.monotonic()
    run(["label", "--input", str(corpus), "--goals", goals, "--model", model, "--output", labels])
    seconds = time.monotonic() - start
    run(["evaluate", "--input", str(corpus), "--labels", labels, "--output", str(report)])
    quality = json.loads((report / "quality.json").read_text())
    return {
        "frames": quality["counts"]["frames"],
        "episodes": quality["counts"]["episodes"],
        "label_seconds": round(seconds, 1),
        "families": {
            family: {
                "mean_average_precision": figures["mean_average_precision"],
                "goals_with_positives": figures["num_goals_with_positives"],
                **figures["pooled"]["at_threshold"],
            }
            for family, figures in quality["families"].items()
        },
    }


def add_to_card(domain: str, model: str, results: dict[str, dict]) -> None:
    """Writes a model's figures into its card."""
    folder = REFERENCE_FOLDER / model
    card = json.loads((folder / "card.json").read_text())
    for title, result in results.items():
        row = f"{result['episodes']:,} episodes, {title}, softmax with the neutral caption"
        card["figures"][row] = {
            family: round(figures["mean_average_precision"], 4)
            for family, figures in result["families"].items()
            if figures["mean_average_precision"] is not None
        }
    first, result = next(iter(results.items()))
    parts = [
        f"{family} {figures['precision']:.3f} and {figures['recall']:.3f}"
        for family, figures in result["families"].items()
        if figures["precision"] is not None and figures["recall"] is not None
    ]
    levels = [level.removeprefix("vlm-rewards/") for level in CORPORA[domain][first].levels]
    card["notes"] = [
        f"Episodes, {first}: {', '.join(levels)}; policies {POLICIES};",
        f"{result['frames']:,} frames; measured by `benchmarks/ladder.py`. At threshold 0.5, precision",
        f"and recall are {', '.join(parts)}.",
    ]
    write_card(folder, card, pretraining_of(domain_named(domain)).describe(card))


def main() -> None:
    """Measures every model of a domain on every corpus."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--domain", choices=sorted(CORPORA), default="babyai", help="whose models (default: babyai)")
    parser.add_argument("--episodes", type=int, metavar="N", help="of each corpus (default: as above)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results as JSON")
    parser.add_argument("--cards", action="store_true", help="write the figures into the models' cards")
    options = parser.parse_args()
    results: dict[str, dict[str, dict]] = {model: {} for model in models_of(options.domain)}
    with tempfile.TemporaryDirectory() as name:
        for title, corpus in CORPORA[options.domain].items():
            folder = Path(name) / title.replace(" ", "-")
            episodes = options.episodes or corpus.episodes
            record(folder, seed=SEED, episodes=episodes, frame_size=corpus.frame_size, levels=corpus.levels)
            for model, result in results.items():
                result[title] = measure(model, folder, Path(name) / f"{model}-{folder.name}")
    if options.cards:
        for model, result in results.items():
            add_to_card(options.domain, model, result)
    result_name = "ladder" if options.domain == "babyai" else f"ladder_{options.domain}"
    levels = {title: corpus.levels for title, corpus in CORPORA[options.domain].items()}
    about = {"machine": machine(), "levels": levels, "policies": POLICIES, "models": results}
    write_result(options.output, result_name, about)


if __name__ == "__main__":
    main()
