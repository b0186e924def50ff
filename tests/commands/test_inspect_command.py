"""`vlm-rewards inspect`."""

import json
import shlex
from pathlib import Path

import pytest
from labelled_corpora import episode, write_corpus

from vlm_rewards.cli import main
from vlm_rewards.schemas.goals import Goal, read_goals


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    texts = ("go to a red ball", "Go to a red ball.", "go to a blue key")
    return write_corpus(Path("corpus"), [[episode(f"e{n}", 3, instruction=text) for n, text in enumerate(texts)]])


def test_the_next_command_runs_as_it_is_printed(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "corpus"]) == 0
    told = capsys.readouterr().out.splitlines()
    num_bytes = Path("corpus/shard-000.parquet").stat().st_size
    assert told[0] == f"corpus: a corpus of the format parquet (1 file, {num_bytes / 1000:.1f} kB)"
    following = told[-1].removeprefix("  next: vlm-rewards ")
    assert following == "label --input corpus --goals from-corpus --model reference-s --output labels/"
    assert main([*shlex.split(following), "--workers", "1"]) == 0
    capsys.readouterr()
    assert main(["inspect", "labels/"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("labels: labels of a corpus\n  model: reference-s\n  camera: main\n")
    assert "  9 rows of 3 episodes\n" in told
    assert told.endswith("  next: vlm-rewards hindsight --input CORPUS --labels labels --output relabelled/\n")


def test_json_is_one_object(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "corpus", "--json", "--frames"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["num_episodes"], found["are_all_frames_decoded"]) == ("corpus", 3, True)
    assert found["next"] == [
        "vlm-rewards label --input corpus --goals from-corpus --model reference-s --output labels/"
    ]


def test_goals_can_be_written_and_edited(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "corpus", "--write-goals", "goals.jsonl"]) == 0
    assert "--goals goals.jsonl --model reference-s" in capsys.readouterr().out
    texts = ("go to a red ball", "Go to a red ball.")
    assert read_goals("goals.jsonl")[0] == Goal("go-to-a-red-ball", texts[0], instructions=texts)
    assert main(["inspect", "corpus", "--write-goals", "goals.jsonl"]) == 2
    assert "--write-goals writes a new file, got goals.jsonl, which exists. Give another" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "the following arguments are required: PATH"),
        (("nowhere",), "got nowhere, which is not there"),
        (("corpus", "--corpus-option", "depth"), "expected NAME=VALUE: got 'depth'"),
        (("corpus", "--corpus-option", "depth=1"), "has no option 'depth'"),
        (("made", "--write-goals", "g"), "--write-goals needs a corpus: got made, episodes that an agent played"),
        (("empty", "--json"), "a corpus must hold shards"),
        (("mute", "--write-goals", "g"), "no episode of mute has an instruction"),
    ],
)
def test_wrong_words_are_refused(
    corpus: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    for folder in ("made", "empty"):
        Path(folder).mkdir()
    write_corpus(Path("mute"), [[episode("a", 2)]])
    record = {"kind": "rollout", "version": 1, "fingerprint": {}, "settings": {}}
    Path("made/settings.json").write_text(json.dumps(record))
    assert main(["inspect", *words]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.out == ""
    assert not Path("g").exists()
