"""The first example of cvxpylayers, line by line beside ours; then one that its grammar refuses.

    python examples/cvxpylayers/compare.py

Agrawal et al. (Differentiable convex optimization layers, NeurIPS 2019). The script prints both programs, then what
each finds and how far each gradient is from the exact one, that of the linear system of what is active. Where
cvxpylayers is not installed only ours runs. The picture shows the fit's gradient along a line through b.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import implicitdsl as imp

HERE = Path(__file__).parent

THEIRS = """x = cp.Variable(n)
A = cp.Parameter((m, n))
b = cp.Parameter(m)
constraints = [x >= 0]
objective = cp.Minimize(cp.pnorm(A @ x - b, p=1))
problem = cp.Problem(objective, constraints)
assert problem.is_dpp()
layer = CvxpyLayer(problem, parameters=[A, b], variables=[x])
x, = layer(A_tch, b_tch)
x.sum().backward()"""

OURS = """given A in R^(m, n)
given b in R^m
argmin_{x in nonneg^n}
  ||A x - b||_1
layer = imp.compile(text)
x = layer(A_tch, b_tch)
x.sum().backward()"""


def exact(A: Tensor, b: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of Σ x: at the optimum as many residuals and bounds vanish as there are unknowns, R x = R b there."""
    zero = (A @ x - b).abs() < 1e-6
    free = x > 1e-6
    assert int(zero.sum()) == int(free.sum()), "a vertex, where the solution is differentiable"
    inverse = torch.linalg.inv(A[zero][:, free])
    v = inverse.T @ torch.ones(int(free.sum()), dtype=A.dtype)
    of_b = torch.zeros_like(b).masked_scatter(zero, v)
    return -torch.outer(of_b, x), of_b


def theirs(A: Tensor, b: Tensor) -> Tensor:
    """What cvxpylayers finds."""
    cp: Any = import_module("cvxpy")
    layer_of: Any = import_module("cvxpylayers.torch").CvxpyLayer
    m, n = A.shape
    x, p, q = cp.Variable(n), cp.Parameter((m, n)), cp.Parameter(m)
    problem = cp.Problem(cp.Minimize(cp.pnorm(p @ x - q, p=1)), [x >= 0])
    return layer_of(problem, parameters=[p, q], variables=[x])(A, b)[0]


def measured(name: str, solve: Any, A: Tensor, b: Tensor, best: tuple[Tensor, Tensor]) -> dict[str, float]:
    """The solution's objective and the error of both gradients."""
    A, b = A.clone().requires_grad_(), b.clone().requires_grad_()
    x = solve(A, b)
    x.sum().backward()
    assert A.grad is not None
    assert b.grad is not None
    off = (
        torch.cat([A.grad.flatten() - best[0].flatten(), b.grad - best[1]]).norm()
        / torch.cat([t.flatten() for t in best]).norm()
    )
    value = float((A @ x - b).abs().sum().detach())
    print(
        f"{name:12} x = {[round(v, 6) for v in x.tolist()]}   objective {value:.8f}   gradient off by {float(off):.1e}"
    )
    return {f"{name}_objective": value, f"{name}_off": float(off)}


def draw(path: Path, layer: Any, A: Tensor, b: Tensor) -> None:
    """x along a line through b, and its derivative by automatic differentiation beside differences."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    t = torch.linspace(-3, 3, 241, dtype=b.dtype, requires_grad=True)
    along = b + t.unsqueeze(-1) * torch.linspace(-1, 1, len(b), dtype=b.dtype)
    x = layer(A, along)
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for i in range(x.shape[-1]):
        (slope,) = torch.autograd.grad(x[:, i].sum(), t, retain_graph=True)
        axes[0].plot(t.detach(), x[:, i].detach(), label=f"x[{i}]")
        axes[1].step(t.detach(), slope, label=f"dx[{i}]/dt")
    axes[0].set(xlabel="t", title="the fit along a line of b")
    axes[1].set(xlabel="t", title="its derivative")
    for axis in axes:
        axis.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Print, compare, draw; the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--out", type=Path, default=Path("out/cvxpylayers.png"), help="where the picture goes")
    arguments = parser.parse_args(argv)
    left, right = THEIRS.splitlines(), OURS.splitlines()
    print(f"{'cvxpylayers':62} implicitdsl")
    for i in range(max(len(left), len(right))):
        print(f"{left[i] if i < len(left) else '':62} {right[i] if i < len(right) else ''}")
    random = torch.Generator().manual_seed(1)
    A, b = (torch.randn(*shape, dtype=torch.float64, generator=random) for shape in ((6, 3), (6,)))
    nodes = imp.load(HERE / "layers.imp")
    layer = nodes.Fit(n=3, m=6)
    best = exact(A, b, layer(A, b))
    print()
    figures = measured("implicitdsl", layer, A, b, best)
    if find_spec("cvxpylayers") is not None:
        figures |= measured("cvxpylayers", theirs, A, b, best)
    free = nodes.Free(n=3)
    L = torch.randn(4, 3, 3, dtype=torch.float64, generator=random)
    P, q = L @ L.mT + torch.eye(3), torch.randn(4, 3, dtype=torch.float64, generator=random)
    a, c = (
        torch.randn(4, dtype=torch.float64, generator=random),
        torch.rand(4, dtype=torch.float64, generator=random) + 1,
    )
    inputs = [t.requires_grad_() for t in ((P + P.mT) / 2, q, a, c)]
    right_gradient = torch.autograd.gradcheck(free, inputs, atol=1e-7)
    print("\nexp(a) xᵀP x + a² qᵀx + ‖x‖² / c, which is not DPP")
    print(f"gradients right to 1e-7 by differences: {right_gradient}")
    draw(arguments.out, layer, A, b)
    print(f"picture: {arguments.out}")
    return figures | {"free": float(right_gradient)}


if __name__ == "__main__":
    main()
