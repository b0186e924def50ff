"""`vr.inspect_corpus`: figures of small corpora, counted by hand."""

import dataclasses
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from labelled_corpora import episode, picture

import vlm_rewards as vr
from vlm_rewards.pipelines.inspect import pictures
from vlm_rewards.pipelines.inspect.summary import CorpusReport, next_commands, summary_lines
from vlm_rewards.schemas.episodes import Episode
from vlm_rewards.schemas.goals import Goal
from vlm_rewards.schemas.pictures import encode_png

BROKEN = picture(9)[:50]


def write(folder: Path, *episodes: Episode, goals: tuple[Goal, ...] = (), shards: int = 1) -> Path:
    each = -(-len(episodes) // shards)
    vr.write_corpus(list(episodes), output=folder, goals=goals, episodes_per_shard=each)
    return folder


def seen(episode_id: str, *values: int, side: int = 8, **given) -> Episode:
    """An episode without anything but frames of one value each; -1 stands for one that does not decode."""
    frames = [BROKEN if value < 0 else encode_png(np.full((side, 2 * side, 3), value, np.uint8)) for value in values]
    return Episode(episode_id=episode_id, images={"main": frames}, **given)


def text(report: CorpusReport) -> str:
    return "\n".join(summary_lines(report))


def change(path: Path, name: str, values: list) -> None:
    table = pq.read_table(path)
    column = table.schema.get_field_index(name)
    field = table.schema.field(column)
    pq.write_table(table.set_column(column, field, pa.array(values, field.type)), path)


def parts(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.parquet"))


def test_decoding_every_frame_shows_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "c", episode("a", 20), episode("b", 20))
    vr.inspect_corpus(folder, frames=True)
    assert capsys.readouterr().err == ""  # done before the first line is due
    monkeypatch.setattr(pictures, "PROGRESS_INTERVAL_S", 0.05)

    def slowly(frame: object, decode: Callable = pictures.decoded_frame) -> np.ndarray:
        time.sleep(0.02)
        return decode(frame)

    monkeypatch.setattr(pictures, "decoded_frame", slowly)
    vr.inspect_corpus(folder, frames=True)
    assert re.search(r"^inspect: [\d,]+ of 40 frames \(\d+ %\), ", capsys.readouterr().err, re.MULTILINE)


def test_what_episodes_hold_is_counted(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "c",
        episode("a", 4, instruction="Open the door."),
        episode("b", 7, instruction="open the door"),
        episode("c", 1, instruction="lift it"),
        episode("d", 2),
    )
    report = vr.inspect_corpus(folder)
    found = report.to_json()
    assert (found["format"], found["num_episodes"], found["num_frames"], found["num_steps"]) == ("parquet", 4, 14, 10)
    assert found["frames_per_episode"] == [1, 3.0, 7]  # of 1, 2, 4 and 7
    assert found["missing_frame"] == {"none": 4}
    assert (found["action_size"], found["action_range"]) == (0, (0, 50))  # action t is 10 t
    assert (found["state_size"], found["reward_range"]) == (2, (7.0, 7.0))
    assert found["instructions"] == {"Open the door.": 2, "lift it": 1}
    assert found["num_episodes_without_instruction"] == 1
    assert (found["failures"], found["failures_of_later_commands"], found["num_episodes_with_truth"]) == ([], [], 0)
    told = text(report)
    assert "  4 episodes of 1 to 7 frames (median 3): 14 frames, 10 steps\n" in told
    assert "actions: discrete, 0 to 50 occur; states: 2 numbers; rewards: all 7\n" in told
    assert "instructions: 2 distinct; none in 1 of 4 episodes\n    2 x 'Open the door.'\n    1 x 'lift it'\n" in told
    assert "1 episodes have one frame" in told
    assert repr(report) == told


@pytest.mark.parametrize(
    ("given", "missing", "told"),
    [
        ({"actions": np.zeros((2, 3), np.float32)}, "none", "frames: one more than actions"),
        ({"actions": np.zeros((3, 1), np.float32)}, "last", "the one after the last action is missing"),
        ({"actions": np.zeros(3, np.int64), "lacks_first_frame": True}, "first", "before the first action is missing"),
        ({}, "no actions", "no actions: a step lies between two frames"),
    ],
)
def test_the_missing_frame_is_told(tmp_path: Path, given: dict, missing: str, told: str) -> None:
    report = vr.inspect_corpus(write(tmp_path / "c", seen("a", 1, 2, 3, **given)))
    assert report.tally.missing_frames == {missing: 1}
    assert told in text(report)


def test_all_frames_are_decoded_only_if_asked(tmp_path: Path) -> None:
    folder = write(tmp_path / "c", seen("a", 200, 200, 0, -1, 0, 0), seen("b", 8, 9))
    some = vr.inspect_corpus(folder)
    assert some.cameras["main"].sizes == {(16, 8): 1}
    assert (some.failures, some.to_json()["cameras"]["main"]["num_repeated"]) == ([], None)
    every = vr.inspect_corpus(folder, frames=True)
    counts = every.cameras["main"]
    assert counts.sizes == {(16, 8): 7}
    # of "a", frames 1 and 5 repeat the one before; 4 comes after one that is unreadable. Values up to 8 are black
    assert (counts.num_repeated, counts.num_black, counts.num_unreadable) == (2, 4, 1)
    [failure] = every.failures
    assert (failure.episode_id, failure.frame_index, failure.reason) == ("a", 3, "undecodable image")
    told = text(every)
    assert "camera main: 16x8; 1 frames cannot be decoded; 57.1% black; 28.6% the same as the frame before" in told
    assert "label stops where more than 1 % of frames" in told


def test_the_first_frame_that_decodes_is_looked_at(tmp_path: Path) -> None:
    report = vr.inspect_corpus(write(tmp_path / "c", seen("a", -1, -1, 3)))
    assert (report.cameras["main"].sizes, report.cameras["main"].num_unreadable) == ({(16, 8): 1}, 2)
    lost = vr.inspect_corpus(write(tmp_path / "d", seen("a", *[-1] * 12)))
    assert lost.cameras["main"].num_unreadable == 10
    assert "camera main: no frame could be decoded; 10 frames cannot be decoded" in text(lost)


def test_sizes_that_differ_are_said(tmp_path: Path) -> None:
    folder = write(tmp_path / "c", seen("a", 1), seen("b", 1, side=4), seen("c", 1, side=4), shards=3)
    report = vr.inspect_corpus(folder)
    assert report.cameras["main"].sizes == {(8, 4): 2, (16, 8): 1}
    assert "camera main: sizes differ: 8x4, 16x8; all black" in text(report)


def test_what_only_later_commands_cannot_read_is_told_apart(tmp_path: Path) -> None:
    folder = write(tmp_path / "c", *(episode(name, 2, instruction="lift it") for name in "abcd"))
    [path] = parts(folder)
    # a: a state that is no number. b: two instructions. c: frames that do not count from 0. d is sound
    states = [[0, 0], [np.nan, 0], *[[0, 0]] * 6]
    change(path, "observation.state", states)
    change(path, "instruction", ["lift it", "lift it", "lift it", "drop it", *["lift it"] * 4])
    change(path, "frame_index", [0, 1, 0, 1, 1, 2, 0, 1])
    report = vr.inspect_corpus(folder)
    assert [failure.episode_id for failure in report.failures] == ["c"]
    assert [failure.episode_id for failure in report.later_failures] == ["a", "b"]
    assert (report.tally.num_episodes, report.tally.num_frames) == (3, 6)
    assert report.tally.instructions == {"lift it": 3, "drop it": 1}  # of a, b and d
    assert report.tally.num_changing == 1
    assert report.tally.missing_frames == {"none": 1}  # of d alone
    told = text(report)
    assert "  cannot be read: 1 missing frames (episode)\n" in told
    assert (
        "  label can read, later commands cannot: 1 invalid episode (episode), 1 several instructions (episode)\n"
        in told
    )
    assert "  instructions: 2 distinct; several in 1 episodes\n" in told


def test_ids_that_occur_twice_and_what_is_passed_over_are_told(tmp_path: Path) -> None:
    folder = write(tmp_path / "c", seen("a", 1, 2), seen("b", 1, 2), seen("c", 1, 2), shards=3)
    change(parts(folder)[2], "episode_id", ["a", "a"])
    (folder / "notes.txt").write_text("x")
    report = vr.inspect_corpus(folder)
    assert report.repeated_ids == ["a"]
    assert "ids that occur twice: 1, the first 'a'; label refuses such a corpus" in text(report)
    assert [name for names in report.passed_over.values() for name in names] == ["notes.txt"]
    assert "does not read): notes.txt" in text(report)


def command(report: CorpusReport, *given: Path) -> str:
    [words] = next_commands(report, *given)
    return " ".join(map(str, words))


def test_the_next_command_fits_the_corpus(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", episode("a", 2, instruction="a red ball"), episode("b", 2, instruction="a grey key"))
    expected = f"label --input {folder} --goals from-corpus --model reference-s --output labels/"
    assert command(vr.inspect_corpus(folder)) == expected
    assert command(vr.inspect_corpus(folder), Path("g.jsonl")) == expected.replace("from-corpus", "g.jsonl")
    one = write(tmp_path / "b", episode("a", 2, instruction="a cup in the sink"))
    assert command(vr.inspect_corpus(one)) == (
        f"label --input {one} --goals from-corpus --negative something else --model openai/clip-vit-large-patch14 "
        "--output labels/"
    )
    known = write(tmp_path / "e", episode("a", 2, instruction="a red ball"))  # but not "something else", to reference-s
    assert "--negative something else --model openai/clip-vit-large-patch14" in command(vr.inspect_corpus(known))
    none = write(tmp_path / "c", seen("a", 200))
    assert "--goals goals.jsonl --model openai" in command(vr.inspect_corpus(none))
    assert "instructions: none, so goals come from a file, one per line, such as {" in text(vr.inspect_corpus(none))
    many = write(tmp_path / "d", *(seen(f"e{n}", 1, instruction=f"task {n}") for n in range(2001)))
    assert "--goals from-corpus --sparse --model" in command(vr.inspect_corpus(many))
    assert "    and 1,996 more" in text(vr.inspect_corpus(many))


def test_the_next_command_reads_the_corpus_as_it_was_read(tmp_path: Path) -> None:
    table = pa.table(
        {
            "episode_index": pa.array([0, 0, 1]),
            "step": pa.array([0, 1, 0]),
            "observation.images.top": pa.array([{"bytes": picture(9), "path": None}] * 3),
            "task": pa.array(["lift it", "lift it", "drop it"]),
        }
    )
    (tmp_path / "c").mkdir()
    pq.write_table(table, tmp_path / "c" / "a.parquet")
    columns = {"episode_id": "episode_index", "frame_index": "step", "instruction": "task"}
    report = vr.inspect_corpus(tmp_path / "c", columns=columns, picture_range="0:4000")
    assert report.tally.instructions == {"lift it": 1, "drop it": 1}
    assert command(report).startswith(
        f"label --input {tmp_path / 'c'} --column episode_id=episode_index --column frame_index=step "
        "--column instruction=task --picture-range 0:4000 --goals from-corpus"
    )


def test_a_camera_that_is_black_is_not_chosen(tmp_path: Path) -> None:
    black = seen("a", 0, 200, instruction="a red ball")
    frames = {
        "filler": [encode_png(np.zeros((4, 4, 3), np.uint8))] * 2,
        "top": [encode_png(np.full((6, 4, 3), 90, np.uint8))] * 2,
    }
    folder = write(tmp_path / "c", dataclasses.replace(black, images=frames))
    report = vr.inspect_corpus(folder)
    assert "  camera filler: 4x4; all black\n  camera top: 4x6\n" in text(report)
    assert "--camera top --goals" in command(report)


def test_ground_truth_is_told_with_its_goals(tmp_path: Path) -> None:
    goals = (Goal("ball", "a red ball"), Goal("key", "a grey key"), Goal("box", "a blue box"))
    folder = write(
        tmp_path / "c",
        seen("a", 1, 2, instruction="a red ball", achieved_goals=[["ball"], ["ball", "key"]]),
        goals=goals,
    )
    report = vr.inspect_corpus(folder)
    found = report.to_json()
    assert (found["num_episodes_with_truth"], found["achieved_goals"]) == (1, {"ball": 2, "key": 1})
    assert found["truth_goals"] == ["ball", "key", "box"]
    assert f"ground truth: recorded for 3 goals; 2 goals hold somewhere; see {folder / 'goals.jsonl'}" in text(report)
    assert f"--goals {folder / 'goals.jsonl'} " in command(report)


@pytest.mark.parametrize("format_name", ["parquet", "webdataset"])
def test_formats_of_ours_are_told_alike(tmp_path: Path, format_name: str) -> None:
    episodes = [episode("a", 4, instruction="Open the door."), episode("b", 7)]
    vr.write_corpus(episodes, output=tmp_path / "c", format=format_name)
    found = vr.inspect_corpus(tmp_path / "c", frames=True).to_json()
    assert found["format"] == format_name
    assert (found["num_frames"], found["action_range"], found["num_files"]) == (11, (0, 50), 1)
    assert found["cameras"]["main"]["sizes"] == [[8, 8, 11]]


def test_what_is_no_corpus_is_refused_with_what_was_found(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "a.csv").write_text("x")
    with pytest.raises(ValueError, match="which no format reads\\): a.csv"):
        vr.inspect_corpus(tmp_path / "c")
    with pytest.raises(ValueError, match="got .*nowhere, which is not there"):
        vr.inspect_corpus(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="has no option 'depth'"):
        vr.inspect_corpus(write(tmp_path / "d", seen("a", 1)), corpus_options={"depth": "1"})
    with pytest.raises(ValueError, match="frames must be True or False: got 'all'"):
        vr.inspect_corpus(tmp_path / "d", frames="all")


def test_metadata_that_disagrees_is_noted(tmp_path: Path) -> None:
    corpora = Path(__file__).resolve().parents[4] / "shared" / "corpora" / "g1-v21"
    if not corpora.is_dir():
        pytest.skip(f"the real LeRobot data set {corpora} is not on this machine")
    report = vr.inspect_corpus(corpora)
    assert (report.tally.num_episodes, report.tally.lengths) == (3, {290: 1, 221: 1, 280: 1})
    assert report.cameras["cam_high"].sizes == {(640, 480): 3}
    assert "  note: meta/info.json speaks of 100 episodes" in text(report)
