"""The graph: data -> experiments -> tables -> book. Rules call what a person would type."""

from pathlib import Path

from replication import paths, published, report

SIZE = config.get("size", "demo")
if SIZE not in ("demo", "tiny"):
    raise ValueError(f"size={SIZE}: choose demo or tiny")
DATA = "data" if SIZE == "demo" else "data/tiny"
DRAW = {"demo": "", "tiny": "--per-class 8 --sketches 2"}[SIZE]
DRAWN = f"{DATA}/.doodles-drawn"  # the folder itself must not be made before it is drawn
PAPERS = published.read_papers()
RUNS = {f"{paper.name}/{e.name}": (paper, e) for paper in PAPERS.values()
        for e in paper.experiments if e.demo}
TABLES = [f"book/_generated/{name}_{table}.md" for name, paper in PAPERS.items() if paper.cells
          for table in ("published", "demo", "subset", "deviations", "conventions")]
LISTED = [p for name in PAPERS for p in report.listed_runs(paths.BOOK, name)]
TABLES += [f"book/_generated/{p.parts[-3]}_{p.stem}.md" for p in LISTED]
SPEEDS = {name: report.speeds(name) for name in PAPERS}
TABLES += [f"book/_generated/{name}_speed.md" for name, files in SPEEDS.items() if files]
TABLES += ["book/_generated/datasets.md"]  # and the pieces of each set's page
CHECKED = "result/datasets/doodles/report.json"
SETS = [str(p.relative_to(paths.ROOT)) for folder, pattern in (
            (paths.BOOK / "datasets", "*.yml"), (paths.BOOK / "datasets/checks", "*.json"),
            (paths.ROOT / "data_prep", "sources.yml"), (paths.ROOT / "data_prep/class_lists", "*.yml"),
            (paths.RESULT / "datasets", "*/report.json"),
            (paths.ROOT / "benchmarks/results", "*.json")) for p in folder.glob(pattern)]
CHAPTERS = [str(p.relative_to(paths.ROOT)) for pattern in ("*.md", "*.yml", "*.bib", "*.ipynb", "*.svg", "*.css", "*.js", "_ext/*.py")
            for p in paths.BOOK.rglob(pattern)
            if not {"_build", "_generated", "runs", ".ipynb_checkpoints"} & set(p.parts)]


def executed(name):
    return f"book/{name.replace('/', '/runs/')}.ipynb"


def inputs(wildcards):
    paper, experiment = RUNS[f"{wildcards.paper}/{wildcards.name}"]
    files = [experiment.notebook, experiment.parameters_file]
    return [str((paper.folder / f).relative_to(paths.ROOT)) for f in files if f] + [
        executed(name) for name in experiment.needs]


def parameters(wildcards):
    paper, experiment = RUNS[f"{wildcards.paper}/{wildcards.name}"]
    return str(paper.parameters(experiment) | (experiment.tiny if SIZE == "tiny" else {}))


rule book:
    input:
        "_config.yml", CHAPTERS, TABLES, map(executed, RUNS),
        "book/_generated/doodles.png", "book/_generated/state.md"
    output: "book/_build/html/index.html"
    log: "book/_build/sphinx.log"
    shell: "jupyter-book build book --all --config _config.yml --path-output book -W -n --keep-going 2>&1 | tee {log}"


rule tables:
    input:
        map(executed, RUNS), "README.md", SETS, CHECKED,
        [f"replication/{name}.py" for name in (
            "report", "comparison", "dataset_pages", "check_pages", "result_pages", "metric_pages",
            "against_code", "chapter_tables", "figures", "published_cells", "cell_table",
            "own_runs")],  # what writes them
        [str(p.relative_to(paths.ROOT)) for p in [*paths.BOOK.glob("*/records/*.json"), *LISTED,
                                                  *sum(SPEEDS.values(), [])]],
        [str((p.folder / "paper.yml").relative_to(paths.ROOT)) for p in PAPERS.values()]
    output: TABLES, "book/_generated/state.md"
    shell: "python -m replication report"


rule experiment:
    input: inputs, DRAWN
    output: "book/{paper}/runs/{name}.ipynb"
    params: size=SIZE, own=parameters
    threads: workflow.cores  # one at a time: each uses every core
    shell: "python -m replication run {wildcards.paper}/{wildcards.name} --size {params.size} --force"


rule doodles:
    output: touch(DRAWN)
    params: DRAW
    threads: workflow.cores
    shell: "python -m data_prep.doodles --out " + DATA + " --seed 0 {params}"


rule check_doodles:
    input: DRAWN
    output: CHECKED
    params: {"demo": "", "tiny": "--subset"}[SIZE]
    shell: "python -m replication verify doodles --data-root " + DATA + " {params}"


rule contact_sheet:
    input: DRAWN
    output: "book/_generated/doodles.png"
    shell: "python -m data_prep.doodles --out " + DATA + " --seed 0 " + DRAW + " --sheet {output}"
