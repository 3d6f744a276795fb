"""Heads on features: the compiled epochs give the numbers of `training.train`."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from multilabel import head_training, training
from multilabel.errors import DataError, Interrupted
from multilabel.head_training import train_on_features
from multilabel.heads import LogitHead, SoftmaxHead
from multilabel.labels import Tag
from multilabel.training import Batches, Phase, pick_views, train

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
        {"tag": False},
        {"views": 3},
        {"patience": 50, "callbacks": {"monitor": "accuracy"}},
        {"missing": "ll-ct"},
        {"objective": "splc"},
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
    monkeypatch.setattr(head_training, "_MEASURED_AT_ONCE", 7)
    _, in_parts = fitted(train_on_features)
    np.testing.assert_allclose(in_parts.validation_loss, whole.validation_loss, rtol=1e-5)
    np.testing.assert_allclose(in_parts.validation_accuracy, whole.validation_accuracy, rtol=1e-6)


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
