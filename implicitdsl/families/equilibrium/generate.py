"""A system as Python source: residual, step, invariants, and the derivatives that have a closed form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from implicitdsl.analysis import Splitting
from implicitdsl.analysis.sylvester import TwoSided
from implicitdsl.calculus import jacobian, linearize, simplify, vjp
from implicitdsl.ir import build
from implicitdsl.ir.dims import Dim, size_of
from implicitdsl.ir.function import Functions
from implicitdsl.ir.nodes import Expr, Role, substitute, sym, symbols
from implicitdsl.ir.plan import System
from implicitdsl.ir.printer import show
from implicitdsl.lowering.codegen import Inner, generate, opaques_of

from .packing import Packing, join, pack


@dataclass(frozen=True)
class Written:
    """The generated source and how to call it.

    `residual` and `step` take (z, *a, *opaques, *dims), `jacobian` and `pullback` too, `pull_inputs` takes u after z;
    `invariants` takes (*outer, *outer_opaques, *dims). `a` are the inputs of the system by name, hoisted ones included.
    `start` takes (*start_inputs, *dims), `constant` of affine equations, -F(0), takes (*a, *dims). With more equations
    than unknowns `misfit` and `misfit_jacobian` are those of the equations, and `residual` is the stationarity of their
    sum of squares.
    """

    text: str
    inputs: tuple[Expr, ...]
    opaques: tuple[str, ...]
    outer: tuple[Expr, ...]
    outer_opaques: tuple[str, ...]
    hoisted: tuple[Expr, ...]
    start: tuple[Expr, ...] | None


def write(
    system: System,
    functions: Functions,
    sizes: Mapping[str, int],
    dims: Sequence[str] = (),
    *,
    diagonal: bool = False,
    affine: bool = False,
    start: Expr | None = None,
    split: Splitting | None = None,
    sides: TwoSided | None = None,
) -> Written:
    """Generate everything about a system. `diagonal`: every entry of the residual holds its own unknown only; `affine`:
    it is so in the unknowns; `split`: its parts, where operator splitting needs them; `sides`: the matrices beside a
    matrix unknown, where Schur does.
    """
    misfit = None if is_square(system) else system.residual
    if misfit is not None:
        system = stationary(system, functions)
    writer = _Writer(system, functions, sizes, tuple(dims), diagonal)
    if sides is not None:
        parts = (sides.left, sides.right, *sides.weights)
        writer.inputs = _ordered((*writer.inputs, *parts))
        writer.put("sylvester", writer.inputs, [sides.left, sides.right, join(sides.weights)], ())
    if affine and misfit is None and writer.inputs and not writer.opaques:
        writer.put_constant()
    return writer.all(start, misfit, split)


def is_square(system: System) -> bool:
    """Whether there are as many equations as unknowns; more of them are least squares."""
    return _count(system.residual) == _count(system.unknowns)


def put_back(system: System) -> System:
    """The system with its invariants written out."""
    values = dict(system.hoisted)
    return System(system.unknowns, tuple(substitute(r, values) for r in system.residual), None)


def _count(values: Sequence[Expr]) -> Dim:
    total = Dim.of(0)
    for value in values:
        total = total + size_of(value.shape)
    return total


def stationary(system: System, functions: Functions) -> System:
    """(∂F/∂u)ᵀ F = 0 for the unknowns u of F: what determines the solution, and its derivative, of least squares."""
    totals = [build.zeros(u.shape) for u in system.unknowns]
    for f in system.residual:
        found = vjp(f, f, system.unknowns, functions)
        totals = [build.add(t, g) for t, g in zip(totals, found, strict=True)]
    return System(system.unknowns, tuple(totals), None, system.hoisted)


class _Writer:
    def __init__(
        self, system: System, functions: Functions, sizes: Mapping[str, int], dims: tuple[str, ...], diagonal: bool
    ) -> None:
        self.system, self.functions, self.sizes, self.dims = system, functions, sizes, dims
        self.diagonal = diagonal
        single = len(system.unknowns) == 1
        self.state = pack(system.unknowns, system.unknowns[0].name if single else "state", Role.UNKNOWN)
        roots = (*system.residual, *(system.step or ()))
        self.inputs = _ordered(roots, exclude=system.unknowns)
        self.opaques = opaques_of(*roots)
        self.texts: dict[str, str] = {}

    def all(self, start: Expr | None, misfit: tuple[Expr, ...] | None, split: Splitting | None) -> Written:
        system = self.system
        outer_roots = [e for _, e in system.hoisted]
        outer = _ordered(outer_roots)
        outer_opaques = opaques_of(*outer_roots)
        if system.hoisted:
            self.put("invariants", outer, outer_roots, outer_opaques)
        self.put_packed("residual", system.residual)
        if system.step is not None:
            self.put_packed("step", system.step)
            self.put_stepper(system.step)
        if not self.opaques:
            self.put_jacobian()
            self.put_pullback()
            if self.inputs:
                self.put_pull_inputs()
                self.put_linearised(system.step)
        if split is not None and not self.opaques:
            self.put("proximal", self.inputs, [split.weight, split.offset], ())
            s = sym("s", Role.BOUND, split.offset.shape)
            self.put("activation", (s,), [build.call(split.activation, (s,), s.shape)], ())
        if misfit is not None:
            self.put_packed("misfit", misfit)
            if not self.opaques:
                self.put_matrix("misfit_jacobian", self._jacobian(misfit))
        begin: tuple[Expr, ...] | None = None
        if start is not None:
            begin = _ordered([start]) or self.inputs[:1]  # a number takes its dtype and device from an input
            self.put("start", begin, [self._start(start)], ())
        return Written(
            "\n\n".join(self.texts.values()),
            self.inputs,
            self.opaques,
            outer,
            outer_opaques,
            tuple(s for s, _ in system.hoisted),
            begin,
        )

    def _start(self, start: Expr) -> Expr:
        """A first iterate (N,): a scalar for all entries, or the first unknown's, the others at zero."""
        if not start.rank:
            return build.fill(start, self.state.vector.shape)
        return join([start, *(build.zeros(u.shape) for u in self.system.unknowns[1:])])

    def put(
        self, name: str, inputs: Sequence[Expr], values: Sequence[Expr], opaques: Sequence[str], doc: str = ""
    ) -> None:
        outputs = list(values)
        text = generate(name, inputs, outputs, self.functions, self.sizes, doc, opaques=opaques, dims=self.dims)
        self.texts[name] = text

    def put_packed(self, name: str, values: Sequence[Expr]) -> None:
        self.texts[name] = generate(
            name,
            (self.state.vector, *self.inputs),
            [join(values)],
            self.functions,
            self.sizes,
            self._doc(name, values),
            definitions=self.state.definitions,
            opaques=self.opaques,
            dims=self.dims,
        )

    def put_stepper(self, step: Sequence[Expr]) -> None:
        """`step` as a function of the state alone, where its products with matrices can be prepared."""
        text = generate(
            "stepper",
            self.inputs,
            [join(step)],
            self.functions,
            self.sizes,
            definitions=self.state.definitions,
            opaques=self.opaques,
            dims=self.dims,
            inner=(self.state.vector,),
        )
        if "ops.affine_by" in text:
            self.texts["stepper"] = text

    def put_constant(self) -> None:
        """b = -F(0), with which affine equations are J z = b."""
        at_zero: dict[Expr, Expr] = {u: build.zeros(u.shape) for u in self.system.unknowns}
        values = [simplify(build.neg(substitute(r, at_zero))) for r in self.system.residual]
        self.put("constant", self.inputs, [join(values)], ())

    def _doc(self, name: str, values: Sequence[Expr]) -> str:
        shown = [show(v) for v in values]
        if name == "step":
            shown = [f"{u.name} ← {v}" for u, v in zip(self.system.unknowns, shown, strict=True)]
        text = "; ".join(shown)
        return text if len(text) < 100 else ""

    def put_jacobian(self) -> None:
        self.put_matrix("jacobian", self._diagonal() if self.diagonal else self._jacobian(self.system.residual))

    def put_matrix(self, name: str, matrix: Expr | None) -> None:
        if matrix is not None:
            self.texts[name] = generate(
                name,
                (self.state.vector, *self.inputs),
                [matrix],
                self.functions,
                self.sizes,
                definitions=self.state.definitions,
                dims=self.dims,
            )

    def _diagonal(self) -> Expr:
        (unknown,), (residual,) = self.system.unknowns, self.system.residual
        return join([linearize(residual, {unknown: build.ones(unknown.shape)}, self.functions)])

    def _jacobian(self, residuals: Sequence[Expr]) -> Expr | None:
        """∂F/∂z (N, N), assembled from the blocks ∂Fᵢ/∂uⱼ; None where one has no closed form."""
        rows: list[Expr] = []
        for residual in residuals:
            blocks: list[Expr] = []
            for unknown in self.system.unknowns:
                block = jacobian(residual, unknown, self.functions)
                if block is None:
                    return None
                blocks.append(build.reshape(block, (size_of(residual.shape), size_of(unknown.shape))))
            row = blocks[0] if len(blocks) == 1 else build.transpose(build.concat([build.transpose(b) for b in blocks]))
            rows.append(row)
        return rows[0] if len(rows) == 1 else build.concat(rows)

    def _cotangents(self, suffix: str = "bar", vector: str = "u") -> Packing:
        parts = [
            sym(f"{u.name}_{suffix}", Role.COTANGENT, r.shape)
            for u, r in zip(self.system.unknowns, self.system.residual, strict=True)
        ]
        return pack(parts, vector, Role.COTANGENT)

    def _pulled(self, values: Sequence[Expr], cotangents: Packing, wrt: Sequence[Expr]) -> list[Expr]:
        totals = [build.zeros(x.shape) for x in wrt]
        for value, bar in zip(values, cotangents.parts, strict=True):
            found = vjp(value, bar, wrt, self.functions)
            totals = [build.add(t, g) for t, g in zip(totals, found, strict=True)]
        return totals

    def put_pullback(self) -> None:
        bars = self._cotangents()
        self.texts["pullback"] = generate(
            "pullback",
            (self.state.vector, *self.inputs),
            [join(self._pulled(self.system.residual, bars, self.system.unknowns))],
            self.functions,
            self.sizes,
            definitions=(*self.state.definitions, *bars.definitions),
            dims=self.dims,
            inner=(bars.vector,),
        )

    def put_linearised(self, step: Sequence[Expr] | None) -> None:
        """What `pullback` returns, `pull_inputs` of -u, and, where there is a step, (u, g) -> g + (∂G/∂z)ᵀ u.

        The last is one step of the adjoint's own fixed-point iteration.
        """
        # each has symbols of its own: what seems shared by two of them would be kept apart, and not fused
        bars, found = self._cotangents(), self._cotangents("found", "v")
        moving, given = self._cotangents("old", "w"), self._cotangents("given", "g")
        cotangents = [build.neg(g) for g in self._pulled(self.system.residual, found, self.inputs)]
        also = [Inner("inputs", (found.vector,), cotangents, self.inputs)]
        if step is not None:
            pulled = self._pulled(step, moving, self.system.unknowns)
            moved = join([build.add(g, p) for g, p in zip(given.parts, pulled, strict=True)])
            also.append(Inner("adjoint", (moving.vector, given.vector), [moved]))
        each = [d for packing in (self.state, bars, found, moving, given) for d in packing.definitions]
        self.texts["linearised"] = generate(
            "linearised",
            (self.state.vector, *self.inputs),
            [join(self._pulled(self.system.residual, bars, self.system.unknowns))],
            self.functions,
            self.sizes,
            definitions=each,
            dims=self.dims,
            inner=(bars.vector,),
            also=also,
        )

    def put_pull_inputs(self) -> None:
        bars = self._cotangents()
        values = self._pulled(self.system.residual, bars, self.inputs)
        self.texts["pull_inputs"] = generate(
            "pull_inputs",
            (self.state.vector, bars.vector, *self.inputs),
            values,
            self.functions,
            self.sizes,
            reduce_like=self.inputs,
            definitions=(*self.state.definitions, *bars.definitions),
            dims=self.dims,
        )


def _ordered(roots: Sequence[Expr], exclude: Sequence[Expr] = ()) -> tuple[Expr, ...]:
    """The symbols of expressions by name."""
    return tuple(sorted((s for s in symbols(*roots) if s not in exclude), key=lambda s: s.name))
