"""A differential equation as Python source: its rate on one packed state, derivatives, initial state and times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from implicitdsl.analysis.evolution import Evolution
from implicitdsl.calculus import hoist, jacobian, linearize, shared, vjp
from implicitdsl.families.equilibrium.packing import join, pack
from implicitdsl.ir import build
from implicitdsl.ir.arith import is_zero
from implicitdsl.ir.dims import size_of
from implicitdsl.ir.function import Functions
from implicitdsl.ir.nodes import Expr, Role, depends, substitute, sym, symbols
from implicitdsl.ir.printer import show
from implicitdsl.lowering.codegen import generate, opaques_of

from .constant import scaled_constant


@dataclass(frozen=True)
class Written:
    """The generated source and how to call it; a time comes after the state where `moving`.

    `rate` takes (state, [t], *inputs, *opaques, *dims) and gives the packed rates; so do `jacobian`, `drift`, `gaps`
    (what ends an integration where it is 0) and `slopes` (their rates of change). `pull` and `pull_inputs` take u after
    the state. Where they need again what `rate` computes, `rate_kept` returns that too, which `pull_kept` takes after u
    and with what it returns itself `pull_inputs_kept`. `invariants` takes (*outer, *outer_opaques, *dims) and gives
    `hoisted`. `start` takes (*start_inputs, *opaques), `times` (*times_inputs), `kinks` (*kinks_inputs, *opaques).
    Where the Jacobian is a number times a matrix of constants, `scale` (*scale) and `constant` (*constant) give them;
    `forced`: the equation has further terms.
    """

    text: str
    moving: bool
    inputs: tuple[Expr, ...]
    opaques: tuple[str, ...]
    outer: tuple[Expr, ...]
    outer_opaques: tuple[str, ...]
    hoisted: tuple[Expr, ...]
    start: tuple[Expr, ...]
    start_opaques: tuple[str, ...]
    times: tuple[Expr, ...]
    kinks: tuple[Expr, ...] = ()
    kinks_opaques: tuple[str, ...] = ()
    scale: tuple[Expr, ...] | None = None
    constant: tuple[Expr, ...] = ()
    forced: bool = False


def write(
    form: Evolution,
    times: Sequence[Expr],
    like: Sequence[Expr],
    functions: Functions,
    sizes: Mapping[str, int],
    dims: Sequence[str] = (),
) -> Written:
    """Generate everything about an equation. `times`: start, end, and where outputs are asked for; `like`: a symbol
    whose dtype and device numbers take.
    """
    return _Writer(form, functions, sizes, tuple(dims)).all(times, tuple(like))


class _Writer:
    def __init__(self, form: Evolution, functions: Functions, sizes: Mapping[str, int], dims: tuple[str, ...]) -> None:
        self.form, self.functions, self.sizes, self.dims = form, functions, sizes, dims
        gaps = [g for _, g in form.events]
        written, self.hoisted = hoist((*form.rates, *gaps), (*form.states, form.variable))
        self.rates, self.gaps = written[: len(form.rates)], written[len(form.rates) :]
        single = len(form.states) == 1
        self.state = pack(form.states, form.states[0].name if single else "state", Role.UNKNOWN)
        self.moving = form.variable in symbols(*written)
        self.inputs = ordered(written, exclude=(*form.states, form.variable))
        self.opaques = opaques_of(*written)
        self.texts: dict[str, str] = {}

    @property
    def after(self) -> tuple[Expr, ...]:
        """What follows the state (and u) among the arguments."""
        return (self.form.variable, *self.inputs) if self.moving else self.inputs

    def all(self, times: Sequence[Expr], like: tuple[Expr, ...]) -> Written:
        form = self.form
        outer_roots = [e for _, e in self.hoisted]
        outer, outer_opaques = ordered(outer_roots), opaques_of(*outer_roots)
        if outer_roots:
            self.put("invariants", outer, outer_roots, opaques=outer_opaques)
        self.put_packed("rate", join(self.rates), _doc(form))
        matrix: Expr | None = None
        if not self.opaques:
            self.put_pull()
            matrix = self._jacobian()
            if matrix is not None:
                self.put_packed("jacobian", matrix)
            if self.moving:
                tangents = {form.variable: build.num(1.0)}
                drift = join([linearize(r, tangents, self.functions) for r in self.rates])
                self.put_packed("drift", drift)
        if self.gaps:
            self.put_packed("gaps", join(self.gaps))
            along = {**dict(zip(form.states, self.rates, strict=True)), form.variable: build.num(1.0)}
            self.put_packed("slopes", join([linearize(g, along, self.functions) for g in self.gaps]))
        start = ordered(form.initial) or like
        called = opaques_of(*form.initial)
        self.put("start", start, [join(form.initial)], opaques=called)
        asked = ordered(times) or like
        self.put("times", asked, times)
        kinks, jumped = (), ()
        if form.kinks is not None:
            kinks, jumped = ordered([form.kinks]) or like, opaques_of(form.kinks)
            self.put("kinks", kinks, [form.kinks], opaques=jumped)
        scale, constant, forced = self.put_constant(matrix, like)
        hoisted = tuple(s for s, _ in self.hoisted)
        return Written(
            "\n\n".join(self.texts.values()),
            self.moving,
            self.inputs,
            self.opaques,
            outer,
            outer_opaques,
            hoisted,
            start,
            called,
            asked,
            kinks,
            jumped,
            scale,
            constant,
            forced,
        )

    def put(self, name: str, inputs: Sequence[Expr], values: Sequence[Expr], opaques: Sequence[str] = ()) -> None:
        self.texts[name] = generate(
            name, inputs, list(values), self.functions, self.sizes, opaques=opaques, dims=self.dims
        )

    def put_packed(self, name: str, value: Expr, doc: str = "") -> None:
        """A function of the state, the time and the inputs."""
        self.texts[name] = generate(
            name,
            (self.state.vector, *self.after),
            [value],
            self.functions,
            self.sizes,
            doc,
            definitions=self.state.definitions,
            opaques=self.opaques,
            dims=self.dims,
        )

    def put_pull(self) -> None:
        """(∂f/∂state)ᵀ u, and (∂f/∂a)ᵀ u summed over the batch for the inputs that it shares."""
        form = self.form
        parts = [sym(f"{s.name}_bar", Role.COTANGENT, s.shape) for s in form.states]
        bars = pack(parts, "u", Role.COTANGENT)

        def pulled(wrt: Sequence[Expr]) -> list[Expr]:
            """In one sweep, so that cotangents of all rates go through what they share together."""
            return list(vjp(join(self.rates), join(bars.parts), wrt, self.functions))

        definitions = (*self.state.definitions, *bars.definitions)

        def put(name: str, kept: Sequence[Expr], values: Sequence[Expr], like: Sequence[Expr] | None = None) -> None:
            taken = (self.state.vector, bars.vector, *kept, *self.after)
            self.texts[name] = generate(
                name,
                taken,
                values,
                self.functions,
                self.sizes,
                reduce_like=like,
                definitions=definitions,
                dims=self.dims,
            )

        back, inputs = [join(pulled(form.states))], pulled(self.inputs)
        put("pull", (), back)
        if self.inputs:
            put("pull_inputs", (), inputs, self.inputs)
        (pull, *rest), kept = shared([*back, *inputs], self.rates, (*form.states, form.variable), "k")
        if not kept:
            return
        rest, more = shared(rest, [pull], bars.parts, "m")
        values, later = [e for _, e in kept], [s for s, _ in kept]
        self.texts["rate_kept"] = generate(
            "rate_kept",
            (self.state.vector, *self.after),
            [join(self.rates), *values],
            self.functions,
            self.sizes,
            definitions=self.state.definitions,
            dims=self.dims,
        )
        put("pull_kept", later, [pull, *(e for _, e in more)])
        if self.inputs:
            put("pull_inputs_kept", [*later, *(s for s, _ in more)], rest, self.inputs)

    def put_constant(
        self, matrix: Expr | None, like: tuple[Expr, ...]
    ) -> tuple[tuple[Expr, ...] | None, tuple[Expr, ...], bool]:
        """See `Written`: what `scale` and `constant` take, and whether the equation is forced."""
        steady = matrix is not None and not self.moving and not depends(matrix, set(self.form.states))
        found = scaled_constant(matrix) if matrix is not None and steady else None
        if found is None:
            return None, (), False
        scale, constant = (ordered([e]) or like for e in found)
        self.put("scale", scale, found[:1])
        self.put("constant", constant, found[1:])
        at_zero = {s: build.zeros(s.shape) for s in self.form.states}
        return scale, constant, any(not is_zero(substitute(r, at_zero)) for r in self.rates)

    def _jacobian(self) -> Expr | None:
        """∂f/∂state (N, N), where every block has a closed form."""
        rows: list[Expr] = []
        for rate in self.rates:
            blocks: list[Expr] = []
            for s in self.form.states:
                block = jacobian(rate, s, self.functions)
                if block is None:
                    return None
                blocks.append(build.reshape(block, (size_of(rate.shape), size_of(s.shape))))
            rows.append(
                blocks[0] if len(blocks) == 1 else build.transpose(build.concat(list(map(build.transpose, blocks))))
            )
        return rows[0] if len(rows) == 1 else build.concat(rows)


def ordered(roots: Sequence[Expr], exclude: Sequence[Expr] = ()) -> tuple[Expr, ...]:
    """The symbols of expressions by name."""
    return tuple(sorted((s for s in symbols(*roots) if s not in exclude), key=lambda s: s.name))


def _doc(form: Evolution) -> str:
    t = form.variable.name
    lines = [f"d{s.name}/d{t} = {show(r)}" for s, r in zip(form.states, form.rates, strict=True)]
    text = "; ".join(lines)
    return text if len(text) < 100 else ""
