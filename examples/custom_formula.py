"""A reward formula of your own: how far a goal is above the best of its negatives.

Install the examples, so that every worker process knows the formula, and run this: it compares the formula with the default one.

    pip install ./examples
    python examples/custom_formula.py
"""

import numpy as np

import vlm_rewards as vr
from vlm_rewards.labelers.scoring.formulas import Context, Formula


def margin(similarity: np.ndarray, context: Context) -> np.ndarray:
    """The cosine of a frame with the goal, minus the highest cosine with one of the goal's negatives.

    Args:
        similarity: `[N, C]` float64, cosines of N frames with C candidates; the first G candidates are the goals.
        context: What else is known; here the negatives, whose mask is `[C, G]`.

    Returns:
        `[N, G]` float32, from -2 to 2. A row must depend on that row of `similarity` alone.
    """
    assert context.negatives is not None
    scores = np.empty((len(similarity), context.num_goals), np.float32)
    for goal in range(context.num_goals):
        rivals = similarity[:, context.negatives.mask[:, goal]]
        scores[:, goal] = similarity[:, goal] - rivals.max(axis=1)
    return scores


MARGIN = Formula(
    function=margin,
    summary="cosine above the best negative",
    needs_negatives=True,
    default_threshold=0.0,
    score_range=(-2.0, 2.0),
)


def main() -> None:
    """Labels a small corpus by both formulas and prints how well the goals are ranked."""
    vr.record(output="corpus/", envs=["BabyAI-GoToLocal-v0"], episodes=8)
    goals = vr.read_goals("corpus/goals.jsonl")
    for formula in ("softmax", "margin"):
        labeler = vr.load_labeler("reference-s", goals, formula=formula)
        vr.label("corpus/", labeler.settings, output=f"labels-{formula}/")
        quality = vr.evaluate("corpus/", f"labels-{formula}/", output=f"report-{formula}/")
        print(f"{formula}: mean average precision {quality['overall']['mean_average_precision']:.3f}")


if __name__ == "__main__":
    main()
