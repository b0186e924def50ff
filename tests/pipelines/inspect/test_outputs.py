"""What inspect says of output folders of vlm-rewards."""

import json
from pathlib import Path

import pytest
from labelled_corpora import GOALS, episode, holds, write_corpus, write_labels

from vlm_rewards.pipelines.inspect.outputs import output_at


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    corpus = write_corpus(tmp_path / "corpus", [[episode("a", 3)]])
    columns = holds("..X", ".X.", "...", "...")
    return write_labels(tmp_path / "labels", corpus, [[("a", columns)]], goals=GOALS)


def test_labels_are_told_with_the_command_that_uses_them(labels: Path) -> None:
    found = output_at(labels)
    assert found is not None
    assert found.lines() == [f"{labels}: labels of a corpus", "  3 rows of 1 episodes"]
    expected = ["hindsight", "--input", "CORPUS", "--labels", labels, "--output", "relabelled/"]
    assert list(found.following) == expected
    assert found.to_json() == {
        "path": str(labels),
        "kind": "labels",
        "is_finished": True,
        "details": ["3 rows of 1 episodes"],
    }


def test_an_unfinished_folder_is_said_to_be_that(labels: Path) -> None:
    (labels / "manifest.json").unlink()
    found = output_at(labels)
    assert found is not None
    assert found.lines() == [
        f"{labels}: labels of a corpus, not finished",
        "  run the command that made it again: it does what is missing",
    ]
    assert found.following == []


@pytest.mark.parametrize(
    ("kind", "what", "following"),
    [
        ("training", "an agent that was trained offline", "rollout --agent {} --output rollout/"),
        ("fine-tuning", "an agent that was fine-tuned live", "rollout --agent {} --output rollout/"),
        ("rollout", "episodes that an agent played", ""),
        ("dreams", "an output of the kind 'dreams'", ""),
    ],
)
def test_kinds_that_have_no_manifest(tmp_path: Path, kind: str, what: str, following: str) -> None:
    record = {"kind": kind, "version": 1, "fingerprint": {}, "settings": {"algorithm": "iql"}}
    (tmp_path / "settings.json").write_text(json.dumps(record))
    found = output_at(tmp_path)
    assert found is not None
    assert found.lines() == [f"{tmp_path}: {what}", "  algorithm: iql"]
    assert " ".join(map(str, found.following)) == following.format(tmp_path)


def test_reports_are_told_by_what_their_files_say(tmp_path: Path) -> None:
    for name, kind, what in (
        ("quality.json", "evaluation", "an evaluation of labels"),
        ("diff.json", "diff", "a comparison of labels"),
    ):
        folder = tmp_path / kind
        folder.mkdir()
        (folder / name).write_text(json.dumps({"kind": "another tool's"}))
        assert output_at(folder) is None
        (folder / name).write_text(json.dumps({"kind": kind}))
        found = output_at(folder)
        assert found is not None
        assert found.lines() == [f"{folder}: {what}", f"  its figures: {folder / name}"]
        (folder / "report.html").write_text("<html>")
        found = output_at(folder)
        assert found is not None
        assert found.lines()[1] == f"  open {folder / 'report.html'} in a browser"


def test_models_calibrations_and_embeddings_are_told_with_label(tmp_path: Path) -> None:
    from vlm_rewards.labelers.reference_models import REFERENCE_FOLDER

    model = output_at(REFERENCE_FOLDER / "reference-s")
    assert model is not None
    assert model.lines() == [f"{REFERENCE_FOLDER / 'reference-s'}: a checkpoint of a model"]
    assert model.following[-3:] == [REFERENCE_FOLDER / "reference-s", "--output", "labels/"]
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps({"kind": "calibration"}))
    calibration = output_at(path)
    assert calibration is not None
    assert "--calibration" in calibration.following
    for text in ("[]", "{", '{"kind": 1}'):
        path.write_text(text)
        assert output_at(path) is None
    record = {"kind": "embeddings", "version": 1, "fingerprint": {}, "settings": {"model": "reference-s"}}
    (tmp_path / "settings.json").write_text(json.dumps(record))
    kept = output_at(tmp_path)
    assert kept is not None
    assert (kept.is_finished, kept.following) == (False, [])


def test_a_manifest_that_was_changed_is_refused(labels: Path) -> None:
    path = labels / "manifest.json"
    path.write_text(path.read_text().replace('"rows": 3', '"rows": 4'))
    with pytest.raises(ValueError, match="manifest.json"):
        output_at(labels)


def test_corpora_and_other_things_are_no_outputs(tmp_path: Path) -> None:
    assert output_at(write_corpus(tmp_path / "corpus", [[episode("a", 3)]])) is None
    record = {"kind": "corpus", "version": 1, "fingerprint": {}, "settings": {}}
    (tmp_path / "settings.json").write_text(json.dumps(record))
    assert output_at(tmp_path) is None
    assert output_at(tmp_path / "nowhere") is None
    assert output_at("s3://bucket/labels") is None


def test_settings_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(ValueError, match="must have the entries kind, fingerprint and settings"):
        output_at(tmp_path)
