"""The table of what runs took: from records, as they are."""

from replication import running_pages
from replication.records import Cost, Dataset, Environment, Metric, RunRecord


def record(experiment="demo", kind="demo", device="cpu", cores=2, **cost):
    return RunRecord(
        paper="acnet", experiment=experiment, parameters={}, seed=1, protocol="zero-shot",
        dataset=Dataset(name="doodles", split="38/14", n_query=1, n_gallery=1, n_gallery_unique=1,
                        manifest="m", kind=kind),
        metrics=[Metric(metric="mAP@all", convention="trec", value=50.0)],
        environment=Environment(python="3.11", device=device, cpu_count=cores), cost=Cost(**cost),
        started="2024-05-01T12:00:00Z", finished="2024-05-01T12:01:00Z")


def test_a_line_holds_the_records_numbers():
    text = running_pages.costs_markdown([record(
        seconds_train=51.2, seconds_evaluate=150.0, items_per_second=1234.4,
        peak_memory_bytes=1_340_000_000)])
    assert "| `acnet/demo` | doodles 38/14 (demo) | 51 s | 1,234 | 2.5 min | 1.3 GB |" in text


def test_what_was_not_measured_is_a_dash():
    assert "(demo) | – | – | – | – |" in running_pages.costs_markdown([record()])


def test_demos_come_first_and_the_machine_is_a_column_where_there_are_several():
    text = running_pages.costs_markdown([record("full", "full", "NVIDIA X"), record("demo")])
    lines = text.splitlines()
    assert lines[0].split(" | ")[2] == "machine"
    assert "demo" in lines[2] and "| 2 CPU cores |" in lines[2] and "| NVIDIA X |" in lines[3]
    assert text.endswith("Made on 2 CPU cores, NVIDIA X.\n")


def test_without_a_gpu_it_says_so_and_names_the_machine_once():
    text = running_pages.costs_markdown([record("a"), record("b")])
    assert "machine" not in text and text.count("CPU cores") == 1
    assert text.endswith("Made on 2 CPU cores. Times on a GPU are not measured.\n")


def test_no_record_no_table(tmp_path):
    [file] = running_pages.write(tmp_path, {}, {"acnet": []})
    assert file.read_text() == "No run yet.\n" and file.name == "running_costs.md"
