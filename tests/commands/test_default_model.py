"""`vlm-rewards label` without --model."""

from pathlib import Path

import pytest
from labelled_corpora import episode, write_corpus

from vlm_rewards.cli import main
from vlm_rewards.schemas.goals import Goal, write_goals


def label(folder: Path, *texts: str) -> int:
    write_goals(tuple(Goal(text.replace(" ", "-"), text) for text in texts), folder / "goals.jsonl")
    corpus = folder / "corpus"
    if not corpus.exists():
        write_corpus(corpus, [[episode("a", 3)]])
    given = [
        "label",
        "--input",
        corpus,
        "--goals",
        folder / "goals.jsonl",
        "--output",
        folder / "labels",
    ]
    return main([str(word) for word in given])


def test_a_model_that_nobody_named_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert label(tmp_path, "a red ball", "a blue key") == 0
    assert "  model: reference-s, since none was named: it knows every word of these goals" in capsys.readouterr().out


def test_goals_of_another_world_have_no_default_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert label(tmp_path, "a cup in the sink", "a red ball") == 2
    error = capsys.readouterr().err
    assert "does not know 'cup', 'sink'. Give --model" in error
    assert not (tmp_path / "labels").exists()
