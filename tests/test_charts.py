from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from multilabel.charts import Chart, Mark, Series, bar_chart, heatmap, line_chart, lines
from multilabel.charts.heatmaps import SHADES

ANY_FLOAT = st.floats(width=64) | st.sampled_from([0.0, 1.0, 5e-324, 1e-9, 1e100, -1e100, 1e308])
AWKWARD = [[], [1.0], [2.0] * 5, [math.nan] * 3, [1, math.nan, 2], [math.inf, -math.inf], [1e308, -1e308], [0, 5e-324]]


def elements(chart: Chart, name: str) -> list[ET.Element]:
    """Elements of a chart that is well-formed, whose numbers are finite and whose rows are as long as their header."""
    root = ET.fromstring(chart.svg)
    assert root.get("role") == "img"
    assert root[0].tag == "title"
    assert root[0].text == chart.title
    assert root[1].tag == "desc"
    for element in root.iter():
        for attribute in ("d", "x", "y", "cx", "cy", "width", "height", "transform", "viewBox"):
            assert not re.search("nan|inf|e", re.sub("translate|scale|rotate", "", element.get(attribute, "")))
    assert all(len(row) == len(chart.header) for row in chart.rows)
    return [element for element in root.iter() if element.tag == name]


def texts(chart: Chart) -> list[str]:
    return [element.text or "" for element in elements(chart, "text")]


def drawn(chart: Chart, kind: str) -> list[str]:
    """What paths of a class draw."""
    return [path.get("d", "") for path in elements(chart, "path") if kind in path.get("class", "").split()]


def points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path)]


@pytest.mark.parametrize("style", ["line", "points", "step"])
@pytest.mark.parametrize("values", AWKWARD, ids=str)
def test_every_chart_survives_awkward_numbers(values: list[float], style: str) -> None:
    series = Series("one", np.arange(len(values)), values, style)  # type: ignore[arg-type]
    mark = Mark(math.nan, 1, "nowhere")
    assert elements(line_chart("t", [series, Series("two", values, values)], "x", "y", marks=[mark]), "svg")
    labels = [str(value) for value in values]
    errors = [(value, value) for value in values]
    assert elements(bar_chart("t", labels, values, errors=errors, chance=values, max_bars=3), "svg")
    square = np.resize(np.array(values, dtype=float), (len(values), len(values))) if values else np.zeros((0, 0))
    assert elements(heatmap("t", labels, labels, square, row_title="r", column_title="c"), "svg")


@given(
    hnp.arrays(float, st.tuples(st.integers(0, 30), st.just(2)), elements=ANY_FLOAT),
    st.none() | st.tuples(ANY_FLOAT, ANY_FLOAT),
    st.text(),
)
@settings(max_examples=150, deadline=None)
def test_line_charts_survive_anything(xy: np.ndarray, limits: tuple[float, float] | None, name: str) -> None:
    series = [Series(name, xy[:, 0], xy[:, 1]), Series("b", xy[:, 1], xy[:, 0], "points")]
    marks = [Mark(x, y, name) for x, y in xy[:3]]
    chart = line_chart("t", series, "x", "y", xlim=limits, ylim=limits, marks=marks, max_points=10)
    usable = int((np.abs(xy) <= 1e100).all(axis=1).sum())
    assert len(elements(chart, "circle")) == int((np.abs(xy[:3]) <= 1e100).all(axis=1).sum())
    assert len(chart.rows) <= 2 * usable


def test_points_lie_where_the_axes_say() -> None:
    chart = line_chart("t", [Series("a", [0, 0.5, 1], [0, 0.25, 1])], "x", "y", xlim=(0, 1), ylim=(0, 1))
    across = {e.text: float(e.get("x", "")) for e in elements(chart, "text") if e.get("class") == "minor middle"}
    down = {e.text: float(e.get("y", "")) - 5 for e in elements(chart, "text") if e.get("class") == "minor end"}
    (path,) = drawn(chart, "line")
    start, middle, end = points(path)
    assert start == (across["0.0"], down["0.0"])
    assert end == (pytest.approx(across["1.0"]), pytest.approx(down["1.0"]))
    assert middle[0] == pytest.approx((start[0] + end[0]) / 2, abs=0.1)
    assert middle[1] == pytest.approx(0.75 * start[1] + 0.25 * end[1], abs=0.1)


