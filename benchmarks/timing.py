"""Medians of interleaved runs: contestants take turns, so that a slow minute of the machine is slow for all of them."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

Run = Callable[[], Any]

SHORT, BLOCK = 2e-2, 2e-2
"""A run shorter than SHORT seconds is repeated for BLOCK seconds and counts once, after as many seconds that do not: it
finds the caches and branch predictors full of another contestant's, and takes ten runs to make them its own."""


def threads() -> int:
    """How many threads everyone gets: OMP_NUM_THREADS, else 1."""
    return int(os.environ.get("OMP_NUM_THREADS", "1"))


def clock() -> float:
    """Seconds: the processor's for this process where everyone has one thread, so that what else the machine runs does
    not count; else the wall's."""
    return time.process_time() if threads() == 1 else time.perf_counter()


def medians(runs: Mapping[str, Run], *, rounds: int = 9, warm: int = 1, budget: float = 10.0) -> dict[str, float]:
    """Seconds a run. A contestant that has used up its `budget` of seconds keeps the runs it has, at least three."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        for _ in range(warm):
            run()
    for _ in range(rounds):
        for name, run in runs.items():
            if len(taken[name]) < 3 or sum(taken[name]) < budget:
                taken[name].append(once(run))
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def timed(run: Run) -> float:
    """Seconds of one run."""
    begin = clock()
    run()
    return clock() - begin


def once(run: Run) -> float:
    """Seconds of one run, averaged over several where it is short."""
    seconds = timed(run)
    if seconds >= SHORT:
        return seconds
    begin, repeats = clock(), 0
    while clock() - begin < BLOCK:
        run()
        repeats += 1
    begin = clock()
    for _ in range(repeats):
        run()
    return (clock() - begin) / repeats
