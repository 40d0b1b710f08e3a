"""Equilibria against torchdeq (exact implicit gradients), forward and backward, on the same work in one process.

    make bench                                         # all rows, eager and compiled
    python -m benchmarks.equilibrium --only tanh       # some rows

Each of torchdeq's solvers is run at the tolerance where its gradient comes nearest to ours without being better; the
best counts. Errors are ‖g - g*‖ / ‖g*‖ against a float64 gradient by dense linear algebra (cells: by
unrolling to convergence).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import implicitdsl as imp

from .contest import HEAD, Workload, contest, details, summary
from .table import arguments, conditions, publish, table
from .timing import threads
from .torchdeq_peer import backward_peers, peers

TANH = "given W in SpectralBall(n, {rate}), x in R^n\nfind z in R^n such that z = tanh(W z + x)"
AFFINE = "given W in R^(n, n), x in R^n\nfind z in R^n such that z = W z + x"
MIXED = "given W in SpectralBall(n, 1), s in R, x in R^n\nfind z in R^n such that z = tanh(s W z + x)"
CELL = "fn f: ({shape}, {shape}) -> {shape}\ngiven x in {shape}\nfind z in {shape} such that z = f(z, x)"


def gradient(call: Callable[[], Tensor], trained: Tensor) -> Callable[[], Tensor]:
    """Forward, backward of the sum, and the gradient of one tensor."""

    def run() -> Tensor:
        trained.grad = None
        call().sum().backward()
        assert trained.grad is not None
        return trained.grad

    return run


def compiled(layer: nn.Module) -> Any:
    return torch.compile(layer, fullgraph=True, dynamic=False, options={"cpp_wrapper": True})


def matrix(n: int, rate: float, symmetric: bool = False) -> Tensor:
    w = torch.randn(n, n)
    w = w + w.T if symmetric else w
    return w / torch.linalg.matrix_norm(w, 2) * rate


def exact_tanh(w: Tensor, x: Tensor, s: Tensor | None = None) -> tuple[Tensor, float]:
    """Gradient of Σ z by W in float64, and the largest condition number of I - J."""
    w, x = w.double(), x.double()
    s = torch.ones(x.shape[0], 1, dtype=torch.float64) if s is None else s.double().unsqueeze(1)
    z = torch.zeros_like(x)
    for _ in range(6000):
        z, before = torch.tanh(s * (z @ w.T) + x), z
        if torch.equal(z, before):
            break
    slope = (1 - z.square()) * s
    system = torch.eye(x.shape[1], dtype=torch.float64) - slope.unsqueeze(2) * w
    u = torch.linalg.solve(system.mT, torch.ones_like(z).unsqueeze(2)).squeeze(2)
    return (slope * u).T @ z, float(torch.linalg.cond(system).amax())


def tanh(n: int, batch: int, floor: float, aim: float) -> Workload:
    w, x = matrix(n, 0.9), torch.randn(batch, n) * 0.3
    exact, condition = exact_tanh(w, x)
    layer = imp.compile(TANH.format(rate=0.9), n=n)
    trained, theirs = w.clone().requires_grad_(), w.clone().requires_grad_()
    double, fast = w.double().requires_grad_(), compiled(layer)
    return Workload(
        f"tanh, n = {n}, batch {batch}, ρ = 0.9",
        {
            "eager": gradient(lambda: layer(trained, x), trained),
            "compiled": gradient(lambda: fast(trained, x), trained),
        },
        peers(lambda z: torch.tanh(torch.addmm(x, z, theirs.t())), torch.zeros_like(x), theirs),
        exact,
        gradient(lambda: layer(double, x.double()), double),
        condition,
        floor,
        aim,
    )


def affine() -> Workload:
    n, batch = 64, 128
    w, x = matrix(n, 0.99, symmetric=True), torch.randn(batch, n) * 0.1
    system = torch.eye(n, dtype=torch.float64) - w.double()
    z = torch.linalg.solve(system, x.double().T).T
    u = torch.linalg.solve(system.T, torch.ones(n, batch, dtype=torch.float64)).T
    layer = imp.compile(AFFINE, n=n)
    trained, theirs = w.clone().requires_grad_(), w.clone().requires_grad_()
    double, fast = w.double().requires_grad_(), compiled(layer)
    return Workload(
        "affine, n = 64, batch 128, ρ = 0.99 symmetric",
        {
            "eager": gradient(lambda: layer(trained, x), trained),
            "compiled": gradient(lambda: fast(trained, x), trained),
        },
        peers(lambda z: torch.addmm(x, z, theirs.t()), torch.zeros_like(x), theirs),
        u.T @ z,
        gradient(lambda: layer(double, x.double()), double),
        float(torch.linalg.cond(system)),
        400,
        900,
    )


def mixed() -> Workload:
    n, batch = 64, 64
    w, x, s = matrix(n, 1.0, symmetric=True), torch.randn(batch, n) * 0.1, torch.linspace(0.1, 0.99, batch)
    exact, condition = exact_tanh(w, x, s)
    layer = imp.compile(MIXED, n=n)
    trained, theirs = w.clone().requires_grad_(), w.clone().requires_grad_()
    double = w.double().requires_grad_()
    return Workload(
        "mixed rates 0.1 … 0.99 in one batch, n = 64",
        {"eager": gradient(lambda: layer(trained, s, x), trained)},
        peers(lambda z: torch.tanh(torch.addcmul(x, s.unsqueeze(1), z @ theirs.t())), torch.zeros_like(x), theirs),
        exact,
        gradient(lambda: layer(double, s.double(), x.double()), double),
        condition,
        5,
        12,
    )


def backward_alone() -> Workload:
    n, batch = 64, 64
    w, x = matrix(n, 0.9), torch.randn(batch, n) * 0.3
    exact, condition = exact_tanh(w, x)
    layer = imp.compile(TANH.format(rate=0.9) + "\nusing newton", n=n)
    trained, theirs = w.clone().requires_grad_(), w.clone().requires_grad_()
    loss = layer(trained, x).sum()
    return Workload(
        "backward alone, n = 64, batch 64, kept factor",
        {"eager": lambda: torch.autograd.grad(loss, trained, retain_graph=True)[0]},
        backward_peers(lambda z: torch.tanh(torch.addmm(x, z, theirs.t())), torch.zeros_like(x), theirs),
        exact,
        None,
        condition,
        10,
        25,
    )


class Conv(nn.Module):
    """x + two 3×3 convolutions of z with group norm, scaled so that it contracts."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.GroupNorm(8, channels)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return self.norm(torch.relu(z * 0.3 + x + 0.3 * self.second(torch.tanh(self.first(z)))))


