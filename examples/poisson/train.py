"""Events whose rate varies in time: the rate of an inhomogeneous Poisson process as a latent differential equation.

    python examples/poisson/train.py            # 600 steps, a minute of one core
    python examples/poisson/train.py --fast     # 80 steps

Chen, Rubanova, Bettencourt and Duvenaud (Neural ordinary differential equations, NeurIPS 2018), section 5. A hidden
state z moves by itself and the rate is exp(cᵀ z(t) + c0). The logarithm of the likelihood of events t_1 ... t_N in
[0, T] is Σ log λ(t_i) - ∫ λ dt; the integral is one more equation, `dn/dt = exp(c^T z + c0)`, a quadrature that the
solver keeps out of its error norm. Data are 100 sequences, made by thinning (Lewis and Shedler 1979) from a rate with a
slow wave and a short burst; as they share the rate, their events are sorted into one row of output times and one solve
gives the likelihood of all. The script prints the log-likelihood of 100 other sequences beside those of the best
constant rate, of a histogram of the same data, and of the truth, and the distance of the rates. Measured:

    a sequence            log-likelihood  events expected  rate off (rms)
    constant rate                 -4.106            22.12           1.686
    histogram, 25 bins             1.667            22.13           0.372
    latent rate                    1.952            22.12           0.154
    true rate                      1.941            22.67           0.000

The test sequences happen to be as likely under the learnt rate as under the true one; the data say no more.
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
LATENT, HIDDEN, RATE, LAST, COUNT, BOUND, BINS = 4, 24, 1.5e-2, 10.0, 100, 8.0, 25


def evaluate(model: Any, ts: Tensor) -> tuple[Tensor, Tensor]:
    """log λ at other times, (k,), and ∫ λ over [0, T]; the number of times is a dimension of the layer."""
    name = "Process" if hasattr(model, "z0") else "Truth"
    layer = getattr(imp.load(HERE / "poisson.imp"), name)
    other = layer(d=LATENT, h=HIDDEN, k=len(ts)) if name == "Process" else layer(k=len(ts))
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        return tuple(other(ts, torch.tensor(LAST)))


def thinned(count: int, random: torch.Generator) -> Tensor:
    """All events of `count` sequences, in order: those of a constant rate, kept with probability λ(t) / bound."""
    expected = torch.full((count,), BOUND * LAST)
    ts = (LAST * torch.rand(int(torch.poisson(expected, generator=random).sum()), generator=random)).sort().values
    kept = torch.rand(len(ts), generator=random) < evaluate(truth(), ts)[0].exp() / BOUND
    return ts[kept]


def truth() -> Any:
    return imp.load(HERE / "poisson.imp").Truth(k=1)


def likelihood(log_rates: Tensor, expected: Tensor | float) -> Tensor:
    """Mean log-likelihood of a sequence, from the log-rates at the events of all."""
    return log_rates.sum() / COUNT - expected


def histogram(ts: Tensor) -> Tensor:
    """The rate by bins, (bins,); one event more over all keeps it positive."""
    counts = torch.histc(ts, BINS, 0, LAST)
    return (counts + 1 / BINS) / COUNT * BINS / LAST


def fit(ts: Tensor, steps: int, seed: int) -> Any:
    torch.manual_seed(seed)
    model = imp.load(HERE / "poisson.imp").Process(d=LATENT, h=HIDDEN, k=len(ts))
    optimiser = torch.optim.Adam(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in (bar := tqdm(range(steps), desc="latent rate", unit="step")):
        loss = -likelihood(*model(ts, torch.tensor(LAST)))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimiser.step()
        schedule.step()
        bar.set_postfix(loss=f"{float(loss.detach()):.3f}")
    return model


def draw(path: Path, model: Any, ts: Tensor, constant: float) -> None:
    """The rates, over a histogram of the data and the events of some of them."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    grid = torch.linspace(0, LAST, 401)
    figure, axis = plt.subplots(figsize=(9, 4), layout="constrained")
    edges = torch.linspace(0, LAST, BINS + 1)
    axis.stairs(histogram(ts).tolist(), edges.tolist(), fill=True, color="tab:gray", alpha=0.3, label="histogram")
    axis.plot(
        grid.tolist(), evaluate(truth(), grid)[0].exp().tolist(), color="black", lw=3, alpha=0.4, label="true rate"
    )
    axis.plot(grid.tolist(), evaluate(model, grid)[0].exp().tolist(), color="tab:blue", label="latent rate")
    axis.axhline(constant, color="tab:orange", ls="--", label="constant rate")
    axis.eventplot(ts[:: len(ts) // 80].tolist(), lineoffsets=-0.3, linelengths=0.3, color="tab:gray")
    axis.set(xlabel="t", ylabel="events a unit of time", xlim=(0, LAST))
    axis.legend(loc="upper left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Train; returns log-likelihoods a sequence and distances of the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="80 steps")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/poisson.png"))
    options = parser.parse_args(arguments)

    started = time.perf_counter()
    random = torch.Generator().manual_seed(options.seed)
    data, test = thinned(COUNT, random), thinned(COUNT, random)
    model = fit(data, 80 if options.fast else options.steps, options.seed)
    constant, bins = len(data) / COUNT / LAST, histogram(data)
    grid = LAST * (torch.arange(1000) + 0.5) / 1000
    true = evaluate(truth(), grid)[0].exp()

    def by_bin(ts: Tensor) -> Tensor:
        return bins[(ts / LAST * BINS).long().clamp(max=BINS - 1)]

    level = torch.tensor(constant).log()
    found = {
        "constant rate": (level.expand(len(test)), constant * LAST, torch.full_like(true, constant)),
        f"histogram, {BINS} bins": (by_bin(test).log(), float(bins.mean()) * LAST, by_bin(grid)),
        "latent rate": (*evaluate(model, test), evaluate(model, grid)[0].exp()),
        "true rate": (*evaluate(truth(), test), true),
    }
    result = {
        name: {
            "likelihood": float(likelihood(log_rates, expected)),
            "expected": float(expected),
            "distance": float((rate - true).square().mean().sqrt()),
        }
        for name, (log_rates, expected, rate) in found.items()
    }
    print(f"{len(data)} events to learn from, {len(test)} to test")
    print(f"{'a sequence':20s} {'log-likelihood':>15s} {'events expected':>16s} {'rate off (rms)':>15s}")
    for name, f in result.items():
        print(f"{name:20s} {f['likelihood']:15.3f} {f['expected']:16.2f} {f['distance']:15.3f}")
    draw(options.out, model, data, constant)
    print(f"{time.perf_counter() - started:.1f} s, picture in {options.out}")
    return result


if __name__ == "__main__":
    main()
