"""What was decided for a model: solvers, backward rules and hoisted invariants, each with its reason. Torch-free."""

from __future__ import annotations

from implicitdsl.ground.facts import Fact
from implicitdsl.ground.records import dataclass

from .model import Block, Model
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


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """One solve. `forward` is the ladder: the first is used, the others take rows that stall or diverge at run time."""

    block: Block
    system: System | None
    facts: tuple[Fact, ...]
    forward: tuple[Choice, ...]
    backward: Choice

    def fact(self, name: str) -> Fact | None:
        return next((f for f in self.facts if f.name == name), None)


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a layer; `blocks` are in solving order (a block that splits gives several)."""

    model: Model
    blocks: tuple[BlockPlan, ...]
