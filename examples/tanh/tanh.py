"""The layer z = tanh(W z + x), as the slides write it: solved, differentiated, and compared with a long unrolled loop.

python examples/tanh/tanh.py
"""

from __future__ import annotations

from pathlib import Path

import torch

import implicitdsl as imp

HERE = Path(__file__).parent


def main() -> dict[str, float]:
    """The worst differences of values and gradients."""
    torch.manual_seed(0)
    layer = imp.compile(HERE / "tanh.imp").double()
    x = torch.randn(10, 50, dtype=torch.float64)
    layer(x)  # dimensions come from the first call
    layer.W = 0.9 * layer.W / torch.linalg.matrix_norm(layer.W, 2)
    print(layer, end="\n\n")
    solution = layer.solve(x)
    print(solution.report)
    (gradient,) = torch.autograd.grad(layer(x).sum(), layer.W)

    W = layer.W.detach().clone().requires_grad_()
    z = torch.zeros_like(x)
    for _ in range(400):
        z = torch.tanh(z @ W.T + x)
    (unrolled,) = torch.autograd.grad(z.sum(), W)
    worst = {
        "value": float((solution.value - z).detach().abs().max()),
        "gradient": float((gradient - unrolled).abs().max()),
    }
    print(", ".join(f"{what} off by {size:.1e}" for what, size in worst.items()), "from 400 unrolled steps")
    return worst


if __name__ == "__main__":
    main()
