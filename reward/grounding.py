"""Whether a reason stands on the context: what it cites, what it invents, and whether it is its own words.

Names are compared case-folded and by whole tokens. A capitalised word counts as a name unless it starts a sentence;
there it counts only with a second sign of being one (AWS, PyTorch, C++), with a second invented name right after it
("Initech Systems"), or if the completion writes it with a capital inside a sentence too. So "Strong background" is
prose, and a single invented name at the very start of a reason is not seen as invented (it cites nothing either).
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Any, NamedTuple

from reward.breakdown import quote
from reward.clauses import Fault, find_terms
from reward.contradictions import contradictions
from reward.limits import StrictLimits
from reward.profile import Context, Term
from reward.tokens import Token, grounded, tokenise
from reward.words import EMPTY_WORDS, FUNCTION_WORDS, JOINING_WORDS, PROSE_WORDS


@dataclass(frozen=True)
class Judgement:
    """One reason: why it does not stand ("" if it does), what in it is false, and how many things it cites."""

    objection: str
    false: tuple[Fault, ...] = ()
    cited: int = 0
    invented: int = 0

    @property
    def why(self) -> str:
        """What is wrong with it in words; "" where it stands and says nothing false."""
        return self.objection or "; ".join(fault.text for fault in self.false)

    @property
    def truth(self) -> float:
        """The share of what it cites or claims that holds, in [0, 1]; 0 if it does not stand."""
        if self.objection:
            return 0.0
        contradicted = len(self.false) - self.invented
        return max(0, self.cited - contradicted) / (self.cited + self.invented)


class _Said(NamedTuple):
    """What a reason says: the tokens it cites, the names it speaks, both with each name once, and its words."""

    cited: set[str]
    names: set[Term]
    things: set[Term]
    words: set[str]


def judge_reasons(reasons: list[Any], context: Context, limits: StrictLimits) -> list[Judgement]:
    """Judge reasons in order; each has to add something to those before it."""
    texts = [reason.strip() if isinstance(reason, str) else "" for reason in reasons]
    tokens = [tokenise(text) if _readable(text, limits) else [] for text in texts]
    inside = {token.key for row in tokens for token in row if token.namelike and not token.starts}
    earlier: list[_Said] = []
    judged: list[Judgement] = []
    for text, row in zip(texts, tokens, strict=True):
        if not row:
            judged.append(Judgement(_unreadable(text, limits)))
            continue
        said = _said(row, context)
        false = _invented(row, context, inside)
        invented = len(false)
        false += contradictions(row, context)
        judged.append(
            Judgement(_objection(row, said, earlier, context, limits), tuple(false), len(said.cited), invented)
        )
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


def _said(tokens: list[Token], context: Context) -> _Said:
    """What the reason made of `tokens` says; it cites words that mean something, and numbers by value."""
    places = find_terms(tokens, context.terms)
    inside = {at + n for at, name in places for n in range(len(name))}
    cited = {at: _word(token) for at, token in enumerate(tokens) if cites(token, context)}
    names = {name for _, name in places}
    # "Risk Management" is one thing and no two.
    things = names | {(word,) for at, word in cited.items() if at not in inside}
    return _Said(set(cited.values()), names, things, {token.key for token in tokens if token.value is None})


def _word(token: Token) -> str:
    return token.key if token.value is None else f"{token.value:g}"


def cites(token: Token, context: Context) -> bool:
    """Whether a word or number of a reason is taken from the context, and means something."""
    if token.value is not None:
        return grounded(token, context.numbers)
    return token.key in context.keys and token.key not in EMPTY_WORDS


def _invented(tokens: list[Token], context: Context, inside: set[str]) -> list[Fault]:
    """Numbers and names that stand nowhere in the context, each once."""
    found: dict[str, Fault] = {}
    for at, token in enumerate(tokens):
        if token.value is not None:
            missing = not grounded(token, context.numbers)
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
    """Whether a word mixes Latin letters with look-alikes of another script."""
    if word.isascii():
        return False
    latin = {unicodedata.name(c, "").startswith("LATIN") for c in word if c.isalpha()}
    return len(latin) == 2


def _objection(tokens: list[Token], said: _Said, earlier: list[_Said], context: Context, limits: StrictLimits) -> str:
    """Why a reason earns nothing whether or not it is true, or ""."""
    keys = [token.key for token in tokens]
    if not said.cited:
        return "cites nothing from the job or the profile"
    if _repeats(said, earlier, limits):
        return "repeats what an earlier reason says"
    if len(keys) > limits.tokens_per_citation * len(said.cited) or len(set(keys)) < limits.distinct_share * len(keys):
        return "is padded"
    if len(said.names) > limits.max_terms:
        return "lists everything"
    linked = any(t.value is None and (t.key not in context.keys or t.key in FUNCTION_WORDS) for t in tokens)
    if not linked or _copied(keys, context, limits):
        return "copies the job or the profile"
    return ""


def _repeats(said: _Said, earlier: list[_Said], limits: StrictLimits) -> bool:
    if any(max(_overlap(said.things, e.things), _overlap(said.words, e.words)) > limits.repeat_share for e in earlier):
        return True
    before = {key for e in earlier for key in e.cited | e.words}
    return not (said.cited | said.words) - FUNCTION_WORDS - before


def _overlap(left: set[Any], right: set[Any]) -> float:
    return len(left & right) / len(left | right) if left | right else 0.0


def _copied(keys: list[str], context: Context, limits: StrictLimits) -> bool:
    """Whether the reason is one run of the context, or mostly long runs of it."""
    copied = at = 0
    while at < len(keys):
        start, length = _longest_run(keys[at:], context)
        if length == len(keys):
            return True
        copied += length if _is_copied(context.tokens[start : start + length], context, limits) else 0
        at += max(1, length)
    return copied >= limits.copy_share * len(keys)


def _is_copied(run: tuple[Token, ...], context: Context, limits: StrictLimits) -> bool:
    # "Finite Element Analysis, Sheet Metal" is two items of a list and "Data Analyst at Acme" three, not five and four.
    terms = {i for at, term in find_terms(list(run), context.terms) for i in range(at + 1, at + len(term))}
    loose = [token for at, token in enumerate(run) if at not in terms and token.key not in JOINING_WORDS]
    prose = any(token.key in PROSE_WORDS for token in loose) or any(token.starts for token in run[1:])
    return len(loose) >= (limits.copy_run if prose else limits.copy_list_run)


def _longest_run(keys: list[str], context: Context) -> tuple[int, int]:
    """Where the context shares the longest run of tokens with the head of `keys`: (index in the context, length)."""
    best = (0, 0)
    for start, token in enumerate(context.tokens):
        length = 0
        if token.key == keys[0]:
            for mine, theirs in zip(keys, context.tokens[start:], strict=False):
                if mine != theirs.key:
                    break
                length += 1
        best = max(best, (start, length), key=lambda run: run[1])
    return best
