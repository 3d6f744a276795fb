"""What people look at: every number stands where it belongs, and the loss curve shows the history it was given."""

from __future__ import annotations

import math
import os
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from multilabel.evaluation import AttributeScores, ClassScores, Evaluation, Score, TagScores, evaluate
from multilabel.report import loss_curve, loss_figure, score_table
from multilabel.thresholds import Threshold
from multilabel.training import History

COLUMNS = ["precision", "recall", "f1", "average_precision", "roc_auc"]
HISTORY = History(
    training_loss=[0.9, 0.7, 0.8, 0.5, 0.4, 0.3], validation_loss=[0.75, 0.6, 0.65], epoch_ends=[2, 4, 6], best_epoch=2
)


@pytest.fixture(scope="module")
def evaluation():
    """One attribute with all scores, one without positives, one without any label; names short and long."""
    rng = np.random.default_rng(0)
    y = rng.choice(np.array([1, 0, -1], np.int8), size=(60, 3))
    p = np.clip(rng.normal(0.4 + 0.2 * (y == 1), 0.2), 0, 1)
    y[:, 1][y[:, 1] == 1] = 0
    y[:, 2] = -1
    thresholds = [Threshold(0.4321, "tuned", 20), Threshold(0.25, "shared", 0), Threshold(0.5, "default", 0)]
    names = ("hat", "a quite long name", "unknown")
    return evaluate(y, p, names, thresholds, part="validation part", draws=50)


def two_decimals(value):
    return "n/a" if math.isnan(value) else f"{value:.2f}"


def cut_out(line, header):
    """The cells of a line below the five columns of the header, by where these end."""
    ends = [header.index(name) + len(name) for name in ("precision", "recall", "F1", "AP", "AUC")]
    starts = [header.index("threshold") + len("threshold") + 10, *ends[:-1]]
    return [line[start:end] for start, end in zip(starts, ends, strict=True)]


def test_the_table_of_one_attribute():
    scores = AttributeScores(
        attribute="hat",
        known=1234,
        positives=7,
        negatives=1227,
        threshold=Threshold(0.0625, "shared", 7, (0.05, 0.4567)),
        precision=Score(0.5, 0.25, 0.754, 0.01),
        recall=Score(1.0, 0.996, 1.0, 0.5),
        f1=Score(0.667, 0.4, 0.8, 0.02),
        average_precision=Score(0.333, 0.1, 0.6, 0.006),
        roc_auc=Score(0.875, 0.75, math.nan, 0.5),
    )
    assert score_table(Evaluation("validation part", 2000, 4000, 1234, True, (scores,))).splitlines() == [
        "Measured on the validation part: 2,000 pictures, 1,234 of 4,000 labels known.",
        "Below each score: its 95% interval, and what chance scores. Below each threshold: its range over the folds.",
        "",
        "attribute      known  positives    threshold           precision    recall        F1        AP       AUC",
        "hat        1234/2000          7       0.062*  score         0.50      1.00      0.67      0.33      0.88",
        "                                 0.050-0.457  95%      0.25-0.75 1.00-1.00 0.40-0.80 0.10-0.60  0.75-n/a",
        "                                              chance        0.01      0.50      0.02      0.01      0.50",
        "",
        "Macro F1 0.67, the mean over 1 of 1 attributes.",
        "*  the threshold that suits all attributes together: wanted so, or for want of its own positives.",
    ]


def test_p_values_stand_beside_the_scores(evaluation):
    tested = evaluation.with_p_values([0.0004, 0.1234, math.nan])
    plain, lines = score_table(evaluation).splitlines(), score_table(tested).splitlines()
    assert lines[3] == plain[3] + "   p-value"
    assert [lines[row][len(plain[row]) :].strip() for row in (4, 7, 10)] == ["<0.001", "0.123", "n/a"]
    others = [row for row in range(len(plain)) if row not in (3, 4, 7, 10)]
    assert [lines[row] for row in others] == [plain[row] for row in others]


