import base64
import dataclasses
import html
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from labelled_corpus import draw_episodes, picture, write_corpus, write_labels
from PIL import Image

from vlm_rewards.pipelines.evaluate.evaluation import evaluate
from vlm_rewards.pipelines.report.charts import (
    MAX_BARS,
    curve_chart,
    drawn_curves,
    is_thinned,
    save_curves,
    skyline,
    sparkline,
    step_path,
)
from vlm_rewards.pipelines.report.page import shown_families
from vlm_rewards.pipelines.report.pictures import picture_element, shown_strips, strip_frames
from vlm_rewards.schemas.goals import Goal

_VOID = {"meta", "link", "img", "br", "input"}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    episodes = draw_episodes(16)
    episodes[0] = dataclasses.replace(episodes[0], frames=range(1, len(episodes[0].truth)))
    corpus = write_corpus(folder / "corpus", episodes)
    labels = write_labels(folder / "labels", corpus, episodes)
    evaluate(corpus, labels, output=folder / "out", beam_options=("--runner=FnApiRunner", "--direct_num_workers=1"))
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
    assert not re.search(r"https?://|url\((?!#)|@import|<script src|<link rel=.stylesheet", page)
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
    for text in ("frames per second and worker", "failures: undecodable image", "sha256:0", "1 more without a label"):
        assert text in page
    assert "encode</td>" in page
    assert page.count("<figure class=heat ") == 4  # two of each of the two families


def test_the_worst_goals_come_first_with_pictures_of_their_errors(report: Path) -> None:
    page = (report / "report.html").read_text()
    quality = json.loads((report / "quality.json").read_text())
    articles = re.findall(r"<article class=worst>.*?</article>", page, re.DOTALL)
    assert len(articles) == len(quality["worst_goals"]["goals"]) > 0
    rows = {goal["id"]: goal for goal in quality["goals"]}
    precisions = []
    for article, entry in zip(articles, quality["worst_goals"]["goals"], strict=True):
        row = rows[entry["goal"]]
        assert html.escape(row["text"]) in article
        assert article.count("<figure>") == len(entry["false_positives"]) + len(entry["false_negatives"])
        assert article.count("<img ") == article.count("<figure>")
        for example in entry["false_positives"]:
            assert f"score {example['score']:.3f}<br>{example['cause']}" in article
        precisions.append(row["average_precision"])
    assert precisions == sorted(precisions)


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
    evaluate(corpus, labels, output=tmp_path / "out", beam_options=("--runner=FnApiRunner", "--direct_num_workers=1"))
    page = (tmp_path / "out" / "report.html").read_text()
    assert "undefined: no positives" in page
    assert "4 goals never hold in this corpus" in page
    assert "Drawn are" not in page  # no family has a curve, so none is left out
    assert "The labels are sparse" in page
    assert "No goal starts or stops holding in any episode." in page
    assert "nan" not in re.sub(r"base64,[^\"]*", "", page).lower().replace("nance", "")


def test_strip_frames_are_spread_evenly() -> None:
    assert strip_frames(1) == [0]
    assert strip_frames(20) == list(range(20))
    # 16 spans of 2 frames: the second of each lies in the middle.
    assert strip_frames(32) == list(range(1, 32, 2))
    assert len(strip_frames(1000)) == 16


def test_small_pictures_stay_as_they_are_and_large_ones_become_thumbnails() -> None:
    small = picture_element(picture(0, 128), 'a "frame"', 96)
    assert small.startswith('<img class=small alt="a &quot;frame&quot;" src="data:image/png;base64,')
    large = picture_element(picture(0, 200), "a frame", 96)
    assert large.startswith('<img alt="a frame" src="data:image/jpeg;base64,')
    assert picture_element(b"junk", "a frame", 96) == '<div class="unreadable">not readable</div>'


def test_charts_leave_out_what_is_undefined() -> None:
    undefined = {"average_precision": "undefined: no positives", "positives": 0, "text": "a goal"}
    assert sparkline(undefined) == ""
    assert 'class="curve"' not in curve_chart({"all goals": undefined, "see": undefined})
    assert "<rect" not in skyline([undefined], 0)
    # Recall 0.5 at precision 1, then recall 1 at precision 0.75.
    assert step_path([0.5, 1.0], [1.0, 0.75], 0.0, digits=2) == "M0.00 1.00H0.50V0.75H1.00"


def test_a_chart_of_curves_holds_all_goals_and_the_eight_families_that_hold_most() -> None:
    pooled = {f"family {n}": {"average_precision": 0.5, "positives": n} for n in range(12)}
    pooled["family 11"]["average_precision"] = "undefined: no positives"
    drawn = drawn_curves({"all goals": {"average_precision": 0.5, "positives": 66}, **pooled})
    # Families keep their index, so their colour; family 11 has no curve, and 10 to 3 hold in most frames of the others.
    assert [(index, name) for index, name, _ in drawn] == [
        (-1, "all goals"),
        *((n, f"family {n}") for n in range(3, 11)),
    ]


