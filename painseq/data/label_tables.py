"""The label schemes of the known data sets, as data.

To add a scheme, add a row; to add a data set, add its native labels and its rows. An entry is a label, or a range of
numbers: "1..3" is 1 to 3, both included; ">0..3" is 0 to 3, but not 0 itself.
"""

from __future__ import annotations

from collections.abc import Mapping

NATIVE: Mapping[str, tuple[str, ...]] = {
    "biovid": ("BL1", "PA1", "PA2", "PA3", "PA4"),
    "ai4pain": ("No_Pain", "Low_Pain", "High_Pain"),
    "unbc": ("0..16",),
    "mintpain": ("0", "1", "2", "3", "4"),
    "xite": ("0", "1", "2", "3", "4", "5", "6", "-1", "-2", "-3", "-4", "-5", "-6"),
}
"""All labels that a data set uses, in order of pain."""

SCALES: Mapping[str, str] = {"vas": "0..10", "opr": "0..5", "aff": "0..15", "sen": "0..15"}
"""Ratings of whole sequences (UNBC): schemes whose name begins so are for them."""

VALUES: Mapping[str, Mapping[str, str]] = {"unbc": {"pspi": "0..16", **SCALES}}
"""data set -> scheme -> the range of its numbers, for regression: the label itself is what a model is to say."""

SCHEMES: Mapping[str, Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "biovid": {
        "binary": {"no_pain": ("BL1",), "high_pain": ("PA4",)},
        "three": {"no_pain": ("BL1",), "low_pain": ("PA1",), "high_pain": ("PA4",)},
        "five": {
            "no_pain": ("BL1",),
            "mild_pain": ("PA1",),
            "moderate_pain": ("PA2",),
            "severe_pain": ("PA3",),
            "extreme_pain": ("PA4",),
        },
        "BL1_PA1": {"no_pain": ("BL1",), "mild_pain": ("PA1",)},
        "BL1_PA2": {"no_pain": ("BL1",), "moderate_pain": ("PA2",)},
        "BL1_PA3": {"no_pain": ("BL1",), "severe_pain": ("PA3",)},
        "BL1_PA4": {"no_pain": ("BL1",), "extreme_pain": ("PA4",)},
    },
    "ai4pain": {
        "binary": {"no_pain": ("No_Pain",), "high_pain": ("High_Pain",)},
        "three": {"no_pain": ("No_Pain",), "low_pain": ("Low_Pain",), "high_pain": ("High_Pain",)},
    },
    # PSPI, from 0 to 16; below them the ratings of whole sequences.
    "unbc": {
        "binary": {"no_pain": ("0",), "high_pain": (">0..16",)},
        "three": {"no_pain": ("0",), "low_pain": (">0..2",), "high_pain": (">2..16",)},
        "four": {
            "no_pain": ("0",),
            "mild_pain": (">0..2",),
            "moderate_pain": (">2..4",),
            "severe_pain": (">4..16",),
        },
        "vas_binary": {"no_pain": ("0",), "high_pain": (">0..10",)},
        "vas_three": {"no_pain": ("0",), "low_pain": (">0..5",), "high_pain": (">5..10",)},
        "vas_four": {
            "no_pain": ("0",),
            "mild_pain": (">0..3",),
            "moderate_pain": (">3..6",),
            "severe_pain": (">6..10",),
        },
        "opr_binary": {"no_pain": ("0",), "high_pain": (">0..5",)},
        "opr_three": {"no_pain": ("0",), "low_pain": (">0..2",), "high_pain": (">2..5",)},
        "aff_binary": {"no_pain": ("0",), "high_pain": (">0..15",)},
        "aff_three": {"no_pain": ("0",), "low_pain": (">0..7",), "high_pain": (">7..15",)},
        "sen_binary": {"no_pain": ("0",), "high_pain": (">0..15",)},
        "sen_three": {"no_pain": ("0",), "low_pain": (">0..7",), "high_pain": (">7..15",)},
    },
    "mintpain": {
        "binary": {"no_pain": ("0",), "high_pain": ("4",)},
        "three": {"no_pain": ("0",), "low_pain": ("1",), "high_pain": ("4",)},
        "five": {
            "no_pain": ("0",),
            "mild_pain": ("1",),
            "moderate_pain": ("2",),
            "severe_pain": ("3",),
            "extreme_pain": ("4",),
        },
    },
    # Phasic heat is 1 to 3, phasic electrical pain -1 to -3; tonic the same from 4 to 6. Without a stimulus in its name
    # a scheme takes both kinds of phasic pain.
    "xite": {
        "binary": {"no_pain": ("0",), "high_pain": ("3", "-3")},
        "three": {"no_pain": ("0",), "low_pain": ("1", "-1"), "high_pain": ("3", "-3")},
        "four": {
            "no_pain": ("0",),
            "mild_pain": ("1", "-1"),
            "moderate_pain": ("2", "-2"),
            "severe_pain": ("3", "-3"),
        },
        "heat_binary": {"no_pain": ("0",), "high_pain": ("3",)},
        "heat_three": {"no_pain": ("0",), "low_pain": ("1",), "high_pain": ("3",)},
        "heat_four": {"no_pain": ("0",), "mild_pain": ("1",), "moderate_pain": ("2",), "severe_pain": ("3",)},
        "electrical_binary": {"no_pain": ("0",), "high_pain": ("-3",)},
        "electrical_three": {"no_pain": ("0",), "low_pain": ("-1",), "high_pain": ("-3",)},
        "electrical_four": {"no_pain": ("0",), "mild_pain": ("-1",), "moderate_pain": ("-2",), "severe_pain": ("-3",)},
        "tonic_heat_binary": {"no_pain": ("0",), "high_pain": ("6",)},
        "tonic_heat_four": {"no_pain": ("0",), "mild_pain": ("4",), "moderate_pain": ("5",), "severe_pain": ("6",)},
        "tonic_electrical_binary": {"no_pain": ("0",), "high_pain": ("-6",)},
        "tonic_electrical_four": {
            "no_pain": ("0",),
            "mild_pain": ("-4",),
            "moderate_pain": ("-5",),
            "severe_pain": ("-6",),
        },
    },
}
"""data set -> scheme -> class -> native labels. Native labels that a scheme leaves out leave the experiment."""
