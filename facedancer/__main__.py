"""`python -m facedancer <verb>`, for when the console script is not on the path."""

import sys

from facedancer.cli import main

if __name__ == "__main__":
    sys.exit(main())
