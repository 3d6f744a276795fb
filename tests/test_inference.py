"""Predictions: equal to the model's own, in order, as they come, and in formats that programs read back."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_bundle import COLOURS, SHAPES, small_bundle, tag_bundle

from multilabel.errors import UsageError
from multilabel.images import read_image
from multilabel.inference import Prediction, TagPrediction, expand, predict, with_thresholds, write
from multilabel.labels import Tag
from multilabel.thresholds import Threshold

NAMES = ("hat", "scarf", "coat")
STYLES = ["text", "csv", "json", "jsonl"]


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Seven pictures of different colours and sizes."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    made = []
    for index in range(7):
        colour = rng.integers(0, 256, 3)
        pixels = np.clip(rng.normal(colour, 40, (30 + 3 * index, 40, 3)), 0, 255).astype(np.uint8)
        made.append(str(folder / f"{index}.png"))
        Image.fromarray(pixels).save(made[-1])
    return made


@pytest.fixture(scope="module")
def bundle(paths):
    """A model of random weights, whose logits of these pictures are spread around 0."""
    made = small_bundle(thresholds=[Threshold(value, "tuned", 20) for value in (0.3, 0.5, 0.7)])
    return spread(made, paths)


def spread(bundle, paths):
    """The bundle, its logits of these pictures moved and scaled to the mean 0 and the standard deviation 2."""
    for name, logits in bundle.model.predict(decoded(paths, bundle), verbose=0).items():
        layer = bundle.model.get_layer(name)
        weights, _ = layer.get_weights()
        scale = 2 / logits.std(axis=0)
        layer.set_weights([weights * scale, -logits.mean(axis=0) * scale])
    return bundle


def decoded(paths, bundle):
    return np.stack([read_image(path, bundle.backbone.image_size) for path in paths])


@pytest.fixture(scope="module")
def probabilities(bundle, paths):
    """What `predict` must say: the model's own logits of the decoded pictures, through a float64 sigmoid."""
    return 1 / (1 + np.exp(-bundle.model.predict(decoded(paths, bundle), verbose=0)["attributes"].astype(np.float64)))


def written(predictions, bundle, style):
    file = io.StringIO(newline="")
    failed, pictures = write(iter(predictions), bundle, style, file)
    assert pictures == len(predictions)
    return file.getvalue(), failed


def made(image, *probabilities, thresholds=(0.3, 0.5, 0.7)):
    present = [p > threshold for p, threshold in zip(probabilities, thresholds, strict=True)]
    return Prediction(image, dict(zip(NAMES, probabilities, strict=True)), dict(zip(NAMES, present, strict=True)))


# --- predict


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_predictions_are_the_models_own(bundle, paths, probabilities, batch_size):
    predictions = list(predict(bundle, paths, batch_size=batch_size))
    assert [prediction.image for prediction in predictions] == paths
    assert [prediction.error for prediction in predictions] == [None] * 7
    found = np.array([list(prediction.probabilities.values()) for prediction in predictions])
    np.testing.assert_allclose(found, probabilities, rtol=1e-5)
    present = np.array([list(prediction.present.values()) for prediction in predictions])
    np.testing.assert_array_equal(present, probabilities > [0.3, 0.5, 0.7])
    assert present.any(axis=0).all()  # else this would say little
    assert not present.all(axis=0).any()
    for prediction in predictions:
        assert tuple(prediction.probabilities) == tuple(prediction.present) == NAMES
        assert {type(value) for value in prediction.probabilities.values()} == {float}
        assert {type(value) for value in prediction.present.values()} == {bool}


def test_present_is_strictly_above_the_threshold(bundle, paths):
    (prediction,) = predict(bundle, paths[:1])
    exact = prediction.probabilities["scarf"]
    for value, present in [(exact, False), (np.nextafter(exact, 0), True), (np.nextafter(exact, 1), False)]:
        changed = with_thresholds(bundle, [f"scarf={float(value)!r}"])
        assert [p.present["scarf"] for p in predict(changed, paths[:1])] == [present]


