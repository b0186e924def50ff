"""Trains every reference model of some domains at once, within a time limit: the frames by all cores, the models on one device.

    for each domain: stock of frames, by all processes ──► one process per size, all on the device ──► weights and card
    afterwards: tars of the models, and a table of figures

The models of a domain train while the frames of the next one are drawn. A run that the time limit ends finishes its schedule early,
and its card says how many steps it took.

    python benchmarks/train_ladders.py --device cuda --minutes 5 --output FOLDER
"""

import argparse
import dataclasses
import functools
import json
import math
import multiprocessing
import os
import sys
import tarfile
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from vlm_rewards.labelers.domains.domain import domain_named

DOMAINS = ("openapp", "playroom")

END = 30.0
"""Seconds before the end in which figures are measured and tars written."""

MAX_TAR_BYTES = 15_000_000
"""Largest tar, unless one model is larger."""


def main() -> None:
    """Draws, trains and packs."""
    options = _options()
    started = time.monotonic()
    say = functools.partial(_say, started)
    options.output.mkdir(parents=True, exist_ok=True)
    until = time.time() + 60 * options.minutes - END
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        running = []
        for domain, recipes in {domain: _recipes(domain, options) for domain in options.domains}.items():
            say(f"{domain}: drawing frames by {options.processes} processes")
            try:
                _draw_stock(domain, recipes, options, work / "stock")
            except Exception:  # the other domains are trained all the same
                say(f"{domain}: no frames\n{traceback.format_exc()}")
                continue
            say(f"{domain}: frames drawn")
            for size, recipe in recipes.items():
                model = f"{domain}-{size}"
                arguments = (domain, recipe, options, work, model, until)
                process = multiprocessing.get_context("spawn").Process(target=_train, args=arguments)
                process.start()
                running.append((model, process))
        for model, process in running:
            process.join()
            say(f"{model}: ended with {process.exitcode}")
        _pack([work / model for model, process in running if process.exitcode == 0], options.output)
        logs = [f"== {log.stem}\n{log.read_text()}" for log in sorted(work.glob("*.log"))]
        (options.output / "training.log").write_text("\n".join(logs))
        failed = [model for model, process in running if process.exitcode != 0]
        for log in sorted(work.glob("*.log")):
            if log.stem in failed:
                print(log.read_text()[-3000:], flush=True)
        for model, _ in running:
            card = work / model / "card.json"
            if card.is_file():
                made = json.loads(card.read_text())
                size = sum(path.stat().st_size for path in (work / model).iterdir())
                print(
                    f"{model}: {made['steps']:,} steps, {made['seconds']} s, {made['parameters']}, {size / 1e6:.1f} MB, "
                    f"{json.dumps(made['figures'])}",
                    flush=True,
                )
    say("done")
    if failed or len(running) == 0:
        sys.exit(f"some models were not trained: {', '.join(failed) or 'none was'}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--minutes", type=float, default=math.inf, help="time limit of all together")
    parser.add_argument("--output", type=Path, required=True, help="folder for the tars and the log")
    parser.add_argument("--domains", nargs="+", default=list(DOMAINS), help="domains, in order")
    parser.add_argument("--sizes", nargs="+", help="sizes of models (default: all)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="processes that draw frames")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and data")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of all recipes, to try things out"
    )
    return parser.parse_args()


# torch is imported where a model is trained, and not by the processes that draw.


def _recipes(domain: str, options: argparse.Namespace) -> dict[str, Any]:
    from vlm_rewards.labelers.reference_models.pretraining import pretraining_of

    changes = {name: json.loads(value) for name, value in (text.split("=", 1) for text in options.set)}
    sizes = pretraining_of(domain_named(domain)).sizes
    chosen = {size: recipe for size, recipe in sizes.items() if not options.sizes or size in options.sizes}
    return {size: dataclasses.replace(recipe, **changes) for size, recipe in chosen.items()}


def _draw_stock(domain: str, recipes: dict[str, Any], options: argparse.Namespace, folder: Path) -> None:
    """Draws what the models of a domain train on and are measured on."""
    from vlm_rewards.labelers.domains.pretraining import Resources
    from vlm_rewards.labelers.reference_models.pretraining import pretraining_of

    for recipe in {(recipe.num_frames, recipe.num_evaluated): recipe for recipe in recipes.values()}.values():
        pretraining_of(domain_named(domain)).prepare(recipe, Resources("cpu", options.processes, folder))


def _train(domain: str, recipe: Any, options: argparse.Namespace, work: Path, model: str, until: float) -> None:
    with (work / f"{model}.log").open("w", buffering=1) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        import torch

        from vlm_rewards.labelers.reference_models.pretraining import pretrain

        torch.set_num_threads(1)

        def show(state: dict[str, float]) -> None:
            if state["step"] % 250 == 0 or state["step"] <= 100:
                print({name: round(value, 3) for name, value in state.items()}, flush=True)

        pretrain(
            domain_named(domain),
            recipe,
            work / model,
            seed=options.seed,
            device=options.device,
            stock=work / "stock",
            max_minutes=max(0.0, until - time.time()) / 60,
            progress=show,
        )


def _pack(models: list[Path], output: Path) -> None:
    """Writes as few tars as their size allows, each of whole models."""
    packs: list[list[Path]] = [[]]
    total = 0
    for model in models:
        size = sum(path.stat().st_size for path in model.iterdir())
        if packs[-1] and total + size > MAX_TAR_BYTES:
            packs.append([])
            total = 0
        packs[-1].append(model)
        total += size
    for number, pack in enumerate(packs):
        with tarfile.open(output / f"models-{number}.tar", "w") as tar:
            for model in pack:
                tar.add(model, arcname=model.name)


def _say(started: float, text: str) -> None:
    print(f"{time.monotonic() - started:6.1f} s  {text}", flush=True)


if __name__ == "__main__":
    main()
