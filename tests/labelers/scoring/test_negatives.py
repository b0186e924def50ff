import numpy as np
import pytest

from vlm_rewards.labelers.scoring.negatives import NegativeSettings, choose_negatives
from vlm_rewards.schemas.goals import Goal

# b and c are two wordings of one state, so they share a group.
GOALS = (
    Goal("a", "ball"),
    Goal("b", "key left of box", group="pair"),
    Goal("c", "box right of key", group="pair"),
    Goal("d", "door"),
)


def test_all_other_goals_but_those_of_the_group() -> None:
    negatives = choose_negatives(NegativeSettings(kind="all"), GOALS)
    assert negatives.texts == ("ball", "key left of box", "box right of key", "door")
    expected = [
        # negatives of  a  b  c  d
        [0, 1, 1, 1],  # a is one of b, c, d
        [1, 0, 0, 1],  # b is none of c: same group
        [1, 0, 0, 1],
        [1, 1, 1, 0],
    ]
    assert np.array_equal(negatives.mask, np.array(expected, dtype=bool))


def test_explicit_texts_are_shared_and_a_goals_own_text_is_left_out() -> None:
    # "nothing" is a new candidate. "key left of box" is goal b: a negative of a and d, not of b, nor of c in its group.
    negatives = choose_negatives(NegativeSettings(kind="explicit", explicit=("nothing", "key left of box")), GOALS)
    assert negatives.texts == ("ball", "key left of box", "box right of key", "door", "nothing")
    expected = [[0, 0, 0, 0], [1, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]
    assert np.array_equal(negatives.mask, np.array(expected, dtype=bool))


def test_explicit_texts_are_added_to_all() -> None:
    negatives = choose_negatives(NegativeSettings(kind="all", explicit=("nothing", "ball")), GOALS)
    assert negatives.texts[4:] == ("nothing",)
    assert np.array_equal(negatives.mask[:4], choose_negatives(NegativeSettings(kind="all"), GOALS).mask)
    assert negatives.mask[4].all()


def test_a_negative_that_is_the_text_of_a_goal_of_the_group_is_left_out() -> None:
    # b names the text of c, which is in its group.
    goals = (GOALS[0], Goal("b", "key left of box", group="pair", negatives=("box right of key", "no key")), *GOALS[2:])
    negatives = choose_negatives(NegativeSettings(kind="explicit", explicit=("nothing",)), goals)
    assert negatives.texts[4:] == ("nothing", "no key")
    assert np.flatnonzero(negatives.mask[:, 1]).tolist() == [4, 5]


def test_the_other_goals_of_the_family_and_the_texts_a_goal_names_itself() -> None:
    goals = (
        Goal("a", "at a ball", family="find", negatives=("at nothing",)),
        Goal("b", "at a key", family="find", negatives=("at nothing", "has a key")),
        Goal("c", "has a key", family="lift"),
        Goal("d", "has a ball", family="lift"),
    )
    negatives = choose_negatives(NegativeSettings(), goals)
    assert negatives.texts == ("at a ball", "at a key", "has a key", "has a ball", "at nothing")
    expected = [
        # negatives of  a  b  c  d
        [0, 1, 0, 0],  # "at a ball" is one of b alone: c and d are of another family
        [1, 0, 0, 0],
        [0, 1, 0, 1],  # "has a key" is one of d, and of b, which names it
        [0, 0, 1, 0],
        [1, 1, 0, 0],  # named by a and b
    ]
    assert np.array_equal(negatives.mask, np.array(expected, dtype=bool))


def test_auto_takes_texts_alone_where_every_goal_has_some_and_the_family_elsewhere() -> None:
    named = tuple(Goal(goal.id, goal.text, negatives=("a room",)) for goal in GOALS)
    for goals, settings, same_as in (
        (GOALS, NegativeSettings(), NegativeSettings(kind="family")),
        (named[:2] + GOALS[2:], NegativeSettings(), NegativeSettings(kind="family")),
        (named, NegativeSettings(), NegativeSettings(kind="explicit")),
        (GOALS, NegativeSettings(explicit=("x",)), NegativeSettings(kind="explicit", explicit=("x",))),
    ):
        assert choose_negatives(settings, goals).digest == choose_negatives(same_as, goals).digest


def many_goals(number: int) -> tuple[Goal, ...]:
    return tuple(
        Goal(f"g{index}", f"text {index}", group=f"pair{index // 2}" if index < 10 else None) for index in range(number)
    )


def test_sampled_negatives_are_k_other_goals_and_fixed() -> None:
    goals = many_goals(40)
    settings = NegativeSettings(kind="sampled", k=7, seed=3)
    mask = choose_negatives(settings, goals).mask
    assert np.array_equal(mask.sum(axis=0), np.full(40, 7))
    assert not mask.diagonal().any()
    assert not any(mask[index ^ 1, index] for index in range(10))
    assert np.array_equal(mask, choose_negatives(settings, goals).mask)
    assert not np.array_equal(mask, choose_negatives(NegativeSettings(kind="sampled", k=7, seed=4), goals).mask)


def test_every_goal_draws_by_itself() -> None:
    # One seed for all goals would give each the goals at the same places among its others: 3, 17, 25, say.
    goals = tuple(Goal(f"g{index}", f"text {index}") for index in range(40))
    mask = choose_negatives(NegativeSettings(kind="sampled", k=4), goals).mask
    places = {tuple(np.flatnonzero(np.delete(mask[:, index], index)).tolist()) for index in range(40)}
    assert len(places) == 40


def test_sampled_negatives_are_drawn_uniformly() -> None:
    # 400 seeds x 10 goals x k = 3 of 9 others: each ordered pair is drawn 400 / 3 = 133 times on average, with standard
    # deviation sqrt(400 * 1/3 * 2/3) = 9.4; all 90 pairs lie within 5 of these.
    goals = many_goals(20)[10:]
    counts = sum(
        choose_negatives(NegativeSettings(kind="sampled", k=3, seed=seed), goals).mask.astype(int)
        for seed in range(400)
    )
    others = np.asarray(counts)[~np.eye(10, dtype=bool)]
    assert abs(others - 400 / 3).max() < 5 * 9.4


def test_a_sample_does_not_depend_on_the_order_of_other_goals_samples() -> None:
    # Each goal has a generator of its own: its draw is the same when another goal's text changes.
    goals = many_goals(40)
    changed = (*goals[:-1], Goal("g39", "another text"))
    settings = NegativeSettings(kind="sampled", k=5)
    assert np.array_equal(choose_negatives(settings, goals).mask, choose_negatives(settings, changed).mask)


def test_digest_tells_texts_and_masks_apart() -> None:
    goals = many_goals(12)
    settings = [
        NegativeSettings(),
        NegativeSettings(explicit=("x",)),
        NegativeSettings(explicit=("y",)),
        NegativeSettings(kind="sampled", k=4),
        NegativeSettings(kind="sampled", k=4, seed=1),
    ]
    digests = {choose_negatives(one, goals).digest for one in settings}
    assert len(digests) == 5
    assert all(len(digest) == 32 for digest in digests)


def test_more_samples_than_goals_are_refused() -> None:
    # a can have b, c and d; b only a and d.
    with pytest.raises(ValueError, match="at most the 2 goals that can be negatives of 'b', got 3"):
        choose_negatives(NegativeSettings(kind="sampled", k=3), GOALS)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"kind": "none"}, "must be one of auto, family, all, sampled, explicit, got 'none'"),
        ({"kind": "sampled"}, "k of at least 1, got None"),
        ({"kind": "sampled", "k": 0}, "k of at least 1, got 0"),
        ({"k": 4}, "k must be left out for negatives of kind 'auto', got 4"),
        ({"seed": -1}, "seed of the negatives must be 0 or more, got -1"),
        ({"explicit": "nothing"}, "explicit must be a list of texts: got 'nothing'. Put it into a list"),
        ({"explicit": (" ",)}, "must be a text that is not empty, got ' '"),
        ({"explicit": ("x", "x")}, "must occur once, got 'x'"),
    ],
)
def test_bad_settings_are_refused(settings: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        NegativeSettings(**settings)
