"""Phones go through the commands, from record to the rollout of an agent that touches cells of the screen."""

import json

import pytest
import tiny_models

from vlm_rewards.cli import main
from vlm_rewards.labelers.domains.openapp.domain import OPENAPP
from vlm_rewards.offline_rl.runs.saved_agents import load_agent


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder in which the commands have run."""
    folder = tmp_path_factory.mktemp("phones")
    texts = [text for goal in OPENAPP.goals("default") for text in (goal.text, *goal.negatives)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_models, "WORDS", " ".join(dict.fromkeys(" ".join(texts).split())))
        tiny_models.save_tiny_clip(folder / "clip")
    envs = [word for env in OPENAPP.environments() for word in ("--env", env)]
    corpus, labels = folder / "corpus", folder / "labels"
    reading = ["--model", folder / "clip", "--precision", "float32", "--workers", 1]
    for words in (
        ["record", *envs, "--policy", "noisy-bot", "--episodes", 8, "--workers", 1, "--output", corpus],
        ["label", "--input", corpus, "--goals", corpus / "goals.jsonl", *reading, "--output", labels],
        ["evaluate", "--input", corpus, "--labels", labels, "--output", folder / "report"],
        ["hindsight", "--input", corpus, "--labels", labels, "--workers", 1, "--output", folder / "relabelled"],
    ):
        assert main([str(word) for word in words]) == 0
    short = [
        "--reward",
        "truth",
        "--num-envs",
        2,
        "--steps",
        96,
        "--warmup-steps",
        32,
        "--updates-per-step",
        0.1,
        "--batch-size",
        16,
    ]
    short += ["--eval-episodes", 2, "--output", folder / "agent-online"]
    for words in (
        ["train", "--input", folder / "relabelled", "--steps", 3, "--batch-size", 16, "--output", folder / "agent"],
        ["finetune", "--agent", folder / "agent", "--env", OPENAPP.environments()[0], *short],
        ["rollout", "--agent", folder / "agent-online", "--episodes", 2, "--videos", 1, "--output", folder / "rollout"],
    ):
        assert main([str(word) for word in words]) == 0
    return folder


def test_its_labels_are_judged_by_the_app_in_front(made):
    quality = json.loads((made / "report" / "quality.json").read_text())
    assert quality["families"].keys() == {"common", "diverse"}


def test_its_episodes_are_relabelled(made):
    manifest = json.loads((made / "relabelled" / "manifest.json").read_text())
    assert manifest["episodes"] > 0


def test_its_agents_judge_every_cell_that_can_be_touched_by_what_is_in_it(made):
    saved = load_agent(made / "agent")
    assert saved.agent.spaces.num_actions == 66  # as the domain states, whatever was recorded
    assert (saved.agent.settings.encoder, saved.agent.settings.action_grid) == ("nature", "10x6")
    tuned = load_agent(made / "agent-online")
    assert tuned.agent.num_updates > saved.agent.num_updates
    rollout = json.loads((made / "rollout" / "rollout.json").read_text())
    assert all(episode["success"] is not None for episode in rollout["episodes"])
