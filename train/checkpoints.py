"""Checkpoints of a run: everything needed to resume bit-identically.

A checkpoint is a folder named by its step: ``state`` as orbax writes it, ``place``, and at last the digest of each
file. It is written under another name, flushed to the disk and then renamed; after a kill in between the next process
does the rest. One that changed afterwards is refused.
"""

import dataclasses
import hashlib
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from .hosts import in_first, is_first, within
from .runs import read_json, sync
from .step import TrainState
from .text import first_line

STATE, PLACE, DIGESTS = "state", "place/metadata", "digests.json"
SAVING, DELETED = ".saving", "deleted"  # in the same folder, what is being written, and what is being deleted
UNDIGESTED = ("_CHECKPOINT_METADATA", "commit_success.txt")  # of earlier versions, which changed them later
SPARE = 1 << 20  # bytes beside the arrays: descriptions, digests, partly filled blocks


class SaveError(Exception):
    """A checkpoint could not be written."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where in its run a checkpoint was made."""

    step: int = 0  # training steps taken
    epochs: int = 0  # complete epochs, their test included
    tally: tuple[Any, ...] = ()  # of the epoch under way


class Checkpoints:
    """The last ``keep`` checkpoints of a run, in a folder."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self._keep = folder.absolute(), keep
        self._saving = self.folder / SAVING

    def save(self, state: TrainState, place: Place) -> None:
        """Saves, in place of a checkpoint of the same step; if it raises, the others are as they were.

        Of several processes it raises the error itself, elsewhere `SaveError`.
        """
        arrays = _arrays(state)
        try:
            in_first(lambda: self._begin(arrays))
            with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer, within("write a checkpoint"):
                checkpointer.save(self._saving / STATE, args=ocp.args.StandardSave(arrays))
            in_first(lambda: self._finish(place))
        except Exception as error:  # orbax and tensorstore have many kinds of them for a full disk
            if is_first():
                shutil.rmtree(self._saving, ignore_errors=True)
            if jax.process_count() > 1:  # the others may still be in orbax: the run cannot go on
                raise
            raise SaveError(first_line(error)) from error

    def _begin(self, arrays: dict[str, jax.Array]) -> None:
        shutil.rmtree(self._saving, ignore_errors=True)
        self._saving.mkdir(parents=True)
        # A full disk is found here, as orbax would print a traceback per array.
        (self._saving / "space").write_bytes(bytes(2 * sum(array.nbytes for array in arrays.values()) + SPARE))
        (self._saving / "space").unlink()

    def _finish(self, place: Place) -> None:
        (self._saving / PLACE).parent.mkdir()
        (self._saving / PLACE).write_text(json.dumps(dataclasses.asdict(place)))
        (self._saving / DIGESTS).write_text(json.dumps(_digests(self._saving)))
        self._publish()
        for step in steps_in(self.folder)[: -self._keep]:
            self._delete(self.folder / str(step))

    def restore(self, step: int, like: TrainState) -> tuple[TrainState, Place]:
        """Reads a checkpoint, which `newest` has found sound, with the structure, dtypes and devices of ``like``."""
        wanted, folder = _arrays(like), self.folder / str(step)
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
            arrays = checkpointer.restore(folder / STATE, args=ocp.args.StandardRestore(wanted))
        leaves = [
            jax.random.wrap_key_data(arrays[name], impl=jax.random.key_impl(leaf)) if _is_key(leaf) else arrays[name]
            for name, leaf in zip(wanted, jax.tree.leaves(like), strict=True)
        ]
        place = read_json(folder / PLACE)
        state: TrainState = jax.tree.unflatten(jax.tree.structure(like), leaves)
        return state, Place(place["step"], place["epochs"], tuple(place["tally"]))

    def newest(self) -> int | None:
        """The step of the newest checkpoint, if there is one; raises ``ValueError`` where it is damaged."""
        if not problems_of(self._saving):  # a process was killed between its completion and its publication
            self._publish()
        steps = steps_in(self.folder)
        if steps and (problems := problems_of(self.folder / str(steps[-1]))):
            path = self.folder / str(steps[-1])
            then = f"continue from {steps[-2]}" if steps[1:] else "start over, as there is none before it"
            remedy = f"to {then}, move it away: mv {shlex.quote(str(path))} {shlex.quote(f'{path}-damaged')}"
            raise ValueError(f"checkpoint {path} is damaged: {'; '.join(problems)}; {remedy}")
        return max(steps, default=None)

    def last_good(self) -> str:
        steps = steps_in(self.folder)
        return f"the last good checkpoint is {self.folder / str(steps[-1])}" if steps else "there is no checkpoint yet"

    def _publish(self) -> None:
        """Gives a completely written checkpoint its name, once it is on the disk."""
        for path in (*self._saving.rglob("*"), self._saving):
            sync(path)
        target = self.folder / str(read_json(self._saving / PLACE)["step"])
        self._delete(target)  # a kill from here on is made good by the next `newest`
        self._saving.rename(target)
        sync(self.folder)

    def _delete(self, checkpoint: Path) -> None:
        """Deletes a checkpoint, if it is there; takes away its name first, as deleting its files is not atomic."""
        if checkpoint.exists():
            shutil.rmtree(self.folder / DELETED, ignore_errors=True)
            checkpoint.rename(self.folder / DELETED)
            shutil.rmtree(self.folder / DELETED, ignore_errors=True)


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


def _digests(checkpoint: Path) -> dict[str, str]:
    files = {path.relative_to(checkpoint).as_posix(): path for path in sorted(checkpoint.rglob("*")) if path.is_file()}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


def _arrays(state: TrainState) -> dict[str, jax.Array]:
    """All that changes, by path, in the order of the leaves; random keys as the numbers they consist of."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): jax.random.key_data(leaf) if _is_key(leaf) else leaf
        for path, leaf in leaves
    }


def _is_key(leaf: jax.Array) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))
