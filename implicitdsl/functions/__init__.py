"""Floor 3: the functions of the language, one file a function or tiny kin. Torch-free: torch is named as text only."""

from __future__ import annotations

from implicitdsl.ir.function import Function, Functions

from .absolute import ABS, SIGN
from .exponential import EXP, LOG
from .extrema import ARGMAX_WEIGHTS, CLAMP, LARGEST, MAX, MAXIMUM, MIN, MINIMUM, SMALLEST
from .gated import GELU, SILU
from .matrices import DET, INV, LOGDET, TR
from .norms import NORM, NORM_1, NORM_F, NORM_INF, RECIPROCAL_OR_ZERO
from .product import PROD, PROD_OTHERS, PROD_PAIRS
from .rectifiers import HALF_STEP, HEAVISIDE, RELU, SOFTPLUS
from .reductions import DOT, MEAN, SUM
from .root import SQRT
from .scalings import SCALE_COLUMNS, SCALE_ROWS
from .shaping import CONCAT, DIAG, ONES, RESHAPE, STACK, ZEROS, I
from .sigmoidal import ERF, SIGMOID, TANH
from .softmax import LOGSUMEXP, SOFTMAX
from .trigonometric import COS, SIN, TAN

FUNCTIONS: tuple[Function, ...] = (
    *(EXP, LOG, SQRT, SIN, COS, TAN, TANH, SIGMOID, SOFTPLUS, RELU, GELU, SILU, ABS, SIGN, ERF),
    *(MIN, MAX, CLAMP, SOFTMAX, LOGSUMEXP, SUM, MEAN, PROD, NORM, NORM_1, NORM_INF, NORM_F, DOT),
    *(TR, DET, LOGDET, INV, DIAG, CONCAT, STACK, RESHAPE, I, ZEROS, ONES),
    *(MAXIMUM, MINIMUM, LARGEST, SMALLEST, ARGMAX_WEIGHTS, HEAVISIDE, HALF_STEP, RECIPROCAL_OR_ZERO),
    *(PROD_OTHERS, PROD_PAIRS, SCALE_ROWS, SCALE_COLUMNS),
)
"""What users can write, then what only derivatives produce (`internal`)."""

TABLE: Functions = {f.name: f for f in FUNCTIONS}
"""The same by name, as checker, calculus and lowering receive them."""
