"""`vlm-rewards rollout`: plays an agent on held-out levels."""

import argparse
from pathlib import Path

from vlm_rewards.commands.options import add_camera_option, add_frames_option, add_output
from vlm_rewards.commands.words import Said, share


def add_options(command: argparse.ArgumentParser) -> None:
    """Gives the options of `rollout` to its parser."""
    command.add_argument(
        "--agent", type=Path, required=True, metavar="DIR", help="agent of vlm-rewards train or finetune"
    )
    add_output(command, "rollout.json, index.html and the videos")
    command.add_argument(
        "--env", action="append", default=[], metavar="NAME", help="level; repeatable (default: the agent's own)"
    )
    command.add_argument("--episodes", type=int, default=100, metavar="N", help="episodes of held-out levels")
    command.add_argument("--videos", type=int, default=8, metavar="N", help="of the first episodes")
    command.add_argument(
        "--temperature", type=float, default=1.0, metavar="T", help="of the policy; 0: always the most likely action"
    )
    command.add_argument(
        "--held-out-goals", action="store_true", help="ask only for goals that the agent never trained on"
    )
    command.add_argument("--seed", type=int, default=0, metavar="N", help="of the levels")
    add_camera_option(command)
    add_frames_option(command)


def run(options: argparse.Namespace) -> Said:
    """Runs `rollout` as its options say."""
    from vlm_rewards.offline_rl.evaluation.rollout import RolloutSettings, rollout

    settings = RolloutSettings(
        envs=tuple(options.env),
        episodes=options.episodes,
        videos=options.videos,
        temperature=options.temperature or None,
        held_out_goals=options.held_out_goals,
        seed=options.seed,
        camera=options.camera,
        frames=options.frames,
    )
    evaluation = rollout(options.agent, options.output, settings)
    success, rewarded = evaluation.success, evaluation.vlm_success
    truth = share(*success[:3]) if success.num else "unknown, the environment does not say"
    return [
        f"played {len(evaluation.episodes):,} episodes of held-out levels",
        f"  achieved in truth:     {truth}",
        f"  rewarded by the model: {share(*rewarded[:3])}",
        f"  videos: {options.output / 'index.html'} (open it in a browser)",
    ], []
