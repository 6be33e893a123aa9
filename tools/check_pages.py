"""Look at every page of the built book in a browser, from the disk as a reader may open it.

    python tools/check_pages.py [book folder] [--pages results.html ...] [--screenshots FOLDER]

Each page is opened on a wide light screen, a wide dark one and a phone's: no message in the
console, no request that fails or leaves the book, no page wider than its screen, a text for every
picture, one title and no skipped level of heading, and no violation of WCAG 2 A or AA or of good
practice that axe finds. The search must find what readers look for, and pages must be readable
where no script runs. Prints every fault found, and exits with 1 when there is one.
"""

import argparse
import os
import re
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from page_faults import heard, page_faults
from playwright.sync_api import Browser, BrowserContext, Error, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
NO_BROWSER = ("No browser was found. Install Chromium or Chrome (Debian: apt-get install chromium),"
              " or name its program: CHROME=/path/to/chrome")
NO_PAGES = {"_static", "_sources", "_images", "_downloads"}
LIMIT_MB = 60
# What readers type, and how the address of a page that answers them begins.
SEARCHES = {"ClipPrompt": "clip_prompt/index.html", "mAP@200": "metrics.html",
            "average_precision": "api/"}
SEARCHED = re.compile("found|did not match")  # said when the last result is there
UNSCRIPTED = ("index.html", "results.html")


@dataclass(frozen=True)
class View:
    """A way to look at a page."""

    theme: str
    width: int

    def __str__(self) -> str:
        return f"{self.width} px {self.theme}"


VIEWS = (View("light", 1280), View("dark", 1280), View("light", 390))


def browser_path() -> str | None:
    """The browser's program: the one that CHROME names, else the first of the known on the PATH."""
    named = os.environ.get("CHROME")
    return shutil.which(named) if named else next(filter(None, map(shutil.which, BROWSERS)), None)


@contextmanager
def opened_browser() -> Iterator[Browser]:
    """A browser without a window; a root user's, as in a container, has no sandbox to offer."""
    options = ["--disable-gpu"] + ["--no-sandbox"] * (getattr(os, "geteuid", lambda: 1)() == 0)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=options)
        yield browser
        browser.close()


def new_context(browser: Browser, view: View = VIEWS[0], scripts: bool = True) -> BrowserContext:
    """A reader's browser of one view, cut off from the network."""
    return browser.new_context(viewport={"width": view.width, "height": 900}, offline=True,
                               color_scheme=view.theme, java_script_enabled=scripts)


def page_names(html: Path) -> list[str]:
    """Every page of a built book; themes keep fragments of HTML in `_static`."""
    names = (path.relative_to(html) for path in sorted(html.rglob("*.html")))
    return [name.as_posix() for name in names if name.parts[0] not in NO_PAGES]


def views_of(name: str) -> tuple[View, ...]:
    """Listings of source code are of one template: they are looked at where room is least."""
    return VIEWS[-1:] if name.startswith("_modules/") else VIEWS


def look(browser: Browser, html: Path, names: list[str], shots: Path | None = None) -> list[str]:
    """What is wrong with some pages: one line a fault, with the views in which it shows."""
    found = defaultdict(list)
    for view in VIEWS:
        context = new_context(browser, view)
        for name in names:
            if view in views_of(name):
                page = context.new_page()
                for fault in page_faults(page, html, name, view.theme, view.width):
                    found[name, fault].append(view)
                if shots:
                    page.screenshot(path=shots / shot_name(name, view), full_page=True)
                page.close()
        context.close()
    return [f"{name} ({told(views_of(name), views)}): {fault}"
            for (name, fault), views in found.items()]


def told(every: tuple[View, ...], views: list[View]) -> str:
    """The views of a fault in words."""
    return "in every view" if len(views) == len(every) else ", ".join(map(str, views))


def shot_name(name: str, view: View) -> str:
    """The file of a page's picture: `acnet-index-390-light.png`."""
    return f"{name.removesuffix('.html').replace('/', '-')}-{view.width}-{view.theme}.png"


def search_faults(browser: Browser, html: Path, searches: dict[str, str]) -> Iterator[str]:
    """Words that the search does not find in the page that explains them, typed as a reader would.
    A word of a folder that has no page but its first is left out."""
    names = page_names(html)
    for word, wanted in searches.items():
        inside = {name for name in names if name.startswith(wanted)}
        if wanted.endswith("/") and not inside - {f"{wanted}index.html"}:
            continue
        said: list[str] = []
        pages = found_pages(browser, html, word, said)
        yield from (f"search.html ({word}): {fault}" for fault in said)
        if not any(page.startswith(wanted) for page in pages):
            yield (f"search.html: {word} does not find {wanted}, but "
                   f"{', '.join(pages) or 'nothing'}")


