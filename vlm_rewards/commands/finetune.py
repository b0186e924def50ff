"""`vlm-rewards finetune`: fine-tunes an agent in live environments that the same model rewards."""

import argparse

from vlm_rewards.command_line.options import add_output, add_settings, given_settings, path_or_url, say_it_resumes
from vlm_rewards.command_line.words import Said, describe_evaluations
from vlm_rewards.offline_rl.training.finetune_settings import FinetuneSettings


def add_options(parser: argparse.ArgumentParser) -> None:
    """Gives the options of `finetune` to its parser."""
    parser.add_argument("--agent", type=path_or_url, required=True, metavar="DIR", help="agent of vlm-rewards train")
    add_output(parser, "the agent, its checkpoints and metrics")
    add_settings(parser, FinetuneSettings)
    parser.add_argument("--wandb-project", metavar="NAME", help="log to Weights & Biases as well")
    say_it_resumes(parser)


def run(options: argparse.Namespace) -> Said:
    """Runs `finetune` as its options say."""
    from vlm_rewards.offline_rl.training.finetune import finetune

    agent = finetune(
        options.agent,
        output=options.output,
        wandb_project=options.wandb_project,
        **given_settings(options, FinetuneSettings),
    )
    lines = [
        f"fine-tuned for {agent.steps:,} environment steps: {options.output}",
        *describe_evaluations(options.output),
    ]
    # Environments that need modules are named again: an agent's folder does not choose what is imported.
    imports = any(":" in env for env in agent.envs)
    named: list[object] = [word for env in agent.envs if imports for word in ("--env", env)]
    return lines, [["rollout", "--agent", options.output, *named, "--output", "rollout/"]]
