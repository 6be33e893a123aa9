"""The chapter on data: its facts agree with the code and with each other, and its pages show them.
"""

import collections
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from markdown_it import MarkdownIt

from data_prep.class_lists import ClassLists, Split, class_lists
from data_prep.sources import File, sources
from replication import captioned, circo, composed, published
from replication import dataset_pages as pages
from replication.check_pages import (
    checks_markdown,
    plain,
    read_reports,
    sheet_markdown,
    speed_markdown,
    table,
)
from replication.datasets import Facts, all_facts

REPO = Path(__file__).resolve().parent.parent
BOOK = REPO / "book"
ANNOTATIONS = REPO.parent / "shared" / "data"
KNOWN = all_facts(BOOK / "datasets")
# What the readmes of the five original codes name.
SEEDS = {"ClipPrompt": "sketchy tuberlin", "ACNet": "sketchy tuberlin",
         "ZSE-SBIR": "sketchy tuberlin quickdraw", "SPRC": "cirr fashioniq", "CLIP_ITM": "coco"}
KINDS = ["about", "counts", "files", "classes", "defects", "checks", "sheet"]


# ------------------------------------------------------------------------------------ the facts


def test_every_set_of_the_original_readmes_is_known():
    assert set(" ".join(SEEDS.values()).split()) <= set(KNOWN)


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_a_set_has_facts_a_page_a_command_and_sources(name):
    facts = KNOWN[name]
    assert facts.name == name and facts.title and facts.folder and facts.licence
    assert facts.whole and facts.whole.source
    module = REPO / "data_prep" / name
    assert module.with_suffix(".py").is_file() or (module / "__main__.py").is_file()
    assert (BOOK / "datasets" / f"{name}.md").is_file()
    assert name in sources() or name == "doodles"
    assert (name == "doodles") == (not facts.home)
    assert all((BOOK / chapter).is_dir() for chapter in facts.used_by)


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_claims_are_of_a_part_that_is_stated_and_citations_exist(name):
    facts, bib = KNOWN[name], (BOOK / "references.bib").read_text()
    for claim in facts.claims:
        stated = facts.splits[claim.split] if claim.split else facts.whole
        assert claim.part in stated.counts, claim
        assert claim.source
    page = (BOOK / "datasets" / f"{name}.md").read_text()
    cited = {key for keys in re.findall(r"\{cite\}`([^`]+)`", page) for key in keys.split(",")}
    for key in cited | set(facts.cite) | {claim.cite for claim in facts.claims} - {""}:
        assert bib.count(f"{{{key},") == 1, key
    for split in facts.splits.values():
        assert split.source and all(n is None or n > 0 for n in split.counts.values())


def of_parts(facts: Facts) -> list[dict[str, int]]:
    return [split.counts for split in facts.splits.values()]


@pytest.mark.parametrize("name", sorted(captioned.N_IMAGES))
def test_counts_are_those_that_the_reader_of_captions_expects(name):
    expected = {f"{part}/{what}": n * times for part, n in captioned.N_IMAGES[name].items()
                for what, times in (("images", 1), ("captions", captioned.PER_IMAGE))}
    assert of_parts(KNOWN[name]) == [expected] * len(KNOWN[name].splits)


def test_counts_are_those_that_the_reader_of_composed_sets_expects():
    for name, parts in composed.N_OFFICIAL.items():
        (counts,) = of_parts(KNOWN[name])
        for part, types in parts.items():
            for which, (queries, images) in types.items():
                place = f"{part} {which}".strip()
                assert (counts[f"{place}/queries"], counts[f"{place}/images"]) == (queries, images)
    (counts,) = of_parts(KNOWN["circo"])
    assert counts == {**{f"{part}/queries": n for part, n in circo.N_QUERIES.items()},
                      "val/images": circo.N_IMAGES}


