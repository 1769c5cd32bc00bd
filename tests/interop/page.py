#!/usr/bin/env python3
"""The page in a real browser: the distribution's Chromium without a screen, driven by Playwright.

    python page.py [--screenshots DIR] [CHECK ...]
    python page.py --url http://127.0.0.1:8080 [--key KEY] [CHECK ...]

With no --url it meets page_mock.py, whose replies are known; with one, a real server, and then what
depends on the words of a reply is left out. Says "skipped: ..." and exits 0 where Playwright or
Chromium is missing.
"""

import argparse
import json
import os
import re
import shutil
import tempfile
import time

import page_mock
import results
from page_visit import CHECKS, REAL, Visit, check, expect, until

try:
    from playwright.sync_api import sync_playwright
except ImportError:
    sync_playwright = None

WORDS = page_mock.WORDS


# ---- sending and replies -----------------------------------------------------------------------

@check("send a message, the reply streams", "text grows in steps, then stats and context", True)
def stream(visit):
    page = visit.page
    model = page.locator("#model").input_value()
    expect(model in page.title(), f"title {page.title()!r} without the model")
    page.evaluate("""() => {
        window.lengths = new Set();
        new MutationObserver(() => window.lengths.add(
            document.querySelector('.reply > .reasoning + .markdown')?.textContent.length ?? 0))
            .observe(document.querySelector('#messages'),
                     { childList: true, subtree: true, characterData: true });
    }""")
    visit.at_length()
    visit.send("Tell me of the sea, slowly", wait=False)
    page.wait_for_selector("#stop:not([hidden])")
    visit.until("window.lengths.size >= 4")
    page.press("#input", "Escape")
    visit.idle()
    expect(visit.sent[-1]["stream"] is True, "stream is not asked for")
    expect(visit.sent[-1]["stream_options"] == {"include_usage": True}, "no usage asked for")
    steps = page.evaluate("window.lengths.size")
    visit.send("And of the intervals between hills?")
    stats = page.locator(".stats").last.inner_text()
    expect(re.search(r"\d tokens? .*\d tokens/s", stats), f"stats: {stats!r}")
    context = page.locator("#context").inner_text()
    size = "of 32,768 " if visit.mock else r"of [\d,]+ "
    expect(re.search(rf"\d {size}tokens", context), f"context: {context!r}")
    return f"{steps} steps; {stats}; {context}"


@check("the reply's text is whole", "as sent, no request parameter that was not set")
def whole(visit):
    visit.send("hello")
    expect(visit.reply() == "Reply 1 to 1 messages: hello", visit.reply())
    expect(set(visit.sent[0]) == {"model", "messages", "stream", "stream_options"},
           f"sent {sorted(visit.sent[0])}")
    visit.send("again")
    roles = [message["role"] for message in visit.sent[1]["messages"]]
    expect(roles == ["user", "assistant", "user"], roles)
    said = visit.page.locator("#announcer").inner_text()
    expect(said == "Reply 2 to 3 messages: again", f"announced {said!r}")
    return "equal"


@check("stop", "by button and by Esc: the text so far stays, the server is left", True)
def stop(visit):
    page = visit.page
    visit.at_length()
    for way in ("button", "Escape"):
        visit.send("Count from 1 to 200, slowly", wait=False)
        visit.until("n => document.querySelectorAll('.reply > .reasoning + .markdown')[n]"
                    "?.textContent.length > 10", 0 if way == "button" else 1)
        if way == "button":
            page.click("#stop")
        else:
            page.keyboard.press("Escape")
        visit.idle()
        text = visit.reply()
        expect(10 < len(text) < 2000, f"{len(text)} characters")
        expect("stopped by you" in page.locator(".stats").last.inner_text(), "not said")
        time.sleep(0.3)
        expect(visit.reply() == text, "the text goes on")
        expect(page.evaluate("document.activeElement.id") == "input", f"focus after {way}")
    if visit.mock:
        for _ in range(50):
            if visit.mock.state.gone == 2:
                break
            time.sleep(0.1)
        expect(visit.mock.state.gone == 2, f"{visit.mock.state.gone} of 2 replies were left")
    return "stays"


