"""`vlm-rewards diff` as a user meets it, on labels that `vlm-rewards label` made."""

import json
from pathlib import Path

import pytest
from tiny_models import save_tiny_clip

from vlm_rewards.cli import main


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded") / "corpus"
    arguments = ["record", "--env", "BabyAI-GoToLocal-v0", "--episodes", "6", "--episodes-per-shard", "2"]
    assert main([*arguments, "--output", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """A folder with the labels cold and warm, which differ in their temperature."""
    folder = tmp_path_factory.mktemp("labelled")
    model = str(save_tiny_clip(folder / "clip"))
    source = ["--input", str(corpus), "--goals", str(corpus / "goals.jsonl"), "--model", model]
    for name, settings in (("cold", ["--temperature", "0.02"]), ("warm", ["--temperature", "0.5"])):
        assert main(["label", *source, *settings, "--output", str(folder / name)]) == 0
    return folder


def run(arguments: list[object], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_same_labels_are_identical(tmp_path: Path, labels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(["diff", labels / "cold", labels / "cold", "--output", tmp_path / "diff"], capsys)
    assert (status, err) == (0, "")
    frames = json.loads((labels / "cold" / "manifest.json").read_text())["rows"]
    assert f"compared {frames:,} frames of 6 episodes for 342 goals" in out
    assert "identical: every goal, threshold, frame and score is the same" in out
    assert f"all of it: {tmp_path / 'diff' / 'diff.json'}" in out


def test_another_temperature_changes_scores_and_not_their_order(
    tmp_path: Path, labels: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["diff", labels / "cold", labels / "warm", "--input", corpus, "--output", tmp_path / "diff"]
    status, out, _ = run([*arguments, "--tolerance", "0.001"], capsys)
    assert status == 0
    assert "fingerprint, temperature: 0.02 in A, 0.5 in B" in out
    assert "identical" not in out
    assert "goals that changed most, 10 of" in out
    assert "quality on" in out
    result = json.loads((tmp_path / "diff" / "diff.json").read_text())
    assert list(result["fingerprint"]) == ["temperature"]
    assert result["tolerance"] == 0.001
    # Beside the one neutral text, a softmax is a rising function of the difference of two cosines, whatever the temperature.
    assert result["quality"]["families"]["find"]["difference"]["average_precision"] == pytest.approx(0, abs=0.02)


def test_the_output_is_diff_by_default(
    tmp_path: Path, labels: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["diff", labels / "cold", labels / "warm"], capsys)[0] == 0
    assert [path.name for path in (tmp_path / "diff").iterdir()] == ["diff.json"]


def test_what_cannot_be_compared_ends_with_one_line(
    tmp_path: Path, labels: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(["diff", labels / "cold", corpus, "--output", tmp_path / "diff"], capsys)
    assert (status, out) == (2, "")
    assert err == (
        f"vlm-rewards diff: error: the folder must hold labels, got {corpus} with corpus. Give another folder\n"
    )
    status, _, err = run(["diff", labels / "cold", labels / "warm", "--output", labels / "cold"], capsys)
    assert status == 2
    assert "must be empty or hold an earlier diff" in err


def test_help_explains_every_argument(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["diff", "--help"])
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for said in (
        "folder of finished labels",
        "sharded as it may be",
        "--input PATH",
        "--tolerance X",
        "(default: diff)",
    ):
        assert said in text
