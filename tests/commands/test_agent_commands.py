"""`train`, `finetune` and `rollout` as a user meets them, on a corpus that `record`, `label` and `hindsight` made."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vlm_rewards.cli import main
from vlm_rewards.command_line.words import describe_evaluations

COMMAND = Path(sys.executable).with_name("vlm-rewards")
LEVEL = "BabyAI-GoToObj-v0"
SMALL = ("--batch-size", "16", "--num-actions", "7", "--set", "width=32", "--set", "channels=8")


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main([str(word) for word in words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture(scope="module")
def relabelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Relabelled trajectories; the labels are beside them."""
    folder = tmp_path_factory.mktemp("agents")
    corpus, labels = folder / "corpus", folder / "labels"
    model = ["--model", "reference-s", "--batch-size", "16"]
    for command in (
        ["record", "--env", LEVEL, "--policy", "bot:0.5,random:0.5", "--episodes", "12", "--output", corpus],
        ["label", "--input", corpus, "--goals", corpus / "goals.jsonl", *model, "--output", labels],
        ["hindsight", "--input", corpus, "--labels", labels, "--output", folder / "relabelled"],
    ):
        assert main([str(word) for word in command]) == 0
    return folder / "relabelled"


@pytest.fixture(scope="module")
def agent(relabelled: Path) -> Path:
    """An agent that has learned next to nothing."""
    folder = relabelled.parent / "agent"
    assert main(["train", "--input", str(relabelled), "--steps", "4", *SMALL, "--output", str(folder)]) == 0
    return folder


