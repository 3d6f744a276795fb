"""The defaults of `fit`, in one place; the command line and the library both read them here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FitConfig:
    """Everything that `fit` can be told, with its defaults.

    Attributes:
        labels: the labels file.
        images: the folder of the pictures; `None`: `images/` beside the labels file, else its folder.
        format: `"auto"` (by content), `"aimonk"`, `"csv"` or `"tsv"`.
        names: attribute names instead of the file's own (or of `attr1..attrK`).
        strict: any absent picture is an error.
        out: the bundle's folder.
        run_name: title of the loss curve; `None`: the name of `out`.
        backbone: an architecture of `keras.applications`, or `cnn`.
        weights: `"imagenet"`, `"none"` or a file; `None`: imagenet, and none for `cnn`.
        image_size: (height, width) in pixels; `None`: what the architecture was made for.
        train_backbone: train the backbone together with the heads instead of freezing it.
        val_share: share of the pictures that is kept for validation, between 0 and 1.
        epochs: passes over the training part, at most.
        lr: Adam's learning rate; `None`: 1e-3.
        batch_size: pictures per step, in training.
        patience: epochs without a better validation loss before training stops.
        beta: thresholds maximise F-beta; above 1 favours recall.
        seed: of the split, the initial weights and the order of the pictures.
        cache: folder of the stored features; `None`: the user's cache folder.
    """

    labels: Path
    images: Path | None = None
    format: str = "auto"
    names: tuple[str, ...] | None = None
    strict: bool = False
    out: Path = Path("model")
    run_name: str | None = None
    backbone: str = "resnet50"
    weights: str | None = None
    image_size: tuple[int, int] | None = None
    train_backbone: bool = False
    val_share: float = 0.2
    epochs: int = 200
    lr: float = 1e-3
    batch_size: int = 32
    patience: int = 10
    beta: float = 1.0
    seed: int = 0
    cache: Path | None = None