@check("regenerate", "the same messages are sent again, one reply in place of the other", True)
def regenerate(visit):
    visit.send("hello")
    before = visit.reply()
    visit.page.get_by_role("button", name="Regenerate").last.click()
    visit.until("document.querySelectorAll('.reply').length === 1")
    visit.idle()
    expect(visit.sent[0]["messages"] == visit.sent[1]["messages"], "other messages")
    expect(visit.page.locator(".message").count() == 2, "not two messages")
    if visit.mock:
        expect(before != visit.reply() == "Reply 2 to 1 messages: hello", visit.reply())
    return "as said"


@check("edit a message", "it is sent anew, what came after it goes; Esc leaves it as it was", True)
def edit(visit):
    page = visit.page
    visit.send("first question")
    visit.send("second question")
    button = page.get_by_role("button", name="Edit", exact=True).first
    page.locator(".user").first.hover()
    button.click()
    page.keyboard.type(" spoilt")
    page.keyboard.press("Escape")
    expect(page.locator(".user .text").first.inner_text() == "first question", "Esc changed it")
    page.locator(".user").first.hover()
    button.click()
    page.get_by_label("Change your message").fill("third question")
    page.keyboard.press("Enter")
    visit.until("document.querySelectorAll('.user').length === 1")
    visit.idle()
    expect(visit.sent[2]["messages"] == [{"role": "user", "content": "third question"}],
           visit.sent[2]["messages"])
    expect(page.locator(".message").count() == 2, "not two messages")
    visit.send("tell more, slowly", wait=False)
    page.locator(".reply").nth(1).wait_for()
    page.locator(".user").last.hover()
    page.get_by_role("button", name="Edit", exact=True).last.click()
    page.get_by_label("Change your message").fill("stop that")
    page.keyboard.press("Enter")
    visit.until("document.querySelectorAll('.user .text')[1]?.textContent === 'stop that'")
    visit.idle()
    sent = [message["content"] for message in visit.sent[4]["messages"]]
    expect(len(sent) == 3 and sent[2] == "stop that", sent)
    return "as said"


@check("edit a message and open another conversation at once", "it is sent where it was written", True)
def leave(visit):
    page = visit.page
    visit.send("tell more, slowly", wait=False)
    page.locator(".reply").first.wait_for()
    page.locator(".user").first.hover()
    page.get_by_role("button", name="Edit", exact=True).first.click()
    page.get_by_label("Change your message").fill("something else")
    page.evaluate("""() => {
        document.querySelector('form.edit').requestSubmit();
        document.querySelector('#new-chat').click();
    }""")
    end = time.monotonic() + 10
    while len(visit.sent) < 2 and time.monotonic() < end:
        page.wait_for_timeout(20)
    expect([message["content"] for body in visit.sent[1:] for message in body["messages"]] ==
           ["something else"], visit.sent[1:])
    expect(page.locator(".message").count() == 0, "written to the other conversation")
    visit.until("!document.querySelector('#chats li.busy')")
    page.locator("#chats .name").first.click()
    expect(page.locator(".message").count() == 2, "not two messages")
    return "as said"


@check("delete a conversation while its reply is written", "it stays deleted")
def delete(visit):
    page = visit.page
    # A reply that ends late, so that there is time to save it once more.
    page.evaluate("AbortController.prototype.abort = () => {}")
    visit.send("slowly", wait=False)
    visit.until("document.querySelector('.reply')?.textContent.length > 100")
    page.hover("#chats li")
    page.get_by_role("button", name="Delete “slowly”").click()
    received = "performance.getEntriesByType('mark').length"
    page.evaluate("""() => {
        const decode = TextDecoder.prototype.decode;
        TextDecoder.prototype.decode = function (...all) {
            performance.mark('received');
            return decode.apply(this, all);
        };
    }""")
    visit.until(f"{received} > 60")  # about 1.8 s of them; it is saved every second
    visit.open()
    expect(page.locator("#chats .name").count() == 0, "it is there again")
    return "as said"


