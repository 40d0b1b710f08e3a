"""Every function of the language, generated: batches against a loop, its stated derivative against torch's."""

from __future__ import annotations

import pytest
import torch
from symbols import SIZES, A, n, s, z

from implicitdsl.functions import FUNCTIONS
from implicitdsl.ir import build as b
from implicitdsl.ir.function import Function
from implicitdsl.ir.nodes import Expr, Role, sym
from implicitdsl.lowering.codegen import generate
from implicitdsl.lowering.source import Program

TABLE = {f.name: f for f in FUNCTIONS}
v = sym("v", Role.GIVEN, (n,))
ARGUMENTS: dict[str, list[tuple[Expr, ...]]] = {
    "clamp": [(z, v, sym("w", Role.GIVEN, (n,))), (z, s, sym("r", Role.GIVEN))],
    "maximum": [(z, v), (s, z)],
    "minimum": [(z, v), (z, s)],
    "scale_rows": [(z, A)],
    "scale_columns": [(A, z)],
    **{name: [(A,)] for name in ("det", "inv", "logdet")},
    **{name: [(z,), (A,)] for name in ("norm", "max_all", "min_all", "argmax_weights")},
    **{name: [(z,)] for name in ("norm_1", "norm_inf", "prod", "prod_others", "prod_pairs", "softmax", "logsumexp")},
}
CASES = [
    (f, args)
    for f in FUNCTIONS
    if f.torch
    for args in ARGUMENTS.get(f.name, [(z,), (s,), (A,)] if f.elementwise else [])
    if f.name != "norm" or args[0].rank < 2  # `||A||` is refused, `||A||_F` is built from a sum
]


def value(e: Expr, lead: tuple[int, ...], seed: int) -> torch.Tensor:
    """Positive and well conditioned, so that every function is defined; no two entries equal."""
    g = torch.Generator().manual_seed(seed)
    shape = [d.evaluate(SIZES) for d in e.shape]
    found = torch.rand((*lead, *shape), generator=g, dtype=torch.float64) + 0.5
    return found + 4 * torch.eye(shape[0], dtype=torch.float64) if e.rank == 2 else found


def test_every_spelling_is_covered() -> None:
    assert {f.name for f, _ in CASES} == {f.name for f in FUNCTIONS if f.torch}


@pytest.mark.parametrize("f, args", CASES, ids=[f"{f.name}-{len(a)}-{a[0].rank}" for f, a in CASES])
def test_batches_and_derivative(f: Function, args: tuple[Expr, ...]) -> None:
    inputs = list(dict.fromkeys(args))
    tangents = [sym(f"d{a.name}", Role.TANGENT, a.shape) for a in args]
    call = b.call(f.name, args, f.type(args))
    assert f.jvp is not None
    primal = Program("test", generate("f", inputs, [call], TABLE, SIZES))["f"]
    tangent = Program("test", generate("g", [*inputs, *tangents], [f.jvp(call, tangents)], TABLE, SIZES))["g"]
    for leads in [((5,),) * len(args), ((5,), *[()] * (len(args) - 1)), (*[()] * (len(args) - 1), (2, 5))]:
        values = [value(a, lead, k) for k, (a, lead) in enumerate(zip(args, leads, strict=True))]
        if f.name == "clamp":  # lo ≤ hi, with values on either side of both
            values = [values[0], values[1] / 2 + 0.3, values[2] / 2 + 0.85]
        along = [value(a, lead, 9 + k) - 1 for k, (a, lead) in enumerate(zip(args, leads, strict=True))]
        found, slope = torch.func.jvp(primal, tuple(values), tuple(along))
        torch.testing.assert_close(tangent(*values, *along).expand(slope.shape), slope, rtol=1e-9, atol=1e-9)
        lead = torch.broadcast_shapes(*leads)
        cores = [t.shape[len(ld) :] for t, ld in zip(values, leads, strict=True)]
        full = [t.expand((*lead, *core)).reshape(-1, *core) for t, core in zip(values, cores, strict=True)]
        rows = torch.stack([primal(*row) for row in zip(*full, strict=True)])
        torch.testing.assert_close(found.reshape(rows.shape), rows)
