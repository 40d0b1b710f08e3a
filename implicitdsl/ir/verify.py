"""The invariant of every pass: nodes are well-formed and well-typed, and nothing bound occurs outside its binder."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .arrays import indexed_shape, items_of
from .dims import ONE, ZERO, Dim, Shape, show_shape, size_of
from .function import Functions, TypeRuleError
from .model import Model
from .names import binder_of
from .nodes import Expr, Role, symbols, walk


class IllFormed(AssertionError):
    """A node that breaks the table in `ir.nodes`: an error of the compiler."""


def verify(what: Expr | Model, functions: Functions | None = None) -> None:
    """Raises IllFormed on a wrong number of arguments, wrong attributes or shape, or an escaped bound symbol or index.

    With `functions`, calls are typed too. In a model every symbol must be declared and every index bound.
    """
    if isinstance(what, Model):
        _verify_model(what, functions)
        return
    for e in walk(what):
        _verify_node(e, functions)


def _fail(e: Expr, message: str) -> None:
    given = ", ".join(show_shape(a.shape) for a in e.args)
    raise IllFormed(f"{e.op}: {message}; shape {show_shape(e.shape)} of {given}")


def _need(condition: bool, e: Expr, message: str) -> None:
    if not condition:
        _fail(e, message)


# -- nodes -------------------------------------------------------------------------------------------------------------


def _verify_node(e: Expr, functions: Functions | None) -> None:
    if e.op == "call":
        if functions is not None:
            _verify_call(e, functions)
        return
    rule = _RULES.get(e.op)
    if rule is None:
        raise IllFormed(f"no operation `{e.op}`")
    arity, shape = rule
    if arity is not None:
        _need(len(e.args) == arity, e, f"{len(e.args)} arguments instead of {arity}")
    expected = shape(e)
    _need(expected is None or e.shape == expected, e, f"expected {show_shape(expected or ())}")


def _verify_call(e: Expr, functions: Functions) -> None:
    function = functions.get(e.name)
    if function is None:
        raise IllFormed(f"no function `{e.name}`")
    _need(bool(function.torch), e, f"`{e.name}` builds core operations, so it is not called")
    if e.name == "norm" and e.args[0].rank == 2:  # the Frobenius norm; what users write is checked by `norm_F`
        _need(e.shape == (), e, "a norm is a number")
        return
    try:
        shape = function.type(e.args)
    except TypeRuleError as error:
        raise IllFormed(f"{e.name}: {error}") from error
    _need(e.shape == shape, e, f"`{e.name}` has shape {show_shape(shape)}")


def _sym(e: Expr) -> Shape | None:
    _need(len(e.attrs) == 2, e, "needs a name and a role")
    _need(isinstance(e.attrs[0], str) and isinstance(e.attrs[1], Role), e, "needs a name and a role")
    return None


def _num(e: Expr) -> Shape | None:
    _need(len(e.attrs) == 1 and isinstance(e.attrs[0], float), e, "needs a float")
    return ()


def _dim(e: Expr) -> Shape | None:
    _need(len(e.attrs) == 1 and isinstance(e.attrs[0], Dim), e, "needs a dimension")
    return ()


def _nonscalar(e: Expr) -> Shape | None:
    _need(e.rank > 0, e, "a scalar constant is a number")
    return None


def _eye(e: Expr) -> Shape | None:
    _need(e.rank == 2 and e.shape[0] == e.shape[1], e, "an identity is square")
    return None


def _same(e: Expr) -> Shape | None:
    return e.args[0].shape


def _broadcast(e: Expr) -> Shape | None:
    a, b = e.args
    _need(a.shape == b.shape or not a.shape or not b.shape, e, "only scalars broadcast")
    return a.shape or b.shape


def _matmul(e: Expr) -> Shape | None:
    a, b = e.args
    _need(1 <= a.rank <= 2 and 1 <= b.rank <= 2 and a.shape[-1] == b.shape[0], e, "inner dimensions differ")
    return a.shape[:-1] + b.shape[1:]


def _outer(e: Expr) -> Shape | None:
    _need(all(a.rank == 1 for a in e.args), e, "needs vectors")
    return e.args[0].shape + e.args[1].shape


def _transpose(e: Expr) -> Shape | None:
    _need(e.args[0].rank == 2, e, "needs a matrix")
    return e.args[0].shape[::-1]


def _index(e: Expr) -> Shape | None:
    _need(len(items_of(e)) <= e.args[0].rank, e, "too many indices")
    return indexed_shape(e.args[0].shape, items_of(e))


def _embed(e: Expr) -> Shape | None:
    _need(len(items_of(e)) <= e.rank, e, "too many indices")
    _need(indexed_shape(e.shape, items_of(e)) == e.args[0].shape, e, "does not fit its place")
    return None


def _diag(e: Expr) -> Shape | None:
    _need(e.args[0].rank == 1, e, "needs a vector")
    return e.args[0].shape * 2


def _diagonal(e: Expr) -> Shape | None:
    shape = e.args[0].shape
    _need(len(shape) == 2 and shape[0] == shape[1], e, "needs a square matrix")
    return shape[:1]


def _concat(e: Expr) -> Shape | None:
    _need(len(e.args) > 0 and e.rank > 0, e, "joins something")
    length = ZERO
    for a in e.args:
        _need(a.shape[1:] == e.shape[1:] and (a.rank > 0 or e.rank == 1), e, "parts differ")
        length = length + (a.shape[0] if a.shape else ONE)
    return (length, *e.shape[1:])


def _stack(e: Expr) -> Shape | None:
    _need(len(e.args) > 0, e, "joins something")
    first = e.args[0].shape
    _need(all(a.shape == first for a in e.args), e, "parts differ")
    return (Dim.of(len(e.args)), *first)


def _reshape(e: Expr) -> Shape | None:
    _need(size_of(e.shape) == size_of(e.args[0].shape), e, "the number of elements differs")
    return None


def _loop(e: Expr) -> Shape | None:
    name, lo, hi = binder_of(e)
    body = e.args[0].shape
    _need(not any(name in d.names for d in body), e, f"the body's shape depends on `{name}`")
    _need(name not in lo.names | hi.names, e, f"the range depends on `{name}`")
    return body if e.op == "sum_for" else (hi - lo, *body)


def _apply(e: Expr) -> Shape | None:
    _need(len(e.attrs) == 2 and isinstance(e.attrs[1], int), e, "needs a function and an output")
    return None


def _apply_jvp(e: Expr) -> Shape | None:
    half, odd = divmod(len(e.args), 2)
    _need(not odd and all(a.shape == t.shape for a, t in zip(e.args[:half], e.args[half:], strict=True)), e, "tangents")
    return _apply(e)


def _apply_vjp(e: Expr) -> Shape | None:
    i = e.attrs[2]
    assert isinstance(i, int)
    _need(0 <= i < len(e.args) - 1, e, "no such argument")
    return e.args[i].shape


def _derivative(shape: Callable[[Shape, Shape], Shape]) -> Callable[[Expr], Shape | None]:
    def rule(e: Expr) -> Shape | None:
        body, bound, point = e.args
        _need(bound.op == "sym" and bound.shape == point.shape, e, "is by a symbol, at a point of its shape")
        _need(bound not in symbols(point), e, "the bound symbol occurs in the point")
        return shape(body.shape, bound.shape)

    return rule


def _deriv(e: Expr) -> Shape | None:
    _need(len(e.attrs) == 2, e, "needs an order and a variable")
    return e.args[0].shape


def _any(e: Expr) -> Shape | None:
    return None


_RULES: dict[str, tuple[int | None, Callable[[Expr], Shape | None]]] = {
    "sym": (0, _sym),
    "num": (0, _num),
    "dim": (0, _dim),
    "zeros": (0, _nonscalar),
    "ones": (0, _nonscalar),
    "eye": (0, _eye),
    "neg": (1, _same),
    "add": (2, _broadcast),
    "mul": (2, _broadcast),
    "div": (2, _broadcast),
    "pow": (2, _broadcast),
    "matmul": (2, _matmul),
    "outer": (2, _outer),
    "transpose": (1, _transpose),
    "index": (1, _index),
    "embed": (1, _embed),
    "sum": (1, lambda e: ()),
    "diag": (1, _diag),
    "diagonal": (1, _diagonal),
    "concat": (None, _concat),
    "stack": (None, _stack),
    "reshape": (1, _reshape),
    "sum_for": (1, _loop),
    "stack_for": (1, _loop),
    "apply": (None, _apply),
    "apply_jvp": (None, _apply_jvp),
    "apply_vjp": (None, _apply_vjp),
    "grad": (3, _derivative(lambda body, x: x)),
    "jac": (3, _derivative(lambda body, x: body + x)),
    "divergence": (3, _derivative(lambda body, x: ())),
    "hess": (3, _derivative(lambda body, x: x + x)),
    "deriv": (1, _deriv),
    "at": (None, _any),
    "dual": (0, _any),
}


# -- models ------------------------------------------------------------------------------------------------------------


def _verify_model(model: Model, functions: Functions | None) -> None:
    declared = {s.node for s in (*model.givens, *model.params, *model.consts)}
    for name, value in model.definitions:
        verify(value, functions)
        _declared(value, declared | _unknowns(model), "definition")
        declared.add(name)
    declared |= _unknowns(model)
    for block in model.blocks:
        here = declared | {d.node for d in block.domains}
        exprs = [side for q in (*block.equations, *block.until) for side in (q.lhs, q.rhs)]
        if block.objective is not None:
            exprs.append(block.objective)
        exprs += [end for d in block.domains for end in (d.lo, d.hi)]
        for e in exprs:
            verify(e, functions)
            _declared(e, here, f"{block.sentence} block")
    ends = {d.node for b in model.blocks for d in b.domains}  # after an event the variable is the end time
    for output in model.outputs:
        verify(output.expr, functions)
        _declared(output.expr, declared | ends, f"output `{output.name}`")


def _unknowns(model: Model) -> set[Expr]:
    return {s.node for b in model.blocks for s in b.unknowns}


def _declared(e: Expr, known: Iterable[Expr], where: str) -> None:
    """Every free symbol is known; differentials belong to their relation."""
    loose = [s for s in symbols(e) - set(known) if s.role is not Role.DIFFERENTIAL]
    if loose:
        raise IllFormed(f"`{loose[0].name}` is not declared, in a {where}")
