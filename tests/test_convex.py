"""Heads by L-BFGS: the numbers of scikit-learn on the cells that count, and the strength that is best for each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from multilabel import convex, slabs
from multilabel.config import FitConfig
from multilabel.convex import STEPS, strength, train_convex
from multilabel.errors import DataError, Interrupted, UsageError
from multilabel.heads import LogitHead, SoftmaxHead
from multilabel.labels import Tag
from multilabel.stopping import BestEpochs, KeepEpochs
from multilabel.training import Batches, Log, Phase, build_heads

PICTURES, DIMENSION = 300, 8
NAMES, CLASSES = ("clear", "faint", "noise"), tuple("rgbk")
ROWS = np.random.default_rng(7).permutation(PICTURES)
LEARN, STOP = ROWS[:200], ROWS[200:]
PHASE = Phase(STEPS, 1.0, 2)


def drawn():
    """Features of different sizes, labels of three attributes and of one tag; a fifth of the labels unknown."""
    rng = np.random.default_rng(0)
    shown = rng.normal(size=(PICTURES, DIMENSION))
    chance = 1 / (1 + np.exp(-shown[:, :3] * (3.0, 0.7, 0.0) + (0, 1, 0)))
    y = (rng.random(chance.shape) < chance).astype(np.int8)
    tag = (2 * shown[:, 3:7] + rng.gumbel(size=(PICTURES, 4))).argmax(axis=1).astype(np.int16)
    y[rng.random(y.shape) < 0.2] = -1
    tag[rng.random(PICTURES) < 0.2] = -1
    x = shown * rng.uniform(0.1, 5, DIMENSION) + rng.uniform(-3, 3, DIMENSION)
    return x.astype(np.float32), {"attributes": y, "tag": tag}


def both_heads(targets, rows, weights=None, **settings):
    logit = LogitHead.for_labels(NAMES, targets["attributes"][rows], **settings)
    return [logit, SoftmaxHead.for_labels(Tag("colour", CLASSES), targets["tag"][rows], weight=0.5, **(weights or {}))]


def solved(x, targets, heads, steps, rows=LEARN):
    """Kernel and bias of each head, at these steps of the ladder."""
    model = build_heads(DIMENSION, heads)
    targets = {head.name: targets[head.name] for head in heads}
    epochs = {head.name: np.array(steps[head.name]) for head in heads}
    history = train_convex(
        model, heads, Batches(x, targets, rows, 32, 0), None, PHASE, keeper=KeepEpochs(heads, epochs)
    )
    return {head.name: model.get_layer(head.name).get_weights() for head in heads}, history


def standardised(x, rows=LEARN):
    return (x - x[rows].mean(axis=0)) / x[rows].std(axis=0)


def reference(x, y, step, weight=None):
    """scikit-learn's on the cells that are known, with the same cost of weights."""
    known = np.flatnonzero(y[LEARN] >= 0)
    model = LogisticRegression(C=1 / (strength(step, DIMENSION) * len(LEARN)), tol=1e-8, max_iter=10_000)
    labels = y[LEARN][known]
    return model.fit(standardised(x)[LEARN][known], labels, None if weight is None else np.asarray(weight)[labels])


@pytest.mark.parametrize("missing", ["ignore", "negative"])
@pytest.mark.parametrize("steps", [(1, 4, 7), (6, 2, 9)], ids=str)
def test_attributes_are_those_of_scikit_learn_without_the_unknown_cells(steps, missing):
    x, targets = drawn()
    heads = both_heads(targets, LEARN, missing=missing)
    found, _ = solved(x, targets, heads, {"attributes": steps, "tag": [5]})
    kernel, bias = found["attributes"]
    for column, step in enumerate(steps):
        y = targets["attributes"][:, column]
        weight = (1.0, heads[0].pos_weight[column])
        if missing == "negative":
            y, weight = np.maximum(y, 0), (1.0, 1.0)
        expected = reference(x, y, step, weight)
        np.testing.assert_allclose(kernel[:, column] * x[LEARN].std(axis=0), expected.coef_[0], atol=1e-3)
        p = heads[0].to_probs(x @ kernel[:, column] + bias[column])
        np.testing.assert_allclose(p, expected.predict_proba(standardised(x))[:, 1], atol=1e-3)


