"""What a command says of files that it does not read."""

import json
from pathlib import Path

import pytest
from small_corpora import plain_episode
from tiny_models import save_tiny_clip

from vlm_rewards.cli import main
from vlm_rewards.schemas.episodes import CorpusFeatures
from vlm_rewards.schemas.formats.corpus import write_episodes
from vlm_rewards.schemas.goals import Goal, write_goals


def test_label_and_hindsight_name_what_they_pass_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = save_tiny_clip(tmp_path / "clip")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    episodes = [plain_episode(index) for index in range(3)]
    write_episodes(corpus / "a.parquet", CorpusFeatures.of(episodes[0]), episodes, "parquet")
    write_goals([Goal("find-ball", "a red ball"), Goal("lift-key", "a blue key")], corpus / "goals.jsonl")
    for number in range(5):
        (corpus / f"{number}.csv").write_text("x")
    labels = corpus / "labels"  # inside the input, and passed over
    label = ["label", "--input", corpus, "--goals", corpus / "goals.jsonl", "--model", clip, "--output", labels]
    lines = [
        "  passed over (ends with .csv, which the format parquet does not read): 0.csv, 1.csv, 2.csv and 2 more",
        "  beside the corpus, not read: goals.jsonl",
    ]

    def run(*arguments: object) -> list[str]:
        assert main([str(argument) for argument in arguments]) == 0
        return [line for line in capsys.readouterr().out.splitlines() if "passed over" in line or "beside" in line]

    assert run(*label, "--dry-run") == lines
    assert run(*label) == lines
    manifest = (labels / "manifest.json").read_bytes()
    assert json.loads(manifest)["passed_over"] == {
        "ends with .csv, which the format parquet does not read": [f"{number}.csv" for number in range(5)],
        "stands beside the corpus": ["goals.jsonl"],
    }
    assert run(*label) == lines
    assert (labels / "manifest.json").read_bytes() == manifest
    relabelled = tmp_path / "relabelled"
    output = "  passed over (is an output of vlm-rewards: labels): labels/"
    found = run("hindsight", "--input", corpus, "--labels", labels, "--output", relabelled, "--strategy", "first")
    assert found == [lines[0], output, lines[1]]
    assert json.loads((relabelled / "manifest.json").read_text())["passed_over"][
        "is an output of vlm-rewards: labels"
    ] == ["labels/"]
