"""`embed`, `infer --format parquet` and `fit --features` as a user runs them, on one machine."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
from broken_pictures import broken_pictures
from click.testing import CliRunner, Result

from multilabel import CnnShape, engine, load_bundle, sidecar
from multilabel.backbones import build_backbone, computes_in
from multilabel.bundle import load_backbone
from multilabel.cli import main
from multilabel.distributed import job, predicting
from multilabel.distributed.embedded import Embedded
from multilabel.engine import Engine
from multilabel.errors import DataError
from multilabel.images import read_image
from multilabel.labels import LabelTable
from multilabel.places import Folder

NAMES = "long_sleeves,stripes,buttons,heart"


def run(*arguments: object, stdin: str | None = None) -> Result:
    """A command in this process; whatever happens, no traceback."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def refused(*arguments: object) -> tuple[int, str]:
    result = run(*arguments)
    return result.exit_code, result.output.splitlines()[-1]


def features_of(frame: pd.DataFrame) -> np.ndarray:
    return np.stack(frame["feature"].to_list())


@pytest.fixture(scope="module")
def pictures(root: Path) -> list[str]:
    return [str(path) for path in sorted((root / "data" / "images").iterdir())]


@pytest.fixture(scope="module")
def embedded(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The features of the sample data."""
    out = tmp_path_factory.mktemp("embedded") / "features"
    done = run("embed", root / "data" / "images", "--backbone", "cnn", "--shard-size", 100, "--out", out)
    assert done.exit_code == 0, done.output
    assert re.search(rf"{out}: 397 rows, 1 with an error; .*\.\n397 in .* s: .* pictures/s\.", done.output)
    return out


@pytest.fixture(scope="module")
def model(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    arguments = ["--backbone", "cnn", "--names", NAMES, "--cache", folder / "cache", "--out", folder / "model"]
    done = run("fit", "--labels", root / "data" / "labels.txt", *arguments)
    assert done.exit_code == 0, done.output
    return folder / "model"


def test_the_features_are_those_of_the_backbone(embedded, pictures):
    frame = pd.read_parquet(embedded)  # with _job beside the parts
    assert frame["path"].to_list() == pictures
    assert frame[~frame["error"].isna()]["path"].to_list() == [
        path for path in pictures if path.endswith("garment_327.jpg")
    ]
    frame = frame[frame["error"].isna()]
    pictures = frame["path"].to_list()
    backbone = build_backbone("cnn", "embedded", cnn=CnnShape())
    engine = Engine(backbone, "bfloat16" if computes_in("bfloat16") else "float32")
    pixels = np.stack([read_image(path, backbone.image_size) for path in pictures])
    np.testing.assert_allclose(features_of(frame), engine(pixels), rtol=1e-6)
    manifest = json.loads((embedded / "_job" / "manifest.json").read_text())
    assert manifest["model"]["fingerprint"] == engine.fingerprint()
    assert (manifest["pictures"], manifest["shard_size"]) == (397, 100)
    assert sorted(path.name for path in embedded.iterdir()) == [
        "_job",
        *(f"part-{shard:07}.parquet" for shard in range(4)),
    ]


def test_a_rerun_is_of_the_same(embedded, root, pictures):
    again = ["embed", root / "data" / "images", "--out", embedded]
    done = run(*again, "--backbone", "cnn")
    assert done.exit_code == 0
    summary = "397 rows, 1 with an error; --retry-errors tries them again.\n397 were there already.\n"
    assert done.output.endswith(summary)
    code, sentence = refused(*again, "--backbone", "cnn", "--precision", "float32", "--image-size", "32")
    assert code == 2
    assert sentence.startswith(
        f"Error: {embedded} was begun with another model or other settings (backbone image_size [80, 60], now [32, "
    )
    code, sentence = refused("embed", *pictures[1:], "--out", embedded, "--backbone", "cnn")
    assert (code, sentence) == (
        2,
        f"Error: {embedded} was begun with other pictures (397, now 396); choose another folder.",
    )
    code, sentence = refused(*again, "--backbone", "cnn", "--shard-size", 50)
    assert (code, sentence) == (2, f"Error: {embedded} was begun with --shard-size 100; give that, or none.")


def test_fit_on_features_is_fit_on_pictures(embedded, model, root, tmp_path):
    arguments = ["--labels", root / "data" / "labels.txt", "--names", NAMES, "--cache", tmp_path / "cache"]
    done = run("fit", *arguments, "--features", embedded, "--out", tmp_path / "model")
    assert done.exit_code == 0, done.output
    assert "Features: 0 computed, 396 stored already" in done.output
    for name in ("predictions.csv", "metrics.json", "history.csv", "label_issues.csv"):
        assert (tmp_path / "model" / name).read_text() == (model / name).read_text()
    one, two = load_bundle(tmp_path / "model"), load_bundle(model)
    for here, there in zip(one.model.get_weights(), two.model.get_weights(), strict=True):
        np.testing.assert_array_equal(here, there)
    assert one.precision == two.precision


def test_labels_of_pictures_that_are_elsewhere(embedded, root, tmp_path):
    """The labels lie where no picture is, and name pictures by the ends of their paths."""
    lines = (root / "data" / "labels.txt").read_text().splitlines()
    (tmp_path / "labels.txt").write_text("\n".join([*(f"images/{line}" for line in lines), "gone.jpg 1 0 1 0"]))
    arguments = ["fit", "--labels", tmp_path / "labels.txt", "--features", embedded, "--folds", "0", "--epochs", "2"]
    done = run(*arguments, "--out", tmp_path / "model", "--cache", tmp_path / "cache")
    assert done.exit_code == 0, done.output
    assert "Left out, because it is not in --features (4 pictures): images/garment_" in done.output
    skipped = pd.read_csv(tmp_path / "model" / "skipped.csv")
    assert skipped["image"].to_list()[3:] == ["gone.jpg", "images/garment_327.jpg"]
    assert skipped.iloc[4, 1].startswith("truncated or damaged")
    missing = ", ".join(skipped["image"][:4])
    code, sentence = refused(*arguments, "--strict", "--out", tmp_path / "other")
    assert (code, sentence) == (
        1,
        f"Error: {tmp_path}/labels.txt: 4 of 401 pictures are not in --features {embedded} ({missing}).",
    )


def test_names_of_several_pictures(root, tmp_path):
    for place, source in (("a", "garment_000"), ("b", "garment_001"), ("c", "garment_002")):
        (tmp_path / place).mkdir()
        shutil.copy(root / "data" / "images" / f"{source}.jpg", tmp_path / place / "1.jpg")
    shutil.copytree(tmp_path / "a", tmp_path / "a2")
    out = tmp_path / "features"
    assert run("embed", *(tmp_path / place for place in "abc"), "--backbone", "cnn", "--out", out).exit_code == 0
    (tmp_path / "labels.txt").write_text("1.jpg 1\nc/1.jpg 0\n")
    code, sentence = refused("fit", "--labels", tmp_path / "labels.txt", "--features", out, "--out", tmp_path / "m")
    assert (code, sentence) == (
        1,
        f"Error: {tmp_path}/labels.txt: '1.jpg' may be {tmp_path}/a/1.jpg or {tmp_path}/b/1.jpg; "
        "write more of its path into the file.",
    )
    (tmp_path / "labels.txt").write_text("x.jpg 1\ny.jpg 0\n")
    code, sentence = refused("fit", "--labels", tmp_path / "labels.txt", "--features", out, "--out", tmp_path / "m")
    assert (code, sentence) == (
        1,
        f"Error: {tmp_path}/labels.txt: 2 of 2 pictures are not in --features {out} (x.jpg, y.jpg).",
    )


def test_labels_that_name_pictures_from_where_they_lie(root, tmp_path):
    """`../images/1.jpg` in a labels file is the picture `images/1.jpg`, wherever that was when it was embedded."""
    out = tmp_path / "features"
    names = ["garment_000.jpg", "garment_001.jpg", "garment_002.jpg", "garment_003.jpg"]
    given = [root / "data" / "images" / name for name in names]
    assert run("embed", *given, "--backbone", "cnn", "--out", out).exit_code == 0
    labels = tmp_path / "labels.txt"
    fit = ["fit", "--labels", labels, "--features", out, "--folds", "0", "--epochs", "1", "--val-share", "0.4"]
    fit += ["--cache", tmp_path / "cache", "--out", tmp_path / "model"]
    labels.write_text("".join(f"../images/{name} {row % 2}\n" for row, name in enumerate(names)))
    done = run(*fit)
    assert done.exit_code == 0, done.output
    assert "4 stored already" in done.output
    assert pd.read_csv(tmp_path / "model" / "skipped.csv").empty
    labels.write_text("garment_000.jpg 1\n../garment_000.jpg 0\n")
    assert refused(*fit) == (
        1,
        f"Error: {labels}: 'garment_000.jpg' and '../garment_000.jpg' may both be garment_000.jpg; write more of their "
        "paths.",
    )


@pytest.mark.parametrize(
    ("rows", "outcome"),
    [
        ([("/x/a.jpg", None), ("/x/a.jpg", b"D"), ("/y/a.jpg", b"D")], b"D"),
        ([("/x/a.jpg", None), ("/y/a.jpg", None), ("/x/a.jpg", None)], None),
        ([("/x/a.jpg", None), ("/y/a.jpg", b"D"), ("/y/a.jpg", None)], "labels.txt: 'a.jpg' may be /"),
        ([("/x/a.jpg", b"D"), ("/y/a.jpg", b"E"), ("/y/b.jpg", b"D")], "labels.txt: 'a.jpg' may be /"),
        ([("/x/a.jpg", b"D"), ("/x/a.jpg", b"E"), ("/x/a.jpg", None)], "F: /x/a.jpg changed while it was"),
    ],
)
def test_the_order_of_rows_means_nothing(rows, outcome):
    for order in itertools.permutations(rows):
        embedded = Embedded.__new__(Embedded)
        embedded._found, embedded._job = {}, SimpleNamespace(out="F")
        embedded._rows = lambda order=order: ((path, digest, "" if digest else "unreadable") for path, digest in order)
        table = LabelTable(("a.jpg",), np.ones((1, 1), np.int8), ("present",))
        if isinstance(outcome, str):
            with pytest.raises(DataError) as caught:
                embedded.locate(table, "labels.txt", strict=False)
            assert str(caught.value).startswith(outcome)
        else:
            found, _ = embedded.locate(table, "labels.txt", strict=False)
            assert embedded._found[found.images[0]][0] == outcome


def test_rows_of_one_picture(root, tmp_path):
    """A picture that was listed twice counts if it could be read once; what it holds must not have changed."""
    out, picture, labels = tmp_path / "features", tmp_path / "1.jpg", tmp_path / "labels.txt"
    for name in ("1.jpg", "2.jpg", "3.jpg", "4.jpg"):
        shutil.copy(root / "data" / "images" / "garment_000.jpg", tmp_path / name)
    shutil.copy(root / "data" / "images" / "garment_001.jpg", tmp_path / "2.jpg")
    others = [tmp_path / name for name in ("2.jpg", "3.jpg", "4.jpg")]
    embed = ["embed", picture, picture, *others, "--backbone", "cnn", "--shard-size", "1", "--out", out]
    assert run(*embed).exit_code == 0
    readable = (out / "part-0000000.parquet").read_bytes()
    row = pd.read_parquet(out / "part-0000000.parquet")
    schema = pyarrow.parquet.read_schema(out / "part-0000000.parquet")

    def replaced(**values: object) -> None:
        table = pyarrow.Table.from_pandas(row.assign(**values), schema=schema, preserve_index=False)
        pyarrow.parquet.write_table(table, out / "part-0000000.parquet")

    labels.write_text("1.jpg 1\n2.jpg 0\n3.jpg 1\n4.jpg 0\n")
    fit = ["fit", "--labels", labels, "--features", out, "--folds", "0", "--epochs", "1", "--val-share", "0.4"]
    fit += ["--cache", tmp_path / "cache", "--out", tmp_path / "model"]
    replaced(sha256=None, feature=None, error="permission denied")
    done = run(*fit)
    assert done.exit_code == 0, done.output
    assert pd.read_csv(tmp_path / "model" / "skipped.csv").empty
    replaced(sha256="ab" * 32)
    sentence = f"Error: {out}: {picture} changed while it was embedded twice; embed into another folder."
    assert refused(*fit) == (1, sentence)
    (out / "part-0000000.parquet").write_bytes(readable)
    assert run(*fit).exit_code == 0


def test_what_features_are_not(embedded, model, root, tmp_path):
    arguments = ["fit", "--labels", root / "data" / "labels.txt", "--out", tmp_path / "m", "--features"]
    assert refused(*arguments, tmp_path / "absent") == (
        1,
        f"Error: {tmp_path}/absent is no folder that `multilabel embed` has written.",
    )
    assert refused(*arguments, embedded, "--backbone", "cnn", "--images", tmp_path) == (
        2,
        "Error: --features has pictures and backbone as they were embedded; leave out --images, --backbone.",
    )
    incomplete = tmp_path / "incomplete"
    shutil.copytree(embedded, incomplete)
    (incomplete / "part-0000002.parquet").unlink()
    assert refused(*arguments, incomplete) == (
        1,
        f"Error: {incomplete}: parts missing or damaged: 1 of 4; run the same `multilabel embed` again, which makes "
        "them.",
    )
    (weights,) = (incomplete / "_job").glob("model-*.weights.h5")
    shutil.copy(embedded / "part-0000002.parquet", incomplete)
    weights.write_bytes(weights.read_bytes()[:-1000])
    code, sentence = refused(*arguments, incomplete)
    assert code == 1
    assert sentence.startswith(f"Error: {weights} is damaged (")
    predicted = tmp_path / "predicted"
    picture = root / "data" / "images" / "garment_000.jpg"
    assert run("infer", picture, "--model", model, "--format", "parquet", "--output", predicted).exit_code == 0
    assert refused(*arguments, predicted) == (
        1,
        f"Error: {predicted} was written by `multilabel infer`; expected `embed`.",
    )


def test_predictions_are_those_of_csv(model, root, pictures, tmp_path):
    broken = []
    for name, data in broken_pictures(10):
        (tmp_path / name).write_bytes(data)
        broken.append(str(tmp_path / name))
    given = [*pictures[:50], *broken, tmp_path / "absent.jpg", *pictures[50:90]]
    arguments = ["infer", *given, "--model", model, "--threshold", "heart=0.25"]
    done = run(*arguments, "--format", "parquet", "--output", tmp_path / "parts", "--shard-size", "30")
    assert done.exit_code == 0, done.output
    assert f"{tmp_path / 'parts'}: 101 rows, 11 with an error; --retry-errors tries them again." in done.output
    run(*arguments, "--format", "csv", "--output", tmp_path / "rows.csv")
    parts, rows = pd.read_parquet(tmp_path / "parts"), pd.read_csv(tmp_path / "rows.csv")
    assert parts.columns.to_list() == ["path", "sha256", *rows.columns[1:-1], "error"]
    assert parts["path"].to_list() == rows["image"].to_list() == [str(path) for path in given]
    assert parts["error"].fillna("").to_list() == rows["error"].fillna("").to_list()
    for name in NAMES.split(","):
        np.testing.assert_allclose(parts[f"{name}_probability"], rows[f"{name}_probability"], rtol=1e-5)
        assert parts[f"{name}_present"].dropna().astype(int).to_list() == rows[f"{name}_present"].dropna().to_list()
    spelt_out = ["--runtime", "tensorflow", "--precision", load_bundle(model).engine.precision]
    again = run(*arguments, *spelt_out, "--format", "parquet", "--output", tmp_path / "parts")
    assert again.exit_code == 0
    assert again.output.endswith("101 were there already.\n")
    changed = run(*arguments[:-1], "heart=0.5", "--format", "parquet", "--output", tmp_path / "parts")
    assert changed.exit_code == 2
    assert "was begun with another model or other settings (thresholds heart 0.25, now 0.5)" in changed.output


def test_tags_and_undecided_ones(root, tmp_path):
    """The tags of a bundle, in both forms."""
    rng = np.random.default_rng(0)
    names = [path.name for path in sorted((root / "data" / "images").iterdir())[:60]]
    table = pd.DataFrame({"image": names, "kind": rng.choice(["a", "b", "c"], 60), "sort": rng.choice(["x", "y"], 60)})
    table.to_csv(tmp_path / "labels.csv", index=False)
    source = ["--labels", tmp_path / "labels.csv", "--images", root / "data" / "images", "--tags", "kind,sort"]
    settings = ["--backbone", "cnn", "--folds", "0", "--epochs", "3", "--cache", tmp_path, "--out", tmp_path / "model"]
    assert run("fit", *source, *settings).exit_code == 0
    arguments = ["infer", root / "data" / "images", "--model", tmp_path / "model", "--min-confidence", "0.45"]
    assert run(*arguments, "--format", "parquet", "--output", tmp_path / "parts").exit_code == 0
    run(*arguments, "--format", "csv", "--output", tmp_path / "rows.csv")
    parts, rows = pd.read_parquet(tmp_path / "parts"), pd.read_csv(tmp_path / "rows.csv")
    for tag in ("kind", "sort"):
        assert parts[f"{tag}_class"].fillna("").to_list() == rows[f"{tag}_class"].fillna("").to_list()
        np.testing.assert_allclose(parts[f"{tag}_probability"], rows[f"{tag}_probability"], rtol=1e-5)
    undecided = parts["kind_class"].isna()
    assert 1 < undecided.sum() < len(parts)
    assert (~(parts["kind_probability"] >= 0.45)).to_list() == undecided.to_list()


def test_a_bundles_backbone(model, pictures, tmp_path):
    out = tmp_path / "features"
    done = run("embed", *pictures[:5], "--model", model, "--out", out)
    assert done.exit_code == 0, done.output
    bundle = load_bundle(model)
    pixels = np.stack([read_image(path, bundle.image_size) for path in pictures[:5]])
    expected = Engine(load_backbone(model), bundle.engine.precision)(pixels)
    np.testing.assert_allclose(features_of(pd.read_parquet(out)), expected, rtol=1e-6)
    code, sentence = refused("embed", pictures[0], "--model", model, "--backbone", "cnn", "--out", tmp_path / "other")
    assert (code, sentence) == (
        2,
        f"Error: --model {model} has its own backbone; leave out --backbone and --weights.",
    )
    code, sentence = refused("embed", pictures[0], "--weights", model, "--out", tmp_path / "other")
    assert (code, sentence) == (2, f"Error: --weights {model} is a folder; give a bundle with --model.")


def test_what_fit_has_stored_is_taken(model, root, tmp_path, monkeypatch):
    """No feature is computed: the store that `fit` filled has them all."""
    from multilabel.distributed.embedding import Embedding

    def refuse(self, pixels):
        raise AssertionError("computed")

    monkeypatch.setattr(Embedding, "__call__", refuse)
    cache = model.parent / "cache"
    arguments = ["embed", root / "data" / "images", "--backbone", "cnn", "--out"]
    done = run(*arguments, tmp_path / "out", "--cache", cache)
    assert done.exit_code == 0, done.output
    done = run(*arguments, tmp_path / "other", "--cache", tmp_path / "empty")
    assert done.exit_code == 1
    assert not (tmp_path / "empty").exists()


def test_wrong_calls(model, pictures, tmp_path):
    infer = ["infer", pictures[0], "--model", model]
    assert refused(*infer, "--engine", "local") == (
        2,
        "Error: --format parquet writes a folder of parts; name it with --output.",
    )
    assert refused(*infer, "--shard-size", "5") == (
        2,
        "Error: --shard-size belongs to --format parquet; add that, or leave it out.",
    )
    assert refused(*infer, "--format", "csv", "--engine", "ray") == (
        2,
        "Error: --engine belongs to --format parquet; add that, or leave it out.",
    )
    assert refused(*infer, "--format", "parquet", "--output", tmp_path / "o", "--sheet", tmp_path / "s.html") == (
        2,
        "Error: --sheet shows predictions that are printed; leave it out with --format parquet.",
    )
    embed = ["embed", pictures[0], "--backbone", "cnn", "--out", tmp_path / "out"]
    assert refused(*embed, "--address", "auto") == (
        2,
        "Error: --address belongs to --engine ray; add that, or leave it out.",
    )
    assert refused(*embed, "--engine", "ray", "--cache", tmp_path) == (
        2,
        "Error: --cache: the feature store is used by --engine local alone; leave it out.",
    )
    assert refused(*embed, "--column", "file") == (
        2,
        "Error: --column file is for tables (.csv, .tsv, .parquet), and none was given; leave it out.",
    )
    assert refused("embed", tmp_path / "no.txt", *embed[2:]) == (
        1,
        f"Error: {tmp_path}/no.txt: cannot be read (no such file).",
    )
    assert refused(*embed[:-1], "nonsense://out")[0] == 2
    assert refused("embed", tmp_path / "nothing", *embed[2:]) == (
        1,
        f"Error: {tmp_path}/nothing: there is no such file or folder.",
    )
    result = run("embed", tmp_path / "no.jpg", "--backbone", "cnn", "--out", tmp_path / "errors")
    assert result.exit_code == 1
    assert f"\nNo picture could be read ({tmp_path}/no.jpg: no such file).\n" in result.output
    assert not list((tmp_path / "out").rglob("*.*"))


def test_a_machine_that_computes_something_else(model, pictures, tmp_path, monkeypatch):
    """What `infer` begins where folding goes well is not continued where it does not."""
    infer = ["infer", *pictures[:6], "--model", model, "--format", "parquet", "--output", tmp_path / "out"]
    assert run(*infer, "--shard-size", "3").exit_code == 0
    (begun,) = (tmp_path / "out" / "_job").glob("manifest.json")
    assert json.loads(begun.read_text())["model"]["folded"] is True
    there = job.read(str(tmp_path / "out"))
    assert predicting.load(there).image_size == (80, 60)
    monkeypatch.setattr(engine, "_SAME", -1)
    monkeypatch.setitem(engine._ROUNDED, "bfloat16", -1)
    with pytest.raises(DataError) as caught:
        predicting.load(there)
    assert str(caught.value) == (
        "this machine computes other probabilities than the one that began the job (on one of them folding the "
        "backbone goes wrong); continue on one like that, or begin in another folder."
    )
    (tmp_path / "out" / "part-0000000.parquet").unlink()
    code, sentence = refused(*infer)
    assert (code, sentence) == (
        2,
        f"Error: {tmp_path / 'out'} was begun with another model or other settings (folded true, now false); choose "
        "another folder.",
    )


def test_what_a_killed_command_left_of_another_model(tmp_path):
    """Files that were half copied, of this model or another one, are none of the model's."""
    model = tmp_path / "m.saved_model"
    (model / "variables").mkdir(parents=True)
    for name in ("saved_model.pb", "variables/variables.index"):
        (model / name).write_bytes(name.encode())
    sidecar.sidecar_of(model).write_text("{}")
    said = {"sha256": predicting._digest_of(model)}
    own = Folder(str(tmp_path / "out"))
    predicting.put(model, {"sha256": "0" * 64}, own)
    (tmp_path / "out" / f"model-{'0' * 16}" / model.name / "more").write_bytes(b"of another")
    predicting.put(model, said, own)
    copy = tmp_path / "out" / f"model-{said['sha256'][:16]}" / model.name
    (copy / "variables" / ".new-0123").write_bytes(b"half")
    predicting.put(model, said, own)
    assert predicting._digest_of(copy) == said["sha256"]


def test_random_weights_are_the_same_again(pictures, tmp_path):
    arguments = ["embed", *pictures[:2], "--backbone", "cnn", "--weights", "none", "--out", tmp_path / "out"]
    assert run(*arguments).exit_code == 0
    keras.utils.set_random_seed(1)
    done = run(*arguments)
    assert done.exit_code == 0
    assert done.output.endswith("2 were there already.\n")


def test_ctrl_c_before_anything_is_begun(model, pictures, tmp_path, monkeypatch):
    def stop(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "begin", stop)
    monkeypatch.setattr(os, "_exit", sys.exit)
    infer = ["infer", pictures[0], "--model", model, "--format", "parquet", "--output", tmp_path / "out"]
    embed = ["embed", pictures[0], "--backbone", "cnn", "--out", tmp_path / "out"]
    for arguments in (infer, embed):
        sentence = "Stopped; parts that are finished are kept, and the same command continues."
        assert refused(*arguments) == (1, sentence)


@pytest.mark.parametrize(("package", "engine", "extra"), [("pyarrow", "local", "parquet"), ("ray", "ray", "ray")])
def test_missing_packages(package, engine, extra, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "find_spec", lambda name: None if name == package else object())
    what = "Parquet" if package == "pyarrow" else "--engine ray"
    assert refused("embed", pictures[0], "--backbone", "cnn", "--engine", engine, "--out", tmp_path / "out") == (
        2,
        f"Error: {what} needs another package; install it with `pip install 'multilabel[{extra}]'`.",
    )


def test_paths_on_stdin_and_behind_urls(pictures, tmp_path, embedded):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.store.clear()
    for path in pictures[:6]:
        memory.pipe_file(f"/bucket/{Path(path).name}", Path(path).read_bytes())
    done = run("embed", "-", "--backbone", "cnn", "--out", "memory://features", stdin="\n".join(pictures[:6]))
    assert done.exit_code == 0, done.output
    done = run("embed", "memory://bucket/", "--backbone", "cnn", "--out", tmp_path / "out", "--shard-size", "4")
    assert done.exit_code == 0, done.output
    frame = pd.read_parquet(tmp_path / "out")
    expected = features_of(pd.read_parquet(embedded)[:6])
    np.testing.assert_array_equal(features_of(frame), expected)
    with memory.open("/features/part-0000000.parquet") as file:
        np.testing.assert_array_equal(features_of(pd.read_parquet(file)), expected)
    done = run("embed", *pictures[:6], "--backbone", "cnn", "--out", "memory://features")
    assert "6 were there already." in done.output
    lines = [f"{Path(path).name} {number % 2}" for number, path in enumerate(pictures[:6])]
    (tmp_path / "labels.txt").write_text("\n".join(lines))
    arguments = ["--labels", tmp_path / "labels.txt", "--epochs", "2", "--cache", tmp_path, "--out", tmp_path / "model"]
    done = run("fit", *arguments, "--features", "memory://features", "--val-share", "0.4")
    assert done.exit_code == 0, done.output
    memory.store.clear()


@pytest.mark.slow
def test_killed_at_any_moment_the_next_run_finishes_and_is_equal(embedded, root, tmp_path):
    command = [sys.executable, "-m", "multilabel", "embed", str(root / "data" / "images"), "--backbone", "cnn"]
    command += ["--shard-size", "20", "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "none")]
    chance, kills, kept = random.Random(0), 0, 0
    while kept < 16:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # Another part or two, and then a random moment: to begin takes much longer than all parts together.
        while len(list((tmp_path / "out").glob("part-*"))) < kept + 2:
            assert process.poll() is None
            time.sleep(0.001)
        time.sleep(chance.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        before, kept = kept, len(list((tmp_path / "out").glob("part-*")))
        assert kept >= before + 2
        kills += 1
    assert kills >= 3
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out"), pd.read_parquet(embedded))
    assert all(path.name.startswith(".new-") for path in (tmp_path / "out").glob(".*"))  # a later run sweeps them
    assert "were there already." in output


@pytest.mark.slow
def test_ctrl_c_is_one_sentence(root, tmp_path):
    command = [sys.executable, "-m", "multilabel", "embed", str(root / "data" / "images"), "--backbone", "cnn"]
    command += ["--shard-size", "2", "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "none")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list((tmp_path / "out").glob("part-*")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert re.search(
        rf"Stopped; \d+ of 397 rows are in {tmp_path}/out, and the same command continues\.$", said.strip()
    )
    assert "Traceback" not in said


@pytest.mark.slow
def test_memory_does_not_grow_with_the_pictures(root, tmp_path):
    """200,000 rows of repeated small pictures: the most memory is that of 20,000, but for a little."""
    pictures = [str(path) for path in sorted((root / "data" / "images").iterdir())][:40]
    largest = {}
    for count in (20_000, 200_000):
        chance = random.Random(count)
        with open(tmp_path / f"{count}.txt", "w") as file:
            file.writelines(f"{chance.choice(pictures)}\n" for _ in range(count))
        code = (
            "import resource, sys; from multilabel.cli import main\n"
            "main(sys.argv[1:], standalone_mode=False)\n"
            "print('memory', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        arguments = ["embed", str(tmp_path / f"{count}.txt"), "--backbone", "cnn", "--out", str(tmp_path / f"{count}")]
        command = [sys.executable, "-c", code, *arguments, "--cache", str(tmp_path / "none")]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ})
        assert f"{count:,} rows, 0 with an error" in done.stdout
        largest[count] = int(done.stdout.split("memory ")[1]) / 1024
    print(f"\nlargest memory: {largest[20_000]:.0f} MiB of 20,000 rows, {largest[200_000]:.0f} MiB of 200,000")
    assert largest[200_000] < largest[20_000] + 150  # the features alone are 768 MB
