"""The table of published cells can be sorted and filtered: DataTables, from the offline bundle of
itables, goes into the built book and onto that page alone."""

import re
from importlib.resources import files
from pathlib import Path

PAGES = {"results"}
EXPORT = re.compile(r"\bexport\s*\{([^{}]*)\}\s*;?\s*(?=(?:/\*|$))", re.DOTALL)


def classic(module: str) -> str:
    """The bundle as a plain script that sets `window.ITables`: pages opened from a disk may not
    load modules. Raises ValueError where the bundle ends otherwise than expected."""
    found = EXPORT.search(module)
    if not found:
        raise ValueError("itables' dt_bundle.js has no `export {...}` at its end")
    pairs = (name.split(" as ") for name in found[1].split(","))
    exported = ", ".join(f"{pair[-1].strip()}: {pair[0].strip()}" for pair in pairs)
    body = module[:found.start()] + f"window.ITables = {{{exported}}};" + module[found.end():]
    return f'(function () {{ "use strict";\n{body}\n}})();\n'


def write_bundle(app) -> None:
    """Puts script and style into the built book."""
    if app.builder.format != "html":
        return
    folder, bundle = Path(app.outdir) / "_static", files("itables") / "html"
    folder.mkdir(parents=True, exist_ok=True)
    script = classic((bundle / "dt_bundle.js").read_text(encoding="utf-8"))
    (folder / "datatables.js").write_text(script, encoding="utf-8")
    (folder / "datatables.css").write_bytes((bundle / "dt_bundle.css").read_bytes())


def add_to_page(app, pagename, templatename, context, doctree) -> None:
    """Script and style for the pages that have the table."""
    if pagename in PAGES:
        for name in ("datatables.css", "results.css"):
            app.add_css_file(name)
        for name in ("datatables.js", "results.js"):
            app.add_js_file(name, loading_method="defer")


def setup(app) -> dict:
    app.connect("builder-inited", write_bundle)
    app.connect("html-page-context", add_to_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
