"""The list of all exports."""

from vlm_rewards.schemas.formats.exports.interface import ExportFormat
from vlm_rewards.schemas.formats.exports.verdicts import VERDICTS
from vlm_rewards.schemas.formats.hdf5_corpus.exports import ROBOMIMIC
from vlm_rewards.schemas.formats.lerobot_corpus.exports import LEROBOT_COLUMNS, RA_BC
from vlm_rewards.schemas.formats.lerobot_corpus.hindsight import LEROBOT_HINDSIGHT
from vlm_rewards.schemas.formats.minari_corpus.exports import MINARI_REWARDS
from vlm_rewards.schemas.formats.parquet_corpus.exports import PARQUET_COLUMNS
from vlm_rewards.schemas.formats.rlds_corpus.exports import RLDS_REWARDS
from vlm_rewards.schemas.formats.webdataset_others.exports import WEBDATASET_LABELS

EXPORTS: tuple[ExportFormat, ...] = (
    VERDICTS,
    RA_BC,
    LEROBOT_COLUMNS,
    LEROBOT_HINDSIGHT,
    ROBOMIMIC,
    MINARI_REWARDS,
    PARQUET_COLUMNS,
    RLDS_REWARDS,
    WEBDATASET_LABELS,
)


def export_format(name: str) -> ExportFormat:
    """Returns the export with this name.

    Raises:
        ValueError: There is no such export.
    """
    for known in EXPORTS:
        if known.name == name:
            return known
    raise ValueError(
        f"an export must be one of {', '.join(known.name for known in EXPORTS)}: got {name!r}. Choose one of them"
    )
