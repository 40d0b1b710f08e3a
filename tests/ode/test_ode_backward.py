"""Backward rules by name: the adjoint equation backwards in time, steps that are undone; times that are the first."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

import implicitdsl as imp

D = torch.float64
TEXT = """
given x in R^n, c in R^n, ts in R^k, t0 in R, t1 in R
param W in R^(n, n)
fn f: (R^n, R) -> R^n
find z(t) in R^n, e(t) in R for t in [t0, t1] such that
  dz/dt = tanh(W z + c) + f(z, t), de/dt = z^T z, z(t0) = x, e(t0) = 1
{}
return z(ts), z(t1), e(t1)
"""


class Field(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3, dtype=D)

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(self.linear(torch.cat([z, t.unsqueeze(1)], 1)))


def points(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize(
    "using", ["dopri5(rtol=1e-10, atol=1e-12)", "rk4(steps=200)", "dopri8(rtol=1e-10, atol=1e-12)"]
)
def test_backsolve_against_the_discrete_adjoint(using: str, closed: bool) -> None:
    """Gradients by state, inputs, parameters, ends and output times, in any order and on both sides of a start."""
    text = TEXT.replace(" + f(z, t)", " + sin(t)").replace("fn f: (R^n, R) -> R^n\n", "") if closed else TEXT
    bound = {} if closed else {"f": Field()}
    layers = [imp.compile(text.format(f"using {using}, backward {b}"), bind={"n": 3, **bound}).double()
              for b in ("backsolve", "checkpointed")]  # fmt: skip
    layers[1].load_state_dict(layers[0].state_dict())
    x, c = points(2, 3).requires_grad_(), points(2, 3, seed=1).requires_grad_()
    ts = torch.tensor([[0.7, 0.2, 1.1], [-0.1, -0.6, -1.3]], dtype=D, requires_grad=True)
    t0, t1 = torch.tensor([0.0, 0.1], dtype=D, requires_grad=True), torch.tensor([1.5, -1.5], dtype=D)
    t1.requires_grad_()
    found = []
    for layer in layers:
        y = layer(x, c, ts, t0, t1)
        total = torch.stack([(points(*v.shape, seed=2) * v).sum() for v in y]).sum()
        found.append(torch.autograd.grad(total, (x, c, ts, t0, t1, *layer.parameters())))
    for mine, theirs in zip(*found, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-6, atol=1e-7)


def test_backsolve_keeps_nothing_but_outputs() -> None:
    """The graph of a solve with 40 times the steps holds no more numbers."""
    held = []
    for steps in (5, 200):
        layer = imp.compile(f"dz/dt = tanh(W z)\nusing rk4(steps={steps}), backward backsolve", n=4).double()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: held.append(t.numel()) or t, lambda t: t):
            layer(points(8, 4).requires_grad_())
        held.append(-1)
    assert held[: held.index(-1)] == held[held.index(-1) + 1 : -1]


def test_drift_is_warned_of() -> None:
    """z' = −30 z loses 13 digits on the way there, which no way back finds again."""
    text = "given x in R^n\nfind z(t) in R^n for t in [0, 1] such that dz/dt = -30 z + 0.01 z^2, z(0) = x\nusing {}"
    layer = imp.compile(text.format("dopri5, backward backsolve"))
    x = torch.tensor([[1.0], [2.0]], dtype=D, requires_grad=True)
    with pytest.warns(imp.ConvergenceWarning, match="IMP802.*not to be trusted.*checkpointed"):
        layer(x).sum().backward()
    mild = imp.compile(text.format("dopri5, backward backsolve").replace("30", "1"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mild(x).sum().backward()
    raising = imp.compile(text.format("dopri5, backward backsolve, on_failure=raise"))
    with pytest.raises(imp.ConvergenceError):
        raising(x).sum().backward()
    marked = imp.compile(text.format("dopri5, backward backsolve, on_failure=nan"))
    with pytest.warns(imp.ConvergenceWarning):
        (g,) = torch.autograd.grad(marked(x).sum(), x)
    assert bool(g.isnan().all())


def test_backsolve_differentiates_twice_and_under_transforms() -> None:
    layer = imp.compile("given x in R^n\nfind z(t) in R^n for t in [0, 2] such that dz/dt = z * z, z(0) = x\n"
                        "using dopri5(rtol=1e-11, atol=1e-13), backward backsolve\nreturn z(2)")  # fmt: skip
    x = torch.tensor([0.1, 0.2], dtype=D)
    assert torch.autograd.gradgradcheck(layer, (x.clone().requires_grad_(),), atol=1e-6)
    second = torch.func.hessian(lambda x: layer(x).sum())(x)
    assert torch.allclose(second, torch.diag(4 / (1 - 2 * x) ** 3), atol=1e-7)


PENDULUM = """
given q0 in R^n, p0 in R^n, k in R
find q(t) in R^n, p(t) in R^n for t in [0, 3] such that dq/dt = p, dp/dt = -k sin(q), q(0) = q0, p(0) = p0
using {}(steps=60), backward {}
return q(3), p(3), q(1.05)
"""


@pytest.mark.parametrize("method", ["leapfrog", "yoshida4", "trapezoid"])
def test_reversible_steps_have_the_same_gradient(method: str) -> None:
    q, p = points(4, 2).requires_grad_(), points(4, 2, seed=1).requires_grad_()
    k = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=D, requires_grad=True)
    found = []
    for backward in ("reversible", "checkpointed"):
        y = imp.compile(PENDULUM.format(method, backward))(q, p, k)
        total = torch.stack([(points(*v.shape, seed=2) * v).sum() for v in y]).sum()
        found.append((*y, *torch.autograd.grad(total, (q, p, k))))
    for mine, theirs in zip(*found, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-10, atol=1e-11)
    layer = imp.compile(PENDULUM.format(method, "reversible").replace("60", "6"))
    given = (q.detach()[:1].requires_grad_(), p.detach()[:1].requires_grad_(), k.detach()[:1].requires_grad_())
    assert torch.autograd.gradgradcheck(layer, given, fast_mode=True, atol=1e-5)


def test_steps_that_cannot_be_undone_are_warned_of() -> None:
    """The trapezoidal rule damps λ h = −1.9 by 39 a step: after 20 steps the distance from 3 is lost in rounding."""
    layer = imp.compile("given x in R^n\nfind z(t) in R^n for t in [0, 1] such that dz/dt = 38 (3 - z), z(0) = x\n"
                        "using trapezoid(steps=20), backward reversible")  # fmt: skip
    with pytest.warns(imp.ConvergenceWarning, match="undone backwards"):
        layer(torch.ones(1, 1, dtype=D, requires_grad=True)).sum().backward()


@pytest.mark.parametrize(
    "using,match",
    [
        ("dopri5, backward reversible", "leapfrog, yoshida4, trapezoid"),
        ("rodas5p, backward backsolve", "explicit methods"),
        ("backward reversible", "`backward reversible` of `dopri5`"),
    ],
    ids=["dopri5 reversible", "rodas5p backsolve", "default reversible"],
)
def test_what_does_not_fit_says_so(using: str, match: str) -> None:
    with pytest.raises(imp.SpecError, match=match):
        imp.compile(f"dz/dt = tanh(W z)\nusing {using}")


@pytest.mark.parametrize("method", ["dopri5", "dopri8", "rodas5p", "kvaerno5"])
def test_an_output_at_the_start_moves_with_its_time(method: str) -> None:
    """∂z(s)/∂s = f and ∂z(s)/∂t0 = −f at s = t0; the second derivative is that of the solution."""
    text = "find z(t) in R^n for t in [t0, 2] such that dz/dt = -z * z, z(t0) = x"
    layer = imp.compile(f"given x in R^n, s in R^k, t0 in R\n{text}\nusing {method}(steps=4)\nreturn z(s)")
    x = torch.tensor([[0.5, 1.5]], dtype=D)
    s, t0 = torch.tensor([0.0, 1.0], dtype=D, requires_grad=True), torch.zeros((), dtype=D, requires_grad=True)
    y = layer(x, s, t0)[0, 0]
    by_s, by_t0 = torch.autograd.grad(y[1], (s, t0), create_graph=True)
    assert float(by_s[0].detach()) == pytest.approx(-2.25)
    assert float(by_t0.detach()) == pytest.approx(2.25)
    (second,) = torch.autograd.grad(by_s[0], s)
    assert float(second[0]) == pytest.approx(2 * 1.5**3)
