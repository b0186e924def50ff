import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from labelled_corpus import GOALS, Labelled, draw_episodes, write_corpus, write_labels
from tampered_folders import fit_records

from vlm_rewards.labelers.calibration.thresholds import CalibrationSettings
from vlm_rewards.pipelines.calibrate.calibration import calibrate
from vlm_rewards.pipelines.calibrate.summary import describe
from vlm_rewards.schemas.calibrations import read_calibration
from vlm_rewards.schemas.formats.label_parts.reader import open_labels
from vlm_rewards.schemas.goals import write_goals
from vlm_rewards.schemas.rules import RewardRule

ONE_WORKER = ("--runner=FnApiRunner", "--direct_num_workers=1")
F1 = CalibrationSettings(min_examples=3)


def labelled(folder: Path, episodes: list[Labelled], **settings: object) -> tuple[Path, Path]:
    sparse, rule = bool(settings.pop("sparse", False)), settings.pop("rule", None)
    corpus = write_corpus(folder / "corpus", episodes, **settings)  # type: ignore[arg-type]
    labels = write_labels(folder / "labels", corpus, episodes, sparse=sparse, rule=rule)  # type: ignore[arg-type]
    return corpus, labels


LOW = RewardRule(thresholds=(0.02,) * len(GOALS))
"""Thresholds that any calibration is better than."""


def marks(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(["episode_id,frame_index,goal,achieved", *lines]) + "\n", encoding="utf-8")
    return path


def run(labels: Path, output: Path, settings: CalibrationSettings = F1, **given: object) -> dict:
    calibration = calibrate(labels, output=output, **vars(settings), beam_options=ONE_WORKER, **given)  # type: ignore[arg-type]
    assert read_calibration(output).to_json() == calibration.to_json() == json.loads(output.read_text())
    return json.loads(output.read_text())


@pytest.mark.parametrize(
    "settings",
    [F1, CalibrationSettings(objective="fpr", level=0.2), CalibrationSettings(objective="precision", precision=0.7)],
)
def test_the_file_does_not_depend_on_shards(tmp_path: Path, settings: CalibrationSettings) -> None:
    episodes = draw_episodes(21)
    files = []
    for num_shards in (1, 7):
        corpus, labels = labelled(tmp_path / str(num_shards), episodes, num_shards=num_shards)
        output = tmp_path / f"{num_shards}.json"
        run(labels, output, settings, corpus=corpus)
        files.append(output.read_bytes())
    assert files[0] == files[1]
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["1.json", "7.json"]  # nothing else is left


def test_thresholds_rates_and_figures_are_those_of_the_frames(tmp_path: Path) -> None:
    episodes = draw_episodes(30)
    corpus, labels = labelled(tmp_path, episodes)
    record = run(
        labels, tmp_path / "c.json", CalibrationSettings(objective="fpr", level=0.2, confidence=0.9), corpus=corpus
    )
    for column, (goal, detail) in enumerate(zip(GOALS, record["goals"], strict=True)):
        scores = np.concatenate([episode.scores[:, column] for episode in episodes])
        truth = np.concatenate([episode.truth[:, column] for episode in episodes])
        fires = scores > np.float32(record["thresholds"][goal.id])
        assert record["fire_rates"][goal.id] == (fires & ~truth).sum() / (~truth).sum()
        assert detail["recall"] == (fires & truth).sum() / truth.sum()
        rates = [
            (e.scores[:, column] > np.float32(record["thresholds"][goal.id]))[~e.truth[:, column]].mean()
            for e in episodes
        ]
        assert detail["false_positive_rate_by_episode"] == pytest.approx(np.mean(rates), abs=1e-6)
        assert detail["negative_episodes"] == 30
    assert record["objective"]["episodes_needed"] == 11  # 0.8^11 = 0.086
    assert record["data"] == {
        "goals_without_ground_truth": [],
        "passed_over": {},
        "truth": "ground truth of the corpus",
        "episodes": 30,
        "frames": sum(len(episode.truth) for episode in episodes),
    }
    assert set(record["quality"]) == {"on_calibration_data", "held_out"}


def test_what_is_passed_over_is_named(tmp_path: Path) -> None:
    corpus, labels = labelled(tmp_path, draw_episodes(12))
    (corpus / "notes.doc").write_text("x")
    record = run(labels, tmp_path / "c.json", corpus=corpus)
    reason = "ends with .doc, which the format parquet does not read"
    assert record["data"]["passed_over"] == {reason: ["notes.doc"]}
    assert f"  passed over ({reason}): notes.doc" in describe(read_calibration(tmp_path / "c.json"))


def test_marks_of_every_frame_say_what_the_ground_truth_says(tmp_path: Path) -> None:
    episodes = draw_episodes(12)
    corpus, labels = labelled(tmp_path, episodes)
    lines = [
        f"{episode.episode_id},{frame},{goal.id},{int(episode.truth[frame, column])}"
        for episode in episodes
        for frame in range(len(episode.truth))
        for column, goal in enumerate(GOALS)
    ]
    by_marks = run(labels, tmp_path / "m.json", marks=marks(tmp_path / "marks.csv", *lines))
    by_truth = run(labels, tmp_path / "t.json", corpus=corpus)
    for name in ("thresholds", "fire_rates", "goals", "quality"):
        assert by_marks[name] == by_truth[name]
    assert by_marks["data"]["truth"] == "marks"


