"""What may be shown of an API's error message: only words of a fixed vocabulary of error messages.

An API may repeat anything in its message: the text of a task, which the publisher does not know, a part of it, escaped,
in capitals or encoded, the vector, or the token. So what is not in the vocabulary is replaced by `…`: names, numbers,
ids, addresses, other languages, whatever is in quotes. Words such as "of" and "the" are shown only between words that
say something. A message of which little would be left is not shown at all.
"""

from __future__ import annotations

import re

MASK = "…"
LEAST_SHARE = 0.5
"""A message is shown if at least this share of its words is in the vocabulary."""
LEAST_WORDS = 2
"""As many words that say something must stand together, after others that are not shown."""
_LONGEST_READ = 1000
"""Characters of a message that are looked at."""


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


_VOCABULARY = _words(
    """
    abort accept access account action active admin ai ai_task ai_tasks aitask aitasks allow answer api app
    application argument array async attempt attribute auth authenticate authentication authorization authorize
    authorized await axioserror backend backoff bad badgatewayexception badrequestexception bandwidth base64 batch
    body boolean bound break broken browser bson buffer bug bulk busy bytes cache call callback cancel cannot
    capacity cast casterror certificate change character check circuit class client clock close closed cluster code
    collection column command commit complete component configuration configure configured conflict
    conflictexception connect connection constraint constructed constructor content context controller convert
    corrupt could count create created_at createdat credential cursor data database date deadline deadlock decimal
    decode decoded default defined defining_impact_area defining_severity defining_topics delete denied deny
    deprecated deserialize detail dimension directory disable disabled disallow disconnect disk document
    documentnotfounderror documents down driver dup duplicate eacces eai_again econnrefused econnreset embed
    embedding empty enabled encode encoding encrypt end endpoint engine enomem enospc enotfound entities entity
    entitynotfounderror entries entry enum enumerable environment epipe error etimedout exceed exceeded exception
    execute execution exhausted exist expect expected expire expired expression extra fail failed failure false
    fatal feature fetch field file filter finite float forbid forbidden forbiddenexception format found function
    gateway gatewaytimeoutexception generic get guard handle handled handler hash header heap host hostname http
    httpexception https id identifier identifying_data identity illegal immutable in_progress incompatible
    incomplete inconsistent incorrect index infinity inner input insert instance insufficient integer integrity
    internal internalservererrorexception introspect introspection invalid invoke issuer item iterable job json key
    large larger length less limit limited list load lock locked long longer lost maintenance malformed many match
    max maximum maxlength media memory merge message metadata method migration min minimum mismatch missing mode
    model module mongo mongobulkwriteerror mongodb mongoerror mongonetworkerror mongoose mongoservererror
    mongoserverselectionerror mongotimeouterror more multiple must name namespace nan negative network nodes non
    none normalized not notfoundexception null nullish number numeric object objectid offline offset operation
    operator option order out outdated overflow overload overloaded own owner page parallel parameter parse parser
    partial patch path payload pending permission permitted pipeline plugin pod pool port positive post postgres
    precondition prefix primary prismaclientknownrequesterror private privilege process processed processing promise
    properties property protocol provided provider proxy publish put queries query queryfailederror queue quota
    range rangeerror rate raw read readonly reason receive received record recursion redirect redis reference
    referenceerror refresh refuse refused regexp reject rejected relation release remote remove replica replicaset
    repository request requestid require required reset resolve resource respond response restart result retries
    retry return revoked role rollback route row rule running runtime save scale schema scope select semaphore send
    sequence serialize server service serviceunavailableexception session set shard short shorter shutdown signature
    size skipped slow small smaller socket specified stack stale start startup state status statuscode stop storage
    store stored stream string subscriber succeed succeeded success support supported suspended sync syntax
    syntaxerror table task temporarily temporary terminate terminated test text text_embedding threshold throttle
    throttled throttler throttlerexception throw thrown time timed timeout timestamp token too topic transaction
    transform transition true try type typeerror unable unauthenticated unauthorized unauthorizedexception
    unavailable undefined unexpected unhandled unique unit unknown unprocessable unprocessableentityexception
    unreachable unreadable unrecognized unsupported update updatedat upload upstream url user uuid valid validate
    validation validationerror validationpipe value vector verify version versionerror violate violation wait
    whitelist worker write written wrong zero
    """
)
"""Words that say what went wrong. A word with an ending such as -s, -ed or -ing counts too."""
_GLUE = _words(
    """
    a after again all already an and another any are as at be been before being both by can can't conforming
    couldn't did didn't do does doesn't don't each either equal every exactly following for from greater had has
    have if in into is isn't it its last later least new next no of off on once one only or other over please same
    should since some such than that the then there these they this to under until up use used using via was wasn't
    were when where which while will with within without won't would you your
    """
)
"""Words that say nothing alone."""
_VERDICTS = _words(
    """
    exceeded exist expired failed forbidden found invalid missing refused rejected required revoked timeout
    unavailable unknown unsupported
    """
)
"""The words of the vocabulary that are shown even alone between words that are not."""
_ENDINGS = ("s", "es", "d", "ed", "ing", "ly")

