"""optimistix' fixed-point iteration and Newton under JAX's jit, with exact implicit gradients."""

from __future__ import annotations

import os

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import torch
from torch import Tensor

from .contest import Gradient, Peer


def peers(W: Tensor, x: Tensor) -> list[Peer]:
    """z = tanh(W z + x): forward and backward of the sum; the gradient of W."""
    weights, given = jnp.asarray(W.numpy()), jnp.asarray(x.numpy())

    def at(solver: str, tol: float) -> Gradient:
        def one(W: jax.Array, x: jax.Array) -> jax.Array:
            start = jnp.zeros_like(x)
            if solver == "FixedPointIteration":
                method = optx.FixedPointIteration(rtol=tol, atol=tol)
                return optx.fixed_point(lambda z, W: jnp.tanh(W @ z + x), method, start, W, max_steps=2000).value
            method = optx.Newton(rtol=tol, atol=tol)
            return optx.root_find(lambda z, W: z - jnp.tanh(W @ z + x), method, start, W, max_steps=100).value

        def loss(W: jax.Array) -> jax.Array:
            return jax.vmap(one, (None, 0))(W, given).sum()

        gradient = jax.jit(jax.grad(loss))

        def run() -> Tensor:
            return torch.from_numpy(np.array(gradient(weights).block_until_ready()))

        return run

    solvers = ("FixedPointIteration", "Newton") if x.shape[1] <= 128 else ("FixedPointIteration",)
    return [Peer(f"optimistix {s}", lambda tol, s=s: at(s, tol)) for s in solvers]
