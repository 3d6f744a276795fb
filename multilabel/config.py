"""The defaults of `fit`, in one place; the command line and the library both read them here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from .errors import UsageError

FORMATS = ("auto", "aimonk", "csv", "tsv")
LARGEST_BETA = 100.0


@dataclass(frozen=True)
class FitConfig:
    """Everything that `fit` can be told, with its defaults.

    Attributes:
        labels: the labels file.
        images: the folder of the pictures; `None`: `images/` beside the labels file, else its folder.
        format: one of `FORMATS`; `"auto"` decides by content.
        names: attribute names instead of the file's own (or of `attr1..attrK`).
        strict: any absent picture is an error.
        out: the bundle's folder.
        run_name: title of the loss curve; `None`: the name of `out`.
        backbone: an architecture of `keras.applications`, or `cnn`.
        weights: `"imagenet"`, `"none"` or a file; `None`: imagenet, and none for `cnn`.
        image_size: (height, width) in pixels, or one number for both; `None`: what the architecture was made for.
        train_backbone: train the backbone together with the heads instead of freezing it.
        val_share: share of the pictures that is kept for validation: to stop training and to choose thresholds by.
        test_share: share of the pictures that neither training, stopping nor thresholds see; 0 for none.
        epochs: passes over the training part, at most.
        lr: Adam's learning rate.
        batch_size: pictures per step, in training.
        patience: epochs without a better validation loss before training stops.
        beta: thresholds maximise F-beta; above 1 favours recall.
        seed: of the split, the initial weights and the order of the pictures.
        cache: folder of the stored features; `None`: the user's cache folder.

    Raises:
        UsageError: if a value is out of range.
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
    test_share: float = 0.0
    epochs: int = 200
    lr: float = 1e-3
    batch_size: int = 32
    patience: int = 10
    beta: float = 1.0
    seed: int = 0
    cache: Path | None = None

    def __post_init__(self) -> None:
        """Turns strings into paths, and checks every number before any work is done."""
        for name in ("labels", "images", "out", "cache"):
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, Path(getattr(self, name)))
        if isinstance(self.names, str):
            object.__setattr__(self, "names", tuple(name.strip() for name in self.names.split(",")))
        if isinstance(self.image_size, int):
            object.__setattr__(self, "image_size", (self.image_size, self.image_size))
        if not 0 < self.val_share < 1:
            raise UsageError(f"--val-share is {self.val_share}; expected a number between 0 and 1, such as 0.2.")
        if not 0 <= self.test_share < 1 - self.val_share:
            raise UsageError(
                f"--test-share is {self.test_share}; expected 0, or a number that leaves pictures to train on "
                f"beside --val-share {self.val_share}."
            )
        if not 0 < self.beta <= LARGEST_BETA:
            raise UsageError(f"--beta is {self.beta}; expected a number above 0, and at most {LARGEST_BETA:g}.")
        if not (0 < self.lr < math.inf):
            raise UsageError(f"--lr is {self.lr}; expected a number above 0, such as 0.001.")
        for name in ("epochs", "batch_size", "patience"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name.replace('_', '-')} is {getattr(self, name)}; expected 1 or more.")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"--seed is {self.seed}; expected a whole number from 0 to {2**32 - 1}.")