class Block(nn.Module):
    """One transformer block with input injection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.one, self.two = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        h = self.one(0.5 * z + x + 0.3 * self.attention(z, z, z, need_weights=False)[0])
        return self.two(x + 0.5 * h + 0.3 * self.feed(h))


def cell(name: str, net: nn.Module, shape: tuple[int, ...], batch: int, floor: float, aim: float) -> Workload:
    """A module as a cell. The reference: one backward pass through enough steps in float64."""
    import copy

    x = torch.randn(batch, *shape) * 0.5
    exact_net = copy.deepcopy(net).double()
    z = torch.zeros_like(x, dtype=torch.float64)
    with torch.no_grad():
        for _ in range(200):
            z = exact_net(z, x.double())
    for _ in range(40):  # the influence of the first of these is below 1e-9
        z = exact_net(z, x.double())
    trained = next(net.parameters())
    (exact,) = torch.autograd.grad(z.sum(), next(exact_net.parameters()))
    theirs_net = copy.deepcopy(net)
    theirs = next(theirs_net.parameters())
    power = f"R^({', '.join(map(str, shape))})"
    layer = imp.compile(CELL.format(shape=power), f=net)
    return Workload(
        name,
        {"eager": gradient(lambda: layer(x), trained)},
        peers(lambda z: theirs_net(z, x), torch.zeros_like(x), theirs),
        exact,
        None,
        None,
        floor,
        aim,
    )


@dataclass(frozen=True)
class Row:
    """A row is made when it is run."""

    name: str
    make: Callable[[], Workload]


ROWS = (
    Row("tanh 50", lambda: tanh(50, 10, 12, 17)),
    Row("tanh 128", lambda: tanh(128, 64, 5, 7)),
    Row("tanh 512", lambda: tanh(512, 64, 1.5, 2)),
    Row("affine", affine),
    Row("mixed", mixed),
    Row("conv", lambda: cell("conv cell, 64 × 16 × 16, batch 32", Conv(64), (64, 16, 16), 32, 1.2, 1.4)),
    Row(
        "transformer",
        lambda: cell("transformer cell, d = 128, 64 tokens, batch 16", Block(128), (64, 128), 16, 1.1, 1.25),
    ),
    Row("backward", backward_alone),
)


def main() -> None:
    options = arguments("Equilibria against torchdeq.", [r.name for r in ROWS])
    torch.set_num_threads(threads())
    lines: list[list[str]] = []
    told: list[str] = []
    for row in ROWS:
        if options.only in row.name:
            torch.manual_seed(0)
            work = row.make()
            outcome = contest(work)
            lines.append(summary(work, outcome))
            told.append(details(work, outcome))
            print(told[-1], flush=True)
    publish(
        "\n\n".join([conditions("torchdeq"), table(HEAD, lines), "```\n" + "\n".join(told) + "\n```"]), options.save
    )


if __name__ == "__main__":
    main()
