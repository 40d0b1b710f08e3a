"""Recurrent backpropagation of 1987: a network with feedback settles, then its error settles in the transposed network.

    python examples/recurrent_backprop/train.py            # 30 epochs, under half a minute on two cores
    python examples/recurrent_backprop/train.py --fast     # 3 epochs

Pineda (Generalization of back-propagation to recurrent neural networks, Physical Review Letters 59, 1987) and Almeida
(A learning rule for asynchronous perceptrons with feedback in a combinatorial environment, IEEE First International
Conference on Neural Networks, 1987) let the units come to rest, dy/dt = -y + S(A y + B x + c), and then a linear
network in which every branch is reversed and every unit replaced by its slope, dv/dt = -v + Aᵀ(S'(s) ∘ v) + e, whose
input e is the error at the outputs. At rest (S'(s) ∘ v) yᵀ is the gradient by A, and (S'(s) ∘ v) xᵀ that by B.

The specs hold the equation of rest only; the compiler derives the linear network and solves it. This script writes the
relaxations of both papers down, shows that the gradients are the same numbers, and trains Almeida's network to complete
pictures: the lower half of a handwritten digit from its upper half. It prints the differences of the gradients, the
time of one forward and backward pass either way, and the error on unseen digits next to that of the best affine map.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from tqdm import tqdm

import implicitdsl as imp

HALF, HIDDEN, BATCH, STEP = 32, 64, 32, 0.5
UNITS = HALF + HIDDEN
HERE = Path(__file__).parent

Gradients = dict[str, Tensor]


def relax(rate: Callable[[Tensor], Tensor], start: Tensor, tol: float) -> list[Tensor]:
    """States under dz/dt = rate(z) by Euler steps, until no unit moves by more than tol; the last one is the rest."""
    path = [start]
    while float((change := STEP * rate(path[-1])).abs().max()) > tol:
        path.append(path[-1] + change)
        if len(path) > 100_000:
            raise RuntimeError("the network does not come to rest")
    return path


def almeida(net: nn.Module, x: Tensor, target: Tensor, tol: float) -> tuple[Gradients, list[Tensor], list[Tensor]]:
    """Gradients of 1/2 ‖o - target‖² by Almeida's two relaxations, and the states on the way to both rests."""
    A, B, c = (p.detach() for p in (net.A, net.B, net.c))
    drive = x @ B.T + c
    settling = relax(lambda y: torch.sigmoid(y @ A.T + drive) - y, torch.zeros_like(drive), tol)
    y = settling[-1]
    slope, e = y * (1 - y), torch.zeros_like(y)
    e[:, : target.shape[1]] = y[:, : target.shape[1]] - target
    returning = relax(lambda v: (slope * v) @ A + e - v, torch.zeros_like(y), tol)
    s = slope * returning[-1]
    return {"A": s.T @ y, "B": s.T @ x, "c": s.sum(0)}, settling, returning


def pineda(net: nn.Module, i: Tensor, target: Tensor, tol: float) -> Gradients:
    """Gradients of 1/2 ‖x - target‖² by Pineda's two relaxations: dw = (g'(u) ∘ z) xᵀ with z the rest of the second."""
    w = net.w.detach()
    x = relax(lambda x: torch.sigmoid(x @ w.T) + i - x, torch.zeros_like(i), tol)[-1]
    g = torch.sigmoid(x @ w.T)
    slope = g * (1 - g)
    z = relax(lambda z: (slope * z) @ w + (x - target) - z, torch.zeros_like(i), tol)[-1]
    return {"w": (slope * z).T @ x, "i": z}


def differences(seed: int) -> dict[str, float]:
    """Largest relative difference between the papers' gradients and the compiled layers', in float64."""
    torch.manual_seed(seed)
    specs = imp.load(HERE / "networks.imp")
    first, second = specs.Almeida(n=20, m=6, k=4).double(), specs.Pineda(n=20).double()
    weights = torch.randn(2, 20, 20, dtype=torch.float64)  # not the small ones of a fresh network
    first.A, second.w = (3 * w / torch.linalg.matrix_norm(w, 2) for w in weights)
    x, o_target = torch.randn(8, 6, dtype=torch.float64), torch.rand(8, 4, dtype=torch.float64)
    i, x_target = torch.randn(8, 20, dtype=torch.float64, requires_grad=True), torch.rand(8, 20, dtype=torch.float64)
    found: dict[str, float] = {}

    def compare(name: str, expected: Gradients, leaves: dict[str, Tensor], loss: Tensor) -> None:
        for leaf, gradient in zip(leaves, torch.autograd.grad(loss, [*leaves.values()]), strict=True):
            found[f"{name}_{leaf}"] = float((gradient - expected[leaf]).norm() / expected[leaf].norm())

    expected, *_ = almeida(first, x, o_target, 1e-15)
    leaves = dict(first.named_parameters())
    (expected["A"],) = torch.autograd.grad(first.A, leaves["A"], expected["A"])  # to what an optimiser sees of the ball
    compare("almeida", expected, leaves, 0.5 * (first(x).o - o_target).square().sum())
    expected = pineda(second, i.detach(), x_target, 1e-15)
    leaves = {**dict(second.named_parameters()), "i": i}
    compare("pineda", expected, leaves, 0.5 * (second(i) - x_target).square().sum())
    return found


