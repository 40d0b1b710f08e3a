"""Hundreds of hyperparameters by implicit gradients: a decay for every weight of a classifier.

    python examples/hyperparameters/train.py            # 5 splits, 60 outer steps, about a minute on two cores
    python examples/hyperparameters/train.py --fast     # 1 split, 20 outer steps

Bengio (Gradient-based optimization of hyper-parameters, Neural Computation 12, 2000) and Lorraine, Vicol and Duvenaud
(Optimizing millions of hyperparameters by implicit differentiation, AISTATS 2020): the trained weights are the root of
the training loss's gradient, so the implicit function theorem gives the gradient of the validation loss by whatever the
training loss contains. Here that is the decay of each of the 640 weights of ten logistic classifiers of handwritten
digits, one against the rest; the ten trainings of all splits are one batch of the layer.

The outer loop follows the gradient of the validation loss, once with one decay for all weights, once with each its own.
The script prints test loss (cross entropy, summed over the ten) and accuracy before and after, as they are and after
training once more on training and validation images together, and draws the decays: pixel by pixel for every digit.
"""

from __future__ import annotations

import argparse
import math
import time
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from tqdm import tqdm

import implicitdsl as imp

TRAIN, VALIDATE, PIXELS, CLASSES = 200, 800, 64, 10
START, RATE = -5.0, 0.15
HERE = Path(__file__).parent


class Part(NamedTuple):
    """Images (splits, 1, count, 64) and, for each digit, whether they show it (splits, 10, count)."""

    images: Tensor
    shows: Tensor


def splits(count: int, seed: int) -> tuple[Part, Part, Part]:
    """Training, validation and test images of `count` random splits; the mean training image is taken off."""
    images, labels = load_digits(return_X_y=True)
    shows = torch.nn.functional.one_hot(torch.tensor(labels), CLASSES).double().T
    random = torch.Generator().manual_seed(seed)
    order = torch.stack([torch.randperm(len(images), generator=random) for _ in range(count)])
    x, y = torch.tensor(images / 16)[order].unsqueeze(1), shows[:, order].movedim(1, 0)
    x = x - x[:, :, :TRAIN].mean(2, keepdim=True)
    ends = (0, TRAIN, TRAIN + VALIDATE, len(images))
    first, second, third = (Part(x[:, :, i:j], y[:, :, i:j]) for i, j in pairwise(ends))
    return first, second, third


def trained(log_decay: Tensor, on: Part, seen: Part) -> tuple[Tensor, Tensor, Tensor]:
    """Train on one part with the decays (splits, 10, 64 or 1); loss and logits on the other, and the weights."""
    layer = imp.load(HERE / "decay.imp").Trained(n=on.images.shape[2], m=PIXELS, k=seen.images.shape[2])
    return layer(log_decay.expand(-1, CLASSES, PIXELS), on.images, on.shows, seen.images, seen.shows)


def measure(log_decay: Tensor, on: Part, test: Part) -> tuple[float, float, Tensor]:
    """Test loss, accuracy, and the weights; means over the splits."""
    with torch.no_grad():
        loss, logits, weights = trained(log_decay, on, test)
    right = logits.argmax(1) == test.shows.argmax(1)
    return float(loss.sum(1).mean()), float(right.double().mean()), weights


