"""Our side: the step that trains."""

import time

import jax
import jax.numpy as jnp
import numpy as np

from flax_attn import to_torch

from ..step import adam, create_state, network_of, train_step
from ..tasks import PatchTask
from .problem import Problem, Progress, Trajectory

NAME = "ours"


def train_ours(problem: Problem, progress: Progress) -> Trajectory:
    """Trains our network."""
    state = problem.layout.copy(create_state(problem.network, adam(problem.rate)))
    state = jax.tree.map(jnp.copy, state)  # a step gives its state's memory away; the twins still need the network
    task, losses, seconds = PatchTask(problem.options.patches), [], []
    for epoch, fed in problem.batches():
        began = time.perf_counter()
        state, scores = train_step(state, fed.inputs, fed.places, fed.indices, epoch, problem.key, task=task)
        losses.append(float(scores.error))
        # Its parameters may still be on their way.
        jax.block_until_ready(state.params)
        seconds.append(time.perf_counter() - began)
        progress(NAME)
    return Trajectory(np.array(losses), np.array(seconds), to_torch(network_of(state)))
