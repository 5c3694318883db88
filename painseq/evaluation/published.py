"""Published results with their protocol.

A row is `verified` if the figure was read in the paper that `source` names first; the others are second hand. Compare
data set, part and protocol before comparing any figure with your own score.

If the number of scored clips of each class is known, a row also has the accuracy of always predicting the most frequent
class, computed from these numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

AI4PAIN = "AI4Pain 2024"
BIOVID = "BioVid"
MINTPAIN = "MIntPAIN"


@dataclass(frozen=True)
class Published:
    """One published figure.

    Args:
        name: name of the entry, as its authors or the challenge use it.
        dataset: the data set that it was measured on.
        modality: "video", "fNIRS", ...
        part: the scored part of the data set, "validation" or "test", or "" if the split has no such parts.
        metric: "accuracy", "F1", "AUC", ...
        value: the figure, as printed.
        protocol: how the data was split and which classes were used, as far as known.
        verified: whether the figure was read in the paper itself.
        source: where the figure was read.
    """

    name: str
    dataset: str
    modality: str
    part: str
    metric: str
    value: float
    protocol: str
    verified: bool
    source: str

    @property
    def clips(self) -> Mapping[str, int]:
        """Class -> number of scored clips, or numbers in that ratio; empty if not known."""
        return SCORED_CLIPS.get((self.dataset, self.part, self.protocol), {})

    @property
    def majority_accuracy(self) -> float | None:
        """Accuracy of always predicting the most frequent class; None if the numbers of clips are not known."""
        return max(self.clips.values()) / sum(self.clips.values()) if self.clips else None

    @property
    def constant_balanced_accuracy(self) -> float | None:
        """Balanced accuracy of always predicting the same class; None if the numbers of clips are not known."""
        return 1 / len(self.clips) if self.clips else None

    @property
    def against_majority(self) -> str:
        """ "below the majority class (0.48)", "above ..." or "no better than ...", compared as printed.

        "" for other metrics than accuracy, and if the numbers of clips are not known.
        """
        majority = self.majority_accuracy
        if majority is None or self.metric != "accuracy":
            return ""
        places = max(2, len(f"{self.value:g}".partition(".")[2]))
        printed = round(majority, places)
        if self.value == printed:
            return f"no better than the majority class ({majority:.2f})"
        return f"{'below' if self.value < printed else 'above'} the majority class ({majority:.2f})"

    @property
    def standing(self) -> str:
        """ "read in the paper" or "second hand"."""
        return "read in the paper" if self.verified else "second hand"


_AI4PAIN = "three classes, predefined parts by subject"
_PRAJOD = "Prajod et al. 2024, tables I and II"
_GHAISH = "El-Ghaish et al. 2025"
_VERMA = "Verma et al. 2026"
_FRAMES = "five levels, 100,000 frames, stratified 5-fold over frames: frames of one clip on both sides"
_HEAT = "images, no pain against high pain, split not stated there"
_IMAGES = "random split of images with one rater's labels; 133 scored (54 with the CNN alone)"
_LEVELS = "five levels, leave one subject out (standard deviation 0.104)"

AI4PAIN_VALIDATION: Mapping[str, int] = {"no pain": 12 * 1, "low pain": 12 * 12, "high pain": 12 * 12}
"""Clips of AI4Pain's validation part: 12 people with one no-pain recording, 12 low and 12 high pain clips each."""

SCORED_CLIPS: Mapping[tuple[str, str, str], Mapping[str, int]] = {
    (AI4PAIN, "validation", _AI4PAIN): AI4PAIN_VALIDATION,
    # 87 people with 20 clips of each class; all clips are as long, so frames have the same shares.
    (BIOVID, "", _FRAMES): dict.fromkeys(("BL1", "PA1", "PA2", "PA3", "PA4"), 87 * 20),
    # Each sweep holds one stretch without pain and one stimulus, of any of four levels.
    (MINTPAIN, "", _LEVELS): {"level 0": 4, "level 1": 1, "level 2": 1, "level 3": 1, "level 4": 1},
}
"""(data set, part, protocol) -> class -> scored clips, or numbers in that ratio; missing entries are not known."""

