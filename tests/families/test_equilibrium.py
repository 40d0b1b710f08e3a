"""The rooms of the equilibrium family by themselves, on systems built by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import implicitdsl as imp
from implicitdsl.families.equilibrium.generate import is_square, write
from implicitdsl.families.equilibrium.packing import pack
from implicitdsl.families.equilibrium.roots import Region, Regions, region
from implicitdsl.families.opaque import Opaques
from implicitdsl.functions import TABLE
from implicitdsl.ground.outcomes import Outcome
from implicitdsl.ground.source import Source
from implicitdsl.ir import build
from implicitdsl.ir.dims import Dim
from implicitdsl.ir.model import Opaque, SetInfo
from implicitdsl.ir.nodes import Role, sym
from implicitdsl.ir.plan import System
from implicitdsl.lowering.bound import bound
from implicitdsl.lowering.codegen import generate
from implicitdsl.lowering.source import Program

N, M = Dim.of("n"), Dim.of("m")
S, V, X = sym("s", Role.UNKNOWN), sym("v", Role.UNKNOWN, (N,)), sym("X", Role.UNKNOWN, (N, M))
A = sym("A", Role.PARAM, (N, N))


def mixed() -> System:
    """s = cos(sum v), v = tanh(A v + s), X = A X + v 1ᵀ s: a scalar, a vector and a matrix."""
    step = (
        build.call("cos", (build.total(V),), ()),
        build.call("tanh", (build.add(build.matmul(A, V), S),), (N,)),
        build.add(build.matmul(A, X), build.mul(S, build.outer(V, build.ones((M,))))),
    )
    return System((S, V, X), tuple(build.sub(u, g) for u, g in zip((S, V, X), step, strict=True)), step)


def test_a_single_vector_is_packed_as_itself() -> None:
    packing = pack((V,), "v", Role.UNKNOWN)
    assert packing.vector is V
    assert packing.definitions == ()
    assert packing.join([V]) is V


def test_packing_and_its_parts_are_inverse() -> None:
    packing = pack((S, V, X), "state", Role.UNKNOWN)
    assert packing.size == Dim.of(1) + N + N * M
    parts = [packing.vector, *(u for u, _ in packing.definitions)]
    text = generate("parts", (packing.vector,), parts[1:], TABLE, {"n": 2, "m": 3}, definitions=packing.definitions)
    state = torch.arange(2 * 9.0).reshape(2, 9)
    s, v, X_ = Program("parts", text)["parts"](state)
    assert s.shape == (2,)
    assert v.shape == (2, 2)
    assert X_.shape == (2, 2, 3)
    assert torch.equal(torch.cat((s[:, None], v, X_.flatten(1)), dim=1), state)


def test_generated_derivatives_are_those_of_the_residual() -> None:
    written = write(mixed(), TABLE, {"n": 2, "m": 3})
    program = Program("mixed", written.text)
    torch.manual_seed(0)
    z, u, a = torch.randn(4, 9).double(), torch.randn(4, 9).double(), torch.randn(2, 2).double()
    residual = program["residual"]
    torch.testing.assert_close(z - program["step"](z, a), residual(z, a))
    _, pull = torch.func.vjp(residual, z, a)
    expected_z, expected_a = pull(u)
    torch.testing.assert_close(program["pullback"](z, a)(u), expected_z)
    torch.testing.assert_close(program["pull_inputs"](z, u, a), expected_a)
    assert "jacobian" not in program  # a matrix among the unknowns has no closed form


def test_the_block_jacobian_of_several_vectors_and_scalars() -> None:
    step = mixed().step
    assert step is not None
    system = System((S, V), (build.sub(S, step[0]), build.sub(V, step[1])), None)
    program = Program("two", write(system, TABLE, {}).text)
    torch.manual_seed(0)
    z, a = torch.randn(5, 4).double(), torch.randn(3, 3).double()
    expected = torch.stack([torch.func.jacrev(lambda row: program["residual"](row[None], a)[0])(row) for row in z])
    torch.testing.assert_close(program["jacobian"](z, a), expected)


def test_a_diagonal_jacobian_is_its_diagonal() -> None:
    system = System((V,), (build.sub(build.mul(V, build.mul(V, V)), sym("h", Role.GIVEN, (N,))),), None)
    program = Program("cube", write(system, TABLE, {}, diagonal=True).text)
    z = torch.randn(2, 3)
    torch.testing.assert_close(program["jacobian"](z, torch.zeros(2, 3)), 3 * z**2)


def test_least_squares_becomes_its_stationarity() -> None:
    y = sym("y", Role.GIVEN, (M,))
    B = sym("B", Role.PARAM, (M, N))
    system = System((V,), (build.sub(build.matmul(B, V), y),), None)
    assert not is_square(system)
    program = Program("fit", write(system, TABLE, {}).text)
    torch.manual_seed(0)
    b, z, data = torch.randn(5, 3), torch.randn(2, 3), torch.randn(2, 5)
    torch.testing.assert_close(program["residual"](z, b, data), (z @ b.T - data) @ b)
    torch.testing.assert_close(program["misfit"](z, b, data), z @ b.T - data)
    torch.testing.assert_close(program["misfit_jacobian"](z, b, data), b)


@pytest.mark.parametrize(
    "name, args, shape, start",
    [
        ("R", (), (2,), [0.0, 0.0]),
        ("positive", (), (), [1.0]),
        ("nonneg", (), (2,), [1.0, 1.0]),
        ("open", (1.0, 4.0), (), [2.5]),
        ("closed", (-1.0, 1.0), (2,), [0.0, 0.0]),
        ("simplex", (), (4,), [0.25] * 4),
        ("ball", (2.0,), (2,), [0.0, 0.0]),
        ("sphere", (), (4,), [0.5] * 4),
        ("PD", (), (2, 2), [1.0, 0.0, 0.0, 1.0]),
    ],
)
def test_a_solve_starts_inside_its_set(
    name: str, args: tuple[float, ...], shape: tuple[int, ...], start: list[float]
) -> None:
    info = SetInfo(name, args, tuple(Dim.of(d) for d in shape), name)
    regions = Regions([region(info, shape)])
    found = regions.start(torch.zeros((), dtype=torch.float64))
    assert found.tolist() == start
    assert bool(regions.contain(found[None]))
    assert Regions(regions.regions, at_zero=True).start(found).tolist() == [0.0] * len(start)


def test_boxes_of_several_unknowns_are_packed_like_them() -> None:
    inf = float("inf")
    regions = Regions([Region(None, (2,), -inf, inf), Region(None, (), 0.0, inf)])
    lower, upper = regions.box(torch.zeros(1))
    assert isinstance(lower, Tensor)
    assert lower.tolist() == [-inf, -inf, 0.0]
    assert upper is None


def opaques(module: nn.Module | object) -> Opaques:
    signature = Opaque("f", ((Dim.of(3),),), ((Dim.of(3),),))
    return Opaques({"f": bound(signature, module, {}, Source("<string>", ""))})


def test_parameters_that_differ_by_row_are_applied_by_row() -> None:
    torch.manual_seed(0)
    module = nn.Linear(3, 3)
    held = opaques(module)
    weight, bias = torch.randn(4, 3, 3), torch.randn(3)
    x = torch.randn(4, 3)
    (f,) = held.callables((weight, bias))
    torch.testing.assert_close(f(x), torch.einsum("bij,bj->bi", weight, x) + bias)
    (own,) = held.callables(held.parameters())
    torch.testing.assert_close(own(x), module(x))


def test_functions_that_hide_trained_tensors_are_found() -> None:
    weight = torch.randn(3, 3, requires_grad=True)
    x = torch.randn(2, 3)
    assert opaques(lambda z: z @ weight).lost(lambda f: f(x)) == ["f"]
    assert opaques(lambda z: z @ weight.detach()).lost(lambda f: f(x)) == []
    assert opaques(nn.Linear(3, 3)).lost(lambda f: f(x)) == []


def test_written_code_names_its_inputs_in_one_order() -> None:
    written = write(mixed(), TABLE, {}, ["m"])
    assert [s.name for s in written.inputs] == ["A"]
    assert written.opaques == ()
    assert written.start is None


AFFINE = """
layer Coupled(n):
  given x in R^n, c in R
  param W in R^(n, n)
  find z in R^n, s in R such that
    z = W z + s * x + c
    s = 0.5 * s + sum(z) / 10 + c
