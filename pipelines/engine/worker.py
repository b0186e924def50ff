"""Entry point of a worker process on this machine. Silences Beam's startup logging; only errors reach stderr.

python -m vlm_rewards.pipelines.engine.worker, as `pipelines.engine.worker_processes` starts it
"""

import logging
import os
import signal
import sys
import threading
import time
import warnings
from typing import Any, TextIO, cast

_GRACE_S = 0.5


class _Screen:
    """Standard error, a moment late: what the end of the driver causes is not printed, since this process ends before."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._written = 0.0

    def write(self, text: str) -> int:
        if time.monotonic() - self._written > _GRACE_S:
            time.sleep(_GRACE_S)
        self._written = time.monotonic()
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def main() -> None:
    """Works until the driver ends."""
    live_with_the_driver()
    warnings.filterwarnings("ignore", message="the file system cannot flush folders")  # the driver has said so
    sys.stderr = cast(TextIO, _Screen(sys.stderr))  # Beam prints to it, too
    screen = logging.StreamHandler()
    screen.setLevel(logging.ERROR)
    logging.getLogger().addHandler(screen)  # before Beam is imported, which otherwise makes one that shows everything
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)


def live_with_the_driver() -> None:
    """Ends this process when standard input does, which is when the process that started it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal: the driver decides
    threading.Thread(target=_end_with_the_driver, name="end-with-driver", daemon=True).start()


def _end_with_the_driver() -> None:
    while os.read(0, 1):  # standard input ends when the driver does, even when it is killed
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