def halves() -> tuple[Tensor, Tensor]:
    """Upper halves of the 8×8 digits to train on and to test on with values in [0, 1], each followed by the lower."""
    train, test = train_test_split(load_digits().images / 16, test_size=0.25, random_state=0)
    return torch.tensor(train, dtype=torch.float32).flatten(1), torch.tensor(test, dtype=torch.float32).flatten(1)


def seconds(work: Callable[[], object]) -> float:
    """The fastest of ten runs."""
    times = []
    for _ in range(10):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def draw(path: Path, rows: dict[str, Tensor], losses: dict[str, Any], traces: dict[str, Any]) -> None:
    """Completed digits, the error by epoch, and how both networks settle."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(11, 6.5), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    grid = top.subplots(len(rows), 12)
    for (name, pictures), axes in zip(rows.items(), grid, strict=True):
        for picture, axis in zip(pictures, axes, strict=False):
            axis.imshow(picture.reshape(8, 8).numpy(), cmap="gray_r", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
            axis.axhline(3.5, color="tab:red", linewidth=0.8)
        axes[0].set_ylabel(name, rotation=0, ha="right", va="center")
    left, right = bottom.subplots(1, 2)
    left.plot(range(1, len(losses["curve"]) + 1), losses["curve"], marker=".", label="network with feedback")
    left.axhline(losses["affine"], color="grey", linestyle="--", label="best affine map")
    left.set(xlabel="epoch", ylabel="squared error a pixel, unseen digits", title="completing the lower half")
    left.legend()
    left.set_ylim(bottom=0)
    for name, trace in traces.items():
        right.semilogy([STEP * k for k in range(len(trace))], trace, label=name)
    right.set(xlabel="time", ylabel="distance from rest", title="both relaxations, after training")
    right.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Compare the gradients, train; returns the differences, the errors and the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="three epochs only")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/recurrent_backprop.png"))
    options = parser.parse_args(arguments)
    epochs = 3 if options.fast else options.epochs

    torch.set_num_threads(1)  # the products are too small to share
    started = time.perf_counter()
    result = differences(options.seed)
    for name, value in result.items():
        print(f"gradient by {name.split('_')[1]} against {name.split('_')[0].capitalize()}'s relaxation: {value:.1e}")

    train, test = halves()
    torch.manual_seed(options.seed)
    net = imp.load(HERE / "networks.imp").Almeida(n=UNITS, m=HALF, k=HALF)
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-2)
    steps = -(-len(train) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-2, total_steps=epochs * steps)
    curve: list[float] = []
    for _ in (bar := tqdm(range(epochs), desc="completion", unit="epoch")):
        for rows in torch.randperm(len(train)).split(BATCH):
            optimiser.zero_grad()
            nn.functional.mse_loss(net(train[rows, :HALF]).o, train[rows, HALF:]).backward()
            optimiser.step()
            schedule.step()
        with torch.no_grad():
            curve.append(nn.functional.mse_loss(net(test[:, :HALF]).o, test[:, HALF:]).item())
        bar.set_postfix(error=f"{curve[-1]:.4f}")

    one = torch.ones(len(train), 1)
    fit = torch.linalg.lstsq(torch.cat((train[:, :HALF], one), 1), train[:, HALF:], driver="gelsd").solution
    affine = torch.cat((test[:, :HALF], one[: len(test)]), 1) @ fit
    result["error"], result["affine_error"] = curve[-1], nn.functional.mse_loss(affine, test[:, HALF:]).item()

    x, target = test[:BATCH, :HALF], test[:BATCH, HALF:]
    result["relaxation_seconds"] = seconds(lambda: almeida(net, x, target, 1e-6))
    result["layer_seconds"] = seconds(lambda: (0.5 * (net(x).o - target).square().sum()).backward())
    relaxing, compiled = (1e3 * result[f"{name}_seconds"] for name in ("relaxation", "layer"))
    print(f"forward and backward, {BATCH} digits: relaxations {relaxing:.2f} ms, compiled layer {compiled:.2f} ms")
    error, other = result["error"], result["affine_error"]
    print(f"squared error a pixel on unseen digits: {error:.4f}, best affine map {other:.4f}")

    _, *paths = almeida(net.double(), x.double(), target.double(), 1e-13)
    names = ("units y, forward", "errors v, backward in the transposed network")
    traces = {
        name: [float((z - path[-1]).norm() / path[-1].norm()) for z in path if z is not path[-1]]
        for name, path in zip(names, paths, strict=True)
    }
    with torch.no_grad():
        completed = torch.cat((test[:, :HALF], net(test[:, :HALF].double()).o.float()), 1)
    erased = torch.cat((test[:, :HALF], torch.zeros(len(test), HALF)), 1)
    pictures = {"given": erased, "completed": completed, "digit": test}
    draw(options.out, pictures, {"curve": curve, "affine": result["affine_error"]}, traces)
    print(f"{time.perf_counter() - started:.1f} s, picture in {options.out}")
    return result


if __name__ == "__main__":
    main()
