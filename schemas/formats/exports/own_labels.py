"""Marks rewards and successes that an export wrote, so that labels are never judged by themselves.

LeRobot         info.json     features/next.reward/vlm_rewards     {"labels_of": "openai/clip-vit-base-patch32"}
HDF5, Minari    attribute vlm_rewards of each data set of rewards; of Arrow and Parquet, metadata of the column
RLDS            vlm_rewards.json beside features.json
Parquet, tars   columns and members of names of our own: vlm.reward, vlm_reward.npy

`Corpus.labelled_by` says it of a unit, and `evaluate --truth success` refuses such values.
"""

import json
from collections.abc import Mapping

KEY = "vlm_rewards"
FILE = f"{KEY}.json"
REWARDS, SUCCESS = "rewards", "success"
"""The fields of an episode that may be labels, as readers are asked for them."""
_LABELS_OF = "labels_of"
_UNNAMED = "a model that is not named"


def mark_of(model: str) -> dict[str, str]:
    """Returns the mark of values that are labels of a model."""
    return {_LABELS_OF: model}


def mark_text(model: str) -> str:
    """Returns the mark as JSON."""
    return json.dumps(mark_of(model), ensure_ascii=False)


def model_of(mark: object) -> str | None:
    """Returns the name of the model of a mark, or of its JSON; None where it is none."""
    if isinstance(mark, str | bytes):
        try:
            mark = json.loads(mark)
        except ValueError:
            return None
    return str(mark[_LABELS_OF]) if isinstance(mark, Mapping) and _LABELS_OF in mark else None


def model_of_name(name: str) -> str | None:
    """Returns what stands for the model where the name of a column or member alone tells that an export wrote it."""
    return _UNNAMED if name.rpartition("/")[2].partition(".")[0] == "vlm" or ".vlm_" in name else None
