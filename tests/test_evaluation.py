"""What `evaluate` says about a model: numbers that scikit-learn confirms, and sentences for a person."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    precision_recall_fscore_support,
    precision_score,
    recall_score,
    roc_auc_score,
    top_k_accuracy_score,
)

from multilabel.errors import DataError
from multilabel.evaluation import (
    AttributeScores,
    ClassScores,
    Evaluation,
    Score,
    TagScores,
    auc_by_luck,
    evaluate,
    evaluate_tag,
    verdicts,
)
from multilabel.metrics.single import (
    CLASS_SCORES,
    SCORES,
    chance_levels,
    class_chance_levels,
    class_intervals,
    intervals,
)
from multilabel.thresholds import Threshold, choose_thresholds, cross_fit_thresholds

HALF = Threshold(0.5, "default", 0)
NAMES = ("good", "random", "absent", "everywhere", "unknown")
ENDED = "The same pictures (validation part) decided when to stop training: the scores are a little flattering."


GENDERS = ("Men", "Women", "Unisex", "Girls")


def example(n=200):
    """A learnt attribute, one at chance, one never and one always present, and one without labels."""
    rng = np.random.default_rng(0)
    y = rng.choice(np.array([1, 0, -1], np.int8), size=(n, 5), p=[0.3, 0.4, 0.3])
    p = rng.random((n, 5)).astype(np.float32)
    p[:, 0] = np.clip(rng.normal(0.4 + 0.3 * (y[:, 0] == 1), 0.2), 0, 1)
    y[:, 2][y[:, 2] == 1] = 0
    y[:, 3][y[:, 3] == 0] = 1
    y[:, 4] = -1
    return y, p


def evaluated(**options):
    y, p = example()
    return evaluate(y, p, NAMES, [HALF] * 5, part="validation part", **{"draws": 200, **options})


def judged(auc, positives=40, negatives=60, ended_training=False, name="attr1"):
    """An evaluation of one attribute with this AUC."""
    nothing = Score(0.5, 0.4, 0.6, 0.5)
    known = positives + negatives
    scores = AttributeScores(name, known, positives, negatives, HALF, nothing, nothing, nothing, nothing, auc)
    return Evaluation("validation part", 120, 120, known, True, (scores,), (), ended_training)


def example_tag(n=200, learnt=0.5):
    """A tag whose classes occur about 100, 60 and 40 times per 200 known labels, and one that never does."""
    rng = np.random.default_rng(1)
    y = rng.choice(np.array([0, 1, 2, -1], np.int16), size=n, p=[0.4, 0.24, 0.16, 0.2])
    p = rng.random((n, 4))
    p[np.arange(n), y] += learnt
    return y, (p / p.sum(axis=1, keepdims=True)).astype(np.float32)


def tag(**options):
    return evaluate_tag(*example_tag(), "gender", GENDERS, **{"draws": 200, **options})


def judged_tag(accuracy, counts=(60, 50, 10)):
    """An evaluation of one tag with this accuracy."""
    nothing = Score(0.5, 0.4, 0.6, 0.5)
    classes = tuple(ClassScores(name, known, 0.5, 0.5, 0.5) for name, known in zip(GENDERS, counts, strict=False))
    names = GENDERS[: len(counts)]
    scores = TagScores("gender", sum(counts), names, accuracy, nothing, nothing, classes)
    return Evaluation("validation part", 120, 120, sum(counts), False, (), (scores,))


def test_values_equal_scikit_learn_without_the_unknown_cells():
    y, p = example()
    evaluation = evaluated()
    assert [score.attribute for score in evaluation.scores] == list(NAMES)
    for column, score in enumerate(evaluation.scores[:2]):
        known = y[:, column] != -1
        truth, probability = y[known, column], p[known, column]
        assert score.precision.value == pytest.approx(precision_score(truth, probability > 0.5))
        assert score.recall.value == pytest.approx(recall_score(truth, probability > 0.5))
        assert score.f1.value == pytest.approx(f1_score(truth, probability > 0.5))
        assert score.average_precision.value == pytest.approx(average_precision_score(truth, probability))
        assert score.roc_auc.value == pytest.approx(roc_auc_score(truth, probability))
        assert (score.known, score.positives, score.negatives) == (known.sum(), truth.sum(), (truth == 0).sum())


def test_intervals_and_chance_levels_are_those_of_the_attribute_alone():
    y, p = example()
    for column, score in enumerate(evaluated(seed=7).scores[:2]):
        expected = intervals(y[:, column], p[:, column], 0.5, draws=200, seed=7)
        chance = chance_levels(y[:, column], p[:, column] > 0.5)
        for name in SCORES:
            measured = getattr(score, name)
            assert (measured.low, measured.high, measured.chance) == (*expected[name], chance[name])
            assert measured.low <= measured.value <= measured.high


def test_cross_fitted_calls_are_what_is_scored():
    y, p = example()
    present, spreads = cross_fit_thresholds(y, p, np.arange(len(y)) % 5, choose_thresholds)
    thresholds = [Threshold(0.5, "tuned", 10, spread) for spread in spreads]
    evaluation = evaluate(y, p, NAMES, thresholds, present=present, part="training part, out of fold", draws=200)
    assert evaluation.cross_fitted
    assert verdicts(evaluation)[-1].startswith("unknown cannot be judged")  # nothing flatters
    for column, score in enumerate(evaluation.scores[:2]):
        known = y[:, column] != -1
        truth, called = y[known, column], present[known, column]
        assert score.precision.value == pytest.approx(precision_score(truth, called))
        assert score.recall.value == pytest.approx(recall_score(truth, called))
        assert score.f1.value == pytest.approx(f1_score(truth, called))
        assert score.roc_auc.value == pytest.approx(roc_auc_score(truth, p[known, column]))
        assert score.recall.chance == called.mean()
        expected = intervals(y[:, column], p[:, column], present[:, column], spread=spreads[column], draws=200)
        assert (score.f1.low, score.f1.high) == expected["f1"]
        settled = intervals(y[:, column], p[:, column], present[:, column], draws=200)
        assert score.recall.high - score.recall.low > settled["recall"][1] - settled["recall"][0]


def test_calls_that_do_not_fit_are_refused():
    y, p = example(3)
    with pytest.raises(DataError) as error:
        evaluate(y, p, NAMES, [HALF] * 5, present=np.ones((3, 1), bool), part="validation part")
    assert str(error.value) == (
        "Labels of shape (3, 5) and calls of shape (3, 1) do not fit: give (n, attributes) twice."
    )


def test_each_attribute_is_measured_with_its_own_threshold():
    y, p = example()
    thresholds = [Threshold(value, "tuned", 10) for value in (0.3, 0.9, 0.5, 0.5, 0.5)]
    scores = evaluate(y, p, NAMES, thresholds, part="test part", draws=10).scores
    for column in range(2):
        known = y[:, column] != -1
        assert scores[column].threshold == thresholds[column]
        expected = recall_score(y[known, column], p[known, column] > thresholds[column].value)
        assert scores[column].recall.value == pytest.approx(expected)


def test_what_was_measured_is_counted():
    y, _ = example()
    evaluation = evaluated()
    assert (evaluation.part, evaluation.pictures, evaluation.cells) == ("validation part", 200, 1000)
    assert evaluation.known == (y != -1).sum() == sum(score.known for score in evaluation.scores)


def test_macro_f1_is_the_mean_over_attributes_with_both_classes():
    evaluation = evaluated()
    assert evaluation.macro_f1 == pytest.approx(np.mean([score.f1.value for score in evaluation.scores[:2]]))
    assert evaluation.left_out == ("absent", "everywhere", "unknown")


def test_macro_f1_of_no_attribute_is_undefined():
    y, p = np.full((3, 1), -1, np.int8), np.full((3, 1), 0.5)
    evaluation = evaluate(y, p, ["a"], [HALF], part="validation part")
    assert math.isnan(evaluation.macro_f1)
    assert evaluation.to_json()["macro_f1"] is None


def test_the_verdicts_of_an_example_are_exact():
    auc = evaluated().scores[1].roc_auc
    y, _ = example()
    counts = (y != -1).sum(axis=0)
    assert verdicts(evaluated()) == [
        f"random is not better than chance: its AUC of {auc.value:.2f} has the 95% interval {auc.low:.2f} to "
        f"{auc.high:.2f}, which includes 0.5 (what a model that ignores the picture scores).",
        f"absent cannot be judged: none of its {counts[2]} known labels in the validation part is positive, and it "
        "takes at least 5.",
        f"everywhere cannot be judged: none of its {counts[3]} known labels in the validation part is negative, and it "
        "takes at least 5.",
        "unknown cannot be judged: none of its labels in the validation part is known.",
    ]
    assert verdicts(evaluated(ended_training=True)) == [*verdicts(evaluated()), ENDED]


@pytest.mark.parametrize(
    ("evaluation", "expected"),
    [
        pytest.param(
            judged(Score(0.49, 0.38, 0.6, 0.5)),
            "attr1 is not better than chance: its AUC of 0.49 has the 95% interval 0.38 to 0.60, which includes 0.5 "
            "(what a model that ignores the picture scores).",
            id="at chance",
        ),
        pytest.param(
            judged(Score(0.6, 0.5, 0.7, 0.5)),
            "attr1 is not better than chance: its AUC of 0.60 has the 95% interval 0.50 to 0.70, which includes 0.5 "
            "(what a model that ignores the picture scores).",
            id="an interval that begins at 0.5 includes it",
        ),
        pytest.param(
            judged(Score(0.3, 0.21, 0.4, 0.5)),
            "attr1 is worse than chance: its AUC of 0.30 has the 95% interval 0.21 to 0.40, which lies below 0.5 "
            "(what a model that ignores the picture scores).",
            id="below chance",
        ),
        pytest.param(
            judged(Score(1.0, 1.0, 1.0, 0.5), positives=1),
            "attr1 cannot be judged: 1 of its 61 known labels in the validation part is positive, and it takes at "
            "least 5.",
            id="one positive",
        ),
        pytest.param(
            judged(Score(1.0, 1.0, 1.0, 0.5), negatives=4),
            "attr1 cannot be judged: 4 of its 44 known labels in the validation part are negative, and it takes at "
            "least 5.",
            id="few negatives",
        ),
    ],
)
def test_an_attribute_that_is_not_better_than_chance_is_named(evaluation, expected):
    assert verdicts(evaluation) == [expected]
    assert not evaluation.scores[0].better_than_chance


@pytest.mark.parametrize("ended", [True, False])
def test_a_good_attribute_with_enough_labels_needs_no_warning(ended):
    evaluation = judged(Score(0.7, 0.51, 0.8, 0.5), positives=10, negatives=10, ended_training=ended)
    assert evaluation.scores[0].better_than_chance
    assert verdicts(evaluation) == ([ENDED] if ended else [])


def test_a_good_attribute_with_few_labels_of_a_class_comes_with_a_caution():
    evaluation = judged(Score(1.0, 1.0, 1.0, 0.5), positives=9, negatives=100)
    assert evaluation.scores[0].better_than_chance
    assert verdicts(evaluation) == [
        "attr1 has only 9 positive labels in the validation part: a few other pictures could change its scores much."
    ]


def test_random_probabilities_are_rarely_called_better_than_chance():
    rng = np.random.default_rng(0)
    y = np.repeat(np.array([1, 0], np.int8), [5, 60])[:, None].repeat(300, axis=1)
    names = [f"attr{k}" for k in range(300)]
    evaluation = evaluate(y, rng.random(y.shape), names, [HALF] * 300, part="validation part", draws=200)
    assert sum(score.better_than_chance for score in evaluation.scores) / 300 < 0.04


def test_the_json_is_strict_and_says_everything():
    evaluation = evaluated()
    written = json.loads(json.dumps(evaluation.to_json(), allow_nan=False))
    assert written == evaluation.to_json()
    assert {key: written[key] for key in ("part", "pictures", "cells", "known", "cross_fitted", "ended_training")} == {
        "part": "validation part",
        "pictures": 200,
        "cells": 1000,
        "known": evaluation.known,
        "cross_fitted": False,
        "ended_training": False,
    }
    assert written["macro_f1"] == evaluation.macro_f1
    assert written["left_out_of_macro_f1"] == ["absent", "everywhere", "unknown"]
    assert written["verdicts"] == verdicts(evaluation)
    assert list(written["attributes"]) == list(NAMES)
    good, auc = written["attributes"]["good"], evaluation.scores[0].roc_auc
    assert good["threshold"] == {"value": 0.5, "source": "default", "positives": 0, "spread": None}
    assert (good["cells"], good["p_value"]) == (200, None)
    assert good["better_than_chance"] is True
    assert good["known"] == evaluation.scores[0].known == good["positives"] + good["negatives"]
    assert good["roc_auc"] == {"value": auc.value, "low": auc.low, "high": auc.high, "chance": 0.5}
    assert written["attributes"]["absent"]["roc_auc"] == {"value": None, "low": None, "high": None, "chance": 0.5}
    assert written["attributes"]["unknown"]["f1"] == {"value": None, "low": None, "high": None, "chance": None}


def test_the_json_has_spreads_and_p_values():
    thresholds = [Threshold(0.5, "tuned", 10, (0.25, 0.75))] * 5
    y, p = example()
    evaluation = evaluate(y, p, NAMES, thresholds, part="all", cross_fitted=True, ended_training=True, draws=50)
    tested = evaluation.with_p_values([0.001, 0.5, math.nan, math.nan, math.nan])
    assert [scores.p_value for scores in tested.scores] == [0.001, 0.5, None, None, None]
    assert [scores.p_value for scores in evaluation.scores] == [None] * 5
    written = json.loads(json.dumps(tested.to_json(), allow_nan=False))
    assert written == tested.to_json()
    assert (written["cross_fitted"], written["ended_training"]) == (True, True)
    good = written["attributes"]["good"]
    assert good["threshold"] == {"value": 0.5, "source": "tuned", "positives": 10, "spread": [0.25, 0.75]}
    assert [written["attributes"][name]["p_value"] for name in NAMES] == [0.001, 0.5, None, None, None]


def test_evaluating_twice_gives_equal_results():
    assert evaluated().to_json() == evaluated().to_json()
    assert evaluated().to_json() != evaluated(seed=1).to_json()


def test_inputs_that_do_not_fit_together_are_refused():
    y, p = example(3)
    with pytest.raises(DataError) as error:
        evaluate(y, p, NAMES[:4], [HALF] * 5, part="validation part")
    assert str(error.value) == (
        "Labels of shape (3, 5), probabilities of shape (3, 5), 4 names and 5 thresholds do not fit: "
        "give (n, attributes) twice, then one per attribute."
    )


# --- tags


def test_values_of_a_tag_equal_scikit_learn_without_the_unknown_cells():
    y, p = example_tag()
    known = y != -1
    truth, called = y[known], p[known].argmax(axis=1)
    scores = tag()
    assert (scores.tag, scores.known, scores.classes, scores.occurring) == ("gender", known.sum(), GENDERS, 3)
    assert scores.accuracy.value == pytest.approx(accuracy_score(truth, called))
    assert scores.macro_f1.value == pytest.approx(f1_score(truth, called, labels=[0, 1, 2], average="macro"))
    top3 = top_k_accuracy_score(truth, p[known], k=3, labels=[0, 1, 2, 3])
    assert scores.top3_accuracy.value == pytest.approx(top3)
    columns = precision_recall_fscore_support(truth, called, labels=[0, 1, 2, 3], zero_division=0)
    for name, row, *expected in zip(GENDERS, scores.per_class, *columns, strict=True):
        assert row.name == name
        assert (row.precision, row.recall, row.f1, row.known) == pytest.approx(tuple(expected))


def test_intervals_and_chance_levels_of_a_tag_are_those_of_its_labels():
    y, p = example_tag()
    intervals, chance = class_intervals(y, p, draws=200, seed=7), class_chance_levels(y, 4)
    scores = tag(seed=7)
    for name in CLASS_SCORES:
        measured = getattr(scores, name)
        assert (measured.low, measured.high, measured.chance) == (*intervals[name], chance[name])
        assert measured.low <= measured.value <= measured.high
    assert scores.most_common.name == "Men"
    assert scores.most_common.known / scores.known == scores.accuracy.chance


def test_evaluating_a_tag_twice_gives_equal_results():
    assert tag() == tag()
    assert tag() != tag(seed=1)


def test_attribute_and_tag_labels_are_counted_together():
    scores, alone = tag(), evaluated()
    both = evaluated(tags=[scores, scores])
    assert both.tags == (scores, scores)
    assert (both.cells, both.known) == (1000 + 2 * 200, alone.known + 2 * scores.known)
    assert both.macro_f1 == alone.macro_f1
    assert both.to_json()["attributes"] == alone.to_json()["attributes"]
    assert both.mean_accuracy == scores.accuracy.value


def test_tags_alone():
    nothing = np.empty((200, 0))
    evaluation = evaluate(nothing, nothing, [], [], tags=[tag()], part="test part")
    assert (evaluation.pictures, evaluation.cells, evaluation.known) == (200, 200, tag().known)
    assert (evaluation.scores, evaluation.left_out) == ((), ())
    assert math.isnan(evaluation.macro_f1)
    written = json.loads(json.dumps(evaluation.to_json(), allow_nan=False))
    assert (written["macro_f1"], written["attributes"]) == (None, {})
    assert written["mean_accuracy"] == tag().accuracy.value


def test_mean_accuracy_is_over_the_tags_with_known_labels():
    y, p = example_tag()
    tags = [tag(), evaluate_tag(y, p[:, ::-1], "reversed", GENDERS), evaluate_tag(y * 0 - 1, p, "unknown", GENDERS)]
    evaluation = evaluated(tags=tags)
    assert evaluation.mean_accuracy == pytest.approx((tags[0].accuracy.value + tags[1].accuracy.value) / 2)
    assert math.isnan(evaluated().mean_accuracy)
    assert evaluated().to_json()["mean_accuracy"] is None
    assert evaluated().to_json()["tags"] == {}


def test_the_json_of_a_tag_is_strict_and_says_everything():
    scores = tag()
    y, p = example_tag()
    evaluation = evaluated(tags=[scores, evaluate_tag(y * 0 - 1, p, "unknown", GENDERS)])
    written = json.loads(json.dumps(evaluation.to_json(), allow_nan=False))
    assert written == evaluation.to_json()
    assert list(written["tags"]) == ["gender", "unknown"]
    gender = written["tags"]["gender"]
    keys = ["known", "cells", "better_than_chance", "accuracy", "macro_f1", "top3_accuracy", "classes"]
    assert list(gender) == keys
    assert (gender["known"], gender["cells"], gender["better_than_chance"]) == (scores.known, 200, True)
    accuracy = scores.accuracy
    assert gender["accuracy"] == {
        "value": accuracy.value,
        "low": accuracy.low,
        "high": accuracy.high,
        "chance": accuracy.chance,
    }
    assert list(gender["classes"]) == list(GENDERS)
    women = scores.per_class[1]
    assert gender["classes"]["Women"] == {
        "known": women.known,
        "precision": women.precision,
        "recall": women.recall,
        "f1": women.f1,
    }
    assert gender["classes"]["Girls"] == {"known": 0, "precision": 0.0, "recall": 0.0, "f1": 0.0}
    nothing = {"value": None, "low": None, "high": None, "chance": None}
    assert written["tags"]["unknown"]["accuracy"] == nothing
    assert written["tags"]["unknown"]["better_than_chance"] is False


@pytest.mark.parametrize(
    ("evaluation", "expected"),
    [
        pytest.param(
            judged_tag(Score(0.52, 0.449, 0.59, 0.5)),
            "gender is not better than chance: its accuracy of 0.520 has the 95% interval 0.449 to 0.590, which "
            "includes 0.500 (what always saying Men scores).",
            id="at chance",
        ),
        pytest.param(
            judged_tag(Score(0.6, 0.5, 0.7, 0.5), counts=(10, 60, 50)),
            "gender is not better than chance: its accuracy of 0.600 has the 95% interval 0.500 to 0.700, which "
            "includes 0.500 (what always saying Women scores).",
            id="an interval that begins at chance includes it",
        ),
        pytest.param(
            judged_tag(Score(0.3, 0.21, 0.4, 0.5)),
            "gender is worse than chance: its accuracy of 0.300 has the 95% interval 0.210 to 0.400, which lies below "
            "0.500 (what always saying Men scores).",
            id="below chance",
        ),
        pytest.param(
            judged_tag(Score(1.0, 1.0, 1.0, 0.8), counts=(60, 4, 4)),
            "gender cannot be judged: only one of its classes (Men) has at least 5 known labels in the validation "
            "part, and it takes two.",
            id="one class with enough labels",
        ),
        pytest.param(
            judged_tag(Score(1.0, 1.0, 1.0, 0.5), counts=(4, 4)),
            "gender cannot be judged: none of its classes has at least 5 known labels in the validation part, and it "
            "takes two.",
            id="no class with enough labels",
        ),
        pytest.param(
            judged_tag(Score(math.nan, math.nan, math.nan, math.nan), counts=(0, 0)),
            "gender cannot be judged: none of its labels in the validation part is known.",
            id="no label",
        ),
    ],
)
def test_a_tag_that_is_not_better_than_chance_is_named(evaluation, expected):
    assert verdicts(evaluation) == [expected]
    assert not evaluation.tags[0].better_than_chance


def test_a_good_tag_with_enough_labels_needs_no_warning():
    evaluation = judged_tag(Score(0.7, 0.501, 0.8, 0.5), counts=(60, 50, 10, 0))
    assert evaluation.tags[0].better_than_chance
    assert verdicts(evaluation) == []


def test_a_good_tag_with_few_labels_of_some_classes_comes_with_a_caution():
    evaluation = judged_tag(Score(0.9, 0.8, 0.95, 0.5), counts=(60, 50, 9, 0))
    assert evaluation.tags[0].better_than_chance
    assert verdicts(evaluation) == [
        "gender has fewer than 10 known labels of 1 of its 4 classes in the validation part: "
        "its true macro F1 may lie further away than the interval says."
    ]


def test_what_is_not_better_than_chance_comes_first_and_what_flatters_last():
    y, p = example_tag(learnt=0.0)
    evaluation = evaluated(tags=[evaluate_tag(y, p, "gender", GENDERS)], ended_training=True)
    names = [sentence.split()[0] for sentence in verdicts(evaluation)]
    assert names == ["random", "gender", "absent", "everywhere", "unknown", "The"]
    assert verdicts(evaluation)[-1] == ENDED
    assert evaluation.to_json()["verdicts"] == verdicts(evaluation)


def test_tags_alone_are_flattered_by_the_end_of_training_alone():
    nothing = np.empty((200, 0))
    options = {"tags": [tag()], "part": "validation part", "present": nothing.astype(bool)}
    evaluation = evaluate(nothing, nothing, [], [], **options, ended_training=True)
    assert evaluation.cross_fitted
    assert verdicts(evaluation) == [ENDED]
    assert verdicts(evaluate(nothing, nothing, [], [], **options)) == []


@pytest.mark.parametrize("always", [True, False], ids=["always the most common class", "random"])
def test_a_model_that_ignores_the_picture_is_rarely_called_better_than_chance(always):
    better = 0
    y = np.repeat(np.arange(3, dtype=np.int16), [20, 20, 5])
    for seed in range(200):
        p = np.random.default_rng(seed).random((len(y), 3))
        if always:
            p[:, 0] += 1
        better += evaluate_tag(y, p, "gender", GENDERS[:3], draws=200, seed=seed).better_than_chance
    assert better <= (0 if always else 8)  # 2.5% of 200 are 5


def test_a_tag_whose_probabilities_are_of_other_classes_is_refused():
    y, p = example_tag(3)
    with pytest.raises(DataError) as error:
        evaluate_tag(y, p, "gender", GENDERS[:3])
    assert str(error.value) == "gender: probabilities of shape (3, 4) and 3 classes do not fit: give (n, classes)."


@pytest.mark.parametrize(
    ("evaluation", "named"),
    [
        (judged(Score(0.6, 0.51, 0.7, 0.5)), ()),
        (judged(Score(0.6, 0.5, 0.7, 0.5)), ("attr1",)),
        (judged(Score(0.3, 0.2, 0.4, 0.5)), ("attr1",)),
        (judged(Score(0.6, 0.4, 0.7, 0.5), positives=4), ()),  # too few to judge
        (judged_tag(Score(0.6, 0.55, 0.7, 0.5)), ()),
        (judged_tag(Score(0.6, 0.45, 0.7, 0.5)), ("gender",)),
        (judged_tag(Score(0.6, 0.45, 0.7, 0.5), counts=(60, 4)), ()),
    ],
)
def test_what_is_not_better_than_chance(evaluation, named):
    assert evaluation.not_better_than_chance == named
    written = evaluation.to_json()
    assert written["not_better_than_chance"] == list(named)
    assert any("than chance" in sentence for sentence in written["verdicts"]) is bool(named)


def test_what_luck_reaches_is_the_upper_end_of_the_mann_whitney_distribution():
    rng = np.random.default_rng(0)
    y = np.r_[np.ones(30, int), np.zeros(90, int)]
    aucs = [roc_auc_score(y, rng.random(120)) for _ in range(4000)]
    assert auc_by_luck(30, 90) == pytest.approx(np.quantile(aucs, 0.975), abs=0.01)
    assert auc_by_luck(30, 90, out_of_fold=True) - 0.5 == pytest.approx(2**0.5 * (auc_by_luck(30, 90) - 0.5))
    assert auc_by_luck(0, 10) == auc_by_luck(3, 0) == auc_by_luck(1, 1) == 1.0


def test_an_interval_above_chance_is_not_enough_where_luck_reaches_it():
    rng = np.random.default_rng(8)
    for _ in range(200):  # until one lies between the two
        y = rng.integers(0, 2, (200, 1)).astype(np.int8)
        p = np.clip(rng.random((200, 1)) + 0.1 * y, 0, 1)
        (plain,) = evaluate(y, p, ["a"], [HALF], part="test part", draws=50).scores
        if plain.roc_auc.low > 0.5 and plain.roc_auc.value < auc_by_luck(plain.positives, plain.negatives, True):
            break
    assert plain.better_than_chance
    evaluation = evaluate(y, p, ["a"], [HALF], part="training part, out of fold", out_of_fold=True, draws=50)
    (score,) = evaluation.scores
    assert not score.better_than_chance
    assert evaluation.not_better_than_chance == ("a",)
    assert verdicts(evaluation)[0] == (
        f"a is not surely better than chance: its AUC is {score.roc_auc.value:.2f}, and scores that say nothing reach "
        f"{score.by_luck:.2f} in one of 40 cases."
    )
