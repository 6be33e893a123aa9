"""What the page "how to cite" shows, from CITATION.cff and the book's references.

Never imports torch.
"""

import re
from pathlib import Path

import yaml

from replication import paths
from replication.published import Paper
from replication.records import InvalidFile, RunRecord

KEY = "replication_book"


def write(book: Path, papers: dict[str, Paper], records: dict[str, list[RunRecord]]) -> list[Path]:
    """`_generated/cite_book.md` and `_generated/cite_papers.md`; nothing without references."""
    bibliography = book / "references.bib"
    if not bibliography.is_file():
        return []
    about = yaml.safe_load((paths.ROOT / "CITATION.cff").read_text())
    pages = {"cite_book": _block(book_bibtex(about)),
             "cite_papers": papers_markdown(papers, bibliography.read_text())}
    return [paths.write_atomic(book / "_generated" / f"{name}.md", text)
            for name, text in pages.items()]


def book_bibtex(about: dict) -> str:
    """The content of a CITATION.cff as a BibTeX entry; what it does not state is left out."""
    authors = " and ".join(map(_author, about["authors"]))
    date = str(about.get("date-released", ""))
    fields = {"title": f"{{{about['title']}}}", "author": authors, "year": date[:4],
              "doi": about.get("doi", ""),
              "url": about.get("repository-code") or about.get("url", ""),
              "note": f"Version {about['version']}"}
    lines = [f"  {name.ljust(7)} = {{{value}}}" for name, value in fields.items() if value]
    return f"@misc{{{KEY},\n" + ",\n".join(lines) + "\n}"


def _author(author: dict) -> str:
    if "name" in author:
        return f"{{{author['name']}}}"
    return f"{author['family-names']}, {author['given-names']}"


def entry(bibliography: str, key: str) -> str:
    """One entry of a bibliography, word for word. Raises InvalidFile where there is none."""
    found = re.search(rf"^@\w+\{{{re.escape(key)},.*?^\}}", bibliography, re.DOTALL | re.MULTILINE)
    if not found:
        raise InvalidFile(f"references.bib has no entry {key}, which a paper.yml cites")
    return found[0]


def papers_markdown(papers: dict[str, Paper], bibliography: str) -> str:
    """Each paper that is replicated: its title, and its entry to copy."""
    return "\n".join(f"**{paper.title}** {{cite}}`{paper.citation}`\n\n"
                     + _block(entry(bibliography, paper.citation))
                     for paper in papers.values() if paper.citation)


def _block(bibtex: str) -> str:
    return f"```{{code-block}} bibtex\n:class: wrapped\n{bibtex}\n```\n"
