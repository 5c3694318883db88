"""`python -m painseq` is the command `painseq`."""

import sys

from painseq.cli import main

# A file may name any module of painseq as that of a class: importing this one must do nothing.
if __name__ == "__main__":
    sys.exit(main())
