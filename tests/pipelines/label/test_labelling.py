"""The label pipeline: the same bits whatever the way, nothing lost, nothing done twice."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from small_corpora import frame, plain_episode, robot_episode
from tiny_models import save_tiny_clip

from vlm_rewards.labelers.encoders.embedding_cache import EmbeddingCache
from vlm_rewards.labelers.labeler import Labeler
from vlm_rewards.labelers.scoring.negatives import NegativeSettings
from vlm_rewards.labelers.scoring.windows import WindowSettings
from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.pipelines.engine.driver import beam_arguments, beam_options_of, run_units
from vlm_rewards.pipelines.engine.outputs import OutputFolder, PartWriter
from vlm_rewards.pipelines.label.labelling import label
from vlm_rewards.pipelines.label.planning import check_episode_ids, estimate, plan_label
from vlm_rewards.pipelines.label.reading import read_ahead
from vlm_rewards.pipelines.label.settings import LabelRun
from vlm_rewards.schemas.episodes import CorpusFeatures, Episode
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.formats.corpus import open_corpus, write_episodes
from vlm_rewards.schemas.goals import Goal, read_goals, write_goals
from vlm_rewards.schemas.labels import read_label_metadata
from vlm_rewards.schemas.manifests import Unit
from vlm_rewards.schemas.pictures import decode_image, encode_png

COMMAND = Path(sys.executable).with_name("vlm-rewards")
GOALS = tuple(Goal(f"g{index}", f"a {colour} ball") for index, colour in enumerate(("red", "green", "blue", "grey")))
OTHER_GOALS = (Goal("key", "a key"), Goal("box", "a blue box"), Goal("door", "a red door"))
ONE_WORKER = ("--runner=FnApiRunner", "--direct_running_mode=in_memory", "--direct_num_workers=1")


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


def settings(clip: Path, goals: tuple[Goal, ...] = GOALS, **changes: object) -> LabelerSettings:
    return LabelerSettings(**{"model": str(clip), "goals": goals, "batch_size": 16, "precision": "float32", **changes})


def episodes(count: int = 12) -> list[Episode]:
    """Episodes of many lengths, some frames of which recur."""
    return [plain_episode(index, num_steps=3 + 5 * (index % 4)) for index in range(count)]


def write_corpus(folder: Path, recorded: list[Episode], num_shards: int = 3, format_name: str = "parquet") -> Path:
    folder.mkdir()
    suffix = {"parquet": "parquet", "webdataset": "tar"}[format_name]
    for shard, indices in enumerate(np.array_split(np.arange(len(recorded)), num_shards)):
        chosen = [recorded[index] for index in indices]
        write_episodes(folder / f"shard-{shard:03d}.{suffix}", CorpusFeatures.of(chosen[0]), chosen, format_name)
    return folder


def score_bytes(labels: Path) -> dict[tuple[str, int], bytes]:
    """The bytes of every frame's scores, by episode and frame."""
    rows = {}
    for part in sorted((labels / "parts").glob("*.parquet")):
        table = pq.read_table(part)
        scores = (
            table["scores"]
            .combine_chunks()
            .flatten()
            .to_numpy()
            .reshape(table.num_rows, table.schema.field("scores").type.list_size)
        )
        keys = zip(table["episode_id"].to_pylist(), table["frame_index"].to_pylist(), strict=True)
        for key, row in zip(keys, scores, strict=True):
            assert key not in rows, key
            rows[key] = row.tobytes()
    return rows


def part_bytes(folder: Path) -> dict[str, bytes]:
    """Parts and manifest, byte for byte."""
    files = [*sorted((folder / "parts").iterdir()), folder / "manifest.json"]
    return {path.name: path.read_bytes() for path in files}


def test_scores_are_those_of_the_labeler_at_the_right_frame(tmp_path: Path, clip: Path) -> None:
    recorded = episodes(4)
    label(write_corpus(tmp_path / "c", recorded, 2), settings(clip), output=tmp_path / "l")
    found = score_bytes(tmp_path / "l")
    labeler = Labeler.build(settings(clip))
    for episode in recorded:
        frames = [decode_image(data) for data in episode.images["front"]]
        for index, row in enumerate(labeler(frames)):
            assert found.pop((episode.episode_id, index)) == row.tobytes()
    assert not found


