"""Fixed points against torchdeq and, where it is installed, optimistix: `python -m benchmarks.equilibrium`.

Forward and backward of the sum of the solution, with the gradient of the weight matrix; the same weights and inputs for
everyone. Ours is `implicitdsl.compile`d, called eagerly and under `torch.compile(fullgraph=True)`; the better counts. A
peer runs at the tolerance where its gradient is nearest to ours without being better, and its best solver counts.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import implicitdsl as imp

from . import torchdeq_peer as torchdeq
from .contest import HEAD, Gradient, Peer, Workload, contest, details, summary
from .problems import Conv, Transformer, exact, inputs, unrolled, weights
from .table import arguments, conditions, publish, table
from .timing import threads

TANH = """
layer Tanh(n):
  given x in R^n
  param W in R^(n, n)
  find z in R^n such that z = tanh(W z + x)
  using {forward}
"""

AFFINE = """
layer Affine(n):
  given x in R^n
  param W in R^(n, n)
  find z in R^n such that z = W z + x
"""

RATES = """
layer Rates(n):
  given x in R^n, s in R
  param W in R^(n, n)
  find z in R^n such that z = tanh(s (W z) + x)
  using picard()
"""

CELL = """
layer Cell(%s):
  given x in R^(%s)
  fn f: (R^(%s), R^(%s)) -> R^(%s)
  find z in R^(%s) such that z = f(z, x)
  using %s
"""


def ours(layer: Any, trained: Tensor, *given: Tensor, compiled: bool = True) -> dict[str, Gradient]:
    """The layer eagerly, and under torch.compile with the C++ wrapper."""

    def run(call: Callable[..., Tensor]) -> Gradient:
        def gradient() -> Tensor:
            trained.grad = None
            call(*given).sum().backward()
            assert trained.grad is not None
            return trained.grad

        return gradient

    variants = {"eager": run(layer)}
    if compiled:
        variants["compiled"] = run(torch.compile(layer, fullgraph=True, options={"cpp_wrapper": True}))
    return variants


def doubled(layer: Any, weight: str, *given: Tensor) -> Gradient:
    """Ours in float64."""
    layer = copy.deepcopy(layer).double()
    return ours(layer, layer.get_parameter(weight), *(x.double() for x in given), compiled=False)["eager"]


def matrix_row(
    name: str, text: str, cell: Callable[..., Tensor], W: Tensor, given: Sequence[Tensor], floor: float, aim: float
) -> Workload:
    """A row whose cell is written in the language; `cell(z, W, *given)` is the same for the peers."""
    layer: Any = imp.compile(text, n=W.shape[0])
    layer.W = W
    peer = W.clone().requires_grad_()
    high = W.double().requires_grad_()
    doubles = [x.double() for x in given]
    reference, condition = exact(lambda z: cell(z, high, *doubles), torch.zeros_like(doubles[0]), high)
    zeros = torch.zeros_like(given[0])
    return Workload(
        name,
        ours(layer, layer.get_parameter("W"), *given),
        torchdeq.peers(lambda z: cell(z, peer, *given), zeros, peer),
        reference,
        doubled(layer, "W", *given),
        condition,
        floor,
        aim,
    )


def tanh_cell(z: Tensor, W: Tensor, x: Tensor) -> Tensor:
    return torch.tanh(torch.addmm(x, z, W.T))


def tanh_row(n: int, batch: int, floor: float, aim: float, *, jax: bool = False) -> Workload:
    W, x = weights(n, 0.9), inputs(batch, n)
    row = matrix_row(f"tanh, n = {n}, batch {batch}", TANH.format(forward="picard()"), tanh_cell, W, (x,), floor, aim)
    return replace(row, shown=optimistix(W, x)) if jax else row


def optimistix(W: Tensor, x: Tensor) -> list[Peer]:
    """JAX's solvers, if they are installed."""
    try:
        from .optimistix_peer import peers
    except ImportError:
        return []
    return peers(W, x)


def affine_row() -> Workload:
    W, x = weights(64, 0.99, symmetric=True), inputs(128, 64)

    def cell(z: Tensor, W: Tensor, x: Tensor) -> Tensor:
        return torch.addmm(x, z, W.T)

    return matrix_row("affine, n = 64, batch 128, ρ = 0.99 symmetric", AFFINE, cell, W, (x,), 400, 900)


