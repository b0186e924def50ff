"""`vlm-rewards demo`: does all of it, once, on fresh trajectories."""

import argparse

from vlm_rewards.command_line.options import add_output
from vlm_rewards.command_line.parser import command_line, parse
from vlm_rewards.command_line.words import Said, describe_fine_tuning
from vlm_rewards.labelers.domains.demonstration import demonstration_of, mixed_policy, num_actions_of_level
from vlm_rewards.labelers.domains.domain import DOMAINS, domain_named
from vlm_rewards.schemas.files.remote_paths import local_path


def add_options(command: argparse.ArgumentParser) -> None:
    """Gives the options of `demo` to its parser."""
    add_output(command, "all that it makes")
    command.add_argument(
        "--domain",
        default=next(iter(DOMAINS)),
        metavar="NAME",
        help=f"world that it shows: {', '.join(DOMAINS)} (default: %(default)s)",
    )
    command.add_argument("--episodes", type=int, default=320, metavar="N", help="episodes to record")
    command.add_argument(
        "--model", metavar="MODEL", help="see vlm-rewards label --help (default: the domain's best reference model)"
    )
    command.add_argument("--steps", type=int, default=1500, metavar="N", help="gradient steps of train")
    command.add_argument("--online-steps", type=int, default=10_000, metavar="N", help="environment steps of finetune")
    command.add_argument("--eval-episodes", type=int, default=100, metavar="N", help="episodes that judge the agent")


def run(options: argparse.Namespace) -> Said:
    """Runs `demo` as its options say."""
    folders = ("corpus", "labels", "relabelled", "report", "agent", "agent-online", "rollout")
    output = local_path(options.output, "a demo")
    entries = {path.name for path in output.iterdir()} if output.is_dir() else set()
    strange = entries - set(folders)
    if strange or output.is_file():
        found = f"{output} with {min(strange)!r}" if strange else f"the file {output}"
        raise ValueError(
            f"the output must be an empty folder or one of an earlier demo, got {found}; give another folder"
        )
    corpus, labels, relabelled, report, agent, online, rollout = (output / name for name in folders)
    domain = domain_named(options.domain)
    shown = demonstration_of(domain)
    chosen = options.model or shown.model
    if chosen is None:
        raise ValueError(
            f"a demo needs a model that reads the domain's frames: got none, and {domain.name} has no reference model. Give --model"
        )
    levels, policies = shown.envs, mixed_policy(domain)
    named = [word for level in levels for word in ("--env", level)]
    labelled = ["--input", corpus, "--labels", labels]
    # Live frames come eight at a time and fill up a batch of the labels' size: a small one is scored in less time.
    model = ["--model", chosen, "--batch-size", 16]
    actions = num_actions_of_level(domain, levels[0])
    offline = ["--frame-stack", shown.frame_stack] if shown.frame_stack > 1 else []
    batch = ["--batch-size", shown.batch_size]
    offline += [*batch, "--num-actions", actions, "--steps", options.steps, "--checkpoint-every", 500]
    warmup = min(1000, options.online_steps // 2)
    live = [
        *batch,
        "--env",
        levels[0],
        "--steps",
        options.online_steps,
        "--warmup-steps",
        warmup,
        "--checkpoint-every",
        2000,
    ]
    live += ["--eval-every", options.online_steps, "--eval-episodes", options.eval_episodes]
    play = ["--episodes", options.eval_episodes]
    steps: tuple[list[object], ...] = (
        ["record", "--policy", policies, "--episodes", options.episodes, *named, "--output", corpus],
        ["label", "--input", corpus, "--goals", corpus / "goals.jsonl", *model, "--output", labels],
        ["hindsight", *labelled, "--output", relabelled],
        ["evaluate", *labelled, "--output", report],
        ["train", "--input", relabelled, *offline, "--output", agent],
        ["finetune", "--agent", agent, *live, "--output", online],
        ["rollout", "--agent", online, *play, "--output", rollout],
    )
    for step in steps:
        print("", f"$ {command_line(step)}", sep="\n", flush=True)
        parsed = parse([str(word) for word in step])
        lines, _ = parsed.run(parsed)
        print(*lines, sep="\n", flush=True)
    return [
        "",
        f"the agent in {levels[0]}, after minutes of training, judged by ground truth, which it never saw:",
        *describe_fine_tuning(online),
        "open in a browser:",
        f"  {report / 'report.html'}: what the labels are worth",
        f"  {rollout / 'index.html'}: what the agent does",
    ], []
