"""Takes out what Jupyter Book loads and this book does not use.

`sphinx_thebe` runs code on a server: it names an address outside the book, and defines its
constants twice, which a browser reports as an error on every page.
"""

UNUSED = "sphinx_thebe"


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
    return {"parallel_read_safe": True, "parallel_write_safe": True}
