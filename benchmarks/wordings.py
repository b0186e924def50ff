"""Wordings of the BabyAI goals, and what the reference models have read of each.

The reference models were trained on descriptions and on instructions alike (`labelers.domains.babyai.captions`), so a wording
that they have read says little about wordings as such. Hence four classes, told apart by machine and not by hand:

    read                the captions of the training hold this very wording
    new wording         every word of it occurs in the captions, the wording does not
    untrained words     the tokenizer knows all words, some of which no caption holds: their vectors are as they were drawn
    unknown words       the tokenizer reads a word as the unknown token: not measured, since it would be a text without that word
"""

import dataclasses
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from vlm_rewards.labelers.domains.babyai.captions import state_captions
from vlm_rewards.labelers.domains.babyai.goals import KINDS, place_pairs
from vlm_rewards.schemas.goals import Goal

READ, NEW_WORDING, UNTRAINED_WORDS, UNKNOWN_WORDS = "read", "new wording", "untrained words", "unknown words"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wording:
    """One way to word the goals of every family.

    Args:
        name: For tables and pictures; the Lift wording of a red ball says most.
        style: "description" of the success state, "instruction", "template" around the description, or "object" alone.
        find: With {kind}.
        lift: With {kind}.
        place: With {kind} and {other}.
    """

    name: str
    style: str
    find: str
    lift: str
    place: str

    def texts(self, goals: Sequence[Goal]) -> list[str]:
        """The goals' texts in this wording; `{goal}` stands for a goal's own text.

        Args:
            goals: The bank of `labelers.domains.babyai.goals`, in its order.
        """
        places = [(KINDS[one], KINDS[other]) for one, other in place_pairs()]
        filled = [self.find.replace("{kind}", kind) for kind in KINDS]
        filled += [self.lift.replace("{kind}", kind) for kind in KINDS]
        filled += [self.place.replace("{kind}", one).replace("{other}", other) for one, other in places]
        return [text.replace("{goal}", goal.text) for text, goal in zip(filled, goals, strict=True)]


def _template(text: str) -> Wording:
    return Wording(name=text, style="template", find=text, lift=text, place=text)


WORDINGS = (
    Wording(name="the goal's own text", style="description", find="{goal}", lift="{goal}", place="{goal}"),
    Wording(
        name="a ... carried by the agent",
        style="description",
        find="a {kind} in front of the agent",
        lift="a {kind} carried by the agent",
        place="a {kind} and a {other} next to each other",
    ),
    Wording(
        name="the robot lifts the ...",
        style="description",
        find="the robot is touching the {kind}",
        lift="the robot lifts the {kind}",
        place="the {kind} is adjacent to the {other}",
    ),
    Wording(
        name="pick up the ...",
        style="instruction",
        find="go to the {kind}",
        lift="pick up the {kind}",
        place="put the {kind} next to the {other}",
    ),
    Wording(
        name="get the ...",
        style="instruction",
        find="find the {kind}",
        lift="get the {kind}",
        place="place the {kind} next to the {other}",
    ),
    Wording(
        name="pick the ... up",
        style="instruction",
        find="go and find the {kind}",
        lift="pick the {kind} up",
        place="put the {kind} and the {other} side by side",
    ),
    Wording(
        name="grab the ...",
        style="instruction",
        find="approach the {kind}",
        lift="grab the {kind}",
        place="bring the {kind} close to the {other}",
    ),
    _template("a picture of {goal}"),
    _template("a photo of {goal}"),
    _template("a frame where {goal}"),
    _template("a picture of a scene where {goal}"),
    _template("screenshot of {goal}"),
    Wording(name="a ...", style="object", find="a {kind}", lift="a {kind}", place="a {kind} and a {other}"),
)
"""What figure 5 of the paper compares for its apps, for BabyAI: descriptions, instructions, templates, and the bare object."""


def unknown_words(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[str]:
    """The words of the texts that the tokenizer reads as its unknown token, each once."""
    words = sorted({word for text in texts for word in text.split()})
    return [word for word in words if tokenizer.unk_token_id in tokenizer(word, add_special_tokens=False)["input_ids"]]


def untrained_words(texts: Sequence[str]) -> list[str]:
    """The words of the texts that no caption of the reference models' training holds, each once."""
    trained = {word for captions in state_captions() for caption in captions for word in caption.split()}
    return sorted({word for text in texts for word in text.split()} - trained)


def what_was_read(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> dict[str, object]:
    """The class of a wording for a reference model, with the words that decide it.

    Args:
        tokenizer: The model's.
        texts: The wording of some goals.

    Returns:
        `class`, one of the four of this module, and `words`: those that are unknown or untrained.
    """
    if words := unknown_words(tokenizer, texts):
        return {"class": UNKNOWN_WORDS, "words": words}
    if words := untrained_words(texts):
        return {"class": UNTRAINED_WORDS, "words": words}
    read = {caption for captions in state_captions() for caption in captions}
    return {"class": READ if read.issuperset(texts) else NEW_WORDING, "words": []}
