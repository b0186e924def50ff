"""Every option of every command: given in a shell and given in Python, it makes the same settings, and differs from its default."""

import dataclasses
import importlib
import inspect
import shlex
from pathlib import Path
from typing import Any

import pytest

from vlm_rewards.command_line.options import given_settings
from vlm_rewards.command_line.parser import UsageError, build_parser, parse
from vlm_rewards.commands import SUMMARIES
from vlm_rewards.labelers.calibration.settings import CalibrationSettings
from vlm_rewards.labelers.rewards.hindsight import HindsightSettings
from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.offline_rl.evaluation.rollout_settings import RolloutKeywords, RolloutSettings
from vlm_rewards.offline_rl.training.finetune_settings import FinetuneKeywords, FinetuneSettings
from vlm_rewards.offline_rl.training.train_settings import TrainKeywords, TrainSettings
from vlm_rewards.pipelines.calibrate.settings import CalibrateKeywords, CalibrateRun
from vlm_rewards.pipelines.diff.settings import DiffKeywords, DiffRun
from vlm_rewards.pipelines.evaluate.settings import EvaluateKeywords, EvaluateRun
from vlm_rewards.pipelines.export.settings import ExportKeywords, ExportRun
from vlm_rewards.pipelines.hindsight.settings import HindsightKeywords, HindsightRun
from vlm_rewards.pipelines.inspect.settings import InspectKeywords, InspectRun
from vlm_rewards.pipelines.label.settings import LabelKeywords, LabelRun
from vlm_rewards.pipelines.record.settings import RecordKeywords, RecordRun, RecordSettings
from vlm_rewards.schemas.goals import Goal
from vlm_rewards.schemas.options import option_fields

LEVEL = "BabyAI-GoToLocal-v0"
GOALS = (Goal("find-ball", "a ball"), Goal("find-box", "a box"))
NEVER_TYPED = {"goals": GOALS}
"""Settings that a command makes of files."""

