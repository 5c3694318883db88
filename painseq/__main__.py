"""`python -m painseq` is the command `painseq`."""

import sys

from painseq.cli import main

sys.exit(main())
