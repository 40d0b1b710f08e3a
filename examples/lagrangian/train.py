"""Pendulums learnt from noisy states, by any acceleration and by that of a Lagrangian.

    python examples/lagrangian/train.py            # single and double pendulum, 300 steps each, five minutes
    python examples/lagrangian/train.py --fast     # the single pendulum, 60 steps

Cranmer, Greydanus, Hoyer, Battaglia, Spergel and Ho (Lagrangian neural networks, 2020). Both models see the same
trajectories, ten noisy states each over three time units, and are then run for thirty from other starts. A Lagrangian
network writes the equation of Euler and Lagrange, d/dt ∂L/∂(dq/dt) = ∂L/∂q, with the derivative by time carried out:
`hess(L(q, dq/dt), dq/dt) d²q/dt² + jac(grad(L(q, dq/dt), dq/dt), q) dq/dt = grad(L(q, dq/dt), q)`. It needs no momenta,
as a Hamiltonian network does; the compiler takes the second derivatives of the network in closed form and solves for
d²q/dt². The network gives potential and masses, the latter as a definite matrix that depends on the angles. The true
pendulums are the same sentence with the Lagrangian of mechanics (lengths, masses and gravity 1). The script prints the
error of the states and how far the true energy drifts, and draws both. Measured (means over 16 motions):

    distance of states, error of energy   to t = 3  to t = 30   energy    at 30
    pendulum, any acceleration              0.0195      0.222   0.0308   0.0660
    pendulum, Lagrangian                    0.0155      0.072   0.0049   0.0045
    double pendulum, any acceleration       0.1031      0.735   0.3105   0.7202
    double pendulum, Lagrangian             0.0418      0.193   0.0216   0.0175
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
HIDDEN, NOISE, SHORT, LONG, RATE, COUNT, TESTS = 48, 0.02, 3.0, 30.0, 1e-2, 64, 16
LAYERS = {"any acceleration": "Plain", "Lagrangian": "Lagrangian"}
MECHANICS = {
    "pendulum": "1/2 v[0]^2 + cos(q[0])",
    "double pendulum": "v[0]^2 + 1/2 v[1]^2 + v[0] v[1] cos(q[0] - q[1]) + 2 cos(q[0]) + cos(q[1])",
}
TRUTH = """
layer Truth(n, k):
  given q0 in R^n, v0 in R^n, ts in R^k, last in R
  where L(q, v) = LAGRANGIAN
  find q(t) in R^n for t in [0, last] such that
    hess(L(q, dq/dt), dq/dt) d²q/dt² + jac(grad(L(q, dq/dt), dq/dt), q) dq/dt = grad(L(q, dq/dt), q)
    q(0) = q0, dq/dt(0) = v0
  using dopri8(rtol=1e-8, atol=1e-10)
  return q(ts), dq/dt(ts)
