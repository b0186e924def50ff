"""Exports into WebDataset: members of hand-drawn labels beside everything that was there, byte for byte."""

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import webdataset
from labelled_corpora import GOALS, episode, holds, picture, write_corpus, write_labels_of

from vlm_rewards.pipelines.export.exporting import export
from vlm_rewards.schemas.episodes import Episode
from vlm_rewards.schemas.formats.corpus import open_corpus

BALL = {"a.1": "..X.X", "bé": ".X."}
MARKS = {name: holds(marks, *["." * len(marks)] * 3) for name, marks in BALL.items()}
NEW = ("vlm_goal.npy", "vlm_score.npy", "vlm_success.npy", "vlm_reward.npy", "vlm_scores.npy")


def members_of(path: Path) -> list[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(path) as tar:
        return [(member, tar.extractfile(member).read() if member.isreg() else b"") for member in tar]  # type: ignore[union-attr]


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> None:
    """A tar of the GNU format, each member of an age and owner of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for number, (name, data) in enumerate(members):
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.uname = len(data), 1000 + number, "somebody"
            tar.addfile(member, io.BytesIO(data))


def others(folder: Path) -> Path:
    """Tars of others, one sample per episode in another order than ours; one has a very long name and a directory."""
    key = "run/" + "long" * 40
    write_tar(
        folder / "x" / "0.tar", [(f"./{key}.frame_{t}.png", picture(t)) for t in range(5)] + [(f"./{key}.txt", b"go")]
    )
    with tarfile.open(folder / "1.tar", "w") as tar:
        directory = tarfile.TarInfo("run")
        directory.type = tarfile.DIRTYPE
        tar.addfile(directory)
        for t in range(3):
            member = tarfile.TarInfo(f"b.frame_{t}.png")
            member.size, member.mtime = len(picture(t)), 2000.5
            tar.addfile(member, io.BytesIO(picture(t)))
    return folder


def read(folder: Path) -> list[tuple[object, ...]]:
    found = []
    for item in open_corpus(folder):
        assert isinstance(item, Episode), item
        actions = None if item.actions is None else item.actions.tolist()
        frames = {camera: [bytes(frame) for frame in frames] for camera, frames in item.images.items()}
        found.append((item.episode_id, item.instruction, actions, frames))
    return found


def check_the_rest(corpus: Path, copy: Path) -> None:
    """All other members are as they were, in order; so is what a reader of ours says."""
    for path in sorted(corpus.rglob("*.tar")):
        before, after = members_of(path), members_of(copy / path.relative_to(corpus))
        kept = [(member, data) for member, data in after if member.name.partition(".vlm_")[1] == ""]
        assert [(m.get_info(), data) for m, data in kept] == [(m.get_info(), data) for m, data in before]
    assert read(copy) == read(corpus)
    assert open_corpus(copy).features == open_corpus(corpus).features


def samples_of(folder: Path) -> dict[str, Mapping[str, object]]:
    paths = [str(path) for path in sorted(folder.rglob("*.tar"))]
    read = webdataset.WebDataset(paths, shardshuffle=False, empty_check=False).decode("rgb8")
    return {sample["__key__"]: sample for sample in read}


def test_samples_of_ours_have_members_of_labels(tmp_path: Path) -> None:
    corpus = write_corpus(
        tmp_path / "corpus",
        [
            [
                episode("a.1", 5, instruction="go to the ball"),
                episode("bé", 3, final_frame=False, instruction="at the ball"),
            ]
        ],
        "webdataset",
    )
    labels = write_labels_of(tmp_path / "labels", corpus, MARKS, goals=GOALS)
    summary = export(corpus, labels, to="webdataset", all_scores=True, output=tmp_path / "copy")
    check_the_rest(corpus, tmp_path / "copy")
    samples = samples_of(tmp_path / "copy")
    assert list(samples) == ["a%2E1", "bé"]
    for sample, marks in zip(samples.values(), BALL.values(), strict=True):
        assert sample["vlm_goal.npy"].item() == "ball"  # type: ignore[attr-defined]
        assert sample["vlm_score.npy"] == pytest.approx([0.9 if mark == "X" else 0.1 for mark in marks])
        assert sample["vlm_success.npy"].tolist() == [mark == "X" for mark in marks]  # type: ignore[attr-defined]
        assert sample["vlm_scores.npy"].shape == (len(marks), len(GOALS))  # type: ignore[attr-defined]
        assert {"json", "action.npy", "main.000000.png"} <= sample.keys()
    rewards = [sample["vlm_reward.npy"].tolist() for sample in samples.values()]  # type: ignore[attr-defined]
    assert rewards == [[0, 1, 0, 1], [1, 0, 0]]
    assert summary.lines == (f"2 samples have {', '.join(NEW)}",)


def test_samples_of_others_are_as_they_were_beside_the_labels(tmp_path: Path) -> None:
    corpus = others(tmp_path / "corpus")
    marks = {"run/" + "long" * 40: MARKS["a.1"], "b": MARKS["bé"]}
    labels = write_labels_of(tmp_path / "labels", corpus, marks, goals=GOALS)
    export(corpus, labels, to="webdataset", goal="ball", output=tmp_path / "copy")
    check_the_rest(corpus, tmp_path / "copy")
    added = [member for member, _ in members_of(tmp_path / "copy" / "x" / "0.tar") if ".vlm_" in member.name]
    assert [member.name for member in added] == [f"./run/{'long' * 40}.{suffix}" for suffix in NEW[:4]]
    assert {(member.mtime, member.uname) for member in added} == {(1000, "somebody")}
    samples = samples_of(tmp_path / "copy")
    successes = [sample["vlm_success.npy"].tolist() for sample in samples.values()]  # type: ignore[attr-defined]
    assert successes == [[mark == "X" for mark in BALL[name]] for name in ("bé", "a.1")]


def test_members_of_an_earlier_export_are_replaced(tmp_path: Path) -> None:
    corpus = others(tmp_path / "corpus")
    marks = {"run/" + "long" * 40: MARKS["a.1"], "b": MARKS["bé"]}
    labels = write_labels_of(tmp_path / "labels", corpus, marks, goals=GOALS)
    export(corpus, labels, to="webdataset", goal="box", all_scores=True, output=tmp_path / "first")
    again = write_labels_of(tmp_path / "again", tmp_path / "first", marks, goals=GOALS)
    summary = export(tmp_path / "first", again, to="webdataset", goal="ball", output=tmp_path / "second")
    assert summary.lines[1] == "replaced 10 members of such names"
    export(corpus, labels, to="webdataset", goal="ball", output=tmp_path / "once")
    for name in ("1.tar", "x/0.tar"):
        assert (tmp_path / "second" / name).read_bytes() == (tmp_path / "once" / name).read_bytes()


def test_tars_with_a_sample_per_step_are_refused(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    write_tar(corpus / "0.tar", [(f"ep_{t}.png", picture(t)) for t in range(3)])
    labels = write_labels_of(tmp_path / "labels", corpus, {"ep": MARKS["bé"]}, goals=GOALS)
    with pytest.raises(ValueError, match=r"one sample per episode: got one per step \(\{episode\}_\{frame\}\.\*\)"):
        export(corpus, labels, to="webdataset", goal="ball", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