COMMANDS: dict[str, tuple[str, list[tuple[type, str, dict[str, Any]]]]] = {
    "record": (
        f"--output o --env {LEVEL}",
        [
            (RecordSettings, "--env BabyAI-GoToObj-v0", {"envs": (LEVEL, "BabyAI-GoToObj-v0")}),
            (RecordSettings, "--policy bot", {"policy": "bot"}),
            (RecordSettings, "--noise 0.5", {"noise": 0.5}),
            (RecordSettings, "--episodes 3", {"episodes": 3}),
            (RecordSettings, "--seed 7", {"seed": 7}),
            (RecordSettings, "--frame-size 224", {"frame_size": (224, 224)}),
            (RecordSettings, "--format webdataset", {"format": "webdataset"}),
            (RecordSettings, "--episodes-per-shard 5", {"episodes_per_shard": 5}),
            (RecordSettings, "--max-steps 9", {"max_steps": 9}),
            (RecordRun, "--workers 2", {"workers": 2}),
            (RecordRun, "--log-format json", {"log_format": "json"}),
        ],
    ),
    "inspect": (
        "corpus",
        [
            (InspectRun, "--frames", {"frames": True}),
            (InspectRun, "--corpus-option a=1 --corpus-option b=x", {"corpus_options": {"a": "1", "b": "x"}}),
            (InspectRun, "--picture-range 0:4000", {"picture_range": "0:4000"}),
            (InspectRun, "--column episode_id=episode_index", {"columns": {"episode_id": "episode_index"}}),
        ],
    ),
    "label": (
        "--output o --goals g --model m",
        [
            (LabelerSettings, "--model m2", {"model": "m2"}),
            (LabelerSettings, "--template '{goal}!' --template 'a {goal}'", {"templates": ("{goal}!", "a {goal}")}),
            (LabelerSettings, "--negatives all", {"negatives": {"kind": "all"}}),
            (
                LabelerSettings,
                "--negatives sampled --num-negatives 3 --negatives-seed 4 --negative wall --negative sky",
                {"negatives": {"kind": "sampled", "k": 3, "seed": 4, "explicit": ("wall", "sky")}},
            ),
            (LabelerSettings, "--formula shifted-softmax", {"formula": "shifted-softmax"}),
            (LabelerSettings, "--temperature 0.5", {"temperature": 0.5}),
            (
                LabelerSettings,
                "--formula goal-baseline --baseline room --alpha 0.25 --threshold 0.75",
                {"formula": "goal-baseline", "baseline": "room", "alpha": 0.25, "threshold": 0.75},
            ),
            (LabelerSettings, "--hysteresis 0.125", {"hysteresis": 0.125}),
            (LabelerSettings, "--min-frames 2", {"min_frames": 2}),
            (LabelerSettings, "--reward score", {"reward": "score"}),
            (LabelerSettings, "--window 3", {"window": {"frames": 3}}),
            (
                LabelerSettings,
                "--window 2 --window-over embeddings --window-reduce max",
                {"window": {"frames": 2, "over": "embeddings", "reduce": "max"}},
            ),
            (LabelerSettings, "--precision bfloat16", {"precision": "bfloat16"}),
            (LabelerSettings, "--engine openvino", {"engine": "openvino"}),
            (LabelerSettings, "--batch-size 16", {"batch_size": 16}),
            (LabelerSettings, "--device cuda:1", {"device": "cuda:1"}),
            (LabelRun, "--embeddings e", {"embeddings": Path("e")}),
            (LabelRun, "--camera top", {"camera": "top"}),
            (LabelRun, "--sparse", {"sparse": True}),
            (LabelRun, "--max-unit-mib 0.5", {"max_unit_mib": 0.5}),
            (LabelRun, "--max-failure-share 0.5", {"max_failure_share": 0.5}),
            (LabelRun, "--decoders 3", {"decoders": 3}),
            (LabelRun, "--corpus-option a=1 --corpus-option b=x=y", {"corpus_options": {"a": "1", "b": "x=y"}}),
            (LabelRun, "--picture-range 0:4000", {"picture_range": "0:4000"}),
            (
                LabelRun,
                "--column episode_id=episode_index --column frame_index=step",
                {"columns": {"episode_id": "episode_index", "frame_index": "step"}},
            ),
            (LabelRun, "--workers 2", {"workers": 2}),
            (LabelRun, "--log-format json", {"log_format": "json"}),
        ],
    ),
    "hindsight": (
        "--input c --labels l --output o",
        [
            (HindsightSettings, "--strategy first", {"strategy": "first"}),
            (HindsightSettings, "--goals-per-episode 2", {"goals_per_episode": 2}),
            (HindsightSettings, "--ratio 1:0:0.5", {"ratio": (1, 0, 0.5)}),
            (HindsightSettings, "--balance 0", {"balance": 0}),
            (HindsightSettings, "--seed 3", {"seed": 3}),
            (HindsightRun, "--format webdataset", {"format": "webdataset"}),
            (HindsightRun, "--max-failure-share 0.5", {"max_failure_share": 0.5}),
            (HindsightRun, "--workers 2", {"workers": 2}),
            (HindsightRun, "--log-format json", {"log_format": "json"}),
        ],
    ),
    "calibrate": (
        "--labels l --output o",
        [
            (
                CalibrationSettings,
                "--objective precision --precision 0.9",
                {"objective": "precision", "precision": 0.9},
            ),
            (
                CalibrationSettings,
                "--objective fpr --level 0.1 --confidence 0.5",
                {"objective": "fpr", "level": 0.1, "confidence": 0.5},
            ),
            (CalibrationSettings, "--objective quantile --quantile 0.9", {"objective": "quantile", "quantile": 0.9}),
            (CalibrationSettings, "--min-examples 2", {"min_examples": 2}),
            (CalibrateRun, "--input c", {"corpus": Path("c")}),
            (CalibrateRun, "--marks m.csv", {"marks": Path("m.csv")}),
            (CalibrateRun, "--truth success", {"truth": "success"}),
            (CalibrateRun, "--truth success --goal g", {"truth": "success", "goal": "g"}),
            (CalibrateRun, "--embeddings e", {"embeddings": Path("e")}),
            (CalibrateRun, "--max-temperature-frames 5", {"max_temperature_frames": 5}),
            (CalibrateRun, "--workers 2", {"workers": 2}),
            (CalibrateRun, "--log-format json", {"log_format": "json"}),
        ],
    ),
    "evaluate": (
        "--input c --labels l --output o",
        [
            (EvaluateRun, "--truth success", {"truth": "success"}),
            (EvaluateRun, "--truth success --goal ball", {"truth": "success", "goal": "ball"}),
            (EvaluateRun, "--marks m.csv", {"marks": Path("m.csv")}),
            (EvaluateRun, "--workers 2", {"workers": 2}),
            (EvaluateRun, "--log-format json", {"log_format": "json"}),
        ],
    ),
    "diff": (
        "a b",
        [
            (DiffRun, "--output o", {"output": Path("o")}),
            (DiffRun, "--input c", {"corpus": Path("c")}),
            (DiffRun, "--tolerance 0.1", {"tolerance": 0.1}),
            (DiffRun, "--workers 2", {"workers": 2}),
            (DiffRun, "--log-format json", {"log_format": "json"}),
        ],
    ),
    "export": (
        "--input c --labels l --to verdicts",
        [
            (ExportRun, "--output o", {"output": Path("o")}),
            (ExportRun, "--in-place", {"in_place": True}),
            (ExportRun, "--goal ball", {"goal": "ball"}),
            (ExportRun, "--smooth 5", {"smooth": 5}),
            (ExportRun, "--all-scores", {"all_scores": True}),
            (ExportRun, "--link", {"link": True}),
            (ExportRun, "--strategy future", {"strategy": "future"}),
            (ExportRun, "--seed 3", {"seed": 3}),
        ],
    ),
    "train": (
        "--input r --output o",
        [
            (TrainSettings, "--algorithm bc", {"algorithm": "bc"}),
            (
                TrainSettings,
                "--set expectile=0.8 --set width=16 --set bound_by_returns=false",
                {"algorithm_settings": {"expectile": 0.8, "width": 16, "bound_by_returns": False}},
            ),
            (TrainSettings, "--steps 5", {"steps": 5}),
            (TrainSettings, "--batch-size 5", {"batch_size": 5}),
            (TrainSettings, "--mix 1:2:3", {"mix": (1, 2, 3)}),
            (TrainSettings, "--seed 5", {"seed": 5}),
            (TrainSettings, "--hold-out 'green box' --hold-out find-key", {"hold_out": ("green box", "find-key")}),
            (TrainSettings, "--num-actions 5", {"num_actions": 5}),
            (TrainSettings, "--no-states", {"states": False}),
            (TrainSettings, f"--env {LEVEL}", {"envs": (LEVEL,)}),
            (TrainSettings, "--eval-episodes 5", {"eval_episodes": 5}),
            (TrainSettings, "--eval-temperature 0", {"eval_temperature": None}),
            (TrainSettings, "--camera top", {"camera": "top"}),
            (TrainSettings, "--frames render", {"frames": "render"}),
            (TrainSettings, "--frame-stack 3", {"frame_stack": 3}),
            (TrainSettings, "--threads 2", {"threads": 2}),
            (TrainSettings, "--log-every 5", {"log_every": 5}),
            (TrainSettings, "--checkpoint-every 5", {"checkpoint_every": 5}),
        ],
    ),
    "finetune": (
        f"--agent a --output o --env {LEVEL}",
        [
            (FinetuneSettings, "--env BabyAI-GoToObj-v0", {"envs": (LEVEL, "BabyAI-GoToObj-v0")}),
            (FinetuneSettings, "--reward truth", {"reward": "truth"}),
            (FinetuneSettings, "--steps 5000", {"steps": 5000}),
            (FinetuneSettings, "--num-envs 2", {"num_envs": 2}),
            (FinetuneSettings, "--seed 5", {"seed": 5}),
            (FinetuneSettings, "--batch-size 5", {"batch_size": 5}),
            (FinetuneSettings, "--offline-share 0.25", {"offline_share": 0.25}),
            (FinetuneSettings, "--mix 1:2:3", {"mix": (1, 2, 3)}),
            (FinetuneSettings, "--warmup-steps 5", {"warmup_steps": 5}),
            (FinetuneSettings, "--updates-per-step 2", {"updates_per_step": 2}),
            (FinetuneSettings, "--hindsight-goals 0", {"hindsight_goals": 0}),
            (FinetuneSettings, "--temperature 0.5", {"temperature": 0.5}),
            (FinetuneSettings, "--capacity 500", {"capacity": 500}),
            (FinetuneSettings, "--finished-only", {"finished_only": True}),
            (FinetuneSettings, "--keep-going", {"end_at_success": False}),
            (FinetuneSettings, "--keep-going --asynchronous", {"end_at_success": False, "asynchronous": True}),
            (FinetuneSettings, "--camera egocentric", {"camera": "egocentric"}),
            (FinetuneSettings, "--frames render", {"frames": "render"}),
            (FinetuneSettings, "--eval-episodes 0", {"eval_episodes": 0}),
            (FinetuneSettings, "--eval-every 5", {"eval_every": 5}),
            (FinetuneSettings, "--eval-temperature 0", {"eval_temperature": 0}),
            (FinetuneSettings, "--eval-seed 5", {"eval_seed": 5}),
            (FinetuneSettings, "--threads 2", {"threads": 2}),
            (FinetuneSettings, "--log-every 5", {"log_every": 5}),
            (FinetuneSettings, "--checkpoint-every 5", {"checkpoint_every": 5}),
        ],
    ),
    "rollout": (
        "--agent a --output o",
        [
            (RolloutSettings, f"--env {LEVEL}", {"envs": (LEVEL,)}),
            (RolloutSettings, "--episodes 5", {"episodes": 5}),
            (RolloutSettings, "--videos 0", {"videos": 0}),
            (RolloutSettings, "--temperature 0", {"temperature": None}),
            (RolloutSettings, "--held-out-goals", {"held_out_goals": True}),
            (RolloutSettings, "--seed 5", {"seed": 5}),
            (RolloutSettings, "--threads 2", {"threads": 2}),
            (RolloutSettings, "--camera top", {"camera": "top"}),
            (RolloutSettings, "--frames render", {"frames": "render"}),
        ],
    ),
}
"""By command: words that it needs, and options beside them with the settings they make in Python."""

