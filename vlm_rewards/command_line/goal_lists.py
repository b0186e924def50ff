"""The goals that `label` is given: those of files, and those of the corpus's own instructions."""

import argparse
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vlm_rewards.command_line.options import given_settings
from vlm_rewards.command_line.parser import command_line
from vlm_rewards.pipelines.label.settings import LabelRun
from vlm_rewards.schemas.files.remote_paths import location_of

if TYPE_CHECKING:
    from vlm_rewards.labelers.encoders.encoder import Encoder
    from vlm_rewards.schemas.formats.instruction_goals import InstructionGoals
    from vlm_rewards.schemas.goals import Goal

FROM_CORPUS = "from-corpus"
"""What stands in place of a goals file for the corpus's instructions."""

_OF_THE_MODEL = ("model", "templates", "precision", "batch_size", "device", "engine")


def add_goals(parser: argparse.ArgumentParser) -> None:
    """Adds --goals and --goal."""
    parser.add_argument(
        "--goals",
        action="append",
        required=True,
        metavar="FILE",
        help="goals.jsonl (or a JSON array, or CSV): one goal per line with id, text and, optionally, family; or "
        f"{FROM_CORPUS}: one goal per instruction of "
        "the corpus. Repeatable: the goals of all; an instruction that a goal of a file names gets no other goal",
    )
    parser.add_argument("--goal", action="append", metavar="ID", help="label this goal only; repeat for several")


def read_goal_lists(
    options: argparse.Namespace, given: Mapping[str, Any]
) -> tuple[tuple["Goal", ...], "Encoder | None", list[str]]:
    """Reads what --goals and --goal name.

    Args:
        options: The options of `label`.
        given: The settings of the labeler that were typed.

    Returns:
        The goals; the model, if it had to be loaded to tell instructions apart; and lines that say where the goals come from.

    Raises:
        ValueError: There are no goals, two share an id or a text, or an id is unknown; or a corpus is lacking.
    """
    from vlm_rewards.schemas.goals import check_goals, read_goals, select_goals

    if options.goals.count(FROM_CORPUS) > 1:
        raise ValueError(f"--goals {FROM_CORPUS} must be given once: got it {options.goals.count(FROM_CORPUS)} times")
    lists = [() if word == FROM_CORPUS else read_goals(word) for word in options.goals]
    encoder: Encoder | None = None
    told: list[str] = []
    if FROM_CORPUS in options.goals:
        if options.input is None:
            raise ValueError(
                f"--goals {FROM_CORPUS} needs the corpus: got no --input. Give it, or the goals.jsonl beside earlier labels"
            )
        lists, encoder, told = _with_instructions(options, given, lists)
    goals = check_goals(goal for goals in lists for goal in goals)
    return select_goals(goals, options.goal) if options.goal else goals, encoder, told


@contextlib.contextmanager
def explaining_instructions(options: argparse.Namespace) -> Iterator[None]:
    """Context manager that says of a refused goal where it comes from, and how its text can be changed."""
    try:
        yield
    except ValueError as error:
        words = command_line(["inspect", options.input, "--write-goals", "goals.jsonl"])
        error.add_note(
            f"with --goals {FROM_CORPUS}: the corpus's instructions are goals; {words} writes them to a file to edit"
        )
        raise


def _with_instructions(
    options: argparse.Namespace, given: Mapping[str, Any], lists: Sequence[tuple["Goal", ...]]
) -> tuple[list[tuple["Goal", ...]], "Encoder", list[str]]:
    from vlm_rewards.labelers.alike_goals import join_alike
    from vlm_rewards.labelers.labeler import load_encoder
    from vlm_rewards.labelers.settings import LabelerSettings
    from vlm_rewards.schemas.formats.corpus import open_corpus
    from vlm_rewards.schemas.formats.instruction_goals import goals_of_corpus

    corpus = open_corpus(options.input, LabelRun(**given_settings(options, LabelRun)).read_options)
    of_files = [goal for goals in lists for goal in goals]
    found = goals_of_corpus(corpus, of_files)
    place = options.goals.index(FROM_CORPUS)
    listed = tuple(goal for goals in (*lists[:place], found.goals, *lists[place + 1 :]) for goal in goals)
    of_model = {name: value for name, value in given.items() if name in _OF_THE_MODEL}
    settings = LabelerSettings(goals=listed, **of_model)
    encoder = load_encoder(settings)
    joined = join_alike(listed, {goal.id for goal in found.goals}, settings.templates, encoder)
    return [joined], encoder, _lines(options, found, len(listed) - len(joined), "templates" in given)


def _lines(options: argparse.Namespace, found: "InstructionGoals", num_joined: int, has_templates: bool) -> list[str]:
    named = found.num_instructions - len(found.goals)
    notes = [f"{named:,} are named by goals of the files"] if named else []
    notes += [f"{num_joined:,} joined to others that the model reads as the same text"] if num_joined else []
    notes += [f"none in {found.num_without:,} of {found.num_episodes:,} episodes"] if found.num_without else []
    notes += [f"several in {found.num_changing:,} episodes, all of them goals"] if found.num_changing else []
    notes += [f"not read: {count:,} {reason}" for reason, count in found.failures.items()]
    lines = [f"  goals from the corpus: {found.num_instructions:,} instructions{_in_brackets(notes)}"]
    if found.goals and not has_templates:
        edited = location_of(options.output) / "goals.jsonl"
        lines.append(
            f"  an instruction says what to do, not what a frame shows when it is done: edit the texts in {edited} and label with "
            "that file, or reword all, such as --template 'a robot that has done this: {goal}'"
        )
    return lines


def _in_brackets(notes: Sequence[str]) -> str:
    return f" ({'; '.join(notes)})" if notes else ""