@pytest.mark.parametrize("batch_size", [2, 32])
def test_what_cannot_be_read_becomes_an_error_in_its_place(bundle, paths, probabilities, tmp_path, batch_size):
    broken, folder, empty = tmp_path / "broken.jpg", tmp_path / "folder", tmp_path / "empty"
    broken.write_bytes(b"no picture")
    (folder / "deeper").mkdir(parents=True)
    empty.mkdir()
    shutil.copy(paths[3], folder / "b.png")
    shutil.copy(paths[4], folder / "deeper" / "a.PNG")
    (folder / "a.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("not looked at")
    absent, long = str(tmp_path / "absent.png"), str(tmp_path / ("x" * 300))
    given_paths = [str(broken), paths[0], absent, str(folder), str(empty), long, paths[1], paths[1], "nul\0"]
    reason = "not a picture that can be read (expected JPEG, PNG, WebP, GIF, BMP or TIFF)"
    expected = [
        (str(broken), reason),
        (paths[0], 0),
        (absent, "no such file"),
        (str(folder / "a.jpg"), "the file is empty"),
        (str(folder / "b.png"), 3),
        (str(folder / "deeper" / "a.PNG"), 4),
        (str(empty), "a folder in which no pictures were found"),
        (long, "cannot be read: File name too long"),
        (paths[1], 1),
        (paths[1], 1),
        ("nul\0", "cannot be read: embedded null byte"),
    ]
    predictions = list(predict(bundle, iter(given_paths), batch_size=batch_size))
    assert [prediction.image for prediction in predictions] == [image for image, _ in expected]
    for prediction, (_, row) in zip(predictions, expected, strict=True):
        if isinstance(row, int):
            assert prediction.error is None
            np.testing.assert_allclose(list(prediction.probabilities.values()), probabilities[row], rtol=1e-5)
        else:
            assert (prediction.error, prediction.probabilities, prediction.present) == (row, {}, {})


def test_nothing_in_nothing_out(bundle, tmp_path):
    assert list(predict(bundle, [])) == []
    assert [prediction.error for prediction in predict(bundle, [str(tmp_path)])] == [
        "a folder in which no pictures were found"
    ]


def test_expand_does_not_look_ahead(tmp_path):
    endless = (str(tmp_path / f"{index}.png") for index in itertools.count())
    assert list(itertools.islice(expand(endless), 2)) == [str(tmp_path / "0.png"), str(tmp_path / "1.png")]


def test_predictions_come_while_pictures_are_read_and_memory_stays_bounded(bundle, paths):
    """However many paths there are, only so many pictures are on the way at a time."""
    taken = 0

    def feed():
        nonlocal taken
        for path in itertools.islice(itertools.cycle(paths), 1500):
            taken += 1
            yield path

    ahead, rows = [], []

    class File(io.StringIO):
        def write(self, text):
            if text.startswith("{"):
                rows.append(text)
                ahead.append(taken - len(rows))
            return len(text)

    assert write(predict(bundle, feed()), bundle, "jsonl", File()) == (0, 1500)
    assert len(rows) == 1500
    assert max(ahead) < 300


# --- any model


@dataclass(frozen=True)
class Lookup:
    """A model without a network: its probabilities stand in the pictures' first pixels, in hundredths."""

    run_name: str = "lookup"
    image_size: tuple[int, int] = (2, 3)
    outputs: tuple[str, ...] = ("both", "attributes", "other")
    attributes: tuple[str, ...] = ("hat", "coat")
    tags: tuple[Tag, ...] = (Tag("attributes", ("a", "b")), Tag("colour", ("red", "green")))
    thresholds: tuple[Threshold, ...] = (Threshold(0.5, "default", 0), Threshold(0.055, "default", 0))
    not_better_than_chance: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    batches: list[tuple[int, ...]] = field(default_factory=list)

    def probabilities(self, pixels: np.ndarray) -> Mapping[str, np.ndarray]:
        assert pixels.dtype == np.uint8
        self.batches.append(pixels.shape)
        p = pixels[:, 0, 0].astype(np.float32) / 100
        first, second = np.stack([p[:, 1], 1 - p[:, 1]], 1), np.stack([1 - p[:, 2], p[:, 2]], 1)
        return {"other": second, "attributes": first, "both": p[:, :2]}  # in no order


def coloured(folder, *colours):
    """A picture of one colour for each."""
    paths = [str(folder / f"{number}.png") for number in range(len(colours))]
    for path, colour in zip(paths, colours, strict=True):
        Image.new("RGB", (3, 2), colour).save(path)
    return paths


def test_any_model_will_do_and_its_outputs_say_what_is_what(tmp_path):
    """Even where a tag is called like the usual output of the attributes."""
    model = Lookup()
    paths = coloured(tmp_path, (60, 5, 30), (40, 6, 80), (50, 99, 50))
    paths.insert(1, "absent.png")
    first, absent, second, third = predict(model, paths, batch_size=2)
    assert absent.error == "no such file"
    assert [list(p.present.values()) for p in (first, second, third)] == [[True, False], [False, True], [False, True]]
    assert first.probabilities == {"hat": pytest.approx(0.6), "coat": pytest.approx(0.05)}
    assert {name: tag.top[0] for name, tag in first.tags.items()} == {
        "attributes": ("b", pytest.approx(0.95)),
        "colour": ("red", pytest.approx(0.7)),
    }
    assert [p.tags["colour"].top[0][0] for p in (second, third)] == ["green", "red"]  # of equal ones, the first
    assert model.batches == [(1, 2, 3, 3), (2, 2, 3, 3)]  # nothing is computed for what cannot be read


def test_any_model_can_have_other_thresholds(tmp_path):
    changed = with_thresholds(Lookup(), ["coat=0.04"])
    (prediction,) = predict(changed, coloured(tmp_path, (60, 5, 30)))
    assert prediction.present == {"hat": True, "coat": True}


def test_a_model_is_not_asked_about_nothing(tmp_path):
    model = Lookup()
    assert [prediction.error for prediction in predict(model, ["absent.png", "gone.png"])] == ["no such file"] * 2
    assert model.batches == []


# --- tags


@pytest.fixture(scope="module")
def tagger():
    """A model of random weights with tags alone."""
    return tag_bundle(())


@pytest.fixture(scope="module")
def both(paths):
    """One with attributes too, whose logits are spread."""
    return spread(tag_bundle(), paths)


@pytest.mark.parametrize("batch_size", [3, 32])
def test_tags_are_the_models_own(both, paths, batch_size):
    logits = both.model.predict(decoded(paths, both), verbose=0)
    found = list(predict(both, paths, batch_size=batch_size, min_confidence=0.6))
    decided = []
    for name, layer, classes in [("colour", "tag1_colour", COLOURS), ("shape", "tag2_shape", SHAPES)]:
        exact = np.exp(logits[layer].astype(np.float64))
        expected = exact / exact.sum(axis=1, keepdims=True)
        for row, prediction in zip(expected, found, strict=True):
            tag = prediction.tags[name]
            best = sorted(classes, key=lambda c, row=row, classes=classes: -row[classes.index(c)])
            assert [c for c, _ in tag.top] == best[:3]
            np.testing.assert_allclose([p for _, p in tag.top], np.sort(row)[::-1][:3], rtol=1e-5)
            assert tag.decided is bool(row.max() >= 0.6)
            assert {type(p) for _, p in tag.top} == {float}
            decided.append(tag.decided)
    assert 0 < sum(decided) < len(decided)  # else this would say little
    present = [list(prediction.probabilities.values()) for prediction in found]
    np.testing.assert_allclose(present, 1 / (1 + np.exp(-logits["attributes"].astype(float))), rtol=1e-5)
    assert all(tuple(prediction.present) == ("hat", "coat") for prediction in found)


def test_tags_alone_and_pictures_that_cannot_be_read(tagger, paths):
    good, broken = predict(tagger, [paths[0], "absent.png"])
    assert (good.error, good.probabilities, good.present, list(good.tags)) == (None, {}, {}, ["colour", "shape"])
    assert [len(tag.top) for tag in good.tags.values()] == [3, 2]
    assert all(tag.decided for tag in good.tags.values())  # by default, all are
    assert broken == Prediction("absent.png", {}, {}, "no such file")
    assert broken.tags == {}


def test_a_tag_is_decided_from_the_confidence_on(tagger, paths):
    (prediction,) = predict(tagger, paths[:1])
    exact = prediction.tags["colour"].top[0][1]
    for value, decided in [(exact, True), (np.nextafter(exact, 1), False), (np.nextafter(exact, 0), True)]:
        (again,) = predict(tagger, paths[:1], min_confidence=float(value))
        assert again.tags["colour"].decided is decided


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf")])
def test_confidences_that_cannot_be_used(tagger, value):
    with pytest.raises(UsageError) as error:  # at once, not at the first picture
        predict(tagger, [], min_confidence=value)
    assert str(error.value) == f"--min-confidence is {value}; expected a number from 0 to 1, such as 0.5."


def test_a_model_of_tags_has_no_thresholds(tagger):
    assert with_thresholds(tagger, []).thresholds == ()
    for override in ("0.4", "colour=0.4"):
        with pytest.raises(UsageError) as error:
            with_thresholds(tagger, [override])
        assert str(error.value) == (
            f"--threshold {override}: the model has no attributes, only tags; use --min-confidence."
        )


# --- thresholds


def values_of(bundle):
    return {name: threshold.value for name, threshold in zip(bundle.attributes, bundle.thresholds, strict=True)}


@pytest.mark.parametrize(
    ("overrides", "values"),
    [
        ([], (0.3, 0.5, 0.7)),
        (["0.4"], (0.4, 0.4, 0.4)),
        (["scarf=0.4"], (0.3, 0.4, 0.7)),
        (["scarf=0.4", "hat=0", "coat=1"], (0, 0.4, 1)),
        (["scarf=0.4", "0.2"], (0.2, 0.2, 0.2)),
        (["0.2", "scarf=0.4", "scarf=1e-3"], (0.2, 0.001, 0.2)),
    ],
)
def test_later_thresholds_win(bundle, overrides, values):
    changed = with_thresholds(bundle, overrides)
    assert values_of(changed) == dict(zip(NAMES, values, strict=True))
    for before, after in zip(bundle.thresholds, changed.thresholds, strict=True):
        assert after == before if after.value == before.value else after == Threshold(after.value, "given", 20)
    assert changed.model is bundle.model
    assert values_of(bundle) == {"hat": 0.3, "scarf": 0.5, "coat": 0.7}


def test_an_attribute_with_an_equals_sign():
    odd = small_bundle(attributes=("a=b", "a", ""))
    assert values_of(with_thresholds(odd, ["a=b=0.9", "a=0.8", "=0.7"])) == {"a=b": 0.9, "a": 0.8, "": 0.7}


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("scraf=0.4", "there is no attribute 'scraf'; did you mean scarf?"),
        ("shoe=0.4", "there is no attribute 'shoe'; the model knows hat, scarf, coat."),
        ("=0.4", "there is no attribute ''; the model knows hat, scarf, coat."),
        ("hat", "'hat' is not a number from 0 to 1."),
        ("hat=", "'' is not a number from 0 to 1."),
        ("hat=half", "'half' is not a number from 0 to 1."),
        ("hat=nan", "'nan' is not a number from 0 to 1."),
        ("NaN", "'NaN' is not a number from 0 to 1."),
        ("hat=inf", "'inf' is not a number from 0 to 1."),
        ("1.01", "'1.01' is not a number from 0 to 1."),
        ("hat=-0.1", "'-0.1' is not a number from 0 to 1."),
        ("50%", "'50%' is not a number from 0 to 1."),
        ("0,5", "'0,5' is not a number from 0 to 1."),
    ],
)
def test_thresholds_that_cannot_be_used(bundle, override, complaint):
    with pytest.raises(UsageError) as error:
        with_thresholds(bundle, ["0.5", override])
    assert str(error.value) == f"--threshold {override}: {complaint}"


