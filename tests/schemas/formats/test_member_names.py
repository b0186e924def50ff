"""Ids and cameras of any text, through files whose names cannot hold them."""

import io
import itertools
import json
import tarfile
from pathlib import Path

import datasets
import numpy as np
import pytest
import webdataset
from labelled_corpora import GOALS, picture, write_labels
from tiny_models import save_tiny_clip

from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.pipelines.evaluate.evaluation import evaluate
from vlm_rewards.pipelines.hindsight.relabelling import hindsight
from vlm_rewards.pipelines.label.labelling import label
from vlm_rewards.schemas.episodes import CorpusFeatures, Episode
from vlm_rewards.schemas.formats.corpus import open_corpus, write_episodes
from vlm_rewards.schemas.formats.label_parts.reader import open_labels
from vlm_rewards.schemas.formats.member_names import check_fields, escape_name, unescape_name
from vlm_rewards.schemas.formats.relabelled_parts.reader import read_relabelled
from vlm_rewards.schemas.goals import Goal, write_goals
from vlm_rewards.schemas.manifests import Failure

IDS = (
    "plain-1",
    "2024.01.02_run1",
    "2024.01.02_run2",
    "kitchen/run 2",
    "kitchen%2Frun 2",  # what the one before is escaped to
    "..",
    "../up",
    ".hidden",
    "__meta__",
    "a\\b",
    "50%",
    "Küche 🤖",
    " ",
)
CAMERAS = ("observation.images.front", "front left", "a/b", "links.über", "a", "a.bytes", "%2E")


@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        ("episode-0001", "episode-0001"),
        ("BabyAI_v0-seed3-000000", "BabyAI_v0-seed3-000000"),
        ("2024.01", "2024%2E01"),
        ("a/b", "a%2Fb"),
        ("a\\b", "a%5Cb"),
        ("50%", "50%25"),
        ("%2E", "%252E"),
        ("..", "%2E%2E"),
        ("__a__", "%5F_a__"),
        ("_a", "_a"),
        ("front left", "front left"),
        ("ü", "ü"),
    ],
)
def test_names_are_escaped_and_back(name: str, escaped: str) -> None:
    assert escape_name(name) == escaped
    assert unescape_name(escaped) == name


def test_no_two_names_become_one() -> None:
    names = ["".join(parts) for parts in itertools.product(("%", ".", "/", "_", "2E", "2F", "25", "5F"), repeat=4)]
    assert len({escape_name(name) for name in names}) == len(set(names))
    assert [unescape_name(escape_name(name)) for name in names] == names


@pytest.mark.parametrize("name", ["50%", "a%20b", "%2e", "100%25 and 50%", "a/%2F"])
def test_what_other_tools_write_stays_as_it_is(name: str) -> None:
    assert unescape_name(name) == name


def test_cameras_that_readers_would_take_for_one_are_refused() -> None:
    check_fields(["front", "front left"])
    with pytest.raises(ValueError, match="differ in more than their case: got 'Front' and 'front'. Rename one"):
        check_fields(["Front", "wrist", "front"])


def _episodes(cameras: tuple[str, ...] = CAMERAS) -> list[Episode]:
    return [
        Episode(
            episode_id=episode_id,
            images={
                camera: [picture(16 * number + 4 * place % 16 + t) for t in range(3)]
                for place, camera in enumerate(cameras)
            },
            actions=np.array([number, 7]),
            achieved_goals=[[], ["ball"], []],
        )
        for number, episode_id in enumerate(IDS)
    ]


FEATURES = CorpusFeatures(cameras=CAMERAS, has_rewards=False, has_instruction=False, has_achieved_goals=True)


@pytest.mark.parametrize("container", ["parquet", "webdataset"])
def test_any_id_and_camera_pass_through_every_step(tmp_path: Path, container: str) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    extension = {"parquet": "parquet", "webdataset": "tar"}[container]
    write_episodes(corpus / f"a.{extension}", FEATURES, _episodes(), container)
    write_goals(GOALS, corpus / "goals.jsonl")
    opened = open_corpus(corpus)
    assert opened.features.cameras == CAMERAS
    for unit in opened.units():
        assert tuple(opened.episode_ids(unit)) == IDS
        for camera in CAMERAS:  # each read alone, its own pictures
            read = list(opened.episodes(unit, cameras=[camera]))
            frames = [list(episode.images[camera]) for episode in read if isinstance(episode, Episode)]
            assert frames == [episode.images[camera] for episode in _episodes()]
    achieved = np.array([[False] * 4, [True, False, False, False], [False] * 4])
    labels = write_labels(tmp_path / "labels", corpus, [[(episode_id, achieved) for episode_id in IDS]])
    quality = evaluate(corpus, labels, output=tmp_path / "report", workers=1)
    assert quality["counts"] == {"episodes": len(IDS), "frames": 3 * len(IDS), "unlabelled_frames": 0}
    assert quality["overall"]["pooled"]["at_threshold"]["precision"] == 1
    for output_container in ("parquet", "webdataset"):
        output = tmp_path / f"relabelled-{output_container}"
        hindsight(corpus, labels, output=output, format=output_container, workers=1)
        back = list(read_relabelled(output))
        assert tuple(episode.episode_id for episode in back) == IDS
        assert [episode.images for episode in back] == [episode.images for episode in _episodes()]
        for camera in ("a", "a.bytes"):
            assert [list(episode.images) for episode in read_relabelled(output, camera=camera)] == [[camera]] * len(IDS)


