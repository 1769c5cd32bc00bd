"""Running text from the files of packages: one function a format, each yielding lists of lines.

A list is a stretch of text that belongs together, a page or a file of messages. Lines are clean:
no markup, one paragraph or one message each."""

import gzip
import html
import io
import json
import re
import struct
import unicodedata
import zipfile

SPACE = re.compile(r"\s+")


class Categories(dict):
    """For str.translate: keeps characters of the Unicode categories whose names begin so."""

    def __init__(self, *beginnings):
        super().__init__()
        self.beginnings = beginnings

    def __missing__(self, code):
        char = chr(code)
        kept = char if unicodedata.category(char).startswith(self.beginnings) else None
        self[code] = kept
        return kept


LETTERS = Categories("L", "M")
SHOWN = Categories("L", "M", "N", "P", "S", "Z", "Cf")
# What is a value's place and not a word: %s, %1$d, %(name)s, {0}, $1, %1, &brand;
PLACE = re.compile(r"%\([^)]*\)[a-z]|%[-+ #0-9.$*]*[a-zA-Z%]|%\d|\$\w+|\{\w*\}|&[\w.]+;")
CODE = re.compile(r"https?://\S+$|[{}<>\\]|__|\w=\w|^[\w./-]+/[\w./-]+$|\ufffd")


def clean(text):
    """A paragraph without markup: NFC, single spaces, no control characters; "" where what remains
    is not text, but a number, a place to fill or a piece of code."""
    text = unicodedata.normalize("NFC", SPACE.sub(" ", text)).strip()
    text = text.translate(SHOWN).replace("\ufeff", "").replace("\u00ad", "")
    letters = len(PLACE.sub("", text).translate(LETTERS))
    if letters < 2 or 2 * letters < len(text) - text.count(" ") or CODE.search(text):
        return ""
    return text


def lines(texts):
    """The texts that are fit to be kept, cleaned."""
    return [line for line in (clean(text) for text in texts if not text.isspace()) if line]


# ---- pages of markup ------------------------------------------------------------------------

SKIPPED = re.compile(
    r"<(script|style|header|aside|nav|pre|info|screen|head|synopsis|footer)\b.*?</\1\s*>"
    r"|<!--.*?-->|<div class=\"(?:nav(?:header|footer)|toc|literallayout)\".*?</div>"
    r"|<ul class=\"docnav.*?</ul>|<p id=\"title\">.*?</p>|<div id=\"banner\">.*?</div>",
    re.DOTALL,
)
BLOCK = re.compile(
    r"</?(?:p|h[1-6]|li|dt|dd|td|th|tr|div|ol|ul|dl|table|br|title|item|page|section|steps|note"
    r"|list|terms|desc|comment|hr|body|thead|tbody|caption)\b[^>]*>"
)
TAG = re.compile(r"<[^>]*>")


def markup(data):
    """A page of HTML or Mallard. Code left out in the middle of a sentence would leave a hole, so
    a paragraph that names a command keeps it: only blocks of code go. Of a sentence for two systems
    the words for one stay."""
    text = data.decode("utf-8", "replace")
    text = re.sub(r"</?(?:code|tt)\b[^>]*>", "", text)
    text = re.sub(r'<span [^>]*class="MAC">(?:<span[^>]*>[^<]*</span>|[^<])*</span>', "", text)
    text = SPACE.sub(" ", SKIPPED.sub(" ", text))
    text = TAG.sub("", BLOCK.sub("\n", text))
    yield lines(html.unescape(line) for line in text.split("\n"))


# ---- manual pages ---------------------------------------------------------------------------

ROFF_CHARS = {
    "aq": "'", "dq": '"', "bu": "", "em": "—", "en": "–", "lq": "“", "rq": "”", "oq": "‘",
    "cq": "’", "Fo": "«", "Fc": "»", "co": "©", "ha": "^", "ti": "~", "rs": "\\",
}  # fmt: skip


def _roff_inline(text):
    text = re.sub(r'\\".*', "", text)
    text = re.sub(r"\\f(?:\[[^]]*\]|\(..|.)|\\s[-+]?\d|\\[&,/|^c%:)]|\\m\[[^]]*\]", "", text)
    text = re.sub(r"\\\((..)|\\\[(\w\w)\]", lambda m: ROFF_CHARS.get(m[1] or m[2], ""), text)
    return text.replace("\\-", "-").replace("\\ ", " ").replace("\\~", " ").replace("\\e", "\\")