def test_scores_are_bit_identical_for_any_shards_container_workers_and_order(tmp_path: Path, clip: Path) -> None:
    recorded = episodes()
    label(write_corpus(tmp_path / "c1", recorded, 1), settings(clip), output=tmp_path / "l1", workers=1)
    expected = score_bytes(tmp_path / "l1")
    assert len(expected) == sum(episode.num_frames for episode in recorded)
    for name, order, num_shards, container, workers in (
        ("many shards", recorded, 10, "parquet", 1),
        ("two threads", recorded, 4, "parquet", 2),
        ("tar", recorded, 3, "webdataset", 1),
        ("another order", recorded[::-1], 5, "webdataset", 2),
    ):
        corpus = write_corpus(tmp_path / f"c {name}", order, num_shards, container)
        label(corpus, settings(clip), output=tmp_path / f"l {name}", workers=workers)
        assert score_bytes(tmp_path / f"l {name}") == expected, name


def test_two_processes_give_the_same_files_as_one(tmp_path: Path, clip: Path) -> None:
    corpus = write_corpus(tmp_path / "c", episodes(), 4)
    label(corpus, settings(clip), output=tmp_path / "one", beam_options=ONE_WORKER)
    processes = ("--runner=FnApiRunner", "--direct_running_mode=multi_processing", "--direct_num_workers=2")
    label(corpus, settings(clip), output=tmp_path / "two", beam_options=processes)
    assert part_bytes(tmp_path / "one") == part_bytes(tmp_path / "two")


def test_a_second_run_does_nothing_and_says_so(tmp_path: Path, clip: Path) -> None:
    corpus = write_corpus(tmp_path / "c", episodes(), 3)
    first = label(corpus, settings(clip), output=tmp_path / "l")
    assert (first.num_units, first.num_skipped) == (3, 0)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "l" / "parts").iterdir()}
    second = label(corpus, settings(clip), output=tmp_path / "l")
    assert (second.num_units, second.num_skipped) == (3, 3)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "l" / "parts").iterdir()} == times


def test_only_what_is_missing_or_was_replaced_is_labelled_again(tmp_path: Path, clip: Path) -> None:
    corpus = write_corpus(tmp_path / "c", episodes(), 3)
    label(corpus, settings(clip), output=tmp_path / "l")
    before = part_bytes(tmp_path / "l")
    (tmp_path / "l" / "markers" / "shard-001.json").unlink()
    moved = (tmp_path / "c").rename(tmp_path / "moved")
    assert label(moved, settings(clip), output=tmp_path / "l").num_skipped == 2
    assert part_bytes(tmp_path / "l") == before
    other = [plain_episode(50, 4)]
    write_episodes(moved / "shard-002.parquet", CorpusFeatures.of(other[0]), other, "parquet")
    assert label(moved, settings(clip), output=tmp_path / "l").num_skipped == 2
    assert ("episode-0050", 4) in score_bytes(tmp_path / "l")