def test_labels_are_of_these_ids_and_the_same_from_either_container(tmp_path: Path) -> None:
    clip = save_tiny_clip(tmp_path / "clip")
    goals = (Goal("ball", "a red ball"), Goal("key", "a key"))
    settings = LabelerSettings(model=str(clip), goals=goals, batch_size=8, precision="float32")
    scores = []
    for container, extension in (("parquet", "parquet"), ("webdataset", "tar")):
        corpus = tmp_path / container
        corpus.mkdir()
        write_episodes(corpus / f"a.{extension}", FEATURES, _episodes(), container)
        label(corpus, settings, output=tmp_path / f"labels-{container}", camera="front left", workers=1)
        scores.append(
            {item.episode_id: item.scores.tolist() for item in open_labels(tmp_path / f"labels-{container}").episodes()}
        )
    assert tuple(scores[0]) == IDS
    assert scores[0] == scores[1]


def test_the_ecosystems_readers_keep_samples_apart(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    write_episodes(corpus / "a.tar", FEATURES, _episodes(), "webdataset")
    achieved = np.array([[False] * 4, [True, False, False, False], [False] * 4])
    labels = write_labels(tmp_path / "labels", corpus, [[(episode_id, achieved) for episode_id in IDS]])
    hindsight(corpus, labels, output=tmp_path / "relabelled", format="webdataset", workers=1)
    for tar in (corpus / "a.tar", tmp_path / "relabelled" / "parts" / "a.tar"):
        samples = list(webdataset.WebDataset(str(tar), shardshuffle=False).decode("rgb8"))
        assert tuple(unescape_name(sample["__key__"]) for sample in samples) == IDS
        table = datasets.load_dataset(
            "webdataset", data_files=str(tar), split="train", cache_dir=str(tmp_path / f"cache-{tar.parent.name}")
        )
        assert tuple(unescape_name(key) for key in table["__key__"]) == IDS
        for camera in CAMERAS:
            field = f"{escape_name(camera)}.000002.png"
            for sample, row, episode in zip(samples, table, _episodes(), strict=True):
                pixels = np.asarray(row[field])
                assert np.array_equal(pixels, sample[field.lower()])
                assert pixels[0, 0, 0] == np.asarray(_decoded(episode.images[camera][2]))[0, 0, 0]


def _decoded(data: bytes) -> np.ndarray:
    return datasets.Image().decode_example({"bytes": data, "path": None})


def _foreign_tar(path: Path, keys: list[str], camera: str = "cam") -> Path:
    """A tar as other tools write it: keys and cameras as they are."""
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key in keys:
            record = json.dumps({"num_frames": 2, "cameras": [camera]}).encode()
            for name, data in [(f"{key}.json", record), *((f"{key}.{camera}.{t:06d}.png", picture(t)) for t in (0, 1))]:
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


def test_foreign_tars_with_folders_and_dotted_cameras_are_read(tmp_path: Path) -> None:
    _foreign_tar(tmp_path / "corpus" / "s.tar", ["run1/0001", "./run2/0001", "50%"], camera="observation.images.front")
    episodes = [item for item in open_corpus(tmp_path / "corpus") if isinstance(item, Episode)]
    assert [episode.episode_id for episode in episodes] == ["run1/0001", "run2/0001", "50%"]
    assert [list(episode.images["observation.images.front"]) for episode in episodes] == [[picture(0), picture(1)]] * 3


@pytest.mark.parametrize("keys", [["2024.01.02_run1", "2024.01.02_run2"], ["a.b"], ["v1/2024.01"]])
def test_a_foreign_tar_whose_keys_hold_dots_is_refused_by_name(tmp_path: Path, keys: list[str]) -> None:
    _foreign_tar(tmp_path / "corpus" / "s.tar", keys)
    with pytest.raises(ValueError, match=f"a key must hold no dots, .* got '{keys[0]}.json' .* Write the dots"):
        open_corpus(tmp_path / "corpus")


def test_a_key_with_dots_is_refused_also_beside_a_sample_of_its_beginning(tmp_path: Path) -> None:
    _foreign_tar(tmp_path / "corpus" / "s.tar", ["a", "a.b", "c"])
    first, second = open_corpus(tmp_path / "corpus")
    assert isinstance(first, Failure)
    assert (first.reason, first.episode_id) == ("key with dots", "a")
    assert isinstance(second, Episode)


def test_other_json_members_are_no_keys_with_dots(tmp_path: Path) -> None:
    tar = _foreign_tar(tmp_path / "corpus" / "s.tar", ["a"])
    with tarfile.open(tar, "a") as opened:
        opened.addfile(tarfile.TarInfo("a.meta.json"))
    assert [type(item) for item in open_corpus(tmp_path / "corpus")] == [Episode]
