// Small helpers for building the page. Text always goes in as text nodes, never as HTML.

// An element with attributes (`on...`: listeners; true: an empty attribute; false or null: none).
export function el(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
        if (name.startsWith('on'))
            element.addEventListener(name.slice(2), value);
        else if (value !== false && value !== null && value !== undefined)
            element.setAttribute(name, value === true ? '' : value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
}

// One of the symbols at the top of index.html.
export function icon(name) {
    const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
    const use = document.createElementNS('http://www.w3.org/2000/svg', 'use');
    svg.setAttribute('class', 'icon');
    svg.setAttribute('aria-hidden', 'true');
    use.setAttribute('href', `#icon-${name}`);
    svg.append(use);
    return svg;
}

export function iconButton(name, label, onclick) {
    return el('button', { type: 'button', class: 'icon-button', title: label,
                          'aria-label': label, onclick }, icon(name));
}

// navigator.clipboard is there on HTTPS and localhost only; a team's server may be neither.
async function copy(text) {
    if (navigator.clipboard)
        return navigator.clipboard.writeText(text);
    const area = el('textarea', { class: 'visually-hidden' });
    const focused = document.activeElement;
    area.value = text;
    document.body.append(area);
    area.select();
    const copied = document.execCommand('copy');
    area.remove();
    focused?.focus();
    if (!copied)
        throw new Error('not copied');
}

export function copyButton(label, text) {
    const words = el('span', {}, 'Copy');
    const button = el('button', { type: 'button', class: 'quiet', 'aria-label': label },
                      icon('copy'), words);
    button.addEventListener('click', async () => {
        const copied = await copy(text()).then(() => true, () => false);
        words.textContent = copied ? 'Copied' : 'Not copied';
        setTimeout(() => { words.textContent = 'Copy'; }, 1500);
    });
    return button;
}

// A touch keyboard has no Shift+Enter, so that Enter makes a new line there.
export const touch = matchMedia('(hover: none) and (pointer: coarse)');

// Whether a key sends what is written. An input method's own Enter does not (229: Safari's way to
// say that it is one).
export function sends(event) {
    return event.key === 'Enter' && !event.shiftKey && !event.isComposing &&
        event.keyCode !== 229 && !touch.matches;
}

const whole = new Intl.NumberFormat('en');

export function count(n, noun) {
    return `${whole.format(n)} ${noun}${n === 1 ? '' : 's'}`;
}

export function number(n) {
    return whole.format(n);
}
