"""Checks the pages that `cargo run -p jetmoe-view --example synthetic` wrote, in headless Chromium.

    python tests/browser/check.py FOLDER CHROMIUM

Every page requests nothing but itself, reports no error, works with the keyboard and fits a phone. The time to load is printed and
not compared. Screenshots go to FOLDER.
"""

import argparse
import sys
import time
from pathlib import Path

from chromium import chromium

MOST_BYTES = 3_000_000
SCREENS = {
    "desktop": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light", "has_touch": True},
}


def equal(found, expected, what):
    if found != expected:
        raise AssertionError(f"{what}: expected {expected!r}, found {found!r}")


def holds(text, part, what):
    if part not in text:
        raise AssertionError(f"{what}: {part!r} is not in {text!r}")


def open_page(browser, path, screen):
    """A page with the lists of what it requested and reported."""
    page = browser.new_context(**SCREENS[screen]).new_page()
    requests, problems = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}") or dialog.dismiss())
    start = time.perf_counter()
    page.goto(path.as_uri())
    page.wait_for_function("document.getElementById('live').textContent !== ''")
    took = time.perf_counter() - start
    return page, requests, problems, took


def live(page):
    return page.locator("#live").inner_text()


def check_common(page, path):
    """What is true for every page."""
    equal(page.locator("b, img, iframe, link").count(), 0, "elements that texts of tokens would make")
    extent = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    if extent[0] > extent[1]:
        raise AssertionError(f"{path.name} scrolls sideways: {extent[0]} of {extent[1]} pixels")
    unnamed = page.evaluate(
        "[...document.querySelectorAll('canvas[role=img], [role=listbox], [role=grid], select, input')]"
        ".filter(e => !(e.getAttribute('aria-label') || e.closest('label')) && e.offsetParent).length"
    )
    equal(unnamed, 0, "elements without a name for screen readers")


def check_policy(page):
    """The content security policy forbids a script that a text could bring, and requests."""
    ran = page.evaluate(
        "() => { const script = document.createElement('script'); script.textContent = 'window.injected = true';"
        " document.body.append(script); return Boolean(window.injected); }"
    )
    equal(ran, False, "whether an injected script ran")
    fetched = page.evaluate("() => fetch('data:,text').then(() => 'fetched', () => 'refused')")
    equal(fetched, "refused", "a request of a script")


def check_keyboard(page):
    """Arrow keys move the selection, and the live region says so."""
    page.locator("#tokens-0").focus()
    first = live(page)
    holds(first, "Token 1 of 1,000", "the live region at the start")
    page.keyboard.press("ArrowRight")
    second = live(page)
    holds(second, "Token 2 of 1,000, “the”, layer 0.", "the live region after →")
    page.keyboard.press("ArrowDown")
    holds(live(page), "layer 1.", "the live region after ↓")
    if live(page) == second:
        raise AssertionError("the live region did not change")
    page.keyboard.press("End")
    holds(live(page), "Token 1,000 of 1,000", "the live region after End")
    page.keyboard.press("PageUp")
    holds(live(page), "Token 975 of 1,000", "the live region after Page up")
    page.keyboard.press("Home")
    selected = page.locator("#tokens-0").get_attribute("aria-activedescendant")
    equal(selected, "token-0-0", "the active token after Home")
    equal(page.locator("#token-0-0").get_attribute("aria-selected"), "true", "its aria-selected")
    outline = page.locator("#tokens-0").evaluate("e => getComputedStyle(e).outlineStyle")
    equal(outline, "solid", "the outline of the text with focus")
    before = page.locator(".segments button[aria-pressed=true]").all_inner_texts()
    page.keyboard.press("m")
    if page.locator(".segments button[aria-pressed=true]").all_inner_texts() == before:
        raise AssertionError("the key M did not change the mixture")
    page.keyboard.press("m")


def check_tab_order(page):
    """The tab key reaches every control, in the order of the page."""
    page.evaluate("document.activeElement.blur()")
    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
    places = [reached.index(name) for name in ["layer", "expert", "color", "threshold", "tokens-0", "load-0", "load-1"]]
    equal(places, sorted(places), f"the tab order of {reached}")