"""


def energy(states: Tensor) -> Tensor:
    """Kinetic and potential energy of (…, 2 n) angles and rates, nothing at rest."""
    if states.shape[-1] == 2:
        q, v = states.unbind(-1)
        return v * v / 2 + 1 - q.cos()
    a, b, u, w = states.unbind(-1)
    return u * u + w * w / 2 + u * w * (a - b).cos() + 3 - 2 * a.cos() - b.cos()


def run(model: Any, start: Tensor, times: Tensor) -> Tensor:
    """States at all times, (count, k, 2 n)."""
    return torch.cat(list(model(*start.chunk(2, 1), times, times[-1])), -1)


def trajectories(system: str, count: int, times: Tensor, seed: int) -> Tensor:
    """True motions from random starts."""
    n = 1 if system == "pendulum" else 2
    start = 2 * torch.rand(count, 2 * n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1
    start = start * torch.tensor([2.0] if n == 1 else [1.2], dtype=torch.float64)
    start[:, n:] *= 0.5
    truth = imp.compile(TRUTH.replace("LAGRANGIAN", MECHANICS[system]), n=n, k=len(times))
    return run(truth, start, times.double()).float()


def fit(system: str, name: str, data: Tensor, times: Tensor, steps: int, seed: int) -> Any:
    """Adam on the mean squared distance of the states; the model, for the longer time."""
    torch.manual_seed(seed)
    n = data.shape[-1] // 2
    layer = getattr(imp.load(HERE / "pendulums.imp"), LAYERS[name])
    model = layer(n=n, h=HIDDEN, k=len(times))
    optimiser = torch.optim.Adam(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in (bar := tqdm(range(steps), desc=f"{system}, {name}", unit="step")):
        horizon = min(1.0, 0.2 + 1.6 * step / steps) * SHORT  # first the near states, then all
        near = (times <= horizon).float()[:, None]
        found = run(model, data[:, 0], times.clamp(max=horizon))
        loss = (near * (found - data).square()).sum() / near.sum() / data[:, 0].numel()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        bar.set_postfix(loss=f"{float(loss.detach()):.2e}")
    longer = layer(n=n, h=HIDDEN, k=301)
    longer.load_state_dict(model.state_dict())
    return longer


def draw(path: Path, found: dict[str, dict[str, Tensor]], times: Tensor) -> None:
    """The last angle and the energy of one start, by time."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, rows = plt.subplots(len(found), 2, figsize=(12, 3.2 * len(found)), squeeze=False, layout="constrained")
    colours = dict(zip(("truth", *LAYERS), ("black", "tab:orange", "tab:blue"), strict=True))
    for (system, states), (left, right) in zip(found.items(), rows, strict=True):
        for name, way in states.items():
            wide = {"color": colours[name], "lw": 3 if name == "truth" else 1.2}
            wide["alpha"] = 0.3 if name == "truth" else 1.0
            left.plot(times.tolist(), way[0, :, way.shape[-1] // 2 - 1].tolist(), label=name, **wide)
            right.plot(times.tolist(), energy(way[0]).tolist(), label=name, **wide)
        left.axvspan(0, SHORT, color="tab:green", alpha=0.15, lw=0, label="as long as the data")
        left.set(title=f"{system}: angle of the end", xlabel="t")
        right.set(title=f"{system}: energy", xlabel="t", ylim=(0, 2 * float(energy(states["truth"][0, 0]))))
    rows[0, 1].legend(*rows[0, 0].get_legend_handles_labels(), loc="lower left", ncols=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> dict[str, dict[str, dict[str, float]]]:
    """Train; returns errors and drifts by system and model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="the single pendulum, 60 steps")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--systems", nargs="+", choices=list(MECHANICS), default=list(MECHANICS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/lagrangian.png"))
    options = parser.parse_args(arguments)
    systems, steps = (["pendulum"], 60) if options.fast else (options.systems, options.steps)

    started = time.perf_counter()
    times, long = torch.linspace(0, SHORT, 10), torch.linspace(0, LONG, 301)
    result: dict[str, dict[str, dict[str, float]]] = {}
    found: dict[str, dict[str, Tensor]] = {}
    for system in systems:
        data = trajectories(system, COUNT, times, options.seed)
        data = data + NOISE * torch.randn(data.shape, generator=torch.Generator().manual_seed(options.seed))
        truth = trajectories(system, TESTS, long, options.seed + 1)
        result[system], found[system] = {}, {"truth": truth}
        for name in LAYERS:
            model = fit(system, name, data, times, steps, options.seed)
            with torch.no_grad():
                states = run(model, truth[:, 0], long)
            drift, off = (energy(states) - energy(truth)).abs(), (states - truth).square().sum(-1).sqrt()
            result[system][name] = {
                "near": float(off[:, : 1 + round(10 * SHORT)].mean()),
                "off": float(off.mean()),
                "drift": float(drift.mean()),
                "last": float(drift[:, -1].mean()),
            }
            found[system][name] = states
    print(f"{'distance of states, error of energy':36s}{'to t = 3':>10s}{'to t = 30':>11s}{'energy':>9s}{'at 30':>9s}")
    for system, models in result.items():
        for name, f in models.items():
            numbers = f"{f['near']:9.4f} {f['off']:10.3f} {f['drift']:8.4f} {f['last']:8.4f}"
            print(f"{f'{system}, {name}':36s} {numbers}")
    draw(options.out, found, long)
    print(f"{time.perf_counter() - started:.1f} s, picture in {options.out}")
    return result


if __name__ == "__main__":
    main()
