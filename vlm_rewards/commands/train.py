"""`vlm-rewards train`: trains an agent offline on relabelled trajectories."""

import argparse

from vlm_rewards.command_line.options import add_output, add_settings, given_settings, path_or_url, say_it_resumes
from vlm_rewards.command_line.words import Said, describe_evaluations
from vlm_rewards.offline_rl.training.train_settings import TrainSettings


def add_options(parser: argparse.ArgumentParser) -> None:
    """Gives the options of `train` to its parser."""
    parser.add_argument("--input", type=path_or_url, required=True, metavar="DIR", help="relabelled trajectories")
    add_output(parser, "the agent, its replay, checkpoints and metrics")
    parser.add_argument(
        "--embeddings",
        type=path_or_url,
        metavar="DIR",
        help="the agent sees these kept embeddings of label instead of frames",
    )
    add_settings(parser, TrainSettings)
    parser.add_argument("--wandb-project", metavar="NAME", help="log to Weights & Biases as well")
    say_it_resumes(parser)


def run(options: argparse.Namespace) -> Said:
    """Runs `train` as its options say."""
    from vlm_rewards.labelers.domains.domain import DOMAINS, domain_named
    from vlm_rewards.offline_rl.training.train import train

    agent = train(
        options.input,
        output=options.output,
        embeddings=options.embeddings,
        wandb_project=options.wandb_project,
        **given_settings(options, TrainSettings),
    )
    lines = [
        f"trained {agent.algorithm} for {agent.steps:,} steps: {options.output}",
        *describe_evaluations(options.output),
    ]
    env = agent.envs[0] if agent.envs else domain_named(next(iter(DOMAINS))).environments()[0]
    return lines, [["finetune", "--agent", options.output, "--env", env, "--output", "agent-online/"]]
