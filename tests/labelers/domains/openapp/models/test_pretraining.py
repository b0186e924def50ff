"""What OpenApp's reference models are trained on."""

import numpy as np
import pytest
import torch

from vlm_rewards.labelers.domains.openapp.apps import APPS, NEGATIVES, goal_of
from vlm_rewards.labelers.domains.openapp.domain import OPENAPP
from vlm_rewards.labelers.domains.openapp.models.captions import (
    MOVING,
    NEUTRAL,
    NOTE,
    NOTHING,
    NUM_STATES,
    OPEN,
    OTHERS,
    state_captions,
)
from vlm_rewards.labelers.domains.openapp.models.pretraining import FRAMED_EVERY, OPENAPP_PRETRAINING, model_inputs
from vlm_rewards.labelers.domains.openapp.models.scenes import (
    TRAIN_SEEDS,
    VALIDATION_SEEDS,
    draw_screens,
    screen_rows,
    screen_states,
)
from vlm_rewards.labelers.domains.openapp.simulator import FRAME_COLOUR, PhoneSimulator, Screen
from vlm_rewards.labelers.reference_models.pretraining import tokenizer_of


@pytest.fixture(scope="module")
def part():
    return draw_screens(3)


@pytest.mark.parametrize(
    ("screen", "states"),
    [
        (Screen(mode="app", app="chess"), [OPEN["chess"]]),
        (Screen(mode="app", app="chess", note="mail"), [OPEN["chess"], NOTE]),
        (Screen(mode="app", app="chess", moving=0.6), [NOTHING, MOVING["chess"]]),
        (Screen(mode="app", app="chess", moving=0.6, before="mail"), [NOTHING, MOVING["chess"], MOVING["mail"]]),
        (Screen(mode="app", app="chess", message=2), [OTHERS["message"], NOTHING]),
        (Screen(), [OTHERS["home"], NOTHING]),
        (Screen(mode="drawer", page=1), [OTHERS["drawer"], NOTHING]),
        (Screen(mode="folder"), [OTHERS["folder"], NOTHING]),
    ],
)
def test_states_of_screens(screen, states):
    assert screen_states(screen) == states


def test_states_agree_with_the_app_in_front_of_the_simulator(part):
    simulator = PhoneSimulator((160, 96), hard=True)
    simulator.reset(5)
    random = np.random.default_rng(0)
    for _ in range(200):
        simulator.send_touch(*random.random(2))
        if random.random() < 0.2:
            simulator.send_swipe("up")
        found = screen_states(simulator.screen)
        assert [state for state in found if state < len(APPS)] == [
            OPEN[app] for app in [simulator.app_in_front] if app is not None
        ]


def test_a_part_is_a_function_of_its_number_and_shows_every_sort_of_state(part):
    again = draw_screens(3)
    assert all(np.array_equal(part[name], again[name]) for name in part)
    assert not np.array_equal(part["frames"], draw_screens(4)["frames"])
    shown = set(part["states"].ravel().tolist())
    assert {NOTE, NOTHING, *OTHERS.values()} <= shown
    assert len(shown & set(OPEN.values())) > 30
    assert len(shown & set(MOVING.values())) > 10
    moving = (part["states"] >= len(APPS)) & (part["states"] < 2 * len(APPS))
    assert not moving[screen_rows(256, hard=False)].any()


def test_no_use_shares_a_phone_with_another():
    assert TRAIN_SEEDS.stop <= VALIDATION_SEEDS.start
    assert VALIDATION_SEEDS.stop <= OPENAPP.seeds.models.stop


def test_captions_tell_states_and_have_no_words_of_an_instruction():
    captions = state_captions()
    assert len(captions) == NUM_STATES + 1
    assert captions[-1] == list(NEUTRAL)
    assert NEUTRAL[0] == NEGATIVES[0]
    texts = {text for texts in captions for text in texts}
    assert set(NEGATIVES) <= texts
    for app in APPS.values():
        goal = goal_of(app)
        assert goal.text in captions[OPEN[app.name]]
        assert not texts & set(goal.instructions)


def test_the_tokenizer_knows_every_template_of_the_paper():
    tokenizer = tokenizer_of(OPENAPP_PRETRAINING)
    for app in APPS:
        for text in (
            f"Open {app}",
            f"Open the {app} app",
            f"Screenshot of {app}",
            f"Screenshot of {app} on Android",
            *goal_of(APPS[app]).instructions,
            *NEGATIVES,
        ):
            assert tokenizer.unk_token_id not in tokenizer(text).input_ids, text


def test_some_screens_are_framed_as_the_domains_square_frames_are():
    frames = []
    for size in ((160, 96), (160, 160)):
        simulator = PhoneSimulator(size)
        simulator.reset(3)
        frames.append(simulator.get_screenshot())
    inputs = model_inputs(torch.from_numpy(np.stack([frames[0]] * (FRAMED_EVERY + 1))), 160).numpy()
    assert np.array_equal(inputs[0], frames[1])
    assert np.array_equal(inputs[FRAMED_EVERY], frames[1])
    assert inputs[0, 0, 0].tolist() == list(FRAME_COLOUR)
    assert not np.array_equal(inputs[1], frames[1])
    assert np.array_equal(inputs[1], inputs[2])
