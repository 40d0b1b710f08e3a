"""Differential equations against torchdiffeq, torchode and, where it is installed, diffrax: `python -m benchmarks.ode`.

Forward and backward of a weighted sum of the end states, with the gradient of all parameters, at equal tolerances; the
same numbers for everyone. Ours is `implicitdsl.compile`d, called eagerly and under `torch.compile(fullgraph=True)`; the
better counts. Errors are ‖found − exact‖ / ‖exact‖ of states and gradients against float64 references.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torchdiffeq
from torch import Tensor

import implicitdsl as imp

from .ode_peers import Answer, Contestant, Field, backward, of_diffrax, of_torchdiffeq, of_torchode
from .table import arguments, conditions, milliseconds, publish, table
from .timing import medians, threads

RTOL, ATOL = 1e-5, 1e-6


@dataclass
class Row:
    """`ours` by variant; `peers` by name with the ratio wanted at least and aimed at."""

    name: str
    exact: Answer
    ours: dict[str, Contestant]
    peers: dict[str, tuple[Contestant, float, float]] = field(default_factory=dict)
    rounds: int = 7


def ours(layer: Any, trained: Sequence[str], given: Sequence[Tensor], weights: Tensor, compiled: bool = True) -> Any:
    """The layer eagerly and compiled; its outputs are stacked along the last axis where there are several."""
    parameters = [layer.get_parameter(name) for name in trained]

    def run(call: Callable[..., Any]) -> Contestant:
        def once() -> Answer:
            y = call(*given)
            return backward(torch.stack(list(y), -1) if isinstance(y, tuple) else y, weights, parameters)

        return once

    variants = {"eager": run(layer)}
    if compiled:
        variants["compiled"] = run(torch.compile(layer, fullgraph=True, dynamic=False, options={"cpp_wrapper": True}))
    return variants


MLP = """
layer Mlp(n, h):
  given x in R^n
  param W in R^(h, n), b in R^h, V in R^(n, h), c in R^n
  find z(t) in R^n for t in [0, 5] such that dz/dt = V tanh(W z + b) + c, z(0) = x
  using dopri5(rtol=1e-5, atol=1e-6)
"""


def mlp_rate(y: Tensor, W: Tensor, b: Tensor, V: Tensor, c: Tensor) -> Tensor:
    return torch.addmm(c, torch.tanh(torch.addmm(b, y, W.T)), V.T)


def mlp_row(n: int, h: int, batch: int, floors: Sequence[float], aims: Sequence[float]) -> Row:
    """`floors` and `aims` against torchdiffeq direct and adjoint, torchode, diffrax."""
    torch.manual_seed(n)
    inner, outer = torch.nn.Linear(n, h), torch.nn.Linear(h, n)
    params = [p.detach() for p in (inner.weight, inner.bias, outer.weight, outer.bias)]
    x, weights = 0.5 * torch.randn(batch, n), torch.ones(batch, n)
    layer = fed(imp.compile(MLP, n=n, h=h), dict(zip("WbVc", params, strict=True)))
    high = Field(mlp_rate, *[p.double() for p in params])
    times = torch.tensor([0.0, 5.0], dtype=torch.float64)
    y = torchdiffeq.odeint(high, x.double(), times, rtol=1e-10, atol=1e-11, method="dopri8")[-1]
    exact = backward(y, weights, list(high.parameters()))
    given = Field(mlp_rate, *params)
    common = (x, 5.0, weights, RTOL, ATOL)
    contestants = {
        "torchdiffeq direct": lambda: of_torchdiffeq(given, *common, "direct"),
        "torchdiffeq adjoint": lambda: of_torchdiffeq(given, *common, "adjoint"),
        "torchode": of_torchode(given, *common),
        "diffrax": of_diffrax(params, *common),
    }
    peers = {k: (c, *f) for (k, c), f in zip(contestants.items(), zip(floors, aims, strict=True), strict=True) if c}
    return Row(f"MLP {n}-{h}, batch {batch}", exact, ours(layer, ("W", "b", "V", "c"), (x,), weights), peers)


def fed(layer: Any, values: dict[str, Tensor]) -> Any:
    with torch.no_grad():
        for name, value in values.items():
            layer.get_parameter(name).copy_(value)
    return layer


OSCILLATORS = """
layer Oscillators():
  given mu in R
  find x(t) in R, v(t) in R for t in [0, 5] such that dx/dt = v, dv/dt = mu (1 - x^2) v - x, x(0) = 2, v(0) = 0
  using dopri5(rtol=1e-5, atol=1e-6)