# --- formats

EXAMPLES = [
    made("a.png", 0.9, 0.5, 0.12345678),
    Prediction("b.png", {}, {}, "the file is empty"),
    made("c.png", 0.31, 0.6, 0.71),
    made("d.png", 0.1, 1e-12, 0.0),
]


def test_text_is_for_people(bundle):
    assert written(EXAMPLES, bundle, "text") == (
        "a.png: hat 0.90  (absent: scarf 0.50, coat 0.12)\n"
        "b.png: error: the file is empty\n"
        "c.png: hat 0.31, scarf 0.60, coat 0.71\n"
        "d.png: none  (absent: hat 0.10, scarf 0.00, coat 0.00)\n",
        1,
    )


def test_csv(bundle):
    assert written(EXAMPLES, bundle, "csv") == (
        "image,hat_present,scarf_present,coat_present,hat_probability,scarf_probability,coat_probability,error\n"
        "a.png,1,0,0,0.9,0.5,0.123457,\n"
        "b.png,,,,,,,the file is empty\n"
        "c.png,1,1,1,0.31,0.6,0.71,\n"
        "d.png,0,0,0,0.1,1e-12,0,\n",
        1,
    )


@pytest.mark.parametrize("style", ["json", "jsonl"])
def test_json(bundle, style):
    text, failed = written(EXAMPLES, bundle, style)
    records = json.loads(text) if style == "json" else [json.loads(line) for line in text.splitlines()]
    assert failed == 1
    assert len(text.splitlines()) == len(EXAMPLES) + (2 if style == "json" else 0)
    assert records[0] == {
        "image": "a.png",
        "error": None,
        "present": ["hat"],
        "attributes": {
            "hat": {"probability": 0.9, "threshold": 0.3, "present": True},
            "scarf": {"probability": 0.5, "threshold": 0.5, "present": False},
            "coat": {"probability": 0.12345678, "threshold": 0.7, "present": False},
        },
        "tags": {},
    }
    assert records[1] == {
        "image": "b.png",
        "error": "the file is empty",
        "present": None,
        "attributes": None,
        "tags": None,
    }
    assert [record["present"] for record in records] == [["hat"], None, ["hat", "scarf", "coat"], []]


