"""The command line: parse, call one function, print. Everything heavy is imported inside the commands."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import __version__, options
from .config import (
    AUGMENTATIONS,
    BATCH_NORMS,
    CLASS_WEIGHTS,
    DEFAULT_BACKBONE,
    EXPORT_FORMATS,
    LARGEST_BETA,
    LOSSES,
    MISSING,
    MONITORS,
    POS_WEIGHTS,
    PRECISIONS,
    RARE,
    SCHEDULES,
    SOLVERS,
    CnnShape,
    FitConfig,
)
from .errors import UsageError
from .options import cnn_option, fit_option, limit_option
from .parameters import BELOW_ONE, FILE, POSITIVE, SHARE, ImageSize, Layers, ListOf, Weight, per_phase
from .streams import silent_stderr
from .terminal import check_outputs, import_keras, listed, sentences, written_to

if TYPE_CHECKING:
    from .evaluation import Evaluation
    from .inference import Model
    from .sheet import Sheet

_STOPPED_PARTS = "Stopped; parts that are finished are kept, and the same command continues."


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="multilabel")
def main() -> None:
    """Train, threshold and honestly measure models on pictures with partially labelled attributes."""


@main.command()
@click.option(
    "--labels",
    type=FILE,
    required=True,
    help="Labels: lines like `photo.jpg 1 NA 0`, CSV/TSV, fashion styles.csv, or a folder of its JSON files.",
)
@options.images
@fit_option("--features", metavar="DIR|URL", help="What `embed` has written, instead of pictures and backbone.")
@options.label_format
@options.columns
@options.strict
@fit_option("--min-count", type=click.IntRange(0), help="Fewest labels that a class of a tag needs.")
@fit_option("--min-share", type=BELOW_ONE, help="Share of its tag's labels that a class needs.")
@fit_option("--rare", type=click.Choice(RARE), help="Smaller classes become one class together, or unknown.")
@fit_option("--pool-name", help="Name of the pooled class.")
@fit_option("--out", type=FILE, help="Folder of the bundle to write.")
@fit_option("--run-name", help="Name of the run, title of the loss curve.  [default: the name of --out]")
@fit_option(
    "--backbone",
    help=f"An architecture of keras.applications, or cnn.  [default: {DEFAULT_BACKBONE}, or the bundle's in --weights]",
)
@fit_option(
    "--weights",
    metavar="imagenet|embedded|none|FILE|BUNDLE",
    help="Weights of the backbone.  [default: imagenet; for cnn embedded, or none if it is trained]",
)
@fit_option("--image-size", type=ImageSize(), help="Size of the model's input.  [default: the backbone's own]")
@cnn_option("--filters", type=ListOf(click.INT, "N,N,..."), help="cnn: filters of each block.")
@cnn_option("--kernel-size", type=ListOf(click.INT, "N[,N,...]"), help="cnn: side of the convolutions.")
@cnn_option("--dense-units", type=click.INT, help="cnn: units of a dense layer on top; 0: none.")
@cnn_option("--batch-norm", type=click.Choice(BATCH_NORMS), help="cnn: before the activation, after it, or none.")
@cnn_option("--dropout", type=BELOW_ONE, help="cnn: dropout on top.")
@fit_option("--train-backbone", is_flag=True, help="Train the backbone too, from the start, instead of freezing it.")
@fit_option("--fine-tune", type=Layers(), help="Second phase: train all of the backbone too, or its last N layers.")
@fit_option("--augment", type=click.Choice(AUGMENTATIONS), help="Changes to pictures in training.")
@fit_option("--views", type=click.IntRange(1), help="Frozen backbone: store so many augmented views of each picture.")
@fit_option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="What the backbone computes in: frozen its features, and wherever the bundle serves; trained its training "
    "alone. auto: frozen bfloat16 if the processor computes in it (on a GPU float16), trained float32.",
)
@fit_option(
    "--folds",
    type=click.IntRange(0, 100),
    help="Measure each of so many folds by heads that learnt from the others; 0: one validation part.  "
    "[default: 5 with a frozen backbone, else 0]",
)
@fit_option("--val-share", type=SHARE, help="Share of the pictures kept for validation.")
@fit_option("--test-share", type=BELOW_ONE, help="Share kept aside for an untouched test.")
@fit_option("--split", metavar="COLUMN|FILE", help="Column, or file of lines `photo.jpg test`, that fixes the parts.")
@fit_option("--solver", type=click.Choice(SOLVERS), help="Of heads on a frozen backbone: Adam, or L-BFGS with L2.")
@fit_option("--epochs", type=per_phase(click.IntRange(1)), help="Passes over the training part, at most.")
@fit_option("--lr", type=per_phase(POSITIVE), help="Adam's learning rate.")
@fit_option("--patience", type=per_phase(click.IntRange(1)), help="Epochs without a better --monitor before it stops.")
@fit_option("--batch-size", type=click.IntRange(1), help="Pictures per training step.")
@fit_option("--schedule", type=click.Choice(SCHEDULES), help="Learning rate while the backbone is trained.")
@fit_option("--warmup", type=click.FloatRange(0), help="Epochs over which a cosine schedule rises first.")
@fit_option("--monitor", type=click.Choice(MONITORS), help="What stopping follows on the validation part.")
@fit_option("--ema", type=BELOW_ONE, help="Momentum of the weights' moving average, backbone trained; 0: none.")
@fit_option("--loss", type=click.Choice(LOSSES), help="Loss of the attributes.")
@fit_option("--missing", type=click.Choice(MISSING), help="What unknown cells of attributes count in training.")
@fit_option(
    "--pos-weight",
    type=click.Choice(POS_WEIGHTS),
    help="balanced: an attribute's 1s count as much as its 0s, in bce and focal with --missing ignore.",
)
@fit_option("--class-weight", type=click.Choice(CLASS_WEIGHTS), help="balanced: rare classes of a tag count as much.")
@fit_option("--label-smoothing", type=BELOW_ONE, help="Share of a tag's target spread over all classes.")
@click.option("--loss-weight", "loss_weights", type=Weight(), multiple=True, help="Factor on a tag's loss; repeatable.")
@fit_option(
    "--beta",
    type=click.FloatRange(0, LARGEST_BETA, min_open=True),
    help="Thresholds maximise F-beta; above 1 favours recall.",
)
@fit_option(
    "--calibrate/--no-calibrate",
    "calibrate",
    help="Make probabilities agree with shares, where that pays.  [default: yes]",
)
@fit_option("--permutations", type=click.IntRange(0), help="Shuffles of the labels, for a p-value of each attribute.")
@fit_option("--seed", type=click.IntRange(0, 2**32 - 1), help="Seed of split, initial weights and order.")
@fit_option("--resume", is_flag=True, help="Continue an interrupted training of the backbone.")
@fit_option("--tensorboard", type=FILE, help="Folder for TensorBoard's event files.")
@options.cache
def fit(**settings: Any) -> None:
    """Train, threshold and measure a model; write its bundle."""
    with sentences(
        "Stopped; no bundle was written. What is stored until now is kept: features, and checkpoints for --resume."
    ):
        from .pipeline import fit

        settings["cnn"] = CnnShape(**{field: settings.pop(name) for name, field in options.CNN_OPTIONS.items()})
        settings["loss_weights"] = dict(settings["loss_weights"])
        result = fit(FitConfig(**settings), progress=True)
    for evaluation in result.evaluations:
        _show(evaluation)
    click.echo(f"\nThe bundle is in {result.out}; use it with: multilabel infer --model {result.out} PICTURE...")


@main.command()
@click.option("--labels", type=FILE, required=True, help="Labels, in a format of fit's.")
@options.images
@options.label_format
@options.columns
@click.option("--split", metavar="COLUMN", help="Column that fixes the parts; copies in different parts are named.")
@click.option(
    "--min-count",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    help="Fewer labels of a class or attribute are few.",
)
@click.option(
    "--image-size",
    type=ImageSize(),
    default="224",
    show_default=True,
    help="Size of the model's input, to compare the pictures with.",
)
@click.option("--out", type=FILE, help="HTML page to write, with pictures.  [default: the terminal alone]")
def inspect(labels: Path, images: Path | None, out: Path | None, **settings: Any) -> None:
    """Look at labels and pictures before training: gaps, copies, contradictions, broken files."""
    with sentences("Stopped; nothing was written.", with_keras=False):
        check_outputs({"--out": out}, labels)
        from .inspection import inspect_labels
        from .inspection_page import inspection_html, inspection_text
        from .page import write

        inspection = inspect_labels(labels, images, progress=True, **settings)
        with written_to(None) as terminal:
            terminal.write(f"{inspection_text(inspection)}\n")
        if out is not None:
            write(out, inspection_html(inspection))
            click.echo(f"\nThe page is {out}.")


@main.command()
@options.model
@options.other_labels
@click.option("--output", type=FILE, help="JSON file to write the scores to, too.")
def evaluate(model: Path, output: Path | None, **settings: Any) -> None:
    """Measure a bundle on labels that it has not seen."""
    with sentences("Stopped; features that were computed are kept."):
        check_outputs({"--output": output}, settings["labels"], model=model)
        from .bundle import load
        from .measuring import evaluate_bundle

        evaluation = evaluate_bundle(load(model), progress=True, **settings)
        _show(evaluation)
        if output is not None:
            with written_to(output) as file:
                json.dump(evaluation.to_json(), file, indent=2, ensure_ascii=False, allow_nan=False)
                file.write("\n")


@main.command()
@options.model
@options.other_labels
@click.option("--max-f1", is_flag=True, help="Thresholds maximise F1; that is what they do anyway.")
@click.option(
    "--beta",
    type=click.FloatRange(0, LARGEST_BETA, min_open=True),
    help="Thresholds maximise F-beta; above 1 favours recall.",
)
@click.option(
    "--min-precision",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Thresholds have the highest recall that keeps this precision on pictures to come, with 95% certainty.",
)
@click.option("--shared", is_flag=True, help="One threshold for all attributes, the best for them together.")
def tune(
    model: Path,
    max_f1: bool,
    beta: float | None,
    min_precision: float | None,
    shared: bool,
    **source: Any,
) -> None:
    """Choose a bundle's thresholds anew, on labels that it has not seen; nothing is trained."""
    with sentences("Stopped; the bundle is as it was, and features that were computed are kept."):
        if max_f1 + (beta is not None) + (min_precision is not None) > 1:
            raise UsageError("--max-f1, --beta and --min-precision exclude one another; give one of them.")
        if shared and min_precision is not None:
            raise UsageError("--min-precision is kept by each attribute for itself; leave out --shared.")
        from .measuring import LabelSource
        from .report import change_table
        from .tuning import Choice, tune

        choice = Choice(1.0 if beta is None else beta, min_precision, shared)
        result = tune(model, LabelSource(**source), choice, progress=True)
        click.echo(f"\n{change_table(result.before, result.after)}")
        _show(result.after)
    click.echo(f"\nThe new thresholds are in {model}.")