"""


def oscillators_row() -> Row:
    from scipy.integrate import solve_ivp

    mu = torch.logspace(-1, 2, 64)
    y0 = torch.tensor([[2.0, 0.0]]).repeat(64, 1)

    def rate(y: Tensor, mu: Tensor) -> Tensor:
        x, v = y.unbind(1)
        return torch.stack([v, mu * (1 - x * x) * v - x], 1)

    def reference(m: float) -> tuple[list[float], float]:
        def f(t: float, y: Any) -> list[float]:  # with the sensitivities of both by μ
            x, v, p, q = y
            return [v, m * (1 - x * x) * v - x, q, (1 - x * x) * v - (2 * m * x * v + 1) * p + m * (1 - x * x) * q]

        end = solve_ivp(f, (0, 5), [2.0, 0.0, 0.0, 0.0], method="LSODA", rtol=1e-10, atol=1e-12).y[:, -1]
        return list(end[:2]), float(end[2] + end[3])

    found = [reference(float(m)) for m in mu]
    exact = torch.tensor([f[0] for f in found], dtype=torch.float64).flatten(), torch.tensor([f[1] for f in found])
    weights = torch.ones(64, 2)
    trained = mu.clone().requires_grad_()
    layer: Any = imp.compile(OSCILLATORS)

    def run(call: Callable[..., Any]) -> Contestant:
        return lambda: backward(torch.stack(list(call(trained)), -1), weights, [trained])

    given = Field(rate, mu)
    variants = {
        "eager": run(layer),
        "compiled": run(torch.compile(layer, fullgraph=True, dynamic=False, options={"cpp_wrapper": True})),
    }
    peers = {"torchode": (of_torchode(given, y0, 5.0, weights, RTOL, ATOL), 2.5, 46.0)}
    return Row("64 Van der Pol oscillators, μ 0.1 … 100", (exact[0], exact[1].double()), variants, peers, rounds=3)


LINEAR = """
layer Linear(n):
  given x in R^n
  param A in R^(n, n)
  find z(t) in R^n for t in [0, 8] such that dz/dt = A z, z(0) = x
"""


def linear_row() -> Row:
    torch.manual_seed(0)
    A, x = 0.3 * torch.randn(10, 10) - 0.5 * torch.eye(10), torch.randn(64, 10)
    weights = torch.ones(64, 10)
    high = A.double().requires_grad_()
    exact = backward(x.double() @ torch.matrix_exp(8 * high).T, weights, [high])
    given = Field(lambda y, A: y @ A.T, A)
    common = (given, x, 8.0, weights, RTOL, ATOL)
    peers = {k: (lambda k=k: of_torchdiffeq(*common, k.split()[1]), 30.0, 60.0)
             for k in ("torchdiffeq direct", "torchdiffeq adjoint")}  # fmt: skip
    layer = fed(imp.compile(LINEAR, n=10), {"A": A})
    return Row("linear, 10-d, t to 8", exact, ours(layer, ("A",), (x,), weights), peers)


HEAT = """
layer Heat(n):
  given u0 in R^n
  param k in R = ones
  const L in R^(n, n) = zeros
  find u(t) in R^n for t in [0, 0.01] such that du/dt = k (L u), u(0) = u0
"""


def heat_row() -> Row:
    N, end = 300, 0.01
    L = (torch.diag(torch.full((N,), -2.0)) + torch.ones(N - 1).diag(1) + torch.ones(N - 1).diag(-1)) * (N + 1) ** 2
    places = torch.linspace(0, 1, N + 2)[1:-1]
    torch.manual_seed(0)
    u0 = torch.stack([torch.randn(16, 1) * torch.sin((k + 1) * torch.pi * places) for k in range(6)]).sum(0)
    weights = torch.linspace(0, 1, N).expand(16, N)
    k = torch.ones((), dtype=torch.float64, requires_grad=True)
    values, vectors = torch.linalg.eigh(L.double())
    exact = backward(((u0.double() @ vectors) * torch.exp(k * values * end)) @ vectors.T, weights, [k])
    given = Field(lambda y, k: k * (y @ L), torch.ones(()))
    peers = {"torchdiffeq direct": (lambda: of_torchdiffeq(given, u0, end, weights, RTOL, ATOL, "direct"), 200.0, 1e4)}
    layer: Any = imp.compile(HEAT, n=N)
    layer.L = L
    return Row(f"heat equation, N = {N}, T = {end}", exact, ours(layer, ("k",), (u0,), weights, False), peers, rounds=3)


FLOW = """
layer Flow(n, h):
  given x in R^n
  param W in R^(h, n), b in R^h, U in R^(h, h), c in R^h, V in R^(n, h)
  where f(z) = V tanh(U tanh(W z + b) + c)
  find z(t) in R^n, l(t) in R for t in [0, 1] such that dz/dt = f(z), dl/dt = -div(f(z), z), z(0) = x, l(0) = 0
  using dopri5(rtol=1e-5, atol=1e-6)
  return y = concat(z(1), [l(1)])
