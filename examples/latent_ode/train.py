"""Spirals from a few noisy points at irregular times, continued: a latent ODE against recurrent networks.

    python examples/latent_ode/train.py            # 30, 50 and 100 points, three models each, 1,000 steps
    python examples/latent_ode/train.py --fast     # 30 points, 60 steps, fewer spirals

Chen, Rubanova, Bettencourt and Duvenaud (Neural ordinary differential equations, NeurIPS 2018), Table 2. A thousand
spirals, half of them clockwise, are seen at 100 times with noise; of these points 30, 50 or all 100 are kept, other
ones for every spiral. Each model then predicts the next hundred points of 200 other spirals. The latent ODE is a
variational autoencoder: a recurrent network reads the points backwards in time into a Gaussian over z(0), the equation
carries z on, asked for at times of its own for every sample, and a small network reads the points off. The recurrent
networks predict the next point from those before, one of them is told how far in time it is, and both continue by
feeding themselves what they drew. The script prints the predictive log-likelihood (nats a point, of the mixture of 20
draws), the root mean squared error of the mean prediction against the spirals without noise, and the paper's figures,
of which it isn't said of how many points they are. Measured, in ten minutes of one core:

                            30 of 100             50 of 100             100 of 100
                        nats    rmse  paper   nats    rmse  paper   nats    rmse   paper
    RNN               -21.45   2.169   -165  -49.51  2.119    -98    1.45  0.083    -153
    RNN with Δt      -138.00   2.073   -134  -38.32  1.283    -99    1.44  0.084    -145
    latent ODE         -1.19   0.462   -5.4   -0.92  0.386   -5.2   -0.93  0.270    -4.8
    truth, with noise   1.77

Where points are missing, the networks that go from point to point have learnt no step of the length they are asked for,
and are lost; the latent ODE has one motion for all distances. Where none is missing, the next step is all there is to
know, and the recurrent networks find it more exactly than a thousand steps of training find the motion.
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
SEEN, AHEAD, SPACE, NOISE = 100, 100, 0.05, 0.1
LATENT, HIDDEN, BATCH, RATE, DRAWS = 4, 32, 250, 1e-2, 20
TIMES = SPACE * torch.arange(SEEN + AHEAD)
# Table 2 of the paper's first version, log-likelihood on test spirals; it does not say of how many points
PAPER = {
    "RNN": {30: -165.26, 50: -97.51, 100: -153.49},
    "RNN with Δt": {30: -133.78, 50: -98.88, 100: -145.15},
    "latent ODE": {30: -5.39, 50: -5.21, 100: -4.78},
}


def spirals(count: int, random: torch.Generator) -> Tensor:
    """Growing spirals about the origin, one turn and a half in 100 points, every other clockwise; (count, 200, 2)."""
    angle = 2 * math.pi * torch.rand(count, 1, generator=random)
    radius = 0.5 + torch.rand(count, 1, generator=random) + 0.08 * TIMES
    way = 1 - 2.0 * (torch.arange(count) % 2)[:, None]
    angle = angle + way * 0.6 * math.pi * TIMES
    return torch.stack([radius * angle.cos(), radius * angle.sin()], -1)


def kept(x: Tensor, points: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """`points` of the first hundred, in order, other ones for every spiral: their times and places."""
    chosen = torch.rand(len(x), SEEN, generator=random).argsort(1)[:, :points].sort(1).values
    return TIMES[chosen], x.gather(1, chosen[:, :, None].expand(-1, -1, 2))


def log_normal(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """log N(x; mean, exp(log_scale)²) of points in the plane, summed over the two coordinates."""
    each = -0.5 * ((x - mean) / log_scale.exp()).square() - log_scale - 0.5 * math.log(2 * math.pi)
    return each.sum(-1)


class LatentOde(nn.Module):
    """Points → a Gaussian over z(0) → z(ts) → points."""

    def __init__(self, points: int) -> None:
        super().__init__()
        made = imp.load(HERE / "latent_ode.imp")
        self.encoder, self.code = nn.GRU(3, HIDDEN, batch_first=True), nn.Linear(HIDDEN, 2 * LATENT)
        self.motion = made.Latent(d=LATENT, h=HIDDEN, k=points)
        self.longer = [made.Latent(d=LATENT, h=HIDDEN, k=AHEAD)]  # in a list: its parameters are copies
        self.decode = nn.Sequential(nn.Linear(LATENT, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 2))
        self.log_noise = nn.Parameter(torch.tensor(-1.0))

    def infer(self, ts: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-deviation of z(0), (count, d) each."""
        back = ts.flip(1)
        gap = (back - torch.cat([back[:, :1], back[:, :-1]], 1)) / SPACE / 10
        hidden = self.encoder(torch.cat([x.flip(1), gap[:, :, None]], 2))[1][0]
        mean, log_scale = self.code(hidden).chunk(2, 1)
        return mean, log_scale - 2

    def loss(self, ts: Tensor, x: Tensor, progress: float) -> Tensor:
        """The negative evidence bound a point; later points and the divergence come in by and by."""
        mean, log_scale = self.infer(ts, x)
        z0 = mean + log_scale.exp() * torch.randn_like(mean)
        found = self.decode(self.motion(z0, ts, TIMES[SEEN - 1]))
        divergence = (0.5 * (mean.square() + (2 * log_scale).exp() - 1) - log_scale).sum(1)
        near = ts <= min(1.0, 0.1 + 2 * progress) * TIMES[SEEN - 1]
        fit = (near * log_normal(x, found, self.log_noise)).sum(1)
        return (min(1.0, 2 * progress) * divergence - fit).sum() / near.sum()

    def predict(self, ts: Tensor, x: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log-likelihoods of the points ahead, by draw: (draws, count, 100, 2) and (draws, count, 100)."""
        mean, log_scale = self.infer(ts, x)
        z0 = mean + log_scale.exp() * torch.randn(DRAWS, *mean.shape)
        self.longer[0].load_state_dict(self.motion.state_dict())
        found = self.decode(self.longer[0](z0, TIMES[SEEN:], TIMES[-1]))
        return found, log_normal(truth, found, self.log_noise)


class Recurrent(nn.Module):
    """The next point, as a Gaussian, from the points so far, and the time to it where it is told."""

    def __init__(self, told: bool) -> None:
        super().__init__()
        self.told = told
        self.cell, self.read = nn.GRU(3, HIDDEN, batch_first=True), nn.Linear(HIDDEN, 4)

    def step(self, x: Tensor, gap: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        out, hidden = self.cell(torch.cat([x, (gap / SPACE / 10 * self.told)[:, :, None]], 2), hidden)
        move, log_scale = self.read(out).chunk(2, 2)
        return x + move, log_scale - 1, hidden

    def loss(self, ts: Tensor, x: Tensor, progress: float) -> Tensor:
        mean, log_scale, _ = self.step(x[:, :-1], ts.diff(dim=1), None)
        return -log_normal(x[:, 1:], mean, log_scale).mean()

    def predict(self, ts: Tensor, x: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        gaps = torch.cat([ts.diff(dim=1), TIMES[SEEN] - ts[:, -1:]], 1)
        count = len(x)
        mean, log_scale, hidden = self.step(x, gaps, None)
        mean, log_scale = (e[:, -1:].repeat(DRAWS, 1, 1) for e in (mean, log_scale))
        hidden, gap = hidden.repeat(1, DRAWS, 1), torch.full((DRAWS * count, 1), SPACE)
        means, likelihoods = [], []
        for point in truth.repeat(DRAWS, 1, 1).unbind(1):
            means.append(mean[:, 0])
            likelihoods.append(log_normal(point, mean[:, 0], log_scale[:, 0]))
            drawn = mean + log_scale.exp() * torch.randn_like(mean)
            mean, log_scale, hidden = self.step(drawn, gap, hidden)
        shape = (DRAWS, count, AHEAD)
        return torch.stack(means, 1).reshape(*shape, 2), torch.stack(likelihoods, 1).reshape(shape)


def build(name: str, points: int) -> Any:
    return LatentOde(points) if name == "latent ODE" else Recurrent(told=name.endswith("Δt"))


def fit(name: str, ts: Tensor, x: Tensor, steps: int, seed: int) -> Any:
    torch.manual_seed(seed)
    model = build(name, ts.shape[1])
    optimiser = torch.optim.Adam(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in (bar := tqdm(range(steps), desc=f"{name}, {ts.shape[1]}", unit="step")):
        rows = torch.randint(len(x), (BATCH,))
        loss = model.loss(ts[rows], x[rows], step / steps)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        bar.set_postfix(loss=f"{float(loss.detach()):.3f}")
    return model


def figures(means: Tensor, likelihoods: Tensor, clean: Tensor) -> dict[str, float]:
    mixture = likelihoods.logsumexp(0) - math.log(len(likelihoods))
    return {
        "likelihood": float(mixture.mean()),
        "rmse": float((means.mean(0) - clean[:, SEEN:]).square().sum(-1).mean().sqrt()),
    }


def draw(path: Path, shown: dict[str, Tensor], clean: Tensor, x: Tensor) -> None:
    """Four test spirals: the points seen, the truth, and eight continuations by each model."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, rows = plt.subplots(len(shown), 4, figsize=(13, 3.3 * len(shown)), layout="constrained", squeeze=False)
    for (name, means), axes in zip(shown.items(), rows, strict=True):
        for i, axis in enumerate(axes):
            axis.plot(*clean[i, :SEEN].T.tolist(), color="tab:gray", lw=1, label="spiral")
            axis.plot(*clean[i, SEEN:].T.tolist(), color="tab:gray", lw=1, ls=":", label="what comes")
            for one in means[:8, i]:
                axis.plot(*one.T.tolist(), color="tab:blue", lw=0.8, alpha=0.5)
            axis.scatter(*x[i].T.tolist(), s=10, color="tab:orange", zorder=3, label=f"{x.shape[1]} points seen")
            axis.set(xlim=(-2.8, 2.8), ylim=(-2.8, 2.8), xticks=[], yticks=[], aspect="equal")
        axes[0].set_ylabel(name, fontsize=12)
    handles, labels = rows[0, 0].get_legend_handles_labels()
    handles.append(plt.Line2D([], [], color="tab:blue"))
    figure.legend(handles, [*labels, "continued"], loc="outside upper center", ncols=4)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> dict[str, dict[int, dict[str, float]]]:
    """Train; returns figures by model and number of points."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="30 points, 60 steps, fewer spirals")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--points", type=int, nargs="+", default=[30, 50, 100])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/latent_ode.png"))
    options = parser.parse_args(arguments)
    numbers, steps, count, tests = options.points, options.steps, 1000, 200
    if options.fast:
        numbers, steps, count, tests = [30], 60, 250, 40

    started = time.perf_counter()
    random = torch.Generator().manual_seed(options.seed)
    clean = spirals(count + tests, random)
    noisy = clean + NOISE * torch.randn(clean.shape, generator=random)
    result: dict[str, dict[int, dict[str, float]]] = {name: {} for name in PAPER}
    shown: dict[str, Tensor] = {}
    for points in numbers:
        ts, x = kept(noisy, points, random)
        for name in PAPER:
            model = fit(name, ts[:count], x[:count], steps, options.seed)
            with torch.no_grad():
                means, likelihoods = model.predict(ts[count:], x[count:], noisy[count:, SEEN:])
            result[name][points] = figures(means, likelihoods, clean[count:])
            if points == numbers[0]:
                shown[name] = means
        if points == numbers[0]:
            draw(options.out, shown, clean[count:], x[count:])
    best = -math.log(2 * math.pi * math.e * NOISE**2)
    print(f"{'':14s}" + "".join(f"{f'{points} of 100':>34s}" for points in numbers))
    print(f"{'':14s}" + f"{'nats a point':>14s}{'rmse':>8s}{'paper':>12s}" * len(numbers))
    for name, found in result.items():
        cells = (
            f"{f['likelihood']:14.2f}{f['rmse']:8.3f}{PAPER[name].get(n, math.nan):12.2f}" for n, f in found.items()
        )
        print(f"{name:14s}" + "".join(cells))
    print(f"a model that knows the spirals, but not the noise: {best:.2f} nats a point")
    print(f"{time.perf_counter() - started:.1f} s, picture in {options.out}")
    return result


if __name__ == "__main__":
    main()
