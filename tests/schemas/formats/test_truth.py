"""Which goals the truth of a corpus covers: as the corpus says, or the goals.jsonl beside it; other goals in it are refused."""

import dataclasses
import json
import tarfile
from pathlib import Path

import datasets
import fsspec
import pyarrow.parquet as pq
import pytest
import webdataset
from labelled_corpora import GOALS, holds, write_labels
from small_corpora import plain_episode

from vlm_rewards.pipelines.calibrate.calibration import calibrate
from vlm_rewards.pipelines.diff.comparison import diff
from vlm_rewards.pipelines.evaluate.evaluation import evaluate
from vlm_rewards.pipelines.record.recording import record
from vlm_rewards.schemas.episodes import CorpusFeatures, Episode
from vlm_rewards.schemas.folders import read_settings
from vlm_rewards.schemas.formats.corpus import Corpus, open_corpus, write_episodes
from vlm_rewards.schemas.formats.corpus_writer import write_corpus
from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.truth import TruthGoals, goals_that_hold, truth_goals
from vlm_rewards.schemas.goals import Goal, goals_to_lines, write_goals

COVERED = ("find-ball", "lift-key", "never")
EXTENSIONS = {"parquet": "parquet", "webdataset": "tar"}


def _write(folder: Path, container: str, covered: tuple[str, ...] | None = COVERED, num_episodes: int = 2) -> Path:
    folder.mkdir(exist_ok=True)
    episodes = [plain_episode(index) for index in range(num_episodes)]
    features = dataclasses.replace(CorpusFeatures.of(episodes[0]), truth_goals=covered)
    write_episodes(folder / f"a.{EXTENSIONS[container]}", features, episodes, container)
    return folder


@pytest.mark.parametrize("container", EXTENSIONS)
@pytest.mark.parametrize("covered", [COVERED, None])
def test_a_corpus_says_what_its_truth_covers(tmp_path: Path, container: str, covered: tuple[str, ...] | None) -> None:
    corpus = open_corpus(_write(tmp_path / "corpus", container, covered))
    assert corpus.features.truth_goals == covered
    assert [item.episode_id for item in corpus if isinstance(item, Episode)] == ["episode-0000", "episode-0001"]


def test_files_of_corpora_that_do_not_say_have_the_bytes_of_version_0_2_0(tmp_path: Path) -> None:
    said, unsaid = (_write(tmp_path / name, "parquet", covered) for name, covered in (("a", COVERED), ("b", None)))
    own = [json.loads(pq.read_schema(folder / "a.parquet").metadata[b"vlm_rewards"]) for folder in (said, unsaid)]
    assert own[0].pop("truth_goals") == list(COVERED)
    assert own[0] == own[1]
    assert "truth_goals" not in own[1]["features"]
    tar = (_write(tmp_path / "c", "webdataset", None) / "a.tar").read_bytes()
    assert tar[156:157] == b"0"  # the first header is of a plain file


def test_the_ecosystems_readers_pass_over_what_a_tar_says(tmp_path: Path) -> None:
    tar = (
        _write(tmp_path / "corpus", "webdataset", tuple(f"goal-{number}" for number in range(5000)) + COVERED) / "a.tar"
    )
    with tarfile.open(tar) as opened:
        assert opened.getnames()[0] == "episode-0000.json"
    samples = list(webdataset.WebDataset(str(tar), shardshuffle=False).decode("rgb8"))
    assert [sample["__key__"] for sample in samples] == ["episode-0000", "episode-0001"]
    table = datasets.load_dataset("webdataset", data_files=str(tar), split="train", cache_dir=str(tmp_path / "cache"))
    assert table["__key__"] == ["episode-0000", "episode-0001"]


def test_a_tar_that_says_nonsense_of_its_truth_is_refused(tmp_path: Path) -> None:
    tar = _write(tmp_path / "corpus", "webdataset") / "a.tar"
    data = tar.read_bytes()
    tar.write_bytes(data.replace(b'truth_goals=["find-ball"', b'truth_goals={"find-ball"'))
    with pytest.raises(ValueError, match="features must say what the corpus holds"):
        open_corpus(tmp_path / "corpus")


def test_a_column_of_truth_that_a_tool_took_away_covers_nothing(tmp_path: Path) -> None:
    path = _write(tmp_path / "corpus", "parquet") / "a.parquet"
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["reward"]), path)
    assert open_corpus(path).features.truth_goals == COVERED
    pq.write_table(table.drop_columns(["achieved_goals"]), path)
    assert open_corpus(path).features.truth_goals is None


def test_what_a_writer_is_told_of_truth_is_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="truth_goals must be None without ground truth: got 1 goals"):
        CorpusFeatures(cameras=("front",), truth_goals=("ball",))
    with pytest.raises(ValueError, match="an id of truth_goals must be a text .* got 5"):
        CorpusFeatures(cameras=("front",), has_achieved_goals=True, truth_goals=(5,))  # type: ignore[arg-type]
    features = dataclasses.replace(CorpusFeatures.of(plain_episode()), truth_goals=("lift-key",))
    with pytest.raises(ValueError, match="that it covers: got 'find-ball' in frame 1 of episode 'episode-0000'"):
        features.check(plain_episode())


