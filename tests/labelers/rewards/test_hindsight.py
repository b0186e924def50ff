import numpy as np
import pytest

from vlm_rewards.labelers.domains.babyai.goals import goal_bank
from vlm_rewards.labelers.rewards.hindsight import (
    HindsightSettings,
    RelabelledGoal,
    Segment,
    achievements,
    choose_goals,
    goal_groups,
    original_goals,
    quotas,
    segments,
)
from vlm_rewards.schemas.goals import Goal


def holds(*columns: str) -> np.ndarray:
    """[F, G] bool from one text a goal, "." and "X" a frame."""
    return np.array([[mark == "X" for mark in column] for column in columns]).T


def choose(achieved: np.ndarray, **given: object) -> list[RelabelledGoal]:
    num_goals = achieved.shape[1]
    arguments = {
        "original": None,
        "groups": np.arange(num_goals),
        "counts": np.ones(num_goals, np.int64),
        "settings": HindsightSettings(),
        "episode_id": "e",
        **given,
    }
    return choose_goals(achieved, **arguments)


def test_achievements_are_rising_edges_after_the_first_frame() -> None:
    #                 frame 0 holds: not an achievement
    begins = achievements(holds("XX.X", "..X.", "...."))
    assert begins.T.tolist() == [[False, False, False, True], [False, False, True, False], [False] * 4]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("..XX.XX", [Segment(0, 2), Segment(4, 5)]),  # the module's picture
        (".X", [Segment(0, 1)]),  # achieved by the first action
        ("XX..X", [Segment(2, 4)]),  # holds in frames 0 and 1: begins to be unachieved in frame 2
        ("X.X", [Segment(1, 2)]),
        ("XXX", []),  # held all the time: the agent did nothing for it
        ("...", []),
        ("X..", []),  # lost, never regained
        (".X.X.X", [Segment(0, 1), Segment(2, 3), Segment(4, 5)]),
    ],
)
def test_segments_by_hand(column: str, expected: list[Segment]) -> None:
    assert segments(holds(column)[:, 0]) == expected


def test_a_segment_has_one_success_and_it_is_its_last_step() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        achieved = random.random(random.integers(2, 12)) < random.random()
        rewards = achieved[1:]  # r_t looks at frame t+1
        for start, stop in segments(achieved):
            assert not achieved[start]
            assert rewards[start:stop].tolist() == [False] * (stop - start - 1) + [True]


@pytest.mark.parametrize(
    ("number", "ratio", "expected"),
    [
        (4, (0.2, 0.5, 0.3), (1, 2, 1)),  # exact 0.8, 2.0, 1.2: the largest remainder is the first
        (1, (0.2, 0.5, 0.3), (0, 1, 0)),
        (10, (0.2, 0.5, 0.3), (1, 6, 3)),  # exact 2, 5, 3, but one original: 9 by 5:3 are 5.625 and 3.375
        (3, (0, 1, 1), (0, 2, 1)),  # 1.5 and 1.5: the earlier kind first
        (5, (1, 0, 0), (1, 0, 0)),
        (5, (0, 0, 1), (0, 0, 5)),
    ],
)
def test_quotas_by_hand(number: int, ratio: tuple[float, float, float], expected: tuple[int, int, int]) -> None:
    assert quotas(number, ratio) == expected


def test_an_instruction_finds_its_goal_by_wording_or_text() -> None:
    goals = [Goal(id="a", text="At the Ball.", instructions=("go to  the ball",)), Goal(id="b", text="go to the ball")]
    assert original_goals(goals) == {"go to the ball": 0, "at the ball": 0}
    wordings = original_goals(goal_bank())
    assert goal_bank()[wordings["put the red ball next to a blue box"]].id == "place-red-ball-next-to-blue-box"


def test_goals_of_one_group_share_a_number() -> None:
    goals = [
        Goal(id="a", text="1"),
        Goal(id="b", text="2", group="g"),
        Goal(id="c", text="3"),
        Goal(id="d", text="4", group="g"),
    ]
    assert goal_groups(goals).tolist() == [0, 1, 2, 1]


