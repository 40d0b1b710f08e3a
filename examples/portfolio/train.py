"""A constrained portfolio inside a network: forecasts trained for the decision instead of for their own error.

    python examples/portfolio/train.py            # 300 steps, about half a minute on one core
    python examples/portfolio/train.py --fast     # 60 steps

Decision-focused learning (Donti, Amos & Kolter, Task-based end-to-end model learning, NeurIPS 2017). Returns are made
here: asset i earns μᵢ(s) + ε, where the state s is seen before the decision, μ is a nonlinear function of it and ε has
two common factors. A linear forecast cannot be right everywhere; what matters is that it is right where it decides. The
same linear model is fitted to the returns, and trained through the portfolio on the utility w'r − risk/2 var(w'r).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

import implicitdsl as imp

ASSETS, FACTORS, STATES, RISK, BATCH = 12, 2, 4, 5.0, 128
HERE = Path(__file__).parent


class Market(NamedTuple):
    """μ(s) = 0.1 tanh(A s) ∘ tanh(B s) + 0.05 C s, and the covariance F Fᵀ + diag(d) of what is not foreseen."""

    A: Tensor
    B: Tensor
    C: Tensor
    F: Tensor
    d: Tensor

    def mean(self, s: Tensor) -> Tensor:
        return 0.4 * torch.tanh(s @ self.A.T) * torch.tanh(s @ self.B.T) + 0.05 * s @ self.C.T

    def utility(self, w: Tensor, s: Tensor) -> Tensor:
        """Expected return less half the risk, exactly."""
        spread = (w @ self.F).square().sum(-1) + (self.d * w**2).sum(-1)
        return (w * self.mean(s)).sum(-1) - RISK / 2 * spread


def market(random: torch.Generator) -> Market:
    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    A, B, C = normal(ASSETS, STATES), normal(ASSETS, STATES), normal(ASSETS, STATES)
    return Market(A, B, C, 0.15 * normal(ASSETS, FACTORS), 0.01 + 0.02 * normal(ASSETS).abs())


def portfolio(world: Market) -> Any:
    """The layer with the true covariance."""
    layer = imp.compile(HERE / "portfolio.imp", n=ASSETS, k=FACTORS, risk=RISK).double()
    layer.F, layer.d = world.F, world.d
    return layer.requires_grad_(False)


def train(name: str, model: nn.Module, loss: Any, steps: int) -> list[float]:
    """Adam on fresh states."""
    random = torch.Generator().manual_seed(3)
    optimiser = torch.optim.Adam(model.parameters(), 0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    curve: list[float] = []
    for _ in (bar := tqdm(range(steps), desc=name, unit="step")):
        s = torch.randn(BATCH, STATES, generator=random, dtype=torch.float64)
        value = loss(s)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        schedule.step()
        curve.append(float(value.detach()))
        bar.set_postfix(loss=f"{curve[-1]:.4f}")
    return curve


def draw(path: Path, weights: dict[str, Tensor], figures: dict[str, float]) -> None:
    """Mean utilities; weights in twenty states."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 1 + len(weights), figsize=(14, 3.4), layout="constrained")
    axes[0].bar(list(figures), list(figures.values()))
    axes[0].set(title="expected utility")
    axes[0].tick_params(axis="x", rotation=20)
    for axis, (name, w) in zip(axes[1:], weights.items(), strict=True):
        axis.imshow(w[:20].T.numpy(), vmin=0, vmax=0.4, aspect="auto")
        axis.set(title=f"weights: {name}", xlabel="state", ylabel="asset")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Train both, measure, print, draw; the mean utilities."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--fast", action="store_true", help="60 steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/portfolio.png"), help="where the picture goes")
    arguments = parser.parse_args(argv)
    began, steps = time.perf_counter(), 60 if arguments.fast else 300
    random = torch.Generator().manual_seed(arguments.seed)
    world = market(random)
    layer = portfolio(world)
    fitted, decided = (nn.Linear(STATES, ASSETS).double() for _ in range(2))
    train("fitted", fitted, lambda s: (fitted(s) - world.mean(s)).square().mean(), max(steps, 300))
    decided.load_state_dict(fitted.state_dict())
    train("for the decision", decided, lambda s: -world.utility(layer(decided(s)).w, s).mean(), steps)
    s = torch.randn(1000, STATES, generator=random, dtype=torch.float64)
    with torch.no_grad():
        forecasts = {"fitted": fitted(s), "for the decision": decided(s), "all known": world.mean(s)}
        weights = {name: layer(mu).w for name, mu in forecasts.items()}
    weights = {"equal": torch.full_like(weights["fitted"], 1 / ASSETS), **weights}
    figures = {name: float(world.utility(w, s).mean()) for name, w in weights.items()}
    errors = {name: float((mu - world.mean(s)).square().mean()) ** 0.5 for name, mu in forecasts.items()}
    print(f"\n{'':17} expected utility   error of the forecast")
    for name, value in figures.items():
        print(f"{name:17} {value:16.4f}   {errors.get(name, float('nan')):.3f}")
    del weights["equal"]
    draw(arguments.out, weights, figures)
    print(f"picture: {arguments.out}; {time.perf_counter() - began:.0f} s")
    return figures


if __name__ == "__main__":
    main()
