"""What the honest evaluation promises, counted: nothing is made out of noise, and label errors are found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from multilabel.backbones import build_backbone, freeze
from multilabel.config import CnnShape, FitConfig
from multilabel.crossfit import cross_fit, deal
from multilabel.dataset import Dataset, read_dataset, read_table
from multilabel.engine import Engine
from multilabel.evaluation import evaluate
from multilabel.held_out import HeldOut, contradicted
from multilabel.labels import LabelTable
from multilabel.permutation import out_of_fold, shuffled
from multilabel.thresholds import choose_thresholds, cross_fit_thresholds
from multilabel.training import Pictures

pytestmark = pytest.mark.slow

DATA_SETS, ATTRIBUTES = 100, 4


def test_shuffled_labels_are_not_called_better_than_chance():
    """100 data sets whose pictures say nothing of the labels, each through folds, thresholds and intervals."""
    backbone = build_backbone("cnn", "none", (32, 32), cnn=CnnShape(filters=(4, 4)))
    freeze(backbone)
    rng = np.random.default_rng(0)
    pictures = 250
    x = rng.normal(size=(pictures, backbone.dimension)).astype(np.float32)
    y = (rng.random((pictures, ATTRIBUTES)) < (0.5, 0.3, 0.15, 0.85)).astype(np.int8)
    y[rng.random(y.shape) < 0.1] = -1
    names = [f"{row}.jpg" for row in range(pictures)]
    table = LabelTable(tuple(names), y, tuple("abcd"))
    data = Dataset(table, names, [name.encode() for name in names], [], x, "float32", Pictures(names, (32, 32)), 0, 0.0)
    config = FitConfig(Path("labels.txt"), epochs=(40,))
    rows = np.arange(pictures)
    folds = deal(data, rows, 5, 0)
    draws = [shuffled(y, rng, folds) for _ in range(DATA_SETS)]
    p = out_of_fold(config, backbone, data, rows, folds, draws, "draws", False)
    better = judged = 0
    for labels, of_draw in zip(draws, np.split(p, DATA_SETS, axis=1), strict=True):
        present, spreads = cross_fit_thresholds(labels, of_draw, folds, choose_thresholds)
        kept = choose_thresholds(labels, of_draw)
        thresholds = [replace(threshold, spread=spread) for threshold, spread in zip(kept, spreads, strict=True)]
        evaluation = evaluate(
            labels, of_draw, tuple("abcd"), thresholds, present=present, part="made up", out_of_fold=True
        )
        better += sum(scores.better_than_chance for scores in evaluation.scores)
        judged += sum(scores.can_be_judged for scores in evaluation.scores)
    assert judged == DATA_SETS * ATTRIBUTES
    assert better <= 0.05 * judged, f"{better} of {judged} attributes were called better than chance"


def test_planted_label_errors_are_found_on_the_sample_data(root, tmp_path):
    """5% of the known labels flipped: of the likeliest errors, half as many as were planted, 80% are planted ones."""
    config = FitConfig(root / "data" / "labels.txt", backbone="cnn", cache=tmp_path, folds=10)
    backbone = build_backbone("cnn", "embedded", None)
    freeze(backbone)
    data = read_dataset(config, read_table(config), Engine(backbone), False)
    rows = np.arange(len(data.names))
    shares = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        y = data.table.y.copy()
        known = np.argwhere(y >= 0)
        flipped = known[rng.choice(len(known), round(0.05 * len(known)), replace=False)]
        y[tuple(flipped.T)] = 1 - y[tuple(flipped.T)]
        noisy = replace(data, table=replace(data.table, y=y))
        folds = deal(noisy, rows, config.folds, config.seed)
        crossed = cross_fit(config, backbone, noisy, rows, folds, False)
        part = HeldOut.calibrated("out-of-fold", rows, crossed.logits, folds, crossed.kept.heads, noisy.table)
        issues, _ = contradicted(crossed.kept.heads, noisy.table, part)
        found = [(issue.row, noisy.table.names.index(issue.column)) for issue in issues]
        assert all(y[cell] >= 0 for cell in found)
        planted = set(map(tuple, flipped.tolist()))
        shares.append(np.mean([cell in planted for cell in found[: len(planted) // 2]]))
    assert np.mean(shares) >= 0.8, f"{np.round(shares, 2)}"
