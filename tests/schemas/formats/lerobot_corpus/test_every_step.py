"""LeRobot data sets through label, hindsight and train: the same labels from every layout, and from units of any size."""

import dataclasses
import json
from pathlib import Path

import av
import numpy as np
import pytest
from lerobot_datasets import DataSet
from tiny_models import save_tiny_clip

from vlm_rewards.cli import main
from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.offline_rl.training.train import train
from vlm_rewards.pipelines.engine.outputs import PartWriter
from vlm_rewards.pipelines.hindsight.relabelling import hindsight
from vlm_rewards.pipelines.inspect.inspection import inspect_corpus
from vlm_rewards.pipelines.label.labelling import label
from vlm_rewards.pipelines.label.planning import plan_label
from vlm_rewards.pipelines.label.settings import LabelRun
from vlm_rewards.schemas import videos
from vlm_rewards.schemas.formats.corpus import Corpus, open_corpus
from vlm_rewards.schemas.formats.label_parts.reader import open_labels
from vlm_rewards.schemas.formats.relabelled_parts.reader import read_relabelled
from vlm_rewards.schemas.goals import Goal, write_goals
from vlm_rewards.schemas.manifests import Failure
from vlm_rewards.schemas.pictures import decoded_frame

GOALS = (Goal("ball", "a red ball"), Goal("key", "a key"), Goal("cup", "a cup"))
IMAGES = {"observation.images.image_0": "image", "observation.images.image_1": "image"}
CORPORA = Path(__file__).resolve().parents[5] / "shared" / "corpora"


@pytest.fixture(scope="module")
def labeler(tmp_path_factory: pytest.TempPathFactory) -> LabelerSettings:
    clip = save_tiny_clip(tmp_path_factory.mktemp("clip"))
    return LabelerSettings(model=str(clip), goals=GOALS, batch_size=8, precision="float32")


def scores(folder: Path) -> dict[str, np.ndarray]:
    return {episode.episode_id: np.array(episode.scores) for episode in open_labels(folder).episodes()}


