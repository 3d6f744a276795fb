"""The trainer: its batches, its numbers against a float64 training in NumPy, when it stops and what it keeps."""

from __future__ import annotations

import dataclasses
import functools
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from multilabel import training
from multilabel.backbones import build_backbone, freeze, thaw
from multilabel.errors import DataError, ImageError, Interrupted
from multilabel.heads import LogitHead, SoftmaxHead
from multilabel.images import read_image
from multilabel.labels import Tag
from multilabel.losses import Missing
from multilabel.training import Batches, History, Phase, Pictures, build_models, pick_views, predict_logits, train

NAMES = ("hat", "scarf", "coat")
COLOUR = Tag("colour", ("red", "green", "blue"))
DIMENSION = 8


def phase(**options):
    return Phase(**{"epochs": 3, "lr": 0.01, "patience": 10, **options})


# --- data, models and the oracle


def drawn(n=120, unknown=0.3, seed=0):
    """Features, the truth that a linear rule makes of them, and the labels that are left of it."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, DIMENSION)).astype(np.float32)
    truth = (x @ rng.normal(size=(DIMENSION, len(NAMES))) > [-1, 0, 1]).astype(np.int8)
    return x, truth, np.where(rng.random(truth.shape) < unknown, -1, truth).astype(np.int8)


def linear(seed=0, names=("attributes",)):
    """A model of heads on features, and nothing else; the same for the same seed."""
    keras.utils.set_random_seed(seed)
    features = keras.Input((DIMENSION,))
    return keras.Model(features, {name: keras.layers.Dense(len(NAMES), name=name)(features) for name in names})


def fitted(x, y, *, rows=None, validation=None, batch_size=16, seed=0, **options):
    """A head trained from the same first weights: (model, history)."""
    rows = np.arange(len(x) * 3 // 4) if rows is None else rows
    validation = np.arange(len(x) * 3 // 4, len(x)) if validation is None else validation
    head = LogitHead.for_labels(NAMES, y[rows])
    model = linear()
    targets = {head.name: y}
    batches = Batches(x, targets, rows, batch_size, seed), Batches(x, targets, validation, batch_size)
    return model, train(model, [head], *batches, phase(**options))


@functools.cache
def usual():
    """What most others are compared with."""
    x, _, y = drawn()
    return fitted(x, y)


def cell_losses(y, z, pos_weight):
    """Per cell, its loss and d loss / d logit, both 0 where unknown; and which cells are known."""
    known, p, w = y >= 0, 1 / (1 + np.exp(-z)), np.asarray(pos_weight)
    losses = np.where(y == 1, w * np.logaddexp(0, -z), np.logaddexp(0, z))
    slopes = np.where(y == 1, w * (p - 1), p)
    return np.where(known, losses, 0), np.where(known, slopes, 0), known


def mean_known_loss(y, z, pos_weight):
    losses, _, known = cell_losses(y, z, pos_weight)
    return losses.sum() / known.sum()


def numpy_training(x, y, epochs, validation, weights, lr):
    """Adam (Kingma and Ba 2015, algorithm 1) in float64, on the given batches of rows in each of the epochs."""
    x, weights = x.astype(float), [value.astype(float) for value in weights]
    first, second, step = [0.0, 0.0], [0.0, 0.0], 0
    rows = np.concatenate(epochs[0])
    positives, negatives = (y[rows] == 1).sum(axis=0), (y[rows] == 0).sum(axis=0)
    pos_weight, coverage = negatives / positives, (y[rows] >= 0).mean()
    training_loss, validation_loss, after_epoch = [], [], []
    for batches in epochs:
        for batch in batches:
            losses, slopes, known = cell_losses(y[batch], x[batch] @ weights[0] + weights[1], pos_weight)
            training_loss.append(losses.sum() / known.sum())
            slopes = slopes / (slopes.size * coverage)
            step += 1
            for index, gradient in enumerate([x[batch].T @ slopes, slopes.sum(axis=0)]):
                first[index] = 0.9 * first[index] + 0.1 * gradient
                second[index] = 0.999 * second[index] + 0.001 * gradient**2
                mean, square = first[index] / (1 - 0.9**step), second[index] / (1 - 0.999**step)
                # Keras adds epsilon before it corrects the bias of the second moment.
                weights[index] = weights[index] - lr * mean / (np.sqrt(square) + 1e-7 / np.sqrt(1 - 0.999**step))
        validation_loss.append(mean_known_loss(y[validation], x[validation] @ weights[0] + weights[1], pos_weight))
        after_epoch.append(weights.copy())
    return training_loss, validation_loss, after_epoch


def assert_same_weights(model, other):
    for value, expected in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(value, expected)


@pytest.fixture(scope="module")
def picture_paths(tmp_path_factory):
    """Twelve pictures of 32 px: reddish ones and bluish ones by turns."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    paths = []
    for index in range(12):
        pixels = rng.integers(0, 120, (32, 32, 3), dtype=np.uint8)
        pixels[..., 0 if index % 2 else 2] += 130
        paths.append(str(folder / f"{index}.png"))
        Image.fromarray(pixels).save(paths[-1])
    return paths


