"""Times on the wrong side of the beginning: a failure of their row, with every method and in either direction."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import implicitdsl as imp
from implicitdsl.ground.outcomes import Outcome

D = torch.float64
METHODS = ["dopri5(rtol=1e-8)", "dopri8(rtol=1e-8)", "rodas5p(rtol=1e-7)", "rk4(steps=100)", "expm"]


def decay(using: str, asked: str, interval: str = "[0, T]") -> Any:
    return imp.compile(f"""
given x in R, T in R, s in R
find z(t) in R for t in {interval} such that dz/dt = -z, z(0) = x
using {using}, on_failure=nan
return {asked}
""")


@pytest.mark.filterwarnings("ignore::implicitdsl.ConvergenceWarning")
@pytest.mark.parametrize("using", METHODS)
@pytest.mark.parametrize("asked", ["z(s)", "y = concat([z(s)], [z(T)])"])
def test_a_time_before_the_beginning(using: str, asked: str) -> None:
    """The third and the last row go backwards in time: for them it is a positive time that lies before."""
    T = torch.tensor([1.0, 1.0, -1.0, 0.0, -1.0], dtype=D)
    s = torch.tensor([0.5, -2.0, -1.5, 0.0, 0.25], dtype=D)
    solution = decay(using, asked).solve(torch.ones(5, dtype=D), T, s)
    assert solution.report.status.tolist() == [0, int(Outcome.OUTSIDE), 0, 0, int(Outcome.OUTSIDE)]
    value = solution.value if solution.value.dim() == 1 else solution.value[:, 0]
    good = solution.report.converged
    assert torch.allclose(value[good], torch.exp(-s)[good], rtol=1e-6)
    assert value[~good].isnan().all()


@pytest.mark.parametrize("using", ["dopri5(rtol=1e-8)", "expm"])
def test_gradients_of_a_time_that_is_asked_alone(using: str) -> None:
    x, T = torch.ones(2, dtype=D), torch.tensor([1.0, -1.0], dtype=D)
    s = torch.tensor([0.5, -1.5], dtype=D, requires_grad=True)
    (found,) = torch.autograd.grad(decay(using, "z(s)")(x, T, s).sum(), s)
    assert torch.allclose(found, -torch.exp(-s), rtol=1e-6)


@pytest.mark.parametrize("using", ["dopri5", "expm"])
def test_the_reason(using: str) -> None:
    one = torch.ones(1, dtype=D)
    with pytest.warns(imp.ConvergenceWarning, match="before the beginning"):
        assert not decay(using, "z(s)").solve(one, one, -one).report.converged
