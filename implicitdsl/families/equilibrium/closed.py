"""The problem of a system in which every function is one of the language, from its generated functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from implicitdsl.lowering.source import Program
from implicitdsl.solvers.problem import RootProblem

from .proximal import stepped

if TYPE_CHECKING:
    from .block import Recipe


@dataclass(frozen=True)
class Made:
    """The problem whose root is the solution; inputs beyond those of the equations; the misfit of least squares."""

    problem: RootProblem
    extra: tuple[Tensor, ...] = ()
    misfit: RootProblem | None = None


def problem_of(recipe: Recipe, like: Tensor, ranks: tuple[int, ...], **callables: Any) -> RootProblem:
    """The problem that these functions state, with what the recipe knows of it."""
    lower, upper = recipe.regions.box(like)
    return RootProblem(
        **callables, ranks=ranks, diagonal=recipe.diagonal, affine=recipe.affine, lower=lower, upper=upper
    )


def closed(recipe: Recipe, like: Tensor) -> Made:
    """The problem of a system in which every function is one of the language."""
    program = recipe.program
    problem = problem_of(
        recipe,
        like,
        recipe.ranks,
        residual=program["residual"],
        step=_optional(program, "step"),
        stepper=_optional(program, "stepper"),
        jacobian=_optional(program, "jacobian"),
        constant=_optional(program, "constant"),
        pullback=_optional(program, "pullback"),
        adjoint=_adjoint(program),
        linearised=_linearised(program),
        vjp_inputs=_pull_inputs(program),
        proximal=_optional(program, "proximal"),
        sylvester=_optional(program, "sylvester"),
        activation=None if recipe.activation is None else stepped(recipe.activation, program["activation"]),
    )
    if "misfit" not in program:
        return Made(problem)
    misfit = problem_of(
        recipe, like, recipe.ranks, residual=program["misfit"], jacobian=_optional(program, "misfit_jacobian")
    )
    return Made(problem, (), misfit)


def _optional(program: Program, name: str) -> Callable[..., Any] | None:
    return program[name] if name in program else None  # noqa: SIM401  # a Program is no dict


def _adjoint(program: Program) -> Callable[..., Any] | None:
    if "linearised" not in program or "step" not in program:
        return None
    linearised = program["linearised"]
    return lambda z, *a: linearised(z, *a)[2]


def _linearised(program: Program) -> Callable[..., tuple[Any, Any, Any]] | None:
    if "linearised" not in program:
        return None
    linearised = program["linearised"]

    def parts(z: Tensor, *a: Tensor) -> tuple[Any, Any, Any]:
        pull, inputs, *adjoint = linearised(z, *a)
        each = inputs if len(a) > 1 else lambda u: (inputs(u),)
        return pull, each, adjoint[0] if adjoint else None

    return parts


def _pull_inputs(program: Program) -> Callable[..., tuple[Tensor | None, ...]] | None:
    if "pull_inputs" not in program:
        return None
    pull = program["pull_inputs"]

    def tupled(z: Tensor, u: Tensor, *a: Tensor) -> tuple[Tensor | None, ...]:
        found = pull(z, u, *a)
        return found if isinstance(found, tuple) else (found,)

    return tupled
