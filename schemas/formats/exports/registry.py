"""The one list of exports."""

from vlm_rewards.schemas.formats.exports.interface import ExportFormat
from vlm_rewards.schemas.formats.exports.verdicts import VERDICTS

EXPORTS: tuple[ExportFormat, ...] = (VERDICTS,)


def export_format(name: str) -> ExportFormat:
    """The export of a name.

    Raises:
        ValueError: There is none.
    """
    for known in EXPORTS:
        if known.name == name:
            return known
    raise ValueError(
        f"an export must be one of {', '.join(known.name for known in EXPORTS)}: got {name!r}. Choose one of them"
    )
