import itertools
import math

import numpy as np
import pytest

from vlm_rewards.labelers.calibration.counts import (
    NEVER,
    CalibrationCounts,
    EpisodeScores,
    Ranking,
    calibration_counts,
    mean_f1_curve,
    merge_counts,
    outcomes_at,
    pooled_f1_curve,
    rank_counts,
    threshold_at,
)
from vlm_rewards.labelers.calibration.risk_bounds import LOSS_UNIT
from vlm_rewards.labelers.calibration.thresholds import (
    STRENGTHS,
    CalibrationSettings,
    OperatingPoint,
    best_f1_depth,
    bounded_depth,
    choose_thresholds,
    precise_depth,
    quantile_depth,
)
from vlm_rewards.labelers.quality.agreement import UNDEFINED
from vlm_rewards.schemas.goals import Goal


def ranking(positives: list[int], negatives: list[int], losses: list[float] | None = None) -> Ranking:
    """Entries from the highest bin down."""
    whole = np.zeros(len(positives)) if losses is None else np.array(losses) * LOSS_UNIT
    bins = np.arange(len(positives), 0, -1) * 100
    return Ranking(bins, np.array(positives), np.array(negatives), whole.astype(np.int64))


def one_goal(scores: list[float], truth: str) -> EpisodeScores:
    """An episode of one goal; "X" where it holds."""
    return EpisodeScores(np.array(scores, np.float32)[:, None], np.array([mark == "X" for mark in truth])[:, None])


def draw(
    rng: np.random.Generator, num_episodes: int, num_goals: int, shift: np.ndarray | float = 0.0
) -> list[EpisodeScores]:
    episodes = []
    for _ in range(num_episodes):
        truth = rng.random((int(rng.integers(4, 20)), num_goals)) < 0.25
        scores = 1 / (1 + np.exp(-rng.normal(-1, 1, truth.shape) - 2.5 * truth - shift))
        episodes.append(EpisodeScores(scores.astype(np.float32), truth))
    return episodes


def folds(episodes: list[EpisodeScores], num_goals: int) -> list[CalibrationCounts]:
    return [calibration_counts(episodes[start::2], num_goals) for start in (0, 1)]


def test_counts_by_hand() -> None:
    # Episode 1: three frames in which the goal does not hold, each adds a third; episode 2: one, which adds 1.
    counts = calibration_counts([one_goal([0.9, 0.5, 0.1, 0.1], "X..."), one_goal([0.5, 0.9], ".X")], 1)
    entries = rank_counts(counts, [0])
    third = -(-LOSS_UNIT // 3)
    assert entries.positives.tolist() == [2, 0, 0]
    assert entries.negatives.tolist() == [0, 2, 2]
    assert entries.losses.tolist() == [0, third + LOSS_UNIT, 2 * third]
    assert (counts.positive_episodes.tolist(), counts.negative_episodes.tolist()) == ([2], [2])
    outcomes = outcomes_at(counts, [0.3])
    assert [int(column[0]) for column in outcomes] == [2, 2, 2, 4, third + LOSS_UNIT, 2]
    assert outcomes.f1[0] == pytest.approx(2 * 2 / (4 + 2))
    assert outcomes.false_positive_rates[0] == 2 / 4
    assert outcomes.mean_losses[0] == pytest.approx((1 / 3 + 1) / 2)


def test_only_what_is_known_counts() -> None:
    episode = one_goal([0.9, 0.5, 0.1], "X..")
    counts = calibration_counts([episode._replace(known=np.array([[True], [False], [True]]))], 1)
    entries = rank_counts(counts, [0])
    assert (entries.positives.tolist(), entries.negatives.tolist()) == ([1, 0], [0, 1])
    assert entries.losses.tolist() == [0, LOSS_UNIT]  # one negative frame is known: it is the whole loss


def test_counts_do_not_depend_on_order_or_grouping() -> None:
    episodes = draw(np.random.default_rng(0), 12, 3)
    whole = calibration_counts(episodes, 3)
    parts = [calibration_counts(group, 3) for group in (episodes[7:], episodes[:2], [], episodes[2:7])]
    for merged in (merge_counts(parts), merge_counts([merge_counts(parts[:2]), merge_counts(parts[2:])])):
        for name in ("keys", "positives", "negatives", "losses", "positive_episodes", "negative_episodes"):
            np.testing.assert_array_equal(getattr(merged, name), getattr(whole, name))


def test_what_fires_is_exact_at_every_threshold() -> None:
    episodes = draw(np.random.default_rng(1), 10, 2)
    counts = calibration_counts(episodes, 2)
    scores, truth = (np.concatenate([getattr(e, name) for e in episodes])[:, 1] for name in ("scores", "truth"))
    entries = rank_counts(counts, [1])
    for depth in range(len(entries.bins) + 1):
        for lowest in (False, True):
            threshold = threshold_at(entries.bins, depth, lowest=lowest)
            outcomes = outcomes_at(counts, [NEVER, threshold])
            fires = scores > np.float32(threshold)
            assert int(outcomes.true_positives[1]) == (fires & truth).sum() == entries.positives[:depth].sum()
            assert int(outcomes.false_positives[1]) == (fires & ~truth).sum()
            assert outcomes.true_positives[0] == outcomes.false_positives[0] == 0


def test_a_threshold_lies_between_what_fires_and_what_does_not() -> None:
    counts = calibration_counts([one_goal([0.8, 0.4], "X.")], 1)
    bins = rank_counts(counts, [0]).bins
    assert threshold_at(bins, 0) == NEVER
    assert threshold_at(bins, 1) == pytest.approx(0.6, abs=1e-3)  # half-way
    assert threshold_at(bins, 1, lowest=True) == pytest.approx(0.4, abs=2e-4)
    assert threshold_at(bins, 1, lowest=True) >= np.float32(0.4)
    assert threshold_at(bins, 2) < np.float32(0.4)


def test_scores_that_are_not_numbers_are_refused() -> None:
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match=r"must be finite numbers, got .* for goal 0 in row 1 of an episode"):
            calibration_counts([one_goal([0.5, value], "X.")], 1)


