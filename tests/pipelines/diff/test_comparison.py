import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from labelled_corpus import GOALS, Labelled, draw_episodes, write_corpus, write_labels
from sklearn.metrics import average_precision_score

from vlm_rewards.labelers.quality.comparison import COUNTS
from vlm_rewards.pipelines.diff.comparison import diff
from vlm_rewards.pipelines.diff.evidence import merge_differences
from vlm_rewards.pipelines.diff.quality import FIGURES
from vlm_rewards.pipelines.diff.summary import summary_lines
from vlm_rewards.pipelines.evaluate.evaluation import evaluate
from vlm_rewards.schemas.files.digests import seal
from vlm_rewards.schemas.goals import Goal
from vlm_rewards.schemas.rules import RewardRule

ONE_WORKER = ("--runner=FnApiRunner", "--direct_num_workers=1")
TWO_WORKERS = ("--runner=FnApiRunner", "--direct_num_workers=2", "--direct_running_mode=multi_processing")


def _noisy(episodes: Sequence[Labelled], seed: int = 1) -> list[Labelled]:
    """The same episodes as another model would label them."""
    rng = np.random.default_rng(seed)
    return [
        dataclasses.replace(
            episode, scores=np.clip(episode.scores + rng.normal(0, 0.2, episode.scores.shape), 0, 1).astype(np.float32)
        )
        for episode in episodes
    ]


def _folders(
    folder: Path,
    episodes_a: Sequence[Labelled],
    episodes_b: Sequence[Labelled],
    shards: tuple[int, int] = (2, 2),
    **of_b,
) -> tuple[Path, Path]:
    """Labels A and B, each of a corpus of its own sharding."""
    for name, episodes, num_shards, own in (("a", episodes_a, shards[0], {}), ("b", episodes_b, shards[1], of_b)):
        goals = {"goals": own["goals"]} if "goals" in own else {}
        corpus = write_corpus(folder / f"corpus-{name}", episodes, num_shards=num_shards, **goals)
        write_labels(folder / name, corpus, episodes, **own)
    return folder / "a", folder / "b"


def _diff(folder: Path, labels: tuple[Path, Path], **settings) -> dict:
    return diff(*labels, output=folder / "diff", **{"beam_options": ONE_WORKER, **settings})


def test_labels_against_themselves_are_identical(tmp_path: Path) -> None:
    episodes = draw_episodes(6)
    result = _diff(tmp_path, _folders(tmp_path, episodes, episodes, shards=(1, 3)))
    assert result["identical"] is True
    assert result["fingerprint"] == result["thresholds"] == result["rule"] == {}
    assert result["episodes"] == []
    assert result["quality"] is None
    assert result["counts"]["episodes"] == 6
    assert result["counts"]["frames"] == sum(len(episode.truth) for episode in episodes)
    assert json.loads((tmp_path / "diff" / "diff.json").read_text()) == result
    assert [path.name for path in (tmp_path / "diff").iterdir()] == ["diff.json"]
    lines = summary_lines(result)
    assert "  identical: every goal, threshold, frame and score is the same" in lines
    assert len(lines) == 2


def test_changes_are_those_of_the_joined_frames(tmp_path: Path) -> None:
    before = draw_episodes(10)
    after = _noisy(before)
    result = _diff(tmp_path, _folders(tmp_path, before, list(reversed(after)), shards=(2, 3)), tolerance=0.1)
    a, b = (np.concatenate([episode.scores for episode in side]) for side in (before, after))
    change = np.abs(b.astype(np.float64) - a)
    for index, row in enumerate(result["changes"]):
        assert row["id"] == GOALS[index].id
        assert row["compared"] == len(a)
        assert row["changed"] == (change[:, index] > 0.1).sum()
        assert row["mean_change"] == pytest.approx(change[:, index].mean(), abs=1e-9)
        assert row["largest_change"] == pytest.approx(change[:, index].max(), abs=1e-7)
        assert row["gained_frames"] == ((a <= 0.5) & (b > 0.5))[:, index].sum()
        assert row["lost_frames"] == ((a > 0.5) & (b <= 0.5))[:, index].sum()
    ever = [[(episode.scores > 0.5).any(axis=0) for episode in side] for side in (before, after)]
    other = [(was != now).any() for was, now in zip(*ever, strict=True)]
    assert result["counts"]["episodes_with_other_goals"] == sum(other)
    assert result["identical"] is False
    ranked = [row["gained_goals"] + row["lost_goals"] for row in result["episodes"]]
    assert ranked == sorted(ranked, reverse=True)
    assert sum(row["flipped"] for row in result["episodes"]) == ((a > 0.5) != (b > 0.5)).sum()