def _show(evaluation: Evaluation) -> None:
    from .evaluation import verdicts
    from .report import score_table

    click.echo(f"\n{score_table(evaluation)}\n")
    for sentence in verdicts(evaluation):
        click.echo(sentence)


@main.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--out", required=True, metavar="DIR|URL", help="Folder of the Parquet parts; all machines have to see it."
)
@click.option("--backbone", help=f"An architecture of keras.applications, or cnn.  [default: {DEFAULT_BACKBONE}]")
@click.option(
    "--weights",
    metavar="imagenet|embedded|none|FILE",
    help="Weights of the backbone.  [default: imagenet; for cnn embedded]",
)
@click.option("--model", type=FILE, help="Bundle whose backbone it is, instead of --backbone and --weights.")
@click.option("--image-size", type=ImageSize(), help="Size of the backbone's input.  [default: the backbone's own]")
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="auto",
    show_default=True,
    help="What the backbone computes in. auto: the bundle's, or what is fastest here.",
)
@options.cluster
@options.cache
def embed(
    paths: Sequence[str],
    out: str,
    backbone: str | None,
    weights: str | None,
    model: Path | None,
    image_size: tuple[int, int] | None,
    precision: str,
    column: str | None,
    cache: Path | None,
    **cluster: Any,
) -> None:
    """Write features of pictures: files, folders, lists, tables of paths, URLs, or - (paths on stdin).

    A run that stopped is continued by the same command. `fit --features` trains heads on what it writes.
    """
    with sentences(_STOPPED_PARTS):
        from . import distributed

        where = distributed.Cluster(**_given(cluster))
        distributed.check_installed(where.engine, out)
        built, settled = distributed.backbone_for(backbone, weights, image_size, model, precision)
        done = distributed.embed(
            built, listed(paths), out, precision=settled, column=column, cache=cache, cluster=where, progress=True
        )
        click.echo(done)
    if done.errors == done.pictures:
        sys.exit(1)


