"""Captions and tokenizer of the reference models."""

import numpy as np

from vlm_rewards.labelers.domains.babyai.captions import (
    NEUTRAL,
    build_tokenizer,
    state_captions,
    state_names,
    state_truth,
)
from vlm_rewards.labelers.domains.babyai.goals import NEUTRAL as NEGATIVE
from vlm_rewards.labelers.domains.babyai.goals import goal_bank, ground_truth


def test_states_are_36_goals_153_pairs_and_nothing_of_three_families():
    names = state_names()
    assert len(names) == len(set(names)) == 36 + 153 + 3
    assert names[36] == "place red key + red ball"
    assert len(state_captions()) == len(names) + 1
    assert state_captions()[-1] == list(NEUTRAL)
    assert NEUTRAL[0] == NEGATIVE  # the negative of the shipped goals


def test_truth_of_the_states_follows_from_that_of_the_goals():
    view = np.zeros((2, 7, 7, 3), dtype=np.uint8)
    view[0, 3, 5], view[0, 2, 5] = (
        (5, 0, 0),
        (6, 0, 0),
    )  # a red key ahead, a red ball beside it; the other view is empty
    truth = state_truth(ground_truth(view, np.zeros((2, 2), dtype=np.uint8)))
    names = state_names()
    true_names = [[name for name, holds in zip(names, row, strict=True) if holds] for row in truth]
    assert true_names == [["find red key", "place red key + red ball", "lift"], ["find", "lift", "place"]]


def test_every_goals_text_and_instruction_is_a_caption_of_its_state():
    names, captions = state_names(), state_captions()
    for goal in goal_bank():
        if goal.family == "place":
            one, two = goal.id.removeprefix("place-").replace("-", " ").split(" next to ")
            state = next(name for name in (f"place {one} + {two}", f"place {two} + {one}") if name in names)
        else:
            state = goal.id.replace("-", " ")
        assert {goal.text, *goal.instructions} <= set(captions[names.index(state)])


def test_no_caption_belongs_to_two_states():
    owners: dict[str, int] = {}
    for state, captions in enumerate(state_captions()):
        assert all(owners.setdefault(text, state) == state for text in captions)


def test_the_vocabulary_covers_every_caption_and_fits_the_text_tower():
    tokenizer = build_tokenizer()
    ids = tokenizer([text for captions in state_captions() for text in captions]).input_ids
    assert not any(tokenizer.unk_token_id in row for row in ids)
    assert max(map(len, ids)) <= tokenizer.model_max_length


def test_the_end_token_has_the_largest_id_and_ends_every_caption():
    tokenizer = build_tokenizer()
    assert tokenizer.eos_token_id == len(tokenizer) - 1 != 2
    ids = tokenizer(["a red ball", "fetch a xylophone " + "a " * 100], truncation=True).input_ids
    assert all(row[0] == tokenizer.bos_token_id and row[-1] == tokenizer.eos_token_id for row in ids)
    assert len(ids[1]) == 32
    assert tokenizer.unk_token_id in ids[1]


def test_case_punctuation_and_american_spelling_do_not_matter():
    tokenizer = build_tokenizer()
    assert tokenizer("The agent carries a GRAY ball.").input_ids == tokenizer("the agent carries a grey ball").input_ids