def test_best_f1_by_hand() -> None:
    # Fires 1: 2*1/(1+2) = 2/3; 2: 2*1/(2+2) = 1/2; 3: 2*2/(3+2) = 4/5; 4: 2*2/(4+2) = 2/3.
    assert best_f1_depth(ranking([1, 0, 1, 0], [0, 1, 0, 1])) == 3
    # Fires 1: 2*1/(1+3) = 1/2; 4: 2*3/(9+3) = 1/2: the fewest of two that are equal.
    assert best_f1_depth(ranking([1, 2], [0, 6])) == 1
    assert best_f1_depth(ranking([0, 0], [1, 1])) == 0


def test_precision_by_hand() -> None:
    entries = ranking([1, 0, 2, 0], [0, 1, 0, 3])  # precision 1, 1/2, 3/4, 3/7
    assert precise_depth(entries, 0.75) == 3  # under it in between, reached again lower down
    assert precise_depth(entries, 0.8) == 1
    assert precise_depth(ranking([0, 1], [1, 0]), 0.9) == 0


def test_quantile_by_hand() -> None:
    entries = ranking([0] * 4, [1, 2, 3, 4])
    assert quantile_depth(entries, 0.9) == 1  # 1 of 10 frames may fire
    assert quantile_depth(entries, 0.7) == 2
    assert quantile_depth(entries, 0.95) == 0


def test_bound_by_hand() -> None:
    # Single frames, so that losses are 0 or 1: of 59 episodes none may fire at a level of 5 %, 0.95^59 = 0.0485; of 93 one
    # may, P(Binomial(93, 0.05) <= 1) = 0.0500; of 92 not, 0.0522.
    assert bounded_depth(ranking([1, 0], [0, 59], [0, 59]), 59, 0.05, 0.95) == 1
    assert bounded_depth(ranking([1, 0], [0, 58], [0, 58]), 58, 0.05, 0.95) == 0
    assert bounded_depth(ranking([0, 0, 0], [1, 1, 91], [1, 1, 91]), 93, 0.05, 0.95) == 1
    assert bounded_depth(ranking([0, 0, 0], [1, 1, 90], [1, 1, 90]), 92, 0.05, 0.95) == 0
    # The same with episodes of two frames needs Hoeffding-Bentkus, which allows less.
    assert bounded_depth(ranking([0, 0, 0], [2, 2, 182], [1, 1, 91]), 93, 0.05, 0.95) == 0
    assert bounded_depth(ranking([0, 0, 0], [2, 2, 230], [1, 1, 115]), 117, 0.05, 0.95) == 1


@pytest.mark.parametrize("frames", [1, 6])
def test_the_bound_holds_for_a_known_distribution(frames: int) -> None:
    # Frames of an episode share a random effect u, so they are far from independent: score = (u + own) / 2, both uniform.
    # At a threshold t > 1/2, P(score > t) = 2 (1 - t)^2 is the expected loss, exactly.
    rng = np.random.default_rng(frames)
    level, confidence, repeats = 0.1, 0.9, 100
    violations, rates = 0, []
    settings = CalibrationSettings(objective="fpr", level=level, confidence=confidence)
    for _ in range(repeats):
        scores = (rng.random((80, 1)) + rng.random((80, frames))) / 2
        counts = calibration_counts([one_goal(row.tolist(), "." * frames) for row in scores], 1)
        (threshold,) = choose_thresholds([counts], [Goal("g", "a goal")], settings).thresholds
        rates.append(2 * (1 - min(threshold, 1.0)) ** 2)
        violations += rates[-1] > level
    assert violations / repeats <= 1 - confidence + 3 * math.sqrt(0.09 / repeats)
    assert np.mean(rates) > 0.3 * level  # and it is not kept by never firing


