"""What the book's own extensions change in a page before it is written."""

import sys
from types import SimpleNamespace

import pytest


@pytest.fixture(scope="module", autouse=True)
def extensions(repo):
    """The folder that Jupyter Book imports the extensions from."""
    sys.path.append(str(repo / "book" / "_ext"))
    yield
    sys.path.remove(str(repo / "book" / "_ext"))


def tables(html):
    import accessible

    return accessible.parsed(accessible.accessible_body(html))


def table(*rows, head=("metric", "value"), inside=""):
    cells = "".join(f"<tr>{''.join(f'<td>{c}</td>' for c in row)}</tr>" for row in rows)
    heads = "".join(f"<th>{word}</th>" for word in head)
    return f"<table>{inside}<thead><tr>{heads}</tr></thead><tbody>{cells}</tbody></table>"


def test_table_of_a_notebook_gets_a_box_that_the_keyboard_reaches():
    (box,) = tables(f"<h2>Results</h2><div>{table(['mAP', 1])}</div>").select("div[tabindex='0']")
    assert box["class"] == ["pst-scrollable-table-container"]
    assert (box["role"], box["aria-label"]) == ("region", "Table: Results")
    assert box.table.find_all("td")[1].text == "1"


def test_table_with_a_box_keeps_that_one():
    soup = tables(f'<div class="pst-scrollable-table-container">{table(["a", 1])}</div>')
    (box,) = soup.find_all("div")
    assert (box["tabindex"], box["aria-label"]) == ("0", "Table")


def test_names_of_boxes_differ_and_captions_come_first():
    caption = '<caption><span>All   cells</span><a class="headerlink" href="#t">#</a></caption>'
    heading = '<h2>Counts<a class="headerlink" href="#counts">#</a></h2>'
    soup = tables(heading + table() + table(inside=caption) + table() + "<h3>Next</h3>" + table())
    assert [box["aria-label"] for box in soup.select("[role=region]")] == [
        "Table: Counts", "All cells", "Table: Counts (2)", "Table: Next"]


def test_table_within_a_table_has_no_box():
    boxes = tables(table([table(["a", 1]), 2])).select("[role=region]")
    assert [box["aria-label"] for box in boxes] == ["Table"]


def test_long_names_in_a_table_break_after_their_parts_and_numbers_do_not():
    html = str(tables(
        "<table><tr><th>clip_prompt</th><td><code>book/a_b.yml 0.24 v1_2</code> a_b</td></tr>"
        "</table><p><code>a_b</code></p>"))
    assert "<th>clip_<wbr/>prompt</th>" in html
    assert "<code>book/<wbr/>a_<wbr/>b.<wbr/>yml 0.24 v1_2</code> a_b</td>" in html
    assert "<p><code>a_b</code></p>" in html


def test_pictures_of_a_figure_scroll_above_its_caption():
    pictures = '<img class="only-light" src="a"/><img class="only-dark" src="b"/>'
    soup = tables(f'<h2>Method</h2><div class="book-figure docutils">{pictures}<p>Words.</p></div>'
                  f'<div class="book-figure"><img src="c"/></div>')
    first, second = soup.select(".figure-box")
    assert [img["src"] for img in first.find_all("img")] == ["a", "b"]
    assert first.p is None and first.find_next_sibling("p").text == "Words."
    assert (first["tabindex"], first["role"]) == ("0", "region")
    assert (first["aria-label"], second["aria-label"]) == ("Figure: Method", "Figure: Method (2)")


def test_a_narrow_figure_needs_no_box():
    html = '<div class="book-figure narrow"><img src="a"/></div>'
    assert tables(html).select(".figure-box") == []


def test_header_cell_without_words_is_a_plain_cell():
    soup = tables(table(["a", 1], head=(" ", "value")))
    assert [cell.name for cell in soup.thead.tr.find_all(True)] == ["td", "th"]


def test_header_cell_with_a_picture_or_a_field_stays():
    assert len(tables(table(head=('<img src="a" alt="b">', "<input>"))).find_all("th")) == 2


