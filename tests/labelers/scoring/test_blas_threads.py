import dataclasses

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from vlm_rewards.labelers.scoring import formulas
from vlm_rewards.labelers.scoring.blas_threads import one_blas_thread
from vlm_rewards.labelers.scoring.formulas import FORMULAS, Context, score_frames


def num_threads() -> set[int]:
    """Threads of every BLAS that is loaded."""
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_a_block_has_one_thread_and_what_was_before_comes_back() -> None:
    with threadpool_limits(limits=2, user_api="blas"):
        with one_blas_thread():
            assert num_threads() == {1}
            with one_blas_thread():
                assert num_threads() == {1}
            assert num_threads() == {1}
        assert num_threads() == {2}
        with pytest.raises(KeyError), one_blas_thread():
            raise KeyError
        assert num_threads() == {2}


def test_scores_are_computed_by_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def spy(similarity: np.ndarray, context: Context) -> np.ndarray:
        seen.append(num_threads())
        return similarity.astype(np.float32)

    monkeypatch.setitem(formulas.FORMULAS, "cosine", dataclasses.replace(FORMULAS["cosine"], function=spy))
    with threadpool_limits(limits=2, user_api="blas"):
        score_frames("cosine", np.eye(3, dtype=np.float32), np.eye(3), Context(num_goals=3))
        assert num_threads() == {2}
    assert seen == [{1}]