def assert_equal(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    assert list(left) == list(right)
    for episode_id, values in left.items():
        np.testing.assert_array_equal(values, right[episode_id])


def test_every_layout_of_pictures_gives_the_same_labels(tmp_path: Path, labeler: LabelerSettings) -> None:
    layouts = [
        DataSet(version="v2.0", cameras=IMAGES),
        DataSet(version="v2.1", cameras=IMAGES),
        DataSet(cameras=IMAGES),
        DataSet(cameras=IMAGES, recorder=False, per_data_file=1),
    ]
    found = []
    for number, layout in enumerate(layouts):
        corpus = layout.write(tmp_path / f"corpus-{number}")
        label(corpus, labeler, output=tmp_path / f"labels-{number}", camera="image_1", workers=1)
        found.append(scores(tmp_path / f"labels-{number}"))
    assert [len(values) for values in found[0].values()] == [5, 3, 4]
    for other in found[1:]:
        assert_equal(found[0], other)


def test_units_of_any_size_give_the_same_labels_of_videos(tmp_path: Path, labeler: LabelerSettings) -> None:
    corpus = DataSet(lengths=[9, 14, 5], tasks=["lift"] * 3).write(tmp_path / "corpus")
    label(corpus, labeler, output=tmp_path / "whole", workers=1)
    label(corpus, labeler, output=tmp_path / "split", max_unit_mib=1e-6, workers=1)
    assert len(list((tmp_path / "split/parts").iterdir())) == 3
    assert_equal(scores(tmp_path / "whole"), scores(tmp_path / "split"))


def test_labels_of_videos_name_their_decoders_and_those_of_pictures_none(
    tmp_path: Path, labeler: LabelerSettings
) -> None:
    cameras = {"observation.images.front": "video", "observation.images.wrist": "image"}
    corpus = DataSet(cameras=cameras).write(tmp_path / "corpus")
    parts = {}
    for camera in ("front", "wrist"):
        summary = label(corpus, labeler, output=tmp_path / camera, embeddings=tmp_path / f"{camera}-e", camera=camera)
        parts[camera] = summary.manifest["fingerprint"]
    assert parts["front"]["decoders"] == videos.decoder_versions()
    assert "decoders" not in parts["wrist"]
    again = label(None, labeler, output=tmp_path / "again", embeddings=tmp_path / "front-e")
    assert again.manifest["fingerprint"] == parts["front"]
    assert_equal(scores(tmp_path / "front"), scores(tmp_path / "again"))


def test_labels_of_another_decoder_are_refused(
    tmp_path: Path, labeler: LabelerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = DataSet().write(tmp_path / "corpus")
    label(corpus, labeler, output=tmp_path / "labels")
    planned = plan_label(corpus, labeler, tmp_path / "other", LabelRun())
    monkeypatch.setattr(av, "__version__", "17.0.0")
    with pytest.raises(ValueError, match='got other decoders .decoders.av is "18.* there and "17.0.0" here'):
        label(corpus, labeler, output=tmp_path / "labels")
    with pytest.raises(ValueError, match="decodes videos with other versions .*: got {'av': '17.0.0', .* in place of"):
        planned.work(planned.units[0], PartWriter(tmp_path / "part", tmp_path / "failures"))


def test_a_camera_may_be_asked_for_by_its_key(tmp_path: Path, labeler: LabelerSettings) -> None:
    cameras = {"observation.images.front": "image", "observation.image": "image"}
    corpus = DataSet(cameras=cameras).write(tmp_path / "corpus")
    for camera, name in (("observation.images.front", "front"), ("front", "front"), ("observation.image",) * 2):
        plan = plan_label(corpus, labeler, tmp_path / "labels", LabelRun(camera=camera))
        assert plan.work.camera == plan.output.fingerprint.parts["camera"] == name


def test_where_metadata_disagrees_is_printed(
    tmp_path: Path, labeler: LabelerSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = DataSet(version="v2.1", changes={"total_episodes": 100}).write(tmp_path / "corpus")
    write_goals(GOALS, tmp_path / "goals.jsonl")
    arguments = ["label", "--input", str(corpus), "--goals", str(tmp_path / "goals.jsonl"), "--model", labeler.model]
    note = "  note: meta/info.json speaks of 100 episodes, but the data files hold 3 episodes, which are read"
    for more in (["--dry-run"], []):
        assert main([*arguments, "--output", str(tmp_path / "labels"), *more]) == 0
        assert note in capsys.readouterr().out.splitlines()
    assert json.loads((tmp_path / "labels/manifest.json").read_text())["notes"] == [note.removeprefix("  note: ")]
    report = inspect_corpus(corpus)
    assert note in str(report).splitlines()
    assert report.to_json()["notes"] == [note.removeprefix("  note: ")]


def test_files_that_are_no_part_of_it_are_named(tmp_path: Path) -> None:
    corpus = DataSet(version="v2.1").write(tmp_path)
    (corpus / "videos/chunk-000/observation.images.front/episode_000077.mp4").write_bytes(b"x")
    (corpus / "notes.txt").write_text("x")
    (corpus / "meta/stats.json").write_text("{}")
    assert [entry.name for entry in open_corpus(corpus).passed_over] == [
        "notes.txt",
        "videos/chunk-000/observation.images.front/episode_000077.mp4",
    ]


def test_hindsight_and_train_work_on_videos(tmp_path: Path, labeler: LabelerSettings) -> None:
    data = DataSet(lengths=[9, 14, 5], tasks=["lift"] * 3)
    features = {**data._info()["features"], "action": {"dtype": "int64", "shape": [1], "names": None}}
    data = dataclasses.replace(data, columns={"action": [k % 4 for k in range(28)]}, changes={"features": features})
    corpus = data.write(tmp_path / "corpus")
    label(corpus, labeler, output=tmp_path / "labels")
    hindsight(corpus, tmp_path / "labels", output=tmp_path / "relabelled")
    relabelled = {episode.episode_id: episode for episode in read_relabelled(tmp_path / "relabelled")}
    assert relabelled
    opened = {episode.episode_id: episode for episode in open_corpus(corpus)}
    for episode_id, written in relabelled.items():
        episode = opened[episode_id]
        assert written.num_steps == episode.num_frames - 1  # the last action has no frame after it
        assert written.instruction == "lift"
        pairs = zip(episode.images["front"], written.images["front"], strict=True)
        assert all((decoded_frame(picture) == frame).all() for frame, picture in pairs)
    train(tmp_path / "relabelled", output=tmp_path / "agent", steps=4, batch_size=8, num_actions=4, checkpoint_every=4)
    assert (tmp_path / "agent" / "agent.json").is_file()


def episodes_of(name: str, camera: str) -> list[list[np.ndarray]]:
    corpus: Corpus = open_corpus(CORPORA / name)
    return [[decoded_frame(f) for f in e.images[camera]] for e in corpus if not isinstance(e, Failure)]


@pytest.mark.skipif(not (CORPORA / "bridge-robomimic").is_dir(), reason="the corpora are not beside the repository")
@pytest.mark.parametrize("name", ["bridge-lerobot-v21-image", "bridge-lerobot-v30-image"])
def test_real_frames_equal_those_of_another_layout(name: str) -> None:
    ours, theirs = episodes_of(name, "image_0"), episodes_of("bridge-robomimic", "agentview_image")
    assert len(ours) == len(theirs) == 6
    for one, other in zip(ours, theirs, strict=True):
        assert len(one) == 10
        np.testing.assert_array_equal(one, other[:10])
