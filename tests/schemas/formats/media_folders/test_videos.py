import pickle
from pathlib import Path

import numpy as np
import pytest
from small_corpora import read_whole
from small_videos import AV1, copy_packets, number_of, numbered_frame, plain_frames, write_video

from vlm_rewards.schemas.formats.corpus import open_corpus
from vlm_rewards.schemas.manifests import Failure
from vlm_rewards.schemas.videos import decoder_versions


def frames(count=10, first=0):
    return [numbered_frame(first + number) for number in range(count)]


def read(path, options=None, **wanted):
    corpus = open_corpus(path, options)
    return [item for unit in corpus.units() for item in read_whole(corpus.episodes(unit, **wanted))]


def test_each_video_is_an_episode(tmp_path):
    write_video(tmp_path / "day 1" / "b.c.mp4", frames(10))
    write_video(tmp_path / "a.MP4", frames(5, 20), AV1)
    (tmp_path / "notes.txt").write_text("")
    corpus = open_corpus(tmp_path)
    assert (corpus.format_name, corpus.features.cameras, corpus.features.action_size) == ("videos", ("video",), None)
    assert next(unit.name for unit in corpus.units()) == "a"
    assert [entry.name for entry in corpus.passed_over] == ["notes.txt"]
    assert corpus.reader.decoders("video") == decoder_versions()
    first, second = read(tmp_path)
    assert (first.episode_id, second.episode_id) == ("a", "day 1/b.c")
    assert [number_of(frame) for frame in first.images["video"]] == list(range(20, 25))
    assert [number_of(frame) for frame in second.images["video"]] == list(range(10))
    for pixels, expected in zip(second.images["video"], plain_frames(tmp_path / "day 1" / "b.c.mp4"), strict=True):
        np.testing.assert_array_equal(pixels, expected)
    assert (first.num_steps, first.actions, first.instruction, first.source) == (4, None, None, "a.MP4")
    corpus.features.check(first)
    assert [corpus.episode_ids(unit) for unit in corpus.units()] == [["a"], ["day 1/b.c"]]
    assert read(tmp_path, {"camera": "top"})[0].images.keys() == {"top"}
    assert [len(item.images["video"]) for item in read(tmp_path, frames=False)] == [5, 10]
    assert len(list(pickle.loads(pickle.dumps(corpus)))) == 2


def test_videos_are_turned_as_players_show_them(tmp_path):
    write_video(tmp_path / "a.mp4", frames(2), rotation=90)
    assert read(tmp_path)[0].images["video"][0].shape == (64, 32, 3)


def test_a_single_file_is_read_with_its_table(tmp_path):
    write_video(tmp_path / "a.mp4", frames(2))
    write_video(tmp_path / "b.mp4", frames(3))
    (tmp_path / "metadata.csv").write_text("file_name,text\na.mp4,first\nb.mp4,second\n")
    (episode,) = read(tmp_path / "b.mp4")
    assert (episode.episode_id, episode.instruction, episode.num_frames) == ("b", "second", 3)


@pytest.mark.parametrize("table", ["metadata.csv", "metadata.jsonl", "my.csv"])
def test_a_table_names_episodes_and_instructions(tmp_path, table):
    write_video(tmp_path / "a.mp4", frames(2))
    write_video(tmp_path / "sub" / "b.mp4", frames(3))
    if table.endswith("jsonl"):
        text = (
            '{"file_name": "a.mp4", "text": "lift, it", "num_frames": 2}\n\n{"file_name": "sub/b.mp4", "text": null}\n'
        )
    else:
        text = '\ufefffile;episode_id;instruction;num_frames;more\na.mp4;one/1;"lift, it";2;x\n;;;;\nsub/b.mp4;;;;\n'
    (tmp_path / table).write_text(text, encoding="utf-8")
    options = {"table": table} if table == "my.csv" else None
    first, second = read(tmp_path, options)
    assert first.episode_id == ("a" if table.endswith("jsonl") else "one/1")
    assert (first.instruction, second.instruction, second.episode_id) == ("lift, it", None, "sub/b")
    assert open_corpus(tmp_path, options).passed_over == ()
    assert read(tmp_path, options, fields=())[0].instruction is None


def test_a_table_of_a_folder_below_names_files_beside_it(tmp_path):
    write_video(tmp_path / "sub" / "b.mp4", frames(3))
    (tmp_path / "sub" / "metadata.csv").write_text("file_name,caption\n./b.mp4,push\n")
    assert read(tmp_path, {"instruction": "caption"})[0].instruction == "push"


def test_a_few_broken_videos_of_many_fail_and_say_both_numbers(tmp_path):
    good = write_video(tmp_path / "good-00.mp4", frames(20))
    for number in range(1, 20):
        (tmp_path / f"good-{number:02d}.mp4").write_bytes(good.read_bytes())
    (tmp_path / "truncated.mp4").write_bytes(good.read_bytes()[:-300])
    copy_packets(good, tmp_path / "dropped.mp4", kept=[n for n in range(20) if n != 18])
    copy_packets(good, tmp_path / "edited.mp4", shift=3)
    (tmp_path / "metadata.csv").write_text("file_name,num_frames\ngood-03.mp4,21\n")
    items = read(tmp_path)
    failures = {item.episode_id: item for item in items if isinstance(item, Failure)}
    assert sorted(failures) == ["dropped", "edited", "good-03", "truncated"]
    assert len(items) - len(failures) == 19
    assert {failure.scope for failure in failures.values()} == {"episode"}
    assert "promises 20 frames, and " in failures["truncated"].detail
    assert "has time for 20 frames, got 19" in failures["dropped"].detail
    assert "promises 20 frames, got 17" in failures["edited"].detail
    assert "good-03.mp4 should have 21 frames by metadata.csv, line 2, got 20" in failures["good-03"].detail


