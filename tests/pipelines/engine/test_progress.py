"""Progress: plain lines without a terminal, a bar on one."""

import io
import json
import time

import pytest

from vlm_rewards.pipelines.engine.progress import Progress


def test_a_plain_line_has_share_rate_and_time_left() -> None:
    progress = Progress("label", lambda: 0, 4000, "frames", io.StringIO())
    # 1200 frames in 3 s: 400 frames/s, and 2800 frames are left: 7 s
    assert progress.line(1200, 3.0) == "label: 1,200 of 4,000 frames (30 %), 400 frames/s, 7 s left"


def test_a_plain_line_without_a_total() -> None:
    progress = Progress("label", lambda: 0, None, "frames", io.StringIO())
    assert progress.line(1200, 3.0) == "label: 1,200 frames, 400 frames/s"


def test_what_was_done_before_does_not_count_as_speed() -> None:
    stream = io.StringIO()
    with Progress("label", lambda: 1000, 2000, "frames", stream) as progress:
        assert progress.line(1500, 5.0) == "label: 1,500 of 2,000 frames (75 %), 100 frames/s, 5 s left"
    assert stream.getvalue() == ""  # shorter than the interval of the lines


def test_a_bar_on_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with Progress("label", lambda: 7, 10, "frames", stream):
        time.sleep(0.1)
    assert "label" in stream.getvalue()
    assert "7/10" in stream.getvalue()


def test_an_error_of_the_count_is_not_swallowed() -> None:
    counts = iter([0])
    with pytest.raises(RuntimeError, match="StopIteration|no more"):

        def count() -> int:
            try:
                return next(counts)
            except StopIteration:
                raise RuntimeError("no more") from None

        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        with Progress("label", count, 10, "frames", Terminal()):
            time.sleep(0.1)


def test_a_terminal_that_is_asked_for_json_gets_one_object_per_line() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    counts = iter([10, *[60] * 100])
    with Progress("label", lambda: next(counts), 100, "frames", stream, plain_interval_s=0.02, log_format="json"):
        time.sleep(0.2)
    first = json.loads(stream.getvalue().splitlines()[0])
    shown = {name: first[name] for name in ("level", "event", "command", "done", "total", "unit")}
    assert shown == {
        "level": "info",
        "event": "progress",
        "command": "label",
        "done": 60,
        "total": 100,
        "unit": "frames",
    }
    assert first["seconds_left"] == pytest.approx(40 / first["per_second"], rel=0.1, abs=0.1)  # 50 of 90 were done


def test_the_count_is_noted_while_the_work_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm_rewards.pipelines.engine.progress._NOTE_INTERVAL_S", 0.01)
    monkeypatch.setattr("vlm_rewards.pipelines.engine.progress._POLL_S", 0.01)
    noted: list[int] = []
    stream = io.StringIO()
    with Progress("label", lambda: 7, 10, "frames", stream, note=noted.append):
        time.sleep(0.2)
    assert set(noted) == {7}
    assert stream.getvalue() == ""  # the first line comes after 30 s
