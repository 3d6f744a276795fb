"""The state of a training of the backbone on disk, after each epoch, so that it can be continued.

A checkpoint is one file: the weights, the optimizer's and the random generators' variables, the best weights so
far, the history, and what the callbacks remember. It is replaced as a whole or not at all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np

from .errors import CheckpointError, UsageError

STATE = "training.npz"
_NEW = f".{STATE}.new"  # while it is written
# What Keras' callbacks remember from epoch to epoch; the best weights are kept apart.
_REMEMBERED = ("wait", "best", "best_epoch", "cooldown_counter", "_ema_weights_in_model")


class Log(Protocol):
    """What knows the history of a training."""

    state: dict[str, Any]


class Checkpoint(keras.callbacks.Callback):
    """Keeps the state of a training after each epoch, and takes it up again.

    It must be the last of the callbacks, so that it sees what the others made of the epoch.

    Args:
        folder: where the state is kept; made when there is something to keep.
        settings: all that determines the training; a state of other settings is not continued.
        resume: continue from the state that is there, if one is.

    Attributes:
        found: whether a state was there.
        epoch: how many epochs are done.

    Raises:
        UsageError: the state that is there belongs to other settings.
        CheckpointError: it cannot be read, or the folder cannot be written.
    """

    def __init__(self, folder: str | os.PathLike[str], settings: Mapping[str, Any], *, resume: bool = False) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.settings = json.loads(json.dumps(settings, default=str))
        self.epoch = 0
        self._saved: dict[str, Any] | None = None
        self._arrays: dict[str, np.ndarray] = {}
        self._check_writable()
        self.found = (self.folder / STATE).exists()
        if resume and self.found:
            self._read()

    def watch(self, log: Log, callbacks: Sequence[keras.callbacks.Callback], epochs: int) -> None:
        """Says whose memory is part of the state, and when the training is over."""
        self._log = log
        self._callbacks = list(callbacks)
        if self._saved is not None and self._saved["stopped"]:
            self.epoch = epochs

    def clear(self) -> None:
        """Removes the state: the training it belongs to has come to its end."""
        with suppress(OSError):
            (self.folder / STATE).unlink(missing_ok=True)
            self.folder.rmdir()  # and not what else somebody may have put there

    def on_train_begin(self, logs: Any = None) -> None:
        """Puts everything back as it was."""
        if self._saved is None:
            return
        for name, variable in self._variables().items():
            variable.assign(self._arrays[name])
        self._log.state = self._saved["history"]
        for callback, remembered in zip(self._callbacks, self._saved["callbacks"], strict=True):
            vars(callback).update(remembered)
            if isinstance(callback, keras.callbacks.EarlyStopping):
                callback.best_weights = [
                    self._arrays[f"best/{index}"] for index in range(len(self.model.get_weights()))
                ]
        self._arrays = {}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Writes the state."""
        arrays = {name: keras.ops.convert_to_numpy(variable) for name, variable in self._variables().items()}
        remembered = []
        for callback in self._callbacks:
            remembered.append({name: _plain(vars(callback)[name]) for name in _REMEMBERED if name in vars(callback)})
            for index, weights in enumerate(getattr(callback, "best_weights", None) or []):
                arrays[f"best/{index}"] = weights
        self.epoch = epoch + 1
        state = {
            "settings": self.settings,
            "epoch": self.epoch,
            "stopped": bool(self.model.stop_training),
            "history": self._log.state,
            "callbacks": remembered,
        }
        self._write(state, arrays)

    def _variables(self) -> dict[str, Any]:
        """All variables of model and optimizer but the metrics', which start anew with each epoch."""
        metrics = {id(variable) for variable in self.model.metrics_variables}
        kept = [variable for variable in self.model.variables if id(variable) not in metrics]
        return {
            **{f"model/{index}": variable for index, variable in enumerate(kept)},
            **{f"optimizer/{index}": variable for index, variable in enumerate(self.model.optimizer.variables)},
        }

    def _check_writable(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / _NEW).touch()
            (self.folder / _NEW).unlink()  # and with it what a run left that was killed while it wrote
            if not (self.folder / STATE).exists():
                with suppress(OSError):
                    self.folder.rmdir()  # nothing to keep yet
        except OSError as error:
            raise CheckpointError(
                f"{self.folder}: checkpoints cannot be written there ({error.strerror or error}); "
                "make the folder writable, or choose another --out."
            ) from error

    def _write(self, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        new = self.folder / _NEW
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with new.open("wb") as file:
                np.savez(file, allow_pickle=False, state=np.array(json.dumps(state)), **arrays)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.folder / STATE)
        except OSError as error:
            with suppress(OSError):
                new.unlink(missing_ok=True)
                self.folder.rmdir()  # fails where there is something to keep
            kept = "the one before it is kept" if (self.folder / STATE).exists() else "there is none yet"
            raise CheckpointError(
                f"{self.folder}: the checkpoint of epoch {self.epoch} was not written ({error.strerror or error}); "
                f"{kept}. Make room, and continue with --resume."
            ) from error

    def _read(self) -> None:
        path = self.folder / STATE
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            saved = json.loads(str(arrays.pop("state")))
            settings, self.epoch = saved["settings"], int(saved["epoch"])
        except Exception as error:  # a damaged file raises nearly anything
            raise CheckpointError(
                f"{path}: is not a checkpoint that can be read ({error}); delete it, and start again without --resume."
            ) from error
        other = sorted(name for name in {*settings, *self.settings} if settings.get(name) != self.settings.get(name))
        if other:
            raise UsageError(
                f"--resume: {path} was made with other settings ({', '.join(other)}); "
                "give the same ones, or start again without --resume."
            )
        self._saved, self._arrays = saved, arrays


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's, which JSON takes; no bit is lost."""
    return value.item() if isinstance(value, np.generic) else value
