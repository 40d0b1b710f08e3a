"""All facts of a model, block by block."""

from __future__ import annotations

from collections.abc import Mapping

from implicitdsl.ground.facts import Fact
from implicitdsl.ground.records import dataclass
from implicitdsl.ir.dims import Dim, size_of
from implicitdsl.ir.function import Functions
from implicitdsl.ir.model import Block, Model
from implicitdsl.ir.nodes import walk
from implicitdsl.ir.plan import Program, System

from .affine import affine
from .autonomous import autonomous
from .bracket import bracket
from .context import Context, context
from .contraction import contraction
from .elementwise import elementwise
from .lipschitz import lipschitz
from .monotone import monotone
from .normal import Expand, normal_form, unchanged
from .passes import Calculus
from .smoothness import existence, range_of, smoothness
from .structure import block_triangular, explicit, split


@dataclass(frozen=True)
class BlockFacts:
    """A block that is solved at once (a part of `origin`, where that splits), its normal form and what is proved."""

    block: Block
    origin: Block
    system: System | None
    facts: tuple[Fact, ...]
    program: Program | None = None  # of an argmin block, as written
    smooth: Program | None = None  # the same without kinks, of which objective and constraints are said what they are

    @property
    def facts_by_name(self) -> dict[str, Fact]:
        return {f.name: f for f in self.facts}

    def fact(self, name: str) -> Fact | None:
        return self.facts_by_name.get(name)

    def value(self, name: str) -> object:
        """A fact's value; None also where it was not asked."""
        found = self.fact(name)
        return None if found is None else found.value


@dataclass(frozen=True)
class Analysis:
    """The blocks in solving order."""

    model: Model
    context: Context
    blocks: tuple[BlockFacts, ...]


def analyse(
    model: Model,
    functions: Functions,
    expand: Expand = unchanged,
    sizes: Mapping[str, int | None] | None = None,
    calculus: Calculus | None = None,
) -> Analysis:
    """Facts with proofs. `expand` inlines definitions and derivative operators; `sizes` sharpen the bounds. Facts that
    rest on derivatives are looked for where there is a `calculus`.
    """
    about = context(model, functions, sizes)
    found: list[BlockFacts] = []
    for block in model.blocks:
        if block.sentence == "root":
            found += [_root(part, block, about, expand) for part in split(block, expand)]
        elif block.sentence == "optimum":
            from .optimum import optimum  # here and below: `check` loads what the sentences at hand need
            from .program import program

            form = program(block, expand)
            asked = block.wishes.forward  # a method that differentiates norms sees them
            facts, smooth = optimum(form, about, calculus, asked is None or asked.method != "nlp")
            found.append(BlockFacts(block, block, None, facts, form, smooth))
        elif block.sentence == "ode":
            from .dynamics import dynamics

            found.append(BlockFacts(block, block, None, dynamics(block, about, expand)))
        else:
            facts = (autonomous(block, expand),) if block.domains else ()
            found.append(BlockFacts(block, block, None, facts))
    return Analysis(model, about, tuple(found))


def _root(block: Block, origin: Block, about: Context, expand: Expand) -> BlockFacts:
    structure = (_size(block), explicit(block, expand), block_triangular(block, expand))
    system = normal_form(block, expand)
    rules = (affine, elementwise, bracket, contraction, lipschitz, monotone, range_of, smoothness, opaque)
    facts = [rule(system, about) for rule in rules]
    return BlockFacts(block, origin, system, (*structure, *facts, _existence(system, about, facts)))


def _existence(system: System, about: Context, facts: list[Fact]) -> Fact:
    """By Banach or by monotonicity, where they are proved, else by Brouwer."""
    unique = {
        "contraction": "a contraction of a complete space has exactly one fixed point (Banach)",
        "monotone": "a strongly monotone equation has exactly one solution",
    }
    for fact in facts:
        if fact.name in unique and fact.value is not None:
            return Fact("existence", True, (unique[fact.name],))
    return existence(system, about)


def _size(block: Block) -> Fact:
    """`size`: how many numbers are solved for, as a dimension."""
    total = Dim(())
    for s in block.unknowns:
        total = total + size_of(s.shape)
    return Fact("size", total, (f"{total} numbers are unknown",))


def opaque(system: System, about: Context) -> Fact:
    """`opaque`: the bound functions in the residual; None if its derivative is known in closed form throughout."""
    names = tuple(dict.fromkeys(e.name for e in walk(*system.residual) if e.op == "apply"))
    if not names:
        return Fact("opaque", None, ("every function is one of the language",))
    return Fact("opaque", names, tuple(f"{name} is bound from Python" for name in names))
