"""A stock of frames is drawn once, by any number of processes. No torch here: those need not import it."""

import numpy as np
import pytest

from vlm_rewards.labelers.domains.pretraining import Resources
from vlm_rewards.labelers.reference_models.stock import ROWS, Field, StockPlan, open_stock, whole_parts


def draw(part):
    rng = np.random.default_rng(part)
    return {"frames": rng.integers(0, 256, (ROWS, 4, 4, 3), dtype=np.uint8), "states": np.full((ROWS, 2), part)}


def fail(part):
    raise AssertionError(f"drawn again: {part}")


def draw_first_alone(part):
    return draw(part) if part == 0 else fail(part)


def draw_otherwise(part):
    return {**draw(part), "states": np.full((ROWS, 2), part + 1)}


FIELDS = {"frames": Field((4, 4, 3), "uint8"), "states": Field((2,), "int16")}
PLAN = StockPlan(name="noise", draw=draw, fields=FIELDS, num_frames=3 * ROWS)


def test_a_stock_is_the_same_by_one_process_and_by_two_and_is_drawn_once(tmp_path):
    alone = open_stock(PLAN, Resources("cpu", 1, tmp_path / "alone"))
    shared = open_stock(PLAN, Resources("cpu", 2, tmp_path / "shared"))
    for name, field in FIELDS.items():
        assert alone[name].shape == (3 * ROWS, *field.shape)
        assert np.array_equal(alone[name], shared[name])
    assert np.array_equal(alone["states"][:, 0], np.repeat([0, 1, 2], ROWS))
    assert np.array_equal(alone["frames"][ROWS : 2 * ROWS], draw(1)["frames"])
    again = open_stock(plan_with(draw_first_alone), Resources("cpu", 1, tmp_path / "alone"))
    assert np.array_equal(again["frames"], alone["frames"])


def test_a_stock_of_other_frames_than_are_drawn_now_is_refused(tmp_path):
    open_stock(PLAN, Resources("cpu", 1, tmp_path))
    with pytest.raises(ValueError, match=r"must hold what is drawn now: got other states in .*noise\. Remove it"):
        open_stock(plan_with(draw_otherwise), Resources("cpu", 1, tmp_path))


def plan_with(function):
    return StockPlan(name="noise", draw=function, fields=FIELDS, num_frames=3 * ROWS)


def test_a_stock_that_was_not_finished_is_drawn_anew(tmp_path):
    with pytest.raises(AssertionError, match="drawn again: 0"):
        open_stock(plan_with(fail), Resources("cpu", 1, tmp_path))
    assert np.array_equal(open_stock(PLAN, Resources("cpu", 1, tmp_path))["frames"][:ROWS], draw(0)["frames"])


def test_parts_are_whole():
    assert [whole_parts(count) for count in (0, 1, ROWS, ROWS + 1)] == [ROWS, ROWS, ROWS, 2 * ROWS]
    plan = StockPlan.of("noise", draw, FIELDS, ROWS + 1)
    assert (plan.name, plan.num_frames) == (f"noise-{2 * ROWS}", 2 * ROWS)
