"""Handwritten digits with a deep equilibrium layer, next to the same network unrolled to a fixed depth.

    python examples/digits/train.py            # 25 epochs, under a minute on two cores
    python examples/digits/train.py --fast     # 2 epochs

Both networks have the same parameters; they differ in how z = tanh(W z + U x + b) is reached and differentiated: by a
solver and the implicit function theorem, or by DEPTH copies of the layer through which autograd walks back. The script
prints test accuracy and the bytes autograd keeps for one backward pass, and draws accuracy by epoch and the residual of
the fixed-point iteration.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from tqdm import tqdm

import implicitdsl as imp

WIDTH, PIXELS, CLASSES, DEPTH, BATCH = 100, 64, 10, 20, 32
HERE = Path(__file__).parent


class Unrolled(nn.Module):
    """The weight-tied network z₀ = 0, zₖ₊₁ = tanh(W zₖ + U x + b), read out after DEPTH steps."""

    def __init__(self) -> None:
        super().__init__()
        self.W = nn.Linear(WIDTH, WIDTH, bias=False)
        self.U = nn.Linear(PIXELS, WIDTH)
        self.C = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        injected = self.U(x)
        z = torch.zeros_like(injected)
        for _ in range(DEPTH):
            z = torch.tanh(self.W(z) + injected)
        return self.C(z)


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Standardised 8×8 images and labels: three quarters to train on, a quarter to test on."""
    images, labels = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(images, labels, test_size=0.25, random_state=0, stratify=labels)
    mean, deviation = train_x.mean(), train_x.std()
    train, test = (torch.tensor((x - mean) / deviation, dtype=torch.float32) for x in (train_x, test_x))
    return train, torch.tensor(train_y), test, torch.tensor(test_y)


def saved_bytes(net: Callable[[Tensor], Tensor], x: Tensor) -> int:
    """Bytes of activations that autograd keeps from a forward pass until the backward pass (parameters not counted)."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.dim() and tensor.shape[0] == x.shape[0]:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        net(x).sum()
    return sum(storages.values())


def train(name: str, net: nn.Module, data: tuple[Tensor, Tensor, Tensor, Tensor], epochs: int) -> list[float]:
    """Fit by AdamW under a one-cycle schedule; the test accuracy after each epoch."""
    x, y, test_x, test_y = data
    steps = -(-len(x) // BATCH)
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=epochs * steps)
    accuracies: list[float] = []
    for _ in (bar := tqdm(range(epochs), desc=name, unit="epoch", leave=True)):
        net.train()
        for rows in torch.randperm(len(x)).split(BATCH):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(x[rows]), y[rows], label_smoothing=0.1).backward()
            optimiser.step()
            schedule.step()
        net.eval()
        with torch.no_grad():
            accuracies.append((net(test_x).argmax(dim=1) == test_y).float().mean().item())
        bar.set_postfix(accuracy=f"{accuracies[-1]:.2%}")
    return accuracies


def residuals(deq: nn.Module, x: Tensor, steps: int = 60) -> list[float]:
    """Worst ‖tanh(W z + U x + b) - z‖ / ‖z‖ in the batch along the plain fixed-point iteration from zero."""
    with torch.no_grad():
        injected = x @ deq.U.T + deq.b
        z, found = torch.zeros_like(injected), []
        for _ in range(steps):
            z, before = torch.tanh(z @ deq.W.T + injected), z
            found.append(((z - before).norm(dim=1) / z.norm(dim=1)).max().item())
    return found


def draw(path: Path, curves: dict[str, list[float]], trace: list[float], iterations: int) -> None:
    """Accuracy by epoch, and the residual by iteration with the solver's own count marked."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name, accuracies in curves.items():
        left.plot(range(1, len(accuracies) + 1), [100 * a for a in accuracies], marker=".", label=name)
    left.set(xlabel="epoch", ylabel="test accuracy [%]", title="handwritten digits")
    left.legend()
    right.semilogy(range(1, len(trace) + 1), trace, marker=".")
    right.axvline(iterations, color="grey", linestyle="--", label=f"the layer's solver: {iterations} iterations")
    right.set(xlabel="iteration", ylabel="worst relative residual", title="z = tanh(W z + U x + b) after training")
    right.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Train both networks; returns the last test accuracies and the saved bytes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="two epochs only")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/digits.png"))
    options = parser.parse_args(arguments)
    epochs = 2 if options.fast else options.epochs

    torch.set_num_threads(1)  # the products are too small to share
    data, started = digits(), time.perf_counter()
    torch.manual_seed(options.seed)
    deq = imp.compile(HERE / "deq.imp", n=WIDTH, m=PIXELS, k=CLASSES)
    deq_accuracy = train("deep equilibrium", deq, data, epochs)
    torch.manual_seed(options.seed)
    tied = Unrolled()
    tied_accuracy = train(f"{DEPTH} tied layers", tied, data, epochs)

    result = {
        "deq_accuracy": deq_accuracy[-1],
        "tied_accuracy": tied_accuracy[-1],
        "deq_bytes": saved_bytes(deq, data[0][:256]),
        "tied_bytes": saved_bytes(tied, data[0][:256]),
    }
    for name, key in (("deep equilibrium", "deq"), (f"{DEPTH} tied layers", "tied")):
        size = result[f"{key}_bytes"] / 1024
        print(f"{name:17s} accuracy {result[f'{key}_accuracy']:.2%}   activations for 256 images {size:.0f} KiB")
    iterations = int(deq.solve(data[2]).report.iterations.max())
    curves = {"deep equilibrium": deq_accuracy, f"{DEPTH} tied layers": tied_accuracy}
    draw(options.out, curves, residuals(deq, data[2]), iterations)
    print(f"{time.perf_counter() - started:.1f} s, picture in {options.out}")
    return result


if __name__ == "__main__":
    main()
