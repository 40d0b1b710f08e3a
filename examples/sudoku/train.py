"""4 × 4 Sudoku learned from solutions only: the rules appear as the equalities of a quadratic program.

    python examples/sudoku/train.py            # 200 batches, about a minute on one core
    python examples/sudoku/train.py --fast     # 45 batches

Amos & Kolter (OptNet, ICML 2017, §4.4): min 0.05 ‖z‖² − pᵀz over z ≥ 0, A z = A z₀, where p holds the given digits and
A is learned; no rule of the game is told. The 288 grids are generated here, and those of the test puzzles are in no
training puzzle. Beside it stands a convolutional network with forty times the parameters.

The script prints the share of solved test puzzles for both, and draws the learning curves and how far the rules (each
cell, row, column and block holds every digit once) lie outside the space that A spans.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

import implicitdsl as imp

SIDE, CELLS, SIZE, ROWS, BATCH = 4, 16, 64, 40, 60
HERE = Path(__file__).parent


def rules() -> Tensor:
    """(64, 64), rank 40: the sums that are one in every solved grid, cell by cell, then by row, column and block."""
    which = torch.arange(SIZE).view(SIDE, SIDE, SIDE)  # row, column, digit
    groups = [which[i, j, :] for i in range(SIDE) for j in range(SIDE)]
    groups += [which[i, :, k] for i in range(SIDE) for k in range(SIDE)]
    groups += [which[:, j, k] for j in range(SIDE) for k in range(SIDE)]
    groups += [which[i : i + 2, j : j + 2, k].flatten() for i in (0, 2) for j in (0, 2) for k in range(SIDE)]
    return torch.stack([torch.zeros(SIZE).index_fill(0, g, 1.0) for g in groups])


def grids() -> Tensor:
    """All 288 solved grids, one-hot, (288, 64)."""
    found: list[Tensor] = []

    def fill(rows: list[tuple[int, ...]]) -> None:
        if len(rows) == SIDE:
            found.append(nn.functional.one_hot(torch.tensor(rows), SIDE).flatten())
            return
        for row in itertools.permutations(range(SIDE)):
            clash = any(row[j] == other[j] for other in rows for j in range(SIDE))
            if len(rows) % 2:
                clash = clash or any(set(row[j : j + 2]) & set(rows[-1][j : j + 2]) for j in (0, 2))
            if not clash:
                fill([*rows, row])

    fill([])
    return torch.stack(found).double()


def puzzles(solved: Tensor, count: int, random: torch.Generator, every: Tensor) -> tuple[Tensor, Tensor]:
    """Grids with 4 to 9 digits left that have no other solution, and their solutions, (count, 64) each."""
    given: list[Tensor] = []
    answers: list[Tensor] = []
    while len(given) < count:
        grid = solved[torch.randint(len(solved), (), generator=random)]
        left = int(torch.randint(4, 10, (), generator=random))
        keep = torch.zeros(CELLS, dtype=grid.dtype).index_fill(0, torch.randperm(CELLS, generator=random)[:left], 1.0)
        puzzle = grid * keep.repeat_interleave(SIDE)
        if int((every @ puzzle == left).sum()) == 1:
            given.append(puzzle)
            answers.append(grid)
    return torch.stack(given), torch.stack(answers)


class Convolutional(nn.Module):
    """What such a puzzle is usually given to: 3 × 3 convolutions of 64 channels."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (SIDE, 64, 64, 64, 64)
        layers = [m for a, b in itertools.pairwise(sizes) for m in (nn.Conv2d(a, b, 3, padding=1), nn.ReLU())]
        self.layers = nn.Sequential(*layers, nn.Conv2d(64, SIDE, 1))

    def forward(self, p: Tensor) -> Tensor:
        grid = p.view(-1, SIDE, SIDE, SIDE).movedim(-1, 1)
        return self.layers(grid).movedim(1, -1).softmax(-1).flatten(1)


