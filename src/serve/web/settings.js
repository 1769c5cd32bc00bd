// The settings dialog. What is entered holds at once.
import { exportText, importText, saveSettings } from './store.js';
import { count } from './dom.js';

const NUMBERS = ['temperature', 'top_p', 'top_k', 'min_p', 'max_tokens', 'seed',
                 'frequency_penalty', 'presence_penalty'];
const $ = (id) => document.getElementById(id);

// What of the sampling settings goes into a request: only what was set.
export function samplingParameters(sampling) {
    const body = {};
    for (const name of NUMBERS)
        if (Number.isFinite(sampling[name]))
            body[name] = sampling[name];
    const stops = String(sampling.stop_texts ?? '').split('\n').filter((line) => line !== '');
    if (stops.length > 0)
        body.stop = stops;
    return body;
}

function fillSampling(sampling) {
    for (const name of NUMBERS)
        $(name).value = Number.isFinite(sampling[name]) ? sampling[name] : '';
    $('stop_texts').value = sampling.stop_texts ?? '';
}

// page: { settings, chat(), setSystem(text), setKey(key), chats(), addChats(chats) }.
export function setUpSettings(page) {
    const dialog = $('settings');
    const { settings } = page;

    for (const button of document.querySelectorAll('.open-settings'))
        button.addEventListener('click', () => {
            $('system').value = page.chat().system;
            $('key').value = settings.key;
            $('import-result').textContent = '';
            fillSampling(settings.sampling);
            dialog.showModal();
        });
    $('settings-close').addEventListener('click', () => dialog.close());
    // A click beside the dialog, whose own area is its form's.
    dialog.addEventListener('click', (event) => event.target === dialog && dialog.close());
    $('settings-form').addEventListener('submit', (event) => {
        event.preventDefault();
        dialog.close();
    });

    $('system').addEventListener('input', () => page.setSystem($('system').value));
    $('key').addEventListener('change', () => page.setKey($('key').value.trim()));
    $('sampling').addEventListener('input', () => {
        for (const name of NUMBERS)
            if ($(name).validity.valid)
                settings.sampling[name] = $(name).value === '' ? undefined : $(name).valueAsNumber;
        settings.sampling.stop_texts = $('stop_texts').value || undefined;
        saveSettings(settings);
    });
    $('reset-sampling').addEventListener('click', () => {
        settings.sampling = {};
        fillSampling({});
        saveSettings(settings);
    });

    $('export').addEventListener('click', () => {
        const file = new Blob([exportText(page.chats())], { type: 'application/json' });
        const a = document.createElement('a');
        a.href = URL.createObjectURL(file);
        a.download = `marco-conversations-${new Date().toISOString().slice(0, 10)}.json`;
        a.click();
        setTimeout(() => URL.revokeObjectURL(a.href), 10000);
    });
    $('import').addEventListener('click', () => $('import-file').click());
    $('import-file').addEventListener('change', async () => {
        const [file] = $('import-file').files;
        if (!file)
            return;
        try {
            const chats = importText(await file.text());
            await page.addChats(chats);
            $('import-result').textContent = `Imported ${count(chats.length, 'conversation')}.`;
        } catch (error) {
            $('import-result').textContent = error.message;
        }
        $('import-file').value = '';
    });
}
