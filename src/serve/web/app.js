// The page: conversations on the left, the open one in the middle, and replies as they are written.
import { ApiError, listModels, streamReply } from './api.js';
import { el, iconButton, sends, touch } from './dom.js';
import { samplingParameters, setUpSettings } from './settings.js';
import { Store, loadSettings, newChat, saveSettings } from './store.js';
import { contextText, emptyView, noticeView, replyView, userView } from './view.js';

const RENDER_MS = 100; // between two renderings of a reply being written
const SAVE_MS = 1000;
const $ = (id) => document.getElementById(id);

const settings = loadSettings();
const narrow = matchMedia('(max-width: 48rem)');

let store;
let chats = [];      // latest first
let chat;            // the open one; a new one joins chats with its first message
let models = [];
let writing = null;  // { view, run }: the reply being written, where it is of the open chat
const runs = new Map();     // chat.id -> how its reply is being written
const problems = new Map(); // chat.id -> why the last reply failed

// ---- the open conversation ---------------------------------------------------------------------

function atBottom() {
    const { scrollHeight, scrollTop, clientHeight } = $('scroller');
    return scrollHeight - scrollTop - clientHeight < 48;
}

function toBottom() {
    $('scroller').scrollTop = $('scroller').scrollHeight;
}

// Changes what is shown, and stays at the end if it was there.
function keepingEnd(change) {
    const stay = atBottom();
    change();
    if (stay)
        toBottom();
    $('latest').hidden = atBottom();
}

function showChat() {
    const run = runs.get(chat.id) ?? null;
    const { messages } = chat;
    writing = null;
    $('messages').replaceChildren(...messages.map((message, i) => {
        if (message.role === 'user')
            return userView(message, { edit: (text) => resend(i, text) }).element;
        const last = i === messages.length - 1;
        const view = replyView(message, last ? { regenerate: () => generate(chat) } : {});
        view.update(last ? run : null);
        if (last && run)
            writing = { view, run };
        return view.element;
    }));
    const problem = problems.get(chat.id) ?? problems.get('models') ?? unanswered(run);
    if (messages.length === 0 && !problem)
        $('messages').append(emptyView(settings.model, (text) => {
            $('input').value = text;
            $('input').focus();
            sizeInput();
        }));
    if (problem && !run)
        $('messages').append(noticeView(problem, { retry, setKey }));
    showState();
}

function unanswered(run) {
    const last = chat.messages.at(-1);
    return last?.role === 'user' && !run ? { message: 'This message has no reply yet.' } : null;
}

// Not by touch: a keyboard would come up over the messages.
function focusInput() {
    if (!touch.matches && !document.body.classList.contains('sidebar-open'))
        $('input').focus();
}

// What depends on whether a reply is being written, and on the model.
function showState() {
    const running = runs.has(chat.id);
    const focused = document.activeElement;
    $('send').hidden = running;
    $('stop').hidden = !running;
    if (!focused || focused.hidden || focused === document.body)
        focusInput();
    document.title = [chat.title, settings.model, 'marco'].filter((part) => part).slice(0, 2)
        .join(' · ');
    const stats = chat.messages.findLast((message) => message.stats?.prompt !== undefined)?.stats;
    const size = models.find((model) => model.id === settings.model)?.context;
    $('context').hidden = !stats;
    if (stats) {
        const used = stats.prompt + stats.completion;
        $('context-text').textContent = contextText(used, size);
        showMeter(used, size);
    }
}

function showMeter(used, size) {
    const meter = $('context-meter');
    meter.hidden = !size;
    if (!size)
        return;
    meter.setAttribute('aria-valuemax', size);
    meter.setAttribute('aria-valuenow', used);
    meter.style.setProperty('--used', `${Math.min(100 * used / size, 100)}%`);
    meter.classList.toggle('nearly-full', used > 0.85 * size);
}

async function keep(one) {
    if (!chats.includes(one))
        return; // deleted
    one.updated = Date.now();
    try {
        await store.put(one);
    } catch {
        $('store-note').hidden = false; // there is no room left
    }
}

function rememberOpen() {
    try {
        sessionStorage.setItem('marco-chat', chat.id);
    } catch {
        // The page then opens with a new one.
    }
}

