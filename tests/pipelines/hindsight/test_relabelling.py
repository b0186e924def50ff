import dataclasses
import io
import json
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import webdataset
from labelled_corpora import GOALS, THRESHOLD, episode, holds, picture, write_corpus, write_labels
from PIL import Image

from vlm_rewards.labelers.rewards.hindsight import HindsightSettings
from vlm_rewards.pipelines.hindsight import goal_statistics
from vlm_rewards.pipelines.hindsight.goal_statistics import count_achievements
from vlm_rewards.pipelines.hindsight.relabelling import (
    HindsightSummary,
    goal_table,
    hindsight,
    join_labels,
    relabel_episode,
)
from vlm_rewards.schemas.episodes import CorpusFeatures
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.formats.corpus import open_corpus, writable_format, write_episodes
from vlm_rewards.schemas.formats.label_parts.reader import EpisodeLabels
from vlm_rewards.schemas.formats.relabelled_parts import writer as relabelled_writer
from vlm_rewards.schemas.formats.relabelled_parts.reader import read_relabelled
from vlm_rewards.schemas.formats.relabelled_parts.writer import open_writer
from vlm_rewards.schemas.goals import Goal
from vlm_rewards.schemas.manifests import Failure
from vlm_rewards.schemas.rules import RewardRule

# Goals:          ball      box       near      beside (near and beside are one group)
SHARDS = [
    [
        ("a", holds("..X..", "...X.", ".....", "....."), "go to the ball"),
        ("b", holds("...", "..X", "...", ".XX"), None),
    ],
    [("c", holds("....", "....", "...X", "...."), "Go to the box."), ("d", holds("XXX", "...", "...", "..."), "sing")],
]
SETTINGS = HindsightSettings(goals_per_episode=3, ratio=(1, 1, 1))


def inputs(folder: Path, format_name: str = "parquet", *, sparse: bool = False, **given: object) -> dict[str, Path]:
    corpus = write_corpus(
        folder / "corpus",
        [[episode(name, len(held), instruction=text) for name, held, text in shard] for shard in SHARDS],
        format_name,
    )
    labelled = [[(name, held) for name, held, _ in shard] for shard in SHARDS]
    return {"corpus": corpus, "labels": write_labels(folder / "labels", corpus, labelled, sparse=sparse, **given)}


def run(folder: Path, given: dict[str, Path], name: str = "relabelled", **options: object) -> HindsightSummary:
    arguments = {**vars(SETTINGS), "workers": 1, **options}
    return hindsight(**given, output=folder / name, **arguments)


@pytest.fixture(scope="module")
def relabelled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, HindsightSummary]]:
    """The shards above in both containers, relabelled once; by container, the folder and the summary."""
    made = {}
    for container in ("parquet", "webdataset"):
        folder = tmp_path_factory.mktemp(container)
        made[container] = folder, run(folder, inputs(folder, container), format=container)
    return made


def files(folder: Path) -> dict[str, bytes]:
    paths = [
        *folder.glob("parts/*"),
        folder / "goal_statistics.json",
        folder / "goal_usage.json",
        folder / "manifest.json",
    ]
    return {path.name: path.read_bytes() for path in paths}


