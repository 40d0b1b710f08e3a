"""Limits of steps, and known kinks: steps end at them, accuracy and order are those of a smooth equation."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import Tensor, nn

import implicitdsl as imp
from implicitdsl.ground.outcomes import Outcome
from implicitdsl.solvers.ode.adaptive import integrate
from implicitdsl.solvers.ode.control import Control
from implicitdsl.solvers.ode.explicit import Explicit
from implicitdsl.solvers.ode.problem import OdeProblem
from implicitdsl.solvers.ode.tableaux import TABLEAUX
from implicitdsl.solvers.ode.trajectory import Places, Tape

pytestmark = pytest.mark.filterwarnings("ignore::implicitdsl.SpecWarning")  # IMP503 says that there are kinks
D = torch.float64
JUMPS = """
given x in R, s in R^k, ts in R^m, t1 in R
find z(t) in R for t in [0, t1] such that dz/dt = -z + sign(t - s[0]) + 3 sign(t - s[1]), z(0) = x
using {}
return z(t1), z(ts)
"""
ADAPTIVE = ["bosh3", "dopri5", "tsit5", "dopri8", "kvaerno5", "rodas5p"]
ORDERS = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4, "bosh3": 3, "dopri5": 5, "tsit5": 5, "implicit_euler": 1,
          "trapezoid": 2, "kvaerno5": 5, "rodas5p": 5}  # fmt: skip


def exact(x: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """z(t) piece by piece: z' = c − z with c = −4, −2, 4 for 0 < s₀ < s₁; differentiable."""
    z, begin = x, torch.zeros_like(t)
    for c, end in ((-4.0, s[..., 0]), (-2.0, s[..., 1]), (4.0, t)):
        end = torch.minimum(torch.maximum(end, begin), t)
        z, begin = c + (z - c) * torch.exp(begin - end), end
    return z


def values(layer: nn.Module, *given: Tensor) -> Tensor:
    end, inner = layer(*given)
    return torch.cat([end.unsqueeze(-1), inner], -1)


def expected(x: Tensor, s: Tensor, ts: Tensor, t1: Tensor) -> Tensor:
    times = torch.cat([t1.unsqueeze(-1), ts], -1)
    return exact(x.unsqueeze(-1).expand_as(times), s.unsqueeze(-2), times)


GIVEN = (  # each sample with jumps of its own
    torch.tensor([0.5, 1.0], dtype=D),
    torch.tensor([[0.3, 0.7], [0.21, 0.64]], dtype=D),
    torch.tensor([[0.2, 0.9, 0.55], [0.4, 0.1, 0.7]], dtype=D),
    torch.tensor([1.0, 1.1], dtype=D),
)


@pytest.mark.parametrize("method", ADAPTIVE)
def test_kinks_cost_no_steps_and_no_accuracy(method: str) -> None:
    """Against the closed form; with the same options but no kinks named, there are many more evaluations."""
    limits = "rtol=1e-5, atol=1e-7" if method == "bosh3" else "rtol=1e-8, atol=1e-10"
    known, unknown = (imp.compile(JUMPS.format(f"{method}({limits}{more})"), m=3, k=2) for more in (", jump_t=s", ""))
    assert torch.allclose(values(known, *GIVEN), expected(*GIVEN), rtol=0, atol=1e-4 if method == "bosh3" else 1e-7)
    work = [int(layer.solve(*GIVEN).report.nfe.sum()) for layer in (known, unknown)]
    assert work[0] < 0.6 * work[1]


