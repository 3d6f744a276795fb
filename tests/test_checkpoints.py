"""A training that was interrupted at any moment, and continued, is to the bit the one that was not."""

from __future__ import annotations

import errno
import functools
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from multilabel import bundle, pipeline, training
from multilabel.augment import Augmentation
from multilabel.backbones import build_backbone, thaw
from multilabel.checkpoints import STATE, Checkpoint
from multilabel.config import CnnShape, FitConfig
from multilabel.errors import CheckpointError, Interrupted, UsageError
from multilabel.heads import LogitHead
from multilabel.training import Batches, Phase, build_models, train

EPOCHS, STEPS = 6, 3
SETTINGS = {"lr": 0.02, "epochs": [200, 10], "labels": "labels.txt"}
SHAPE = CnnShape(filters=(4, 8), dropout=0.3)
PLATEAU = Phase(EPOCHS, 0.02, 6, schedule="plateau", ema=0.9)
COSINE = Phase(EPOCHS, 0.02, 6, monitor="accuracy", schedule="cosine", warmup=1)
OTHERS = [
    Phase(EPOCHS, 0.02, 6, schedule="plateau"),
    Phase(EPOCHS, 0.02, 6, schedule="cosine", ema=0.9),
    Phase(EPOCHS, 0.02, 6, ema=0.9, scale_loss=True),
]


