"""How often an expensive function is evaluated in a backward pass."""

from __future__ import annotations

import torch
from torch import Tensor

from implicitdsl.backward.implicit import Implicit, implicit_solve
from implicitdsl.solvers.gmres import Gmres
from implicitdsl.solvers.picard import Picard
from implicitdsl.solvers.problem import RootProblem


def test_one_linearisation_serves_the_adjoint_solve_and_its_check() -> None:
    count = 0

    def step(z: Tensor, w: Tensor, x: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return torch.tanh(z @ w.mT + x)

    generator = torch.Generator().manual_seed(0)
    w = (0.03 * torch.randn(300, 300, generator=generator)).requires_grad_()
    x = torch.ones(4, 300)  # equal rows leave the solve together
    problem = RootProblem(step=step, ranks=(2, 1))
    z, solved = implicit_solve(problem, Picard(), torch.zeros_like(x), (w, x), backward=Implicit(Gmres()))
    assert solved.converged.all()
    count = 0
    z.sum().backward()
    assert count == 2  # one for all products with the Jacobian, one for the gradient of w
