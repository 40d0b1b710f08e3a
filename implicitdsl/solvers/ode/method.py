"""What the loop asks of a one-step method, and what a step hands back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from ..problem import Inputs
from .problem import Found, OdeProblem
from .tableau import Row


class Step(NamedTuple):
    """A step of every row. `y` (b, N): the new state; `last`: f there, where the next step begins.

    error, low: estimates of the local error (b, N); K (s, b, N): the increments that `interpolant` weighs, of explicit
    methods the stages' rates times the step;
    Z (s, b, N): the stages' states; stiffness (b, 1): |step| times an estimate of the spectral radius, or NaN; sure
    (b, 1): whether that estimate is above rounding; kept: what `Reuse.rate` hands on at the stages after the first.
    """

    y: Tensor
    last: Tensor
    error: Tensor | None = None
    low: Tensor | None = None
    K: Tensor | None = None
    Z: Tensor | None = None
    stiffness: Tensor | None = None
    sure: Tensor | None = None
    kept: tuple[Found, ...] | None = None


@dataclass(frozen=True)
class Method(ABC):
    """A one-step method. `control`: its error estimate is O(h^control), 0: there is none; `interpolant`: see `Tableau`.

    `evaluations`: of f in a step.
    """

    @property
    def limit(self) -> float | None:
        """The next step keeps |step| times spectral radius below this."""
        return None

    @property
    def implicit(self) -> bool:
        """Whether a step needs ∂f/∂y."""
        return False

    @property
    @abstractmethod
    def control(self) -> int: ...

    @property
    @abstractmethod
    def order(self) -> int: ...

    @property
    @abstractmethod
    def evaluations(self) -> int: ...

    @property
    def interpolant(self) -> tuple[Row, ...] | None:
        return None

    def first(self, problem: OdeProblem, t: Tensor, y: Tensor, a: Inputs) -> Tensor:
        """f where the integration begins."""
        return problem.rate(t, y, *a)

    @abstractmethod
    def step(self, problem: OdeProblem, a: Inputs, t: Tensor, H: Tensor, y: Tensor, first: Tensor) -> Step:
        """One step from (t (b,), y (b, N)) of length H (b, 1); `first` is f(t, y). Nothing is differentiated."""

    @abstractmethod
    def smooth(self, problem: OdeProblem, a: Inputs, t: Tensor, H: Tensor, y: Tensor, first: Tensor) -> Step:
        """The same step by differentiable operations out of place: for autograd, transforms and compilers."""
