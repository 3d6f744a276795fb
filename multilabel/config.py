"""The defaults of `fit`, in one place; the command line and the library both read them here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import UsageError

FORMATS = ("auto", "aimonk", "csv", "tsv", "fashion")
ENGINES = ("local", "ray")
RUNTIMES = ("tensorflow", "onnxruntime", "openvino")  # that run bundles; the first does it as they are
EXPORT_FORMATS = ("onnx", "openvino", "litert", "saved_model", "keras")
SOLVERS = ("adam", "lbfgs")
FOLDS = 5  # where nothing else is said
LARGEST_BETA = 100.0
DEFAULT_BACKBONE = "resnet50"
AUGMENTATIONS = ("none", "light", "strong", "randaugment")
RARE = ("pool", "drop")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
SCHEDULES = ("constant", "cosine", "plateau")
MONITORS = ("loss", "accuracy")
CLASS_WEIGHTS = ("none", "balanced")
LOSSES = ("bce", "focal", "asl", "hill", "splc")
MISSING = ("ignore", "negative", "selective", "ll-r", "ll-ct")
POS_WEIGHTS = ("balanced", "none")
BATCH_NORMS = ("before", "after", "none")
LARGEST_LAYER = 4096
LARGEST_KERNEL = 31


@dataclass(frozen=True)
class CnnShape:
    """The layers of `cnn`: blocks of convolution, BatchNorm, ReLU and pooling, then perhaps a dense layer.

    Attributes:
        filters: of the convolution of each block; one block each.
        kernel_sizes: side of the convolutions in pixels, one for all blocks or one per block.
        dense_units: of a dense layer with ReLU on top of the pooled responses; 0 for none.
        batch_norm: where BatchNorm stands, one of `BATCH_NORMS`: before the ReLU, after it, or nowhere.
        dropout: share of the features that a step of training leaves out; 0 for none.

    Raises:
        UsageError: if a value is out of range.
    """

    filters: tuple[int, ...] = (32, 64, 128, 256)
    kernel_sizes: tuple[int, ...] = (3,)
    dense_units: int = 0
    batch_norm: str = "before"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Turns lists and single numbers into tuples, and checks every value."""
        for name in ("filters", "kernel_sizes"):
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if isinstance(value, list | tuple) else (value,))
        if not self.filters or not all(_is_whole(count, 1, LARGEST_LAYER) for count in self.filters):
            raise UsageError(
                f"--filters is {_listed(self.filters)}; expected for each block a whole number "
                f"from 1 to {LARGEST_LAYER}, such as 16,32,64."
            )
        if len(self.kernel_sizes) not in (1, len(self.filters)) or not all(
            _is_whole(side, 1, LARGEST_KERNEL) for side in self.kernel_sizes
        ):
            raise UsageError(
                f"--kernel-size is {_listed(self.kernel_sizes)}; expected a whole number from 1 to {LARGEST_KERNEL}, "
                f"or one for each of the {len(self.filters)} blocks of --filters {_listed(self.filters)}."
            )
        if not _is_whole(self.dense_units, 0, LARGEST_LAYER):
            raise UsageError(
                f"--dense-units is {self.dense_units}; expected a whole number up to {LARGEST_LAYER}, or 0 for none."
            )
        if self.batch_norm not in BATCH_NORMS:
            raise UsageError(f"--batch-norm is {self.batch_norm}; expected one of {', '.join(BATCH_NORMS)}.")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"--dropout is {self.dropout}; expected a number from 0 to below 1, such as 0.3.")

    @property
    def kernels(self) -> tuple[int, ...]:
        """The convolutions' sides, one per block."""
        return self.kernel_sizes if len(self.kernel_sizes) > 1 else self.kernel_sizes * len(self.filters)


def _is_whole(value: object, smallest: int, largest: int) -> bool:
    return isinstance(value, int) and smallest <= value <= largest


def _listed(values: tuple[object, ...]) -> str:
    return ",".join(map(str, values)) or "empty"