@check("reload", "the conversation is there, a reply cut off by it too", True)
def reload(visit):
    visit.send("hello")
    before = visit.page.locator("#messages").inner_text()
    visit.open()
    visit.page.wait_for_selector(".reply")
    expect(visit.page.locator("#messages").inner_text() == before, "another text")
    if visit.mock:
        visit.send("slowly now", wait=False)
        visit.until(
            "document.querySelectorAll('.reply')[1]?.textContent.length > 250")
        visit.open()
        visit.until(
            "document.querySelectorAll('.reply')[1]?.textContent.length > 100")
        expect("broke off" in visit.page.locator(".stats").last.inner_text(), "not said")
    return "the same text"


@check("system prompt and sampling", "sent where set, and only then")
def settings(visit):
    page = visit.page
    page.locator("header .open-settings").click()
    page.fill("#system", "Be brief.")
    page.fill("#temperature", "0.5")
    page.fill("#seed", "42")
    page.fill("#top_p", "7")  # out of range: not sent
    stops = ["END", "FIN", "</s>", "3", "4", "5"]
    page.fill("#stop_texts", "\n\n".join(stops))
    page.keyboard.press("Escape")
    expect(page.evaluate("document.activeElement.getAttribute('aria-label')") == "Settings",
           "focus does not return")
    page.select_option("#model", "example-small")
    visit.send("hello")
    sent = {k: v for k, v in visit.sent[0].items() if k not in ("stream", "stream_options")}
    expect(sent == {"model": "example-small", "temperature": 0.5, "seed": 42, "stop": stops,
                    "messages": [{"role": "system", "content": "Be brief."},
                                 {"role": "user", "content": "hello"}]}, sent)
    page.locator("header .open-settings").click()
    page.fill("#temperature", "")
    page.get_by_role("button", name="Back to the defaults").click()
    page.fill("#system", "")
    page.keyboard.press("Escape")
    visit.open()
    visit.send("more")
    expect(set(visit.sent[1]) == {"model", "messages", "stream", "stream_options"} and
           visit.sent[1]["messages"][0]["role"] == "user" and
           visit.sent[1]["model"] == "example-small", visit.sent[1])
    return "as said"


@check("reasoning and progress of the prompt", "shown apart, in percent")
def reasoning(visit):
    visit.send("think about a long prompt", wait=False)
    visit.wait_text(".waiting", "Reading the prompt: 12%")
    visit.wait_text(".waiting", "Reading the prompt: 25%")
    visit.idle()
    page = visit.page
    expect("First I consider" not in visit.reply(), "reasoning in the reply")
    page.locator(".reasoning summary").click()
    expect("First I consider the question." in page.locator(".reasoning").inner_text(), "not there")
    visit.send("and?")
    expect("consider" not in json.dumps(visit.sent[1]), "reasoning is sent back")
    return "12%, 25%"


# ---- errors ------------------------------------------------------------------------------------

@check("a bad key", "says so, asks for the key in place, goes on with it and keeps it", True)
def key(visit):
    page = visit.page
    visit.expected = ("401",)
    good = visit.key if visit.mock is None else "sesame-12345"
    if visit.mock:
        visit.mock.state.key = good
    if visit.mock is None:
        page.evaluate("(kept) => localStorage.setItem('marco-settings', kept)",
                      json.dumps({**visit.settings, "key": ""}))
    visit.open()
    visit.wait_text(".notice", "This server asks for an API key.")
    page.fill("#notice-key", "wrong")
    page.keyboard.press("Enter")
    visit.wait_text(".notice", "The server does not accept this API key.")
    visit.send("hello", wait=False)
    visit.wait_text(".notice", "The server does not accept this API key.")
    expect(page.locator(".user").count() == 1, "the message is lost")
    page.fill("#notice-key", "schlüssel")
    page.keyboard.press("Enter")
    visit.wait_text(".notice", "characters that no key has")
    page.fill("#notice-key", good)
    page.keyboard.press("Enter")
    page.wait_for_selector(".reply")
    visit.idle()
    expect(page.locator(".notice").count() == 0, "the notice stays")
    expect(len(visit.reply()) > 0, "no reply")
    visit.open()
    visit.send("more")
    expect(page.locator(".notice").count() == 0, "the key is not kept")
    return "as said"