@main.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@options.served_model
@options.thresholds
@options.min_confidence
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "csv", "json", "jsonl", "parquet"]),
    help="text for people, the others for programs; parquet for any number of pictures.  [default: text, with "
    "--engine parquet]",
)
@click.option("--output", type=click.Path(), help="File to write, of parquet a folder or URL.  [default: stdout]")
@click.option("--sheet", type=FILE, help="Also write a page (.html) or picture (.png) of pictures and predictions.")
@click.option("--labels", type=FILE, help="Labels file; its labels stand beside the predictions of --sheet.")
@options.runtime
@options.precision
@options.cluster
def infer(
    paths: Sequence[str],
    model: Path,
    thresholds: Sequence[str],
    min_confidence: float,
    style: str | None,
    output: str | None,
    sheet: Path | None,
    labels: Path | None,
    runtime: str | None,
    precision: str | None,
    **cluster: Any,
) -> None:
    """Predict pictures: files, folders, or - (paths on stdin).

    With --format parquet also lists and tables of paths, and URLs; a run that stopped is continued by the same command.
    """
    given = _given(cluster)
    parts = style == "parquet" or (style is None and "engine" in given)
    printed = "Stopped; what was not printed is lost, and no --output file was written."
    with sentences(_STOPPED_PARTS if parts else printed, with_keras=False):
        if parts:
            for option, value in {"--sheet": sheet, "--labels": labels}.items():
                if value is not None:
                    raise UsageError(
                        f"{option} shows predictions that are printed; leave it out with --format parquet."
                    )
            _infer_parts(paths, model, thresholds, min_confidence, output, runtime, precision, given)
            return
        for name in given:
            raise UsageError(f"--{name.replace('_', '-')} belongs to --format parquet; add that, or leave it out.")
        from . import inference, sidecar

        beside = (sidecar.sidecar_of(model), *sidecar.files_of(model))
        out = None if output is None else Path(output)
        check_outputs({"--output": out, "--sheet": sheet}, *beside, labels, *paths, model=model)
        loaded = inference.with_thresholds(_loaded(model, runtime, precision), thresholds)
        predictions = inference.predict(loaded, listed(paths), min_confidence=min_confidence)
        shown = _sheet(loaded, sheet, labels)
        with written_to(out) as file:
            passing = predictions if shown is None else shown.gather(predictions)
            failed, pictures = inference.write(passing, loaded, style or "text", file)
        if shown is not None:
            shown.write()
            for remark in shown.remarks():
                click.echo(remark, err=True)
    _warn_of_chance(loaded.not_better_than_chance)
    if not pictures:
        click.echo("There were no pictures to predict.", err=True)
    if failed:
        click.echo(f"{failed} of {pictures} pictures could not be read.", err=True)
        sys.exit(1)


