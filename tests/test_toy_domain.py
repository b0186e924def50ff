"""A domain of another package goes through every command: its folder, and one line of its entry points, are all there is to it."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from dot_domain import DOT, GOALS

from vlm_rewards.cli import main
from vlm_rewards.labelers.domains.domain import domains
from vlm_rewards.schemas.formats.corpus import open_corpus
from vlm_rewards.schemas.goals import read_goals
from vlm_rewards.schemas.pictures import decode_image

BLUE = {goal.id for (colour, _), goal in GOALS.items() if colour == "blue"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Installs the toy domain as pip does: metadata with one line, on the path of this process and of its workers."""
    site = tmp_path_factory.mktemp("site")
    metadata = site / "dots-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: dots\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[vlm_rewards.domains]\ndot = dot_domain:DOT\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        paths = [str(site), str(Path(__file__).parent), *sys.path]
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
        yield


@pytest.fixture(scope="module")
def made(installed, tmp_path_factory):
    """The folder in which every command has run."""
    folder = tmp_path_factory.mktemp("dots")

    def run(*words):
        assert main([str(word) for word in words]) == 0

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small a model trains no faster with more, and far slower where others use the cores

    corpus, labels, relabelled = folder / "corpus", folder / "labels", folder / "relabelled"
    run("pretrain", "--domain", "dot", "--size", "tiny", "--output", folder / "model")
    mix = "bot:0.4,noisy-bot:0.3,random:0.3"
    run("record", "--env", "Dot-v0", "--policy", mix, "--episodes", 60, "--workers", 2, "--output", corpus)
    model = ["--model", folder / "model", "--precision", "float32", "--batch-size", 16]
    run("label", "--input", corpus, "--goals", corpus / "goals.jsonl", *model, "--workers", 1, "--output", labels)
    run("evaluate", "--input", corpus, "--labels", labels, "--output", folder / "report")
    run("hindsight", "--input", corpus, "--labels", labels, "--workers", 1, "--output", relabelled)
    learning = ["--batch-size", 64, "--eval-episodes", 8]
    agent, online = folder / "agent", folder / "online"
    run(
        "train",
        "--input",
        relabelled,
        "--steps",
        150,
        *learning,
        "--hold-out",
        "blue",
        "--env",
        "Dot-v0",
        "--output",
        agent,
    )
    live = ["--steps", 400, "--num-envs", 4, "--warmup-steps", 100, "--eval-every", 400]
    run("finetune", "--agent", agent, "--env", "Dot-v0", *live, *learning, "--output", online)
    run("rollout", "--agent", online, "--episodes", 8, "--videos", 1, "--output", folder / "rollout")
    run("rollout", "--agent", online, "--episodes", 8, "--videos", 0, "--held-out-goals", "--output", folder / "new")
    torch.set_num_threads(threads)
    return folder


def test_the_domain_is_found(installed):
    assert list(domains()) == ["babyai", "openapp", "playroom", "dot"]


def test_its_corpus_holds_its_frames_and_its_truth(made):
    assert read_goals(made / "corpus" / "goals.jsonl") == DOT.goals("default")
    corpus = open_corpus(made / "corpus")
    episodes = [episode for unit in corpus.units() for episode in corpus.episodes(unit)]
    assert len(episodes) == 60
    level = DOT.make("Dot-v0", frame_size=(32, 32), cameras=("top",))
    for index, episode in enumerate(episodes):
        look = level.reset(DOT.seeds.draw("recorded", f"0/{index}"))
        assert (episode.episode_id, episode.instruction) == (f"Dot-v0-seed0-{index:06d}", level.mission)
        for t, (frame, truth) in enumerate(zip(episode.images["top"], episode.achieved_goals, strict=True)):
            assert (decode_image(frame) == look.frames["top"]).all()
            assert set(truth) == level.facts(look)
            if t < episode.num_steps:
                look, *_ = level.step(int(episode.actions[t]))


def test_its_labels_are_worth_something(made):
    quality = json.loads((made / "report" / "quality.json").read_text())
    assert quality["families"].keys() == {"top", "bottom"}
    assert all(family["mean_average_precision"] > 0.9 for family in quality["families"].values())


def test_its_agent_is_judged_by_its_truth(made):
    metrics = [json.loads(line) for line in (made / "online" / "metrics.jsonl").read_text().splitlines()]
    kinds = {record["kind"] for record in metrics}
    assert {"losses", "episodes", "evaluation", "evaluation of held-out goals"} <= kinds
    records = json.loads((made / "rollout" / "rollout.json").read_text())["episodes"]
    assert len(records) == 8
    assert all(record["level_seed"] in DOT.seeds.held_out for record in records)
    assert not {record["goal_id"] for record in records} & BLUE
    assert any(record["success"] for record in records)
    assert all(record["success"] is not None for record in records)
    assert {record["goal_id"] for record in json.loads((made / "new" / "rollout.json").read_text())["episodes"]} <= BLUE
    assert (made / "rollout" / "episode-000.gif").is_file()
