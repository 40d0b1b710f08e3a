"""A pendulum learnt from noisy states: any field, the field of an energy, and that of kinetic plus potential energy.

    python examples/hamiltonian/train.py            # 400 steps each, a few minutes on two cores
    python examples/hamiltonian/train.py --fast     # 80 steps

Greydanus, Dzamba and Yosinski (Hamiltonian neural networks, NeurIPS 2019). All three see the same 48 trajectories, ten
noisy states each over three time units, and are then run for thirty from other starts. A Hamiltonian network writes
`dq/dt = grad(H(q, p), p), dp/dt = -grad(H(q, p), q)`; the compiler takes the gradients of the network in closed form,
so that training needs no graph of a graph. With H = K(p) + V(q) the spec asks for leapfrog, whose steps the backward
pass undoes instead of keeping them. The script prints the error of the states and how far the true energy drifts, and
draws orbits and energies. Measured (means over 16 motions):

    to t = 30             distance  energy off  at the end
    any field                0.307      0.0964      0.2006
    energy                   0.156      0.0210      0.0173
    kinetic + potential      0.139      0.0098      0.0081
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

HERE = Path(__file__).parent
HIDDEN, NOISE, SHORT, LONG, RATE = 48, 0.02, 3.0, 30.0, 1e-2
NAMES = {"any field": "Plain", "energy": "Hamiltonian", "kinetic + potential": "Separable"}
TRUTH = """
given q0 in R, p0 in R, ts in R^k, last in R
find q(t) in R, p(t) in R for t in [0, last] such that dq/dt = p, dp/dt = -sin(q), q(0) = q0, p(0) = p0
using dopri8(rtol=1e-8, atol=1e-10)
return q(ts), p(ts)
"""


def energy(q: Tensor, p: Tensor) -> Tensor:
    return 0.5 * p * p + 1 - torch.cos(q)


def trajectories(count: int, times: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """States (count, k, 2) from random starts that do not turn over."""
    random = torch.Generator().manual_seed(seed)
    angle = 2 * torch.pi * torch.rand(count, generator=random, dtype=torch.float64)
    size = 0.4 + 1.4 * torch.rand(count, generator=random, dtype=torch.float64)
    q, p = imp.compile(TRUTH)(size * angle.cos(), size * angle.sin(), times.double(), times[-1].double())
    return torch.stack([q, p], -1).float(), times


def run(model: Any, start: Tensor, times: Tensor) -> Tensor:
    return torch.stack(list(model(start[:, 0], start[:, 1], times, times[-1])), -1)


def fit(name: str, data: Tensor, times: Tensor, steps: int, seed: int) -> Any:
    """Adam on the mean squared distance of the states."""
    torch.manual_seed(seed)
    model = getattr(imp.load(HERE / "pendulum.imp"), NAMES[name])(h=HIDDEN, k=len(times))
    optimiser = torch.optim.Adam(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in (bar := tqdm(range(steps), desc=name, unit="step")):
        loss = (run(model, data[:, 0], times) - data).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        bar.set_postfix(loss=f"{float(loss.detach()):.2e}")
    return model


def draw(path: Path, found: dict[str, Tensor], truth: Tensor, times: Tensor) -> None:
    """Orbits and energies of one start."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(found) + 1, figsize=(4 * len(found) + 5, 3.8), layout="constrained")
    colours = dict(zip(found, ("tab:orange", "tab:green", "tab:blue"), strict=True))
    for axis, (name, states) in zip(axes, found.items(), strict=False):
        axis.plot(*truth[0].T.tolist(), color="tab:gray", lw=3, alpha=0.4)
        axis.plot(*states[0].T.tolist(), color=colours[name], lw=1)
        axis.set(title=name, xlabel="q", ylabel="p", aspect="equal")
    axes[-1].plot(times.tolist(), energy(*truth[0].T).tolist(), color="tab:gray", lw=3, alpha=0.4, label="pendulum")
    for name, states in found.items():
        axes[-1].plot(times.tolist(), energy(*states[0].T).tolist(), color=colours[name], lw=1, label=name)
    axes[-1].set(title="energy", xlabel="t", ylim=(0, None))
    axes[-1].legend(loc="lower left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Train the three; returns errors and drifts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="80 steps")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/hamiltonian.png"))
    options = parser.parse_args(arguments)
    steps = 80 if options.fast else options.steps

    started = time.perf_counter()
    torch.manual_seed(options.seed)
    data, times = trajectories(48, torch.linspace(0, SHORT, 10), options.seed)
    data = data + NOISE * torch.randn(data.shape, generator=torch.Generator().manual_seed(options.seed))
    truth, long = trajectories(16, torch.linspace(0, LONG, 301), options.seed + 1)
    result: dict[str, dict[str, float]] = {}
    found: dict[str, Tensor] = {}
    for name in NAMES:
        trained = fit(name, data, times, steps, options.seed)
        model = getattr(imp.load(HERE / "pendulum.imp"), NAMES[name])(h=HIDDEN, k=len(long))
        model.load_state_dict(trained.state_dict())
        with torch.no_grad():
            states = run(model, truth[:, 0], long)
        drift = (energy(*states.unbind(-1)) - energy(*truth.unbind(-1))).abs()
        off = (states - truth).square().sum(-1).sqrt()
        result[name] = {"off": float(off.mean()), "drift": float(drift.mean()), "last": float(drift[:, -1].mean())}
        found[name] = states
    print(f"{'to t = 30':20s} {'distance':>9s} {'energy off':>11s} {'at the end':>11s}")
    for name, f in result.items():
        print(f"{name:20s} {f['off']:9.3f} {f['drift']:11.4f} {f['last']:11.4f}")
    draw(options.out, found, truth, long)
    print(f"{time.perf_counter() - started:.1f} s, picture in {options.out}")
    return result


if __name__ == "__main__":
    main()
