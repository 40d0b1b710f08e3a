"""Differential equations from text: closed forms, every way of asking, gradients with respect to everything."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

import implicitdsl as imp
from implicitdsl.ground.outcomes import Outcome

D = torch.float64
TIGHT = "using dopri5(rtol=1e-11, atol=1e-13)"


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


class Field(nn.Module):
    def __init__(self, n: int = 3) -> None:
        super().__init__()
        self.linear = nn.Linear(n + 1, n, dtype=D)

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        assert t.shape == (z.shape[0],)
        return torch.tanh(self.linear(torch.cat([z, t.unsqueeze(1)], 1)))


def test_against_unrolled_steps() -> None:
    text = """
    given x in R^n
    param W in R^(n, n), b in R^n = normal(0, 1)
    find z(t) in R^n for t in [0, 1] such that dz/dt = tanh(W z + b), z(0) = x
    {}
    return z(1)
    """
    layer = imp.compile(text.format(""), n=3).double()
    other = imp.compile(text.format("using backward unrolled"), n=3).double()
    other.load_state_dict(layer.state_dict())
    x = numbers(2, 3).requires_grad_()
    found = [torch.autograd.grad(m(x).square().sum(), (x, *m.parameters())) for m in (layer, other)]
    for mine, theirs in zip(*found, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-12, atol=1e-13)
    assert torch.autograd.gradcheck(layer, (x,))
    assert torch.autograd.gradgradcheck(layer, (x,), atol=1e-6)


def test_bare_sentence_with_a_module() -> None:
    layer = imp.compile("dz/dt = f(z, t)", f=Field())
    x = numbers(4, 3).requires_grad_()
    assert torch.autograd.gradcheck(layer, (x,))
    layer(x).sum().backward()
    (weight,) = [p.grad for n, p in layer.named_parameters() if n.endswith("weight")]
    with torch.no_grad():
        field = layer.f.linear.weight
        field[0, 1] += 1e-6
        up = layer(x).sum()
        field[0, 1] -= 2e-6
        down = layer(x).sum()
    assert float(weight[0, 1]) == pytest.approx(float(up - down) / 2e-6, rel=1e-5)  # the steps follow the weight


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("method", ["dopri5", "tsit5", "bosh3", "dopri8"])
def test_times_are_inputs_with_gradients(method: str, backwards: bool) -> None:
    """Shared and per-sample times, ends that are inputs, t1 < t0; gradients in all of them against differences."""
    layer = imp.compile(
        f"""
    given ts in R^k, x in R^n, t0 in R, t1 in R
    fn f: (R^n, R) -> R^n
    find z(t) in R^n for t in [t0, t1] such that dz/dt = f(z, t), z(t0) = x
    using {method}(steps=20)
    return z(ts), z(t1), dz/dt(t1), z(t0)
    """,
        f=Field(),
    )
    sign = -1.0 if backwards else 1.0
    ts, x = sign * torch.tensor([0.9, 0.3, 1.2], dtype=D), numbers(4, 3).requires_grad_()
    t0, t1 = sign * torch.tensor([0.0, 0.1, 0.05, 0.2], dtype=D), torch.tensor(sign * 2.0, dtype=D)
    shared = layer(ts, x, t0, t1)
    own = layer(ts.expand(4, 3), x, t0, t1.expand(4))
    assert shared[0].shape == (4, 3, 3)
    for a, b in zip(shared, own, strict=True):
        assert torch.allclose(a, b)
    assert torch.allclose(shared[3], x)
    for k in range(3):
        alone = imp.compile("given x in R^n, a in R, b in R\nfn f: (R^n, R) -> R^n\nfind z(t) in R^n for t in [a, b] "
                            f"such that dz/dt = f(z, t), z(a) = x\n{TIGHT}\nreturn z(b)", f=layer.f)  # fmt: skip
        assert torch.allclose(alone(x, t0, ts[k]), shared[0][:, k], atol=1e-3 if method == "bosh3" else 1e-5)
    weights = numbers(4, 3, 3, seed=1)

    def total(ts: Tensor, x: Tensor, t0: Tensor, t1: Tensor) -> Tensor:
        states, end, rate, _ = layer(ts, x, t0, t1)
        return (states * weights).sum() + end.square().sum() + rate.sum()

    given = [v.clone().requires_grad_() for v in (ts, x.detach(), t0, t1)]
    assert torch.autograd.gradcheck(total, given)


def test_higher_order_and_its_derivative() -> None:
    """q'' = −k q − c q', whose solution is known."""
    layer = imp.compile(f"""
    given q0 in R, v0 in R
    const k in R = 4.0, c in R = 0.4
    find q(t) in R for t in [0, 3] such that d²q/dt² + c dq/dt = -k q, q(0) = q0, dq/dt(0) = v0
    {TIGHT}
    return q(3), dq/dt(3), q(1.5)
    """)
    q0, v0 = torch.tensor([1.0, 2.0], dtype=D), torch.tensor([0.5, -1.0], dtype=D)
    w = (4 - 0.04) ** 0.5

    def exact(t: float) -> tuple[Tensor, Tensor]:
        s, c, e = torch.sin(torch.tensor(w * t)), torch.cos(torch.tensor(w * t)), torch.exp(torch.tensor(-0.2 * t))
        B = (v0 + 0.2 * q0) / w
        return e * (q0 * c + B * s), e * (-0.2 * (q0 * c + B * s) + w * (B * c - q0 * s))

    found = layer(q0, v0)
    assert torch.allclose(found[0], exact(3.0)[0].double(), atol=1e-6)
    assert torch.allclose(found[1], exact(3.0)[1].double(), atol=1e-6)
    assert torch.allclose(found[2], exact(1.5)[0].double(), atol=1e-6)