@check("a busy server, a refusal, no network, a broken stream", "plain words and Try again")
def failures(visit):
    page, state = visit.page, visit.mock.state
    visit.expected = ("429", "400", "500", "net")
    state.refusals = [(429, [("Retry-After", "7")], "queue full"), (400, [], "no such thing as x"),
                      (500, [], "out of luck")]
    visit.send("hello")
    visit.wait_text(".notice", "The server is busy with other requests. It asks to wait 7 seconds.")
    again = page.get_by_role("button", name="Try again")
    again.click()
    visit.wait_text(".notice", "The server refuses the request: no such thing as x")
    again.click()
    visit.wait_text(".notice", "Something went wrong in the server (500). It says: out of luck")
    visit.context.set_offline(True)
    again.click()
    visit.wait_text(".notice", "can’t reach the server")
    visit.context.set_offline(False)
    again.click()
    page.wait_for_selector(".reply")
    visit.idle()
    expect(page.locator(".notice").count() == 0 and page.locator(".user").count() == 1, "left over")
    visit.send("break off please")
    visit.wait_text(".notice", "The connection ended before the reply was whole.")
    expect("break off please" in visit.reply(), "the text so far is lost")
    return "as said"


# ---- what models write -------------------------------------------------------------------------

@check("hostile Markdown", "nothing runs, nothing loads, links are http(s) and apart", True)
def hostile(visit):
    page = visit.page
    if visit.mock:
        visit.send("hostile please")
    page.evaluate("""async (text) => {
        const { renderMarkdown } = await import('./markdown.js');
        const target = document.createElement('div');
        target.id = 'hostile';
        document.querySelector('#messages').append(target);
        for (let n = 0; n < text.length; n += 7) // as it streams
            renderMarkdown(target, text.slice(0, n));
        renderMarkdown(target, text);
    }""", page_mock.HOSTILE)
    time.sleep(0.3)
    expect(page.evaluate("window.hacked") is None, f"ran number {page.evaluate('window.hacked')}")
    bad = "img, script, iframe, style, svg:not(.icon), object, form, b, [onerror], [onload]"
    for place in ("#hostile", ".reply .markdown") if visit.mock else ("#hostile",):
        found = page.locator(place).last.evaluate(
            "(e, bad) => [...e.querySelectorAll(bad)].map((x) => x.outerHTML)", bad)
        expect(not found, f"elements made of text: {found}")
        links = page.locator(place).last.evaluate(
            "(e) => [...e.querySelectorAll('a')].map((a) => [a.href, a.rel, a.target])")
        expect(all(re.match("https?://", link[0]) and link[1:] == ["noopener noreferrer", "_blank"]
                   for link in links) and len(links) == 3, links)
        expect("<img src=x onerror=" in page.locator(place).last.inner_text(), "text is lost")
    return "inert"


CASES = [  # Markdown, what its elements are
    ("**a *b* c**", "p>strong>a ,em>b, c"),
    ("a_b_c and 2 * 3 * 4 and *x*", "p>a_b_c and 2 * 3 * 4 and ,em>x"),
    ("**强调：**文字", "p>strong>强调：|文字"),
    ("~~gone~~ ~5", "p>del>gone| ~5"),
    ("`` a`b `` and `c", "p>code>a`b| and `c"),
    ("$a_1 * b_2$ costs $5 and $10", "p>span>$a_1 * b_2$| costs $5 and $10"),
    ("\\[ x_1^2 \\]", "div>\\[ x_1^2 \\]"),
    ("see https://a.example/x_(y)_z. And", "p>see ,a>https://a.example/x_(y)_z|. And"),
    ("[https://a.example](https://a.example)", "p>a>https://a.example"),
    ("[1] is no link, ![pic](https://a.example/p.png) is", "p>[1] is no link, ,a>pic| is"),
    ("1. a\n   - b\n   - c\n2. d", "ol>li>a,ul>li>b|li>c||li>d"),
    ("- a\n  continued\n- b", "ul>li>a,br>|continued|li>b"),
    ("3) three\n4) four", "ol>li>three|li>four"),
    ("# One\ntext\n## Two ##", "h3>One|p>text|h4>Two"),
    ("> q\n> - l\n\nend", "blockquote>p>q|ul>li>l||p>end"),
    ("| a | b |\n|:-:|--:|\n| `x|y` | \\| |",
     "div>table>thead>tr>th>a|th>b|||tbody>tr>td>code>x|y||td>|"),
    ("in\n1986. A year", "p>in,br>|1986. A year"),
    ("a &lt;b&gt; &amp;amp;<br>c", "p>a <b> &amp;,br>|c"),
    ("---\n***\ntext", "hr>|hr>|p>text"),
]