def optimise(
    name: str, shape: tuple[int, ...], parts: tuple[Part, Part, Part], steps: int
) -> tuple[Tensor, list[Tensor]]:
    """Follow the validation loss's gradient from e^START by Adam; log decays, and (validation, test) losses a step."""
    train, validation, test = parts
    log_decay = torch.full(shape, START, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([log_decay], lr=RATE)
    curve: list[Tensor] = []
    for _ in (bar := tqdm(range(steps), desc=name, unit="step")):
        loss = trained(log_decay, train, validation)[0].sum(1)
        curve.append(torch.tensor([float(loss.detach().mean()), measure(log_decay, train, test)[0]]))
        bar.set_postfix(validation=f"{curve[-1][0]:.4f}", test=f"{curve[-1][1]:.4f}")
        optimiser.zero_grad()
        loss.sum().backward()
        optimiser.step()
    return log_decay.detach(), curve


def draw(path: Path, log_decay: Tensor, weights: dict[str, Tensor], curves: dict[str, list[Tensor]]) -> None:
    """Decays and weights as images, one a digit; validation and test loss by outer step."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(11, 8), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.1, 1))
    bound = max(float(w.abs().max()) for w in weights.values()) / 2
    rows = {"log decay": (log_decay / math.log(10), "viridis", None, None)}
    rows |= {f"weights,\n{name}": (w, "RdBu_r", -bound, bound) for name, w in weights.items()}
    grid = top.subplots(len(rows), CLASSES)
    for (name, (values, colours, low, high)), axes in zip(rows.items(), grid, strict=True):
        low, high = (float(values.min()), float(values.max())) if low is None else (low, high)
        for digit, axis in enumerate(axes):
            image = values[digit].reshape(8, 8).numpy()
            shown = axis.imshow(image, cmap=colours, vmin=low, vmax=high)
            axis.set(xticks=[], yticks=[])
            if axes is grid[0]:
                axis.set_title(str(digit))
        axes[0].set_ylabel(name, rotation=0, ha="right", va="center")
        bar = top.colorbar(shown, ax=axes, pad=0.01)
        bar.set_label("log₁₀" if colours == "viridis" else "")
    axis = bottom.subplots()
    for (name, curve), colour in zip(curves.items(), ("tab:blue", "tab:orange"), strict=True):
        for what, style, values in zip(("validation", "test"), ("--", "-"), torch.stack(curve).T, strict=True):
            axis.plot(range(len(values)), values.tolist(), style, color=colour, label=f"{name}: {what}")
    axis.set(xlabel="outer step", ylabel="loss, sum over ten digits", ylim=(0, None))
    axis.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Optimise both kinds of decay; returns test losses and accuracies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="one split, 20 outer steps")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/hyperparameters.png"))
    options = parser.parse_args(arguments)
    count, steps = (1, 20) if options.fast else (options.splits, options.steps)

    torch.set_num_threads(1)  # the systems are too small to share
    started = time.perf_counter()
    parts = splits(count, options.seed)
    train, validation, test = parts
    both = Part(*(torch.cat(pair, -2 if pair[0].shape[1] == 1 else -1) for pair in zip(train, validation, strict=True)))
    less = math.log(len(train.images[0, 0]) / len(both.images[0, 0]))  # the same decay beside a sum over more images

    result: dict[str, float] = {}
    weights: dict[str, Tensor] = {}
    curves: dict[str, list[Tensor]] = {}
    print(f"test loss and accuracy, mean of {count} split(s), trained on {TRAIN} images | on {TRAIN + VALIDATE} images")
    shapes = {"before": None, "one decay": (count, 1, 1), "a decay each": (count, CLASSES, PIXELS)}
    log_decay = torch.full((count, 1, 1), START, dtype=torch.float64)
    for name, shape in shapes.items():
        if shape is not None:
            log_decay, curves[name] = optimise(name, shape, parts, steps)
        loss, accuracy, w = measure(log_decay, train, test)
        more_loss, more_accuracy, _ = measure(log_decay + less, both, test)
        key = name.replace(" ", "_")
        result |= {f"{key}_loss": loss, f"{key}_accuracy": accuracy}
        result |= {f"{key}_loss_both": more_loss, f"{key}_accuracy_both": more_accuracy}
        print(f"{name:13s} {loss:.4f} {accuracy:.2%} | {more_loss:.4f} {more_accuracy:.2%}")
        if shape is not None:
            weights[name] = w[0]
    draw(options.out, log_decay[0], weights, curves)
    print(f"{time.perf_counter() - started:.1f} s, picture in {options.out}")
    return result


if __name__ == "__main__":
    main()