def test_mass_matrix_is_solved_for() -> None:
    layer = imp.compile(f"""
    given z0 in R^n
    param M in PD(n), K in R^(n, n)
    find z(t) in R^n for t in [0, 1] such that M dz/dt + K tanh(z) = 0, z(0) = z0
    {TIGHT}
    return z(1), dz/dt(0)
    """, n=3).double()  # fmt: skip
    x = numbers(2, 3)
    right = torch.linalg.solve(layer.M, -(torch.tanh(x) @ layer.K.T).T).T
    assert torch.allclose(layer(x)[1], right)


def test_matrix_state() -> None:
    """Riccati: X' = A X + X Aᵀ − X X with a matrix state, against its linear form."""
    layer = imp.compile(f"""
    given X0 in R^(n, n)
    param A in R^(n, n)
    find X(t) in R^(n, n) for t in [0, 1] such that dX/dt = A X + X A^T - X X, X(0) = X0
    {TIGHT}
    return X(1)
    """, n=3).double()  # fmt: skip
    A, X0 = layer.A.detach(), torch.eye(3, dtype=D) * torch.linspace(0.5, 2, 4, dtype=D).view(4, 1, 1)
    top = torch.cat([A.T.neg(), torch.eye(3, dtype=D)], 1)
    flow = torch.linalg.matrix_exp(torch.cat([top, torch.cat([torch.zeros(3, 3, dtype=D), A], 1)]))
    U = flow[:3, :3] @ torch.eye(3, dtype=D) + flow[:3, 3:] @ X0
    V = flow[3:, 3:] @ X0
    assert torch.allclose(layer(X0), V @ torch.linalg.inv(U), atol=1e-9)
    assert torch.autograd.gradcheck(layer, (X0[:1].clone().requires_grad_(),), atol=1e-6)


