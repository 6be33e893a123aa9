"""What lets the book be read from a folder, without a server or a network.

- `sphinx_thebe`, which Jupyter Book loads, runs code on a server: it names an address outside the
  book, and defines its constants twice, which a browser reports as an error on every page. It is
  taken out.
- Below each page that a search finds, Sphinx shows some of its text, which the search page fetches.
  A browser refuses that to a page of a folder and reports an error: there, titles are shown alone.
"""

UNUSED = "sphinx_thebe"
TITLES_ONLY = 'DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY &&= location.protocol !== "file:";'


def listeners_of(app, module: str) -> list[int]:
    """Ids of what a module hears of the build."""
    return [listener.id for heard in app.events.listeners.values() for listener in heard
            if listener.handler.__module__ == module]


def without_its_style(app, pagename, templatename, context, doctree) -> None:
    """Drops the style sheet that was registered before this extension was loaded."""
    context["css_files"] = [file for file in context["css_files"]
                            if "sphinx-thebe" not in str(file.filename)]


def setup(app) -> dict:
    """Is loaded after Jupyter Book's own extensions, so that theirs are there to be taken out."""
    for number in listeners_of(app, UNUSED):
        app.disconnect(number)
    app.connect("html-page-context", without_its_style)
    app.add_js_file(None, body=TITLES_ONLY)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
