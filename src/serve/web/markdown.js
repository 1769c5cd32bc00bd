// Markdown as models write it, made into elements: headings, lists, tables, quotes, code, emphasis,
// links. HTML stays text, images become links, maths stays as it was written. What comes in is a
// model's, so nothing of it is ever parsed as HTML, only http and https links work, and depths and
// counts are bounded.
import { copyButton, el } from './dom.js';
import { inline } from './inline.js';

const MAX_DEPTH = 10; // of lists and quotes within each other
const MAX_MATH_LINES = 200;

const rendered = new WeakMap(); // target -> [{ key, element }]

// Makes target's children those of the text. Blocks that are as before keep their elements, so that
// a growing text costs what its last block costs, and a selection in it stays.
export function renderMarkdown(target, text) {
    const old = rendered.get(target) ?? [];
    const now = [];
    for (const block of split(text.replaceAll('\r\n', '\n').split('\n'))) {
        const before = old[now.length];
        const key = `${block.kind}\n${block.lines.join('\n')}`;
        if (before && before.key === key) {
            now.push(before);
            continue;
        }
        const element = before && growCode(before, key, block) || blockElement(block, 0);
        if (!before)
            target.append(element);
        else if (element !== before.element)
            before.element.replaceWith(element);
        now.push({ key, element });
    }
    for (const { element } of old.slice(now.length))
        element.remove();
    rendered.set(target, now);
}

// The element of a code block that has only become longer, with its new text; else null.
function growCode(before, key, block) {
    if (block.kind !== 'fence' || !key.startsWith(before.key) || before.key.indexOf('\n', 6) < 0)
        return null;
    const node = before.element.querySelector('code').firstChild;
    const text = codeText(block);
    if (!node || !text.startsWith(node.data))
        return null;
    node.appendData(text.slice(node.data.length));
    return before.element;
}

// ---- blocks ------------------------------------------------------------------------------------

const FENCE = /^[ \t]*(`{3,}(?!`)|~{3,}(?!~))([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]|$)/;
const RULE = /^ {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$/;
const QUOTE = /^ {0,3}> ?/;
const MARKER = /^[ \t]*([-*+]|\d{1,9}[.)])(?=[ \t]|$)/;

function blank(line) {
    return line.trim() === '';
}

// Columns of white space before the text; a tab goes to the next multiple of 4.
function indentOf(line) {
    let columns = 0;
    for (const c of line) {
        if (c === ' ')
            columns++;
        else if (c === '\t')
            columns += 4 - columns % 4;
        else
            break;
    }
    return columns;
}

function outdent(line, columns) {
    let i = 0;
    for (let at = 0; at < columns && (line[i] === ' ' || line[i] === '\t'); i++)
        at += line[i] === '\t' ? 4 - at % 4 : 1;
    return line.slice(i);
}

function marker(line) {
    const match = MARKER.exec(line);
    if (!match)
        return null;
    const sign = match[1];
    const rest = line.slice(match[0].length);
    const gap = blank(rest) ? 1 : Math.min(indentOf(rest), 4);
    const indent = indentOf(line);
    return { indent, content: indent + sign.length + gap, kind: sign.slice(-1),
             number: sign.length > 1 ? Number.parseInt(sign, 10) : null,
             text: outdent(rest, gap) };
}

function kindOf(lines, i) {
    const line = lines[i];
    if (FENCE.test(line))
        return 'fence';
    if (HEADING.test(line))
        return 'heading';
    if (line.length < 1000 && RULE.test(line))
        return 'rule';
    if (QUOTE.test(line))
        return 'quote';
    if (MARKER.test(line))
        return 'list';
    if (line.includes('|') && isTable(lines, i))
        return 'table';
    if (mathEnd(lines, i) > 0)
        return 'math';
    return 'paragraph';
}

// Cuts lines into [{ kind, lines }].
function split(lines) {
    const blocks = [];
    for (let i = 0; i < lines.length;) {
        if (blank(lines[i])) {
            i++;
            continue;
        }
        const kind = kindOf(lines, i);
        const end = ENDS[kind](lines, i);
        blocks.push({ kind, lines: lines.slice(i, end) });
        i = end;
    }
    return blocks;
}