@main.command()
@click.argument("path", type=FILE)
@options.model
@click.option("--attribute", help="Attribute to explain.  [default: all, and each tag's likeliest class]")
@click.option("--tag", help="Tag to explain.")
@click.option("--class", "class_name", help="Class of --tag.  [default: the likeliest]")
@click.option(
    "--out",
    type=FILE,
    default=Path("."),
    help="Folder of the pictures, called PATH_ATTRIBUTE.png; of one alone, also a PNG file.  [default: this folder]",
)
def explain(path: Path, model: Path, **settings: Any) -> None:
    """Show where in a picture the evidence for attributes and tags lies."""
    with sentences("Stopped; what was written until now is kept."):
        check_outputs({"--out": settings["out"]}, model=model)
        from .bundle import load
        from .explain import write

        loaded = load(model)
        written = write(loaded, path, **settings)
        with written_to(None) as file:
            for explanation, out in written:
                print(f"{explanation.title} {explanation.probability:.2f}: {out}", file=file)
    explained = {explanation.name for explanation, _ in written}
    _warn_of_chance([name for name in loaded.not_better_than_chance if name in explained])


@main.command()
@options.model
@click.option(
    "--format",
    type=click.Choice(EXPORT_FORMATS),
    required=True,
    help="onnx, openvino and litert are for these runtimes; saved_model for TensorFlow, keras for Keras.",
)
@click.option(
    "--out",
    type=FILE,
    help="File to write; of saved_model a folder.  [default: beside the bundle, with its name and the format's suffix]",
)
@click.option(
    "--int8",
    is_flag=True,
    help="In whole numbers of 8 bits: a third of the size, and faster. With openvino alone, whose int8 is the best.",
)
@click.option(
    "--calibrate-on", type=FILE, metavar="DIR", help="--int8: pictures that show how large numbers become; 32 or more."
)
@click.option(
    "--check-on",
    type=FILE,
    metavar="DIR",
    help="Pictures to check on.  [default: those of the bundle if they are still there, else generated ones]",
)
@click.option(
    "--labels",
    type=FILE,
    help="--int8: labels of other pictures, to measure bundle and export on, and to choose thresholds anew.",
)
@options.images
@options.cache
def export(labels: Path | None, images: Path | None, cache: Path | None, **settings: Any) -> None:
    """Write a bundle for another runtime, checked on pictures; and a JSON file that says what its numbers mean."""
    with sentences("Stopped; nothing was written."):
        for option, value in {"--images": images, "--cache": cache}.items():
            if value is not None and labels is None:
                raise UsageError(f"{option} belongs to --labels; add --labels, or leave it out.")
        from .export import export_folder
        from .measuring import LabelSource

        source = None if labels is None else LabelSource(labels, images, cache=cache)
        done = export_folder(settings.pop("model"), settings.pop("format"), labels=source, progress=True, **settings)
    if done.measured:
        for title, evaluation in (("The bundle", done.measured.before), ("The export", done.measured.after)):
            click.echo(f"\n{title}:")
            _show(evaluation)
    with written_to(None) as terminal:
        terminal.write(f"{done.summary()}\n")