@pytest.mark.parametrize("container", ["parquet", "webdataset"])
def test_a_corpus_is_relabelled_as_by_hand(
    relabelled: dict[str, tuple[Path, HindsightSummary]], container: str
) -> None:
    folder, summary = relabelled[container]
    read = {item.episode_id: item for item in read_relabelled(folder / "relabelled")}
    assert list(read) == ["a", "b", "c", "d"]

    a = read[
        "a"
    ]  # asked for the ball, frame 2: steps 0, 1; went on to the box, frame 3: steps 0 to 2; no other goal of use
    assert list(zip(a.goal_ids, a.goal_kinds, a.start, a.stop, a.terminated, strict=True))[:2] == [
        ("ball", "original", 0, 2, True),
        ("box", "hindsight", 0, 3, True),
    ]
    assert a.goal_kinds[2] == "negative"
    assert a.goal_ids[2] in ("near", "beside")
    assert a.rewards.tolist() == [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]  # frame t+1 holds: ball at 2, box at 3
    assert a.images == {"main": [picture(t) for t in range(5)]}
    assert a.actions is not None
    assert a.actions.tolist() == [0, 10, 20, 30]
    assert a.states is not None
    assert a.states[3].tolist() == [6, 7]
    assert a.goal_texts[0] == "at the ball"
    assert a.instruction == "go to the ball"

    b = read["b"]  # no instruction; of box and beside one is drawn; the ball is the only goal never achieved
    assert set(zip(b.goal_kinds, b.goal_ids, strict=True)) < {
        ("hindsight", "box"),
        ("hindsight", "beside"),
        ("negative", "ball"),
    }
    c = read["c"]  # failed the box, but came near it
    assert list(zip(c.goal_ids, c.goal_kinds, c.start, c.stop, c.terminated, strict=True)) == [
        ("box", "original", 0, 3, False),
        ("near", "hindsight", 0, 3, True),
        ("ball", "negative", 0, 3, False),
    ]
    d = read["d"]  # the ball is there from the start: no achievement, and no negative
    assert d.goal_kinds == ["negative"]

    statistics = json.loads((folder / "relabelled" / "goal_statistics.json").read_text())
    assert (statistics["episodes"], statistics["incomplete_episodes"]) == (4, 0)
    assert statistics["goals"] == {
        "ball": {"achieved": 1, "holds": 2},
        "box": {"achieved": 2, "holds": 2},
        "near": {"achieved": 1, "holds": 1},
        "beside": {"achieved": 1, "holds": 1},
    }
    assert summary.usage["kinds"] == {"original": 2, "hindsight": 3, "negative": 4}
    assert summary.usage["ratio"] == {"original": 0.2222, "hindsight": 0.3333, "negative": 0.4444}
    assert summary.usage["goals"]["ball"] == {"negative": 2 + (d.goal_ids == ["ball"]), "original": 1}
    assert summary.usage["episodes"] == {
        "original_achieved": 1,
        "original_holds_from_the_start": 0,
        "instruction_matches_no_goal": 1,
        "no_instruction": 1,
        "episodes_without_a_goal": 0,
        "episodes_of_one_frame": 0,
    }
    assert summary.usage == json.loads((folder / "relabelled" / "goal_usage.json").read_text())
    assert summary.run.manifest["rows"] == summary.run.manifest["episodes"] == 4


def test_the_same_labels_give_the_same_bytes(tmp_path: Path) -> None:
    given = inputs(tmp_path)
    for container in ("parquet", "webdataset"):
        run(tmp_path, given, f"{container}-1", format=container)
        again = run(tmp_path, given, f"{container}-2", format=container, workers=2)
        assert again.run.num_skipped == 0
        assert files(tmp_path / f"{container}-1") == files(tmp_path / f"{container}-2")
    third = run(tmp_path, given, "webdataset-2", format="webdataset")
    assert third.run.num_skipped == 2
    assert third.usage == again.usage
    assert files(tmp_path / "webdataset-1") == files(tmp_path / "webdataset-2")


def test_what_an_interrupted_run_left_is_completed_to_the_same_bytes(tmp_path: Path) -> None:
    given = inputs(tmp_path)
    run(tmp_path, given)
    expected = files(tmp_path / "relabelled")
    for name in ("manifest.json", "goal_usage.json", "goal_statistics.json", "markers/shard-001.json"):
        (tmp_path / "relabelled" / name).unlink()
    (tmp_path / "relabelled" / "parts" / "shard-001.parquet").unlink()
    assert run(tmp_path, given).run.num_skipped == 1
    assert files(tmp_path / "relabelled") == expected