"""


def test_affine_equations_are_solved_from_their_constant_wherever_a_solve_starts() -> None:
    torch.manual_seed(0)
    layer: Any = imp.compile(AFFINE, n=4).double()
    layer.W = torch.randn(4, 4) / 5
    x, c = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    program = layer._runners[0].recipe.program
    zero = torch.zeros(3, 5, dtype=torch.float64)
    inputs = [{"W": layer.W, "x": x, "c": c}[name] for name in layer._runners[0].recipe.system.inputs]
    torch.testing.assert_close(program["constant"](*inputs), -program["residual"](zero, *inputs))
    cold = layer.solve(x, c)
    warm = layer.solve(x, c, start={"z": 1e8 * torch.randn(3, 4), "s": torch.full((3,), -1e8)})
    assert cold.report.nfe.tolist() == [1, 1, 1]
    for one, other in zip(cold.value, warm.value, strict=True):
        assert torch.equal(one, other)


SYSTEM = """
layer System(n):
  given b in R^n
  param A in R^(n, n)
  find z in R^n such that A z = b
"""


def test_a_singular_affine_system_keeps_its_start() -> None:
    layer: Any = imp.compile(
        "layer L(n):\n  given b in R^n\n  param A in R^(n, n)\n  find z in R^n such that A z = b", n=2
    )
    layer.A = torch.ones(2, 2)
    b = torch.tensor([[2.0, 2.0], [1.0, -1.0]])
    with pytest.warns(imp.ConvergenceWarning):
        solved = layer.solve(b, start=torch.tensor([[3.0, -1.0], [5.0, 7.0]]))
    assert solved.report.status.tolist() == [int(Outcome.SINGULAR), int(Outcome.STALLED)]
    assert torch.equal(solved.value[1], torch.tensor([5.0, 7.0]))
