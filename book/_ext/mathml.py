"""Formulas as MathML, made when the book is built: a page needs no script and no network."""

from html import escape

from latex2mathml.converter import convert


def formula(latex: str, display: str) -> str:
    """MathML of a formula, with its LaTeX as the text for those who do not see it."""
    return convert(latex, display=display).replace("<math ", f'<math alttext="{escape(latex)}" ', 1)


def inline(translator, node) -> None:
    """A formula within a line."""
    translator.body.append(formula(node.astext(), "inline"))
    skip(node)


def block(translator, node) -> None:
    """A formula on its own, which scrolls where the page is too narrow for it."""
    box = '<div class="formula" tabindex="0" role="group" aria-label="Formula">'
    translator.body.append(f"{box}{formula(node.astext(), 'block')}</div>")
    skip(node)


def skip(node) -> None:
    """Ends the visit: the formula's text is written."""
    from docutils.nodes import SkipNode

    raise SkipNode


def setup(app) -> dict:
    """Registers the renderer under the name that `html_math_renderer` asks for."""
    app.add_html_math_renderer("mathml", inline_renderers=(inline, None),
                               block_renderers=(block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