# --- Batches and Pictures


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_batches_hold_every_row_once_in_each_epoch(n, batch_size, seed):
    rows = np.random.default_rng(seed).choice(100, n, replace=False)
    x, y = np.arange(100.0)[:, None], np.arange(200).reshape(100, 2)
    batches = Batches(x, {"attributes": y}, rows, batch_size, seed)
    for _ in range(2):
        drawn_batches = [batches[index] for index in range(batches.num_batches)]
        sizes = [len(inputs) for inputs, _ in drawn_batches]
        assert sizes[:-1] == [batch_size] * (len(sizes) - 1)
        assert 1 <= sizes[-1] <= batch_size
        seen = np.concatenate([inputs[:, 0] for inputs, _ in drawn_batches]).astype(int)
        assert sorted(seen) == sorted(rows)
        labels = np.concatenate([targets["attributes"] for _, targets in drawn_batches])
        np.testing.assert_array_equal(labels, y[seen])
        batches.on_epoch_end()


def orders(seed, *, rows=range(30), batch_size=7, epochs=3, x=None):
    batches = Batches(np.arange(30.0) if x is None else x, {}, np.array(rows), batch_size, seed)
    found = []
    for _ in range(epochs):
        found.append(batches.order.tolist())
        batches.on_epoch_end()
    return found


def test_the_order_depends_on_seed_and_epoch_alone():
    first = orders(0)
    assert first == orders(0, batch_size=3, x=np.zeros(30))
    assert first[0] != first[1] != first[2] != first[0]
    assert all(order != other for order, other in zip(first, orders(1), strict=True))


def test_looking_at_batches_does_not_change_the_order():
    batches = Batches(np.arange(30.0), {}, np.arange(30), 7, 0)
    looked_at = [batches[4][0], batches[0][0], batches[4][0]]
    np.testing.assert_array_equal(looked_at[0], looked_at[2])
    batches.on_epoch_end()
    assert batches.order.tolist() == orders(0)[1]


def test_without_a_seed_the_order_is_that_of_the_rows():
    assert orders(None, rows=[5, 2, 9]) == [[5, 2, 9]] * 3


def test_an_epoch_can_be_started_in_the_middle_of_a_training():
    batches = Batches(np.arange(30.0), {}, np.arange(30), 7, 0)
    expected = orders(0, epochs=5)
    for epoch in (3, 1, 4):
        batches.start(epoch)
        assert batches.order.tolist() == expected[epoch]
    batches.start(2)
    batches.on_epoch_end()
    assert batches.order.tolist() == expected[3]


def augmented(seed, epoch, index):
    """The seed that the hook is given, and what becomes of its inputs."""
    given_seeds = []

    def augment(inputs, seed):
        given_seeds.append(seed)
        return -inputs

    batches = Batches(np.arange(1.0, 31), {"attributes": np.arange(30)}, np.arange(30), 7, seed, augment)
    batches.start(epoch)
    inputs, targets = batches[index]
    np.testing.assert_array_equal(inputs, -(targets["attributes"] + 1.0))  # changed, and still with its labels
    assert len(given_seeds) == 1
    return given_seeds[0]


def test_the_augmentation_of_a_batch_depends_on_seed_epoch_and_batch_alone():
    places = [(seed, epoch, index) for seed in (0, 1, 7) for epoch in range(4) for index in range(5)]
    seeds = [augmented(*place) for place in places]
    assert seeds == [augmented(*place) for place in places]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_one_view_of_each_picture_is_picked():
    features = np.arange(200 * 4 * 3.0).reshape(200, 4, 3)
    picked = pick_views(features, 5)
    assert picked.shape == (200, 3)
    which = (picked[:, 0] - features[:, 0, 0]).astype(int) // 3
    np.testing.assert_array_equal(picked, features[np.arange(200), which])
    assert np.bincount(which, minlength=4).min() > 30  # each as often as the others, give or take
    np.testing.assert_array_equal(picked, pick_views(features, 5))
    assert (picked != pick_views(features, 6)).any()