def test_the_result_depends_neither_on_sharding_nor_on_workers(tmp_path: Path) -> None:
    before = draw_episodes(9)
    after = _noisy(before)

    def run(name: str, shards: tuple[int, int], num_shards: int, options: Sequence[str]) -> dict:
        folder = tmp_path / name
        corpus = write_corpus(folder / "truth", before, num_shards=num_shards, format_name="webdataset")
        result = _diff(folder, _folders(folder, before, after, shards), corpus=corpus, beam_options=options)
        for side in "ab":
            del result[side]["labels"], result[side]["digest"]
        del result["quality"]["corpus"]
        return result

    one = run("one", (1, 1), 1, ONE_WORKER)
    assert one == run("many", (2, 5), 3, ONE_WORKER) == run("workers", (4, 3), 2, TWO_WORKERS)


def test_frames_and_episodes_of_one_side_are_counted_not_compared(tmp_path: Path) -> None:
    episodes = draw_episodes(4)
    sizes = [len(episode.truth) for episode in episodes]
    gaps = [dataclasses.replace(episodes[0], frames=range(2, sizes[0])), *episodes[1:3]]
    result = _diff(tmp_path, _folders(tmp_path, episodes[:3], [*gaps, episodes[3]]))
    counts = result["counts"]
    assert (counts["episodes"], counts["frames"]) == (3, sum(sizes[:3]) - 2)
    assert (counts["episodes_only_in_a"], counts["frames_only_in_a"]) == (0, 2)
    assert (counts["episodes_only_in_b"], counts["frames_only_in_b"]) == (1, sizes[3])
    assert result["episodes_only_in"] == {"a": [], "b": ["episode-003"]}
    assert result["identical"] is False
    assert f"  only in B: {sizes[3]} frames, 1 whole episodes among them" in summary_lines(result)


def test_goals_are_joined_by_id_and_described(tmp_path: Path) -> None:
    episodes = draw_episodes(3)
    # B has the goals in another order, one under another text, one more and one less.
    goals = (GOALS[2], dataclasses.replace(GOALS[0], text="a ball!"), Goal("new", "a new goal", "see"), GOALS[1])
    order = [2, 0, 3, 1]
    moved = [
        dataclasses.replace(episode, scores=episode.scores[:, order], truth=episode.truth[:, order])
        for episode in episodes
    ]
    result = _diff(tmp_path, _folders(tmp_path, episodes, moved, goals=goals))
    assert result["goals"]["common"] == 3
    assert result["goals"]["only_in"] == {"a": ["hold-box"], "b": ["new"]}
    assert list(result["goals"]["described_differently"]) == ["see-ball"]
    assert [row["id"] for row in result["changes"]] == ["see-ball", "see-box", "hold-ball"]
    assert sum(row["changed"] for row in result["changes"]) == 0
    assert list(result["fingerprint"]) == ["goals"]
    assert result["identical"] is False
    text = "\n".join(summary_lines(result))
    assert "goals only in A: 1, such as hold-box" in text
    assert "goals of one id but other texts or fields: 1, such as see-ball" in text
    assert "fingerprint, goals: " in text


def test_sparse_labels_say_what_is_unknown_and_flip_exactly(tmp_path: Path) -> None:
    before = draw_episodes(8)
    after = _noisy(before)
    result = _diff(tmp_path, _folders(tmp_path, before, after, sparse=True))
    a, b = (np.concatenate([episode.scores for episode in side]) for side in (before, after))
    for index, row in enumerate(result["changes"]):
        over = b[:, index] > 0.5
        assert (row["compared"], row["only_in_a"]) == (over.sum(), (~over).sum())
        assert row["gained_frames"] == (over & (a[:, index] <= 0.5)).sum()
        assert row["lost_frames"] == (~over & (a[:, index] > 0.5)).sum()
    assert "unknown, under the threshold of sparse labels" in "\n".join(summary_lines(result))


