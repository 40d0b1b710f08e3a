"""Handwritten digits with a multiscale deep equilibrium: convolutions at three resolutions, solved as one system.

    python examples/multiscale/train.py            # 8 epochs, about a minute on two cores
    python examples/multiscale/train.py --fast     # a part of one epoch

The unknowns u, v, w are images of 8×8, 4×4 and 2×2 with their own numbers of channels. Each passes a residual block of
its own, then every resolution is the sum of all three, brought to its size; group normalisation keeps samples apart, as
a solve needs them. The script prints test accuracy beside the same cells unrolled to DEPTH steps, and the most memory
held during forward and backward: it grows with the depth that is unrolled, and not with the iterations of the solver,
once the solver's own history of a few iterates is full.

Source: Bai, Koltun & Kolter, "Multiscale deep equilibrium models" (2020); normalisation by groups: Wu & He (2018).
"""

from __future__ import annotations

import argparse
import time
import warnings
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary
from tqdm import tqdm

import implicitdsl as imp

CHANNELS, SIDES, CLASSES, GROUPS, DEPTH, BATCH = (12, 16, 24), (8, 4, 2), 10, 4, 6, 32
GAIN, FLOOR = 0.4, 0.5  # of the block's correction, and of the variance that it divides by: both bound its slope
SPEC = Path(__file__).parent / "multiscale.imp"
TOLERANCES = ("1e-1", "1e-2", "1e-3", "1e-4", "1e-5")
DEPTHS = (2, 4, 8, 16)
Data = tuple[Tensor, Tensor, Tensor, Tensor]


