"""`vlm-rewards rollout`: plays an agent on held-out levels."""

import argparse

from vlm_rewards.command_line.options import add_output, add_settings, given_settings, path_or_url
from vlm_rewards.command_line.words import Said, share
from vlm_rewards.offline_rl.evaluation.rollout_settings import RolloutSettings


def add_options(parser: argparse.ArgumentParser) -> None:
    """Gives the options of `rollout` to its parser."""
    parser.add_argument(
        "--agent", type=path_or_url, required=True, metavar="DIR", help="agent of vlm-rewards train or finetune"
    )
    add_output(parser, "rollout.json, index.html and the videos")
    add_settings(parser, RolloutSettings)


def run(options: argparse.Namespace) -> Said:
    """Runs `rollout` as its options say."""
    from vlm_rewards.offline_rl.evaluation.rollout import rollout

    evaluation = rollout(options.agent, output=options.output, **given_settings(options, RolloutSettings))
    success, rewarded = evaluation.success, evaluation.vlm_success
    truth = share(*success[:3]) if success.num else "unknown, the environment does not say"
    return [
        f"played {len(evaluation.episodes):,} episodes of held-out levels",
        f"  achieved in truth:     {truth}",
        f"  rewarded by the model: {share(*rewarded[:3])}",
        f"  videos: {options.output / 'index.html'} (open it in a browser)",
    ], []
