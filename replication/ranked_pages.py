"""Pictures of the chapters: architectures for dark pages, and what the runs' queries found.

Never imports torch.
"""

import base64
import html
import json
import re
from pathlib import Path

from replication import figures, paths
from replication.comparison import run_link
from replication.datasets import proper_name
from replication.published import Paper
from replication.records import RunRecord

PICTURE = re.compile(r'<img[^>]* alt="([^"]*)" src="data:image/jpeg;base64,([^"]+)"')


def write(book: Path, papers: dict[str, Paper], records: dict[str, list[RunRecord]]) -> list[Path]:
    """`<paper>_architecture-dark.svg` and `<paper>_ranked.md` with its pictures, a paper."""
    generated, files = book / "_generated", []
    for name, paper in papers.items():
        drawing = paper.folder / "architecture.svg"
        if drawing.is_file():
            files.append(paths.write_atomic(generated / f"{name}_architecture-dark.svg",
                                            figures.dark_twin(drawing.read_text()).encode()))
        files += ranked(generated, name, records.get(name, []))
    return files


def ranked(generated: Path, name: str, records: list[RunRecord]) -> list[Path]:
    """One picture a data set: the first ranked results that a run's notebook shows."""
    files, parts, seen = [], [], set()
    for record in sorted(records, key=lambda r: (r.dataset.kind, r.started)):
        found = first_ranked(record)
        if record.dataset.name in seen or not found:
            continue
        seen.add(record.dataset.name)
        alt, picture = found
        file = f"{name}_ranked-{record.path.stem}.jpg"
        files.append(paths.write_atomic(generated / file, picture))
        parts.append(figures.figure(figures.image(file, alt), caption(record)))
    text = "\n".join(parts) or "No run shows ranked results yet.\n"
    return [*files, paths.write_atomic(generated / f"{name}_ranked.md", text.encode())]


def caption(record: RunRecord) -> str:
    """What the picture is of, and the run that made it."""
    name = proper_name(record.dataset.name)
    kind = {"demo": "the built-in doodles", "subset": f"a sample of {name}"}.get(
        record.dataset.kind, name)
    return (f"On {kind}: queries drawn, not chosen, and what the model found first, best from the "
            f"left. A tick and a green frame are right, a cross and an orange one wrong. "
            f"Run: {run_link(record)}.")


def first_ranked(record: RunRecord) -> tuple[str, bytes] | None:
    """Alt text and JPEG of the first ranked results in a run's notebook, None where there are
    none."""
    notebook = record.path.with_suffix(".ipynb") if record.path else None
    if not notebook or not notebook.is_file():
        return None
    return next((found for found in pictures(notebook) if found[0].startswith("Queries")), None)


def pictures(notebook: Path) -> list[tuple[str, bytes]]:
    """Alt text and bytes of every JPEG that an executed notebook shows, in order."""
    cells = json.loads(notebook.read_text())["cells"]
    shown = ("".join(output.get("data", {}).get("text/html", ""))
             for cell in cells for output in cell.get("outputs", []))
    return [(html.unescape(alt), base64.b64decode(code))
            for text in shown for alt, code in PICTURE.findall(text)]