def test_the_original_goal_ends_at_its_first_achievement() -> None:
    (chosen,) = choose(holds("..X.X"), original=0)
    assert chosen == RelabelledGoal(goal=0, kind="original", start=0, stop=2, terminated=True)


def test_an_original_goal_not_achieved_has_the_whole_episode() -> None:
    (chosen,) = choose(holds("....."), original=0, counts=np.array([0]))
    assert chosen == RelabelledGoal(goal=0, kind="original", start=0, stop=4, terminated=False)


def test_an_original_goal_that_holds_from_the_start_is_not_used() -> None:
    assert choose(holds("XXX.."), original=0) == []


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("first", {0: Segment(0, 1), 1: Segment(0, 3), 2: Segment(0, 1)}),
        # Goal 0 began to hold for the last time in frame 4; goal 1 in frame 3; goal 2 no longer holds at the end.
        ("final", {0: Segment(3, 4), 1: Segment(0, 3)}),
    ],
)
def test_strategies_by_hand(strategy: str, expected: dict[int, Segment]) -> None:
    settings = HindsightSettings(strategy=strategy, goals_per_episode=5, ratio=(0, 1, 0))
    chosen = choose(holds(".XX.XX", "...XXX", ".X....", "XXXXXX"), settings=settings)
    assert {item.goal: Segment(item.start, item.stop) for item in chosen} == expected
    assert all(item.terminated and item.kind == "hindsight" for item in chosen)


def test_future_draws_each_achievement_about_equally_often() -> None:
    settings = HindsightSettings(strategy="future", goals_per_episode=1, ratio=(0, 1, 0))
    achieved = holds(".X.X.X.X")
    stops = [choose(achieved, settings=settings, episode_id=f"e{i}")[0].stop for i in range(400)]
    # Four achievements: 100 each, with a standard deviation of 8.7.
    assert all(70 < stops.count(stop) < 130 for stop in (1, 3, 5, 7))


def test_negatives_are_goals_never_achieved_of_no_achieved_group() -> None:
    #   goal     0      1      2      3      4      5     2 holds only in frame 0; 3 shares the group of 1; 4 is achieved
    achieved = holds("....", "..X.", "X...", "....", "....", "....")  # by no episode of the corpus, so it says nothing
    groups = np.array([0, 1, 2, 1, 4, 5])
    settings = HindsightSettings(goals_per_episode=6, ratio=(0, 0, 1))
    chosen = choose(achieved, groups=groups, counts=np.array([3, 3, 3, 3, 0, 3]), settings=settings)
    assert {item.goal for item in chosen} == {0, 5}
    assert all((item.kind, item.start, item.stop, item.terminated) == ("negative", 0, 3, False) for item in chosen)


def test_the_original_goals_group_is_neither_hindsight_nor_negative() -> None:
    # Goals 0 and 1 mean the same; the labels found only 1. The original stands as failed; 1 must not contradict it.
    settings = HindsightSettings(goals_per_episode=8, ratio=(0.2, 0.4, 0.4))
    chosen = choose(holds("....", "..X."), original=0, groups=np.array([0, 0]), settings=settings)
    assert [(item.goal, item.kind) for item in chosen] == [(0, "original")]
    # Without a share for original goals, 1 is an achievement like any other.
    settings = HindsightSettings(goals_per_episode=8, ratio=(0, 1, 1))
    chosen = choose(holds("....", "..X."), original=0, groups=np.array([0, 0]), settings=settings)
    assert [(item.goal, item.kind) for item in chosen] == [(1, "hindsight")]


def test_a_group_is_one_achievement_and_either_goal_stands_for_it() -> None:
    settings = HindsightSettings(goals_per_episode=3, ratio=(0, 1, 0))
    achieved, groups = holds("..X", "..X", ".XX"), np.array([0, 0, 2])
    drawn = [
        {item.goal for item in choose(achieved, groups=groups, settings=settings, episode_id=f"e{i}")}
        for i in range(200)
    ]
    assert all(goals in ({0, 2}, {1, 2}) for goals in drawn)
    assert 70 < sum(0 in goals for goals in drawn) < 130  # 100, with a standard deviation of 7


