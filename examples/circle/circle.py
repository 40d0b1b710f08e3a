"""The unit circle a² + z² = 1 solved for z, as far as the implicit function theorem goes.

python examples/circle/circle.py
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

import implicitdsl as imp

HERE = Path(__file__).parent


def main() -> dict[str, torch.Tensor]:
    """Values and slopes on the upper half, and what is said where it ends."""
    circle = imp.compile(HERE / "circle.imp")
    a = torch.tensor([-0.8, 0.0, 0.6, 0.96], dtype=torch.float64, requires_grad=True)
    z = circle(a)
    (slope,) = torch.autograd.grad(z.sum(), a)
    print("a        ", a.tolist())
    print("z        ", [round(v, 12) for v in z.tolist()])
    print("dz/da    ", [round(v, 12) for v in slope.tolist()])
    print("-a/z     ", [round(v, 12) for v in (-a / z).tolist()])

    # At a = 1 the curve is vertical: z = 0 is found, but has no derivative; beyond there is no solution.
    edge = torch.tensor([0.6, 1.0, 1.2], dtype=torch.float64, requires_grad=True)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        solution = circle.solve(edge)
        (edge_slope,) = torch.autograd.grad(solution.value.sum(), edge)
    for warning in said:
        print(warning.category.__name__, "-", warning.message)
    print("converged", solution.report.converged.tolist(), "dz/da", edge_slope.tolist())
    return {
        "a": a.detach(),
        "z": z.detach(),
        "slope": slope,
        "converged": solution.report.converged,
        "edge": edge_slope,
    }


if __name__ == "__main__":
    main()
