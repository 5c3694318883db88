"""The tables of benchmarks/explanations.py, from what was measured on each seed."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from painseq.explain.subject_means import SubjectMean, subject_mean

NO_MODEL, FACE = "no model", "the face, evenly"


def tables(seeds: Sequence[dict[str, Any]]) -> str:
    tested = " / ".join(str(len({row["subject"] for row in seed["maps"]})) for seed in seeds)
    minutes = ", ".join(
        f"{seed['minutes']['all']:.0f} ({seed['minutes']['training']:.0f} of training)" for seed in seeds
    )
    changes = [key for key in seeds[0]["hidden"][0] if key not in ("model", "subject", "clip")]
    parts = [
        f"One thread. Minutes of processor time: {minutes}. "
        f"Seeds {', '.join(str(seed['seed']) for seed in seeds)}: cells give one after the other. One clip of high "
        f"pain of each of {tested} test subjects.",
        "What the models can do, and whether they use the regions: balanced accuracy on all test clips, and the mean "
        "probability of high pain in the explained clips as they are and changed. Covered is by the clip's mean "
        "colour; undrawn is what pain adds to the picture.",
        table(
            f"| model | balanced accuracy | {' | '.join(changes)} |",
            [
                [model, accuracy(seeds, model)]
                + [each([mean(seed, "hidden", change, model=model) for seed in seeds]) for change in changes]
                for model in seeds[0]["accuracy"]
            ],
        ),
    ]
    parts.append(
        "In frames with pain: share of a map's mass that lies in the truth, and share of the area, which is also the "
        "chance of pointing; the difference with its 95 % interval over subjects; in how many seeds that interval lies "
        "above 0; in how many it does for the difference to the mass of a map that is even over the face and empty "
        "beside it; the difference to the area where mass is summed over the clip; the pointing game; the share of "
        "these frames whose map is empty."
    )
    names = {"regions": "boxes of the regions that pain moves", "pixels": "pixels that pain changes"}
    for truth, name in names.items():
        rows = []
        for model, method in in_order(seeds[0]["maps"]):

            def of(key: str, minus: str | None = None, **chosen: str) -> list[SubjectMean]:
                return [mean(seed, "maps", key, minus, **chosen) for seed in seeds]

            chosen = {"model": model, "method": method, "truth": truth}
            above_area = of("mass", "area", **chosen)
            rows.append(
                [
                    model,
                    method,
                    each(of("mass", **chosen)),
                    each(of("area", **chosen)),
                    spans(above_area),
                    verdict(above_area),
                    "" if method == FACE else verdict(of("mass", "face", **chosen)),
                    each(of("summed mass", "summed area", **chosen), "+.2f"),
                    each(of("pointing", **chosen)),
                    each(of("empty share", **chosen)),
                ]
            )
        head = "mass | area | mass - area | above the area | above the face | summed | pointing | empty"
        parts += [f"Truth: the {name}.", table(f"| model | method | {head} |", rows)]
    rows = [
        [model, method]
        + [
            each([mean(seed, "times", key, model=model, method=method) for seed in seeds])
            for key in ("relevance", "frames")
        ]
        + [spans([mean(seed, "times", "relevance", "frames", model=model, method=method) for seed in seeds])]
        for model, method in in_order(seeds[0]["times"])
    ]
    parts += [
        "Over time, on features (ViViT: on pixels): share of the positive relevance that falls on frames that show "
        "pain, share of such frames, and the difference with its 95 % interval over subjects.",
        table("| model | method | relevance | frames | difference |", rows),
    ]
    return "\n\n".join(parts)


def summary(seeds: Sequence[dict[str, Any]]) -> str:
    """Mass minus area against the regions, a row for each model."""
    pairs = in_order(seeds[0]["maps"])
    methods = ["gradcam, default layer", "rollout", "integrated_gradients", "gradient_x_input", "saliency", "occlusion"]

    def cell(model: str, method: str) -> str:
        if method == methods[0]:
            method = next((name for _, name in pairs if name.endswith("default)")), method)
        if (model, method) not in pairs:
            return ""
        found = [
            mean(seed, "maps", "mass", "area", model=model, method=method, truth="regions").value for seed in seeds
        ]
        known = [value for value in found if value is not None]
        return f"{np.mean(known):+.2f} ({min(known):+.2f} to {max(known):+.2f})" if known else "-"

    models = [model for model in dict.fromkeys(model for model, _ in pairs) if model != NO_MODEL]
    nothing = [f"{method}: {cell(NO_MODEL, method)}" for model, method in pairs if model == NO_MODEL]
    return "\n\n".join(
        [
            table(
                f"| model | balanced accuracy | {' | '.join(methods)} |",
                [[m, accuracy(seeds, m), *(cell(m, method) for method in methods)] for m in models],
            ),
            f"Maps that no model made: {'; '.join(nothing)}.",
        ]
    )


def accuracy(seeds: Sequence[dict[str, Any]], model: str) -> str:
    return " / ".join(f"{seed['accuracy'][model]:.2f}" for seed in seeds)


def table(head: str, rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + "---|" * (head.count("|") - 1), *lines])


def in_order(rows: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Models and their methods as they first came, model by model; what no model made first."""
    found = dict.fromkeys((row["model"], row["method"]) for row in rows)
    models = [NO_MODEL, *dict.fromkeys(model for model, _ in found)]
    return sorted(found, key=lambda pair: models.index(pair[0]))


def beside_the_face(seed: dict[str, Any]) -> dict[str, Any]:
    """With the mass of the map that is even over the face, in every other map's row."""
    face = {(row["clip"], row["truth"]): row.get("mass") for row in seed["maps"] if row["method"] == FACE}
    return {**seed, "maps": [{**row, "face": face[row["clip"], row["truth"]]} for row in seed["maps"]]}


def mean(seed: dict[str, Any], kind: str, key: str, minus: str | None = None, **chosen: str) -> SubjectMean:
    rows = [row for row in seed[kind] if all(row[name] == value for name, value in chosen.items())]
    values = np.array([row.get(key) for row in rows], np.float64)
    if minus is not None:
        values -= np.array([row.get(minus) for row in rows], np.float64)
    return subject_mean(values, [row["subject"] for row in rows], (-1, 1))


def each(means: Sequence[SubjectMean], form: str = ".2f") -> str:
    return " / ".join("-" if m.value is None else f"{m.value:{form}}" for m in means)


def spans(means: Sequence[SubjectMean]) -> str:
    def span(m: SubjectMean) -> str:
        if m.value is None or m.interval.low is None or m.interval.high is None:
            return each([m], "+.2f")
        return f"{m.value:+.2f} ({m.interval.low:+.2f} to {m.interval.high:+.2f})"

    return "; ".join(span(m) for m in means)


def verdict(means: Sequence[SubjectMean]) -> str:
    """In how many seeds the whole interval lies above 0, and below."""
    above = sum(m.interval.low is not None and m.interval.low > 0 for m in means)
    below = sum(m.interval.high is not None and m.interval.high < 0 for m in means)
    return f"{above} of {len(means)}" + (f", below in {below}" if below else "")