def test_our_writers_say_it(tmp_path: Path) -> None:
    goals = (Goal("find-ball", "a ball"), Goal("lift-key", "a key"))
    corpus = write_corpus([plain_episode()], output=tmp_path / "own", goals=goals)
    assert corpus.features.truth_goals == ("find-ball", "lift-key")
    without = write_corpus([plain_episode(achieved_goals=None)], output=tmp_path / "without", goals=goals)
    assert without.features.truth_goals is None
    record(output=tmp_path / "recorded", envs=["BabyAI-GoToLocal-v0"], episodes=1, workers=1)
    recorded = open_corpus(tmp_path / "recorded")
    assert len(recorded.features.truth_goals or ()) == 342
    (tmp_path / "recorded" / "goals.jsonl").unlink()
    assert truth_goals(recorded).ids == set(recorded.features.truth_goals or ())
    assert read_settings(tmp_path / "recorded")["kind"] == "corpus"


def test_corpora_that_do_not_say_are_asked_beside_their_files(tmp_path: Path) -> None:
    goals = (Goal("find-ball", "a ball"), Goal("lift-key", "a key"))
    folder = _write(tmp_path / "corpus", "parquet", None)
    with pytest.raises(FileNotFoundError, match=r"a goals file must exist, got .*corpus/goals.jsonl"):
        truth_goals(open_corpus(folder))
    write_goals(goals, folder / "goals.jsonl")
    assert truth_goals(open_corpus(folder)).ids == {"find-ball", "lift-key"}
    assert truth_goals(open_corpus(folder)).where == str(folder / "goals.jsonl")
    assert truth_goals(open_corpus(folder / "a.parquet")).ids == {"find-ball", "lift-key"}
    parts = tmp_path / "output" / "parts"
    parts.parent.mkdir()
    _write(parts, "parquet", None)
    write_goals(goals[:1], parts.parent / "goals.jsonl")
    assert truth_goals(open_corpus(parts)).ids == {"find-ball"}
    assert truth_goals(open_corpus(parts / "a.parquet")).ids == {"find-ball"}
    remote = Folder("memory://corpus")
    reader = open_corpus(folder).reader
    corpus = Corpus(folder=remote, format_name="parquet", options={}, reader=reader)
    with pytest.raises(FileNotFoundError, match="a goals file must exist, got memory://corpus/goals.jsonl"):
        truth_goals(corpus)
    fsspec.filesystem("memory").pipe_file("/corpus/goals.jsonl", goals_to_lines(goals).encode())
    assert truth_goals(corpus).ids == {"find-ball", "lift-key"}
    fsspec.filesystem("memory").rm("/corpus", recursive=True)


def test_what_holds_is_looked_up_by_frame() -> None:
    episode = plain_episode(achieved_goals=[["b", "a"], [], ["c"], [], [], ["a"]])
    covered = TruthGoals(frozenset("abc"), "here")
    assert goals_that_hold(episode, covered, {"a": 7, "b": 2}).tolist() == [[0, 2], [0, 7], [5, 7]]
    with pytest.raises(ValueError, match="got 'c' in frame 2 of episode 'episode-0000' of , which here does not list"):
        goals_that_hold(episode, TruthGoals(frozenset("ab"), "here"), {"a": 0})


@pytest.mark.parametrize("says", [True, False])
def test_truth_that_names_an_unknown_goal_is_refused_by_every_command(tmp_path: Path, says: bool) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    episode = plain_episode(num_steps=2, achieved_goals=[["ball"], ["Ball"], []])  # "Ball" is a slip
    write_episodes(corpus / "a.parquet", CorpusFeatures.of(episode), [episode], "parquet")
    if says:  # as another writer would, which does not look
        table = pq.read_table(corpus / "a.parquet")
        own = {**json.loads(table.schema.metadata[b"vlm_rewards"]), "truth_goals": [goal.id for goal in GOALS]}
        pq.write_table(
            table.replace_schema_metadata({**table.schema.metadata, b"vlm_rewards": json.dumps(own)}),
            corpus / "a.parquet",
        )
    else:
        write_goals(GOALS, corpus / "goals.jsonl")
    held = [("episode-0000", holds("X..", "...", "...", "..."))]
    labels = write_labels(tmp_path / "labels", corpus, [held])
    message = r"names? goals that it covers: got 'Ball' in frame 1 of episode 'episode-0000' of a.parquet, which .*corpus.* does"
    with pytest.raises(ValueError, match=message):
        evaluate(corpus, labels, output=tmp_path / "report", workers=1)
    with pytest.raises(ValueError, match=message):
        calibrate(labels, output=tmp_path / "calibration.json", corpus=corpus, workers=1)
    with pytest.raises(ValueError, match=message):
        diff(labels, labels, output=tmp_path / "diff", corpus=corpus, workers=1)