def trained(phase, checkpoint=None, seed=0):
    """A small network trained on noise; of `seed` it depends only how it begins: (model, history)."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    y = rng.integers(-1, 2, (20, 2)).astype(np.int8)
    keras.utils.set_random_seed(seed)
    backbone = build_backbone("cnn", "none", (32, 32), cnn=SHAPE)
    head = LogitHead.for_labels(("a", "b"), y[:12])
    _, model = build_models(backbone, [head])
    thaw(backbone)
    targets, augment = {head.name: y}, Augmentation("light", (32, 32))
    batches = Batches(pictures, targets, np.arange(12), 4, 0, augment)
    held_out = Batches(pictures, targets, np.arange(12, 20), 4)
    return model, train(model, [head], batches, held_out, phase, checkpoint=checkpoint)


@functools.cache
def undisturbed(phase):
    return trained(phase)


def interrupt(patch, epoch, step):
    """From now on, a training is interrupted in the middle of an epoch, counted from 1."""
    original = training.Log.on_train_batch_end

    def stop(self, batch, logs=None):
        original(self, batch, logs)
        if (len(self.history.epoch_ends) + 1, batch + 1) == (epoch, step):
            raise KeyboardInterrupt

    patch.setattr(training.Log, "on_train_batch_end", stop)


def forbid_training(patch):
    def refuse(self, batch, logs=None):
        raise AssertionError("a step was trained")

    patch.setattr(training.Log, "on_train_batch_begin", refuse)


def assert_as_undisturbed(phase, model, history):
    expected_model, expected = undisturbed(phase)
    assert history == expected
    for value, other in zip(model.get_weights(), expected_model.get_weights(), strict=True):
        np.testing.assert_array_equal(value, other)


def state_of(folder):
    with np.load(folder / STATE, allow_pickle=False) as file:
        return json.loads(str(file["state"]))


# --- continuing


@pytest.mark.parametrize(
    "phase",
    [PLATEAU, COSINE, *(pytest.param(phase, marks=pytest.mark.slow) for phase in OTHERS)],
    ids=lambda phase: f"{phase.schedule}-{phase.ema:g}-{phase.scale_loss}",
)
def test_an_interrupted_training_is_continued_to_the_bit(phase, tmp_path, monkeypatch):
    folder = tmp_path / "checkpoint"
    with monkeypatch.context() as patch:
        interrupt(patch, epoch=4, step=2)
        with pytest.raises(Interrupted) as caught:
            trained(phase, Checkpoint(folder, SETTINGS))
    assert str(caught.value) == "Stopped after 3 epochs of training; no bundle was written."
    assert os.listdir(folder) == [STATE]

    checkpoint = Checkpoint(folder, SETTINGS, resume=True)
    assert (checkpoint.found, checkpoint.epoch) == (True, 3)
    model, history = trained(phase, checkpoint, seed=99)  # which begins with other weights and another dropout
    assert len(history.epoch_ends) == EPOCHS
    assert_as_undisturbed(phase, model, history)
    if phase.schedule == "plateau":  # otherwise this tells nothing of what the callbacks remember
        assert float(model.optimizer.learning_rate) < phase.lr
    checkpoint.clear()
    assert not folder.exists()


def test_a_checkpoint_changes_nothing(tmp_path):
    assert_as_undisturbed(PLATEAU, *trained(PLATEAU, Checkpoint(tmp_path / "checkpoint", SETTINGS)))
    state = state_of(tmp_path / "checkpoint")
    assert (state["epoch"], state["stopped"]) == (EPOCHS, False)

    # Killed after the last epoch: there is nothing more to train, and nothing to lose.
    with pytest.MonkeyPatch.context() as patch:
        forbid_training(patch)
        again = trained(PLATEAU, Checkpoint(tmp_path / "checkpoint", SETTINGS, resume=True), seed=99)
    assert_as_undisturbed(PLATEAU, *again)


def test_patience_goes_on_where_it_was(tmp_path, monkeypatch):
    phase = Phase(50, 0.3, 3, schedule="plateau")
    _, history = undisturbed(phase)
    assert 3 < len(history.epoch_ends) == history.best_epoch + 3 < 50
    with monkeypatch.context() as patch:
        interrupt(patch, epoch=len(history.epoch_ends), step=2)  # two epochs are not better; one more, and it stops
        with pytest.raises(Interrupted):
            trained(phase, Checkpoint(tmp_path / "checkpoint", SETTINGS))
    assert_as_undisturbed(phase, *trained(phase, Checkpoint(tmp_path / "checkpoint", SETTINGS, resume=True), seed=99))


def test_a_training_that_had_stopped_is_not_continued(tmp_path, monkeypatch):
    phase = Phase(50, 0.3, 2, ema=0.5)
    model, history = trained(phase, Checkpoint(tmp_path / "checkpoint", SETTINGS))
    assert 2 < len(history.epoch_ends) == history.best_epoch + 2 < 50
    assert state_of(tmp_path / "checkpoint")["stopped"] is True
    forbid_training(monkeypatch)
    resumed, its_history = trained(phase, Checkpoint(tmp_path / "checkpoint", SETTINGS, resume=True), seed=99)
    assert its_history == history
    for value, other in zip(resumed.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(value, other)


def test_what_is_not_continued_is_replaced(tmp_path):
    folder = tmp_path / "checkpoint"
    once = Phase(1, 0.02, 6)
    trained(once, Checkpoint(folder, {"lr": 1}))
    checkpoint = Checkpoint(folder, SETTINGS)  # of other settings, which does not matter
    assert (checkpoint.found, checkpoint.epoch) == (True, 0)
    assert state_of(folder)["settings"] == {"lr": 1}  # until there is something better
    trained(once, checkpoint)
    assert state_of(folder)["settings"] == SETTINGS


def test_nothing_to_continue(tmp_path):
    checkpoint = Checkpoint(tmp_path / "checkpoint", SETTINGS, resume=True)
    assert (checkpoint.found, checkpoint.epoch) == (False, 0)
    assert os.listdir(tmp_path) == []  # nothing is made before there is something to keep


def test_what_a_kill_during_the_first_write_left_is_cleared_away(tmp_path):
    (tmp_path / f".{STATE}.new").write_bytes(b"half")
    checkpoint = Checkpoint(tmp_path, SETTINGS, resume=True)
    assert (checkpoint.found, checkpoint.epoch) == (False, 0)
    assert not tmp_path.exists()


def test_only_the_state_is_cleared_away(tmp_path):
    for name in (STATE, "notes.txt"):
        (tmp_path / name).write_text("mine")
    Checkpoint(tmp_path, SETTINGS).clear()
    assert os.listdir(tmp_path) == ["notes.txt"]


# --- what cannot be written or read


def fill_disk(patch, at):
    """The disk is full in the middle of a write; returns what was on it just before."""
    savez, before = np.savez, []

    def full(file, **arrays):
        before.append((Path(file.name).parent / STATE).read_bytes() if len(before) else b"")
        if len(before) == at:
            file.write(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        savez(file, **arrays)

    patch.setattr(np, "savez", full)
    return before


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    folder = tmp_path / "checkpoint"
    with monkeypatch.context() as patch:
        before = fill_disk(patch, at=4)
        with pytest.raises(CheckpointError) as caught:
            trained(PLATEAU, Checkpoint(folder, SETTINGS))
    assert str(caught.value) == (
        f"{folder}: the checkpoint of epoch 4 was not written (No space left on device); the one before it is kept. "
        "Make room, and continue with --resume."
    )
    assert os.listdir(folder) == [STATE]
    assert (folder / STATE).read_bytes() == before[-1]
    checkpoint = Checkpoint(folder, SETTINGS, resume=True)
    assert checkpoint.epoch == 3
    assert_as_undisturbed(PLATEAU, *trained(PLATEAU, checkpoint, seed=99))


def test_a_disk_that_is_full_at_once(tmp_path, monkeypatch):
    fill_disk(monkeypatch, at=1)
    with pytest.raises(CheckpointError) as caught:
        trained(Phase(1, 0.02, 6), Checkpoint(tmp_path / "checkpoint", SETTINGS))
    assert str(caught.value) == (
        f"{tmp_path / 'checkpoint'}: the checkpoint of epoch 1 was not written (No space left on device); "
        "there is none yet. Make room, and continue with --resume."
    )
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("folder", "reason"), [("file", "File exists"), ("file/below", "Not a directory")])
def test_a_file_in_place_of_the_folder(folder, reason, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(tmp_path / folder, SETTINGS)
    assert str(caught.value) == (
        f"{tmp_path / folder}: checkpoints cannot be written there ({reason}); "
        "make the folder writable, or choose another --out."
    )
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_folder_that_may_not_be_written(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(CheckpointError) as caught:
            Checkpoint(tmp_path, SETTINGS)
    finally:
        tmp_path.chmod(0o700)
    assert str(caught.value) == (
        f"{tmp_path}: checkpoints cannot be written there (Permission denied); "
        "make the folder writable, or choose another --out."
    )


def written(folder, **state):
    """A checkpoint file with a state and one array."""
    with (folder / STATE).open("wb") as file:
        np.savez(file, state=np.array(json.dumps({"settings": SETTINGS, "epoch": 2, **state})), weights=np.arange(99.0))
    return folder / STATE


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: b"", "No data left in file"),
        (lambda data: data[: len(data) // 2], "File is not a zip file"),
        (lambda data: data.replace(np.arange(9.0).tobytes(), bytes(72)), "Bad CRC-32 for file 'weights.npy'"),
        (lambda data: data.replace(b"state.npy", b"stage.npy"), "'state'"),
    ],
)
def test_a_damaged_checkpoint(damage, reason, tmp_path):
    path = written(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(tmp_path, SETTINGS, resume=True)
    assert str(caught.value) == (
        f"{path}: is not a checkpoint that can be read ({reason}); delete it, and start again without --resume."
    )
    assert Checkpoint(tmp_path, SETTINGS).found  # without --resume it does not matter


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({**SETTINGS, "lr": 0.03}, "lr"),
        ({**SETTINGS, "epochs": (200, 11), "labels": "others.txt"}, "epochs, labels"),
        ({"lr": 0.02, "epochs": (200, 10), "the pictures": "abc"}, "labels, the pictures"),
    ],
)
def test_other_settings(settings, names, tmp_path):
    path = written(tmp_path)
    before = path.read_bytes()
    with pytest.raises(UsageError) as caught:
        Checkpoint(tmp_path, settings, resume=True)
    assert str(caught.value) == (
        f"--resume: {path} was made with other settings ({names}); give the same ones, or start again without --resume."
    )
    assert path.read_bytes() == before


def test_the_same_settings_in_other_types(tmp_path):
    written(tmp_path)
    same = {"lr": np.float64(0.02), "epochs": (200, 10), "labels": Path("labels.txt")}
    assert Checkpoint(tmp_path, same, resume=True).epoch == 2


# --- `fit`


@pytest.fixture(scope="module")
def labels(tmp_path_factory, root):
    """Sixty of the sample's pictures, some of their labels unknown."""
    lines = (root / "data" / "labels.txt").read_text().splitlines()[:60]
    for index in range(0, 60, 4):
        lines[index] = " ".join([*lines[index].split()[:-1], "NA"])
    path = tmp_path_factory.mktemp("labels") / "labels.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


