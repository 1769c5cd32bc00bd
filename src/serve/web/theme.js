// Sets the colours before anything is painted; a plain script, since modules run too late for that.
'use strict';
(() => {
    const dark = matchMedia('(prefers-color-scheme: dark)');
    const choices = ['system', 'light', 'dark'];

    function choice() {
        try {
            const kept = localStorage.getItem('marco-theme');
            return choices.includes(kept) ? kept : 'system';
        } catch {
            return 'system';
        }
    }

    function apply(chosen) {
        const theme = chosen === 'system' ? (dark.matches ? 'dark' : 'light') : chosen;
        document.documentElement.dataset.theme = theme;
    }

    apply(choice());
    dark.addEventListener('change', () => apply(choice()));
    // The switch: system, light, dark, and round again.
    addEventListener('DOMContentLoaded', () => {
        const button = document.getElementById('theme');
        const label = document.getElementById('theme-label');
        let chosen = choice();
        label.textContent = `Theme: ${chosen}`;
        button.addEventListener('click', () => {
            chosen = choices[(choices.indexOf(chosen) + 1) % choices.length];
            try {
                localStorage.setItem('marco-theme', chosen);
            } catch {
                // It then lasts until the page is closed.
            }
            label.textContent = `Theme: ${chosen}`;
            apply(chosen);
        });
    });
})();
