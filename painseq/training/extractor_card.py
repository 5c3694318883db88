"""The card of a trained extractor: how it was made, stored with its weights and written as a page."""

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
    "For research only: this network turns face crops into features for pain recognition. It is not a medical device; "
    "do not base treatment decisions on it. It was trained on the subjects and the kind of pain below, and results may "
    "not hold for others. Use crops made as described below, and do not evaluate it, or a model built on it, on "
    "subjects that it was trained on."
)
SETTINGS = ("optimizer", "scheduler", "extractor_lr", "loss", "class_weights", "label_smoothing", "start_from")


def extractor_card(
    model: PainClassifier,
    data: PainDataModule,
    run: Mapping[str, object],
    settings: Mapping[str, object],
    history: Sequence[Mapping[str, float]],
) -> Spec:
    """Return the card of the model's extractor, in plain values.

    Args:
        model: its extractor holds the final weights, and still names the weights that these started from.
        data: the data that it was trained on.
        run: entries of `run.json`: versions, seed, precision, epochs.
        settings: the `model` part of the configuration.
        history: metrics of each epoch.
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
        "unknown_people": list(model.record.unknown_people),
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
    """Return the card as a page of Markdown."""
    data, network, started = _table(card["data"]), _table(card["network"]), _table(card["started_from"])
    split, face = _table(data["split"]), _table(card["face"] or {})
    window, sampling = _table(card["frames"] or {}), _table(card["sampling"])
    counts = ", ".join(f"{name} {count}" for name, count in _table(card["training_items"]).items())
    # Arguments that do not change the features, such as the source of the weights, have separate rows.
    shown = {key: value for key, value in _table(network["init_args"]).items() if key not in NOT_IDENTITY}
    rows: dict[str, str] = {
        "network": f"{_call({**network, 'init_args': shown})}, fingerprint {network['fingerprint']}",
        "trained blocks": ", ".join(_names(card["trained_blocks"])),
        "started from": str(started["weights"]),
        "data": f"{data['name']}, fingerprint {data['fingerprint']}"
        + (", GENERATED faces, no real people" if data["generated"] else ""),
        "classes": f"{', '.join(_names(data['class_names']))} (label scheme {data['labels']})",
        "trained on": ("single frames" if window else "clips") + f": {counts}",
        "part of a clip": f"{window['from_s']} s to {window['to_s']} s" if window else "the whole clip",
        "frames per second": str(sampling["fps"] or "all"),
        "crops": _call(face) if face else "not recorded",
        "balance": "classes, and subjects within a class, equally often" if card["balance"] else "none",
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
        rows = {"CONTROL": "SHUFFLED LABELS: this network did not learn pain", **rows}
    lines = ["# A trained extractor", "", USE, "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value.replace('|', '/')} |" for name, value in rows.items()]
    lines += ["", "## Subjects", "", f"Split {split['protocol']}, by subject."]
    lines += ["", f"Training: {_listed(split['train'])}", "", f"Validation: {_listed(split['validation'])}"]
    lines += ["", f"Test (held out): {_listed(split['test'])}"]
    if started["trained_on"]:
        lines += ["", f"Training of the weights that it started from: {_listed(started['trained_on'])}"]
    if card["unknown_people"]:
        lines += ["", f"Training subjects unknown: {', '.join(_names(card['unknown_people']))}."]
    return "\n".join(lines) + "\n"


def _table(value: object) -> Mapping[str, object]:
    assert isinstance(value, Mapping)
    return value


def _names(value: object) -> list[str]:
    assert isinstance(value, list)
    return [str(name) for name in value]


def _listed(value: object) -> str:
    names = _names(value)
    return f"{len(names)} ({', '.join(names)})." if names else "none."


def _call(spec: Mapping[str, object]) -> str:
    """Format a specification as a call: `Adam(lr=0.001)`."""
    args = ", ".join(f"{key}={_value(value)}" for key, value in _table(spec.get("init_args") or {}).items())
    return f"{str(spec['class_path']).rpartition('.')[2]}({args})"


def _value(value: object) -> str:
    return _call(value) if isinstance(value, Mapping) and "class_path" in value else repr(value)


def _score(validation: object, items: str) -> str:
    if validation is None:
        return "not chosen: no validation subjects"
    metrics = _table(validation)
    titles = {"val_loss": "validation loss", "val_balanced_accuracy": "balanced accuracy", "val_mse": "squared error"}
    text = ", ".join(f"{titles[key]} {metrics[key]:.3f}" for key in titles if key in metrics)
    return f"number {int(str(metrics['epoch']).partition('.')[0]) + 1}, {text}, on {items}"