def share(found: Tensor, answers: Tensor) -> float:
    """The share of puzzles whose every cell is right."""
    right = found.view(-1, CELLS, SIDE).argmax(-1) == answers.view(-1, CELLS, SIDE).argmax(-1)
    return float(right.all(-1).double().mean())


def untold(A: Tensor) -> float:
    """How much of the rules A does not span, 0 to 1."""
    wanted = torch.linalg.qr(torch.linalg.svd(rules().double())[2][:40].T)[0]
    basis = torch.linalg.qr(A.detach().double().T)[0]
    return float((wanted - basis @ (basis.T @ wanted)).norm() / wanted.norm())


def train(
    name: str, net: nn.Module, data: tuple[Tensor, Tensor], batches: int, rate: float, look: Callable[[], float]
) -> list[float]:
    """Adam on the squared distance to the solution; `look` every 10 batches."""
    random = torch.Generator().manual_seed(1)
    optimiser = torch.optim.Adam(net.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, batches, 0.05 * rate)
    curve = [look()]
    for batch in (bar := tqdm(range(batches), desc=name, unit="batch")):
        rows = torch.randint(len(data[0]), (BATCH,), generator=random)
        loss = (net(data[0][rows]) - data[1][rows]).square().sum(-1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if batch % 10 == 9:
            curve.append(look())
            bar.set_postfix(loss=f"{float(loss.detach()):.3f}", solved=f"{curve[-1]:.0%}")
    return curve


def draw(path: Path, curves: dict[str, list[float]], outside: list[float]) -> None:
    """Solved share by batch, and the part of the rules that A does not span."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
    for name, curve in curves.items():
        left.plot([10 * i for i in range(len(curve))], curve, label=name)
    left.set(xlabel="batch", ylabel="solved test puzzles", ylim=(-0.02, 1.02), title="puzzles of unseen grids")
    left.legend()
    right.plot([10 * i for i in range(len(outside))], outside, color="tab:blue")
    right.set(xlabel="batch", ylabel="part of the rules outside the span of A", ylim=(0, 1), title="what was learned")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Train both, measure, print, draw; the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--fast", action="store_true", help="45 batches")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/sudoku.png"), help="where the picture goes")
    arguments = parser.parse_args(argv)
    batches, began = 45 if arguments.fast else 200, time.perf_counter()
    random = torch.Generator().manual_seed(arguments.seed)
    torch.manual_seed(arguments.seed)
    every = grids()
    order = torch.randperm(len(every), generator=random)
    data = puzzles(every[order[48:]], 600 if arguments.fast else 3000, random, every)
    test = puzzles(every[order[:48]], 100 if arguments.fast else 300, random, every)
    layer: Any = imp.compile(HERE / "sudoku.imp", n=SIZE, m=ROWS).double()
    network = Convolutional().double()
    outside: list[float] = []

    def look(net: nn.Module) -> float:
        if net is layer:
            outside.append(untold(layer.A))
        with torch.no_grad():
            return share(net(test[0]), test[1])

    curves = {
        "quadratic program": train("quadratic program", layer, data, batches, 0.05, lambda: look(layer)),
        "convolutions": train(
            "convolutions", network, data, 5 * batches if not arguments.fast else batches, 2e-3, lambda: look(network)
        ),
    }
    figures = {name: curve[-1] for name, curve in curves.items()}
    figures |= {"outside": outside[-1], "outside_before": outside[0]}
    print(f"\nsolved puzzles of {len(test[0])}, whose grids were never seen")
    for name, net in (("quadratic program", layer), ("convolutions", network)):
        size = sum(p.numel() for p in net.parameters())
        print(f"{name:18} {figures[name]:6.1%}   {size:,} parameters")
    print(f"part of the rules outside the span of A: {outside[0]:.2f} before, {outside[-1]:.2f} after")
    draw(arguments.out, curves, outside)
    print(f"picture: {arguments.out}; {time.perf_counter() - began:.0f} s")
    return figures


if __name__ == "__main__":
    main()
