"""The Keras programs in examples/, run as a user runs them; what they print is computed again without Keras."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, average_precision_score, log_loss
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")


def run_example(name: str, backend: str = "tensorflow", path: Path = EXAMPLES) -> subprocess.CompletedProcess[str]:
    """Runs an example on a backend; modules in `path` come before those that are installed."""
    paths = os.pathsep.join([str(path), str(EXAMPLES.parent)])
    return subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py"],
        env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": paths, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def output_of(name: str, backend: str = "tensorflow") -> str:
    done = run_example(name, backend)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def documented(name: str) -> str:
    """What the docstring shows as output: its last indented lines."""
    docstring = ast.get_docstring(ast.parse((EXAMPLES / f"{name}.py").read_text(encoding="utf-8"))) or ""
    assert f"python examples/{name}.py" in docstring
    blocks = re.findall(r"(?:^    .*\n?)+", docstring, flags=re.MULTILINE)
    return "\n".join(line[4:] for line in blocks[-1].splitlines()) + "\n"


def numbers(line: str) -> list[float]:
    return [float(number.replace(",", "")) for number in NUMBER.findall(line)]


def table(text: str) -> dict[str, list[float]]:
    """The numbers of each row of a table, by its name."""
    rows = [line.split("|", 2) for line in text.splitlines() if line.startswith("| ")]
    return {name.strip(): numbers(rest) for _, name, rest in rows if numbers(rest)}


def assert_as_documented(name: str, output: str, tolerance: float) -> None:
    """The same words as in the docstring, and the same numbers but for what another machine may round away."""
    expected = documented(name)
    assert [NUMBER.sub("#", line).split() for line in output.splitlines()] == [
        NUMBER.sub("#", line).split() for line in expected.splitlines()
    ]
    np.testing.assert_allclose(numbers(output), numbers(expected), atol=tolerance, rtol=0)


def digits(attributes: list[list[int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows, what is 0 or 1 of each, and which digit it is."""
    data = load_digits()
    truth = [[int(target in members) for members in attributes] for target in data.target]
    return data.data / 16, np.array(truth), data.target


def accuracy_of_known_rows(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> float:
    """In %, of scikit-learn's support vector machines: one for each column, of the rows that are known there alone."""
    scores = []
    for column, truth in zip(y.T, y_test.T, strict=True):
        known = column >= 0
        scores.append(accuracy_score(truth, SVC().fit(x[known], column[known]).predict(x_test)))
    return 100 * float(np.mean(scores))


FOUR = [[0, 2, 4, 6, 8], [2, 3, 5, 7], [5, 6, 7, 8, 9], [0, 6, 8, 9]]


@pytest.mark.slow
def test_keras_tabular() -> None:
    output = output_of("keras_tabular")
    assert_as_documented("keras_tabular", output, tolerance=4)
    # accuracy, ±, average precision, ±, loss, ±
    rows = table(output)
    accuracy = {way: values[0] for way, values in rows.items()}
    loss = {way: values[4] for way, values in rows.items()}
    assert accuracy["all labels"] > accuracy["masked"] > accuracy["complete rows"] > accuracy["unknown as 0"]
    others = loss["unknown as 0"], loss["complete rows"]
    assert loss["all labels"] < loss["masked"] < min(others) < max(others) < loss["chance"]

    x, y, _ = digits(FOUR)
    chances, masked, complete = [], [], []
    for seed in range(3):
        x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.33, random_state=seed)
        partly = np.where(np.random.default_rng(seed).random(y_train.shape) < 0.5, -1, y_train)
        share = np.broadcast_to(y_train.mean(axis=0), y_test.shape)
        chances.append(
            [
                100 * np.mean([accuracy_score(y_test[:, k], share[:, k] > 0.5) for k in range(4)]),
                100 * average_precision_score(y_test, share),
                np.mean([log_loss(y_test[:, k], share[:, k]) for k in range(4)]),
            ]
        )
        full = (partly >= 0).all(axis=1)
        masked.append(accuracy_of_known_rows(x_train, partly, x_test, y_test))
        complete.append(accuracy_of_known_rows(x_train[full], partly[full], x_test, y_test))
    expected = np.stack([np.mean(chances, axis=0), np.std(chances, axis=0, ddof=1)], axis=1).ravel()
    np.testing.assert_allclose(rows["chance"], expected, atol=0.0501, rtol=0)
    # Another kind of model learns about as much of the same labels, and sees nothing of the unknown ones.
    assert accuracy["masked"] == pytest.approx(np.mean(masked), abs=2)
    assert accuracy["complete rows"] == pytest.approx(np.mean(complete), abs=3)


