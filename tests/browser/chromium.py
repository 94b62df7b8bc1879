"""Starts headless Chromium for the checks and the pictures of the pages."""

from contextlib import contextmanager

from playwright.sync_api import sync_playwright

# no sandbox: CI runs as root. The rest keeps the browser from requests of its own.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def chromium(executable):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(executable), args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()