@pytest.mark.parametrize("method", list(ORDERS))
def test_order_is_kept_across_jumps(method: str) -> None:
    """Equal steps that do not meet the jumps, but for the ones that end there."""
    errors = []
    for steps in (6, 24):
        layer = imp.compile(JUMPS.format(f"{method}(steps={steps}, jump_t=s)"), m=3, k=2)
        errors.append(float((values(layer, *GIVEN) - expected(*GIVEN))[:, 0].abs().max()))
    assert math.log2(errors[0] / errors[1]) / 2 > ORDERS[method] - 0.4, errors


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("method", ADAPTIVE)
def test_gradients_by_everything(method: str, backwards: bool) -> None:
    """By state, output times, the end, and by the times of the jumps: those of the closed form."""
    tol = 1e-6 if method == "bosh3" else 1e-9
    text = JUMPS.format(f"{method}(rtol={tol}, atol={0.01 * tol}, jump_t=s)")
    if backwards:  # the same seen in a mirror
        text = text.replace("-z + sign(t - s[0]) + 3 sign(t - s[1])", "z + sign(t - s[0]) + 3 sign(t - s[1])")
    layer = imp.compile(text, m=3, k=2)
    sign = -1.0 if backwards else 1.0
    given = [v.clone().requires_grad_() for v in GIVEN]
    mine = values(layer, given[0], *(sign * v for v in given[1:]))
    theirs = expected(*given)
    assert torch.allclose(mine, theirs, rtol=0, atol=100 * tol)
    weights = torch.linspace(1, 2, mine.numel(), dtype=D).view_as(mine)
    found = [torch.autograd.grad((weights * y).sum(), given) for y in (mine, theirs)]
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1000 * tol)


FORCED = """
given x in R^n, s in R^k, ts in R^m
param W in R^(n, n)
find z(t) in R^n, e(t) in R for t in [0, 2] such that
  dz/dt = tanh(W z) + sin(3 t) * sign(t - s[0]) * x + relu(t - s[1]), de/dt = z^T z * sign(t - s[0]), z(0) = x, e(0) = 0
using {}
return z(ts), z(2), e(2)
"""


@pytest.mark.parametrize("method", ["dopri5", "dopri8", "rodas5p", "rk4(steps=20)"])
@pytest.mark.parametrize("asked", ["z(s)", "z(s) + 0 z(1)"])
def test_a_kink_at_an_end_or_an_output(method: str, asked: str) -> None:
    """By the time of an output at a kink, the derivative is that of the side before; by a beginning, of that after."""
    using = method[:-1] + ", jump_t=[0.5])" if method.endswith(")") else f"{method}(jump_t=[0.5])"
    layer = imp.compile(f"""
given x in R, c in R, s in R
find z(t) in R for t in [c, 1] such that dz/dt = 2 + sign(t - 0.5), z(c) = x
using {using}
return {asked}
""")
    x = torch.ones(2, dtype=D)
    c = torch.tensor([0.0, 0.5], dtype=D, requires_grad=True)
    s = torch.tensor([0.5, 0.7], dtype=D, requires_grad=True)
    z = layer(x, c, s)
    assert torch.allclose(z, torch.tensor([1.5, 1.6], dtype=D))
    by_begin, by_output = torch.autograd.grad(z.sum(), (c, s))
    assert torch.allclose(by_begin, torch.tensor([-1.0, -3.0], dtype=D))
    assert torch.allclose(by_output, torch.tensor([1.0, 3.0], dtype=D))


def test_backward_rules_agree() -> None:
    """On a nonlinear system with an integral, shared jumps and others at infinity, which count as none."""
    x = torch.randn(3, 2, dtype=D, generator=torch.Generator().manual_seed(0)).requires_grad_()
    s = torch.tensor([0.6, 1.3, math.inf], dtype=D, requires_grad=True)
    ts = torch.tensor([0.4, 1.3, 1.7], dtype=D)
    found = []
    rules = ("checkpointed", "checkpointed(budget=2)", "unrolled", "backsolve")
    for rule in rules:
        using = f"dopri5(rtol=1e-9, atol=1e-11, jump_t=s), backward {rule}"
        layer = imp.compile(FORCED.format(using), n=2, m=3, k=3).double()
        with torch.no_grad():
            layer.W.copy_(torch.tensor([[0.5, -1.0], [1.5, 0.2]]))
        y = torch.cat([v.flatten() for v in layer(x, s, ts)])
        weights = torch.linspace(1, 2, len(y), dtype=D)
        wanted = (x, layer.W) if rule == "backsolve" else (x, layer.W, s)
        found.append((y, *torch.autograd.grad((weights * y).sum(), wanted)))
    for other, rule in zip(found[1:], rules[1:], strict=True):
        tight = 1e-6 if rule == "backsolve" else 1e-11
        for a, b in zip(found[0], other, strict=False):
            assert torch.allclose(a, b, rtol=tight, atol=tight)
    assert found[0][3][2] == 0
    layer = imp.compile(FORCED.format("dopri5(steps=9, jump_t=s)"), n=2, m=3, k=3).double()
    given = (x.detach()[:1].requires_grad_(), s.detach()[:2].requires_grad_())
    times = ts[[0, 2, 0]]  # at a kink itself there are derivatives on either side
    assert torch.autograd.gradcheck(lambda x, s: layer(x, torch.cat([s, s.new_full((1,), 9.0)]), times), given)


