"""Checkpoints of a run: everything needed to resume bit-identically.

A checkpoint is a folder named by its step: ``state`` as orbax writes it, ``place``, ``metrics`` and the digest of each
file. It is written under another name, flushed to the disk and then renamed; one that changed afterwards is refused.
"""

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from .runs import read_json, sync
from .step import TrainState
from .text import first_line

STATE, PLACE, METRICS, DIGESTS = "state", "place/metadata", "metrics/metrics", "digests.json"
ERROR = "test_error"
SAVING = ".saving"  # in the folder of checkpoints, the one that is being written
DELETED = "deleted"  # in the same folder, what is about to be deleted
UNDIGESTED = (DIGESTS, "_CHECKPOINT_METADATA", "commit_success.txt")  # the last two of earlier versions
SPARE = 1 << 20  # bytes beside the arrays: descriptions, digests, partly filled blocks


class SaveError(Exception):
    """A checkpoint could not be written."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where in its run a checkpoint was made."""

    step: int = 0  # training steps taken
    epochs: int = 0  # complete epochs, their test included
    tally: tuple[int, float, float] = (0, 0.0, 0.0)  # of the epoch under way
    speed: float = 0.0  # images per second in that epoch, once its training is done


class Checkpoints:
    """The checkpoints in a folder: the last ``keep``, and the one with the smallest test error."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self._keep = folder.absolute(), keep

    def save(self, state: TrainState, place: Place, test_error: float | None = None) -> None:
        """Saves, in place of a checkpoint of the same step; if it raises `SaveError`, the others are as they were."""
        arrays = _arrays(state)
        saving, target = self.folder / SAVING, self.folder / str(place.step)
        try:
            shutil.rmtree(saving, ignore_errors=True)
            saving.mkdir(parents=True)
            _check_space(saving, 2 * sum(array.nbytes for array in arrays.values()) + SPARE)
            with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
                checkpointer.save(saving / STATE, args=ocp.args.StandardSave(arrays))
            _write_json(saving / PLACE, dataclasses.asdict(place))
            if test_error is not None:
                _write_json(saving / METRICS, {ERROR: test_error})
            _write_json(saving / DIGESTS, _digests(saving))
            for path in (*saving.rglob("*"), saving):
                sync(path)
            if target.exists():
                self._set_deleted(place.step)
            saving.rename(target)
            sync(self.folder)
            self._delete_old()
        except Exception as error:  # orbax and tensorstore have many kinds of them for a full disk
            raise SaveError(first_line(error)) from error
        finally:
            shutil.rmtree(saving, ignore_errors=True)

    def restore(self, step: int, like: TrainState) -> tuple[TrainState, Place]:
        """Reads a checkpoint, which `choose` has found sound, with the structure, dtypes and devices of ``like``."""
        wanted = {
            name: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=array.sharding)
            for name, array in _arrays(like).items()
        }
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
            arrays = checkpointer.restore(self.folder / str(step) / STATE, args=ocp.args.StandardRestore(wanted))
        leaves = [
            jax.random.wrap_key_data(arrays[name], impl=jax.random.key_impl(leaf)) if _is_key(leaf) else arrays[name]
            for name, leaf in zip(wanted, jax.tree.leaves(like), strict=True)
        ]
        place = read_json(self.folder / str(step) / PLACE)
        state: TrainState = jax.tree.unflatten(jax.tree.structure(like), leaves)
        return state, Place(**{**place, "tally": tuple(place["tally"])})

    def choose(self, *, older: bool) -> tuple[int | None, list[str]]:
        """Chooses the newest checkpoint, if any, and removes what an earlier process left; with notes for the user.

        Raises ``ValueError`` where it is damaged, unless ``older`` allows to set it aside for the one before.
        """
        self._take_back()
        problems = {path: problems_of(path) for path in (self.folder / str(step) for step in steps_in(self.folder))}
        newest = next(reversed(problems), None)
        sound = [path for path, found in problems.items() if not found]
        if newest is not None and problems[newest] and not older:
            then = f"continue from {sound[-1]}" if sound else "start over, as there is none before it"
            told = f"checkpoint {newest} is damaged: {'; '.join(problems[newest])}"
            raise ValueError(f"{told}; --resume-older would {then}")
        damaged = [path for path, found in problems.items() if found]
        notes = [f"{path} is damaged and was moved to {_set_aside(path)}" for path in damaged]
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if not path.name.isdecimal():
                shutil.rmtree(path, ignore_errors=True)
        return (int(sound[-1].name) if sound else None), notes

    def last_good(self) -> str:
        steps = steps_in(self.folder)
        return f"the last good checkpoint is {self.folder / str(steps[-1])}" if steps else "there is no checkpoint yet"

    def _delete_old(self) -> None:
        steps = steps_in(self.folder)
        tested = [step for step in steps if (self.folder / str(step) / METRICS).exists()]
        errors = {step: read_json(self.folder / str(step) / METRICS)[ERROR] for step in tested}
        best = min(tested, key=errors.__getitem__, default=None)
        for step in steps[: -self._keep]:
            if step != best:
                self._set_deleted(step)
        shutil.rmtree(self.folder / DELETED, ignore_errors=True)

    def _set_deleted(self, step: int) -> None:
        """Takes away a checkpoint's name at once: deleting its files is not atomic."""
        (self.folder / DELETED).mkdir(exist_ok=True)
        (self.folder / str(step)).rename(self.folder / DELETED / str(step))

    def _take_back(self) -> None:
        """Gives the newest checkpoint its name again, where a process was killed while it was being replaced."""
        last = max(steps_in(self.folder / DELETED), default=-1)
        newer = last > max(steps_in(self.folder), default=-1)
        if newer and not problems_of(self.folder / DELETED / str(last)):
            (self.folder / DELETED / str(last)).rename(self.folder / str(last))


