from pathlib import Path

import pytest

from vlm_rewards.schemas.formats.marks import Mark, check_marks, read_marks

HEADER = "episode_id,frame_index,goal,achieved"


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_marks_are_read_with_their_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "marks.csv", "goal,achieved,episode_id,frame_index", "box,1,a,3", "ball, 0 ,a,0")
    assert read_marks(path, ["ball", "box"]) == [Mark(2, "a", 3, 1, True), Mark(3, "a", 0, 0, False)]


def test_a_spreadsheets_byte_order_mark_is_no_part_of_a_column(tmp_path: Path) -> None:
    path = tmp_path / "marks.csv"
    path.write_bytes(b"\xef\xbb\xbf" + f"{HEADER}\r\na,0,ball,1\r\n".encode())
    assert read_marks(path, ["ball"]) == [Mark(2, "a", 0, 0, True)]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([HEADER], r"marks must be at least one, got none in .*; mark some frames of each goal"),
        (["episode,frame", "a,0"], r"must have the columns episode_id, .*, got episode, frame in"),
        ([HEADER, "a,0,ball"], r"a mark must have four values, got \['a', '0', 'ball'\] in .*, line 2"),
        ([HEADER, " ,0,ball,1"], r"a mark must have four values, got \['', '0', 'ball', '1'\] in .*, line 2"),
        # Python's csv reads fields of at most 131,072 characters.
        ([HEADER, "a" * 131_073 + ",0,ball,1"], r"line 2: a line must be CSV, got field larger than"),
        ([HEADER, "a,0,ball,1,1"], r"a mark must have four values, got \['a', '0', 'ball', '1', '1'\] in .*, line 2"),
        ([HEADER, "a,-1,ball,1"], r"frame_index must be a number from 0, got '-1' in .*, line 2\. Correct it"),
        ([HEADER, "a,0,ball,1", "a,1.5,ball,1"], r"frame_index must be a number from 0, got '1.5' in .*, line 3"),
        ([HEADER, "a,0,cup,1"], r"must be one of the labels' goals, got 'cup' in .*, line 2"),
        ([HEADER, "a,0,ball,maybe"], r"must be 0 or 1, or one of false, no, true, yes, got 'maybe' in .*, line 2"),
        (
            [HEADER, "a,0,ball,1", "a,0,ball,1"],
            r"marked once in a frame, got .*, line 3, which repeats line 2; remove one",
        ),
        ([HEADER, "a,0,ball,1", "a,1,ball,1", "a,0,ball,0"], r"got .*, line 4, which contradicts line 2; remove one"),
    ],
)
def test_bad_lines_are_refused_by_number(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_marks(write(tmp_path / "marks.csv", *lines), ["ball"])


def test_a_file_of_another_encoding_is_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "marks.csv"
    path.write_bytes(f"{HEADER}\nk".encode() + b"\xfcche,0,ball,1\n")  # 0xfc: a u with two dots, in Latin-1
    with pytest.raises(
        ValueError, match=r"line 2: a file of marks must be UTF-8, got the byte 0xfc. Save the file as UTF-8"
    ):
        read_marks(path, ["ball"])


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"marks must be a CSV file, got .*, which is not there"):
        read_marks(tmp_path / "marks.csv", ["ball"])


def test_frames_that_do_not_exist_are_refused() -> None:
    marks = [Mark(2, "a", 0, 0, True), Mark(3, "a", 9, 0, True)]
    check_marks(marks, "marks.csv", {"a"}, {2, 3})
    with pytest.raises(
        ValueError, match=r"a marked frame must have a label, got frame 9 of episode 'a' in marks.csv, line 3"
    ):
        check_marks(marks, "marks.csv", {"a"}, {2})
    with pytest.raises(ValueError, match=r"a marked episode must have labels, got 'a' in marks.csv, line 2"):
        check_marks(marks, "marks.csv", set(), set())


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_marks_are_read_as_spreadsheets_write_them(tmp_path: Path, separator: str, encoding: str) -> None:
    words = ["TRUE", "FALSE", "True", "false", "yes", "No", "1", "0"]
    lines = [HEADER, *(f"a,{frame},ball,{word}" for frame, word in enumerate(words)), ",,,", "", ",,,"]
    path = tmp_path / "marks.csv"
    path.write_text("\r\n".join(lines).replace(",", separator), encoding=encoding, newline="")
    read = read_marks(path, ["ball"])
    assert [mark.achieved for mark in read] == [True, False] * 4
    assert [mark.frame_index for mark in read] == list(range(8))
    assert [mark.line for mark in read] == list(range(2, 10))


def test_ids_that_hold_the_separator_stand_in_quotes(tmp_path: Path) -> None:
    path = write(tmp_path / "marks.csv", "sep=;", f'"{HEADER[:10]}";frame_index;goal;achieved', '"a;b";0;ball;1')
    assert read_marks(path, ["ball"]) == [Mark(3, "a;b", 0, 0, True)]


def test_a_folder_is_no_file_of_marks(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a file of marks must be a file, got the folder .*\. Give the file in it"):
        read_marks(tmp_path, ["ball"])
