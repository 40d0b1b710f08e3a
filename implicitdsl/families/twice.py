"""Derivatives of bound functions: by plain autograd where nothing differentiates them again, else written out.

Fused attention has first derivatives only, and no rule for vmap.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from implicitdsl.backward.rules import plain
from implicitdsl.solvers.problem import Inputs, Linear, RootProblem

DENSE = 256
"""Up to this many unknown numbers a whole Jacobian may be asked for, by products that are mapped over a basis."""


def _written_out(needed: bool) -> AbstractContextManager[Any]:
    """Attention as products and a softmax, which have all derivatives, where they are needed."""
    return sdpa_kernel(SDPBackend.MATH) if needed and not torch.compiler.is_compiling() else nullcontext()


def _once() -> bool:
    """Whether tensors are just tensors and nothing is differentiated again."""
    return not torch.compiler.is_compiling() and plain() and not torch.is_grad_enabled()


def _pullback(problem: RootProblem, z: Tensor, a: Inputs) -> Linear:
    with torch.enable_grad():
        at = z.detach().requires_grad_()
        value = problem.F(at, a)
    if not value.requires_grad:
        return torch.zeros_like
    return lambda u: torch.autograd.grad(value, at, u, retain_graph=True, materialize_grads=True)[0]


def _vjp_inputs(problem: RootProblem, z: Tensor, u: Tensor, a: Inputs) -> tuple[Tensor | None, ...]:
    found: list[Tensor | None] = [None] * len(a)
    first = {
        id(x): i for i, x in reversed(list(enumerate(a))) if x.requires_grad
    }  # a tensor that stands twice: its sum
    places = sorted(first.values())
    with torch.enable_grad():
        # an input that was computed is cut off: what it was computed from may be an input too
        cut = {i: x.detach().requires_grad_() for i in places if not (x := a[i]).is_leaf}
        a = tuple(cut.get(first.get(id(x), i), x) for i, x in enumerate(a))
        value = problem.F(z.detach(), a)
    if places and value.requires_grad:
        cotangents = torch.autograd.grad(value, [a[i] for i in places], u, allow_unused=True)
        for i, cotangent in zip(places, cotangents, strict=True):
            found[i] = cotangent
    return tuple(found)


def twice(problem: RootProblem) -> RootProblem:
    """The problem with derivatives that may be differentiated, and with forward products, which are transposed ones.

    Where a pullback is not differentiated again the fused kernels stay, and autograd is asked for what is needed only:
    inputs that require no gradient get None.
    """

    def pullback(z: Tensor, *a: Tensor) -> Linear:
        if z.shape[-1] > DENSE and _once():
            return _pullback(problem, z, a)
        with _written_out(torch.is_grad_enabled() or z.shape[-1] <= DENSE):
            return problem.pull(z, a)

    def pushforward(z: Tensor, *a: Tensor) -> Linear:
        with _written_out(True):
            return problem.push(z, a)

    def vjp_inputs(z: Tensor, u: Tensor, *a: Tensor) -> tuple[Tensor | None, ...]:
        if _once():
            return _vjp_inputs(problem, z, u, a)
        with _written_out(torch.is_grad_enabled()):
            return problem.pull_inputs(z, u, a)

    def jvp_inputs(z: Tensor, tangents: Sequence[Tensor | None], *a: Tensor) -> Tensor:
        with _written_out(True):
            return problem.push_inputs(z, tangents, a)

    return replace(problem, pullback=pullback, pushforward=pushforward, vjp_inputs=vjp_inputs, jvp_inputs=jvp_inputs)