def test_goals_do_not_depend_on_shards_or_containers_or_sparse_labels(tmp_path: Path) -> None:
    def goals(folder: Path) -> dict[str, list[tuple]]:
        return {
            item.episode_id: list(zip(item.goal_ids, item.goal_kinds, item.start, item.stop, strict=True))
            for item in read_relabelled(folder)
        }

    run(tmp_path, inputs(tmp_path))
    expected = goals(tmp_path / "relabelled")
    flat = [item for shard in SHARDS for item in shard][::-1]
    corpus = write_corpus(
        tmp_path / "one", [[episode(name, len(h), instruction=text) for name, h, text in flat]], "webdataset"
    )
    labels = write_labels(tmp_path / "one-labels", corpus, [[(name, h) for name, h, _ in flat]], sparse=True)
    run(tmp_path, {"corpus": corpus, "labels": labels}, "one-relabelled")
    assert goals(tmp_path / "one-relabelled") == expected
    assert list(goals(tmp_path / "one-relabelled")) == ["d", "c", "b", "a"]


@pytest.mark.parametrize("container", ["parquet", "webdataset"])
def test_without_a_final_frame_the_last_action_is_left_out(tmp_path: Path, container: str) -> None:
    # Three frames, three actions: the frame after the third is unknown, so the episode has two steps.
    corpus = write_corpus(tmp_path / "corpus", [[episode("a", 3, final_frame=False)]], container)
    labels = write_labels(tmp_path / "labels", corpus, [[("a", holds("..X", "...", "...", "..."))]])
    run(tmp_path, {"corpus": corpus, "labels": labels}, format=container)
    (read,) = read_relabelled(tmp_path / "relabelled")
    assert read.actions is not None
    assert read.actions.tolist() == [0, 10]
    assert read.rewards.tolist() == [[0, 1]]
    assert (read.start[0], read.stop[0], read.terminated[0]) == (0, 2, True)


def test_an_episode_with_an_unlabelled_frame_is_left_out_and_recorded(tmp_path: Path) -> None:
    given = inputs(tmp_path, without=[("b", 1), ("c", 0), ("c", 1), ("c", 2), ("c", 3)])
    with pytest.raises(ValueError, match=r"unlabelled frame: every frame must have a label, got 2 labels for 3 frames"):
        run(tmp_path, given)
    summary = run(tmp_path, given, max_failure_share=0.5)
    assert [item.episode_id for item in read_relabelled(tmp_path / "relabelled")] == ["a", "d"]
    assert summary.run.manifest["failures"] == {"unlabelled frame": 2}
    lines = [path.read_text() for path in sorted((tmp_path / "relabelled" / "failures").glob("*"))]
    assert [(json.loads(line)["episode_id"], json.loads(line)["scope"]) for line in lines] == [
        ("b", "episode"),
        ("c", "episode"),
    ]
    assert "first missing being of frame 1" in lines[0]
    assert "got 0 labels for 4 frames" in lines[1]
    statistics = json.loads((tmp_path / "relabelled" / "goal_statistics.json").read_text())
    assert (statistics["episodes"], statistics["incomplete_episodes"]) == (2, 1)


