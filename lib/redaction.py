"""Takes whatever looks like a secret out of a text that is about to be shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

LONGEST = 32_768
SHORTEST_KNOWN = 6
HIDDEN = "[redacted]"
CUT = "[cut]"

# Once a secret has begun, all of this goes: so nothing is left of a second one right behind it.
PIECE = r"[A-Za-z0-9_.~+/=#%-]"
RUN = r"[A-Za-z0-9_-]"
# A quote in JSON that stands in JSON has a backslash before it.
QUOTED = r"\\{1,8}[\"'][^\"'\\]*+|\"(?:[^\"\\]|\\.)*+\"?|'(?:[^'\\]|\\.)*+'?"
# `x=1`, `"x": 1`, `(b'x', b'1')` and `x%3D1`.
IS = r"(?:\\{0,8}[\"'])?[ \t]{0,8}(?:[:=]|%3[Dd]|,(?=[ \t]{0,8}b?[\"']))[ \t]{0,8}(?:b(?=[\"']))?"
GAP = r"(?:[ \t]|%20){1,8}"
NAMES = (
    r"access_?tokens?|refresh_?tokens?|id_?token|setup_?token|code_?verifier|client_?secret|"
    r"pass(?:word|wd|phrase)|pepper|secret_?keys?|credential_?keys?|(?:api|relay)[_-]?keys?|"
    r"sessionid|csrf_?(?:middleware)?token"
)
PEM = "-----{} [A-Z ]{{0,40}}PRIVATE KEY-----"


class Rule(NamedTuple):
    """A pattern, what stands for it, and words of which a text must hold one (in lower case).

    To look for the words costs a small part of what the pattern costs, and nearly no text holds
    any.
    """

    words: tuple[str, ...]
    pattern: re.Pattern[str]
    shown: str = HIDDEN


# No pattern takes more than linear time, as strangers write parts of these texts. Values that have
# a name come first: another pattern might take the name, and leave the value.
RULES = (
    Rule(
        ("private key-----",),
        re.compile(rf"{PEM.format('BEGIN')}.*?(?:{PEM.format('END')}|\Z)", re.DOTALL),
    ),
    Rule(("cookie",), re.compile(rf"(?i)(cookie)(?:{IS})(?:{QUOTED}|[^\r\n]+)"), rf"\1: {HIDDEN}"),
    Rule(
        ("authorization",),
        re.compile(
            rf"(?i)(authorization)(?:{IS})(?:{QUOTED}|(?:(?:bearer|basic){GAP})*\S+(?:[ \t]+\S+)?)"
        ),
        rf"\1: {HIDDEN}",
    ),
    Rule(
        ("token", "verifier", "secret", "pass", "pepper", "key", "sessionid"),
        re.compile(
            rf"(?i)({NAMES})(?:{IS})(?:(?:bearer|basic){GAP})*(?:{QUOTED}|[^\s\"'&,;)}}\]]+)"
        ),
        rf"\1={HIDDEN}",
    ),
    Rule(
        ("token", "secret"),
        re.compile(rf"(?i)\b(token|secret)(?:{IS})\\{{0,8}}[\"']?{PIECE}{{12,}}"),
        rf"\1={HIDDEN}",
    ),
    # Ours, Anthropic's, and a JSON object in base64, of which tokens are made.
    Rule(
        ("sk-ant-", "rk_", "adm_", "whsec_", "eyj"),
        re.compile(rf"((?i:sk-ant-)|(?:rk|adm|whsec)_(?={RUN}{{16}})|eyJ(?={RUN}{{10}})){PIECE}*"),
        rf"\1{HIDDEN}",
    ),
    # Keys of other providers; a word that ends in "sk-" begins none.
    Rule(
        ("sk-",),
        re.compile(rf"(?<![A-Za-z])sk-(?!ant-)(?={PIECE}{{0,20}}[0-9]){PIECE}{{20,}}"),
        f"sk-{HIDDEN}",
    ),
    Rule(
        ("bearer", "basic"),
        re.compile(rf"(?i)((?:bearer{GAP})+|basic{GAP}(?=[a-z]{{0,64}}[0-9+/=])){PIECE}{{6,}}"),
        rf"\1{HIDDEN}",
    ),
    Rule(
        ("code=", "state=", "token=", "key="),
        re.compile(r"(?i)([?&](?:code|state|token|key)=)[^\s&\"'<>]+"),
        rf"\1{HIDDEN}",
    ),
    Rule(("://",), re.compile(r"(?<=://)[^\s/\"'<>]*@"), f"{HIDDEN}@"),
    # What is pasted when a login is linked: `code#state`.
    Rule(("#",), re.compile(rf"(?<!{RUN}){RUN}{{16,}}#{RUN}{{16,}}")),
    Rule(("/setup/",), re.compile(rf"(?<=/setup/){RUN}{{8,}}")),
)
# Nothing that has a name for people is so long and so mixed.
LONG = 40
MIXED = re.compile(rf"(?<!{RUN})(?={RUN}*[0-9])(?={RUN}*[a-z])(?={RUN}*[A-Z]){RUN}{{{LONG},}}")
TAIL = re.compile(rf"{PIECE}*\Z")


def redactor(known: Iterable[str] = ()) -> Callable[[str], str]:
    """Return a function that hides secrets: these `known` ones, and whatever looks like one.

    It takes some 6 us for a line without any. A text of more than LONGEST characters is cut first,
    so that what it costs has a bound.
    """
    literals = sorted({text for text in known if len(text) >= SHORTEST_KNOWN}, key=len)
    exact = re.compile("|".join(re.escape(text) for text in reversed(literals)))

    def redact(text: str) -> str:
        if len(text) < SHORTEST_KNOWN:
            return text
        if len(text) > LONGEST:
            # A secret that the cut would halve might not be known by what is left of it.
            text = TAIL.sub("", text[:LONGEST]) + CUT
        if literals:
            text = exact.sub(HIDDEN, text)
        lowered = text.lower()
        for words, pattern, shown in RULES:
            # Not any(): it costs more than all the looking.
            for word in words:
                if word in lowered:
                    text = pattern.sub(shown, text)
                    break
        if len(text) >= LONG and max(map(len, text.split()), default=0) >= LONG:
            text = MIXED.sub(HIDDEN, text)
        return text

    return redact


redact = redactor()
