"""`find` blocks: which sentence it is (root, ODE, SDE, PDE), its relations, and its structure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from implicitdsl.ground.records import dataclass
from implicitdsl.ir.model import Block, Domain, Equation, SetInfo, Symbol, Wishes
from implicitdsl.ir.nodes import Expr, Role, sym, symbols
from implicitdsl.syntax import ast

from .calls import Calls
from .dynamics import check_dynamics
from .relations import elaborate_relation
from .scope import Entity
from .structure import check_square, unknowns_of
from .trees import descend


@dataclass(frozen=True)
class Pending:
    """A block whose dimensions are not final yet."""

    section: ast.Find | ast.Argmin
    sentence: str
    unknowns: tuple[Symbol, ...]
    equations: tuple[Equation, ...]
    texts: tuple[str, ...]
    objective: Expr | None = None
    domains: tuple[Domain, ...] = ()
    until: tuple[Equation, ...] = ()
    complete: bool = True

    def block(self, wishes: Wishes) -> Block:
        sense = self.section.sense if isinstance(self.section, ast.Argmin) else "min"
        return Block(
            self.sentence,
            self.unknowns,
            self.equations,
            self.section.span,
            self.objective,
            sense,
            self.domains,
            self.until,
            wishes,
        )


def symbol_of(entity: Entity) -> Symbol | None:
    if entity.node is None or entity.set is None:
        return None
    return Symbol(entity.name, entity.node, entity.set, entity.init, entity.span, entity.filled or entity.undeclared)


def differential_names(find: ast.Find) -> tuple[list[str], list[str]]:
    """`dz` of the unknowns with arguments and `dt` of the variables; and the noise names `dW…` that occur."""
    if not any(u.args for u in find.unknowns):
        return [], []
    stems = [u.name.text for u in find.unknowns if u.args] + [d.name.text for d in find.domains]
    stems += [a.text for u in find.unknowns for a in u.args]
    own = list(dict.fromkeys("d" + s for s in stems))
    noise = [n.text for r in find.relations for n in descend(r) if isinstance(n, ast.Name) and n.text.startswith("dW")]
    return own, list(dict.fromkeys(noise))


def is_stochastic(find: ast.Find) -> bool:
    own = {"d" + u.name.text for u in find.unknowns if u.args}
    return any(isinstance(n, ast.Name) and n.text in own for r in find.relations for n in descend(r))


def elaborate_find(calls: Calls, find: ast.Find) -> Pending | None:
    """One `find`: its relations and what kind of sentence they make."""
    context = calls.context
    unknowns = [
        s for u in find.unknowns if (e := calls.scope.find(u.name.text)) is not None and (s := symbol_of(e)) is not None
    ]
    complete = len({s.name for s in unknowns}) == len(find.unknowns)  # one declared twice is IMP102
    inner = Calls(context, calls.scope.inner(), {})
    domains: list[Domain] = []
    for d in find.domains:
        found = read_domain(calls, d)
        entity = Entity("variable", d.name.text, d.name.span, sym(d.name.text, Role.VARIABLE, (), d.name.span))
        inner.scope.names[d.name.text] = entity
        if found is None:
            complete = False
        else:
            domains.append(found)
            entity.points = found.points
    if is_stochastic(find):
        own, noise = differential_names(find)
        for name in own:
            entity = calls.scope.find(name[1:])
            shape = (
                entity.node.shape if entity is not None and entity.kind == "unknown" and entity.node is not None else ()
            )
            inner.differentials[name] = sym(name, Role.DIFFERENTIAL, shape)
        for name in noise:
            inner.differentials[name] = sym(name, Role.DIFFERENTIAL, calls.dims.fresh_shape(context.guess.get(name, 0)))
    equations: list[Equation] = []
    texts: list[str] = []
    for relation in find.relations:
        got = elaborate_relation(inner, relation)
        if got is None:
            complete = False
            continue
        if isinstance(relation, ast.Relation) and relation.ops.count("=") > 1:
            complete = False  # IMP015, said by the parser
        for equation in got:
            if equation.op == "in":
                complete = narrowed(calls, unknowns, equation, calls.text(relation)) and complete
                continue
            if equation.op != "=":
                calls.report.add(
                    "IMP004",
                    f"`{calls.text(relation)}` is an inequality; a `find` block has equations",
                    relation.span,
                    help="restrict the unknown by its set, `find z in nonneg such that …`, or use `argmin_`",
                )
                complete = False
            equations.append(equation)
            texts.append(calls.text(relation))
    until: list[Equation] = []
    for event in find.until:
        got = elaborate_relation(inner, event)
        if got is None:
            complete = False
        else:
            until.extend(got)
    if not domains and not any(u.args for u in find.unknowns):
        sentence = "root"
    elif any(len(u.args) > 1 for u in find.unknowns):
        sentence = "pde"
    else:
        sentence = "sde" if is_stochastic(find) else "ode"
    return Pending(
        find, sentence, tuple(unknowns), tuple(equations), tuple(texts), None, tuple(domains), tuple(until), complete
    )


def narrowed(calls: Calls, unknowns: list[Symbol], membership: Equation, text: str) -> bool:
    """`z in nonneg` among the equations is the set of the unknown z; IMP004 where it is none that `find` can take."""
    found = membership.set
    for i, u in enumerate(unknowns):
        if u.node is not membership.lhs or found is None or membership.index:
            continue
        if (u.set.name, u.set.args) == (found.name, found.args):
            return True
        if u.set.name == "R":
            elementwise = found.name in ("R", "positive", "nonneg", "open", "closed")
            named = found.text + u.set.text.removeprefix("R") if not found.shape else found.text
            shape = u.set.shape if elementwise else found.shape
            unknowns[i] = replace(u, set=SetInfo(found.name, found.args, shape, named))
            return True
    calls.report.add(
        "IMP004",
        f"`{text}` restricts no unknown that lies in `R`; a `find` block has equations",
        membership.span or calls.context.spans[membership.lhs],
        help="restrict an unknown by its set: `find z in nonneg such that …`",
    )
    return False


def read_domain(calls: Calls, domain: ast.Domain) -> Domain | None:
    """`for t in [0, T]` with expressions as ends, or `for x in grid(0, 1, N, periodic)`."""
    node = sym(domain.name.text, Role.VARIABLE, (), domain.name.span)
    if isinstance(domain.set, ast.Interval):
        lo, hi = calls.elaborate(domain.set.lo), calls.elaborate(domain.set.hi)
        if lo is None or hi is None:
            return None
        for side, typed in ((domain.set.lo, lo), (domain.set.hi, hi)):
            if typed.rank != 0:
                calls.report.add(
                    "IMP206",
                    f"the ends of an interval are scalars; `{calls.text(side)}` has shape {calls.show(typed.shape)}",
                    side.span,
                )
                return None
        return Domain(domain.name.text, node, lo.expr, hi.expr)
    if isinstance(domain.set, ast.NamedSet) and domain.set.name == "grid":
        args = list(domain.set.args)
        periodic = bool(args) and isinstance(args[-1], ast.Name) and args[-1].text == "periodic"
        if periodic:
            args.pop()
        if len(args) != 3:
            calls.report.add(
                "IMP112", "`grid` takes two ends, a number of points and, optionally, `periodic`", domain.set.span
            )
            return None
        lo, hi = calls.elaborate(args[0]), calls.elaborate(args[1])
        points = calls.context.sets.dim(args[2])
        if lo is None or hi is None or points is None:
            return None
        return Domain(domain.name.text, node, lo.expr, hi.expr, points, periodic)
    calls.report.add(
        "IMP113",
        f"`{calls.text(domain.set)}` is no range for `{domain.name.text}`",
        domain.set.span,
        help="write `[0, 1]` or `grid(0, 1, N)`",
    )
    return None


def misses_a_name(calls: Calls, pending: Pending, definitions: Mapping[Expr, Expr]) -> bool:
    """Whether a relation without an unknown has a name that nothing declares (IMP101), which may be meant for one."""
    undeclared = {e.node for e in calls.context.undeclared.values()}
    names = {u.name for u in pending.unknowns}
    return any(
        not (unknowns_of(e.lhs, definitions) | unknowns_of(e.rhs, definitions)) & names
        and undeclared & {*symbols(e.lhs), *symbols(e.rhs)}
        for e in pending.equations
    )


def check_find(calls: Calls, pending: Pending, overdetermined: bool) -> None:
    """The structure of a block whose relations are all understood."""
    if not pending.complete:
        calls.context.incomplete = True
    if not pending.complete or calls.context.broken or not isinstance(pending.section, ast.Find):
        return
    definitions = dict(calls.context.definition_order)
    if misses_a_name(calls, pending, definitions):
        return
    if pending.sentence == "root":
        equations = [e for e in pending.equations if e.op == "="]
        texts = [t for e, t in zip(pending.equations, pending.texts, strict=True) if e.op == "="]
        check_square(calls.report, calls.dims, pending.unknowns, equations, definitions, overdetermined, texts)
    else:
        check_dynamics(
            calls,
            pending.section,
            pending.sentence,
            pending.unknowns,
            pending.equations,
            pending.texts,
            pending.domains,
            definitions,
        )