def test_an_episode_of_other_features_is_left_out_and_recorded(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", [[episode("a", 3)]], "webdataset")
    plain = dataclasses.replace(episode("b", 3), states=None, rewards=None, terminations=None, truncations=None)
    write_episodes(corpus / "z.tar", CorpusFeatures.of(plain), [plain], "webdataset")
    held = holds("..X", "...", "...", "...")
    labels = write_labels(tmp_path / "labels", corpus, [[("a", held)], [("b", held)]])
    summary = run(tmp_path, {"corpus": corpus, "labels": labels}, max_failure_share=0.5)
    assert summary.run.manifest["failures"] == {"other features": 1}
    assert (
        "must have the state_size 2 of its corpus, got None" in (tmp_path / "relabelled/failures/z.jsonl").read_text()
    )


def test_an_episode_without_a_goal_is_left_out_and_counted(tmp_path: Path) -> None:
    corpus = write_corpus(
        tmp_path / "corpus",
        [[episode("a", 3), episode("b", 1), episode("c", 3, instruction="go to the ball"), episode("d", 3)]],
    )
    held = [
        ("a", holds("XXX", "...", "...", "...")),  # the only goal that is ever achieved holds from the start
        ("b", holds("X", ".", ".", ".")),  # no step
        ("c", holds("XXX", "...", "...", "...")),
        ("d", holds("..X", "...", "...", "...")),
    ]
    labels = write_labels(tmp_path / "labels", corpus, [held])
    summary = run(tmp_path, {"corpus": corpus, "labels": labels})
    assert [item.episode_id for item in read_relabelled(tmp_path / "relabelled")] == ["d"]
    assert summary.usage["episodes"]["episodes_without_a_goal"] == 3
    assert summary.usage["episodes"]["episodes_of_one_frame"] == 1  # b
    assert summary.left_out == "; 3 left out without a goal, 1 of them of one frame"
    assert "negative goals; 3 left out without a goal, 1 of them of one frame)" in repr(summary)
    assert summary.usage["episodes"]["original_holds_from_the_start"] == 1


@pytest.mark.parametrize("container", ["parquet", "webdataset"])
def test_an_episode_of_one_frame_has_the_action_size_of_its_corpus(tmp_path: Path, container: str) -> None:
    short, long = (
        dataclasses.replace(episode(name, n), actions=np.zeros((n - 1, 3), np.float32))
        for name, n in [("a", 1), ("b", 3)]
    )
    (tmp_path / "corpus").mkdir()
    path = tmp_path / "corpus" / f"x.{writable_format(container).extension}"
    write_episodes(path, CorpusFeatures.of(long), [short, long], container)
    held = [("a", holds("X", ".", ".", ".")), ("b", holds("..X", "...", "...", "..."))]
    labels = write_labels(tmp_path / "labels", tmp_path / "corpus", [held])
    summary = run(tmp_path, {"corpus": tmp_path / "corpus", "labels": labels}, format=container)
    assert summary.run.manifest["failures"] == {}
    assert summary.usage["episodes"]["episodes_without_a_goal"] == 1  # a: no step, no goal to reach
    (read,) = read_relabelled(tmp_path / "relabelled")
    assert read.actions is not None
    assert read.actions.shape == (2, 3)


def test_a_shard_cut_short_keeps_the_episodes_before_the_cut(tmp_path: Path) -> None:
    given = inputs(tmp_path, "webdataset")
    shard = given["corpus"] / "shard-001.tar"
    shard.write_bytes(shard.read_bytes()[:-4000])
    # Labelled after it was cut: episode d is lost to both.
    labels = write_labels(
        tmp_path / "cut", given["corpus"], [[(n, h) for n, h, _ in SHARDS[0]], [("c", SHARDS[1][0][1])]]
    )
    summary = run(tmp_path, {"corpus": given["corpus"], "labels": labels}, max_failure_share=0.5)
    assert [item.episode_id for item in read_relabelled(tmp_path / "relabelled")] == ["a", "b", "c"]
    assert summary.run.manifest["failures"] == {"unreadable shard": 1}


def test_parquet_opens_with_the_plain_tools(
    relabelled: dict[str, tuple[Path, HindsightSummary]], tmp_path: Path
) -> None:
    folder, _ = relabelled["parquet"]
    parts = folder / "relabelled" / "parts"
    table = pyarrow.dataset.dataset(parts, format="parquet").to_table(columns=["episode_id", "rewards", "stop"])
    assert table.column("episode_id").to_pylist() == ["a", "b", "c", "d"]
    assert table.column("rewards")[0].as_py()[0] == [0, 1, 0, 0]

    data = datasets.load_dataset(
        "parquet", data_files=str(parts / "*.parquet"), split="train", cache_dir=str(tmp_path / "hf")
    )
    first = data[0]
    assert isinstance(data.features["observation.images.main"].feature, datasets.Image)
    for goal in range(
        2
    ):  # the picture that earned the reward is that of the frame after the step: its pixels are its index
        last = first["stop"][goal] - 1
        assert first["rewards"][goal][last] == 1
        assert np.asarray(first["observation.images.main"][last + 1])[0, 0, 0] == last + 1 == [2, 3][goal]


def test_webdataset_opens_with_the_plain_tool(relabelled: dict[str, tuple[Path, HindsightSummary]]) -> None:
    folder, _ = relabelled["webdataset"]
    shards = [str(path) for path in sorted((folder / "relabelled" / "parts").glob("*.tar"))]
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode("rgb8"))
    assert [sample["__key__"] for sample in samples] == ["a", "b", "c", "d"]
    first = samples[0]
    assert first["json"]["goal_ids"][:2] == ["ball", "box"]
    assert first["rewards.npy"][:2].tolist() == [[0, 1, 0, 0], [0, 0, 1, 0]]
    assert (first["start.npy"].dtype, first["stop.npy"].tolist()[:2]) == (np.int32, [2, 3])
    assert first["terminated.npy"].tolist() == [True, True, False]
    assert first["action.npy"].tolist() == [0, 10, 20, 30]
    assert (first["main.000003.png"] == 3).all()  # the frame that earned the box's reward, r_2
    assert first["json"]["num_frames"] == 5


