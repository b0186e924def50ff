import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from labelled_corpus import Labelled, draw_episodes, write_corpus, write_labels

from vlm_rewards.pipelines.evaluate.evaluation import evaluate
from vlm_rewards.schemas.goals import Goal

CHROMIUM_OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
TEXTS = {
    "own": "* {}",
    "monospaced": "* { font-family: monospace !important }",
    "serif": "* { font-family: serif !important }",
    # What readers may set, by WCAG 2, criterion 1.4.12: wider than any font of this page without it.
    "wide": "* { letter-spacing: 0.12em !important; word-spacing: 0.16em !important; line-height: 1.5 !important }",
}
"""Styles of text that the layout must hold: which fonts a machine has is not known."""

SIZES = {"pick up": 300, "open a very long name of a family": 98, "once": 2}
NUM_GOALS = sum(SIZES.values())
NUM_MANY = 620


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 400 goals, of which some never hold; one goal's text cannot be broken at spaces."""
    folder = tmp_path_factory.mktemp("report")
    families = [family for family, size in SIZES.items() for _ in range(size)]
    goals = [
        Goal(
            f"goal-{n}",
            f"the arm has put wooden object {n} into the box on its left",
            family,
            attributes={"n": f"{n % 5}"},
        )
        for n, family in enumerate(families[:-1])
    ]
    goals.append(Goal("last", "w" * 90, "once"))
    episodes = draw_episodes(6, num_goals=NUM_GOALS)
    for episode in episodes:
        episode.truth[:, 40:60] = False
    episodes.append(
        Labelled("single", np.ones((1, NUM_GOALS), bool), np.full((1, NUM_GOALS), 0.9, np.float32), range(1))
    )
    episodes[-1].truth[:, 40:60] = False
    corpus = write_corpus(folder / "corpus", episodes, goals=goals)
    labels = write_labels(folder / "labels", corpus, episodes, goals=goals)
    evaluate(corpus, labels, output=folder / "out", beam_options=("--runner=FnApiRunner", "--direct_num_workers=1"))
    return folder / "out" / "report.html"


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


@pytest.fixture
def page(report: Path, browser) -> Iterator:
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.goto(report.as_uri())
    yield opened
    opened.close()


