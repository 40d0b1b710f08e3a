"""The pass over one section that knows what is open: brackets, bars, calls, indices, newlines that end a statement.

A bar closes the innermost open bar after an operand, else it opens; `||` splits in two where only `|` is open.
"""

from __future__ import annotations

from dataclasses import field

from implicitdsl.ground.diagnostics import Diagnostic, Label
from implicitdsl.ground.records import dataclass
from implicitdsl.ground.source import Source

from .tokens import CLOSERS, INFIX, OPERAND_ENDS, SEPARATORS, WORDS, Token

DEEPEST = 100  # open brackets; later passes recurse over the tree
MOST_ABANDONED = 20  # items a section may lose to open brackets before the rest is given up
_CONTINUATIONS = frozenset(("SUCH_THAT", "SUBJECT_TO", "FOR", "UNTIL"))
_UNFINISHED = (WORDS | INFIX | frozenset(("MINUS", "COMMA", "SEMICOLON", "COLON", "LAYER"))) - {"OR"}
_CLAUSES = frozenset(("SUCH_THAT", "SUBJECT_TO", "UNTIL"))
_SLOT_WORDS = {"forward": "FORWARD", "backward": "BACKWARD", "start": "START"}
_CLOSING = {"LPAR": "RPAR", "CALL": "RPAR", "LSQB": "RSQB", "INDEX": "RSQB", "LBRACE": "RBRACE",
            "BAR": "BAR_END", "DBAR": "DBAR_END"}  # fmt: skip
_KINDS = {"CALL": "LPAR", "INDEX": "LSQB"}
_SHOWN = {"RPAR": ")", "RSQB": "]", "RBRACE": "}", "BAR_END": "|", "DBAR_END": "||"}


@dataclass(slots=True)
class Opened:
    """An open bracket or bar: its token, the index of its section's raw token, and how long the output was."""

    token: Token
    place: int
    length: int