@pytest.mark.parametrize("class_weight", ["none", "balanced"])
def test_a_tag_is_that_of_scikit_learn_without_the_unknown_labels(class_weight):
    x, targets = drawn()
    heads = both_heads(targets, LEARN, {"class_weight": class_weight})
    found, _ = solved(x, targets, heads, {"attributes": (5, 5, 5), "tag": [6]})
    kernel, bias = found["tag"]
    expected = reference(x, targets["tag"], 6, heads[1].class_weight)
    np.testing.assert_allclose(heads[1].to_probs(x @ kernel + bias), expected.predict_proba(standardised(x)), atol=1e-3)
    np.testing.assert_allclose(kernel * x[LEARN].std(axis=0)[:, None], expected.coef_.T, atol=2e-3)


def test_iterations_that_do_not_suffice_are_said(monkeypatch, caplog):
    x, targets = drawn()
    heads = both_heads(targets, LEARN)
    solved(x, targets, heads, {"attributes": (5, 5, 5), "tag": [6]})
    assert not caplog.messages
    monkeypatch.setattr(convex, "_ITERATIONS", 2)
    solved(x, targets, heads, {"attributes": (5, 5, 5), "tag": [6]})
    assert caplog.messages == [
        "--solver lbfgs ended before the minimum, after 2 iterations; --solver adam is another way."
    ]


@pytest.mark.parametrize("settings", [{"objective": "focal"}, {"missing": "selective"}], ids=str)
def test_a_loss_that_is_not_convex_is_refused(settings):
    _, targets = drawn()
    head = both_heads(targets, LEARN, **settings)[0]
    with pytest.raises(ValueError, match=r"^The loss (focal with ignore|bce with selective) is not convex\.$"):
        head.loss_and_slope(targets["attributes"], np.zeros((PICTURES, 3)))


