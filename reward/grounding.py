"""Judge reasons against the context, and find what they invent.

Names are compared case-folded and by whole tokens. A capitalised word counts as a name unless it starts a sentence;
there it counts only with a second sign of being one (AWS, PyTorch, C++), with a second invented name right after it
("Initech Systems"), or if the completion writes it with a capital inside a sentence too. So "Strong background" is
prose, and a single invented name at the very start of a reason is not seen as invented (it cites nothing either).
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Any

from reward.breakdown import quote
from reward.clauses import Fault
from reward.contradictions import contradictions
from reward.limits import StrictLimits
from reward.objections import Said, objection_to, what_it_says
from reward.profile import Context
from reward.tokens import Token, counted, grounded, tokenise
from reward.words import EMPTY_WORDS


@dataclass(frozen=True)
class Judgement:
    """One reason: the objection to it ("" if it counts), its false statements, and how many things it cites."""

    objection: str
    false: tuple[Fault, ...] = ()
    cited: int = 0
    invented: int = 0

    @property
    def why(self) -> str:
        """Return what is wrong with the reason in words; "" where it counts and is true."""
        return self.objection or "; ".join(fault.text for fault in self.false)

    @property
    def truth(self) -> float:
        """Return the share of its citations and claims that are true, in [0, 1]; 0 if it does not count."""
        if self.objection:
            return 0.0
        contradicted = len(self.false) - self.invented
        return max(0, self.cited - contradicted) / (self.cited + self.invented)


def judge_reasons(reasons: list[Any], context: Context, limits: StrictLimits) -> list[Judgement]:
    """Judge reasons in order; each has to add something to those before it."""
    texts = [reason.strip() if isinstance(reason, str) else "" for reason in reasons]
    tokens = [tokenise(text) if _readable(text, limits) else [] for text in texts]
    inside = {token.key for row in tokens for token in row if token.namelike and not token.starts}
    earlier: list[Said] = []
    judged: list[Judgement] = []
    for text, row in zip(texts, tokens, strict=True):
        if not row:
            judged.append(Judgement(_unreadable(text, limits)))
            continue
        said = what_it_says(row, context)
        false = _invented(row, context, inside)
        invented = len(false)
        false += contradictions(row, context)
        objection = objection_to(row, said, earlier, context, limits)
        judged.append(Judgement(objection, tuple(false), len(said.cited), invented))
        earlier.append(said)
    return judged


def _readable(text: str, limits: StrictLimits) -> bool:
    # isprintable is False for zero-width and control characters and lone surrogates: ways to hide a repeat.
    return bool(text) and len(text) <= limits.max_reason_chars and text.isprintable()


def _unreadable(text: str, limits: StrictLimits) -> str:
    if not text:
        return "is no text"
    if len(text) > limits.max_reason_chars:
        return f"has {len(text)} characters, over {limits.max_reason_chars}"
    return "has no words" if text.isprintable() else "has characters that cannot be seen"


def _invented(tokens: list[Token], context: Context, inside: set[str]) -> list[Fault]:
    """Find numbers and names that are nowhere in the context, each once."""
    found: dict[str, Fault] = {}
    # "two of four" is counted, and held against what the job requires.
    skipped = counted(tokens) if context.job else set()
    for at, token in enumerate(tokens):
        if token.value is not None:
            missing = at not in skipped and not grounded(token, context.numbers)
        else:
            after = tokens[at + 1] if at + 1 < len(tokens) else None
            missing = token.key not in context.keys and _is_name(token, after, inside, context)
        if missing:
            text = f"{quote(token.text)} stands nowhere in the job or the profile"
            found.setdefault(token.key, Fault(at, at + 1, text))
    return list(found.values())


def _is_name(token: Token, after: Token | None, inside: set[str], context: Context) -> bool:
    if _mixed(token.text):
        return True
    if not token.namelike or token.text == "I" or token.key in EMPTY_WORDS:
        return False
    if not token.starts or token.key in inside:
        return True
    pair = after is not None and after.namelike and not after.before.strip() and not after.starts
    # In "Deep SQL background" the second word is a name of the context, and the first an adjective.
    if after is not None and pair and after.key not in context.keys | EMPTY_WORDS:
        return True
    return sum(c.isupper() or c.isdigit() or c in "+#" for c in token.text) > 1


def _mixed(word: str) -> bool:
    """Return True if a word mixes Latin letters with similar ones of another script."""
    if word.isascii():
        return False
    latin = {unicodedata.name(c, "").startswith("LATIN") for c in word if c.isalpha()}
    return len(latin) == 2
