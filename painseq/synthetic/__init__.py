"""Generate pain faces with known action units, in the layouts of real data sets.

They test the software on videos with known truth. They allow no conclusions about patients.
"""

from __future__ import annotations

from painseq.synthetic.ai4pain import AI4PainPlan, write_ai4pain
from painseq.synthetic.biovid import BioVidPlan, write_biovid, write_biovid_frames
from painseq.synthetic.folder import FolderPlan, write_folder
from painseq.synthetic.mintpain import MIntPAINPlan, write_mintpain
from painseq.synthetic.unbc import UNBCPlan, write_unbc
from painseq.synthetic.xite import XITEPlan, write_xite

__all__ = [
    "AI4PainPlan",
    "BioVidPlan",
    "FolderPlan",
    "MIntPAINPlan",
    "UNBCPlan",
    "XITEPlan",
    "write_ai4pain",
    "write_biovid",
    "write_biovid_frames",
    "write_folder",
    "write_mintpain",
    "write_unbc",
    "write_xite",
]
