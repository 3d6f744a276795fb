"""`FitConfig` checks itself, so that the library refuses what the command line refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from multilabel.config import CnnShape, FitConfig
from multilabel.errors import UsageError


def test_strings_become_paths_and_one_side_both() -> None:
    config = FitConfig("data/labels.txt", out="model", cache="cache", image_size=64)  # type: ignore[arg-type]
    assert (config.labels, config.out, config.cache) == (Path("data/labels.txt"), Path("model"), Path("cache"))
    assert config.images is None
    assert config.image_size == (64, 64)


def test_names_become_lists() -> None:
    config = FitConfig(Path("labels.csv"), tags="season, colour", attributes="hat", names="a,b")  # type: ignore[arg-type]
    assert (config.tags, config.attributes, config.names) == (("season", "colour"), ("hat",), ("a", "b"))


def test_defaults() -> None:
    config = FitConfig(Path("labels.txt"))
    assert (config.epochs, config.lr, config.patience) == ((200, 10), (1e-3, 1e-4), (10, 5))
    assert (config.augment, config.views, config.precision, config.cnn) == ("none", 1, "auto", CnnShape())
    assert (config.folds, config.calibrate, config.permutations) == (None, True, 0)
    assert not config.trains_backbone
    assert FitConfig(Path("labels.txt"), tags=("a",)).loss_weights == {}
    assert replace(config) == config  # what it has made of its values it takes again


@pytest.mark.parametrize(
    ("given", "pair"),
    [(7, (7, 10)), ((7,), (7, 10)), ([7], (7, 10)), ((7, 8), (7, 8)), ([7, 8], (7, 8))],
)
def test_a_value_for_each_phase(given: Any, pair: tuple[int, int]) -> None:
    assert FitConfig(Path("labels.txt"), epochs=given, fine_tune="all").epochs == pair


def test_one_value_leaves_the_second_phase_its_own() -> None:
    config = FitConfig(Path("labels.txt"), lr=0.5, patience=3)  # type: ignore[arg-type]
    assert (config.lr, config.patience) == ((0.5, 1e-4), (3, 5))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, False),
        ({"train_backbone": True}, True),
        ({"fine_tune": "all"}, True),
        ({"fine_tune": 3}, True),
        ({"views": 4, "augment": "light"}, False),
    ],
)
def test_what_trains_the_backbone(options: dict[str, Any], expected: bool) -> None:
    assert FitConfig(Path("labels.txt"), **options).trains_backbone is expected


NAN, INFINITY = float("nan"), float("inf")
FOLDS = "expected 0 for a single split, or a whole number from 2 to 100."
NEEDS_FOLDS = "--permutations trains heads on folds of stored features; it needs --folds."
FROZEN = "--folds is for a frozen backbone; leave it out where the backbone is trained."
BELOW_ONE = "expected 0 or more, and less than 1."
LAYERS = "expected all, none, or how many of the last layers to train."
IDLE_POS_WEIGHT = (
    "--pos-weight would do nothing: positives are balanced only in --loss bce or focal, with --missing ignore."
)
IDLE = "would do nothing while the backbone is frozen; add --fine-tune or --train-backbone"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"val_share": 0.0}, "--val-share is 0.0; expected a number between 0 and 1, such as 0.2."),
        ({"val_share": NAN}, "--val-share is nan; expected a number between 0 and 1, such as 0.2."),
        (
            {"test_share": 0.8},
            "--test-share is 0.8; expected 0, or a number that leaves pictures to train on beside --val-share 0.2.",
        ),
        ({"folds": 1}, f"--folds is 1; {FOLDS}"),
        ({"folds": -5}, f"--folds is -5; {FOLDS}"),
        ({"folds": 101}, f"--folds is 101; {FOLDS}"),
        ({"folds": 2.5}, f"--folds is 2.5; {FOLDS}"),
        ({"permutations": -1}, "--permutations is -1; expected 0 or more."),
        ({"beta": -1.0}, "--beta is -1.0; expected a number above 0, and at most 100."),
        ({"beta": INFINITY}, "--beta is inf; expected a number above 0, and at most 100."),
        ({"lr": -1.0}, "--lr is -1.0; expected a number above 0, such as 0.001."),
        ({"lr": INFINITY}, "--lr is inf; expected a number above 0, such as 0.001."),
        ({"lr": (0.1, 0)}, "--lr is 0; expected a number above 0, such as 0.001."),
        ({"lr": (0.1, 0.2, 0.3)}, "--lr takes one value, or two for the two phases; got 3."),
        ({"epochs": ()}, "--epochs takes one value, or two for the two phases; got 0."),
        ({"patience": [1, 2, 3, 4]}, "--patience takes one value, or two for the two phases; got 4."),
        ({"epochs": 0}, "--epochs is 0; expected a whole number, 1 or more."),
        ({"epochs": (5, 0)}, "--epochs is 0; expected a whole number, 1 or more."),
        ({"patience": 0}, "--patience is 0; expected a whole number, 1 or more."),
        ({"patience": (9, -1)}, "--patience is -1; expected a whole number, 1 or more."),
        ({"batch_size": 0}, "--batch-size is 0; expected a whole number, 1 or more."),
        ({"views": 0}, "--views is 0; expected a whole number, 1 or more."),
        ({"min_share": 1.0}, f"--min-share is 1.0; {BELOW_ONE}"),
        ({"label_smoothing": -0.1}, f"--label-smoothing is -0.1; {BELOW_ONE}"),
        ({"ema": 1.0, "train_backbone": True}, f"--ema is 1.0; {BELOW_ONE}"),
        ({"ema": NAN, "train_backbone": True}, f"--ema is nan; {BELOW_ONE}"),
        ({"min_count": -1}, "--min-count is -1; expected 0 or more."),
        ({"warmup": INFINITY}, "--warmup is inf; expected 0 or more."),
        ({"loss_weights": {"hat": 2, "season": 0}}, "--loss-weight season is 0; expected a number above 0."),
        ({"loss_weights": {"hat": NAN}}, "--loss-weight hat is nan; expected a number above 0."),
        ({"seed": -1}, "--seed is -1; expected a whole number from 0 to 4294967295."),
        ({"seed": 2**32}, "--seed is 4294967296; expected a whole number from 0 to 4294967295."),
        ({"format": "xml"}, "--format is 'xml'; choose from auto, aimonk, csv, tsv, fashion."),
        ({"rare": "keep"}, "--rare is 'keep'; choose from pool, drop."),
        ({"augment": "wild"}, "--augment is 'wild'; choose from none, light, strong, randaugment."),
        ({"precision": "int8"}, "--precision is 'int8'; choose from auto, float32, bfloat16, float16."),
        ({"schedule": "linear"}, "--schedule is 'linear'; choose from constant, cosine, plateau."),
        ({"monitor": "f1"}, "--monitor is 'f1'; choose from loss, accuracy."),
        ({"class_weight": "auto"}, "--class-weight is 'auto'; choose from none, balanced."),
    ],
)
def test_what_is_out_of_range(value: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        FitConfig(Path("labels.txt"), **value)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"fine_tune": "some"}, f"--fine-tune is 'some'; {LAYERS}"),
        ({"fine_tune": 0}, f"--fine-tune is 0; {LAYERS}"),
        ({"fine_tune": -2}, f"--fine-tune is -2; {LAYERS}"),
        (
            {"train_backbone": True, "fine_tune": "all"},
            "--train-backbone trains everything from the start; leave out --fine-tune.",
        ),
        ({"views": 4}, "--views stores augmented pictures; choose how with --augment light or strong."),
        (
            {"views": 4, "augment": "light", "train_backbone": True},
            "--views is for a frozen backbone; leave out --train-backbone.",
        ),
        ({"folds": 5, "fine_tune": "all"}, FROZEN),
        ({"folds": 2, "train_backbone": True}, FROZEN),
        ({"permutations": 9, "folds": 0}, NEEDS_FOLDS),
        ({"permutations": 9, "fine_tune": 3}, NEEDS_FOLDS),
        ({"permutations": 9, "train_backbone": True}, NEEDS_FOLDS),
        (
            {"permutations": 9, "missing": "selective"},
            "--permutations trains many heads side by side, which --missing selective would mix up.",
        ),
        (
            {"permutations": 9, "missing": "ll-ct"},
            "--permutations trains many heads side by side, which --missing ll-ct would mix up.",
        ),
        ({"schedule": "cosine"}, f"--schedule {IDLE}."),
        ({"ema": 0.9}, f"--ema {IDLE}."),
        ({"resume": True}, f"--resume {IDLE}."),
        ({"augment": "light"}, f"--augment {IDLE}, or --views 4."),
        (
            {"augment": "light", "schedule": "cosine", "warmup": 2},
            f"--schedule, --warmup, --augment {IDLE}, or --views 4.",
        ),
        ({"augment": "light", "views": 2, "resume": True}, f"--resume {IDLE}."),
        (
            {"fine_tune": "all", "schedule": "plateau", "warmup": 2},
            "--warmup belongs to --schedule cosine; choose that, or leave out --warmup.",
        ),
        (
            {"loss": "splc", "missing": "negative"},
            "--loss splc decides what unknown cells count; leave out --missing.",
        ),
        ({"loss": "mse"}, "--loss is 'mse'; choose from bce, focal, asl, hill, splc."),
        ({"pos_weight": "none", "loss": "asl"}, IDLE_POS_WEIGHT),
        ({"pos_weight": "none", "missing": "negative"}, IDLE_POS_WEIGHT),
        ({"pos_weight": "yes"}, "--pos-weight is 'yes'; choose from balanced, none."),
        ({"missing": "drop"}, "--missing is 'drop'; choose from ignore, negative, selective, ll-r, ll-ct."),
    ],
)
def test_what_does_not_go_together(value: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        FitConfig(Path("labels.txt"), **value)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"filters": ()},
            "--filters is empty; expected for each block a whole number from 1 to 4096, such as 16,32,64.",
        ),
        (
            {"filters": (16, 0)},
            "--filters is 16,0; expected for each block a whole number from 1 to 4096, such as 16,32,64.",
        ),
        (
            {"filters": (16, 32, 64), "kernel_sizes": (3, 5)},
            "--kernel-size is 3,5; expected a whole number from 1 to 31, "
            "or one for each of the 3 blocks of --filters 16,32,64.",
        ),
        (
            {"filters": (16, 32), "kernel_sizes": 32},
            "--kernel-size is 32; expected a whole number from 1 to 31, "
            "or one for each of the 2 blocks of --filters 16,32.",
        ),
        ({"dense_units": -1}, "--dense-units is -1; expected a whole number up to 4096, or 0 for none."),
        ({"batch_norm": "around"}, "--batch-norm is around; expected one of before, after, none."),
        ({"dropout": 1.0}, "--dropout is 1.0; expected a number from 0 to below 1, such as 0.3."),
    ],
)
def test_layers_that_cannot_be(value: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        CnnShape(**value)
    assert str(error.value) == message


@pytest.mark.parametrize("name", ["epochs", "lr", "patience"])
def test_a_value_for_fine_tuning_needs_fine_tuning(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        FitConfig(Path("labels.txt"), **{name: (7, 7)})
    assert str(caught.value) == f"--{name} has a value for fine-tuning; add --fine-tune, or give one value."


@pytest.mark.parametrize("name", ["min_count", "min_share", "class_weight", "label_smoothing"])
def test_what_is_for_tags_needs_tags(name: str) -> None:
    value: Any = {"min_count": 5, "min_share": 0.1, "class_weight": "balanced", "label_smoothing": 0.1}[name]
    option = "--" + name.replace("_", "-")
    with pytest.raises(UsageError) as caught:
        FitConfig(Path("labels.txt"), **{name: value})
    assert str(caught.value) == f"{option} would do nothing without --tags."
    assert getattr(FitConfig(Path("labels.txt"), tags=("a",), **{name: value}), name) == value


def test_a_split_leaves_no_test_share() -> None:
    with pytest.raises(UsageError) as caught:
        FitConfig(Path("labels.txt"), split="part", test_share=0.1)
    assert str(caught.value) == "--split fixes the test part, too; leave out --test-share."


def test_a_pool_has_a_name() -> None:
    with pytest.raises(UsageError) as caught:
        FitConfig(Path("labels.txt"), pool_name=" ")
    assert str(caught.value) == "--pool-name is blank; expected a name for the pooled class, such as other."


@pytest.mark.parametrize(
    "options",
    [
        {"folds": 0, "fine_tune": "all"},
        {"folds": 2},
        {"folds": 100},
        {"permutations": 9},
        {"permutations": 9, "folds": 3},
    ],
)
def test_folds_that_can_be(options: dict[str, Any]) -> None:
    assert FitConfig(Path("labels.txt"), **options).folds == options.get("folds")


def test_permutations_are_of_attributes() -> None:
    with pytest.raises(UsageError) as caught:
        FitConfig(Path("labels.txt"), tags=("a",), permutations=9).check_without_attributes()
    assert str(caught.value) == ("--permutations would do nothing without attributes, and the labels have only tags.")
