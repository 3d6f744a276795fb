from __future__ import annotations

import doctest
import json
import math

import keras
import numpy as np
import pytest
from backend_check import POS_WEIGHT, close, drawn, expected_cells, expected_values
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss

import multilabel.heads
from multilabel.errors import DataError
from multilabel.heads import KnownLoss, LogitHead, head_from_config, missing_classes

NAMES = ("hat", "scarf", "coat")
HEAD = LogitHead(NAMES, (2.0, 0.5, 1.0), 0.75)
CONFIG = {
    "kind": "logit",
    "attributes": ["hat", "scarf", "coat"],
    "pos_weight": [2.0, 0.5, 1.0],
    "coverage": 0.75,
    "name": "attributes",
}


# --- KnownLoss


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_known_loss_is_exact_however_the_batches_fall(sizes, seed):
    y, z = drawn((sum(sizes), 5), seed)
    metric = KnownLoss(POS_WEIGHT)
    for stop, size in zip(np.cumsum(sizes), sizes, strict=True):
        metric.update_state(y[stop - size : stop], z[stop - size : stop])
    losses, known = expected_cells(y, z, POS_WEIGHT)
    close(metric.result(), losses.sum() / max(known.sum(), 1))


def test_known_loss_is_scikit_learns_log_loss_without_the_unknown_cells():
    y, z = drawn((50, 5))
    z = z.clip(-20, 20)
    y[:20, 1:] = -1  # batches with very different numbers of known cells
    known = y >= 0
    metric = KnownLoss()
    for start in range(0, 50, 10):
        metric.update_state(y[start : start + 10], z[start : start + 10])
    close(metric.result(), log_loss(y[known], 1 / (1 + np.exp(-z[known].astype(float)))))


def test_known_loss_of_nothing_and_after_reset():
    metric = KnownLoss()
    assert float(metric.result()) == 0
    metric.update_state([[-1, -1]], [[np.nan, np.inf]])
    assert float(metric.result()) == 0
    metric.update_state([[1, 0]], [[2.0, -1.0]])
    assert float(metric.result()) > 0
    metric.reset_state()
    assert float(metric.result()) == 0


@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 5), (6, 4, 5)])
@pytest.mark.parametrize("column", [False, True])
def test_known_loss_with_sample_weights_is_the_weighted_mean_over_known_cells(shape, column):
    y, z = drawn(shape)
    weight = np.array([0.0, 1.0, 2.0, 0.5, 3.0, 1.0])
    losses, known = expected_cells(y, z)
    spread = weight.reshape(-1, *[1] * (len(shape) - 1))
    metric = KnownLoss()
    metric.update_state(y, z, sample_weight=weight[:, None] if column else weight)
    close(metric.result(), (losses * spread).sum() / (known * spread).sum())


def test_known_loss_of_probabilities():
    metric = KnownLoss(from_logits=False)
    metric.update_state([[1, -1, 0]], [[0.25, np.nan, 0.5]])
    close(metric.result(), -(math.log(0.25) + math.log(0.5)) / 2)


def test_known_loss_config_and_registered_name():
    metric = KnownLoss(np.array([1, 2.5]), from_logits=False, name="mine")
    config = metric.get_config()
    assert json.loads(json.dumps(config)) == config
    assert config == {"name": "mine", "dtype": "float32", "pos_weight": [1.0, 2.5], "from_logits": False}
    again = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert isinstance(again, KnownLoss)
    assert again.get_config() == config
    assert KnownLoss().name == "known_loss"
    assert keras.saving.get_registered_name(KnownLoss) == "multilabel>KnownLoss"


def test_known_loss_refuses_weights_that_cannot_be_used():
    with pytest.raises(ValueError, match=r"^pos_weight must be a number above 0.*; got \[1, 0\]\.$"):
        KnownLoss([1, 0])


# --- LogitHead


def _data(rows=23):
    y, _ = drawn((rows, 3))
    return np.random.default_rng(1).normal(size=(rows, 4)).astype(np.float32), y


def _compiled(head, **options):
    keras.utils.set_random_seed(0)
    features = keras.Input((4,))
    model = keras.Model(features, {head.name: head.layer()(features)})
    model.compile("adam", loss={head.name: head.loss()}, metrics={head.name: head.metrics()}, **options)
    return model