def test_counts_are_those_of_every_paper():
    compared = collections.Counter()
    for paper in published.read_papers(BOOK).values():
        names = {theirs: ours for ours, theirs in paper.aliases.items()}
        for data, splits in paper.sets.items():
            name = names.get(data, data)
            for split, expected in splits.items():
                if expected.n_query is None:
                    continue
                assert in_facts(KNOWN[name], split) == (expected.n_query, expected.n_gallery)
                if name in ("sketchy", "tuberlin", "quickdraw"):
                    counts = KNOWN[name].splits[split].counts
                    assert counts["val/classes"] == expected.n_classes
                compared[name] += 1
    assert set(compared) == {"sketchy", "tuberlin", "quickdraw", "coco", "flickr30k", "cirr",
                             "fashioniq"}


def in_facts(facts: Facts, split: str) -> tuple[int, int]:
    """Queries and gallery of a paper's split; of FashionIQ's types together."""
    if facts.kind == "sketch":
        counts = facts.splits[split].counts
        return counts["val/sketch"], counts["val/photo"]
    counts = next(iter(facts.splits.values())).counts
    if facts.kind == "captions":
        return counts["test/images"], counts["test/captions"]
    part = {"test": "test1"}.get(split, split)
    return tuple(sum(n for of, n in counts.items() if of.split()[0].split("/")[0] == part
                     and of.endswith(what)) for what in ("/queries", "/images"))


@pytest.mark.parametrize("name", ["sketchy", "tuberlin", "quickdraw", "doodles"])
def test_classes_are_those_of_the_lists(name):
    lists, facts = pages.lists_of(name), KNOWN[name]
    assert facts.whole.counts["classes"] == len(lists.classes)
    assert set(lists.splits) <= set(facts.splits)
    for split, own in lists.splits.items():
        counts = facts.splits[split].counts
        assert (counts["train/classes"], counts["val/classes"]) == (len(own.seen), len(own.unseen))
    for split in facts.splits.values():
        for domain, n in split.per_class.items():
            assert split.counts[f"train/{domain}"] == n * split.counts["train/classes"]


def numbers(text: str) -> set[str]:
    """Numbers of two digits and more that are no years and no part of a name."""
    found = re.findall(r"(?<![\w.,-])\d[\d,]*\d(?![\w])", text)
    return {n.replace(",", "") for n in found} - {str(year) for year in range(2010, 2030)}


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_numbers_in_prose_stand_in_the_facts(name):
    page = (BOOK / "datasets" / f"{name}.md").read_text()
    prose = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)|^    .*?$", " ", page, flags=re.S | re.M)
    facts = numbers((BOOK / "datasets" / f"{name}.yml").read_text())
    assert numbers(prose) <= facts, numbers(prose) - facts


# ------------------------------------------------------------- the facts against published files

real = pytest.mark.skipif(not ANNOTATIONS.is_dir(), reason="no ../shared/data here")


def detail(name: str, what: str) -> str:
    (found,) = [d.detail for d in KNOWN[name].defects if d.what == what]
    return found


def fashioniq(kind: str) -> dict[tuple[str, str], list]:
    folder = ANNOTATIONS / "annotations" / "fashioniq" / {"cap": "captions",
                                                          "split": "image_splits"}[kind]
    return {(t, s): json.loads((folder / f"{kind}.{t}.{s}.json").read_text())
            for t in composed.TYPES for s in ("train", "val", "test")}


@real
def test_fashioniq_is_as_its_page_says():
    names, queries, facts = fashioniq("split"), fashioniq("cap"), KNOWN["fashioniq"]
    counts = facts.splits["original split"].counts
    for t, s in names:
        assert counts[f"{s} {t}/images"] == len(names[t, s])
        assert counts[f"{s} {t}/queries"] == len(queries[t, s])
    every = collections.Counter(n for own in names.values() for n in own)
    assert facts.whole.counts == {"images": len(every), "queries": sum(map(len, queries.values()))}
    assert f"{sum(every.values()):,} names" in detail("fashioniq", "How many pictures there are")
    assert f"{sum(n > 1 for n in every.values()):,} pictures" in detail(
        "fashioniq", "How many pictures there are")
    part = {s: set().union(*(names[t, s] for t in composed.TYPES))
            for s in ("train", "val", "test")}
    told = detail("fashioniq", "The same picture in training and val")
    for n in (len(part["train"] & part["val"]), len(part["val"]),
              len(part["train"] & part["test"]), len(part["val"] & part["test"])):
        assert f"{n:,}" in told
    assert not any(set(names[t, "train"]) & set(names[t, s]) for t in composed.TYPES
                   for s in ("val", "test"))
    empty = {s: sum(any(not c.strip(" .") for c in q["captions"]) for t in composed.TYPES
                    for q in queries[t, s]) for s in part}
    assert f"{empty['train']} pairs of training, {empty['val']} of val and {empty['test']} of" in \
        detail("fashioniq", "Empty captions")