def _check_space(folder: Path, size: int) -> None:
    """Raises ``OSError`` for a full disk, for which orbax would print a traceback per array."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise OSError(f"the disk is full: {size / 1e6:.1f} MB are needed, {free / 1e6:.1f} MB are free")
    if hasattr(os, "posix_fallocate"):  # also finds quotas and limits
        with (folder / "space").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
        (folder / "space").unlink()


def steps_in(folder: Path) -> list[int]:
    """The steps at which a folder has complete checkpoints, in order."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal())


def problems_of(checkpoint: Path) -> list[str]:
    """Problems of the files of a checkpoint; empty if they are intact."""
    try:
        written = read_json(checkpoint / DIGESTS)
    except ValueError:
        return [f"{DIGESTS} is missing or unreadable"]
    found = _digests(checkpoint)
    return [
        f"{name} {'is missing' if name not in found else 'has changed since it was written'}"
        for name, digest in written.items()
        if name not in UNDIGESTED and found.get(name) != digest
    ]


def _set_aside(checkpoint: Path) -> Path:
    """Moves a damaged checkpoint to a folder beside the others, and returns its new path."""
    folder = checkpoint.parent.with_name(f"{checkpoint.parent.name}-damaged")
    folder.mkdir(exist_ok=True)
    number = sum(path.name.startswith(checkpoint.name) for path in folder.iterdir())
    return checkpoint.rename(folder / (f"{checkpoint.name}-{number}" if number else checkpoint.name))


def _digests(checkpoint: Path) -> dict[str, str]:
    files = {path.relative_to(checkpoint).as_posix(): path for path in sorted(checkpoint.rglob("*")) if path.is_file()}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items() if name not in UNDIGESTED
    }


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(values) + "\n")


def _arrays(state: TrainState) -> dict[str, jax.Array]:
    """All that changes, by path, in the order of the leaves; random keys as the numbers they consist of."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): jax.random.key_data(leaf) if _is_key(leaf) else leaf
        for path, leaf in leaves
    }


def _is_key(leaf: jax.Array) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))
