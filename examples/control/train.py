"""Imitation of a controller: the dynamics of a building are learned from what an expert does in it.

    python examples/control/train.py            # 150 steps, about two minutes on one core
    python examples/control/train.py --fast     # 40 steps

Amos, Rodriguez, Sacks, Boots & Kolter (Differentiable MPC, NeurIPS 2018, §5): an expert minimises Σ xᵀQx + uᵀRu over a
horizon, subject to linear dynamics and |u| ≤ 1; seen are only states, weather and the expert's first control. The
learner's layer has the same form with unknown dynamics, trained on the squared error of its controls. A network with
the same inputs stands beside it. Both then drive the true building, in weather that was not seen.
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

ROOMS, UNITS, HORIZON, BATCH = 3, 2, 8, 32
HERE = Path(__file__).parent
WALLS = torch.tensor([[0.85, 0.08, 0.00], [0.08, 0.80, 0.06], [0.00, 0.06, 0.88]], dtype=torch.float64)
UNIT = torch.tensor([[0.5, 0.0], [0.2, 0.2], [0.0, 0.6]], dtype=torch.float64)
LEAK = torch.tensor([0.07, 0.06, 0.06], dtype=torch.float64)


def controller() -> Any:
    """The layer; the costs are known."""
    layer = imp.compile(HERE / "control.imp", N=HORIZON, n=ROOMS, m=UNITS).double()
    layer.q = torch.ones(ROOMS, dtype=torch.float64)
    layer.r = torch.full((UNITS,), 0.3, dtype=torch.float64)
    return layer


def expert() -> Any:
    layer = controller()
    layer.A, layer.B, layer.e = WALLS, UNIT, LEAK
    return layer.requires_grad_(False)


def weather(count: int, random: torch.Generator, hours: int = HORIZON) -> Tensor:
    """Outside temperatures, (count, hours)."""
    base = 4 * torch.randn(count, 1, generator=random, dtype=torch.float64)
    phase = 6.28 * torch.rand(count, 1, generator=random, dtype=torch.float64)
    return base + 2 * torch.sin(phase + 6.28 / 24 * torch.arange(hours, dtype=torch.float64))


class Network(nn.Module):
    """State and weather to controls."""

    def __init__(self) -> None:
        super().__init__()
        inner = nn.Linear(ROOMS + HORIZON, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, UNITS)
        self.layers = nn.Sequential(*inner).double()

    def forward(self, x0: Tensor, out: Tensor) -> Tensor:
        return torch.tanh(self.layers(torch.cat([x0 / 3, out / 10], -1)))


def driven(control: Any, out: Tensor) -> tuple[Tensor, Tensor]:
    """The true building under a controller: mean cost, and the temperatures of the first room, (hours, count)."""
    x, total, rooms = torch.zeros(len(out), ROOMS, dtype=torch.float64), torch.zeros(len(out), dtype=torch.float64), []
    hours = out.shape[1] - HORIZON
    with torch.no_grad():
        for t in range(hours):
            u = control(x, out[:, t : t + HORIZON])
            x = x @ WALLS.T + u @ UNIT.T + out[:, t : t + 1] * LEAK
            total = total + x.square().sum(-1) + 0.3 * u.square().sum(-1)
            rooms.append(x[:, 0])
    return total.mean() / hours, torch.stack(rooms)


def train(name: str, net: nn.Module, data: tuple[Tensor, Tensor, Tensor], steps: int, rate: float) -> list[float]:
    """Adam on the squared error of the controls."""
    random = torch.Generator().manual_seed(1)
    optimiser = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    curve: list[float] = []
    for _ in (bar := tqdm(range(steps), desc=name, unit="step")):
        rows = torch.randint(len(data[0]), (BATCH,), generator=random)
        loss = (net(data[0][rows], data[1][rows]) - data[2][rows]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        curve.append(float(loss.detach()))
        bar.set_postfix(loss=f"{curve[-1]:.2e}")
    return curve


def draw(path: Path, curves: dict[str, list[float]], rooms: dict[str, Tensor]) -> None:
    """Imitation error by step; a room under each controller."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
    for name, curve in curves.items():
        left.semilogy(torch.linspace(0, 1, len(curve)), curve, label=name)
    left.set(xlabel="share of training", ylabel="squared error of the controls")
    left.legend()
    for name, x in rooms.items():
        right.plot(x[:, 0], "--" if name == "expert" else "-", label=name)
    right.set(xlabel="hour", ylabel="a room's deviation", title="unseen weather")
    right.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Train both, drive the building, print, draw; the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--fast", action="store_true", help="40 steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/control.png"), help="where the picture goes")
    arguments = parser.parse_args(argv)
    began, steps = time.perf_counter(), 40 if arguments.fast else 150
    random = torch.Generator().manual_seed(arguments.seed)
    teacher, count = expert(), 200 if arguments.fast else 600
    x0, out = 3 * torch.randn(count, ROOMS, generator=random, dtype=torch.float64), weather(count, random)
    with torch.no_grad():
        data = (x0, out, teacher(x0, out))
    learner, network = controller(), Network()
    for name in ("q", "r"):
        learner.get_parameter(name).requires_grad_(False)
    learner.A = 0.7 * torch.eye(ROOMS, dtype=torch.float64)
    learner.B = torch.full((ROOMS, UNITS), 0.2, dtype=torch.float64) + 0.05 * torch.randn(
        ROOMS, UNITS, generator=random, dtype=torch.float64
    )
    learner.e = torch.full((ROOMS,), 0.02, dtype=torch.float64)
    curves = {
        "learned dynamics": train("learned dynamics", learner, data, steps, 0.05),
        "network": train("network", network, data, (5 if arguments.fast else 20) * steps, 3e-3),
    }
    days = weather(20, random, 24 + HORIZON)
    drivers = {"expert": teacher, "learned dynamics": learner, "network": network}
    results = {name: driven(net, days) for name, net in drivers.items()}
    figures = {name: float(cost) for name, (cost, _) in results.items()}
    figures |= {f"{name}_error": sum(c[-10:]) / 10 for name, c in curves.items()}
    print(f"\n{'':17} cost an hour   imitation error")
    for name in drivers:
        print(f"{name:17} {figures[name]:12.4f}   {figures.get(f'{name}_error', 0.0):.1e}")
    draw(arguments.out, curves, {name: x for name, (_, x) in results.items()})
    print(f"picture: {arguments.out}; {time.perf_counter() - began:.0f} s")
    return figures


if __name__ == "__main__":
    main()