def test_every_number_of_an_evaluation_is_in_its_place(evaluation):
    lead, _, empty, header, *lines, blank, macro, note, note_of_default = score_table(evaluation).splitlines()
    known = sum(scores.known for scores in evaluation.scores)
    assert lead.startswith(f"Measured on the validation part: 60 pictures, {known} of 180 labels known.")
    assert (empty, blank, len(lines)) == ("", "", 9)
    left_out = "left out, for want of one class: a quite long name, unknown"
    assert macro == f"Macro F1 {two_decimals(evaluation.macro_f1)}, the mean over 1 of 3 attributes; {left_out}."
    assert note.startswith("*  the threshold that suits all")
    assert note_of_default == "** no positives to choose a threshold by: 0.5."
    assert len({len(line) for line in [header, *lines]}) == 1
    for number, scores in enumerate(evaluation.scores):
        columns = [getattr(scores, name) for name in COLUMNS]
        value, interval, chance = lines[3 * number : 3 * number + 3]
        name, rest = value[: len("a quite long name")], value[len("a quite long name") :]
        mark = {"a quite long name": "*", "unknown": "**"}.get(scores.attribute, "")
        assert name.rstrip() == scores.attribute
        threshold = f"{scores.threshold.value:.3f}{mark}"
        assert rest.split()[:4] == [f"{scores.known}/60", str(scores.positives), threshold, "score"]
        assert interval.split()[0] == "95%"
        assert chance.split()[0] == "chance"
        assert [cell.strip() for cell in cut_out(value, header)] == [two_decimals(score.value) for score in columns]
        assert [cell.strip() for cell in cut_out(chance, header)] == [two_decimals(score.chance) for score in columns]
        assert [cell.strip() for cell in cut_out(interval, header)] == [
            "n/a" if math.isnan(score.low) else f"{two_decimals(score.low)}-{two_decimals(score.high)}"
            for score in columns
        ]


def test_what_is_undefined_is_not_a_number_from_nowhere(evaluation):
    lines = score_table(evaluation).splitlines()
    header, unknown = lines[3], lines[10:13]
    assert unknown[0].split()[:4] == ["unknown", "0/60", "0", "0.500**"]
    assert set(cut_out(unknown[0], header)[-1].split()) == {"n/a"}
    assert "nan" not in "\n".join(lines)


def test_no_star_no_footnote(evaluation):
    own = Evaluation("test part", 60, 180, 30, False, (evaluation.scores[0],))
    table = score_table(own)
    assert "*" not in table
    assert len(table.splitlines()) == 9
    assert table.startswith("Measured on the test part: 60 pictures, 30 of 180 labels known.\n")


def test_nothing_to_score():
    assert len(score_table(Evaluation("validation part", 0, 0, 0, False, ())).splitlines()) == 2


# --- tags

TAG_TABLE = [
    "tag                    known     classes               accuracy     macro F1        top 3",
    "gender             1234/2000           2  score           0.954        0.941        1.000",
    "                                          95%       0.950-0.958  0.930-0.952  1.000-1.000",
    "                                          chance          0.512        0.339        1.000",
    "a quite long name     5/2000     1 of 12  score           0.200        0.333        0.600",
    "                                          95%               n/a          n/a          n/a",
    "                                          chance          1.000        1.000        1.000",
]


def tag_scores(name, counts, accuracy, macro_f1, top3_accuracy):
    per_class = tuple(ClassScores(f"class {k}", known, 0.5, 0.5, 0.5) for k, known in enumerate(counts))
    names = tuple(scores.name for scores in per_class)
    return TagScores(name, sum(counts), names, accuracy, macro_f1, top3_accuracy, per_class)


GENDER = tag_scores(
    "gender", (632, 602), Score(0.954, 0.95, 0.9579, 0.5122), Score(0.941, 0.93, 0.952, 0.339), Score(1, 1, 1, 1)
)
LONG = tag_scores(
    "a quite long name",
    (5, *[0] * 11),
    Score(0.2, math.nan, math.nan, 1.0),
    Score(1 / 3, math.nan, math.nan, 1.0),
    Score(0.6, math.nan, math.nan, 1.0),
)


def test_the_table_of_tags_alone():
    evaluation = Evaluation("test part", 2000, 4000, 1239, False, (), (GENDER, LONG))
    assert score_table(evaluation).splitlines() == [
        "Measured on the test part: 2,000 pictures, 1,239 of 4,000 labels known.",
        "Below each score: its 95% interval, and what chance scores.",
        "",
        *TAG_TABLE,
        "",
        "Mean accuracy 0.577, the mean over 2 tags.",
    ]


def test_the_table_of_attributes_is_the_same_with_tags_below(evaluation):
    evaluation = replace(evaluation, pictures=2000)
    alone = score_table(evaluation)
    both = score_table(replace(evaluation, tags=(GENDER, LONG)))
    assert both == "\n".join([alone, "", *TAG_TABLE, "", "Mean accuracy 0.577, the mean over 2 tags."])


