"""A network of three layers is one recurrent layer at rest: f(x; z1, z2, z3) = (f1(x), f2(z1), f3(z2)).

    python examples/three_layers/train.py            # 15 epochs, under a minute on two cores
    python examples/three_layers/train.py --fast     # 2 epochs

The construction of Bai, Kolter and Koltun (Deep equilibrium models, NeurIPS 2019, theorem 1): put the hidden layers one
above the other and let f apply each to the one before. From z = 0 the iteration z ← f(x; z) gets one more layer right
in every step and rests after three. As one matrix, z = tanh(W z + U x + b) with W nilpotent, it has the form of every
other recurrent layer. So a solver that knows nothing of layers finds the same outputs (Newton in three steps), and the
implicit function theorem the gradients of backpropagation.

The script compares outputs and gradients of the formula, of the shifted layer and of the stacked matrix, and trains
formula and matrix on handwritten digits from the same weights. It prints the differences, the solver's steps, and what
the detour costs: the construction says what a recurrent layer can express, not how to run a deep network.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from tqdm import tqdm

import implicitdsl as imp

WIDTH, PIXELS, CLASSES, BATCH = 16, 64, 10, 32
HERE = Path(__file__).parent

SYSTEM = """
layer System(n, m):
  given x in R^m
  param W1 in R^(n, m), W2 in R^(n, n), W3 in R^(n, n)
  find z1 in R^n, z2 in R^n, z3 in R^n such that
    z3 = tanh(W3 z2)
    z2 = tanh(W2 z1)
    z1 = tanh(W1 x)
  return z3
"""


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Standardised 8×8 images and labels: three quarters to train on, a quarter to test on."""
    images, labels = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(images, labels, test_size=0.25, random_state=0, stratify=labels)
    mean, deviation = train_x.mean(), train_x.std()
    train, test = (torch.tensor((x - mean) / deviation) for x in (train_x, test_x))
    return train, torch.tensor(train_y), test, torch.tensor(test_y)


def networks() -> dict[str, nn.Module]:
    """The three layers in float64 with the same weights."""
    specs = imp.load(HERE / "networks.imp")
    made = {
        name: getattr(specs, name)(n=WIDTH, m=PIXELS, k=CLASSES).double() for name in ("Deep", "Shifted", "Stacked")
    }
    for net in made.values():
        net.load_state_dict(made["Deep"].state_dict())
    return made


def differences(nets: dict[str, nn.Module], x: Tensor, y: Tensor) -> dict[str, float]:
    """Largest difference of outputs and of gradients from the formula's, and the solver's steps."""
    found: dict[str, float] = {}
    wanted = nets["Deep"](x).y
    gradients = torch.autograd.grad(nn.functional.cross_entropy(wanted, y), [*nets["Deep"].parameters()])
    for name in ("Shifted", "Stacked"):
        solution = nets[name].solve(x)
        got = torch.autograd.grad(nn.functional.cross_entropy(solution.value.y, y), [*nets[name].parameters()])
        found[f"{name}_output"] = float((solution.value.y - wanted).detach().abs().max())
        found[f"{name}_gradient"] = max(float((a - b).abs().max()) for a, b in zip(got, gradients, strict=True))
        found[f"{name}_steps"] = int(solution.report.iterations.max())
    return found


def stacked(net: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """W, U and b of the stacked form."""
    W, U = torch.zeros(3 * WIDTH, 3 * WIDTH), torch.zeros(3 * WIDTH, PIXELS)
    W, U = W.to(net.W1), U.to(net.W1)
    first, second, third = (slice(k * WIDTH, (k + 1) * WIDTH) for k in range(3))
    U[first], W[second, first], W[third, second] = (w.detach() for w in (net.W1, net.W2, net.W3))
    return W, U, torch.cat((net.b1, net.b2, net.b3)).detach()


def distances(net: nn.Module, x: Tensor, steps: int) -> list[list[float]]:
    """Step by step along z ← tanh(W z + U x + b) from zero: the largest distance of each layer from its rest."""
    W, U, b = stacked(net)
    with torch.no_grad():
        rest, z, found = net(x).z, torch.zeros(len(x), 3 * WIDTH).to(x), []
        for _ in range(steps + 1):
            found.append([float(part.abs().max()) for part in (z - rest).split(WIDTH, dim=1)])
            z = torch.tanh(z @ W.T + x @ U.T + b)
    return found


def train(name: str, net: nn.Module, data: tuple[Tensor, Tensor, Tensor, Tensor], epochs: int) -> SimpleNamespace:
    """Fit by AdamW on the same batches for every network; the loss and time of a step, the last test accuracy."""
    x, y, test_x, test_y = data
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3)
    order, losses = torch.Generator().manual_seed(0), list[float]()
    started = time.perf_counter()
    for _ in (bar := tqdm(range(epochs), desc=name, unit="epoch")):
        for rows in torch.randperm(len(x), generator=order).split(BATCH):
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(net(x[rows]).y, y[rows])
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        bar.set_postfix(loss=f"{losses[-1]:.4f}")
    step_seconds = (time.perf_counter() - started) / len(losses)
    with torch.no_grad():
        accuracy = float((net(test_x).y.argmax(1) == test_y).double().mean())
    return SimpleNamespace(losses=losses, accuracy=accuracy, step_seconds=step_seconds)