def rates_row() -> Workload:
    W, x, s = weights(64, 1.0, symmetric=True), inputs(64, 64, scale=0.1), torch.linspace(0.1, 0.99, 64)

    def cell(z: Tensor, W: Tensor, x: Tensor, s: Tensor) -> Tensor:
        return torch.tanh(torch.addcmul(x, s.unsqueeze(1), z @ W.T))

    return matrix_row("mixed rates 0.1 … 0.99, n = 64, batch 64", RATES, cell, W, (x, s), 5, 12)


def module_row(
    name: str, cell: Any, weight: str, dims: Sequence[str], x: Tensor, forward: str, floor: float, aim: float
) -> Workload:
    """A row whose cell is a module f(z, x)."""
    shape = ", ".join(dims)
    sizes: dict[str, Any] = dict(zip(dims, x.shape[1:], strict=True))

    def made(using: str) -> Any:
        return imp.compile(CELL % (shape, *(shape,) * 5, using), f=cell, **sizes)

    layer = made(forward)
    trained = cell.get_parameter(weight)
    reference, condition = unrolled(cell, torch.zeros_like(x), x, weight)
    return Workload(
        name,
        ours(layer, trained, x, compiled=False),
        torchdeq.peers(lambda z: cell(z, x), torch.zeros_like(x), trained),
        reference,
        doubled(made("picard()"), f"f.{weight}", x),  # at the tolerance of float64
        condition,
        floor,
        aim,
    )


def conv_row() -> Workload:
    cell, x = Conv(64, 16), inputs(32, 64, 16, 16)
    return module_row(
        "conv cell, 64 × 16 × 16, batch 32", cell, "conv.weight", ("c", "h", "w"), x, "picard(tol=1e-5)", 1.2, 1.4
    )


def transformer_row() -> Workload:
    cell, x = Transformer(128), inputs(16, 64, 128, scale=1.0)
    name = "transformer cell, d = 128, 64 tokens, batch 16"
    return module_row(name, cell, "mix.weight", ("t", "d"), x, "picard(tol=1e-5)", 1.1, 1.25)


def backward_row() -> Workload:
    """The backward pass alone: ours with the factor that Newton kept, theirs after a forward pass (not timed)."""
    row = tanh_row(64, 64, 10, 25)
    W, x = weights(64, 0.9), inputs(64, 64)
    layer: Any = imp.compile(TANH.format(forward="newton()"), n=64)
    layer.W = W
    trained = layer.get_parameter("W")
    loss = layer(x).sum()
    peer = W.clone().requires_grad_()

    def gradient() -> Tensor:
        return torch.autograd.grad(loss, trained, retain_graph=True)[0]

    return replace(
        row,
        name="backward alone, n = 64, batch 64, kept factor",
        ours={"eager": gradient},
        peers=torchdeq.backward_peers(lambda z: tanh_cell(z, peer, x), torch.zeros_like(x), peer),
        double=doubled(layer, "W", x),
    )


ROWS: dict[str, Callable[[], Workload]] = {
    "tanh 50": lambda: tanh_row(50, 10, 12, 17, jax=True),
    "tanh 128": lambda: tanh_row(128, 64, 5, 7, jax=True),
    "tanh 512": lambda: tanh_row(512, 64, 1.5, 2, jax=True),
    "affine": affine_row,
    "rates": rates_row,
    "conv": conv_row,
    "transformer": transformer_row,
    "backward": backward_row,
}


def main() -> None:
    given = arguments(__doc__ or "", list(ROWS))
    torch.set_num_threads(threads())
    warnings.simplefilter("ignore", FutureWarning)  # torch.compile's own
    lines: list[list[str]] = []
    for name, make in ROWS.items():
        if given.only not in name:
            continue
        begin = time.perf_counter()
        work = make()
        outcome = contest(work)
        lines.append(summary(work, outcome))
        print(f"{details(work, outcome)}\n    ({time.perf_counter() - begin:.0f} s)\n", flush=True)
    publish(f"## Fixed points\n\n{conditions('torchdeq', 'optimistix', 'jax')}\n\n{table(HEAD, lines)}", given.save)


if __name__ == "__main__":
    main()
