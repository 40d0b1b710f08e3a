"""Optimisation layers against qpth, cvxpylayers and QPLayer: `python -m benchmarks.argmin`.

Forward and backward of a weighted sum of the solution, in float64, all contestants in one process and in turns. A
contestant counts where its gradient is within 1e-4 of the exact one of the KKT conditions and its point is feasible.
Where none does, the one whose gradient is nearest is timed, and the ratio against it stands in brackets.
"""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from .optimum_peers import Solve
from .optimum_rows import ROWS, Row
from .table import arguments, conditions, milliseconds, publish, table
from .timing import medians, threads

os.environ.setdefault("RAYON_NUM_THREADS", str(threads()))  # MOREAU's

COUNTS, FEASIBLE = 1e-4, 1e-4
PATIENCE = 60.0
"""Seconds after which one run of a peer is enough."""

HEAD = ("workload", "ours", "error", "best peer that counts", "error", "ratio", "at least", "aim", "others")


class Entrant:
    """A contestant: its data as leaves, one run, and what it is off by."""

    def __init__(self, row: Row, solve: Solve, data: Sequence[Tensor]) -> None:
        self.row, self.solve = row, solve
        self.leaves = [t.clone().requires_grad_() for t in data]
        self.point = self.leaves[0]

    def __call__(self) -> None:
        for t in self.leaves:
            t.grad = None
        self.point = self.solve(*self.leaves)
        (self.point * self.row.weight).sum().backward()

    def measure(self) -> tuple[float, float]:
        """The relative error of the gradient, and the violation of the constraints."""
        found = torch.cat([g.flatten() for i in self.row.shared if (g := self.leaves[i].grad) is not None])
        off = float((found.double() - self.row.exact).norm() / self.row.exact.norm())
        return off, self.row.violation(self.point.detach().double())


def contest(row: Row) -> list[str]:
    """Run a row; its line of the table."""
    runs: dict[str, Entrant] = {}
    wrong: dict[str, Entrant] = {}
    off: dict[str, float] = {}
    lost: list[str] = []
    entrants = {"ours": Entrant(row, row.ours, row.data)}
    for name, solve in row.peers.items():
        entrants[name] = Entrant(row, solve, row.roots.get(name, row.data))
    for name, entrant in entrants.items():
        begin = time.perf_counter()
        try:
            entrant()
            off[name], violation = entrant.measure()
        except Exception as failure:
            if name == "ours":
                raise
            lost.append(f"{name}: {type(failure).__name__}")
            continue
        taken = time.perf_counter() - begin
        said = f"gradient off {off[name]:.1e}, violation {violation:.1e}, first run {taken:.2f} s"
        print(f"    {name:22s} {said}", flush=True)
        if name == "ours" or (off[name] <= COUNTS and violation <= FEASIBLE and taken < PATIENCE):
            runs[name] = entrant
        else:
            wrong[name] = entrant
            lost.append(f"{name}: {off[name]:.0e} off" + (f", {violation:.0e} outside" if violation > FEASIBLE else ""))
    peers = [name for name in runs if name != "ours"]
    if wrong and not peers:
        nearest = min(wrong, key=off.__getitem__)
        runs[nearest] = wrong[nearest]
    seconds = medians(runs, rounds=7, warm=1, budget=8.0)
    for name in peers:
        print(f"    {name:22s} {milliseconds(seconds[name])}")
    mine = seconds["ours"]
    best = min(runs.keys() - {"ours"}, key=seconds.__getitem__, default=None)
    ratio = math.inf if best is None else seconds[best] / mine
    shown = "none" if best is None else f"{milliseconds(seconds[best])} {best}"
    shown = shown if peers or best is None else f"none ({shown})"
    factor = "" if best is None else f"{ratio:.2f}×" if peers else f"({ratio:.2f}×)"
    others = [f"{n} {milliseconds(seconds[n])}" for n in peers if n != best] + lost
    verdict = "" if off["ours"] <= row.off and (not peers or ratio >= row.floor) else " ✗"
    print(f"    ours {milliseconds(mine)}, {off['ours']:.1e} off; {shown}: {factor} of {row.floor}×\n", flush=True)
    return [
        row.name,
        milliseconds(mine),
        f"{off['ours']:.1e}",
        shown,
        "" if best is None else f"{off[best]:.1e}",
        factor + verdict,
        f"{row.floor:g}×",
        f"{row.aim:g}×",
        "; ".join(others),
    ]


def main() -> None:
    given = arguments(__doc__ or "", list(ROWS))
    torch.set_num_threads(threads())
    warnings.simplefilter("ignore")
    lines: list[list[str]] = []
    for name, make in ROWS.items():
        if given.only in name:
            row = make()
            print(row.name, flush=True)
            lines.append(contest(row))
    where = conditions("qpth", "cvxpylayers", "diffcp", "moreau", "proxsuite", "cvxpy", "clarabel")
    publish(f"## Optimisation layers\n\n{where}\n\n{table(HEAD, lines)}", given.save)


if __name__ == "__main__":
    main()
