"""The command line: `implicitdsl check | explain | emit | fmt`.

Exit status: 0 clean or warnings only, 1 errors in a spec (or, for `fmt --check`, a file to reformat), 2 bad usage or
an unreadable file. `check` imports neither torch nor cvxpy nor sympy, so everything but argparse is imported late.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from implicitdsl.ground.records import dataclass

if TYPE_CHECKING:
    from .ground.diagnostics import Diagnostic
    from .ground.errors import SpecError
    from .ground.source import Source

OK, ERRORS, USAGE = 0, 1, 2
_STDIN = "-"
_FIX_ROUNDS = 10  # a fix can make room for another one; a text that still changes after this is left as it stands


@dataclass(frozen=True, slots=True)
class _Result:
    """What a command prints, and its exit status: known before the first byte is written to a pipe that may close."""

    status: int
    out: str = ""
    err: str = ""


@dataclass(frozen=True, slots=True)
class _Input:
    """A spec as read: `path` is None for standard input. `text` keeps its line ends, so that offsets are the file's."""

    name: str
    text: str
    path: Path | None
    bom: bool

    def source(self, text: str | None = None) -> Source:
        from .ground.source import Source

        return Source(self.name, self.text if text is None else text)

    def write(self, text: str) -> None:
        if self.path is not None:
            self.path.write_bytes(text.encode("utf-8-sig" if self.bom else "utf-8"))


class _Unreadable(Exception):
    """A path that cannot be read, with the reason as its message."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status; argparse itself exits with 2 on bad usage."""
    arguments = _parser().parse_args(argv)
    try:
        with _uncollected():
            result: _Result = arguments.run(arguments)
    except _Unreadable as reason:
        result = _Result(USAGE, err=f"implicitdsl: {reason}")
    for stream, text in ((sys.stdout, result.out), (sys.stderr, result.err)):
        _write(stream, text)
    return result.status


@contextmanager
def _uncollected() -> Iterator[None]:
    """A command lives for a moment and frees little: a tenth of its time would go to looking for cyclic garbage."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="implicitdsl",
        description="Check, explain, show and format specs of implicit layers.",
        epilog="Exit status: 0 clean or warnings only, 1 errors, 2 bad usage or unreadable file.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    check = commands.add_parser("check", help="report errors and warnings")
    check.add_argument("paths", nargs="+", metavar="PATH", help="a file, a directory to search for *.imp, or - (stdin)")
    check.add_argument("--format", choices=("text", "json", "sarif", "github"), default="text")
    check.add_argument(
        "--fix", action="store_true", help="apply safe fixes; a fixed stdin goes to stdout, findings to stderr"
    )
    check.add_argument("-v", "--verbose", action="store_true", help="show infos with their source lines too")
    check.set_defaults(run=_check)

    explain = commands.add_parser("explain", help="derive what a spec computes, or explain a diagnostic code")
    explain.add_argument("subject", metavar="FILE | CODE")
    explain.add_argument("--format", choices=("text", "markdown", "latex"), default="text")
    explain.add_argument("--layer", metavar="NAME", help="the layer to explain; default: all")
    explain.set_defaults(run=_explain)

    emit = commands.add_parser("emit", help="print a stage of the compiler")
    emit.add_argument("file", metavar="FILE")
    emit.add_argument("--stage", choices=("spec", "tokens", "ast", "ir", "plan", "python"), required=True)
    emit.add_argument("--layer", metavar="NAME", help="the layer to print; default: all")
    emit.set_defaults(run=_emit)

    fmt = commands.add_parser("fmt", help="format specs in place")
    fmt.add_argument("paths", nargs="+", metavar="PATH", help="a file, a directory to search for *.imp, or - (stdin)")
    fmt.add_argument("--check", action="store_true", help="change nothing; exit 1 if a file is not formatted")
    fmt.set_defaults(run=_fmt)
    return parser


class _Version(argparse.Action):
    """`--version`."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(f"implicitdsl {_version()}")
        parser.exit(OK)


def _version() -> str:
    from . import __version__

    return __version__


# check


def _check(arguments: argparse.Namespace) -> _Result:
    from . import driver

    inputs, notices, status = _read_all(arguments.paths)
    findings: list[Diagnostic] = []
    fixed_stdin: str | None = None
    for spec in inputs:
        if arguments.fix:
            text, found, count = _fixed(spec)
            if count and spec.path is not None:
                spec.write(text)
                notices.append(f"{spec.name}: {count} fix{'es' if count > 1 else ''} applied")
            if spec.path is None:
                fixed_stdin = text
        else:
            found = driver.check_source(spec.source())
        findings += found
    if any(finding.is_error for finding in findings):
        status = max(status, ERRORS)
    to_stdout = fixed_stdin is None
    report = _report(findings, arguments, sys.stdout if to_stdout else sys.stderr) if inputs else ""
    if to_stdout:
        return _Result(status, report, "\n".join(notices))
    return _Result(status, fixed_stdin or "", "\n".join([*notices, report]))


def _fixed(spec: _Input) -> tuple[str, list[Diagnostic], int]:
    """The text with safe fixes applied until none is left, its findings, and how many fixes are in it.

    A round that would leave more errors than before is dropped: a fix must never make a spec worse.
    """
    from . import driver
    from .ground.fixes import apply_safe_fixes

    text, count = spec.text, 0
    findings = driver.check_source(spec.source())
    for _ in range(_FIX_ROUNDS):
        fixed = apply_safe_fixes(text, findings)
        if fixed.text == text:
            break
        after = driver.check_source(spec.source(fixed.text))
        if sum(d.is_error for d in after) > sum(d.is_error for d in findings):
            break
        text, findings, count = fixed.text, after, count + len(fixed.applied)
    return text, findings, count