def test_a_dropped_frame_is_told_by_the_table_alone(tmp_path):
    good = write_video(tmp_path / "a.mp4", frames(8))
    copy_packets(good, tmp_path / "b.mp4", kept=range(7))  # the last packet, in no gap
    (tmp_path / "metadata.csv").write_text("file_name,num_frames\na.mp4,8.0\nb.mp4,8\n")
    episode, failure = read(tmp_path)
    assert (episode.num_frames, failure.episode_id) == (8, "b")
    assert "should have 8 frames by metadata.csv, line 3, got 7" in failure.detail


def test_a_file_that_is_no_video_fails_alone(tmp_path):
    write_video(tmp_path / "a.mp4", frames(2))
    (tmp_path / "b.mp4").write_bytes(b"")
    episode, failure = read(tmp_path)
    assert (episode.episode_id, failure.episode_id, failure.num_frames) == ("a", "b", 0)
    assert "b.mp4 is empty" in failure.detail
    (tmp_path / "a.mp4").unlink()
    with pytest.raises(
        ValueError, match=r"must have one that can be opened: got 1 that cannot, the first being b.mp4 is empty"
    ):
        open_corpus(tmp_path)


def test_a_line_whose_video_is_not_there_is_a_failure(tmp_path):
    for number in range(3):
        write_video(tmp_path / f"{number}.mp4", frames(2))
    (tmp_path / "metadata.csv").write_text("file_name,text\n1.mp4,x\n7.mp4,y\n")
    *episodes, last = sorted(read(tmp_path), key=lambda item: isinstance(item, Failure))
    assert [episode.episode_id for episode in episodes] == ["0", "1", "2"]
    assert (last.scope, last.shard, last.reason) == ("shard", "7.mp4", "missing file")
    assert "metadata.csv, line 3 names 7.mp4, which is not there" in last.detail


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a.mp4\n", {}, r"must have the column file_name or episode_id: got nothing|"),
        ("name,text\na.mp4,x\n", {}, r"metadata.csv must have the column file_name or episode_id: got name, text"),
        ("file_name\na.mp4\n", {"instruction": "say"}, r"must have the column 'say': got file_name"),
        ("file_name,text\na.mp4,go, then stop\n", {}, r"must have as many values as the first: got \[' then stop'\] more in .* 2"),
        ("file_name,num_frames\na.mp4,many\n", {}, r"num_frames must be a number: got 'many' in .*line 2"),
        ("file_name\na.mp4\na.mp4\n", {}, r"must name a video once: got a.mp4 in metadata.csv, line 2 and in metadata.csv, line 3"),
        ("episode_id\na\n", {}, r"must say which file a line is of: got none in metadata.csv, line 2"),
        (b"file_name\n\xff\n", {}, r"must be UTF-8: got"),
        ('file_name\n"a\x00', {"table": "none.csv"}, r"a table must be a file in .*: got 'none.csv', which is not there"),
    ],
)  # fmt: skip
def test_a_table_that_is_none_is_refused(tmp_path, text, options, message):
    write_video(tmp_path / "a.mp4", frames(2))
    (tmp_path / "metadata.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    if message.endswith("|"):
        assert read(tmp_path)[0].instruction is None  # no line, so nothing to say
        return
    with pytest.raises(ValueError, match=message):
        open_corpus(tmp_path, options)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{\n", r"must hold one JSON object per line: got .* in line 1"), ("[1]\n", r"got '\[1\]' in line 1")],
)
def test_a_jsonl_table_that_is_none_is_refused(tmp_path, text, message):
    write_video(tmp_path / "a.mp4", frames(2))
    (tmp_path / "metadata.jsonl").write_text(text)
    with pytest.raises(ValueError, match=message):
        open_corpus(tmp_path)


def test_a_csv_that_breaks_off_is_refused(tmp_path):
    write_video(tmp_path / "a.mp4", frames(2))
    (tmp_path / "metadata.csv").write_text("file_name,text\na.mp4," + "x" * 200_000 + "\n")
    with pytest.raises(ValueError, match=r"must be lines of CSV: got field larger than field limit .* in line 2"):
        open_corpus(tmp_path)


def test_two_videos_of_one_name_are_refused(tmp_path):
    write_video(tmp_path / "a.mp4", frames(2))
    write_video(tmp_path / "a.mkv", frames(2))
    with pytest.raises(ValueError, match="every unit must have a name of its own, got 'a' twice"):
        open_corpus(tmp_path).units()


def test_small_videos_share_units(tmp_path):
    good = write_video(tmp_path / "00.mp4", frames(3))
    for number in range(1, 20):
        (tmp_path / f"{number:02d}.mp4").write_bytes(good.read_bytes())
    (unit,) = open_corpus(tmp_path).units()
    assert (len(unit.files), unit.num_episodes) == (20, 20)
    assert [episode.episode_id for episode in read(tmp_path)] == [f"{number:02d}" for number in range(20)]


BRIDGE = Path(__file__).parents[4].parent / "shared" / "corpora" / "bridge-mp4"


@pytest.mark.skipif(not BRIDGE.is_dir(), reason="the videos of real BridgeData V2 are not in ../shared/corpora")
def test_real_videos_of_two_codecs():
    episodes = read(BRIDGE)
    assert [(episode.episode_id, episode.num_frames) for episode in episodes] == [(f"ep{n:03d}", 10) for n in range(6)]
    assert episodes[5].instruction == "put carrot on plate"
