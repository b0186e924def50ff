"""Runs work over units on Beam: one linear chain whose effects happen inside the DoFn, right on every runner.

    Create(units) ──► Reshuffle ──► RunUnit: output.writing(unit) ──► work(unit, part)

What flows is a list of small unit descriptions; frames never cross a stage. Results are files with markers, so nothing
depends on what a runner does with outputs, metrics or states (one of them drops finish_bundle output, silently).
"""

import contextlib
import difflib
import io
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions

from vlm_rewards.pipelines.engine.outputs import OutputFolder, PartWriter
from vlm_rewards.pipelines.engine.progress import Progress
from vlm_rewards.pipelines.engine.run_record import RunRecord
from vlm_rewards.pipelines.engine.settings import available_cores
from vlm_rewards.pipelines.engine.summaries import RunSummary
from vlm_rewards.pipelines.engine.worker_processes import WorkerEndedError, WorkerProcessRunner
from vlm_rewards.schemas.manifests import Unit

_MAX_ENDED_WORKERS = 2  # that one unit may cost


class UnitWork(Protocol):
    """Work on one unit; picklable, since workers get a copy."""

    def __call__(self, unit: Unit, part: PartWriter) -> None:
        """Writes the unit's part to `part.path` and fills in the rest of `part`."""


class _RunUnit(beam.DoFn):
    def __init__(self, work: UnitWork, output: OutputFolder) -> None:
        self._work = work
        self._output = output

    def process(self, unit: dict) -> Iterable[str]:
        unit_to_do = Unit.from_json(unit)
        if self._output.has_recorded_error():  # the run will fail: what is left waits for the next one
            return
        try:
            with self._output.writing(unit_to_do) as part:
                self._work(unit_to_do, part)
        except Exception as error:
            # Recorded and raised by the driver, in plain words: every runner wraps, prints and repeats errors in its own way.
            error.add_note(f"in unit {unit_to_do.name!r} of {unit_to_do.shard or 'the plan'}")
            self._output.record_error(unit_to_do, error)
        else:
            yield unit_to_do.name


class RunUnits(beam.PTransform):
    """Does the work on every unit; the output is the names of the units."""

    def __init__(self, work: UnitWork, output: OutputFolder) -> None:
        super().__init__()
        self._work = work
        self._output = output

    def expand(self, units: beam.PCollection) -> beam.PCollection:
        """Spreads the units over the workers and does them."""
        return units | "Spread" >> beam.Reshuffle() | "Run" >> beam.ParDo(_RunUnit(self._work, self._output))