def _report(findings: list[Diagnostic], arguments: argparse.Namespace, stream: Any) -> str:
    """JSON, SARIF and annotations hold every finding in full; text shows infos briefly unless `--verbose`."""
    if arguments.format == "json":
        from .ground.render import json

        return json.render(findings)
    if arguments.format == "sarif":
        from .ground.render import sarif

        return sarif.render(findings, version=_version())
    if arguments.format == "github":
        from .ground.render import github

        return github.render(findings)
    from .ground.render import text

    colour = text.wants_colour(stream)
    body = text.render(findings, colour=colour, brief_infos=not arguments.verbose)
    total = text.summary(findings) or "no errors, no warnings"
    return f"{body}\n\n{total}" if body else total


# explain, emit


def _explain(arguments: argparse.Namespace) -> _Result:
    subject: str = arguments.subject
    if re.fullmatch(r"(?i)imp\d*", subject) and not Path(subject).exists():
        return _explain_code(subject.upper(), arguments.format)
    from . import driver

    spec = _read(subject)
    return _compiled(lambda: driver.explain(spec.source(), arguments.layer, arguments.format))


def _explain_code(code: str, form: str) -> _Result:
    from .ground.render import page, text

    if form == "latex":
        return _Result(USAGE, err="implicitdsl: the page of a code is written as text or markdown, not as latex")
    try:
        markdown = page.page(code)
    except KeyError:
        return _Result(USAGE, err=f"implicitdsl: no code {code}; did you mean {page.nearest(code)}?")
    if form == "markdown":
        return _Result(OK, markdown)
    return _Result(OK, page.render(markdown, colour=text.wants_colour(sys.stdout)))


def _emit(arguments: argparse.Namespace) -> _Result:
    from . import driver

    spec = _read(arguments.file)
    return _compiled(lambda: driver.emit(spec.source(), arguments.stage, arguments.layer))


def _compiled(command: Callable[[], str]) -> _Result:
    """The driver raises `SpecError` for the spec and `ValueError` where `--layer` is needed or names none."""
    from .ground.errors import SpecError

    try:
        return _Result(OK, command())
    except SpecError as error:
        return _Result(ERRORS, err=_errors(error))
    except ValueError as error:
        return _Result(USAGE, err=f"implicitdsl: {error}")


def _errors(error: SpecError) -> str:
    from .ground.render import text

    return text.render(error.diagnostics, colour=text.wants_colour(sys.stderr), brief_infos=True)


# fmt


def _fmt(arguments: argparse.Namespace) -> _Result:
    from . import driver
    from .ground.errors import SpecError

    inputs, messages, status = _read_all(arguments.paths)
    out = ""
    for spec in inputs:
        try:
            formatted = driver.format_source(spec.source())
        except SpecError as error:
            messages.append(_errors(error))
            status = max(status, ERRORS)
            continue
        if "\r\n" in spec.text:
            formatted = formatted.replace("\r\n", "\n").replace("\n", "\r\n")
        if arguments.check:
            if formatted != spec.text:
                messages.append(f"would reformat {spec.name}")
                status = max(status, ERRORS)
        elif spec.path is None:
            out = formatted
        elif formatted != spec.text:
            spec.write(formatted)
            messages.append(f"reformatted {spec.name}")
    return _Result(status, out, "\n".join(messages))


# reading and writing


def _read_all(arguments: Iterable[str]) -> tuple[list[_Input], list[str], int]:
    """Every spec that can be read, in the order given and once, the complaints about the others, and the status."""
    inputs: dict[str, _Input] = {}
    complaints: list[str] = []
    for argument in arguments:
        try:
            for name in _expand(argument):
                if name not in inputs:
                    inputs[name] = _read(name)
        except _Unreadable as reason:
            complaints.append(f"implicitdsl: {reason}")
    return list(inputs.values()), complaints, USAGE if complaints else OK


def _expand(argument: str) -> list[str]:
    """The specs under a directory, hidden folders left out; anything else stands for itself."""
    if argument == _STDIN or not os.path.isdir(argument):
        return [argument]
    root = Path(argument)
    found = [
        str(path)
        for path in sorted(root.rglob("*.imp"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts)
    ]
    if not found:
        raise _Unreadable(f"no *.imp file in `{argument}`")
    return found


def _read(name: str) -> _Input:
    path = None if name == _STDIN else Path(name)
    try:
        data = sys.stdin.buffer.read() if path is None else path.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise _Unreadable(f"cannot read `{name}`: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _Unreadable(f"cannot read `{name}`: not UTF-8 at byte {error.start}") from error
    return _Input("<stdin>" if path is None else name, text, path, data.startswith(b"\xef\xbb\xbf"))


def _write(stream: Any, text: str) -> None:
    """Write a text that ends with one newline; a reader that has gone away does not change the verdict."""
    if not text:
        return
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")
    try:
        stream.write(text if text.endswith("\n") else text + "\n")
        stream.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # or the interpreter complains when it closes it


if __name__ == "__main__":
    sys.exit(main())
