"""Writes a screenshot of a page of `jetmoe-view` for the documentation.

    python tests/browser/picture.py PAGE OUTPUT.png [--token N] [--layer N] [--height PIXELS]
"""

import argparse
import sys
from pathlib import Path

from chromium import chromium


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("page", type=Path)
    arguments.add_argument("output", type=Path)
    arguments.add_argument("--token", type=int, default=0, help="the selected token, from 0")
    arguments.add_argument("--layer", type=int, default=0, help="the selected layer, from 0")
    arguments.add_argument("--height", type=int, default=900, help="pixels of the picture; its width is 1280")
    arguments.add_argument("--chromium", type=Path, default=Path("/usr/bin/chromium"))
    arguments = arguments.parse_args()
    with chromium(arguments.chromium) as browser:
        page = browser.new_page(viewport={"width": 1280, "height": arguments.height}, color_scheme="light")
        page.goto(arguments.page.resolve().as_uri())
        page.locator("#layer").select_option(str(arguments.layer))
        page.locator(f"#token-0-{arguments.token}").click()
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=arguments.output)
    print(f"{arguments.output}: {arguments.output.stat().st_size} bytes")


if __name__ == "__main__":
    sys.exit(main())
