"""Segmentation by minimum cuts whose costs a small network learns through them (submodular minimisation).

    python examples/graph_cut/train.py            # about a minute and a half on one core
    python examples/graph_cut/train.py --fast     # a few steps

Noisy pictures of blobs. A network of convolutions gives every pixel a cost, and a second head every pair of neighbours
the price of a boundary between them; the layer minimises cost plus boundary exactly (its convex extension) and the loss
is taken of what it returns. Beside it the same network without the layer, trained alike. After Djolonga & Krause,
Differentiable Learning of Submodular Models, NeurIPS 2017.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

import implicitdsl as imp

SIDE, BATCH, NOISE = 8, 12, 1.1
HERE = Path(__file__).parent


def pictures(count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Noisy pictures and their labels ±1, (count, SIDE, SIDE) each: a disc or a rectangle, half of them inside out."""
    place = torch.arange(SIDE, dtype=torch.float64)
    labels = torch.empty(count, SIDE, SIDE, dtype=torch.float64)
    for picture in labels:
        centre = 1.5 + (SIDE - 4) * torch.rand(2, generator=random, dtype=torch.float64)
        size = 1.2 + (SIDE / 2 - 1.8) * torch.rand(2, generator=random, dtype=torch.float64)
        far = [((place - c) / s).abs() for c, s in zip(centre, size, strict=True)]
        disc = bool(torch.rand((), generator=random) < 0.5)
        inside = far[0].square()[:, None] + far[1].square() < 1 if disc else torch.maximum(far[0][:, None], far[1]) < 1
        picture[:] = torch.where(inside, 1.0, -1.0) * (1 if bool(torch.rand((), generator=random) < 0.5) else -1)
    return labels + NOISE * torch.randn(labels.shape, generator=random, dtype=torch.float64), labels


def differences() -> Tensor:
    """(edges, pixels): one row an edge of the grid, across first."""
    number = torch.arange(SIDE * SIDE).view(SIDE, SIDE)
    ends = torch.cat(
        [torch.stack([number[:, :-1].flatten(), number[:, 1:].flatten()], 1),
         torch.stack([number[:-1].flatten(), number[1:].flatten()], 1)]
    )  # fmt: skip
    D = torch.zeros(len(ends), SIDE * SIDE, dtype=torch.float64)
    D[torch.arange(len(ends)), ends[:, 0]] = -1
    D[torch.arange(len(ends)), ends[:, 1]] = 1
    return D


class Network(nn.Module):
    """Three convolutions; costs of pixels and, with `cut`, prices of boundaries and the cut."""

    def __init__(self, seed: int, cut: bool) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()
        ).double()  # fmt: skip
        self.pixels = nn.Conv2d(8, 1, 1).double()
        self.layer: Any = None
        if cut:
            self.boundaries = nn.Conv2d(8, 2, 1).double()
            n, m = SIDE * SIDE, 2 * SIDE * (SIDE - 1)
            self.layer = imp.compile(HERE / "segment.imp", n=n, m=m, D=differences()).double()

    def forward(self, y: Tensor) -> Tensor:
        """The score of label 1, (B, SIDE, SIDE)."""
        found = self.body(y.unsqueeze(1))
        u = -self.pixels(found).squeeze(1)
        if self.layer is None:
            return -u
        return self.layer(u.flatten(1), self.prices(found)).view_as(u)

    def prices(self, found: Tensor) -> Tensor:
        """(B, edges): of a boundary between two neighbours, positive."""
        w = nn.functional.softplus(self.boundaries(found))
        return torch.cat([w[:, 0, :, :-1].flatten(1), w[:, 1, :-1].flatten(1)], 1)


def train(name: str, net: Network, data: tuple[Tensor, Tensor], steps: int) -> list[float]:
    """Adam on the logistic loss of the scores."""
    random = torch.Generator().manual_seed(2)
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    curve: list[float] = []
    for _ in (bar := tqdm(range(steps), desc=name, unit="step")):
        rows = torch.randint(len(data[0]), (BATCH,), generator=random)
        loss = nn.functional.softplus(-2 * net(data[0][rows]) * data[1][rows]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        curve.append(float(loss.detach()))
        bar.set_postfix(loss=f"{sum(curve[-20:]) / len(curve[-20:]):.3f}")
    return curve


def wrong(scores: Tensor, labels: Tensor) -> float:
    """The share of pixels on the wrong side."""
    return float((scores * labels <= 0).double().mean())


def draw(path: Path, nets: dict[str, Network], data: tuple[Tensor, Tensor], figures: dict[str, float]) -> None:
    """Test pictures, what each network makes of them, the labels; the errors."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(4, 5, figsize=(10, 8), layout="constrained")
    with torch.no_grad():
        rows = {"noisy": data[0][:5], **{name: net(data[0][:5]) for name, net in nets.items()}, "labels": data[1][:5]}
    for line, (name, values) in zip(axes, rows.items(), strict=True):
        for axis, value in zip(line, values, strict=True):
            axis.imshow(value.numpy(), cmap="RdBu", vmin=-1.5, vmax=1.5)
            axis.set(xticks=[], yticks=[])
        off = f"\n{100 * figures[name]:.1f} % wrong" if name in figures else ""
        line[0].set_ylabel(name + off)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Train both, measure, print, draw; the shares of wrong pixels."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--fast", action="store_true", help="a few steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/graph_cut.png"), help="where the picture goes")
    arguments = parser.parse_args(argv)
    began, fast = time.perf_counter(), arguments.fast
    random = torch.Generator().manual_seed(arguments.seed)
    data, test = pictures(500, random), pictures(24 if fast else 300, random)
    nets = {"network": Network(arguments.seed, cut=False), "network and cut": Network(arguments.seed, cut=True)}
    for name, net in nets.items():
        train(name, net, data, 20 if fast else 150)
    with torch.no_grad():
        scores = {"threshold": test[0], **{name: net(test[0]) for name, net in nets.items()}}
    figures = {name: wrong(score, test[1]) for name, score in scores.items()}
    print(f"\nwrong pixels of {len(test[0])} test pictures")
    for name, value in figures.items():
        print(f"{name:16} {100 * value:6.2f} %")
    draw(arguments.out, nets, test, figures)
    print(f"picture: {arguments.out}; {time.perf_counter() - began:.0f} s")
    return figures


if __name__ == "__main__":
    main()