@pytest.mark.parametrize("jit_compile", [False, True])
def test_fit_evaluate_save_and_load(tmp_path, jit_compile):
    x, y = _data()
    head = LogitHead.for_labels(NAMES, y)
    model = _compiled(head, jit_compile=jit_compile)
    # Without `mode`: Keras must know by itself that a smaller `known_loss` is better.
    stop = keras.callbacks.EarlyStopping("val_known_loss", patience=2, restore_best_weights=True)
    history = model.fit(
        x,
        {head.name: y},
        validation_data=(x[:7], {head.name: y[:7]}),
        batch_size=5,
        epochs=3,
        callbacks=[stop],
        verbose=0,
    ).history
    assert history["val_known_loss"][2] < history["val_known_loss"][0]
    close(stop.best, min(history["val_known_loss"]))
    logits = model.predict(x, verbose=0)[head.name]
    losses, known = expected_cells(y, logits, head.pos_weight)
    logged = model.evaluate(x, {head.name: y}, batch_size=5, verbose=0, return_dict=True)
    close(logged["known_loss"], losses.sum() / known.sum())
    # On the data that coverage comes from, the loss and the metric are the same number.
    close(logged["loss"], losses.sum() / known.sum(), tolerance=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    again = loaded.evaluate(x, {head.name: y}, batch_size=5, verbose=0, return_dict=True)
    assert again == pytest.approx(logged)


def test_two_heads_in_one_model():
    x, y = _data()
    heads = [LogitHead(("hat",), (2.0,), 0.5, "first"), LogitHead(NAMES[1:], (1.0, 3.0), 0.75, "second")]
    features = keras.Input((4,))
    model = keras.Model(features, {head.name: head.layer()(features) for head in heads})
    model.compile(
        loss={head.name: head.loss() for head in heads}, metrics={head.name: head.metrics() for head in heads}
    )
    labels = {"first": y[:, :1], "second": y[:, 1:]}
    logits = model.predict(x, verbose=0)
    logged = model.evaluate(x, labels, batch_size=5, verbose=0, return_dict=True)
    for head in heads:
        losses, known = expected_cells(labels[head.name], logits[head.name], head.pos_weight)
        close(logged[f"{head.name}_known_loss"], losses.sum() / known.sum())
    values = [expected_values(labels[h.name], logits[h.name], h.pos_weight, h.coverage).mean() for h in heads]
    close(logged["loss"], sum(values), tolerance=1e-5)


def test_layer_and_loss():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer = HEAD.layer()
    finally:
        keras.config.set_dtype_policy(before)
    logits = layer(np.ones((2, 4), np.float32))
    assert layer.name == "attributes"
    assert tuple(logits.shape) == (2, 3) == (2, HEAD.units)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    assert layer.activation is keras.activations.linear
    y, z = drawn((6, 3))
    close(HEAD.loss()(y, z), expected_values(y, z, HEAD.pos_weight, 0.75).mean())


def test_to_probs_is_the_sigmoid_in_float64_without_overflow():
    logits = np.array([[-1e4, -800, -50], [-1, 0, 1], [30, 800, 1e4]], np.float32)
    exact = [[1 / (1 + math.exp(-z)) if z > -700 else 0.0 for z in row] for row in logits.tolist()]
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        probs = HEAD.to_probs(logits)
        ends = HEAD.to_probs([-np.inf, np.inf])
    assert probs.dtype == np.float64
    np.testing.assert_allclose(probs, exact, rtol=1e-13, atol=1e-300)
    assert ends.tolist() == [0.0, 1.0]
    assert probs[1, 1] == 0.5


def test_a_head_for_labels():
    y = np.array([[1, 0, 1], [0, -1, 1], [0, 1, -1], [-1, 1, 1]], np.int8)
    head = LogitHead.for_labels(NAMES, y, name="clothes")
    assert head == LogitHead(NAMES, (2.0, 0.5, 1.0), 9 / 12, "clothes")
    assert LogitHead.for_labels(list(NAMES), y.tolist()).name == "attributes"
    assert missing_classes(NAMES, y) == ([], ["coat"])


def test_missing_classes():
    y = np.array([[0, 1, -1], [-1, 1, -1], [0, -1, -1]])
    assert missing_classes(NAMES, y) == (["hat", "coat"], ["scarf", "coat"])
    assert missing_classes(NAMES, np.array([[1, 1, 0], [0, 0, 1]])) == ([], [])


@pytest.mark.parametrize(
    ("y", "named"),
    [([[1, -1, -1], [0, -1, -1]], "scarf, coat"), (np.empty((0, 3)), "hat, scarf, coat"), ([[-1, 0, 1]], "hat")],
)
def test_attributes_without_known_labels(y, named):
    with pytest.raises(DataError) as caught:
        LogitHead.for_labels(NAMES, y)
    assert str(caught.value) == (
        f"No picture of the training part has a known label for {named}; label some pictures for it, or leave it out."
    )


@pytest.mark.parametrize("function", [LogitHead.for_labels, missing_classes])
@pytest.mark.parametrize("shape", [(5,), (5, 2), (5, 3, 1)])
def test_labels_of_the_wrong_shape(function, shape):
    with pytest.raises(ValueError, match="shape") as caught:
        function(NAMES, np.ones(shape))
    assert str(caught.value) == f"The labels must have the shape (images, 3); got {shape}."


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (((), (), 0.5), "A head needs attributes with different names; got []."),
        ((("a", "a"), (1.0, 1.0), 0.5), "A head needs attributes with different names; got ['a', 'a']."),
        ((("a", "b"), (1.0,), 0.5), "A head needs one pos_weight for each attribute; got 1 for 2."),
        (
            (("a",), (0.0,), 0.5),
            "pos_weight must be a number above 0, or a list with one for each attribute; got [0.0].",
        ),
        (
            (("a",), (1.0,), 1.5),
            "coverage must be the share of known labels in the training set, above 0 and at most 1; got 1.5.",
        ),
        (
            (("a",), (1.0,), 0.5, "a/b"),
            "A head needs a name without '/', which names its layer; got 'a/b'.",
        ),
        ((("a",), (1.0,), 0.5, ""), "A head needs a name without '/', which names its layer; got ''."),
    ],
)
def test_heads_that_cannot_be(arguments, sentence):
    with pytest.raises(ValueError, match=r"\.$") as caught:
        LogitHead(*arguments)
    assert str(caught.value) == sentence


