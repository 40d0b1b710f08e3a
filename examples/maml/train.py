"""Model-agnostic meta-learning of sinusoids with implicit gradients.

    python examples/maml/train.py            # 1,000 outer steps, about half a minute on two cores
    python examples/maml/train.py --fast     # 80 outer steps

The task family of Finn, Abbeel and Levine (Model-agnostic meta-learning, ICML 2017): y = A sin(x + φ), A in [0.1, 5],
φ in [0, π], x in [-5, 5], ten points a task. As in Rajeswaran, Finn, Kakade and Levine (Meta-learning with implicit
gradients, NeurIPS 2019) the inner loop is run to its end, with a pull to the common weights, and the outer gradient is
that of the implicit function theorem: no path of inner steps is kept. What adapts is the head, on which fast adaptation
rests (Raghu et al., Rapid learning or feature reuse?, ICLR 2020); the compiler sees that its equation is affine, and
one batched factorisation serves 25 tasks forward and backward.

Beside it stands the same network trained on the pooled tasks, without an inner loop, then adapted by the same equation.
The script prints the mean squared error on new tasks before and after adaptation, and draws both on three of them.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

import implicitdsl as imp

POINTS, ASKED, WIDTH, TASKS = 10, 50, 40, 25
HERE = Path(__file__).parent


class Tasks(NamedTuple):
    """Points (tasks, POINTS) with their values, and points (tasks, ASKED) with theirs to be told."""

    x: Tensor
    y: Tensor
    q: Tensor
    answers: Tensor


def tasks(count: int, random: torch.Generator) -> Tasks:
    """Sinusoids of random amplitude and phase at random points; those asked for are in order."""
    amplitude = 0.1 + 4.9 * torch.rand(count, 1, generator=random)
    phase = math.pi * torch.rand(count, 1, generator=random)
    x = 10 * torch.rand(count, POINTS, generator=random) - 5
    q = (10 * torch.rand(count, ASKED, generator=random) - 5).sort(1).values
    return Tasks(x, amplitude * torch.sin(x + phase), q, amplitude * torch.sin(q + phase))


def network(seed: int) -> Any:
    """The layer, its weights drawn."""
    torch.manual_seed(seed)
    layer = imp.compile(HERE / "adapted.imp", N=POINTS, M=ASKED, h=WIDTH)
    with torch.no_grad():
        layer(*tasks(1, torch.Generator().manual_seed(seed))[:3])
    return layer


def errors(layer: nn.Module, some: Tasks) -> tuple[Tensor, Tensor]:
    """Mean squared errors after and before adaptation."""
    found = layer(*some[:3])
    after, before = (((values - some.answers) ** 2).mean() for values in (found.answers, found.unadapted))
    return after, before


def train(
    name: str, loss: Callable[[nn.Module, Tasks], Tensor], steps: int, seed: int
) -> tuple[nn.Module, list[float]]:
    """Adam on the loss of 25 fresh tasks a step; the layer, and the losses."""
    layer, random = network(seed), torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(layer.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    curve: list[float] = []
    for step in (bar := tqdm(range(steps), desc=name, unit="step")):
        value = loss(layer, tasks(TASKS, random))
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        schedule.step()
        curve.append(float(value.detach()))
        if step % 20 == 0:
            bar.set_postfix(loss=f"{sum(curve[-20:]) / len(curve[-20:]):.3f}")
    return layer, curve


def draw(path: Path, layers: dict[str, nn.Module], curves: dict[str, list[float]], some: Tasks) -> None:
    """Three new tasks before and after adaptation; the outer loss by step."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(15, 3.6), layout="constrained")
    for task, axis in enumerate(axes[:3]):
        axis.plot(some.q[task], some.answers[task], color="0.6", linewidth=4, label="the task")
        for (name, layer), colour in zip(layers.items(), ("tab:blue", "tab:orange"), strict=True):
            with torch.no_grad():
                found = layer(*(t[task] for t in some[:3]))
            axis.plot(some.q[task], found.unadapted, ":", color=colour, label=f"{name}, before")
            axis.plot(some.q[task], found.answers, color=colour, label=f"{name}, adapted")
        axis.plot(some.x[task], some.y[task], "k.", markersize=8, label="ten points of it")
        axis.set(xlabel="x", title=f"a new task, {task + 1}")
    axes[0].legend(fontsize="x-small")
    for (name, curve), colour in zip(curves.items(), ("tab:blue", "tab:orange"), strict=True):
        window = max(1, len(curve) // 50)
        smooth = torch.tensor(curve).unfold(0, window, 1).mean(1)
        axes[3].semilogy(range(window - 1, len(curve)), smooth, color=colour, label=name)
    axes[3].set(xlabel="outer step", ylabel="outer loss", title="training")
    axes[3].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Train, measure, print, draw; the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--fast", action="store_true", help="80 outer steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/maml.png"), help="where the picture goes")
    arguments = parser.parse_args(argv)
    steps, began = 80 if arguments.fast else 1000, time.perf_counter()
    objectives: dict[str, Callable[[nn.Module, Tasks], Tensor]] = {
        "meta-learned": lambda layer, some: errors(layer, some)[0],
        "pooled": lambda layer, some: errors(layer, some)[1],
    }
    trained = {name: train(name, loss, steps, arguments.seed) for name, loss in objectives.items()}
    layers = {name: layer for name, (layer, _) in trained.items()}
    new = tasks(600, torch.Generator().manual_seed(arguments.seed + 1))
    figures: dict[str, float] = {}
    print(f"\nmean squared error on 600 new tasks, {POINTS} points each\n{'':14}  before  adapted")
    for name, layer in layers.items():
        with torch.no_grad():
            after, before = (float(value) for value in errors(layer, new))
        print(f"{name:14}  {before:6.3f}  {after:7.4f}")
        figures |= {f"{name}_before": before, f"{name}_after": after}
    draw(arguments.out, layers, {name: curve for name, (_, curve) in trained.items()}, new)
    print(f"picture: {arguments.out}; {time.perf_counter() - began:.0f} s")
    return figures


if __name__ == "__main__":
    main()
