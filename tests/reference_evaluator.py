"""A reference evaluator for expressions, the oracle of tests: one torch call a node, unbatched, nothing clever."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from implicitdsl.ir.build import items_of
from implicitdsl.ir.names import binder_of, free_names
from implicitdsl.ir.nodes import Expr

Fn = Callable[..., Tensor]


def _others(x: Tensor) -> Tensor:
    n = len(x)
    return torch.stack([torch.cat([x[:i], x[i + 1 :]]).prod() for i in range(n)])


def _pairs(x: Tensor) -> Tensor:
    n = len(x)

    def entry(i: int, j: int) -> Tensor:
        others = [x[k] if k not in (i, j) else torch.ones_like(x[k]) for k in range(n)]
        return torch.zeros_like(x[i]) if i == j else torch.stack(others).prod()

    return torch.stack([torch.stack([entry(i, j) for j in range(n)]) for i in range(n)])


def _weights(x: Tensor) -> Tensor:
    top = (x == x.max()).to(x.dtype)
    return top / top.sum()


FUNCTIONS: dict[str, Fn] = {
    "exp": torch.exp,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "sin": torch.sin,
    "cos": torch.cos,
    "tan": torch.tan,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": torch.nn.functional.softplus,
    "relu": torch.relu,
    "gelu": torch.nn.functional.gelu,
    "silu": torch.nn.functional.silu,
    "abs": torch.abs,
    "sign": torch.sign,
    "erf": torch.erf,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "max_all": torch.amax,
    "min_all": torch.amin,
    "argmax_weights": _weights,
    "clamp": torch.clamp,
    "softmax": lambda x: torch.softmax(x, -1),
    "logsumexp": lambda x: torch.logsumexp(x, -1),
    "prod": torch.prod,
    "prod_others": _others,
    "prod_pairs": _pairs,
    "norm": torch.linalg.vector_norm,
    "norm_1": lambda x: x.abs().sum(),
    "norm_inf": lambda x: x.abs().amax(),
    "det": torch.linalg.det,
    "logdet": torch.logdet,
    "inv": torch.linalg.inv,
    "heaviside": lambda x: (x > 0).to(x.dtype),
    "half_step": lambda x: (torch.sign(x) + 1) / 2,
    "reciprocal_or_zero": lambda x: torch.where(x == 0, torch.zeros_like(x), 1 / torch.where(x == 0, 1.0, x)),
    "scale_rows": lambda d, A: d[:, None] * A,
    "scale_columns": lambda A, d: A * d[None, :],
}


def derive(fn: object, opaques: Mapping[str, Fn]) -> Fn:
    """The function of an opaque name, see `ir.binders.OpaqueName`."""
    if isinstance(fn, str):
        return opaques[fn]
    kind, inner, _, *which = fn  # type: ignore[misc]  # a tuple by the definition of opaque names
    f = derive(inner, opaques)
    if kind == "jvp":
        return lambda *a: torch.func.jvp(f, a[: len(a) // 2], a[len(a) // 2 :])[1]
    return lambda *a: torch.func.vjp(f, *a[:-1])[1](a[-1])[which[0]]


def evaluate(
    root: Expr,
    values: Mapping[Expr, Tensor],
    sizes: Mapping[str, int] | None = None,
    opaques: Mapping[str, Fn] | None = None,
) -> Tensor:
    """The value of an expression where symbols have these values and dimensions these sizes."""
    return _Evaluator(values, opaques or {}).run(root, dict(sizes or {}))


class _Evaluator:
    def __init__(self, values: Mapping[Expr, Tensor], opaques: Mapping[str, Fn]) -> None:
        self.values, self.opaques = values, opaques
        self.names: dict[Expr, frozenset[str]] = {}

    def run(
        self,
        root: Expr,
        sizes: dict[str, int],
        index: str | None = None,
        outside: Callable[[Expr], Tensor] | None = None,
    ) -> Tensor:
        """The value where `index` is bound; what does not depend on it has its value from outside, once."""
        memo: dict[Expr, Tensor] = {}

        def value(e: Expr) -> Tensor:
            if e not in memo and outside is not None and index not in free_names(e, self.names):
                memo[e] = outside(e)
            if e not in memo:
                memo[e] = self.values[e] if e in self.values else self.node(e, sizes, value)
                assert memo[e].shape == tuple(d.evaluate(sizes) for d in e.shape), (e, memo[e].shape)
            return memo[e]

        return value(root)

    def node(self, e: Expr, sizes: dict[str, int], value: Callable[[Expr], Tensor]) -> Tensor:
        shape = tuple(d.evaluate(sizes) for d in e.shape)
        if e.op in ("sum_for", "stack_for"):
            name, lo, hi = binder_of(e)
            places = range(lo.evaluate(sizes), hi.evaluate(sizes))
            parts = [self.run(e.args[0], sizes | {name: i}, name, value) for i in places]
            stacked = torch.stack(parts)
            return stacked.sum(0) if e.op == "sum_for" else stacked
        args = [value(a) for a in e.args]
        match e.op:
            case "num":
                return torch.tensor(e.number, dtype=torch.float64)
            case "dim":
                return torch.tensor(float(e.attrs[0].evaluate(sizes)), dtype=torch.float64)  # type: ignore[attr-defined]  # a Dim
            case "zeros":
                return torch.zeros(shape, dtype=torch.float64)
            case "ones":
                return torch.ones(shape, dtype=torch.float64)
            case "eye":
                return torch.eye(shape[0], dtype=torch.float64)
            case "index":
                return args[0][self.key(e, sizes)]
            case "embed":
                count = torch.Size(shape).numel()
                places = torch.arange(count).reshape(shape)[self.key(e, sizes)].reshape(-1)
                chosen = torch.eye(count, dtype=torch.float64)[places]
                return (args[0].reshape(-1) @ chosen).reshape(shape)
            case "concat":
                return torch.cat([a.reshape(1) if a.dim() == 0 else a for a in args])
            case "stack":
                return torch.stack(args)
            case "reshape":
                return args[0].reshape(shape)
            case "call":
                return FUNCTIONS[e.name](*args)
            case "apply":
                return derive(e.attrs[0], self.opaques)(*args)
            case "apply_jvp":
                return derive(("jvp", e.attrs[0], e.attrs[1]), self.opaques)(*args)
            case "apply_vjp":
                return derive(("vjp", *e.attrs), self.opaques)(*args)
            case op:
                return OPERATIONS[op](*args)

    @staticmethod
    def key(e: Expr, sizes: dict[str, int]) -> tuple[int | slice, ...]:
        return tuple(
            item[1].evaluate(sizes) if len(item) == 2 else slice(item[1].evaluate(sizes), item[2].evaluate(sizes))
            for item in items_of(e)
        )


OPERATIONS: dict[str, Fn] = {
    "neg": torch.neg,
    "add": torch.add,
    "mul": torch.mul,
    "div": torch.div,
    "pow": torch.pow,
    "matmul": torch.matmul,
    "outer": torch.outer,
    "transpose": lambda A: A.T,
    "sum": torch.sum,
    "diag": torch.diag,
    "diagonal": torch.diagonal,
}
