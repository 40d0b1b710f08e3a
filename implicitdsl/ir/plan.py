"""What was decided for a model: solvers, backward rules and hoisted invariants, each with its reason. Torch-free."""

from __future__ import annotations

from implicitdsl.ground.facts import Fact
from implicitdsl.ground.records import dataclass
from implicitdsl.ground.source import Span

from .model import Block, Model, SetInfo
from .nodes import Expr


@dataclass(frozen=True, slots=True)
class Choice:
    """A method with its options, and why it was taken."""

    method: str
    reason: str
    options: tuple[tuple[str, object], ...] = ()

    def get(self, key: str, default: object = None) -> object:
        return dict(self.options).get(key, default)


@dataclass(frozen=True, slots=True)
class System:
    """A root block in normal form: residual_i(unknowns) = 0; `step_i` where equation i reads u_i = step_i(unknowns).

    Definitions are inlined and grad/jac/div/hess expanded. `step` is None when an equation isn't of that form.
    `hoisted` are the invariants, computed once a call, in terms of which residual and step are written.
    """

    unknowns: tuple[Expr, ...]
    residual: tuple[Expr, ...]
    step: tuple[Expr, ...] | None
    hoisted: tuple[tuple[Expr, Expr], ...] = ()


EQUAL, BELOW, SECOND, DEFINITE = "=", "<=", ">=||.||", ">>"


@dataclass(frozen=True, slots=True)
class Constraint:
    """`body = 0`, `body <= 0` (every entry), `body[0] >= ||body[1:]||` (of a vector, or of every row of a matrix) or
    `body >> 0` (a matrix; its symmetric part is positive semidefinite).

    `sign` is -1 for the lower half of a chain `l <= z <= u`, whose multiplier counts negative in that of the whole.
    `written` is the body of one entry of a list (the body itself without `for`). `set` is where it comes from, if it is
    the set of an unknown or of a membership.
    """

    kind: str
    body: Expr
    span: Span
    label: str | None = None
    sign: float = 1.0
    written: Expr | None = None
    set: SetInfo | None = None


@dataclass(frozen=True, slots=True)
class Program:
    """A block as min f(u) subject to constraints; `sense` is what was written ("max": f is the negated objective)."""

    unknowns: tuple[Expr, ...]
    objective: Expr
    constraints: tuple[Constraint, ...]
    sense: str = "min"

    def of(self, kind: str) -> tuple[Constraint, ...]:
        """The constraints of a kind."""
        return tuple(c for c in self.constraints if c.kind == kind)


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """One solve. `forward` is the ladder: the first is used, the others take rows that stall or diverge at run time."""

    block: Block
    system: System | None
    facts: tuple[Fact, ...]
    forward: tuple[Choice, ...]
    backward: Choice
    program: Program | None = None  # of an argmin block, without kinks

    def fact(self, name: str) -> Fact | None:
        return next((f for f in self.facts if f.name == name), None)


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a layer; `blocks` are in solving order (a block that splits gives several)."""

    model: Model
    blocks: tuple[BlockPlan, ...]
