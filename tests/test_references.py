"""One bibliography for the book, and how the book is cited."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from pybtex.database import parse_file, parse_string

from replication import citing_pages, paths
from replication.published import read_papers
from replication.records import InvalidFile

FILE = paths.BOOK / "references.bib"
SHARED = paths.ROOT.parent / "shared" / "published" / "references.bib"
BIBLIOGRAPHY = parse_file(FILE)
SKIPPED = {"_build", "_generated", "runs"}


def texts():
    """Chapters and notebooks that hold citations, those of runs apart."""
    found = [p for kind in ("*.md", "*.ipynb", "*.yml") for p in paths.BOOK.rglob(kind)]
    return [p for p in found if not SKIPPED & set(p.relative_to(paths.BOOK).parts)]


def cited():
    keys = {}
    for path in texts():
        for group in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", path.read_text()):
            keys |= {key.strip(): path for key in group.split(",")}
    return keys


def test_keys_differ_however_they_are_written():
    keys = re.findall(r"^@\w+\{\s*([^,\s]+)", FILE.read_text(), re.MULTILINE)
    assert len({key.lower() for key in keys}) == len(keys) == len(BIBLIOGRAPHY.entries) > 0


def test_there_is_one_bibliography():
    found = [p for p in paths.BOOK.rglob("*.bib") if "_build" not in p.parts]
    assert found == [FILE]
    assert yaml.safe_load((paths.ROOT / "_config.yml").read_text())["bibtex_bibfiles"] == [
        FILE.name]


def test_what_is_cited_is_there():
    assert cited() and not {key: str(p) for key, p in cited().items()
                            if key not in BIBLIOGRAPHY.entries}


def test_what_every_paper_yml_cites_is_there():
    keys = [paper.citation for paper in read_papers().values() if paper.citation]
    assert len(set(keys)) == 5 and set(keys) <= set(BIBLIOGRAPHY.entries)


@pytest.mark.skipif(not SHARED.is_file(), reason="needs ../shared/published/references.bib")
def test_it_holds_every_entry_of_the_published_numbers_file():
    for key, entry in parse_file(SHARED).entries.items():
        assert BIBLIOGRAPHY.entries[key] == entry, key


@pytest.mark.parametrize("key", BIBLIOGRAPHY.entries)
def test_an_entry_can_be_found_by_its_reader(key):
    entry = BIBLIOGRAPHY.entries[key]
    place = {"url", "howpublished", "doi", "eprint", "booktitle", "journal"} & set(entry.fields)
    assert entry.fields.get("title") and place
    assert "author" in entry.persons or "howpublished" in entry.fields


# ------------------------------------------------------------------------------- how to cite


def test_the_books_entry_says_what_the_citation_file_says():
    about = yaml.safe_load((paths.ROOT / "CITATION.cff").read_text())
    entry = parse_string(citing_pages.book_bibtex(about), "bibtex").entries[citing_pages.KEY]
    assert entry.fields["title"] == f"{{{about['title']}}}"
    assert about["version"] in entry.fields["note"]
    assert [str(p) for p in entry.persons["author"]] == [
        f"{{{author['name']}}}" for author in about["authors"]]
    assert "year" not in entry.fields, "no date is released yet: none is made up"


def test_the_book_is_cited_under_its_own_title():
    about = yaml.safe_load((paths.ROOT / "CITATION.cff").read_text())
    assert about["title"] == yaml.safe_load((paths.ROOT / "_config.yml").read_text())["title"]


def test_a_person_a_date_and_an_address_are_taken_over():
    about = {"title": "T", "version": "2", "date-released": "2026-05-01", "doi": "10.1/x",
             "url": "https://a.example", "authors": [{"family-names": "B", "given-names": "A"},
                                                     {"name": "The C"}]}
    entry = parse_string(citing_pages.book_bibtex(about), "bibtex").entries[citing_pages.KEY]
    assert [str(p) for p in entry.persons["author"]] == ["B, A", "{The C}"]
    assert entry.fields["year"] == "2026" and entry.fields["doi"] == "10.1/x"
    assert entry.fields["url"] == "https://a.example"


def test_entries_of_the_papers_are_those_of_the_bibliography(tmp_path):
    (tmp_path / "references.bib").write_text(FILE.read_text())
    papers = read_papers()
    book, page = (Path(p).read_text() for p in citing_pages.write(tmp_path, papers, {}))
    found = parse_string(re.sub(r"(?m)^(```.*|\*\*.*)$", "", page), "bibtex").entries
    wanted = {paper.citation for paper in papers.values() if paper.citation}
    assert set(found) == wanted
    assert all(found[key] == BIBLIOGRAPHY.entries[key] for key in wanted)
    assert citing_pages.KEY in book


def test_one_entry_is_cut_out_whole():
    text = "@b{one.two,\n  t = {y {z}},\n  u = {w}\n}\n\n@a{one,\n  t = {x}\n}\n"
    assert citing_pages.entry(text, "one") == "@a{one,\n  t = {x}\n}"
    assert citing_pages.entry(text, "one.two") == "@b{one.two,\n  t = {y {z}},\n  u = {w}\n}"


def test_what_cites_nothing_is_left_out():
    paper = SimpleNamespace(title="Weights of the demos", citation="", cells=["one"])
    assert citing_pages.papers_markdown({"pretrain": paper}, "") == ""


def test_a_missing_entry_is_named():
    with pytest.raises(InvalidFile, match="no entry gone"):
        citing_pages.entry(FILE.read_text(), "gone")


def test_nothing_is_written_without_a_bibliography(tmp_path):
    assert citing_pages.write(tmp_path, read_papers(), {}) == []