@check("Markdown", "headings, lists, tables, quotes, code, maths, links as written", True)
def markdown(visit):
    shape = """async (text) => {
        const { renderMarkdown } = await import('./markdown.js');
        const target = document.createElement('div');
        renderMarkdown(target, text);
        const walk = (e) => [...e.childNodes].map((n) => n.nodeType === 3 ? n.data
            : `${n.localName}>${walk(n)}|`).join('');
        return walk(target);
    }"""
    for text, wanted in CASES:
        got = visit.page.evaluate(shape, text)
        plain = re.sub(r"[|,]", "", got)
        expect(plain == re.sub(r"[|,]", "", wanted), f"{text!r} gives {got!r}")
    code = visit.page.evaluate(shape, "- x\n\n  ```py\n  a\n\n    b\n  ```\n- y")
    expect("code>a\n\n  b|" in code and code.endswith("li>p>y|||"), code)
    # Nothing that a model may write takes long or fails.
    for name, text in (("brackets", "[" * 50000), ("stars", "*a " * 30000 + "a* " * 30000),
                       ("nested", "**a " * 500 + "b** " * 500), ("quotes", ">" * 20000),
                       ("links", "[a](" * 20000), ("ticks", "".join("`" * (n % 90) + "a"
                                                                   for n in range(3000))),
                       ("lists", "\n".join(" " * 2 * n + "- x" for n in range(300))),
                       ("maths", "\\[ x\n" * 5000), ("pipes", "|" * 20000 + "\n" + "|-" * 20000),
                       ("spaces", "```" + " " * 60000 + "`"), ("rules", "* " * 50000 + "x"),
                       ("fences", "~" * 160000 + "`"),
                       ("addresses", "http://a" + ")" * 4000 + " ")):
        start = time.monotonic()
        visit.page.evaluate(shape, text)
        seconds = time.monotonic() - start
        expect(seconds < 4, f"{name} takes {seconds:.1f} s")
    return f"{len(CASES) + 1} texts as written, 13 hostile ones in time"


@check("Arabic", "right to left: message, input, reply and its list; code left to right", True)
def arabic(visit):
    page = visit.page
    text = "اكتب رسالة شكر قصيرة مع `code`"
    page.fill("#input", text)
    expect(visit.style("#input", "direction") == "rtl", "the input is not")
    visit.send(text)
    expect(visit.style(".user .text", "direction") == "rtl", "the message is not")
    expect(visit.style("#chats .name", "direction") == "rtl", "its title is not")
    if visit.mock:
        expect(visit.style(".reply .markdown > p", "direction") == "rtl", "the reply is not")
        expect(visit.style(".reply .markdown li", "direction") == "rtl", "the list is not")
        expect(visit.style(".reply .markdown ul", "paddingRight") == "24px", "bullets at the left")
        expect(visit.style(".reply .code pre", "direction") == "ltr", "code is")
        expect(visit.style(".reply .markdown li code", "direction") == "ltr", "code is")
    page.fill("#input", "English")
    expect(visit.style("#input", "direction") == "ltr", "English is not left to right")
    return "as said"


@check("copy", "the code, and nothing but it")
def copy(visit):
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit.send("intervals")
    visit.page.get_by_role("button", name="Copy this code").click()
    visit.wait_text(".code-bar", "Copied")
    clip = visit.page.evaluate("navigator.clipboard.readText()")
    expect(clip in page_mock.MARKDOWN and clip.startswith("def merge") and
           clip.endswith("return merged"), clip)
    return "equal"


