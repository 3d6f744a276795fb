"""Time of choosing thresholds, beside the maximum of scikit-learn's precision-recall curve.

python tests/benchmarks/bench_thresholds.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from sklearn.metrics import precision_recall_curve

from multilabel.thresholds import choose_thresholds


def example(n: int, attributes: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of which 10% are positive, 50% negative and 40% unknown, and float32 probabilities."""
    rng = np.random.default_rng(0)
    y = rng.choice(np.array([1, 0, -1], np.int8), size=(n, attributes), p=[0.1, 0.5, 0.4])
    return y, np.clip(0.7 * rng.random(y.shape, dtype=np.float32) + np.float32(0.3) * (y == 1), 0, 1)


def by_scikit_learn(y: np.ndarray, p: np.ndarray) -> list[float]:
    """The threshold at the highest F1 of each attribute's precision-recall curve."""
    thresholds = []
    for labels, probabilities in zip(y.T, p.T, strict=True):
        known = labels != -1
        precision, recall, cuts = precision_recall_curve(labels[known], probabilities[known])
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        thresholds.append(float(cuts[f1[:-1].argmax()]))
    return thresholds


def seconds(function: Callable[[], object], repeats: int = 3) -> float:
    """The shortest of several runs."""
    runs = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        runs.append(time.perf_counter() - start)
    return min(runs)


def main() -> None:
    """Prints both measurements."""
    y, p = example(200_000, 10)
    ours, theirs = seconds(lambda: choose_thresholds(y, p)), seconds(lambda: by_scikit_learn(y, p))
    print(f"200,000 × 10: multilabel {ours:.3f} s, scikit-learn {theirs:.3f} s, ratio {theirs / ours:.1f}")
    y, p = example(1_000_000, 100)
    print(f"1,000,000 × 100: multilabel {seconds(lambda: choose_thresholds(y, p), repeats=1):.1f} s")


if __name__ == "__main__":
    main()
