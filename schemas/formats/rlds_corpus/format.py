"""RLDS as a corpus format; its reader is imported when a corpus is opened."""

from collections.abc import Mapping

from vlm_rewards.schemas.formats.folder import Folder
from vlm_rewards.schemas.formats.interface import CorpusFormat, CorpusReader
from vlm_rewards.schemas.formats.rlds_corpus.layout import is_rlds
from vlm_rewards.schemas.formats.rlds_corpus.roles import OPTIONS


def _open(folder: Folder, options: Mapping[str, str]) -> CorpusReader:
    from vlm_rewards.schemas.formats.rlds_corpus.reader import open_rlds

    return open_rlds(folder, options)


RLDS = CorpusFormat(name="rlds", recognizes=is_rlds, open=_open, options=OPTIONS)
