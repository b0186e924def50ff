"""Paths in object stores."""

from pathlib import Path

import pytest

import vlm_rewards as vr
from vlm_rewards.command_line.options import path_or_url
from vlm_rewards.labelers.domains.domain import domain_named
from vlm_rewards.labelers.reference_models.pretraining import pretrain, recipe_of
from vlm_rewards.schemas.files.remote_paths import (
    RemotePath,
    check_writable,
    create_file,
    local_copy,
    local_input,
    local_path,
    location_of,
    size_of,
)


def test_a_location_is_a_path_or_a_url():
    assert location_of("labels") == location_of(Path("labels")) == Path("labels")
    remote = location_of("s3://bucket/labels/")
    assert remote == RemotePath("s3://bucket/labels") == location_of(remote)
    part = remote / "parts" / "a.b.parquet"
    assert str(part) == "s3://bucket/labels/parts/a.b.parquet"
    assert (part.name, part.stem, part.parent.parent) == ("a.b.parquet", "a.b", remote)
    assert RemotePath("s3://bucket").parent == RemotePath("s3://bucket")
    assert (path_or_url("s3://a/b"), path_or_url("a/b")) == ("s3://a/b", Path("a/b"))
    with pytest.raises(ValueError, match=r"must be given as text, .*: got s3:/bucket/labels. Give it as a str"):
        location_of(Path("s3://bucket/labels"))


def test_an_object_is_made_once_replaced_and_removed(bucket, tmp_path):
    path = RemotePath(f"{bucket}/a/one")
    assert not path.is_file()
    assert size_of(path) is None
    assert path.create(b"first")
    assert not path.create(b"second")
    assert path.read_text() == "first"
    path.write_bytes(b"third")
    (tmp_path / "two").write_bytes(b"22")
    RemotePath(f"{bucket}/a/b/two").upload(tmp_path / "two")
    folder = RemotePath(f"{bucket}/a")
    assert folder.files_below() == {"b/two": 2, "one": 5}
    assert folder.entries() == ["b", "one"]
    assert (folder.is_dir(), folder.is_file(), path.is_dir()) == (True, False, False)
    assert folder.read_each(["one", "b/two", "three"]) == {"one": b"third", "b/two": b"22"}
    with local_copy(path) as copy:
        assert copy.read_bytes() == b"third"
    assert not copy.exists()
    with local_copy(tmp_path / "two") as same:
        assert same == tmp_path / "two"
    for new in (RemotePath(f"{bucket}/new"), tmp_path / "new"):
        assert create_file(new, "one")
        assert not create_file(new, "two")
        assert new.read_text() == "one"
    path.unlink()
    path.unlink(missing_ok=True)
    assert not path.holds_something()
    assert folder.holds_something()
    with pytest.raises(FileNotFoundError, match="one"):
        path.read_bytes()


def test_only_stores_that_replace_objects_as_a_whole_are_written_to():
    check_writable(Path("labels"))
    check_writable(RemotePath("gs://bucket/labels"))
    with pytest.raises(
        ValueError, match=r"begin with one of s3://, s3a://, gs://, gcs://: got hf://datasets/a/b. Write it"
    ):
        check_writable(RemotePath("hf://datasets/a/b"))


@pytest.mark.parametrize(
    "write",
    [
        lambda url: vr.evaluate("corpus", "labels", output=url),
        lambda url: vr.calibrate("labels", output=url, objective="quantile", quantile=0.9),
        lambda url: vr.diff("labels", "others", output=url),
        lambda url: vr.export("corpus", "labels", to="verdicts", output=url),
        lambda url: vr.train("relabelled", output=url),
        lambda url: vr.finetune("agent", output=url, envs=["BabyAI-GoToLocal-v0"]),
        lambda url: vr.rollout("agent", output=url),
        lambda url: pretrain(domain_named("babyai"), recipe_of(domain_named("babyai"), "s"), url),
    ],
    ids=["evaluate", "calibrate", "diff", "export", "train", "finetune", "rollout", "pretrain"],
)
@pytest.mark.parametrize("url", ["s3://bucket/out", Path("s3://bucket/out")])
def test_outputs_that_only_a_disk_can_hold_refuse_a_store(write, url):
    with pytest.raises(
        ValueError, match=r"must be written to a disk of this machine: got s3:/+bucket/out. Write it to a"
    ):
        write(url)


def test_a_path_on_a_disk_is_given_back():
    assert local_path("a/b", "a report") == Path("a/b")
    assert local_input("a/b", "an agent") == Path("a/b")
    for url in ("s3://bucket/agent", Path("s3://bucket/agent")):
        with pytest.raises(
            ValueError, match=r"an agent must be read from a disk of this machine: got s3:/+bucket/agent. Copy"
        ):
            local_input(url, "an agent")
