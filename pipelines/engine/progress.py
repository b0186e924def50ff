"""Progress of long work: a bar on a terminal, plain lines where there is none, JSON lines on request."""

import datetime
import json
import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

from tqdm import tqdm

_PLAIN_INTERVAL_S = 30.0
_NOTE_INTERVAL_S = 10.0
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
        note: Function that is given the count about every 10 s, to write it down.
        log_format: "text", or "json" for lines of JSON also on a terminal.
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
        note: Callable[[int], None] | None = None,
        log_format: str = "text",
    ) -> None:
        self._title = title
        self._count = count
        self._total = total
        self._unit = unit
        self._stream = stream if stream is not None else sys.stderr
        self._plain_interval_s = plain_interval_s
        self._note = note
        self._is_json = log_format == "json"
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
            self._draw_bar() if self._stream.isatty() and not self._is_json else self._print_lines()
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
            self._poll(_POLL_S, lambda count: bar.update(count - bar.n))
            bar.update(self._count() - bar.n)

    def _print_lines(self) -> None:
        def show(count: int) -> None:
            print(self._line(count, time.monotonic() - self._started), file=self._stream, flush=True)

        self._poll(self._plain_interval_s, show)

    def _poll(self, interval_s: float, show: Callable[[int], object]) -> None:
        """Shows the count once per interval, and has it noted, until the work ends."""
        shown = noted = self._started
        while not self._stop.wait(min(interval_s, _POLL_S)):
            now = time.monotonic()
            if now - shown >= interval_s:
                shown = now
                show(self._count())
            if self._note is not None and now - noted >= _NOTE_INTERVAL_S:
                noted = now
                self._note(self._count())

    def _line(self, done: int, seconds: float) -> str:
        if not self._is_json:
            return self.line(done, seconds)
        rate = (done - self._first) / max(seconds, 1e-9)
        left = None if self._total is None or rate <= 0 else round((self._total - done) / rate, 1)
        return log_line(
            "info",
            "progress",
            command=self._title,
            done=done,
            total=self._total,
            unit=self._unit,
            per_second=round(rate, 2),
            seconds_left=left,
        )

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


def log_line(level: str, event: str, **fields: object) -> str:
    """Returns one line of the structured log.

    Args:
        level: "info", "warning" or "error".
        event: What happened, such as "progress".
        fields: More of it.
    """
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    return json.dumps({"time": now, "level": level, "event": event, **fields}, ensure_ascii=False)
