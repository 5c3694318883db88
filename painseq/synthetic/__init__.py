"""Generated pain faces with known action units, written in the layouts of real data sets.

They prove that the machinery works on videos whose truth is known. They say nothing about patients.
"""

from __future__ import annotations

from painseq.synthetic.datasets import AI4PainPlan, BioVidPlan, is_generated, write_ai4pain, write_biovid

__all__ = ["AI4PainPlan", "BioVidPlan", "is_generated", "write_ai4pain", "write_biovid"]