def test_hamiltonian_conserves_energy() -> None:
    layer = imp.compile(f"""
    given q0 in R^n, p0 in R^n
    where H(q, p) = 1/2 p^T p + sum(1 - cos(q))
    find q(t) in R^n, p(t) in R^n for t in [0, 2] such that
      dq/dt = grad(H(q, p), p), dp/dt = -grad(H(q, p), q), q(0) = q0, p(0) = p0
    {TIGHT}
    return H(q(2), p(2)), H(q(0), p(0))
    """)
    end, start = layer(numbers(4, 2), numbers(4, 2, seed=1))
    assert torch.allclose(end, start, rtol=1e-10)


def test_flow_has_the_log_determinant_of_its_map() -> None:
    layer = imp.compile(f"""
    given x in R^n
    param W in R^(n, n)
    find z(t) in R^n, l(t) in R for t in [0, 1] such that
      dz/dt = tanh(W z), dl/dt = -div(tanh(W z), z), z(0) = x, l(0) = 0
    {TIGHT}
    """, n=3).double()  # fmt: skip
    x = numbers(2, 3)
    found = layer(x)
    assert found.l.shape == (2,)
    for k in range(2):
        J = torch.autograd.functional.jacobian(lambda x: layer(x).z, x[k])
        assert torch.allclose(torch.logdet(J), -found.l[k], atol=1e-9)


def test_integrals_stay_out_of_the_error_norm() -> None:
    """A rough integral beside a smooth state: no more steps than without."""
    rates = {"": "", ", e(t) in R": ", de/dt = 1e4 sin(40 z[0])", ", e(t) in R ": ", de/dt = 1e4 sin(40 z[0]) - e"}
    steps = []
    for unknown, rate in rates.items():
        start = ", e(0) = 0" if unknown else ""
        layer = imp.compile(f"given x in R^2\nfind z(t) in R^2{unknown} for t in [0, 3] such that "
                            f"dz/dt = -z + sin(t){rate}, z(0) = x{start}\nreturn z(3)")  # fmt: skip
        steps.append(int(layer.solve(numbers(1, 2)).report.iterations))
    assert steps[0] == steps[1] < steps[2]


def test_blocks_are_chained() -> None:
    layer = imp.compile("""
    given x in R^n
    param W in R^(n, n), V in R^(n, n)
    find z(t) in R^n for t in [0, 1] such that dz/dt = tanh(W z), z(0) = x
    find y(s) in R^n for s in [0, 2] such that dy/ds = tanh(V y) + z(1), y(0) = z(0.5)
    find u in R^n such that u = 0.5 tanh(u) + y(2)
    return y(2), u
    """, n=3).double()  # fmt: skip
    x = numbers(2, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: layer(x).u, (x,), atol=1e-6)
    found = layer(x)
    assert torch.allclose(found.u, 0.5 * torch.tanh(found.u) + found.y)


def test_layer_is_a_module() -> None:
    layer = imp.compile("dz/dt = tanh(W z)", n=3).double()
    x = numbers(2, 2, 3)
    y = layer(x)
    assert y.shape == (2, 2, 3)
    assert torch.equal(copy.deepcopy(layer)(x), y)
    assert torch.equal(pickle.loads(pickle.dumps(layer))(x), y)
    report = layer.solve(x).report
    assert report.converged.shape == (2, 2)
    assert bool(report.converged.all())
    assert int(report.nfe.min()) > 0
    single = layer(x[0, 0])
    assert torch.allclose(single, y[0, 0])
    half = imp.compile("dz/dt = tanh(W z)", n=3)
    with torch.no_grad():
        half.W.copy_(layer.W.float())
    assert half.to(torch.bfloat16)(x.bfloat16()).dtype is torch.bfloat16
    assert torch.allclose(half.float()(x.float()), y.float(), atol=2e-2)


