"""Mean average precision of every reference model on one corpus of mixed policies, on levels no model was trained on.

    python benchmarks/ladder.py [--output FOLDER]

Records with `vlm-rewards record`, labels with `vlm-rewards label` as it is by default, measures with `vlm-rewards evaluate`.
"""

import json
import tempfile
from pathlib import Path

from report_result import machine, parse_output, write_result

from labelers.encoders import reference_models
from vlm_rewards import main as vlm_rewards

LEVELS = ("BabyAI-GoToObj-v0", "BabyAI-GoToLocal-v0", "BabyAI-PickupDist-v0", "BabyAI-PutNextLocal-v0")
RECORD = ["record", "--policy", "bot:0.2,noisy-bot:0.5,random:0.3", "--episodes", "1200", "--episodes-per-shard", "100"]


def run(arguments: list[str]) -> None:
    """Runs one command of vlm-rewards, which must succeed."""
    if vlm_rewards(arguments) != 0:
        raise SystemExit(f"the command must succeed: vlm-rewards {' '.join(arguments)}")


def main() -> None:
    """Measures every model and prints a table."""
    output = parse_output(__doc__)
    models = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = str(folder / "corpus")
        levels = [argument for level in LEVELS for argument in ("--env", level)]
        run([*RECORD, *levels, "--seed", "0", "--output", corpus])
        for model in reference_models():
            labels, report = str(folder / f"labels-{model}"), folder / f"report-{model}"
            run(["label", "--input", corpus, "--goals", f"{corpus}/goals.jsonl", "--model", model, "--output", labels])
            run(["evaluate", "--input", corpus, "--labels", labels, "--output", str(report)])
            quality = json.loads((report / "quality.json").read_text())
            models[model] = {
                "frames": quality["counts"]["frames"],
                "mean_average_precision": {
                    family: figures["mean_average_precision"] for family, figures in quality["families"].items()
                },
                "goals_with_positives": {
                    family: figures["num_goals_with_positives"] for family, figures in quality["families"].items()
                },
                "at_threshold": {
                    family: figures["pooled"]["at_threshold"] for family, figures in quality["families"].items()
                },
            }
    write_result(
        output, "ladder", {"machine": machine(), "record": [*RECORD, *levels, "--seed", "0"], "models": models}
    )


if __name__ == "__main__":
    main()
