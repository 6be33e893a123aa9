"""Look at the built book as its readers get it: no warning, no traceback, no dead link.

    python tools/check_book.py [book folder]

Prints every fault found, and exits with 1 when there is one.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
COMPLAINT = re.compile(r"\b(WARNING|ERROR|CRITICAL|SEVERE)\b:|Traceback \(most recent call last\)")
TRACEBACK = "Traceback (most recent call last)"


@dataclass
class Page:
    """What a built page points to, what can be pointed to in it, and whether it shows an error."""

    links: set[str] = field(default_factory=set)
    anchors: set[str] = field(default_factory=set)
    has_error: bool = False


class PageParser(HTMLParser):
    """Fills a `Page` from the text of an HTML file."""

    def __init__(self):
        super().__init__()
        self.page = Page()
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        """Take links, anchors and the class that an error output of a notebook cell gets."""
        values = {name: value or "" for name, value in attrs}
        self.page.anchors |= {values[name] for name in ("id", "name") if name in values}
        self.page.links |= {values[name] for name in ("href", "src", "data") if values.get(name)}
        self.page.links |= {part.split()[0] for part in values.get("srcset", "").split(",") if part}
        if tag == "meta" and values.get("http-equiv", "").lower() == "refresh":
            self.page.links |= set(re.findall(r"url=(\S+)", values.get("content", ""), re.I))
        if {"output", "traceback"} <= set(values.get("class", "").split()):
            self.page.has_error = True

    def handle_data(self, data):
        """Collect the text: highlighting may cut a traceback's first line into several elements."""
        self.text.append(data)


def read_page(path: Path) -> Page:
    """The parsed page."""
    parser = PageParser()
    parser.feed(path.read_text(encoding="utf-8"))
    parser.close()
    page = parser.page
    page.has_error |= TRACEBACK in " ".join("".join(parser.text).split())
    return page


def build_complaints(log: Path) -> Iterator[str]:
    """Warnings and errors in the log of the Sphinx build."""
    if not log.is_file():
        yield f"{log}: there is no log of the build"
        return
    for number, line in enumerate(log.read_text(encoding="utf-8").splitlines(), 1):
        line = COLOUR.sub("", line)
        if COMPLAINT.search(line):
            yield f"{log}:{number}: {line.strip()}"


def toc_files(node: object) -> Iterator[str]:
    """Names of the source files in a table of contents, at any depth, as they are written there."""
    if isinstance(node, list):
        for part in node:
            yield from toc_files(part)
    elif isinstance(node, dict):
        yield from (str(node[key]) for key in ("root", "file") if key in node)
        for value in node.values():
            yield from toc_files(value)


def missing_pages(book: Path, html: Path) -> Iterator[str]:
    """Entries of the table of contents without a built page."""
    for name in toc_files(yaml.safe_load((book / "_toc.yml").read_text(encoding="utf-8"))):
        page = html / (re.sub(r"\.(md|ipynb|rst)$", "", name) + ".html")
        if not page.is_file():
            yield f"_toc.yml: {name} has no page {page}"


def dead_links(path: Path, html: Path, pages: dict[Path, Page]) -> Iterator[str]:
    """Links of one page whose file, or whose place in a page, is not in the built book."""
    for link in sorted(pages[path].links):
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        local = unquote(parts.path)
        base = html if local.startswith("/") else path.parent
        target = (base / local.lstrip("/")).resolve() if local else path
        if target.is_dir():
            target /= "index.html"
        if not target.is_relative_to(html) or not target.is_file():
            yield f"{path.relative_to(html)}: {link} leads to no file of the book"
        elif target in pages and not has_anchor(pages[target], unquote(parts.fragment)):
            yield f"{path.relative_to(html)}: {link} names no place in that page"


def has_anchor(page: Page, fragment: str) -> bool:
    """Whether a fragment can be scrolled to; the empty one and `top` always can."""
    return fragment in ("", "top") or fragment in page.anchors


def faults(book: Path) -> list[str]:
    """Everything wrong with the book built in `book/_build`, one line each."""
    html = (book / "_build" / "html").resolve()
    pages = {path: read_page(path) for path in sorted(html.rglob("*.html")) if in_book(path, html)}
    found = [*build_complaints(book / "_build" / "sphinx.log"), *missing_pages(book, html)]
    for path, page in pages.items():
        if page.has_error:
            found.append(f"{path.relative_to(html)}: shows a traceback")
        found += dead_links(path, html, pages)
    return found


def in_book(path: Path, html: Path) -> bool:
    """Whether a file is a page: themes keep fragments of HTML in `_static`."""
    return not path.relative_to(html).parts[0].startswith("_")


def main(book: Path) -> int:
    """Exit status: 0 when the book is whole."""
    found = faults(book)
    print("\n".join(found) if found else f"{book}: every page is there, no warning, no dead link.")
    if found:
        print(f"{len(found)} fault(s) in {book}")
    return bool(found)


if __name__ == "__main__":
    default = Path(__file__).resolve().parent.parent / "book"
    sys.exit(main(Path(sys.argv[1]) if sys.argv[1:] else default))