def test_smoothing_is_labels_of_all_classes_with_small_weights():
    x, targets = drawn()
    heads = both_heads(targets, LEARN, {"label_smoothing": 0.2})[1:]
    found, _ = solved(x, targets, heads, {"tag": [6]})
    kernel, bias = found["tag"]
    known = LEARN[targets["tag"][LEARN] >= 0]
    every = np.repeat(np.arange(4), len(known))
    weight = np.where(every == np.tile(targets["tag"][known], 4), 0.85, 0.05)
    model = LogisticRegression(C=1 / (strength(6, DIMENSION) * len(LEARN)), tol=1e-8, max_iter=10_000)
    model.fit(np.tile(standardised(x)[known], (4, 1)), every, weight)
    np.testing.assert_allclose(heads[0].to_probs(x @ kernel + bias), model.predict_proba(standardised(x)), atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "weights"),
    [
        ({}, {}),
        ({"pos_weight": "none"}, {"class_weight": "balanced"}),
        ({"missing": "negative"}, {"label_smoothing": 0.3}),
    ],
    ids=str,
)
def test_losses_and_slopes_are_those_of_the_head_s_own_loss(settings, weights):
    _, targets = drawn()
    rng = np.random.default_rng(1)
    for head in both_heads(targets, np.arange(PICTURES), weights, **settings):
        y, z = targets[head.name], rng.normal(0, 3, (PICTURES, head.units)).astype(np.float32)
        losses, slope = head.loss_and_slope(y, z)
        loss = head.loss()
        cells = head.units if isinstance(head, LogitHead) else 1
        values = keras.ops.convert_to_numpy(loss.call(y, z)) * cells * (loss.coverage or 1.0)
        per_picture = losses.sum(axis=1) if losses.ndim == 2 else losses
        np.testing.assert_allclose(per_picture, values, rtol=1e-4, atol=1e-5)
        for column in range(head.units):  # central differences, in float64
            step = np.zeros(head.units)
            step[column] = 1e-4
            above, below = (head.loss_and_slope(y, z.astype(np.float64) + sign * step)[0] for sign in (1, -1))
            numeric = (above - below) / 2e-4
            numeric = numeric[:, column] if numeric.ndim == 2 else numeric
            np.testing.assert_allclose(slope[:, column], numeric, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kept", [0, 2**28], ids=["gathered in every iteration", "gathered once"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_features_in_a_file_give_the_same_heads(dtype, kept, tmp_path, monkeypatch):
    x, targets = drawn()
    x = x.astype(dtype)
    heads = both_heads(targets, LEARN)
    steps = {"attributes": (3, 5, 7), "tag": [6]}
    whole, _ = solved(x.astype(np.float32), targets, heads, steps)
    file = np.memmap(tmp_path / "features", dtype, "w+", shape=x.shape)
    file[:] = x
    monkeypatch.setattr(slabs, "SLAB_BYTES", 17 * 4 * DIMENSION)
    monkeypatch.setattr(convex, "_KEPT_BYTES", kept)
    in_slabs, _ = solved(file, targets, heads, steps)
    for name in whole:
        for one, other in zip(whole[name], in_slabs[name], strict=True):
            np.testing.assert_allclose(one, other, rtol=5e-3, atol=5e-3)


def test_every_view_counts_as_a_picture():
    x, targets = drawn()
    views = np.stack([x, x + np.random.default_rng(2).normal(0, 0.3, x.shape).astype(np.float32)], axis=1)
    heads = both_heads(targets, LEARN)
    steps = {"attributes": (3, 5, 7), "tag": [6]}
    of_views, _ = solved(views, targets, heads, steps)
    twice = {name: np.repeat(target, 2, axis=0) for name, target in targets.items()}
    rows = (LEARN[:, None] * 2 + [0, 1]).ravel()
    as_pictures, _ = solved(views.reshape(-1, DIMENSION), twice, heads, steps, rows)
    for name in of_views:
        for one, other in zip(of_views[name], as_pictures[name], strict=True):
            np.testing.assert_array_equal(one, other)


def walked(x, targets, heads, **phase):
    model = build_heads(DIMENSION, heads)
    parts = [Batches(x, targets, part, 32) for part in (LEARN, STOP)]
    best = BestEpochs(heads, parts[1], phase.pop("patience", 2), phase.get("monitor", "loss"))
    history = train_convex(model, heads, *parts, replace(PHASE, **phase), keeper=best)
    return best.epochs, history


def test_the_strength_of_each_is_the_best_on_the_validation_part():
    x, targets = drawn()
    heads = both_heads(targets, LEARN, pos_weight="none")
    found, history = walked(x, targets, heads)
    assert len(set(found["attributes"])) > 1
    last = len(history.epoch_ends)
    columns = [(targets["attributes"][:, 0], found["attributes"][0]), (targets["tag"], found["tag"][0])]
    columns += [(targets["attributes"][:, number], found["attributes"][number]) for number in (1, 2)]
    for y, step in columns:
        known = STOP[y[STOP] >= 0]
        losses = [
            log_loss(y[known], reference(x, y, number).predict_proba(standardised(x)[known]))
            for number in range(1, last + 1)
        ]
        assert losses[step - 1] == pytest.approx(min(losses), abs=1e-3)  # rounding may let one of two neighbours win


def test_the_history_has_the_iterations_of_every_strength():
    x, targets = drawn()
    heads = both_heads(targets, LEARN)
    found, history = walked(x, targets, heads)
    assert history.epoch_ends == sorted(set(history.epoch_ends))
    assert history.epoch_ends[-1] == len(history.training_loss)
    assert len(history.validation_loss) == len(history.validation_accuracy) == len(history.epoch_ends)
    assert history.phase_ends == [len(history.epoch_ends)]
    ends = [history.training_loss[end - 1] for end in history.epoch_ends]
    assert ends == sorted(ends, reverse=True)  # the weaker the cost of weights, the smaller the loss
    assert len(ends) == max(int(steps.max()) for steps in found.values()) + 2  # the patience
    # What is told is known losses / known cells of each head, times its weight.
    weights, history = solved(x, targets, heads, {"attributes": (3, 5, 7), "tag": [6]})
    y, (kernel, bias) = targets["attributes"][LEARN], weights["attributes"]
    known = y >= 0
    p = heads[0].to_probs(x[LEARN] @ kernel + bias)
    of_cells = np.where(y == 1, -np.log(p) * heads[0].pos_weight, -np.log1p(-p))
    tag, (kernel, bias) = targets["tag"][LEARN], weights["tag"]
    of_tag = log_loss(tag[tag >= 0], heads[1].to_probs(x[LEARN][tag >= 0] @ kernel + bias))
    assert history.training_loss[-1] == pytest.approx(of_cells[known].mean() + 0.5 * of_tag, rel=1e-4)


@pytest.mark.parametrize("monitor", ["loss", "accuracy"])
def test_without_a_keeper_each_keeps_its_best_strength(monitor):
    x, targets = drawn()
    heads = both_heads(targets, LEARN)
    best, _ = walked(x, targets, heads, monitor=monitor)
    model = build_heads(DIMENSION, heads)
    parts = [Batches(x, targets, part, 32) for part in (LEARN, STOP)]
    history = train_convex(model, heads, *parts, replace(PHASE, monitor=monitor))
    expected, _ = solved(x, targets, heads, best)
    for head in heads:
        for one, other in zip(model.get_layer(head.name).get_weights(), expected[head.name], strict=True):
            np.testing.assert_allclose(one, other, rtol=0.02, atol=0.02)
    values = history.validation_loss if monitor == "loss" else [-value for value in history.validation_accuracy]
    assert history.best_epoch == int(np.argmin(values)) + 1


def test_equal_data_give_equal_weights():
    x, targets = drawn()
    heads = both_heads(targets, LEARN)
    steps = {"attributes": (3, 5, 7), "tag": [6]}
    (one, history), (other, again) = solved(x, targets, heads, steps), solved(x, targets, heads, steps)
    assert history == again
    assert all((a == b).all() for name in one for a, b in zip(one[name], other[name], strict=True))


def test_a_feature_that_does_not_vary_has_no_weight():
    x, targets = drawn()
    x[:, 2] = 1000.1
    found, _ = solved(x, targets, both_heads(targets, LEARN), {"attributes": (3, 5, 7), "tag": [6]})
    assert (found["attributes"][0][2] == 0).all()
    assert (found["tag"][0][2] == 0).all()


def test_a_feature_that_is_no_number_becomes_a_sentence():
    x, targets = drawn()
    x[LEARN[3], 2] = np.nan
    with pytest.raises(DataError) as error:
        solved(x, targets, both_heads(targets, LEARN), {"attributes": (3, 5, 7), "tag": [6]})
    assert str(error.value) == (
        "Some features are no numbers; delete the feature store in the cache folder and run again."
    )


def test_ctrl_c_becomes_a_sentence(monkeypatch):
    def interrupted(self, epoch, logs=None):
        self.history.epoch_ends.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(Log, "on_epoch_end", interrupted)
    x, targets = drawn()
    with pytest.raises(Interrupted) as error:
        solved(x, targets, both_heads(targets, LEARN), {"attributes": (3, 5, 7), "tag": [6]})
    assert str(error.value) == "Stopped after 1 epoch of training; no bundle was written."


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"fine_tune": "all"},
            "--solver lbfgs trains heads on a frozen backbone; leave it out, or --fine-tune and --train-backbone.",
        ),
        (
            {"train_backbone": True},
            "--solver lbfgs trains heads on a frozen backbone; leave it out, or --fine-tune and --train-backbone.",
        ),
        (
            {"loss": "focal"},
            "--solver lbfgs finds the minimum of losses that have but one, and with --loss focal there are many; "
            "leave it out, or choose --loss bce with --missing ignore or negative.",
        ),
        (
            {"missing": "selective"},
            "--solver lbfgs finds the minimum of losses that have but one, and with --missing selective there are "
            "many; leave it out, or choose --loss bce with --missing ignore or negative.",
        ),
        (
            {"epochs": (5,), "batch_size": 64},
            "--epochs, --batch-size would do nothing with --solver lbfgs, which takes no steps of Adam.",
        ),
        (
            {"lr": (1e-2,), "patience": (3,)},
            "--lr, --patience would do nothing with --solver lbfgs, which takes no steps of Adam.",
        ),
    ],
    ids=str,
)
def test_what_does_not_go_with_it(settings, sentence):
    with pytest.raises(UsageError) as error:
        FitConfig(Path("labels.txt"), solver="lbfgs", **settings)
    assert str(error.value) == sentence


@pytest.mark.parametrize("settings", [{"missing": "negative"}, {"folds": 0}, {"views": 2, "augment": "light"}], ids=str)
def test_what_goes_with_it(settings):
    assert FitConfig(Path("labels.txt"), solver="lbfgs", **settings).solver == "lbfgs"


def test_another_solver_is_none():
    with pytest.raises(UsageError) as error:
        FitConfig(Path("labels.txt"), solver="newton")
    assert str(error.value) == "--solver is 'newton'; choose from adam, lbfgs."
