"""A clone whose large files were not downloaded: each format says so, and what to run."""

from pathlib import Path

import pytest
from labelled_corpora import episode, write_corpus

from vlm_rewards.schemas.episodes import Episode
from vlm_rewards.schemas.formats.corpus import open_corpus
from vlm_rewards.schemas.manifests import Failure

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


@pytest.mark.parametrize("name", ["a.parquet", "a.tar", "a.hdf5"])
def test_a_corpus_of_pointers_alone_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(
        ValueError, match=rf"got the Git LFS pointer {name}, which .* not downloaded\. Run git lfs pull"
    ):
        open_corpus(tmp_path)


def test_a_pointer_among_files_fails_by_name_and_the_rest_is_read(tmp_path: Path) -> None:
    write_corpus(tmp_path, [[episode("a", 3)], [episode("b", 3)]])
    (tmp_path / "shard-000.parquet").write_text(POINTER)
    found = list(open_corpus(tmp_path))
    [failure] = [item for item in found if isinstance(item, Failure)]
    assert (failure.shard, failure.reason) == ("shard-000.parquet", "pointer")
    assert "got the Git LFS pointer shard-000.parquet" in failure.detail
    assert [item.episode_id for item in found if isinstance(item, Episode)] == ["b"]


def test_another_refusal_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("no Parquet")
    with pytest.raises(ValueError, match="readable shard"):
        open_corpus(tmp_path)
