"""`vlm-rewards pretrain`: trains a small reference model of a domain."""

import argparse
import sys
from pathlib import Path

from vlm_rewards.command_line.options import add_output
from vlm_rewards.command_line.words import Said
from vlm_rewards.labelers.domains.domain import DOMAINS, domain_named


def add_options(command: argparse.ArgumentParser) -> None:
    """Gives the options of `pretrain` to its parser."""
    command.add_argument(
        "--domain", default=next(iter(DOMAINS)), metavar="NAME", help="domain whose frames the model reads"
    )
    command.add_argument("--size", required=True, metavar="NAME", help="size of the model, such as s, m or l")
    add_output(command, "the model, in the format of transformers' CLIPModel")
    command.add_argument("--steps", type=int, metavar="N", help="training steps (default: the size's own, as shipped)")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="seed of weights and data")
    command.add_argument("--device", default="cpu", metavar="DEVICE", help="cpu, cuda or cuda:N (default: %(default)s)")
    command.add_argument(
        "--stock",
        type=Path,
        metavar="FOLDER",
        help="folder in which drawn frames are kept and found again (default: they are drawn anew for each run)",
    )
    command.add_argument(
        "--processes", type=int, default=1, metavar="N", help="processes that draw frames (default: %(default)s)"
    )


def run(options: argparse.Namespace) -> Said:
    """Runs `pretrain` as its options say."""
    import dataclasses

    from vlm_rewards.labelers.reference_models.pretraining import pretrain, recipe_of

    domain = domain_named(options.domain)
    settings = recipe_of(domain, options.size)
    if options.steps is not None:
        settings = dataclasses.replace(settings, steps=options.steps)

    def show(state: dict[str, float]) -> None:
        step, seconds = state["step"], state["seconds"]
        left = (settings.steps - step) * seconds / max(step, 1)
        print(
            f"pretrain: {step:,.0f} of {settings.steps:,} steps ({100 * step / settings.steps:.0f} %), loss {state['loss']:.3f}, "
            f"{step / max(seconds, 1e-9):.1f} steps/s, {left:,.0f} s left",
            file=sys.stderr,
            flush=True,
        )

    card = pretrain(
        domain,
        settings,
        options.output,
        seed=options.seed,
        device=options.device,
        stock=options.stock,
        processes=options.processes,
        progress=show,
    )
    label = ["label", "--model", options.output, "--input", "corpus/", "--goals", "corpus/goals.jsonl"]
    return [f"trained {card['name']} in {card['seconds']:,} s: {options.output}"], [[*label, "--output", "labels/"]]