def check_loads(page):
    """The load grid: the arrow keys move, and the list of tokens follows."""
    page.locator("#load-1").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    equal(page.evaluate("document.activeElement.id"), "load-1", "the focus after an arrow key")
    equal(page.locator("#load-1").get_attribute("aria-activedescendant"), "load-1-2-0", "the active cell")
    shown = int(page.locator("#load-1-2-0").inner_text())
    explanation = page.locator("#tokens-explanation").inner_text()
    tokens = int(explanation.split(": ")[-1].split(" ")[0])
    equal(shown, (tokens + 5) // 10, f"percent in the cell, of 1,000 tokens, against: {explanation}")
    dimmed = page.locator("#tokens-0 .dim").count()
    equal(dimmed, 1000 - tokens, "tokens that take other experts")
    page.locator("#token-list button").first.click()
    page.locator("#expert").select_option("")
    equal(page.locator("#tokens-0 .dim").count(), 0, "dimmed tokens without a filter")


def check_single(page):
    check_keyboard(page)
    check_loads(page)
    check_tab_order(page)
    page.locator("#color").select_option("margin")
    holds(page.locator("#tokens-0 .mark").all_inner_texts()[0], ".", "a margin below a token")
    holds(page.locator("#text-explanation").inner_text(), "the margin of its choice", "the explanation of the text")
    page.locator("#path-0").click(position={"x": 200, "y": 60})
    holds(live(page), "Attention: expert", "the live region after a click into the path")
    page.locator("summary").click()
    page.locator("#token-table tr").nth(24).wait_for()
    equal(page.locator("#token-table tr").count(), 25, "rows of the table of a token")


def check_precisions(page):
    check_keyboard(page)
    total = page.locator("#differences-summary .unit").first.inner_text()
    differences = int(total.split(" ")[0].replace(",", ""))
    if differences == 0:
        raise AssertionError("the runs do not differ")
    page.locator("#tokens-0").focus()
    page.keyboard.press("Home")
    page.keyboard.press("d")
    holds(live(page), "– different", "the live region at a difference")
    holds(page.locator("#difference-position").inner_text(), f"of {differences:,}", "the position among the differences")
    here = live(page)
    page.locator("#next-difference").click()
    if live(page) == here:
        raise AssertionError("the button goes to no other difference")
    # every mark with an arrow is a difference of the chosen layer and mixture
    arrows = page.locator("#tokens-0 .mark", has_text="→").count()
    same = page.locator("#tokens-0 .mark", has_text="=").count()
    equal(arrows + same, 1000, "marks of tokens")
    if arrows == 0:
        raise AssertionError("no token is marked as different")


def check_texts(page):
    page.locator("#tokens-1").focus()
    page.keyboard.press("ArrowRight")
    holds(live(page), "Token 2 of 60", "the live region of the second text")
    page.locator("#tokens-0").focus()
    holds(live(page), "Token 1 of 40", "the live region of the first text")
    page.get_by_role("button", name="B less A").click()
    holds(page.locator("#load-legend").inner_text(), "more in B", "the legend of the difference of loads")


PAGES = {"routing": check_single, "precisions": check_precisions, "texts": check_texts}


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("chromium", type=Path)
    arguments = arguments.parse_args()
    folder = arguments.folder.resolve()
    with chromium(arguments.chromium) as browser:
        for name, check in PAGES.items():
            path = folder / f"{name}.html"
            size = path.stat().st_size
            if size >= MOST_BYTES:
                raise AssertionError(f"{path.name} has {size} bytes, and {MOST_BYTES} are too many")
            for screen in SCREENS:
                page, requests, problems, took = open_page(browser, path, screen)
                check_common(page, path)
                if screen != "phone":
                    check(page)
                page.evaluate("scrollTo(0, 0)")
                page.screenshot(path=folder / f"{name}-{screen}.png", full_page=True)
                equal(requests, [path.as_uri()], f"requests of {path.name}")
                equal(problems, [], f"errors and warnings of {path.name}")
                check_policy(page)
                print(f"{path.name} on {screen}: {size / 1e6:.2f} MB, ready after {took:.2f} s")
                page.context.close()
    print(f"{len(PAGES)} pages on {len(SCREENS)} screens passed; screenshots are in {arguments.folder}")


if __name__ == "__main__":
    sys.exit(main())
