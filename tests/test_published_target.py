"""What the graph does with published settings: dry runs, nothing is computed."""

import re
import subprocess
import sys

import pytest

from replication import paths
from replication.published import read_papers

PAPERS = read_papers()


def dry_run(*words):
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "-n", "-p", "--nolock", "--cores", "8", *words],
        cwd=paths.ROOT, capture_output=True, text=True, timeout=300)
    return done.stdout + done.stderr


def commands(text):
    return set(re.findall(r"python -m replication run (.*)", text))


def chain(paper):
    """What aims at published cells of a paper, and what it needs."""
    names, waiting = set(), [f"{paper}/{e.name}" for e in PAPERS[paper].experiments if e.targets]
    while waiting:
        names.add(name := waiting.pop())
        folder, _, experiment = name.partition("/")
        waiting += PAPERS[folder].experiment(experiment).needs
    return names


@pytest.fixture(scope="module")
def two_papers():
    return dry_run("published", "book/clip_prompt/runs/demo.ipynb", "--force", "--config",
                   "papers=clip_prompt,sprc", "data_root=/da ta", "devices=2")


def test_every_published_experiment_of_the_papers_is_run_and_no_other(two_papers):
    run = {line.split()[0] for line in commands(two_papers) if "--size" not in line}
    assert run == {name for name in chain("clip_prompt") | chain("sprc")
                   if not PAPERS[name.split("/")[0]].experiment(name.split("/")[1]).demo}


def test_data_and_devices_come_under_each_notebooks_own_names(two_papers):
    found = commands(two_papers)
    assert "clip_prompt/sketchy -p data_root '/da ta' -p devices 2 --force" in found
    assert "sprc/fashioniq -p data_path '/da ta' -p devices 2 --force" in found
    assert "sprc/fashioniq-checkpoint -p data_path '/da ta' --force" in found, "it has no devices"


def test_a_job_asks_for_its_gpus(two_papers):
    asked = re.findall(r"^rule asked:.*?resources: (.*?)$", two_papers, re.DOTALL | re.MULTILINE)
    assert asked and all({"gpu=2", "mem_mb=32000", "runtime=1440"} <= set(line.split(", "))
                         for line in asked)


def test_a_demo_is_made_by_its_own_rule(two_papers):
    assert "clip_prompt/demo --size demo --force" in commands(two_papers)


def test_without_a_folder_of_sets_the_parameters_stay():
    found = commands(dry_run("book/acnet/runs/sketchy_no-identity.ipynb"))
    assert found == {"acnet/sketchy_no-identity  --force"}


def test_an_unknown_paper_is_named():
    assert re.search(r"papers=nobody: choose from acnet, .*zse_sbir", dry_run(
        "published", "--config", "papers=nobody,acnet"))
