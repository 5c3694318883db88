"""Content of a report page, before it is drawn."""

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
    """An image of the run.

    Args:
        title: heading.
        caption: what it shows, and what must not be concluded from it; also the alternative text.
        png: bytes of a PNG file.
    """

    title: str
    caption: str
    png: bytes


@dataclass(frozen=True)
class Picture:
    """A drawn chart.

    Args:
        alt: alternative text that describes the chart.
        svg: bytes of an SVG file, such as from the functions of `painseq.report.charts`.
        columns: names of the numbers in the chart, for `write_figures`.
        rows: these numbers; empty if they are in the block's table.
    """

    alt: str
    svg: bytes
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[CellValue]] = ()


@dataclass(frozen=True)
class Block:
    """A section of a page: a heading, paragraphs, charts and a table. Texts are plain, not HTML.

    The word LEAKY is highlighted.

    Args:
        title: heading.
        text: paragraphs, separated by empty lines.
        columns: column headers of the table.
        rows: formatted cells of the table; the first cell of a row is its name.
        pictures: charts above the table.
    """

    title: str
    text: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    pictures: Sequence[Picture] = ()


@dataclass(frozen=True)
class Report:
    """Content of a report page. Texts are plain, not HTML.

    Args:
        title: title of the page.
        subtitle: one line below the title.
        dataset: the scored data set, e.g. "generated faces"; published results of other data sets are marked.
        notes: what this run is, and what it is not.
        evaluations: model name -> evaluation of test subjects.
        predictions: model name -> scored predictions; drawn by subject, and as curves if they have probabilities.
        histories: model name -> one row per epoch: epoch, train_loss, val_loss, val_balanced_accuracy; missing and
            infinite values are not drawn.
        figures: images, in order.
        facts: versions, seed, device, backends, fingerprints, split sizes, durations.
        warnings: warnings of the run, in addition to those of the evaluations.
        published: published results, shown separately.
        blocks: additional sections, after the scores.
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
