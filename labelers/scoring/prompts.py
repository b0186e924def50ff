"""Prompt templates: how a goal's text is put to the text encoder, and the mean over several prompts or pictures.

Shape letters: P templates, M texts, D size of an embedding.
"""

from collections.abc import Sequence

import numpy as np

DEFAULT_TEMPLATES = ("{goal}",)
"""The goal's text alone."""

PLACEHOLDER = "{goal}"


def check_templates(templates: Sequence[str]) -> tuple[str, ...]:
    """Returns the templates as a tuple, after checking that each holds `{goal}` once and no other braces, and none occurs twice.

    Raises:
        ValueError: No template, one without or with several `{goal}`, one with other braces, or a duplicate.
    """
    if isinstance(templates, str):
        raise ValueError(f"templates must be a list of texts, got the text {templates!r}; put it into a list")
    checked = tuple(templates)
    if not checked:
        raise ValueError(f"templates must hold at least one template, got none; the plain one is {PLACEHOLDER!r}")
    for template in checked:
        if not isinstance(template, str) or template.count(PLACEHOLDER) != 1:
            raise ValueError(
                f"a template must hold {PLACEHOLDER} exactly once, got {template!r}; write it where the goal goes"
            )
        if {"{", "}"} & set(template.replace(PLACEHOLDER, "")):
            raise ValueError(
                f"a template must hold no braces but {PLACEHOLDER}, got {template!r}; nothing fills in others: remove them"
            )
        if checked.count(template) > 1:
            raise ValueError(f"every template must occur once, got {template!r} several times; remove the others")
    return checked


def fill_templates(templates: Sequence[str], text: str) -> list[str]:
    """Fills a text into every template: P prompts. Other braces in either stay as they are."""
    return [template.replace(PLACEHOLDER, text) for template in templates]


def average_prompts(embeddings: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Averages the embeddings of a text's prompts: the mean of the unit vectors, made a unit vector again.

        e = m / |m|,    m = (1/P) sum over p of e_p,    |e_p| = 1

    One prompt gives its embedding unchanged. This is the ensemble of CLIP's zero-shot classifiers (Radford et al. 2021,
    section 3.1.4); VLM-RM averages without the last step, and its goal-baseline distances then differ.

    Args:
        embeddings: `[M, P, D]` float32, unit length: of prompts, or of a goal's pictures.
        names: M names for messages.

    Returns:
        `[M, D]` float32, unit length.

    Raises:
        ValueError: The prompts or pictures of one cancel out, so that their mean has no direction.
    """
    assert (embeddings.ndim, embeddings.dtype) == (3, np.float32), (embeddings.shape, embeddings.dtype)
    if embeddings.shape[1] == 1:
        return embeddings[:, 0]
    mean = embeddings.astype(np.float64).mean(axis=1)
    norm = np.linalg.norm(mean, axis=1, keepdims=True)
    if not (norm > 1e-6).all():
        raise ValueError(
            f"the mean over prompts or pictures must have a direction, got length {norm.min():.3g} for "
            f"{names[int(norm.argmin())]!r}; use fewer of them"
        )
    return (mean / norm).astype(np.float32)
