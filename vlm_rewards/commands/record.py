"""`vlm-rewards record`: records trajectories of a domain with ground truth for every goal."""

import argparse

from vlm_rewards.command_line.options import add_output, add_settings, given_settings, say_where_it_runs
from vlm_rewards.command_line.words import Said, skipped
from vlm_rewards.pipelines.record.settings import RecordRun, RecordSettings
from vlm_rewards.schemas.files.remote_paths import location_of


def add_options(parser: argparse.ArgumentParser) -> None:
    """Gives the options of `record` to its parser."""
    add_output(parser, "the corpus and its goals.jsonl")
    add_settings(parser, RecordSettings, RecordRun)
    say_where_it_runs(parser, resumes=True)


def run(options: argparse.Namespace) -> Said:
    """Runs `record` as its options say."""
    from vlm_rewards.labelers.domains.domain import domain_of_environments
    from vlm_rewards.pipelines.record.recording import record

    given = given_settings(options, RecordSettings, RecordRun)
    summary = record(output=options.output, beam_options=options.beam_options, **given)
    manifest = summary.manifest
    output = location_of(options.output)
    goals = output / "goals.jsonl"
    lines = [
        f"recorded {manifest['episodes']:,} episodes, {manifest['rows']:,} frames, in {output / 'parts'}"
        f"{skipped(summary)}",
        f"  goals that the ground truth covers: {goals}",
    ]
    model = domain_of_environments(given["envs"]).default_model
    named = ["--model", model] if model else []
    label = ["label", "--input", options.output, "--goals", goals, *named, "--output", "labels/"]
    return lines, [label]