// The line after the block that begins at line i.
const ENDS = {
    heading: (lines, i) => i + 1,
    rule: (lines, i) => i + 1,
    math: mathEnd,

    fence(lines, i) {
        const [, ticks] = FENCE.exec(lines[i]);
        for (let j = i + 1; j < lines.length; j++) {
            const line = lines[j].trim();
            if (line.length >= ticks.length && line === ticks[0].repeat(line.length))
                return j + 1;
        }
        return lines.length;
    },

    quote(lines, i) {
        let j = i + 1;
        while (j < lines.length && !blank(lines[j]) &&
               (QUOTE.test(lines[j]) || kindOf(lines, j) === 'paragraph'))
            j++;
        return j;
    },

    list(lines, i) {
        const first = marker(lines[i]);
        let j = i + 1;
        while (j < lines.length) {
            let next = j;
            while (next < lines.length && blank(lines[next]))
                next++;
            if (next === lines.length)
                break;
            const inside = indentOf(lines[next]) >= first.indent + 2;
            if (inside && FENCE.test(lines[next]))
                j = ENDS.fence(lines, next);
            else if (inside || startsItem(lines, next, first) ||
                     (next === j && kindOf(lines, j) === 'paragraph'))
                j = next + 1;
            else
                break;
        }
        return j;
    },

    table(lines, i) {
        let j = i + 2;
        while (j < lines.length && lines[j].includes('|'))
            j++;
        return j;
    },

    paragraph(lines, i) {
        let j = i + 1;
        while (j < lines.length && !blank(lines[j])) {
            const kind = kindOf(lines, j);
            // "in\n1986. Then" is no list.
            if (kind !== 'paragraph' && !(kind === 'list' && (marker(lines[j]).number ?? 1) !== 1))
                break;
            j++;
        }
        return j;
    },
};

function startsItem(lines, i, first) {
    const found = marker(lines[i]);
    return found !== null && found.kind === first.kind && found.indent < first.indent + 2 &&
        !RULE.test(lines[i].slice(0, 1000));
}

// The line after a formula in \[ \] or $$ $$ of its own, 0 where none begins or has no end.
function mathEnd(lines, i) {
    const line = lines[i].trim();
    const close = line.startsWith('\\[') ? '\\]' : line.startsWith('$$') ? '$$' : null;
    if (!close)
        return 0;
    if (line.length > 2 && line.indexOf(close, 2) >= 0)
        return line.indexOf(close, 2) === line.length - 2 ? i + 1 : 0;
    for (let j = i + 1; j < Math.min(lines.length, i + MAX_MATH_LINES); j++)
        if (lines[j].trimEnd().endsWith(close))
            return j + 1;
    return 0;
}

function cells(line) {
    const parts = [''];
    let ticks = false;
    const text = line.trim();
    for (let i = 0; i < text.length; i++) {
        if (text[i] === '\\' && text[i + 1] === '|') {
            parts[parts.length - 1] += '|';
            i++;
        } else if (text[i] === '|' && !ticks) {
            parts.push('');
        } else {
            ticks = text[i] === '`' ? !ticks : ticks;
            parts[parts.length - 1] += text[i];
        }
    }
    if (parts.length > 1 && blank(parts[0]))
        parts.shift();
    if (parts.length > 1 && blank(parts[parts.length - 1]))
        parts.pop();
    return parts.map((part) => part.trim());
}

function isTable(lines, i) {
    const below = lines[i + 1];
    if (below === undefined || !/^[-:| \t]*$/.test(below) || !below.includes('-'))
        return false;
    const columns = cells(below);
    return columns.every((column) => /^:?-+:?$/.test(column)) &&
        columns.length === cells(lines[i]).length;
}

function blockElement(block, depth) {
    return (depth > MAX_DEPTH ? BLOCKS.paragraph : BLOCKS[block.kind])(block.lines, depth);
}

function blockElements(lines, depth) {
    return split(lines).map((block) => blockElement(block, depth));
}

// dir="auto" goes on the outermost block alone; the parts within take its direction, so that a list's
// bullets stand on one side.
function direction(depth) {
    return depth === 0 ? { dir: 'auto' } : {};
}

