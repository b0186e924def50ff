"""The command line as a user meets it: help, wrong arguments, messages, and the steps one after the other."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import save_tiny_clip

from vlm_rewards.cli import build_parser, main
from vlm_rewards.schemas.formats import listing
from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.goals import read_goals

COMMAND = Path(sys.executable).with_name("vlm-rewards")
COMMANDS = (
    "record",
    "label",
    "hindsight",
    "calibrate",
    "evaluate",
    "diff",
    "train",
    "finetune",
    "rollout",
    "pretrain",
    "demo",
)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded") / "corpus"
    arguments = ["record", "--env", "BabyAI-GoToLocal-v0", "--episodes", "6", "--episodes-per-shard", "2"]
    assert main([*arguments, "--output", str(folder)]) == 0
    return folder


def run(arguments: list[object], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_option_says_something(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    parser = next(
        action.choices[command]
        for action in build_parser()._actions
        if isinstance(getattr(action, "choices", None), dict)
    )
    for action in parser._actions:
        name = action.option_strings[0] if action.option_strings else str(action.metavar)  # a positional has no dashes
        assert action.help, name
        assert f"  {name}" in text or f"  {', '.join(action.option_strings)}" in text, name


def test_the_steps_end_with_what_they_made_and_the_next_command(
    tmp_path: Path, clip: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, goals = tmp_path / "labels", corpus / "goals.jsonl"
    label = ["label", "--input", corpus, "--goals", goals, "--model", clip, "--output", labels]
    status, out, _ = run([*label, "--dry-run"], capsys)
    assert status == 0
    assert "would label 3 units with" in out
    assert "for 342 goals" in out
    assert "frames/s and worker" in out
    assert "nothing was written" in out
    assert not labels.exists()

    status, out, _ = run(label, capsys)
    assert status == 0
    frames = json.loads((corpus / "manifest.json").read_text())["rows"]
    assert f"labelled {frames:,} frames for 342 goals, in {labels / 'parts'}\n" in out
    assert f"next: vlm-rewards evaluate --input {corpus} --labels {labels}" in out

    status, out, _ = run(label, capsys)
    assert status == 0
    assert "(all 3 units were done before: nothing to do)" in out

    for container in ("parquet", "webdataset"):
        relabelled = tmp_path / container
        status, out, err = run(
            ["hindsight", "--input", corpus, "--labels", labels, "--format", container, "--output", relabelled], capsys
        )
        assert status == 0, err
        assert "relabelled" in out
        assert "next: " in out

    status, out, _ = run(["evaluate", "--input", corpus, "--labels", labels, "--output", tmp_path / "report"], capsys)
    assert status == 0
    assert f"evaluated {frames:,} frames of 6 episodes" in out
    assert f"report: {tmp_path / 'report' / 'report.html'}" in out
    assert (tmp_path / "report" / "report.html").stat().st_size > 10_000


def test_a_corpus_is_looked_at_once_by_every_command(
    tmp_path: Path, clip: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    digested: list[str] = []
    opened: list[str] = []
    digest = Folder.digest

    def count_digest(folder: Folder, name: str) -> str:
        digested.append(name)
        return digest(folder, name)

    def count_listing(location: str, below: str = "") -> listing.Listing:
        opened.append(location)
        return listing.list_local(location, below)

    monkeypatch.setattr(Folder, "digest", count_digest)
    monkeypatch.setattr("vlm_rewards.schemas.formats.folder.list_local", count_listing)
    labels = tmp_path / "labels"
    for words in (
        ["label", "--input", corpus, "--goals", corpus / "goals.jsonl", "--model", clip, "--output", labels],
        ["hindsight", "--input", corpus, "--labels", labels, "--output", tmp_path / "relabelled"],
    ):
        digested.clear()
        opened.clear()
        status, out, err = run(words, capsys)
        assert status == 0, err
        assert f"next: vlm-rewards evaluate --input {corpus} --labels {labels}" in out
        assert len(digested) == 3  # shards
        assert len(opened) == 1


def test_recording_again_does_nothing_and_another_seed_is_refused(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "record",
        "--env",
        "BabyAI-GoToLocal-v0",
        "--episodes",
        "6",
        "--episodes-per-shard",
        "2",
        "--output",
        corpus,
    ]
    status, out, _ = run(arguments, capsys)
    assert status == 0
    assert "(all 3 units were done before: nothing to do)" in out
    assert len(read_goals(corpus / "goals.jsonl")) == 342
    status, _, err = run([*arguments, "--seed", "1"], capsys)
    assert status == 2
    assert "vlm-rewards record: error: the output folder" in err
    assert "other seed (seed is 0 there and 1 here)" in err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--goals": "missing.jsonl"}, "a goals file must exist, got missing.jsonl"),
        ({"--goal": "find-pink-ball"}, "got 'find-pink-ball'; check its id"),
        ({"--model": "no/such/folder"}, "no/such/folder"),
        ({"--input": "nowhere"}, "nowhere"),
        ({"--template": "a photo"}, "{goal}"),
        ({"--threshold": "nan"}, "threshold must be a finite number, got nan"),
        (
            {"--formula": "magic"},
            "formula must be one of softmax, cosine, goal-baseline, shifted-softmax, sigmoid, got 'magic'",
        ),
        ({"--formula": "goal-baseline", "--threshold": "0.2"}, "every goal must have a baseline"),
        ({"--formula": "sigmoid"}, "must have a logit scale and bias of its own for the formula 'sigmoid'"),
        ({"--baseline": "a room"}, "baseline must be left out for the formula 'softmax', got 'a room'"),
        ({"--alpha": "0.5"}, "alpha must be left out for the formula 'softmax', got 0.5"),
        ({"--hysteresis": "-1"}, "hysteresis must be 0 or more and finite, got -1.0"),
        ({"--min-frames": "0"}, "min_frames must be a whole number of at least 1, got 0"),
        ({"--reward": "discounted"}, "fire_rates must be given for the reward 'discounted', got None"),
        ({"--discount": "1"}, "must be left out for the reward 'success', got discount 1.0"),
        ({"--window": "0"}, "a window must be of 1 to 1024 frames, got 0"),
        ({"--formula": "cosine"}, "threshold must be given for the formula 'cosine'"),
        ({"--temperature": "0"}, "temperature must be at least"),
        ({"--batch-size": "0"}, "batch_size must be at least 1, got 0"),
        ({"--negatives": "sampled"}, "sampled negatives must have k of at least 1, got None"),
        ({"--device": "cuda"}, "cuda"),
        ({"--camera": "top"}, "must be one of the corpus's (egocentric), got 'top'"),
        ({"--max-unit-mib": "0"}, "max_unit_bytes must be at least 1, got 0"),
        ({"--workers": "0"}, "workers must be at least 1, got 0"),
        ({"--max-failure-share": "2"}, "max_failure_share must be from 0 to 1, got 2.0"),
    ],
)
def test_wrong_arguments_are_refused_with_the_value(
    tmp_path: Path, clip: Path, corpus: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, str], message: str
) -> None:
    given = {
        "--input": corpus,
        "--goals": corpus / "goals.jsonl",
        "--model": clip,
        "--output": tmp_path / "labels",
        **changes,
    }
    status, _, err = run(["label", *(part for item in given.items() for part in item)], capsys)
    assert status == 2
    assert err.startswith("vlm-rewards label: error: ")
    assert message in err
    assert "Traceback" not in err


def test_label_takes_formulas_rules_and_windows(
    tmp_path: Path, clip: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["label", "--input", corpus, "--goals", corpus / "goals.jsonl", "--model", clip]
    given += ["--embeddings", tmp_path / "embeddings"]
    for name, options in {
        "baseline": [
            "--formula",
            "goal-baseline",
            "--baseline",
            "an empty room",
            "--alpha",
            "0.25",
            "--threshold",
            "0.3",
        ],
        "rule": ["--hysteresis", "0.1", "--min-frames", "2", "--reward", "difference"],
        "shifted": ["--formula", "shifted-softmax", "--negatives", "all"],
        "window": ["--window", "3", "--window-over", "embeddings", "--window-reduce", "max", "--sparse"],
    }.items():
        status, _, err = run([*given, *options, "--output", tmp_path / name], capsys)
        assert status == 0, err
    labelers = {
        path.parent.name: json.loads(path.read_text())["settings"]["labeler"]
        for path in tmp_path.glob("*/settings.json")
        if path.parent.name != "embeddings"
    }
    assert (labelers["baseline"]["baseline"], labelers["baseline"]["alpha"]) == ("an empty room", 0.25)
    assert (labelers["rule"]["min_frames"], labelers["rule"]["reward"]) == (2, "difference")
    assert labelers["shifted"]["formula"] == "shifted-softmax"
    assert labelers["window"]["window"] == {"frames": 3, "over": "embeddings", "reduce": "max"}
    refused = [*given, "--sparse", "--reward", "score", "--output", tmp_path / "refused"]
    status, _, err = run(refused, capsys)
    assert status == 2
    assert "labels must be dense for the reward 'score'" in err


def test_processes_tell_nothing_of_their_own(tmp_path: Path) -> None:
    # Beam's workers would each write some twenty lines of their life.
    record = [
        "record",
        "--env",
        "BabyAI-GoToLocal-v0",
        "--episodes",
        "2",
        "--episodes-per-shard",
        "1",
        "--workers",
        "2",
    ]
    script = "import sys; from vlm_rewards.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", script, *record, "--output", str(tmp_path / "corpus")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "recorded 2 episodes" in done.stdout
    assert [line for line in done.stderr.splitlines() if not line.startswith("record: ")] == []


def test_options_are_read_without_loading_what_commands_run_on() -> None:
    script = "import sys; from vlm_rewards.cli import build_parser; build_parser(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy = {"torch", "apache_beam", "transformers", "gymnasium", "pyarrow", "PIL", "matplotlib", "tqdm"}
    assert not heavy & set(done.stdout.split())


def test_agents_are_trained_without_beam() -> None:
    # offline_rl imports nothing of pipelines, and its commands are no exception.
    script = "import sys; import vlm_rewards.commands.train, vlm_rewards.offline_rl.training.train; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    modules = done.stdout.split()
    assert "vlm_rewards.commands.train" in modules
    assert not {"vlm_rewards.pipelines", "apache_beam"} & set(modules)


def test_a_command_reads_its_own_options_alone() -> None:
    script = (
        "import resource, sys; from vlm_rewards.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "used = resource.getrusage(resource.RUSAGE_SELF); print(used.ru_utime + used.ru_stime, *sys.modules)"
    )
    for words, expected in (
        (["--help"], set()),
        (["train", "--help"], {"train"}),
        (["demo", "--steps", "many"], {"demo"}),
    ):
        done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=True)
        seconds, *modules = done.stdout.splitlines()[-1].split()
        assert {name for name in COMMANDS if f"vlm_rewards.commands.{name}" in modules} == expected
        assert float(seconds) < 0.5  # of the processor


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], "vlm-rewards: error: the following arguments are required: COMMAND. See vlm-rewards --help\n"),
        (["lable"], "vlm-rewards: error: COMMAND: invalid choice: 'lable' (choose from "),
        (
            ["evaluate", "--input", "x"],
            "the following arguments are required: --labels, --output. See vlm-rewards eval",
        ),
        (
            ["demo", "--output", "x", "--steps", "many"],
            "vlm-rewards demo: error: --steps: invalid int value: 'many'. See ",
        ),
        (["demo", "--output", "x", "--stepz", "1"], "vlm-rewards: error: unrecognized arguments: --stepz 1. See "),
    ],
)
def test_words_that_are_no_options_end_with_one_line(
    capsys: pytest.CaptureFixture[str], words: list[str], error: str
) -> None:
    status, out, err = run(words, capsys)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert error in err


def test_labels_of_another_corpus_are_refused(
    tmp_path: Path, clip: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, labels = tmp_path / "other", tmp_path / "labels"
    record = ["record", "--env", "BabyAI-GoToLocal-v0", "--episodes", "6", "--episodes-per-shard", "2", "--seed", "5"]
    assert main([*record, "--output", str(other)]) == 0
    goals = corpus / "goals.jsonl"
    status, _, _ = run(["label", "--input", other, "--goals", goals, "--model", clip, "--output", labels], capsys)
    assert status == 0
    for command in ("hindsight", "evaluate"):
        status, _, err = run([command, "--input", corpus, "--labels", labels, "--output", tmp_path / command], capsys)
        assert status == 2
        assert "give the labels of this corpus" in err


def test_demo_refuses_a_folder_that_holds_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    status, _, err = run(["demo", "--output", tmp_path], capsys)
    assert status == 2
    assert "must be an empty folder or one of an earlier demo" in err
    assert "'thesis.txt'" in err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_beam_options_go_only_to_commands_that_take_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(["pretrain", "--size", "s", "--output", tmp_path, "--", "--runner=X"], capsys)
    assert status == 2
    assert "this command takes no options after '--': got --runner=X" in err


def test_a_full_disk_is_told_and_keeps_what_is_finished(tmp_path: Path, clip: Path, corpus: Path) -> None:
    # A limit on the size of files stands for a full disk: the write fails with an error of the system.
    arguments = [
        COMMAND,
        "label",
        "--input",
        corpus,
        "--goals",
        corpus / "goals.jsonl",
        "--goal",
        "find-red-ball",  # settings.json fits with one goal, a part does not
        "--model",
        clip,
        "--output",
        "labels",
    ]
    script = "import resource, signal, subprocess, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    script += (
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000)); sys.exit(subprocess.run(sys.argv[1:]).returncode)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "vlm-rewards label: error: OSError" in done.stderr
    assert "in unit 'episodes-" in done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "labels" / "parts").iterdir()) == []
    assert subprocess.run(arguments, cwd=tmp_path, capture_output=True, check=False).returncode == 0


def test_a_pipe_that_closes_early_is_no_error(corpus: Path) -> None:
    command = f"set -o pipefail; '{COMMAND}' record --env BabyAI-GoToLocal-v0 --episodes 6 --episodes-per-shard 2 "
    command += f"--output '{corpus}' | true"
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert done.returncode == 0
    assert done.stderr == ""


def test_pretrain_makes_a_model_that_label_takes(
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(["pretrain", "--size", "s", "--steps", "2", "--output", tmp_path / "model"], capsys)
    assert status == 0, err
    assert f"{tmp_path / 'model'}" in out
    assert "of 2 steps (100 %)" in err
    label = ["label", "--input", corpus, "--goals", corpus / "goals.jsonl", "--model", tmp_path / "model"]
    status, _, err = run([*label, "--output", tmp_path / "labels"], capsys)
    assert status == 0, err


def test_errors_and_warnings_are_json_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["hindsight", "--input", str(tmp_path), "--labels", str(tmp_path / "none"), "--output", str(tmp_path / "o")]
    assert main([*words, "--log-format", "json"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    record = json.loads(line)
    assert (record["level"], record["event"], record["command"]) == ("error", "error", "hindsight")
    assert "none" in record["message"]
    assert main([*words, "--log-format", "xml"]) == 2
    assert "expected one of text, json: got 'xml'" in capsys.readouterr().err