def test_a_tag_without_labels_is_left_out_of_the_mean():
    undefined = Score(math.nan, math.nan, math.nan, math.nan)
    unknown = tag_scores("season", (0, 0), undefined, undefined, undefined)
    lines = score_table(Evaluation("test part", 2000, 4000, 1234, False, (), (GENDER, unknown))).splitlines()
    assert lines[-1] == "Mean accuracy 0.954, the mean over 1 tag; left out, for want of known labels: season."
    assert lines[7].split() == ["season", "0/2000", "0", "of", "2", "score", "n/a", "n/a", "n/a"]


# --- the loss curve


def test_the_figure_shows_the_history():
    (axes,) = loss_figure(HISTORY, "run 7").axes
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == ("run 7", "iteration_number", "training_loss")
    training, validation, kept = axes.lines
    np.testing.assert_array_equal(training.get_xydata(), [*zip(range(1, 7), HISTORY.training_loss, strict=True)])
    np.testing.assert_array_equal(validation.get_xydata(), [*zip([2, 4, 6], HISTORY.validation_loss, strict=True)])
    assert kept.get_xdata() == [4, 4]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["training loss", "validation loss", "weights kept (epoch 2)"]
    assert len({line.get_color() for line in axes.lines}) == 3
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylim()[1] > 0.9


def test_folds_have_a_validation_loss_each():
    kept = replace(HISTORY, validation_loss=[], validation_accuracy=[])
    folds = [replace(HISTORY, validation_loss=[0.7, 0.6, 0.5 + number], epoch_ends=[1, 2, 3]) for number in range(2)]
    (axes,) = loss_figure(kept, "run 7", folds).axes
    _, *validation, _ = axes.lines
    for number, line in enumerate(validation):
        assert line.get_xydata().tolist() == [[1, 0.7], [2, 0.6], [3, 0.5 + number]]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["training loss", "validation loss of the 2 folds", "weights kept (epoch 2)"]
    assert len({line.get_color() for line in validation}) == 1


def test_a_dotted_line_marks_where_fine_tuning_begins():
    (axes,) = loss_figure(replace(HISTORY, phase_ends=[2, 3]), "run 7").axes
    *_, line = axes.lines
    assert len(axes.lines) == 4
    assert line.get_xdata() == [4.5, 4.5]  # after the 4 iterations of the first 2 epochs
    assert line.get_linestyle() == ":"
    assert axes.get_legend().get_texts()[-1].get_text() == "fine-tuning"


@pytest.mark.parametrize("phase_ends", [[], [3], [3, 3], [0, 3]], ids=["unknown", "one", "second empty", "first empty"])
def test_one_phase_needs_no_line(phase_ends):
    assert len(loss_figure(replace(HISTORY, phase_ends=phase_ends), "run 7").axes[0].lines) == 3


def test_the_curve_is_a_png(tmp_path):
    path = tmp_path / "loss_curve.png"
    loss_curve(HISTORY, "run 7", path)
    with Image.open(path) as image:
        assert (image.format, image.size) == ("PNG", (960, 600))
        pixels = np.asarray(image.convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50  # lines, labels and their soft edges
    assert (pixels[0] == 255).all()


def test_a_single_iteration(tmp_path):
    history = History(training_loss=[0.5], validation_loss=[0.25], epoch_ends=[1], best_epoch=1)
    training, validation, _ = loss_figure(history, "").axes[0].lines
    assert training.get_marker() not in ("", "None", None)  # a line through one point alone shows nothing
    assert validation.get_xydata().tolist() == [[1, 0.25]]
    loss_curve(history, "", tmp_path / "curve.png")


@pytest.mark.parametrize("title", ["$x^$", r"50% \frac{", "a_b^c", "two\nlines", "größe", "<b>&amp;", "#1 'q' \"r\""])
def test_a_title_is_taken_as_it_is(tmp_path, title):
    figure = loss_figure(HISTORY, title)
    assert figure.axes[0].get_title() == title
    loss_curve(HISTORY, title, tmp_path / "curve.png")


def test_a_title_that_is_no_utf_8(tmp_path):
    title = os.fsdecode(b"caf\xe9")
    loss_curve(HISTORY, title, tmp_path / "curve.png")
    assert loss_figure(HISTORY, title).axes[0].get_title() == "caf?"