def test_the_outputs_settings_and_metadata_say_what_made_it(
    relabelled: dict[str, tuple[Path, HindsightSummary]],
) -> None:
    folder, _ = relabelled["parquet"]
    schema = pq.read_schema(folder / "relabelled" / "parts" / "shard-000.parquet")
    own = json.loads(schema.metadata[b"vlm_rewards"])
    assert own["fingerprint"]["labels"] == {"weights": "none", "goals": [goal.id for goal in GOALS]}
    assert own["fingerprint"]["hindsight"]["strategy"] == "future"
    assert "looks at frame o_(t+1)" in own["time"]
    with pytest.raises(ValueError, match="must have the same fingerprint as this run, got other hindsight"):
        run(folder, {"corpus": folder / "corpus", "labels": folder / "labels"}, **vars(HindsightSettings(seed=1)))


def test_row_groups_are_bounded_by_the_bytes_of_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relabelled_writer, "ROW_GROUP_BYTES", 3 * 4 * len(picture(1)))
    corpus = write_corpus(tmp_path / "corpus", [[episode(f"e{i}", 4) for i in range(7)]])
    labels = write_labels(
        tmp_path / "labels", corpus, [[(f"e{i}", holds("..X.", "....", "....", "....")) for i in range(7)]]
    )
    run(tmp_path, {"corpus": corpus, "labels": labels})
    metadata = pq.read_metadata(tmp_path / "relabelled" / "parts" / "shard-000.parquet")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [3, 3, 1]
    assert [item.episode_id for item in read_relabelled(tmp_path / "relabelled")] == [f"e{i}" for i in range(7)]


def test_rare_goals_are_used_nearly_as_often_as_common_ones(tmp_path: Path) -> None:
    # Every episode achieves 3 of 12 goals; goal i is 12 / (i + 1) times as common as goal 11. One hindsight goal an episode.
    goals = tuple(Goal(id=f"g{i}", text=f"goal {i}") for i in range(12))
    random = np.random.default_rng(0)
    odds = 1 / (1 + np.arange(12))
    names, held = [f"e{i}" for i in range(600)], []
    for _ in names:
        achieved = np.zeros((2, 12), np.bool_)
        achieved[1, random.choice(12, size=3, replace=False, p=odds / odds.sum())] = True
        held.append(achieved)
    rule = RewardRule(thresholds=(THRESHOLD,) * len(goals))
    counts = count_achievements(
        (EpisodeLabels(name, np.arange(2), achieved * 1.0) for name, achieved in zip(names, held, strict=True)),
        goals,
        rule,
    )
    prepared = goal_table(goals, rule, [counts[f"achieved/{goal.id}"] for goal in goals])
    spread = {}
    for balance in (0.0, 1.0):
        settings = HindsightSettings(goals_per_episode=2, ratio=(0, 1, 1), balance=balance)
        used: Counter[str] = Counter()
        for name, achieved in zip(names, held, strict=True):
            used.update(relabel_episode(episode(name, 2), achieved * 1.0, prepared, settings)[1])
        for kind in ("hindsight", "negative"):
            uses = [used[f"{kind}/g{i}"] for i in range(12)]
            spread[kind, balance] = max(uses) / min(uses)
    assert spread["hindsight", 0.0] > 5
    assert spread["hindsight", 1.0] < 2.2
    assert spread["negative", 1.0] < 4  # the commonest goal is absent from few episodes


