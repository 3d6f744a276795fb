"""Fixtures that several test files use."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

# Quiet, and before anything imports TensorFlow.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Graphs of hundreds of models are many objects; to look through them every 700 new ones takes a seventh of the time.
gc.set_threshold(50_000, 20, 100)

pytest_plugins = ("browser",)

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data and real weights, which the repository does not hold."""
    if not SHARED.is_dir():
        pytest.skip(f"needs real data and weights in {SHARED}, which is not there")
    return SHARED