function openChat(other) {
    chat = other;
    rememberOpen();
    showChat();
    showList();
    toBottom();
    $('latest').hidden = true;
    closeSidebar();
    focusInput();
}

// ---- replies -----------------------------------------------------------------------------------

class Run {
    constructor() {
        this.controller = new AbortController();
        this.started = performance.now();
        this.progress = null; // of the prompt: [done, total]
        this.first = this.last = 0;
        this.pieces = 0; // about as many as tokens
        this.usage = null;
    }

    piece() {
        this.last = performance.now();
        this.first ||= this.last;
        this.pieces++;
    }

    // Tokens a second; null for a reply that came too fast to tell, as one buffered on its way does.
    rate(tokens = this.pieces) {
        const seconds = (this.last - this.first) / 1000;
        return tokens > 1 && seconds > 0.05 ? (tokens - 1) / seconds : null;
    }

    stats() {
        const stats = {};
        if (this.usage) {
            stats.prompt = this.usage.prompt_tokens;
            stats.completion = this.usage.completion_tokens;
        }
        if (this.first)
            stats.first = (this.first - this.started) / 1000;
        const rate = this.rate(stats.completion);
        if (rate)
            stats.perSecond = rate;
        return stats;
    }
}

function requestMessages(of) {
    const system = of.system.trim() ? [{ role: 'system', content: of.system }] : [];
    return [...system, ...of.messages.map(({ role, content }) => ({ role, content }))];
}

// Writes a reply to the conversation's last message, in place of the one it has.
function generate(of) {
    if (runs.has(of.id))
        return;
    while (of.messages.at(-1)?.role === 'assistant')
        of.messages.pop();
    const messages = requestMessages(of);
    const reply = { role: 'assistant', content: '', reasoning: '', model: settings.model, finish: '',
                    stats: null };
    const run = new Run();
    problems.delete(of.id);
    runs.set(of.id, run);
    of.messages.push(reply);
    of.updated = Date.now();
    if (of === chat) {
        showChat();
        toBottom();
    }
    showList();
    announce('Waiting for the reply.');
    run.ended = write(of, reply, run, messages);
}

async function write(of, reply, run, messages) {
    try {
        if (models.length === 0)
            await loadModels();
        reply.model = settings.model;
        const body = { model: settings.model, messages, ...samplingParameters(settings.sampling) };
        await streamReply(body, settings.key, run.controller.signal, handlers(of, reply, run));
    } catch (error) {
        if (error.name === 'AbortError')
            reply.finish = 'stopped';
        else
            problems.set(of.id, error instanceof ApiError ? error
                                                          : new ApiError('server', String(error)));
    }
    endRun(of, reply, run);
}

function endRun(of, reply, run) {
    runs.delete(of.id);
    reply.stats = run.stats();
    const empty = reply.content === '' && reply.reasoning === '';
    if (empty && (reply.finish === '' || reply.finish === 'stopped'))
        of.messages.pop();
    keep(of);
    if (of === chat)
        keepingEnd(() => showEnd(reply, run));
    showList();
    announce(problems.get(of.id)?.message ?? reply.content);
}

// The reply's element stays where it can, and with it what is selected in it.
function showEnd(reply, run) {
    if (writing?.run !== run || chat.messages.at(-1) !== reply || problems.has(chat.id))
        return showChat();
    writing.view.update(null);
    writing = null;
    return showState();
}

function handlers(of, reply, run) {
    let timer = 0;
    let saved = performance.now();
    function changed() {
        timer ||= setTimeout(() => {
            timer = 0;
            if (writing?.run === run)
                keepingEnd(() => writing.view.update(run));
            if (runs.get(of.id) === run && performance.now() - saved > SAVE_MS) {
                saved = performance.now();
                keep(of);
            }
        }, RENDER_MS);
    }
    return {
        progress(done, total) {
            run.progress = [done, total];
            changed();
        },
        text(text) {
            reply.content += text;
            run.piece();
            changed();
        },
        reasoning(text) {
            reply.reasoning += text;
            run.piece();
            changed();
        },
        finish(reason) { reply.finish = reason; },
        usage(usage) { run.usage = usage; },
    };
}

