"""Units done in processes beside the model: the same parts, failures and errors, and an end of a process is not the run's."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from small_corpora import plain_episode
from tiny_models import save_tiny_clip

from vlm_rewards.labelers.scoring.windows import WindowSettings
from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.pipelines.engine.outputs import PartWriter
from vlm_rewards.pipelines.label.labelling import label
from vlm_rewards.pipelines.label.settings import LabelRun
from vlm_rewards.pipelines.label.shared_labelers import SharedLabeler, one_run, shared_labeler
from vlm_rewards.pipelines.label.unit_processes import UnitProcesses, unit_processes
from vlm_rewards.schemas.episodes import CorpusFeatures
from vlm_rewards.schemas.formats.corpus import write_episodes
from vlm_rewards.schemas.goals import Goal
from vlm_rewards.schemas.manifests import Unit

GOALS = (Goal("red", "a red ball"), Goal("blue", "a blue ball"))
WORKS = """
import os, pathlib, signal, time

class Fails:
    def __init__(self, error):
        self.error = error

    def fill(self, labeler, unit, part, kept):
        error = self.error(unit.name)
        error.add_note("while filling it")
        raise error

class CannotBeSent(Exception):
    def __init__(self, name):
        super().__init__(name)
        self.file = open(os.devnull)

class Sleeps:
    def __init__(self, path):
        self.path = path

    def fill(self, labeler, unit, part, kept):
        pathlib.Path(self.path + ".new").write_text(str(os.getpid()))
        os.replace(self.path + ".new", self.path)
        time.sleep(600)