def test_a_goal_that_never_occurs_is_said_to_be_undefined(tmp_path: Path) -> None:
    episodes = draw_episodes(12)
    for episode in episodes:
        episode.truth[:, 0] = False
    corpus, labels = labelled(tmp_path, episodes, rule=LOW)
    first = run(labels, tmp_path / "c.json", corpus=corpus)["goals"][0]
    assert first["f1"] == first["recall"] == first["reason"] == "undefined: no positives"
    assert first["chosen_from"] == "family"


def test_goals_without_ground_truth_share(tmp_path: Path) -> None:
    episodes = draw_episodes(12)
    for episode in episodes:
        episode.truth[:, 0] = False
    corpus, labels = labelled(tmp_path, episodes, rule=LOW)
    write_goals(GOALS[1:], corpus / "goals.jsonl")
    record = run(labels, tmp_path / "c.json", corpus=corpus)
    assert record["data"]["goals_without_ground_truth"] == ["see-ball"]
    assert "  1 goals have no ground truth: see-ball" in describe(read_calibration(tmp_path / "c.json"))
    assert record["goals"][0]["negatives"] == 0
    assert record["goals"][0]["chosen_from"] == "family"
    assert record["fire_rates"]["see-ball"] is None


def test_labels_keep_their_thresholds_where_those_chosen_do_worse_on_unseen_episodes(tmp_path: Path) -> None:
    corpus, labels = labelled(tmp_path, draw_episodes(12))
    record = run(labels, tmp_path / "c.json", corpus=corpus)
    assert set(record["thresholds"].values()) == {0.5}
    assert {goal["chosen_from"] for goal in record["goals"]} == {"labels"}
    held_out = record["quality"]["held_out"]
    chosen, before = (held_out[name] for name in ("a_threshold_a_goal", "before"))
    f1 = [
        2 * figures["precision"] * figures["recall"] / (figures["precision"] + figures["recall"])
        for figures in (chosen, before)
    ]
    assert f1[0] < f1[1]
    assert record["quality"]["on_calibration_data"]["a_threshold_a_goal"] == held_out["before"]
    told = "\n".join(describe(read_calibration(tmp_path / "c.json")))
    assert (
        f"held out (at thresholds that were not taken): {chosen['precision']:.3f} and {chosen['recall']:.3f};" in told
    )
    assert f"of the labels as they are: {before['precision']:.3f} and {before['recall']:.3f}" in told
    assert "4 goals keep the threshold of the labels: those chosen were worse" in told
    (tmp_path / "better").mkdir()
    corpus, labels = labelled(tmp_path / "better", draw_episodes(12), rule=LOW)
    record = run(labels, tmp_path / "better.json", corpus=corpus)
    assert not {0.02, 0.5} & set(record["thresholds"].values())
    assert "held out: " in "\n".join(describe(read_calibration(tmp_path / "better.json")))
    held_out = record["quality"]["held_out"]
    assert held_out["a_threshold_a_goal"]["precision"] > held_out["before"]["precision"] + 0.3


@pytest.mark.parametrize("fired", [0, 1])
def test_labels_that_hardly_fire_are_calibrated_although_they_are_never_wrong(tmp_path: Path, fired: int) -> None:
    episodes = draw_episodes(30)
    right = np.concatenate([np.where(episode.truth, episode.scores, 0).ravel() for episode in episodes])
    highest = float(np.sort(right)[::-1][fired])  # so that as many right frames as that are over it
    wrong = max(float(np.where(episode.truth, 0, episode.scores).max()) for episode in episodes)
    threshold = max(highest, wrong)
    corpus, labels = labelled(tmp_path, episodes, rule=RewardRule(thresholds=(threshold,) * len(GOALS)))
    record = run(labels, tmp_path / "c.json", corpus=corpus)
    held_out = record["quality"]["held_out"]
    assert held_out["before"]["precision"] in (None, 1.0)
    assert held_out["before"]["recall"] < 0.05
    assert threshold not in record["thresholds"].values()
    assert held_out["a_threshold_a_goal"]["recall"] > 0.4


def test_a_calibration_for_another_objective_is_not_overwritten(tmp_path: Path) -> None:
    corpus, labels = labelled(tmp_path, draw_episodes(12))
    path = tmp_path / "c.json"
    bound = CalibrationSettings(objective="fpr", level=0.6, confidence=0.5)
    run(labels, path, bound, corpus=corpus)
    before = path.read_bytes()
    run(labels, path, bound, corpus=corpus)  # the same again is fine
    with pytest.raises(
        ValueError, match="for the same objective, got .*c.json with objective 'fpr', not 'f1'. Give another"
    ):
        run(labels, path, corpus=corpus)
    with pytest.raises(ValueError, match=r"got .*c.json with level 0.6, not 0.5. Give another"):
        run(labels, path, dataclasses.replace(bound, level=0.5), corpus=corpus)
    assert path.read_bytes() == before


