"""Evaluation by marks and by what recordings of other formats say of their success; all figures are by hand."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hdf5_recordings import write_libero, write_robomimic
from labelled_corpora import episode, holds, write_corpus, write_labels_of
from lerobot_datasets import DataSet
from rlds_files import episode_features, group, image, serialized, tensor, text, write_data_set

from vlm_rewards.pipelines.evaluate.evaluation import evaluate
from vlm_rewards.pipelines.evaluate.summary import summary_lines
from vlm_rewards.schemas.formats.corpus import open_corpus
from vlm_rewards.schemas.goals import Goal
from vlm_rewards.schemas.pictures import encode_png

ONE_WORKER = ("--runner=FnApiRunner", "--direct_num_workers=1")
GOALS = (
    Goal("cup", "the cup is up", instructions=("lift the cup",)),
    Goal("drawer", "the drawer is open", instructions=("open the drawer",)),
)
SCORED = {
    "episode_000000": holds("..X.X", "XXXXX"),  # cup, by its task
    "episode_000001": holds("XXX", ".X."),  # drawer
    "episode_000002": holds("X...", "...."),  # cup
}
"""Per episode, whether each goal is achieved by the labels in each frame."""


def lerobot(folder: Path, **columns: list) -> Path:
    """Writes episodes of 5, 3 and 4 frames: lift the cup, open the drawer, lift the cup."""
    return DataSet(cameras={"observation.images.front": "image"}, columns=columns).write(folder)


def run(corpus: Path, labels: Path, **settings: Any) -> dict[str, Any]:
    return evaluate(corpus, labels, output=labels.parent / "report", beam_options=ONE_WORKER, **settings)


def numbers(figures: dict[str, Any]) -> dict[str, Any]:
    """The figures without those of episodes."""
    return {name: value for name, value in figures.items() if name not in ("episodes", "id", "text")}


NEXT_SUCCESS = [
    *(
        False,
        False,
        False,
        True,
        True,
    ),  # frames 1 to 4: no, no, no, yes; the last row has no frame after it, and says yes
    *(False, False, True),  # frames 1 and 2: no; the last row's yes stands for the last frame, 2
    *(False, False, False, False),  # frames 1 to 3: no
]


def test_next_success_of_lerobot_speaks_of_the_frame_after_the_row(tmp_path: Path) -> None:
    corpus = lerobot(tmp_path / "corpus", **{"next.success": NEXT_SUCCESS})
    labels = write_labels_of(tmp_path / "labels", corpus, SCORED, goals=GOALS)
    quality = run(corpus, labels, truth="success")
    cup, drawer = quality["goals"]
    # Episode 0, frames 1 to 4: truth ...X, labels .X.X; episode 2, frames 1 to 3: truth ..., labels ... (frame 0 is unknown).
    assert numbers(cup) == {
        "known_positives": 1,
        "known_negatives": 6,
        "true_positives": 1,
        "false_positives": 1,
        "precision": 0.5,
        "recall": 1.0,
        "average_precision": 0.5,
    }
    assert numbers(drawer) == {
        "known_positives": 1,
        "known_negatives": 1,
        "true_positives": 0,
        "false_positives": 1,
        "precision": 0.0,
        "recall": 0.0,
        "average_precision": 0.5,  # frame 1 first, which is wrong
    }
    assert quality["counts"] == {
        "known_pairs": 9,
        "known_positives": 2,
        "known_negatives": 7,
        "frames": 9,
        "episodes": 3,
        "episodes_not_whole": 0,
    }
    # Episode 2 failed, and its labels call frame 0 a success.
    assert quality["pooled"]["episodes"] == {
        "known": 3,
        "true_positives": 2,
        "false_positives": 1,
        "false_negatives": 0,
        "true_negatives": 0,
        "accuracy": 2 / 3,
    }
    assert quality["truth"]["episodes_by_source"] == {"success of every step": 3}
    assert json.loads((tmp_path / "report/quality.json").read_text()) == quality
    assert any("accuracy 0.667" in line for line in summary_lines(quality))
    page = (tmp_path / "report/report.html").read_text()
    assert "success of every step: 3 episodes" in page
    assert "Known pairs</dt><dd>9<small>in 2 of them the goal holds" in page
    assert quality["truth"]["rule"] in page


def test_one_goal_for_all_episodes_leaves_all_others_unknown(tmp_path: Path) -> None:
    corpus = lerobot(tmp_path / "corpus", **{"next.success": NEXT_SUCCESS})
    labels = write_labels_of(tmp_path / "labels", corpus, SCORED, goals=GOALS)
    quality = run(corpus, labels, truth="success", goal="drawer")
    assert [goal["id"] for goal in quality["goals"]] == ["drawer"]
    assert quality["num_goals_unknown"] == 1
    figures = quality["goals"][0]
    # 4 + 2 + 3 known frames; labels of the drawer say XXXX, X. and ... there.
    counts = ("known_positives", "known_negatives", "true_positives", "false_positives")
    assert [figures[name] for name in counts] == [2, 7, 1, 4]
    assert figures["precision"] == 0.2
    assert quality["truth"]["goal"] == "drawer"


def test_rewards_of_lerobot_count_where_some_are_over_zero(tmp_path: Path) -> None:
    rewards = [0.0, 0.0, 0.0, 0.25, 0.25, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0]
    corpus = lerobot(tmp_path / "corpus", **{"next.reward": rewards})
    labels = write_labels_of(tmp_path / "labels", corpus, SCORED, goals=GOALS)
    by_rewards = run(corpus, labels, truth="success")
    assert by_rewards["truth"]["episodes_by_source"] == {"rewards": 3}
    other = lerobot(tmp_path / "other/corpus", **{"next.success": NEXT_SUCCESS, "next.reward": [-1.0] * 12})
    by_success = run(
        other, write_labels_of(tmp_path / "other/labels", other, SCORED, goals=GOALS), truth="success"
    )  # success counts before rewards
    assert by_rewards["goals"] == by_success["goals"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"next.reward": [0.0] * 12}, r"got rewards are 0 in every step \(3 episodes\), of .*labels. Mark some frames"),
        ({}, r"got no success and no rewards are recorded \(3 episodes\), of .*labels. Mark some frames"),
        (
            {"next.reward": [-1.0] * 12},
            "rewards that tell success must be 0 or, .* greater: got -1 in episode .* --marks",
        ),
    ],
)
def test_recordings_that_say_nothing_are_refused(columns: dict, message: str, tmp_path: Path) -> None:
    corpus = lerobot(tmp_path / "corpus", **columns)
    labels = write_labels_of(tmp_path / "labels", corpus, SCORED, goals=GOALS)
    with pytest.raises(ValueError, match=message):
        run(corpus, labels, truth="success")


def test_instructions_that_ask_for_no_labelled_goal_need_a_goal(tmp_path: Path) -> None:
    corpus = lerobot(tmp_path / "corpus", **{"next.success": NEXT_SUCCESS})
    others = [dataclasses.replace(goal, instructions=()) for goal in GOALS]
    labels = write_labels_of(tmp_path / "labels", corpus, SCORED, goals=others)
    message = r"its instruction asks for none of the labelled goals \(3 episodes\), of .* Give --goal"
    with pytest.raises(ValueError, match=message):
        run(corpus, labels, truth="success")
    with pytest.raises(
        ValueError, match=r"one of the 2 goals of the labels \(cup, drawer\): got 'shelf'. Check its id"
    ):
        run(corpus, labels, truth="success", goal="shelf")


def test_an_episode_whose_goal_is_unknown_counts_nowhere(tmp_path: Path) -> None:
    corpus = lerobot(tmp_path / "corpus", **{"next.success": NEXT_SUCCESS})
    labels = write_labels_of(
        tmp_path / "labels", corpus, SCORED, goals=[GOALS[0], dataclasses.replace(GOALS[1], instructions=())]
    )
    quality = run(corpus, labels, truth="success")
    assert quality["unknown_episodes"] == {"its instruction asks for none of the labelled goals": 1}
    assert quality["counts"]["episodes"] == quality["pooled"]["episodes"]["known"] == 2
    assert [goal["id"] for goal in quality["goals"]] == ["cup"]
    assert "its instruction asks for none" in (tmp_path / "report/report.html").read_text()


def write_rewards(path: Path, rewards: dict[str, list[float]]) -> None:
    """Replaces the rewards of an HDF5 file."""
    with h5py.File(path, "r+") as file:
        for name, values in rewards.items():
            file[f"data/{name}/rewards"][:] = values


@pytest.mark.parametrize("next_obs", [True, False])
def test_rewards_of_robomimic(next_obs: bool, tmp_path: Path) -> None:
    corpus = write_robomimic(tmp_path / "corpus/demo.hdf5", (3, 2), next_obs=next_obs).parent
    write_rewards(corpus / "demo.hdf5", {"demo_0": [0, 0, 1], "demo_1": [0, 0]})
    # With next_obs there is a frame after the last action; frame 0 of demo_1 is a false alarm of which nothing is known.
    frames = ("...X", "X..") if next_obs else ("..X", "X.")
    scored = dict(zip(("demo/demo_0", "demo/demo_1"), (holds(columns, columns) for columns in frames), strict=True))
    labels = write_labels_of(tmp_path / "labels", corpus, scored, goals=GOALS)
    quality = run(corpus, labels, truth="success", goal="cup")
    (cup,) = quality["goals"]
    negatives = 4 if next_obs else 2
    assert (cup["known_positives"], cup["known_negatives"]) == (1, negatives)
    assert (cup["precision"], cup["recall"], cup["average_precision"]) == (1.0, 1.0, 1.0)
    assert cup["episodes"]["accuracy"] == 0.5
    assert cup["episodes"]["false_positives"] == 1


def test_rewards_speak_of_the_frame_of_their_row_where_the_first_frame_is_missing(tmp_path: Path) -> None:
    corpus = write_libero(tmp_path / "corpus/drawer.hdf5", (3, 2)).parent  # reward 1 in the last step
    scored = {"drawer/demo_0": holds("..X", "..."), "drawer/demo_1": holds("X.", "..")}
    labels = write_labels_of(tmp_path / "labels", corpus, scored, goals=GOALS)
    (cup,) = run(corpus, labels, truth="success", goal="cup")["goals"]
    counts = ("known_positives", "known_negatives", "true_positives", "false_positives")
    assert [cup[name] for name in counts] == [2, 3, 1, 1]  # every frame is known


def test_the_path_of_droid_speaks_of_the_last_frame_alone(tmp_path: Path) -> None:
    steps = {
        "observation": group({"image": image(8, 8, 3)}),
        "action": tensor("float32", 1),
        "reward": tensor("float32"),
    }
    features = episode_features(steps | {"language_instruction": text()}, {"file_path": text()})
    records = [
        serialized(
            {
                "steps/observation/image": [
                    encode_png(np.full((8, 8, 3), 50 * number + frame, np.uint8)) for frame in range(3)
                ],
                "steps/action": np.zeros((3, 1), np.float32),
                "steps/reward": np.array([0, 0, 1], np.float32),  # also of failures: the path counts
                "steps/language_instruction": ["lift the cup"] * 3,
                "episode_metadata/file_path": [f"r2d2/{folder}/day/trajectory.h5"],
            }
        )
        for number, folder in enumerate(("success", "failure", "success"))
    ]
    corpus = tmp_path / "corpus"
    write_data_set(corpus / "droid/1.0.0", features, {"train": [records]}, name="droid")
    (unit,) = open_corpus(corpus).units()
    frames = (holds("X.X", "XXX"), holds("..X", "XXX"), holds("X..", "XXX"))
    scored = dict(zip(open_corpus(corpus).episode_ids(unit), frames, strict=True))
    quality = run(corpus, write_labels_of(tmp_path / "labels", corpus, scored, goals=GOALS), truth="success")
    (cup,) = quality["goals"]
    counts = ("known_positives", "known_negatives", "true_positives", "false_positives")
    assert [cup[name] for name in counts] == [2, 1, 1, 1]
    assert quality["truth"]["episodes_by_source"] == {"success of the episode": 3}
    # Labels call all three a success: the third in its first frame, of which the recording says nothing.
    assert [cup["episodes"][name] for name in counts[2:]] == [2, 1]


@pytest.mark.parametrize("format_name", ["parquet", "webdataset"])
def test_rewards_of_our_own_formats_speak_of_the_frame_after_the_step(format_name: str, tmp_path: Path) -> None:
    episodes = [
        episode("a", 3, instruction="lift the cup"),
        episode("b", 3, final_frame=False, instruction="lift the cup"),
    ]
    rewards = (np.array([0, 1], np.float32), np.array([0, 0, 0], np.float32))
    told = [dataclasses.replace(one, rewards=own) for one, own in zip(episodes, rewards, strict=True)]
    corpus = write_corpus(tmp_path / "corpus", [told], format_name)
    labels = write_labels_of(
        tmp_path / "labels", corpus, {"a": holds("XXX", "..."), "b": holds("...", "...")}, goals=GOALS
    )
    (cup,) = run(corpus, labels, truth="success")["goals"]
    counts = ("known_positives", "known_negatives", "true_positives", "false_positives")
    assert [cup[name] for name in counts] == [1, 3, 1, 1]  # frame 0 of both is unknown
    assert cup["episodes"]["accuracy"] == 1.0


def test_marks_count_where_they_are_and_nowhere_else(tmp_path: Path) -> None:
    corpus = lerobot(tmp_path / "corpus")
    labels = write_labels_of(tmp_path / "labels", corpus, SCORED, goals=GOALS)
    marks = tmp_path / "marks.csv"
    lines = ["episode_000000,2,cup,1", "episode_000000,3,cup,1", "episode_000002,0,cup,0", "episode_000001,0,drawer,0"]
    marks.write_text("\n".join(["episode_id,frame_index,goal,achieved", *lines]))
    quality = run(corpus, labels, marks=marks)
    cup, drawer = quality["goals"]
    # Labels say X, . and X of the cup: one true, one false positive, and a miss.
    assert numbers(cup) == {
        "known_positives": 2,
        "known_negatives": 1,
        "true_positives": 1,
        "false_positives": 1,
        "precision": 0.5,
        "recall": 0.5,
        # Two frames of score 0.9, one of them right: 1/2 * 1/2; then all three: 2/3 * 1/2.
        "average_precision": pytest.approx(1 / 4 + 1 / 3),
    }
    assert drawer["precision"] == drawer["recall"] == drawer["average_precision"] == "undefined: no positives"
    assert quality["pooled"]["episodes"]["accuracy"] == "undefined: no episode is known as a whole"
    assert quality["counts"]["known_pairs"] == 4
    assert quality["truth"]["marks"] == str(marks)
    page = (tmp_path / "report/report.html").read_text()
    assert f"against the marks <code>{marks}</code>" in page
    assert "<section id=episodes>" not in page


def test_marks_of_frames_without_labels_are_refused(tmp_path: Path) -> None:
    corpus = lerobot(tmp_path / "corpus")
    labels = write_labels_of(tmp_path / "labels", corpus, SCORED, goals=GOALS)
    marks = tmp_path / "marks.csv"
    marks.write_text("episode_id,frame_index,goal,achieved\nepisode_000000,9,cup,1\n")
    with pytest.raises(ValueError, match="a marked frame must have a label, got frame 9 of episode 'episode_000000'"):
        run(corpus, labels, marks=marks)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"truth": "path"}, "truth must be one of achieved-goals, success: got 'path'"),
        (
            {"truth": "success", "marks": "m.csv"},
            "truth must come from the corpus or from marks: got 'success' and m.csv",
        ),
        ({"goal": "cup"}, "a goal must be given with the truth 'success' alone: got 'cup' with 'achieved-goals'"),
        (
            {"goal": "cup", "marks": "m.csv"},
            "a goal must be given with the truth 'success' alone: got 'cup' with marks",
        ),
        ({}, r"must have ground truth \(the column achieved_goals\), got .* give --truth success .* give --marks"),
    ],
)
def test_truths_that_contradict_each_other_are_refused(settings: dict, message: str, tmp_path: Path) -> None:
    corpus = lerobot(tmp_path / "corpus")
    labels = write_labels_of(tmp_path / "labels", corpus, SCORED, goals=GOALS)
    with pytest.raises(ValueError, match=message):
        run(corpus, labels, **settings)


def test_episodes_without_all_labels_have_no_verdict_and_curves_of_before_are_removed(tmp_path: Path) -> None:
    corpus = lerobot(tmp_path / "corpus", **{"next.success": NEXT_SUCCESS})
    labels = write_labels_of(
        tmp_path / "labels", corpus, {**SCORED, "episode_000000": SCORED["episode_000000"][:3]}, goals=GOALS
    )
    report = tmp_path / "report"
    report.mkdir()
    (report / "quality.json").write_text('{"kind": "evaluation"}')
    (report / "precision_recall.png").write_bytes(b"of an earlier evaluation")
    quality = run(corpus, labels, truth="success")
    assert quality["counts"]["episodes_not_whole"] == 1
    assert quality["counts"]["episodes"] == 3
    assert quality["pooled"]["episodes"]["known"] == 2
    assert sorted(path.name for path in report.iterdir()) == ["quality.json", "report.html"]
    assert any("1 episodes lack labels of some frames" in line for line in summary_lines(quality))


def test_labels_of_frames_that_the_corpus_lacks_are_refused(tmp_path: Path) -> None:
    corpus = lerobot(tmp_path / "corpus", **{"next.success": NEXT_SUCCESS})
    longer = np.concatenate([SCORED["episode_000001"]] * 2)
    labels = write_labels_of(tmp_path / "labels", corpus, {**SCORED, "episode_000001": longer}, goals=GOALS)
    with pytest.raises(
        ValueError, match="labels must be of frames that the corpus holds: got frame 5 of episode 'episode_000001'"
    ):
        run(corpus, labels, truth="success")
