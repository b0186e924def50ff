import re

from vlm_rewards.pipelines.report.errors import causes_table, confused_pairs, errors_section, matrix, stacked_bar

CAUSES = {"near in time": 3, "<another> colour": 1, "none of these": 0}


def test_a_stacked_bar_has_a_part_a_cause_as_wide_as_its_count() -> None:
    bar = stacked_bar(list(CAUSES.values()), list(CAUSES))
    assert re.findall(r"<i class=(k\d) style=\"flex:(\d+)\" title=\"([^\"]+)\"", bar) == [
        ("k0", "3", "near in time: 3 (75%)"),
        ("k1", "1", "&lt;another&gt; colour: 1 (25%)"),
    ]
    assert stacked_bar([0, 0], ["a", "b"]) == '<span class="stack none"></span>'


def test_causes_are_columns_that_sort() -> None:
    table = causes_table(
        {"all goals": {"total": 4, "causes": CAUSES}, "find": {"total": 0, "causes": dict.fromkeys(CAUSES, 0)}}
    )
    assert "&lt;another&gt; colour</th>" in table
    assert re.findall(r'<td class=number data-key="(\d+)">', table) == ["4", "3", "1", "0", "0", "0", "0", "0"]


def test_a_matrix_is_shaded_by_the_share_of_its_row() -> None:
    table = matrix(["a", "<b>"], [[0, 8], [3, 1]], [8, 4], "caption")
    # 0, 8 of 8, 3 of 4 and 1 of 4 in 16 steps: 0, 15 (the last), 12 and 4.
    assert re.findall(r'<td class="number s(\d+)" title="(\d+)%">(\d+)</td>', table) == [
        ("0", "0", "0"),
        ("15", "100", "8"),
        ("12", "75", "3"),
        ("4", "25", "1"),
    ]
    assert "<th scope=row>&lt;b&gt;</th>" in table
    assert '<td class="number s0" title="0%">0</td>' in matrix(["a"], [[0]], [0], "")  # no false positive: no share


def test_pairs_of_goals_come_by_frames() -> None:
    goals = [
        {"id": "a", "confused_with": [{"goal": "b", "frames": 2, "share": 0.5}]},
        {
            "id": "b",
            "confused_with": [{"goal": "a", "frames": 7, "share": 1.0}, {"goal": "gone", "frames": 9, "share": 1.0}],
        },
    ]
    assert [(one["id"], other["id"], frames) for one, other, frames, _ in confused_pairs(goals)] == [
        ("b", "a", 7),
        ("a", "b", 2),
    ]


def test_pairs_that_are_cut_or_sampled_say_so() -> None:
    def rows(number: int) -> list[dict]:
        others = [{"goal": "g0", "frames": 1, "share": 0.5}]
        return [{"id": f"g{n}", "text": f"text {n}", "confused_with": others if n else []} for n in range(number + 1)]

    tables = {"families": "undefined: 25 families", "attributes": {}}
    quality = {**_quality(4, {**tables, "sampled_frames": {"frames": 3355, "of": 60000}}), "goals": rows(201)}
    section = errors_section(quality)
    assert "The 200 most frequent of 201 pairs; quality.json lists up to five per goal." in section
    assert "Counted in 3,355 of the 60,000 frames with a false positive, drawn at random" in section
    section = errors_section({**_quality(4, tables), "goals": rows(200)})
    assert "most frequent" not in section
    assert "drawn at random" not in section


def _quality(total: int, confusion: dict) -> dict:
    group = {"false_positives": {"total": total, "causes": CAUSES}}
    return {"overall": group, "families": {"find": group}, "goals": [], "confusion": confusion}


def test_what_is_undefined_or_empty_is_said() -> None:
    confusion = {
        "families": "undefined: more than 24 families",
        "attributes": {
            "colour": {"values": ["red", "blue"], "holds": [[0, 0], [0, 0]]},
            "shape": "undefined: more than 24 values",
        },
    }
    section = errors_section(_quality(4, confusion))
    assert "Confusion of families: undefined: more than 24 families." in section
    assert "Confusion by shape: undefined: more than 24 values." in section
    assert "no false positive differs from what holds in its colour alone" in section
    assert "No false positive falls in a frame where another goal holds." in section
    assert "There is no false positive." in errors_section(_quality(0, confusion))
