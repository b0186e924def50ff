"""`vlm-rewards label --goals from-corpus`: the corpus's instructions are the goals, and each episode knows its own."""

import dataclasses
import json
from pathlib import Path

import pytest
from labelled_corpora import episode, write_corpus

import vlm_rewards as vr
from vlm_rewards.cli import main
from vlm_rewards.schemas.goals import Goal, read_goals, write_goals

# reference-s reads "a red ball" and "a red ball ." as other texts, but knows no "!"
TEXTS = ("go to the red ball", "Go to the red ball.", "go to a blue key", None)


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    episodes = [episode(f"e{number}", 3, instruction=text) for number, text in enumerate(TEXTS)]
    return write_corpus(Path("corpus"), [episodes[:2], episodes[2:]])


def label(*words: object) -> int:
    return main(["label", "--workers", "1", *map(str, words)])


def fingerprint(folder: str) -> dict:
    return json.loads(Path(folder, "settings.json").read_text())["fingerprint"]


def test_instructions_are_goals(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert label("--input", corpus, "--goals", "from-corpus", "--output", "labels") == 0
    told = capsys.readouterr().out
    assert "labelled 12 frames for 2 goals" in told
    assert "  goals from the corpus: 2 instructions (none in 1 of 4 episodes)\n" in told
    assert told.count("an instruction says what to do, not what a frame shows") == 1
    ball = Goal("go-to-the-red-ball", TEXTS[0], instructions=TEXTS[:2])
    key = Goal("go-to-a-blue-key", TEXTS[2], instructions=TEXTS[2:3])
    assert read_goals("labels/goals.jsonl") == (ball, key)
    assert (
        main(["hindsight", "--input", "corpus", "--labels", "labels", "--workers", "1", "--output", "relabelled"]) == 0
    )
    found = json.loads(Path("relabelled/goal_usage.json").read_text())["episodes"]
    assert (found["no_instruction"], found["instruction_matches_no_goal"]) == (1, 0)


def test_the_written_goals_can_be_edited_and_used_again(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert label("--input", corpus, "--goals", "from-corpus", "--output", "labels") == 0
    assert label("--input", corpus, "--goals", "labels/goals.jsonl", "--output", "again") == 0
    assert fingerprint("labels") == fingerprint("again")
    edited = Path("labels/goals.jsonl").read_text().replace('"text": "go to the red ball"', '"text": "a red ball"')
    Path("labels/goals.jsonl").write_text(edited)
    capsys.readouterr()
    words = ("--goals", "labels/goals.jsonl", "--goals", "from-corpus", "--output", "edited")
    assert label("--input", corpus, *words) == 0
    assert "2 instructions (2 are named by goals of the files; none in 1 of 4 episodes)" in capsys.readouterr().out
    assert [goal.text for goal in read_goals("edited/goals.jsonl")] == ["a red ball", "go to a blue key"]
    assert fingerprint("edited") != fingerprint("labels")
    # the same command again does nothing, and keeps what was edited
    assert label("--input", corpus, "--goals", "from-corpus", "--output", "labels") == 0
    assert Path("labels/goals.jsonl").read_text() == edited


def test_goals_stand_in_the_order_of_the_words(corpus: Path) -> None:
    write_goals([Goal("box", "a grey box")], "one.jsonl")
    write_goals([Goal("key", "a blue key", instructions=("go to a blue key",))], "two.jsonl")
    words = ("--goals", "one.jsonl", "--goals", "from-corpus", "--goals", "two.jsonl")
    assert label("--input", corpus, *words, "--template", "seen: {goal}", "--output", "labels") == 2  # ":" is no word
    assert label("--input", corpus, *words, "--template", "{goal}", "--output", "labels") == 0
    assert [goal.id for goal in read_goals("labels/goals.jsonl")] == ["box", "go-to-the-red-ball", "key"]


def test_templates_reword_and_goal_selects(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--goals", "from-corpus", "--goal", "go-to-a-blue-key", "--negative", "a wall")
    assert label("--input", corpus, *words, "--template", "the agent {goal}", "--output", "labels") == 0
    told = capsys.readouterr().out
    assert "labelled 12 frames for 1 goals" in told
    assert "an instruction says" not in told
    assert [goal.id for goal in read_goals("labels/goals.jsonl")] == ["go-to-a-blue-key"]


def test_instructions_that_the_model_reads_as_one_are_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    texts = ("a red ball", "a-red ball", "a blue key")
    write_corpus(Path("corpus"), [[episode(f"e{number}", 2, instruction=text) for number, text in enumerate(texts)]])
    given = ("--input", "corpus", "--model", "reference-s", "--output", "labels")
    write_goals([Goal("one", texts[0]), Goal("two", texts[1]), Goal("three", texts[2])], "goals.jsonl")
    assert label(*given, "--goals", "goals.jsonl") == 2
    refused = capsys.readouterr().err
    assert "are one text for the model" in refused
    assert label(*given, "--goals", "from-corpus") == 0
    assert "3 instructions (1 joined to others that the model reads as the same text)" in capsys.readouterr().out
    assert read_goals("labels/goals.jsonl")[0] == Goal("a-red-ball", texts[0], instructions=texts[:2])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--input", "corpus", "--goals", "from-corpus", "--goals", "from-corpus"),
            "must be given once: got it 2 times",
        ),
        (("--goals", "from-corpus", "--embeddings", "kept"), "--goals from-corpus needs the corpus: got no --input"),
        (("--input", "corpus", "--goals", "from_corpus"), "a goals file must exist, got from_corpus"),
        (("--input", "corpus", "--goals", "from-corpus", "--goal", "ball"), "known goals (go-to-the-red-ball, "),
        (("--input", "nowhere", "--goals", "from-corpus"), "got nowhere, which is not there"),
        (
            (
                "--input",
                "corpus",
            ),
            "the following arguments are required: --goals",
        ),
    ],
)
def test_wrong_words_are_refused(
    corpus: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    assert label(*words, "--output", "labels") == 2
    assert message in capsys.readouterr().err
    assert not Path("labels").exists()


def test_a_refused_instruction_is_told_with_the_way_to_edit_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    texts = ("a red ball", " ".join(["go to a red ball"] * 20))
    write_corpus(Path("corpus"), [[episode(f"e{number}", 2, instruction=text) for number, text in enumerate(texts)]])
    words = ("--input", "corpus", "--goals", "from-corpus", "--model", "reference-s", "--output", "labels")
    assert label(*words) == 2
    error = capsys.readouterr().err
    assert "a text must have at most" in error
    assert (
        "the corpus's instructions are goals; vlm-rewards inspect corpus --write-goals goals.jsonl writes them" in error
    )


def test_evaluate_is_the_next_command_only_where_the_truth_covers_a_goal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    held = [["find-ball"], []]
    episodes = [
        dataclasses.replace(episode(f"e{number}", 2, instruction=text), achieved_goals=held)
        for number, text in enumerate(("go to a red ball", "go to a blue key"))
    ]
    goals = (Goal("find-ball", "a red ball"), Goal("find-key", "a blue key"))
    vr.write_corpus(episodes, output="corpus", goals=goals)
    for words, is_next in ((("from-corpus",), False), (("from-corpus", "corpus/goals.jsonl"), True)):
        given = [word for name in words for word in ("--goals", name)]
        output = f"labels-{len(words)}"
        assert label("--input", "corpus", *given, "--output", output) == 0
        assert ("next: vlm-rewards evaluate" in capsys.readouterr().out) == is_next
        of_labels = ["--input", "corpus", "--labels", output, "--workers", "1", "--output", f"relabelled-{len(words)}"]
        assert main(["hindsight", *of_labels]) == 0
        assert ("next: vlm-rewards evaluate" in capsys.readouterr().out) == is_next
