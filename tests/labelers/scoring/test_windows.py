import numpy as np
import pytest

from vlm_rewards.labelers.scoring.windows import EpisodeScorer, Windows, WindowSettings


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)[:, None]


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_means_and_maxima_by_hand() -> None:
    # w = 3: the first windows hold the one and two frames that there are; 1 | (1+4)/2 | (1+4+1)/3 | (4+1+7)/3 | (1+7+1)/3.
    scores = column(1, 4, 1, 7, 1)
    mean = Windows(WindowSettings(frames=3)).push(["e"] * 5, scores)
    assert mean.dtype == np.float32
    assert mean.ravel().tolist() == [1.0, 2.5, 2.0, 4.0, 3.0]
    highest = Windows(WindowSettings(frames=3, reduce="max")).push(["e"] * 5, scores)
    assert highest.ravel().tolist() == [1.0, 4.0, 4.0, 7.0, 7.0]


def test_one_frame_changes_no_bit() -> None:
    scores = np.random.default_rng(0).random((9, 4)).astype(np.float32)
    assert Windows(WindowSettings()).push(["e"] * 9, scores) is scores


@pytest.mark.parametrize("reduce", ["mean", "max"])
@pytest.mark.parametrize("frames", [2, 5, 40])
def test_values_do_not_depend_on_how_frames_come(frames: int, reduce: str) -> None:
    # Two live environments in turns, whole episodes, and pieces of any size give the same bits, those of a plain loop.
    random = np.random.default_rng(1)
    episodes = {key: random.normal(size=(count, 3)).astype(np.float32) for key, count in (("a", 30), ("b", 17))}
    settings = WindowSettings(frames=frames, reduce=reduce)
    whole = {key: Windows(settings).push([key] * len(rows), rows) for key, rows in episodes.items()}
    for key, rows in episodes.items():
        for index in range(len(rows)):
            window = rows[max(0, index - frames + 1) : index + 1].astype(np.float64)
            expected = window.mean(axis=0) if reduce == "mean" else window.max(axis=0)
            np.testing.assert_allclose(whole[key][index], expected, rtol=1e-6, atol=1e-7)
    live = Windows(settings)
    turns = []
    for index in range(30):
        keys = [key for key in episodes if index < len(episodes[key])]
        turns.append((keys, live.push(keys, np.stack([episodes[key][index] for key in keys]))))
    for key in episodes:
        steps = [values[keys.index(key)] for keys, values in turns if key in keys]
        assert np.array_equal(np.stack(steps), whole[key])
    pieces = Windows(settings)
    cuts = [pieces.push(["a"] * len(part), part) for part in np.split(episodes["a"], [1, 3, 3, 20])]
    assert np.array_equal(np.concatenate(cuts), whole["a"])


def test_an_episode_does_not_look_into_the_one_before() -> None:
    windows = Windows(WindowSettings(frames=2))
    # Two episodes in one call: 1 | 2 of the first; 10 | 15 of the second.
    assert windows.push(["a", "a", "b", "b"], column(1, 3, 10, 20)).ravel().tolist() == [1, 2, 10, 15]
    assert windows.push(["b"], column(40)).ravel().tolist() == [30]
    windows.forget(["b", "never seen"])
    assert windows.push(["b", "a"], column(40, 5)).ravel().tolist() == [40, 4]
    windows.keep_only("a")
    assert windows.push(["b", "a"], column(8, 7)).ravel().tolist() == [8, 6]


def first_numbers(embeddings: np.ndarray) -> np.ndarray:
    return embeddings[:, :1].astype(np.float32)


def test_embeddings_are_averaged_and_made_unit_length_before_they_are_scored() -> None:
    # (1, 0) and (0, 1) have the mean direction (1, 1) / sqrt 2. Over scores the mean of 1 and 0 is 1/2.
    embeddings = np.eye(2, dtype=np.float32)
    for over, expected in (("embeddings", np.sqrt(0.5)), ("scores", 0.5)):
        scorer = EpisodeScorer(first_numbers, WindowSettings(frames=2, over=over))
        assert scorer.push(["e", "e"], embeddings).ravel() == pytest.approx([1.0, expected])
    # The elementwise maximum of (.6, .8) and (.8, .6) is (.8, .8), of direction (1, 1) / sqrt 2.
    scorer = EpisodeScorer(first_numbers, WindowSettings(frames=2, over="embeddings", reduce="max"))
    rows = np.array([[0.6, 0.8], [0.8, 0.6]], dtype=np.float32)
    assert scorer.push(["e", "e"], rows).ravel() == pytest.approx([0.6, np.sqrt(0.5)])


@pytest.mark.parametrize("over", ["embeddings", "scores"])
def test_a_scorer_gives_the_same_bits_however_frames_come(over: str) -> None:
    embeddings = unit(np.random.default_rng(2).normal(size=(23, 48)))
    settings = WindowSettings(frames=4, over=over)
    whole = EpisodeScorer(first_numbers, settings).push(["e"] * 23, embeddings)
    scorer = EpisodeScorer(first_numbers, settings)
    assert np.array_equal(np.concatenate([scorer.push(["e"], row[None]) for row in embeddings]), whole)
    scorer.end(["e"])
    assert np.array_equal(scorer.push(["e"] * 23, embeddings), whole)
    scorer.push(["f"], embeddings[:1])
    scorer.end_all_but("f")
    assert np.array_equal(scorer.push(["e"] * 23, embeddings), whole)


def test_embeddings_that_cancel_out_are_refused() -> None:
    scorer = EpisodeScorer(first_numbers, WindowSettings(frames=2, over="embeddings"))
    with pytest.raises(
        ValueError, match="must have a direction together, got length 0 in episode 'e'; take the window over"
    ):
        scorer.push(["e", "e"], np.array([[1, 0], [-1, 0]], dtype=np.float32))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"frames": 0}, "a window must be of 1 to 1024 frames, got 0"),
        ({"frames": 2.5}, "frames must be a whole number: got 2.5"),
        ({"frames": 1025}, "a window must be of 1 to 1024 frames, got 1025"),
        ({"over": "rewards"}, "a window must be over embeddings or scores, got 'rewards'"),
        ({"reduce": "median"}, "what a window takes must be mean or max, got 'median'"),
    ],
)
def test_bad_settings_are_refused(change: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        WindowSettings(**change)