def beam_arguments(options: Sequence[str], workers: int | None = None, *, in_processes: bool = False) -> list[str]:
    """Beam's command-line options: those given, and the project's default runner if none is named.

    Args:
        options: Options for Beam, as given after a bare `--`.
        workers: Workers on this machine; by default one a core. Each runs one thread of the model.
        in_processes: Whether workers are processes, which take some 10 s to start, rather than threads.

    Raises:
        ValueError: The number of workers is less than 1.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}; leave it out for one a core")
    arguments = list(options)
    if not any(option == "--runner" or option.startswith("--runner=") for option in arguments):
        count = workers if workers is not None else available_cores()
        # Named explicitly: plain DirectRunner may try to download another runner and fall back silently.
        arguments += ["--runner=FnApiRunner", f"--direct_num_workers={count}"]
        if not any(option.startswith("--direct_running_mode") for option in options):
            parallel = "multi_processing" if in_processes else "multi_threading"
            arguments.append(f"--direct_running_mode={parallel if count > 1 else 'in_memory'}")
    if not any(option.startswith("--default_sdk_harness_log_level") for option in options):
        arguments.append("--default_sdk_harness_log_level=WARNING")  # workers would fill the screen
    return arguments


def beam_options_of(
    options: Sequence[str], workers: int | None = None, *, in_processes: bool = False
) -> PipelineOptions:
    """Beam's options from the command line, see `beam_arguments`; a misspelt one is refused, which Beam would ignore.

    Raises:
        ValueError: A value is not among its choices, or a name is nearly that of an option.
    """
    arguments = beam_arguments(options, workers, in_processes=in_processes)
    known = PipelineOptions([]).get_all_options()
    for option in options:
        name = option.removeprefix("--").split("=", 1)[0]
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        if option.startswith("--") and name not in known and close:
            raise ValueError(f"an option for Beam must be one that it knows, got --{name}; did you mean --{close[0]}?")
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            parsed = PipelineOptions(arguments)
            parsed.get_all_options()
    except SystemExit as error:  # Beam's parser prints its whole usage and exits
        reason = complaint.getvalue().strip().splitlines()[-1:]
        raise ValueError(
            f"options for Beam must be valid, got {' '.join(options)} ({' '.join(reason)}). Fix them"
        ) from error
    return parsed


def make_pipeline(
    beam_options: Sequence[str], workers: int | None = None, *, in_processes: bool = False
) -> beam.Pipeline:
    """Makes the pipeline of a command. Worker processes on this machine are watched, see `pipelines.engine.worker_processes`.

    Args:
        beam_options: Options for Beam, as given after a bare `--`.
        workers: Number of workers on this machine, see `beam_arguments`.
        in_processes: Whether workers are processes, see `beam_arguments`.

    Raises:
        ValueError: An option is not one of Beam's, or the number of workers is less than 1.
    """
    options = beam_options_of(beam_options, workers, in_processes=in_processes)
    direct = options.view_as(DirectOptions)
    if options.view_as(StandardOptions).runner != "FnApiRunner" or direct.direct_running_mode != "multi_processing":
        return beam.Pipeline(options=options)
    direct.direct_running_mode = None  # with which the runner would choose Beam's own worker
    return beam.Pipeline(runner=WorkerProcessRunner(), options=options)


def run_units(
    units: Sequence[Unit],
    work: UnitWork,
    output: OutputFolder,
    *,
    also_filled: Sequence[OutputFolder] = (),
    beam_options: Sequence[str] = (),
    workers: int | None = None,
    in_processes: bool = False,
    max_failure_share: float = 0.0,
    title: str,
    counted: str = "rows",
    counted_name: str,
    total: int | None,
    manifest_extra: dict | None = None,
    log_format: str = "text",
) -> RunSummary:
    """Does what is missing of the work, then writes the manifest.

    Args:
        units: All units of the run.
        work: Work on one unit.
        output: Output folder of parts and markers; claimed for the time of the run.
        also_filled: Folders that the work fills beside the output; a unit is done when it is done in all.
        beam_options: Options for Beam, as given after a bare `--`.
        workers: Workers on this machine, see `beam_arguments`.
        in_processes: See `beam_arguments`; for work that is plain Python.
        max_failure_share: Highest share of frames, and of units, that may fail.
        title: Name of the work in the progress display.
        counted: Quantity that progress counts: "rows" or "episodes".
        counted_name: Name of that quantity, in the plural.
        total: Expected total of that quantity, if known.
        manifest_extra: More entries for the manifest.
        log_format: See `RunSettings`.

    Returns:
        Summary of the run.

    Raises:
        ValueError: The output folder is not ours to write, or too much failed.
        RuntimeError: A unit could not be done (the disk is full, say), or the runner ended without having done all.
    """
    if not 0 <= max_failure_share <= 1:
        raise ValueError(f"max_failure_share must be from 0 to 1, got {max_failure_share}; it is a share of frames")
    beam_options_of(beam_options, workers, in_processes=in_processes)  # refused before anything is claimed
    folders = [output, *also_filled]
    with contextlib.ExitStack() as stack:
        for folder in folders:
            stack.enter_context(folder.claim(units))
        to_do = [{unit.name for unit in folder.to_do(units)} for folder in folders]
        missing = [unit for unit in units if any(unit.name in names for names in to_do)]
        if missing:
            for folder, names in zip(
                folders, to_do, strict=True
            ):  # the output loses markers: a finished folder has all
                if folder is output or names:
                    (folder.path / "manifest.json").unlink(missing_ok=True)
            done: dict[str, int] = {}
            output.forget(missing)
            before = output.count_so_far(done, counted)
            record = RunRecord(
                title=title,
                counted=counted,
                counted_name=counted_name,
                units=len(units),
                units_before=len(units) - len(missing),
                total=total,
                before=before,
                done=before,
            )
            unfinished = [folder for folder in folders if not (folder.path / "manifest.json").is_file()]
            stack.enter_context(_noting_the_end(record, unfinished))

            def note(count: int) -> None:
                for folder in unfinished:
                    folder.note_run(record.now(count))

            with Progress(
                title,
                lambda: output.count_so_far(done, counted),
                total,
                counted_name,
                note=note,
                log_format=log_format,
            ):
                _do(missing, work, folders, lambda: make_pipeline(beam_options, workers, in_processes=in_processes))
            output.raise_recorded_error()
        for folder in also_filled:
            folder.finish(units, max_failure_share=1.0)  # what failed is judged once, below
        manifest = output.finish(units, max_failure_share=max_failure_share, extra=manifest_extra)
    return RunSummary(manifest=manifest, num_units=len(units), num_skipped=len(units) - len(missing))


@contextlib.contextmanager
def _noting_the_end(record: RunRecord, folders: Sequence[OutputFolder]) -> Iterator[None]:
    """Context manager that notes the run's beginning, and its end if it raises; a finished folder drops the record."""
    for folder in folders:
        folder.note_run(record)
    try:
        yield
    except Exception as error:
        for folder in folders:
            if not (folder.path / "manifest.json").is_file():
                folder.note_run(record.now(folder.count_so_far({}, record.counted), ended=str(error)))
        raise


