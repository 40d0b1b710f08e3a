"""Smart constructors: shapes are computed and asserted, and what is obvious is simplified (0 x, 1 x, x + 0, --x,
numbers, transposes, identity and diagonal matrices, indices of stacks). Every constructor takes `span=`.

Ill-typed arguments raise AssertionError: users' mistakes are the checker's and the type rules' business.
Subtraction is `a + (-b)`; numbers stand on the left of products; signs and numeric factors move outwards.
"""

from __future__ import annotations

from .arith import (
    add,
    as_dim,
    coefficient,
    dimension,
    div,
    eye,
    fill,
    filled,
    is_one,
    is_zero,
    mul,
    neg,
    ones,
    power,
    scaled,
    sub,
    zeros,
)
from .arrays import Item, at_item, concat, embed, index, indexed_shape, items_of, reshape, slice_item, stack
from .binders import (
    OpaqueName,
    apply,
    apply_jvp,
    apply_vjp,
    at,
    deriv,
    divergence,
    dual,
    grad,
    hess,
    jac,
    stack_for,
    sum_for,
)
from .linalg import (
    call,
    diag,
    diagonal,
    inner,
    is_call,
    matmul,
    mean,
    outer,
    scale_columns,
    scale_rows,
    total,
    trace,
    transpose,
)
from .names import binder_of, free_names, fresh_name, index_value, subs_names
from .nodes import num, sym

__all__ = [
    "num", "sym", "zeros", "ones", "eye", "dimension", "fill",
    "add", "sub", "neg", "mul", "div", "power",
    "matmul", "outer", "inner", "transpose", "diag", "diagonal", "scale_rows", "scale_columns", "total", "mean",
    "trace",
    "index", "embed", "concat", "stack", "reshape", "Item", "at_item", "slice_item", "items_of", "indexed_shape",
    "call", "sum_for", "stack_for", "apply", "apply_jvp", "apply_vjp", "OpaqueName",
    "grad", "jac", "divergence", "hess", "at", "deriv", "dual",
    "as_dim", "is_zero", "is_one", "filled", "scaled", "coefficient", "is_call",
    "binder_of", "free_names", "fresh_name", "index_value", "subs_names",
]  # fmt: skip
