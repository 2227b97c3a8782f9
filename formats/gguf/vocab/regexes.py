r"""The splitting regexes of byte-level BPE, and one canonical spelling for each.

The same split is spelled in many ways in the wild: ``(?i:'s|'t)`` or ``'[sS]|'[tT]``, possessive or
greedy, a raw newline or ``\n``. `canonical_regex` rewrites a spelling by fragments that are equal for
every text; what is left is compared as a string.

One character is given up on purpose: Oniguruma's ``(?i:'s)`` also matches an apostrophe and U+017F (the
long s), ``'[sS]`` does not, and neither does llama.cpp.
"""

from __future__ import annotations

import re

_CONTRACTIONS = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_O200K_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_O200K_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def _o200k(suffix: str, digits: str) -> str:
    """The camel-case family: a word is upper* lower+ or upper+ lower*."""
    first = rf"[^\r\n\p{{L}}\p{{N}}]?{_O200K_UPPER}*{_O200K_LOWER}+{suffix}"
    second = rf"[^\r\n\p{{L}}\p{{N}}]?{_O200K_UPPER}+{_O200K_LOWER}*{suffix}"
    return rf"{first}|{second}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _SPACES
QWEN2 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _SPACES
QWEN35 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + _SPACES
MINICPM5 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _SPACES
UFAKZEKA = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _SPACES
SEED_CODER = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|" + _SPACES
EXAONE_MOE = (
    _CONTRACTIONS
    + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|"
    + _SPACES
)
JAIS2 = (
    _CONTRACTIONS
    + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    + "".join(rf"|\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4, "1,2"))
    + r"|\s{1}"
)
GPT4O = _o200k(_CONTRACTIONS + "?", r"\p{N}{1,3}")
TEKKEN = _o200k("", r"\p{N}")

DIGIT = r"\p{N}"
DIGITS = r"\p{N}+"
DIGITS_3 = r"\p{N}{1,3}"
ASCII_DIGITS_3 = "[0-9][0-9][0-9]"
THOUSANDS = r"(?=(\d{3})+(?!\d))"
LINES = r"[^\n]+|[\n]+"
BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
FALCON_PUNCTUATION = r"[\p{P}\$\+<=>\^~\|`]+"
DEFAULT_PUNCTUATION = r"[\p{P}\$\+<=>\^~\|]+"

NEWLINE = r"[\r\n]"
# Letters with case, spelled out; U+2126 and U+212A as escapes, for editors like to normalize them.
DEEPSEEK_LETTERS = (
    r"\s?["
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-"
    "ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1f7dᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126"
    "ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-"
    "𑣟𞤀-𞥃"
    "]+"
)
DEEPSEEK_PUNCTUATION = r"\s?[!-/:-~！-／：-～‘-‟　-。]+"
DEEPSEEK_TRAILING = r"\s+$"
DEEPSEEK_CJK = "[一-龥ࠀ-一가-퟿]+"
DEEPSEEK_CODER_LETTERS = r"\s?\p{L}+"
DEEPSEEK_CODER_PUNCTUATION = r"\s?\p{P}+"
DEEPSEEK3_CJK = "[一-龥぀-ゟ゠-ヿ]+"
DEEPSEEK3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"| ?[\p{P}\p{S}]+[\r\n]*|" + _SPACES
)

# Regexes that match every character of every text, so that Split's "Removed, invert" (keep the
# matches, drop the rest) is the same as "Isolated".
TOTAL = frozenset(
    {GPT2, LLAMA3, QWEN2, QWEN35, MINICPM5, UFAKZEKA, SEED_CODER, EXAONE_MOE, JAIS2, GPT4O, TEKKEN, LINES}
)

# (fragment, equal fragment). A possessive quantifier equals its greedy twin where giving characters
# back could not help the rest to match; \s* takes all newlines it can before [\r\n], so that [\r\n]+
# finds no more than [\r\n] does.
_EQUAL_FRAGMENTS = (
    ("\r", r"\r"),
    ("\n", r"\n"),
    ("'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])", _CONTRACTIONS),
    ("(?:'[sS]|'[dD]|'[mM]|'[tT]|'[lL][lL]|'[vV][eE]|'[rR][eE])", _CONTRACTIONS),
    (r"[^\r\n\p{L}\p{N}]?+\p{L}+", r"[^\r\n\p{L}\p{N}]?\p{L}+"),
    (r"[^\s\p{L}\p{N}]++[\r\n]*", r"[^\s\p{L}\p{N}]+[\r\n]*"),
    (r"|\s*[\r\n]|\s+(?!\S)|\s+", "|" + _SPACES),
    (r"\p{N}{1}|", r"\p{N}|"),
)
_WHOLE = {
    GPT2.removesuffix(r"|\s+"): GPT2,  # what is left unmatched is a piece of its own
    r" ?[^(\s|[.,!?…。，、।۔،])]+": BLOOM,  # a class within a class adds its members
}
_IGNORE_CASE_GROUP = re.compile(r"\(\?i:((?:[^()\\]|\\.)*)\)")


def canonical_regex(pattern: str) -> str:
    """The canonical spelling of a regex; an unknown regex comes back with only its parts rewritten."""
    pattern = _IGNORE_CASE_GROUP.sub(_expand_case, pattern)
    for fragment, equal in _EQUAL_FRAGMENTS:
        pattern = pattern.replace(fragment, equal)
    return _WHOLE.get(pattern, pattern)


def _expand_case(group: re.Match[str]) -> str:
    """``(?i:'s|[dm])`` → ``(?:'[sS]|[dDmM])``."""
    expanded, in_class = "", False
    for char in group[1]:
        in_class = char == "[" or (in_class and char != "]")
        both = char.lower() + char.upper() if char.isascii() and char.isalpha() else char
        expanded += both if in_class or len(both) == 1 else f"[{both}]"
    return f"(?:{expanded})"
