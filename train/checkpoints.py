"""Checkpoints of a run: all that it takes to go on as if nothing had happened.

orbax writes them, beside the training, each into a folder that gets its name when it is complete. The folder holds the
digest of each of its files, so that one that changed afterwards is found before it is used.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from .runs import sync
from .step import TrainState
from .text import first_line


class SaveError(Exception):
    """A checkpoint could not be written."""


@contextlib.contextmanager
def as_save_errors() -> Iterator[None]:
    """Whatever orbax and the libraries below it raise on a full disk, say, as one kind of error."""
    try:
        yield
    except SaveError:
        raise
    except Exception as error:
        raise SaveError(first_line(error)) from error


def say_nothing_else() -> None:
    """From here on a save that fails is told of by its `SaveError` alone.

    orbax, asyncio and tensorstore else write a traceback for every array, from threads of their own and whenever memory
    is collected, so that there is no while to which this could be limited.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_is_of_no_save)
    if not isinstance(sys.unraisablehook, _UnraisableHook):
        sys.unraisablehook = _UnraisableHook()


def _is_of_no_save(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname and "exception was never retrieved" not in str(record.msg)


class _UnraisableHook:
    """Passes on all but what tensorstore tells where it is done with an array after orbax has given up the save."""

    def __init__(self) -> None:
        self._before = sys.unraisablehook

    def __call__(self, what: "sys.UnraisableHookArgs") -> None:
        outermost = what.exc_traceback.tb_frame.f_code.co_name if what.exc_traceback is not None else ""
        if what.exc_type is not RuntimeError or outermost != "call_soon_threadsafe":
            self._before(what)


DIGESTS = "digests.json"
# What orbax writes when the digests are there already: that it is done, and when.
DONE, ABOUT, WHEN = "commit_success.txt", "_CHECKPOINT_METADATA", "commit_timestamp_nsecs"
ERROR = "test_error"
DELETED = "deleted"  # a folder in that of the checkpoints, for those that are to go
SPARE = 1 << 20  # bytes beside the arrays: descriptions, digests, blocks that are not filled


class DamagedError(ValueError):
    """A checkpoint is not what was written."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where in its run a checkpoint was made.

    Attributes:
        step: training steps taken.
        epochs: epochs that are over, their test included.
        tally: of the epoch that is not: images, the sum of their errors, how many of them were judged rightly.
        speed: images per second, where all of that epoch but its test is done.
    """

    step: int = 0
    epochs: int = 0
    tally: tuple[int, float, float] = (0, 0.0, 0.0)
    speed: float = 0.0


class Checkpoints:
    """The checkpoints in a folder: the last few, and the one with the smallest test error.

    Args:
        folder: made when it is not there. Damaged checkpoints are to be taken out first.
        keep: how many of the last are kept.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder.absolute()
        say_nothing_else()

        def error(metrics: Any) -> float:
            return float(metrics[ERROR])

        best = BestN(get_metric_fn=error, reverse=True, n=1, keep_checkpoints_without_metrics=False)
        self._manager = ocp.CheckpointManager(
            self.folder,
            item_names=("state", "place"),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=AnyPreservationPolicy([LatestN(keep), best]),
                best_fn=error,  # beside the policy, so that orbax writes the errors down for the next process
                best_mode="min",
                # Called when all is written and the folder has its working name still.
                async_options=ocp.AsyncOptions(post_finalization_callback=self._write_digests),
                cleanup_tmp_directories=True,
                # One rename, so that no process that is killed leaves half a checkpoint under its name.
                todelete_subdir=DELETED,
            ),
        )
        self._empty()

    def save(self, state: TrainState, place: Place, test_error: float | None = None) -> None:
        """Begins to save, after `wait`; a checkpoint of the same step, made before the epoch's test, makes room.

        Raises:
            SaveError: it could not begin.
        """
        # Copies: the next step gives the memory of this state away while it is being written.
        arrays = {name: jnp.copy(array) for name, array in _arrays(state).items()}
        self._check_space(sum(array.nbytes for array in arrays.values()))
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(arrays), place=ocp.args.JsonSave(dataclasses.asdict(place))
        )
        with as_save_errors():
            if place.step in self._manager.all_steps():
                self._manager.delete(place.step)  # which leaves it in DELETED until the new one is there
            self._manager.save(place.step, args=items, metrics=None if test_error is None else {ERROR: test_error})

    def wait(self) -> None:
        """Waits for the save that has begun.

        Raises:
            SaveError: it failed.
        """
        with as_save_errors():
            self._manager.wait_until_finished()
        self._empty()

    def close(self) -> None:
        """Waits for the save that has begun, whatever comes of it, and lets go of the folder."""
        # What a save that could not begin has left under way may fail, too; orbax raises that once, when it is closed.
        for end in (self.wait, self._manager.close, self._manager.close):
            with contextlib.suppress(SaveError), as_save_errors():
                end()

    def restore(self, step: int, like: TrainState) -> tuple[TrainState, Place]:
        """Reads a checkpoint.

        Args:
            step: of the checkpoint.
            like: a state of the same run, which gives structure, dtypes and devices.

        Raises:
            DamagedError: a file of the checkpoint is missing or not what was written.
        """
        problems = problems_of(self.folder / str(step))
        if problems:
            raise DamagedError(f"checkpoint {self.folder / str(step)} is damaged: {'; '.join(problems)}")
        wanted = {
            name: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=array.sharding)
            for name, array in _arrays(like).items()
        }
        items = ocp.args.Composite(state=ocp.args.StandardRestore(wanted), place=ocp.args.JsonRestore())
        restored = self._manager.restore(step, args=items)
        place = restored.place
        place["tally"] = tuple(place["tally"])
        return _with_arrays(like, restored.state), Place(**place)

    def _empty(self) -> None:
        """Deletes what is to go, once there is something newer."""
        newest = max(steps_in(self.folder), default=-1)
        sync(self.folder)  # the newest has its name for good before another one goes
        for step in steps_in(self.folder / DELETED):
            if step <= newest:
                shutil.rmtree(self.folder / DELETED / str(step), ignore_errors=True)
        with contextlib.suppress(OSError):  # not there, or not empty
            (self.folder / DELETED).rmdir()

    def _check_space(self, size: int) -> None:
        # orbax finds out half-way, at every array.
        free, needed = shutil.disk_usage(self.folder).free, 2 * size + SPARE
        if free < needed:
            raise SaveError(f"the disk is full: {needed / 1e6:.1f} MB are needed, {free / 1e6:.1f} MB are free")

    def _write_digests(self) -> None:
        # orbax describes a checkpoint in a thread of its own, which may not have come to it yet.
        description = getattr(self._manager, "_non_blocking_metadata_store", None)
        if description is not None:
            description.wait_until_finished()
        for folder in self.folder.glob("*.orbax-checkpoint-tmp*"):
            (folder / DIGESTS).write_text(json.dumps(_digests(folder), indent=1) + "\n")
            for path in (*folder.rglob("*"), folder):  # all of it is on the disk before it gets its name
                sync(path)


def steps_in(folder: Path) -> list[int]:
    """The steps at which a folder has checkpoints, from the first to the last; those that were finished."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal())


def take_back(folder: Path) -> None:
    """Gives the newest checkpoint its name again, where a process was killed before that which was to replace it."""
    last = max(steps_in(folder / DELETED), default=-1)
    newer = last > max(steps_in(folder), default=-1)
    if newer and not problems_of(folder / DELETED / str(last)):
        (folder / DELETED / str(last)).rename(folder / str(last))


def forget_replaced(folder: Path) -> None:
    """Deletes what is to go whatever it is: a run that has chosen its checkpoint must not find a newer one later."""
    shutil.rmtree(folder / DELETED, ignore_errors=True)


def problems_of(checkpoint: Path) -> list[str]:
    """What is wrong with the files of a checkpoint; nothing if they are what was written."""
    try:
        written = json.loads((checkpoint / DIGESTS).read_text())
    except (OSError, ValueError):
        written = None
    if not isinstance(written, dict):
        return [f"{DIGESTS} is missing or unreadable"]
    found = _digests(checkpoint)
    return [
        f"{name} {'is missing' if name not in found else 'has changed since it was written'}"
        for name, digest in written.items()
        if found.get(name) != digest
    ]


def set_aside(checkpoint: Path) -> Path:
    """Moves a checkpoint out of the way of a run that goes on without it, and says where to."""
    folder = checkpoint.parent.with_name(f"{checkpoint.parent.name}-damaged")
    folder.mkdir(exist_ok=True)
    number = sum(path.name.startswith(checkpoint.name) for path in folder.iterdir())
    return checkpoint.rename(folder / (f"{checkpoint.name}-{number}" if number else checkpoint.name))


def _digests(checkpoint: Path) -> dict[str, str]:
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    names = {path.relative_to(checkpoint).as_posix(): path for path in files}
    return {name: _digest(name, path) for name, path in names.items() if name not in (DIGESTS, DONE)}


def _digest(name: str, path: Path) -> str:
    content = path.read_bytes()
    if name == ABOUT:
        with contextlib.suppress(ValueError):
            content = json.dumps({**json.loads(content), WHEN: None}).encode()
    return hashlib.sha256(content).hexdigest()


def _arrays(state: TrainState) -> dict[str, jax.Array]:
    """All that changes, by path; random keys as the numbers they consist of."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): jax.random.key_data(leaf) if _is_key(leaf) else leaf
        for path, leaf in leaves
    }


def _with_arrays(like: TrainState, arrays: dict[str, jax.Array]) -> TrainState:
    def put(path: Any, leaf: jax.Array) -> jax.Array:
        array = arrays[jax.tree_util.keystr(path, simple=True, separator="/")]
        return jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf)) if _is_key(leaf) else array

    restored: TrainState = jax.tree_util.tree_map_with_path(put, like)
    return restored


def _is_key(leaf: jax.Array) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))