@dataclass(slots=True)
class Lines:
    """Filters the tokens of one section, which begin with its keyword (or BARE)."""

    source: Source
    tokens: list[Token]
    found: list[Diagnostic]
    reached: Token | None = None  # the keyword that follows the section
    out: list[Token] = field(default_factory=list[Token])
    stack: list[Opened] = field(default_factory=list[Opened])
    lost: bool = False  # an item was dropped
    _abandoned: int = 0
    _calls_closed: set[int] = field(default_factory=set[int])  # starts of `)` that end a call

    def run(self) -> list[Token]:
        """The tokens that the parser reads. Items with a bracket that is never closed are dropped."""
        i = 0
        kind = self.tokens[0].type
        while True:
            while i < len(self.tokens):
                t = self.tokens[i]
                match t.type:
                    case "NEWLINE":
                        self._newline(i)
                    case "LPAR" | "LSQB" | "LBRACE":
                        self._open(t, i)
                        if len(self.stack) > DEEPEST:
                            return self._too_deep(t)
                    case "RPAR" | "RSQB" | "RBRACE":
                        self._close(t)
                    case "BAR" | "DBAR":
                        self._bar(t, i)
                        if len(self.stack) > DEEPEST:
                            return self._too_deep(t)
                    case "NAME":
                        self.out.append(self._word(t, i, kind))
                    case _:
                        if t.type in _CLAUSES and self.stack:
                            self._repair(t)
                        self.out.append(t)
                i += 1
            if not self.stack:
                break
            i = self._abandon()
        while len(self.out) > 1 and self.out[-1].type in ("NEWLINE", "SEMICOLON"):
            self.out.pop()
        return self.out

    # -- newlines and words ----------------------------------------------------------------------------------------

    def _newline(self, i: int) -> None:
        if self.stack or self.out[-1].type in _UNFINISHED or self.out[-1].type in SEPARATORS:
            return
        following = next((t.type for t in self.tokens[i + 1 :] if t.type != "NEWLINE"), None)
        if following is not None and following not in _CONTINUATIONS:
            self.out.append(self.tokens[i])

    def _word(self, t: Token, i: int, kind: str) -> Token:
        """The name `t`, or the word it is where it stands."""
        following = self.tokens[i + 1].type if i + 1 < len(self.tokens) else None
        if kind == "USING" and not self.stack and (self.out[-1].type == "USING" or self.out[-1].type in SEPARATORS):
            if t.text == "on_failure" and following == "EQ":
                return t._replace(type="ON_FAILURE")
            return t._replace(type=_SLOT_WORDS.get(t.text, "NAME"))
        if self.stack or self.out[-1].type not in OPERAND_ENDS:
            return t
        if t.text == "from" and kind == "IMPORT":
            return t._replace(type="FROM")
        if t.text == "as" and kind == "FN":
            return t._replace(type="AS")
        if t.text == "or" and any(o.type == "UNTIL" for o in self.out) and self.out[0].type == "FIND":
            return t if any(o.type == "SUCH_THAT" for o in self.out) else t._replace(type="OR")
        return t

    # -- brackets --------------------------------------------------------------------------------------------------

    def _open(self, t: Token, i: int) -> None:
        before = self.out[-1]
        kind = t.type
        if before.end == t.start and before.type in OPERAND_ENDS:
            named_target = before.type == "NAME" and len(self.out) > 1 and self.out[-2].type in ("ARGMIN", "ARGMAX")
            if kind == "LPAR" and not named_target:
                if before.type in ("NAME", "DERIVATIVE") or before.start in self._calls_closed:
                    kind = "CALL"
            elif kind == "LSQB" and before.type not in ("NUMBER", "SUPERSCRIPT", "RBRACE") and not named_target:
                kind = "INDEX"
        t = t._replace(type=kind)
        self.stack.append(Opened(t, i, len(self.out)))
        self.out.append(t)

    def _close(self, t: Token) -> None:
        wanted = CLOSERS[t.type]
        kinds = [_KINDS.get(o.token.type, o.token.type) for o in self.stack]
        if wanted not in kinds:
            if kinds and kinds[-1] in CLOSERS.values():
                self._mismatched(t)
            else:
                self._report("IMP003", f"`{t.text}` closes nothing", t)
            return
        while kinds[-1] != wanted:
            kinds.pop()
            opened = self.stack.pop()
            self._never_closed(opened.token, t)
            self.out.append(Token(_CLOSING[opened.token.type], "", t.start, t.start))
        if self.stack.pop().token.type == "CALL":
            self._calls_closed.add(t.start)
        self.out.append(t)

    def _mismatched(self, t: Token) -> None:
        """`(a, b]`: reported, then taken as closed."""
        opened = self.stack.pop().token
        close = _CLOSING[opened.type]
        help_text = f"write `{_SHOWN[close]}`"
        if self.out[self.out.index(opened) - 1].type == "IN":
            help_text = "half-open intervals are not sets here; write `[a, b]` or `(a, b)`, also `[0, inf]`"
        label = Label(opened.span, f"`{opened.text}` opened here")
        self._report("IMP003", f"`{opened.text}` is closed by `{t.text}`", t, label, help_text=help_text)
        self.out.append(t._replace(type=close))

    # -- bars ------------------------------------------------------------------------------------------------------

    def _bar(self, t: Token, i: int) -> None:
        innermost = self.stack[-1].token.type if self.stack else None
        if self.out[-1].type in OPERAND_ENDS:
            if innermost == t.type:
                self.stack.pop()
                self.out.append(t._replace(type=_CLOSING[t.type]))
                return
            if t.type == "DBAR" and innermost == "BAR" and len(t.text) == 2:
                for start in (t.start, t.start + 1):
                    self._bar(Token("BAR", "|", start, start + 1), i)
                return
        self.stack.append(Opened(t, i, len(self.out)))
        self.out.append(t)

    # -- what is never closed --------------------------------------------------------------------------------------

    def _repair(self, t: Token) -> None:
        """`t` cannot stand in a bracket: reports what is open and closes it."""
        self._never_closed(self.stack[-1].token, t)
        while self.stack:
            opened = self.stack.pop().token
            self.out.append(Token(_CLOSING[opened.type], "", t.start, t.start))

    def _abandon(self) -> int:
        """At the section's end with something open: reports it, drops its item; gives the place to read on from."""
        opened = self.stack[0]
        line_end = self.source.text.find("\n", opened.token.end)
        same_line = [o for o in self.stack if line_end < 0 or o.token.start < line_end]
        self._never_closed(same_line[-1].token, self.reached)
        self.stack.clear()
        self.lost = True
        self._abandoned += 1
        cut = opened.length
        while cut > 1 and self.out[cut - 1].type not in SEPARATORS and self.out[cut - 1].type not in _CLAUSES:
            cut -= 1
        del self.out[cut:]
        for i in range(opened.place, len(self.tokens) if self._abandoned < MOST_ABANDONED else 0):
            if self.tokens[i].type == "NEWLINE":
                return i + 1
        return len(self.tokens)

    def _never_closed(self, opened: Token, reached: Token | None) -> None:
        closing = _SHOWN[_CLOSING[opened.type]]
        what = f"`{opened.text}` opened here is never closed"
        before = f"before `{reached.text}`" if reached is not None and reached.text else "at the end of the expression"
        help_text = f"add `{closing}` {before}"
        if opened.type in ("BAR", "DBAR"):
            help_text += "; between nested bars leave a space, `| |x| - y |`"
        label = Label(opened.span, "opened here")
        labels = (label,)
        if reached is not None and reached.text:
            labels = (label, Label(reached.span, f"`{reached.text}` reached while it is open"))
        self._report("IMP003", what, opened, *labels, help_text=help_text)

    def _too_deep(self, t: Token) -> list[Token]:
        self._report("IMP004", f"more than {DEEPEST} brackets are open here", t, help_text="name parts with `where`")
        self.stack.clear()
        self.lost = True
        return []

    def _report(self, code: str, message: str, t: Token, *labels: Label, help_text: str | None = None) -> None:
        self.found.append(Diagnostic(code, message, t.span, self.source, labels=labels, help=help_text))