# ---- the page ----------------------------------------------------------------------------------

@check("narrow screen", "320 pixels wide without sideways scrolling, all of it in reach", True)
def narrow(visit):
    page = visit.page
    page.set_viewport_size({"width": 320, "height": 640})
    wide = ("() => [document.documentElement.scrollWidth, "
            "document.querySelector('#scroller').scrollWidth, "
            "...[...document.querySelectorAll('button, input, select, textarea')].map((e) => "
            "e.checkVisibility({ visibilityProperty: true }) && "
            "!e.closest('[inert], .visually-hidden') "
            "? Math.ceil(e.getBoundingClientRect().right) : 0)]"
            ".reduce((a, b) => Math.max(a, b))")
    expect(page.evaluate(wide) <= 320, f"empty: {page.evaluate(wide)} wide")
    visit.send("intervals " + "x" * 300)
    visit.send("second")
    expect(page.evaluate(wide) <= 320, f"messages: {page.evaluate(wide)} wide")
    page.click("#sidebar-open")
    expect(page.evaluate("document.activeElement.id") == "new-chat", "focus does not follow")
    page.keyboard.press("Escape")
    expect(page.evaluate("document.activeElement.id") == "sidebar-open", "focus does not return")
    page.click("#sidebar-open")
    page.locator("#sidebar .open-settings").click()
    expect(page.evaluate(wide) <= 320, f"settings: {page.evaluate(wide)} wide")
    page.click("#settings-close")
    page.click("#new-chat")
    page.wait_for_selector(".empty")
    page.locator("#sidebar").wait_for(state="hidden")
    return "320 wide"


@check("keyboard alone", "skip link, send, stop, edit, regenerate, settings, list", True)
def keyboard(visit):
    page = visit.page

    def tab_to(name, limit=40, back=False):
        """Tab until the control of that name has the focus, which can be seen."""
        for _ in range(limit):
            now = page.evaluate("""() => { const e = document.activeElement;
                return [e.getAttribute('aria-label') || e.title || e.textContent.trim(),
                        getComputedStyle(e).outlineStyle, e.id]; }""")
            if now[0] == name:
                expect(now[1] != "none" or now[2] == "input", f"the focus on {name} can't be seen")
                return
            page.keyboard.press("Shift+Tab" if back else "Tab")
        raise AssertionError(f"Tab does not come to {name!r}")

    page.evaluate("document.activeElement.blur()")
    tab_to("Skip to the message box")
    page.keyboard.press("Enter")
    expect(page.evaluate("document.activeElement.id") == "input", "the skip link does not")
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    page.keyboard.press("Enter")
    page.wait_for_selector(".reply")
    visit.idle()
    expect(visit.sent[0]["messages"][0]["content"] == "one\ntwo", visit.sent[0]["messages"])
    tab_to("Regenerate", back=True)
    page.keyboard.press("Enter")
    page.wait_for_timeout(100)
    visit.idle()
    expect(len(visit.sent) == 2, "not sent again")
    tab_to("Edit", back=True)
    page.keyboard.press("Enter")
    page.keyboard.press("Control+A")
    page.keyboard.type("three")
    page.keyboard.press("Enter")
    page.wait_for_timeout(100)
    visit.idle()
    expect(visit.sent[2]["messages"][0]["content"] == "three", visit.sent[2]["messages"])
    tab_to("Delete “one”", back=True)
    page.keyboard.press("Enter")
    page.wait_for_selector(".empty")
    tab_to("Undo")
    page.keyboard.press("Enter")
    page.wait_for_selector(".reply")
    tab_to("Rename “one”", back=True)
    page.keyboard.press("Enter")
    page.keyboard.type("Named")
    page.keyboard.press("Enter")
    tab_to("Named")
    tab_to("Settings")
    page.keyboard.press("Enter")
    expect(page.locator("#settings").is_visible(), "no settings")
    page.keyboard.press("Escape")
    expect(not page.locator("#settings").is_visible(), "Esc does not close them")
    return "all reached"


