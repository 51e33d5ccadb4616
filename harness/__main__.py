"""`python -m harness`: the command, where its script is not on the path.

In: argv. Out: an exit status.
"""

import sys

from harness.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