RED = TagPrediction((("red", 0.931), ("grey", 0.05), ("blue", 0.01234567)), True)
UNDECIDED = TagPrediction((("red", 0.41), ("green", 0.4), ("blue", 0.1)), False)
SQUARE = TagPrediction((("square", 0.875), ("round", 0.125)), True)
ATTRIBUTES = ({"hat": 0.9, "coat": 0.1}, {"hat": True, "coat": False})
NONE = ({"hat": 0.1, "coat": 0.1}, {"hat": False, "coat": False})


def tagged(*attributes):
    """Predictions of tags beside these attributes: decided, undecided, broken."""
    attributes = attributes or ({}, {})
    return [
        Prediction("a.png", *attributes, tags={"colour": RED, "shape": SQUARE}),
        Prediction("b.png", *attributes, tags={"colour": UNDECIDED, "shape": SQUARE}),
        Prediction("c.png", {}, {}, "the file is empty"),
    ]


def test_tags_in_text(both, tagger):
    assert written(tagged(), tagger, "text") == (
        "a.png: colour red 0.93, shape square 0.88\n"
        "b.png: colour undecided (red 0.41), shape square 0.88\n"
        "c.png: error: the file is empty\n",
        1,
    )
    assert written([tagged(*ATTRIBUTES)[0], tagged(*NONE)[1], tagged()[2]], both, "text") == (
        "a.png: hat 0.90  (absent: coat 0.10); colour red 0.93, shape square 0.88\n"
        "b.png: none  (absent: hat 0.10, coat 0.10); colour undecided (red 0.41), shape square 0.88\n"
        "c.png: error: the file is empty\n",
        1,
    )


