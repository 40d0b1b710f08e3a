"""An interpreter of the IR for one sample: short, slow, and written independently of the code generator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from implicitdsl.ir.build import binder_of, items_of
from implicitdsl.ir.dims import Dim
from implicitdsl.ir.nodes import Expr

CALLS: dict[str, Callable[..., Tensor]] = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "max": torch.maximum,
    "cube": lambda x: x**3,
    "clamp": lambda x, lo, hi: torch.minimum(torch.maximum(x, lo), hi),
    "logsumexp": lambda x: x.reshape(-1).logsumexp(0),
    "softmax": lambda x: x.softmax(0),
    "det": torch.linalg.det,
    "inv": torch.linalg.inv,
    "norm": lambda x: (x * x).sum().sqrt(),
    "scale_rows": lambda d, A: torch.diag(d) @ A,
    "scale_columns": lambda A, d: A @ torch.diag(d),
}


def evaluate(
    e: Expr, values: Mapping[Expr, Tensor], sizes: Mapping[str, int], fns: Mapping[str, Any] | None = None
) -> Tensor:
    """The value of e for one sample, in float64."""

    def size(d: object) -> int:
        assert isinstance(d, Dim)
        return d.evaluate(sizes)

    def number(x: float) -> Tensor:
        return torch.tensor(x, dtype=torch.float64)

    op = e.op
    shape = tuple(d.evaluate(sizes) for d in e.shape) if op in ("zeros", "ones", "eye", "embed", "reshape") else ()
    if op == "sym":
        return values[e]
    if op == "num":
        return number(e.number or 0.0)
    if op == "dim":
        return number(float(size(e.attrs[0])))
    if op in ("zeros", "ones"):
        return getattr(torch, op)(shape, dtype=torch.float64)
    if op == "eye":
        return torch.eye(*shape, dtype=torch.float64)
    if op in ("sum_for", "stack_for"):
        name, lo, hi = binder_of(e)
        pieces = [evaluate(e.args[0], values, {**sizes, name: i}, fns) for i in range(size(lo), size(hi))]
        return torch.stack(pieces) if op == "stack_for" else sum(pieces[1:], pieces[0])
    args = [evaluate(a, values, sizes, fns) for a in e.args]
    if op in ("index", "embed"):
        items = tuple(size(i[1]) if len(i) == 2 else slice(size(i[1]), size(i[2])) for i in items_of(e))
        if op == "index":
            return args[0][items]
        out = torch.zeros(shape, dtype=torch.float64)
        out[items] = args[0]
        return out
    if op == "apply":
        assert fns is not None
        out = fns[str(e.attrs[0])](*[a.unsqueeze(0) for a in args])
        return (out[e.attrs[1]] if isinstance(out, tuple) else out).squeeze(0)
    if op == "call":
        return CALLS[e.name](*args)
    return {
        "neg": lambda a: -a,
        "add": lambda a, b: a + b,
        "mul": lambda a, b: a * b,
        "div": lambda a, b: a / b,
        "pow": lambda a, b: a**b,
        "matmul": lambda a, b: a @ b,
        "outer": torch.outer,
        "transpose": lambda a: a.T,
        "sum": lambda a: a.sum(),
        "diag": torch.diag,
        "diagonal": torch.diagonal,
        "concat": lambda *xs: torch.cat([torch.atleast_1d(x) for x in xs]),
        "stack": lambda *xs: torch.stack(xs),
        "reshape": lambda a: a.reshape(shape),
    }[op](*args)
