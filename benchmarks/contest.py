"""One workload: ours and a peer's solvers, each with its gradient's error against a float64 reference; the ratio."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .table import milliseconds
from .timing import Run, clock, medians, timed

Gradient = Callable[[], Tensor]
"""Forward and backward once (or what a row times); returns the gradient."""

LADDER = tuple(a * 10.0**-k for k in range(1, 8) for a in (1.0, 0.3))
"""Tolerances that a peer is tried at, from loose to tight."""

PATIENCE = 2.5
"""Seconds after which one run of a peer is given up."""


@dataclass(frozen=True)
class Peer:
    """A solver of another library: `at(tol)` is the workload at a tolerance."""

    name: str
    at: Callable[[float], Gradient]


@dataclass(frozen=True)
class Workload:
    """A row. `ours` by variant ("eager", "compiled", …); `exact` is the float64 reference of the gradient.

    `double` is ours in float64; `condition` is that of I - J, the batch's largest; `floor`, `aim` are wanted ratios.
    `shown` are contestants that are timed and printed, but whose ratio does not count.
    """

    name: str
    ours: dict[str, Gradient]
    peers: Sequence[Peer]
    exact: Tensor
    double: Gradient | None
    condition: float | None
    floor: float
    aim: float
    shown: Sequence[Peer] = ()


@dataclass
class Outcome:
    """What a contest found: seconds and errors by contestant."""

    seconds: dict[str, float] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    best_ours: str = ""
    best_peer: str = ""
    double_error: float | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        return self.seconds[self.best_peer] / self.seconds[self.best_ours]


def error(found: Tensor, exact: Tensor) -> float:
    """‖found - exact‖ / ‖exact‖."""
    return float((found.double() - exact).norm() / exact.norm())


def matched(peer: Peer, exact: Tensor, ours: float) -> tuple[float, Gradient, float] | str:
    """The peer at the tolerance where its gradient is nearest to ours in accuracy without being better.

    Tried from loose to tight until it is better, fails or takes too long. Where its error no longer falls, the loosest
    tolerance within a factor of two of the best is taken, so that nobody works for digits that do not come.
    """
    tried: list[tuple[float, float, Gradient]] = []
    for tol in LADDER:
        run = peer.at(tol)
        begin = clock()
        try:
            found = error(run(), exact)
        except (RuntimeError, ArithmeticError) as lost:
            if not tried:
                return f"{peer.name}: {type(lost).__name__}"
            break
        if not found >= ours:  # better than ours, or NaN
            break
        tried.append((found, tol, run))
        if clock() - begin > PATIENCE and timed(run) > PATIENCE:  # the first run may have compiled
            break
    if not tried:
        return f"{peer.name}: no gradient at any tolerance"
    best = min(e for e, _, _ in tried)
    found, tol, run = next(t for t in tried if t[0] <= 2 * best)
    if found > 100 * max(ours, 1e-7):
        return f"{peer.name}: its best gradient is {found:.1e} off"
    return tol, run, found


def contest(work: Workload) -> Outcome:
    """Run a row."""
    outcome = Outcome()
    runs: dict[str, Run] = {}
    for variant, run in work.ours.items():
        outcome.errors[variant] = error(run(), work.exact)
        runs[variant] = run
    reference = max(outcome.errors.values())
    counted: list[str] = []
    for peer in (*work.peers, *work.shown):
        found = matched(peer, work.exact, reference)
        if isinstance(found, str):
            outcome.notes.append(found)
            continue
        tol, run, off = found
        name = f"{peer.name} {tol:.0e}"
        runs[name], outcome.errors[name] = run, off
        if peer in work.peers:
            counted.append(name)
    outcome.seconds = medians(runs)
    outcome.best_ours = min(work.ours, key=outcome.seconds.__getitem__)
    outcome.best_peer = min(counted, key=outcome.seconds.__getitem__)
    if work.double is not None:
        outcome.double_error = error(work.double(), work.exact)
    return outcome


HEAD = ("workload", "ours", "error", "float64", "10·eps·cond", "best peer", "error", "ratio", "at least", "aim")


def summary(work: Workload, outcome: Outcome) -> list[str]:
    """The row of the table."""
    ours, peer = outcome.best_ours, outcome.best_peer
    bound = "" if work.condition is None else f"{10 * torch.finfo(torch.float32).eps * work.condition:.1e}"
    double = "" if outcome.double_error is None else f"{outcome.double_error:.1e}"
    return [
        work.name,
        f"{milliseconds(outcome.seconds[ours])} {ours}",
        f"{outcome.errors[ours]:.1e}",
        double,
        bound,
        f"{milliseconds(outcome.seconds[peer])} {peer}",
        f"{outcome.errors[peer]:.1e}",
        f"{outcome.ratio:.2f}×" + ("" if outcome.ratio >= work.floor else " ✗"),
        f"{work.floor:g}×",
        f"{work.aim:g}×",
    ]


def details(work: Workload, outcome: Outcome) -> str:
    """Every contestant, as indented lines."""
    lines = [f"{work.name}:"]
    best = outcome.seconds[outcome.best_peer]
    for name, seconds in sorted(outcome.seconds.items(), key=lambda item: item[1]):
        lines.append(
            f"    {name:34s} {milliseconds(seconds):>10s}  error {outcome.errors[name]:.1e}  {best / seconds:7.2f}×"
        )
    return "\n".join([*lines, *(f"    {note}" for note in outcome.notes)])