@real
def test_fashioniq_claims_of_the_small_gallery():
    for claim in KNOWN["fashioniq"].claims:
        if claim.cite == "chen2020val":
            kind = claim.part.split("/")[0].split()[1]
            used = {n for q in fashioniq("cap")[kind, "val"] for n in (q["candidate"], q["target"])}
            assert len(used) == claim.count


@real
def test_cirr_is_as_its_page_says():
    folder, facts = ANNOTATIONS / "annotations" / "cirr", KNOWN["cirr"]
    counts = facts.splits["rc2"].counts
    names = {s: json.loads((folder / f"image_splits/split.rc2.{s}.json").read_text())
             for s in ("train", "val", "test1")}
    assert {s: counts[f"{s}/images"] for s in names} == {s: len(own) for s, own in names.items()}
    assert facts.whole.counts["images"] == len(set().union(*names.values()))
    queries = {s: json.loads((folder / f"captions/cap.rc2.{s}.json").read_text())
               for s in ("val", "test1")}
    assert {s: counts[f"{s}/queries"] for s in queries} == {s: len(q) for s, q in queries.items()}
    blank = [q["pairid"] for own in queries.values() for q in own if not q["caption"].strip()]
    assert blank == [27098] and "27098" in detail("cirr", "A query without words")
    soft = sum(len(q["target_soft"]) > 1 for q in queries["val"])
    assert f"{soft} of val's" in detail("cirr", "More than one right picture")
    seen, again = set(), []
    for q in queries["test1"]:
        key = q["reference"], q["caption"]
        again += [q["pairid"]] if key in seen else []
        seen.add(key)
    assert all(str(n) in detail("cirr", "Queries that repeat") for n in again) and len(again) == 4


@real
def test_captions_are_as_their_pages_say():
    folder = ANNOTATIONS / "annotations" / "coco"
    later = {a["id"] for a in
             json.loads((folder / "captions_val2017.json").read_text())["annotations"]}
    told = detail("coco", "val2017 is not the test")
    for part in ("test", "dev", "restval"):
        shared = later & set(np.load(folder / f"coco_{part}_ids.npy").tolist())
        assert f"{len(shared):,}" in told
    assert f"{len(later):,}" in told
    lines = (ANNOTATIONS / "flickr8k/captions.token.txt").read_text().splitlines()
    captioned_ = {line.partition("#")[0] for line in lines}
    listed = {name for part in ("train", "dev", "test") for name in
              (ANNOTATIONS / f"flickr8k/{part}_images.txt").read_text().split()}
    assert detail("flickr8k", "Pictures in no list").startswith(f"{len(captioned_ - listed)} ")
    assert any(c.count == len(captioned_) for c in KNOWN["flickr8k"].claims)
    short = {f"`{line.partition('#')[0]}`" for line in lines if len(line.partition("\t")[2]) < 8}
    told = detail("flickr8k", "Captions of one letter or two words")
    assert short == set(re.findall(r"`[^`]*jpg`", told))


@real
def test_published_lists_are_as_the_pages_say():
    splits = ANNOTATIONS / "splits"
    lines = (splits / "tuberlin_220_30/png_ready_filelist_train.txt").read_text().splitlines()
    per_class = collections.Counter(line.split("/")[1] for line in lines)
    (claim,) = [c for c in KNOWN["tuberlin"].claims if c.part == "train/sketch"]
    assert claim.count == len(lines) == 15400 and set(per_class.values()) == {70}
    told = detail("sketchy", "Training lists leave sketches out")
    for folder in ("sketchy_zeroshot1_100_25", "sketchy_zeroshot0_104_21"):
        listed = (splits / folder / "subset125x25_sketch_train.txt").read_text().splitlines()
        assert f"{len(listed):,}" in told
    official = {f.stem for f in (ANNOTATIONS / "quickdraw").glob("*.ndjson")}
    own = [name for name in class_lists("quickdraw").classes if name not in official]
    told = detail("quickdraw", "Class names of their own")
    assert len(own) == 9 and all(f"`{name}`" in told for name in own)