def test_tags_in_csv(both, tagger):
    assert written(tagged(), tagger, "csv") == (
        "image,colour_class,colour_probability,shape_class,shape_probability,error\n"
        "a.png,red,0.931,square,0.875,\n"
        "b.png,,0.41,square,0.875,\n"
        "c.png,,,,,the file is empty\n",
        1,
    )
    assert written(tagged(*ATTRIBUTES), both, "csv") == (
        "image,hat_present,coat_present,hat_probability,coat_probability,"
        "colour_class,colour_probability,shape_class,shape_probability,error\n"
        "a.png,1,0,0.9,0.1,red,0.931,square,0.875,\n"
        "b.png,1,0,0.9,0.1,,0.41,square,0.875,\n"
        "c.png,,,,,,,,,the file is empty\n",
        1,
    )


@pytest.mark.parametrize("style", ["json", "jsonl"])
def test_tags_in_json(both, tagger, style):
    def records(predictions, bundle):
        text, failed = written(predictions, bundle, style)
        assert failed == 1
        return json.loads(text) if style == "json" else [json.loads(line) for line in text.splitlines()]

    colour = {
        "class": "red",
        "probability": 0.931,
        "top": [
            {"class": "red", "probability": 0.931},
            {"class": "grey", "probability": 0.05},
            {"class": "blue", "probability": 0.01234567},
        ],
    }
    shape = {
        "class": "square",
        "probability": 0.875,
        "top": [{"class": "square", "probability": 0.875}, {"class": "round", "probability": 0.125}],
    }
    first, second, broken = records(tagged(), tagger)
    assert first == {
        "image": "a.png",
        "error": None,
        "present": [],
        "attributes": {},
        "tags": {"colour": colour, "shape": shape},
    }
    assert (second["tags"]["colour"]["class"], second["tags"]["colour"]["probability"]) == (None, 0.41)
    assert [item["class"] for item in second["tags"]["colour"]["top"]] == ["red", "green", "blue"]
    assert second["tags"]["shape"] == shape
    assert broken == {
        "image": "c.png",
        "error": "the file is empty",
        "present": None,
        "attributes": None,
        "tags": None,
    }
    first = records(tagged(*ATTRIBUTES), both)[0]
    assert (first["present"], first["tags"]) == (["hat"], {"colour": colour, "shape": shape})
    assert first["attributes"]["coat"] == {"probability": 0.1, "threshold": 1 / 3, "present": False}


