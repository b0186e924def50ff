"""Labels and kept embeddings: sidecar tables, one row per frame, keyed by episode_id and frame_index.

Dense labels hold one list of G scores per frame, in the order of the goals in the metadata. Sparse labels, for thousands
of goals, hold only the goals whose score is over the threshold. A frame that could not be read has no row.
"""

import dataclasses
import json
from collections.abc import Sequence

import pyarrow as pa

from vlm_rewards.schemas.episodes import METADATA_KEY
from vlm_rewards.schemas.fingerprints import Fingerprint
from vlm_rewards.schemas.goals import Goal, goals_from_json, goals_to_json
from vlm_rewards.schemas.rules import RewardRule, rule_from_json

LABEL_TIME_CONVENTION = (
    "scores of row t judge frame o_t; the reward of step t looks at frame o_(t+1), the frame after the action: by default it is 1 "
    "where the score of that frame is greater than the goal's threshold, else 0. The rule says what holds here."
)
KEYS = [pa.field("episode_id", pa.string()), pa.field("frame_index", pa.int32())]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelMetadata:
    """Metadata of a table of labels, stored in its schema.

    Args:
        goals: The G goals, in the order of the scores.
        rule: Reward rule: when a goal counts as achieved, and the reward of a step.
        formula: Name of the formula the scores come from.
        fingerprint: Fingerprint of what the scores depend on.
        sparse: Whether only scores over the threshold, or over the one that ends a success, are stored.
    """

    goals: tuple[Goal, ...]
    rule: RewardRule
    formula: str
    fingerprint: Fingerprint
    sparse: bool = False


def label_schema(metadata: LabelMetadata) -> pa.Schema:
    """Returns the Arrow schema of labels: `scores` [G] float32, or `goal_indices` int32 and `goal_scores` float32 if sparse."""
    if metadata.sparse:
        fields = [pa.field("goal_indices", pa.list_(pa.int32())), pa.field("goal_scores", pa.list_(pa.float32()))]
    else:
        fields = [pa.field("scores", pa.list_(pa.field("item", pa.float32(), nullable=False), len(metadata.goals)))]
    own = {
        "kind": "labels",
        "version": 2,
        "time": LABEL_TIME_CONVENTION,
        "goals": goals_to_json(metadata.goals),
        "rule": metadata.rule.to_json(),
        "formula": metadata.formula,
        "sparse": metadata.sparse,
        "fingerprint": dict(metadata.fingerprint.parts),
    }
    return pa.schema(KEYS + fields, metadata={METADATA_KEY: json.dumps(own, sort_keys=True).encode()})


def read_label_metadata(schema: pa.Schema) -> LabelMetadata:
    """Returns the inverse of `label_schema`.

    Raises:
        ValueError: The schema is not one of labels.
    """
    own = read_own_metadata(schema, "labels")
    goals = goals_from_json(own["goals"])
    return LabelMetadata(
        goals=goals,
        rule=rule_from_json(own["rule"], len(goals)),
        formula=own["formula"],
        fingerprint=Fingerprint(own["fingerprint"]),
        sparse=own["sparse"],
    )


def read_own_metadata(schema: pa.Schema, kind: str) -> dict:
    """Returns this project's entry in a schema's metadata.

    Raises:
        ValueError: There are none, or it is of another kind.
    """
    raw = (schema.metadata or {}).get(METADATA_KEY)
    own = json.loads(raw) if raw else {}
    if own.get("kind") != kind:
        raise ValueError(
            f"a table of {kind} must say so in its schema's metadata, got {own.get('kind', 'no such entry')!r}; "
            f"give a folder that vlm-rewards wrote as {kind}"
        )
    return own


def embedding_schema(size: int, fingerprint: Fingerprint) -> pa.Schema:
    """Returns the Arrow schema of kept image embeddings: `embedding` [size] float32, of unit length."""
    own = {"kind": "embeddings", "version": 1, "fingerprint": dict(fingerprint.parts)}
    fields = [pa.field("embedding", pa.list_(pa.field("item", pa.float32(), nullable=False), size))]
    return pa.schema(KEYS + fields, metadata={METADATA_KEY: json.dumps(own, sort_keys=True).encode()})


def goal_ids(goals: Sequence[Goal]) -> list[str]:
    """Returns the ids, in order."""
    return [goal.id for goal in goals]
