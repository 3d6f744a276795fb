"""`FitConfig` checks itself, so that the library refuses what the command line refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from multilabel.config import FitConfig
from multilabel.errors import UsageError


def test_strings_become_paths_and_one_side_both() -> None:
    config = FitConfig("data/labels.txt", out="model", cache="cache", image_size=64)  # type: ignore[arg-type]
    assert (config.labels, config.out, config.cache) == (Path("data/labels.txt"), Path("model"), Path("cache"))
    assert config.images is None
    assert config.image_size == (64, 64)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"val_share": 0.0}, "--val-share is 0.0; expected a number between 0 and 1, such as 0.2."),
        ({"val_share": float("nan")}, "--val-share is nan; expected a number between 0 and 1, such as 0.2."),
        (
            {"test_share": 0.8},
            "--test-share is 0.8; expected 0, or a number that leaves pictures to train on beside --val-share 0.2.",
        ),
        ({"beta": -1.0}, "--beta is -1.0; expected a number above 0, and at most 100."),
        ({"beta": float("inf")}, "--beta is inf; expected a number above 0, and at most 100."),
        ({"lr": -1.0}, "--lr is -1.0; expected a number above 0, such as 0.001."),
        ({"lr": float("inf")}, "--lr is inf; expected a number above 0, such as 0.001."),
        ({"epochs": 0}, "--epochs is 0; expected 1 or more."),
        ({"batch_size": 0}, "--batch-size is 0; expected 1 or more."),
        ({"patience": 0}, "--patience is 0; expected 1 or more."),
        ({"seed": -1}, "--seed is -1; expected a whole number from 0 to 4294967295."),
    ],
)
def test_what_is_out_of_range(value: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        FitConfig(Path("labels.txt"), **value)
    assert str(error.value) == message
