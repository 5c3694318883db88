"""What a page tells of a run, before it is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from painseq.evaluation.predictions import Predictions
from painseq.evaluation.published import Published
from painseq.evaluation.score import Evaluation

Row = Mapping[str, float]
CellValue = str | float | None


@dataclass(frozen=True)
class Figure:
    """A picture of the run.

    Args:
        title: its heading.
        caption: what is seen, and what is not to be concluded from it; the text for those who cannot see it too.
        png: the bytes of a PNG file.
    """

    title: str
    caption: str
    png: bytes


@dataclass(frozen=True)
class Picture:
    """A drawn chart.

    Args:
        alt: what it shows, in words, for those who cannot see it.
        svg: the bytes of an SVG file, as the functions of `painseq.report.charts` give them.
        columns: names of the numbers that it is drawn from, for `write_figures`.
        rows: these numbers; empty where they stand in the block's own table.
    """

    alt: str
    svg: bytes
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[CellValue]] = ()


@dataclass(frozen=True)
class Block:
    """A section of a page: a heading, paragraphs, pictures, and a table; the texts are plain, not HTML.

    A text that holds the word LEAKY is marked as such.

    Args:
        title: its heading.
        text: paragraphs, parted by empty lines.
        columns: heads of the table's columns.
        rows: its cells, as they are to be read; the first of a row names it.
        pictures: above the table.
    """

    title: str
    text: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    pictures: Sequence[Picture] = ()


@dataclass(frozen=True)
class Report:
    """What a page tells of a run; the texts are plain, not HTML.

    Args:
        title: of the page.
        subtitle: one line below it.
        dataset: what was scored, e.g. "generated faces"; published rows of any other are marked so.
        notes: what this run is, and what it is not.
        evaluations: by the model's name, of test subjects.
        predictions: by the model's name, those that were scored; drawn by subject, and as curves where they hold
            probabilities.
        histories: by the model's name, a row an epoch: epoch, train_loss, val_loss, val_balanced_accuracy;
            values that are missing or not finite are not drawn.
        figures: pictures, in order.
        facts: versions, seed, device, backends, fingerprints, split sizes, durations.
        warnings: of the run, beside those of the evaluations.
        published: figures of others, shown apart.
        blocks: sections of a command's own, after the scores.
    """

    title: str
    subtitle: str
    dataset: str
    notes: Sequence[str] = ()
    evaluations: Mapping[str, Evaluation] = field(default_factory=dict)
    predictions: Mapping[str, Predictions] = field(default_factory=dict)
    histories: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    figures: Sequence[Figure] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    published: Sequence[Published] = ()
    blocks: Sequence[Block] = ()
