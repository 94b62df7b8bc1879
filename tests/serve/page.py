"""Drives the page of a running `jetmoe serve` in headless Chromium.

    python tests/serve/page.py CHROMIUM FOLDER --jetmoe BINARY --model ARTIFACT
    python tests/serve/page.py CHROMIUM FOLDER --url http://127.0.0.1:8080/

The page asks nothing but its own server, reports no error, works with the keyboard, fits a phone, and shows what the API returns.
Screenshots go to FOLDER.
"""

import argparse
import json
import sys
import urllib.request
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "browser"))

from checks import equal, holds, true
from chromium import chromium
from server import Server

SCREENS = {
    "desktop": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light", "has_touch": True},
}
PROMPT = "In the beginning"


class Page:
    """A page with what it requested and reported."""

    def __init__(self, browser, url, screen, **context):
        self.url = url
        self.page = browser.new_context(**SCREENS[screen], **context).new_page()
        self.requests, self.problems, self.bodies = [], [], []
        self.page.on("request", self._on_request)
        self.page.on("console", lambda m: self.problems.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("dialog", lambda dialog: self.problems.append(f"dialog: {dialog.message}") or dialog.dismiss())
        self.page.goto(url)
        self.page.wait_for_selector("html[data-ready]")

    def _on_request(self, request):
        self.requests.append(request.url)
        if request.method == "POST":
            self.bodies.append(json.loads(request.post_data))

    def text(self, selector):
        return self.page.locator(selector).inner_text()

    def ask(self, text, *, wait=True):
        """Types a prompt and sends it with the keyboard."""
        self.page.locator("#prompt").fill(text)
        self.page.locator("#prompt").press("Enter")
        if wait:
            self.page.wait_for_selector("#send:not([hidden])")

    def set(self, **values):
        # closed at first on a phone
        if not self.page.locator("#set-temperature").is_visible():
            self.page.locator("#settings-details > summary").click()
        for name, value in values.items():
            self.page.locator(f"#set-{name}").fill(str(value))

    def close(self):
        others = [url for url in self.requests if not url.startswith(self.url)]
        equal(others, [], "requests to other places")
        equal(self.problems, [], "errors and warnings")
        self.page.context.close()


def answer_of(url, body):
    """The answer of the API without streaming, for comparison."""
    route = "v1/chat/completions" if "messages" in body else "v1/completions"
    body = {name: value for name, value in body.items() if name not in ("stream", "stream_options", "experts")}
    request = urllib.request.Request(url + route, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request) as response:
        choice = json.load(response)["choices"][0]
    return choice["message"]["content"] if "messages" in body else choice["text"]


def shown(page):
    """The text of the last answer: its pieces, without the marks of tokens that have no text."""
    return page.page.evaluate(
        "[...[...document.querySelectorAll('.answer')].at(-1).querySelectorAll('.piece:not(.end)')].map(p => p.textContent).join('')"
    )


def check_accessible(page):
    """Nothing scrolls sideways, every control has a name, and no text became markup."""
    extent = page.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    true(extent[0] <= extent[1], f"{extent[0]} pixels fit a width of {extent[1]}")
    unnamed = page.page.evaluate(
        "[...document.querySelectorAll('canvas, select, input, textarea, [role=listbox]')].filter(e => e.offsetParent"
        " && !(e.getAttribute('aria-label') || e.labels?.length)).map(e => e.id)"
    )
    equal(unnamed, [], "controls without a name")
    equal(page.page.locator("main b, main img, main iframe, main script").count(), 0, "elements that a text would make")


def check_policy(page):
    """The content security policy forbids inline script, foreign requests and strings as markup."""
    ran = page.page.evaluate(
        "() => { const script = document.createElement('script'); try { script.textContent = 'window.injected = true';"
        " document.body.append(script); } catch { } return Boolean(window.injected); }"
    )
    equal(ran, False, "whether an injected script ran")
    markup = page.page.evaluate("() => { try { document.body.innerHTML = '<p>'; return 'set'; } catch { return 'refused'; } }")
    equal(markup, "refused", "markup from a string")
    fetched = page.page.evaluate("() => fetch('data:,text').then(() => 'fetched', () => 'refused')")
    equal(fetched, "refused", "a request to another place")


def check_chat(page):
    """Two turns: the second request holds the first answer, and both texts are those of the API."""
    page.set(temperature="0", max_tokens="12", seed="7", system="Answer in verses.")
    page.ask(PROMPT)
    equal(page.text(".asked"), PROMPT, "the question")
    first = shown(page)
    body = page.bodies[-1]
    equal(body["messages"][0], {"role": "system", "content": "Answer in verses."}, "the system message")
    equal((body["temperature"], body["max_completion_tokens"], body["seed"]), (0, 12, 7), "the settings sent")
    equal(first, answer_of(page.url, body), "the streamed answer, against the API's")
    holds(page.text(".figures"), "12 tokens · first after", "the figures")
    holds(page.text(".figures"), "ended by “length”", "why the answer ended")
    equal(page.text("#status"), "Answered with 12 tokens.", "the live region")
    equal(page.page.locator("#answer-live").text_content(), first, "the answer in the live region")
    page.ask("And then?")
    roles = [message["role"] for message in page.bodies[-1]["messages"]]
    equal(roles, ["system", "user", "assistant", "user"], "roles of the second request")
    equal(page.bodies[-1]["messages"][2]["content"], first, "the first answer in the second request")
    page.page.locator("#new").click()
    equal(page.page.locator(".turn").count(), 0, "turns of a new conversation")
    page.ask("And now?")
    equal(len(page.bodies[-1]["messages"]), 2, "messages of a new conversation")


def check_completion(page):
    page.page.locator("#mode-completion").click()
    page.set(temperature="0", max_tokens="10", stop="never in\\nthis text", top_k="5", min_p="0.01", repetition_penalty="1.1")
    page.ask(PROMPT)
    body = page.bodies[-1]
    equal(body["prompt"], PROMPT, "the prompt")
    equal(body["stop"], ["never in\nthis text"], "the stop string, unescaped")
    equal((body["top_k"], body["min_p"], body["repetition_penalty"]), (5, 0.01, 1.1), "the settings sent")
    equal(shown(page), answer_of(page.url, body), "the continuation, against the API's")
    page.set(stop="", top_k="", min_p="", repetition_penalty="")


def check_tokens(page):
    """Hover and keys select a token; the panel and the live region say its probability and the alternatives."""
    box = page.page.locator("[role=listbox]").last
    pieces = box.locator("[role=option]")
    true(pieces.count() >= 8, f"{pieces.count()} tokens of 10, as some share a piece")
    pieces.nth(2).hover()
    equal(pieces.nth(2).get_attribute("aria-selected"), "true", "the token under the pointer")
    holds(page.text("#token-detail"), "log-probability -", "the panel of the token")
    bars = page.page.locator("#token-detail .bars li").count()
    true(bars >= 5, f"{bars} alternatives")
    box.focus()
    page.page.keyboard.press("Home")
    holds(page.text("#token-live"), "Token 1 of ", "the live region after Home")
    page.page.keyboard.press("ArrowRight")
    equal(pieces.nth(1).get_attribute("aria-selected"), "true", "the token after →")
    equal(box.get_attribute("aria-activedescendant"), pieces.nth(1).get_attribute("id"), "the active descendant")
    equal(box.evaluate("e => getComputedStyle(e).outlineStyle"), "solid", "the outline of the focus")
    page.page.keyboard.press("End")
    equal(pieces.last.get_attribute("aria-selected"), "true", "the token after End")
    equal(box.locator("[aria-selected=true]").count(), 1, "selected tokens")


def check_experts(page):
    """The map and the table of the experts that each token took; hidden for a model that does not report them."""
    page.page.locator("#show-experts").check()
    page.ask(PROMPT)
    equal(page.bodies[-1]["experts"], True, "the field of the request")
    map_ = page.page.locator("#experts-map")
    holds(map_.get_attribute("aria-label"), " layers; the table below", "the text alternative of the map")
    page.page.locator("#experts-panel summary").click()
    rows = page.page.locator("#experts-table tr").all_inner_texts()
    true(len(rows) >= 3 and rows[1].startswith("layer 0, attention"), f"rows of the table of experts: {rows}")
    # every token takes as many experts in every layer and mixture
    sums = {sum(int(cell) for cell in row.split("\t")[1:]) for row in rows[1:]}
    equal(len(sums), 1, f"different sums of the rows of {rows}")
    map_.click(position={"x": 46 + 18 * 3 + 5, "y": 20})
    holds(page.text("#token-detail"), "Experts by layer", "the panel of the token that was clicked in the map")
    holds(page.page.locator("#token-live").text_content(), "experts: layer 0: attention", "the live region")


def check_errors(page):
    """An error is shown as the server words it; a field outside its limits is not sent."""
    page.set(max_tokens="1", temperature="0")
    before = len(page.bodies)
    page.set(temperature="3")
    page.ask(PROMPT, wait=False)
    equal(len(page.bodies), before, "requests with a field outside its limits")
    page.set(temperature="0")
    page.ask("word " * 3000)
    true(page.page.locator("#error").is_visible(), "the error of a prompt that is too long is visible")
    text = page.text("#error")
    holds(text, "status 4", "the status in the error")
    holds(text, "request ", "the id of the request in the error")
    equal(page.page.locator("#prompt").input_value()[:5], "word ", "the input after an error, to be corrected")
    # the browser reports a refused request in its console, as it should
    page.problems[:] = [problem for problem in page.problems if "Failed to load resource" not in problem]
    page.ask(PROMPT)
    equal(page.page.locator("#error").is_visible(), False, "whether the error is still there after an answer")


# Presses Escape as soon as a few tokens are shown: an answer may end before a key pressed from here arrives.
ESCAPE_WHILE_AN_ANSWER_COMES = """() => {
    window.focusAtEscape = new Promise((resolve) => {
        const observer = new MutationObserver(() => {
            if (document.querySelectorAll(".turn:last-child .piece").length > 3) {
                observer.disconnect();
                const focused = document.activeElement;
                resolve(focused.id);
                focused.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
            }
        });
        observer.observe(document.body, { childList: true, subtree: true });
    });
}"""


def check_stop(page):
    """The stop button and Escape end an answer; what has come stays."""
    page.set(max_tokens="400")
    page.page.evaluate(ESCAPE_WHILE_AN_ANSWER_COMES)
    page.ask("And", wait=False)
    equal(page.page.evaluate("window.focusAtEscape"), "stop", "the focus while an answer comes")
    page.page.wait_for_selector("#send:not([hidden])")
    equal(page.text("#status"), "Stopped.", "the live region after Escape")
    true(shown(page) != "", "what had come is still there")


def check_keyboard(page):
    """Tab reaches everything in the order of the page."""
    page.page.evaluate("document.querySelector('.skip').focus()")
    reached = []
    for _ in range(40):
        page.page.keyboard.press("Tab")
        reached.append(page.page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    order = ["mode-chat", "mode-completion", "model", "new", "prompt", "send", "set-temperature", "set-stop", "show-logprobs", "key"]
    places = [reached.index(name) for name in order]
    equal(places, sorted(places), f"the tab order of {reached}")


def check_key(page):
    """The key is kept in this tab only, and sent with every request."""
    page.page.locator("#key").fill("secret")
    page.page.locator("#key").blur()
    stored = page.page.evaluate("[JSON.stringify(sessionStorage).includes('secret'), JSON.stringify(localStorage) + document.cookie]")
    equal(stored, [True, "{}"], "where the key is kept")
    with page.page.expect_request("**/v1/completions") as request:
        page.set(max_tokens="1")
        page.ask(PROMPT)
    equal(request.value.headers.get("authorization"), "Bearer secret", "the key in a request")


def check_docs(browser, url):
    """The documentation of the API: every route, nothing from elsewhere, readable on a phone."""
    page = browser.new_context(**SCREENS["phone"]).new_page()
    requests, problems = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    page.goto(url + "docs")
    text = page.locator("body").inner_text()
    with urllib.request.urlopen(url + "openapi.json") as response:
        paths = json.load(response)["paths"]
    equal([path for path in paths if path not in text], [], "routes that the documentation lacks")
    extent = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    true(extent[0] <= extent[1], f"the documentation's {extent[0]} pixels fit a width of {extent[1]}")
    equal([request for request in requests if not request.startswith(url)], [], "requests of the documentation")
    equal(problems, [], "errors and warnings of the documentation")
    page.context.close()


def check_reduced_motion(browser, url):
    page = Page(browser, url, "desktop", reduced_motion="reduce")
    moving = page.page.evaluate(
        "[...document.querySelectorAll('*')].filter(e => { const s = getComputedStyle(e);"
        " return s.animationName !== 'none' || s.transitionDuration.split(',').some(t => parseFloat(t) > 0); }).length"
    )
    equal(moving, 0, "elements that move although less motion was asked for")
    page.close()


def check_screen(browser, url, screen, folder, experts):
    page = Page(browser, url, screen)
    check_accessible(page)
    if screen == "desktop":
        check_chat(page)
    check_completion(page)
    if experts:
        check_experts(page)
    else:
        equal(page.page.locator("#show-experts").is_visible(), False, "the choice of experts without a model that reports them")
    if screen == "desktop":
        check_tokens(page)
        check_errors(page)
        check_stop(page)
        check_keyboard(page)
        check_key(page)
    else:
        page.page.locator("[role=listbox]").last.locator("[role=option]").nth(2).click()
        holds(page.text("#token-detail"), "log-probability -", "the panel of a token that was tapped or clicked")
    check_accessible(page)
    page.page.evaluate("scrollTo(0, 0)")
    page.page.screenshot(path=folder / f"serve-{screen}.png", full_page=True)
    if screen == "dark":
        check_policy(page)
        # the refusals are what the policy reports
        page.problems.clear()
    page.close()


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("chromium", type=Path)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--jetmoe", type=Path, help="the command to start")
    arguments.add_argument("--model", type=Path, help="the artifact to serve")
    arguments.add_argument("--url", help="a running server, which reports experts")
    arguments = arguments.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    server = nullcontext(arguments) if arguments.url else Server(arguments.jetmoe, {"mini": arguments.model}, experts=True)
    with server as running, chromium(arguments.chromium) as browser:
        for screen in SCREENS:
            check_screen(browser, running.url, screen, arguments.folder, experts=True)
            print(f"the page on {screen}: passed", flush=True)
        check_reduced_motion(browser, running.url)
        check_docs(browser, running.url)
    if not arguments.url:
        with Server(arguments.jetmoe, {"mini": arguments.model}) as running, chromium(arguments.chromium) as browser:
            check_screen(browser, running.url, "phone", arguments.folder, experts=False)
            print("the page of a model that does not report its experts: passed")
    print(f"the page passed on {len(SCREENS)} screens; screenshots are in {arguments.folder}")


if __name__ == "__main__":
    sys.exit(main())