def test_draws_depend_on_seed_and_episode_alone() -> None:
    achieved = np.random.default_rng(0).random((20, 30)) < 0.1
    names = [f"e{i}" for i in range(20)]
    forwards = {name: choose(achieved, episode_id=name) for name in names}
    backwards = {name: choose(achieved, episode_id=name) for name in reversed(names)}
    assert forwards == backwards
    assert len({tuple(item.goal for item in chosen) for chosen in forwards.values()}) > 10
    assert any(
        choose(achieved, episode_id=name, settings=HindsightSettings(seed=1)) != forwards[name] for name in names
    )


def test_relations_on_random_episodes() -> None:
    random = np.random.default_rng(1)
    groups = np.array([0, 1, 2, 0, 1, 5, 6, 7, 8, 9])
    for i in range(300):
        achieved = random.random((random.integers(1, 15), 10)) < random.random() * 0.4
        original = int(random.integers(10)) if random.random() < 0.7 else None
        strategy = ("first", "final", "future")[i % 3]
        settings = HindsightSettings(
            strategy=strategy, goals_per_episode=int(random.integers(1, 9)), balance=random.random()
        )
        counts = random.integers(0, 50, 10)
        chosen = choose(
            achieved, original=original, groups=groups, counts=counts, settings=settings, episode_id=f"e{i}"
        )
        by_kind = [item.kind for item in chosen]
        limits = zip(
            ("original", "hindsight", "negative"), quotas(settings.goals_per_episode, settings.ratio), strict=True
        )
        assert all(by_kind.count(kind) <= limit for kind, limit in limits)
        assert len({groups[item.goal] for item in chosen}) == len(chosen)
        held_groups = set(groups[achieved.any(axis=0)])
        for item in chosen:
            rewards = achieved[1:, item.goal][item.start : item.stop]
            assert rewards.sum() == item.terminated
            assert rewards[-1] == item.terminated
            if item.kind == "negative":
                assert groups[item.goal] not in held_groups


def test_rare_goals_are_drawn_first_in_proportion_to_one_over_their_count() -> None:
    # One of two goals, weights 1/1 and 1/4 by balance 1: 80 % of 1000, with a standard deviation of 13.
    settings = HindsightSettings(goals_per_episode=1, ratio=(0, 1, 0), balance=1.0)
    achieved, counts = holds(".X", ".X"), np.array([1, 4])
    drawn = [choose(achieved, counts=counts, settings=settings, episode_id=f"e{i}")[0].goal for i in range(1000)]
    assert 750 < drawn.count(0) < 850
    settings = HindsightSettings(goals_per_episode=1, ratio=(0, 1, 0), balance=0.0)
    drawn = [choose(achieved, counts=counts, settings=settings, episode_id=f"e{i}")[0].goal for i in range(1000)]
    assert 440 < drawn.count(0) < 560


def test_negatives_are_drawn_as_often_as_hindsight_draws_use_a_goal() -> None:
    # Without balance hindsight uses goals as often as they are achieved, 1 to 4; so do negatives: 20 % of 1000.
    achieved, counts = holds("..", ".."), np.array([1, 4])
    for balance, low, high in ((0.0, 150, 250), (1.0, 440, 560)):
        settings = HindsightSettings(goals_per_episode=1, ratio=(0, 0, 1), balance=balance)
        drawn = [choose(achieved, counts=counts, settings=settings, episode_id=f"e{i}")[0].goal for i in range(1000)]
        assert low < drawn.count(0) < high


def test_an_episode_of_one_frame_has_no_steps_and_no_goals() -> None:
    assert choose(holds("X", "."), original=1) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy": "last"}, "strategy must be one of first, final, future, got 'last'"),
        ({"goals_per_episode": 0}, "goals_per_episode must be at least 1, got 0"),
        ({"ratio": (1, 2)}, "ratio must be three shares .* got .1.0, 2.0"),
        ({"ratio": (1, -1, 1)}, "none below 0"),
        ({"ratio": (0, 0, 0)}, "not all 0"),
        ({"ratio": (0, float("nan"), 1)}, "ratio must be three shares"),
        ({"balance": 1.5}, "balance must be between 0 and 1, got 1.5"),
        ({"balance": float("nan")}, "balance must be between 0 and 1, got nan"),
    ],
)
def test_bad_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HindsightSettings(**settings)
