"""What is known of a differential equation before tensors come, and its problem."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from implicitdsl.backward.failure import Failures
from implicitdsl.backward.ode_solve import Backward
from implicitdsl.families.call import Call
from implicitdsl.ground.source import Source, Span
from implicitdsl.lowering.source import Program
from implicitdsl.solvers.ode.control import Control
from implicitdsl.solvers.ode.method import Method
from implicitdsl.solvers.ode.problem import OdeProblem, Reuse


@dataclass(frozen=True)
class Asked:
    """An answer: its key, the state, the time (a place among `times`), whether that is a list of times, and whether the
    rate of the state is asked for.
    """

    name: str
    state: int
    time: int
    listed: bool
    rate: bool


@dataclass(frozen=True)
class Spectral:
    """A linear equation's matrix as `scale` times `constant`, which is computed from the declarations `consts` alone;
    `forced`: the equation has further terms.
    """

    scale: Call
    constant: Call
    consts: tuple[str, ...]
    forced: bool


@dataclass(frozen=True)
class Recipe:
    """All that is known of a block before tensors come. `states` are shapes, in packing order, with the unknowns'
    `names` (None: a derivative); `at_end`: the end state and time are wanted by their own names; `probes`:
    random signs to be drawn in every call; `kinks`: the times of known kinks, with their rank; `spectral`: where the
    equation's matrix is a number times a matrix of constants.
    """

    program: Program
    rate: Call
    ranks: tuple[int, ...]
    moving: bool
    invariants: Call | None
    hoisted: tuple[str, ...]
    probes: tuple[tuple[str, tuple[int, ...]], ...]
    start: Call
    times: Call
    time_ranks: tuple[int, ...]
    states: tuple[tuple[int, ...], ...]
    names: tuple[str | None, ...]
    variable: str
    asked: tuple[Asked, ...]
    at_end: bool
    measured: int | None
    methods: tuple[Method, ...]
    labels: tuple[str, ...]
    events: tuple[str, ...]
    control: Control
    backward: Backward
    failures: Failures
    source: Source
    places: Mapping[str, Span]
    kinks: tuple[Call, int] | None = None
    spectral: Spectral | None = None

    @property
    def exact(self) -> bool:
        """Whether there is a matrix exponential and no method."""
        return len(self.methods) == 0

    @property
    def compiles(self) -> bool:
        """Whether `torch.compile` may trace it: no Jacobian that takes autograd."""
        return self.exact or not self.methods[0].implicit or "jacobian" in self.program

    @property
    def wanted(self) -> tuple[int, ...]:
        """The places among the times at which states are computed, in order; 1 is the end."""
        at_end = self.at_end or len(self.asked) == 0 or len(self.events) > 0
        places = [a.time for a in self.asked] + ([1] if at_end else [])
        return tuple(sorted(set(places)))

    @property
    def size(self) -> int:
        return sum(math.prod(shape) for shape in self.states)


def closed(recipe: Recipe) -> OdeProblem:
    """The problem of an equation in which every function is one of the language."""
    program, moving = recipe.program, recipe.moving

    def timed(name: str) -> Callable[..., Tensor]:
        run = program[name]
        if moving:
            return lambda t, y, *a: full(run(y, t, *a), y)
        return lambda t, y, *a: full(run(y, *a), y)

    def pulled(name: str) -> Callable[..., Any]:
        run = program[name]
        return (lambda t, y, u, *a: run(y, u, t, *a)) if moving else (lambda t, y, u, *a: run(y, u, *a))

    def matrix() -> Callable[..., Tensor]:
        run = program["jacobian"]
        return (lambda t, y, *a: run(y, t, *a)) if moving else (lambda t, y, *a: run(y, *a))

    pull, inputs = pulled("pull"), pulled("pull_inputs") if "pull_inputs" in program else None
    return OdeProblem(
        timed("rate"),
        recipe.ranks,
        pull=lambda t, y, u, *a: full(pull(t, y, u, *a), y),
        pull_inputs=(lambda *_: ()) if inputs is None else lambda *args: several(inputs(*args), len(recipe.ranks)),
        jacobian=matrix() if "jacobian" in program else None,
        drift=timed("drift") if moving else None,
        autonomous=not moving,
        measured=recipe.measured,
        reuse=_reuse(recipe) if "rate_kept" in program else None,
    )


def _reuse(recipe: Recipe) -> Reuse:
    """What the generated functions have in common, handed on."""
    program, moving, count = recipe.program, recipe.moving, len(recipe.ranks)
    rate, pull = program["rate_kept"], program["pull_kept"]
    inputs = program["pull_inputs_kept"] if count else None

    def forward(t: Tensor, y: Tensor, *a: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        value, *kept = rate(y, t, *a) if moving else rate(y, *a)
        return full(value, y), tuple(kept)

    def back(t: Tensor, y: Tensor, u: Tensor, kept: tuple[Tensor, ...], *a: Tensor) -> Any:
        found = pull(y, u, *kept, t, *a) if moving else pull(y, u, *kept, *a)
        value, *more = found if isinstance(found, tuple) else (found,)
        return full(value, y), tuple(more)

    def back_inputs(
        t: Tensor, y: Tensor, u: Tensor, kept: tuple[Tensor, ...], more: tuple[Tensor, ...], *a: Tensor
    ) -> tuple[Tensor, ...]:
        if inputs is None:
            return ()
        found = inputs(y, u, *kept, *more, t, *a) if moving else inputs(y, u, *kept, *more, *a)
        return several(found, count)

    return Reuse(forward, back, back_inputs)


def full(value: Tensor, like: Tensor) -> Tensor:
    """With the batch, where nothing batched entered."""
    return value if value.shape == like.shape else value.expand_as(like)


def column(t: Tensor, rank: int, rows: int) -> Tensor:
    """A time, or a list of times, as (B, k)."""
    t = t if t.dim() > rank else t.expand(rows, *t.shape)
    return t if rank else t.unsqueeze(1)


def several(found: Any, count: int) -> tuple[Tensor, ...]:
    return found if count > 1 else (found,)