@pytest.mark.slow
def test_keras_two_outputs() -> None:
    output = output_of("keras_two_outputs")
    assert_as_documented("keras_two_outputs", output, tolerance=1.5)
    assert output.splitlines()[-1] == "largest difference of a prediction: 0.0"

    x, attributes, digit = digits([FOUR[0], FOUR[1], FOUR[3]])
    rng = np.random.default_rng(0)
    x_train, x_test, *labels = train_test_split(x, attributes, digit[:, np.newaxis], test_size=0.33, random_state=0)
    shares = {"attributes": 1 / 3, "digit": 1 / 2}
    rows = table(output)
    assert list(rows) == list(shares)
    for (name, share), y_train, y_test in zip(shares.items(), labels[::2], labels[1::2], strict=True):
        y_train = np.where(rng.random(y_train.shape) < share, -1, y_train)
        known, accuracy, loaded, chance = rows[name]
        assert known == pytest.approx(100 * (1 - np.count_nonzero(y_train == -1) / y_train.size), abs=0.051)
        assert loaded == accuracy
        answers = [np.argmax([(column == answer).sum() for answer in range(10)]) for column in y_train.T]
        assert chance == pytest.approx(100 * accuracy_score(y_test.ravel(), answers * len(y_test)), abs=0.051)
        assert accuracy == pytest.approx(accuracy_of_known_rows(x_train, y_train, x_test, y_test), abs=3)


def trained_by_hand(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The logits of a linear model after ten epochs: rate 0.5, batches of 100 rows in order, known cells only."""
    inputs = np.hstack([x, np.ones((len(x), 1))])
    weights = np.zeros((inputs.shape[1], y.shape[1]))
    for _ in range(10):
        for first in range(0, len(x), 100):
            rows, labels = inputs[first : first + 100], y[first : first + 100]
            known = labels >= 0
            slope = np.where(known, 1 / (1 + np.exp(-rows @ weights)) - labels, 0) / known.sum()
            weights -= 0.5 * rows.T @ slope
    return inputs @ weights


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_keras_other_backend(backend: str) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    output = output_of("keras_other_backend", backend)
    assert_as_documented("keras_other_backend", output.replace(backend, "jax", 1), tolerance=0.2)

    x, y, _ = digits(FOUR)
    y[np.random.default_rng(0).random(y.shape) < 0.5] = -1
    known = y >= 0
    logits = trained_by_hand(x, y)[known]
    majority = np.mean([max(np.mean(column == 0), np.mean(column == 1)) for column in y.T])
    assert majority < 0.5  # as the unknown cells are among those of a column
    first, *rest = output.splitlines()
    assert first == f"backend: {backend}"
    cells, loss, accuracies = map(numbers, rest)
    assert cells == [known.sum(), known.size]
    assert loss[0] == pytest.approx(log_loss(y[known], 1 / (1 + np.exp(-logits))), abs=1e-4)
    right = [accuracy_score(y[known], logits > 0), majority * known.size / known.sum()]
    np.testing.assert_allclose(accuracies, np.multiply(100, right), atol=0.15)


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_backend_that_is_not_installed(backend: str, tmp_path: Path) -> None:
    text = f"No module named '{backend}'"
    (tmp_path / f"{backend}.py").write_text(f"raise ModuleNotFoundError({text!r}, name={backend!r})\n")
    done = run_example("keras_other_backend", backend, tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    expected = f"Keras cannot run on {backend} ({text}): install it, or set KERAS_BACKEND to tensorflow, jax or torch."
    assert done.stderr.splitlines() == [expected]


def test_a_backend_that_is_none() -> None:
    done = run_example("keras_other_backend", "caffe")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "Keras cannot run on caffe (Unable to import backend : caffe): install it, or set KERAS_BACKEND to tensorflow, "
        "jax or torch."
    ]


@pytest.mark.slow
def test_keras_custom_loop() -> None:
    output = output_of("keras_custom_loop")
    assert_as_documented("keras_custom_loop", output, tolerance=0.01)
    known, (loss, difference), (_, other_difference) = map(numbers, output.splitlines())
    assert difference < 1e-6
    assert other_difference > 1e-3

    _, y, _ = digits(FOUR)
    row = np.arange(len(y))[:, np.newaxis]
    hidden = np.random.default_rng(0).random(y.shape) >= np.where(row % 128 < 64, 0.9, 0.2)
    y = np.where(hidden, -1, y)[:1792]
    assert known == [pytest.approx(100 * np.mean(y != -1), abs=0.051), y.size]
    shares = [np.mean(batch != -1) for batch in np.split(y, 28)]
    assert min(shares[::2]) > 0.8
    assert max(shares[1::2]) < 0.3
    column = [part[part >= 0].mean() for part in y.T]
    chance = [log_loss(part[part >= 0], np.full(np.sum(part >= 0), p)) for part, p in zip(y.T, column, strict=True)]
    assert loss < 0.75 * np.mean(chance)


def test_the_readmes_program(tmp_path: Path) -> None:
    readme = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## Losses and metrics in your own Keras project")[2]
    program = tmp_path / "program.py"
    program.write_text(section.partition("```python\n")[2].partition("```")[0], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, program],
        env={**os.environ, "KERAS_BACKEND": "tensorflow", "PYTHONPATH": str(EXAMPLES.parent)},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    scores = [float(score) for score in done.stdout.rpartition("[")[2].rstrip("]\n").split()]
    assert len(scores) == 4
    assert min(scores) > 0.7


def test_the_loop_is_of_tensorflow() -> None:
    code = (
        "import os, runpy, sys; os.environ['KERAS_BACKEND'] = 'tensorflow'; import keras\n"
        "keras.backend.backend = lambda: 'jax'; runpy.run_path(sys.argv[1], run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, EXAMPLES / "keras_custom_loop.py"],
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "This loop is TensorFlow's: set KERAS_BACKEND to tensorflow."
