"""From the plan of a block of equations to what runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from implicitdsl.analysis import Splitting, splitting
from implicitdsl.analysis.contraction import holds_everywhere
from implicitdsl.analysis.sylvester import two_sided
from implicitdsl.backward.failure import Failures
from implicitdsl.backward.implicit import Implicit
from implicitdsl.backward.inexact import Phantom, Unrolled
from implicitdsl.families.call import Call
from implicitdsl.ground.errors import ConvergenceError
from implicitdsl.ground.methods import Method
from implicitdsl.ir.function import Functions
from implicitdsl.ir.model import Model
from implicitdsl.ir.nodes import Expr, Role
from implicitdsl.ir.plan import BlockPlan, Choice
from implicitdsl.lowering.bound import Bound
from implicitdsl.lowering.report import Report, combined
from implicitdsl.lowering.source import Program
from implicitdsl.solvers.bicgstab import BiCGStab
from implicitdsl.solvers.cascade import Cascade
from implicitdsl.solvers.gmres import Gmres
from implicitdsl.solvers.loop import Solver

from .block import Backward, EquilibriumBlock, Recipe
from .generate import Written, put_back, write
from .roots import Regions, region

EXPLICIT = "explicit"


class Language(Protocol):
    """What lowering asks of a language: its functions, and methods by name."""

    @property
    def function_table(self) -> Functions: ...

    def method(self, sentence: str, role: str, name: str) -> Method | None: ...


def lower(parts: Sequence[BlockPlan], model: Model, sizes: Mapping[str, int], language: Language) -> Any:
    """The runner of one `find` block: its parts are solved in order, each with the unknowns of those before it."""
    runners = [EquilibriumBlock(recipe(part, model, sizes, language)) for part in parts]
    return runners[0] if len(runners) == 1 else Sequential(runners)


def source(part: BlockPlan, language: Language) -> str:
    """The generated Python of a part for any sizes; dimensions that no input shows are further arguments."""
    try:
        return _write(part, language, {}).text
    except KeyError:
        assert part.system is not None
        dims = sorted({n for u in part.system.unknowns for d in u.shape for n in d.names})
        return _write(part, language, {}, dims).text


def _write(part: BlockPlan, language: Language, sizes: Mapping[str, int], dims: Sequence[str] = ()) -> Written:
    assert part.system is not None, "a block without a normal form does not pass the checker"
    wish = part.block.wishes.start
    start = wish if isinstance(wish, Expr) else None
    functions, split = language.function_table, _splitting(part, language)
    by_schur = any(c.method == "schur" for c in part.forward)
    sides = two_sided(put_back(part.system)) if by_schur else None
    return write(
        part.system,
        functions,
        sizes,
        dims,
        diagonal=_is_diagonal(part),
        affine=_value(part, "affine") is not None,
        start=start,
        split=split,
        sides=sides,
    )


def _splitting(part: BlockPlan, language: Language) -> Splitting | None:
    """The parts of z = σ(W z + h), if a solver of the plan takes them."""
    if part.system is None or all(c.method != "peaceman_rachford" for c in part.forward):
        return None
    return splitting(part.system, language.function_table)


def _is_diagonal(part: BlockPlan) -> bool:
    return bool(_value(part, "elementwise")) or _value(part, "affine") == "diagonal"


class Sequential:
    """Parts of a block one after the other."""

    def __init__(self, runners: Sequence[EquilibriumBlock]) -> None:
        self.runners = tuple(runners)

    @property
    def texts(self) -> tuple[str, ...]:
        """The generated sources."""
        return tuple(text for r in self.runners for text in r.texts)

    def solve(
        self,
        values: Mapping[str, Tensor],
        functions: Mapping[str, Bound],
        batch: int | None,
        start: Mapping[str, Tensor] | None,
        want_report: bool,
    ) -> tuple[dict[str, Tensor], Report | None]:
        """See `lowering.layer.BlockRunner`."""
        found: dict[str, Tensor] = {}
        reports: list[Report] = []
        for runner in self.runners:
            try:
                more, report = runner.solve({**values, **found}, functions, batch, start, want_report)
            except ConvergenceError as error:
                if isinstance(error.solution, tuple):
                    more, report = error.solution
                    error.solution = {**found, **more}, combined([*reports, report])
                raise
            found |= more
            if report is not None:
                reports.append(report)
        return found, combined(reports) if want_report else None


def recipe(part: BlockPlan, model: Model, sizes: Mapping[str, int], language: Language) -> Recipe:
    """Generate the code of a part and make its solvers."""
    system = part.system
    assert system is not None
    explicit = part.forward[0].method == EXPLICIT
    affine = _value(part, "affine") is not None
    written = _write(part, language, sizes)
    by_node = {s.node: s for s in part.block.unknowns}
    shapes = [tuple(d.evaluate(sizes) for d in u.shape) for u in system.unknowns]
    unknowns = tuple((u.name, shape) for u, shape in zip(system.unknowns, shapes, strict=True))
    each = [region(by_node[u].set, shape) for u, shape in zip(system.unknowns, shapes, strict=True)]
    regions = Regions(each, at_zero=part.block.wishes.start == "zeros")
    title = model.name or "layer"
    line = model.source.position(part.block.equations[0].span.start)[0]
    policy = part.block.wishes.on_failure or "warn"
    return Recipe(
        program=Program(f"{title} {', '.join(n for n, _ in unknowns)}", written.text),
        system=Call("residual", tuple(map(_key, written.inputs)), written.opaques),
        ranks=tuple(s.rank for s in written.inputs),
        unknowns=unknowns,
        regions=regions,
        invariants=Call("invariants", tuple(map(_key, written.outer)), written.outer_opaques)
        if written.hoisted
        else None,
        hoisted=tuple(map(_key, written.hoisted)),
        start=None if written.start is None else Call("start", tuple(map(_key, written.start))),
        explicit=explicit,
        activation=None if (split := _splitting(part, language)) is None else split.activation,
        diagonal=_is_diagonal(part),
        affine=affine,
        solver=None if explicit else _solver(part.forward, language),
        methods=tuple(c.method for c in part.forward),
        backward=Implicit() if explicit or _beside_picard(part) else _backward(part.backward, language),
        failures=Failures(policy, f"{model.source.name}:{line}", marks=False),
        source=model.source,
        places={o.name: o.span for o in model.opaques if o.span is not None},
        given=tuple(
            (s.name, s.rank) for s in dict.fromkeys((*written.outer, *written.inputs)) if s.role is not Role.HOISTED
        ),
        rate=_proved_rate(part),
    )


def _beside_picard(part: BlockPlan) -> bool:
    """Whether the adjoint is iterated first: where z ← G(z) converges so does u ← g + Gᵀu, at the same rate and without
    Krylov vectors. `Implicit` has GMRES take over what stalls."""
    return part.block.wishes.backward is None and part.backward.method == "gmres" and part.forward[0].method == "picard"


def _proved_rate(part: BlockPlan) -> float | None:
    """A contraction rate in the 2-norm of all unknowns, wherever they are."""
    fact = part.fact("contraction")
    if fact is None or fact.value is None or len(part.block.unknowns) != 1 or not holds_everywhere(fact):
        return None
    return float(str(fact.value))


def _value(part: BlockPlan, name: str) -> object:
    fact = part.fact(name)
    return None if fact is None else fact.value


def _key(symbol: Expr) -> str:
    """A symbol's place among the values of a call; an invariant must not take the place of a user's name."""
    own = symbol.role is Role.HOISTED and not symbol.name.startswith("~")  # else what another block answers
    return f"~{symbol.name}" if own else symbol.name


def _solver(choices: Sequence[Choice], language: Language) -> Solver:
    made = [_made(choice, "forward", language) for choice in choices]
    return made[0] if len(made) == 1 else Cascade(tuple(made))


def _made(choice: Choice, role: str, language: Language) -> Any:
    method = language.method("root", role, choice.method)
    assert method is not None, f"the planner chose {choice.method}, which no family has"
    return method.load()(**dict(choice.options))


def _backward(choice: Choice, language: Language) -> Backward:
    """The standard rules; or one that was added to the language, whose code offers `solve` as `Phantom` does."""
    options: dict[str, Any] = dict(choice.options)
    match choice.method:
        case "implicit":
            return Implicit()
        case "gmres":
            return Implicit(Gmres(**options))
        case "bicgstab":
            return Implicit(BiCGStab(**options))
        case "neumann":
            return Phantom(options.get("terms", 20), 1.0)
        case "phantom":
            return Phantom(**options)
        case "jfb":
            return Phantom(1, 1.0)
        case "unrolled":
            return Unrolled(**options)
        case _:
            return _made(choice, "backward", language)
