"""The same run over several seeds, beside what it must beat: is it learning, or luck?"""

import pandas as pd

from replication import paths, records, switches
from replication.papers.sprc.config import Config
from replication.papers.sprc.experiment import prepare, train
from replication.papers.sprc.measuring import encoded, measure, record
from replication.progress import bar


def run_seeds(given: dict, n_seeds: int) -> pd.DataFrame:
    """Trains with each of seeds 42, 43, ... and measures every ranking; a record a run, and
    `runs.csv` in save_root with a line a ranking and seed.

    Rows: rankings, the trained one of the config's selection first. Columns: mean and spread over
    seeds, in percent, of the set's main number (CIRR: mean of R@5 and Rsub@1, FashionIQ: mean of
    R@10 and R@50 over the types), the seeds' values, and in how many seeds it lies below the first
    row.
    """
    rows, name = [], "average Avg" if Config(**given).fashion else "Avg"
    values: dict[str, list[float]] = {}
    for seed in bar(range(42, 42 + n_seeds), label="seeds", unit="run"):
        config = Config(**{**given, "seed": seed, "save_root": f"{given['save_root']}/{seed}"})
        started, e = records.utc_now(), prepare(config)
        start = encoded(e.retriever, e.val)
        run = train(e, progress=False)
        made = record(e, run, measure(e, run, start), started, 0.0)
        for variant, selection in dict.fromkeys((m.variant, m.selection) for m in made.metrics):
            own = [m.model_copy(update={"variant": ""}) for m in made.metrics
                   if (m.variant, m.selection) == (variant, selection)]
            label = f"{variant} ({selection})" if selection else variant
            rows.append(switches.row(label, made.model_copy(update={"metrics": own})))
            values.setdefault(label, []).extend(m.value for m in own if m.metric == name)
    listed = pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")
    paths.write_atomic(paths.user_path(given["save_root"]) / switches.RUNS, listed)
    first = next(iter(values.values()))
    table = pd.DataFrame({label: {
        "mean": pd.Series(v).mean(), "spread": pd.Series(v).std(ddof=1),
        "below the first": sum(own < best for own, best in zip(v, first, strict=True))}
        for label, v in values.items()}).T.round(1)
    table["value by seed"] = [", ".join(f"{v:.1f}" for v in values[label]) for label in table.index]
    return table.astype({"below the first": int}).rename_axis("ranking")