@pytest.mark.parametrize("width", [360, 768, 1280, 1920])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_in_a_browser_and_asks_for_nothing(report: Path, browser, width: int, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    address = report.as_uri()
    page.goto(address)
    assert complaints == []
    assert [url for url in requests if url != address and not url.startswith("data:")] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # Every picture has been decoded, and nothing sticks out of the page but what has a scroll bar of its own.
    assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    outside = page.evaluate(
        "(width) => [...document.querySelectorAll('main *')].filter((e) => !e.parentElement.closest('.scroll, nav, svg')"
        " && e.getBoundingClientRect().right > width + 0.5).map((e) => e.outerHTML.slice(0, 100))",
        width,
    )
    assert outside == []
    # No text is wider or higher than its box, unless the box scrolls.
    clipped = page.evaluate("""() => [...document.querySelectorAll('main *:not(svg *)')].filter((element) => {
        const {display, overflowX, overflowY} = getComputedStyle(element);
        if (display === 'inline' || element.clientWidth === 0 || element.closest('table') !== null) return false;
        return (overflowX === 'visible' && element.scrollWidth > element.clientWidth + 1)
            || (overflowY === 'visible' && element.scrollHeight > element.clientHeight + 2);
    }).map((element) => element.outerHTML.slice(0, 100))""")
    assert clipped == []
    page.close()


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("width", [360, 1280])
def test_no_text_lies_over_another(report: Path, browser, width: int, text: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(report.as_uri())
    page.add_style_tag(content=TEXTS[text])
    # What one would touch at the left end of a text is the text's own element.
    covered = page.evaluate("""() => [...document.querySelectorAll(
        'h1, h2, h3, main p, dt, dd, .label, .name, figcaption, summary'
    )].filter((element) => {
        element.scrollIntoView({block: 'center', behavior: 'instant'});
        const box = element.getBoundingClientRect();
        if (!element.checkVisibility() || box.height > 800) return false;
        const touched = document.elementFromPoint(box.left + Math.min(box.width / 2, 12), box.top + box.height / 2);
        return touched === null || !(element.contains(touched) || touched.contains(element));
    }).map((element) => element.outerHTML.slice(0, 100))""")
    assert covered == []
    overlapping = page.evaluate("""() => [...document.querySelectorAll('svg.chart')].flatMap((svg) => {
        const frame = svg.getBoundingClientRect();
        const boxes = [...svg.querySelectorAll('text')].map((text) => [text.textContent, text.getBoundingClientRect()]);
        const cut = boxes.filter(([, a]) => a.left < frame.left - 1 || a.right > frame.right + 1 || a.bottom > frame.bottom + 1);
        const over = boxes.filter(([, a], i) => boxes.slice(i + 1).some(([, b]) =>
            a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1));
        return [...cut, ...over].map(([words]) => words);
    })""")
    assert overlapping == []
    page.close()


def _keys(page, table: str, column: int) -> list[str]:
    return page.eval_on_selector_all(
        f"table.{table} tbody tr:not([hidden])", f"(rows) => rows.map((row) => row.cells[{column}].dataset.key)"
    )


def test_every_column_of_the_goals_sorts_both_ways_with_what_is_undefined_last(page) -> None:
    heads = page.locator("table.goals thead tr:last-child th")
    numbers = 0
    for column in range(heads.count()):
        head = heads.nth(column)
        if head.get_attribute("data-fixed") is not None:
            assert head.locator("button").count() == 0
            continue
        button = head.locator("button")
        button.click()
        if head.get_attribute("aria-sort") == "descending":  # the column that the page was sorted by
            button.click()
        assert head.get_attribute("aria-sort") == "ascending"
        rising = _keys(page, "goals", column)
        button.click()
        assert head.get_attribute("aria-sort") == "descending"
        assert page.locator("table.goals [aria-sort]").count() == 1
        falling = _keys(page, "goals", column)
        assert len(rising) == len(falling) == NUM_GOALS
        if head.get_attribute("data-text") is None:
            numbers += 1
            known = [float(key) for key in rising if key != ""]
            assert known == sorted(known)
            assert [float(key) for key in falling if key != ""] == sorted(known, reverse=True)
            assert all(key == "" for key in rising[len(known) :] + falling[len(known) :])
    assert numbers >= 14


def test_goals_are_filtered_by_words_and_family(page) -> None:
    assert page.text_content(".filter output") == "400 of 400 goals"
    page.fill(".filter input", "OBJECT 317 ")
    assert _keys(page, "goals", 0) == ["the arm has put wooden object 317 into the box on its left"]
    page.fill(".filter input", "")
    page.select_option(".filter select", "once")
    assert page.text_content(".filter output") == "2 of 400 goals"
    assert "w" * 90 in _keys(page, "goals", 0)
    page.click("table.goals thead th:first-child button")
    assert len(_keys(page, "goals", 0)) == 2  # sorting keeps the filter


def test_sorting_works_from_the_keyboard(page) -> None:
    button = page.locator("table.summary thead tr:last-child th button").nth(1)
    button.focus()
    page.keyboard.press("Enter")
    sizes = [int(key) for key in _keys(page, "summary", 1)]
    assert sizes == sorted(sizes)
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_a_heat_map_reads_out_the_cell_under_the_pointer(page) -> None:
    assert not page.locator(".readout").is_visible()
    cells = page.locator(".heat .cells[data-values]").first
    values = cells.get_attribute("data-values").split(" ")
    name = cells.locator("xpath=preceding-sibling::*").text_content()
    cells.scroll_into_view_if_needed()
    box = cells.bounding_box()
    page.mouse.move(box["x"] + 2.5 * box["width"] / len(values), box["y"] + 8)
    words = page.text_content(".readout")
    score = re.match(r"[\d.e-]+", values[2])
    assert words.startswith(name)
    assert f"frame 2: score {score[0]}" in words
    assert "(threshold 0.5)" in words
    assert ("does not hold" in words) == ("t" not in values[2])
    readout = page.locator(".readout").bounding_box()
    assert readout["x"] >= 0
    assert readout["x"] + readout["width"] <= 1280
    page.mouse.move(5, 5)
    assert not page.locator(".readout").is_visible()


def test_the_overview_reads_out_what_the_large_row_of_the_same_goal_does(page) -> None:
    large = page.locator(".heat .cells[data-values]").first
    goal, values = large.get_attribute("data-goal"), large.get_attribute("data-values").split(" ")
    members = page.evaluate(
        "(goal) => [...document.querySelector('.heat').querySelectorAll('.cells.all')].map((band) => "
        "band.dataset.goals.split(' ').indexOf(goal))",
        goal,
    )
    number = next(place for place, member in enumerate(members) if member >= 0)
    band = page.locator(".heat").first.locator(".cells.all").nth(number)
    size = len(band.get_attribute("data-goals").split(" "))
    for column, value in enumerate(values):
        height = band.bounding_box()["height"]
        position = {
            "x": (column + 0.5) * band.bounding_box()["width"] / len(values),
            "y": (members[number] + 0.5) * height / size,
        }
        band.hover(position=position)
        words = page.text_content(".readout")
        score = float(re.match(r"[\d.e-]+", value)[0])
        about = float(re.search(r"score about ([\d.]+)", words)[1])
        assert about == pytest.approx(score, abs=1 / 256 + 0.005)  # a grey level, and two decimals
        assert ("does not hold" in words) == ("t" not in value)
        assert f"frame {column}:" in words


def test_arrow_keys_go_from_cell_to_cell_into_the_overview(page) -> None:
    film = page.locator(".heat .film").first
    film.focus()
    page.keyboard.press("ArrowRight")
    rows = page.locator(".heat").first.locator(".cells[data-values]")
    names = rows.evaluate_all("(rows) => rows.map((row) => row.previousElementSibling.textContent)")
    assert page.text_content(".readout b") == names[0]
    page.keyboard.press("ArrowRight")
    assert "frame 1:" in page.text_content(".readout")
    for name in names[1:]:
        page.keyboard.press("ArrowDown")
        assert page.text_content(".readout b") == name
    page.keyboard.press("ArrowDown")
    assert page.text_content(".readout b").endswith("object 0 into the box on its left")  # the first of all goals
    page.keyboard.press("ArrowUp")
    assert page.text_content(".readout b") == names[-1]


def test_colours_of_the_overview_are_those_of_the_rows_in_both_schemes(report: Path, browser) -> None:
    for scheme in ("light", "dark"):
        page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
        page.goto(report.as_uri())
        # The filter's steps and the strokes of the rows are one scale.
        steps = page.evaluate("""(scheme) => {
            const style = getComputedStyle(document.documentElement);
            const red = document.querySelector(`#heat-${scheme} feFuncR`).getAttribute('tableValues').split(' ').map(Number);
            return red.map((share, step) => [Math.round(255 * share), style.getPropertyValue(`--h${step}`).trim()]);
        }""", scheme)  # fmt: skip
        assert [red for red, _ in steps] == pytest.approx([int(colour[1:3], 16) for _, colour in steps], abs=1)
        assert page.evaluate("getComputedStyle(document.querySelector('.cells.all img')).filter").endswith(
            f'#heat-{scheme}")'
        )
        page.close()


def test_the_page_works_without_scripts(report: Path, browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.locator("table.goals tbody tr").count() == NUM_GOALS
    assert not page.locator(".filter").is_visible()
    assert page.locator(".heat .cells svg").count() > 0
    context.close()


@pytest.fixture(scope="module")
def large_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Report of 620 goals, more than the page has rows of HTML for; twenty never hold."""
    folder = tmp_path_factory.mktemp("large")
    goals = [
        Goal(f"goal-{n}", f"cup <b>{n}</b> stands in the sink", f"family {n % 3}", attributes={"n": f"{n % 5}"})
        for n in range(NUM_MANY)
    ]
    episodes = draw_episodes(4, num_goals=NUM_MANY)
    for episode in episodes:
        episode.truth[:, 40:60] = False
    corpus = write_corpus(folder / "corpus", episodes, goals=goals)
    labels = write_labels(folder / "labels", corpus, episodes, goals=goals)
    evaluate(corpus, labels, output=folder / "out", beam_options=("--runner=FnApiRunner", "--direct_num_workers=1"))
    return folder / "out" / "report.html"


@pytest.fixture
def large_page(large_report: Path, browser) -> Iterator:
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.goto(large_report.as_uri())
    yield opened
    opened.close()


def _cells(page) -> list[list[str]]:
    """What the rows of the table of goals show, without the drawn curves, which differ in their number of points."""
    return page.eval_on_selector_all(
        "table.goals tbody tr",
        """(rows) => rows.map((row) => [row.dataset.family, ...Array.from(row.cells, (cell) =>
            cell.tagName + cell.className + cell.textContent + (cell.querySelector('.bar i')?.getAttribute('style') ?? '')
            + (cell.querySelector('.spark') === null ? '' : 'curve')).map((text) => text.replace(/ /g, ''))])""",
    )


def _draw_all(page) -> None:
    """Scrolls the table of goals until all its rows are drawn."""
    page.evaluate("""async () => {
        const frame = document.querySelector('table.goals').closest('.scroll');
        for (let rows = -1; rows !== frame.querySelectorAll('tr').length; ) {
            rows = frame.querySelectorAll('tr').length;
            frame.scrollTop = frame.scrollHeight;
            await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
        }
    }""")


def test_rows_made_from_data_show_what_rows_of_html_do(large_report: Path, large_page, browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    static = context.new_page()
    static.goto(large_report.as_uri())
    assert static.locator("noscript").is_visible()
    rows = _cells(static)
    context.close()
    assert len(rows) == 100
    # The same goals in the same order, cell by cell.
    for made, written in zip(_cells(large_page), rows, strict=True):
        assert [text.replace(";", "") for text in made] == [text.replace(";", "") for text in written]


def test_each_of_many_goals_is_found_by_its_text(large_page) -> None:
    words = "620 of 620 goals, the first 100 in the table: scroll it for more"
    assert large_page.text_content(".filter output") == words
    for number in (0, 45, 311, 619):
        large_page.fill(".filter input", f"<b>{number}</b> SINK")
        assert large_page.locator("table.goals tbody .id").all_text_contents() == [f"goal-{number}"]
        assert large_page.text_content(".filter output") == "1 of 620 goals"
    large_page.fill(".filter input", "")
    large_page.select_option(".filter select", "family 1")
    _draw_all(large_page)
    assert large_page.text_content(".filter output") == "207 of 620 goals"
    assert set(large_page.locator("table.goals tbody td:nth-child(2)").all_text_contents()) == {"family 1"}


def test_columns_of_many_goals_sort_both_ways_with_what_is_undefined_last(large_page) -> None:
    heads = large_page.locator("table.goals thead tr:last-child th")
    for column in (0, 4, 12, heads.count() - 2):
        button = heads.nth(column).locator("button")
        for way in ("ascending", "descending"):
            while heads.nth(column).get_attribute("aria-sort") != way:
                button.click()
            _draw_all(large_page)
            keys = _keys(large_page, "goals", column)
            assert len(keys) == NUM_MANY
            known = keys if column == 0 else [float(key) for key in keys if key != ""]
            assert all(key == "" for key in keys[len(known) :])
            if column > 0:
                assert known == sorted(known, reverse=way == "descending")
    assert 0 < len(known) < NUM_MANY  # some goals have no figure there
    # Sorting starts at the top again.
    heads.nth(0).locator("button").click()
    assert large_page.locator("table.goals tbody tr").count() == 100


def test_heat_maps_of_many_goals_read_out_their_texts(large_page) -> None:
    cells = large_page.locator(".heat .cells[data-values]").first
    name = cells.locator("xpath=preceding-sibling::*").text_content()
    cells.hover(position={"x": 5, "y": 8})
    assert large_page.text_content(".readout b") == name


@pytest.mark.parametrize("width", [360, 1280])
def test_a_page_of_many_goals_fits(large_report: Path, browser, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(large_report.as_uri())
    _draw_all(page)
    assert page.locator("table.goals tbody tr").count() == NUM_MANY
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert complaints == []
    page.close()
