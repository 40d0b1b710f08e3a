"""The state of one generated function: scopes, names, and what has been computed. How a node is spelled: `spelling`."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from implicitdsl.ir.build import binder_of
from implicitdsl.ir.dims import Dim, Shape
from implicitdsl.ir.function import Function
from implicitdsl.ir.nodes import Expr, walk
from implicitdsl.ir.printer import show

from . import spelling
from .loops import INDEXED, index_names, own_names
from .text import ADD, ATOM, NEG, POW, Names, Value, dim_value, tuple_text

LONG = 64
"""A value whose text is longer gets a line of its own."""

DEEP = 60
"""Every so many levels a value is computed before its users ask for it, so that recursion stays shallow."""


@dataclass
class Scope:
    """A function body or a loop, whose lines depend on what it `binds`. `memo` holds values by node and open ranges."""

    binds: frozenset[Hashable]
    lines: list[str] = field(default_factory=list)
    memo: dict[Hashable, Value] = field(default_factory=dict)


class Emitter:
    """Values are computed on demand, each in the outermost scope that binds all it depends on."""

    def __init__(
        self,
        inputs: Sequence[Expr],
        opaques: Sequence[str],
        dims: Sequence[str],
        inner: Sequence[Expr],
        functions: Mapping[str, Function],
        sizes: Mapping[str, int],
        definitions: Mapping[Expr, Expr],
        outputs: Sequence[Expr],
    ) -> None:
        self.functions = functions
        self.names = Names()
        self.inputs = list(inputs)
        self.definitions = definitions
        self.preamble: list[str] = []
        self._sizes = dict(sizes)
        self._symbols: dict[Expr, str] = {s: self.names.fresh(s.name) for s in inputs}
        self.opaques = {f: self.names.fresh(f) for f in opaques}
        self._dims: dict[str, str] = {d: self.names.fresh(d) for d in dims}
        self.parameters = [*self._symbols.values(), *self.opaques.values(), *self._dims.values()]
        self._symbols |= {s: self.names.fresh(s.name) for s in inner}
        self._reachable = list(walk(*outputs, *definitions.values()))
        self._indices = index_names(*self._reachable)
        self._inner = frozenset(inner)
        self.free = self._free_names()
        self._calls: dict[Hashable, list[Expr]] = {}
        for e in self._reachable:
            if e.op in ("apply", "apply_vjp"):
                self._calls.setdefault(_call_key(e), []).append(e)
        self._inside = self._inner_nodes()
        self._uses = self._count_uses(outputs)
        self.scopes = [Scope(frozenset())]
        if inner:
            self.scopes.append(Scope(self._inner))
        self.ranges: dict[str, tuple[Dim, Dim]] = {}  # of the indices that are axes now, outermost first

    def begin(self, name: str, arguments: Sequence[Expr], outputs: Sequence[Expr]) -> str:
        """Turn to the outputs of the function itself or of one inside it, whose name in the text is returned."""
        if arguments:
            self.scopes[1:] = [Scope(self._inner)]
        self._prepare_deep(outputs)
        return self.names.fresh(name) if arguments else ""

    def inner_parameters(self, arguments: Sequence[Expr]) -> list[str]:
        """The names of the arguments of a function inside."""
        return [self._symbols[s] for s in arguments]

    # -- analysis ------------------------------------------------------------------------------------------------------

    def _free_names(self) -> dict[Expr, frozenset[str]]:
        """For each node the index names that occur free in it. A definition has those of its value: none."""
        free: dict[Expr, frozenset[str]] = {}
        for e in self._reachable:
            below = frozenset[str]().union(*(free[a] for a in e.args))
            if e.op in INDEXED:
                below -= {binder_of(e)[0]}
            free[e] = below | (own_names(e) & self._indices)
        return free

    def _count_uses(self, outputs: Sequence[Expr]) -> dict[Expr, int]:
        uses = dict.fromkeys(self._reachable, 0)
        for e in outputs:
            uses[e] += 1
        for e in self._reachable:
            for a in e.args:
                uses[a] += 1
        return uses

    def _inner_nodes(self) -> frozenset[Expr]:
        """The nodes that depend on the inner function's arguments, through definitions too."""
        found: set[Expr] = set(self._inner)
        for _ in range(len(self.definitions) + 1 if self._inner else 0):
            before = len(found)
            found.update(s for s, value in self.definitions.items() if value in found)
            found.update(e for e in self._reachable if any(a in found for a in e.args))
            if len(found) == before:
                break
        return frozenset(found)

    def _prepare_deep(self, outputs: Sequence[Expr]) -> None:
        depth: dict[Expr, int] = {}
        for e in walk(*outputs, *self._values_for(outputs)):
            depth[e] = 1 + max((depth[a] for a in e.args), default=0)
            if depth[e] % DEEP == 0 and not self.free[e]:
                self.value(e)

    def _values_for(self, outputs: Sequence[Expr]) -> list[Expr]:
        """The values of definitions that outputs reach."""
        found: dict[Expr, None] = {}
        stack = list(outputs)
        while stack:
            for e in walk(stack.pop()):
                if e in self.definitions and e not in found:
                    found[e] = None
                    stack.append(self.definitions[e])
        return [self.definitions[s] for s in found]

    # -- names and lines -----------------------------------------------------------------------------------------------

    def lines(self, scope: int) -> list[str]:
        return self.scopes[scope].lines

    def assign(self, value: Value, name: str | None = None, *, scope: int | None = None) -> Value:
        """The value under a name of its own, in the current scope unless said otherwise."""
        name = self.names.temporary() if name is None else name
        self.scopes[-1 if scope is None else scope].lines.append(f"{name} = {value.text}")
        return Value(name, ATOM, value.number, value.axes)

    def like(self) -> str:
        """A tensor whose dtype and device new tensors take; without any, torch's defaults."""
        return self._symbols[self.inputs[0]] if self.inputs else next(iter(self._symbols.values()), "torch.empty(())")

    def tensor(self, value: Value) -> Value:
        """A number as a tensor; tensors as they are."""
        if not value.number:
            return value
        return Value(f"{self.like()}.new_full((), {value.text})")

    def dim(self, d: Dim) -> Value:
        """A dimension as a Python number."""
        known = {n: Dim.of(s) for n, s in self._sizes.items() if n not in self._dims}
        return dim_value(d.subs(known), self._dim_name)

    def _dim_name(self, name: str) -> str:
        if name not in self._dims:
            for symbol, text in self._symbols.items():
                if Dim.of(name) in symbol.shape and symbol not in self._inner:
                    axis = symbol.shape.index(Dim.of(name)) - symbol.rank
                    self._dims[name] = self.names.fresh(name)
                    self.preamble.append(f"{self._dims[name]} = {text}.shape[{axis}]")
                    break
            else:
                raise KeyError(name)
        return self._dims[name]

    def shape(self, shape: Shape) -> str:
        """A shape as a Python tuple."""
        return tuple_text([self.dim(d).text for d in shape])

    # -- values --------------------------------------------------------------------------------------------------------

    def value(self, e: Expr) -> Value:
        """The value of a node, computed now if it has not been."""
        home = self._home(e)
        key = (e, *((n, self.ranges[n]) for n in self.ranges if n in self.free[e]))
        memo = self.scopes[home].memo
        found = memo.get(key)
        if found is None:
            deeper, self.scopes[home + 1 :] = self.scopes[home + 1 :], []
            try:
                found = self._compute(e)
                if self._uses.get(e, 1) > 1 or len(found.text) > LONG:
                    found = self._named(found)
            finally:
                self.scopes += deeper
            memo[key] = found
        if home < len(self.scopes) - 1 and not _is_name(found):
            found = memo[key] = self._named(found, scope=home)
        return found

    def _named(self, value: Value, scope: int | None = None) -> Value:
        return value if value.number or _is_name(value) else self.assign(value, scope=scope)

    def _home(self, e: Expr) -> int:
        needs: frozenset[Hashable] = self.free[e] | (self._inner if e in self._inside else frozenset())
        for axis in self.axes_of(e):
            needs |= frozenset[Hashable]().union(*(d.names for d in self.ranges[axis]))
        for k in range(len(self.scopes) - 1, 0, -1):
            if self.scopes[k].binds & needs:
                return k
        return 0

    def _compute(self, e: Expr) -> Value:
        if e.op == "sym":
            if e in self._symbols:
                return Value(self._symbols[e])
            if e not in self.definitions:
                raise ValueError(f"`{e.name}` is neither an input nor a definition")
            value = self.definitions[e]
            found = self.tensor(self.value(value))
            name = self.names.fresh(e.name)
            self.scopes[-1].lines.append(f"{name} = {found.text}  # {e.name} = {show(value)}")
            return Value(name)
        return spelling.spell(self, e)

    def is_inner(self, e: Expr) -> bool:
        """Whether e depends on the arguments of a function inside."""
        return e in self._inside

    def uses(self, e: Expr) -> int:
        """How many nodes and outputs use e."""
        return self._uses.get(e, 0)

    def siblings(self, e: Expr) -> list[Expr]:
        """The nodes that one call of an opaque function computes together with e."""
        return self._calls[_call_key(e)]

    def shared_call(self, key: Hashable, call: str, i: int, axes: tuple[str, ...]) -> Value:
        """Result i of a call that is made once."""
        memo = self.scopes[-1].memo
        entry = (key, *((n, self.ranges[n]) for n in axes))
        if entry not in memo:
            memo[entry] = self.assign(Value(call))
        return Value(f"{memo[entry].text}[{i}]", axes=axes)

    def loop_variable(self, name: str, text: str | None) -> str | None:
        """Spell an index as a Python loop's variable (None: no longer). Returns what it was spelled before."""
        before = self._dims.pop(name, None)
        if text is not None:
            self._dims[name] = text
        return before

    def axes_of(self, e: Expr) -> tuple[str, ...]:
        """The open index axes on which e depends, outermost first."""
        return tuple(n for n in self.ranges if n in self.free[e])

    def aligned(self, e: Expr, axes: tuple[str, ...], rank: int | None = None) -> Value:
        """The value of e with the index axes `axes`, and, for a scalar, ones up to core rank `rank`."""
        value = self.value(e)
        if value.number:
            return value
        text, inner = value, e.rank
        for axis in reversed(axes):
            if axis not in value.axes:
                text = Value(f"ops.lift({text.text}, {inner})")
            inner += 1
        if rank and not e.rank:
            text = Value(text.at(ATOM) + (".unsqueeze(-1)" if rank == 1 else f"[..., {', '.join(['None'] * rank)}]"))
        return Value(text.text, text.level, axes=axes)

    # -- outputs -------------------------------------------------------------------------------------------------------

    def output(self, e: Expr, like: Expr | None) -> Value:
        """A returned value, brought to the shape of the input `like` if there is one."""
        if like is None:
            return self.tensor(self.value(e))
        target = self._symbols[like]
        parts: list[str] = []
        rest: list[str] = []
        for sign, term in _terms(e):
            text = spelling.reduced(self, term, target)
            if text is not None:
                parts.append((" - " if sign < 0 else " + ") + text)
            else:
                rest.append(
                    (" - " if sign < 0 else " + ") + self.aligned(term, (), e.rank).at(NEG if sign < 0 else ADD)
                )
        if not parts:
            return Value(f"ops.sum_like({self.tensor(self.value(e)).text}, {target})")
        if rest:
            parts.append(f" + ops.sum_like({_joined(rest)}, {target})")
        return Value(_joined(parts), POW if len(parts) == 1 and parts[0].startswith(" + ") else ADD)


def _call_key(e: Expr) -> Hashable:
    """Nodes that differ only in the output (apply) or in the argument (apply_vjp) share a call."""
    return (e.op, e.attrs[0], e.args) if e.op == "apply" else (e.op, *e.attrs[:2], e.args)


def _is_name(value: Value) -> bool:
    return value.number or value.text.isidentifier()


def _joined(parts: Sequence[str]) -> str:
    text = "".join(parts)
    return text[3:] if text.startswith(" + ") else "-" + text[3:]


def _terms(e: Expr) -> list[tuple[int, Expr]]:
    """The signed terms of a sum of equal shapes."""
    found: list[tuple[int, Expr]] = []
    stack = [(1, e)]
    while stack:
        sign, x = stack.pop()
        if x.op == "add" and all(a.shape == e.shape for a in x.args):
            stack += [(sign, x.args[1]), (sign, x.args[0])]
        elif x.op == "neg":
            stack.append((-sign, x.args[0]))
        else:
            found.append((sign, x))
    return found


def opaque_root(name: Hashable) -> str:
    """The `fn` from which an opaque function is derived."""
    while isinstance(name, tuple):
        name = name[1]
    return str(name)