def test_transforms_and_second_derivatives() -> None:
    layer = imp.compile(JUMPS.format("tsit5(rtol=1e-9, atol=1e-11, jump_t=s)"), m=3, k=2)
    s = GIVEN[1]

    def run(s: Tensor) -> Tensor:
        return values(layer, GIVEN[0][0], s, GIVEN[2][0], GIVEN[3][0])

    def true(s: Tensor) -> Tensor:
        return expected(GIVEN[0][0], s, GIVEN[2][0], GIVEN[3][0])

    assert torch.allclose(torch.func.vmap(run)(s), torch.stack([true(v) for v in s]), atol=1e-8)
    slope = torch.autograd.functional.jacobian(true, s[0])
    assert torch.allclose(torch.func.jacrev(run)(s[0]), slope, atol=1e-7)
    assert torch.allclose(torch.func.jacfwd(run)(s[0]), slope, atol=1e-7)
    second = torch.func.hessian(lambda v: true(v).sum())(s[0])
    assert torch.allclose(torch.func.hessian(lambda v: run(v).sum())(s[0]), second, atol=1e-6)


def test_a_module_meets_each_side_of_a_kink() -> None:
    """Right-hand sides are never asked at the kink itself, and in a step never on both sides of it."""
    seen: list[Tensor] = []

    class Step(nn.Module):
        def forward(self, z: Tensor, t: Tensor) -> Tensor:
            seen.append(t.detach())
            return torch.where(t < 0.5, 1.0, -2.0).unsqueeze(1).expand_as(z)

    layer = imp.compile("given x in R^2\nfn f: (R^2, R) -> R^2\nfind z(t) in R^2 for t in [0, 1] such that "
                        "dz/dt = f(z, t), z(0) = x\nusing dopri5(rtol=1e-12, jump_t=0.5)", f=Step())  # fmt: skip
    solution = layer.solve(torch.zeros(3, 2, dtype=D))
    assert torch.allclose(solution.value, torch.full((3, 2), -0.5, dtype=D), atol=1e-14)
    assert int(solution.report.iterations.max()) <= 10
    assert not any(bool((t == 0.5).any()) for t in seen)


def test_events_between_kinks() -> None:
    """A ball whose gravity is switched off at t = 0.5 and on again at 1."""
    layer = imp.compile("""
    given h in R, off in R
    find q(t) in R for t in [0, 9] until q <= 0 such that
      d²q/dt² = -5 (1 - sign(t - off)) - 5 (1 + sign(t - 1)), q(0) = h, dq/dt(0) = 0
    using dopri5(jump_t=[off, 1])
    return t
    """)
    h, off = torch.tensor([4.0, 9.0], dtype=D, requires_grad=True), torch.tensor(0.5, dtype=D, requires_grad=True)
    t = layer(h, off)
    # until 0.5: 1.25 m at 5 m/s; until 1: 2.5 m more; then 5 d + 5 d² = h − 3.75
    speed, left = 10 * off, h - 5 * off**2 - 10 * off * (1 - off)
    want = 1 + (-speed + (speed**2 + 20 * left).sqrt()) / 10
    assert torch.allclose(t, want, atol=1e-9)
    for a, b in zip(*(torch.autograd.grad(v.sum(), (h, off)) for v in (t, want)), strict=True):
        assert torch.allclose(a, b, atol=1e-7)