class Dies:
    def __init__(self, folder, times):
        self.folder, self.times = folder, times

    def fill(self, labeler, unit, part, kept):
        deaths = len(list(pathlib.Path(self.folder).iterdir()))
        if deaths < self.times:
            pathlib.Path(self.folder, str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        part.rows += 7
        part.counts["deaths"] = deaths
"""


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return save_tiny_clip(tmp_path / "clip")


@pytest.fixture
def settings(clip: Path) -> LabelerSettings:
    return LabelerSettings(model=str(clip), goals=GOALS, batch_size=8)


@pytest.fixture
def works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    site = tmp_path / "site"
    site.mkdir()
    (site / "works_of_units.py").write_text(WORKS)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
    import works_of_units  # type: ignore[import-not-found]

    yield works_of_units
    del sys.modules["works_of_units"]


@pytest.fixture
def processes(settings: LabelerSettings) -> Iterator[UnitProcesses]:
    with one_run():
        found = unit_processes(shared_labeler(settings), 1)
        assert found is not None
        yield found


def part_of(tmp_path: Path) -> PartWriter:
    return PartWriter(tmp_path / "part", tmp_path / "beat")


@pytest.mark.parametrize("window", [WindowSettings(), WindowSettings(frames=3, over="embeddings")])
def test_parts_are_those_of_threads(tmp_path: Path, settings: LabelerSettings, window: WindowSettings) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    episodes = [plain_episode(index, num_steps=20 + index) for index in range(6)]
    frames = list(episodes[3].images["front"])
    frames[2] = b"\x89PNG\r\n\x1a\n no picture"
    episodes[3] = dataclasses.replace(episodes[3], images={"front": frames})
    for shard in range(3):
        of_shard = episodes[2 * shard : 2 * shard + 2]
        write_episodes(corpus / f"{shard}.parquet", CorpusFeatures.of(episodes[0]), of_shard, "parquet")
    settings = dataclasses.replace(settings, window=window)
    outputs = {}
    for decoders in (0, 2):
        folder = tmp_path / f"labels-{decoders}"
        summary = label(
            corpus,
            settings,
            output=folder,
            embeddings=folder / "kept",
            workers=2,
            decoders=decoders,
            max_failure_share=0.1,
        )
        assert summary.manifest["failures"] == {"undecodable image": 1}
        outputs[decoders] = {
            path.relative_to(folder): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and "markers" not in path.parts
        }
    assert outputs[0] == outputs[2]
    markers = [json.loads(path.read_text()) for path in (tmp_path / "labels-2" / "markers").iterdir()]
    assert sum(marker["rows"] for marker in markers) == sum(len(episode.images["front"]) for episode in episodes) - 1
    assert all(marker["seconds"]["encode"] > 0 for marker in markers)


def test_a_process_needs_neither_the_model_nor_beam() -> None:
    program = (
        "import sys; import vlm_rewards.pipelines.label.unit_process, vlm_rewards.pipelines.label.units; "
        "import vlm_rewards.labelers.encoders.preprocessing; "
        "print([name for name in ('torch', 'transformers', 'apache_beam') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_an_error_is_raised_in_the_process_of_the_model(processes: UnitProcesses, works: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="^u0\nwhile filling it$"):
        processes.fill(works.Fails(ValueError), Unit(name="u0"), part_of(tmp_path), None)
    with pytest.raises(RuntimeError, match="^CannotBeSent: u1\nwhile filling it$"):
        processes.fill(works.Fails(works.CannotBeSent), Unit(name="u1"), part_of(tmp_path), None)


def test_a_unit_whose_process_ends_is_done_again(processes: UnitProcesses, works: Any, tmp_path: Path) -> None:
    (tmp_path / "deaths").mkdir()
    part = part_of(tmp_path)
    with pytest.warns(UserWarning, match="a process of a unit has ended with status -9; unit u0 is done again"):
        processes.fill(works.Dies(tmp_path / "deaths", 1), Unit(name="u0"), part, None)
    assert (part.rows, part.counts["deaths"]) == (7, 1)


@pytest.mark.filterwarnings("ignore:a process of a unit has ended")
def test_a_unit_that_ends_two_processes_fails_by_name(processes: UnitProcesses, works: Any, tmp_path: Path) -> None:
    (tmp_path / "deaths").mkdir()
    with pytest.raises(RuntimeError, match="got 2 ends in unit 'u0' of a.parquet, the last with status -9. Take fewer"):
        processes.fill(
            works.Dies(tmp_path / "deaths", 2), Unit(name="u0", files=("a.parquet",)), part_of(tmp_path), None
        )
    assert len(list((tmp_path / "deaths").iterdir())) == 2


DRIVER = """
import sys
from pathlib import Path
import works_of_units
from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.pipelines.engine.outputs import PartWriter
from vlm_rewards.pipelines.label.shared_labelers import shared_labeler
from vlm_rewards.pipelines.label.unit_processes import unit_processes
from vlm_rewards.schemas.goals import Goal
from vlm_rewards.schemas.manifests import Unit

goals = (Goal("red", "a red ball"), Goal("blue", "a blue ball"))
processes = unit_processes(shared_labeler(LabelerSettings(model=sys.argv[1], goals=goals, batch_size=8)), 1)
processes.fill(works_of_units.Sleeps(sys.argv[2]), Unit(name="u0"), PartWriter(Path("part"), Path("beat")), None)
"""


def test_processes_end_with_a_driver_that_is_killed(clip: Path, works: Any, tmp_path: Path) -> None:
    pid_path = tmp_path / "pid"
    with subprocess.Popen([sys.executable, "-c", DRIVER, str(clip), str(pid_path)]) as driver:
        try:
            while not pid_path.exists():
                assert driver.poll() is None
                time.sleep(0.05)
        finally:
            driver.kill()
    stat = Path("/proc", pid_path.read_text(), "stat")
    ends = time.monotonic() + 60
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < ends, "a process of a unit must end with its driver"
        time.sleep(0.05)


def test_an_encoder_that_resizes_with_its_model_gets_none(settings: LabelerSettings) -> None:
    with one_run():
        shared = shared_labeler(settings)
        assert unit_processes(shared, None) is None  # on a CPU
        plain = {name: getattr(shared.labeler.encoder, name) for name in ("device", "name")}
        other = SharedLabeler(
            cast(Any, dataclasses.make_dataclass("Labeler", ["encoder"])(_Plain(**plain))), shared.cache
        )
        assert unit_processes(other, None) is None
        with pytest.raises(ValueError, match="decoders must be 0 for an encoder that resizes frames in the process of"):
            unit_processes(other, 2)


@dataclasses.dataclass
class _Plain:
    device: str
    name: str


def test_decoders_are_a_number() -> None:
    with pytest.raises(ValueError, match="decoders must be at least 0, got -1"):
        LabelRun(decoders=-1)