@main.command()
@options.served_model
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 is all of them.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Port; 0 is a free one.")
@options.thresholds
@options.min_confidence
@options.runtime
@options.precision
@click.option("--api-key-file", type=FILE, help="File of a key that every question has to bring.  [default: none]")
@click.option(
    "--cors-origin",
    "origins",
    multiple=True,
    metavar="ORIGIN",
    help="Other site whose pages may ask, such as https://example.org; may be repeated.  [default: none]",
)
@limit_option("--max-files", 256, 32, "Pictures of a request.")
@limit_option("--max-file-mb", 1000, 20, "Megabytes of a picture.")
@limit_option("--max-body-mb", 10_000, 100, "Megabytes of a request.")
@limit_option("--max-megapixels", 89, 50, "Megapixels of a picture.")
@limit_option("--timeout", 3600, 30, "Seconds for a request to arrive, and for its answer.")
def serve(
    model: Path,
    host: str,
    port: int,
    thresholds: Sequence[str],
    min_confidence: float,
    runtime: str | None,
    precision: str | None,
    api_key_file: Path | None,
    origins: Sequence[str],
    max_files: int,
    max_file_mb: int,
    max_body_mb: int,
    max_megapixels: int,
    timeout: int,
) -> None:
    """Answer over HTTP: a page at /, an API for programs, described at /docs."""
    with sentences("Stopped.", with_keras=False):
        from . import server

        server.check_installed()
        from .inference import with_thresholds
        from .server.limits import MEGABYTE, Limits

        key = None if api_key_file is None else server.read_key(api_key_file)
        for origin in origins:
            if not re.fullmatch(r"\*|https?://[^/\s]+", origin):
                raise UsageError(f"--cors-origin {origin}: expected a scheme and a host, such as https://example.org.")
        limits = Limits(
            file_bytes=max_file_mb * MEGABYTE,
            files=max_files,
            body_bytes=max_body_mb * MEGABYTE,
            pixels=max_megapixels * 1_000_000,
            seconds=timeout,
        )
        listening = server.listen(host, port)
        loaded = with_thresholds(_loaded(model, runtime, precision), thresholds)
        _warn_of_chance(loaded.not_better_than_chance)
        if key is None and host not in ("127.0.0.1", "::1", "localhost"):
            click.echo(f"Whoever reaches {host} may ask: there is no --api-key-file.", err=True)
        click.echo(f"{loaded.run_name} is served at {server.url_of(listening)}; Ctrl-C stops.")
        settings: dict[str, Any] = {"min_confidence": min_confidence, "key": key, "origins": origins}
        answered = server.serve(model, loaded, listening, limits, **settings)
    click.echo(f"Stopped; {'what was accepted is answered' if answered else 'requests were dropped'}.", err=True)


