"""The card of a trained extractor: what it was made of, kept with its weights, and as a page to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from painseq.data.datamodule import PainDataModule
from painseq.extractors import Extractor
from painseq.extractors.extractor import NOT_IDENTITY
from painseq.spec import Spec, spec_of
from painseq.training.classifier import PainClassifier
from painseq.video.generated import is_generated

USE = (
    "For research: it turns face crops into features for recognising pain. It is no medical device: do not decide "
    "about anybody's treatment by it. It knows the people and the kind of pain below; nothing follows for others. "
    "Give it crops made as below, and score neither it nor anything built on it on those whom it has seen."
)
SETTINGS = ("optimizer", "scheduler", "extractor_lr", "loss", "class_weights", "label_smoothing", "start_from")


def extractor_card(
    model: PainClassifier,
    data: PainDataModule,
    run: Mapping[str, object],
    settings: Mapping[str, object],
    history: Sequence[Mapping[str, float]],
) -> Spec:
    """What the model's extractor was made of, in plain values.

    Args:
        model: its extractor holds the weights that are kept, and still tells what these started from.
        run: what `run.json` tells: versions, seed, precision, epochs.
        settings: the model's part of the configuration.
        history: figures of each epoch.
    """
    extractor, options = model.extractor, data.options
    assert isinstance(extractor, Extractor)
    scored = [row for row in history if "val_loss" in row]
    best = min(scored, key=lambda row: row["val_loss"]) if scored and run["refit"] is None else None
    return {
        "use": USE,
        "network": extractor.record(),
        "trained_blocks": list(extractor.trainable),
        "started_from": {
            "weights": extractor.loaded,
            "trained_on": list(extractor.trained_on),
            "card": extractor.card,
        },
        "data": {
            **model.record.data.to_dict(),
            "generated": is_generated(data.root),
            "class_names": list(data.scheme.groups),
        },
        "face": model.record.face,
        "sampling": model.record.sampling,
        "frames": None if options.frames is None else asdict(options.frames),
        "training_items": data.train_item_counts(),
        "balance": options.balance,
        "augment": None if options.augment is None else spec_of(options.augment),
        "batch_size": options.batch_size,
        **{key: settings.get(key) for key in SETTINGS},
        **{key: run[key] for key in ("epochs", "refit", "precision", "seed", "versions")},
        "validation": None if best is None else {key: value for key, value in best.items() if key != "train_loss"},
    }


def card_page(card: Spec) -> str:
    """The card as a page of Markdown."""
    data, network, started = _table(card["data"]), _table(card["network"]), _table(card["started_from"])
    split, face = _table(data["split"]), _table(card["face"] or {})
    window, sampling = _table(card["frames"] or {}), _table(card["sampling"])
    counts = ", ".join(f"{name} {count}" for name, count in _table(card["training_items"]).items())
    # Where weights come from and what trains have rows of their own.
    computed = {key: value for key, value in _table(network["init_args"]).items() if key not in NOT_IDENTITY}
    rows: dict[str, str] = {
        "network": f"{_call({**network, 'init_args': computed})}, fingerprint {network['fingerprint']}",
        "trained blocks": ", ".join(_names(card["trained_blocks"])),
        "started from": str(started["weights"]),
        "data": f"{data['name']}, fingerprint {data['fingerprint']}"
        + (", GENERATED faces, no people" if data["generated"] else ""),
        "classes": f"{', '.join(_names(data['class_names']))} (label scheme {data['labels']})",
        "trained on": ("single frames" if window else "clips") + f": {counts}",
        "part of a clip": f"{window['from_s']} s to {window['to_s']} s" if window else "all of it",
        "frames a second": str(sampling["fps"] or "all"),
        "crops": _call(face) if face else "not recorded",
        "balance": "classes, and subjects within a class, equally often" if card["balance"] else "as they come",
        "augmentation": _call(_table(card["augment"])) if card["augment"] else "none",
        "batch size": str(card["batch_size"]),
        "optimizer": _call(_table(card["optimizer"])) if card["optimizer"] else "the default",
        "class weights": str(card["class_weights"]),
        "epochs": f"{card['epochs']}" + ("" if card["refit"] is None else ", fixed in number (--refit)"),
        "best epoch": _score(card["validation"], "single frames" if window else "clips"),
        "precision, seed": f"{card['precision']}, {card['seed']}",
        "versions": ", ".join(f"{name} {version}" for name, version in _table(card["versions"]).items()),
    }
    if data["shuffled_labels"] is not None:
        rows = {"CONTROL": "SHUFFLED LABELS: what this network learned is not pain", **rows}
    lines = ["# A trained extractor", "", USE, "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value.replace('|', '/')} |" for name, value in rows.items()]
    lines += ["", "## Whom it has seen", "", f"Split {split['protocol']}, by subject."]
    lines += ["", f"Trained on: {_listed(split['train'])}", "", f"Stopped early on: {_listed(split['validation'])}"]
    lines += ["", f"Held out: {_listed(split['test'])}"]
    if started["trained_on"]:
        lines += ["", f"Seen by the weights that it started from: {_listed(started['trained_on'])}"]
    return "\n".join(lines) + "\n"


def _table(value: object) -> Mapping[str, object]:
    assert isinstance(value, Mapping)
    return value


def _names(value: object) -> list[str]:
    assert isinstance(value, list)
    return [str(name) for name in value]


def _listed(value: object) -> str:
    names = _names(value)
    return f"{len(names)} ({', '.join(names)})." if names else "nobody."


def _call(spec: Mapping[str, object]) -> str:
    """A specification as one would write the call: `Adam(lr=0.001)`."""
    args = ", ".join(f"{key}={_value(value)}" for key, value in _table(spec.get("init_args") or {}).items())
    return f"{str(spec['class_path']).rpartition('.')[2]}({args})"


def _value(value: object) -> str:
    return _call(value) if isinstance(value, Mapping) and "class_path" in value else repr(value)


def _score(validation: object, items: str) -> str:
    if validation is None:
        return "not chosen: no validation subjects"
    figures = _table(validation)
    named = {"val_loss": "validation loss", "val_balanced_accuracy": "balanced accuracy", "val_mse": "squared error"}
    text = ", ".join(f"{named[key]} {figures[key]:.3f}" for key in named if key in figures)
    return f"number {int(str(figures['epoch']).partition('.')[0]) + 1}, {text}, on {items}"
