// What is within a paragraph of Markdown: emphasis, code, links, maths left as it is.
import { el } from './dom.js';

const MAX_EMPHASIS = 20;     // of emphasis within emphasis
const MAX_DELIMITERS = 2000; // of a paragraph; those beyond are text
const MAX_BRACKETS = 500;

const SPECIAL = /[\\`*_~[\]<&$\n]|!\[|https?:\/\//g;
// (address "title"); the address is group 1 in angle brackets, else 2, with its own parentheses.
const BARE = /[^\s()]{0,4000}(?:\([^\s()]{0,999}\)[^\s()]{0,999}){0,9}/.source;
const TITLE = /(?:[ \n]{1,9}(?:"[^"]{0,999}"|'[^']{0,999}'))?/.source;
const TARGET = new RegExp(
    `\\([ \\n]{0,9}(?:<([^<>\\n]{0,4000})>|(${BARE}))${TITLE}[ \\n]{0,9}\\)`, 'y');
const ADDRESS = /https?:\/\/[^\s<>"`|\\^{}[\]]+/y;
const ANGLED = /<(https?:\/\/[^\s<>]{1,4000})>/y;
const BREAK = /<br ?\/?>/iy;
const ENTITY = /&(amp|lt|gt|quot|nbsp|#39);/y;
const ENTITIES = { amp: '&', lt: '<', gt: '>', quot: '"', nbsp: '\u00a0', '#39': "'" };
const LETTER = /[\p{L}\p{N}]/u;

function matchAt(pattern, text, at) {
    pattern.lastIndex = at;
    return pattern.exec(text);
}

// The address of a link that may be followed, else null.
function safeAddress(text) {
    try {
        const url = new URL(text);
        return url.protocol === 'http:' || url.protocol === 'https:' ? url.href : null;
    } catch {
        return null;
    }
}

function link(address) {
    return el('a', { href: address, target: '_blank', rel: 'noopener noreferrer' });
}

// Appends the text's elements to parent, and returns parent.
export function inline(parent, text) {
    parent.append(new Inline(text).parse());
    return parent;
}

class Inline {
    constructor(text) {
        this.text = text;
        this.made = document.createDocumentFragment();
        this.pending = ''; // text that is not in a node yet
        this.delimiters = []; // runs of * _ ~~ that may yet become emphasis
        this.brackets = [];   // [ and ![ that may yet become links
        this.depths = new Map();
        this.missing = new Set(); // closers that do not come any more: not looked for again
    }

    parse() {
        const { text } = this;
        let at = 0;
        while (at < text.length) {
            SPECIAL.lastIndex = at;
            const found = SPECIAL.exec(text);
            if (!found)
                break;
            this.add(text.slice(at, found.index));
            at = found.index;
            let taken = this.special(found[0], at);
            if (taken === 0) {
                this.add(found[0]);
                taken = found[0].length;
            }
            at += taken;
        }
        this.add(text.slice(at));
        this.flush();
        this.emphasize(0);
        return this.made;
    }

    // Text is gathered, so that hostile texts make no more nodes than they must.
    add(content) {
        if (typeof content === 'string') {
            this.pending += content;
        } else {
            this.flush();
            this.made.append(content);
        }
    }

    flush() {
        if (this.pending !== '')
            this.made.append(document.createTextNode(this.pending));
        this.pending = '';
    }

    // Text in a node of its own, which may yet become something else.
    addApart(text) {
        const node = document.createTextNode(text);
        this.add(node);
        return node;
    }

    // How many characters it took, 0: it is text.
    special(sign, at) {
        switch (sign) {
        case '\\': return this.escape(at);
        case '`': return this.code(at);
        case '*': case '_': case '~': return this.delimiter(sign, at);
        case '[': case '![': return this.open(sign);
        case ']': return this.close(at);
        case '<': return this.angle(at);
        case '$': return this.dollar(at);
        case '\n': this.add(el('br')); return 1;
        case '&': {
            const match = matchAt(ENTITY, this.text, at);
            return match ? this.take(ENTITIES[match[1]], match[0].length) : 0;
        }
        default: return this.address(at);
        }
    }

    take(content, length) {
        this.add(content);
        return length;
    }

    escape(at) {
        const next = this.text[at + 1];
        if (next === '(')
            return this.math(at, '\\(', '\\)');
        if (next === '[')
            return this.math(at, '\\[', '\\]') || this.take('[', 2);
        if (next === '\n')
            return this.take(el('br'), 2);
        return next && /[!-/:-@[-`{-~]/.test(next) ? this.take(next, 2) : 0;
    }

    code(at) {
        const { text } = this;
        let ticks = 1;
        while (text[at + ticks] === '`')
            ticks++;
        const run = '`'.repeat(ticks);
        let end = this.missing.has(run) ? -1 : at + ticks;
        while (end >= 0) {
            end = text.indexOf(run, end);
            if (end < 0 || (text[end + ticks] !== '`' && text[end - 1] !== '`'))
                break;
            while (text[end] === '`')
                end++;
        }
        if (end < 0) {
            this.missing.add(run);
            return this.take(run, ticks);
        }
        let inner = text.slice(at + ticks, end).replaceAll('\n', ' ');
        if (inner.startsWith(' ') && inner.endsWith(' ') && inner.trim() !== '')
            inner = inner.slice(1, -1);
        return this.take(el('code', { dir: 'ltr' }, inner), end + ticks - at);
    }

    math(at, open, close) {
        const end = this.missing.has(close) ? -1 : this.text.indexOf(close, at + open.length);
        if (end < 0) {
            this.missing.add(close);
            return 0;
        }
        const length = end + close.length - at;
        return this.take(el('span', { class: 'math', dir: 'ltr' }, this.text.substr(at, length)),
                         length);
    }

    // $x_1$ is maths, $5 and $10 are prices.
    dollar(at) {
        const { text } = this;
        if (text[at + 1] === '$')
            return this.math(at, '$$', '$$') || this.take('$$', 2);
        const end = this.missing.has('$') ? -1 : text.indexOf('$', at + 1);
        if (end < 0) {
            this.missing.add('$');
            return 0;
        }
        const inner = text.slice(at + 1, end);
        if (inner.length > 500 || /^\s|\s$|\n/.test(inner) || /\d/.test(text[end + 1] ?? ''))
            return 0;
        return this.take(el('span', { class: 'math', dir: 'ltr' }, `$${inner}$`), inner.length + 2);
    }

    angle(at) {
        const angled = matchAt(ANGLED, this.text, at);
        const address = angled && safeAddress(angled[1]);
        if (address) {
            const a = link(address);
            a.append(angled[1]);
            return this.take(a, angled[0].length);
        }
        const end = matchAt(BREAK, this.text, at);
        return end ? this.take(el('br'), end[0].length) : 0;
    }

    address(at) {
        if (at > 0 && LETTER.test(this.text[at - 1]))
            return 0;
        const match = matchAt(ADDRESS, this.text, at);
        if (!match)
            return 0;
        let shown = match[0].slice(0, 4000);
        for (let last = shown.at(-1); /[.,;:!?'*_~)]/.test(last); last = shown.at(-1)) {
            if (last === ')' && shown.split('(').length >= shown.split(')').length)
                break;
            shown = shown.slice(0, -1);
        }
        const address = safeAddress(shown);
        if (!address)
            return 0;
        const a = link(address);
        a.append(shown);
        return this.take(a, shown.length);
    }

    open(sign) {
        if (this.brackets.length >= MAX_BRACKETS)
            return 0;
        const node = this.addApart(sign);
        this.brackets.push({ node, bottom: this.delimiters.length });
        return sign.length;
    }

    close(at) {
        const opener = this.brackets.pop();
        const match = opener && matchAt(TARGET, this.text, at + 1);
        const address = match && safeAddress(match[1] ?? match[2]);
        if (!address)
            return 0;
        this.flush();
        this.emphasize(opener.bottom);
        const a = link(address);
        while (opener.node.nextSibling)
            a.append(opener.node.nextSibling);
        for (const inner of a.querySelectorAll('a'))
            inner.replaceWith(...inner.childNodes);
        if (!a.hasChildNodes())
            a.append(address);
        opener.node.replaceWith(a);
        return 1 + match[0].length;
    }

    delimiter(sign, at) {
        const { text } = this;
        let length = 1;
        while (text[at + length] === sign)
            length++;
        const run = sign.repeat(length);
        const before = text[at - 1] ?? ' ';
        const after = text[at + length] ?? ' ';
        // Kinder than CommonMark to scripts that put no space around words.
        let open = !/\s/.test(after);
        let close = !/\s/.test(before);
        if (sign === '_') {
            open = open && !LETTER.test(before);
            close = close && !LETTER.test(after);
        }
        const plain = (sign === '~' && length !== 2) || !(open || close) ||
            this.delimiters.length >= MAX_DELIMITERS;
        if (plain)
            return this.take(run, length);
        const node = this.addApart(run);
        this.delimiters.push({ node, sign, length, count: length, open, close });
        return length;
    }

    // Makes emphasis of the delimiters from index `bottom` on, as CommonMark's procedure does.
    emphasize(bottom) {
        const all = this.delimiters;
        let c = bottom;
        while (c < all.length) {
            const closer = all[c];
            let o = c - 1;
            while (closer.close && o >= bottom && !this.pair(all[o], closer))
                o--;
            if (!closer.close || o < bottom) {
                c++;
                continue;
            }
            const opener = all[o];
            this.wrap(opener, closer);
            all.splice(o + 1, c - o - 1);
            c = o + 1;
            if (opener.count === 0) {
                all.splice(o, 1);
                c--;
            }
            if (closer.count === 0)
                all.splice(c, 1);
        }
        all.length = bottom;
    }

    pair(opener, closer) {
        if (opener.sign !== closer.sign || !opener.open)
            return false;
        return !((opener.close || closer.open) && (opener.length + closer.length) % 3 === 0 &&
                 (opener.length % 3 !== 0 || closer.length % 3 !== 0));
    }

    wrap(opener, closer) {
        const used = opener.count >= 2 && closer.count >= 2 ? 2 : 1;
        const tag = opener.sign === '~' ? 'del' : used === 2 ? 'strong' : 'em';
        const inner = [];
        let depth = 0;
        for (let node = opener.node.nextSibling; node !== closer.node; node = node.nextSibling) {
            inner.push(node);
            depth = Math.max(depth, this.depths.get(node) ?? 0);
        }
        for (const end of [opener, closer]) {
            end.count -= used;
            end.node.data = opener.sign.repeat(end.count);
        }
        if (depth >= MAX_EMPHASIS || inner.length === 0)
            return;
        const element = el(tag);
        element.append(...inner);
        opener.node.after(element);
        this.depths.set(element, depth + 1);
    }
}