# ------------------------------------------------------------------------------------ the pages

MADE_UP = Facts(
    name="shapes", title="Shapes", kind="sketch", folder="shapes", cite=["a2020"], home="",
    licence="none", used_by=["clip_prompt", "nobody"],
    whole={"source": "the authors", "counts": {"sketch": 1200, "photo": None, "classes": 3}},
    splits={"2/1": {"source": "a list", "counts": {"train/sketch": 800, "val/sketch": 400,
                                                   "val/photo": None}},
            "2/1 again": {"source": "another list", "counts": {"train/sketch": 800,
                                                               "val/sketch": 400,
                                                               "val/photo": None}}},
    claims=[{"source": "a paper", "cite": "b2021", "split": "2/1", "part": "val/sketch",
             "count": 403, "note": "three twice"},
            {"source": "a reader", "part": "photo", "count": 90}],
    defects=[{"what": "Twice", "detail": "three sketches\n stand twice", "handled": "taken once"}])


def a_report(**changes) -> dict:
    return {"name": "shapes", "folder": "shapes", "split": "2/1", "subset": False,
            "counts": {"train/sketch": 800, "val/sketch": 400, "val/photo": 31},
            "per_class": {"sketch": {"a_b": 3}}, "manifest": "sha256:00", "n_pictures": 1231,
            "pictures": {"format": {"JPEG": 31, "PNG": 1200}, "mode": {"RGB": 1231},
                         "size": {"64 x 64": 1231}, "bytes": 5_000},
            "damaged": [], "odd": {}, "same_bytes": {"within": [["a", "b"]], "across": []},
            "near_same": {"within": [], "across": [["a", "c", 2]]}, "near_bits": 3,
            "problems": [], "notes": [], "seconds": 2.4, "versions": {"pillow": "1.2"},
            "commit": "0123456789abcdef", "made_at": "2025-01-02T03:04:05Z", "label": ""} | changes


def rendered(text: str) -> str:
    """What a reader sees of it, without tags; no citations."""
    html = MarkdownIt("gfm-like").render(text)
    html = re.sub(r"<[^>]*>", "", html.replace("</td>", " | "))
    for entity, mark in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        html = html.replace(entity, mark)
    return html


def rows_of(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines()
            if line.startswith("| ")]


def test_counts_without_a_check_are_only_the_stated_ones():
    text = pages.counts_markdown(MADE_UP, [])
    assert text.startswith("The whole set: 1,200 sketches, 3 classes (the authors).\n")
    assert text.count("| part |") == 1 and "**2/1, 2/1 again** (a list; another list)" in text
    assert ["part", "", "sketches", "photos"] in rows_of(text) and "here" not in text
    assert ["val", "stated", "400", "not stated"] in rows_of(text)


def test_claims_say_by_how_much_they_differ_and_why():
    rows = rows_of(pages.counts_markdown(MADE_UP, []))
    assert ["2/1 val/sketch", "403", "+3", "a paper {cite}`b2021`", "three twice"] in rows
    assert ["all photos", "90", "", "a reader"] in [row[:4] for row in rows]


def test_a_whole_set_stands_beside_the_stated_counts():
    rows = rows_of(pages.counts_markdown(MADE_UP, [a_report()]))
    assert ["val", "stated", "400", "not stated"] in rows
    assert ["val", "here", "400", "31"] in rows