def draw(path: Path, W: Tensor, trace: list[list[float]], curves: dict[str, list[float]]) -> None:
    """The recurrent matrix, the distance of each layer from rest by step, and the losses."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    bound, names = float(W.abs().max()), ("z1", "z2", "z3")
    shown = left.imshow(W.numpy(), cmap="RdBu_r", vmin=-bound, vmax=bound)
    ticks = [WIDTH * (k + 0.5) - 0.5 for k in range(3)]
    left.set(title="W after training", xticks=ticks, yticks=ticks, xticklabels=names, yticklabels=names)
    left.tick_params(length=0)
    for edge in (WIDTH - 0.5, 2 * WIDTH - 0.5):
        left.axhline(edge, color="grey", linewidth=0.6)
        left.axvline(edge, color="grey", linewidth=0.6)
    figure.colorbar(shown, ax=left, shrink=0.8)
    for name, values, marker in zip(names, zip(*trace, strict=True), "osD", strict=True):
        middle.plot(range(len(values)), values, marker=marker, label=name, alpha=0.8)
    middle.set_yscale("symlog", linthresh=1e-16)
    middle.set(xlabel="steps of z ← tanh(W z + U x + b)", ylabel="largest distance from rest", ylim=(-3e-17, 10))
    middle.set(yticks=[0, 1e-15, 1e-10, 1e-5, 1])
    middle.set(title="one more layer is right in every step", xticks=range(len(trace)))
    middle.legend()
    for (name, losses), style in zip(curves.items(), ("-", "--"), strict=True):
        steps = range(10, len(losses) + 1)
        right.semilogy(steps, [sum(losses[k - 10 : k]) / 10 for k in steps], style, label=name)
    right.set(xlabel="training step", ylabel="loss, mean of ten batches", title="handwritten digits")
    right.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Compare and train; returns differences, steps, losses and accuracies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="two epochs only")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/three_layers.png"))
    options = parser.parse_args(arguments)
    epochs = 2 if options.fast else options.epochs

    torch.set_num_threads(1)  # the products are too small to share
    started = time.perf_counter()
    torch.manual_seed(options.seed)
    data, nets = digits(), networks()
    result: dict[str, Any] = differences(nets, data[2], data[3])
    for name in ("Shifted", "Stacked"):
        output, gradient, steps = (result[f"{name}_{what}"] for what in ("output", "gradient", "steps"))
        print(
            f"{name.lower()} against the formula: outputs {output:.0e}, gradients {gradient:.0e}, solver steps {steps}"
        )
    remarks = [d.message for d in imp.check(SYSTEM) if d.code == "IMP305"]
    result["remarks"] = remarks
    print(f"as a system of three equations, the compiler: {remarks[0]}")

    formula, matrix = (train(name, nets[name], data, epochs) for name in ("Deep", "Stacked"))
    result["apart"] = max(abs(a - b) for a, b in zip(formula.losses, matrix.losses, strict=True))
    result["accuracy"] = matrix.accuracy
    count, apart = len(formula.losses), result["apart"]
    print(f"trained as formula and as matrix: over {count} steps the losses differ by at most {apart:.0e}")
    print(f"test accuracy {formula.accuracy:.2%} and {matrix.accuracy:.2%}")
    print(f"a training step takes {1e3 * formula.step_seconds:.2f} ms and {1e3 * matrix.step_seconds:.2f} ms")

    result["trained_steps"] = int(nets["Stacked"].solve(data[2]).report.iterations.max())
    print(f"solver steps after training: {result['trained_steps']}")
    result["distances"] = distances(nets["Stacked"], data[2], 5)
    curves = {"formula": formula.losses, "one recurrent layer": matrix.losses}
    draw(options.out, stacked(nets["Stacked"])[0], result["distances"], curves)
    print(f"{time.perf_counter() - started:.1f} s, picture in {options.out}")
    return result


if __name__ == "__main__":
    main()