def test_a_skyline_of_many_goals_draws_some_evenly_spaced() -> None:
    goals = [{"average_precision": n / 1000, "text": f"g{n}", "positives": 1} for n in range(1000)]
    few, many = skyline(goals[:MAX_BARS], 0), skyline(goals, 0)
    assert few.count("<rect") == many.count("<rect") == MAX_BARS
    assert not is_thinned(goals[:MAX_BARS])
    assert is_thinned(goals)
    assert "Average precision of 1,000 goals, highest first" in many
    drawn = [float(value) for value in re.findall(r"<title>g\d+: ([\d.]+)</title>", many)]
    assert (drawn[0], drawn[-1]) == (0.999, 0.0)
    assert drawn == sorted(drawn, reverse=True)
    # Goals that never hold have no bar.
    assert not is_thinned([*goals[:MAX_BARS], {"average_precision": "undefined", "text": "x", "positives": 0}])


def test_pictures_of_many_families_have_a_panel_for_those_that_hold_most(tmp_path: Path) -> None:
    def row(positives: int, points: int) -> dict:
        curve = {"recall": [0.5, 1.0][:points], "precision": [1.0, 0.5][:points]}
        return {"average_precision": 0.5, "positives": positives, "curve": curve}

    # One family without a point, as in sparse labels that hold the score of no positive.
    pooled = {"all goals": row(99, 2), **{f"f{n}": row(n, 2 if n else 0) for n in range(30)}}
    goals = [{**row(n, 2 if n else 0), "family": f"f{n}"} for n in range(30)]
    save_curves({"all goals": row(99, 2), "f0": row(1, 0)}, goals[:1], tmp_path)
    with Image.open(tmp_path / "precision_recall_goals.png") as one:
        width, height = one.size
    save_curves(pooled, goals, tmp_path)
    with Image.open(tmp_path / "precision_recall_goals.png") as many:
        assert many.size == (3 * width, 8 * height)  # 24 panels


def test_at_most_fifty_families_have_rows_of_their_own() -> None:
    families = {f"f{n}": {"pooled": {"positives": n % 60}} for n in range(120)}
    shown = shown_families(families)
    assert len(shown) == 50
    # f10 to f59 and f70 to f119 hold in 10 to 59 frames each; of these, the 50 with most: 35 to 59, in their order.
    assert shown == [f"f{n}" for n in (*range(35, 60), *range(95, 120))]
    assert shown_families(dict(list(families.items())[:50])) == [f"f{n}" for n in range(50)]


def test_a_report_of_many_families_says_which_it_shows(tmp_path: Path) -> None:
    num_goals = 60
    goals = [Goal(f"g{n}", f"text {n}", f"family {n}") for n in range(num_goals)]
    episodes = draw_episodes(4, num_goals=num_goals)
    for episode in episodes:
        episode.truth[:, 59] = False
    corpus = write_corpus(tmp_path / "corpus", episodes, goals=goals)
    labels = write_labels(tmp_path / "labels", corpus, episodes, goals=goals)
    evaluate(corpus, labels, output=tmp_path / "out", beam_options=("--runner=FnApiRunner", "--direct_num_workers=1"))
    page = (tmp_path / "out" / "report.html").read_text()
    assert "There are 60 families. The 50 whose goals hold in most frames have rows, charts and pictures below" in page
    assert "1 goal never holds in this corpus; its figures are undefined: g59." in page
    assert "Drawn are the 8 families whose goals hold in most frames." in page
    assert "The chart shows the first 24 rows of the table." in page
    assert "Shown are 12 of the 1" in page  # of some hundred film strips
    summary = re.search(r"<section id=summary>.*?</section>", page, re.DOTALL)
    assert summary is not None
    assert summary[0].count("<th scope=row") == 51
    # The table of goals has every goal, with its family.
    assert '<tr data-family="family 59"><th scope=row data-key="text 59">' in page
    assert '"family 59"' in page  # and can be chosen there


def test_pictures_fit_their_number_of_bytes() -> None:
    small, large = picture(0, 128), picture(0, 400)  # noise: 49 kB, and no JPEG of it is small

    def size(element: str) -> int:
        found = re.search(r"base64,([^\"]+)", element)
        assert found is not None
        return len(base64.b64decode(found[1]))

    assert picture_element(small, "", 96, 50_000) == picture_element(small, "", 96)
    assert 'src="data:image/jpeg' in picture_element(small, "", 96, 6_000)
    assert size(picture_element(small, "", 96, 6_000)) <= 6_000
    assert size(picture_element(large, "", 192, 6_000)) <= 6_000 < size(picture_element(large, "", 192))
    # No smaller than a third of the side, however few bytes there are.
    tiny = picture_element(large, "", 192, 1)
    found = re.search(r"base64,([^\"]+)", tiny)
    assert found is not None
    assert Image.open(io.BytesIO(base64.b64decode(found[1]))).size == (64, 64)


def test_film_strips_show_every_family_before_a_second_episode_of_one() -> None:
    strips = [{"family": f"f{n // 2}", "episode_id": f"e{n}"} for n in range(20)]
    shown = shown_strips({"film_strips": strips})
    # 12 of 20: one of each of the ten families, and the second of the first two.
    assert [strip["episode_id"] for strip in shown] == ["e0", "e1", "e2", "e3", *(f"e{n}" for n in range(4, 20, 2))]
