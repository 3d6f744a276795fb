"""Cross-fitting, calibration in the weights and the permutation test, on features that are made up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from multilabel import crossfit, permutation
from multilabel.backbones import build_backbone, freeze
from multilabel.config import CnnShape, FitConfig
from multilabel.crossfit import cross_fit, deal
from multilabel.dataset import Dataset, fold_count, split_dataset
from multilabel.errors import UsageError
from multilabel.head_training import train_on_features
from multilabel.heads import LogitHead, SoftmaxHead
from multilabel.held_out import HeldOut, bake, calibration_config, contradicted
from multilabel.labels import LabelTable, Tag
from multilabel.permutation import p_values, shuffled
from multilabel.stopping import BestEpochs, KeepEpochs, Measured
from multilabel.training import Batches, Phase, Pictures, build_heads, train

NAMES = ("clear", "faint", "noise")
CONFIG = FitConfig(Path("labels.txt"), epochs=(30,), lr=(0.02,), patience=(5,))
CONVEX = FitConfig(Path("labels.txt"), solver="lbfgs")


@pytest.fixture(scope="module")
def backbone():
    made = build_backbone("cnn", "none", (32, 32), cnn=CnnShape(filters=(4, 4)))
    freeze(made)
    return made


def dataset(dimension, pictures=200, tag=False, seed=0, parts=None, copies=0):
    """Features with an attribute that shows clearly, one that shows faintly, one that does not, and maybe a tag."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(pictures, dimension)).astype(np.float32)
    z = x[:, :3] * (4.0, 1.0, 0.0) + x[:, 3:6] * (-3.0, 0.5, 0.0)
    y = (rng.random(z.shape) < 1 / (1 + np.exp(-z))).astype(np.int8)
    y[rng.random(y.shape) < 0.2] = -1
    tags, tag_y = (), np.empty((pictures, 0), np.int16)
    if tag:
        tags = (Tag("colour", tuple("rgb")),)
        tag_y = (3 * x[:, 6:9]).argmax(axis=1)[:, np.newaxis].astype(np.int16)
        tag_y[rng.random(pictures) < 0.1] = -1
    names = [f"{row}.jpg" for row in range(pictures)]
    digests = [str(max(row - copies, 0) if row <= copies else row).encode() for row in range(pictures)]
    table = LabelTable(tuple(names), y, NAMES, tags=tags, tag_y=tag_y, parts=parts)
    return Dataset(table, names, digests, [], x, "float32", Pictures(names, (32, 32)), 0, 0.0)


def crossed(backbone, data, config=CONFIG, folds=5):
    rows = np.arange(len(data.names))
    dealt = deal(data, rows, folds, config.seed)
    return rows, dealt, cross_fit(config, backbone, data, rows, dealt, False)


def auc(y, z):
    known = y >= 0
    return roc_auc_score(y[known], z[known])


@pytest.mark.parametrize("config", [CONFIG, CONVEX], ids=["adam", "lbfgs"])
def test_what_is_judged_was_never_learnt(backbone, config):
    """Shuffling the labels of one fold changes the logits of all other folds, and its own not at all."""
    data = dataset(backbone.dimension)
    rows, folds, first = crossed(backbone, data, config)
    y = data.table.y.copy()
    judged = folds == 2
    y[judged] = np.where(y[judged] < 0, -1, 1 - y[judged])
    other = cross_fit(config, backbone, replace(data, table=replace(data.table, y=y)), rows, folds, False)
    moved = other.logits["attributes"] - first.logits["attributes"]
    # All alike: by the `pos_weight` of the heads that are kept, which is taken off again.
    np.testing.assert_allclose(moved[judged], np.broadcast_to(moved[judged][0], (judged.sum(), 3)), atol=1e-9)
    assert (other.logits["attributes"][~judged] != first.logits["attributes"][~judged]).any(axis=1).all()


@pytest.mark.parametrize("config", [CONFIG, CONVEX], ids=["adam", "lbfgs"])
def test_out_of_fold_scores_are_those_of_an_independent_cross_validation(backbone, config):
    data = dataset(backbone.dimension, pictures=400)
    _, folds, found = crossed(backbone, data, config)
    x, y = data.features, data.table.y
    for column in range(2):
        expected = np.empty(len(y))
        for fold in range(5):
            learn = (folds != fold) & (y[:, column] >= 0)
            model = LogisticRegression(C=0.1, max_iter=1000).fit(x[learn], y[learn, column])
            expected[folds == fold] = model.decision_function(x[folds == fold])
        assert auc(y[:, column], found.logits["attributes"][:, column]) == pytest.approx(
            auc(y[:, column], expected), abs=0.06
        )


