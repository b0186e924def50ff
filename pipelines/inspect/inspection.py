"""Says what a corpus is: its format, what its episodes hold, what is missing, and what cannot be read.

metadata, and all episodes without their frames ──► counts, instructions, failures
one frame in each of some units, or all frames   ──► sizes, black and unreadable frames
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from vlm_rewards.pipelines.inspect.pictures import CameraCounts, look_at_all, look_at_some
from vlm_rewards.pipelines.inspect.settings import InspectKeywords, InspectRun
from vlm_rewards.pipelines.inspect.summary import CorpusReport
from vlm_rewards.pipelines.inspect.tally import Tally
from vlm_rewards.schemas.formats.corpus import Corpus, open_corpus
from vlm_rewards.schemas.formats.passed_over import passed_over_record
from vlm_rewards.schemas.formats.truth import goals_beside
from vlm_rewards.schemas.manifests import Failure, Unit
from vlm_rewards.schemas.options import build_settings, shows_settings

_MIN_UNIT_BYTES = 1 << 20
_UNITS = 8


@shows_settings(InspectRun)
def inspect_corpus(path: str | Path, **settings: Unpack[InspectKeywords]) -> CorpusReport:
    """Says what a corpus is: format, episodes, cameras, actions, instructions, truth, and what is missing or cannot be read.

    Args:
        path: A corpus: a folder, a file, or a URL that fsspec opens.
        settings: Fields of `InspectRun`.

    Returns:
        The report; its repr is for people, `to_json` for machines.

    Raises:
        ValueError: There is no corpus, or no format knows it; the message says what was found.

    Example:
        >>> import vlm_rewards as vr
        >>> vr.inspect_corpus("corpus/")
        corpus/: a corpus of the format parquet (1 file, ... kB)
          12 episodes of ...
    """
    (run,) = build_settings(settings, InspectRun)
    corpus = open_corpus(path, run.read_options)
    passed_over = corpus.passed_over
    left_out = {entry.name for entry in passed_over}
    files = [file for file in corpus.folder.files if file.name not in left_out]
    num_bytes = sum(file.num_bytes for file in files)
    units = corpus.units(max(_MIN_UNIT_BYTES, num_bytes // _UNITS))
    reading = _Reading(corpus)
    for unit in units:
        reading.read(unit)
    num_frames = reading.tally.num_frames * len(corpus.features.cameras)
    looked = look_at_all(corpus, units, num_frames) if run.frames else look_at_some(corpus, units)
    known = {_key(failure) for failure in reading.failures}
    seen = [failure for failure in looked.failures if _key(failure) not in known]
    goals_path = goals_beside(path)
    return CorpusReport(
        path=str(path),
        corpus=corpus,
        read_with=run,
        num_files=len(files),
        num_bytes=num_bytes,
        tally=reading.tally,
        cameras={camera: looked.cameras.get(camera, CameraCounts()) for camera in corpus.features.cameras},
        is_decoded=run.frames,
        failures=[*reading.failures, *seen],
        later_failures=reading.later_failures,
        repeated_ids=reading.repeated_ids,
        goals_path=str(goals_path) if goals_path.is_file() else None,
        passed_over=passed_over_record(passed_over),
    )


def _key(failure: Failure) -> tuple[str, str, str | None, int | None]:
    return failure.scope, failure.shard, failure.episode_id, failure.frame_index


class _Reading:
    """Reads episodes without their frames; where one fails, looks again at what `label` needs of it."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self.tally = Tally()
        self.failures: list[Failure] = []
        self.later_failures: list[Failure] = []
        self.repeated_ids: list[str] = []
        self._unit_of: dict[str, str] = {}

    def read(self, unit: Unit) -> None:
        failures: list[Failure] = []
        whole: set[str] = set()
        texts: list[tuple[str | None, ...]] = []
        for item in self._corpus.episodes(unit, frames=False):
            if isinstance(item, Failure):
                failures.append(item)
            else:
                whole.add(item.episode_id)
                self._note_id(item.episode_id, unit)
                self.tally.add(item)
                texts.append((item.instruction,))
        if failures:
            self._read_again(unit, failures, whole)
            texts = [found for found in self._corpus.instructions(unit) if not isinstance(found, Failure)]
        for several in texts:
            self.tally.add_instructions(several)

    def _read_again(self, unit: Unit, failures: Sequence[Failure], whole: set[str]) -> None:
        """Counts the frames of episodes that `label` can read although another command cannot."""
        still: Counter[tuple] = Counter()
        for item in self._corpus.episodes(unit, frames=False, fields=()):
            if isinstance(item, Failure):
                self.failures.append(item)
                still[_key(item)] += 1
            elif item.episode_id not in whole:
                self._note_id(item.episode_id, unit)
                self.tally.add_frames(item)
        for failure in failures:
            if still[_key(failure)]:
                still[_key(failure)] -= 1
            else:
                self.later_failures.append(failure)

    def _note_id(self, episode_id: str, unit: Unit) -> None:
        if self._unit_of.setdefault(episode_id, unit.name) != unit.name:
            self.repeated_ids.append(episode_id)
