"""What a solve hands back besides values: a report per sample, and the solution that carries both."""

from __future__ import annotations

import keyword
from collections import namedtuple
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from implicitdsl.ground.outcomes import Outcome


class Linearised(Protocol):
    """A block of equations at the solution that was found: what its Jacobian says. One entry a sample, (B,) or ()."""

    @property
    def certified(self) -> bool:
        """Whether `rate` and `error_bound` are proved."""
        ...

    def jacobian_norm(self, samples: int | None, generator: torch.Generator | None) -> Tensor: ...

    def spectral_radius(self) -> Tensor: ...

    def rate(self) -> Tensor: ...

    def error_bound(self) -> Tensor: ...


@dataclass(frozen=True)
class Report:
    """How a solve went, one entry a sample, in the batch shape of the inputs.

    converged   bool
    status      `ground.outcomes.Outcome` values, int64
    iterations  steps of the solver; summed over blocks
    residual    norm of what should be zero; the largest of several blocks
    nfe         evaluations of the user's functions; summed over blocks
    solver      the method that ran; message: anything it has to say; blocks: a report each, where there are several

    and, computed when first asked for:

    rate         a bound on the contraction rate of z = f(z) where one is proved, else an estimate of it, the spectral
                 radius of ∂f/∂z; the largest of several blocks; NaN where the equations do not read z = f(z)
    error_bound  ‖z - z*‖₂: at most ‖f(z) - z‖/(1 - rate) where the rate is proved, to the rounding of f (Banach); else
                 an estimate, the length of a Newton step. Of several blocks the root of the sum of squares
    certified    bool, whether these two are proved. Never so for several blocks together, whose errors add up along
                 the way: each of `blocks` tells of its own equations with earlier unknowns taken as they are
    """

    converged: Tensor
    status: Tensor
    iterations: Tensor
    residual: Tensor
    nfe: Tensor
    solver: str = ""
    message: str = ""
    blocks: tuple[Report, ...] = ()
    linearised: tuple[Linearised, ...] | None = field(default=None, repr=False, compare=False)
    """The equations at their solutions; none for explicit ones; None where it is not known."""

    @cached_property
    def rate(self) -> Tensor:
        found = [x.rate() for x in self._known("rate")]
        return self._shaped(torch.stack(found).amax(0) if found else torch.zeros_like(self.residual))

    @cached_property
    def error_bound(self) -> Tensor:
        found = [x.error_bound() for x in self._known("error_bound")]
        return self._shaped(torch.stack(found).square().sum(0).sqrt() if found else torch.zeros_like(self.residual))

    @cached_property
    def certified(self) -> Tensor:
        known = self._known("certified")
        proved = not known or (len(known) == 1 and known[0].certified)
        return self.error_bound.isfinite() & proved

    def _known(self, what: str) -> tuple[Linearised, ...]:
        if self.linearised is None:
            raise TypeError(f"{what}: not known of what {self.solver or 'this layer'} solved here")
        return self.linearised

    def _shaped(self, per_sample: Tensor) -> Tensor:
        """With the leading dimensions of the call."""
        shape = self.residual.shape
        return per_sample.expand(shape) if per_sample.dim() == 0 else per_sample.reshape(shape)

    def __getstate__(self) -> dict[str, Any]:
        """Without the equations, which hold the graph of the call; what they say is evaluated before."""
        if self.linearised:
            for name in ("rate", "error_bound", "certified"):
                getattr(self, name)
        return {**self.__dict__, "linearised": None}

    def reshaped(self, lead: Sequence[int]) -> Report:
        """With the leading dimensions of the caller instead of one flat batch."""

        def shaped(t: Tensor) -> Tensor:
            return t.expand(tuple(lead)) if t.dim() == 0 else t.reshape(tuple(lead))

        return Report(
            shaped(self.converged),
            shaped(self.status),
            shaped(self.iterations),
            shaped(self.residual),
            shaped(self.nfe),
            self.solver,
            self.message,
            tuple(b.reshaped(lead) for b in self.blocks),
            self.linearised,
        )

    def __repr__(self) -> str:
        total = self.converged.numel()
        good = int(self.converged.sum())
        parts = [f"{good} of {total} converged"]
        if self.solver:
            parts.append(self.solver)
        if total:
            parts.append(f"{_span(self.iterations)} iterations")
            parts.append(f"worst residual {float(self.residual.max()):.2g}")
            parts.append(f"{_span(self.nfe)} evaluations")
        if good < total:
            worst = Outcome(int(self.status.flatten()[int((~self.converged).flatten().int().argmax())]))
            parts.append(worst.advice)
        if self.message:
            parts.append(self.message)
        text = f"Report({', '.join(parts)})"
        return "\n".join([text, *(f"  block {k}: {b!r}" for k, b in enumerate(self.blocks, 1))])


