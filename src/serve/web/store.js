// What the browser keeps: conversations in IndexedDB, settings in localStorage.

const FORMAT = 'marco-conversations';

// crypto.randomUUID is not there on plain HTTP.
export function newId() {
    const bytes = crypto.getRandomValues(new Uint8Array(12));
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

export function newChat(system) {
    const now = Date.now();
    return { id: newId(), title: '', created: now, updated: now, system, messages: [] };
}

// ---- conversations -----------------------------------------------------------------------------

function done(request) {
    return new Promise((resolve, reject) => {
        request.onsuccess = () => resolve(request.result);
        request.onerror = () => reject(request.error);
    });
}

export class Store {
    // onchange(id) is called when another tab has changed a conversation.
    static async open(onchange) {
        const store = new Store();
        try {
            const request = indexedDB.open('marco', 1);
            request.onupgradeneeded = () =>
                request.result.createObjectStore('chats', { keyPath: 'id' });
            store.db = await done(request);
        } catch {
            store.db = null; // a private window, or no room: kept until the page is closed
        }
        if ('BroadcastChannel' in window) {
            store.channel = new BroadcastChannel('marco');
            store.channel.onmessage = (message) => onchange(message.data);
        }
        return store;
    }

    get lasting() {
        return this.db !== null;
    }

    objects(mode) {
        return this.db.transaction('chats', mode).objectStore('chats');
    }

    async all() {
        return this.db ? (await done(this.objects('readonly').getAll())).map(cleanChat) : [];
    }

    // null: there is none.
    async get(id) {
        const chat = this.db && await done(this.objects('readonly').get(id));
        return chat ? cleanChat(chat) : null;
    }

    async put(chat) {
        if (this.db)
            await done(this.objects('readwrite').put(chat));
        this.channel?.postMessage(chat.id);
    }

    async remove(id) {
        if (this.db)
            await done(this.objects('readwrite').delete(id));
        this.channel?.postMessage(id);
    }
}

function text(value, limit = Infinity) {
    return typeof value === 'string' ? value.slice(0, limit) : '';
}

function time(value) {
    return Number.isFinite(value) && value > 0 ? value : Date.now();
}

function cleanStats(stats) {
    if (typeof stats !== 'object' || stats === null)
        return null;
    const names = ['prompt', 'completion', 'perSecond', 'first'];
    const kept = names.filter((name) => Number.isFinite(stats[name]) && stats[name] >= 0);
    return Object.fromEntries(kept.map((name) => [name, stats[name]]));
}

function cleanMessage(message) {
    const clean = { role: message.role, content: text(message.content) };
    if (message.role === 'assistant') {
        clean.reasoning = text(message.reasoning);
        clean.model = text(message.model, 200);
        clean.finish = text(message.finish, 40);
        clean.stats = cleanStats(message.stats);
    }
    return clean;
}

// A conversation of known form, whatever came from a file or another version of the page.
function cleanChat(chat) {
    const known = (message) => message?.role === 'user' || message?.role === 'assistant';
    return {
        id: text(chat.id, 64) || newId(),
        title: text(chat.title, 200),
        created: time(chat.created),
        updated: time(chat.updated),
        system: text(chat.system),
        messages: (Array.isArray(chat.messages) ? chat.messages : []).filter(known)
            .map(cleanMessage),
    };
}

export function exportText(chats) {
    return JSON.stringify({ format: FORMAT, version: 1, conversations: chats }, null, 1);
}

// The conversations of an exported file; throws an Error for the user.
export function importText(file) {
    let value;
    try {
        value = JSON.parse(file);
    } catch {
        throw new Error('The file is not JSON.');
    }
    if (value?.format !== FORMAT || !Array.isArray(value.conversations))
        throw new Error('The file holds no conversations exported from this page.');
    return value.conversations.filter((chat) => typeof chat === 'object' && chat !== null)
        .map(cleanChat);
}

// ---- settings ----------------------------------------------------------------------------------

export function loadSettings() {
    let kept = {};
    try {
        kept = JSON.parse(localStorage.getItem('marco-settings')) ?? {};
    } catch {
        // Begin with none.
    }
    return { key: text(kept.key), model: text(kept.model), system: text(kept.system),
             sampling: typeof kept.sampling === 'object' && kept.sampling ? kept.sampling : {} };
}

export function saveSettings(settings) {
    try {
        localStorage.setItem('marco-settings', JSON.stringify(settings));
    } catch {
        // They then last until the page is closed.
    }
}
