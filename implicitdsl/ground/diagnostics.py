"""What the compiler says about a spec: values only; `render` prints them."""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum

from implicitdsl.ground.records import dataclass

from .codes import CODES
from .source import Source, Span


class Level(StrEnum):
    """How bad it is. Only errors change the exit status. Equals its name in the JSON output."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Applicability(StrEnum):
    """Whether `check --fix` may apply a fix: only SAFE ones keep the meaning that the author can have intended."""

    SAFE = "safe"
    UNSAFE = "unsafe"
    DISPLAY = "display"


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace the text of `span` (empty span: insert) by `text`."""

    span: Span
    text: str


@dataclass(frozen=True, slots=True)
class Fix:
    """An edit the author may want, e.g. `W z`."""

    message: str
    edits: tuple[Edit, ...] = ()
    applicability: Applicability = Applicability.DISPLAY


@dataclass(frozen=True, slots=True)
class Label:
    """A second place that explains the first."""

    span: Span
    text: str


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding: code, message with the values, primary span, labels, notes, help and fixes.

    `level` defaults to the code's own in `codes.CODES`; `help` defaults to the first fix's message.
    """

    code: str
    message: str
    span: Span
    source: Source = field(repr=False)
    level: Level = None  # pyright: ignore[reportAssignmentType]  # filled in below
    labels: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()
    help: str | None = None
    fixes: tuple[Fix, ...] = ()

    def __post_init__(self) -> None:
        if self.level is None:  # pyright: ignore[reportUnnecessaryComparison]
            object.__setattr__(self, "level", Level(CODES[self.code].level))
        if self.help is None and self.fixes:
            object.__setattr__(self, "help", self.fixes[0].message)

    @property
    def file(self) -> str:
        return self.source.name

    @property
    def line(self) -> int:
        return self.source.position(self.span.start)[0]

    @property
    def column(self) -> int:
        return self.source.position(self.span.start)[1]

    @property
    def end_line(self) -> int:
        return self.source.position(self.span.end)[0]

    @property
    def end_column(self) -> int:
        return self.source.position(self.span.end)[1]

    @property
    def is_error(self) -> bool:
        return self.level is Level.ERROR
