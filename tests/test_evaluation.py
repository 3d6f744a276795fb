"""What `evaluate` says about a model: numbers that scikit-learn confirms, and sentences for a person."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score, roc_auc_score

from multilabel.errors import DataError
from multilabel.evaluation import AttributeScores, Evaluation, Score, evaluate, verdicts
from multilabel.metrics import SCORES, bootstrap, chance_levels
from multilabel.thresholds import Threshold

HALF = Threshold(0.5, "default", 0)
NAMES = ("good", "random", "absent", "everywhere", "unknown")
TUNED_HERE = (
    "The same pictures (validation part) chose the thresholds and decided when to stop training: "
    "precision, recall and F1 are flattering, average precision and AUC a little."
)


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


def judged(auc, positives=40, negatives=60, tuned_here=False, name="attr1"):
    """An evaluation of one attribute with this AUC."""
    nothing = Score(0.5, 0.4, 0.6, 0.5)
    known = positives + negatives
    scores = AttributeScores(name, known, positives, negatives, HALF, nothing, nothing, nothing, nothing, auc)
    return Evaluation("validation part", 120, 120, known, tuned_here, (scores,))


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
        intervals = bootstrap(y[:, column], p[:, column], 0.5, draws=200, seed=7)
        chance = chance_levels(y[:, column], p[:, column] > 0.5)
        for name in SCORES:
            measured = getattr(score, name)
            assert (measured.low, measured.high, measured.chance) == (*intervals[name], chance[name])
            assert measured.low <= measured.value <= measured.high


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
    assert verdicts(evaluated(thresholds_tuned_here=False)) == [
        f"random is not better than chance: its AUC of {auc.value:.2f} has the 95% interval {auc.low:.2f} to "
        f"{auc.high:.2f}, which includes 0.5 (what a model that ignores the picture scores).",
        f"absent cannot be judged: none of its {counts[2]} known labels in the validation part is positive, and it "
        "takes at least 5.",
        f"everywhere cannot be judged: none of its {counts[3]} known labels in the validation part is negative, and it "
        "takes at least 5.",
        "unknown cannot be judged: none of its labels in the validation part is known.",
    ]
    assert verdicts(evaluated())[-1] == TUNED_HERE


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


@pytest.mark.parametrize("tuned_here", [True, False])
def test_a_good_attribute_with_enough_labels_needs_no_warning(tuned_here):
    evaluation = judged(Score(0.7, 0.51, 0.8, 0.5), positives=10, negatives=10, tuned_here=tuned_here)
    assert evaluation.scores[0].better_than_chance
    assert verdicts(evaluation) == ([TUNED_HERE] if tuned_here else [])


def test_a_good_attribute_with_few_labels_of_a_class_comes_with_a_caution():
    evaluation = judged(Score(1.0, 1.0, 1.0, 0.5), positives=9, negatives=100, tuned_here=False)
    assert evaluation.scores[0].better_than_chance
    assert verdicts(evaluation) == [
        "attr1 has only 9 positive labels in the validation part: "
        "its true scores may lie further away than the intervals say."
    ]


def test_random_probabilities_are_rarely_called_better_than_chance():
    rng = np.random.default_rng(0)
    y = np.repeat(np.array([1, 0], np.int8), [5, 60])[:, None].repeat(300, axis=1)
    names = [f"attr{k}" for k in range(300)]
    evaluation = evaluate(y, rng.random(y.shape), names, [HALF] * 300, part="validation part", draws=200)
    assert sum(score.better_than_chance for score in evaluation.scores) / 300 < 0.08


def test_the_json_is_strict_and_says_everything():
    evaluation = evaluated()
    written = json.loads(json.dumps(evaluation.to_json(), allow_nan=False))
    assert written == evaluation.to_json()
    assert {key: written[key] for key in ("part", "pictures", "cells", "known", "thresholds_tuned_here")} == {
        "part": "validation part",
        "pictures": 200,
        "cells": 1000,
        "known": evaluation.known,
        "thresholds_tuned_here": True,
    }
    assert written["macro_f1"] == evaluation.macro_f1
    assert written["left_out_of_macro_f1"] == ["absent", "everywhere", "unknown"]
    assert written["verdicts"] == verdicts(evaluation)
    assert list(written["attributes"]) == list(NAMES)
    good, auc = written["attributes"]["good"], evaluation.scores[0].roc_auc
    assert good["threshold"] == {"value": 0.5, "source": "default", "positives": 0}
    assert good["better_than_chance"] is True
    assert good["known"] == evaluation.scores[0].known == good["positives"] + good["negatives"]
    assert good["roc_auc"] == {"value": auc.value, "low": auc.low, "high": auc.high, "chance": 0.5}
    assert written["attributes"]["absent"]["roc_auc"] == {"value": None, "low": None, "high": None, "chance": 0.5}
    assert written["attributes"]["unknown"]["f1"] == {"value": None, "low": None, "high": None, "chance": None}


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
