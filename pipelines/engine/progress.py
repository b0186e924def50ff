"""Progress of long work: a bar on a terminal, plain lines where there is none."""

import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

from tqdm import tqdm

_PLAIN_INTERVAL_S = 10.0
_POLL_S = 0.5


class Progress:
    """Shows how much is done, the rate and the time left, until the block ends.

    Args:
        title: Name of the work, such as "label".
        count: Function that returns how much is done; called about twice a second from a thread of its own.
        total: Total, if known.
        unit: Unit of the count, such as "frames".
        stream: Stream to write to; standard error by default.
        plain_interval_s: Seconds between plain lines.
    """

    def __init__(
        self,
        title: str,
        count: Callable[[], int],
        total: int | None,
        unit: str,
        stream: TextIO | None = None,
        *,
        plain_interval_s: float = _PLAIN_INTERVAL_S,
    ) -> None:
        self._title = title
        self._count = count
        self._total = total
        self._unit = unit
        self._stream = stream if stream is not None else sys.stderr
        self._plain_interval_s = plain_interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._started = time.monotonic()
        self._first = 0
        self._error: Exception | None = None

    def __enter__(self) -> "Progress":
        self._started = time.monotonic()
        self._first = self._count()
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._error is not None and exc_info[0] is None:
            raise self._error

    def _run(self) -> None:
        try:
            self._draw_bar() if self._stream.isatty() else self._print_lines()
        except Exception as error:  # raised again by __exit__, in the thread that waits for the work
            self._error = error

    def _draw_bar(self) -> None:
        with tqdm(
            desc=self._title,
            total=self._total,
            unit=f" {self._unit}",
            file=self._stream,
            initial=self._first,
            smoothing=0.1,
        ) as bar:
            while not self._stop.wait(_POLL_S):
                bar.update(self._count() - bar.n)
            bar.update(self._count() - bar.n)

    def _print_lines(self) -> None:
        while not self._stop.wait(self._plain_interval_s):
            print(self.line(self._count(), time.monotonic() - self._started), file=self._stream, flush=True)

    def line(self, done: int, seconds: float) -> str:
        """One plain line, such as "label: 1,200 of 4,000 frames (30 %), 400 frames/s, 7 s left".

        Args:
            done: Amount done, including what was done before.
            seconds: Time since the start.
        """
        rate = (done - self._first) / max(seconds, 1e-9)
        if self._total is None:
            return f"{self._title}: {done:,} {self._unit}, {rate:,.0f} {self._unit}/s"
        share = 100 * done / max(self._total, 1)
        text = f"{self._title}: {done:,} of {self._total:,} {self._unit} ({share:.0f} %), {rate:,.0f} {self._unit}/s"
        return text + (f", {(self._total - done) / rate:,.0f} s left" if rate > 0 else "")