@pytest.mark.parametrize(
    ("style", "text"),
    [
        ("text", ""),
        ("jsonl", ""),
        ("json", "[]\n"),
        (
            "csv",
            "image,hat_present,scarf_present,coat_present,hat_probability,scarf_probability,coat_probability,error\n",
        ),
    ],
)
def test_no_predictions(bundle, style, text):
    assert written([], bundle, style) == (text, 0)


@pytest.mark.parametrize("style", STYLES)
def test_all_failed(bundle, style):
    broken = [Prediction(f"{index}.png", {}, {}, "no such file") for index in range(3)]
    text, failed = written(broken, bundle, style)
    assert failed == 3
    assert text.count("no such file") == 3


def parsed(text, style):
    """Per picture, what a program reads: (image, error, {attribute: (present, probability)})."""
    if style == "csv":
        rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        for row in rows:
            cells = {name: (row[f"{name}_present"], row[f"{name}_probability"]) for name in NAMES}
            found = {name: (p == "1", float(q)) for name, (p, q) in cells.items() if q}
            yield row["image"], row["error"] or None, found
        return
    for record in json.loads(text) if style == "json" else map(json.loads, text.splitlines()):
        attributes = record["attributes"] or {}
        found = {name: (cell["present"], cell["probability"]) for name, cell in attributes.items()}
        assert [name for name, (present, _) in found.items() if present] == (record["present"] or [])
        yield record["image"], record["error"], found