def test_a_sample_has_a_column_that_says_so():
    few = a_report(subset=True, counts={"train/sketch": 8, "val/sketch": 4})
    rows = rows_of(pages.counts_markdown(MADE_UP, [few]))
    assert ["val", "here (a sample)", "4"] in rows
    two = [few | {"label": "small_one"}, few | {"counts": {"val/sketch": 5}}, a_report()]
    rows = rows_of(pages.counts_markdown(MADE_UP, two))
    assert [row[1:3] for row in rows if row[0] == "val"] == [
        ["stated", "400"], ["here (a sample: small\\_one)", "4"],
        ["here (a sample: this machine)", "5"], ["here", "400"]]
    assert ["train", "here (a sample: this machine)"] not in rows


def test_other_counts_are_not_called_the_stated_set():
    """A sample that was checked without saying that it is one."""
    rows = rows_of(pages.counts_markdown(MADE_UP, [a_report(counts={"val/sketch": 4})]))
    assert ["val", "here (not the stated set)", "4"] in rows


def test_a_split_that_nobody_counts_has_a_table_of_its_own():
    text = pages.counts_markdown(MADE_UP, [a_report(split="9/9", counts={"val/photo": 7})])
    stated, _, own = text.partition("**9/9**, of which no source states counts")
    assert ["part", "", "photos"] in rows_of(own) and ["val", "here", "7"] in rows_of(own)
    assert "here" not in stated


@pytest.mark.parametrize("name", ["a_b_c", "*x*", "[a](b)", "<b>", "`c`", "$a$ $b$", "~~d~~",
                                  "&amp;", "back\\slash", "![x](y)", "{{ x }}", "Über (1).jpg"])
def test_names_are_shown_letter_by_letter(name):
    assert rendered(f"x {plain(name)} y").strip() == f"x {name} y"
    lists = ClassLists((name,), {"1/1": Split((name,), (name,), "a list")}, {})
    inside = pages.classes_markdown(lists).split("\n", 1)[1].rpartition("````")[0]
    assert f"Unseen: {name}" in rendered(inside) and f"Seen: {name}" in rendered(inside)


def test_a_table_keeps_its_cells():
    text = table(["a", "b"], [["x|y", "two\nlines"]], numbers=[1])
    assert text == "| a | b |\n| --- | ---: |\n| x\\|y | two lines |\n"


def test_checks_are_told_in_full():
    found = a_report(subset=True, label="small", problems=["1 damaged: a_b.jpg"], notes=["odd"])
    text = checks_markdown("shapes", [found])
    shown = rendered(text)
    assert "2/1, a sample small: 1 problem. 2025-01-02, commit 012345678, pillow 1.2." in shown
    assert "1,231 in 2 s" in shown and "JPEG 31, PNG 1,200; RGB 1,231; 64 x 64 1,231" in shown
    assert "1 within and 0 across" in shown and "0 within and 1 across" in shown
    assert "near-same, up to 3 of 64 bits" in shown
    assert "- problem: 1 damaged: a\\_b.jpg\n- note: odd" in text
    counted = checks_markdown("shapes", [found | {"n_same_bytes": {"within": 9, "across": 8}}])
    assert "9 within and 8 across" in counted


def test_without_a_check_the_command_is_told():
    assert "`python -m replication verify shapes --data-root DATA`" in checks_markdown("shapes", [])
    assert sheet_markdown(MADE_UP) == ""  # no heading with nothing below
    assert sheet_markdown(MADE_UP, a_report()).startswith("## What it looks like\n\n```{figure}")
    assert "a sample of it" in sheet_markdown(MADE_UP, a_report(subset=True))
    assert "framed orange" in sheet_markdown(MADE_UP, a_report())


def test_kept_reports_come_first_and_the_same_check_once(tmp_path):
    kept = tmp_path / "book/datasets/checks"
    kept.mkdir(parents=True)
    for label, report in {"b": a_report(), "a": a_report(subset=True),
                          "c": a_report(name="other")}.items():
        (kept / f"{label}.json").write_text(json.dumps(report))
    own = tmp_path / "results/shapes/report.json"
    own.parent.mkdir(parents=True)
    own.write_text(json.dumps(a_report()))
    labels = [r["label"] for r in read_reports("shapes", tmp_path / "book", tmp_path / "results")]
    assert labels == ["a", "b"]
    own.write_text(json.dumps(a_report(manifest="sha256:11")))
    labels = [r["label"] for r in read_reports("shapes", tmp_path / "book", tmp_path / "results")]
    assert labels == ["a", "b", ""]