def roff(data):
    """A manual page, compressed or not: paragraphs without examples, tables and synopses."""
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    paragraphs, current, shown = [], [], True

    def end():
        if current:
            paragraphs.append(_roff_inline(" ".join(current)))
            current.clear()

    for line in data.decode("utf-8", "replace").split("\n"):
        if not line.startswith((".", "'")):
            if shown and not line.startswith(" "):
                current.append(line)
            continue
        macro, _, rest = line[1:].strip().partition(" ")
        if macro in ("nf", "EX", "TS", "SY"):
            end()
            shown = False
        elif macro in ("fi", "EE", "TE", "YS"):
            shown = True
        elif macro in ("B", "I", "SM"):
            current.append(rest.replace('"', ""))
        elif macro in ("BR", "BI", "IR", "RB", "RI", "IB"):
            current.append("".join(a or b for a, b in re.findall(r'"([^"]*)"|(\S+)', rest)))
        elif macro in ("SH", "SS"):
            end()
            shown = True
        elif macro not in ("ft", "ad", "hy", "ne", "UR", "UE", "MT", "ME", ""):
            end()
    end()
    yield lines(paragraphs)


# ---- messages of programs ---------------------------------------------------------------------


def _messages(data):
    """(original, translation) of a message catalogue (.mo), plural forms with NULs between."""
    if len(data) < 28:
        return
    order = "<" if data[:4] == b"\xde\x12\x04\x95" else ">"
    _, _, count, originals, translations = struct.unpack(order + "5I", data[:20])
    for i in range(count):
        both = []
        for table in (originals, translations):
            size, start = struct.unpack_from(order + "2I", data, table + 8 * i)
            both.append(data[start : start + size].decode("utf-8", "replace"))
        yield both


ACCELERATOR = re.compile(r" ?\([_&~]\w\)|[_&~](?=\w)")
CREDITS = re.compile(r"(?i)translator|credits|your (names|emails)")


def catalogue(data):
    """Translations of a message catalogue that differ from their originals, without the marks of
    keyboard shortcuts."""
    kept = []
    for original, translation in _messages(data):
        original = original.split("\x04")[-1].split("\0")[0]
        if not original or CREDITS.search(original):
            continue
        if re.fullmatch(r"\w+(/[\w-]+)+", original):  # a time zone
            continue
        plain = ACCELERATOR.sub("", original).strip()
        for form in translation.split("\0"):
            form = TAG.sub("", html.unescape(ACCELERATOR.sub("", form)))
            if form.strip() != plain:
                kept.extend(form.split("\n\n"))
    yield lines(kept)


def _fluent(text):
    """Values of Fluent messages without variables."""
    values, open_value = [], False
    for line in text.split("\n"):
        start = re.match(r"(?:[\w-]+|\s+\.[\w-]+)\s*=\s*(.*)", line)
        if start:
            values.append(start[1])
            open_value = True
        elif line[:1].isspace() and open_value:
            values[-1] += " " + line.strip()
        elif not line.strip() and open_value:
            continue
        else:
            open_value = False
    return [re.sub(r"\{ *-brand[\w-]* *\}", "Firefox", value) for value in values]


def _properties(text):
    return [m[1] for m in re.finditer(r"^[^#!\s][^=\n]*=[ \t]*(.*)$", text, re.MULTILINE)]


def language_pack(data):
    """The messages of a Firefox language pack."""
    with zipfile.ZipFile(io.BytesIO(data)) as pack:
        for name in sorted(pack.namelist()):
            if name.endswith(".ftl"):
                values = _fluent(pack.read(name).decode("utf-8", "replace"))
            elif name.endswith(".properties"):
                values = _properties(pack.read(name).decode("utf-8", "replace"))
            else:
                continue
            yield lines(TAG.sub("", html.unescape(ACCELERATOR.sub("", v))) for v in values)


# ---- MediaWiki ------------------------------------------------------------------------------


def plain_wikitext(text):
    """A message without wiki markup: of links their label, of plural and gender forms the last."""
    text = re.sub(r"(?is)<(pre|code|nowiki|ref)\b.*?</\1>|<!--.*?-->", " ", text)
    text = re.sub(r"(?i)\{\{(?:PLURAL|GENDER|GRAMMAR):[^{}|]*\|(?:[^{}]*\|)?(?:\d+=)?([^{}|]*)\}\}",
                  r"\1", text)  # fmt: skip
    text = re.sub(r"(?i)\{\{SITENAME\}\}", "Wiki", text)
    text = re.sub(r"\[\[(?:[^][|]*\|)?([^][|]*)\]\]", r"\1", text)
    text = re.sub(r"\[(?:https?:|//|\$\d|mailto:|\{\{)\S* ([^][]*)\]", r"\1", text)
    text = re.sub(r"'{2,}|^[*#:;=]+ *| *=+$", "", text, flags=re.MULTILINE)
    return TAG.sub("", html.unescape(text))


def wiki_messages(data):
    """(key, text) of a file of MediaWiki messages; of long messages the paragraphs, in turn."""
    for key, value in json.loads(data).items():
        if isinstance(value, str) and not key.startswith("@"):
            for paragraph in lines(plain_wikitext(value).split("\n")):
                yield key, paragraph