const BLOCKS = {
    heading(lines, depth) {
        const level = HEADING.exec(lines[0])[1].length;
        const text = lines[0].trim().slice(level).trim().replace(/[ \t]#+$/, '');
        // The page's own headings are the first two levels.
        return inline(el(`h${Math.min(level + 2, 6)}`, { class: `h${level}`, ...direction(depth) }),
                      text);
    },

    rule: () => el('hr'),

    fence(lines) {
        const info = FENCE.exec(lines[0])[2].trim().split(/\s/, 1)[0].slice(0, 40);
        const code = el('code');
        code.append(document.createTextNode(codeText({ lines })));
        const name = info ? `Code, ${info}` : 'Code';
        return el('div', { class: 'code', dir: 'ltr' },
                  el('div', { class: 'code-bar' }, el('span', {}, info || 'text'),
                     copyButton('Copy this code', () => code.textContent)),
                  el('pre', { tabindex: '0', role: 'region', 'aria-label': name }, code));
    },

    quote(lines, depth) {
        const inner = lines.map((line) => line.replace(QUOTE, ''));
        return el('blockquote', direction(depth), ...blockElements(inner, depth + 1));
    },

    list(lines, depth) {
        const first = marker(lines[0]);
        const items = listItems(lines, first);
        const loose = items.some((item) => item.slice(0, -1).some(
            (line, i) => blank(line) && !blank(item[i + 1]) && indentOf(item[i + 1]) === 0)) ||
            items.slice(0, -1).some((item) => blank(item[item.length - 1]));
        const attributes = direction(depth);
        if (first.number !== null && first.number !== 1)
            attributes.start = first.number;
        return el(first.number === null ? 'ul' : 'ol', attributes,
                  ...items.map((item) => listItem(item, depth, loose)));
    },

    table(lines, depth) {
        const align = cells(lines[1]).map((column) => {
            if (!column.endsWith(':'))
                return '';
            return column.startsWith(':') ? 'center' : 'end';
        });
        const row = (line, tag) => {
            const found = cells(line);
            return el('tr', {}, ...align.map((side, i) => inline(
                el(tag, { class: side || null, scope: tag === 'th' ? 'col' : null }),
                found[i] ?? '')));
        };
        const table = el('table', direction(depth), el('thead', {}, row(lines[0], 'th')),
                         el('tbody', {}, ...lines.slice(2).map((line) => row(line, 'td'))));
        return el('div', { class: 'table', tabindex: '0', role: 'region', 'aria-label': 'Table' },
                  table);
    },

    math: (lines) => el('div', { class: 'math', dir: 'ltr' }, lines.join('\n').trim()),

    paragraph: (lines, depth) => inline(el('p', direction(depth)),
                                        lines.map((line) => line.trimStart()).join('\n')),
};

// The lines of each item, without its marker and indent.
function listItems(lines, first) {
    const items = [];
    let content = 0;
    for (let i = 0; i < lines.length;) {
        const end = i > 0 && !startsItem(lines, i, first) && FENCE.test(lines[i])
            ? ENDS.fence(lines, i) : i + 1;
        if (i === 0 || startsItem(lines, i, first)) {
            const found = marker(lines[i]);
            content = found.content;
            items.push([found.text]);
        } else {
            for (const line of lines.slice(i, end))
                items[items.length - 1].push(outdent(line, content));
        }
        i = end;
    }
    return items;
}

function listItem(lines, depth, loose) {
    const item = el('li');
    const task = /^\[([ xX])\][ \t]/.exec(lines[0]);
    if (task) {
        item.className = 'task';
        item.append(el('input', { type: 'checkbox', disabled: true, checked: task[1] !== ' ',
                                  'aria-label': task[1] === ' ' ? 'to do' : 'done' }));
        lines = [lines[0].slice(4), ...lines.slice(1)];
    }
    for (const element of blockElements(lines, depth + 1)) {
        if (element.localName === 'p' && !loose)
            item.append(...element.childNodes);
        else
            item.append(element);
    }
    return item;
}

function codeText({ lines }) {
    const [, ticks] = FENCE.exec(lines[0]);
    const last = lines[lines.length - 1].trim();
    const closed = lines.length > 1 && last.length >= ticks.length &&
        last === ticks[0].repeat(last.length);
    const indent = indentOf(lines[0]);
    return lines.slice(1, closed ? -1 : undefined).map((line) => outdent(line, indent)).join('\n');
}