def test_files_say_where_they_are_and_what_to_do():
    by_hand = {"how": "page", "page": "https://x.org/p", "holds": "photo/<class>/<12 digits>.jpg",
               "needed": "always"}
    files = [File(name="a/one.json", url="https://x.org/one.json", how="https", holds="rows",
                  page="https://x.org", needed="always", bytes=150_000, md5="0" * 32, checked="me"),
             File(name="a/two.json", url="https://x.org/two.json", how="https", holds="rows",
                  page="https://x.org", needed="always", bytes=1_000_000, md5="0" * 32,
                  checked="me"),
             File(name="b.zip", instructions="Ask (see some_file.sh of x.org/a). With --all.",
                  **by_hand),
             File(name="c.zip", instructions="Ask (see some_file.sh of x.org/a). With --all.",
                  **by_hand)]
    text = pages.files_markdown("shapes", files)
    assert ["`a/one.json`, `a/two.json`", "[downloaded](<https://x.org>), hash known", "always",
            "1.1\u00a0MB", "rows"] in rows_of(text)
    assert ["`b.zip`", "[by hand](<https://x.org/p>)", "always", "not known",
            "`photo/<class>/<12 digits>.jpg`"] in rows_of(text)
    assert text.endswith("- `b.zip`, `c.zip`: Ask (see `some_file.sh` of `x.org/a`). With "
                         "`--all`.\n")
    assert "data_prep.fetch shapes --raw FOLDER" in text
    assert "data_prep.fetch" not in pages.files_markdown("shapes", files[2:])
    single = pages.files_markdown("shapes", files[:1])
    assert "[downloaded](<https://x.org/one.json>), hash known" in single


def test_a_set_that_is_downloaded_whole_asks_for_nothing_by_hand():
    file = File(name="one.json", url="https://x.org/one.json", how="https", holds="rows",
                page="https://x.org", needed="always", checked="me")
    text = pages.files_markdown("shapes", [file])
    assert "downloads all of it;" in text and "by hand" not in text


def test_a_sample_of_drawings_without_photos_says_so():
    bare = a_report(subset=True, counts={"val/sketch": 5, "val/photo": 0})
    text = pages.overview_markdown([MADE_UP], {"shapes": [bare]}, BOOK)
    assert "| a sample, 2/1: no problem, drawings only |" in text


def test_defects_say_what_is_done_about_them():
    text = pages.defects_markdown(MADE_UP)
    assert text == "- **Twice.** Three sketches stand twice. *Here:* taken once.\n"
    assert pages.defects_markdown(MADE_UP.model_copy(update={"defects": []})) == "None is known.\n"


def test_the_overview_links_sets_and_chapters():
    text = pages.overview_markdown([MADE_UP], {"shapes": [a_report(subset=True)]}, BOOK)
    assert ["[Shapes](/datasets/shapes.md)", "sketches and photos by class",
            "[ClipPrompt](/clip_prompt/index.md), nobody", "1,200 sketches, 3 classes",
            "a sample, 2/1: no problem"] in rows_of(text)
    both = [a_report(subset=True), a_report(problems=["x", "y"])]
    assert "| 2/1: 2 problems |" in pages.overview_markdown([MADE_UP], {"shapes": both}, BOOK)
    assert "| no |" in pages.overview_markdown([MADE_UP], {"shapes": []}, BOOK)


@pytest.fixture
def made(tmp_path) -> tuple[Path, Path]:
    """Every page, written without any check of this machine."""
    out, results = tmp_path / "out", tmp_path / "results"
    pages.write_pages(out, results=results)
    return out, results


def test_all_pages_include_what_is_written_and_nothing_else(made):
    written = {f.name for f in made[0].iterdir()}
    wanted = set()
    for page in (BOOK / "datasets").glob("*.md"):
        wanted |= set(re.findall(r"\{include\} \.\./_generated/(\S+)", page.read_text()))
    assert wanted <= written
    listed = (made[0] / "datasets.md").read_text()
    assert all(f"](/datasets/{name}.md)" in listed for name in KNOWN)
    own_picture = {"dataset_doodles_defects.md", "dataset_doodles_sheet.md"}
    assert written - wanted == own_picture
    kinds = {name.rpartition("_")[2].removesuffix(".md") for name in written
             if name.startswith("dataset_")}
    assert kinds == set(KINDS)