@dataclass(frozen=True)
class FitConfig:
    """Everything that `fit` can be told, with its defaults.

    Training has two phases: the heads on the frozen backbone's features, then, if `fine_tune` says so, heads and
    backbone together on augmented pictures. `epochs`, `lr` and `patience` are pairs, one value for each phase; a
    single value is meant for the first. With `train_backbone` there is one phase, heads and backbone together from
    the first step, and the first value counts.

    Attributes:
        labels: the labels file, or a folder of one JSON file per picture.
        images: the folder of the pictures; `None`: `images/` beside the labels file, else its folder.
        format: one of `FORMATS`; `"auto"` decides by content.
        tags: columns of several classes each; only files with a header have them.
        attributes: columns with 1, 0 and unknown; `None`: all that are left, none in the fashion formats.
        names: attribute names instead of the file's own (or of `attr1..attrK`).
        strict: any absent picture is an error.
        min_count: fewest labels that a class of a tag needs.
        min_share: share of its tag's known labels that a class needs.
        rare: what becomes of smaller classes: `"pool"`, one class together, or `"drop"`, unknown.
        pool_name: what the pooled class is called.
        out: the bundle's folder.
        run_name: title of the loss curve; `None`: the name of `out`.
        backbone: an architecture of `keras.applications`, or `cnn`; `None`: `DEFAULT_BACKBONE`, or that of the bundle
            in `weights`.
        weights: `"imagenet"`, `"embedded"` (of `cnn`), `"none"`, a file or a bundle; `None`: the first of these
            that the backbone has, but `"none"` for a `cnn` that is trained or of another shape.
        cnn: the shape of `cnn`.
        image_size: (height, width) in pixels, or one number for both; `None`: what the architecture was made for.
        train_backbone: train the backbone together with the heads from the start.
        fine_tune: `"none"`, `"all"` or how many of the backbone's last layers the second phase trains.
        augment: one of `AUGMENTATIONS`, for what trains the backbone, and for `views`.
        views: with a frozen backbone, how many views of each picture are stored, the first of them unchanged.
        precision: what the backbone computes in: a frozen one its features, here and wherever the bundle serves; one
            that is trained its training alone, and all else in float32. `"float32"`, `"bfloat16"`, `"float16"` or
            `"auto"`: if it is frozen float16 on a GPU, or bfloat16 on a processor that computes in it; else float32.
        folds: into how many the pictures outside of the test part are dealt; each fold is measured by heads that learnt
            from the others, and the model that is kept learns from all. 0: one validation part; `None`: `FOLDS` while
            the backbone is frozen, unless there are too few labels or `split` fixes a validation part.
        val_share: share of the pictures that is kept to stop training by; with folds, of the pictures of the others.
        test_share: share of the pictures that neither training, stopping nor thresholds see; 0 for none.
        split: a column of the labels file, or a file of names, that fixes the parts instead.
        solver: of heads on a frozen backbone, one of `SOLVERS`: `"adam"`, step by step; or `"lbfgs"`, the minimum of
            the loss, L2 regularised as is best for each attribute and tag.
        epochs: passes over the training part, at most.
        lr: Adam's learning rate.
        patience: epochs without a better monitored value before training stops.
        batch_size: pictures per step, in training.
        schedule: one of `SCHEDULES`, of the learning rate where the backbone is trained.
        warmup: epochs over which the learning rate first rises to `lr`, in the schedule `"cosine"`.
        monitor: what stopping follows on the validation part: `"loss"` or `"accuracy"`.
        ema: momentum of the moving average of the weights where the backbone is trained; 0 for none.
        loss: of the attributes, one of `LOSSES`.
        missing: what unknown cells of attributes count in training, one of `MISSING`. Where that depends on the epoch,
            each phase counts its own.
        pos_weight: `"balanced"`: in `"bce"` and `"focal"` the known 1s of an attribute count as much as its known 0s,
            as long as unknown cells are ignored; or `"none"`.
        class_weight: `"balanced"`: the classes of a tag count the same, rare or not; or `"none"`.
        label_smoothing: share of a tag's target that is spread over all its classes.
        loss_weights: per tag (or `"attributes"`) a factor on its loss; 1 where absent.
        beta: thresholds maximise F-beta; above 1 favours recall.
        calibrate: make probabilities agree with shares, where the held-out log loss gains by it.
        permutations: of the labels, for a p-value of each attribute; 0 for none.
        seed: of the split, the initial weights and the order of the pictures.
        resume: continue an interrupted training of the backbone.
        tensorboard: folder for TensorBoard's event files.
        cache: folder of the stored features; `None`: the user's cache folder.
        features: folder or URL of features that `embed` has written, of the backbone that it was run with; the pictures
            are then those that their names in the labels file are the ends of.

    Raises:
        UsageError: if a value is out of range.
    """

    labels: Path
    images: Path | None = None
    format: str = "auto"
    tags: tuple[str, ...] = ()
    attributes: tuple[str, ...] | None = None
    names: tuple[str, ...] | None = None
    strict: bool = False
    min_count: int = 0
    min_share: float = 0.0
    rare: str = "pool"
    pool_name: str = "None"
    out: Path = Path("model")
    run_name: str | None = None
    backbone: str | None = None
    weights: str | None = None
    cnn: CnnShape = CnnShape()
    image_size: tuple[int, int] | None = None
    train_backbone: bool = False
    fine_tune: str | int = "none"
    augment: str = "none"
    views: int = 1
    precision: str = "auto"
    folds: int | None = None
    val_share: float = 0.2
    test_share: float = 0.0
    split: str | None = None
    solver: str = "adam"
    epochs: tuple[int, ...] = (200, 10)
    lr: tuple[float, ...] = (1e-3, 1e-4)
    patience: tuple[int, ...] = (10, 5)
    batch_size: int = 32
    schedule: str = "constant"
    warmup: float = 0.0
    monitor: str = "loss"
    ema: float = 0.0
    loss: str = "bce"
    missing: str = "ignore"
    pos_weight: str = "balanced"
    class_weight: str = "none"
    label_smoothing: float = 0.0
    loss_weights: Mapping[str, float] = field(default_factory=dict)
    beta: float = 1.0
    calibrate: bool = True
    permutations: int = 0
    seed: int = 0
    resume: bool = False
    tensorboard: Path | None = None
    cache: Path | None = None
    features: str | None = None

    def __post_init__(self) -> None:
        """Turns strings into paths and lists, and checks every value before any work is done."""
        for name in ("labels", "images", "out", "cache", "tensorboard"):
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, Path(getattr(self, name)))
        for name in ("tags", "attributes", "names"):
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, tuple(part.strip() for part in getattr(self, name).split(",")))
        if isinstance(self.image_size, int):
            object.__setattr__(self, "image_size", (self.image_size, self.image_size))
        for name in _PER_PHASE:
            object.__setattr__(self, name, self._of_both_phases(name))
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise UsageError(f"{_option(name)} is {getattr(self, name)!r}; choose from {', '.join(choices)}.")
        self._check_numbers()
        self._check_together()

    def _of_both_phases(self, name: str) -> tuple[Any, ...]:
        """The values of an option for each phase; a single value is the first phase's."""
        value = getattr(self, name)
        given = value if isinstance(value, tuple | list) else (value,)
        if len(given) not in (1, 2):
            raise UsageError(f"{_option(name)} takes one value, or two for the two phases; got {len(given)}.")
        defaults: tuple[Any, ...] = getattr(type(self), name)  # a default is the class's attribute
        return (*given, *defaults[len(given) :])

    def _check_numbers(self) -> None:
        if not 0 < self.val_share < 1:
            raise UsageError(f"--val-share is {self.val_share}; expected a number between 0 and 1, such as 0.2.")
        if not 0 <= self.test_share < 1 - self.val_share:
            raise UsageError(
                f"--test-share is {self.test_share}; expected 0, or a number that leaves pictures to train on "
                f"beside --val-share {self.val_share}."
            )
        if self.folds is not None and not (self.folds == 0 or (isinstance(self.folds, int) and 2 <= self.folds <= 100)):
            raise UsageError(
                f"--folds is {self.folds}; expected 0 for a single split, or a whole number from 2 to 100."
            )
        if not 0 < self.beta <= LARGEST_BETA:
            raise UsageError(f"--beta is {self.beta}; expected a number above 0, and at most {LARGEST_BETA:g}.")
        for lr in self.lr:
            if not (0 < lr < math.inf):
                raise UsageError(f"--lr is {lr}; expected a number above 0, such as 0.001.")
        for name in ("epochs", "patience", "batch_size", "views"):
            values = getattr(self, name)
            for value in values if isinstance(values, tuple) else (values,):
                if value < 1 or value != int(value):
                    raise UsageError(f"{_option(name)} is {value}; expected a whole number, 1 or more.")
        for name in ("min_share", "label_smoothing", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{_option(name)} is {getattr(self, name)}; expected 0 or more, and less than 1.")
        if self.permutations != int(self.permutations):
            raise UsageError(f"--permutations is {self.permutations}; expected a whole number, such as 200.")
        for name in ("min_count", "warmup", "permutations"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"{_option(name)} is {getattr(self, name)}; expected 0 or more.")
        for name, weight in self.loss_weights.items():
            if not 0 < weight < math.inf:
                raise UsageError(f"--loss-weight {name} is {weight}; expected a number above 0.")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"--seed is {self.seed}; expected a whole number from 0 to {2**32 - 1}.")

    def _check_together(self) -> None:
        if self.fine_tune not in ("none", "all") and not (isinstance(self.fine_tune, int) and self.fine_tune > 0):
            raise UsageError(
                f"--fine-tune is {self.fine_tune!r}; expected all, none, or how many of the last layers to train."
            )
        if self.train_backbone and self.fine_tune != "none":
            raise UsageError("--train-backbone trains everything from the start; leave out --fine-tune.")
        if self.views > 1 and self.augment == "none":
            raise UsageError("--views stores augmented pictures; choose how with --augment light or strong.")
        if self.views > 1 and self.train_backbone:
            raise UsageError("--views is for a frozen backbone; leave out --train-backbone.")
        if self.folds and self.trains_backbone:
            raise UsageError("--folds is for a frozen backbone; leave it out where the backbone is trained.")
        if self.permutations and (self.folds == 0 or self.trains_backbone):
            raise UsageError("--permutations trains heads on folds of stored features; it needs --folds.")
        if self.permutations and self.missing in ("selective", "ll-r", "ll-ct"):
            raise UsageError(
                f"--permutations trains many heads side by side, which --missing {self.missing} would mix up."
            )
        if self.split is not None and self.test_share:
            raise UsageError("--split fixes the test part, too; leave out --test-share.")
        if not self.pool_name.strip():
            raise UsageError("--pool-name is blank; expected a name for the pooled class, such as other.")
        if not self.tags:
            idle = [name for name in _TAGS_ONLY if getattr(self, name) != getattr(type(self), name)]
            if idle:
                raise UsageError(f"{', '.join(map(_option, idle))} would do nothing without --tags.")
        if self.fine_tune == "none":
            for name in _PER_PHASE:
                if getattr(self, name)[1] != getattr(type(self), name)[1]:
                    raise UsageError(
                        f"{_option(name)} has a value for fine-tuning; add --fine-tune, or give one value."
                    )
        if not self.trains_backbone:
            idle = [name for name in _BACKBONE_ONLY if getattr(self, name) != getattr(type(self), name)]
            if self.augment != "none" and self.views == 1:
                idle.append("augment")
            if idle:
                raise UsageError(
                    f"{', '.join(map(_option, idle))} would do nothing while the backbone is frozen; "
                    "add --fine-tune or --train-backbone" + (", or --views 4." if "augment" in idle else ".")
                )
        if self.solver == "lbfgs":
            self._check_lbfgs()
        if self.features is not None:
            idle = [name for name in _OF_PICTURES if getattr(self, name) != getattr(type(self), name)]
            if idle:
                listed = ", ".join(map(_option, idle))
                raise UsageError(f"--features has pictures and backbone as they were embedded; leave out {listed}.")
        if self.pos_weight != "balanced" and (self.missing != "ignore" or self.loss not in ("bce", "focal")):
            raise UsageError(
                "--pos-weight would do nothing: positives are balanced only in --loss bce or focal, "
                "with --missing ignore."
            )
        if self.missing != "ignore" and self.loss in ("hill", "splc"):
            raise UsageError(f"--loss {self.loss} decides what unknown cells count; leave out --missing.")
        if self.warmup and self.schedule != "cosine":
            raise UsageError("--warmup belongs to --schedule cosine; choose that, or leave out --warmup.")

    def _check_lbfgs(self) -> None:
        if self.trains_backbone:
            raise UsageError(
                "--solver lbfgs trains heads on a frozen backbone; leave it out, or --fine-tune and --train-backbone."
            )
        if self.loss != "bce" or self.missing not in ("ignore", "negative"):
            given = f"--loss {self.loss}" if self.loss != "bce" else f"--missing {self.missing}"
            raise UsageError(
                f"--solver lbfgs finds the minimum of losses that have but one, and with {given} there are many; "
                "leave it out, or choose --loss bce with --missing ignore or negative."
            )
        idle = [name for name in _STEPS_ONLY if getattr(self, name) != getattr(type(self), name)]
        if idle:
            raise UsageError(
                f"{', '.join(map(_option, idle))} would do nothing with --solver lbfgs, which takes no steps of Adam."
            )

    def check_without_attributes(self) -> None:
        """For labels that have only tags: makes sure that nothing was set in vain.

        Raises:
            UsageError: a setting is about attributes alone.
        """
        idle = [name for name in _ATTRIBUTES_ONLY if getattr(self, name) != getattr(type(self), name)]
        if idle:
            raise UsageError(
                f"{', '.join(map(_option, idle))} would do nothing without attributes, and the labels have only tags."
            )

    @property
    def trains_backbone(self) -> bool:
        """Whether any phase changes the backbone's weights."""
        return self.train_backbone or self.fine_tune != "none"


_ATTRIBUTES_ONLY = ("loss", "missing", "pos_weight", "permutations")
_TAGS_ONLY = ("min_count", "min_share", "class_weight", "label_smoothing")
_PER_PHASE = ("epochs", "lr", "patience")
_STEPS_ONLY = ("epochs", "lr", "patience", "batch_size")
_OF_PICTURES = (
    *("images", "backbone", "weights", "cnn", "image_size", "precision"),
    *("train_backbone", "fine_tune", "views"),
)
_BACKBONE_ONLY = ("schedule", "warmup", "ema", "resume")
_CHOICES = {
    "format": FORMATS,
    "rare": RARE,
    "augment": AUGMENTATIONS,
    "precision": PRECISIONS,
    "schedule": SCHEDULES,
    "monitor": MONITORS,
    "solver": SOLVERS,
    "loss": LOSSES,
    "missing": MISSING,
    "pos_weight": POS_WEIGHTS,
    "class_weight": CLASS_WEIGHTS,
}


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
