"""Derivatives of bound functions: by plain autograd where nothing differentiates them again, else written out.

Fused attention has first derivatives only, and no rule for vmap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from implicitdsl.backward.rules import plain
from implicitdsl.solvers.problem import Inputs, Linear, RootProblem, Shifted

Inner = Callable[[Tensor], tuple[Tensor | None, ...]]

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


def _cut(a: Inputs) -> tuple[Inputs, list[int]]:
    """The inputs cut off from what they were computed from, which may be an input too; the places of those that are
    differentiated. A tensor that stands twice is one input, whose cotangent is the sum."""
    first = {id(x): i for i, x in reversed(list(enumerate(a))) if x.requires_grad}
    places = sorted(first.values())
    cut = {i: x.detach().requires_grad_() for i in places if not (x := a[i]).is_leaf}
    return tuple(cut.get(first.get(id(x), i), x) for i, x in enumerate(a)), places


def _linearised(problem: RootProblem, z: Tensor, a: Inputs) -> tuple[Linear, Inner, Shifted | None]:
    """See `RootProblem.linearised`; the graph of one evaluation serves all of it."""
    with torch.enable_grad():
        at = z.detach().requires_grad_()
        a, places = _cut(a)
        value = problem.F(at, a) if problem.step is None else problem.step(at, *a)

    def pull(u: Tensor) -> Tensor:
        if not value.requires_grad:
            return torch.zeros_like(u)
        return torch.autograd.grad(value, at, u, retain_graph=True, materialize_grads=True)[0]

    def inputs(u: Tensor) -> tuple[Tensor | None, ...]:
        found: list[Tensor | None] = [None] * len(a)
        if places and value.requires_grad:
            u = -u if problem.step is None else u
            cotangents = torch.autograd.grad(value, [a[i] for i in places], u, allow_unused=True, retain_graph=True)
            for i, cotangent in zip(places, cotangents, strict=True):
                found[i] = cotangent
        return tuple(found)

    if problem.step is None:
        return pull, inputs, None
    return lambda u: u - pull(u), inputs, lambda u, g: g + pull(u)


def _vjp_inputs(problem: RootProblem, z: Tensor, u: Tensor, a: Inputs) -> tuple[Tensor | None, ...]:
    found: list[Tensor | None] = [None] * len(a)
    with torch.enable_grad():
        a, places = _cut(a)
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

    def linearised(z: Tensor, *a: Tensor) -> tuple[Linear, Inner, Shifted | None]:
        return _linearised(problem, z, a)

    return replace(
        problem,
        pullback=pullback,
        pushforward=pushforward,
        vjp_inputs=vjp_inputs,
        jvp_inputs=jvp_inputs,
        linearised=linearised,
    )
