"""The first pass of the filter: words of two names, aliases, and characters that no spec may hold.

What is wrong is reported and then repaired as its help says, so that the rest of the statement is still read.
"""

from __future__ import annotations

import unicodedata

from implicitdsl.ground.diagnostics import Applicability, Diagnostic, Edit, Fix
from implicitdsl.ground.source import Source, Span

from .tokens import OPERAND_ENDS, Token, types

_PAIRS = {("such", "that"): "SUCH_THAT", ("subject", "to"): "SUBJECT_TO"}
_SUBSCRIPTS = {chr(0x2080 + i): str(i) for i in range(10)}
_INSTEAD = {
    "×": "*", "÷": "/", "≠": "", "√": "sqrt(…)", "∑": "sum(… for i in n)", "∫": "", "∇": "grad(…, v)",
    "&": ",", "%": "", "$": "", "\\": "", "!": "", "?": "", "~": "=", "≈": "=", "≡": "=", "ⁿ": "^n",
    "“": '"', "”": '"', "‘": '"', "’": '"', "⊗": "*", "•": "*", "∗": "*", "⟂": "^T", "⊤": "^T",
    "…": "", ".": "", "₀": "_0", "⟨": "(", "⟩": ")", "∀": "for … in …",
}  # fmt: skip


class Words:
    """Runs over the tokens of a file and keeps what the later passes may see."""

    def __init__(self, source: Source, tokens: list[Token]) -> None:
        self.source = source
        self.tokens = tokens
        self.kept: list[Token] = []
        self.found: list[Diagnostic] = []

    def run(self) -> list[Token]:
        tokens, kept = self.tokens, self.kept
        i, n = 0, len(tokens)
        while i < n:
            t = tokens[i]
            i += 1
            if t.type == "NAME":
                if t.text in ("such", "subject") and i < n:
                    pair = _PAIRS.get((t.text, tokens[i].text))
                    if pair:
                        t = Token(pair, self.source.text[t.start : tokens[i].end], t.start, tokens[i].end)
                        i += 1
                elif t.text == "T" and kept and kept[-1].type == "CARET" and kept[-1].end == t.start:
                    t = Token("TRANSPOSE", "^T", kept.pop().start, t.end)
                kept.append(t)
            elif t.type in _SPECIAL:
                i = self._special(t, i)
            else:
                kept.append(t)
        return kept

    # -- the rare ones -------------------------------------------------------------------------------------------------

    def _special(self, t: Token, i: int) -> int:
        """Handles a token that no rule mentions; gives the place to go on from."""
        match t.type:
            case "ELEMENT":
                self.kept.append(t._replace(type="IN"))
            case "INFINITY":
                self.kept.append(t._replace(type="NAME", text="inf"))
            case "LESS" | "GREATER":
                self._strict(t)
            case "POWER":
                self._report("IMP004", "`**` is not an operator here; a power is `^`", t,
                             self._fix("write `^`", t.span, "^", Applicability.SAFE))  # fmt: skip
                self.kept.append(t._replace(type="CARET"))
            case "QUOTE":
                return self._quote(t, i)
            case "UNKNOWN":
                return self._unknown(t, i)
            case _:  # PARTIAL: the pass over derivatives knows what it means
                self.kept.append(t)
        return i

    def _strict(self, t: Token) -> None:
        wide = t.text + "="
        self._report(
            "IMP004", f"`{t.text}` is not a relation here; write `{wide}`", t,
            self._fix(f"write `{wide}`; a solver cannot tell the two apart", t.span, wide, Applicability.UNSAFE),
        )  # fmt: skip
        self.kept.append(t._replace(type="LE" if t.text == "<" else "GE"))

    def _quote(self, t: Token, i: int) -> int:
        before = self.kept[-1] if self.kept else None
        line_end = self.source.text.find("\n", t.end)
        close = self.source.text.find("'", t.end, None if line_end < 0 else line_end)
        if before is not None and before.text in ("from", "as", "=", ",", "(") and close >= 0:
            span = Span(t.start, close + 1)
            text = f'"{self.source.text[t.end : close]}"'
            self._report("IMP012", "strings are written in double quotes", t._replace(end=close + 1),
                         self._fix(f"write `{text}`", span, text, Applicability.SAFE))  # fmt: skip
            self.kept.append(Token("STRING", text, span.start, span.end))
            while i < len(self.tokens) and self.tokens[i].start < span.end:
                i += 1
            return i
        operand = before is not None and before.type in OPERAND_ENDS
        fixes: list[Fix] = []
        if before is not None and operand:
            fixes.append(self._fix(f"for the transpose write `{before.text}^T`", t.span, "^T", Applicability.UNSAFE))
            if before.type == "NAME":
                fixes.append(
                    self._fix(f"for the derivative write `d{before.text}/dt`", Span(before.start, t.end),
                              f"d{before.text}/dt", Applicability.UNSAFE)
                )  # fmt: skip
        self._report(
            "IMP012", "`'` is neither transpose nor derivative here", t, *fixes,
            help_text="; ".join(f.message for f in fixes) or "write `z^T` for a transpose, `dz/dt` for a derivative",
        )  # fmt: skip
        if operand:
            self.kept.append(t._replace(type="TRANSPOSE"))
        return i

    def _unknown(self, t: Token, i: int) -> int:
        before = self.kept[-1] if self.kept else None
        if t.text in _SUBSCRIPTS and before is not None and before.type == "NAME" and before.end == t.start:
            digits = _SUBSCRIPTS[t.text]
            while i < len(self.tokens) and self.tokens[i].text in _SUBSCRIPTS and self.tokens[i].start == t.end:
                digits += _SUBSCRIPTS[self.tokens[i].text]
                t = t._replace(text=t.text + self.tokens[i].text, end=self.tokens[i].end)
                i += 1
            name = f"{before.text}_{digits}"
            self._report("IMP005", f"the subscript `{t.text}` cannot be part of a name", t,
                         self._fix(f"write `{name}`", t.span, f"_{digits}", Applicability.UNSAFE))  # fmt: skip
            self.kept[-1] = before._replace(text=name, end=t.end)
            return i
        if t.text == '"':
            self._report("IMP003", 'the string opened by `"` is never closed on its line', t)
            line_end = self.source.text.find("\n", t.end)
            end = len(self.source.text) if line_end < 0 else line_end
            while i < len(self.tokens) and self.tokens[i].start < end:
                i += 1
            rest = self.source.text[t.end : end].rstrip()
            self.kept.append(Token("STRING", f'"{rest}"', t.start, t.end + len(rest)))
            return i
        while i < len(self.tokens) and self.tokens[i].type == "UNKNOWN" and self.tokens[i].start == t.end:
            if self.tokens[i].text == '"':
                break
            t = t._replace(text=t.text + self.tokens[i].text, end=self.tokens[i].end)
            i += 1
        name = unicodedata.name(t.text, "") if len(t.text) == 1 and not t.text.isascii() else ""
        message = f"`{_visible(t.text)}`{f' ({name.lower()})' if name else ''} has no meaning in a spec"
        instead = _INSTEAD.get(t.text, "")
        fixes = (self._fix(f"write `{instead}`", t.span, instead, Applicability.DISPLAY),) if instead else ()
        self._report("IMP005", message, t, *fixes)
        return i

    def _fix(self, message: str, span: Span, text: str, applicability: Applicability) -> Fix:
        return Fix(message, (Edit(span, text),), applicability)

    def _report(self, code: str, message: str, t: Token, *fixes: Fix, help_text: str | None = None) -> None:
        self.found.append(Diagnostic(code, message, t.span, self.source, fixes=fixes, help=help_text))


_SPECIAL = types("ELEMENT INFINITY LESS GREATER POWER QUOTE UNKNOWN PARTIAL")


def _visible(text: str) -> str:
    """The text with what cannot be seen spelled as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
