"""Two bodies that attract each other, learnt from noisy states: any field, and the fields of energies.

    python examples/two_body/train.py            # 400 steps each, three minutes of one core
    python examples/two_body/train.py --fast     # 30 steps

Greydanus, Dzamba and Yosinski (Hamiltonian neural networks, NeurIPS 2019), their second problem, in coordinates
relative to the centre of mass. All three models see the same 64 orbits, ten noisy states each over half a period, learn
to go from each to the next three, and are then run for five periods from other starts. The field of an energy keeps its
energy and so stays near the true one; nothing tells the networks of the angular momentum. The third knows that the
energy is p²/2m and a potential, but neither the mass nor the potential. The script prints the error of the places and
how far true energy and angular momentum drift, and draws orbits and energies. Measured (means over 16 orbits):

    distance of places       to t = π  to t = 10 π   energy off   at the end momentum off
    any field                  0.1062       1.1597       0.1475       0.3623       0.2281
    energy                     0.0294       0.3586       0.0068       0.0097       0.0126
    kinetic + potential        0.0149       0.2782       0.0045       0.0060       0.0072
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

HERE = Path(__file__).parent
HIDDEN, NOISE, SHORT, LONG, RATE, COUNT, TESTS, WINDOW = 48, 0.01, math.pi, 10 * math.pi, 3e-2, 64, 16, 4
LAYERS = {"any field": "Plain", "energy": "Hamiltonian", "kinetic + potential": "Separable"}


def energy(states: Tensor) -> Tensor:
    q, p = states.chunk(2, -1)
    return 0.5 * p.square().sum(-1) - 1 / q.norm(dim=-1)


def momentum(states: Tensor) -> Tensor:
    """Angular momentum."""
    q, p = states.chunk(2, -1)
    return q[..., 0] * p[..., 1] - q[..., 1] * p[..., 0]


def build(layer: str, times: Tensor, **sizes: int) -> Any:
    return getattr(imp.load(HERE / "two_body.imp"), layer)(k=len(times), **sizes)


def run(model: Any, start: Tensor, times: Tensor) -> Tensor:
    """States at all times, (count, k, 4)."""
    return torch.cat(list(model(*start.chunk(2, 1), times, times[-1])), -1)


def trajectories(count: int, times: Tensor, seed: int) -> Tensor:
    """True orbits, not far from circles, one way round or the other."""
    random = torch.Generator().manual_seed(seed)
    angle, radius, speed, way = torch.rand(4, count, generator=random, dtype=torch.float64)
    angle, radius = 2 * math.pi * angle, 0.8 + 0.4 * radius
    speed = (0.9 + 0.2 * speed) * torch.where(way < 0.5, -1, 1) / radius.sqrt()
    out = torch.stack([angle.cos(), angle.sin()], 1)
    across = torch.stack([-angle.sin(), angle.cos()], 1)
    start = torch.cat([radius[:, None] * out, speed[:, None] * across], 1)
    return run(build("Kepler", times), start, times.double()).float()


def fit(name: str, data: Tensor, times: Tensor, steps: int, seed: int) -> Any:
    """Adam on the mean squared distance of the states from each to the next three."""
    torch.manual_seed(seed)
    windows, times = data.unfold(1, WINDOW, 1).transpose(2, 3).flatten(0, 1), times[:WINDOW]
    model = build(LAYERS[name], times, h=HIDDEN)
    optimiser = torch.optim.Adam(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in (bar := tqdm(range(steps), desc=name, unit="step")):
        loss = (run(model, windows[:, 0], times) - windows).square().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        bar.set_postfix(loss=f"{float(loss.detach()):.2e}")
    return model


def draw(path: Path, found: dict[str, Tensor], truth: Tensor, times: Tensor) -> None:
    """Orbits of one start, and energies."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(found) + 1, figsize=(4 * len(found) + 5, 3.8), layout="constrained")
    colours = dict(zip(found, ("tab:orange", "tab:green", "tab:blue"), strict=True))
    for axis, (name, states) in zip(axes, found.items(), strict=False):
        axis.plot(*truth[0, :, :2].T.tolist(), color="tab:gray", lw=3, alpha=0.4)
        axis.plot(*states[0, :, :2].T.tolist(), color=colours[name], lw=1)
        axis.plot(0, 0, "k+")
        axis.set(title=name, aspect="equal", xlim=(-1.8, 1.8), ylim=(-1.8, 1.8))
    axes[-1].plot(times.tolist(), energy(truth[0]).tolist(), color="tab:gray", lw=3, alpha=0.4, label="two bodies")
    for name, states in found.items():
        axes[-1].plot(times.tolist(), energy(states[0]).tolist(), color=colours[name], lw=1, label=name)
    axes[-1].set(title="energy", xlabel="t", ylim=(float(energy(truth[0, 0])) - 0.5, 0))
    axes[-1].legend(loc="lower left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Train the three; returns errors and drifts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="30 steps")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/two_body.png"))
    options = parser.parse_args(arguments)
    steps = 30 if options.fast else options.steps

    started = time.perf_counter()
    times, long = torch.linspace(0, SHORT, 10), torch.linspace(0, LONG, 401)
    data = trajectories(COUNT, times, options.seed)
    data = data + NOISE * torch.randn(data.shape, generator=torch.Generator().manual_seed(options.seed))
    truth = trajectories(TESTS, long, options.seed + 1)
    result: dict[str, dict[str, float]] = {}
    found: dict[str, Tensor] = {}
    for name, layer in LAYERS.items():
        trained = fit(name, data, times, steps, options.seed)
        model = build(layer, long, h=HIDDEN)
        model.load_state_dict(trained.state_dict())
        with torch.no_grad():
            states = found[name] = run(model, truth[:, 0], long)
        off = (states - truth)[..., :2].square().sum(-1).sqrt()
        drift = (energy(states) - energy(truth)).abs()
        turn = (momentum(states) - momentum(truth)).abs()
        result[name] = {
            "near": float(off[:, long <= SHORT].mean()),
            "off": float(off.mean()),
            "drift": float(drift.mean()),
            "last": float(drift[:, -1].mean()),
            "momentum": float(turn.mean()),
        }
    heads = ("to t = π", "to t = 10 π", "energy off", "at the end", "momentum off")
    print(f"{'distance of places':20s}" + "".join(f"{head:>13s}" for head in heads))
    for name, f in result.items():
        print(f"{name:20s}" + "".join(f"{value:13.4f}" for value in f.values()))
    draw(options.out, found, truth, long)
    print(f"{time.perf_counter() - started:.1f} s, picture in {options.out}")
    return result


if __name__ == "__main__":
    main()
