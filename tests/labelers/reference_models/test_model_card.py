"""Figures and card of the reference models."""

import json

import numpy as np
import pytest

from vlm_rewards.labelers.domains.babyai.goals import goal_bank
from vlm_rewards.labelers.domains.babyai.pretraining import BABYAI_PRETRAINING
from vlm_rewards.labelers.domains.openapp.models.pretraining import OPENAPP_PRETRAINING
from vlm_rewards.labelers.domains.playroom.models.pretraining import PLAYROOM_PRETRAINING
from vlm_rewards.labelers.reference_models import REFERENCE_FOLDER
from vlm_rewards.labelers.reference_models.model_card import card_text, mean_average_precision, write_card

CARD = {
    "name": "reference-x",
    "command": "vlm-rewards pretrain --size x --steps 5 --seed 0 --output FOLDER",
    "settings": {"batch_size": 512, "steps": 5},
    "seed": 0,
    "precision": "bfloat16",
    "steps": 5,
    "frames": 2560,
    "seconds": 12,
    "machine": "1 thread(s) of a x86_64 processor",
    "versions": {"torch": "2.13.0"},
    "layout_seeds": [0, 500_000],
    "temperature": 0.02,
    "parameters": {"vision_model": 1000, "text_model": 2000},
    "figures": {"drawn scenes": {"find": 0.5, "lift": 0.75}},
}

DESCRIBED = {
    pretraining.prefix: pretraining for pretraining in (BABYAI_PRETRAINING, OPENAPP_PRETRAINING, PLAYROOM_PRETRAINING)
}


def test_average_precision_is_averaged_over_the_goals_of_a_family_that_occur():
    truth = np.zeros((4, 342), dtype=bool)
    scores = np.zeros((4, 342), dtype=np.float32)
    scores[:] = np.array([4, 3, 2, 1])[:, None]
    truth[0, 0] = True  # find, first goal: ranked first, average precision 1
    truth[1, 1] = True  # find, second goal: ranked second, 1/2
    truth[[0, 2], 18] = True  # lift: (1/1 + 2/3) / 2
    assert mean_average_precision(scores, truth, goal_bank()) == {"find": 0.75, "lift": pytest.approx(5 / 6, abs=1e-4)}


def test_the_card_tells_figures_command_and_data(tmp_path):
    write_card(tmp_path, CARD, BABYAI_PRETRAINING.describe(CARD))
    assert json.loads((tmp_path / "card.json").read_text()) == CARD
    text = (tmp_path / "README.md").read_text()
    assert text == card_text(CARD, BABYAI_PRETRAINING.describe(CARD))
    assert "| drawn scenes | 0.500 | 0.750 | - |" in text
    assert CARD["command"] in text
    assert "seeds below" in text


def test_the_card_says_that_a_run_which_a_time_limit_ended_cannot_be_repeated():
    whole, ended = (
        card_text(CARD | {"settings": {"batch_size": 512, "steps": steps}}, BABYAI_PRETRAINING.describe(CARD))
        for steps in (5, 60)
    )
    assert "a time limit ended the training after 5 of the 60 steps of the recipe" in ended
    assert "cannot be repeated exactly" in ended
    assert "limit" not in whole


@pytest.mark.parametrize("folder", sorted(REFERENCE_FOLDER.glob("*/")), ids=lambda folder: folder.name)
def test_every_shipped_model_has_its_card(folder):
    card = json.loads((folder / "card.json").read_text())
    assert card["name"] == folder.name
    assert (folder / "README.md").read_text() == card_text(card, DESCRIBED[folder.name.split("-")[0]].describe(card))
    assert card["name"].split("-")[1] in DESCRIBED[folder.name.split("-")[0]].sizes