def config_of(labels, root, out, **options):
    return FitConfig(
        labels=labels,
        images=root / "data" / "images",
        out=out,
        backbone="cnn",
        cnn=SHAPE,
        train_backbone=True,
        image_size=32,
        augment="light",
        epochs=(EPOCHS,),
        patience=(6,),
        lr=(0.01,),
        schedule="plateau",
        ema=0.9,
        **options,
    )


def outcome(folder):
    """All numbers of a bundle."""
    found = {name: (folder / name).read_text() for name in ("history.csv", "predictions.csv", "metrics.json")}
    with h5py.File(folder / bundle.WEIGHTS) as file:
        arrays = {}
        file.visititems(
            lambda name, item: arrays.update({name: item[()].tobytes()}) if hasattr(item, "dtype") else None
        )
    assert len(arrays) > 8
    return {**found, **arrays}


@pytest.mark.slow
def test_killed_after_the_last_epoch_the_bundle_is_made_without_training(labels, root, tmp_path, monkeypatch):
    pipeline.fit(config_of(labels, root, tmp_path / "whole"))
    with monkeypatch.context() as patch:
        patch.setattr(bundle, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pipeline.fit(config_of(labels, root, tmp_path / "model"))
    assert sorted(os.listdir(tmp_path)) == ["model.checkpoint", "whole"]
    forbid_training(monkeypatch)
    pipeline.fit(config_of(labels, root, tmp_path / "model", resume=True))
    assert outcome(tmp_path / "model") == outcome(tmp_path / "whole")
    assert sorted(os.listdir(tmp_path)) == ["model", "whole"]


@pytest.mark.slow
def test_fine_tuning_is_continued_after_heads_that_are_trained_again(labels, root, tmp_path, monkeypatch):
    def config(out, **options):
        same = config_of(labels, root, tmp_path / out, weights="none", cache=tmp_path / "cache", **options)
        return replace(same, train_backbone=False, fine_tune=3, epochs=(2, EPOCHS), lr=(0.01, 0.01), patience=(6, 6))

    whole = pipeline.fit(config("whole"))
    assert whole.history.phase_ends == [2, 2 + EPOCHS]
    with monkeypatch.context() as patch:
        interrupt(patch, epoch=4, step=1)
        with pytest.raises(Interrupted) as caught:
            pipeline.fit(config("model"))
    assert str(caught.value) == (
        "Stopped after 3 epochs of training; no bundle was written. The same command with --resume continues."
    )
    resumed = pipeline.fit(config("model", resume=True))
    assert resumed.history == whole.history
    assert outcome(tmp_path / "model") == outcome(tmp_path / "whole")


def test_a_place_that_cannot_be_written_is_told_before_any_training(labels, root, tmp_path, monkeypatch):
    forbid_training(monkeypatch)
    (tmp_path / "model.checkpoint").write_text("mine")
    with pytest.raises(CheckpointError) as caught:
        pipeline.fit(config_of(labels, root, tmp_path / "model"))
    assert str(caught.value) == (
        f"{tmp_path / 'model.checkpoint'}: checkpoints cannot be written there (File exists); "
        "make the folder writable, or choose another --out."
    )


def command(labels, root, folder, *more):
    options = "--backbone cnn --filters 4,8 --dropout 0.3 --train-backbone --image-size 32 --augment light "
    options += f"--epochs {EPOCHS} --patience 6 --lr 0.01 --schedule plateau --ema 0.9 --batch-size 8 --out model"
    place = ["--labels", str(labels), "--images", str(root / "data" / "images")]
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "multilabel", "fit", *place, *options.split(), *more],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors
    return errors


@pytest.fixture(scope="module")
def whole(labels, root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(command(labels, root, folder))
    return folder / "model"


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
@pytest.mark.parametrize(("epoch", "seconds"), [(1, 0.02), (2, 0.06), (4, 0.0)])
def test_a_process_killed_within_an_epoch_is_continued(epoch, seconds, whole, labels, root, tmp_path):
    folder = tmp_path / "run"
    state = folder / "model.checkpoint" / STATE
    process = command(labels, root, folder)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if state.exists() and state_of(state.parent)["epoch"] >= epoch:
            break
        time.sleep(0.001)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    done = state_of(state.parent)["epoch"]
    assert epoch <= done < EPOCHS
    assert not (folder / "model").exists()

    finish(command(labels, root, folder, "--resume"))
    assert outcome(folder / "model") == outcome(whole)
    assert os.listdir(folder) == ["model"]
