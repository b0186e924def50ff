"""`calibrate` and `label --calibration` as a user meets them, with a real tiny model and kept embeddings."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hdf5_recordings import write_robomimic
from small_corpora import plain_episode
from tiny_models import save_tiny_clip

from vlm_rewards.cli import main
from vlm_rewards.schemas.episodes import CorpusFeatures
from vlm_rewards.schemas.files.digests import seal
from vlm_rewards.schemas.formats.corpus import write_episodes
from vlm_rewards.schemas.formats.label_parts.reader import open_labels
from vlm_rewards.schemas.goals import Goal, write_goals

GOALS = (Goal("find-ball", "a ball in front", "find"), Goal("lift-key", "the agent carries a key", "lift"))


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = main([str(word) for word in words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of 24 episodes in 3 shards, a tiny CLIP, labels and kept embeddings."""
    folder = tmp_path_factory.mktemp("calibrate")
    (folder / "corpus").mkdir()
    write_goals(GOALS, folder / "corpus" / "goals.jsonl")
    for shard in range(3):
        episodes = [plain_episode(8 * shard + number) for number in range(8)]
        path = folder / "corpus" / f"shard-{shard}.parquet"
        write_episodes(path, CorpusFeatures.of(episodes[0]), episodes, "parquet")
    save_tiny_clip(folder / "clip")
    assert main([str(word) for word in [*label_words(folder), "--output", folder / "labels"]]) == 0
    return folder


def label_words(folder: Path) -> list[object]:
    source = ["--input", folder / "corpus", "--goals", folder / "corpus" / "goals.jsonl", "--model", folder / "clip"]
    return [
        "label",
        *source,
        "--embeddings",
        folder / "embeddings",
        "--negatives",
        "explicit",
        "--negative",
        "an empty room",
    ]


def calibrate_words(folder: Path, output: Path) -> list[object]:
    return [
        "calibrate",
        "--labels",
        folder / "labels",
        "--input",
        folder / "corpus",
        "--min-examples",
        2,
        "--output",
        output,
    ]


