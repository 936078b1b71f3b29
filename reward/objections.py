"""Objections to a reason, true or not: it cites nothing, says nothing, repeats, is padded or copied."""

from __future__ import annotations

from typing import Any, NamedTuple

from reward.breakdown import quote
from reward.clauses import clauses_of, find_terms
from reward.limits import StrictLimits
from reward.profile import Context, Part, Term
from reward.tokens import Token, grounded
from reward.words import (
    ABSENT,
    EMPTY_WORDS,
    FOUND,
    FUNCTION_WORDS,
    HAS,
    IDLE_WORDS,
    JOINING_WORDS,
    LACKS,
    PRAISES,
    PROSE_WORDS,
    SLIGHTS,
    VERDICTS,
)


class Said(NamedTuple):
    """A reason's citations, the terms it names, both with each term as one thing, and all its words."""

    cited: set[str]
    names: set[Term]
    things: set[Term]
    words: set[str]


def what_it_says(tokens: list[Token], context: Context) -> Said:
    """Collect what a reason cites and names: meaningful words, and numbers by value."""
    places = find_terms(tokens, context.terms)
    inside = {at + n for at, name in places for n in range(len(name))}
    cited = {at: _word(token) for at, token in enumerate(tokens) if cites(token, context)}
    names = {name for _, name in places}
    # "Risk Management" is one thing and no two.
    things = names | {(word,) for at, word in cited.items() if at not in inside}
    return Said(set(cited.values()), names, things, {token.key for token in tokens if token.value is None})


def _word(token: Token) -> str:
    return token.key if token.value is None else f"{token.value:g}"


def cites(token: Token, context: Context) -> bool:
    """Return True if a word or number of a reason is taken from the context and means something."""
    if token.value is not None:
        return grounded(token, context.numbers)
    return token.key in context.keys and token.key not in EMPTY_WORDS


def objection_to(tokens: list[Token], said: Said, earlier: list[Said], context: Context, limits: StrictLimits) -> str:
    """Return why a reason does not count, whether or not it is true; "" if it counts."""
    keys = [token.key for token in tokens]
    if not said.cited:
        return "cites nothing from the job or the profile"
    if _repeats(said, earlier, limits):
        return "repeats what an earlier reason says"
    if len(keys) > limits.tokens_per_citation * len(said.cited) or len(set(keys)) < limits.distinct_share * len(keys):
        return "is padded"
    if len(said.names) > limits.max_terms:
        return "lists everything"
    if _copied(keys, context, limits):
        return "copies the job or the profile"
    if twice := _listed_twice(tokens, context):
        return f"lists {quote(' '.join(twice))} twice"
    if not any(_says(tokens, at, context) for at in range(len(tokens))):
        return "says nothing of what it names"
    if context.candidate and not any(_of_candidate(token, context.candidate) for token in tokens):
        return "speaks of the job alone"
    return ""


def _says(tokens: list[Token], at: int, context: Context) -> bool:
    """Return True if a word makes a statement of names: "has SQL" and "SQL at Acme", not "the SQL"."""
    key = tokens[at].key
    if key in HAS | LACKS | ABSENT | FOUND | PRAISES | SLIGHTS:
        return True
    if tokens[at].value is not None or key in IDLE_WORDS:
        return False
    if key not in FUNCTION_WORDS:
        return key not in context.keys | VERDICTS
    # "SQL at Acme" ties one to the other; "in SQL" ties nothing.
    return any(cites(t, context) for t in tokens[:at]) and any(cites(t, context) for t in tokens[at + 1 :])


def _of_candidate(token: Token, candidate: Part) -> bool:
    if token.value is not None:
        return grounded(token, candidate.numbers)
    return token.key in LACKS | ABSENT or (token.key not in EMPTY_WORDS and (token.key,) in candidate.runs)


def _listed_twice(tokens: list[Token], context: Context) -> Term:
    """Return an entry that a list repeats: "claims SQL, Excel, SQL"; () where there is none."""
    earlier: set[Term] = set()
    for clause in clauses_of(tokens, context):
        last = clause[-1]
        if len(clause) == 1 and last.words in earlier and not tokens[last.start].unit:
            return last.words
        earlier.add(last.words)
    return ()


def _repeats(said: Said, earlier: list[Said], limits: StrictLimits) -> bool:
    if any(max(_overlap(said.things, e.things), _overlap(said.words, e.words)) > limits.repeat_share for e in earlier):
        return True
    before = {key for e in earlier for key in e.cited | e.words}
    return not (said.cited | said.words) - FUNCTION_WORDS - before


def _overlap(left: set[Any], right: set[Any]) -> float:
    return len(left & right) / len(left | right) if left | right else 0.0


def _copied(keys: list[str], context: Context, limits: StrictLimits) -> bool:
    """Return True if the reason is one run of the context, or mostly long runs of it."""
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
    """Find the longest run of tokens that the context and the start of `keys` share: (index in the context, length)."""
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