"""


def flow_row(n: int = 43, h: int = 860, batch: int = 64) -> Row:
    """Log-density with gradient against FFJORD's two traces, both by torchdiffeq's adjoint as in FFJORD."""
    torch.manual_seed(0)
    layers = [torch.nn.Linear(n, h), torch.nn.Linear(h, h), torch.nn.Linear(h, n, bias=False)]
    params = [p.detach() for m in layers for p in m.parameters()]
    x, noise = torch.randn(batch, n), torch.randn(batch, n)

    def rate(z: Tensor, W: Tensor, b: Tensor, U: Tensor, c: Tensor, V: Tensor) -> Tensor:
        return torch.tanh(torch.tanh(z @ W.T + b) @ U.T + c) @ V.T

    def brute(y: Tensor, *p: Tensor) -> Tensor:
        with torch.enable_grad():
            z = y[:, :n].requires_grad_() if y.is_leaf else y[:, :n]
            dz = rate(z, *p)
            rows = [torch.autograd.grad(dz[:, i].sum(), z, create_graph=True)[0][:, i] for i in range(n)]
            return torch.cat([dz, -torch.stack(rows).sum(0).unsqueeze(1)], 1)

    def hutchinson(y: Tensor, *p: Tensor) -> Tensor:
        with torch.enable_grad():
            z = y[:, :n].requires_grad_() if y.is_leaf else y[:, :n]
            dz = rate(z, *p)
            pulled = torch.autograd.grad(dz, z, noise, create_graph=True)[0]
            return torch.cat([dz, -(pulled * noise).sum(1, keepdim=True)], 1)

    weights = torch.ones(batch, n + 1)
    y0 = torch.cat([x, torch.zeros(batch, 1)], 1)
    layer = fed(imp.compile(FLOW, n=n, h=h), dict(zip(("W", "b", "U", "c", "V"), params, strict=True)))
    high: Any = imp.compile(FLOW.replace("1e-5", "1e-10").replace("1e-6", "1e-11"), n=n, h=h).double()
    fed(high, {k: v.double() for k, v in zip(("W", "b", "U", "c", "V"), params, strict=True)})
    exact = ours(high, ("W", "b", "U", "c", "V"), (x.double(),), weights, False)["eager"]()
    peers = {
        "FFJORD brute force": (lambda: of_torchdiffeq(Field(brute, *params), y0, 1.0, weights, RTOL, ATOL, "adjoint"),
                               12.0, 21.0),
        "FFJORD Hutchinson": (
            lambda: of_torchdiffeq(Field(hutchinson, *params), y0, 1.0, weights, RTOL, ATOL, "adjoint"), 1.3, 1.6),
    }  # fmt: skip
    variants = ours(layer, ("W", "b", "U", "c", "V"), (x,), weights)
    return Row(f"flow {n}-d, 2 × {h} hidden, batch {batch}", exact, variants, peers, rounds=3)


ROWS: dict[str, Callable[[], Row]] = {
    "MLP 2-50": lambda: mlp_row(2, 50, 20, (4, 10, 5, 0.9), (12, 35, 18, 1.1)),
    "MLP 32-128": lambda: mlp_row(32, 128, 128, (2.5, 8, 3, 1.0), (3.7, 13, 4, 1.4)),
    "MLP 64-256": lambda: mlp_row(64, 256, 512, (1.6, 5.5, 1.6, 0.9), (2, 6.5, 1.9, 1.2)),
    "Van der Pol": oscillators_row,
    "linear": linear_row,
    "heat": heat_row,
    "flow": flow_row,
}
HEAD = ("workload", "ours", "states", "gradient", "peer", "states", "gradient", "ratio", "at least", "aim")


def off(found: Tensor, exact: Tensor) -> str:
    return f"{float((found.double() - exact.double()).norm() / exact.double().norm()):.1e}"


def measured(row: Row) -> list[list[str]]:
    """A line for each peer, against the better of ours."""
    errors = {name: run() for name, run in {**row.ours, **{k: p[0] for k, p in row.peers.items()}}.items()}
    runs: dict[str, Callable[[], Any]] = {**row.ours, **{k: p[0] for k, p in row.peers.items()}}
    seconds = medians(runs, rounds=row.rounds, warm=1, budget=15.0)
    for name, s in seconds.items():
        states, gradient = (off(x, y) for x, y in zip(errors[name], row.exact, strict=True))
        print(f"  {name:22s} {milliseconds(s):>10s}  states {states}, gradient {gradient}", flush=True)
    best = min(row.ours, key=seconds.__getitem__)
    mine = [off(x, y) for x, y in zip(errors[best], row.exact, strict=True)]
    lines: list[list[str]] = []
    for name, (_, floor, aim) in row.peers.items():
        theirs = [off(x, y) for x, y in zip(errors[name], row.exact, strict=True)]
        ratio = seconds[name] / seconds[best]
        shown = f"{ratio:.3g}×" + ("" if ratio >= floor else " ✗")
        ours_ = f"{milliseconds(seconds[best])} {best}"
        lines.append(
            [
                row.name,
                ours_,
                *mine,
                f"{milliseconds(seconds[name])} {name}",
                *theirs,
                shown,
                f"{floor:g}×",
                f"{aim:g}×",
            ]
        )
    return lines


STIFF = {
    "Van der Pol, μ = 1000, t to 2": (
        "find x(t) in R, v(t) in R for t in [0, 2] such that dx/dt = v, dv/dt = 1000 (1 - x^2) v - x, "
        "x(0) = 2, v(0) = 0",
        2.0, [2.0, 0.0], lambda t, y: [y[1], 1000 * (1 - y[0] ** 2) * y[1] - y[0]],
    ),
    "Robertson, t to 1e5": (
        "find a(t) in R, b(t) in R, c(t) in R for t in [0, 1e5] such that da/dt = -0.04 a + 1e4 b c, "
        "db/dt = 0.04 a - 1e4 b c - 3e7 b^2, dc/dt = 3e7 b^2, a(0) = 1, b(0) = 0, c(0) = 0",
        1e5, [1.0, 0.0, 0.0],
        lambda t, y: [-0.04 * y[0] + 1e4 * y[1] * y[2],
                      0.04 * y[0] - 1e4 * y[1] * y[2] - 3e7 * y[1] ** 2, 3e7 * y[1] ** 2],
    ),
}  # fmt: skip


def stiff() -> list[list[str]]:
    """With nothing said: the largest relative error against SciPy's Radau at tight tolerance."""
    from scipy.integrate import solve_ivp

    lines: list[list[str]] = []
    for name, (text, end, y0, f) in STIFF.items():
        layer: Any = imp.compile(f"given s in R\n{text}")
        one = torch.ones(1, dtype=torch.float64)
        exact = solve_ivp(f, (0, end), y0, method="Radau", rtol=1e-11, atol=1e-16).y[:, -1]
        solution = layer.solve(one)
        found = torch.stack(list(solution.value), 1)[0]
        error = float(((found - torch.from_numpy(exact)) / torch.from_numpy(exact)).abs().max())
        seconds = medians({"ours": lambda layer=layer, one=one: layer(one)}, rounds=3, warm=1)["ours"]
        steps = int(solution.report.iterations)
        lines.append([name, milliseconds(seconds), str(steps), f"{error:.1e}" + ("" if error < 1e-4 else " ✗"), "1e-4"])
    return lines


def main() -> None:
    given = arguments(__doc__ or "", [*ROWS, "stiff"])
    torch.set_num_threads(threads())
    warnings.simplefilter("ignore", FutureWarning)  # torch.compile's own
    lines: list[list[str]] = []
    for name, make in ROWS.items():
        if given.only not in name:
            continue
        begin = time.perf_counter()
        row = make()
        print(row.name, flush=True)
        lines += measured(row)
        print(f"  ({time.perf_counter() - begin:.0f} s)\n", flush=True)
    text = f"## Differential equations\n\n{conditions('torchdiffeq', 'torchode', 'diffrax', 'jax')}\n\n"
    text += table(HEAD, lines)
    if given.only in "stiff":
        head = ("nothing said", "ours", "steps", "relative error", "at most")
        text += "\n\n" + table(head, stiff())
    publish(text, given.save)


if __name__ == "__main__":
    main()
