"""`python -m tension_utils`: the command line."""

import sys

from tension_utils.command import main

if __name__ == "__main__":
    sys.exit(main())