def test_quality_is_that_of_evaluate_on_either_side(tmp_path: Path) -> None:
    before = draw_episodes(20)
    after = _noisy(before)
    labels = _folders(tmp_path, before, after)
    corpus = write_corpus(tmp_path / "truth", before, num_shards=3)
    (corpus / "notes.doc").write_text("x")
    result = _diff(tmp_path, labels, corpus=corpus)
    quality = result["quality"]
    reason = "ends with .doc, which the format parquet does not read"
    assert quality["passed_over"] == {reason: ["notes.doc"]}
    assert f"  passed over ({reason}): notes.doc" in summary_lines(result)
    truth = np.concatenate([episode.truth for episode in before])
    assert quality["frames"] == len(truth)
    for name, own in zip("ab", labels, strict=True):
        alone = evaluate(tmp_path / f"corpus-{name}", own, output=tmp_path / f"report-{name}", beam_options=ONE_WORKER)
        for row, expected in zip(quality["goals"], alone["goals"], strict=True):
            assert row["positives"] == expected["positives"]
            assert row[name]["average_precision"] == expected["average_precision"]
            assert [row[name][key] for key in FIGURES[1:]] == [expected["at_threshold"][key] for key in FIGURES[1:]]
        for family, row in quality["families"].items():
            assert row[name]["average_precision"] == pytest.approx(alone["families"][family]["mean_average_precision"])
        assert quality["overall"][name]["f1"] == alone["overall"]["pooled"]["at_threshold"]["f1"]
    scores = [np.concatenate([episode.scores[:, 0] for episode in side]) for side in (before, after)]
    exact = [average_precision_score(truth[:, 0], own) for own in scores]
    assert quality["goals"][0]["difference"]["average_precision"] == pytest.approx(exact[1] - exact[0], abs=2e-3)


def test_frames_that_the_corpus_lacks_are_counted(tmp_path: Path) -> None:
    episodes = draw_episodes(5)
    labels = _folders(tmp_path, episodes, _noisy(episodes))
    corpus = write_corpus(tmp_path / "truth", episodes[1:])
    result = _diff(tmp_path, labels, corpus=corpus)
    missing = len(episodes[0].truth)
    assert result["counts"]["frames"] - result["quality"]["frames"] == missing
    assert result["quality"]["frames_without_truth"] == missing
    assert f"  ({missing} frames that both label have none in this corpus)" in summary_lines(result)


def test_a_goal_that_never_occurs_has_no_average_precision(tmp_path: Path) -> None:
    episodes = [
        dataclasses.replace(episode, truth=episode.truth & [False, True, True, True]) for episode in draw_episodes(5)
    ]
    labels = _folders(tmp_path, episodes, _noisy(episodes))
    result = _diff(tmp_path, labels, corpus=tmp_path / "corpus-a")
    row = result["quality"]["goals"][0]
    assert row["a"]["average_precision"] == row["difference"]["average_precision"] == "undefined: no positives"
    assert row["difference"]["recall"] == "undefined: no positives"
    assert isinstance(row["difference"]["false_positive_rate"], float)
    assert isinstance(result["quality"]["families"]["see"]["difference"]["average_precision"], float)
    text = "\n".join(summary_lines(result))
    assert "quality on" in text
    assert "nan" not in text.lower()


def test_the_summary_shows_the_worst_first(tmp_path: Path) -> None:
    before = draw_episodes(10)
    result = _diff(tmp_path, _folders(tmp_path, before, _noisy(before)), corpus=tmp_path / "corpus-a")
    lines = summary_lines(result)
    start = next(index for index, line in enumerate(lines) if "goals that changed most, 4 of 4" in line)
    assert lines[start + 1].split()[:3] == ["goal", "gained", "lost"]
    flips = [sum(int(cell) for cell in line.split()[1:3]) for line in lines[start + 2 : start + 6]]
    assert flips == sorted(flips, reverse=True)
    assert len({len(line) for line in lines[start + 1 : start + 6]}) == 1  # columns are aligned


def test_nothing_to_add_is_nothing() -> None:
    empty = merge_differences([])
    assert empty.changes is None
    assert empty.quality is None
    assert set(empty.counts.values()) == {0}
    assert len(COUNTS) == len(set(COUNTS))


@pytest.mark.parametrize("tolerance", [-0.1, float("nan"), float("inf")])
def test_a_tolerance_that_is_none_is_refused(tmp_path: Path, tolerance: float) -> None:
    with pytest.raises(ValueError, match="the tolerance must be 0 or more and finite, got"):
        diff(tmp_path, tmp_path, output=tmp_path / "diff", tolerance=tolerance)


def test_unfinished_and_other_folders_are_refused(tmp_path: Path) -> None:
    a, b = _folders(tmp_path, draw_episodes(2), draw_episodes(2))
    (b / "manifest.json").unlink()
    with pytest.raises(ValueError, match="labels must be finished, got .* without manifest.json"):
        _diff(tmp_path, (a, b))
    with pytest.raises(ValueError, match="labels must be a folder that vlm-rewards wrote, got .*absent"):
        _diff(tmp_path, (tmp_path / "absent", a))
    with pytest.raises(ValueError, match=r"must hold settings.json, got .*corpus-a"):
        _diff(tmp_path, (a, tmp_path / "corpus-a"))
    assert not (tmp_path / "diff").exists()


