import numpy as np
import pytest

from vlm_rewards.labelers.scoring.prompts import average_prompts, check_templates, fill_templates


def test_fill_templates_puts_the_goal_in_and_leaves_other_braces() -> None:
    assert fill_templates(("{goal}", "a photo of {goal} {0}"), "a {red} ball") == [
        "a {red} ball",
        "a photo of a {red} ball {0}",
    ]


def test_average_of_one_prompt_is_the_prompt() -> None:
    embeddings = np.array([[[0.6, 0.8]]], dtype=np.float32)
    assert np.array_equal(average_prompts(embeddings, ["a"]), embeddings[:, 0])


def test_average_is_the_mean_made_unit_length() -> None:
    # (1, 0) and (0, 1) have the mean (1/2, 1/2), of length sqrt(1/2): (sqrt(1/2), sqrt(1/2)). Equal prompts stay.
    embeddings = np.array([[[1, 0], [0, 1]], [[0.6, 0.8], [0.6, 0.8]]], dtype=np.float32)
    half = np.sqrt(0.5)
    np.testing.assert_allclose(average_prompts(embeddings, ["a", "b"]), [[half, half], [0.6, 0.8]], atol=1e-7)


def test_prompts_that_cancel_out_are_refused() -> None:
    with pytest.raises(ValueError, match="must have a direction, got length 0 for 'b'; use fewer"):
        average_prompts(np.array([[[1, 0], [1, 0]], [[1, 0], [-1, 0]]], dtype=np.float32), ["a", "b"])


@pytest.mark.parametrize(
    ("templates", "match"),
    [
        ((), "at least one template, got none"),
        ("{goal}", "must be a list of texts, got the text"),
        (("a photo",), r"must hold \{goal\} exactly once, got 'a photo'"),
        (("{goal} {goal}",), "exactly once"),
        (("a photo of {goal}", "{goal} {x}"), r"no braces but \{goal\}, got '\{goal\} \{x\}'; .* remove them"),
        (("{goal} {}",), "no braces but"),
        (("{{goal}}",), "no braces but"),
        (("{goal} {x",), "no braces but"),
        (("{goal}", "{goal}"), "must occur once"),
    ],
)
def test_bad_templates_are_refused(templates: tuple[str, ...], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        check_templates(templates)


def test_templates_become_a_tuple() -> None:
    assert check_templates(["{goal}", "a {goal}"]) == ("{goal}", "a {goal}")
