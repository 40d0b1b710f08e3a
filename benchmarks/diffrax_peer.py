"""diffrax under JAX's jit, with its default adjoint (recursive checkpoints)."""

from __future__ import annotations

import os

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

from collections.abc import Callable, Sequence

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor


def mlp(
    params: Sequence[Tensor], y0: Tensor, end: float, weights: Tensor, rtol: float, atol: float
) -> Callable[[], tuple[Tensor, Tensor]]:
    """dy/dt = V tanh(W y + b) + c for a batch as one state: its states and the gradient of their weighted sum."""
    given = tuple(jnp.asarray(p.detach().numpy()) for p in params)
    start, factor = jnp.asarray(y0.detach().numpy()), jnp.asarray(weights.numpy())
    steps = diffrax.PIDController(rtol=rtol, atol=atol)

    def rate(t: jax.Array, y: jax.Array, p: tuple[jax.Array, ...]) -> jax.Array:
        W, b, V, c = p
        return jnp.tanh(y @ W.T + b) @ V.T + c

    def loss(p: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        found = diffrax.diffeqsolve(
            diffrax.ODETerm(rate), diffrax.Tsit5(), 0.0, end, None, start, p, stepsize_controller=steps
        )
        assert found.ys is not None
        return (found.ys[-1] * factor).sum(), found.ys[-1]

    gradient = jax.jit(jax.grad(loss, has_aux=True))

    def run() -> tuple[Tensor, Tensor]:
        g, y = gradient(given)
        y.block_until_ready()
        flat = np.concatenate([np.asarray(x).ravel() for x in g])
        return torch.from_numpy(np.array(y).ravel()), torch.from_numpy(flat)

    return run
