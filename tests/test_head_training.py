"""Heads on features: the compiled epochs give the numbers of `training.train`."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest

from multilabel import head_training, slabs, training
from multilabel.errors import DataError, Interrupted
from multilabel.head_training import train_on_features
from multilabel.heads import LogitHead, SoftmaxHead
from multilabel.labels import Tag
from multilabel.training import Batches, Phase, build_heads, pick_views, train

PICTURES, DIMENSION = 150, 12
TRAINING, VALIDATION = np.arange(110), np.arange(110, 150)


def drawn(views=None):
    """Features, labels of three attributes and of one tag; a fifth of the labels unknown."""
    rng = np.random.default_rng(0)
    shape = (PICTURES, DIMENSION) if views is None else (PICTURES, views, DIMENSION)
    x = rng.normal(size=shape).astype(np.float32)
    first = x if views is None else x[:, 0]
    y = (first[:, :3] + rng.normal(size=(PICTURES, 3)) > 0).astype(np.int8)
    tag = first[:, 3:7].argmax(axis=1).astype(np.int16)
    y[rng.random(y.shape) < 0.2] = -1
    tag[rng.random(PICTURES) < 0.2] = -1
    return x, {"attributes": y, "tag": tag}


def fitted(trainer, views=None, epochs=12, patience=4, validation=True, tag=True, lr=0.03, callbacks=None, **settings):
    """The weights and the history of one training."""
    x, targets = drawn(views)
    keras.utils.set_random_seed(3)
    heads = [LogitHead.for_labels(["a", "b", "c"], targets["attributes"][TRAINING], **settings)]
    if tag:
        heads.append(SoftmaxHead.for_labels(Tag("colour", tuple("rgbk")), targets["tag"][TRAINING], weight=0.5))
    targets = {head.name: targets[head.name] for head in heads}
    features = keras.Input((DIMENSION,))
    model = keras.Model(features, {head.name: head.layer()(features) for head in heads})
    learn = Batches(x, targets, TRAINING, 32, 5, None if views is None else pick_views)
    held_out = Batches(x if views is None else x[:, 0], targets, VALIDATION, 32)
    phase = Phase(epochs, lr, patience, **(callbacks or {}))
    history = trainer(model, heads, learn, held_out if validation else None, phase)
    return model.get_weights(), history


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"views": 3},
        {"patience": 50, "callbacks": {"monitor": "accuracy"}},
        pytest.param({"tag": False}, marks=pytest.mark.slow),
        pytest.param({"missing": "ll-ct"}, marks=pytest.mark.slow),
        pytest.param({"objective": "splc"}, marks=pytest.mark.slow),
        {"objective": "asl", "missing": "selective"},
    ],
    ids=str,
)
def test_the_numbers_are_those_of_the_plain_training(options):
    (plain, history), (fast, fast_history) = fitted(train, **options), fitted(train_on_features, **options)
    for one, other in zip(plain, fast, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert fast_history.epoch_ends == history.epoch_ends
    assert fast_history.best_epoch == history.best_epoch
    assert fast_history.phase_ends == history.phase_ends
    np.testing.assert_allclose(fast_history.training_loss, history.training_loss, rtol=1e-4)
    np.testing.assert_allclose(fast_history.validation_loss, history.validation_loss, rtol=1e-4)
    np.testing.assert_allclose(fast_history.validation_accuracy, history.validation_accuracy, rtol=1e-6)


def test_without_a_validation_part_it_trains_to_the_end():
    weights, history = fitted(train_on_features, validation=False, epochs=7)
    assert history.epoch_ends == [4, 8, 12, 16, 20, 24, 28]
    assert history.best_epoch == 7
    assert history.validation_loss == history.validation_accuracy == []
    reference, stopped = fitted(train, epochs=7, patience=7)
    assert stopped.training_loss == pytest.approx(history.training_loss, rel=1e-4)
    if stopped.best_epoch == 7:
        np.testing.assert_allclose(weights[0], reference[0], rtol=1e-4, atol=1e-5)


def test_more_validation_rows_than_are_measured_at_once(monkeypatch):
    _, whole = fitted(train_on_features)
    monkeypatch.setattr(slabs, "SLAB_BYTES", 7 * 4 * DIMENSION)
    _, in_parts = fitted(train_on_features)
    np.testing.assert_allclose(in_parts.validation_loss, whole.validation_loss, rtol=1e-5)
    np.testing.assert_allclose(in_parts.validation_accuracy, whole.validation_accuracy, rtol=1e-6)


@pytest.mark.parametrize("views", [None, 3])
@pytest.mark.parametrize("rows", [32, 64, 96])
def test_slabs_change_nothing(rows, views, monkeypatch):
    whole, history = fitted(train_on_features, views=views)
    monkeypatch.setattr(slabs, "SLAB_BYTES", rows * 4 * DIMENSION)
    in_slabs, again = fitted(train_on_features, views=views)
    assert all((one == other).all() for one, other in zip(whole, in_slabs, strict=True))
    assert again.training_loss == history.training_loss
    assert again.epoch_ends == history.epoch_ends


@pytest.mark.parametrize("views", [None, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_features_in_a_file_give_the_same_weights(dtype, views, tmp_path, monkeypatch):
    x, targets = drawn(views)
    x = x.astype(dtype)
    file = np.memmap(tmp_path / "features", dtype, "w+", shape=x.shape)
    file[:] = x
    weights = []
    for features in (x.astype(np.float32), file):
        monkeypatch.setattr(sys.modules[__name__], "drawn", lambda views, features=features: (features, targets))
        weights.append(fitted(train_on_features, views=views)[0])
    assert all((one == other).all() for one, other in zip(*weights, strict=True))


def test_what_was_compiled_for_other_labels_serves_these_ones():
    """What differs from fold to fold, the weights of positives and the share of known cells, is not compiled in."""
    fitted(train_on_features)
    x, targets = drawn()
    y = targets["attributes"].copy()
    y[:60][y[:60] == 1] = -1
    for trainer in (train, train_on_features):
        head = LogitHead.for_labels(["a", "b", "c"], y[TRAINING])
        model = build_heads(DIMENSION, [head])
        batches = [Batches(x, {head.name: y}, rows, 32, 5) for rows in (TRAINING, VALIDATION)]
        history = trainer(model, [head], *batches, Phase(6, 0.03, 6))
        if trainer is train:
            expected, plain = model.get_weights(), history
    np.testing.assert_allclose(history.training_loss, plain.training_loss, rtol=1e-4)
    for one, other in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    compiled = head_training._idle[-1][1]
    head = LogitHead.for_labels(["a", "b", "c"], targets["attributes"][TRAINING])
    model = build_heads(DIMENSION, [head])
    train_on_features(
        model, [head], Batches(x, {head.name: targets["attributes"]}, TRAINING, 32, 5), None, Phase(2, 0.03, 6)
    )
    assert head_training._idle[-1][1] is compiled


def test_a_training_that_failed_leaves_nothing_behind():
    expected, _ = fitted(train_on_features)
    with pytest.raises(DataError):
        fitted(train_on_features, lr=1e38)
    again, _ = fitted(train_on_features)
    assert all((one == other).all() for one, other in zip(expected, again, strict=True))


_PEAK = """
import resource, sys
import numpy as np
from multilabel import slabs
from multilabel.convex import train_convex
from multilabel.head_training import train_on_features
from multilabel.heads import LogitHead
from multilabel.stopping import BestEpochs
from multilabel.training import Batches, Phase, build_heads
path, trainer, rows = sys.argv[1], {"adam": train_on_features, "lbfgs": train_convex}[sys.argv[2]], int(sys.argv[3])
slabs.SLAB_BYTES = 2**23
sys.modules["multilabel.convex"]._KEPT_BYTES = 0
x = np.memmap(path, np.float16, "r", shape=(rows, 1024))
y = np.random.default_rng(0).integers(-1, 2, (rows, 2)).astype(np.int8)
head = LogitHead.for_labels("ab", y)
learn, stop = (Batches(x, {head.name: y}, part, 256, 0) for part in np.split(np.arange(rows), [rows * 4 // 5]))
best = BestEpochs([head], stop, 5)
trainer(build_heads(1024, [head]), [head], learn, stop, Phase(1, 1e-3, 5), keeper=best)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_memory_does_not_grow_with_the_rows(solver, tmp_path):
    """Twenty times the rows, 400 MB of them in a file, and as good as no more memory."""
    peaks = []
    for rows in (10_000, 200_000):
        path = tmp_path / "features"
        with path.open("wb") as file:
            file.truncate(rows * 1024 * 2)
        command = [sys.executable, "-c", _PEAK, str(path), solver, str(rows)]
        peaks.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    assert peaks[1] - peaks[0] < 100_000, peaks  # kilobytes


def test_equal_seeds_give_equal_weights():
    (weights, history), (again, history_again) = fitted(train_on_features), fitted(train_on_features)
    assert history == history_again
    assert all((one == other).all() for one, other in zip(weights, again, strict=True))


def test_a_loss_that_is_no_number_becomes_a_sentence():
    with pytest.raises(DataError) as error:
        fitted(train_on_features, lr=1e38)
    assert str(error.value) == "the training loss is no longer a number; lower --lr (it was 1e+38)."


def test_ctrl_c_becomes_a_sentence(monkeypatch):
    original = training.Log.on_epoch_end

    def interrupted(self, epoch, logs=None):
        original(self, epoch, logs)
        if epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(training.Log, "on_epoch_end", interrupted)
    with pytest.raises(Interrupted) as error:
        fitted(train_on_features)
    assert str(error.value) == "Stopped after 2 epochs of training; no bundle was written."
