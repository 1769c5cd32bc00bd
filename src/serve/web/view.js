// A conversation's messages as elements.
import { copyButton, count, el, icon, number, sends } from './dom.js';
import { renderMarkdown } from './markdown.js';

const FINISHES = {
    length: 'ended at the token limit',
    stopped: 'stopped by you',
    content_filter: 'ended by the server’s filter',
    '': 'broke off',
};

function labelled(name, label, onclick) {
    return el('button', { type: 'button', class: 'quiet', onclick }, icon(name), label);
}

// A user's message: its text and, on demand, a box to change it. actions.edit(text) sends it anew.
export function userView(message, actions) {
    const text = el('div', { class: 'text', dir: 'auto' }, message.content);
    const tools = el('div', { class: 'tools' },
                     copyButton('Copy this message', () => message.content),
                     labelled('edit', 'Edit', edit));
    const element = el('article', { class: 'message user' },
                       el('h2', { class: 'visually-hidden' }, 'You'), text, tools);

    function edit() {
        const box = el('textarea', { dir: 'auto', 'aria-label': 'Change your message',
                                     rows: Math.min(message.content.split('\n').length + 1, 12) });
        const form = el('form', { class: 'edit', onsubmit: submit }, box,
                        el('div', { class: 'row' },
                           el('button', { type: 'button', class: 'plain', onclick: cancel }, 'Cancel'),
                           el('button', { type: 'submit', class: 'plain main' }, 'Send')));
        box.value = message.content;
        box.addEventListener('keydown', (event) => {
            if (sends(event))
                submit(event);
            else if (event.key === 'Escape')
                cancel();
            else
                return;
            event.stopPropagation();
        });
        element.classList.add('editing');
        element.append(form);
        box.focus();

        function cancel() {
            form.remove();
            element.classList.remove('editing');
            tools.lastChild.focus();
        }
        function submit(event) {
            event.preventDefault();
            if (box.value.trim() !== '')
                actions.edit(box.value);
        }
    }
    return { element };
}

function waitingText(run) {
    if (!run.progress)
        return 'Waiting for the server';
    const [done, total] = run.progress;
    return `Reading the prompt: ${Math.floor(100 * Math.min(done / total, 1))}%`;
}

function statsText(message) {
    const parts = [message.model];
    const { completion, perSecond, first } = message.stats ?? {};
    if (completion !== undefined)
        parts.push(count(completion, 'token'));
    if (perSecond !== undefined)
        parts.push(`${perSecond.toFixed(perSecond < 10 ? 2 : 1)} tokens/s`);
    if (first !== undefined)
        parts.push(`first after ${first.toFixed(first < 1 ? 2 : 1)} s`);
    if (message.finish in FINISHES)
        parts.push(FINISHES[message.finish]);
    return parts.filter((part) => part).join(' · ');
}

// A reply. update(run) shows what it has by now; run: how it is being written, null: it is whole.
// actions.regenerate() is offered where actions has it.
export function replyView(message, actions) {
    const thought = el('div', { class: 'markdown' });
    const summary = el('summary', {}, 'Reasoning');
    const thinking = el('details', { class: 'reasoning', hidden: true }, summary, thought);
    const text = el('div', { class: 'markdown' });
    const waiting = el('p', { class: 'waiting', hidden: true });
    const stats = el('span', { class: 'stats' });
    const again = actions.regenerate
        ? labelled('again', 'Regenerate', () => actions.regenerate()) : null;
    const tools = el('div', { class: 'tools' },
                     copyButton('Copy this reply', () => message.content), again, stats);
    const element = el('article', { class: 'message reply' },
                       el('h2', { class: 'visually-hidden' }, 'Reply'), thinking, text, waiting,
                       tools);

    function update(run) {
        const begun = message.content !== '' || message.reasoning !== '';
        element.classList.toggle('writing', run !== null);
        element.setAttribute('aria-busy', String(run !== null));
        waiting.hidden = run === null || begun;
        if (!waiting.hidden)
            waiting.textContent = waitingText(run);
        thinking.hidden = message.reasoning === '';
        summary.textContent = run && message.content === '' ? 'Reasoning…' : 'Reasoning';
        renderMarkdown(thought, message.reasoning);
        renderMarkdown(text, message.content);
        stats.textContent = run ? liveText(run) : statsText(message);
    }
    return { element, update };
}

function liveText(run) {
    const rate = run.rate();
    return rate ? `${rate.toFixed(rate < 10 ? 2 : 1)} tokens/s` : '';
}

// What stands where there are no messages yet. choose(text) is given an example.
export function emptyView(model, choose) {
    const examples = ['Explain what a mixture of experts is, in three sentences',
                      'Write a Python function that merges overlapping intervals',
                      'اكتب رسالة شكر قصيرة إلى زميل'];
    return el('section', { class: 'empty' },
              el('img', { src: 'icon.svg', alt: '', width: 48, height: 48 }),
              el('h2', {}, 'Ask something'),
              el('p', {}, model ? `${model} answers from this server. ` : '',
                 'Write below and send it; what you write stays between this browser and the server.'),
              el('div', { class: 'examples' }, ...examples.map((text) => el(
                  'button', { type: 'button', class: 'plain', dir: 'auto',
                              onclick: () => choose(text) }, text))));
}

// Why there is no reply, or not all of it. actions: retry(), setKey(key).
export function noticeView(problem, actions) {
    const retry = el('button', { type: 'button', class: 'plain main', onclick: actions.retry },
                     'Try again');
    const notice = el('section', { class: `notice ${problem.kind ?? ''}`, 'aria-label': 'Notice' },
                      el('p', {}, problem.message));
    if (problem.kind !== 'key') {
        notice.append(retry);
        return notice;
    }
    const field = el('input', { type: 'password', id: 'notice-key', autocomplete: 'off',
                                spellcheck: 'false' });
    notice.append(el('form', {
        class: 'row',
        onsubmit: (event) => {
            event.preventDefault();
            actions.setKey(field.value.trim());
        },
    }, el('label', { for: 'notice-key' }, 'API key'), field,
       el('button', { type: 'submit', class: 'plain main' }, 'Use this key')));
    return notice;
}

// "1,234 of 32,768 tokens"
export function contextText(used, size) {
    return size ? `${number(used)} of ${number(size)} tokens` : count(used, 'token');
}