ODD_NAMES = ["a, b.png", 'say "x".png', "two\nlines.png", "cr\rlf\r\n.png", "größe 图.png", " b ", "=1+1.png", "-", "'"]
CHANCE = st.floats(0, 1)
PREDICTIONS = st.builds(made, st.sampled_from(ODD_NAMES) | st.text(min_size=1), CHANCE, CHANCE, CHANCE) | st.builds(
    lambda image, error: Prediction(image, {}, {}, error), st.sampled_from(ODD_NAMES), st.text('e,"\n;ü', min_size=1)
)


@pytest.mark.parametrize("style", ["csv", "json"])
@given(predictions=st.lists(PREDICTIONS, max_size=4))
@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_programs_read_back_what_was_written(bundle, style, predictions):
    text, _ = written(predictions, bundle, style)
    read_back = list(parsed(text, style))
    assert [image for image, _, _ in read_back] == [prediction.image for prediction in predictions]
    for prediction, (_, error, cells) in zip(predictions, read_back, strict=True):
        assert error == prediction.error
        assert {name: present for name, (present, _) in cells.items()} == prediction.present
        for name, (_, probability) in cells.items():
            digits = 1e-5 if style == "csv" else 0
            assert probability == pytest.approx(prediction.probabilities[name], rel=digits, abs=0)


@pytest.mark.parametrize("style", ["csv", "json", "jsonl"])
def test_a_file_that_is_written_and_read(bundle, paths, probabilities, tmp_path, style):
    path = tmp_path / "predictions"
    with path.open("w", encoding="utf-8", newline="") as file:
        assert write(predict(bundle, [*paths, "absent, not there.png"]), bundle, style, file) == (1, 8)
    read_back = list(parsed(path.read_bytes().decode("utf-8"), style))
    assert [image for image, _, _ in read_back] == [*paths, "absent, not there.png"]
    assert [error for _, error, _ in read_back] == [None] * 7 + ["no such file"]
    found = np.array([[probability for _, probability in cells.values()] for _, _, cells in read_back[:-1]])
    np.testing.assert_allclose(found, probabilities, rtol=2e-5)
    present = np.array([[present for present, _ in cells.values()] for _, _, cells in read_back[:-1]])
    np.testing.assert_array_equal(present, probabilities > [0.3, 0.5, 0.7])


@pytest.mark.parametrize("style", STYLES)
def test_every_file_name_can_be_written(bundle, paths, tmp_path, style):
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
    shutil.copy(paths[0], odd)
    with (tmp_path / "out").open("w", encoding="utf-8", newline="") as file:
        assert write(predict(bundle, [odd]), bundle, style, file) == (0, 1)
    text = (tmp_path / "out").read_text("utf-8")
    assert "caf\\udce9.png" in text
    if style in ("json", "jsonl"):
        assert next(parsed(text, style))[0] == odd


def test_no_attribute_is_taken_for_another_column():
    names = ("image", "error", "image_probability")
    odd = small_bundle(attributes=names)
    prediction = Prediction("a.png", dict.fromkeys(names, 0.25), dict.fromkeys(names, False))
    text, _ = written([prediction], odd, "csv")
    header = next(csv.reader(io.StringIO(text)))
    assert len(set(header)) == len(header) == 8
    (row,) = csv.DictReader(io.StringIO(text))
    assert (row["image"], row["error"], row["image_present"], row["error_probability"]) == ("a.png", "", "0", "0.25")
