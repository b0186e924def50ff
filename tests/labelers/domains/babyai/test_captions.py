"""Captions of BabyAI's reference models, and the tokenizer that reads them."""

import json

import numpy as np
import pytest

from vlm_rewards.labelers.domains.babyai.captions import (
    NEUTRAL,
    state_captions,
    state_names,
    state_truth,
)
from vlm_rewards.labelers.domains.babyai.goals import NEUTRAL as NEGATIVE
from vlm_rewards.labelers.domains.babyai.goals import goal_bank, ground_truth
from vlm_rewards.labelers.domains.babyai.pretraining import BABYAI_PRETRAINING
from vlm_rewards.labelers.reference_models import REFERENCE_FOLDER
from vlm_rewards.labelers.reference_models.pretraining import tokenizer_of


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


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizer_of(BABYAI_PRETRAINING)


def test_the_vocabulary_covers_every_caption_and_fits_the_text_tower(tokenizer):
    ids = tokenizer([text for captions in state_captions() for text in captions]).input_ids
    assert not any(tokenizer.unk_token_id in row for row in ids)
    assert max(map(len, ids)) <= tokenizer.model_max_length


def test_the_tokenizer_is_that_of_the_shipped_models(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    mine = json.loads((tmp_path / "tokenizer.json").read_text())
    for size in ("s", "m", "l"):
        shipped = json.loads((REFERENCE_FOLDER / f"reference-{size}" / "tokenizer.json").read_text())
        for part in ("model", "normalizer", "pre_tokenizer", "post_processor"):
            assert mine[part] == shipped[part], part


def test_american_spelling_does_not_matter(tokenizer):
    assert tokenizer("The agent carries a GRAY ball.").input_ids == tokenizer("the agent carries a grey ball").input_ids
