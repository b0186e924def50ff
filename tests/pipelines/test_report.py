import dataclasses
import html
import os
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from labelled_corpus import GOALS, draw_episodes, picture, write_corpus, write_labels
from PIL import Image

from pipelines.charts import curve_chart, score_track, skyline, sparkline, step_path
from pipelines.evaluate import evaluate
from pipelines.report_pictures import ShownEpisode, picture_element, strip_frames, track_goals
from schemas.goals import Goal

CHROMIUM_OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
_VOID = {"meta", "link", "img", "br", "input"}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    episodes = draw_episodes(16)
    episodes[0] = dataclasses.replace(episodes[0], frames=range(1, len(episodes[0].truth)))
    corpus = write_corpus(folder / "corpus", episodes)
    labels = write_labels(folder / "labels", corpus, episodes)
    evaluate(corpus, labels, folder / "out", beam_options=("--runner=FnApiRunner", "--direct_num_workers=1"))
    return folder / "out"


class _Balance(HTMLParser):
    """Refuses elements that are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_report_is_one_well_formed_file_with_everything_inside(report: Path) -> None:
    page = (report / "report.html").read_text()
    parser = _Balance()
    parser.feed(page)
    assert parser.open == []
    assert not re.search(r"https?://|url\(|@import|<script src|<link rel=.stylesheet", page)
    assert page.count("data:image/png;base64,") > 16
    for anchor in re.findall(r'href="#(\w+)"', page):
        assert f"<section id={anchor}>" in page


def test_text_from_data_is_escaped(report: Path) -> None:
    page = (report / "report.html").read_text()
    assert "<b>seen</b>" not in page
    assert html.escape("a ball is <b>seen</b>") in page
    assert "hold &amp; carry" in page
    assert "got &lt;i&gt;half&lt;/i&gt;" in page  # a failure's detail


def test_report_shows_the_figures_the_run_and_the_fingerprint(report: Path) -> None:
    page = (report / "report.html").read_text()
    for text in ("frames a second and worker", "failures: undecodable image", "sha256:0", "1 more without a label"):
        assert text in page
    assert "encode</td>" in page
    assert page.count("<div class=track>") >= 4 * 2


def test_pictures_of_curves_are_png(report: Path) -> None:
    for name in ("precision_recall.png", "precision_recall_goals.png"):
        with Image.open(report / name) as opened:
            assert opened.format == "PNG"
            assert len(np.unique(np.asarray(opened.convert("L")))) > 8  # not blank


def test_report_without_positives_or_scores_says_so(tmp_path: Path) -> None:
    episodes = draw_episodes(3)
    for episode in episodes:
        episode.truth[:] = False
    corpus = write_corpus(tmp_path / "corpus", episodes)
    labels = write_labels(tmp_path / "labels", corpus, episodes, sparse=True)
    evaluate(corpus, labels, tmp_path / "out", beam_options=("--runner=FnApiRunner", "--direct_num_workers=1"))
    page = (tmp_path / "out" / "report.html").read_text()
    assert "undefined: no positives" in page
    assert "4 goals never hold in this corpus" in page
    assert "The labels are sparse" in page
    assert "No goal begins or ceases to hold in any episode." in page
    assert "nan" not in re.sub(r"base64,[^\"]*", "", page).lower().replace("nance", "")


def test_strip_frames_are_spread_evenly() -> None:
    assert strip_frames(1) == [0]
    assert strip_frames(5) == [0, 1, 2, 3, 4]
    # 16 spans of 2 frames: the second of each lies in the middle.
    assert strip_frames(32) == list(range(1, 32, 2))
    assert len(strip_frames(1000)) == 16


def test_small_pictures_stay_as_they_are_and_large_ones_become_thumbnails() -> None:
    small = picture_element(picture(0, 128), 'a "frame"')
    assert small.startswith('<img class=small alt="a &quot;frame&quot;" src="data:image/png;base64,')
    large = picture_element(picture(0, 200), "a frame")
    assert large.startswith('<img alt="a frame" src="data:image/jpeg;base64,')
    assert picture_element(b"junk", "a frame") == '<div class="unreadable">not readable</div>'


def test_tracks_are_goals_that_hold_longest_then_false_ones_that_score_highest() -> None:
    goals = [
        Goal("a-b", "a is by b", "place", group="ab"),
        Goal("b-a", "b is by a", "place", group="ab"),
        Goal("c", "c", "place"),
        Goal("d", "d", "place"),
        Goal("e", "e", "place"),
        Goal("f", "f", "place"),
        Goal("g", "g", "other"),
    ]
    truth = [frozenset({"a-b", "b-a"}), frozenset({"a-b", "b-a", "c"}), frozenset()]
    scores = {0: np.array([0, 0, 0, 0.1, 0.5, 0.2, 1], np.float32), 2: np.array([0, 0, 0, 0.4, 0, 0, 1], np.float32)}
    episode = ShownEpisode(num_frames=3, pictures={}, truth=truth, scores=scores)
    chosen = track_goals(goals, episode, "place", {goal.id for goal in goals})
    assert [goal.id for _, goal in chosen] == ["a-b", "c", "e", "d"]
    assert [goal.id for _, goal in track_goals(goals, episode, "place", {"c", "f"})] == ["c", "f"]


def test_score_track_draws_one_cell_a_frame() -> None:
    drawn = score_track([0.9, 0.1, None, float("-inf")], [True, False, False, True], threshold=0.5, low=0.0, high=1.0)
    paths = dict(re.findall(r'<path class="(\w+)" d="([^"]+)"/>', drawn))
    # From the foot at 27 to the top at 2: 0.9 ends at 27 - 22.5 = 4.5, 0.1 at 24.5, the threshold at 14.5.
    assert paths["hot"] == "M0 4.5h23V27h-23z"
    assert paths["cold"] == "M25 24.5h23V27h-23z"
    assert paths["missing"].startswith("M50 ")
    assert re.findall(r"M(\d+)", paths["truth"]) == ["0", "75"]
    assert 'y1="14.5"' in drawn
    assert 'class="hot"' not in score_track([0.3], [False], threshold=0.3, low=0.3, high=0.3)


def test_charts_leave_out_what_is_undefined() -> None:
    undefined = {"average_precision": "undefined: no positives", "positives": 0, "text": "a goal"}
    assert sparkline(undefined) == ""
    assert 'class="curve"' not in curve_chart({"all goals": undefined, "see": undefined})
    assert "<rect" not in skyline([undefined], 0)
    # Recall 0.5 at precision 1, then recall 1 at precision 0.75.
    assert step_path([0.5, 1.0], [1.0, 0.75], 0.0, digits=2) == "M0.00 1.00H0.50V0.75H1.00"


@pytest.fixture(scope="module")
def browser() -> Iterator:
    executable = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    if executable is None:
        if "CI" in os.environ:
            pytest.fail(
                "CI must have Chromium to look at the report in, got none on the PATH; install the package chromium"
            )
        pytest.skip("there is no Chromium on the PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_OPTIONS)
        yield opened
        opened.close()


@pytest.mark.parametrize("width", [400, 900, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_in_a_browser_and_asks_for_nothing(report: Path, browser, width: int, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    address = (report / "report.html").as_uri()
    page.goto(address)
    assert complaints == []
    assert [url for url in requests if url != address and not url.startswith("data:")] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # Every picture has been decoded, and nothing sticks out of the page but what has a scroll bar of its own.
    assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    outside = page.evaluate(
        "(width) => [...document.querySelectorAll('main *')].filter((e) => !e.parentElement.closest('.scroll, .film, svg')"
        " && e.getBoundingClientRect().right > width + 0.5).map((e) => e.outerHTML.slice(0, 100))",
        width,
    )
    assert outside == []
    # Nothing lies over a text: what one would touch at its left end is the text's own element.
    covered = page.evaluate("""() => [...document.querySelectorAll(
        'h1, h2, h3, p, dt, dd, .label, .name, figcaption, td:first-child'
    )].filter((element) => {
        element.scrollIntoView({block: 'center', behavior: 'instant'});
        const box = element.getBoundingClientRect();
        if (box.width === 0) return false;
        const touched = document.elementFromPoint(box.left + Math.min(box.width / 2, 12), box.top + box.height / 2);
        return touched === null || !(element.contains(touched) || touched.contains(element));
    }).map((element) => element.outerHTML.slice(0, 100))""")
    assert covered == []
    page.close()


def test_table_of_goals_sorts_and_filters(report: Path, browser) -> None:
    page = browser.new_page()
    page.goto((report / "report.html").as_uri())

    def values(column: int) -> list[str]:
        return page.eval_on_selector_all(
            "table.goals tbody tr:not([hidden])", f"(rows) => rows.map((row) => row.cells[{column}].dataset.value)"
        )

    precisions = sorted(float(value) for value in values(3))
    page.click("table.goals th:nth-child(4) button")
    assert [float(value) for value in values(3)] == precisions
    page.click("table.goals th:nth-child(4) button")
    assert [float(value) for value in values(3)] == precisions[::-1]
    page.click("table.goals th:nth-child(1) button")
    assert values(0) == sorted(goal.text for goal in GOALS)
    page.fill(".filter input", "box held")
    assert values(0) == ["a box is held"]
    assert page.text_content(".filter output") == "1 of 4 goals"
    page.fill(".filter input", "")
    page.select_option(".filter select", "see")
    assert sorted(values(0)) == ["a ball is <b>seen</b>", "a box is seen"]
    page.close()


def test_the_page_works_without_scripts(report: Path, browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((report / "report.html").as_uri())
    assert page.locator("table.goals tbody tr").count() == len(GOALS)
    assert not page.locator(".filter").is_visible()
    context.close()
