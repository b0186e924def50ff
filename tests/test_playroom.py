"""Rooms go through the commands: recorded, labelled by a model, evaluated and relabelled."""

import json

import pytest
import tiny_models

from vlm_rewards.cli import main
from vlm_rewards.labelers.domains.playroom.domain import PLAYROOM


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder in which the commands have run."""
    folder = tmp_path_factory.mktemp("rooms")
    texts = [text for goal in PLAYROOM.goals("default") for text in (goal.text, *goal.negatives)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_models, "WORDS", " ".join(dict.fromkeys(" ".join(texts).split())))
        tiny_models.save_tiny_clip(folder / "clip")
    envs = [word for env in PLAYROOM.environments()[3:] for word in ("--env", env)]
    corpus, labels = folder / "corpus", folder / "labels"
    reading = ["--model", folder / "clip", "--precision", "float32", "--workers", 1]
    for words in (
        ["record", *envs, "--policy", "noisy-bot", "--episodes", 6, "--workers", 1, "--output", corpus],
        ["label", "--input", corpus, "--goals", corpus / "goals.jsonl", *reading, "--output", labels],
        ["evaluate", "--input", corpus, "--labels", labels, "--output", folder / "report"],
        ["hindsight", "--input", corpus, "--labels", labels, "--workers", 1, "--output", folder / "relabelled"],
    ):
        assert main([str(word) for word in words]) == 0
    return folder


def test_its_labels_of_1152_goals_are_judged_by_family(made):
    quality = json.loads((made / "report" / "quality.json").read_text())
    assert quality["families"].keys() == {"find", "lift", "place"}
    assert len((made / "corpus" / "goals.jsonl").read_text().splitlines()) == 1152


def test_its_episodes_are_relabelled(made):
    manifest = json.loads((made / "relabelled" / "manifest.json").read_text())
    assert manifest["episodes"] > 0