def test_an_agent_is_trained_fine_tuned_and_played(
    relabelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, online, played = tmp_path / "agent", tmp_path / "online", tmp_path / "rollout"
    train = ["train", "--input", relabelled, "--steps", 10, *SMALL, "--hold-out", "green box", "--output", folder]
    status, out, err = run(capsys, *train, "--env", LEVEL, "--eval-episodes", 4)
    assert status == 0, err
    assert "train: " in err
    assert "transitions of 12 episodes, drawn as" in err
    assert "; 7 actions, given\n" in err
    lines = out.splitlines()
    assert lines[0] == f"trained iql for 10 steps: {folder}"
    assert lines[1].startswith("  evaluation (end of offline training): success ")
    assert lines[2].startswith("  evaluation of held-out goals (end of offline training): success ")
    assert lines[3] == f"  next: vlm-rewards finetune --agent {folder} --env {LEVEL} --output agent-online/"

    finetune = ["finetune", "--agent", folder, "--env", LEVEL, "--steps", 48, "--num-envs", 4, "--batch-size", 16]
    finetune += ["--warmup-steps", 16, "--eval-episodes", 4, "--finished-only", "--camera", "egocentric"]
    finetune += ["--output", online]
    status, out, err = run(capsys, *finetune)
    assert status == 0, err
    lines = out.splitlines()
    assert lines[0] == f"fine-tuned for 48 environment steps: {online}"
    settings = json.loads((online / "settings.json").read_text())["settings"]
    assert (settings["finished_only"], settings["camera"], settings["frames"]) == (True, "egocentric", None)
    told = [line.partition(": success ")[0] for line in lines[1:-1]]
    ends = ("end of offline training", "end")
    assert told == [f"  {kind} ({when})" for kind in ("evaluation", "evaluation of held-out goals") for when in ends]
    assert lines[2].endswith(" in 4 held-out episodes")
    assert lines[-1] == f"  next: vlm-rewards rollout --agent {online} --output rollout/"

    rollout = ["rollout", "--agent", online, "--episodes", 3, "--videos", 1, "--output", played]
    status, out, err = run(capsys, *rollout)
    assert status == 0, err
    assert "played 3 episodes of held-out levels" in out
    assert "  achieved in truth:     " in out
    assert f"  videos: {played / 'index.html'} (open it in a browser)" in out
    assert len(json.loads((played / "rollout.json").read_text())["episodes"]) == 3
    assert {path.name for path in played.iterdir()} >= {"index.html", "episode-000.gif"}

    # The same commands again have nothing to do, and say the same.
    assert run(capsys, *train, "--env", LEVEL, "--eval-episodes", 4)[:2] == (0, "\n".join(_said(folder, 10)) + "\n")


def _said(folder: Path, steps: int) -> list[str]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    evaluations = [record for record in records if record["kind"].startswith("evaluation")]
    told = [
        f"  {record['kind']} (end of offline training): success {record['success']:.2f} ({record['success_low']:.2f} to "
        f"{record['success_high']:.2f}) in 4 held-out episodes"
        for record in evaluations
    ]
    following = f"  next: vlm-rewards finetune --agent {folder} --env {LEVEL} --output agent-online/"
    return [f"trained iql for {steps} steps: {folder}", *told, following]


def test_evaluations_without_ground_truth_say_so(tmp_path: Path) -> None:
    truth = {"success": 0.5, "success_low": 0.25, "success_high": 0.75}
    unknown = {"success": None, "vlm_success": 0.1, "vlm_success_low": 0.0, "vlm_success_high": 0.2}
    records = [
        {"step": step, "kind": kind, "when": when, "episodes": 9, **figures}
        for step, kind, when, figures in (
            (0, "evaluation", "end of offline training", unknown),
            (8, "evaluation", "on the way", unknown),
            (16, "evaluation", "end", unknown),
            (16, "evaluation of held-out goals", "end", truth),
        )
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert describe_evaluations(tmp_path) == [
        "  evaluation (end of offline training): no truth known, rewarded 0.10 (0.00 to 0.20) in 9 held-out episodes",
        "  evaluation (end): no truth known, rewarded 0.10 (0.00 to 0.20) in 9 held-out episodes",
        "  evaluation of held-out goals (end): success 0.50 (0.25 to 0.75) in 9 held-out episodes",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--algorithm", "dqn"],
            "algorithm must be one of bc, filtered-bc, iql, cql, cal-ql, rlpd, sac-cal-ql, got 'dqn'",
        ),
        (["--set", "expectile"], "--set: expected NAME=VALUE: got 'expectile'. Write the two with = between them. See"),
        (["--set", "magic=1"], "settings of iql must be among encoder, tile_size,"),
        (["--set", "expectile=high"], "settings of iql must be of their defaults' types, got expectile 'high'"),
        (["--set", "expectile=2"], "expectile must be"),
        (["--set", "width=32.5"], "got width 32.5. Give a whole number"),
        (["--set", "bound_by_returns=False"], "got bound_by_returns 'False'. Give true or false"),
        (["--algorithm", "rlpd"], "actions must be continuous for rlpd and sac-cal-ql, got num_actions"),
        (["--mix", "1:2"], "--mix: expected three shares: got '1:2'. Write them such as 0.2:0.5:0.3. See"),
        (["--mix", "0:0:0"], "mix must have a share of a kind that the replay has"),
        (
            ["--hold-out", "green sofa"],
            "a held-out goal must be an id or a kind of the 342 goals: got 'green sofa'",
        ),
        (["--env", "Nope-v0"], "or registered with gymnasium: got 'Nope-v0'"),
        (["--device", "cuda:99"], "device must be one that this machine has, got 'cuda:99'"),
        (
            ["--env", "CartPole-v1", "--frames", "render"],
            "the environment CartPole-v1 must have the observation_shape that the",
        ),
        (["--steps", "0"], "steps must be at least 1, got 0"),
        (["--num-actions", "2"], "num_actions must be"),
    ],
)
def test_wrong_arguments_of_train_are_refused_in_one_line(
    relabelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    train = ["train", "--input", relabelled, "--steps", 1, "--batch-size", 16, "--output", tmp_path / "agent"]
    status, out, err = run(capsys, *train, *words)
    told = [line for line in err.splitlines() if not line.startswith("train: ")]
    assert (status, out, len(told)) == (2, "", 1), err
    assert told[0].startswith("vlm-rewards train: error: ")
    assert message in told[0]


def test_a_camera_that_was_not_recorded_is_refused(
    relabelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--input", relabelled, "--camera", "top", "--output", tmp_path / "agent"]
    status, _, err = run(capsys, "train", *words)
    assert status == 2
    assert "the camera must be one of those recorded (egocentric), got 'top'; choose one" in err


def test_a_folder_that_is_not_relabelled_is_refused(
    relabelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = run(capsys, "train", "--input", relabelled.parent / "labels", "--output", tmp_path / "agent")
    assert status == 2
    assert "the folder must hold relabelled, got" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--env", "Nope-v0"], "or registered with gymnasium: got 'Nope-v0'"),
        (["--device", "cuda:99"], "device must be one that this machine has, got 'cuda:99'"),
        (["--env", "BabyAI-NoSuchLevel-v0"], "'BabyAI-NoSuchLevel-v0'"),
        (["--asynchronous"], "asynchronous must be False where a success ends the episode, got True"),
        (
            ["--camera", "top"],
            "cameras of babyai must be some of its own, each once: got top. Choose among egocentric",
        ),
        (
            ["--env", "CartPole-v1", "--frames", "lidar"],
            "a key of CartPole-v1's observation, got 'lidar'; its keys are none",
        ),
        (["--temperature", "0"], "temperature must be above 0 and finite, got 0.0"),
        (["--offline-share", "2"], "offline_share must be from 0 to 1, got 2.0"),
        (["--mix", "1:2"], "--mix: expected three shares: got '1:2'. Write them such as 0.2:0.5:0.3. See"),
        (["--capacity", "3"], "capacity must be at least 32, got 3"),
        (["--warmup-steps", "1000"], "warmup_steps must be below steps, 8, got 1000"),
        (
            ["--agent", "nowhere"],
            "an agent must be a folder that vlm-rewards train or finetune has finished, got nowhere",
        ),
    ],
)
def test_wrong_arguments_of_finetune_are_refused_in_one_line(
    agent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    given = ["finetune", "--agent", agent, "--env", LEVEL, "--steps", 8, "--warmup-steps", 4]
    status, out, err = run(capsys, *given, "--output", tmp_path / "online", *words)
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("vlm-rewards finetune: error: ")
    assert message in err


def test_an_environment_of_other_actions_is_refused_and_does_not_hold_the_folder(
    relabelled: Path, agent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nine = [word if word != "7" else "9" for word in SMALL]
    status, _, err = run(capsys, "train", "--input", relabelled, "--steps", 1, *nine, "--output", tmp_path / "nine")
    assert status == 0, err
    words = ["--env", LEVEL, "--steps", 8, "--warmup-steps", 4, "--batch-size", 16, "--eval-episodes", 0]
    words += ["--output", tmp_path / "online"]
    status, out, err = run(capsys, "finetune", "--agent", tmp_path / "nine", *words)
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert "must have the num_actions that the agent was trained on, 9, got 7" in err
    status, _, err = run(capsys, "finetune", "--agent", agent, *words)
    assert status == 0, err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "an environment must be named: got none"),
        (["--env", "Nope-v0"], "or registered with gymnasium: got 'Nope-v0'"),
        (["--env", LEVEL, "--held-out-goals"], "held-out goals must be goals that the agent was never trained on"),
        (["--env", LEVEL, "--episodes", "0"], "episodes must be at least 1, got 0"),
        (["--env", LEVEL, "--temperature", "-1"], "temperature must be above 0 and finite, got -1.0"),
        (["--env", LEVEL, "--camera", "top"], "cameras of babyai must be some of its own, each once: got top"),
        (
            ["--env", LEVEL, "--frames", ""],
            "frames must be 'observation', 'render' or a key of the observation, got ''",
        ),
    ],
)
def test_wrong_arguments_of_rollout_are_refused_in_one_line(
    agent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    status, out, err = run(capsys, "rollout", "--agent", agent, *words, "--output", tmp_path / "rollout")
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("vlm-rewards rollout: error: ")
    assert message in err
    assert not (tmp_path / "rollout" / "settings.json").exists()


def test_an_unfinished_agent_is_not_played(agent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unfinished = tmp_path / "agent"
    unfinished.mkdir()
    (unfinished / "settings.json").write_text((agent / "settings.json").read_text())
    status, _, err = run(capsys, "rollout", "--agent", unfinished, "--env", LEVEL, "--output", tmp_path / "rollout")
    assert status == 2
    assert f"got {unfinished} without agent.json. Train one, or run the same command again to finish it" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_training_ends_at_once_and_goes_on(relabelled: Path, tmp_path: Path, number: int) -> None:
    folder = tmp_path / "agent"
    words = ["train", "--input", relabelled, "--steps", "600", *SMALL, "--checkpoint-every", "50", "--output", folder]
    command = [str(word) for word in [COMMAND, *words]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        while process.poll() is None and not list(folder.glob("checkpoints/*.pt")):
            time.sleep(0.02)
        process.send_signal(number)
        started = time.monotonic()
        out, err = process.communicate(timeout=60)
        assert time.monotonic() - started < 5
    assert (process.returncode, out) == (130, ""), err
    message = "vlm-rewards train: interrupted; what is finished is kept: run the same command again to resume\n"
    assert err.endswith(message)
    assert not (folder / "agent.json").exists()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    first = next(line for line in done.stderr.replace("\r", "\n").splitlines() if "step/s" in line)
    assert "| 0/600 " not in first  # it goes on from the checkpoint
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == [100, 200, 300, 400, 500, 600]
