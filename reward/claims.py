"""The claims of a completion's reasons, by their place in the text: true ones and false ones."""

from __future__ import annotations

from typing import NamedTuple

from reward.grounding import Judgement, judge_reasons
from reward.limits import StrictLimits
from reward.objections import cites
from reward.parsing import read_strict
from reward.profile import Context, read_context
from reward.tokens import Token, tokenise


class Claim(NamedTuple):
    """Characters `start` to before `stop` of a reason: taken from the context, or false for the reason in `fault`."""

    start: int
    stop: int
    fault: str = ""


class Reason(NamedTuple):
    """One reason: its text, the objection to it ("" if it counts), its false statements, and its claims in order."""

    text: str
    objection: str
    faults: tuple[str, ...]
    claims: tuple[Claim, ...]


def read_claims(completion: str, context: str, limits: StrictLimits) -> list[Reason] | None:
    """Return the reasons of a completion as the strict rubric reads them; None where they are no list of texts.

    Never raises on any completion text. As in grading, reasons past the most allowed are left unread.
    """
    found = read_strict(completion)
    listed = found.fields.get("reasons") if found else None
    if not isinstance(listed, list) or not all(isinstance(reason, str) for reason in listed):
        return None
    reasons = [reason.strip() for reason in listed[: limits.max_reasons]]
    known = read_context(context)
    judged = judge_reasons(reasons, known, limits)
    return [_reason(text, judgement, known) for text, judgement in zip(reasons, judged, strict=True)]


def _reason(text: str, judgement: Judgement, context: Context) -> Reason:
    tokens = tokenise(text)
    faults = [_fault_of(at, tokens, judgement, context) for at in range(len(tokens))]
    faults_once = tuple(dict.fromkeys(fault.text for fault in judgement.false))
    return Reason(text, judgement.objection, faults_once, tuple(_claims(text, tokens, faults, context)))


def _fault_of(at: int, tokens: list[Token], judgement: Judgement, context: Context) -> str:
    """Return the fault at this token, or ""; an invented name is a fault wherever it comes again."""
    for fault in judgement.false:
        again = not cites(tokens[at], context) and tokens[at].key == tokens[fault.start].key
        if fault.start <= at < fault.stop or again:
            return fault.text
    return ""


def _claims(text: str, tokens: list[Token], faults: list[str], context: Context) -> list[Claim]:
    """Join neighbouring tokens that make one claim: "Steel Erection", "1 year is in 3-6"."""
    claims: list[Claim] = []
    joins = False  # whether the token before this one is part of the last claim
    for token, fault in zip(tokens, faults, strict=True):
        if not fault and not cites(token, context):
            joins = False
            continue
        stop = token.at + len(token.text)
        if joins and claims[-1].fault == fault and (fault or text[claims[-1].stop : token.at] == " "):
            claims[-1] = claims[-1]._replace(stop=stop)
        else:
            claims.append(Claim(token.at, stop, fault))
        joins = True
    return claims
