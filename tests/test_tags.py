"""Tags through the command line: reading, training, every option that concerns them, and what is written down."""

from __future__ import annotations

import csv
import errno
import io
import json
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from PIL import Image, ImageDraw
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from sklearn.utils.class_weight import compute_class_weight

from multilabel import FitConfig, load_bundle, read_labels
from multilabel.backbones import resolve_precision
from multilabel.bundle import Bundle
from multilabel.cli import main
from multilabel.dataset import read_table
from multilabel.errors import DataError, UsageError
from multilabel.labels import LabelTable

COLOURS = {"red": (210, 40, 40), "green": (40, 180, 50), "blue": (40, 50, 210)}
SHAPES = ("disc", "square")
COUNT = 60
BUNDLE = [
    "history.csv",
    "label_issues.csv",
    "loss_curve.png",
    "metrics.json",
    "model.weights.h5",
    "multilabel.json",
    "predictions.csv",
    "report.html",
    "skipped.csv",
    "suggested_labels.csv",
]
PLAIN = ["--no-calibrate"]  # what was measured is what is served, to the last digit; test_folds.py has the rest
SINGLE = ["--folds", "0", *PLAIN]  # with a frozen backbone
CNN = ["--backbone", "cnn", "--filters", "4,8", "--image-size", "32", *PLAIN]
TINY = [*CNN, "--weights", "none", "--folds", "0", "--epochs", "2"]
BOTH_TAGS = ["--tags", "colour,shape"]


