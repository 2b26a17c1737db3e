"""`python -m dsmt.simulator`: see `dsmt.simulator.command`."""

import sys

from dsmt.simulator.command import main

if __name__ == "__main__":
    sys.exit(main())