function stop() {
    runs.get(chat.id)?.controller.abort();
}

function announce(text) {
    $('announcer').textContent = text;
}

function send(of, text) {
    if (runs.has(of.id) || text.trim() === '')
        return;
    if (of.title === '')
        of.title = text.trim().split('\n', 1)[0].slice(0, 80);
    of.messages.push({ role: 'user', content: text });
    if (!chats.includes(of))
        chats.unshift(of);
    keep(of);
    generate(of);
}

// Sends the i-th message anew with another text; what came after it goes.
async function resend(i, text) {
    const of = chat;
    stop();
    await runs.get(of.id)?.ended;
    if (!chats.includes(of))
        return;
    of.messages.length = i;
    send(of, text);
}

function retry() {
    if (chat.messages.length > 0)
        generate(chat);
    else
        refresh();
}

function setKey(key) {
    settings.key = key;
    saveSettings(settings);
    const refused = [chat.id, 'models'].some((where) => problems.get(where)?.kind === 'key');
    const wanted = refused && chat.messages.at(-1)?.role === 'user';
    problems.delete(chat.id);
    refresh().then(() => wanted && !problems.has('models') && generate(chat));
}

// ---- models ------------------------------------------------------------------------------------

async function loadModels() {
    models = await listModels(settings.key);
    problems.delete('models');
    if (!models.some((model) => model.id === settings.model))
        settings.model = models[0]?.id ?? '';
    $('model').replaceChildren(...models.map(({ id }) => el('option', { value: id }, id)));
    $('model').value = settings.model;
    $('model').disabled = models.length < 2;
}

async function refresh() {
    try {
        await loadModels();
    } catch (error) {
        problems.set('models', error);
        announce(error.message);
    }
    if (!runs.has(chat.id))
        showChat();
}

// ---- the list of conversations -----------------------------------------------------------------

function showList() {
    const wanted = $('search').value.trim().toLowerCase();
    const matches = (one) => wanted === '' || one.title.toLowerCase().includes(wanted) ||
        one.messages.some((message) => message.content.toLowerCase().includes(wanted));
    chats.sort((a, b) => b.updated - a.updated);
    $('chats').replaceChildren(...chats.filter(matches).map(listItem));
    $('search').hidden = chats.length < 2 && wanted === '';
}

function listItem(one) {
    const states = [one === chat ? 'open' : '', runs.has(one.id) ? 'busy' : ''];
    const item = el('li', { class: states.join(' ') });
    const name = el('button', { type: 'button', class: 'name', dir: 'auto', title: one.title,
                                'aria-current': one === chat ? 'true' : null,
                                onclick: () => openChat(one) }, one.title || 'Untitled');
    item.append(name, iconButton('edit', `Rename “${one.title}”`, () => rename(one, item)),
                iconButton('trash', `Delete “${one.title}”`, () => remove(one)));
    return item;
}

function rename(one, item) {
    const field = el('input', { class: 'name', dir: 'auto', maxlength: 200,
                                'aria-label': 'Name of the conversation' });
    let ended = false;
    const end = (accepted) => {
        if (ended)
            return;
        ended = true;
        if (accepted && field.value.trim() !== '') {
            one.title = field.value.trim();
            keep(one);
        }
        showList();
        showState();
    };
    field.value = one.title;
    field.addEventListener('blur', () => end(true));
    field.addEventListener('keydown', (event) => {
        if (event.key !== 'Enter' && event.key !== 'Escape')
            return;
        event.stopPropagation();
        end(event.key === 'Enter');
        $('chats').querySelectorAll('button.name')[chats.indexOf(one)]?.focus();
    });
    item.replaceChildren(field);
    field.focus();
    field.select();
}

function remove(one) {
    runs.get(one.id)?.controller.abort();
    chats = chats.filter((other) => other !== one);
    store.remove(one.id);
    if (one === chat)
        openChat(newChat(settings.system));
    showList();
    toast(`Deleted “${one.title}”.`, 'Undo', () => {
        chats.push(one);
        store.put(one);
        openChat(one);
    });
}

let toastTimer = 0;

