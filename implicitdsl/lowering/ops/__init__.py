"""What generated source calls as `ops.NAME`. Every tensor has its core shape, or any leading dimensions before it.

Leading dimensions broadcast by right alignment, so the core rank of an argument is always known: it is said in the name
(`matvec`), or given as `rank`, because `tensor.dim()` alone cannot tell a batch of vectors from a matrix.
"""

from __future__ import annotations

from .functions import (
    argmax_weights,
    clamp,
    det,
    inv,
    logdet,
    logsumexp,
    max_all,
    maximum,
    mean,
    min_all,
    minimum,
    norm,
    norm_1,
    norm_inf,
    prod,
    prod_others,
    prod_pairs,
    scale_columns,
    scale_rows,
    softmax,
)
from .opaque import apply, apply_all, apply_jvp, apply_vjp, jvp_of, vjp_of
from .products import (
    affine,
    affine_by,
    dot,
    less_square,
    matmul_like,
    matvec,
    outer,
    outer_like,
    sum_like,
    trace,
    vecaffine,
    vecmat,
)
from .shapes import concat, embed, lift, repeat, reshape, stack

__all__ = [
    "affine", "affine_by", "dot", "less_square", "matvec", "outer", "trace", "vecaffine", "vecmat",
    "matmul_like", "outer_like", "sum_like",
    "concat", "embed", "lift", "repeat", "reshape", "stack",
    "apply", "apply_all", "apply_jvp", "apply_vjp", "jvp_of", "vjp_of",
    "argmax_weights", "clamp", "det", "inv", "logdet", "logsumexp", "max_all", "maximum", "mean", "min_all", "minimum",
    "norm", "norm_1", "norm_inf", "prod", "prod_others", "prod_pairs", "scale_columns", "scale_rows", "softmax",
]  # fmt: skip