def test_missing_values_interrupt_a_curve_and_lone_points_are_dots() -> None:
    (path,) = drawn(line_chart("t", [Series("a", range(6), [1, 2, math.nan, 3, math.inf, 5])], "x", "y"), "line")
    assert re.sub(r"[-\d. ]", "", path) == "MhLMhMh"


def test_a_step_keeps_its_value_until_the_next_x() -> None:
    chart = line_chart("t", [Series("a", [0, 1], [0, 1], "step")], "x", "y", xlim=(0, 1), ylim=(0, 1))
    (path,) = drawn(chart, "line")
    ((left, bottom),) = points(path)
    assert path == f"M{left:g} {bottom:g}h0H466V{bottom - 250:g}"


def test_series_differ_by_more_than_colour() -> None:
    every = line_chart("t", [Series(f"s{i}", [0, 1], [i, i]) for i in range(36)], "x", "y")
    curves = [path for path in elements(every, "path") if "line" in path.get("class", "")]
    looks = {(path.get("class"), path.get("stroke-dasharray")) for path in curves}
    assert len(looks) == 36
    assert len({path.get("stroke-dasharray") for path in curves[:6]}) == 6
    clouds = drawn(line_chart("t", [Series(f"s{i}", [0], [i], "points") for i in range(4)], "x", "y"), "p1")
    assert len(set(clouds)) == len(clouds)
    dashed = line_chart("t", [Series("chance", [0, 1], [0, 1], dashed=True)], "x", "y")
    assert {path.get("stroke-dasharray") for path in elements(dashed, "path")} == {None, "4 4"}


def test_labels_of_marks_do_not_cover_each_other() -> None:
    marks = [Mark(0.5, 0.5, f"threshold {i}") for i in range(4)]
    chart = line_chart("t", [Series("a", [0, 1], [0, 1])], "x", "y", marks=marks)
    halos = [element for element in elements(chart, "text") if element.get("class") == "halo"]
    places = [(float(element.get("x", "")), float(element.get("y", ""))) for element in halos]
    assert [element.text for element in halos] == [mark.label for mark in marks]
    assert all(a[0] != b[0] or abs(a[1] - b[1]) >= 18 for i, a in enumerate(places) for b in places[:i])


@given(hnp.arrays(float, st.integers(0, 400), elements=st.floats(-1e6, 1e6)), st.integers(0, 100))
@settings(max_examples=100, deadline=None)
def test_thinning_keeps_ends_and_extremes(y: np.ndarray, most: int) -> None:
    x = np.sort(np.random.default_rng(0).normal(size=len(y)))
    kept = lines.thinned(x, y, most)
    assert (np.diff(kept) > 0).all()
    assert len(kept) <= max(most, 2) + 4
    if len(y):
        assert {kept[0], kept[-1]} == {0, len(y) - 1}
        assert (y[kept].min(), y[kept].max()) == (y.min(), y.max())
    if len(y) <= most:
        assert len(kept) == len(y)


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
@settings(max_examples=200, deadline=None)
def test_ticks_stand_at_round_numbers(low: float, span: float) -> None:
    axis = lines._axis([np.array([low, low + span])], None)
    assert axis.low <= axis.high
    assert 2 <= len(axis.ticks) <= 8
    step = axis.ticks[1] - axis.ticks[0]
    digits = step / 10 ** math.floor(math.log10(step) + 1e-6)
    assert min(abs(digits - one) for one in (1, 2, 5, 10)) < 0.01 * max(1, abs(low) / span * 1e-6)
    slack = 1e-6 * (axis.high - axis.low)
    assert axis.low - slack <= axis.ticks[0]
    assert axis.ticks[-1] <= axis.high + slack