PUBLISHED: tuple[Published, ...] = (
    Published("organisers' baseline", AI4PAIN, "video", "validation", "accuracy", 0.40, _AI4PAIN, True, _PRAJOD),
    Published("organisers' baseline", AI4PAIN, "video", "test", "accuracy", 0.40, _AI4PAIN, True, _PRAJOD),
    Published("organisers' baseline", AI4PAIN, "fNIRS", "validation", "accuracy", 0.43, _AI4PAIN, True, _PRAJOD),
    Published("organisers' baseline", AI4PAIN, "fNIRS", "test", "accuracy", 0.43, _AI4PAIN, True, _PRAJOD),
    Published(
        "organisers' baseline", AI4PAIN, "video + fNIRS", "validation", "accuracy", 0.40, _AI4PAIN, True, _PRAJOD
    ),
    Published("organisers' baseline", AI4PAIN, "video + fNIRS", "test", "accuracy", 0.42, _AI4PAIN, True, _PRAJOD),
    Published("ANN + vote", AI4PAIN, "video", "validation", "accuracy", 0.59, _AI4PAIN, True, _PRAJOD),
    Published("ANN + vote", AI4PAIN, "video", "test", "accuracy", 0.49, _AI4PAIN, True, _PRAJOD),
    Published("LSTM", AI4PAIN, "video", "validation", "accuracy", 0.60, _AI4PAIN, True, _PRAJOD),
    Published("LSTM", AI4PAIN, "video", "test", "accuracy", 0.43, _AI4PAIN, True, _PRAJOD),
    Published(
        "ViViT (Bargshady et al. 2024)",
        AI4PAIN,
        "video",
        "validation",
        "accuracy",
        0.669,
        "three classes, 51 subjects, protocol as a review reports it",
        False,
        "a review",
    ),
    Published(
        "masked autoencoder (Nguyen et al. 2024)", AI4PAIN, "video", "test", "accuracy", 0.55, _AI4PAIN, False, _GHAISH
    ),
    Published(
        "Twins-PainViT (Gkikas)",
        AI4PAIN,
        "video + fNIRS",
        "validation",
        "accuracy",
        0.4676,
        _AI4PAIN,
        False,
        "second hand",
    ),
    Published("MMAPA", AI4PAIN, "video + fNIRS", "test", "accuracy", 0.5133, _AI4PAIN, False, "second hand"),
    Published(
        "heat-pain VGG16 (Prajod et al. 2022)",
        BIOVID,
        "video",
        "",
        "accuracy",
        0.70,
        _HEAT,
        True,
        "quoted in Prajod et al. 2024",
    ),
    Published(
        "heat-pain VGG16 (Prajod et al. 2022)",
        BIOVID,
        "video",
        "",
        "F1",
        0.69,
        _HEAT,
        True,
        "quoted in Prajod et al. 2024",
    ),
    Published(
        "ViViT (Bargshady et al. 2024)",
        BIOVID,
        "video",
        "",
        "accuracy",
        0.799,
        "87 subjects, protocol as a review reports it",
        False,
        "a review",
    ),
    Published("VGG, landmarks and Bi-LSTM", BIOVID, "video", "", "accuracy", 0.991, _FRAMES, True, _GHAISH),
    Published("VGG, landmarks and Bi-LSTM", BIOVID, "video", "", "AUC", 0.99, _FRAMES, True, _GHAISH),
    Published("AU only", "UNBC-McMaster", "image", "", "accuracy", 0.87, _IMAGES, True, _VERMA),
    Published("CNN only", "UNBC-McMaster", "image", "", "accuracy", 0.78, _IMAGES, True, _VERMA),
    Published("AU + CNN", "UNBC-McMaster", "image", "", "accuracy", 0.91, _IMAGES, True, _VERMA),
    Published("AU + CNN", "UNBC-McMaster", "image", "", "AUC", 0.956, _IMAGES, True, _VERMA),
    Published("AU + CNN", "UNBC-McMaster", "image", "", "pain precision", 0.94, _IMAGES, True, _VERMA),
    Published("AU + CNN", "UNBC-McMaster", "image", "", "pain recall", 0.85, _IMAGES, True, _VERMA),
    Published(
        "ViT", "UNBC-McMaster", "video", "", "F1", 0.55, "pain or not, fold protocol not known", False, "second hand"
    ),
    Published(
        "CNN + RNN, replicated",
        MINTPAIN,
        "video",
        "",
        "accuracy",
        0.391,
        _LEVELS,
        False,
        "second hand",
    ),
)
"""Sorted by data set, part and year."""

_MAJORITY = max(AI4PAIN_VALIDATION.values()) / sum(AI4PAIN_VALIDATION.values())

REMARKS: dict[str, str] = {
    AI4PAIN: f"The validation part has {' / '.join(map(str, AI4PAIN_VALIDATION.values()))} clips of no, low and high "
    f"pain: always predicting “low” or always “high” scores an accuracy of {_MAJORITY:.2f} there (a balanced "
    f"accuracy of {1 / len(AI4PAIN_VALIDATION):.2f}), above every baseline of the organisers. If the hidden test part "
    "has the same class frequencies, LSTM's 0.43 is below that, and the 0.49 of ANN + vote is barely above.",
}
"""Data set -> remark on how to read its rows."""


def published_rows(dataset: str | None = None) -> tuple[Published, ...]:
    """Select all rows, or those of one data set."""
    return tuple(row for row in PUBLISHED if dataset is None or row.dataset == dataset)