@check("conversations", "list, rename, delete, search, export, import, in another tab too")
def conversations(visit):
    page = visit.page
    names = "() => [...document.querySelectorAll('#chats .name')].map((e) => e.textContent)"
    for title in ("about apples", "about pears", "about <b>plums</b>"):
        page.click("#new-chat")
        visit.send(title)
    expect(page.evaluate(names) == ["about <b>plums</b>", "about pears", "about apples"],
           page.evaluate(names))
    page.fill("#search", "PEAR")
    expect(page.evaluate(names) == ["about pears"], page.evaluate(names))
    page.fill("#search", "")
    with page.expect_download() as download:
        page.locator("#sidebar .open-settings").click()
        page.get_by_role("button", name="Export all").click()
    path = os.path.join(tempfile.mkdtemp(), "export.json")
    download.value.save_as(path)
    page.keyboard.press("Escape")
    page.hover("#chats li")
    page.get_by_role("button", name="Delete “about <b>plums</b>”").click()
    other = visit.context.new_page()
    other.goto(visit.url)
    other.wait_for_selector("#chats .name")
    expect(other.evaluate(names) == ["about pears", "about apples"], other.evaluate(names))
    page.locator("#sidebar .open-settings").click()
    page.set_input_files("#import-file", path)
    visit.wait_text("#import-result", "Imported 3 conversations.")
    expect(sorted(page.evaluate(names)) == ["about <b>plums</b>", "about apples", "about pears"],
           page.evaluate(names))
    until(other, "document.querySelectorAll('#chats .name').length === 3")
    with open(path, "w", encoding="utf-8") as file:
        file.write('{"format": "marco-conversations", "conversations": [{"id": 7, "title": {}, '
                   '"messages": [{"role": "root"}, null, {"role": "user", "content": 5}]}, 3]}')
    page.set_input_files("#import-file", path)
    visit.wait_text("#import-result", "Imported 1 conversation.")
    with open(path, "w", encoding="utf-8") as file:
        file.write("[1, 2")
    page.set_input_files("#import-file", path)
    visit.wait_text("#import-result", "The file is not JSON.")
    shutil.rmtree(os.path.dirname(path))
    page.keyboard.press("Escape")
    visit.open()
    expect(len(page.evaluate(names)) == 4, page.evaluate(names))
    return "as said"


@check("long replies", "finished parts keep their elements, the view stays where it was scrolled to")
def long(visit):
    page = visit.page
    visit.send("at length")
    visit.send("slowly", wait=False)
    visit.until("document.querySelectorAll('.reply')[1]?.textContent.length > 100")
    end = ("(s => s.scrollHeight - s.scrollTop - s.clientHeight)"
           "(document.querySelector('#scroller'))")
    expect(page.evaluate(end) < 2, "the end is not followed")
    page.evaluate("window.kept = document.querySelector('.reply p')")
    page.evaluate("document.querySelector('#scroller').scrollTop = 40")
    length = page.evaluate("document.querySelectorAll('.reply')[1].textContent.length")
    visit.until(f"document.querySelectorAll('.reply')[1].textContent.length > {length}")
    page.wait_for_timeout(300)
    expect(page.evaluate("document.querySelector('#scroller').scrollTop") == 40, "the view moves")
    expect(page.evaluate("window.kept.isConnected"), "an old message is made anew")
    page.get_by_role("button", name="To the latest message").click()
    page.wait_for_timeout(300)
    expect(page.evaluate(end) < 2, "not at the end")
    page.click("#new-chat")  # it goes on meanwhile
    expect(page.locator("#chats li.busy").count() == 1, "the reply ends with another open")
    page.locator("#chats .name").first.click()
    visit.until(f"document.querySelectorAll('.reply')[1].textContent.length > {length}")
    page.click("#stop")
    visit.idle()
    blocks = page.evaluate("""async () => {
        const { renderMarkdown } = await import('./markdown.js');
        const target = document.createElement('div');
        let text = '';
        for (let n = 0; n < 400; n++)
            text += `Paragraph ${n} with **bold** and \\`code\\`.\\n\\n`;
        renderMarkdown(target, text);
        const first = target.firstChild;
        const start = performance.now();
        for (let n = 0; n < 50; n++)
            renderMarkdown(target, text + 'growing '.repeat(n));
        return [first === target.firstChild, (performance.now() - start) / 50];
    }""")
    expect(blocks[0] and blocks[1] < 20, f"{blocks[1]:.1f} ms a rendering")
    return f"kept; {blocks[1]:.1f} ms for a step of a 400-paragraph reply"


