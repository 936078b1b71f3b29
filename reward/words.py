"""The word lists the strict rubric reads English with, all in lower case. Edit here, not in the rules."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Say nothing about a profile by themselves, so they cite nothing.
FUNCTION_WORDS = _words(
    """a about above absent across after against all also although am an and any are as asks at be because been before
    below beside besides between beyond both brings but by can could cover covered covers did do does during each
    either every except few for from full had has have having he her here his how however if in inside into is it its
    just know knows lack lacking lacks less like listed meet meets misses missing more most much near needs neither no
    none nor not of off offers on one only onto or other our out outside over own per present rather require requires
    same she short should shows since so some still such than that the their them then there these they this those
    though through to too under until up upon used uses using very wants was we were what when where whereas whether
    which while who whose why will with within without would yet you your"""
)
# Of these, the ones that tie nothing to a name: "it SQL" says no more than "SQL".
IDLE_WORDS = _words(
    """a also an and any each either every he her his it its just one only or other our own per same she
    some such that the their them these they this those we which who whose you your"""
)
# Stand in nearly every job and profile, so finding them there proves nothing.
GENERIC_WORDS = _words(
    """ability applicant background candidate candidates company cv description employment experience experienced
    fit fits good great headline ideal jd job jobs knowledge level levels location match matches month months must need
    needed nice overall part person plus position preferred profile recent required requirement requirements
    responsibilities resume role roles skill skilled skills solid strong suitable summary team time title top weak work
    worked working year years"""
)
# In a shared run of words these show a sentence and no list; "and" also stands in "Food and Beverage Manager".
JOINING_WORDS = _words("and or of")
PROSE_WORDS = FUNCTION_WORDS - JOINING_WORDS
EMPTY_WORDS = FUNCTION_WORDS | GENERIC_WORDS
# Alone they say nothing: "SQL, related".
VERDICTS = _words("related unrelated partly possible impossible")
LEVELS = _words("beginner intermediate advanced expert")

MONTHS = _words("m mo mos month months")
YEARS = _words("y yr yrs year years")
UNITS = dict.fromkeys(MONTHS, "month") | dict.fromkeys(YEARS, "year")
_COUNT = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen twenty"""
# Read as numbers before a unit alone ("ten years"): elsewhere "one" is a pronoun and "two" a count.
NUMBER_WORDS = {word: float(value) for value, word in enumerate(_COUNT.split())}

HAS = _words(
    """has have having knows know brings holds uses used using covers cover covered offers shows proficient
    skilled experienced claims claim names mentions includes including"""
)
# Weaker: "strong in Rust" claims it, "needs a strong Rust developer" does not.
PRAISES = _words("strong solid depth excellent superb outstanding")
SLIGHTS = _words("thin weak shallow limited poor")
# Praise only where they are denied: "lacks enough Python".
ENOUGH = _words("enough sufficient experience practical real")
# Not to have these is to be strong: "no gap in Python".
SHORTCOMINGS = _words("gap gaps doubt doubts issue issues concern concerns weakness weaknesses problem problems")
LACKS = _words("lacks lack lacking missing misses no not never without none neither nor")
LACKING = LACKS - _words("no not never none neither nor")
# After the skills they deny: "Airflow and Spark are missing", "Airflow is not listed".
ABSENT = _words("missing absent lacking")
FOUND = _words("listed shown present found mentioned covered there")
# Of these, the ones that speak of the profile alone: the job can mention or list a skill, too.
PRESENT = _words("present there")
AUXILIARIES = _words("is are was were both all also entirely completely seem seems")
# A clause with one of these says something of its own, so an earlier "has" or "lacks" stops short of it.
VERBS = (
    _words("is are was were does do seems stands beats fits matches exceeds falls appears meets meet")
    | HAS
    | LACKS
    | PRAISES
)
# End the reach of "has" and "lacks".
TURNS = _words(
    """requires require needs need asks asked wants against despite though although but while whereas however yet
    except instead than for as where when outside beyond versus vs beside besides"""
)
# In a list of what is lacking these are no clause of their own: "lacks Airflow, any Spark and the rest".
LIST_WORDS = _words("a an any the even either of")
# With one of these near, "lacks Python" is about how much of it.
QUALIFIERS = (
    LEVELS
    | ENOUGH
    | _words(
        """deep deeper depth strong stronger solid senior production recent hands formal long longer more level levels
        year years month months exposure"""
    )
)
WORKS = _words("work works worked working experience")
# Between a skill and its months: "SQL for 48m".
HELD_FOR = _words("for since of with in after at has")
# Comparisons of a number with a number or a range: "1 year falls short of 3-6".
BELOW = _words("below under short")
ABOVE = _words("above exceeds beyond")
INSIDE = _words("inside within meets")
WITHIN = INSIDE - {"meets"}  # what meets a number may be more
BOUNDS = _words("minimum min maximum max least most")
EVERY = _words("all every each any")
NONE = _words("none no zero")
REQUIREMENTS = _words("required requirement requirements skill skills")
BESIDES = _words("beyond except besides beside but apart other gap gaps missing lacking")
# Of a title's words these say nothing of its field ...
SENIORITY = _words("senior junior lead staff principal head chief trainee intern graduate of and the for in i ii iii")
# ... and these, which many fields have, a little.
ROLES = _words(
    """engineer manager developer analyst specialist officer coordinator consultant technician assistant administrator
    supervisor executive associate advisor agent representative planner scientist designer clerk operator"""
)
# Roles that may be near each other without a word in common.
MAKERS = _words("engineer developer programmer architect analyst scientist technologist administrator designer")