def test_epochs_have_whole_ticks() -> None:
    chart = line_chart("t", [Series("a", [1, 2, 3], [0.5, 0.4, 0.3])], "epoch", "loss")
    assert [text for text in texts(chart) if text in "123"] == ["1", "2", "3"]
    assert "1.5" not in texts(chart)


def test_curves_over_the_same_x_share_a_table() -> None:
    same = line_chart("t", [Series("a", [1, 2], [0.5, 0.25]), Series("b", [1, 2], [3, 1234])], "epoch", "loss")
    assert same.header == ("epoch", "a", "b")
    assert same.rows == (("1", "0.5", "3"), ("2", "0.25", "1,234"))
    assert line_chart("t", [Series("a", [1], [0.5])], "epoch", "loss").header == ("epoch", "loss")
    other = line_chart("t", [Series("a", [1, 2], [3, 4]), Series("b", [1], [1 / 3])], "x", "y")
    assert other.header == ("series", "x", "y")
    assert other.rows == (("a", "1", "3"), ("a", "2", "4"), ("b", "1", "0.3333"))
    assert other.note == ""


def test_long_curves_stay_small() -> None:
    x = np.linspace(0, 1, 100_000)
    chart = line_chart("t", [Series("a", x, np.sin(40 * x)), Series("b", x, x)], "x", "y")
    assert len(chart.svg) < 8000
    assert len(chart.rows) < 200
    assert chart.note == "The table has some points of each curve only."


def test_bars_are_as_long_as_their_values() -> None:
    chart = bar_chart("t", ["a", "b", "c", "d"], [100, 50, -25, 0])
    lengths = [float(re.search(r"h([-\d.]+)", path)[1]) for path in drawn(chart, "bar")]  # type: ignore[index]
    assert np.array(lengths) / lengths[0] == pytest.approx([1, 0.5, -0.25], abs=0.002)
    assert chart.rows == (("a", "100"), ("b", "50"), ("c", "-25"), ("d", "0"))


def test_little_bars_can_be_seen() -> None:
    (_, little) = drawn(bar_chart("t", ["a", "b"], [1e6, 1]), "bar")
    assert "h1.5v" in little


def test_bars_show_intervals_and_chance() -> None:
    chart = bar_chart(
        "F1", ["a", "b"], [0.5, math.nan], errors=[(0.25, 0.75), None], chance=[0.5, None], value_format="{:.2f}"
    )
    assert chart.header == ("label", "value", "lowest", "highest", "chance")
    assert chart.rows == (("a", "0.50", "0.25", "0.75", "0.50"), ("b", "–", "–", "–", "–"))
    assert {"95% interval", "chance"} <= set(texts(chart))
    ((start, end),) = [
        (float(a), float(b)) for a, b in re.findall(r"M([\d.]+) [\d.]+H([\d.]+)M", "".join(drawn(chart, "interval")))
    ]
    at_chance = float(drawn(chart, "chance")[1][1:].split()[0])
    assert (start + end) / 2 == pytest.approx(at_chance, abs=0.1)
    (bar,) = drawn(chart, "bar")
    assert float(bar[1:].split()[0]) + float(re.search(r"h([\d.]+)", bar)[1]) == pytest.approx(at_chance, abs=0.2)  # type: ignore[index]
    same_for_all = bar_chart("F1", ["a", "b"], [0.5, 0.4], chance=np.float32(0.5), value_format="{:.1f}")
    assert [row[2] for row in same_for_all.rows] == ["0.5", "0.5"]