def test_every_file_of_the_sources_is_on_its_page(made):
    for name, source in sources().items():
        text = (made[0] / f"dataset_{name}_files.md").read_text()
        codes = re.findall(r"`([^`]+)`", text)
        named = {*codes, *(name for code in codes for name in unfolded(code))}
        assert {file.name for file in source.files} <= named, name


def unfolded(name: str) -> list[str]:
    """`{a,b}.json` as its two names."""
    before, found, rest = name.partition("{")
    chosen, _, after = rest.partition("}")
    return [end for own in chosen.split(",") for end in unfolded(before + own + after)] \
        if found else [name]


def test_many_files_of_a_kind_are_named_once_where_every_combination_is_there():
    def named(*names):
        return pages._names([File(name=name, how="page", holds="x", page="https://x.org",
                                  needed="always", instructions="Ask.") for name in names])

    assert named("c/a.x.json", "c/a.y.json", "c/b.x.json", "c/b.y.json") == "`c/{a,b}.{x,y}.json`"
    assert named("a.x", "a.y", "b.x", "c.y") == "`a.x`, `a.y`, `b.x`, `c.y`"
    assert named("a.x", "b.x") == "`a.x`, `b.x`"


def test_pages_are_written_again_to_the_same_bytes(made):
    out, results = made
    before = {f.name: f.read_bytes() for f in out.iterdir()}
    assert {p.name for p in pages.write_pages(out, results=results)} == set(before)
    assert before == {f.name: f.read_bytes() for f in out.iterdir()}


def test_a_contact_sheet_comes_and_goes_with_its_check(made):
    out, results = made
    folder = results / "sketchy"
    folder.mkdir(parents=True)
    report = a_report(name="sketchy", split="104/21", subset=True, counts={"val/sketch": 5})
    (folder / "report.json").write_text(json.dumps(report))
    (folder / "contact.jpg").write_bytes(b"jpeg")
    pages.write_pages(out, results=results)
    assert (out / "dataset_sketchy.jpg").read_bytes() == b"jpeg"
    assert "{figure} ../_generated/dataset_sketchy.jpg" in \
        (out / "dataset_sketchy_sheet.md").read_text()
    rows = rows_of((out / "dataset_sketchy_counts.md").read_text())
    assert ["val", "here (a sample)", "", "5"] in rows
    (folder / "contact.jpg").unlink()
    pages.write_pages(out, results=results)
    assert not (out / "dataset_sketchy.jpg").exists()
    assert "{figure}" not in (out / "dataset_sketchy_sheet.md").read_text()


def test_the_facts_are_valid_files():
    for file in (BOOK / "datasets").glob("*.yml"):
        assert Facts.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))


def test_no_torch_is_needed():
    code = "import sys, replication.dataset_pages; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=REPO, check=True)


def test_speeds_are_the_records_of_the_benchmarks(tmp_path):
    machine = {"cpu": "a CPU", "cores": 2}
    (tmp_path / "data_prep.json").write_text(json.dumps(
        {"machine": machine, "made_up": True, "files": 6250, "bytes": 41_000_000,
         "seconds": {"floor": 2.5, "check, one a core": 5.0, "prepared already": 0.0},
         "times_floor": {"floor": 1.0, "check, one a core": 2.01, "prepared already": 0.0}}))
    (tmp_path / "quickdraw_drawing.json").write_text(json.dumps(
        {"machine": machine, "size": 256, "ms": {"agg": 1.5, "png alone": 0.5}}))
    text = speed_markdown(tmp_path)
    assert "a CPU, 2 cores; 6,250 made-up files, 41 MB." in text and "already" not in text
    assert "| check, one a core | 5.00 | 2.01 | 1,250 |" in text and "| agg | 1.50 | 3.00 |" in text
    assert speed_markdown(tmp_path / "none") == "Not measured yet.\n"
