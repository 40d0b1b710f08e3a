"""Clauses learned from solved instances, through the semidefinite relaxation of MAX-2-SAT.

    python examples/maxsat/train.py            # about a minute on one core
    python examples/maxsat/train.py --fast     # a few steps

Hidden are some weighted clauses of two literals each. An instance adds a wish for every variable (a weighted clause of
one literal); its solution is the best of all assignments, found by trying them. The layer sees wishes and solutions
alone, begins with no clauses (C = 0, where every wish comes true), and learns C. Beside it a network with a hidden
layer, trained alike, and the relaxation with the hidden clauses themselves, whose error is that of the relaxation.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

import implicitdsl as imp

VARIABLES, CLAUSES, BATCH = 6, 14, 16
HERE = Path(__file__).parent


def clauses(random: torch.Generator) -> Tensor:
    """C (k, k), zero on the diagonal, with vᵀC v the weight of broken clauses up to a constant, v = (1, ±1, …).

    Literals sᵢ xᵢ and sⱼ xⱼ are both false where (1 − sᵢ xᵢ)(1 − sⱼ xⱼ) / 4 is one.
    """
    C = torch.zeros(VARIABLES + 1, VARIABLES + 1, dtype=torch.float64)
    for _ in range(CLAUSES):
        i, j = (torch.randperm(VARIABLES, generator=random)[:2] + 1).tolist()
        s, t = (2 * torch.randint(2, (2,), generator=random) - 1).tolist()
        weight = 0.5 + float(torch.rand((), generator=random))
        C[0, i] -= weight * s / 4
        C[0, j] -= weight * t / 4
        C[i, j] += weight * s * t / 4
    return (C + C.T) / 2


def instances(C: Tensor, count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Wishes and best assignments ±1, (count, VARIABLES) each."""
    h = 0.7 * torch.randn(count, VARIABLES, generator=random, dtype=torch.float64)
    every = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=VARIABLES)), dtype=torch.float64)
    v = torch.cat([torch.ones(len(every), 1, dtype=torch.float64), every], 1)
    cost = ((v @ C) * v).sum(1) - h @ every.T
    return h, every[cost.argmin(1)]


def relaxation(C: Tensor | None = None) -> Any:
    """The layer, without clauses or with given ones."""
    layer = imp.compile(HERE / "maxsat.imp", k=VARIABLES + 1).double()
    if C is not None:
        layer.C = C
        layer.requires_grad_(False)
    return layer


def network(seed: int) -> nn.Module:
    """One hidden layer; assignments between −1 and 1."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(VARIABLES, 64), nn.ReLU(), nn.Linear(64, VARIABLES), nn.Tanh()).double()


def train(name: str, net: nn.Module, data: tuple[Tensor, Tensor], steps: int, rate: float) -> list[float]:
    """Adam on the mean squared distance from the solution."""
    random = torch.Generator().manual_seed(2)
    optimiser = torch.optim.Adam(net.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    curve: list[float] = []
    for _ in (bar := tqdm(range(steps), desc=name, unit="step")):
        rows = torch.randint(len(data[0]), (BATCH,), generator=random)
        loss = (net(data[0][rows]) - data[1][rows]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        curve.append(float(loss.detach()))
        bar.set_postfix(loss=f"{sum(curve[-20:]) / len(curve[-20:]):.3f}")
    return curve


def solved(scores: Tensor, solutions: Tensor) -> float:
    """The share of instances whose every variable has the right sign."""
    return float((scores * solutions > 0).all(-1).double().mean())


def draw(path: Path, hidden: Tensor, learned: Tensor, curve: list[float], figures: dict[str, float]) -> None:
    """The hidden clauses, the learned ones, the loss, the shares that are solved."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(15, 3.4), layout="constrained")
    off = ~torch.eye(len(hidden), dtype=torch.bool)
    for axis, C, title in ((axes[0], hidden, "hidden clauses"), (axes[1], learned, "learned")):
        shown = axis.imshow((C * off).numpy(), cmap="RdBu", vmin=-0.6, vmax=0.6)
        axis.set(title=title)
    figure.colorbar(shown, ax=axes[1])
    axes[2].plot(curve, linewidth=0.8)
    axes[2].set(title="squared distance", xlabel="step", yscale="log")
    axes[3].barh(list(figures), list(figures.values()))
    axes[3].set(title="instances solved", xlim=(0, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Train both, measure, print, draw; the shares of instances that are solved, and the correlation of clauses."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--fast", action="store_true", help="a few steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/maxsat.png"), help="where the picture goes")
    arguments = parser.parse_args(argv)
    began, fast = time.perf_counter(), arguments.fast
    random = torch.Generator().manual_seed(arguments.seed)
    hidden = clauses(random)
    data, test = instances(hidden, 400, random), instances(hidden, 24 if fast else 400, random)
    layer, net = relaxation(), network(arguments.seed)
    train("network", net, data, 150 if fast else 4000, 3e-3)
    curve = train("relaxation", layer, data, 24 if fast else 250, 0.1)
    with torch.no_grad():
        scores = {
            "wishes alone": test[0],
            "network": net(test[0]),
            "relaxation, learned": layer(test[0]),
            "relaxation, hidden": relaxation(hidden)(test[0]),
        }
        learned = layer.C.detach()
    figures = {name: solved(score, test[1]) for name, score in scores.items()}
    print(f"\nshare of {len(test[0])} test instances with every variable right")
    for name, value in figures.items():
        print(f"{name:20} {100 * value:5.1f} %")
    above = torch.triu(torch.ones_like(hidden), 1).bool()
    figures_and = {**figures, "correlation": float(torch.corrcoef(torch.stack([hidden[above], learned[above]]))[0, 1])}
    print(f"correlation of learned and hidden clauses: {figures_and['correlation']:.3f}")
    draw(arguments.out, hidden, learned, curve, figures)
    print(f"picture: {arguments.out}; {time.perf_counter() - began:.0f} s")
    return figures_and


if __name__ == "__main__":
    main()