def test_header_that_is_a_formula_is_said_in_words():
    formula = '<p><math alttext="D^2"><mi>D</mi></math></p>'
    first, second = tables(table(head=(formula, f"by {formula}"))).find_all("th")
    assert first.math["aria-hidden"] == "true"
    assert first.find(class_="visually-hidden").text == "D^2"
    assert "aria-hidden" not in second.math.attrs


def test_references_are_items_of_their_list():
    soup = tables('<div role="list"><div role="doc-biblioentry" id="a">A paper.</div></div>')
    assert soup.find(id="a")["role"] == "listitem"


def test_head_without_a_word_goes():
    assert tables(table(["a", 1], head=("", ""))).thead is None


def test_page_without_tables_is_left_as_it_is():
    import accessible

    html = "<p>a &lt; b &nbsp;<br/></p>"
    assert accessible.accessible_body(html) == html


def test_switch_of_the_sidebar_says_what_it_opens():
    import accessible

    soup = accessible.named_switches(accessible.parsed(
        '<ul><li><a href="r.html">Results</a><details><summary><i></i></summary><ul><li>'
        "<a>Demo</a></li></ul></details></li></ul><details><summary>Own</summary></details>"))
    assert [s.get("aria-label") for s in soup.find_all("summary")] == ["Pages of Results", None]


def test_page_is_mended_whole_even_where_it_has_no_body():
    import accessible

    def tree(**options):
        return accessible.parsed(
            f"<ul><li><a>{options['kind']}</a><details><summary></summary></details></li></ul>")

    context = {"metatags": "<meta>", "body": table(), "generate_toctree_html": tree}
    accessible.mend(None, "index", "page.html", context, None)
    assert context["metatags"].startswith("<meta><script>")
    assert 'role="region"' in context["body"]
    assert 'aria-label="Pages of sidebar"' in str(context["generate_toctree_html"](kind="sidebar"))
    bare = {}
    accessible.mend(None, "search", "search.html", bare, None)
    assert bare["body"] == ""


def test_formula_that_may_scroll_is_reached_by_the_keyboard():
    import mathml
    from docutils.nodes import SkipNode

    translator = SimpleNamespace(body=[])
    with pytest.raises(SkipNode):
        mathml.block(translator, SimpleNamespace(astext=lambda: "a < b"))
    (written,) = translator.body
    assert 'tabindex="0" role="group" aria-label="Formula"' in written
    assert 'alttext="a &lt; b"' in written


def test_what_runs_code_on_a_server_hears_nothing_of_the_build():
    import offline

    def heard(module, number):
        handler = type("Handler", (), {"__module__": module})
        return SimpleNamespace(id=number, handler=handler)

    gone = []
    listeners = {"a": [heard("sphinx_thebe", 1), heard("myst_nb", 2)],
                 "b": [heard("sphinx_thebe", 3)]}
    app = SimpleNamespace(events=SimpleNamespace(listeners=listeners), disconnect=gone.append,
                          connect=lambda *_: None, add_js_file=lambda *_, **__: None)
    offline.setup(app)
    assert gone == [1, 3]
    files = [SimpleNamespace(filename=f"_static/{name}.css") for name in ("sphinx-thebe", "book")]
    context = {"css_files": files}
    offline.without_its_style(app, "index", "page.html", context, None)
    assert [file.filename for file in context["css_files"]] == ["_static/book.css"]


def test_the_lines_of_a_long_signature_are_no_list_of_definitions():
    import accessible

    html = ('<dl class="py function"><dt>f(<dl><dd><em class="sig-param">a</em>,</dd></dl>)</dt>'
            "<dd>What it does.</dd></dl>")
    assert accessible.accessible_body(html) == (
        '<dl class="py function"><dt>f(<div class="sig-lines"><div><em class="sig-param">a</em>,'
        "</div></div>)</dt><dd>What it does.</dd></dl>")
