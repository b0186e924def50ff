"""Goals of instructions that a model reads as one text are one goal."""

from pathlib import Path

import numpy as np
from labelled_corpora import episode, write_corpus

import vlm_rewards as vr
from vlm_rewards.labelers.alike_goals import join_alike
from vlm_rewards.labelers.encoders.encoder import TextReading
from vlm_rewards.schemas.goals import Goal, GoalImage


class Reader:
    """An encoder that reads letters alone, in lower case."""

    def read_texts(self, texts):
        return [TextReading(tuple(ord(c) for c in text.lower() if c.isalpha())) for text in texts]


def goal(goal_id: str, text: str, **given) -> Goal:
    return Goal(goal_id, text, instructions=(text,), **given)


def test_instructions_that_are_one_text_are_one_goal_with_all_spellings() -> None:
    goals = (goal("a", "lift it"), goal("b", "drop it"), goal("c", "Lift it!"), goal("d", "lift-it"))
    joined = join_alike(goals, {"a", "b", "c", "d"}, ("{goal} now", "{goal}"), Reader())
    assert joined == (Goal("a", "lift it", instructions=("lift it", "Lift it!", "lift-it")), goals[1])


def test_an_instruction_joins_a_goal_of_a_file_wherever_that_stands() -> None:
    goals = (goal("a", "lift it"), Goal("file", "LIFT IT"), goal("c", "lift: it"))
    assert join_alike(goals, {"a", "c"}, ("{goal}",), Reader()) == (
        Goal("file", "LIFT IT", instructions=("lift it", "lift: it")),
    )


def test_goals_that_are_not_joinable_stay() -> None:
    image = GoalImage("x.png", "0")
    goals = (Goal("a", "lift it"), Goal("b", "Lift it"), Goal("c", "lift it.", images=(image,)), goal("d", "other"))
    assert join_alike(goals, {"d"}, ("{goal}",), Reader()) == goals
    assert join_alike(goals, (), ("{goal}",), Reader()) == goals
    words = Goal("e", "else", prompts=("lift it", "other"), instructions=("else",))
    both = (goal("f", "other"), words)
    assert join_alike(both, {"e", "f"}, ("{goal}",), Reader()) == both  # two prompts are not one


def test_the_instructions_of_a_corpus_can_be_a_labelers_goals(tmp_path: Path, tiny_clip: Path) -> None:
    texts = ["a red ball", "a  RED ball", "A Green box", "a green  Box.", None]
    episodes = [episode(f"e{number}", 2, instruction=text) for number, text in enumerate(texts)]
    opened = vr.open_corpus(write_corpus(tmp_path / "c", [episodes]))
    labeler = vr.load_labeler(tiny_clip, opened, negatives={"explicit": ["a table"]})
    assert labeler.goals == (
        Goal("a-red-ball", "a red ball", instructions=("a red ball", "a  RED ball")),
        Goal("a-green-box", "A Green box", instructions=("A Green box", "a green  Box.")),
    )
    assert labeler(np.zeros((2, 8, 8, 3), np.uint8)).shape == (2, 2)