def test_a_quantile_needs_no_truth(tmp_path: Path) -> None:
    episodes = draw_episodes(12)
    _, labels = labelled(tmp_path, episodes, with_truth=False)
    record = run(labels, tmp_path / "c.json", CalibrationSettings(objective="quantile", quantile=0.9))
    scores = np.concatenate([episode.scores for episode in episodes])
    fired = (scores > np.array([record["thresholds"][goal.id] for goal in GOALS], np.float32)).mean(axis=0)
    assert (fired <= 0.1).all()
    assert (fired > 0.09).all()
    assert (record["quality"], set(record["fire_rates"].values())) == ({}, {None})


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    episodes = draw_episodes(6)
    corpus, labels = labelled(tmp_path, episodes)
    file = marks(tmp_path / "marks.csv", "episode-000,0,see-ball,1")
    quantile = CalibrationSettings(objective="quantile", quantile=0.9)
    fpr = CalibrationSettings(objective="fpr", level=0.01)
    output = tmp_path / "c.json"
    for settings, given, message in (
        (F1, {"corpus": corpus, "marks": file}, "truth must come from a corpus or from marks, got both"),
        (F1, {}, "truth must be given for the objective 'f1', got none; give --input or --marks"),
        (quantile, {"corpus": corpus}, "truth must be left out for the objective 'quantile', got "),
        (
            fpr,
            {"corpus": corpus},
            "got none of 4, 'see-ball' because needs at least 299 episodes .* got 6; give more episodes",
        ),
        (
            F1,
            {"marks": marks(tmp_path / "no.csv", "episode-000,0,see-ball,0")},
            "undefined: no positives: some goal must hold",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            run(labels, output, settings, **given)
    assert not output.exists()
    for mark, message in (
        ("episode-9,0,see-ball,1", "a marked episode must have labels, got 'episode-9' in .*marks.csv, line 2"),
        (
            "episode-000,99,see-ball,1",
            "a marked frame must have a label, got frame 99 of episode 'episode-000' in .*, line 2",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            run(labels, output, marks=marks(file, mark))
    output.write_text("{}")
    with pytest.raises(ValueError, match="the output must be a new file or an earlier calibration, got .*c.json"):
        run(labels, output, corpus=corpus)


def test_labels_that_cannot_be_calibrated_are_refused(tmp_path: Path) -> None:
    episodes = draw_episodes(6)
    corpus, labels = labelled(tmp_path / "sparse", episodes, sparse=True)
    with pytest.raises(ValueError, match="labels to calibrate with must be dense, got sparse ones"):
        run(labels, tmp_path / "c.json", corpus=corpus)
    corpus, labels = labelled(tmp_path / "blind", episodes, with_truth=False)
    with pytest.raises(ValueError, match="a corpus to calibrate with must have ground truth .* give --marks instead"):
        run(labels, tmp_path / "c.json", corpus=corpus)
    corpus, labels = labelled(tmp_path / "other", episodes)
    write_goals([dataclasses.replace(GOALS[0], id="other")], corpus / "goals.jsonl")
    with pytest.raises(
        ValueError, match="labels must be of at least one goal that the ground truth covers, got none of 4"
    ):
        run(labels, tmp_path / "c.json", corpus=corpus)


def test_a_score_that_is_not_a_number_is_refused(tmp_path: Path) -> None:
    episodes = draw_episodes(6)
    corpus, labels = labelled(tmp_path / "nan", episodes)
    part = sorted((labels / "parts").glob("*.parquet"))[0]
    table = pq.read_table(part)
    rows = table["scores"].to_pylist()
    rows[3][1] = float("nan")
    field = table.schema.field("scores")
    changed = table.set_column(2, field, pa.array(rows, field.type)).cast(table.schema)
    pq.write_table(changed, part)
    fit_records(labels)
    with pytest.raises(ValueError, match="scores must be numbers, got NaN for goal 1 in frame 3 .* in the labels"):
        run(labels, tmp_path / "c.json", corpus=corpus)


def test_constant_scores_are_refused_in_words(tmp_path: Path) -> None:
    episodes = [dataclasses.replace(e, scores=np.full_like(e.scores, 0.5)) for e in draw_episodes(12)]
    corpus, labels = labelled(tmp_path, episodes)
    with pytest.raises(ValueError, match="some goal must be able to fire .* because constant scores"):
        run(labels, tmp_path / "c.json", corpus=corpus)
    assert open_labels(labels).metadata.goals == GOALS


def test_embeddings_of_other_labels_are_refused(tmp_path: Path) -> None:
    corpus, labels = labelled(tmp_path, draw_episodes(6))
    with pytest.raises(ValueError, match="embeddings must be a folder that vlm-rewards wrote"):
        run(labels, tmp_path / "c.json", corpus=corpus, embeddings=tmp_path / "none")
    with pytest.raises(ValueError, match="the folder must hold embeddings, got .* with labels"):
        run(labels, tmp_path / "c.json", corpus=corpus, embeddings=labels)