def test_a_long_tail_is_summed_up() -> None:
    values = np.arange(100)
    chart = bar_chart("t", [f"class {i}" for i in values], values, max_bars=11)
    assert len(drawn(chart, "bar")) == 10
    assert texts(chart)[:2] == ["class 99", "99"]
    assert texts(chart)[-1] == f"90 others: 0 to 89, together {sum(range(90)):,}"
    assert chart.note == "Drawn are the 10 largest of 100."
    assert chart.rows[0] == ("class 0", "0")
    assert len(chart.rows) == 100
    scores = bar_chart("t", ["a", "b", "c"], [0.5, math.nan, 0.75], value_format="{:.2f}", max_bars=2)
    assert texts(scores) == ["c", "0.75", "2 others: 0.50 to 0.50"]
    assert bar_chart("t", ["a", "b"], [math.nan] * 2, max_bars=1).svg.count("2 others, without a value") == 1


def test_labels_and_values_must_match() -> None:
    with pytest.raises(ValueError, match="zip"):
        bar_chart("t", ["a", "b"], [1])


@given(hnp.arrays(np.int64, st.tuples(st.integers(1, 45), st.integers(1, 45)), elements=st.integers(0, 9) | st.just(0)))
@settings(max_examples=60, deadline=None)
def test_cells_are_shaded_by_their_share_of_the_row(counts: np.ndarray) -> None:
    rows, columns = ([f"{name}{i}" for i in range(size)] for name, size in zip("rc", counts.shape, strict=True))
    chart = heatmap("t", rows, columns, counts, row_title="labelled", column_title="predicted")
    shade = np.zeros(counts.shape)
    for path in elements(chart, "path")[: -len(SHADES)]:
        for column, row, length in re.findall(r"M(\d+) (\d+)h(\d+)", path.get("d", "")):
            shade[int(row), int(column) : int(column) + int(length)] = float(path.get("stroke-opacity", ""))
    for row, column in np.ndindex(*counts.shape):
        share = counts[row, column] / max(counts[row].sum(), 1)
        expected = next(s for i, s in enumerate((0.0, *SHADES)) if share <= i / len(SHADES) + 1e-12)
        assert shade[row, column] == expected
    assert [row[:3] for row in chart.rows] == [
        (rows[r], columns[c], f"{counts[r, c]}")
        for r, c in sorted(np.ndindex(*counts.shape), key=lambda cell: -counts[cell])
        if counts[r, c]
    ]


def test_few_cells_hold_their_counts() -> None:
    chart = heatmap("t", ["a", "b"], ["a", "b"], [[3, 1], [0, 12]], row_title="labelled", column_title="predicted")
    assert chart.header == ("labelled", "predicted", "count", "share of row")
    assert chart.rows == (("b", "b", "12", "100.0%"), ("a", "a", "3", "75.0%"), ("a", "b", "1", "25.0%"))
    assert [(t.text, t.get("class")) for t in elements(chart, "text") if (t.text or "").isdigit()] == [
        ("3", "middle on"),
        ("1", "middle"),
        ("12", "middle on"),
    ]
    assert chart.note == ""


def test_names_of_many_classes_are_thinned_and_then_left_out() -> None:
    def of(classes: int) -> Chart:
        names = [f"name {i}" for i in range(classes)]
        return heatmap("t", names, names, np.eye(classes), row_title="labelled", column_title="predicted")

    some = of(40)
    rotated = [text for text in elements(some, "text") if "rotate" in text.get("transform", "")]
    assert len(rotated) == 20
    assert some.note == "Only one in 2 columns is named here; all names are in the table."
    none = of(41)
    assert not [text for text in texts(none) if text.startswith("name")]
    assert none.note == "There are too many names to show here; they are in the table."
    assert 'class="chart wide"' in none.svg


def test_a_large_heatmap_stays_small() -> None:
    counts = np.random.default_rng(0).poisson(0.1, (150, 150)) + np.diag(np.full(150, 30))
    names = [f"class {i}" for i in range(150)]
    assert len(heatmap("t", names, names, counts, row_title="labelled", column_title="predicted").svg) < 30_000
    tall = heatmap("t", [str(i) for i in range(500)], ["a"], np.ones((500, 1)), row_title="r", column_title="c")
    assert float(re.search(r'viewBox="0 0 480 ([\d.]+)"', tall.svg)[1]) < 600  # type: ignore[index]
