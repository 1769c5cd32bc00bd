"""The 29 languages, how packages name them, and whether a text is written in one."""

import re
import unicodedata

LANGUAGES = (
    "en zh ar de es fr ko ja pt tr id it nl pl ru vi th bn cs he uk ms ur kk el ro hu ne az".split()
)

# Unicode names of letters begin with the name of their script.
SCRIPTS = {
    "zh": ("CJK",),
    "ja": ("CJK", "HIRAGANA", "KATAKANA"),
    "ko": ("HANGUL", "CJK"),
    "ar": ("ARABIC",),
    "ur": ("ARABIC",),
    "he": ("HEBREW",),
    "ru": ("CYRILLIC",),
    "uk": ("CYRILLIC",),
    "kk": ("CYRILLIC",),
    "el": ("GREEK",),
    "th": ("THAI",),
    "bn": ("BENGALI",),
    "ne": ("DEVANAGARI",),
}

# Words that are frequent in English and rare in the other languages written in Latin letters.
ENGLISH = frozenset(
    "the and of to that with you this are your from have will which not can if by be it".split()
)

WORD = re.compile(r"[^\W\d_]+")


def language(name):
    """The language a locale's name stands for ("pt_BR", "zh-hans", "C"), or None."""
    code = name.lower().replace("-", "_").split(".")[0]
    if code in ("c", "en_us", "en_gb"):
        return "en"
    if code in ("zh_cn", "zh_hans"):
        return "zh"
    if code == "kk_cyrl":
        return "kk"
    base, _, region = code.partition("_")
    if base == "zh" or base not in LANGUAGES or (region and not re.fullmatch("[a-z]{2}", region)):
        return None
    return base


class _Letters(dict):
    """For str.translate: keeps letters and marks, or those whose names begin with a script's."""

    def __init__(self, *scripts):
        super().__init__()
        self.scripts = scripts

    def __missing__(self, code):
        char = chr(code)
        kept = unicodedata.category(char)[0] in "LM"
        if kept and self.scripts:
            kept = unicodedata.name(char, "").split(" ")[0] in self.scripts
        self[code] = char if kept else None
        return self[code]


_LETTERS = _Letters()
_OWN = {lang: _Letters(*SCRIPTS.get(lang, ("LATIN",))) for lang in LANGUAGES}


def in_script(text, lang):
    """Whether at least half of the letters (marks included) are of the language's script."""
    own = len(text.translate(_OWN[lang]))
    return own > 0 and 2 * own >= len(text.translate(_LETTERS))


def english_share(text):
    """Share of the words that are English function words."""
    words = WORD.findall(text.lower())
    return sum(w in ENGLISH for w in words) / len(words) if words else 0.0


def looks_english(text):
    """Whether a text that should be in another language was left in English. Of fewer than four
    words it can't be said."""
    return len(WORD.findall(text)) >= 4 and english_share(text) >= 0.2