JUDGED_ELSEWHERE = {
    ("record", RecordSettings, "--camera a --camera b --bank c"): {"cameras": ("a", "b"), "bank": "c"},
    ("label", LabelerSettings, "--reward discounted --discount 0.5"): {"reward": "discounted", "discount": 0.5},
    ("train", TrainSettings, "--device cuda:9"): {"device": "cuda:9"},
    ("finetune", FinetuneSettings, "--device cuda:9"): {"device": "cuda:9"},
}
"""Settings that cannot be made here, of a calibration that is not read, or a device, camera or bank that is not there."""

CASES = [
    pytest.param(command, needed, kind, words, settings, id=f"{command} {words}")
    for command, (needed, cases) in COMMANDS.items()
    for kind, words, settings in cases
]


def made_by_shell(command: str, words: str, kind: type) -> Any:
    given = given_settings(parse([command, *shlex.split(words)]), kind)
    return kind(**given, **{name: value for name, value in NEVER_TYPED.items() if name in field_names(kind)})


def field_names(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


@pytest.mark.parametrize(("command", "needed", "kind", "words", "settings"), CASES)
def test_an_option_makes_the_settings_that_python_makes(
    command: str, needed: str, kind: type, words: str, settings: dict[str, Any]
) -> None:
    default = made_by_shell(command, needed, kind)
    made = made_by_shell(command, f"{needed} {words}", kind)
    assert made == dataclasses.replace(default, **settings)
    assert all(getattr(made, name) != getattr(default, name) for name in settings)


def test_settings_that_cannot_be_made_here_are_given_as_typed() -> None:
    for (command, kind, words), settings in JUDGED_ELSEWHERE.items():
        options = parse([command, *shlex.split(f"{COMMANDS[command][0]} {words}")])
        given = given_settings(options, kind)
        assert settings.items() <= given.items()


@pytest.mark.parametrize("command", COMMANDS)
def test_no_option_is_left_out(command: str) -> None:
    cases = COMMANDS[command][1]
    tried: set[tuple[str, ...]] = set()
    for _, _, settings in cases:
        for name, value in settings.items():
            inside = value if isinstance(value, dict) and name in ("negatives", "window") else {}
            tried |= {(name, key) for key in inside} or {(name,)}
    kinds = {kind for kind, _, _ in cases}
    declared = {field.path for kind in kinds for field in option_fields(kind)}
    tried |= {(name,) for (by, _, _), given in JUDGED_ELSEWHERE.items() if by == command for name in given}
    assert tried >= declared
    # Nothing of argparse's is an option with a default of its own: what is not typed is not there.
    parsed = vars(parse([command, *shlex.split(COMMANDS[command][0])]))
    assert {name: value for name, value in parsed.items() if value not in (None, False) and "." not in name}.keys() <= {
        "command",
        "run",
        "beam_options",
        "takes_beam_options",
        "input",
        "path",
        "labels",
        "goals",
        "output",
        "agent",
        "to",
        "a",
        "b",
    }


def test_every_command_with_settings_is_tried() -> None:
    assert COMMANDS.keys() == SUMMARIES.keys() - {"pretrain", "demo", "status"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "train --input r --output o --steps ten",
            "--steps: expected a whole number: got 'ten'. See vlm-rewards train",
        ),
        ("record --env e --output o --noise much", "--noise: expected a number: got 'much'. See vlm-rewards record"),
        ("hindsight --input c --labels l --output o --ratio 1:2", "--ratio: expected three shares: got '1:2'. Write"),
        ("label --goals g", "the following arguments are required: --output. See vlm-rewards label --help"),
        ("label --goals g --output o --model m --reward ten", "--reward: expected one of success, score, diff"),
    ],
)
def test_a_value_that_cannot_be_read_is_refused_with_the_value(words: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(shlex.split(words))


def test_help_tells_the_defaults_of_the_settings() -> None:
    parser = build_parser(["label"])
    label = next(action for action in parser._actions if action.dest == "command").choices["label"]  # type: ignore[index]
    text = " ".join(label.format_help().split())
    for words in ("(default: softmax)", "(default: {goal})", "(default: one per core)", "(default: the model's own)"):
        assert words in text


@pytest.mark.parametrize(
    ("function", "kinds", "keywords"),
    [
        ("pipelines.record.recording:record", (RecordSettings, RecordRun), RecordKeywords),
        ("pipelines.inspect.inspection:inspect_corpus", (InspectRun,), InspectKeywords),
        ("pipelines.label.labelling:label", (LabelRun,), LabelKeywords),
        ("pipelines.hindsight.relabelling:hindsight", (HindsightSettings, HindsightRun), HindsightKeywords),
        ("pipelines.calibrate.calibration:calibrate", (CalibrationSettings, CalibrateRun), CalibrateKeywords),
        ("pipelines.evaluate.evaluation:evaluate", (EvaluateRun,), EvaluateKeywords),
        ("pipelines.diff.comparison:diff", (DiffRun,), DiffKeywords),
        ("pipelines.export.exporting:export", (ExportRun,), ExportKeywords),
        ("offline_rl.training.train:train", (TrainSettings,), TrainKeywords),
        ("offline_rl.training.finetune:finetune", (FinetuneSettings,), FinetuneKeywords),
        ("offline_rl.evaluation.rollout:rollout", (RolloutSettings,), RolloutKeywords),
    ],
)
def test_a_function_takes_every_setting_by_name(function: str, kinds: tuple[type, ...], keywords: type) -> None:
    module, _, name = function.partition(":")
    shown = inspect.signature(getattr(importlib.import_module(f"vlm_rewards.{module}"), name)).parameters
    fields = {field.name: field for kind in kinds for field in dataclasses.fields(kind)}
    assert keywords.__annotations__.keys() == fields.keys()  # what a type checker reads
    assert shown.keys() >= fields.keys()
    for name, field in fields.items():
        if field.default is not dataclasses.MISSING:
            assert shown[name].default == field.default  # what help() shows