@given(st.integers(1, 20), st.integers(1, 8), st.integers(1, 5))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_batches_for_several_devices_are_filled_up_with_rows_that_teach_nothing(n, batch_size, replicas):
    x, targets = np.arange(100.0), {"attributes": np.ones((100, 2), np.int8), "tag": np.ones(100, np.int16)}
    alone, shared = (Batches(x, targets, np.arange(n), batch_size, 3) for _ in range(2))
    shared.replicas = replicas
    assert alone.num_batches == shared.num_batches
    for index in range(alone.num_batches):
        (inputs, labels), (more_inputs, more_labels, *weights) = alone[index], shared[index]
        count = len(inputs)
        if replicas > 1:
            assert weights[0].tolist() == [1] * count + [0] * (len(more_inputs) - count)
        assert len(more_inputs) == -(-count // replicas) * replicas
        assert set(more_inputs) == set(inputs)
        np.testing.assert_array_equal(more_inputs[:count], inputs)
        for name in targets:
            np.testing.assert_array_equal(more_labels[name][:count], labels[name])
            assert (more_labels[name][count:] == -1).all()
    assert all((target == 1).all() for target in targets.values())


class Files:
    """Stands in for `read_pictures`, and remembers what was read."""

    def __init__(self):
        self.read, self.original = [], training.read_pictures

    def __call__(self, paths, *arguments):
        self.read += [int(os.path.basename(path)[:-4]) for path in paths]
        return self.original(paths, *arguments)


@pytest.mark.parametrize(("room", "again"), [(0, 12), (5, 7), (12, 0), (10**6, 0)])
def test_pictures_are_kept_as_long_as_there_is_room(room, again, picture_paths, monkeypatch):
    size = (40, 32)
    expected = np.stack([read_image(path, size) for path in picture_paths])
    monkeypatch.setattr(training, "CACHED_BYTES", room * 40 * 32 * 3 + 1)
    files = Files()
    monkeypatch.setattr(training, "read_pictures", files)
    pictures = Pictures(picture_paths, size)
    order = np.random.default_rng(0).permutation(12)
    for count in (12, again, again):
        files.read.clear()
        np.testing.assert_array_equal(pictures[order[:5]], expected[order[:5]])
        np.testing.assert_array_equal(pictures[order[5:]], expected[order[5:]])
        assert len(files.read) == count
        order = order[::-1]
    np.testing.assert_array_equal(pictures[np.array([3, 3, 7, 3])], expected[[3, 3, 7, 3]])
    assert sum(pixels.nbytes for pixels in pictures._kept.values()) <= training.CACHED_BYTES


def test_what_was_decoded_cannot_be_spoilt_by_who_uses_it(picture_paths):
    pictures = Pictures(picture_paths, (32, 32))
    first = pictures[np.array([0])]
    expected = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(pictures[np.array([0])], expected)


def test_batches_of_pictures_are_decoded_files(picture_paths):
    rows = np.array([3, 0, 7])
    batches = Batches(Pictures(picture_paths, (40, 32)), {"attributes": np.arange(12)}, rows, 2)
    (first, _), (second, targets) = batches[0], batches[1]
    assert (first.shape, first.dtype, second.shape) == ((2, 40, 32, 3), np.uint8, (1, 40, 32, 3))
    for pixels, row in zip(np.concatenate([first, second]), rows, strict=True):
        np.testing.assert_array_equal(pixels, read_image(picture_paths[row], (40, 32)))
    assert targets["attributes"].tolist() == [7]


def test_a_picture_that_cannot_be_read_is_an_error():
    with pytest.raises(ImageError, match=r"^gone\.png: no such file$"):
        Pictures(["gone.png"], (32, 32))[np.array([0])]


# --- models


def test_both_models_are_one(picture_paths):
    backbone = build_backbone("cnn", "none", (32, 32))
    freeze(backbone)
    heads = [LogitHead(NAMES, (1.0,) * 3, 1.0), LogitHead(("warm",), (1.0,), 1.0, name="season")]
    heads_model, model = build_models(backbone, heads)
    pixels = Pictures(picture_paths, (32, 32))[np.arange(12)]
    features = backbone.model.predict(pixels, verbose=0)
    assert features.shape == (12, backbone.dimension)

    def compare():
        on_pixels, on_features = model.predict(pixels, verbose=0), heads_model.predict(features, verbose=0)
        assert {name: logits.shape for name, logits in on_pixels.items()} == {"attributes": (12, 3), "season": (12, 1)}
        for name in on_pixels:
            np.testing.assert_allclose(on_pixels[name], on_features[name], rtol=1e-5, atol=1e-6)
        return on_pixels["attributes"]

    before = compare()
    batches = Batches(features, {"attributes": np.ones((12, 3)), "season": np.ones((12, 1))}, np.arange(12), 4)
    train(heads_model, heads, batches, batches, phase(epochs=1))
    assert (compare() > before).all()  # what the one has learnt the other knows


# --- the numbers


class Recorded:
    """Features that remember which rows were asked for."""

    def __init__(self, x):
        self.x, self.asked = x, []

    def __getitem__(self, rows):
        self.asked.append(rows)
        return self.x[rows]


def test_training_equals_a_training_in_numpy():
    x, _, y = drawn()
    rows, validation = np.arange(90), np.arange(90, 120)
    model, fed = linear(), Recorded(x)
    first_weights = model.get_weights()
    head = LogitHead.for_labels(NAMES, y[rows])
    targets = {head.name: y}
    batches = Batches(fed, targets, rows, 16, seed=5)
    history = train(model, [head], batches, Batches(x, targets, validation, 16), phase(epochs=4, lr=0.02))

    asked = fed.asked[-24:]  # before, Keras looks at some to learn their shapes
    epochs = [asked[start : start + 6] for start in range(0, 24, 6)]
    assert all(sorted(np.concatenate(epoch)) == list(rows) for epoch in epochs)
    assert len({tuple(np.concatenate(epoch)) for epoch in epochs}) == 4
    training_loss, validation_loss, after_epoch = numpy_training(x, y, epochs, validation, first_weights, lr=0.02)
    assert history.epoch_ends == [6, 12, 18, 24]
    np.testing.assert_allclose(history.training_loss, training_loss, rtol=1e-5)
    np.testing.assert_allclose(history.validation_loss, validation_loss, rtol=1e-5)
    assert history.best_epoch == 1 + np.argmin(validation_loss)
    for value, expected in zip(model.get_weights(), after_epoch[history.best_epoch - 1], strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)


def test_the_losses_of_several_heads_are_summed():
    x, _, y = drawn()
    y_too = np.where(np.arange(120)[:, None] % 2, y, -1)  # half as many known cells
    targets = {"a": y, "b": y_too}
    heads = [LogitHead.for_labels(NAMES, target, name) for name, target in targets.items()]
    model = linear(names=("a", "b"))
    batches = Batches(x, targets, np.arange(120), 50)

    def expected(rows):
        z = model.predict(x[rows], verbose=0)
        return sum(mean_known_loss(targets[head.name][rows], z[head.name], head.pos_weight) for head in heads)

    at_first = expected(np.arange(50))
    history = train(model, heads, batches, batches, phase(epochs=1))
    assert history.training_loss[0] == pytest.approx(at_first, rel=1e-5)
    assert history.validation_loss[0] == pytest.approx(expected(np.arange(120)), rel=1e-5)


def test_the_kept_weights_have_the_loss_that_was_logged_for_the_best_epoch():
    x, _, y = drawn()
    model, history = fitted(x, y, epochs=30, lr=0.5, patience=2)
    assert 1 < history.best_epoch < len(history.epoch_ends)
    head, validation = LogitHead.for_labels(NAMES, y[:90]), np.arange(90, 120)
    z = predict_logits(model, Batches(x, {}, validation, 7))["attributes"].astype(float)
    assert history.validation_loss[history.best_epoch - 1] == min(history.validation_loss)
    assert min(history.validation_loss) == pytest.approx(mean_known_loss(y[validation], z, head.pos_weight), rel=1e-5)


def test_a_rule_is_learnt_although_a_third_of_the_labels_is_unknown():
    x, truth, y = drawn(800)
    model, history = fitted(x, y, batch_size=60, epochs=15, lr=0.1)
    z = predict_logits(model, Batches(x, {}, np.arange(600, 800), 200))["attributes"]
    for column, name in enumerate(NAMES):
        assert roc_auc_score(truth[600:, column], z[:, column]) > 0.99, name
    assert history.validation_loss[-1] < history.validation_loss[0] / 2


def test_logits_come_in_the_order_of_the_rows():
    x, _, _ = drawn()
    model = linear()
    rows = np.array([7, 3, 99, 0, 50])
    z = predict_logits(model, Batches(x, {}, rows, 2))
    weights, bias = model.get_weights()
    assert list(z) == ["attributes"]
    np.testing.assert_allclose(z["attributes"], x[rows] @ weights + bias, rtol=1e-4, atol=1e-5)


def two_heads(x, seed=0):
    """A logit head and a softmax head with weights, on labels of which unequal shares are unknown."""
    rng = np.random.default_rng(seed)
    scores = x @ rng.normal(size=(DIMENSION, 3))
    y = (scores + rng.normal(size=scores.shape) > [-1, 0, 1]).astype(np.int8)
    y[rng.random(y.shape) < 0.6] = -1
    classes = (scores + rng.normal(size=scores.shape)).argmax(axis=1).astype(np.int16)
    classes[rng.random(len(x)) < 0.2] = -1
    heads = [
        LogitHead.for_labels(NAMES, y[:90], weight=0.5),
        SoftmaxHead.for_labels(COLOUR, classes[:90], class_weight="balanced", weight=3),
    ]
    return heads, {"attributes": y, "tag": classes}


def two_headed(x, heads, targets, seed=0, **options):
    keras.utils.set_random_seed(seed)
    features = keras.Input((DIMENSION,))
    model = keras.Model(features, {head.name: head.layer()(features) for head in heads})
    batches = Batches(x, targets, np.arange(90), 16, seed), Batches(x, targets, np.arange(90, len(x)), 7)
    return model, train(model, heads, *batches, phase(**options))


def judged(model, heads, x, targets):
    """Loss and accuracy on the validation part as scikit-learn has them, unknown cells deleted."""
    z = model.predict(x[90:], verbose=0)
    (y, tag), (logits, scores) = (targets[head.name][90:] for head in heads), (z[head.name] for head in heads)
    known = y >= 0
    cells, p = y[known], 1 / (1 + np.exp(-logits[known].astype(float)))
    weights = np.where(cells == 1, np.broadcast_to(heads[0].pos_weight, y.shape)[known], 1)
    attribute_loss = log_loss(cells, p, normalize=False, sample_weight=weights) / len(cells)
    tag, scores = tag[tag >= 0], scores[tag >= 0].astype(float)
    q = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    weights = np.array(heads[1].class_weight)[tag]
    tag_loss = log_loss(tag, q, normalize=False, sample_weight=weights, labels=range(3)) / len(tag)
    accuracies = accuracy_score(cells, p > 0.5), accuracy_score(tag, q.argmax(axis=1))
    return 0.5 * attribute_loss + 3 * tag_loss, np.mean(accuracies)


def stopped(values, patience):
    """The epochs, from 1, at which a training with these values ends, and the best of them."""
    best = 0
    for epoch, value in enumerate(values):
        if value < values[best]:
            best = epoch
        if epoch - best == patience:
            break
    return epoch + 1, best + 1


@pytest.mark.parametrize(("seed", "monitor"), [(0, "loss"), (0, "accuracy"), (1, "accuracy")])
def test_what_is_shown_of_two_kinds_of_heads_is_right_and_decides(seed, monitor):
    x, _, _ = drawn(150)
    heads, targets = two_heads(x, seed)
    model, history = two_headed(x, heads, targets, seed, epochs=25, lr=0.2, patience=3, monitor=monitor)
    losses, accuracies = history.validation_loss, history.validation_accuracy
    followed = losses if monitor == "loss" else [-accuracy for accuracy in accuracies]
    assert (len(losses), history.best_epoch) == stopped(followed, 3)
    assert len(losses) < 25
    assert np.argmin(losses) != np.argmax(accuracies)  # otherwise the monitor would not matter
    kept = history.best_epoch - 1
    loss, accuracy = judged(model, heads, x, targets)
    assert losses[kept] == pytest.approx(loss, rel=1e-5)
    assert accuracies[kept] == pytest.approx(accuracy, rel=1e-6)


# --- phases: learning rates, averages, and one after the other


def watched(monkeypatch, what, look):
    """What `look(model)` returns at the given moments of the trainings that follow."""
    seen, original = [], getattr(training.Log, what)

    def method(self, number, logs=None):
        original(self, number, logs)
        seen.append(look(self.model))

    monkeypatch.setattr(training.Log, what, method)
    return seen


def learning_rate(model):
    return float(model.optimizer.learning_rate)


def cosine(steps, rising, lr=0.02):
    """The learning rate at each step, of which some rise from a hundredth of it."""
    step = np.arange(steps)
    up = lr * (0.01 + 0.99 * step / max(rising, 1))
    down = lr / 2 * (1 + np.cos(np.pi * (step - rising) / (steps - rising)))
    return np.where(step < rising, up, down)


@pytest.mark.parametrize(("warmup", "rising"), [(0.0, 0), (0.1, 1), (1.5, 9), (99.0, 23)])
def test_cosine(warmup, rising):
    optimizer = phase(epochs=4, lr=0.02, schedule="cosine", warmup=warmup).optimizer(6)
    rates = []
    for step in range(24):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    np.testing.assert_allclose(rates, cosine(24, rising), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_the_rate_of_each_step(schedule, monkeypatch):
    rates = watched(monkeypatch, "on_train_batch_begin", learning_rate)
    x, _, y = drawn()
    fitted(x, y, lr=0.02, schedule=schedule, warmup=1.5)
    expected = cosine(18, 9) if schedule == "cosine" else np.full(18, 0.02)
    np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-9)


def test_plateau(monkeypatch):
    rates = watched(monkeypatch, "on_train_batch_begin", learning_rate)
    x, y = contradicted()  # better never than at first
    _, history = fitted(x, y, epochs=50, lr=0.02, patience=8, schedule="plateau")
    assert len(history.epoch_ends) == 9
    halvings = [0, 0, 0, 1, 1, 2, 2, 3, 3]  # after two epochs each
    np.testing.assert_allclose(rates, np.repeat(0.02 / 2.0 ** np.array(halvings), 6), rtol=1e-6)


def test_plateau_counts_every_better_value_as_stopping_does():
    (plateau, stopping) = phase(schedule="plateau").callbacks()
    assert plateau.min_delta == stopping.min_delta == 0


@pytest.mark.parametrize(
    "options",
    [{"epochs": 4, "lr": 0.05, "scale_loss": True}, {"epochs": 60, "lr": 0.2, "patience": 2}],
    ids=["to the last epoch", "until it stops"],
)
def test_the_average_of_the_weights_is_measured_and_kept(options, monkeypatch):
    after_steps = watched(monkeypatch, "on_train_batch_end", lambda model: model.get_weights())
    x, _, y = drawn()
    model, history = fitted(x, y, ema=0.8, **options)
    assert len(after_steps) == len(history.training_loss)
    assert (len(history.epoch_ends) == 4) == (options["epochs"] == 4)
    average, at_ends = after_steps[0], []
    for step, weights in enumerate(after_steps, start=1):
        average = [0.8 * mean + 0.2 * weight for mean, weight in zip(average, weights, strict=True)]
        if step in history.epoch_ends:
            at_ends.append(average)
    assert history.best_epoch == 1 + np.argmin(history.validation_loss)
    for value, expected in zip(model.get_weights(), at_ends[history.best_epoch - 1], strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
    pos_weight = LogitHead.for_labels(NAMES, y[:90]).pos_weight
    shown = [mean_known_loss(y[90:], x[90:] @ weights[0] + weights[1], pos_weight) for weights in at_ends]
    np.testing.assert_allclose(history.validation_loss, shown, rtol=1e-5)


def test_scaling_the_loss_changes_no_step():
    x, _, y = drawn()
    model, history = fitted(x, y, scale_loss=True)
    expected_model, expected = usual()
    np.testing.assert_allclose(history.training_loss, expected.training_loss, rtol=1e-5)
    for value, other in zip(model.get_weights(), expected_model.get_weights(), strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-4, atol=1e-6)


def test_a_history_is_continued_by_that_of_a_later_phase():
    first = History([3.0, 2.5, 2.0, 1.5], [2.8, 2.2], [0.5, 0.6], [2, 4], [2], 2)
    second = History([1.4, 1.3, 1.2], [2.1, 2.3, 2.4], [0.7, 0.6, 0.5], [1, 2, 3], [3], 1)
    whole = first.then(second)
    assert whole == History(
        [3.0, 2.5, 2.0, 1.5, 1.4, 1.3, 1.2],
        [2.8, 2.2, 2.1, 2.3, 2.4],
        [0.5, 0.6, 0.7, 0.6, 0.5],
        [2, 4, 5, 6, 7],
        [2, 5],
        3,
    )
    assert first.epoch_ends == [2, 4]  # neither is changed
    assert second.phase_ends == [3]


def test_two_phases_of_one_model():
    x, _, y = drawn()
    head, model = LogitHead.for_labels(NAMES, y[:90]), linear()
    batches, held_out = (Batches(x, {head.name: y}, rows, 16, 0) for rows in (np.arange(90), np.arange(90, 120)))
    first = train(model, [head], batches, held_out, phase(epochs=2))
    second = train(model, [head], batches, held_out, phase(epochs=3, lr=1e-9))
    assert (first.phase_ends, second.phase_ends) == ([2], [3])
    whole = first.then(second)
    assert whole.phase_ends == [2, 5]
    assert whole.epoch_ends == [6, 12, 18, 24, 30]
    assert whole.validation_loss[2:] == [pytest.approx(min(first.validation_loss), rel=1e-5)] * 3  # where it stood


# --- unknown cells


@pytest.mark.parametrize(("dtype", "unknown"), [(np.float32, np.nan), (np.float32, -1), (np.int64, -7)])
def test_whatever_stands_for_unknown_the_training_is_the_same_to_the_bit(dtype, unknown):
    x, _, y = drawn()
    other = y.astype(dtype)
    other[y < 0] = unknown
    head, model = LogitHead.for_labels(NAMES, y[:90]), linear()
    targets = {head.name: other}
    batches, held_out = Batches(x, targets, np.arange(90), 16, 0), Batches(x, targets, np.arange(90, 120), 16)
    history = train(model, [head], batches, held_out, phase())
    expected_model, expected_history = usual()
    assert history == expected_history
    assert_same_weights(model, expected_model)


def test_pictures_without_a_known_label_teach_nothing():
    x, _, y = drawn()
    y[::5] = -1
    changed = x.copy()
    changed[::5] = np.random.default_rng(9).normal(size=changed[::5].shape) * 100
    (model, history), (other_model, other_history) = fitted(x, y), fitted(changed, y)
    assert history == other_history
    assert_same_weights(model, other_model)


def test_a_picture_teaches_nothing_about_the_attribute_that_is_unknown():
    x, _, y = drawn()
    unknown = np.flatnonzero(y[:90, 0] < 0)
    changed = x.copy()
    changed[unknown] += 1
    known = {"validation": np.flatnonzero(y[:, 0] >= 0)}  # the same pictures judge both
    (model, history), (other, other_history) = fitted(x, y, lr=1e-3, **known), fitted(changed, y, lr=1e-3, **known)
    assert history.best_epoch == other_history.best_epoch == 3
    for value, other_value in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(value[..., 0], other_value[..., 0])
        assert (value[..., 1:] != other_value[..., 1:]).all()


def test_unlabelled_pictures_leave_the_step_of_a_whole_batch_as_it_is():
    x, _, y = drawn(60)
    more_x, more_y = np.concatenate([x, x]), np.concatenate([y, np.full_like(y, -1)])
    validation = np.arange(60)
    model, _ = fitted(x, y, rows=validation, validation=validation, batch_size=1000, epochs=2)
    other, _ = fitted(more_x, more_y, rows=np.arange(120), validation=validation, batch_size=1000, epochs=2)
    for value, expected in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-6)


# --- when it stops, and what it keeps


@functools.cache
def contradicted():
    """Data whose validation part says the opposite of its training part, so that it gets worse from the start."""
    x, truth, _ = drawn()
    y = truth.copy()
    y[90:] = 1 - y[90:]
    return x, y


@functools.cache
def after_one_epoch():
    x, y = contradicted()
    return fitted(x, y, epochs=1)[0]


@pytest.mark.parametrize("patience", [1, 3])
def test_it_stops_after_so_many_epochs_without_improvement_and_restores_the_best_weights(patience):
    x, y = contradicted()
    model, history = fitted(x, y, epochs=50, patience=patience)
    assert (len(history.validation_loss), history.best_epoch) == (1 + patience, 1)
    assert len(history.training_loss) == history.epoch_ends[-1] == 6 * (1 + patience)
    assert_same_weights(model, after_one_epoch())


def test_the_best_weights_are_restored_also_when_the_epochs_run_out():
    x, y = contradicted()
    model, history = fitted(x, y, epochs=2, patience=50)
    assert (len(history.validation_loss), history.best_epoch) == (2, 1)
    assert history.validation_loss[0] < history.validation_loss[1]
    assert_same_weights(model, after_one_epoch())


def test_the_same_seed_gives_the_same_weights_to_the_bit():
    x, _, y = drawn()
    (model, history), (again, history_again), (other, _) = usual(), fitted(x, y), fitted(x, y, seed=1)
    assert history == history_again
    assert_same_weights(model, again)
    assert (model.get_weights()[0] != other.get_weights()[0]).any()


@pytest.mark.parametrize("kind", [{}, {"objective": "splc"}, {"missing": Missing("ll-ct", delta=0.1)}], ids=str)
def test_a_step_is_traced_once_and_its_numbers_are_those_of_two_traces(kind, monkeypatch):
    """Losses that must be told the epoch, too."""
    x, _, _ = drawn()
    heads, targets = two_heads(x)
    heads[0] = dataclasses.replace(heads[0], **kind)
    traces, original = [], keras.Model.train_step

    def traced(self, data):
        traces.append(data)
        return original(self, data)

    monkeypatch.setattr(keras.Model, "train_step", traced)
    model, history = two_headed(x, heads, targets)
    assert len(traces) == 1
    monkeypatch.setattr(training, "_build_losses_and_metrics", lambda model, heads: None)
    plain, plain_history = two_headed(x, heads, targets)
    assert len(traces) == 1 + 2  # so it is worth its lines
    assert history == plain_history
    assert_same_weights(model, plain)


@pytest.mark.parametrize("what", ["on_train_batch_end", "on_epoch_end"])
def test_ctrl_c_becomes_a_sentence(what, monkeypatch):
    calls, original = [], getattr(training.Log, what)

    def interrupted(self, number, logs=None):
        calls.append(number)
        if len(calls) == {"on_train_batch_end": 14, "on_epoch_end": 2}[what]:
            raise KeyboardInterrupt
        original(self, number, logs)

    monkeypatch.setattr(training.Log, what, interrupted)
    x, _, y = drawn()
    with pytest.raises(Interrupted) as error:
        fitted(x, y)
    epochs = {"on_train_batch_end": "2 epochs", "on_epoch_end": "1 epoch"}[what]
    assert str(error.value) == f"Stopped after {epochs} of training; no bundle was written."


def test_a_loss_that_is_no_number_becomes_a_sentence():
    x, _, y = drawn()
    with pytest.raises(DataError) as error:
        fitted(x, y, lr=1e38)
    assert str(error.value) == "the training loss is no longer a number; lower --lr (it was 1e+38)."


def test_nothing_is_printed_unless_asked_for(capfd):
    x, _, y = drawn()
    fitted(x, y, epochs=1)
    assert "epoch" not in "".join(capfd.readouterr())


# --- end to end


class Vanishing(Pictures):
    """Pictures of which one is gone when it is asked for again."""

    asked = 0

    def __getitem__(self, indices):
        self.asked += 1
        if self.asked == 6:
            os.rename(self.paths[0], self.paths[0] + ".gone")
        return super().__getitem__(indices)


@pytest.fixture(scope="module")
def cnn():
    """A small network with its heads, on pictures of 32 px, ready to be trained."""
    keras.utils.set_random_seed(0)
    backbone = build_backbone("cnn", "none", (32, 32))
    head = LogitHead(("red", "blue"), (1.0, 1.0), 0.75)
    model = build_models(backbone, [head])[1]
    thaw(backbone)
    return backbone, head, model


def test_end_to_end_training_moves_the_backbone_and_lowers_the_loss(cnn, picture_paths):
    backbone, head, model = cnn
    y = np.stack([np.arange(12) % 2, 1 - np.arange(12) % 2], axis=1)
    y[[0, 1, 6, 7], [0, 1, 1, 0]] = -1
    before = backbone.model.get_weights()
    pictures, targets = Pictures(picture_paths, (32, 32)), {"attributes": y}
    batches = Batches(pictures, targets, np.arange(8), 4, 0)
    held_out = Batches(pictures, targets, np.arange(8, 12), 4)
    history = train(model, [head], batches, held_out, phase(epochs=8, lr=3e-3))
    assert history.epoch_ends == list(range(2, 18, 2))
    assert np.mean(history.training_loss[-4:]) < np.mean(history.training_loss[:4]) / 4
    moved = [(a != b).any() for a, b in zip(before, backbone.model.get_weights(), strict=True)]
    assert all(moved)  # BatchNorm's statistics too: these weights are not pretrained
    z = predict_logits(model, held_out)["attributes"].astype(float)
    kept = history.validation_loss[history.best_epoch - 1]
    assert kept == pytest.approx(mean_known_loss(y[8:], z, head.pos_weight), rel=1e-4)
    assert ((z > 0) == y[8:]).all()


def test_a_picture_that_vanishes_during_training_is_named(cnn, picture_paths, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CACHED_BYTES", 0)  # what is in memory cannot vanish
    _, head, model = cnn
    paths = [str(tmp_path / os.path.basename(path)) for path in picture_paths[:4]]
    for path, original in zip(paths, picture_paths[:4], strict=True):
        os.link(original, path)
    pictures = Vanishing(paths, (32, 32))
    batches = Batches(pictures, {"attributes": np.zeros((4, 2))}, np.arange(4), 2)
    with pytest.raises(ImageError) as error:
        train(model, [head], batches, batches, phase())
    assert str(error.value) == f"{paths[0]}: no such file"
    with pytest.raises(ImageError) as error:
        predict_logits(model, Batches(pictures, {}, np.arange(3, -1, -1), 1))
    assert str(error.value) == f"{paths[0]}: no such file"


def test_an_interrupt_that_tensorflow_wrapped_is_an_interrupt(monkeypatch):
    def interrupted(*_, **__):
        raise RuntimeError("UnknownError: KeyboardInterrupt: \nTraceback (most recent call last):")

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    monkeypatch.setattr(model, "predict", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict_logits(model, Batches(np.zeros((2, 2)), {}, np.arange(2), 2))


# --- several devices

# Two processors that are one: `distribution` takes them for the GPUs that this machine may not have.
TWO_DEVICES = """
import dataclasses, sys
import tensorflow as tf

processor = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)

import keras
import numpy as np
from multilabel import pipeline, training
from multilabel.backbones import build_backbone, thaw
from multilabel.checkpoints import Checkpoint
from multilabel.config import CnnShape, FitConfig
from multilabel.errors import Interrupted
from multilabel.heads import LogitHead, SoftmaxHead
from multilabel.labels import Tag
from multilabel.training import Batches, Phase, build_models, distribution, train

def use(devices):
    training.replicas = lambda: ["/device:CPU:0", "/device:CPU:1"][:devices]

def trained(devices, phase, checkpoint=None, *, count=16, batch_norm="none", **kind):
    use(devices)
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (23, 32, 32, 3), dtype=np.uint8)
    y = rng.integers(0, 2, (23, 2)).astype(np.int8)
    y[::2] = -1  # so that one device may have all known cells, and the other none
    tag = rng.integers(0, 3, 23).astype(np.int16)
    tag[1::3] = -1
    heads = [
        LogitHead.for_labels(("a", "b"), y[:16], **kind),
        SoftmaxHead.for_labels(Tag("colour", ("red", "green", "blue")), tag[:16], weight=0.5),
    ]
    targets = dict(zip([head.name for head in heads], [y, tag]))
    keras.utils.set_random_seed(0)
    with distribution() as strategy:
        assert (strategy is not None) == (devices == 2)
        backbone = build_backbone("cnn", "none", (32, 32), cnn=CnnShape((4, 8), batch_norm=batch_norm))
        _, model = build_models(backbone, heads)
        thaw(backbone)
        batches = Batches(pictures, targets, np.arange(count), 4, 0)
        held_out = Batches(pictures, targets, np.arange(16, 23), 4)  # the last batch of an odd number
        history = train(model, heads, batches, held_out, phase, checkpoint=checkpoint)
    return history, model.get_weights()

def assert_close(one, other, tolerance=1e-4):
    for name in ("training_loss", "validation_loss", "validation_accuracy"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=tolerance, err_msg=name)
    assert (one.epoch_ends, one.best_epoch) == (other.epoch_ends, other.best_epoch)
"""


def on_two_devices(script, *arguments):
    command = [sys.executable, "-c", TWO_DEVICES + script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "kind"),
    [
        ("Phase(3, 0.01, 5)", {}),
        ("Phase(6, 0.05, 3, monitor='accuracy', schedule='plateau', ema=0.8)", {}),
        ("Phase(3, 0.01, 5)", {"objective": "asl", "missing": "negative"}),
        ("Phase(4, 0.1, 5)", {"objective": "splc"}),
    ],
)
def test_two_devices_train_as_one_does(phase, kind):
    on_two_devices(f"""
phase, kind = {phase}, {kind}
(one, weights), (two, others) = trained(1, phase, **kind), trained(2, phase, **kind)
assert_close(one, two)
for value, other in zip(weights, others, strict=True):
    np.testing.assert_allclose(value, other, atol=1e-4)
""")


@pytest.mark.slow
def test_two_devices_take_batches_that_do_not_divide():
    # The last batch holds one picture, and BatchNorm of no picture would be no number.
    on_two_devices("""
training._replicas = lambda model: 2  # so that one device, too, is given batches that are filled up
for batch_norm in ("none", "before"):
    kind = {"missing": "negative"}  # the rows that fill up a batch are unknown, and must not count as absent
    (one, _), (two, weights) = (
        trained(devices, Phase(3, 0.01, 5), count=13, batch_norm=batch_norm, **kind) for devices in (1, 2)
    )
    assert all(np.isfinite(value).all() for value in weights)
    assert one.epoch_ends == two.epoch_ends == [4, 8, 12]
    if batch_norm == "none":  # each device has BatchNorm of its own
        assert_close(one, two)
""")


@pytest.mark.slow
def test_two_devices_are_continued_to_the_bit(tmp_path):
    on_two_devices(
        """
phase = Phase(4, 0.01, 5, schedule="plateau", ema=0.8)
whole, weights = trained(2, phase)
step = training.Log.on_train_batch_end

def interrupted(self, batch, logs=None):
    step(self, batch, logs)
    if len(self.history.training_loss) == 10:
        raise KeyboardInterrupt

training.Log.on_train_batch_end = interrupted
try:
    trained(2, phase, Checkpoint(sys.argv[1], {}))
except Interrupted:
    pass
training.Log.on_train_batch_end = step
checkpoint = Checkpoint(sys.argv[1], {}, resume=True)
assert checkpoint.epoch == 2
resumed, others = trained(2, phase, checkpoint)
assert resumed == whole
assert all((value == other).all() for value, other in zip(weights, others, strict=True))
""",
        tmp_path / "checkpoint",
    )


@pytest.mark.slow
def test_fit_on_two_devices_is_that_on_one(tmp_path, root):
    lines = (root / "data" / "labels.txt").read_text().splitlines()[:60]
    (tmp_path / "labels.txt").write_text("\n".join(lines) + "\n")
    on_two_devices(
        """
import csv
from pathlib import Path

def numbers(name, table):
    rows = csv.reader(open(folder / name / table))
    next(rows)
    return [[float(cell) for cell in row if cell[-1:].isdigit()] for row in rows]

folder = Path(sys.argv[1])
config = FitConfig(
    folder / "labels.txt", images=sys.argv[2], backbone="cnn", train_backbone=True, image_size=32,
    cnn=CnnShape((4, 8), batch_norm="none"), epochs=4, lr=0.01, batch_size=16,
)
for devices, name in ((1, "one"), (2, "two")):
    use(devices)
    pipeline.fit(dataclasses.replace(config, out=folder / name))
for table in ("history.csv", "predictions.csv"):
    for row, other in zip(numbers("one", table), numbers("two", table), strict=True):
        np.testing.assert_allclose(row, other, atol=1e-4)
""",
        tmp_path,
        root / "data" / "images",
    )
