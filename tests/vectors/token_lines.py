"""Deterministic texts that tokenizers disagree on: real ones in many languages, and mutations.

Used by make_tokens.py (the committed vectors) and by tests/interop/tokens.py (many more lines).
"""

import pathlib
import random
import unicodedata

EMOJI = ["😀", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇯🇵", "👍🏽", "✈️", "☃", "🧑🏿‍🚀", "1️⃣", "❤️‍🔥"]
MARKS = ["e\u0301", "\u0301", "a\u0323\u0307", "a\u0307\u0323", "\u1112\u1161\u11ab", "\uac00\u11a8",
         "\u0928\u093c", "\u0958", "\u09c7\u09be", "\u212b", "\u2126", "\uf900", "\u0344",
         "\u0f73", "o\u0302\u0323\u031b", "\u1e9b\u0323", "\ufb01", ">\u0338", "\u0041\u030a"]
SPACES = [" ", "  ", "   ", "\t", "\t\t", "\n", "\n\n", "\r\n", "\r", " \n ", "\u00a0", "\u2003",
          "\u3000", "\u200b", "\u180e", "\u0085", "\u2028", "\x0b", "\x0c", "\u1680", "\ufeff"]
PUNCTUATION = ["...", "?!", "--", "'s", "'S", "'\u017f", "'ll", "'RE", "'d", "\u2019s", "(", ")",
               "{}", "[]", "://", "==", "!=", "->", "/*", "*/", "\"", "\\n", "$", "€", "#", "@", "&&",
               "<|", "|>", "<", "\u0000", "\u0001", "\u007f", "\u0080", "\u00ad"]
NUMBERS = ["0", "12", "3.14", "1,000,000", "0x1F", "٣٤٥", "१२३", "Ⅷ", "½", "²", "一二三", "1e-5", "𝟘𝟙"]
CODE = [
    "int main(void)\n{\n\treturn 0;\n}\n",
    "def f(x, *, y=None):\n    return {k: v for k, v in x.items() if k != y}\n",
    "<div class=\"a\">&nbsp;</div>\r\n",
    "SELECT * FROM t WHERE a='it''s' AND b >= 10;",
    "x = re.sub(r'\\s+(?!\\S)', ' ', s)   # trailing   ",
    "#include <stdio.h>\r\n\r\n#define MAX(a,b) ((a)>(b)?(a):(b))\r\n",
    "fn main() { println!(\"{:?}\", vec![1, 2, 3]); }",
    "https://example.org/a/b?c=d&e=%20f#g",
    "\\frac{\\partial f}{\\partial x} = \\sum_{i=1}^{n} x_i^2",
    "user@example.com +49 (0)30 1234-567",
]
RUNS = ["a", "ab", " ", "\n", "=", "-", "é", "中", "ก", "\u0301", "7", "\t", "👍", "\r\n", "AbC", "ا"]


def language_lines(folder):
    """(language, line) of every text in the folder, empty lines left out."""
    for path in sorted(pathlib.Path(folder).glob("*.txt")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.strip():
                yield path.stem, line


def random_char(rng):
    while True:
        cp = rng.choice([rng.randrange(0x80), rng.randrange(0x800), rng.randrange(0x10000),
                         rng.randrange(0x3000, 0x30000), rng.randrange(0x1F000, 0x1FAFF)])
        if not 0xD800 <= cp < 0xE000:
            return chr(cp)


def mutate(rng, line, special):
    """One of the ways real text is broken, joined and decorated."""
    kind = rng.randrange(12)
    at = rng.randrange(len(line) + 1)
    cut = line[at:at + rng.randrange(1, 60)]
    if kind == 0:
        return line[:at] + rng.choice(special) + line[at:]
    if kind == 1:
        return "".join(rng.choice(special) + rng.choice(SPACES + [""]) + cut[i:i + 7]
                       for i in range(0, len(cut), 7))
    if kind == 2:
        return "".join(w + rng.choice(SPACES) for w in line.split(" ")[:20])
    if kind == 3:
        return "".join(w + rng.choice(EMOJI + PUNCTUATION + MARKS) for w in line.split(" ")[:15])
    if kind == 4:
        return cut.upper() + rng.choice(NUMBERS) + cut.title() + rng.choice(PUNCTUATION)
    if kind == 5:
        return rng.choice(RUNS) * rng.randrange(1, 80) + cut
    if kind == 6:
        return rng.choice(CODE) + cut + rng.choice(CODE)
    if kind == 7:
        chars = list(cut)
        rng.shuffle(chars)
        return "".join(chars)
    if kind == 8:
        return "".join(c for c in (random_char(rng) for _ in range(rng.randrange(1, 40)))
                       if is_common(c))
    if kind == 9:
        return unicodedata.normalize(rng.choice(["NFD", "NFC", "NFKD"]), cut)
    if kind == 10:
        return "".join(rng.choice(rng.choice([EMOJI, MARKS, SPACES, PUNCTUATION, NUMBERS, special]))
                       for _ in range(rng.randrange(1, 20)))
    return cut + rng.choice(SPACES) * rng.randrange(1, 5) + rng.choice(NUMBERS) + cut[::-1]


# HF's normaliser knows an older Unicode: these marks have no combining class there, so that it
# leaves some runs of marks in another order. (Found by encoding every code point.)
YOUNG_MARKS = [
    (0x7FD, 0x7FD), (0x899, 0x89B), (0x8CF, 0x8D3), (0xC3C, 0xC3C), (0xD3B, 0xD3C), (0xEBA, 0xEBA),
    (0x1715, 0x1715), (0x1ABF, 0x1AC0), (0x1AC3, 0x1AC4), (0x1ACA, 0x1ACA), (0x1DF6, 0x1DFA),
    (0xA82C, 0xA82C), (0x10EFD, 0x10EFF), (0x10F46, 0x10F50), (0x10F83, 0x10F85),
    (0x11070, 0x11070), (0x1133B, 0x1133B), (0x11839, 0x1183A), (0x1193D, 0x1193E),
    (0x11943, 0x11943), (0x119E0, 0x119E0), (0x11A34, 0x11A34), (0x11A47, 0x11A47),
    (0x11A99, 0x11A99), (0x11D42, 0x11D45), (0x11D97, 0x11D97), (0x11F41, 0x11F42),
    (0x16FF0, 0x16FF1), (0x1E4EC, 0x1E4EE),
]


def is_common(c):
    """True for characters on which the Unicode versions of all engines concerned agree."""
    old = unicodedata.ucd_3_2_0.category(c) != "Cn" or ord(c) >= 0x1F000
    known = unicodedata.category(c) not in ("Cn", "Cs")
    return old and known and not any(a <= ord(c) <= b for a, b in YOUNG_MARKS)


def lines(real, special, count, seed=1, per_language=None):
    """`count` texts: the fixed lists, the real ones as (language, line), then mutations of them."""
    rng = random.Random(seed)
    fixed = [""] + EMOJI + MARKS + SPACES + PUNCTUATION + NUMBERS + CODE + list(special)
    fixed += [run * 200 for run in RUNS]
    fixed += [a + b for a in SPACES for b in ["a", "1", "!", ""]]
    fixed += ["a" + b + "c" for b in SPACES + list(special)]
    out = fixed[:count]
    by_language = {}
    for language, line in real:
        by_language.setdefault(language, []).append(line)
    for language, texts in by_language.items():
        out += texts[:per_language]
    out = out[:count]
    while len(out) < count:
        language = rng.choice(sorted(by_language))
        line = rng.choice(by_language[language])
        out.append(mutate(rng, line, special))
    return out