GOALS = (Goal("a", "a", "first"), Goal("b", "b", "first"), Goal("c", "c", "second"))


def test_goals_with_too_few_examples_take_the_threshold_of_their_family() -> None:
    # "a" holds in 6 episodes and "b" in 1, both of the first family; "c" of the second family never holds.
    def episode(*holding: str) -> EpisodeScores:
        truth = np.array([[name in holding for name in "abc"], [False] * 3])
        return EpisodeScores(np.where(truth, 0.8, 0.2).astype(np.float32), truth)

    parts = [calibration_counts(part, 3) for part in ([episode("a")] * 3, [episode("a")] * 2 + [episode("a", "b")])]
    for settings in (
        CalibrationSettings(min_examples=5),
        CalibrationSettings(objective="precision", precision=0.9, min_examples=5),
    ):
        a, b, c = choose_thresholds(parts, GOALS, settings).goals
        assert a.reason is None
        assert (b.chosen_from, b.reason) == ("family", "holds in 1 episodes, fewer than 5")
        assert (c.chosen_from, c.reason) == ("all goals", UNDEFINED)
        assert all(0.2 < goal.threshold < 0.8 for goal in (a, b, c))
    # Alone, "b" has no frame in which a threshold could go wrong: with min_examples 1 it takes its own.
    own = choose_thresholds(parts, GOALS, CalibrationSettings(objective="precision", precision=0.9, min_examples=1))
    assert own.goals[1].chosen_from == "goal"


def test_a_goal_that_seldom_fails_to_hold_has_too_few_examples_as_well() -> None:
    always = [one_goal([0.9, 0.8], "XX")] * 8 + [one_goal([0.9, 0.1], "X.")] * 2
    (chosen,) = choose_thresholds(
        [calibration_counts(always[::2], 1), calibration_counts(always[1::2], 1)],
        GOALS[:1],
        CalibrationSettings(min_examples=5),
    ).goals
    assert chosen.reason == "fails to hold in 2 episodes, fewer than 5"
    assert chosen.chosen_from == "all goals"


def test_a_bound_is_never_borrowed() -> None:
    rng = np.random.default_rng(2)
    parts = folds(draw(rng, 58, 3), 3)
    settings = CalibrationSettings(objective="fpr", level=0.05)
    for goal in choose_thresholds(parts, GOALS, settings).goals:
        assert goal.threshold == NEVER
        assert goal.reason == "needs at least 59 episodes with a frame in which it does not hold, got 58"
    parts = folds(draw(rng, 300, 3), 3)
    for goal in choose_thresholds(parts, GOALS, settings).goals:
        assert (goal.chosen_from, goal.reason) == ("goal", None)


def test_what_cannot_be_told_apart_never_fires() -> None:
    constant = folds([one_goal([0.5] * 4, "X...")] * 12, 1)
    for settings in (CalibrationSettings(), CalibrationSettings(objective="quantile", quantile=0.9)):
        (goal,) = choose_thresholds(constant, GOALS[:1], settings).goals
        assert goal.threshold == NEVER
        assert goal.reason == "constant scores: no threshold tells its frames apart"
    wrong = folds([one_goal([0.9, 0.8], ".X")] * 12, 1)
    (goal,) = choose_thresholds(wrong, GOALS[:1], CalibrationSettings(objective="precision", precision=0.9)).goals
    assert (goal.threshold, goal.reason) == (NEVER, "a precision of 0.9 is reached at no threshold")
    unknown = calibration_counts([one_goal([0.9, 0.8], "..")._replace(known=np.zeros((2, 1), bool))], 1)
    (goal,) = choose_thresholds([unknown], GOALS[:1], CalibrationSettings(objective="quantile", quantile=0.5)).goals
    assert (goal.threshold, goal.reason) == (NEVER, "no scores")


def test_one_threshold_for_all_has_the_best_macro_f1() -> None:
    episodes = draw(np.random.default_rng(3), 30, 3, np.array([-1.0, 0.0, 1.0]))
    counts = calibration_counts(episodes, 3)
    curve = mean_f1_curve(counts, range(3))
    for depth in range(1, len(curve.bins), 7):  # the curve against counting again at each threshold
        threshold = threshold_at(curve.bins, depth)
        assert curve.f1[depth - 1] == pytest.approx(outcomes_at(counts, [threshold] * 3).f1.mean())
    assert outcomes_at(counts, [curve.threshold()] * 3).f1.mean() == pytest.approx(curve.f1.max())
    assert mean_f1_curve(calibration_counts([one_goal([0.1, 0.2], "..")], 1), [0]).threshold() == NEVER