class Block(nn.Module):
    """A residual block at one resolution, with the image added inside where there is one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.GroupNorm(GROUPS, channels, eps=FLOOR) for _ in range(2))

    def forward(self, z: Tensor, x: Tensor | float = 0.0) -> Tensor:
        h = torch.relu(self.norms[0](self.first(z)))
        return torch.relu(x + GAIN * self.norms[1](self.second(h)))


class Fuse(nn.Module):
    """All three resolutions brought to one and added."""

    def __init__(self, to: int) -> None:
        super().__init__()
        self.side = SIDES[to]
        self.mixes = nn.ModuleList(nn.Conv2d(c, CHANNELS[to], 1, bias=False) for c in CHANNELS)

    def forward(self, p: Tensor, q: Tensor, r: Tensor) -> Tensor:
        return sum(
            (resized(m(z), self.side) for m, z in zip(self.mixes, (p, q, r), strict=True)), start=p.new_zeros(())
        )


def resized(z: Tensor, side: int) -> Tensor:
    """By averaging or by repeating pixels."""
    if z.shape[-1] > side:
        return nn.functional.avg_pool2d(z, z.shape[-1] // side)
    return nn.functional.interpolate(z, size=(side, side)) if z.shape[-1] < side else z


class Head(nn.Module):
    """Logits from the maxima of all channels."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(sum(CHANNELS), CLASSES)

    def forward(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        return self.linear(torch.cat([z.amax((-2, -1)) for z in (u, v, w)], dim=1))


def cells() -> dict[str, nn.Module]:
    """New modules for the functions of the spec."""
    stem = nn.Sequential(nn.Conv2d(1, CHANNELS[0], 3, padding=1), nn.GroupNorm(GROUPS, CHANNELS[0]))
    blocks = {name: Block(c) for name, c in zip(("fine", "middle", "coarse"), CHANNELS, strict=True)}
    fuses = {name: Fuse(k) for k, name in enumerate(("to_fine", "to_middle", "to_coarse"))}
    return {"stem": stem, **blocks, **fuses, "head": Head()}


def equilibrium(modules: Mapping[str, nn.Module], tolerance: str = "1e-3") -> Any:
    """The compiled layer, solved to a tolerance. That its cells contract cannot be proved: the reports tell instead."""
    a, b, c = CHANNELS
    text = SPEC.read_text().replace("tol=1e-3", f"tol={tolerance}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", imp.SpecWarning)
        return imp.compile(text, a=a, b=b, c=c, k=CLASSES, bind=modules)


class Unrolled(nn.Module):
    """The same cells applied `depth` times from zero."""

    def __init__(self, modules: Mapping[str, nn.Module], depth: int) -> None:
        super().__init__()
        self.cells, self.depth = nn.ModuleDict(modules), depth

    def forward(self, x: Tensor) -> Tensor:
        f = self.cells
        image = f["stem"](x)
        u, v, w = (x.new_zeros(len(x), c, s, s) for c, s in zip(CHANNELS, SIDES, strict=True))
        for _ in range(self.depth):
            parts = f["fine"](u, image), f["middle"](v), f["coarse"](w)
            u, v, w = f["to_fine"](*parts), f["to_middle"](*parts), f["to_coarse"](*parts)
        return f["head"](u, v, w)


class Held(TorchDispatchMode):
    """Bytes of the tensors that are made and still held: `now`, and the most at any time: `peak`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            storage = tensor.untyped_storage() if isinstance(tensor, Tensor) else None
            if storage is not None and storage not in self.known:
                self.known[storage] = True
                self.now += storage.nbytes()
                weakref.finalize(storage, self.drop, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return out

    def drop(self, size: int) -> None:
        self.now -= size


def peak_bytes(net: Callable[[Tensor], Tensor], x: Tensor) -> int:
    """The most memory held at once during forward and backward, Krylov vectors included; parameters are not counted."""
    net(x).sum().backward()  # gradients exist already
    with Held() as held:
        net(x).sum().backward()
    return held.peak


def digits() -> Data:
    """Standardised 1×8×8 images and labels: three quarters to train on, a quarter to test on."""
    images, labels = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(images, labels, test_size=0.25, random_state=0, stratify=labels)
    mean, deviation = train_x.mean(), train_x.std()
    train, test = (torch.tensor((x - mean) / deviation).float().view(-1, 1, 8, 8) for x in (train_x, test_x))
    return train, torch.tensor(train_y), test, torch.tensor(test_y)


def accuracy(net: nn.Module, x: Tensor, y: Tensor) -> float:
    """The part of images whose largest logit is right."""
    with torch.no_grad():
        return (net(x).argmax(dim=1) == y).float().mean().item()


def train(name: str, net: nn.Module, data: Data, epochs: int, limit: int) -> list[float]:
    """Fit by AdamW under a one-cycle schedule on at most `limit` images an epoch; test accuracy after each epoch."""
    x, y, test_x, test_y = data
    steps = -(-min(len(x), limit) // BATCH)
    optimiser = torch.optim.AdamW(net.parameters(), lr=5e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=epochs * steps)
    found: list[float] = []
    for _ in (bar := tqdm(range(epochs), desc=name, unit="epoch")):
        for rows in torch.randperm(len(x))[:limit].split(BATCH):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(x[rows]), y[rows], label_smoothing=0.1).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            schedule.step()
        found.append(accuracy(net, test_x, test_y))
        bar.set_postfix(accuracy=f"{found[-1]:.2%}")
    return found


def draw(path: Path, curves: dict[str, list[float]], memory: dict[str, list[tuple[int, int]]]) -> None:
    """Accuracy by epoch, and the memory of a training step by iterations or depth."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for name, found in curves.items():
        left.plot(range(1, len(found) + 1), [100 * a for a in found], marker=".", label=name)
    left.set(xlabel="epoch", ylabel="test accuracy [%]", title="handwritten digits")
    left.legend()
    for name, points in memory.items():
        right.plot([k for k, _ in points], [size / 2**20 for _, size in points], marker="o", label=name)
    right.set(xlabel="iterations or depth", ylabel="MiB held at most", title=f"one training step on {BATCH} images")
    right.set_ylim(bottom=0)
    right.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Train both networks; returns accuracies, the part of test images solved, and memory by tolerance and by depth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="256 images, once")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/multiscale.png"))
    options = parser.parse_args(arguments)
    epochs, limit = (1, 256) if options.fast else (options.epochs, 10**6)

    torch.set_num_threads(1)  # the images are too small to share
    data, started = digits(), time.perf_counter()
    torch.manual_seed(options.seed)
    modules = cells()
    deq = equilibrium(modules)
    curves = {"multiscale equilibrium": train("multiscale equilibrium", deq, data, epochs, limit)}
    torch.manual_seed(options.seed)
    curves[f"unrolled to {DEPTH}"] = train(f"unrolled to {DEPTH}", Unrolled(cells(), DEPTH), data, epochs, limit)

    x, report = data[0][:BATCH], deq.solve(data[2]).report
    solved = report.converged.float().mean().item()
    result = {"deq_accuracy": curves["multiscale equilibrium"][-1], "solved": solved}
    result["unrolled_accuracy"] = curves[f"unrolled to {DEPTH}"][-1]
    for name, found in curves.items():
        print(f"{name:22s} accuracy {found[-1]:.2%}")
    print(f"{solved:.1%} of the test images solved, in at most {report.iterations.max()} iterations")
    memory: dict[str, list[tuple[int, int]]] = {"equilibrium, by tolerance": [], "unrolled": []}
    for tolerance in TOLERANCES:
        layer = equilibrium(modules, tolerance)
        iterations, size = int(layer.solve(x).report.iterations.max()), peak_bytes(layer, x)
        memory["equilibrium, by tolerance"].append((iterations, size))
        result |= {f"deq_bytes_{tolerance}": size, f"iterations_{tolerance}": iterations}
        print(f"tolerance {tolerance}: {iterations:3d} iterations, {size / 2**20:.1f} MiB held at most")
    for depth in DEPTHS:
        size = peak_bytes(Unrolled(modules, depth), x)
        memory["unrolled"].append((depth, size))
        result[f"unrolled_bytes_{depth}"] = size
        print(f"unrolled to {depth:2d}: {size / 2**20:.1f} MiB held at most")
    draw(options.out, curves, memory)
    print(f"{time.perf_counter() - started:.1f} s, picture in {options.out}")
    return result


if __name__ == "__main__":
    main()
