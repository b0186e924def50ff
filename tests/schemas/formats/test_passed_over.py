"""Nothing below a corpus's folder is passed over without a word."""

import pytest
from small_corpora import plain_episode

from vlm_rewards.schemas.episodes import CorpusFeatures
from vlm_rewards.schemas.formats.corpus import FORMATS, open_corpus, writable_format, write_episodes
from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.listing import COMPANION, PassedOver
from vlm_rewards.schemas.formats.passed_over import (
    find_passed_over,
    passed_over_lines,
    passed_over_record,
    without_outputs,
)


@pytest.mark.parametrize("format_name", [known.name for known in FORMATS if known.write is not None])
def test_a_corpus_names_what_it_does_not_read(tmp_path, format_name):
    ending = writable_format(format_name).extension
    write_episodes(tmp_path / f"a.{ending}", CorpusFeatures.of(plain_episode()), [plain_episode()], format_name)
    assert open_corpus(tmp_path).passed_over == ()
    (tmp_path / f"empty.{ending}").write_bytes(b"")  # is read, and fails
    for name in ("b.tar.gz", "c.TGZ", "d.zip", "notes.txt", "noending", "README.md"):
        (tmp_path / name).write_text("x")
    (tmp_path / ".hidden").mkdir()
    other = f"which the format {format_name} does not read"
    assert dict(open_corpus(tmp_path).passed_over) == {
        ".hidden/": "is hidden: its name begins with '.' or '_'",
        "README.md": COMPANION,
        "b.tar.gz": "is a compressed tar, which cannot be read from its middle; unpack it to a plain .tar",
        "c.TGZ": "is a compressed tar, which cannot be read from its middle; unpack it to a plain .tar",
        "d.zip": "is a compressed archive; unpack it",
        "noending": f"has a name without an ending, {other}",
        "notes.txt": f"ends with .txt, {other}",
    }
    assert open_corpus(tmp_path / f"a.{ending}").passed_over == ()


def test_a_format_owns_files_and_folders(tmp_path):
    for name in ("meta/info.json", "store/.zarray", "store/0/0.0", "data/a.parquet", "data/b.parquet", "c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    found = find_passed_over(Folder(str(tmp_path)), "robots", ["meta/info.json", "store/", "data/a.parquet"])
    assert dict(found) == {
        "c.png": "ends with .png, which the format robots does not read",
        "data/b.parquet": "is no part of the corpus, as its own metadata says",
    }


def test_a_folder_without_a_corpus_says_what_it_holds(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(b"x")
    (tmp_path / "b.csv").write_bytes(b"x")
    message = (
        r"got none in .* but what is passed over \(ends with \.csv, which no format reads\): b\.csv; passed over \(is a "
        r"compressed tar, which cannot be read from its middle; unpack it to a plain \.tar\): a\.tar\.gz\. Check the path"
    )
    with pytest.raises(ValueError, match=message):
        open_corpus(tmp_path)


def test_many_names_of_one_reason_are_kept_and_shown_in_short(tmp_path):
    found = [PassedOver(f"{number:04}.txt", "ends with .txt") for number in range(1203)]
    found += [PassedOver("a\nb.txt", "ends with .txt"), PassedOver("README", COMPANION)]
    record = passed_over_record(found)
    assert {reason: len(names) for reason, names in record.items()} == {"ends with .txt": 1204, COMPANION: 1}
    assert passed_over_lines(record) == [
        "passed over (ends with .txt): 0000.txt, 0001.txt, 0002.txt and 1,201 more",
        "beside the corpus, not read: README",
    ]
    assert passed_over_lines({"ends with .txt": ["a\nb.txt"]}) == ["passed over (ends with .txt): 'a\\nb.txt'"]
    assert passed_over_lines({}) == []


def test_a_run_does_not_name_its_own_outputs(tmp_path):
    found = [PassedOver("labels/", "is an output"), PassedOver("out/kept/", "is an output")]
    folder = Folder(str(tmp_path))
    assert without_outputs(found, folder, [tmp_path / "labels"]) == found[1:]
    assert without_outputs(found, folder, [tmp_path / "other" / ".." / "labels", tmp_path / "out" / "kept"]) == []
    assert without_outputs(found, Folder("memory://x"), [tmp_path / "labels"]) == found
