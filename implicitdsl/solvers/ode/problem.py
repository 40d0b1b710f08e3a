"""What an integrator is given: a batched right-hand side with the derivatives that are known in closed form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..problem import Inputs

Rate = Callable[..., Tensor]
Found = tuple[Tensor, ...]


@dataclass(frozen=True)
class Reuse:
    """A right-hand side and its transposes that compute nothing twice: each hands on what the later ones need.

    rate         (t, y, *a) -> (f, kept)
    pull         (t, y, u, kept, *a) -> ((∂f/∂y)ᵀ u, more)
    pull_inputs  (t, y, u, kept, more, *a) -> as `OdeProblem.pull_inputs`

    All of kept and more have the batch as their first dimension.
    """

    rate: Callable[..., tuple[Tensor, Found]]
    pull: Callable[..., tuple[Tensor, Found]]
    pull_inputs: Callable[..., tuple[Tensor | None, ...]]


@dataclass(frozen=True)
class OdeProblem:
    """dy/dt = f(t, y; a) for a batch of independent rows: t (B,), y (B, N).

    Every callable depends on nothing else that is differentiated. What is missing is derived from `rate` by autograd.

    rate         (t, y, *a) -> f (B, N)
    ranks        core rank of each a_i: it has that many dimensions (shared by the batch) or a leading B before them
    pull         (t, y, u, *a) -> (∂f/∂y)ᵀ u
    pull_inputs  (t, y, u, *a) -> tuple of (∂f/∂a_i)ᵀ u in the shape of a_i, summed over the rows where it is shared
    jacobian     (t, y, *a) -> ∂f/∂y (B, N, N), or (N, N) where all rows share it
    drift        (t, y, *a) -> ∂f/∂t (B, N)
    autonomous   f does not contain t
    measured     only the first so many entries are in the error norm; the others are integrals that feed nothing back
    kinks        the last input holds times at which f or a derivative of it jumps: see `kinks.kinked`
    reuse        the same with what they have in common kept; None: there is nothing worth it
    """

    rate: Rate
    ranks: tuple[int, ...] = ()
    pull: Rate | None = None
    pull_inputs: Callable[..., tuple[Tensor | None, ...]] | None = None
    jacobian: Rate | None = None
    drift: Rate | None = None
    autonomous: bool = False
    measured: int | None = None
    kinks: bool = False
    reuse: Reuse | None = None

    def rows(self, a: Inputs, rows: Tensor) -> Inputs:
        """The inputs of some rows."""
        return tuple(x.index_select(0, rows) if x.dim() > r else x for x, r in zip(a, self.ranks, strict=True))

    def kept_rate(self, t: Tensor, y: Tensor, a: Inputs) -> tuple[Tensor, Found]:
        """f, and what its transposes need of it: see `Reuse`."""
        return (self.rate(t, y, *a), ()) if self.reuse is None else self.reuse.rate(t, y, *a)

    def pull_state(self, t: Tensor, y: Tensor, u: Tensor, a: Inputs) -> Tensor:
        """(∂f/∂y)ᵀ u, (B, N). Not differentiable itself where it comes from autograd."""
        if self.pull is not None:
            return self.pull(t, y, u, *a)
        if torch.compiler.is_compiling():
            return torch.func.vjp(lambda z: self.rate(t, z, *a), y)[1](u)[0]
        with torch.enable_grad():
            at = y.detach().requires_grad_()
            value = self.rate(t, at, *a)
        if not value.requires_grad:
            return torch.zeros_like(y)
        return torch.autograd.grad(value, at, u, materialize_grads=True)[0]

    def pull_parameters(self, t: Tensor, y: Tensor, u: Tensor, a: Inputs) -> tuple[Tensor | None, ...]:
        """(∂f/∂a_i)ᵀ u in the shape of a_i; None where it has no gradient."""
        if self.pull_inputs is not None:
            return self.pull_inputs(t, y, u, *a)
        wanted = [i for i, x in enumerate(a) if x.is_floating_point()]
        if torch.compiler.is_compiling():
            return torch.func.vjp(lambda *a: self.rate(t, y, *a), *a)[1](u)
        with torch.enable_grad():
            cut = [x.detach().requires_grad_(i in wanted) for i, x in enumerate(a)]
            value = self.rate(t, y.detach(), *cut)
        found: list[Tensor | None] = [None] * len(a)
        if value.requires_grad and wanted:
            pulled = torch.autograd.grad(value, [cut[i] for i in wanted], u, allow_unused=True)
            for i, g in zip(wanted, pulled, strict=True):
                found[i] = g
        return tuple(found)

    def matrix(self, t: Tensor, y: Tensor, a: Inputs) -> Tensor:
        """∂f/∂y (B, N, N). N products of a row vector with the Jacobian where there is no closed form."""
        if self.jacobian is not None:
            J = self.matrix_of(t, y, a)
            return J.expand(y.shape[0], *J.shape[-2:]) if J.dim() == 2 else J
        create = torch.is_grad_enabled()
        with torch.enable_grad():
            at = y if y.requires_grad else y.detach().requires_grad_()
            value = self.rate(t, at, *a)
            if not value.requires_grad:
                return y.new_zeros(*y.shape, y.shape[1])
            rows = [
                torch.autograd.grad(value[:, i].sum(), at, create_graph=create, retain_graph=True, allow_unused=True)[0]
                for i in range(y.shape[1])
            ]
        return torch.stack([torch.zeros_like(y) if r is None else r for r in rows], 1)

    def matrix_of(self, t: Tensor, y: Tensor, a: Inputs) -> Tensor:
        """∂f/∂y (N, N) where all rows share it, else (B, N, N)."""
        return self.matrix(t, y, a) if self.jacobian is None else self.jacobian(t, y, *a)

    def time_derivative(self, t: Tensor, y: Tensor, a: Inputs) -> Tensor | None:
        """∂f/∂t (B, N); None where f does not contain t."""
        if self.autonomous:
            return None
        if self.drift is not None:
            return self.drift(t, y, *a)
        if torch.compiler.is_compiling():
            return torch.func.jvp(lambda s: self.rate(s, y, *a), (t,), (torch.ones_like(t),))[1]
        create = torch.is_grad_enabled()
        with torch.enable_grad():
            at = t if t.requires_grad else t.detach().requires_grad_()
            value = self.rate(at, y, *a)
            if not value.requires_grad:
                return None
            columns = [
                torch.autograd.grad(value[:, i].sum(), at, create_graph=create, retain_graph=True, allow_unused=True)[0]
                for i in range(y.shape[1])
            ]
        return torch.stack([torch.zeros_like(t) if c is None else c for c in columns], 1)
