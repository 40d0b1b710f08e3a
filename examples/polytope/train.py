"""Learning a polytope from projections onto it.

    python examples/polytope/train.py            # 400 steps, about half a minute on one core
    python examples/polytope/train.py --fast     # 60 steps

Amos (Differentiable optimization-based modeling for machine learning, thesis, 2019, §7): points y of the plane and
their projections on an unknown polytope are all that is given; the layer argmin ½ ‖z − y‖², G z ≤ h starts from random
sides. The script prints the error on new points and the share of the area on which both polytopes agree; it draws both.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import implicitdsl as imp

SIDES, EXTRA, BATCH = 6, 4, 64
HERE = Path(__file__).parent


def polytope(sides: int) -> Any:
    """The layer, in float64."""
    return imp.compile(HERE / "polytope.imp", n=2, m=sides).double()


def hidden(random: torch.Generator) -> Any:
    """A hexagon with random sides around the origin."""
    angle = 2 * math.pi * (torch.arange(SIDES) + 0.5 * torch.rand(SIDES, generator=random)) / SIDES
    layer = polytope(SIDES)
    layer.G = torch.stack([angle.cos(), angle.sin()], 1).double()
    layer.h = 0.6 + 0.6 * torch.rand(SIDES, generator=random, dtype=torch.float64)
    return layer.requires_grad_(False)


def inside(layer: Any, points: Tensor) -> Tensor:
    return (points @ layer.G.detach().T <= layer.h.detach()).all(-1)


def agreement(one: Any, other: Any) -> float:
    """Area of the intersection over that of the union."""
    line = torch.linspace(-2.5, 2.5, 400, dtype=torch.float64)
    points = torch.cartesian_prod(line, line)
    a, b = inside(one, points), inside(other, points)
    return float((a & b).sum() / (a | b).sum())


def points(count: int, random: torch.Generator) -> Tensor:
    return 1.5 * torch.randn(count, 2, generator=random, dtype=torch.float64)


def train(
    layer: Any, truth: Any, steps: int, random: torch.Generator
) -> tuple[list[float], list[tuple[Tensor, Tensor]]]:
    """Adam on the squared distance of the projections; the loss by step, and the sides now and then."""
    optimiser = torch.optim.Adam(layer.parameters(), 0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    curve: list[float] = []
    seen = [(layer.G.detach().clone(), layer.h.detach().clone())]
    for step in (bar := tqdm(range(steps), desc="polytope", unit="step")):
        y = points(BATCH, random)
        loss = (layer(y) - truth(y)).square().sum(-1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        curve.append(float(loss.detach()))
        if step in (steps // 10, steps - 1):
            seen.append((layer.G.detach().clone(), layer.h.detach().clone()))
        bar.set_postfix(loss=f"{curve[-1]:.2e}")
    return curve, seen


def draw(path: Path, curve: list[float], seen: list[tuple[Tensor, Tensor]], truth: Any) -> None:
    """The polytope before, on the way and after; the loss by step."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    line = torch.linspace(-2.5, 2.5, 300, dtype=torch.float64)
    x, y = torch.meshgrid(line, line, indexing="xy")
    grid = torch.stack([x, y], -1)
    figure, axes = plt.subplots(1, 4, figsize=(14, 3.5), layout="constrained")
    for axis, (G, h), title in zip(axes[:3], seen, ("before", "on the way", "learned"), strict=True):
        axis.contourf(x, y, inside(truth, grid).double(), levels=(0.5, 1.5), colors=["0.8"])
        axis.contour(x, y, (grid @ G.T - h).amax(-1), levels=[0.0], colors="tab:blue")
        axis.set(title=title, aspect="equal")
    axes[3].semilogy(curve)
    axes[3].set(xlabel="step", title="squared error of the projections")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Train, measure, print, draw; the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--fast", action="store_true", help="60 steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/polytope.png"), help="where the picture goes")
    arguments = parser.parse_args(argv)
    began, random = time.perf_counter(), torch.Generator().manual_seed(arguments.seed)
    truth = hidden(random)
    layer = polytope(SIDES + EXTRA)
    G = torch.randn(SIDES + EXTRA, 2, generator=random, dtype=torch.float64)
    layer.G = G / G.norm(dim=1, keepdim=True)
    figures = {"agreement_before": agreement(layer, truth)}
    curve, seen = train(layer, truth, 60 if arguments.fast else 400, random)
    y = points(500, random)
    with torch.no_grad():
        figures["error"] = float((layer(y) - truth(y)).norm(dim=-1).mean())
    figures["agreement"] = agreement(layer, truth)
    print(f"\nmean distance between projections of {len(y)} new points: {figures['error']:.4f}")
    print(
        f"area in both over area in either: {figures['agreement_before']:.2f} before, {figures['agreement']:.3f} after"
    )
    draw(arguments.out, curve, seen, truth)
    print(f"picture: {arguments.out}; {time.perf_counter() - began:.0f} s")
    return figures


if __name__ == "__main__":
    main()
