"""`layer Name(dims…):`, and text that stands where no section is."""

from __future__ import annotations

from implicitdsl.ground.diagnostics import Applicability, Diagnostic, Edit, Fix, Label
from implicitdsl.ground.source import Source, Span

from . import ast
from .build import Header, ident
from .errors import section_word
from .recover import Failure, feed
from .tokens import RELATIONS, Token


def read(tokens: list[Token], source: Source, found: list[Diagnostic]) -> tuple[Header, bool]:
    """The header that the tokens are, as far as it can be read, and whether it was wrong."""
    kept = [t for t in tokens if t.type != "NEWLINE"]
    outcome = feed(kept)
    if not isinstance(outcome, Failure):
        return outcome, False
    names = [t for t in kept if t.type == "NAME"]
    at = kept[0]
    span = Span(at.start, kept[-1].end)
    if len(kept) < 2 or kept[1].type != "NAME":
        wrong = kept[1] if len(kept) > 1 else at
        found.append(_wrong("a layer needs a name", wrong.span, source, "write `layer Name(n, m):`"))
        return Header(span, ast.Ident(Span(at.end, at.end), "_"), tuple(ident(t) for t in names)), True
    if not _closed(kept):
        opener = next(t for t in kept if t.type == "LPAR")
        label = Label(opener.span, "opened here")
        found.append(Diagnostic("IMP003", "`(` opened here is never closed", opener.span, source, labels=(label,),
                                help=f"write `layer {names[0].text}(…):`"))  # fmt: skip
    elif kept[-1].type != "COLON" and outcome.index >= len(kept):
        end = kept[-1].end
        fix = Fix("write `:` at the end of the header", (Edit(Span(end, end), ":"),), Applicability.SAFE)
        found.append(Diagnostic("IMP004", f"the header of `{names[0].text}` does not end in `:`", span, source,
                                fixes=(fix,)))  # fmt: skip
    else:
        wrong = kept[min(outcome.index, len(kept) - 1)]
        message = f"`{wrong.text}` cannot stand in the header of `{names[0].text}`"
        found.append(_wrong(message, wrong.span, source, "a header is `layer Name(n, m):`; dimensions are names"))
    return Header(span, ident(names[0]), tuple(ident(t) for t in names[1:])), True


def _closed(tokens: list[Token]) -> bool:
    return sum((t.type == "LPAR") - (t.type == "RPAR") for t in tokens) <= 0


def before_layer(section: list[Token], source: Source) -> Diagnostic:
    """A section above the first `layer` of a file that has one."""
    word = section[0]
    message = f"`{word.text}` stands before the first `layer`"
    return _wrong(message, word.span, source, "move it below a `layer` header; only `import` stands above")


def outside(tokens: list[Token], source: Source) -> Diagnostic:
    """Text that belongs to no section."""
    first = tokens[0]
    meant = section_word(first.text) if first.type == "NAME" else None
    if meant:
        fix = Fix(f"did you mean `{meant}`?", (Edit(first.span, meant),), Applicability.UNSAFE)
        return Diagnostic("IMP004", f"`{first.text}` is not a section", first.span, source, fixes=(fix,))
    line = tokens[: next((i for i, t in enumerate(tokens) if t.type == "NEWLINE"), len(tokens))]
    span = Span(first.start, line[-1].end if line else first.end)
    if any(t.type in RELATIONS for t in line):
        return _wrong("a relation stands outside any section", span, source,
                      "say what it determines: `find z such that …`, or `where` for a definition")  # fmt: skip
    words = "given, param, const, fn, let, where, find, argmin_, using or return"
    return _wrong(f"`{first.text}` begins no section", span, source, f"a section begins with {words}")


def _wrong(message: str, span: Span, source: Source, help_text: str) -> Diagnostic:
    return Diagnostic("IMP004", message, span, source, help=help_text)
