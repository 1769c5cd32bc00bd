// The server's API: the models it has, and replies as they are written. Addresses are relative: the
// page also works below a path of a proxy.

// kind: 'key', 'busy', 'network', 'refused' (the request is at fault), 'server', 'broken' (it
// ended early). message is for the user.
export class ApiError extends Error {
    constructor(kind, message) {
        super(message);
        this.kind = kind;
    }
}

const UNREACHABLE = 'The page can’t reach the server. Check that it is running and that your ' +
    'network is up.';

function seconds(header) {
    const n = Number.parseInt(header ?? '', 10);
    return Number.isFinite(n) && n > 0 ? n : null;
}

async function refusal(response, key) {
    const body = await response.json().catch(() => null);
    const said = typeof body?.error?.message === 'string' ? body.error.message : '';
    const wait = seconds(response.headers.get('Retry-After'));
    const later = wait ? ` It asks to wait ${wait} second${wait === 1 ? '' : 's'}.` : '';
    switch (response.status) {
    case 401:
        return new ApiError('key', key ? 'The server does not accept this API key.'
                                       : 'This server asks for an API key.');
    case 429:
        return new ApiError('busy', `The server is busy with other requests.${later}`);
    case 502:
    case 503:
    case 504:
        return new ApiError('busy', `The server can’t take the request at the moment.${later}` +
                            (said && ` It says: ${said}`));
    default:
        return response.status >= 500
            ? new ApiError('server', `Something went wrong in the server (${response.status}).` +
                           (said && ` It says: ${said}`))
            : new ApiError('refused', `The server refuses the request: ` +
                           (said || `status ${response.status}`));
    }
}

async function request(path, key, options = {}) {
    if (!/^[\x21-\x7e]*$/.test(key))
        throw new ApiError('key', 'This API key has characters that no key has.');
    const headers = { ...options.headers };
    if (key)
        headers.Authorization = `Bearer ${key}`;
    let response;
    try {
        response = await fetch(path, { ...options, headers, cache: 'no-store',
                                       credentials: 'same-origin' });
    } catch (error) {
        throw error.name === 'AbortError' ? error : new ApiError('network', UNREACHABLE);
    }
    if (!response.ok)
        throw await refusal(response, key);
    return response;
}

// [{ id, context }]; context: tokens, or null where the server does not say.
export async function listModels(key) {
    const response = await request('v1/models', key);
    const body = await response.json().catch(() => null);
    if (!Array.isArray(body?.data))
        throw new ApiError('server', 'The server’s list of models can’t be read.');
    return body.data.filter((model) => typeof model?.id === 'string').map((model) => ({
        id: model.id,
        context: Number.isFinite(model.context_length) ? model.context_length : null,
    }));
}

// Server-sent events: { data } or { comment }.
async function* serverEvents(body) {
    const reader = body.getReader();
    const decoder = new TextDecoder();
    let rest = '';
    let data = [];
    try {
        for (;;) {
            const { value, done } = await reader.read();
            rest += done ? decoder.decode() : decoder.decode(value, { stream: true });
            const lines = rest.split('\n');
            rest = lines.pop();
            for (const raw of lines) {
                const line = raw.endsWith('\r') ? raw.slice(0, -1) : raw;
                if (line === '') {
                    if (data.length > 0)
                        yield { data: data.join('\n') };
                    data = [];
                } else if (line.startsWith(':')) {
                    yield { comment: line.slice(1).trim() };
                } else if (line.startsWith('data:')) {
                    data.push(line.slice(line[5] === ' ' ? 6 : 5));
                }
            }
            if (done)
                return;
        }
    } finally {
        reader.cancel().catch(() => {});
    }
}

function parseChunk(data) {
    let chunk;
    try {
        chunk = JSON.parse(data);
    } catch {
        throw new ApiError('server', 'The server’s answer can’t be read.');
    }
    if (chunk?.error)
        throw new ApiError('server', `The server ended the reply: ${chunk.error.message ?? ''}`);
    return chunk;
}

// Asks for a reply and hands it on as it comes: on.progress(done, total) while the prompt is read,
// on.text(text), on.reasoning(text), on.finish(reason), on.usage({ prompt_tokens, ... }). Returns
// when the reply is whole; throws an ApiError, or an AbortError where signal stopped it.
export async function streamReply(body, key, signal, on) {
    const response = await request('v1/chat/completions', key, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
        signal,
    });
    let finished = false;
    try {
        for await (const { data, comment } of serverEvents(response.body)) {
            const progress = comment && /^prompt (\d+)\/(\d+)$/.exec(comment);
            if (progress)
                on.progress(Number(progress[1]), Number(progress[2]));
            if (data === undefined)
                continue;
            if (data === '[DONE]')
                return;
            const chunk = parseChunk(data);
            const choice = chunk.choices?.[0];
            if (choice?.delta?.reasoning_content)
                on.reasoning(choice.delta.reasoning_content);
            if (choice?.delta?.content)
                on.text(choice.delta.content);
            if (choice?.finish_reason) {
                finished = true;
                on.finish(choice.finish_reason);
            }
            if (chunk.usage)
                on.usage(chunk.usage);
        }
    } catch (error) {
        if (error instanceof ApiError || error.name === 'AbortError')
            throw error;
        throw new ApiError('broken', 'The connection to the server broke off.');
    }
    if (!finished)
        throw new ApiError('broken', 'The connection ended before the reply was whole.');
}