def _span(values: Tensor) -> str:
    lo, hi = int(values.min()), int(values.max())
    return str(lo) if lo == hi else f"{lo}–{hi}"


def explicit(like: Tensor | None, batch: int | None) -> Report:
    """Of a layer that has nothing to solve."""
    shape = () if batch is None else (batch,)
    device = None if like is None else like.device
    zero = torch.zeros(shape, dtype=torch.int64, device=device)
    residual = torch.zeros(shape, dtype=None if like is None else like.dtype, device=device)
    return Report(
        torch.ones(shape, dtype=torch.bool, device=device), zero, zero, residual, zero, "explicit", linearised=()
    )


def combined(reports: Sequence[Report]) -> Report:
    """One report of several blocks: all must converge, the first failure is the status, work adds up."""
    if len(reports) == 1:
        return reports[0]
    status = reports[0].status
    for r in reports[1:]:
        status = torch.where(status == Outcome.CONVERGED, r.status, status)
    residuals = torch.stack(torch.broadcast_tensors(*[r.residual for r in reports]))
    return Report(
        torch.stack(torch.broadcast_tensors(*[r.converged for r in reports])).all(0),
        status,
        torch.stack(torch.broadcast_tensors(*[r.iterations for r in reports])).sum(0),
        residuals.amax(0),
        torch.stack(torch.broadcast_tensors(*[r.nfe for r in reports])).sum(0),
        " + ".join(dict.fromkeys(r.solver for r in reports if r.solver)),
        "; ".join(r.message for r in reports if r.message),
        tuple(reports),
        None if any(r.linearised is None for r in reports) else tuple(x for r in reports for x in r.linearised or ()),
    )


@dataclass(frozen=True)
class Solution:
    """`value` is what calling the layer returns, `report` how it was found.

    `unknowns` holds the unknowns by name, detached: given as `start=` to a later call they warm-start it.
    """

    value: Any
    report: Report
    unknowns: Mapping[str, Tensor] = field(default_factory=dict, repr=False)

    def __iter__(self) -> Iterator[Any]:
        """`value, report = layer.solve(x)`."""
        return iter((self.value, self.report))

    def jacobian_norm(self, samples: int | None = 1, generator: torch.Generator | None = None) -> Tensor:
        """‖∂f/∂z‖_F² of each sample at the solution of z = f(z), in the batch shape of the call; differentiable.

        A Hutchinson estimate from `samples` random vectors (None: exact, a product an unknown), to be added to a loss:
        `loss + 0.1 * sol.jacobian_norm().mean()` keeps the map contracting during training. Its gradient in inputs and
        parameters is whole: that through z is implicit, in the same backward solve as the loss. Over several blocks,
        and parts solved in order, the sum of the blocks' own; 0 for explicit equations.
        Cost: a product with the transposed Jacobian a sample; in the backward pass a few more.
        Raises TypeError where the equations do not read z = f(z).
        Source: Hutchinson (1990); Bai, Koltun & Kolter (2021).
        """
        found = [x.jacobian_norm(samples, generator) for x in self.report._known("jacobian_norm")]
        total = torch.stack(found).sum(0) if found else torch.zeros_like(self.report.residual)
        return self.report._shaped(total)

    def spectral_radius(self) -> Tensor:
        """max |λ(∂f/∂z)| of each sample at the solution of z = f(z), in the batch shape of the call; no gradient.

        The rate at which plain iteration converges near the solution (or diverges, from 1 on), for any Jacobian: all
        its eigenvalues for few unknowns, Arnoldi's method to three digits for many; of several blocks the largest.
        Raises TypeError where the equations do not read z = f(z).
        """
        found = [x.spectral_radius() for x in self.report._known("spectral_radius")]
        return self.report._shaped(torch.stack(found).amax(0) if found else torch.zeros_like(self.report.residual))


# -- several outputs ---------------------------------------------------------------------------------------------------


def _rebuild(name: str, fields: tuple[str, ...], values: tuple[Any, ...]) -> tuple[Any, ...]:
    return outputs_type(name, fields)(*values)


@cache
def outputs_type(name: str, fields: tuple[str, ...]) -> type[Any]:
    """The named tuple of a layer's outputs. Its values pickle and deepcopy although its class is made at run time."""
    safe = tuple(f + "_" if keyword.iskeyword(f) else f for f in fields)
    kind: Any = namedtuple(name + "_" if keyword.iskeyword(name) else name, safe)

    def reduce(self: tuple[Any, ...]) -> tuple[Any, ...]:
        return _rebuild, (name, fields, tuple(self))

    kind.__reduce__ = reduce
    return kind