def test_files_are_the_same_after_five_kills(tmp_path: Path, clip: Path) -> None:
    # 24 files of 328 frames, each large enough to be a unit of its own.
    corpus = write_corpus(tmp_path / "c", [plain_episode(index, num_steps=40) for index in range(192)], 24)
    write_goals(GOALS, tmp_path / "goals.jsonl")
    arguments = [COMMAND, "label", "--input", corpus, "--goals", tmp_path / "goals.jsonl", "--model", clip]
    arguments += ["--batch-size", "16", "--precision", "float32", "--workers", "1", "--output"]
    subprocess.run([*arguments, tmp_path / "unbroken"], check=True, capture_output=True)
    markers = tmp_path / "broken" / "markers"
    finished: dict[str, int] = {}
    for kill in range(5):
        with subprocess.Popen([*arguments, tmp_path / "broken"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
            deadline = time.monotonic() + 120
            while len(list(markers.glob("*.json"))) <= len(finished):
                assert time.monotonic() < deadline, "no unit was finished"
                assert run.poll() is None, run.communicate()
                time.sleep(0.002)
            run.send_signal(signal.SIGKILL)
        assert run.returncode == -signal.SIGKILL, f"kill {kill} came too late"
        now = {path.name: path.stat().st_mtime_ns for path in markers.glob("*.json")}
        assert finished.items() <= now.items()  # nothing that was finished was done again
        finished = now
        assert not (tmp_path / "broken" / "manifest.json").exists()
    last = subprocess.run([*arguments, tmp_path / "broken"], check=True, capture_output=True, text=True)
    assert f"({len(finished)} of 24 units were done before)" in last.stdout
    assert part_bytes(tmp_path / "broken") == part_bytes(tmp_path / "unbroken")
    assert sorted(path.name for path in (tmp_path / "broken").iterdir()) == [
        "goals.jsonl",
        "manifest.json",
        "markers",
        "parts",
        "settings.json",
    ]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_interrupt_keeps_what_is_finished_and_ends_at_once(tmp_path: Path, clip: Path, workers: str) -> None:
    corpus = write_corpus(tmp_path / "c", [plain_episode(index, num_steps=40) for index in range(240)], 120)
    write_goals(GOALS, tmp_path / "goals.jsonl")
    arguments = [COMMAND, "label", "--input", corpus, "--goals", tmp_path / "goals.jsonl", "--model", clip]
    arguments += [
        "--workers",
        workers,
        "--batch-size",
        "1",
        "--output",
        tmp_path / "l",
    ]  # slow, so that the signal is in time
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        while not list((tmp_path / "l" / "markers").glob("*.json")):
            assert run.poll() is None, run.communicate()
            time.sleep(0.002)
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate(timeout=20)
    assert run.returncode == 130, errors
    assert errors.endswith("interrupted; what is finished is kept: run the same command again to resume\n")
    assert len(list((tmp_path / "l" / "markers").glob("*.json"))) < 120


def test_new_goals_from_kept_embeddings_read_no_frame_and_give_the_same_bytes(tmp_path: Path, clip: Path) -> None:
    corpus = write_corpus(tmp_path / "c", episodes(), 3)
    kept = tmp_path / "embeddings"
    first = label(corpus, settings(clip), output=tmp_path / "l", embeddings=kept)
    label(corpus, settings(clip, OTHER_GOALS), output=tmp_path / "from frames")
    label(corpus, settings(clip, OTHER_GOALS), output=tmp_path / "kept", embeddings=kept)
    shutil.rmtree(corpus)
    label(None, settings(clip, OTHER_GOALS), output=tmp_path / "alone", embeddings=kept)
    assert part_bytes(tmp_path / "from frames") == part_bytes(tmp_path / "kept") == part_bytes(tmp_path / "alone")
    assert first.manifest == label(None, settings(clip), output=tmp_path / "same", embeddings=kept).manifest
    for name in ("kept", "alone"):
        for path in (tmp_path / name / "markers").glob("*.json"):
            marker = json.loads(path.read_text())
            assert marker["counts"]["kept_frames"] == marker["rows"] > 0
            assert "encoded_frames" not in marker["counts"]


def test_embeddings_can_be_added_to_finished_labels(tmp_path: Path, clip: Path) -> None:
    corpus = write_corpus(tmp_path / "c", episodes(4), 2)
    label(corpus, settings(clip), output=tmp_path / "l")
    before = part_bytes(tmp_path / "l")
    label(corpus, settings(clip), output=tmp_path / "l", embeddings=tmp_path / "e")
    assert part_bytes(tmp_path / "l") == before
    assert len(list((tmp_path / "e" / "parts").iterdir())) == 2


def test_an_identical_frame_is_encoded_once(tmp_path: Path, clip: Path) -> None:
    same = [encode_png(frame(7))] * 100 + [encode_png(frame(8))]
    recorded = [Episode(episode_id="still", images={"front": same}, actions=np.zeros(100, np.int64))]
    label(write_corpus(tmp_path / "c", recorded, 1), settings(clip), output=tmp_path / "l")
    marker = json.loads((tmp_path / "l" / "markers" / "shard-000.json").read_text())
    assert marker["counts"]["encoded_frames"] == 2
    assert marker["counts"]["cached_frames"] == 99
    assert marker["rows"] == 101


def test_sparse_labels_hold_the_scores_over_the_threshold(tmp_path: Path, clip: Path) -> None:
    corpus = write_corpus(tmp_path / "c", episodes(4), 2)
    label(corpus, settings(clip, threshold=0.25), output=tmp_path / "dense")
    label(corpus, settings(clip, threshold=0.25), output=tmp_path / "sparse", sparse=True)
    stored = 0
    for part in (tmp_path / "sparse" / "parts").iterdir():
        sparse, dense = pq.read_table(part), pq.read_table(tmp_path / "dense" / "parts" / part.name)
        assert read_label_metadata(sparse.schema).sparse
        assert sparse["episode_id"].equals(dense["episode_id"])
        for goals, values, scores in zip(
            sparse["goal_indices"].to_pylist(),
            sparse["goal_scores"].to_pylist(),
            dense["scores"].to_pylist(),
            strict=True,
        ):
            assert goals == [index for index, score in enumerate(scores) if score > 0.25]
            assert values == [scores[index] for index in goals]
            stored += len(goals)
    assert 0 < stored < 4 * 42


def test_bad_frames_and_shards_are_listed_and_the_rest_goes_on(tmp_path: Path, clip: Path) -> None:
    recorded = episodes(4)
    bad = encode_png(frame(3))[:40]
    images = [*recorded[1].images["front"][:2], bad, *recorded[1].images["front"][3:]]
    recorded[1] = plain_episode(1, num_steps=recorded[1].num_steps, images={"front": images})
    corpus = write_corpus(tmp_path / "c", recorded, 4)
    (corpus / "shard-003.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(
        ValueError, match=r"1 of 4 shards; the first is: shard-001.parquet, episode episode-0001, frame 2: undecodable"
    ):
        label(corpus, settings(clip), output=tmp_path / "l")
    assert not (tmp_path / "l" / "manifest.json").exists()
    summary = label(corpus, settings(clip), output=tmp_path / "l", max_failure_share=0.5)
    assert summary.num_skipped == 3  # the unreadable shard was tried again
    assert summary.manifest["failures"]["undecodable image"] == 1
    found = score_bytes(tmp_path / "l")
    assert ("episode-0001", 2) not in found
    assert len(found) == sum(episode.num_frames for episode in recorded[:3]) - 1
    mended = [episodes(4)[3]]
    write_episodes(corpus / "shard-003.parquet", CorpusFeatures.of(mended[0]), mended, "parquet")
    summary = label(corpus, settings(clip), output=tmp_path / "l", max_failure_share=0.5)
    assert summary.manifest["failures"] == {"undecodable image": 1}
    assert ("episode-0003", 0) in score_bytes(tmp_path / "l")


def test_a_dry_run_measures_and_writes_nothing(tmp_path: Path, clip: Path) -> None:
    corpus = write_corpus(tmp_path / "c", episodes(), 3)
    plan = plan_label(corpus, settings(clip), tmp_path / "l", LabelRun())
    guess = estimate(plan, workers=2)
    assert (guess.units, guess.done_units, guess.frames) == (3, 0, sum(episode.num_frames for episode in episodes()))
    assert guess.frames_per_s > 0
    assert guess.seconds == pytest.approx((guess.frames or 0) / guess.frames_per_s / 2)
    assert not (tmp_path / "l").exists()


def test_another_labeler_is_refused_in_the_same_folder(tmp_path: Path, clip: Path) -> None:
    corpus = write_corpus(tmp_path / "c", episodes(4), 2)
    label(corpus, settings(clip), output=tmp_path / "l", embeddings=tmp_path / "e")
    with pytest.raises(ValueError, match="other rule"):
        label(corpus, settings(clip, threshold=0.9), output=tmp_path / "l")
    with pytest.raises(ValueError, match="other goals, negatives"):
        label(corpus, settings(clip, OTHER_GOALS), output=tmp_path / "l")
    other = save_tiny_clip(tmp_path / "other clip", seed=1)
    with pytest.raises(ValueError, match=r"the output folder .*e must have the same fingerprint .* other weights"):
        label(corpus, settings(other), output=tmp_path / "l2", embeddings=tmp_path / "e")


def test_a_camera_must_be_chosen_where_there_are_several(tmp_path: Path, clip: Path) -> None:
    corpus = write_corpus(tmp_path / "c", [robot_episode(0), robot_episode(1)], 1)
    with pytest.raises(ValueError, match="must be chosen where there are several, got front, wrist; give --camera"):
        label(corpus, settings(clip), output=tmp_path / "l")
    with pytest.raises(ValueError, match=r"one of the corpus's \(front, wrist\), got 'top'"):
        label(corpus, settings(clip), output=tmp_path / "l", camera="top")
    label(corpus, settings(clip), output=tmp_path / "l", camera="wrist")
    labeler = Labeler.build(settings(clip))
    frames = [decode_image(data) for data in robot_episode(1).images["wrist"]]
    assert score_bytes(tmp_path / "l")["robot-0001", 2] == labeler(frames)[2].tobytes()


def test_a_corpus_without_a_readable_shard_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"nothing")
    with pytest.raises(
        ValueError, match=r"must have a readable shard, got 1 that are not, the first being .*a.parquet \(.*Parquet"
    ):
        open_corpus(tmp_path)


def test_kept_embeddings_stand_for_a_corpus_that_is_gone_also_where_a_shard_had_failed(
    tmp_path: Path, clip: Path
) -> None:
    corpus, kept = write_corpus(tmp_path / "c", episodes(4), 4), tmp_path / "e"
    (corpus / "shard-003.parquet").write_bytes(b"PAR1 but no more")
    label(corpus, settings(clip), output=tmp_path / "l1", embeddings=kept, max_failure_share=0.5)
    shutil.rmtree(corpus)
    before = part_bytes(kept)
    with pytest.raises(ValueError, match="1 of 4 shards"):
        label(None, settings(clip), output=tmp_path / "l2", embeddings=kept)
    label(None, settings(clip), output=tmp_path / "l2", embeddings=kept, max_failure_share=0.5)
    assert part_bytes(tmp_path / "l2") == part_bytes(tmp_path / "l1")
    assert part_bytes(kept) == before
    plan = plan_label(None, settings(clip), tmp_path / "l3", LabelRun(embeddings=kept))
    assert estimate(plan, workers=1).frames_per_s > 0


def test_a_folder_that_cannot_be_written_to_is_refused_by_the_plan(tmp_path: Path, clip: Path) -> None:
    corpus = write_corpus(tmp_path / "c", episodes(2), 1)
    with pytest.raises(ValueError, match="must be empty or hold an earlier run"):
        plan_label(corpus, settings(clip), corpus, LabelRun())
    with pytest.raises(ValueError, match="must be empty or hold an earlier run"):
        plan_label(corpus, settings(clip), tmp_path / "l", LabelRun(embeddings=corpus))


def test_beam_options_that_beam_would_ignore_or_exit_on_are_refused() -> None:
    with pytest.raises(ValueError, match="got --direct_num_worker; did you mean --direct_num_workers"):
        beam_options_of(["--direct_num_worker=3"])
    with pytest.raises(
        ValueError, match="options for Beam must be valid, got --direct_running_mode=foo .*invalid choice"
    ):
        beam_options_of(["--direct_running_mode=foo"])
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        beam_arguments([], 0)


def test_an_episode_id_in_two_shards_is_refused(tmp_path: Path, clip: Path) -> None:
    corpus = write_corpus(tmp_path / "c", [plain_episode(0), plain_episode(1), plain_episode(0)], 3)
    with pytest.raises(ValueError, match=r"'episode-0000' in shard-000 and in shard-002 .*Remove or rename one"):
        label(corpus, settings(clip), output=tmp_path / "l")
    check_episode_ids(open_corpus(corpus), open_corpus(corpus).units()[:2])
    with tarfile.open(tmp_path / "one.tar", "w") as joined:
        for index in (0, 1, 0):
            write_episodes(tmp_path / "part", CorpusFeatures.of(plain_episode()), [plain_episode(index)], "webdataset")
            with tarfile.open(tmp_path / "part") as part:
                for member in part:
                    joined.addfile(member, part.extractfile(member))
    opened = open_corpus(tmp_path / "one.tar")
    with pytest.raises(
        ValueError, match=r"got 'episode-0000' in one-b.* and in one-b.*\. Sort the shard by episode where"
    ):
        check_episode_ids(opened, opened.units(1))


def test_neither_corpus_nor_embeddings_is_refused(tmp_path: Path, clip: Path) -> None:
    with pytest.raises(ValueError, match="give --input or --embeddings"):
        plan_label(None, settings(clip), tmp_path, LabelRun())


def test_the_default_runner_is_named_and_options_pass() -> None:
    assert beam_arguments([], 3)[:3] == [
        "--runner=FnApiRunner",
        "--direct_num_workers=3",
        "--direct_running_mode=multi_threading",
    ]
    assert beam_arguments([], 1)[2] == "--direct_running_mode=in_memory"
    assert beam_arguments([], 2, in_processes=True)[2] == "--direct_running_mode=multi_processing"
    assert beam_arguments(["--runner", "FlinkRunner"])[:2] == ["--runner", "FlinkRunner"]


class _Raise:
    def __call__(self, unit: Unit, part: PartWriter) -> None:
        raise ValueError(f"cannot do {unit.name}")


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_in_a_unit_reaches_the_caller_in_plain_words(tmp_path: Path, workers: int) -> None:
    folder = OutputFolder(tmp_path, kind="labels", fingerprint=Fingerprint({"a": 1}), settings={}, extension="txt")
    with pytest.raises(RuntimeError, match="^ValueError: cannot do u\nin unit 'u' of the plan$"):
        run_units([Unit(name="u")], _Raise(), folder, workers=workers, title="t", counted_name="rows", total=None)


def test_the_cache_drops_what_was_unused_longest() -> None:
    cache = EmbeddingCache(dim=2, max_bytes=2 * 208)  # two rows of 4 * 2 + 200 bytes
    for number, key in enumerate((b"a", b"b", b"b")):
        cache.put(key, np.full(2, number, np.float32))
    first = cache.get(b"a")
    assert first is not None
    cache.put(b"c", np.full(2, 7, np.float32))  # in place of b: a was used since
    assert cache.get(b"b") is None
    found = {key: cache.get(key) for key in (b"a", b"c")}
    assert {key: row.tolist() for key, row in found.items() if row is not None} == {b"a": [0, 0], b"c": [7, 7]}
    assert len(cache) == 2
    cache.clear()
    assert cache.get(b"a") is None
    assert first.tolist() == [0, 0]  # what was given out does not change


def test_an_error_of_the_reader_is_raised_where_its_items_are_used(tmp_path: Path) -> None:
    def read():
        yield 1
        raise OSError("the disk is gone")

    items = read_ahead(read, PartWriter(tmp_path / "p", tmp_path / "h"))
    assert next(items) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(items)


def test_sampled_negatives_are_part_of_the_fingerprint(tmp_path: Path, clip: Path) -> None:
    corpus = write_corpus(tmp_path / "c", episodes(2), 1)
    label(corpus, settings(clip, negatives=NegativeSettings(kind="sampled", k=2)), output=tmp_path / "l")
    with pytest.raises(ValueError, match="other negatives"):
        label(corpus, settings(clip, negatives=NegativeSettings(kind="sampled", k=2, seed=1)), output=tmp_path / "l")


DASK_SCRIPT = """
import sys
from dask.distributed import Client, LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster):
        print(cluster.scheduler_address, flush=True)
        sys.stdin.readline()
"""


def test_a_dask_cluster_gives_the_same_files(tmp_path: Path, clip: Path) -> None:
    corpus = write_corpus(tmp_path / "c", episodes(), 4)
    label(corpus, settings(clip), output=tmp_path / "local", embeddings=tmp_path / "e1", workers=1)
    (tmp_path / "cluster.py").write_text(DASK_SCRIPT)
    with subprocess.Popen(
        [sys.executable, tmp_path / "cluster.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as cluster:
        assert cluster.stdout is not None
        address = cluster.stdout.readline().strip()
        options = ["--runner=apache_beam.runners.dask.dask_runner.DaskRunner", f"--dask_client_address={address}"]
        label(corpus, settings(clip), output=tmp_path / "dask", embeddings=tmp_path / "e2", beam_options=options)
        cluster.communicate("stop\n", timeout=30)
    assert part_bytes(tmp_path / "dask") == part_bytes(tmp_path / "local")
    assert part_bytes(tmp_path / "e1") == part_bytes(tmp_path / "e2")


def test_the_portable_job_service_gives_the_same_files(tmp_path: Path, clip: Path) -> None:
    corpus = write_corpus(tmp_path / "c", episodes(4), 2)
    label(corpus, settings(clip), output=tmp_path / "local", workers=1)
    service = [sys.executable, "-m", "apache_beam.runners.portability.local_job_service_main", "--port", "0"]
    ready, log = tmp_path / "port", tmp_path / "service.log"
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with (
        log.open("w") as output,
        subprocess.Popen([*service, "--port_file", ready], stdout=output, stderr=output, env=environment) as server,
    ):
        deadline = time.monotonic() + 60
        while not ready.is_file() or not ready.read_text().strip():
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        port = ready.read_text().strip()
        options = ["--runner=PortableRunner", f"--job_endpoint=localhost:{port}", "--environment_type=LOOPBACK"]
        label(corpus, settings(clip), output=tmp_path / "portable", beam_options=options)
        server.terminate()
    assert part_bytes(tmp_path / "portable") == part_bytes(tmp_path / "local")


def test_units_of_ranges_give_the_same_scores(tmp_path: Path, clip: Path) -> None:
    recorded = [plain_episode(index, num_steps=30) for index in range(40)]
    for container, max_unit_bytes in (("parquet", 100_000), ("webdataset", 500_000)):
        corpus = write_corpus(tmp_path / container, recorded, 1, container)
        if container == "parquet":  # as another writer might cut it: five episodes a row group
            shard = next(corpus.iterdir())
            pq.write_table(pq.read_table(shard), shard, row_group_size=5 * 31)
        whole, ranges = tmp_path / f"{container} whole", tmp_path / f"{container} ranges"
        label(corpus, settings(clip), output=whole)
        summary = label(corpus, settings(clip), output=ranges, max_unit_mib=max_unit_bytes / 2**20)
        assert summary.num_units > 1
        assert score_bytes(ranges) == score_bytes(whole)
        opened = open_corpus(corpus)
        read = [item for unit in opened.units(max_unit_bytes) for item in opened.episodes(unit)]
        assert [episode.episode_id for episode in read] == [episode.episode_id for episode in recorded]


@pytest.mark.parametrize("over", ["embeddings", "scores"])
def test_windows_give_the_same_bytes_whatever_the_shards_ranges_and_embeddings(
    tmp_path: Path, clip: Path, over: str
) -> None:
    recorded = [plain_episode(index, num_steps=30 + 3 * (index % 2)) for index in range(24)]
    windowed = settings(clip, window=WindowSettings(frames=4, over=over))
    whole = write_corpus(tmp_path / "whole", recorded, 1)
    shard = next(whole.iterdir())
    pq.write_table(pq.read_table(shard), shard, row_group_size=50)  # row groups that begin in the middle of an episode
    label(whole, windowed, output=tmp_path / "l", embeddings=tmp_path / "kept", workers=1)
    expected = score_bytes(tmp_path / "l")
    label(write_corpus(tmp_path / "shards", recorded, 5), windowed, output=tmp_path / "l5", workers=2)
    assert score_bytes(tmp_path / "l5") == expected
    tar = write_corpus(tmp_path / "tar", recorded, 1, "webdataset")
    summary = label(tar, windowed, output=tmp_path / "ranges", max_unit_mib=300_000 / 2**20)
    assert summary.num_units > 1
    assert score_bytes(tmp_path / "ranges") == expected
    label(None, windowed, output=tmp_path / "alone", embeddings=tmp_path / "kept")
    assert part_bytes(tmp_path / "alone") == part_bytes(tmp_path / "l")
    # The kept embeddings are of frames alone: they give labels without a window the bytes that frames give them.
    label(None, settings(clip), output=tmp_path / "plain", embeddings=tmp_path / "kept")
    label(whole, settings(clip), output=tmp_path / "plain frames")
    assert part_bytes(tmp_path / "plain") == part_bytes(tmp_path / "plain frames")
    # Live: one frame of every episode at a time.
    labeler = Labeler.build(windowed)
    scorer = labeler.episodes()
    for step in range(33):
        present = [episode for episode in recorded if step < episode.num_frames]
        frames = [labeler.resize(decode_image(episode.images["front"][step])) for episode in present]
        ids = [episode.episode_id for episode in present]
        for episode_id, row in zip(ids, scorer.push(ids, labeler.embed(np.stack(frames))), strict=True):
            assert row.tobytes() == expected[episode_id, step]


def test_a_frame_that_failed_is_in_no_window(tmp_path: Path, clip: Path) -> None:
    whole = plain_episode(0, num_steps=5)
    bad = [*whole.images["front"][:2], encode_png(frame(3))[:40], *whole.images["front"][3:]]
    corpus = write_corpus(tmp_path / "c", [plain_episode(0, num_steps=5, images={"front": bad})], 1)
    windowed = settings(clip, window=WindowSettings(frames=2))
    label(corpus, windowed, output=tmp_path / "l", max_failure_share=0.5)
    found = score_bytes(tmp_path / "l")
    assert sorted(index for _, index in found) == [0, 1, 3, 4, 5]
    scores = Labeler.build(settings(clip))([decode_image(data) for data in whole.images["front"]]).astype(np.float64)
    window = (scores[1] + scores[3]) / 2  # the readable frame before frame 3 is frame 1
    assert found["episode-0000", 3] == window.astype(np.float32).tobytes()
    assert found["episode-0000", 0] == scores[0].astype(np.float32).tobytes()


def test_sparse_labels_cannot_give_dense_rewards(tmp_path: Path, clip: Path) -> None:
    for reward in ("score", "difference"):
        with pytest.raises(ValueError, match=f"labels must be dense for the reward '{reward}', .* leave out --sparse"):
            plan_label(tmp_path, settings(clip, reward=reward), tmp_path / "l", LabelRun(sparse=True))


def test_goals_given_by_pictures_are_found_in_the_corpus(tmp_path: Path, clip: Path) -> None:
    recorded = episodes(2)
    (tmp_path / "goal.png").write_bytes(recorded[1].images["front"][2])
    (tmp_path / "goals.jsonl").write_text('{"id": "seen", "text": "as in the picture", "images": ["goal.png"]}\n')
    labeler = settings(clip, read_goals(tmp_path / "goals.jsonl"), formula="cosine", threshold=0.99999)
    label(write_corpus(tmp_path / "c", recorded, 1), labeler, output=tmp_path / "l")
    found = {key: np.frombuffer(row, np.float32)[0] for key, row in score_bytes(tmp_path / "l").items()}
    assert [key for key, score in found.items() if score > 0.99999] == [("episode-0001", 2)]