function toast(text, label, action) {
    const hide = () => { $('toast').hidden = true; };
    clearTimeout(toastTimer);
    $('toast').replaceChildren(text, el('button', { type: 'button', class: 'quiet', onclick: () => {
        hide();
        action();
    } }, label));
    $('toast').hidden = false;
    toastTimer = setTimeout(hide, 8000);
}

// ---- the page ----------------------------------------------------------------------------------

function setSidebar(open) {
    document.body.classList.toggle('sidebar-open', open);
    $('sidebar').inert = narrow.matches && !open;
    $('main').inert = narrow.matches && open;
    $('shade').hidden = !(narrow.matches && open);
    $('sidebar-open').setAttribute('aria-expanded', String(open));
}

function openSidebar() {
    setSidebar(true);
    $('new-chat').focus();
}

function closeSidebar() {
    const focus = document.body.classList.contains('sidebar-open');
    setSidebar(false);
    if (focus)
        $('sidebar-open').focus();
}

function sizeInput() {
    const input = $('input');
    input.style.height = 'auto';
    input.style.height = `${input.scrollHeight}px`;
}

function submit(event) {
    event.preventDefault();
    if (runs.has(chat.id) || $('input').value.trim() === '')
        return;
    const text = $('input').value;
    $('input').value = '';
    sizeInput();
    send(chat, text);
}

// Another tab has changed a conversation: taken as that tab left it, unless written here.
async function takeOver(id) {
    const theirs = await store.get(id);
    const ours = chats.find((one) => one.id === id);
    if (runs.has(id) || (theirs && ours && ours.updated >= theirs.updated))
        return;
    chats = chats.filter((one) => one !== ours);
    if (theirs)
        chats.push(theirs);
    if (theirs && chat.id === id) {
        chat = theirs;
        keepingEnd(showChat);
    }
    showList();
}

function setUp() {
    $('composer').addEventListener('submit', submit);
    $('input').addEventListener('input', sizeInput);
    $('input').addEventListener('keydown', (event) => {
        if (sends(event))
            submit(event);
    });
    $('stop').addEventListener('click', stop);
    $('new-chat').addEventListener('click', () => openChat(newChat(settings.system)));
    $('search').addEventListener('input', showList);
    $('sidebar-open').addEventListener('click', openSidebar);
    $('sidebar-close').addEventListener('click', closeSidebar);
    $('shade').addEventListener('click', closeSidebar);
    narrow.addEventListener('change', () => setSidebar(false));
    $('latest').addEventListener('click', toBottom);
    $('scroller').addEventListener('scroll', () => { $('latest').hidden = atBottom(); });
    $('model').addEventListener('change', () => {
        settings.model = $('model').value;
        saveSettings(settings);
        showState();
    });
    document.addEventListener('keydown', (event) => {
        if (event.key !== 'Escape' || event.isComposing || $('settings').open)
            return;
        if (document.body.classList.contains('sidebar-open'))
            closeSidebar();
        else
            stop();
    });
    addEventListener('pagehide', () => chats.filter((one) => runs.has(one.id)).forEach(keep));
    setUpSettings({
        settings,
        setKey,
        chat: () => chat,
        chats: () => chats,
        setSystem(system) {
            chat.system = settings.system = system;
            saveSettings(settings);
            keep(chat);
        },
        async addChats(more) {
            for (const one of more) {
                const i = chats.findIndex((other) => other.id === one.id);
                if (i >= 0 && (chats[i].updated >= one.updated || runs.has(one.id)))
                    continue;
                chats.splice(i < 0 ? chats.length : i, i < 0 ? 0 : 1, one);
                await store.put(one);
            }
            openChat(chats.find((one) => one.id === chat.id) ?? chat);
        },
    });
}

async function start() {
    chat = newChat(settings.system);
    store = await Store.open(takeOver);
    chats = await store.all();
    chats.sort((a, b) => b.updated - a.updated);
    $('store-note').hidden = store.lasting;
    setUp();
    setSidebar(false);
    // The page opens where it was left.
    let last = null;
    try {
        last = sessionStorage.getItem('marco-chat');
    } catch {
        // Begin with a new one.
    }
    openChat(chats.find((one) => one.id === last) ?? chat);
    await refresh();
}

start();