def _infer_parts(
    paths: Sequence[str],
    model: Path,
    thresholds: Sequence[str],
    min_confidence: float,
    output: str | None,
    runtime: str | None,
    precision: str | None,
    given: Mapping[str, Any],
) -> None:
    """`infer --format parquet`."""
    if output is None:
        raise UsageError("--format parquet writes a folder of parts; name it with --output.")
    from . import distributed

    where = distributed.Cluster(**{name: value for name, value in given.items() if name != "column"})
    distributed.check_installed(where.engine, output)
    from .inference import with_thresholds

    loaded = with_thresholds(_loaded(model, runtime, precision), thresholds)
    done = distributed.infer(
        model,
        loaded,
        listed(paths),
        output,
        runtime=runtime,
        min_confidence=min_confidence,
        column=given.get("column"),
        cluster=where,
        progress=True,
    )
    click.echo(done)
    _warn_of_chance(loaded.not_better_than_chance)
    if done.errors == done.pictures:
        sys.exit(1)


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a person gave."""
    return {name: value for name, value in values.items() if value is not None}


def _loaded(model: Path, runtime: str | None, precision: str | None) -> Model:
    """The model, with as little as its runtime needs."""
    from . import runtimes

    if runtimes.needs_tensorflow(model, runtime):
        import_keras()
    # LiteRT announces itself on stderr.
    with silent_stderr() if model.suffix == ".tflite" else nullcontext():
        return runtimes.load(model, runtime, precision)


def _sheet(model: Model, path: Path | None, labels: Path | None) -> Sheet | None:
    if path is None and labels is not None:
        raise UsageError("--labels stand beside the predictions of a --sheet; give one, such as --sheet sheet.html.")
    if path is None:
        return None
    from .sheet import Sheet

    if labels is None:
        return Sheet(model, path)
    from .matching import labels_for

    return Sheet(model, path, labels_for(model, labels))


def _warn_of_chance(names: Sequence[str]) -> None:
    if names:
        listed = ", ".join(names)
        click.echo(f"Not better than chance when the model was measured, so do not rely on: {listed}.", err=True)
