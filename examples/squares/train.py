"""y = x² by a residual network, by a flow on the line, which cannot, and by a flow with one dimension more.

    python examples/squares/train.py            # 1,500 steps each, two minutes on one core
    python examples/squares/train.py --fast     # 150 steps

The solutions of a differential equation from different starts never meet, so a flow on the line keeps the order of its
points and no parameters make it fit y = x². The best that an increasing function can do for x uniform in [-1, 1] is 1/4
up to x = 1/2 and x² from there on (isotonic regression), with a mean squared error of 9/160 = 0.05625. The blocks
z + v tanh(w z + b) of a residual network jump over each other and have no such limit. Neither has a flow in the plane
that begins at (x, 0), of which the first coordinate is the answer: Dupont, Doucet and Teh (Augmented neural ODEs,
NeurIPS 2019). The script prints the test errors of the three, and draws fits and paths. Measured:

                            test error  parameters
    ResNet                    5.57e-06         576
    ODE-Net                   5.87e-02         128
    augmented                 1.17e-04         192
    best of increasing y      5.63e-02
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

HERE = Path(__file__).parent
HIDDEN, BLOCKS, POINTS, RATE = 32, 6, 128, 5e-3
MONOTONE = 9 / 160  # the error of the best increasing function
TIMES = torch.linspace(0, 1, 41)


class ResNet(nn.Module):
    """Blocks z + vᵀ tanh(w z + b) on the line, each with its own weights, which begin as those of the flows."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(1, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 1, bias=False)) for _ in range(BLOCKS)
        )
        for name, parameter in self.blocks.named_parameters():
            nn.init.normal_(parameter, std=0.2 if name.endswith("2.weight") else 1.0)

    def forward(self, x: Tensor) -> Tensor:
        """The points after every block, x itself first, (count, blocks + 1)."""
        path = [x[:, None]]
        for block in self.blocks:
            path.append(path[-1] + block(path[-1]))
        return torch.cat(path, 1)


def build(name: str) -> nn.Module:
    if name == "ResNet":
        return ResNet()
    layer = {"ODE-Net": "OdeNet", "augmented": "Augmented"}[name]
    return getattr(imp.load(HERE / "squares.imp"), layer)(h=HIDDEN)


def paths(network: Any, x: Tensor) -> Tensor:
    """Where the points are on their way, the end last, (count, k)."""
    return network(x) if isinstance(network, ResNet) else network(x[:, None], TIMES)


def answer(network: Any, x: Tensor) -> Tensor:
    return network(x)[:, -1] if isinstance(network, ResNet) else network(x, x.new_tensor(1.0))


def fit(name: str, x: Tensor, steps: int, seed: int) -> Any:
    """Adam on the mean squared error, all points at every step."""
    torch.manual_seed(seed)
    network = build(name)
    optimiser = torch.optim.Adam(network.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in (bar := tqdm(range(steps), desc=name, unit="step")):
        loss = (answer(network, x) - x * x).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        bar.set_postfix(loss=f"{float(loss.detach()):.2e}")
    return network


def draw(path: Path, networks: dict[str, Any], errors: dict[str, float]) -> None:
    """The three fits, and the paths of points through each network."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(networks) + 1, figsize=(17, 3.8), layout="constrained")
    x, starts = torch.linspace(-1, 1, 201), torch.linspace(-1, 1, 21)
    axes[0].plot(x.tolist(), (x * x).tolist(), color="black", lw=4, alpha=0.25, label="x²")
    colours = plt.get_cmap("coolwarm")(torch.linspace(0, 1, len(starts)).numpy())
    with torch.no_grad():
        for axis, (name, network) in zip(axes[1:], networks.items(), strict=True):
            axes[0].plot(x.tolist(), answer(network, x).tolist(), label=f"{name}: {errors[name]:.1e}")
            ways = paths(network, starts)
            for way, colour in zip(ways, colours, strict=True):
                axis.plot(torch.linspace(0, 1, ways.shape[1]).tolist(), way.tolist(), color=colour, lw=1.2)
            axis.set(title=f"{name}: from x to y", xlabel="depth", ylabel="z")
    axes[0].set(xlabel="x", ylabel="y", title="fits, and their mean squared errors")
    axes[0].legend(loc="upper center")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Train the three; returns mean squared errors on the test points."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="150 steps")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/squares.png"))
    options = parser.parse_args(arguments)

    started = time.perf_counter()
    # one point in each cell of a regular division, so that the sample weighs the interval evenly
    inside = torch.rand(POINTS, generator=torch.Generator().manual_seed(options.seed))
    x = -1 + 2 * (torch.arange(POINTS) + inside) / POINTS
    test = -1 + 2 * (torch.arange(1000) + 0.5) / 1000
    networks: dict[str, Any] = {}
    errors: dict[str, float] = {}
    for name in ("ResNet", "ODE-Net", "augmented"):
        networks[name] = fit(name, x, 150 if options.fast else options.steps, options.seed)
        with torch.no_grad():
            errors[name] = float((answer(networks[name], test) - test * test).square().mean())
    print(f"{'':22s} {'test error':>11s} {'parameters':>11s}")
    for name, network in networks.items():
        print(f"{name:22s} {errors[name]:11.2e} {sum(p.numel() for p in network.parameters()):11d}")
    print(f"{'best of increasing y':22s} {MONOTONE:11.2e}")
    draw(options.out, networks, errors)
    print(f"{time.perf_counter() - started:.1f} s, picture in {options.out}")
    return errors


if __name__ == "__main__":
    main()
