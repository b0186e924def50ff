"""Makes goals of a corpus's own instructions: one goal per instruction, whatever the format.

    episode 0   "Pick up the cup."   ──►  Goal("pick-up-the-cup", "Pick up the cup.",
    episode 1   "pick up the cup"    ──┘       instructions=("Pick up the cup.", "pick up the cup"))
    episode 2   "把杯子放下"           ──►  Goal("goal-<digest of the text>", "把杯子放下", ...)
    episode 3   "" or None           ──►  none; counted
    episode 4   "lift it", "drop it" ──►  two goals; counted: hindsight refuses the episode, which has no single goal

Each goal names every spelling of its instruction, so hindsight and evaluation find an episode's own goal by its instruction, as
they do with goals of a file. An instruction says what to do, which is not what a picture of its success shows: the texts can be
reworded in the goals.jsonl that `label` writes, as long as `instructions` stay.
"""

import dataclasses
import hashlib
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from vlm_rewards.schemas.formats.corpus import Corpus
from vlm_rewards.schemas.goals import Goal, normalize_instruction
from vlm_rewards.schemas.manifests import Failure

_ID_LENGTH = 60
_DIGEST_LENGTH = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class InstructionGoals:
    """The goals made of a corpus's instructions, with counts.

    Args:
        goals: One goal per instruction that is not covered by another goal, in the order of the corpus.
        num_instructions: Number of different instructions; larger than the number of goals if other goals cover some.
        num_episodes: Number of episodes that could be read.
        num_without: Number of these without an instruction.
        num_changing: Number of these whose task changes: each of their instructions becomes a goal, none is the episode's own.
        failures: Number of failures by reason: episodes, or whole files, whose instruction could not be read.
    """

    goals: tuple[Goal, ...]
    num_instructions: int
    num_episodes: int
    num_without: int
    num_changing: int
    failures: Mapping[str, int]


def goals_of_corpus(corpus: Corpus, beside: Sequence[Goal] = ()) -> InstructionGoals:
    """Makes one goal of each instruction of a corpus. Reads no frame.

    Instructions that `schemas.goals.normalize_instruction` maps to the same text share a goal; its text is the first spelling.
    The result does not depend on the sharding of the corpus or the sizes of its units.

    Args:
        corpus: The corpus.
        beside: Other goals that will be labelled. An instruction that one of them has, in its instructions or as its text,
            gets no new goal, and new ids differ from theirs.

    Raises:
        ValueError: No episode has an instruction.
    """
    spellings: dict[str, dict[str, None]] = {}
    num_episodes = num_without = num_changing = 0
    failures: Counter[str] = Counter()
    for unit in corpus.units():
        for texts in corpus.instructions(unit):
            if isinstance(texts, Failure):
                failures[texts.reason] += 1
                continue
            num_episodes += 1
            keys = {text: normalize_instruction(text) for text in texts if text}
            for text, key in keys.items():
                if key:
                    spellings.setdefault(key, {})[text] = None
            num_without += not any(keys.values())
            num_changing += len({key for key in keys.values() if key}) > 1
    if not spellings:
        unread = "".join(f", and {count} {reason}" for reason, count in failures.items())
        raise ValueError(
            f"no episode of {corpus.folder} has an instruction to make a goal of: got {num_episodes} without one{unread}. "
            "Write the goals to a file, one per line, such as " + '{"id": ..., "text": ...}'
        )
    known = {normalize_instruction(wording) for goal in beside for wording in (*goal.instructions, goal.text)}
    taken = {goal.id for goal in beside}
    goals = []
    for key, wordings in spellings.items():
        if key not in known:
            goal_id = id_of_text(key, taken)
            taken.add(goal_id)
            goals.append(Goal(goal_id, next(iter(wordings)), instructions=tuple(wordings)))
    return InstructionGoals(
        goals=tuple(goals),
        num_instructions=len(spellings),
        num_episodes=num_episodes,
        num_without=num_without,
        num_changing=num_changing,
        failures=dict(failures),
    )


def id_of_text(text: str, taken: Collection[str] = ()) -> str:
    """Returns a goal id made of a text: "pick up the cup" becomes "pick-up-the-cup".

    A digest of the text is appended if the words are not unique: letters without an ASCII form, over 60 letters, or an id
    that another text has.

    Args:
        text: The text; equal texts give equal ids.
        taken: Ids that other goals have.
    """
    plain = "".join(c for c in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(c))
    words = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    short = words if len(words) <= _ID_LENGTH else words[:_ID_LENGTH].rpartition("-")[0] or words[:_ID_LENGTH]
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    is_whole = short == words != "" and not any(c.isalnum() and not c.isascii() for c in plain)
    if is_whole and short not in taken:
        return short
    longer = (f"{short or 'goal'}-{digest[:length]}" for length in itertools.count(_DIGEST_LENGTH))
    return next(goal_id for goal_id in longer if goal_id not in taken)
