"""Problems whose functions are differentiated twice or by vmap: fused attention has plain first derivatives only."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from implicitdsl.solvers.problem import Linear, RootProblem

DENSE = 256
"""Up to this many unknown numbers a whole Jacobian may be asked for, by products that are mapped over a basis."""


def _written_out(needed: bool) -> AbstractContextManager[None]:
    """Attention as products and a softmax, which have all derivatives, where they are needed."""
    return sdpa_kernel(SDPBackend.MATH) if needed and not torch.compiler.is_compiling() else nullcontext()


def twice(problem: RootProblem) -> RootProblem:
    """The problem with derivatives that may be differentiated, and with forward products, which are transposed ones.

    Where a pullback is not differentiated again, the fused kernels stay.
    """

    def pullback(z: Tensor, *a: Tensor) -> Linear:
        with _written_out(torch.is_grad_enabled() or z.shape[-1] <= DENSE):
            return problem.pull(z, a)

    def pushforward(z: Tensor, *a: Tensor) -> Linear:
        with _written_out(True):
            return problem.push(z, a)

    def vjp_inputs(z: Tensor, u: Tensor, *a: Tensor) -> tuple[Tensor | None, ...]:
        with _written_out(torch.is_grad_enabled()):
            return problem.pull_inputs(z, u, a)

    def jvp_inputs(z: Tensor, tangents: Sequence[Tensor | None], *a: Tensor) -> Tensor:
        with _written_out(True):
            return problem.push_inputs(z, tangents, a)

    return replace(problem, pullback=pullback, pushforward=pushforward, vjp_inputs=vjp_inputs, jvp_inputs=jvp_inputs)