_QUOTED = re.compile(r"\"[^\"]*\"|`[^`]*`|(?<!\w)'[^']*'(?!\w)|[“„«][^”“»]*[”“»]|\\[\"'][^\"']*\\[\"']")
_TOKEN = re.compile(r"^(\(?)(.*?)([.,:;!?)]{0,2})$")
_STATUS = re.compile(r"[1-5][0-9]{2}")
_SAYS_STATUS = frozenset({"code", "status", "error", "http"})


def shown(message: str) -> str:
    """Return what may be shown of a message; empty if that is too little to mean anything."""
    words = _QUOTED.sub(_as_one_word, message[:_LONGEST_READ]).split()
    kinds = [_kind(word, words[at - 1] if at else "") for at, word in enumerate(words)]
    if not words or sum(kind != "?" for kind in kinds) < LEAST_SHARE * len(words):
        return ""
    _mask_fragments(words, kinds)
    if "+" not in kinds:
        return ""
    found: list[str] = []
    for word, kind in zip(words, kinds, strict=True):
        if kind != "?":
            found.append(word)
        elif not found or found[-1] != MASK:
            found.append(MASK)
    return " ".join(found)


def _kind(word: str, before: str) -> str:
    """`+` for a word that says something, `-` for one that does not, `?` for one that must not be shown."""
    core = _core(word)
    if core in _GLUE:
        return "-"
    if _STATUS.fullmatch(core) and _core(before) in _SAYS_STATUS:
        return "+"
    parts = re.split(r"[-./]", core)
    return "+" if len(parts) <= 4 and all(_is_known(part) for part in parts) else "?"


def _is_known(word: str) -> bool:
    if word in _VOCABULARY:
        return True
    stems = (word[: -len(ending)] for ending in _ENDINGS if word.endswith(ending))
    return any(stem in _VOCABULARY or f"{stem}e" in _VOCABULARY for stem in stems if len(stem) > 2)


def _core(word: str) -> str:
    """A word in lower case, without punctuation around it."""
    match = _TOKEN.match(word)
    return (match[2] if match else word).lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")


def _as_one_word(match: re.Match[str]) -> str:
    """Quoted text: one word, which is shown only if the vocabulary has it."""
    inner = match[0].strip("\"'`“”„«»\\")
    return inner if inner.isascii() and _is_known(inner.lower()) else f" {MASK} "


def _mask_fragments(words: list[str], kinds: list[str]) -> None:
    """Mask what stands alone among words that must not be shown: it may be a part of what they are a part of."""
    at = 0
    while at < len(kinds):
        end = at
        while end < len(kinds) and (kinds[end] == "?") == (kinds[at] == "?"):
            end += 1
        if kinds[at] != "?":
            _mask_run(kinds, at, end, has_verdict=any(_core(word) in _VERDICTS for word in words[at:end]))
        at = end


def _mask_run(kinds: list[str], start: int, end: int, *, has_verdict: bool) -> None:
    is_after, is_before = start > 0, end < len(kinds)
    if is_after and not has_verdict and kinds[start:end].count("+") < LEAST_WORDS:
        kinds[start:end] = "?" * (end - start)
        return
    while is_after and start < end and kinds[start] == "-":
        kinds[start] = "?"
        start += 1
    while is_before and start < end and kinds[end - 1] == "-":
        end -= 1
        kinds[end] = "?"