def test_jumps_by_time_are_named_unless_they_are_known() -> None:
    text = "given x in R\nfind z(t) in R for t in [0, 1] such that dz/dt = -z * z + sign(t - 0.3), z(0) = x\n"
    (found,) = imp.check(text)
    assert found.code == "IMP503"
    assert found.help is not None
    assert "jump_t" in found.help
    assert imp.check(text + "using dopri5(jump_t=0.3)") == []
    assert "dopri5(jump_t=[0.3, 0.7])" in imp.explain(text + "using dopri5(jump_t=[0.3, 0.7])")


@pytest.mark.parametrize("value,message", [("[[0, 1], [1, 2]]", "a list of numbers"), ("z(1)", "cannot use `z`")])
def test_what_cannot_be_a_kink_says_so(value: str, message: str) -> None:
    text = "given x in R\nfind z(t) in R for t in [0, 1] such that dz/dt = -z * z, z(0) = x\nusing dopri5(jump_t={})"
    with pytest.raises(imp.SpecError, match=message):
        imp.compile(text.format(value))


BUMP = "given x in R\nfind z(t) in R for t in [0, 10] such that dz/dt = exp(-(20 (t - 5.003))^2), z(0) = x\nusing {}"


@pytest.mark.parametrize("method", ADAPTIVE)
def test_max_step_does_not_pass_over_a_bump(method: str) -> None:
    x = torch.zeros(1, dtype=D)
    area = math.sqrt(math.pi) / 20
    assert float(imp.compile(BUMP.format(method))(x)) < 1e-9  # ten units of zero hide a tenth of one
    bounded = imp.compile(BUMP.format(f"{method}(max_step=0.1)"))
    solution = bounded.solve(x)
    assert float(solution.value) == pytest.approx(area, rel=1e-5)
    assert int(solution.report.iterations) >= 100


def tape_of(control: Control, rate: float = 1.0, end: float = 3.0) -> tuple[list[float], int]:
    """The lengths of the steps of y' = −rate y, and how it ended."""
    tape = Tape()
    zero, at = torch.zeros(1, dtype=D), torch.ones(1, 1, dtype=D)
    problem = OdeProblem(lambda t, y: -rate * y, autonomous=True)
    y0 = torch.ones(1, 1, dtype=D)
    ended = integrate(problem, (Explicit(TABLEAUX["dopri5"]),), (), y0, Places(zero, zero + end, at), control, tape)
    return [float(e.H.abs()) for e in tape.entries], int(ended.status)


@pytest.mark.parametrize("end", [3.0, -3.0])
def test_steps_lie_between_their_limits(end: float) -> None:
    sizes, status = tape_of(Control(max_step=0.05), end=end)
    assert status == Outcome.CONVERGED
    assert max(sizes) <= 0.05 * (1 + 1e-12)
    free, _ = tape_of(Control(rtol=1e-3), end=end)
    sizes, status = tape_of(Control(rtol=1e-3, min_step=0.1, dt0=1e-6), end=end)
    assert status == Outcome.CONVERGED
    assert min(sizes[:-1]) >= 0.1 * (1 - 1e-9)  # the last one ends at the end
    assert len(sizes) <= len(free)


def test_a_step_below_min_step_fails_with_time_and_cause() -> None:
    text = ("given x in R, k in R\nfind z(t) in R for t in [0, 2] such that dz/dt = -z + tanh(k (t - 1)), z(0) = x\n"
            "using dopri5(min_step={}, rtol=1e-8, atol=1e-10), on_failure={}")  # fmt: skip
    x, k = torch.zeros(2, dtype=D), torch.tensor([1.0, 2000.0], dtype=D)
    with pytest.warns(imp.ConvergenceWarning, match=r"1 of 2 samples .* sample 1 stopped at t = 0\.9.*too small"):
        solution = imp.compile(text.format(0.01, "nan")).solve(x, k)
    assert solution.report.status.tolist() == [0, Outcome.STEP_UNDERFLOW]
    assert solution.value.isnan().tolist() == [False, True]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fine = imp.compile(text.format(1e-6, "warn")).solve(x, k)
    assert bool(fine.report.converged.all())
