"""Our side: compiled calls of a block or network, and the training step of ``python -m train``."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx

import flax_attn
from train.data.feed import Feed
from train.devices import Layout
from train.step import adam, create_state, learning_rate, train_step
from train.tasks import TRAIN, split_key, task_of

from .subjects import BACKWARD, FORWARD, STEP, Subject

STEPS = 1000  # of the schedule; the learning rate changes no time


class Ours:
    """A block or network on some devices.

    Attributes:
        devices: how many share its batch.
        module: the block or network.
        x: its input as an array of numpy, (b, h, w, c), or (b, n, c) for blocks that take tokens.
        y: the labels of a network's batch.
        works: by name, functions that do the work and return when it is done.
    """

    def __init__(self, subject: Subject, devices: int | None = None) -> None:
        self._subject, self._layout = subject, Layout(subject.batch, jax.local_devices()[:devices] if devices else None)
        self.devices = self._layout.devices
        self.works: dict[str, Callable[[], Any]] = {}
        self.y: np.ndarray | None = None
        if subject.is_block:
            height, width, channels = subject.size
            name = subject.name.split("/")[1]
            self.module = flax_attn.create_block(name, channels, size=(height, width), rngs=nnx.Rngs(0))
            shape = (height * width,) if subject.kind in ("tokens", "self") else (height, width)
            self.x = np.random.default_rng(0).standard_normal((subject.batch, *shape, channels)).astype(np.float32)
        else:
            self._prepare_step()
        self._prepare_calls()

    def _prepare_step(self) -> None:
        """Draws the batch and prepares the step as `train.loop.Run` does."""
        config, source = self._subject.config, self._subject.source()
        task = task_of(config)
        self.module = task.build(config, source)
        rate = learning_rate(config.schedule, config.learning_rate, STEPS)
        self._state = self._layout.copy(create_state(self.module, adam(rate)))
        fed = next(Feed(source, config, self._layout, streamed=False).train(0, 0))
        key = self._layout.copy(jax.random.key(config.seed))
        draw = jax.jit(partial(task.draw, training=True))
        drawn = draw(fed.inputs[fed.places], fed.labels, fed.indices, split_key(key, TRAIN, 0))
        self.x, self.y = map(np.asarray, drawn)

        def step() -> None:
            self._state, scores = train_step(self._state, fed, 0, key, task=task)
            jax.block_until_ready((self._state.params, scores))

        self.works[STEP] = step

    def _prepare_calls(self) -> None:
        """The forward pass in eval mode; both in training mode, to the input's gradient where it is a block."""
        is_block, call = self._subject.is_block, self._subject.call
        self.module.eval()
        tested, *_ = nnx.split(self.module, nnx.Param, ...)
        self.module.train()
        trained, *variables = nnx.split(self.module, nnx.Param, ...)
        params, rest = self._layout.copy(jax.device_put(variables, may_alias=False))
        x = self._layout.cut(self.x)

        def output(params: Any, rest: Any, x: jax.Array) -> Any:
            return call(nnx.merge(tested, params, rest, copy=True), x)

        @jax.jit
        def both(params: Any, rest: Any, x: jax.Array, change: jax.Array) -> Any:
            def trained_output(params: Any, x: jax.Array = x) -> Any:
                return call(nnx.merge(trained, params, rest, copy=True), x)

            out, back = jax.vjp(trained_output, *((params, x) if is_block else (params,)))
            return out, back(change)

        forward = jax.jit(partial(output))  # a function of its own, or its first call would find what is traced here
        out = jax.eval_shape(output, params, rest, x)
        change = self._layout.cut(np.ones(out.shape, out.dtype))
        calls: dict[str, Callable[[], Any]] = {
            FORWARD: lambda: jax.block_until_ready(forward(params, rest, x)),
            BACKWARD: lambda: jax.block_until_ready(both(params, rest, x, change)),
        }
        self.works = {**calls, **self.works}
