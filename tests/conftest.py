"""Shared fixtures: golden files, and torch's global modes, which no test leaves changed or finds changed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

GOLDEN = Path(__file__).parent / "golden"
FOUND, LEFT = "found", "left behind"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the files under tests/golden")


def pytest_configure(config: pytest.Config) -> None:
    # Inductor keeps what it compiled from one run to the next, the grad mode that a graph leaves behind included: a run
    # must not depend on what another checkout, or another state of this machine, once compiled.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(config.rootpath / ".pytest_cache" / "inductor"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("cuda")]
    if not marked:
        return
    import torch  # only where a test asks for a device: most of the suite is torch-free

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(autouse=True)
def torch_modes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test begins with torch's global modes as they are by default. One that finds or leaves others is named in
    the summary, and does not take those that run after it along."""
    _default_modes(request, FOUND)
    yield
    _default_modes(request, LEFT)


def _default_modes(request: pytest.FixtureRequest, what: str) -> None:
    torch = sys.modules.get("torch")  # most of the suite is torch-free
    if torch is None:
        return
    modes = (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype())
    if modes != (True, False, torch.float32):
        request.node.user_properties.append((what, f"{modes}"))
        torch.set_grad_enabled(True)
        torch.set_default_dtype(torch.float32)
    _default_dispatch(request, what, torch)


def _default_dispatch(request: pytest.FixtureRequest, what: str, torch: Any) -> None:
    """What the dispatcher leaves out: a guard of torch's that outlives its frame sets it whenever it is collected."""
    excluded, keys = torch._C._dispatch_tls_local_exclude_set(), torch._C.DispatchKey
    if not excluded.has(keys.AutogradOther):
        return
    request.node.user_properties.append((what, f"{excluded}"))
    for name in dir(keys):
        if name.startswith(("Autograd", "ADInplace", "Functionalize", "FuncTorch", "Python", "Conjugate", "Negative")):
            torch._C._dispatch_tls_set_dispatch_key_excluded(getattr(keys, name), False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for reports in list(terminalreporter.stats.values()):
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name in (FOUND, LEFT) and report.when == "teardown":
                    modes = "grad mode, inference mode, default dtype, or what the dispatcher leaves out:"
                    terminalreporter.write_line(f"{report.nodeid} {name}: {modes} {value}", red=True)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`golden(path, text)`: `text` must equal the file `tests/golden/<path>`; `--update-golden` rewrites it."""
    update = bool(request.config.getoption("--update-golden"))

    def compare(path: str, text: str) -> None:
        file = GOLDEN / path
        if update:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            return
        assert file.exists(), f"no golden file {path}; run pytest with --update-golden and review it"
        assert text == file.read_text(encoding="utf-8")

    return compare
