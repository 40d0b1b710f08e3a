"""Denoising of piecewise constant signals: a network, total variation, and total variation whose differences are tuned.

    python examples/total_variation/train.py            # about four minutes on one core
    python examples/total_variation/train.py --fast     # a few steps

The generator of OptNet's experiment (Amos & Kolter, ICML 2017, §4.2): signals of length 100 with one to nine segments
of heights 10 to 100, and noise of deviation 10. The network has one hidden layer, as there; the differences of total
variation are the start from which D is learned. The thesis reports test errors of 29.8 (network), 16.5 (total
variation) and 14.4 (tuned); those here are of data made anew, so they cannot be compared digit by digit.
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

LENGTH, BATCH = 100, 30
HERE = Path(__file__).parent


def signals(count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Noisy and clean, (count, 100) each."""
    clean = torch.empty(count, LENGTH, dtype=torch.float64)
    for row in clean:
        pieces = int(torch.randint(1, 10, (), generator=random))
        ends = (torch.randperm(LENGTH - 1, generator=random)[: pieces - 1] + 1).sort().values.tolist()
        for start, end in zip([0, *ends], [*ends, LENGTH], strict=True):
            row[start:end] = 10 + 90 * torch.rand((), generator=random, dtype=torch.float64)
    return clean + 10 * torch.randn(clean.shape, generator=random, dtype=torch.float64), clean


def differences() -> Tensor:
    """(99, 100): row i takes entry i from entry i + 1."""
    return torch.diff(torch.eye(LENGTH, dtype=torch.float64), dim=0)


def denoiser(weight: float) -> Any:
    """The layer with plain differences."""
    layer = imp.compile(HERE / "denoise.imp", n=LENGTH).double()
    layer.D = differences()
    layer.lam = torch.tensor(weight, dtype=torch.float64)
    return layer


def network(seed: int) -> nn.Module:
    """One hidden layer, as in the experiment; inputs and outputs scaled to size one."""
    torch.manual_seed(seed)

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(LENGTH, 100), nn.ReLU(), nn.Linear(100, LENGTH)).double()

        def forward(self, y: Tensor) -> Tensor:
            return 50 + 50 * self.inner((y - 50) / 50)

    return Scaled()


def error(net: nn.Module, data: tuple[Tensor, Tensor]) -> float:
    """Mean squared error an entry."""
    with torch.no_grad():
        return float((net(data[0]) - data[1]).square().mean())


def train(name: str, net: nn.Module, data: tuple[Tensor, Tensor], steps: int, rates: dict[str, float]) -> list[float]:
    """Adam on the mean squared error, each parameter at the rate of its name."""
    random = torch.Generator().manual_seed(2)
    groups = [{"params": [p], "lr": rates.get(key, rates[""])} for key, p in net.named_parameters()]
    optimiser = torch.optim.Adam(groups)
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
        bar.set_postfix(loss=f"{sum(curve[-20:]) / len(curve[-20:]):.2f}")
    return curve


def draw(path: Path, nets: dict[str, nn.Module], data: tuple[Tensor, Tensor], figures: dict[str, float]) -> None:
    """Two test signals as each sees them; the errors; the differences that were learned."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(16, 3.6), layout="constrained")
    for axis, i in zip(axes[:2], (1, 2), strict=True):
        axis.plot(data[0][i], ".", color="0.75", label="noisy")
        axis.plot(data[1][i], color="black", linewidth=1, label="clean")
        for name, net in nets.items():
            with torch.no_grad():
                axis.plot(net(data[0][i : i + 1])[0], label=name)
        axis.legend(fontsize="x-small")
    axes[2].barh(list(figures), list(figures.values()))
    axes[2].set(title="test error")
    tuned: Any = nets["tuned"]
    axes[3].imshow((tuned.D.detach() - differences()).numpy(), aspect="auto", cmap="RdBu", vmin=-0.3, vmax=0.3)
    axes[3].set(title="learned D − differences")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Train the three, measure, print, draw; the test errors."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--fast", action="store_true", help="a few steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/total_variation.png"), help="where the picture goes")
    arguments = parser.parse_args(argv)
    began, fast = time.perf_counter(), arguments.fast
    random = torch.Generator().manual_seed(arguments.seed)
    data, test = signals(500 if fast else 5000, random), signals(100 if fast else 500, random)
    plain, tuned, fc = denoiser(10.0), denoiser(10.0), network(arguments.seed)
    plain.get_parameter("D").requires_grad_(False)
    nets: dict[str, nn.Module] = {"network": fc, "total variation": plain, "tuned": tuned}
    train("network", fc, data, 200 if fast else 6000, {"": 1e-3})
    train("total variation", plain, data, 12 if fast else 60, {"": 0.3})
    with torch.no_grad():
        tuned.lam = plain.lam.detach()
    train("tuned", tuned, data, 12 if fast else 600, {"": 1e-2, "D": 1e-3})
    figures = {name: error(net, test) for name, net in nets.items()}
    print(f"\nmean squared error on {len(test[0])} test signals (the noisy ones: {error(nn.Identity(), test):.1f})")
    for name, value in figures.items():
        print(f"{name:16} {value:6.2f}")
    print(f"the learned weight of total variation: {float(plain.lam.detach()):.2f}")
    draw(arguments.out, nets, test, figures)
    print(f"picture: {arguments.out}; {time.perf_counter() - began:.0f} s")
    return figures


if __name__ == "__main__":
    main()