def test_config_goes_through_json():
    assert HEAD.get_config() == CONFIG
    assert head_from_config(json.loads(json.dumps(CONFIG))) == HEAD
    assert LogitHead.from_config(CONFIG) == HEAD


@pytest.mark.parametrize("config", [None, [], "logit", {}, {"kind": ["logit"]}, CONFIG | {"kind": "softmax"}])
def test_unknown_kinds_of_heads(config):
    with pytest.raises(ValueError, match="kind") as caught:
        head_from_config(config)
    shown = repr(config)
    assert str(caught.value) == f"A head is an object whose kind is one of: logit; got {shown}."


@pytest.mark.parametrize(
    "change",
    [
        {"attributes": "hat"},
        {"attributes": ["hat", 1, "coat"]},
        {"pos_weight": 2.0},
        {"pos_weight": ["2", "1", "1"]},
        {"pos_weight": None},
        {"coverage": "0.5"},
        {"coverage": None},
        {"extra": 1},
    ],
)
def test_malformed_configs(change):
    with pytest.raises(ValueError, match=r"^A logit head needs attributes") as caught:
        head_from_config(CONFIG | change)
    assert str(caught.value).startswith(
        "A logit head needs attributes (a list of names), pos_weight (a list of numbers), coverage "
        "(a number) and name; got {'kind': 'logit', "
    )


@pytest.mark.parametrize("key", ["attributes", "pos_weight", "coverage", "name"])
def test_configs_that_lack_a_value(key):
    config = {name: value for name, value in CONFIG.items() if name != key}
    with pytest.raises(ValueError, match=r"^A logit head needs attributes"):
        head_from_config(config)


@pytest.mark.parametrize("change", [{"name": 3}, {"coverage": float("nan")}, {"pos_weight": [1, 10**400, 1]}])
def test_configs_with_values_out_of_range(change):
    with pytest.raises(ValueError, match=r"; got .*\.$"):
        head_from_config(CONFIG | change)


def test_the_examples_in_the_docstrings():
    results = doctest.testmod(multilabel.heads)
    assert results.attempted >= 4
    assert results.failed == 0
