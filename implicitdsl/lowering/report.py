"""What a solve hands back besides values: a report per sample, and the solution that carries both."""

from __future__ import annotations

import keyword
from collections import namedtuple
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from implicitdsl.ground.outcomes import Outcome


@dataclass(frozen=True)
class Report:
    """How a solve went, one entry a sample, in the batch shape of the inputs.

    converged   bool
    status      `ground.outcomes.Outcome` values, int64
    iterations  steps of the solver; summed over blocks
    residual    norm of what should be zero; the largest of several blocks
    nfe         evaluations of the user's functions; summed over blocks
    solver      the method that ran; message: anything it has to say; blocks: a report each, where there are several
    """

    converged: Tensor
    status: Tensor
    iterations: Tensor
    residual: Tensor
    nfe: Tensor
    solver: str = ""
    message: str = ""
    blocks: tuple[Report, ...] = ()

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
    return Report(torch.ones(shape, dtype=torch.bool, device=device), zero, zero, residual, zero, "explicit")


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
    )


@dataclass(frozen=True)
class Solution:
    """`value` is what calling the layer returns, `report` how it was found.

    `unknowns` holds the unknowns by name, detached: given as `start=` to a later call they warm-start it.
    """

    value: Any
    report: Report
    unknowns: Mapping[str, Tensor] = field(default_factory=dict, repr=False)


# -- several outputs ---------------------------------------------------------------------------------------------------


def _rebuild(name: str, fields: tuple[str, ...], values: tuple[Any, ...]) -> tuple[Any, ...]:
    return outputs_type(name, fields)(*values)


@cache
def outputs_type(name: str, fields: tuple[str, ...]) -> type[Any]:
    """The named tuple of a layer's outputs. Its values pickle and deepcopy although its class is made at run time."""
    safe = tuple(f + "_" if keyword.iskeyword(f) else f for f in fields)
    kind: Any = namedtuple(name, safe)

    def reduce(self: tuple[Any, ...]) -> tuple[Any, ...]:
        return _rebuild, (name, fields, tuple(self))

    kind.__reduce__ = reduce
    return kind
