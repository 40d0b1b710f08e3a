"""Robust pooling: what an outlier may do to an average is learned, through the optimum that the average is.

    python examples/robust_pooling/train.py            # 300 steps, about half a minute on one core
    python examples/robust_pooling/train.py --fast     # 20 steps

Gould, Hartley & Campbell (Deep declarative networks, TPAMI 2021, §5.1): pooling is u = argmin Σ φ((u − xᵢ) / α). Its
derivative has a closed form, ∂u/∂xᵢ = φ''ᵢ / Σ φ''ⱼ, and the layer's gradient is compared with it. Each sample here has
30 numbers around a centre, none to half of them replaced by outliers on one side; α is trained to find the centre.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import implicitdsl as imp

COUNT, BATCH = 30, 64
HERE = Path(__file__).parent


def samples(count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Numbers (count, 30) and their centres (count,)."""
    centre = 4 * torch.randn(count, generator=random, dtype=torch.float64)
    x = centre.unsqueeze(1) + torch.randn(count, COUNT, generator=random, dtype=torch.float64)
    share = 0.5 * torch.rand(count, 1, generator=random, dtype=torch.float64)
    lost = torch.rand(count, COUNT, generator=random, dtype=torch.float64) < share
    side = torch.randint(0, 2, (count, 1), generator=random).double() * 2 - 1
    far = centre.unsqueeze(1) + side * (4 + 8 * torch.rand(count, COUNT, generator=random, dtype=torch.float64))
    return torch.where(lost, far, x), centre


def closed_form(name: str, x: Tensor, u: Tensor, alpha: Tensor) -> Tensor:
    """∂u/∂x of every sample."""
    t = (u.unsqueeze(1) - x) / alpha
    curved = 1 / torch.cosh(t) ** 2 if name == "LogCosh" else (1 - t**2) * torch.exp(-(t**2) / 2)
    return curved / curved.sum(1, keepdim=True)


def train(layer: Any, steps: int) -> list[float]:
    """Adam on the squared distance from the centre; α by step."""
    random = torch.Generator().manual_seed(1)
    optimiser = torch.optim.Adam(layer.parameters(), 0.05)
    curve: list[float] = []
    for _ in (bar := tqdm(range(steps), desc=type(layer).__name__, unit="step")):
        x, centre = samples(BATCH, random)
        loss = (layer(x) - centre).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        curve.append(float(layer.alpha.detach()))
        bar.set_postfix(loss=f"{float(loss.detach()):.3f}", alpha=f"{curve[-1]:.2f}")
    return curve


def draw(path: Path, x: Tensor, centre: float, poolings: dict[str, float], curves: dict[str, list[float]]) -> None:
    """One sample with what each pooling makes of it; α by step."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained")
    left.plot(x, torch.zeros_like(x), "k|", markersize=14, label="numbers")
    left.axvline(centre, color="0.7", linewidth=5, label="their centre")
    for i, (name, value) in enumerate(poolings.items()):
        left.plot([value], [0.4 + 0.3 * i], "o", label=name)
    left.set(yticks=[], ylim=(-0.5, 2), title="a sample with outliers")
    left.legend(fontsize="small")
    for name, curve in curves.items():
        right.plot(curve, label=name)
    right.set(xlabel="step", ylabel="α", title="what is learned")
    right.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Train, measure, print, draw; the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--fast", action="store_true", help="20 steps")
    parser.add_argument("--out", type=Path, default=Path("out/robust_pooling.png"), help="where the picture goes")
    arguments = parser.parse_args(argv)
    began, steps = time.perf_counter(), 20 if arguments.fast else 300
    nodes = imp.load(HERE / "pooling.imp")
    layers = {name: getattr(nodes, name)(n=COUNT).double() for name in ("Average", "LogCosh", "Welsch")}
    curves = {name: train(layers[name], steps) for name in ("LogCosh", "Welsch")}
    x, centre = samples(500, torch.Generator().manual_seed(2))
    x.requires_grad_()
    figures: dict[str, float] = {"median": float((x.median(1).values - centre).square().mean().detach())}
    print(f"\n{'pooling':9}  squared error   α     gradient off the closed form by")
    print(f"{'median':9}  {figures['median']:13.4f}")
    pooled: dict[str, float] = {}
    crowd = int(((x.detach() - centre.unsqueeze(1)).abs() > 4).sum(1).argmax())
    for name, layer in layers.items():
        u = layer(x)
        figures[name] = float((u - centre).square().mean().detach())
        pooled[name] = float(u[crowd].detach())
        extra = ""
        if name != "Average":
            (found,) = torch.autograd.grad(u.sum(), x)
            right = closed_form(name, x, u, layer.alpha).detach()
            figures[f"{name}_off"] = float((found - right).norm() / right.norm())
            extra = f"   {float(layer.alpha.detach()):.2f}  {figures[f'{name}_off']:.1e}"
        print(f"{name:9}  {figures[name]:13.4f}{extra}")
    draw(arguments.out, x[crowd].detach(), float(centre[crowd]), pooled, curves)
    print(f"picture: {arguments.out}; {time.perf_counter() - began:.0f} s")
    return figures


if __name__ == "__main__":
    main()
