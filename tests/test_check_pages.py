"""Faults that only a browser sees are found, each alone, and a page without any passes."""

import base64

import check_pages
import page_faults
import pytest

pytestmark = [
    pytest.mark.skipif(check_pages.browser_path() is None,
                       reason="no browser is installed (Debian: chromium)"),
    pytest.mark.xdist_group("browser"),  # one browser for them all
]

CLEAN = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>A page</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="style.css"></head>
<body><main><h1>A page</h1><h2>A part</h2><p>Some text.</p>%s</main></body></html>"""
PICTURE = ("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9Q"
           "DwADhgGAWjR9awAAAABJRU5ErkJggg==")


@pytest.fixture(scope="module")
def browser():
    """One browser for all pages."""
    with check_pages.opened_browser() as browser:
        yield browser


@pytest.fixture
def found(browser, tmp_path):
    """The faults of a page with something added to it."""
    def found(added="", theme="light", width=390, page=CLEAN):
        (tmp_path / "style.css").write_text("p { color: #222 }")
        (tmp_path / "dot.png").write_bytes(base64.b64decode(PICTURE))
        (tmp_path / "page.html").write_text(page.replace("%s", added))
        context = check_pages.new_context(browser, check_pages.View(theme, width))
        answer = page_faults.page_faults(context.new_page(), tmp_path, "page.html", theme, width)
        context.close()
        return answer
    return found


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_page_in_order_has_no_fault(found, theme, width):
    far = '<div style="height: 9000px"></div><img src="dot.png" alt="A dot" loading="lazy">'
    assert found(f'{far}<script>console.log("said")</script>', theme, width) == []


@pytest.mark.parametrize(("added", "fault"), [
    ("<script>console.error('broken')</script>", "console: broken"),
    ("<script>console.warn('doubtful')</script>", "console: doubtful"),
    ("<script>throw new Error('thrown')</script>", "script: thrown"),
    ("<script>fetch('page.html').catch(() => 0)</script>", "console: "),
    ("<script src='gone.js'></script>", "gone.js did not load"),
    ("<script src='https://example.org/a.js'></script>", "asks for https://example.org/a.js"),
    ("<link rel='stylesheet' href='../outside.css'>", "outside.css, outside the book"),
    ("<pre style='overflow: visible'>" + "wide " * 60 + "</pre>", "px wide on a screen of 390 px"),
    ("<p style='width: 350px'>Fits the wider phone alone.</p>", "px wide on a screen of 320 px"),
    ("<img src='dot.png'>", "has no text"),
    ("<img src='dot.png' alt=' '>", "has no text"),
    ("<img src='dot.png' alt='images/curve.png'>", "has a file name for a text"),
    ("<img src='gone.png' alt='Gone'>", "picture gone.png did not come"),
    ("<img src='gone.png' loading='lazy' alt='Gone'>", "picture gone.png did not come"),
    ("<svg role='img' width='9' height='9'></svg>", "picture a drawing has no text"),
    ("<h4>Deep</h4>", 'heading "Deep" is h4 after h2'),
    ("<h1>Another</h1>", "has 2 titles (h1)"),
    ("<p style='color: #999; background: #fff'>Pale words.</p>", "axe color-contrast"),
    ("<table><tr><th></th><th>a</th></tr><tr><td>1</td><td>2</td></tr></table>",
     "axe empty-table-header"),
    ("<div style='overflow: auto; width: 90px; height: 30px'><p>A box that scrolls and that no key "
     "reaches.</p></div>", "axe scrollable-region-focusable"),
    ("<details><summary></summary>Words.</details>", "axe summary-name"),
    ("<a href='page.html'><span></span></a>", "axe link-name"),
])  # fmt: skip
def test_fault_is_found(found, added, fault):
    assert any(fault in line for line in found(added)), found(added)


MANY = "<p>" + "<b>Fine words.</b> " * 5  # the kind that is seen first, more often than is asked


@pytest.mark.parametrize("pale", [
    "<b style='color: #aaa'>Pale.</b>",
    "<i style='background: #444'><b>On a dark ground.</b></i>",
    "<i style='opacity: 0.3'><b>Half there.</b></i>",
    "<b style='display: none; color: #999'>Unseen.</b>" * 3 + "<b style='color: #999'>Seen.</b>",
    "<b style='color: #808080; font-size: 30px'>L.</b> " * 3 + "<b style='color: #808080'>S.</b>",
])
def test_one_pale_text_among_many_is_found(found, pale):
    assert found(MANY) == []
    assert sum("color-contrast" in line for line in found(MANY + pale)) == 1


def test_dark_page_is_looked_at_for_its_colours(found):
    style = ("<style>@media (prefers-color-scheme: dark)"
             "{ body { color: #444; background: #111 } }</style>")
    assert found(style, "light") == []
    assert any("color-contrast" in line for line in found(style, "dark"))


def test_page_outside_its_landmarks_and_without_language_is_found(found):
    page = CLEAN.replace(' lang="en"', "").replace("<main>", "").replace("</main>", "")
    told = " ".join(found(page=page))
    assert "axe html-has-lang" in told and "axe region" in told


def test_hidden_heading_is_no_heading(found):
    assert found('<div style="display: none"><h1>For print</h1></div>') == []


def test_missing_page_is_a_fault(browser, tmp_path):
    page = check_pages.new_context(browser).new_page()
    (fault, *_) = page_faults.page_faults(page, tmp_path, "gone.html", "light", 1280)
    assert "gone.html" in fault


@pytest.fixture
def book(tmp_path):
    """A built book of three pages and a search that knows two words."""
    html = tmp_path / "_build" / "html"
    (html / "_static").mkdir(parents=True)
    (html / "_static" / "fragment.html").write_text("<p>")
    for folder in (html, html / "api", html / "_modules"):
        folder.mkdir(exist_ok=True)
        (folder / "style.css").touch()
    text = f'<article class="bd-article"><p>{"word " * 30}</p></article>'
    for name in ("index.html", "metrics.html", "api/metrics.html"):
        (html / name).write_text(CLEAN.replace("%s", text))
    (html / "search.html").write_text(CLEAN.replace("%s", """
      <form><label>Words <input name="q"></label></form><div id="search-results"></div>
      <script>
        const pages = {"mAP@200": ["metrics.html"], "recall": ["index.html", "api/metrics.html"]};
        const asked = new URLSearchParams(location.search).get("q");
        document.querySelector("#search-results").innerHTML = "<ul>" + (pages[asked] || [])
          .map(page => `<li><a href="${page}?highlight=x">${page}</a></li>`).join("")
          + "</ul>" + (asked ? "<p class='search-summary'>Search finished, found some</p>" : "");
      </script>"""))
    return tmp_path


def run(monkeypatch, *words):
    """The exit status of the command line."""
    monkeypatch.setattr("sys.argv", ["check_pages.py", *map(str, words)])
    return check_pages.main(check_pages.arguments())


def test_whole_book_in_order_passes(book, monkeypatch, capsys):
    assert run(monkeypatch, book, "--screenshots", book / "shots", "--searches",
               "mAP@200=metrics.html", "recall=api/") == 0
    assert capsys.readouterr().out.startswith("4 pages, 0 faults, 0.0 MB, ")
    assert len(list((book / "shots").iterdir())) == 4 * len(check_pages.VIEWS)
    assert (book / "shots" / "api-metrics-390-light.png").stat().st_size > 1000


def test_faults_of_a_book_are_told_with_page_and_view(book, monkeypatch, capsys):
    style = "<style>@media (min-width: 700px) { p { color: #aaa } }</style>"
    page = book / "_build/html/api/metrics.html"
    page.write_text(page.read_text().replace("</main>", f"{style}<h4>Deep</h4></main>"))
    assert run(monkeypatch, book, "--pages", "api/metrics.html", "metrics.html",
               "--processes", 1) == 1
    colour, colour_dark, heading, summary = capsys.readouterr().out.splitlines()
    assert heading == 'api/metrics.html (in every view): heading "Deep" is h4 after h2'
    assert summary.startswith("2 pages, 3 faults, ")


def test_search_that_misses_is_a_fault(browser, book):
    html = book / "_build" / "html"
    searches = {"recall": "metrics.html", "gone": "index.html"}
    assert list(check_pages.search_faults(browser, html, searches)) == [
        "search.html: recall does not find metrics.html, but index.html, api/metrics.html",
        "search.html: gone does not find index.html, but nothing"]
    (html / "api" / "metrics.html").rename(html / "api" / "index.html")
    assert list(check_pages.search_faults(browser, html, {"gone": "api/"})) == []


def test_page_that_needs_scripts_is_a_fault(browser, book):
    html = book / "_build" / "html"
    assert list(check_pages.unscripted_faults(browser, html, ["index.html"])) == []
    text = (html / "index.html").read_text()
    (html / "index.html").write_text(text.replace(
        "word " * 30, '<img class="only-dark" src="a.png" alt="A curve">').replace(
        "</article>", "<table hidden><tr><td>1</td></tr></table></article>"))
    told = list(check_pages.unscripted_faults(browser, html, ["index.html"]))
    assert [line.partition("(no scripts): ")[2] for line in told] == [
        "a hidden table", "pictures for a dark page are shown on a light one", "no text"]


def test_book_that_is_too_large_or_absent_is_a_fault(book, monkeypatch, capsys):
    monkeypatch.setattr(check_pages, "all_faults", lambda *_: [])
    assert run(monkeypatch, book) == 0
    monkeypatch.setattr(check_pages, "LIMIT_MB", 0.001)
    assert run(monkeypatch, book) == 1
    assert " MB, more than 0.001" in capsys.readouterr().out
    assert run(monkeypatch, book / "nowhere") == 1
    assert "build the book first" in capsys.readouterr().out


def test_listings_are_looked_at_on_a_phone_alone(browser, book):
    html = book / "_build" / "html"
    (html / "_modules" / "a.html").write_text(CLEAN.replace("%s", "<h3>Fine</h3><h1>Not</h1>"))
    assert "_modules/a.html" in check_pages.page_names(html)
    (fault,) = check_pages.look(browser, html, ["_modules/a.html"])
    assert fault == "_modules/a.html (in every view): has 2 titles (h1)"
