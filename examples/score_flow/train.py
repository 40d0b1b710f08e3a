"""A score model of points in the plane, and its probability-flow ODE: samples by solving it back, densities forward.

    python examples/score_flow/train.py            # 6,000 steps on two data sets, two minutes of one core
    python examples/score_flow/train.py --fast     # 400 steps on one

Song, Sohl-Dickstein, Kingma, Kumar, Ermon and Poole (Score-based generative modeling through stochastic differential
equations, ICLR 2021). The equation dx = -β/2 x dt + √β dW carries data to a Gaussian; x(t) given x(0) is normal with
mean m x(0) and deviation s, m² + s² = 1, so that a network learns the score, the gradient of the log-density of x(t),
by finding the noise that was added (denoising score matching, Vincent 2011): no equation is solved in training. The
ordinary equation dx/dt = -β/2 (x + score(x, t)) has the same densities at all times. The spec binds the trained network
as a `fn`; from t = 1 to 0 it makes samples of Gaussian noise, from 0 to 1 it gives log p(x), with the divergence taken
exactly. Times begin at 0.003, since the score of the data themselves need not exist. The script prints the negative
log-likelihood of new data, by the model and by the truth, in nats, and draws how noise becomes data. Measured:

    negative log-likelihood    model   truth  samples under truth    mass      back
    eight Gaussians            1.231   1.134                1.424  1.0039   3.5e-02
    spiral                     2.057   1.982                2.242  0.9979   3.5e-02

`mass` is the integral of the model's density over a grid, `back` the largest distance that one of 2,000
points is off after a way there and back.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

import implicitdsl as imp

HERE = Path(__file__).parent
LOW, HIGH, FIRST = 0.1, 12.0, 3e-3
HIDDEN, BATCH, RATE, REACH, WAVES = 96, 512, 2e-3, 3.2, 4


class Ring:
    """Eight Gaussians on a circle."""

    scale = 0.15

    def centres(self) -> Tensor:
        angle = torch.arange(8) * (math.pi / 4)
        return 2 * torch.stack([angle.cos(), angle.sin()], 1)

    def draw(self, count: int, random: torch.Generator) -> Tensor:
        which = torch.randint(len(self.centres()), (count,), generator=random)
        return self.centres()[which] + self.scale * torch.randn(count, 2, generator=random)

    def log_density(self, x: Tensor) -> Tensor:
        each = -0.5 * torch.cdist(x, self.centres()).square() / self.scale**2
        return each.logsumexp(1) - math.log(2 * math.pi * self.scale**2 * len(self.centres()))


class Spiral(Ring):
    """Gaussians so close on a spiral that they are a band."""

    scale = 0.12

    def centres(self) -> Tensor:
        turn = torch.linspace(0.05, 1, 120).sqrt()  # even along the spiral
        angle = 4 * math.pi * turn
        return 2.4 * turn[:, None] * torch.stack([angle.cos(), angle.sin()], 1)


SETS: dict[str, Ring] = {"eight Gaussians": Ring(), "spiral": Spiral()}


def moments(t: Tensor) -> tuple[Tensor, Tensor]:
    """Mean factor and deviation of x(t) given x(0)."""
    mean = torch.exp(-0.5 * (LOW * t + 0.5 * (HIGH - LOW) * t * t))
    return mean, (1 - mean * mean).sqrt()


class Score(nn.Module):
    """-noise(x, t) / s(t), where a network on x and waves in log s finds the noise."""

    def __init__(self) -> None:
        super().__init__()
        self.noise = nn.Sequential(
            nn.Linear(2 + 2 * WAVES, HIDDEN),
            nn.SiLU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.SiLU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.SiLU(),
            nn.Linear(HIDDEN, 2),
        )

    def find(self, x: Tensor, t: Tensor) -> Tensor:
        """The noise in x at times t, (count, 2)."""
        wave = moments(t)[1].log()[:, None] * 2.0 ** torch.arange(-2, WAVES - 2)
        return self.noise(torch.cat([x, wave.sin(), wave.cos()], 1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return -self.find(x, t) / moments(t)[1][:, None]


def fit(data: Ring, steps: int, seed: int, name: str) -> Score:
    """Adam on the mean squared error of the noise; an average of the weights is what is used."""
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    score = Score()
    average = torch.optim.swa_utils.AveragedModel(score, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99))
    optimiser = torch.optim.Adam(score.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in (bar := tqdm(range(steps), desc=name, unit="step")):
        x = data.draw(BATCH, random)
        # half the times are even in log t: small ones decide how sharp the data are
        even, small = FIRST + (1 - FIRST) * torch.rand(BATCH), FIRST ** torch.rand(BATCH)
        t = torch.where(torch.rand(BATCH) < 0.5, even, small)
        mean, deviation = moments(t)
        noise = torch.randn_like(x)
        found = score.find(mean[:, None] * x + deviation[:, None] * noise, t)
        loss = (found - noise).square().sum(1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        average.update_parameters(score)
        if step % 50 == 0:
            bar.set_postfix(loss=f"{float(loss.detach()):.3f}")
    return average.module


def log_density(flow: Any, x: Tensor) -> Tensor:
    z, change = flow(x, torch.tensor(FIRST), torch.tensor(1.0))
    return -0.5 * z.square().sum(1) - math.log(2 * math.pi) - change


def grid(points: int, reach: float = REACH) -> Tensor:
    axis = torch.linspace(-reach, reach, points)
    return torch.cartesian_prod(axis, axis)


def draw(path: Path, found: dict[str, Any], count: int, points: int) -> None:
    """For each data set: data, densities of model and truth, and samples on their way."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    times = (1.0, 0.5, 0.25, 0.1, FIRST)
    columns = len(times) + 2
    size = (2.6 * columns, 2.8 * len(found))
    figure, rows = plt.subplots(len(found), columns, figsize=size, squeeze=False, layout="constrained")
    box = (-REACH, REACH, -REACH, REACH)
    looks: dict[str, Any] = {"origin": "lower", "extent": box, "cmap": "magma", "interpolation": "bilinear"}
    for (name, flow), axes in zip(found.items(), rows, strict=True):
        truth = SETS[name].log_density(grid(points)).exp().reshape(points, points).T
        axes[0].imshow(truth.numpy(), **looks)
        axes[0].set_title(f"{name}: density")
        with torch.no_grad():
            x = torch.randn(count, 2)
            for axis, before, after in zip(axes[1:], (1.0, *times), times, strict=False):
                x = flow(x, torch.tensor(before), torch.tensor(after))[0] if after < before else x
                axis.scatter(*x.T.tolist(), s=1.5, color="tab:blue")
                axis.set_title(f"t = {after:g}")
            density = log_density(flow, grid(points)).exp().reshape(points, points).T
        axes[-1].imshow(density.numpy(), vmax=float(truth.max()), **looks)
        axes[-1].set_title("density of the model")
        for axis in axes:
            axis.set(xlim=box[:2], ylim=box[2:], xticks=[], yticks=[], aspect="equal")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Train score models and solve their flows; returns figures by data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="400 steps on one data set")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/score_flow.png"))
    options = parser.parse_args(arguments)
    count = 200 if options.fast else 2000
    names, steps = (["eight Gaussians"], 400) if options.fast else (list(SETS), options.steps)

    started = time.perf_counter()
    result: dict[str, dict[str, float]] = {}
    flows: dict[str, Any] = {}
    for name in names:
        data = SETS[name]
        score = fit(data, steps, options.seed, name)
        flow = flows[name] = imp.load(HERE / "score_flow.imp").ProbabilityFlow(n=2, low=LOW, high=HIGH, score=score)
        test = data.draw(count, torch.Generator().manual_seed(options.seed + 1))
        with torch.no_grad():
            samples = flow(torch.randn(count, 2), torch.tensor(1.0), torch.tensor(FIRST))[0]
            there = flow(test, torch.tensor(FIRST), torch.tensor(1.0))[0]
            back = flow(there, torch.tensor(1.0), torch.tensor(FIRST))[0]
            result[name] = {
                "model": -float(log_density(flow, test).mean()),
                "truth": -float(data.log_density(test).mean()),
                "samples": -float(data.log_density(samples).mean()),
                "mass": float(log_density(flow, grid(36, 3.4)).exp().sum()) * (6.8 / 35) ** 2,
                "round_trip": float((back - test).abs().max()),
            }
    heads = f"{'model':>7s} {'truth':>7s} {'samples under truth':>20s} {'mass':>7s} {'back':>9s}"
    print(f"{'negative log-likelihood':24s} {heads}")
    for name, f in result.items():
        numbers = f"{f['model']:7.3f} {f['truth']:7.3f} {f['samples']:20.3f} {f['mass']:7.4f} {f['round_trip']:9.1e}"
        print(f"{name:24s} {numbers}")
    draw(options.out, flows, count, 24 if options.fast else 72)
    print(f"{time.perf_counter() - started:.1f} s, picture in {options.out}")
    return result


if __name__ == "__main__":
    main()