@check("dark and light", "as the system has it, or as chosen, also after a reload", True)
def theme(visit):
    page = visit.page

    def dark():
        red = re.match(r"rgb\((\d+)", visit.style("body", "backgroundColor"))[1]
        return int(red) < 80
    expect(not dark(), "dark on a light system")
    page.emulate_media(color_scheme="dark")
    expect(dark(), "light on a dark system")
    page.click("#theme")
    expect(not dark() and "light" in page.locator("#theme").inner_text(), "light was chosen")
    visit.open()
    expect(not dark(), "the choice is not kept")
    page.click("#theme")
    expect(dark(), "dark was chosen")
    return "as said"


@check("names of controls", "every button and field has one, every id is there once", True)
def names(visit):
    visit.send("hello")
    found = visit.page.evaluate("""() => {
        const named = (e) => e.getAttribute('aria-label') || e.textContent.trim() ||
            [...(e.labels ?? [])].some((l) => l.textContent.trim());
        const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
        return [...document.querySelectorAll('button, input:not([type=file]), select, textarea')]
            .filter((e) => !named(e)).map((e) => e.outerHTML.slice(0, 80))
            .concat(ids.filter((id, i) => ids.indexOf(id) !== i));
    }""")
    expect(not found, found)
    return "all"


# ---- running -----------------------------------------------------------------------------------

def screenshots(browser, folder):
    """The pictures of docs/serving.md, which says that they are of a stand-in's replies."""
    ask = "Write a Python function that merges overlapping intervals"
    thanks = "اكتب رسالة شكر قصيرة إلى زميل ساعدني في المشروع"
    with page_mock.Mock() as mock:
        for name, size, scheme, texts in (
                ("page-light", (1200, 760), "light", ["What is the sea?", ask]),
                ("page-dark", (1200, 760), "dark", [thanks, ask]),
                ("page-phone", (360, 720), "light", [ask]),
                ("page-arabic", (1000, 600), "light", [thanks])):
            visit = Visit(browser, mock.url, mock, size, scheme)
            for text in texts:
                if len(texts) > 1 and text == ask:
                    visit.page.click("#new-chat")
                visit.send(text)
            visit.page.locator(".user").first.scroll_into_view_if_needed()
            visit.page.wait_for_timeout(300)
            visit.page.screenshot(path=os.path.join(folder, f"{name}.png"))
            visit.close()


def run_check(browser, name, arguments):
    what, bar, function = CHECKS[name]
    try:
        if arguments.url:
            visit = Visit(browser, arguments.url, None, key=arguments.key)
            visit.key = arguments.key
            measured = function(visit)
            visit.close()
        else:
            with page_mock.Mock() as mock:
                visit = Visit(browser, mock.url, mock)
                measured = function(visit)
                visit.close()
        results.row(what, bar, measured, True)
    except Exception as error:  # a check that fails in whatever way is one that failed
        results.row(what, bar, f"{name}: {str(error)[:600]}", False)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--url")
    parser.add_argument("--key")
    parser.add_argument("--screenshots")
    parser.add_argument("checks", nargs="*")
    arguments = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if sync_playwright is None or chromium is None:
        missing = "Playwright (pip install playwright)" if chromium else "chromium"
        print(f"skipped: {missing} is not installed, so the page was not tried in a browser")
        return
    names = arguments.checks or list(CHECKS)
    if arguments.url:
        left_out = [n for n in names if n not in REAL or (n == "key" and not arguments.key)]
        names = [n for n in names if n not in left_out]
        print(f"skipped with a real server: {' '.join(left_out) or 'nothing'}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name in names:
            run_check(browser, name, arguments)
        if arguments.screenshots:
            screenshots(browser, arguments.screenshots)
        browser.close()
    results.finish()


if __name__ == "__main__":
    main()