def test_the_temperature_is_kept_where_few_episodes_could_choose_it(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # There are 24 episodes: fewer than 25 cannot say enough.
    words = [25 if word == 2 else word for word in calibrate_words(work, tmp_path / "calibration.json")]
    status, out, err = run(capsys, *words, "--embeddings", work / "embeddings")
    assert status == 0, err
    record = json.loads((tmp_path / "calibration.json").read_text())
    search = record["temperature_search"]
    assert search["outcome"].startswith("kept: a goal holds in ")
    assert search["outcome"].endswith(" of the episodes to choose it by, fewer than 25")
    assert record["temperature"] == search["before"]
    assert search["outcome"] in out


def test_the_printed_command_labels_with_the_calibration(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "calibration.json"
    status, out, err = run(capsys, *calibrate_words(work, output), "--embeddings", work / "embeddings")
    assert status == 0, err
    assert "calibrated 2 goals for the best F1 on 144 frames of 24 episodes (truth: ground truth of the corpus)" in out
    assert "macro F1 held out (at thresholds that were not taken): " in out
    assert "  precision and recall of all frames, held out (at thresholds that were not taken): " in out
    record = json.loads(output.read_text())
    search = record["temperature_search"]
    assert search["log_loss"] == min(search["tried"].values()) <= search["log_loss_before"]
    command = shlex.split(out.split("next: vlm-rewards ")[1].splitlines()[0])
    assert "--negative" in command
    command[command.index("--output") + 1] = str(tmp_path / "labels-2")
    status, out, err = run(capsys, *command, "--reward", "discounted", "--discount", 0.5)
    assert status == 0, err
    metadata = open_labels(tmp_path / "labels-2").metadata
    assert metadata.rule.thresholds == tuple(record["thresholds"].values())
    assert metadata.rule.fire_rates == tuple(record["fire_rates"].values())
    assert metadata.fingerprint.parts["temperature"] == record["temperature"]
    # What the file says of these frames is what the new labels do: thresholds were chosen at the new temperature.
    parts = sorted((tmp_path / "labels-2" / "parts").glob("*.parquet"))
    scores = np.concatenate([np.array(pq.read_table(part)["scores"].to_pylist()) for part in parts])
    fires = scores > metadata.rule.threshold_array
    for column, detail in enumerate(record["goals"]):
        rate, recall = detail["false_positive_rate"], detail["recall"]
        fired = detail["negatives"] * rate + detail["positives"] * recall
        assert fires[:, column].sum() == pytest.approx(fired)


def test_a_temperature_of_lower_log_loss_is_taken_and_said(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "calibration.json"
    words = [*calibrate_words(work, output), "--objective", "precision", "--precision", 0.1]
    status, out, err = run(capsys, *words, "--embeddings", work / "embeddings")
    assert status == 0, err
    record = json.loads(output.read_text())
    search = record["temperature_search"]
    assert search["outcome"] == "changed"
    assert record["temperature"] != search["before"]
    assert search["log_loss"] == min(search["tried"].values()) < search["log_loss_before"]
    assert search["log_loss_held_out"] < search["log_loss_before"]
    assert f": log loss {search['log_loss']:.6f}, was {search['log_loss_before']:.6f}; held out " in out


def test_without_embeddings_the_temperature_stays(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "calibration.json"
    status, out, err = run(capsys, *calibrate_words(work, output))
    assert status == 0, err
    assert "(kept: no embeddings to score again)" in out
    own = open_labels(work / "labels").metadata.fingerprint.parts["temperature"]
    assert json.loads(output.read_text())["temperature"] == own


def test_a_bound_holds_back_the_episodes_that_chose_the_temperature(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "calibration.json"
    words = [*calibrate_words(work, output), "--objective", "fpr", "--level", 0.5, "--confidence", 0.8]
    status, out, err = run(capsys, *words, "--embeddings", work / "embeddings")
    assert status == 0, err
    assert "holds for each goal by itself, with probability 0.8 over the draw" in out
    record = json.loads(output.read_text())
    assert record["data"]["episodes"] + record["temperature_search"]["episodes"] == 24


def test_another_labeler_or_setting_is_refused(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "calibration.json"
    assert run(capsys, *calibrate_words(work, output))[0] == 0
    other = save_tiny_clip(tmp_path / "other", seed=3)
    label = [*label_words(work), "--output", tmp_path / "new", "--calibration", output]
    plain = [word for word in label if word not in ("--embeddings", work / "embeddings")]
    for words, message in (
        ([*label, "--threshold", 0.5], "--threshold must be left out with --calibration, which holds it, got 0.5"),
        ([*label, "--temperature", 0.5], "--temperature must be left out with --calibration, which holds it, got 0.5"),
        (
            [*label, "--goal", "find-ball"],
            "goals must be those of the calibration, got 0 goals that are not calibrated",
        ),
        ([*label, "--formula", "cosine"], "formula must be that of the calibration, 'softmax', got 'cosine'"),
        (
            [*label, "--template", "a photo of {goal}"],
            "the same fingerprint as this run, got other templates",
        ),
        ([*label, "--negative", "a door"], "got other negatives"),
        ([*plain, "--model", other], "got other weights"),
    ):
        status, _, err = run(capsys, *words)
        assert status == 2
        assert message in err
    assert not (tmp_path / "new").exists()


def test_embeddings_must_be_those_of_the_labels(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(work, copy)
    sorted((copy / "embeddings" / "markers").glob("*.json"))[0].unlink()
    words = [*calibrate_words(copy, tmp_path / "c.json"), "--embeddings", copy / "embeddings"]
    status, _, err = run(capsys, *words)
    assert status == 2
    assert "embeddings must hold every unit of the labels, got" in err
    for name in ("manifest.json", "settings.json"):
        path = copy / "embeddings" / name
        record = json.loads(path.read_text().replace('"camera": "front"', '"camera": "wrist"'))
        path.write_text(json.dumps(seal(record) if "digest" in record else record))
    status, _, err = run(capsys, *words)
    assert status == 2
    assert "give the embeddings that were kept when these labels were made" in err


def test_labels_of_a_corpus_with_options_are_calibrated_as_it_was_read(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_robomimic(tmp_path / "corpus" / "demos.hdf5", (3, 3))
    read_as = ["--camera", "agentview_image", "--corpus-option", "channels=bgr"]
    inputs = ["--input", tmp_path / "corpus", "--goals", work / "corpus" / "goals.jsonl", "--model", work / "clip"]
    inputs += ["--negatives", "explicit", "--negative", "an empty room"]
    kept = ["--embeddings", tmp_path / "kept"]
    status, _, err = run(capsys, "label", *inputs, *read_as, *kept, "--output", tmp_path / "labels")
    assert status == 0, err
    assert open_labels(tmp_path / "labels").metadata.fingerprint.parts["corpus_options"] == {"channels": "bgr"}
    first = next(open_labels(tmp_path / "labels").episodes()).episode_id
    marks = [f"{first},{frame},{goal.id},{frame % 2}" for frame in range(3) for goal in GOALS]
    (tmp_path / "marks.csv").write_text("\n".join(["episode_id,frame_index,goal,achieved", *marks]) + "\n")
    words = ["calibrate", "--labels", tmp_path / "labels", "--marks", tmp_path / "marks.csv", *kept]
    words += ["--objective", "precision", "--precision", 0.1, "--min-examples", 1]
    status, out, err = run(capsys, *words, "--output", tmp_path / "calibration.json")
    assert status == 0, err
    assert "on 3 frames of 1 episodes (truth: marks)" in out
    # The calibration holds for the scores, however the corpus is read.
    again = ["label", *inputs, "--camera", "agentview_image", "--calibration", tmp_path / "calibration.json"]
    status, _, err = run(capsys, *again, "--output", tmp_path / "plain")
    assert status == 0, err
    # Kept embeddings of frames that were read in another way are not those of the labels.
    plain = ["--embeddings", tmp_path / "kept-plain", "--output", tmp_path / "other"]
    assert run(capsys, "label", *inputs, "--camera", "agentview_image", *plain)[0] == 0
    words[words.index(tmp_path / "kept")] = tmp_path / "kept-plain"
    status, _, err = run(capsys, *words, "--output", tmp_path / "other.json")
    assert status == 2
    assert "give the embeddings that were kept when these labels were made" in err
    assert not (tmp_path / "other.json").exists()
