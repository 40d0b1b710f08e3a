"""The compiler's own speed: `check` as a whole process, `check` of a long file, `compile` with torch imported.

python -m benchmarks.compiler
"""

from __future__ import annotations

import compileall
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import implicitdsl

from .table import conditions, table

TEN = """layer Deq{i}(n, m, k):
  given x in R^m
  param W in SpectralBall(n, 0.9)
        U in R^(n, m)
        b in R^n = zeros
        C in R^(k, n)
  where h = U x + b
  find z in R^n such that z = tanh(W z + h)
  using anderson(depth=5, tol=1e-6)
  return z, y = C z
"""


def seconds(run: Callable[[], object], times: int) -> float:
    """The median."""
    taken: list[float] = []
    for _ in range(times):
        begin = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def main() -> None:
    compileall.compile_dir(str(Path(implicitdsl.__file__).parent), quiet=1)  # as an installed wheel is
    with tempfile.TemporaryDirectory() as folder:
        short, long = Path(folder, "short.imp"), Path(folder, "long.imp")
        short.write_text("\n\n".join(TEN.format(i=i) for i in range(3)), encoding="utf-8")
        long.write_text("\n\n".join(TEN.format(i=i) for i in range(100)), encoding="utf-8")

        def check(path: Path) -> Callable[[], object]:
            command = [sys.executable, "-m", "implicitdsl", "check", str(path)]
            return lambda: subprocess.run(command, check=True, capture_output=True)

        rows = [
            ["check, 30 lines, whole process", seconds(check(short), 9), 0.3],
            ["check, 100 layers, 1,200 lines, whole process", seconds(check(long), 3), 1.5],
        ]
        import torch  # noqa: F401  # what is timed is compiling, not importing torch

        implicitdsl.compile(TEN.format(i=0), n=8, m=4, k=2)  # modules of the compiler are loaded once
        rows.append(
            ["compile, 10 lines", seconds(lambda: implicitdsl.compile(TEN.format(i=1), n=8, m=4, k=2), 9), 0.05]
        )
    shown = [[str(name), f"{1e3 * float(s):.0f} ms", f"{1e3 * float(bar):.0f} ms"] for name, s, bar in rows]
    print(conditions() + "\n\n" + table(("what", "median", "at most"), shown))


if __name__ == "__main__":
    main()
