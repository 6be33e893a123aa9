"""What pages lack for those who read them by ear or by keyboard, put in when they are written.

- A table that is too wide scrolls inside a box that the keyboard reaches and that has a name.
- So does a figure on a phone, where its labels would be too small to read.
- A header cell without words heads nothing: it becomes a plain cell, and a head of such cells goes.
  One that is a formula alone is said in LaTeX.
- A long name of code in a table may break after a part of it, and nowhere else.
- References are items of their list.
- A switch that opens a part of the sidebar says which part.
- The choice of light or dark starts from what the reader's system says. The theme's own setting for
  it would leave a page without colours where no script runs.
"""

import re

from bs4 import BeautifulSoup

BOX = "pst-scrollable-table-container"
FIGURE = "book-figure"
OLD_ROLE = "doc-biblioentry"  # withdrawn by its standard; docutils puts such entries in a list
SIGNATURE = "sig-param"
PART = re.compile(r"(?<=[_/.=])(?=[^\W\d_])")  # before a letter: no number breaks
MODE = """<script>
try {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  localStorage.mode ||= "auto";
  localStorage.theme ||= dark ? "dark" : "light";
} catch { /* no storage: the page is light */ }
</script>"""


def parsed(html: str) -> BeautifulSoup:
    """A piece of a page that can be changed."""
    return BeautifulSoup(html, "html.parser")


def accessible_body(html: str) -> str:
    """The body of a page with its tables and figures boxed and named, its headers and references
    in words that every reader gets; one with none of them stays as it is."""
    if not any(mark in html for mark in ("<table", FIGURE, OLD_ROLE, SIGNATURE)):
        return html
    soup, names = parsed(html), {}
    for table in soup.find_all("table"):
        _mend_headers(soup, table)
        _breakable(soup, table)
        if not table.find_parent("table"):
            _name(_boxed(soup, table), _title(table), names)
    for figure in soup.select(f".{FIGURE}:not(.narrow)"):
        _name(_boxed_pictures(soup, figure), _below("Figure", figure), names)
    for reference in soup.find_all(role=OLD_ROLE):
        reference["role"] = "listitem"
    for parameters in soup.select("dt > dl"):
        _plain_lines(parameters)
    return str(soup)


def _plain_lines(parameters) -> None:
    """The lines of a long signature, which Sphinx writes as a list of definitions without terms."""
    parameters.name, parameters["class"] = "div", "sig-lines"
    for line in parameters.find_all("dd", recursive=False):
        line.name = "div"


def _mend_headers(soup: BeautifulSoup, table) -> None:
    for cell in table.find_all("th"):
        if cell.math and not "".join(cell.find_all(string=_outside_math)).strip():
            _say_formula(soup, cell)
        elif not cell.get_text(strip=True) and not cell.find(["img", "input", "button"]):
            cell.name = "td"
    if table.thead and not table.thead.find("th"):
        table.thead.decompose()


def _breakable(soup: BeautifulSoup, table) -> None:
    """Lets names of code, and heads that are one, break after their parts."""
    for text in table.find_all(string=PART):
        if text.find_parent(["code", "th"]) and not text.find_parent("math"):
            first, *rest = PART.split(text)
            text.replace_with(first, *(x for part in rest for x in (soup.new_tag("wbr"), part)))


def _outside_math(text) -> bool:
    return text.find_parent("math") is None


def _say_formula(soup: BeautifulSoup, cell) -> None:
    """A header that is a formula alone is said by its LaTeX: a formula counts as no words."""
    for formula in cell.find_all("math"):
        words = soup.new_tag("span", attrs={"class": "visually-hidden"})
        words.string = formula.get("alttext", "formula")
        formula["aria-hidden"] = "true"
        formula.insert_after(words)


def _boxed(soup: BeautifulSoup, table):
    """The box around a table; docutils' tables have one, those of notebooks have none."""
    box = table.find_parent(class_=BOX)
    return box or table.wrap(soup.new_tag("div", attrs={"class": BOX}))


def _boxed_pictures(soup: BeautifulSoup, figure):
    """The box around a figure's pictures, which stand above its caption."""
    box = soup.new_tag("div", attrs={"class": "figure-box"})
    for picture in figure.find_all("img"):
        box.append(picture)
    figure.insert(0, box)
    return box


def _title(table) -> str:
    """A table's caption, else the heading that it stands below."""
    return " ".join(_words(table.caption).split()) if table.caption else _below("Table", table)


def _below(what: str, element) -> str:
    """What an element is and the heading that it stands below."""
    heading = element.find_previous(["h1", "h2", "h3", "h4", "h5", "h6"])
    return f"{what}: {_words(heading)}" if heading else what


def _words(element) -> str:
    """The text of a heading or caption without the mark of its link."""
    links = element.find_all("a", class_="headerlink")
    return element.get_text().removesuffix("".join(a.get_text() for a in links)).strip()


def _name(box, title: str, names: dict[str, int]) -> None:
    """Makes a box reachable; tables of one heading are counted, since names must differ."""
    names[title] = names.get(title, 0) + 1
    number = f" ({names[title]})" if names[title] > 1 else ""
    box.attrs |= {"tabindex": "0", "role": "region", "aria-label": title + number}


def named_switches(soup: BeautifulSoup) -> BeautifulSoup:
    """The sidebar's tree of pages, each of its switches named after the page that it opens."""
    for summary in soup.select("li > details > summary"):
        link = summary.find_parent("li").find("a", recursive=False)
        if link:
            summary["aria-label"] = f"Pages of {link.get_text(strip=True)}"
    return soup


def mend(app, pagename, templatename, context, doctree) -> None:
    """Changes a page's pieces just before its template puts them together."""
    context["metatags"] = context.get("metatags", "") + MODE
    context["body"] = accessible_body(context.get("body", ""))
    tree = context.get("generate_toctree_html")
    if tree:
        context["generate_toctree_html"] = lambda *args, **kwargs: named_switches(
            tree(*args, **kwargs))


def setup(app) -> dict:
    """Hears of a page after the theme did, whose functions it wraps."""
    app.connect("html-page-context", mend, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
