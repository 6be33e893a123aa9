"""Every paper's chapter has one shape, so that a reader of one finds everything in the next."""

import re

import pytest

from replication import paths
from replication.published import read_papers

SECTIONS = ["Claim", "Method", "Protocol", "Results", "Ablations", "Ranked results",
            "Where paper and code part", "Cost", "What was easy, what was hard", "Run it",
            "Executed notebooks"]
GENERATED = {"Results": ["published", "demo"], "Ranked results": ["ranked"],
             "Where paper and code part": ["deviations"], "Cost": ["cost"],
             "Run it": ["commands"], "Executed notebooks": ["notebooks"]}
PAPERS = [name for name, paper in read_papers().items() if paper.cells]


def sections(name: str) -> dict[str, str]:
    """A chapter's sections by their headings, in order."""
    text = (paths.BOOK / name / "index.md").read_text()
    parts = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_all_five_are_there():
    assert PAPERS == ["acnet", "clip_prompt", "clip_retrieval", "sprc", "zse_sbir"]


@pytest.mark.parametrize("name", PAPERS)
def test_a_chapter_has_every_section_in_one_order(name):
    assert list(sections(name)) == SECTIONS


@pytest.mark.parametrize("name", PAPERS)
def test_what_runs_gave_stands_where_it_belongs(name):
    found = sections(name)
    for section, kinds in GENERATED.items():
        for kind in kinds:
            assert f"{{include}} ../_generated/{name}_{kind}.md" in found[section], kind
    samples = list((paths.BOOK / name / "records").glob("*-sample.json"))
    assert bool(samples) == (f"{name}_subset.md" in found["Results"])
    for file in (paths.BOOK / name / "records").glob("*-full.csv"):
        assert f"{name}_{file.stem}.md" in found["Ablations"], file.name


@pytest.mark.parametrize("name", PAPERS)
def test_the_method_has_equations_shapes_and_the_figure_in_both_themes(name):
    method = sections(name)["Method"]
    assert method.count("$$") >= 2 and "### Shapes" in method
    alts = re.findall(r"```\{image\} (\S+)\n:alt: (.+)\n:class: only-(\w+)\n", method)
    assert [(file, theme) for file, _, theme in alts] == [
        ("architecture.svg", "light"), (f"../_generated/{name}_architecture-dark.svg", "dark")]
    assert alts[0][1] == alts[1][1] and alts[0][1].startswith("Architecture. ")


@pytest.mark.parametrize("name", PAPERS)
def test_published_numbers_never_stand_with_the_demo(name):
    results = re.split(r"^### (.*)\n", sections(name)["Results"], flags=re.MULTILINE)
    parts = dict(zip(results[1::2], results[2::2], strict=True))
    assert next(iter(parts)) == "Published"
    assert f"{name}_published.md" in parts["Published"]
    assert not re.search(r"_(demo|subset)\.md", parts["Published"])
    assert all(f"{name}_published.md" not in text for title, text in parts.items()
               if title != "Published")