def found_pages(browser: Browser, html: Path, word: str, said: list[str]) -> list[str]:
    """The pages that the search finds for a word, best first; what the browser says is added."""
    page = new_context(browser).new_page()
    heard(page, html, said)
    try:
        page.goto((html / "search.html").as_uri())
        page.fill("main input[name=q]", word)
        page.press("main input[name=q]", "Enter")
        page.locator("#search-results .search-summary", has_text=SEARCHED).wait_for()
    except Error as error:
        said.append(error.message.splitlines()[0])
    links = page.locator("#search-results li > a").all()
    found = [Path(link.evaluate("a => decodeURIComponent(a.pathname)")) for link in links]
    page.context.close()
    return list(dict.fromkeys(path.relative_to(html).as_posix() for path in found))


def unscripted_faults(browser: Browser, html: Path, names: list[str]) -> Iterator[str]:
    """What a reader without scripts misses of some pages: title, tables, one theme's pictures."""
    page = new_context(browser, VIEWS[-1], scripts=False).new_page()
    for name in names:
        page.goto((html / name).as_uri())
        article = page.locator("article.bd-article")
        hidden = [what for what in ("h1", "table", "img:not(.only-dark)")
                  for element in article.locator(what).all() if not element.is_visible()]
        yield from (f"{name} (no scripts): a hidden {what}" for what in dict.fromkeys(hidden))
        if any(image.is_visible() for image in article.locator("img.only-dark").all()):
            yield f"{name} (no scripts): pictures for a dark page are shown on a light one"
        if not article.count() or len(article.inner_text().split()) < 20:
            yield f"{name} (no scripts): no text"
    page.context.close()


def browse(html: Path, names: list[str], searches: dict[str, str], unscripted: list[str],
           shots: Path | None) -> list[str]:
    """The faults that one browser finds: the work of one process."""
    with opened_browser() as browser:
        return [*look(browser, html, names, shots), *search_faults(browser, html, searches),
                *unscripted_faults(browser, html, unscripted)]


def all_faults(html: Path, names: list[str], searches: dict[str, str], processes: int,
               shots: Path | None) -> list[str]:
    """What is wrong with some pages and with the search; every process takes a part of the pages,
    the first one the search, the last one the reading without scripts."""
    unscripted = [name for name in UNSCRIPTED if name in names]
    work = [[html, names[start::processes], {}, [], shots] for start in range(processes)]
    work[0][2], work[-1][3] = searches, unscripted
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        return sorted(fault for part in pool.map(browse, *zip(*work, strict=True))
                      for fault in part)


def megabytes(html: Path) -> float:
    """The size of a built book."""
    return sum(path.stat().st_size for path in html.rglob("*") if path.is_file()) / 1e6


def arguments() -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    book = Path(__file__).resolve().parent.parent / "book"
    parser.add_argument("book", nargs="?", type=Path, default=book, help="folder of the book")
    parser.add_argument("--pages", nargs="+", metavar="PAGE",
                        help="only these, such as acnet/index.html, without the search")
    parser.add_argument("--screenshots", type=Path, metavar="FOLDER",
                        help="keep a picture of every page in every view")
    parser.add_argument("--searches", nargs="*", type=lambda text: text.split("=", 1),
                        metavar="WORD=PAGE", default=list(SEARCHES.items()),
                        help="what the search must find, and where")
    parser.add_argument("--processes", type=int, default=2, help="browsers at a time")
    return parser.parse_args()


def main(asked: argparse.Namespace) -> int:
    """Exit status: 0 when every page is in order."""
    started, html = time.monotonic(), (asked.book / "_build" / "html").resolve()
    names = asked.pages or page_names(html)
    if browser_path() is None or not names:
        print(NO_BROWSER if names else f"{html}: there is no page; build the book first")
        return 1
    if asked.screenshots:
        asked.screenshots.mkdir(parents=True, exist_ok=True)
    searches = {} if asked.pages else dict(asked.searches)
    found = all_faults(html, names, searches, asked.processes, asked.screenshots)
    size = megabytes(html)
    if size > LIMIT_MB:
        found.append(f"{html}: {size:.1f} MB, more than {LIMIT_MB}")
    print(*found, f"{len(names)} pages, {len(found)} faults, {size:.1f} MB, "
          f"{time.monotonic() - started:.0f} s", sep="\n")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(arguments()))