def test_a_curve_of_pooled_frames_by_hand() -> None:
    #            0.9  0.8  0.6  0.4
    shown = one_goal([0.9, 0.8, 0.6, 0.4], "X.X.")
    absent = one_goal([0.9, 0.6, 0.4, 0.4], "....")  # a goal that never holds: what fires is false
    both = EpisodeScores(np.hstack([shown.scores, absent.scores]), np.hstack([shown.truth, absent.truth]))
    counts = calibration_counts([both], 2)
    alone = pooled_f1_curve(counts, [0])
    assert alone.f1.tolist() == pytest.approx([2 * 1 / (1 + 2), 2 * 1 / (2 + 2), 2 * 2 / (3 + 2), 2 * 2 / (4 + 2)])
    pooled = pooled_f1_curve(counts, [0, 1])  # 2, 3, 5 and 8 frames fire
    assert pooled.f1.tolist() == pytest.approx([2 * 1 / (2 + 2), 2 * 1 / (3 + 2), 2 * 2 / (5 + 2), 2 * 2 / (8 + 2)])
    precise = pooled_f1_curve(counts, [0, 1], min_precision=0.45)  # 1/2, 1/3, 2/5, 2/8
    assert precise.f1.tolist() == pytest.approx([0.5, -1, -1, -1])
    assert precise.threshold() > 0.8
    unreached = pooled_f1_curve(counts, [0, 1], min_precision=0.99)  # then the highest there is
    assert unreached.f1.tolist() == precise.f1.tolist()


def test_the_precision_of_the_labels_must_not_fall() -> None:
    rng = np.random.default_rng(5)
    goals = tuple(Goal(f"g{number}", f"goal {number}", "one") for number in range(6))
    parts = folds(draw(rng, 40, 6), 6)
    free = choose_thresholds(parts, goals, CalibrationSettings())
    before = OperatingPoint(parts, [0.9] * 6)
    bound = choose_thresholds(parts, goals, CalibrationSettings(), before)
    whole = merge_counts(parts)
    precision = before.outcomes().precision
    assert precision is not None
    freely, bounded = (outcomes_at(whole, chosen.thresholds) for chosen in (free, bound))
    assert freely.precision is not None
    assert bounded.precision is not None
    assert freely.precision < precision <= bounded.precision
    assert bounded.pooled_f1 >= before.outcomes().pooled_f1  # and within that it is the best
    low = OperatingPoint(parts, [0.0] * 6)  # of labels that fire everywhere there is nothing to keep
    assert choose_thresholds(parts, goals, CalibrationSettings(), low).thresholds == free.thresholds


def test_strength_follows_how_much_goals_differ() -> None:
    rng = np.random.default_rng(4)
    alike = tuple(Goal(f"g{number}", f"goal {number}", "one") for number in range(12))
    same = choose_thresholds(folds(draw(rng, 60, 12), 12), alike, CalibrationSettings())
    assert same.strength == math.inf
    assert len(set(same.thresholds)) == 1
    apart = np.linspace(-3, 3, 12)
    episodes = draw(rng, 120, 12, apart)
    chosen = choose_thresholds(folds(episodes, 12), alike, CalibrationSettings())
    assert chosen.strength in STRENGTHS[:4]
    assert all(low < high for low, high in itertools.pairwise(chosen.thresholds[::3]))
    fresh = calibration_counts(draw(rng, 200, 12, apart), 12)
    one = mean_f1_curve(calibration_counts(episodes, 12), range(12)).threshold()
    assert outcomes_at(fresh, chosen.thresholds).f1.mean() > outcomes_at(fresh, [one] * 12).f1.mean() + 0.05


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"objective": "recall"}, r"objective must be one of f1, precision, fpr, quantile, got 'recall'"),
        ({"objective": "precision"}, r"precision must be greater than 0 and less than 1 .* 'precision', got None"),
        ({"objective": "fpr"}, r"level must be greater than 0 and less than 1 .* 'fpr', got None"),
        ({"objective": "fpr", "level": 0.1, "confidence": 1.0}, r"confidence must be .* got 1.0; give one"),
        ({"objective": "quantile", "quantile": 0.0}, r"quantile must be greater than 0 .* got 0.0"),
        ({"objective": "f1", "level": 0.1}, r"level must be left out for the objective 'f1', got 0.1"),
        ({"min_examples": 0}, r"min_examples must be at least 1, got 0"),
    ],
)
def test_settings_are_checked(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CalibrationSettings(**fields)