def test_a_foreign_output_is_refused(tmp_path: Path) -> None:
    labels = _folders(tmp_path, draw_episodes(2), draw_episodes(2))
    with pytest.raises(ValueError, match="must be empty or hold an earlier diff, got .* with 'manifest.json'"):
        diff(*labels, output=labels[0])
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="the output must be a folder, got the file"):
        diff(*labels, output=tmp_path / "file")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "diff.json").write_text("[]")
    with pytest.raises(ValueError, match="must be empty or hold an earlier diff, got .* with 'diff.json'"):
        diff(*labels, output=tmp_path / "other")
    first = _diff(tmp_path, labels)
    assert _diff(tmp_path, labels) == first  # one of ours is written anew


def test_labels_without_a_common_goal_or_frame_are_refused(tmp_path: Path) -> None:
    episodes = draw_episodes(2)
    others = tuple(dataclasses.replace(goal, id=f"other-{goal.id}") for goal in GOALS)
    with pytest.raises(ValueError, match="must have a goal in common, got none of 4 goals .*'see-ball'"):
        _diff(tmp_path, _folders(tmp_path / "goals", episodes, episodes, goals=others))
    renamed = [dataclasses.replace(episode, episode_id=f"x-{episode.episode_id}") for episode in episodes]
    with pytest.raises(ValueError, match="must have a frame in common, got none in"):
        _diff(tmp_path, _folders(tmp_path / "frames", episodes, renamed))


def test_a_corpus_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    episodes = draw_episodes(2)
    labels = _folders(tmp_path, episodes, episodes)
    plain = write_corpus(tmp_path / "plain", episodes, with_truth=False)
    with pytest.raises(ValueError, match="must have ground truth .*, got .*plain without"):
        _diff(tmp_path, labels, corpus=plain)
    others = tuple(dataclasses.replace(goal, id=f"other-{goal.id}") for goal in GOALS)
    with pytest.raises(ValueError, match="must cover a goal that both label, got none of 4"):
        _diff(tmp_path, labels, corpus=write_corpus(tmp_path / "goals", episodes, goals=others))
    renamed = [dataclasses.replace(episode, episode_id=f"x-{episode.episode_id}") for episode in episodes]
    with pytest.raises(ValueError, match="must hold an episode that both label, got none"):
        _diff(tmp_path, labels, corpus=write_corpus(tmp_path / "renamed", renamed))
    short = [dataclasses.replace(episode, truth=episode.truth[:4]) for episode in episodes]
    with pytest.raises(
        ValueError, match=r"must be of frames that the corpus holds, got frame \d+ of episode .*has 4 there"
    ):
        _diff(tmp_path, labels, corpus=write_corpus(tmp_path / "short", short))


def test_an_episode_in_two_parts_is_refused(tmp_path: Path) -> None:
    episodes = draw_episodes(3)
    a, b = _folders(tmp_path, episodes, episodes, shards=(1, 1))
    manifest = json.loads((b / "manifest.json").read_text())
    part = manifest["parts"][0]
    (b / "parts" / "copy.parquet").write_bytes((b / part["path"]).read_bytes())
    manifest["parts"].append({**part, "path": "parts/copy.parquet"})
    (b / "manifest.json").write_text(json.dumps(seal(manifest)))
    with pytest.raises(
        ValueError, match=r"occur once, got 'episode-000' in .*copy.parquet.*second labels.*2 more like it"
    ):
        _diff(tmp_path, (a, b))


def test_a_part_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    episodes = draw_episodes(3)
    a, b = _folders(tmp_path, episodes, episodes, shards=(1, 2))
    part = sorted((b / "parts").iterdir())[1]
    part.write_bytes(part.read_bytes()[:-9])
    with pytest.raises(ValueError, match="must be as it was written, 5520 bytes, got 5511 in .*shard-01"):
        _diff(tmp_path, (a, b))


def test_other_fire_rates_are_a_difference(tmp_path: Path) -> None:
    # Rewards "discounted" depend on them, though every score and success is the same.
    episodes = draw_episodes(2)
    thresholds, rates = (0.5,) * len(GOALS), (0.1,) * len(GOALS)
    rule = RewardRule(thresholds=thresholds, reward="discounted", discount=1.0, fire_rates=rates)
    corpus = write_corpus(tmp_path / "corpus", episodes, num_shards=1)
    write_labels(tmp_path / "a", corpus, episodes, rule=rule)
    write_labels(tmp_path / "b", corpus, episodes, rule=dataclasses.replace(rule, fire_rates=(0.2, *rates[1:])))
    result = _diff(tmp_path, (tmp_path / "a", tmp_path / "b"))
    assert result["identical"] is False
    assert result["fire_rates"] == {GOALS[0].id: {"a": 0.1, "b": 0.2}}
    assert "  fire rates that differ: 1, such as see-ball: 0.1 in A, 0.2 in B" in summary_lines(result)