def test_the_heads_that_are_kept_learn_from_everything_for_the_median_of_epochs(backbone, monkeypatch):
    data = dataset(backbone.dimension, tag=True)
    found, original = [], crossfit.find_epochs

    def noted(*arguments):
        found.append(original(*arguments))
        return found[-1]

    monkeypatch.setattr(crossfit, "find_epochs", noted)
    rows, _, result = crossed(backbone, data)
    assert [history for _, history in found] == list(result.histories)
    assert all(len(history.validation_loss) == len(history.epoch_ends) for history in result.histories)
    heads = result.kept.heads
    assert set(result.logits) == {head.name for head in heads}
    assert result.logits[heads[1].name].shape == (200, 3)
    # The same by hand: all attributes learn from everything, and each keeps the weights of its own epoch.
    epochs = {head.name: np.median([one[head.name] for one, _ in found], axis=0).round() for head in heads}
    assert len(set(epochs["attributes"])) > 1
    last = int(max(numbers.max() for numbers in epochs.values()))
    assert len(result.kept.history.epoch_ends) == last
    assert result.kept.history.validation_loss == []
    assert result.kept.history.epoch_ends[0] == -(-len(rows) // CONFIG.batch_size)
    targets = {head.name: head.targets(data.table) for head in heads}
    for number in (0, 1):
        until = int(epochs["attributes"][number])
        model = build_heads(backbone.dimension, heads)
        train_on_features(
            model, heads, Batches(data.features, targets, rows, 32, CONFIG.seed), None, Phase(until, 0.02, 5)
        )
        kept = result.kept.heads_model.get_layer("attributes").get_weights()
        alone = model.get_layer("attributes").get_weights()
        np.testing.assert_allclose(kept[0][:, number], alone[0][:, number], atol=1e-6)
        np.testing.assert_allclose(kept[1][number], alone[1][number], atol=1e-6)


def test_heads_on_everything_take_the_geometric_median_of_the_strengths(backbone, monkeypatch):
    data = dataset(backbone.dimension, tag=True)
    found, original = [], crossfit.find_epochs
    monkeypatch.setattr(crossfit, "find_epochs", lambda *given: found.append(original(*given)) or found[-1])
    rows, _, result = crossed(backbone, data, CONVEX)
    heads = result.kept.heads
    for head in heads:
        steps = np.median([steps[head.name] for steps, _ in found], axis=0).round()
        x, kernel = data.features, result.kept.heads_model.get_layer(head.name).get_weights()[0]
        for column in range(head.units if isinstance(head, LogitHead) else 1):
            strength = backbone.dimension * 10 ** (-(steps[column] - 1) / 2)
            y = head.targets(data.table)[:, column] if isinstance(head, LogitHead) else head.targets(data.table)
            weight = {1: head.pos_weight[column], 0: 1.0} if isinstance(head, LogitHead) else None
            model = LogisticRegression(C=1 / (strength * len(rows)), class_weight=weight, tol=1e-8, max_iter=10_000)
            model.fit(((x - x.mean(axis=0)) / x.std(axis=0))[y >= 0], y[y >= 0])
            mine = kernel[:, [column]] if isinstance(head, LogitHead) else kernel
            np.testing.assert_allclose(mine * x.std(axis=0)[:, None], model.coef_.T, atol=2e-3)


@pytest.mark.parametrize("config", [CONFIG, CONVEX], ids=["adam", "lbfgs"])
def test_equal_seeds_give_equal_numbers(backbone, config):
    data = dataset(backbone.dimension)
    (_, folds, first), (_, same, again) = crossed(backbone, data, config), crossed(backbone, data, config)
    assert (folds == same).all()
    assert (first.logits["attributes"] == again.logits["attributes"]).all()
    for one, other in zip(first.kept.heads_model.get_weights(), again.kept.heads_model.get_weights(), strict=True):
        assert (one == other).all()


def test_copies_of_a_picture_share_a_fold(backbone):
    data = dataset(backbone.dimension, copies=30)
    folds = deal(data, np.arange(200), 5, 0)
    assert len(set(folds[:31])) == 1
    assert np.bincount(folds).min() >= 35


@pytest.mark.parametrize(
    ("settings", "parts", "pictures", "expected"),
    [
        ({}, None, 200, 5),
        ({"folds": 3}, None, 200, 3),
        ({"folds": 0}, None, 200, 0),
        ({"fine_tune": "all"}, None, 200, 0),
        ({"train_backbone": True}, None, 200, 0),
        ({"split": "part"}, ("training", "test"), 200, 5),
        ({"split": "part"}, ("training", "validation"), 200, 0),
        ({}, None, 9, 0),
        ({"folds": 3}, None, 9, 3),
    ],
)
def test_how_many_folds(settings, parts, pictures, expected, backbone):
    spread = None if parts is None else tuple(parts[row % 2] for row in range(pictures))
    data = dataset(backbone.dimension, pictures, parts=spread)
    assert fold_count(FitConfig(Path("labels.txt"), **settings), data) == expected


def test_folds_and_a_fixed_validation_part_exclude_each_other(backbone):
    data = dataset(backbone.dimension, 20, parts=("training", "validation") * 10)
    with pytest.raises(UsageError) as error:
        fold_count(FitConfig(Path("labels.txt"), split="part", folds=5), data)
    assert str(error.value) == "--split fixes the validation part, too; leave out --folds."


def test_the_test_part_stays_out_of_all_folds(backbone):
    data = dataset(backbone.dimension)
    parts = split_dataset(FitConfig(Path("labels.txt"), test_share=0.25), data, 5)
    assert len(parts["validation"]) == 0
    assert len(parts["test"]) == pytest.approx(50, abs=4)
    assert sorted([*parts["training"], *parts["test"]]) == list(range(200))
    fixed = dataset(backbone.dimension, parts=("training", "test", "", "training") * 50)
    parts = split_dataset(FitConfig(Path("labels.txt"), split="part"), fixed, 5)
    assert parts["training"].tolist() == [row for row in range(200) if row % 4 in (0, 3)]
    assert parts["test"].tolist() == list(range(1, 200, 4))


# --- calibration


def held_out(backbone, **settings):
    data = dataset(backbone.dimension, pictures=400, tag=True)
    rows, folds, found = crossed(backbone, data)
    part = HeldOut.calibrated("out-of-fold", rows, found.logits, folds, found.kept.heads, data.table, **settings)
    return data, found, part


def test_the_calibration_in_the_weights_is_the_one_that_was_found(backbone):
    data, found, part = held_out(backbone)
    before = found.kept.logits(data, part.rows, 32)
    bake(part.calibrations, found.kept.heads_model)
    after = found.kept.logits(data, part.rows, 32)
    kinds = set()
    for head in found.kept.heads:
        scalings = part.calibrations[head.name]
        if isinstance(scalings, tuple):
            expected = np.stack(
                [one.shipped.logits(z) for one, z in zip(scalings, before[head.name].T, strict=True)], axis=1
            )
            kinds |= {one.kind for one in scalings}
        else:
            expected = scalings.shipped.logits(before[head.name])
            kinds.add(scalings.kind)
        np.testing.assert_allclose(after[head.name], expected, rtol=1e-4, atol=1e-4)
    assert kinds != {"none"}


def test_the_bundle_says_how_it_was_calibrated(backbone):
    _, found, part = held_out(backbone)
    said = calibration_config(part.calibrations, found.kept.heads)
    assert list(said) == [*NAMES, "colour"]
    for name, scaling in zip(NAMES, part.calibrations["attributes"], strict=True):
        assert said[name]["slope"] == scaling.shipped.slope
        assert said[name]["log_loss_after"] == scaling.after <= scaling.before == said[name]["log_loss_before"]
    assert said["colour"]["kind"] == part.calibrations[found.kept.heads[1].name].kind


def test_without_calibration_probabilities_are_as_the_heads_give_them(backbone):
    _, found, part = held_out(backbone, calibrate=False)
    assert part.calibrations == {} == calibration_config(part.calibrations, found.kept.heads)
    for head in found.kept.heads:
        np.testing.assert_array_equal(part.p[head.name], head.to_probs(found.logits[head.name]))
        assert part.p[head.name] is part.raw[head.name] is part.shipped[head.name]


def test_contradicted_labels_are_rows_of_the_table(backbone):
    data = dataset(backbone.dimension, pictures=300)
    wrong = [7, 40, 222]
    y = data.table.y.copy()
    sure = 4 * data.features[:, 0] - 3 * data.features[:, 3]
    rows = np.arange(299, -1, -1)  # another order than the table's
    y[:, 0] = sure > 0
    y[wrong, 0] = 1 - y[wrong, 0]
    table = replace(data.table, y=y, names=NAMES)
    head = LogitHead.for_labels(NAMES, y)
    p = np.full((300, 3), 0.5)
    p[:, 0] = 1 / (1 + np.exp(-3 * sure))
    part = HeldOut("out-of-fold", rows, {"attributes": p[rows]}, {"attributes": p[rows]}, rows % 5)
    issues, _ = contradicted([head], table, part)
    clear = {row for row in wrong if abs(sure[row]) > 1}
    assert clear
    assert clear <= {issue.row for issue in issues if issue.column == "clear"}
    for issue in issues:
        assert y[issue.row, NAMES.index(issue.column)] == int(issue.given)


# --- the permutation test


def test_shuffling_keeps_what_is_unknown_and_how_many_there_are():
    rng = np.random.default_rng(0)
    y = rng.integers(-1, 2, size=(50, 4)).astype(np.int8)
    folds = np.arange(50) % 5
    mixed = shuffled(y, rng, folds)
    assert ((mixed == -1) == (y == -1)).all()
    for fold in range(5):
        assert ((mixed[folds == fold] == 1).sum(axis=0) == (y[folds == fold] == 1).sum(axis=0)).all()
    assert (mixed != y).any()


def test_p_values_tell_what_shows_from_what_does_not(backbone, monkeypatch):
    data = dataset(backbone.dimension, pictures=300)
    rows, folds, found = crossed(backbone, data)
    measured = []
    monkeypatch.setattr(permutation, "_aucs", lambda y, p: measured.append(auc_of_columns(y, p)) or measured[-1])
    config = replace(CONFIG, permutations=39)
    values = p_values(config, backbone, data, rows, folds, False)
    clear, faint, noise = values
    assert clear == 1 / 40
    assert faint < 0.1
    assert 0.05 < noise <= 1
    real, *draws = np.concatenate(measured).reshape(40, 3)
    # The real labels were learnt as `cross_fit` learns them.
    expected = [auc(y, z) for y, z in zip(data.table.y.T, found.logits["attributes"].T, strict=True)]
    np.testing.assert_allclose(real, expected, atol=0.03)
    np.testing.assert_allclose(values, (1 + (np.array(draws) >= real).sum(axis=0)) / 40)


def auc_of_columns(y, p):
    return np.array([auc(labels, probabilities) for labels, probabilities in zip(y.T, p.T, strict=True)])


def test_p_values_do_not_depend_on_how_many_draws_learn_at_once(backbone, monkeypatch):
    data = dataset(backbone.dimension, pictures=100)
    rows = np.arange(100)
    folds = deal(data, rows, 3, 0)
    config = replace(CONFIG, permutations=5, epochs=(4, 10))
    together = p_values(config, backbone, data, rows, folds, False)
    monkeypatch.setattr(permutation, "COLUMNS_AT_ONCE", 6)
    apart = p_values(config, backbone, data, rows, folds, False)
    np.testing.assert_allclose(apart, together, atol=1 / 6 + 1e-9)  # rounding may let one of two neighbours win


def test_draws_learn_by_lbfgs_too(backbone):
    data = dataset(backbone.dimension, pictures=120)
    folds = deal(data, np.arange(120), 3, 0)
    values = p_values(replace(CONVEX, permutations=19), backbone, data, np.arange(120), folds, False)
    assert values[0] == 1 / 20


def test_an_attribute_of_one_class_has_no_p_value(backbone):
    data = dataset(backbone.dimension, pictures=60)
    y = data.table.y.copy()
    y[:, 2] = np.where(y[:, 2] < 0, -1, 1)
    data = replace(data, table=replace(data.table, y=y))
    config = replace(CONFIG, permutations=3, epochs=(2, 10))
    values = p_values(config, backbone, data, np.arange(60), deal(data, np.arange(60), 3, 0), False)
    assert np.isnan(values[2])
    assert (values[:2] > 0).all()


# --- when each has learnt enough


@pytest.mark.slow
@pytest.mark.parametrize("monitor", ["loss", "accuracy"])
def test_the_best_epoch_of_each_is_that_of_learning_alone(monitor):
    data = dataset(12, pictures=150, tag=True)
    x, learn, stop = data.features, np.arange(110), np.arange(110, 150)
    y, tag = data.table.y, data.table.tag_y[:, 0]
    heads = [
        LogitHead.for_labels(NAMES, y[learn], pos_weight="none"),
        SoftmaxHead.for_labels(data.table.tags[0], tag[learn]),
    ]
    targets = {head.name: head.targets(data.table) for head in heads}
    best = BestEpochs(heads, Batches(x, targets, stop, 32), 4, monitor)
    together = Batches(x, targets, learn, 32, 5)
    train_on_features(build_heads(12, heads), heads, together, None, Phase(40, 0.02, 4), keeper=best)
    assert set(best.epochs) == {head.name for head in heads}
    singles = [
        (LogitHead.for_labels([name], y[learn][:, [n]], pos_weight="none"), y[:, [n]]) for n, name in enumerate(NAMES)
    ]
    singles.append((heads[1], tag))
    for (head, labels), epoch in zip(singles, np.concatenate([best.epochs[head.name] for head in heads]), strict=True):
        batches = [Batches(x, {head.name: labels}, part, 32, seed) for part, seed in ((learn, 5), (stop, None))]
        history = train(build_heads(12, [head]), [head], *batches, Phase(40, 0.02, 4, monitor))
        assert epoch == history.best_epoch


def test_each_keeps_the_weights_of_its_epoch():
    data = dataset(12, pictures=100, tag=True)
    heads = [
        LogitHead.for_labels(NAMES, data.table.y),
        SoftmaxHead.for_labels(data.table.tags[0], data.table.tag_y[:, 0]),
    ]
    targets = {head.name: head.targets(data.table) for head in heads}

    def weights(epochs, keeper=None):
        model = build_heads(12, heads)
        batches = Batches(data.features, targets, np.arange(100), 32, 5)
        train_on_features(model, heads, batches, None, Phase(epochs, 0.02, 4), keeper=keeper)
        return {head.name: model.get_layer(head.name).get_weights() for head in heads}

    wanted = {"attributes": np.array([2, 5, 1]), heads[1].name: np.array([3])}
    kept = weights(5, KeepEpochs(heads, wanted))
    for number, epoch in enumerate(wanted["attributes"]):
        for one, other in zip(kept["attributes"], weights(int(epoch))["attributes"], strict=True):
            np.testing.assert_allclose(one[..., number], other[..., number], atol=1e-6)
    for one, other in zip(kept[heads[1].name], weights(3)[heads[1].name], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_an_attribute_that_nothing_is_known_of_learns_as_long_as_the_others():
    data = dataset(12, pictures=120)
    head = LogitHead.for_labels(NAMES, data.table.y)
    learn, stop = np.arange(90), np.arange(90, 120)
    y = data.table.y.copy()
    y[stop, 1] = -1
    best = BestEpochs([head], Batches(data.features, {head.name: y}, stop, 32), 4)
    train_on_features(
        build_heads(12, [head]), [head], Batches(data.features, {head.name: y}, learn, 32, 5), None,
        Phase(30, 0.02, 4), keeper=best,
    )  # fmt: skip
    first, second, third = best.epochs[head.name]
    assert second == round((first + third) / 2) > 1


def test_an_epoch_that_brings_less_than_the_smallest_gain_does_not_count():
    data = dataset(12, pictures=120)
    head = LogitHead.for_labels(NAMES, data.table.y)
    values = iter([[0.5, 0.5, 0.5], [0.502, 0.51, 0.4], [0.504, 0.511, 0.4], [0.506, 0.512, 0.4], [0.4, 0.4, 0.4]])
    judged = Batches(data.features, {head.name: data.table.y}, np.arange(120), 32)
    best = BestEpochs([head], judged, 9, "accuracy", 0.01)
    best.measure = lambda: {head.name: Measured(np.zeros(3), np.array(next(values)), np.ones(3))}
    for epoch in range(5):
        best.on_epoch_end(epoch)
    assert best.epochs[head.name].tolist() == [4, 2, 1]
