"""`torch.compile(fullgraph=True)`: the same numbers as eagerly, gradients included."""

from __future__ import annotations

import pytest
import torch
from root_problems import EXPONENTIAL, OPAQUE_TANH, SQUARE_ROOT, TANH, contraction, inputs
from torch import Tensor

from implicitdsl.backward.failure import Failures
from implicitdsl.backward.implicit import Implicit, implicit_solve
from implicitdsl.backward.linear_solve import linear_solve
from implicitdsl.ground.errors import ConvergenceWarning
from implicitdsl.solvers.anderson import Anderson
from implicitdsl.solvers.cascade import Cascade
from implicitdsl.solvers.gmres import Gmres
from implicitdsl.solvers.loop import Solver
from implicitdsl.solvers.newton import Newton
from implicitdsl.solvers.picard import Picard

pytestmark = [  # the compiler warns of its own doings
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
N, B = 20, 4


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    torch._dynamo.reset()


INDUCTOR, TRACED = "inductor", "aot_eager"  # generating code takes most of the time, tracing shows every graph
CASES = {
    "newton": (TANH, Newton(), Implicit(), INDUCTOR),
    "picard": (TANH, Picard(), Implicit(), TRACED),
    "anderson": (TANH, Anderson(), Implicit(Gmres()), INDUCTOR),
    "cascade": (TANH, Cascade((Picard(max_iter=6), Newton())), Implicit(), TRACED),
    "opaque": (OPAQUE_TANH, Picard(), Implicit(), TRACED),
}


@pytest.mark.parametrize("problem, solver, backward, backend", CASES.values(), ids=CASES.keys())
def test_same_as_eager(problem, solver: Solver, backward: Implicit, backend: str) -> None:
    x, w = inputs(B, N).requires_grad_(), contraction(N, 0.9).requires_grad_()

    def solve(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z, solved = implicit_solve(problem, solver, torch.zeros_like(x), (x, w), backward=backward)
        return z, solved.status, solved.iterations

    z, status, iterations = torch.compile(solve, fullgraph=True, backend=backend)(x, w)
    expected, its_status, its_iterations = solve(x, w)
    torch.testing.assert_close(z, expected, rtol=1e-11, atol=1e-11)
    assert torch.equal(status, its_status)
    # a compiled loop tests every few steps only, and may pass `max_iter` by less than that
    assert (iterations - its_iterations).abs().max() <= 4
    gradients = torch.autograd.grad(z.pow(2).sum(), (x, w))
    for g, h in zip(gradients, torch.autograd.grad(expected.pow(2).sum(), (x, w)), strict=True):
        torch.testing.assert_close(g, h, rtol=1e-10, atol=1e-10)


def test_two_equal_solves_in_one_graph_do_not_share_their_carries() -> None:
    x, w = inputs(B, N).requires_grad_(), contraction(N, 0.9).requires_grad_()

    def twice(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        first = implicit_solve(TANH, Picard(), torch.zeros_like(x), (x, w))[0]
        return first, implicit_solve(TANH, Picard(), torch.zeros_like(x), (x, w))[0]

    got = torch.compile(twice, fullgraph=True)(x, w)
    want = twice(x, w)
    for g, h in zip(
        (*got, *torch.autograd.grad((got[0] * got[1]).sum(), (x, w))),
        (*want, *torch.autograd.grad((want[0] * want[1]).sum(), (x, w))),
        strict=True,
    ):
        torch.testing.assert_close(g, h, rtol=1e-10, atol=1e-10)


def test_failures_are_announced_from_compiled_code() -> None:
    def solve(a: Tensor) -> Tensor:
        return implicit_solve(EXPONENTIAL, Newton(), torch.zeros_like(a), (a,), failures=Failures("nan", "nets.imp:7"))[
            0
        ]

    a = torch.tensor([[0.1], [1.0], [0.2]], dtype=torch.float64)
    with pytest.warns(ConvergenceWarning, match=r"nets.imp:7: 1 of 3 samples"):
        z = torch.compile(solve, fullgraph=True)(a)
    assert z.isnan().flatten().tolist() == [False, True, False]

    def root(a: Tensor) -> Tensor:
        return implicit_solve(SQUARE_ROOT, Newton(), torch.ones_like(a), (a,))[0]

    b = torch.tensor([[4.0], [0.0]], dtype=torch.float64, requires_grad=True)
    z = torch.compile(root, fullgraph=True)(b)
    with pytest.warns(ConvergenceWarning, match="IMP802"):
        (gradient,) = torch.autograd.grad(z.sum(), b)
    assert gradient.flatten().tolist() == pytest.approx([0.25, 0.0], abs=1e-12)


def test_linear_solve_compiles() -> None:
    A = contraction(6, 1.0).add(3 * torch.eye(6, dtype=torch.float64)).requires_grad_()
    b = inputs(3, 6).requires_grad_()
    x = torch.compile(linear_solve, fullgraph=True)(A, b)
    torch.testing.assert_close(x, b @ torch.inverse(A).mT)
    got = torch.autograd.grad(x.pow(2).sum(), (A, b))
    want = torch.autograd.grad((b @ torch.inverse(A).mT).pow(2).sum(), (A, b))
    for g, h in zip(got, want, strict=True):
        torch.testing.assert_close(g, h)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_where_nothing_is_differentiated(mode) -> None:
    x, w = inputs(B, N), contraction(N, 0.9)
    expected = implicit_solve(TANH, Picard(), torch.zeros_like(x), (x, w))[0]

    def solve(x: Tensor, w: Tensor) -> Tensor:
        return implicit_solve(TANH, Picard(), torch.zeros_like(x), (x, w))[0]

    compiled = torch.compile(solve, fullgraph=True, backend=TRACED)
    with mode():
        torch.testing.assert_close(compiled(x, w), expected, rtol=1e-11, atol=1e-11)
