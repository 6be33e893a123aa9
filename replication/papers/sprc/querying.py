"""Reference picture and text to ranked pictures: examples, one's own query, submissions."""

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from replication import paths, records, training
from replication.composed import Composed
from replication.composed_metrics import TOP, TOP_GROUP, write_submissions
from replication.data import DatasetError
from replication.papers.sprc.config import Retrieve, Submit
from replication.papers.sprc.experiment import read_set, read_sets
from replication.papers.sprc.measuring import CIRR, Opened, dataset_facts
from replication.papers.sprc.retriever import Retriever, Vectors
from replication.retrieval import max_scorer
from replication.transforms import read_image

Row = tuple[np.ndarray, str, list[tuple[np.ndarray, bool | None]], str]
SIDE = 160  # pixels of a picture that is shown


@dataclass(frozen=True)
class Query:
    """A reference picture, a text, and where they are of the set: the reference's and the target's
    row of the gallery."""

    picture: Path
    text: str
    reference: int | None = None
    target: int | None = None


def shown(picture: Path) -> np.ndarray:
    """A picture (h w 3) small enough to be drawn."""
    made = read_image(picture, upright=True)
    made.thumbnail((SIDE, SIDE))
    return np.asarray(made)


def query_of(config: Retrieve, composed: Composed) -> Query:
    """What `reference` and `text` ask: the row of a query of the set, a picture of its gallery by
    name, or a picture file. Raises DatasetError."""
    given, files = str(config.reference).strip(), composed.images
    if given.isdecimal() and given not in composed.names:  # FashionIQ has names of digits
        row = int(given)
        if row >= len(composed):
            raise DatasetError(f"reference={row}: the set has queries 0 to {len(composed) - 1}")
        target = None if composed.target is None or config.text else int(composed.target[row])
        reference = int(composed.reference[row])
        return Query(files.path(reference), config.text or composed.texts[row], reference, target)
    if not config.text.strip():
        raise DatasetError(f"reference={given!r} is a picture: say in text what shall differ, as "
                           "-p text 'make it red'")
    if given in composed.names:
        reference = composed.names.index(given)
        return Query(files.path(reference), config.text, reference)
    file = paths.user_path(given)
    if not file.is_file():
        raise DatasetError(f"no picture {given!r}: reference is a number of a query, a name of the "
                           f"gallery as {composed.names[0]}, or a picture file")
    return Query(file, config.text)


def asked_otherwise(query: Query, text: str) -> Query:
    """The same reference with another text; its target is known only for its own."""
    return query if text == query.text else replace(query, text=text, target=None)


def query_vector(retriever: Retriever, query: Query) -> Tensor:
    """Its feature (1 e). Raises DatasetError for a file that is no picture."""
    rule = retriever.encoder.preprocess
    try:
        pixels = rule.resized(read_image(query.picture, upright=query.reference is None))
    except (OSError, SyntaxError, ValueError) as error:
        raise DatasetError(f"{paths.shown(query.picture)} is not a whole picture "
                           f"({str(error)[:80]})") from error
    text = retriever.wordpiece.encode([query.text])
    if text.n_cut:
        print(f"the text is longer than {retriever.wordpiece.max_tokens} tokens: its end was not "
              "read")
    retriever.model.eval()
    return retriever.queries(retriever.encoded(torch.from_numpy(pixels.copy())[None]), text)


def answers(query: Query, vector: Tensor, gallery: Tensor, composed: Composed, k: int
            ) -> list[tuple[int, float]]:
    """The best `k` gallery rows with their scores; as in the set's protocol CIRR's reference is
    out of it."""
    scores = max_scorer(vector, gallery)(slice(0, 1))[0]
    if composed.members is not None and query.reference is not None:
        scores[query.reference] = -torch.inf
    order = scores.argsort(descending=True, stable=True)[:min(k, len(scores))]
    found = [(int(row), float(scores[row])) for row in order]
    return [(row, score) for row, score in found if score > -np.inf]


def drawn_row(query: Query, found: list[tuple[int, float]], composed: Composed, caption: str = ""
              ) -> Row:
    """A row for `plots.composed`."""
    target = query.target
    return (shown(query.picture), query.text,
            [(shown(composed.images.path(row)), None if target is None else row == target)
             for row, _ in found], caption)


def examples(composed: Composed, vectors: Vectors, n: int = 5, k: int = 7, seed: int = 0
             ) -> list[Row]:
    """Queries with what they find, for `plots.composed`: drawn with `seed`, not chosen."""
    chosen = np.random.default_rng(seed).permutation(len(composed))[:n]
    known, rows = composed.target is not None, []
    ranks = vectors.ranks(composed).gallery if known else None
    for row in sorted(chosen.tolist()):
        reference = int(composed.reference[row])
        query = Query(composed.images.path(reference), composed.texts[row], reference,
                      int(composed.target[row]) if known else None)
        found = answers(query, vectors.query[row][None], vectors.gallery, composed, k)
        rows.append(drawn_row(query, found, composed,
                              f"target at {int(ranks[row])}" if known else ""))
    return rows


def opened_set(config: Retrieve) -> Composed:
    """The set that is searched, of FashionIQ one type's."""
    return read_set(config, config.split, config.dress_type if config.fashion else "",
                    config.gallery)


# ------------------------------------------------------------------------------- CIRR's server


def submit(config: Submit, retriever: Retriever, progress: bool = True
           ) -> tuple[Composed, Vectors, dict[str, Path]]:
    """Writes both files that CIRR's server takes into `save_root`; raises ValueError as
    `write_submissions`."""
    composed = read_sets(config, config.split)["cirr"]
    vectors = retriever.vectors(composed, progress)
    return composed, vectors, write_submissions(config.save_root, vectors.scores, composed,
                                                chunk=config.chunk)


def server_record(config: Submit, composed: Composed, files: dict[str, Path],
                  checkpoint: Opened, started: str) -> records.RunRecord:
    """The record of what the server answered, written as `record.json`: its recalls, their Avg, and
    the hashes of the files that were sent."""
    numbers = dict(zip([f"R@{k}" for k in TOP], config.server_recall, strict=True))
    numbers |= dict(zip([f"Rsub@{k}" for k in TOP_GROUP], config.server_recall_subset, strict=True))
    numbers["Avg"] = (numbers["R@5"] + numbers["Rsub@1"]) / 2
    notes = [f"as CIRR's server answered for {file.name}, SHA-256 "
             f"{hashlib.sha256(file.read_bytes()).hexdigest()}" for file in files.values()]
    made = records.RunRecord(
        paper="sprc", experiment="cirr-test", parameters=asdict(config), seed=config.seed,
        dataset=dataset_facts({"cirr": composed}), protocol=composed.protocol, notes=notes,
        metrics=[records.Metric(metric=name, convention=CIRR, value=value, variant="trained",
                                selection=checkpoint.selection)
                 for name, value in numbers.items()], weights=checkpoint.weights,
        environment=records.environment(
            device=training.device_name(checkpoint.retriever.fabric.device)),
        started=started, finished=records.utc_now())
    records.write_record(made, paths.user_path(config.save_root) / "record.json")
    return made
