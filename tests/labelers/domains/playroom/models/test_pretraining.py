"""What the playroom's reference models are trained on."""

import numpy as np
import pytest
import torch

from vlm_rewards.labelers.domains.playroom.domain import PLAYROOM
from vlm_rewards.labelers.domains.playroom.goals import COLOURS, NEUTRAL, OBJECTS, TOYS, goal_bank
from vlm_rewards.labelers.domains.playroom.models.captions import (
    FIND,
    FIRST_PAIR,
    LEFT,
    LIFT,
    NEUTRAL_CAPTIONS,
    NOTHING_TO,
    NUM_STATES,
    PAIR_STATE,
    RIGHT,
    VIEW,
    choose_states,
    state_captions,
)
from vlm_rewards.labelers.domains.playroom.models.pretraining import PLAYROOM_PRETRAINING, patch_labels
from vlm_rewards.labelers.domains.playroom.models.scenes import TRAIN_SEEDS, VALIDATION_SEEDS, draw_views, view_states
from vlm_rewards.labelers.domains.playroom.views import View
from vlm_rewards.labelers.domains.playroom.world import Sight
from vlm_rewards.labelers.reference_models.pretraining import tokenizer_of

RED_BALL, BLUE_MUG, RED_CAR = (TOYS.index(name) for name in ("red ball", "blue mug", "red car"))


@pytest.fixture(scope="module")
def captions():
    return state_captions()


def test_states_of_a_view():
    ids = np.zeros((64, 64), np.uint8)
    ids[:10, :10], ids[20:40, 50:60], ids[50:54, 30:34] = RED_BALL + 1, BLUE_MUG + 1, RED_CAR + 1
    pixels = {RED_BALL: 100, BLUE_MUG: 200, RED_CAR: 16}
    view = View(np.zeros((96, 96, 3), np.uint8), ids, Sight(pixels, (BLUE_MUG,), RED_CAR, ((RED_BALL, BLUE_MUG),)))
    assert view_states(view) == [
        FIND + BLUE_MUG,
        LIFT + RED_CAR,
        PAIR_STATE[BLUE_MUG, RED_BALL],
        VIEW + RED_BALL,
        LEFT + RED_BALL,
        VIEW + BLUE_MUG,
        RIGHT + BLUE_MUG,  # of the car too little is seen
    ]
    empty = view._replace(ids=np.zeros((64, 64), np.uint8), sight=Sight({}, (), None, ()))
    assert view_states(empty) == [NOTHING_TO[name] for name in ("find", "lift", "place", "view")]


def test_a_part_is_a_function_of_its_number():
    pytest.importorskip("panda3d")
    part, again = draw_views(1), draw_views(1)
    assert all(np.array_equal(part[name], again[name]) for name in part)
    for states, toys, held in zip(part["states"], part["toys"], part["held"], strict=True):
        assert set(LIFT + toys[held]) <= {state for state in states if LIFT <= state < VIEW}


def test_no_use_shares_a_room_with_another():
    assert TRAIN_SEEDS.stop <= VALIDATION_SEEDS.start
    assert VALIDATION_SEEDS.stop <= PLAYROOM.seeds.models.stop


def test_every_goals_text_is_a_caption_of_its_state_and_no_instruction_is(captions):
    assert len(captions) == NUM_STATES + 1
    assert captions[-1] == list(NEUTRAL_CAPTIONS)
    assert NEUTRAL_CAPTIONS[0] == NEUTRAL
    texts = {text for texts in captions for text in texts}
    for goal in goal_bank("default"):
        told = goal.attributes
        toy = TOYS.index(f"{told['colour']} {told['object']}")
        if goal.family == "place":
            state = PAIR_STATE[toy, TOYS.index(f"{told['other colour']} {told['other object']}")]
        else:
            state = {"find": FIND, "lift": LIFT}[goal.family] + toy
        assert goal.text in captions[state]
        assert not texts & set(goal.instructions)


def test_the_tokenizer_knows_every_instruction():
    tokenizer = tokenizer_of(PLAYROOM_PRETRAINING)
    texts = {text for goal in goal_bank("default") for text in (goal.text, *goal.instructions, *goal.negatives)}
    read = tokenizer(sorted(texts)).input_ids
    assert not any(tokenizer.unk_token_id in ids for ids in read)


def test_pairs_of_a_batch_are_those_that_hold_then_those_that_nearly_do():
    held = [PAIR_STATE[RED_BALL, BLUE_MUG], PAIR_STATE[RED_CAR, BLUE_MUG]]
    true = np.array([[0, held[0], -1], [held[1], -1, -1], [3, held[0], -1]], dtype=np.int16)
    states = choose_states(np.random.default_rng(0), true, num_pairs=12)
    assert states[:FIRST_PAIR].tolist() == list(range(FIRST_PAIR))
    pairs = states[FIRST_PAIR:]
    assert len(set(pairs.tolist())) == 12
    assert set(pairs[:2]) == set(held)
    known = {RED_BALL, BLUE_MUG, RED_CAR}
    for state in pairs[2:]:
        assert set(np.argwhere(state == PAIR_STATE)[0].tolist()) & known
    none = choose_states(np.random.default_rng(0), np.full((2, 3), -1, np.int16), num_pairs=5)
    assert len(set(none.tolist())) == FIRST_PAIR + 5


def test_patches_are_labelled_by_what_they_show():
    ids = torch.zeros(1, 64, 64, dtype=torch.uint8)
    ids[0, :32, :32], ids[0, 32:, 34:] = RED_BALL + 1, BLUE_MUG + 1
    toys, near = torch.tensor([[RED_BALL, BLUE_MUG, -1]]), torch.tensor([[False, True, False]])
    held = torch.tensor([[True, False, False]])
    pairs = torch.tensor([[[RED_BALL, BLUE_MUG], [-1, -1]]])
    classes, marks = patch_labels(ids, toys, near, held, pairs, 2)
    assert classes.tolist() == [[OBJECTS.index("ball"), -1, -1, OBJECTS.index("mug")]]
    names = [*COLOURS, "near", "held", *(f"by {kind}" for kind in OBJECTS), *(f"by {colour}" for colour in COLOURS)]
    found = [[name for name, holds in zip(names, row, strict=True) if holds] for row in marks[0].tolist()]
    assert found == [["red", "held", "by mug", "by blue"], [], [], ["blue", "near", "by ball", "by red"]]