def run(*arguments: object) -> Result:
    """A command in this process; whatever happens, no traceback."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def fit(labels: Path, out: Path, *options: object) -> Result:
    """A training that ends well and leaves a whole bundle."""
    result = run("fit", "--labels", labels, "--out", out, *options)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == BUNDLE
    return result


def read_csv(path: Path | io.StringIO) -> pd.DataFrame:
    """A CSV file as it is written: every cell a text, blank ones too."""
    return pd.read_csv(path, keep_default_na=False, dtype=str)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def draw(path: Path, colour: str, shape: str, bright: bool, rng: np.random.Generator) -> None:
    """A coloured disc or square somewhere on dark or bright ground, of any size."""
    width, height = rng.integers(32, 60, 2).tolist()
    picture = Image.new("RGB", (width, height), (230, 230, 230) if bright else (20, 20, 20))
    side = rng.integers(14, 22).item()
    left, top = rng.integers(0, width - side).item(), rng.integers(0, height - side).item()
    pencil = ImageDraw.Draw(picture)
    paint = pencil.ellipse if shape == "disc" else pencil.rectangle
    paint((left, top, left + side, top + side), fill=COLOURS[colour])
    picture.save(path, quality=95)


def draw_all(folder: Path, count: int, seed: int) -> list[dict[str, str]]:
    """`count` pictures in `folder`, and what is to be seen in each; every fifth has one unknown cell."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    facts = []
    for number in range(count):
        name, colour, shape, bright = str(1000 + number), list(COLOURS)[number % 3], SHAPES[number // 3 % 2], number % 4
        draw(folder / f"{name}.jpg", colour, shape, bright > 1, rng)
        fact = {"id": name, "colour": colour, "shape": shape, "bright": str(int(bright > 1))}
        if number % 5 == 0:
            fact[["colour", "shape", "bright"][number // 5 % 3]] = ""
        facts.append(fact)
    return facts


def write_table(path: Path, facts: Iterable[dict[str, str]], *, image: str = "{id}.jpg") -> Path:
    """A CSV file whose first column is the picture."""
    rows = [{"image": image.format(**fact), **fact} for fact in facts]
    columns = [column for column in rows[0] if column != "id"]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tags")


@pytest.fixture(scope="module")
def facts(folder: Path) -> list[dict[str, str]]:
    """What is to be seen in the pictures of this file; one of them is grey."""
    facts = draw_all(folder / "images", COUNT, seed=0)
    grey = folder / "images" / f"{facts[0]['id']}.jpg"
    with Image.open(grey) as picture:
        picture.convert("L").save(grey)
    return facts


@pytest.fixture(scope="module")
def mixed(folder: Path, facts: list[dict[str, str]]) -> Path:
    """Tags and an attribute in one CSV file."""
    return write_table(folder / "mixed.csv", facts)


@pytest.fixture(scope="module")
def options(folder: Path) -> list[object]:
    """A quick training on features that are computed once for all tests of this file."""
    return [*TINY, "--cache", folder / "cache"]


@pytest.fixture(scope="module")
def mixed_bundle(folder: Path, mixed: Path, options: list[object]) -> Path:
    out = folder / "mixed"
    fit(mixed, out, *options, *BOTH_TAGS, "--test-share", "0.2")
    return out


@pytest.fixture(scope="module")
def styles(folder: Path, facts: list[dict[str, str]]) -> Path:
    """Kaggle's way: ids, unquoted commas, blanks and spellings of unknown; two pictures are absent."""
    unknown = ("NA", "", "nan", "null")
    lines = ["id,colour,shape,bright,productDisplayName", "7777,red,disc,1,Gone", "8888.jpg,blue,square,0,Gone, too"]
    for number, fact in enumerate(facts):
        name = fact["id"] + ".jpg" * (number % 2)
        cells = [fact[tag] or unknown[number % 4] for tag in ("colour", "shape")] + [fact["bright"] or "NA"]
        text = "A thing, with commas, many" if number % 3 == 0 else "A thing"
        lines.append(",".join([name, *cells, text]))
    lines.append(",".join([f"{facts[4]['id']}.jpg", "NA", facts[4]["shape"], "NA", "The same again"]))
    path = folder / "styles.csv"
    path.write_text("\n".join(lines))
    return path


def of_head(bundle: Path, tag: str) -> dict[str, Any]:
    """What the bundle's description says of the head of a tag."""
    return next(head for head in read_json(bundle / "multilabel.json")["heads"] if head.get("tag") == tag)


def classes_of(bundle: Path) -> dict[str, tuple[str, ...]]:
    return {tag.name: tag.classes for tag in load_bundle(bundle).tags}


def assert_metrics_equal_scikit_learn(bundle: Path, tags: Sequence[str]) -> None:
    """Accuracy and macro F1 of every part, from the written predictions without the unknown cells."""
    predictions = read_csv(bundle / "predictions.csv")
    for part in read_json(bundle / "metrics.json")["parts"]:
        rows = predictions[predictions["part"] == part["part"].removesuffix(" part")]
        assert part["pictures"] == len(rows) > 0
        assert list(part["tags"]) == list(tags)
        for tag, scores in part["tags"].items():
            known = rows[rows[f"{tag}_label"] != ""]
            y, said = known[f"{tag}_label"], known[f"{tag}_class"]
            per_class = f1_score(y, said, labels=sorted(set(y)), average=None, zero_division=0)
            assert scores["known"] == len(known)
            assert scores["accuracy"]["value"] == pytest.approx(accuracy_score(y, said), abs=1e-12)
            assert scores["macro_f1"]["value"] == pytest.approx(per_class.mean(), abs=1e-12)
            assert scores["accuracy"]["chance"] == pytest.approx(y.value_counts().max() / len(y), abs=1e-12)
            assert {name: scores["classes"][name]["f1"] for name in sorted(set(y))} == pytest.approx(
                dict(zip(sorted(set(y)), per_class, strict=True)), abs=1e-12
            )


def assert_served_equals_measured(
    bundle: Path, images: Path, tags: Sequence[str], attributes: Sequence[str] = ()
) -> None:
    """`infer` on the pictures of predictions.csv says what stands there."""
    measured = read_csv(bundle / "predictions.csv")
    result = run("infer", "--model", bundle, "--format", "csv", *(images / name for name in measured["image"]))
    assert result.exit_code == 0, result.output
    served = read_csv(io.StringIO(result.stdout))
    assert [Path(image).name for image in served["image"]] == measured["image"].tolist()
    for tag in tags:
        assert served[f"{tag}_class"].tolist() == measured[f"{tag}_class"].tolist()
    for name in (*tags, *attributes):
        column = f"{name}_probability"
        np.testing.assert_allclose(served[column].astype(float), measured[column].astype(float), atol=1e-5)


# Reading


@pytest.fixture(scope="module")
def styles_fit(folder: Path, styles: Path, options: list[object]) -> tuple[Path, Result]:
    out = folder / "fashion"
    return out, fit(styles, out, *options, *BOTH_TAGS, "--attributes", "bright")


def test_what_was_repaired_and_left_out_is_said(styles_fit: tuple[Path, Result]) -> None:
    out, result = styles_fit
    assert "Lines with unquoted commas in productDisplayName, repaired: 21.\n" in result.stderr
    assert "Repeated rows merged into the first row of their picture: 1.\n" in result.stderr
    assert "styles.csv: 60 pictures, 1 attribute and 2 tags, 168 of 180 labels known (93%).\n" in result.stderr
    assert "Left out, because the file is absent (2 pictures): 7777.jpg, 8888.jpg.\n" in result.stderr
    assert read_csv(out / "skipped.csv").to_numpy().tolist() == [
        ["7777.jpg", "no such file"],
        ["8888.jpg", "no such file"],
    ]


def test_unknown_is_no_class(styles_fit: tuple[Path, Result], facts: list[dict[str, str]]) -> None:
    out, _ = styles_fit
    assert classes_of(out) == {"colour": ("blue", "green", "red"), "shape": ("disc", "square")}
    predictions = read_csv(out / "predictions.csv")
    of_image = {f"{fact['id']}.jpg": fact for fact in facts}
    for column in ("colour", "shape", "bright"):
        expected = [of_image[image][column] for image in predictions["image"]]
        assert predictions[f"{column}_label"].tolist() == expected
    assert "" in predictions[["colour_label", "shape_label", "bright_label"]].to_numpy()


@pytest.mark.parametrize("which", ["styles_fit", "mixed_bundle"])
def test_metrics_equal_scikit_learn_on_the_written_predictions(which: str, request: pytest.FixtureRequest) -> None:
    made = request.getfixturevalue(which)
    assert_metrics_equal_scikit_learn(made if isinstance(made, Path) else made[0], ["colour", "shape"])


def test_infer_says_what_was_measured(styles_fit: tuple[Path, Result], folder: Path) -> None:
    assert_served_equals_measured(styles_fit[0], folder / "images", ["colour", "shape"], ["bright"])


def test_infer_in_every_format(styles_fit: tuple[Path, Result], folder: Path) -> None:
    out, _ = styles_fit
    arguments = ["infer", "--model", out, folder / "images" / "1001.jpg", "--format"]
    (record,) = json.loads(run(*arguments, "json").stdout)
    assert list(record["tags"]) == ["colour", "shape"]
    for tag, names in classes_of(out).items():
        said = record["tags"][tag]
        top = said["top"]
        probabilities = [entry["probability"] for entry in top]
        assert {entry["class"] for entry in top} == set(names)  # three classes at most, so all of them
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1)
        assert (said["class"], said["probability"]) == (top[0]["class"], top[0]["probability"])
    phrases = [f"{tag} {said['class']} {said['probability']:.2f}" for tag, said in record["tags"].items()]
    text = run(*arguments, "text").stdout
    assert text.startswith(f"{folder / 'images' / '1001.jpg'}: ")
    assert text.endswith(f"; {', '.join(phrases)}\n")
    row = read_csv(io.StringIO(run(*arguments, "csv").stdout)).iloc[0]
    assert [row["colour_class"], row["shape_class"]] == [said["class"] for said in record["tags"].values()]
    assert json.loads(run(*arguments, "jsonl").stdout) == record


def test_a_tag_below_the_confidence_is_undecided(styles_fit: tuple[Path, Result], folder: Path) -> None:
    arguments = ["infer", "--model", styles_fit[0], folder / "images" / "1001.jpg", "--min-confidence", "1", "--format"]
    (record,) = json.loads(run(*arguments, "json").stdout)
    assert [said["class"] for said in record["tags"].values()] == [None, None]
    assert [len(said["top"]) for said in record["tags"].values()] == [3, 2]
    best = [said["top"][0] for said in record["tags"].values()]
    phrases = [
        f"{tag} undecided ({said['class']} {said['probability']:.2f})"
        for tag, said in zip(record["tags"], best, strict=True)
    ]
    assert run(*arguments, "text").stdout.endswith(f"; {', '.join(phrases)}\n")
    row = read_csv(io.StringIO(run(*arguments, "csv").stdout)).iloc[0]
    assert [row["colour_class"], row["shape_class"]] == ["", ""]
    assert float(row["colour_probability"]) == pytest.approx(best[0]["probability"], abs=1e-5)


def by_image(table: LabelTable) -> dict[str, tuple[list[str | None], list[int]]]:
    """Of each picture the names of its classes, and its attributes."""
    classes = [(*tag.classes, None) for tag in table.tags]
    return {
        image: ([names[label] for names, label in zip(classes, labels, strict=True)], attributes)
        for image, labels, attributes in zip(table.images, table.tag_y.tolist(), table.y.tolist(), strict=True)
    }


def test_a_folder_of_json_files_is_the_same_table(folder: Path, facts: list[dict[str, str]], tmp_path: Path) -> None:
    source = folder / "styles"
    source.mkdir()
    lines = ["id,colour,shape,bright,productDisplayName"]
    for fact in facts:
        values = {
            "colour": fact["colour"] or None,
            "shape": {"id": 3, "typeName": fact["shape"] or "NA"},
            "bright": int(fact["bright"]) if fact["bright"] else None,
            "landingPageUrl": "a/b",
            "styleImages": {"default": {"imageURL": "x"}},
        }
        (source / f"{fact['id']}.json").write_text(json.dumps({"data": values, "meta": {"code": 200}}))
        lines.append(",".join([fact["id"], fact["colour"], fact["shape"], fact["bright"], "A thing"]))
    same = folder / "same.csv"
    same.write_text("\n".join(lines))
    tables = [read_labels(path, tags=("colour", "shape"), attributes=("bright",)) for path in (source, same)]
    assert tables[0].tags == tables[1].tags
    assert by_image(tables[0]) == by_image(tables[1])
    arguments = [*TINY, *BOTH_TAGS, "--attributes", "bright", "--cache", folder / "cache"]
    for path in (source, same):
        fit(path, tmp_path / path.stem, *arguments)
    for name in ("predictions.csv", "metrics.json", "history.csv"):
        assert (tmp_path / "styles" / name).read_text() == (tmp_path / "same" / name).read_text()


# Attributes and tags in one model


def test_attributes_and_tags_in_one_model(mixed_bundle: Path, folder: Path) -> None:
    description = read_json(mixed_bundle / "multilabel.json")
    assert [head["kind"] for head in description["heads"]] == ["logit", "softmax", "softmax"]
    assert [threshold["attribute"] for threshold in description["thresholds"]] == ["bright"]
    assert list(read_csv(mixed_bundle / "predictions.csv")) == [
        "image",
        "part",
        "fold",
        "bright_label",
        "bright_probability",
        "bright_present",
        *(f"{tag}_{what}" for tag in ("colour", "shape") for what in ("label", "class", "probability")),
    ]
    parts = read_json(mixed_bundle / "metrics.json")["parts"]
    assert [part["part"] for part in parts] == ["validation part", "test part"]
    for part in parts:
        assert (list(part["attributes"]), list(part["tags"])) == (["bright"], ["colour", "shape"])
        known = sum(scores["known"] for kind in ("attributes", "tags") for scores in part[kind].values())
        assert (part["cells"], part["known"]) == (3 * part["pictures"], known)
    assert_served_equals_measured(mixed_bundle, folder / "images", ["colour", "shape"], ["bright"])


def test_a_model_of_tags_has_no_thresholds(
    folder: Path, facts: list[dict[str, str]], options: list[object], tmp_path: Path
) -> None:
    """Free text beside the columns that are read does no harm; where it is taken for an attribute, it is refused."""
    labels = write_table(tmp_path / "labels.csv", [{**fact, "text": f"thing {fact['id']}"} for fact in facts])
    arguments = [*options, "--images", folder / "images", "--tags", "colour"]
    refused = run("fit", "--labels", labels, *arguments, "--out", tmp_path / "none")
    assert refused.exit_code == 1
    assert "line 2: 1000.jpg: text is 'thing 1000'; expected 1, 0 or NA" in refused.stderr
    fit(labels, tmp_path / "both", *arguments, "--attributes", "bright")
    assert list(read_json(tmp_path / "both" / "metrics.json")["parts"][0]["attributes"]) == ["bright"]
    fashion = tmp_path / "styles.csv"
    fashion.write_text("id,colour,productDisplayName\n" + "".join(f"{f['id']},{f['colour']},x\n" for f in facts))
    fit(fashion, tmp_path / "alone", *arguments)
    description = read_json(tmp_path / "alone" / "multilabel.json")
    assert description["thresholds"] == []
    asked = run("infer", "--model", tmp_path / "alone", folder / "images" / "1001.jpg", "--threshold", "0.5")
    assert asked.exit_code == 2
    assert "--threshold 0.5: the model has no attributes, only tags; use --min-confidence." in asked.stderr


# Rare classes


@pytest.fixture(scope="module")
def with_rare(folder: Path, facts: list[dict[str, str]]) -> Path:
    """Two colours have few labels: `mauve` 4, `teal` 3."""
    rare = {11: "mauve", 12: "mauve", 13: "mauve", 14: "mauve", 21: "teal", 22: "teal", 23: "teal"}
    return write_table(
        folder / "rare.csv",
        [{**fact, "colour": rare.get(number, fact["colour"])} for number, fact in enumerate(facts)],
    )


def test_rare_classes_are_pooled(with_rare: Path, options: list[object], tmp_path: Path) -> None:
    result = fit(with_rare, tmp_path / "out", *options, *BOTH_TAGS, "--min-count", "5", "--pool-name", "Other")
    assert "colour: 2 rare classes, 7 labels, pooled as 'Other': mauve 4, teal 3.\n" in result.stderr
    assert "shape:" not in result.stderr
    assert classes_of(tmp_path / "out") == {"colour": ("blue", "green", "red", "Other"), "shape": ("disc", "square")}
    provenance = read_json(tmp_path / "out" / "multilabel.json")["provenance"]
    assert provenance["rare_classes"] == {"colour": {"mauve": 4, "teal": 3}}
    predictions = read_csv(tmp_path / "out" / "predictions.csv")
    assert set(predictions["colour_label"]) - {""} == {"blue", "green", "red", "Other"}
    assert_metrics_equal_scikit_learn(tmp_path / "out", ["colour", "shape"])


def test_rare_classes_are_dropped_and_their_pictures_still_teach(
    with_rare: Path, options: list[object], tmp_path: Path
) -> None:
    """In the training part, too: of `shape` not one label is lost."""
    arguments = [*options, *BOTH_TAGS, "--val-share", "0.5", "--min-share", "0.09", "--rare", "drop"]
    result = fit(with_rare, tmp_path / "out", *arguments)
    assert "colour: 2 rare classes, 7 labels, left out as unknown: mauve 4, teal 3.\n" in result.stderr
    assert classes_of(tmp_path / "out")["colour"] == ("blue", "green", "red")
    provenance = read_json(tmp_path / "out" / "multilabel.json")["provenance"]
    assert provenance["rare_classes"] == {"colour": {"mauve": 4, "teal": 3}}
    original = read_csv(with_rare).set_index("image")
    predictions = read_csv(tmp_path / "out" / "predictions.csv")
    dropped = predictions["image"].map(original["colour"]).isin(["mauve", "teal"])
    assert dropped.any()
    assert (predictions["colour_label"][dropped] == "").all()
    assert predictions["shape_label"].tolist() == original.loc[predictions["image"], "shape"].tolist()
    trained = original.drop(index=predictions["image"])
    share = (trained["shape"] != "").mean()
    assert of_head(tmp_path / "out", "shape")["coverage"] == pytest.approx(share, abs=1e-12)
    known = trained["colour"].isin(["red", "green", "blue"]).mean()
    assert of_head(tmp_path / "out", "colour")["coverage"] == pytest.approx(known, abs=1e-12)
    assert known < (trained["colour"] != "").mean()


def test_pooling_that_leaves_one_class_is_refused(with_rare: Path, options: list[object], tmp_path: Path) -> None:
    result = run("fit", "--labels", with_rare, *options, *BOTH_TAGS, "--min-count", "50", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert (
        "Tag colour: 1 of 5 classes would be left, because a class needs 50 labels; "
        "ask for less, or leave the tag out." in result.stderr
    )
    assert not (tmp_path / "out").exists()


# Fixed parts


def part_of(number: int) -> str:
    """Of 60 pictures 34 for training, 12 for validation, 12 for the test, 2 for nothing."""
    return "" if number in (7, 41) else {0: "val", 3: "test"}.get(number % 5, "train")


def images_of(facts: Sequence[dict[str, str]], part: str) -> list[str]:
    return [f"{fact['id']}.jpg" for number, fact in enumerate(facts) if part_of(number) == part]


def test_a_column_fixes_the_parts(
    folder: Path, facts: list[dict[str, str]], options: list[object], tmp_path: Path
) -> None:
    labels = write_table(
        tmp_path / "labels.csv", [{**fact, "part": part_of(number)} for number, fact in enumerate(facts)]
    )
    result = fit(labels, tmp_path / "out", *options, *BOTH_TAGS, "--images", folder / "images", "--split", "part")
    predictions = read_csv(tmp_path / "out" / "predictions.csv")
    assert predictions["image"].tolist() == [*images_of(facts, "val"), *images_of(facts, "test")]
    assert predictions["part"].tolist() == ["validation"] * 12 + ["test"] * 12
    assert "Training part: 34 pictures; validation part: 12; test part: 12.\n" in result.stderr
    assert "Left out, because --split gives it no part (2 pictures): 1007.jpg, 1041.jpg.\n" in result.stderr
    skipped = read_csv(tmp_path / "out" / "skipped.csv")
    assert skipped.to_numpy().tolist() == [["1007.jpg", "no part in --split"], ["1041.jpg", "no part in --split"]]
    provenance = read_json(tmp_path / "out" / "multilabel.json")["provenance"]
    assert (provenance["pictures"], provenance["skipped"]) == ({"training": 34, "validation": 12, "test": 12}, 2)


def test_a_file_fixes_the_parts(
    folder: Path, facts: list[dict[str, str]], mixed: Path, options: list[object], tmp_path: Path
) -> None:
    """Names stand there with and without .jpg; two are copies of one picture; nobody is for validation."""
    parts = tmp_path / "parts.txt"
    lines = [
        f"{fact['id']}{'.jpg' * (number % 2)} {'test' if part_of(number) == 'test' else 'train'}"
        for number, fact in enumerate(facts)
    ]
    twin = folder / "images" / "twin.jpg"
    twin.write_bytes((folder / "images" / f"{facts[3]['id']}.jpg").read_bytes())
    labels = write_table(folder / "with_twin.csv", [*facts, {**facts[3], "id": "twin"}])
    parts.write_text("\n".join([*lines, "twin train"]))
    arguments = [*options, *BOTH_TAGS, "--split", parts, "--val-share", "0.25"]
    result = fit(labels, tmp_path / "out", *arguments)
    assert (
        "--split puts copies of the same picture into different parts (1 picture): the scores are flattering.\n"
        in result.stderr
    )
    predictions = read_csv(tmp_path / "out" / "predictions.csv")
    test_part = predictions[predictions["part"] == "test"]
    assert test_part["image"].tolist() == images_of(facts, "test")
    validation = predictions[predictions["part"] == "validation"]
    assert len(validation) == pytest.approx(49 / 4, abs=1.5)
    assert not set(validation["image"]) & set(test_part["image"])
    assert read_csv(tmp_path / "out" / "skipped.csv").empty


@pytest.mark.parametrize("image", ["{id}.jpg", "images/{id}.jpg", "./images/{id}.v2.jpg"])
@pytest.mark.parametrize("ending", [".jpg", ""])
def test_names_in_a_file_of_parts(image: str, ending: str, facts: list[dict[str, str]], tmp_path: Path) -> None:
    """Names may leave out their ending, and nothing else."""
    (tmp_path / "images").mkdir()
    for fact in facts:
        (tmp_path / "images" / Path(image.format(**fact)).name).touch()
    labels = write_table(tmp_path / "labels.csv", facts, image=image)
    names = [image.format(**fact).removesuffix(".jpg") + ending for fact in facts]
    parts = tmp_path / "parts.txt"
    parts.write_text("".join(f"{name}\t{part_of(n)}\n" for n, name in enumerate(names) if part_of(n)))
    full = {"train": "training", "val": "validation", "test": "test", "": ""}
    config = FitConfig(labels, tags=("colour", "shape"), split=str(parts))
    assert read_table(config).table.parts == tuple(full[part_of(number)] for number in range(COUNT))
    parts.write_text("".join(f"x{name} train\n" for name in names))
    with pytest.raises(DataError, match=r"parts\.txt: none of its 60 names is a picture of the labels file\.$"):
        read_table(config)


# Weights of classes and of tags


def test_weights_of_classes_and_of_tags(mixed: Path, options: list[object], tmp_path: Path) -> None:
    arguments = [*options, *BOTH_TAGS, "--class-weight", "balanced", "--label-smoothing", "0.1", "--loss-weight"]
    fit(mixed, tmp_path / "out", *arguments, "shape=2", "--loss-weight", "attributes=0.5")
    heads = {head.get("tag", "attributes"): head for head in read_json(tmp_path / "out" / "multilabel.json")["heads"]}
    assert {name: head["weight"] for name, head in heads.items()} == {"attributes": 0.5, "colour": 1, "shape": 2}
    trained = read_csv(mixed).set_index("image").drop(index=read_csv(tmp_path / "out" / "predictions.csv")["image"])
    for tag in ("colour", "shape"):
        labels = trained[tag][trained[tag] != ""]
        balanced = compute_class_weight("balanced", classes=np.array(heads[tag]["classes"]), y=labels.to_numpy())
        assert heads[tag]["class_weight"] == pytest.approx(balanced.tolist(), abs=1e-12)
        assert heads[tag]["label_smoothing"] == 0.1


# Wrong calls and data


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--tags", "colours"], 2, "there is no column 'colours'; did you mean 'colour'? There are colour, shape, bri"),
        (["--tags", "taste"], 2, "there is no column 'taste'; there are colour, shape, bright.\n"),
        (["--tags", "colour,colour"], 2, "Column 'colour' is asked for more than once; it is an attribute, a tag or"),
        (["--tags", "colour", "--attributes", "shade"], 2, "there is no column 'shade'; did you mean 'shape'?"),
        (["--tags", "colour,shape", "--split", "half"], 2, "there is no column 'half'; there are colour, shape, bri"),
        (["--tags", "colour,shape", "--loss-weight", "color=2"], 2, "A loss weight is given for 'color', which is no"),
        (["--loss-weight", "colour"], 2, "'colour' is not TAG=FACTOR, such as gender=2."),
        (["--loss-weight", "colour=0"], 2, "0.0 is not in the range x>0"),
        (["--label-smoothing", "1"], 2, "1.0 is not in the range 0<=x<1"),
        (["--class-weight", "heavy"], 2, "'heavy' is not one of 'none', 'balanced'"),
        (["--min-count", "-1"], 2, "-1 is not in the range x>=0"),
        (["--min-share", "nan"], 2, "--min-share is nan; expected 0 or more, and less than 1."),
        (["--rare", "keep"], 2, "'keep' is not one of 'pool', 'drop'"),
        (["--schedule", "cosine"], 2, "--schedule would do nothing while the backbone is frozen; add --fine-tune or"),
        (["--warmup", "1", "--ema", "0.9"], 2, "--warmup, --ema would do nothing while the backbone is frozen; add"),
        (["--resume"], 2, "--resume would do nothing while the backbone is frozen; add --fine-tune or --train-back"),
        (["--augment", "light"], 2, "--augment would do nothing while the backbone is frozen; add --fine-tune or --t"),
        (["--views", "3"], 2, "--views stores augmented pictures; choose how with --augment light or strong."),
        (["--views", "3", "--augment", "light", "--train-backbone"], 2, "--views is for a frozen backbone; leave out"),
        (["--fine-tune", "all", "--train-backbone"], 2, "--train-backbone trains everything from the start; leave ou"),
        (["--fine-tune", "some"], 2, "'some': expected all, none, or how many of the last layers to train."),
        (["--fine-tune", "0"], 2, "'0': expected all, none, or how many of the last layers to train."),
        (["--epochs", "1,2,3"], 2, "'1,2,3' has 3 values; expected HEADS[,FINE-TUNING]."),
        (["--lr", "1e-3,0"], 2, "0.0 is not in the range x>0"),
        (["--patience", "3,"], 2, "'' is not a valid integer"),
        (["--tags", "colour", "--fine-tune", "900"], 2, "the last 900 layers of cnn cannot be trained: expected 1 to"),
    ],
)  # fmt: skip
def test_wrong_calls(
    arguments: list[str], code: int, message: str, mixed: Path, options: list[object], tmp_path: Path
) -> None:
    attributes = [] if "--attributes" in arguments else ["--attributes", "bright"]
    result = run("fit", "--labels", mixed, *options, *attributes, *arguments, "--out", tmp_path / "out")
    assert result.exit_code == code, result.output
    assert message in result.output
    assert list(tmp_path.iterdir()) == []


def test_columns_that_are_no_tags(folder: Path, facts: list[dict[str, str]], tmp_path: Path) -> None:
    text = write_table(tmp_path / "text.csv", [{**fact, "text": f"thing {fact['id']}"} for fact in facts])
    result = run("fit", "--labels", text, *TINY, "--tags", "text", "--attributes", "bright", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "column 'text' has 60 different values in 60 rows; a tag needs few classes that repeat.\n" in result.stderr
    headerless = tmp_path / "labels.txt"
    headerless.write_text("".join(f"{fact['id']}.jpg 1 0\n" for fact in facts))
    result = run("fit", "--labels", headerless, *TINY, "--tags", "attr1", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert f"{headerless}: has no header, so no columns can be chosen; add one, or do not choose.\n" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", ["1.5", "-0.1", "nan"])
def test_a_confidence_that_is_none(value: str, mixed_bundle: Path, folder: Path) -> None:
    result = run("infer", "--model", mixed_bundle, folder / "images" / "1001.jpg", "--min-confidence", value)
    assert result.exit_code == 2
    expected = "--min-confidence is nan; expected a number from 0 to 1" if value == "nan" else "in the range 0<=x<=1"
    assert expected in result.stderr


# Every way of training


def arrays(bundle: Bundle) -> list[np.ndarray]:
    """The weights of the backbone."""
    return bundle.backbone.model.get_weights()


def phases_of(bundle: Path) -> list[int]:
    """The phase of each epoch that was validated."""
    history = pd.read_csv(bundle / "history.csv")
    return history["phase"][history["validation_loss"].notna()].tolist()


TRAINED = [*CNN, "--train-backbone", "--epochs", "2"]
FINE_TUNED = [*CNN, "--weights", "none", "--fine-tune", "all", "--epochs", "1,2"]
WAYS = {
    "fine-tuned": (FINE_TUNED, [1, 2, 2]),
    "views": ([*TINY, "--views", "3", "--augment", "light"], [1, 1]),
    "cosine and moving average": ([*TRAINED, "--schedule", "cosine", "--warmup", "1", "--ema", "0.9"], [1, 1]),
    "plateau in bfloat16": ([*TRAINED, "--schedule", "plateau", "--precision", "bfloat16"], [1, 1]),
    "tensorboard": ([*TRAINED, "--augment", "strong", "--monitor", "accuracy", "--tensorboard", "logs"], [1, 1]),
}


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=() if way in ("fine-tuned", "views") else pytest.mark.slow) for way in WAYS]
)
def test_every_way_of_training_serves_what_was_measured(
    way: str, mixed: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "tensorboard" and find_spec("tensorboard") is None:
        pytest.skip("needs tensorboard, which is not installed")
    if "bfloat16" in way:
        try:
            resolve_precision("bfloat16")
        except UsageError as error:
            pytest.skip(str(error))
    monkeypatch.chdir(tmp_path)
    options, phases = WAYS[way]
    result = fit(mixed, tmp_path / "out", *options, *BOTH_TAGS, "--cache", folder / "cache")
    assert phases_of(tmp_path / "out") == phases
    assert_metrics_equal_scikit_learn(tmp_path / "out", ["colour", "shape"])
    assert_served_equals_measured(tmp_path / "out", folder / "images", ["colour", "shape"], ["bright"])
    assert not (tmp_path / "out.checkpoint").exists()
    if way == "views":
        assert f"Features: {2 * COUNT} computed, {COUNT} stored already" in result.stderr
    if way == "tensorboard":
        assert list((tmp_path / "logs" / "backbone").rglob("events.out.tfevents.*"))
        assert not (tmp_path / "logs" / "heads").exists()


def test_the_last_layers_alone_are_fine_tuned(mixed: Path, mixed_bundle: Path, folder: Path, tmp_path: Path) -> None:
    """From the last convolution on everything moves, and before it nothing."""
    before = load_bundle(mixed_bundle)
    layers = before.backbone.network.layers
    first = [number for number, layer in enumerate(layers) if layer.weights][2]  # convolution, BatchNorm, this one
    last = sum(bool(layer.weights) for layer in layers[first:])
    # The heads learn next to nothing in their phase, so that fine-tuning is worth keeping.
    arguments = [*CNN, "--weights", "none", "--epochs", "1,3", "--lr", "1e-6,1e-2", "--fine-tune", last]
    fit(mixed, tmp_path / "out", *arguments, *BOTH_TAGS, "--cache", folder / "cache")
    after = load_bundle(tmp_path / "out")
    same = [np.array_equal(old, new) for old, new in zip(arrays(before), arrays(after), strict=True)]
    fixed = sum(len(layer.weights) for layer in layers[:first])
    assert same == [True] * fixed + [False] * (len(same) - fixed)
    assert phases_of(tmp_path / "out") == [1, 2, 2, 2]
    assert_served_equals_measured(tmp_path / "out", folder / "images", ["colour", "shape"], ["bright"])


def test_fine_tuning_that_spoils_the_model_is_not_kept(mixed: Path, folder: Path, tmp_path: Path) -> None:
    """A learning rate far too high: the bundle is that of the heads on the frozen backbone."""
    arguments = [*CNN, "--weights", "none", *BOTH_TAGS, "--cache", folder / "cache"]
    fit(mixed, tmp_path / "frozen", *arguments, "--epochs", "3", *SINGLE, "--precision", "float32")
    result = fit(mixed, tmp_path / "spoiled", *arguments, "--fine-tune", "all", "--epochs", "3,1", "--lr", "1e-3,0.5")
    kept = "and its weights are not kept: those of epoch 3, of the heads on the frozen backbone, are."
    assert kept in result.stderr
    frozen, spoiled = (load_bundle(tmp_path / name) for name in ("frozen", "spoiled"))
    assert all(np.array_equal(old, new) for old, new in zip(arrays(frozen), arrays(spoiled), strict=True))
    tables = [(tmp_path / name / "predictions.csv").read_text() for name in ("frozen", "spoiled")]
    assert tables[0] == tables[1]


def test_what_lies_inside_the_bundle_is_refused(mixed: Path, tmp_path: Path) -> None:
    for option in ("--weights", "--tensorboard"):
        inside = tmp_path / "out"
        inside.mkdir(exist_ok=True)
        result = run("fit", "--labels", mixed, *BOTH_TAGS, "--out", tmp_path / "out", option, inside)
        assert result.exit_code == 2
        assert result.stderr.endswith(
            f"Error: {option} {inside} lies inside --out {tmp_path / 'out'}, which is replaced; choose another --out.\n"
        )


def test_layers_of_cnn_are_not_those_of_another_network(mixed: Path, mixed_bundle: Path) -> None:
    for network in (["--backbone", "mobilenet_v2", "--weights", "none"], ["--weights", mixed_bundle]):
        result = run("fit", "--labels", mixed, *BOTH_TAGS, *network, "--filters", "8")
        assert result.exit_code == 2
        assert "--filters" in result.stderr


def test_a_training_is_not_resumed_with_other_parts(
    mixed: Path, facts: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was trained on must not become the test part."""
    import multilabel.bundle

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    names = [fact["id"] for fact in facts]
    parts, out = tmp_path / "parts.txt", tmp_path / "out"
    arguments = [
        "--labels",
        mixed,
        *BOTH_TAGS,
        *CNN,
        "--train-backbone",
        "--epochs",
        "1",
        "--split",
        parts,
        "--out",
        out,
    ]

    def deal(order: list[str]) -> None:
        lines = [f"{name} {('test', 'val', 'train', 'train')[row % 4]}" for row, name in enumerate(order)]
        parts.write_text("\n".join(lines))

    deal(names)
    with monkeypatch.context() as patched:
        patched.setattr(multilabel.bundle, "save", full)
        stopped = run("fit", *arguments)
    assert (stopped.exit_code, out.exists()) == (1, False)
    deal(names[1:] + names[:1])
    refused = run("fit", *arguments, "--resume")
    assert refused.exit_code == 2
    assert "was made with other settings (the parts); give the same ones, or start again" in refused.stderr
    deal(names)
    assert run("fit", *arguments, "--resume").exit_code == 0


def test_a_file_of_names_must_be_there(mixed: Path) -> None:
    result = run("fit", "--labels", mixed, *BOTH_TAGS, *CNN, "--train-backbone", "--split", "nosuch.txt")
    assert result.exit_code == 2
    sentence = "Error: --split nosuch.txt: there is no such file; give a file of names, or a column of the labels."
    assert result.stderr.endswith(f"{sentence}\n")


def test_an_attribute_may_not_be_called_as_a_tag_is(mixed: Path) -> None:
    result = run("fit", "--labels", mixed, *BOTH_TAGS, "--names", "colour")
    assert result.exit_code == 2
    assert result.stderr.endswith(f"{mixed}: --names calls an attribute 'colour', and so is a tag called.\n")


def test_tensorboard_without_a_folder_to_write_to(mixed: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "file").touch()
    result = run("fit", "--labels", mixed, *BOTH_TAGS, "--tensorboard", tmp_path / "file", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert result.stderr.endswith(f"--tensorboard {tmp_path / 'file'}: is no folder to write to (File exists).\n")


@pytest.mark.slow
@pytest.mark.parametrize("layers", ["all", "20"])
def test_mobilenet_is_fine_tuned(layers: str, mixed: Path, folder: Path, tmp_path: Path) -> None:
    arguments = ["--backbone", "mobilenet_v2", "--weights", "none", "--image-size", "32", "--epochs", "1,1", *PLAIN]
    fit(mixed, tmp_path / "out", *arguments, "--fine-tune", layers, *BOTH_TAGS, "--cache", tmp_path / "cache")
    assert phases_of(tmp_path / "out") == [1, 2]
    assert_served_equals_measured(tmp_path / "out", folder / "images", ["colour", "shape"], ["bright"])


# The backbone of an earlier bundle


def test_the_backbone_of_an_earlier_bundle(mixed: Path, folder: Path, tmp_path: Path) -> None:
    """Trained on colours, then frozen for shapes, at another size."""
    trained = tmp_path / "first"
    arguments = ["--labels", mixed, "--attributes", "bright", "--epochs", "1", "--cache", folder / "cache"]
    result = run("fit", *arguments, *TRAINED[:-1], "1", "--tags", "colour", "--out", trained)
    assert result.exit_code == 0, result.output
    second = [*arguments, *SINGLE, "--tags", "shape", "--weights", trained, "--out", tmp_path / "second"]
    result = run("fit", *second, "--backbone", "cnn", "--image-size", "40x48")
    assert result.exit_code == 0, result.output
    assert "random weights" not in result.stderr
    old, new = load_bundle(trained), load_bundle(tmp_path / "second")
    assert (old.backbone.image_size, new.backbone.image_size) == ((32, 32), (40, 48))
    assert (new.backbone.name, new.backbone.cnn) == (old.backbone.name, old.backbone.cnn)
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(arrays(new), arrays(old), strict=True))
    assert_served_equals_measured(tmp_path / "second", folder / "images", ["shape"], ["bright"])
    refused = run("fit", *second, "--backbone", "mobilenet_v2")
    assert refused.exit_code == 2
    assert f"--backbone mobilenet_v2: the bundle {trained} has a cnn; leave out --backbone." in refused.stderr


# What it learns


def test_half_of_all_labels_are_nearly_as_good(tmp_path: Path) -> None:
    """The same test pictures, once with all labels to train on, once with every second cell unknown."""
    facts = draw_all(tmp_path / "images", 144, seed=1)
    rng = np.random.default_rng(2)
    accuracies = []
    for unknown in (0.0, 0.5):
        rows = []
        for number, fact in enumerate(facts):
            part = {0: "test", 1: "val"}.get(number // 3 % 6, "train")  # each has all three colours
            hidden = [part != "test" and draw < unknown for draw in rng.random(2)]
            colour, bright = ("" if hide else fact[tag] for tag, hide in zip(("colour", "bright"), hidden, strict=True))
            rows.append({"id": fact["id"], "colour": colour, "bright": bright, "part": part})
        labels = write_table(tmp_path / f"labels{unknown}.csv", rows)
        out = tmp_path / f"out{unknown}"
        arguments = ["--backbone", "cnn", "--filters", "16,32", "--weights", "none", "--image-size", "32"]
        fit(labels, out, *arguments, "--tags", "colour", "--split", "part", "--lr", "0.05", "--epochs", "15",
            "--cache", tmp_path / "cache")  # fmt: skip
        test_part = read_json(out / "metrics.json")["parts"][1]
        assert test_part["part"] == "test part"
        accuracies.append(test_part["tags"]["colour"]["accuracy"]["value"])
        assert test_part["tags"]["colour"]["better_than_chance"]
        coverage = of_head(out, "colour")["coverage"]
        assert coverage == pytest.approx(1 - unknown, abs=0.12)
    assert accuracies[0] >= 0.85
    assert accuracies[1] >= accuracies[0] - 0.1


@pytest.mark.slow
@pytest.mark.parametrize("attribute", ["stripes", "buttons"])
def test_an_attribute_is_a_tag_of_two_classes(attribute: str, root: Path, tmp_path: Path) -> None:
    """On the same labels and features, the logistic head and the softmax head learn the same.

    Two things differ by design. A step of Adam moves both logits of a tag, so that their difference moves by twice the
    learning rate, which is doubled for the attribute here. And an attribute's positives are weighted up by
    w = negatives / positives: it then says p = w·q / (w·q + 1 − q) where an unweighted model says q, so log w is taken
    off its logit before both are compared at 0.5. The AUC, an order, needs no such thing.
    """
    column = 1 + ("long_sleeves", "stripes", "buttons", "heart").index(attribute)
    rows = [line.split() for line in (root / "data" / "labels.txt").read_text().splitlines()]
    facts = [{"id": row[0], attribute: row[column]} for row in rows]
    labels = write_table(tmp_path / "labels.csv", facts, image="{id}")
    arguments = ["--images", root / "data" / "images", "--cache", tmp_path / "cache", "--val-share", "0.4"]
    arguments += ["--backbone", "cnn", "--weights", "none", "--filters", "16,32,64", "--image-size", "80x64"]
    arguments += ["--epochs", "60", "--patience", "60", "--batch-size", "128", *SINGLE, "--lr"]
    fit(labels, tmp_path / "attribute", *arguments, "2e-2")
    fit(labels, tmp_path / "tag", *arguments, "1e-2", "--tags", attribute)
    of_attribute, of_tag = (pd.read_csv(tmp_path / kind / "predictions.csv") for kind in ("attribute", "tag"))
    assert of_attribute["image"].tolist() == of_tag["image"].tolist()
    assert of_attribute[f"{attribute}_label"].equals(of_tag[f"{attribute}_label"])
    best = of_tag[f"{attribute}_probability"]
    p_tag = best.where(of_tag[f"{attribute}_class"] == 1, 1 - best).to_numpy()
    p = of_attribute[f"{attribute}_probability"].to_numpy()
    (head,) = read_json(tmp_path / "attribute" / "multilabel.json")["heads"]
    p_attribute = p / (p + head["pos_weight"][0] * (1 - p))
    assert np.corrcoef(p_tag, p_attribute)[0, 1] > 0.95
    known = of_tag[f"{attribute}_label"].notna().to_numpy()
    y = of_tag[f"{attribute}_label"][known].astype(int)
    accuracies = [accuracy_score(y, probabilities[known] > 0.5) for probabilities in (p_tag, p_attribute)]
    assert min(accuracies) > 0.7
    assert abs(accuracies[0] - accuracies[1]) <= 0.05
    aucs = [roc_auc_score(y, probabilities[known]) for probabilities in (p_tag, p_attribute)]
    assert abs(aucs[0] - aucs[1]) <= 0.02


@pytest.mark.slow
def test_real_tags_are_better_than_chance(shared: Path, tmp_path: Path) -> None:
    fashion = shared / "data" / "fashion"
    if not fashion.is_dir():
        pytest.skip(f"needs real data in {fashion}, which is not there")
    labels = tmp_path / "styles.csv"
    labels.write_text("\n".join((fashion / "styles.csv").read_text(encoding="utf-8").splitlines()[:601]))
    weights = shared / "weights" / "mobilenet_v2_imagenet_notop.weights.h5"
    tags = ["gender", "masterCategory", "subCategory"]
    arguments = ["--images", fashion / "images", "--tags", ",".join(tags), "--min-share", "0.01", "--rare", "drop"]
    arguments += ["--backbone", "mobilenet_v2", "--weights", weights, "--image-size", "96x72", "--test-share", "0.25"]
    fit(labels, tmp_path / "out", *arguments, *SINGLE, "--cache", tmp_path / "cache")
    assert_metrics_equal_scikit_learn(tmp_path / "out", tags)
    test_part = read_json(tmp_path / "out" / "metrics.json")["parts"][1]
    assert {tag: scores["better_than_chance"] for tag, scores in test_part["tags"].items()} == dict.fromkeys(tags, True)
    assert_served_equals_measured(tmp_path / "out", fashion / "images", tags)
