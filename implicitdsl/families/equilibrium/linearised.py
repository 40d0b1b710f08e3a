"""A block at its solution: what the Jacobian there says of the map, of its rate, and of the error that is left."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from implicitdsl.solvers import spectrum
from implicitdsl.solvers.problem import Inputs, RootProblem
from implicitdsl.solvers.verdict import norm


@dataclass(frozen=True)
class AtSolution:
    """See `lowering.report.Linearised`. `z` (B, N) and `a` carry the graph of the call; `single`: there is no batch.

    `proved`: a contraction rate that holds everywhere, in the 2-norm of all unknowns.
    """

    problem: RootProblem
    z: Tensor
    a: Inputs
    names: str
    single: bool
    proved: float | None
    versions: tuple[int | None, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "versions", tuple(map(_version, self.a)))

    @property
    def certified(self) -> bool:
        return self.proved is not None

    def jacobian_norm(self, samples: int | None, generator: torch.Generator | None) -> Tensor:
        self._check("jacobian_norm")
        return self._entries(spectrum.jacobian_norm(self.problem, self.z, self.a, samples, generator))

    def spectral_radius(self) -> Tensor:
        self._check("spectral_radius")
        return self._entries(spectrum.spectral_radius(self.problem, self.z, self.a))

    def rate(self) -> Tensor:
        if self.proved is not None:
            return self._entries(torch.full_like(self.z[:, 0], self.proved).detach())
        if self.problem.step is None:
            return self._entries(torch.full_like(self.z[:, 0], torch.nan).detach())
        return self.spectral_radius()

    def error_bound(self) -> Tensor:
        self._check(None)
        z, a = self.z.detach(), tuple(x.detach() for x in self.a)
        if self.proved is None:
            return self._entries(spectrum.distance(self.problem, z, a))
        with torch.no_grad():
            step = self.problem.at(a).G(z, a)
            # the difference is computed with an error of some eps of its terms
            rounding = 4 * torch.finfo(z.dtype).eps * (norm(z) + norm(step))
            return self._entries((norm(step - z) + rounding) / (1 - self.proved))

    def _entries(self, per_sample: Tensor) -> Tensor:
        return per_sample.squeeze(0) if self.single else per_sample

    def _check(self, what: str | None) -> None:
        """The equations are still those that were solved, and have what is asked for."""
        if what is not None and self.problem.step is None:
            raise TypeError(f"{what}: the equations for {self.names} do not read z = f(z)")
        if self.versions != tuple(map(_version, self.a)):
            raise RuntimeError(f"the inputs or parameters of {self.names} were changed in place since the solve")


def _version(x: Tensor) -> int | None:
    return None if x.is_inference() else x._version