def _do(
    units: Sequence[Unit], work: UnitWork, folders: Sequence[OutputFolder], make: Callable[[], beam.Pipeline]
) -> None:
    """Does units; those of a worker process that ended are done again, once."""
    output = folders[0]
    left = list(units)
    blamed: Counter[str] = Counter()  # by unit, worker processes that ended while they did it
    idle = 0  # worker processes that ended while they did none
    last = ""
    while left:
        pipeline = make()
        _ = pipeline | "Units" >> beam.Create([unit.to_json() for unit in left]) | "Do" >> RunUnits(work, output)
        try:
            pipeline.run().wait_until_finish()
            break
        except WorkerEndedError as error:
            if output.has_recorded_error():
                return
            last = str(error)
            pids = {worker.pid for worker in error.workers}
            interrupted = [unit for unit in left if output.pid_at_work(unit) in pids]
            blamed.update(unit.name for unit in interrupted)
            idle += not interrupted
            if idle and (idle > 1 or any(worker.status >= 0 for worker in error.workers)):
                raise RuntimeError(
                    f"worker processes must stay until the run ends, got: {last}. Look at what they printed, then run the same "
                    f"command again"
                ) from error
        for folder in folders:
            folder.remove_unfinished()
        left = [
            unit
            for unit in left
            if blamed[unit.name] < _MAX_ENDED_WORKERS and not all(folder.read_marker(unit) for folder in folders)
        ]
        if left:
            again = ", ".join(unit.name for unit in interrupted if unit in left)
            warnings.warn(f"{last}; {f'unit {again} is done again' if again else 'the run resumes'}", stacklevel=4)
    given_up = [unit for unit in units if blamed[unit.name] >= _MAX_ENDED_WORKERS]
    if given_up:
        unit = given_up[0]
        raise RuntimeError(
            f"a unit must be done without an end of its worker process, got {_MAX_ENDED_WORKERS} ends in unit {unit.name!r}"
            f"{f' of {unit.shard}' if unit.shard else ''}: {last}. Take fewer workers or smaller units where memory is short, or "
            f"leave the file out; everything else is done and kept"
        )
