"""The sections of a page that every run has, as HTML without their headings; empty where there is nothing to tell."""

from __future__ import annotations

from html import escape

from painseq.report import tables
from painseq.report.charts import learning_curves
from painseq.report.content import Report
from painseq.report.tables import words


def scores(report: Report) -> str:
    """The headline: scores with intervals, and the baselines."""
    if not report.evaluations:
        return ""
    return (
        f"<p>On {words(report.dataset)}. Below each score is its 95 % interval over subjects; the grey rows need no "
        f"model at all.</p>{tables.headline(report.evaluations)}"
    )


def meaning(report: Report) -> str:
    """What each score says, in plain words."""
    if not report.evaluations:
        return ""
    terms = {
        "Accuracy": "The share of clips labelled right. Where one class is frequent, always naming that class already "
        "scores high: compare with the majority class.",
        "Balanced accuracy": "The mean of the classes' recalls, so that each class weighs the same. Guessing "
        "gives 1 divided by the number of classes; so does always naming one class, if the truth has all of them.",
        "Macro F1": "The mean over classes of F1, which is high only if a class is both found and not named too often.",
        "Quadratic kappa": "Agreement with the truth beyond chance, in which taking no pain for high pain weighs "
        "more than taking low pain for high pain. 0 is chance, 1 is perfect.",
        "Mean error, levels": "How many levels the label is off on average, from one class to the next. 0 is perfect.",
        "Interval": "How far the score would vary if other people of the same kind had been recorded: a person counts "
        "once, with all clips. It does not hold what training again would change. Two models whose intervals overlap "
        "may still differ; that takes a paired comparison.",
        "Clips without a face": "They get no prediction. They are left out of every score, and counted.",
        "Not a medical device": "This is research software. A face is not pain: some people show little of strong "
        "pain, and a score on a group says nothing certain of one person.",
    }
    items = "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in terms.items())
    return f'<dl class="terms">{items}</dl>'


def classes(report: Report) -> str:
    """Recall, precision and confusion of each class."""
    if not report.evaluations:
        return ""
    matrices = "".join(
        f"<div><h3>{words(model)}</h3>{tables.confusion(evaluation.scores)}</div>"
        for model, evaluation in report.evaluations.items()
    )
    return (
        "<p>Recall: the share of a class's clips that were recognised.</p>"
        f"{tables.per_class(report.evaluations)}"
        "<p>Counts of clips, and their share of the row; the darker, the larger the share. The frame marks "
        f'what is right.</p><div class="matrices">{matrices}</div>'
    )


def subjects(report: Report) -> str:
    """A dot a subject."""
    table = tables.by_subject(report.evaluations, report.predictions)
    if not table:
        return ""
    return (
        "<p>Balanced accuracy within each subject, over the classes that the subject has; a dot is a person, the "
        f"dashed line is chance.</p>{table}"
    )


def counted(report: Report) -> str:
    """What was scored, and what was not."""
    return tables.counted(report.evaluations) if report.evaluations else ""


def curves(report: Report) -> str:
    """Loss and balanced accuracy by epoch, a pair of pictures a model."""
    parts = []
    for model, history in report.histories.items():
        evaluation = report.evaluations.get(model)
        pictures = learning_curves(history, None if evaluation is None else tables.chance(evaluation))
        images = [
            f'<img alt="{escape(f"{title} of {model} over {len(history)} epochs")}" '
            f'src="data:image/svg+xml;base64,{picture}">'
            for title, picture in pictures
        ]
        if images:
            parts.append(f'<figure><h3>{words(model)}</h3><div class="curves">{"".join(images)}</div></figure>')
    return "".join(parts)


def published_title(report: Report) -> str:
    """The heading of the published figures, which says whether they are of other data."""
    same = any(row.dataset == report.dataset for row in report.published)
    return "Published results" if same else "Published results, on other data sets"


def published(report: Report) -> str:
    """What others reported."""
    if not report.published:
        return ""
    return (
        "<p>What others reported, with their protocol. Only the same data set, the same part and the same split "
        f"make two figures comparable.</p>{tables.published(report.published, report.dataset)}"
    )


def facts(report: Report) -> str:
    """Versions, seed, device, fingerprints, durations."""
    items = "".join(f"<dt>{words(key)}</dt><dd>{words(value)}</dd>" for key, value in report.facts.items())
    return f"<dl>{items}</dl>" if items else ""
