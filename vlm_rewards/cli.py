"""The command line, `vlm-rewards`: labels recorded trajectories with rewards from vision-language models.

What the commands are is in `vlm_rewards.commands`, one file each. Errors in what the user gave end with one line and status 2.
"""

import contextlib
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence

from vlm_rewards.command_line.parser import UsageError, build_parser, command_line, parse
from vlm_rewards.schemas.files.errors import explain_os_error

__all__ = ["build_parser", "main"]

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: Arguments without the program's name; by default the process's own.

    Returns:
        The exit status: 0 done, 2 something given cannot be used, 130 interrupted.
    """
    try:
        options = parse(sys.argv[1:] if argv is None else argv)
    except UsageError as error:
        print(f"{error.program}: error: {error}", file=sys.stderr)
        return 2
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)  # errors reach the user once, below
    log_format = next((value for name, value in vars(options).items() if name.endswith(".log_format")), "text")
    with _warning_in_one_line(options.command, log_format), _ending_at_once_on_signals(options.command, log_format):
        try:
            lines, following = options.run(options)
            for line in [*lines, *(f"  next: {command_line(words)}" for words in following)]:
                print(line, flush=True)
        except BrokenPipeError:  # whoever read our lines has seen enough; the work is done
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (ValueError, OSError, RuntimeError, ImportError) as error:
            if os.environ.get("VLM_REWARDS_TRACEBACK"):
                raise
            explain_os_error(error)
            message = "\n".join([str(error), *getattr(error, "__notes__", [])])
            print(_log(options.command, "error", message, log_format), file=sys.stderr)
            return 2
    return 0


def _log(command: str, level: str, message: str, log_format: str) -> str:
    """One line, or JSON object, for standard error."""
    if log_format == "text":
        return f"vlm-rewards {command}: {level}: {message}"
    from vlm_rewards.pipelines.engine.progress import log_line

    return log_line(level, level, command=command, message=message)


@contextlib.contextmanager
def _warning_in_one_line(command: str, log_format: str) -> Iterator[None]:
    """Prints warnings as one line each, without the place in the code."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        print(_log(command, "warning", str(message), log_format), file=sys.stderr, flush=True)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.showwarning = show
        yield


@contextlib.contextmanager
def _ending_at_once_on_signals(command: str, log_format: str) -> Iterator[None]:
    """Ends the process on Ctrl-C and SIGTERM without waiting for units that are half done; worker processes end with it.

    Not by KeyboardInterrupt: a runner takes an exception that is raised in the middle of its work for an error of that work.
    """

    def stop(number: int, frame: object) -> None:
        message = "interrupted; what is finished is kept: run the same command again to resume"
        line = f"vlm-rewards {command}: {message}" if log_format == "text" else _log(command, "error", message, "json")
        os.write(2, f"{line}\n".encode())
        os._exit(INTERRUPTED)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
