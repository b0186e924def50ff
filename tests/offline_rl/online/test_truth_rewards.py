"""Rewards by ground truth: what holds, errors at the rates stated, and truth of other goals."""

import numpy as np
import pytest

from vlm_rewards.offline_rl.online.truth_rewards import TruthReward, TruthScores, parse_reward
from vlm_rewards.schemas.goals import Goal

GOALS = tuple(
    Goal(id=f"{family}-{name}", text=f"{name} in {family}", family=family)
    for family in ("find", "lift")
    for name in "abc"
)
FRAMES = np.arange(3 * 4 * 4 * 3, dtype=np.uint8).reshape(3, 4, 4, 3)


def infos_of(*facts: set[str] | None) -> dict[str, np.ndarray]:
    held = np.empty(len(facts), object)
    held[:] = facts
    return {"facts": held, "_facts": np.array([fact is not None for fact in facts])}


def test_a_source_is_read_from_its_text() -> None:
    assert parse_reward("model") is None
    assert parse_reward("truth") == TruthReward()
    assert parse_reward("truth:0.01:0.2") == TruthReward(0.01, 0.2)
    assert parse_reward("shuffled-truth") == TruthReward(shuffled=True)


@pytest.mark.parametrize(
    "text", ["lies", "truth:0.1", "truth:0.1:2", "truth:a:b", "shuffled-truth:0:0", "model:0:0", "truth:nan:0"]
)
def test_other_sources_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"with shares from 0 to 1, got '{text}'. Write, for example, truth:0.01:0.2"):
        parse_reward(text)


def test_goals_score_one_where_they_hold() -> None:
    scores = TruthScores(TruthReward(), GOALS, 0)
    infos = infos_of({"find-a", "lift-c", "open-a"}, None, set())
    found = scores(FRAMES, infos, np.array([0, 2]))
    assert found.tolist() == [[1, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0]]
    assert found.dtype == np.float32
    assert (found > scores.rule.threshold_array).tolist() == (found == 1).tolist()
    assert scores(FRAMES, infos, np.array([], np.int64)).shape == (0, 6)


def test_errors_come_at_their_rates_and_belong_to_frame_and_goal() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2000, 2, 2, 3), dtype=np.uint8)
    scores = TruthScores(TruthReward(0.1, 0.3), GOALS, 0)
    infos = infos_of(*[{"find-a", "lift-b"}] * 2000)
    found = scores(frames, infos, np.arange(2000))
    # of 4,000 and 8,000 draws: four standard deviations are 0.03 and 0.013
    assert found[:, [0, 4]].mean() == pytest.approx(0.7, abs=0.03)
    assert found[:, [1, 2, 3, 5]].mean() == pytest.approx(0.1, abs=0.013)
    assert np.corrcoef(found[:, 1], found[:, 2])[0, 1] == pytest.approx(0, abs=0.1)  # each goal errs by itself
    assert (scores(frames, infos, np.array([7, 7, 3])) == found[[7, 7, 3]]).all()
    assert (TruthScores(TruthReward(0.1, 0.3), GOALS, 1)(frames, infos, np.arange(2000)) != found).any()


def test_shuffled_truth_is_that_of_another_goal_of_the_family() -> None:
    scores = TruthScores(TruthReward(shuffled=True), GOALS, 3)
    for index, goal in enumerate(GOALS):
        (told,) = scores(FRAMES, infos_of({goal.id}), np.array([0]))
        assert told.sum() == 1
        assert told[index] == 0
        assert GOALS[int(told.argmax())].family == goal.family
    with pytest.raises(ValueError, match="a family must have two goals to be shuffled, got one in 'lift'"):
        TruthScores(TruthReward(shuffled=True), GOALS[:4], 0)


def test_environments_that_do_not_say_what_holds_are_refused() -> None:
    scores = TruthScores(TruthReward(), GOALS, 0)
    with pytest.raises(
        ValueError, match="say which goals hold, as 'facts' in their infos: got none. Take the reward 'model'"
    ):
        scores(FRAMES, {}, np.array([0]))
    with pytest.raises(ValueError, match="as 'facts' in their infos: got facts, _facts"):
        scores(FRAMES, infos_of({"find-a"}, None), np.array([1]))