def test_transforms() -> None:
    layer = imp.compile("given x in R^n\nfind z(t) in R^n for t in [0, 2] such that dz/dt = z * z, z(0) = x\n"
                        f"{TIGHT}\nreturn z(2), z(1.3)")  # fmt: skip
    x = torch.tensor([0.1, 0.2], dtype=D)

    def exact(x: Tensor, t: float) -> Tensor:
        return x / (1 - t * x)

    def at(k: int):
        return lambda x: layer(x)[k]

    for k, t in enumerate((2.0, 1.3)):
        y = exact(x, t)
        assert torch.allclose(at(k)(x), y, atol=1e-9)
        slope = torch.diag(1 / (1 - t * x) ** 2)
        assert torch.allclose(torch.func.jacrev(at(k))(x), slope, atol=1e-8)
        assert torch.allclose(torch.func.jacfwd(at(k))(x), slope, atol=1e-8)
        xs = torch.stack([x, 0.5 * x, -x])
        assert torch.allclose(torch.func.vmap(at(k))(xs), exact(xs, t), atol=1e-9)
        slopes = torch.func.vmap(torch.func.jacrev(at(k)))(xs)
        assert torch.allclose(slopes.diagonal(dim1=1, dim2=2), 1 / (1 - t * xs) ** 2, atol=1e-8)
        second = torch.func.hessian(lambda x, k=k: at(k)(x).sum())(x)
        assert torch.allclose(second, torch.diag(2 * t / (1 - t * x) ** 3), atol=1e-7)


def test_vmap_over_parameters() -> None:
    layer = imp.compile("dz/dt = tanh(W z)", n=3).double()
    x = numbers(4, 3)
    layer(x)
    Ws = numbers(5, 3, 3, seed=2)

    def run(W: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"W": W}, (x,))

    assert torch.allclose(torch.func.vmap(run)(Ws), torch.stack([run(W) for W in Ws]), atol=1e-10)


def test_method_options_are_obeyed() -> None:
    x = numbers(2, 3)
    counts = {}
    for using in ("rk4(steps=7)", "rk4(dt=0.1)", "dopri5(steps=5)", "euler", "dopri5(dt0=1e-6)", "dopri5"):
        layer = imp.compile(f"given x in R^n\nfind z(t) in R^n for t in [0, 1] such that dz/dt = -z, z(0) = x\n"
                            f"using {using}")  # fmt: skip
        counts[using] = int(layer.solve(x).report.iterations[0])
    assert counts["rk4(steps=7)"] == 7
    assert counts["rk4(dt=0.1)"] == 10
    assert counts["dopri5(steps=5)"] == 5
    assert counts["euler"] == 100
    assert counts["dopri5(dt0=1e-6)"] > counts["dopri5"]


def test_terminal_conditions_run_backwards() -> None:
    layer = imp.compile(f"given x in R^n\nfind z(t) in R^n for t in [0, 1] such that dz/dt = -z, z(1) = x\n{TIGHT}\n"
                        "return z(0)")  # fmt: skip
    x = numbers(2, 3)
    assert torch.allclose(layer(x), x * torch.exp(torch.ones((), dtype=D)), rtol=1e-9)


@pytest.mark.parametrize("using", ["", "using tsit5", "using rodas5p", "using rk4(steps=5)"])
def test_rates_that_are_not_finite_at_the_beginning(using: str) -> None:
    """The row ends with a verdict and advice for differential equations; the other is as if alone."""
    layer = imp.compile(
        "given x in R\nfind z(t) in R for t in [0, 1] such that dz/dt = sqrt(z - 1), z(0) = x\n" + using
    )
    x = torch.tensor([0.5, 2.0], dtype=torch.float64)
    with pytest.warns(imp.ConvergenceWarning, match=r"sample 0 stopped at t = 0: .*not finite"):
        solution = layer.solve(x)
    adapts = not using.startswith("using rk4")
    assert solution.report.status.tolist() == [Outcome.STEP_UNDERFLOW if adapts else Outcome.DIVERGED, 0]
    assert abs(float(solution.value[1]) - 3.25) < 1e-5