def test_labels_join_episodes_in_their_order() -> None:
    episodes = [episode(name, 1) for name in "abcd"]
    labels = [EpisodeLabels(name, np.arange(1), np.zeros((1, 1), np.float32)) for name in "abcd"]
    failure = Failure(scope="episode", shard="s", episode_id="b", reason="invalid episode", detail="")
    pairs = list(join_labels([episodes[0], failure, *episodes[2:]], [*labels[:2], labels[3]]))
    assert [found and found.episode_id for _, found in pairs] == ["a", None, None, "d"]
    with pytest.raises(ValueError, match="got labels of episode 'b', which is not there"):
        list(join_labels([episodes[0]], labels))
    cut = Failure(scope="shard", shard="s", reason="unreadable shard", detail="")
    assert len(list(join_labels([episodes[0], cut], labels))) == 2


def test_bad_input_is_refused(tmp_path: Path) -> None:
    given = inputs(tmp_path)
    with pytest.raises(ValueError, match="format must be one of parquet, webdataset, got 'csv'"):
        run(tmp_path, given, format="csv")
    with pytest.raises(ValueError, match="format must be one of parquet, webdataset, got 'csv'"):
        open_writer("csv", tmp_path / "x", CorpusFeatures(cameras=("main",)), Fingerprint({"a": 1}))
    other = write_corpus(tmp_path / "other", [[episode("a", 2)], [episode("b", 3)]])
    with pytest.raises(ValueError, match="labels must be of the shard they are used with"):
        run(tmp_path, {**given, "corpus": other})
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "shard-000.parquet").write_bytes(b"nothing of ours")
    with pytest.raises(
        ValueError,
        match=r"a corpus must have a readable shard, got 1 that are not, the first being .*shard-000.parquet "
        r"\(a Parquet file must be whole, got .*\. Copy it again from its source",
    ):
        run(tmp_path, {**given, "corpus": broken})


def test_labels_that_cannot_be_read_stop_the_run_with_our_message(tmp_path: Path) -> None:
    given = inputs(tmp_path)
    part = given["labels"] / "parts" / "shard-001.parquet"
    part.write_bytes(bytes(part.stat().st_size))
    with pytest.raises(RuntimeError, match=r"^ValueError: a file must be as it was written, got .*shard-001"):
        run(tmp_path, given)
    assert not (tmp_path / "relabelled" / "goal_statistics.json").exists()


def test_statistics_that_the_runner_lost_are_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        goal_statistics, "_write_statistics", lambda *_: None
    )  # a runner that drops the last step's effect
    with pytest.raises(
        RuntimeError, match=r"must have counted all goals when it has ended, got no .*goal_statistics.json"
    ):
        run(tmp_path, inputs(tmp_path))


def test_pictures_are_stored_as_they_were_recorded(relabelled: dict[str, tuple[Path, HindsightSummary]]) -> None:
    folder, _ = relabelled["parquet"]
    corpus = open_corpus(folder / "corpus")
    (unit, _) = corpus.units()
    recorded = pq.read_table(corpus.place(unit)).column("observation.images.main").to_pylist()
    read = [image for item in list(read_relabelled(folder / "relabelled"))[:2] for image in item.images["main"]]
    assert read == [image["bytes"] for image in recorded]
    assert np.asarray(Image.open(io.BytesIO(read[4])))[0, 0, 0] == 4
