"""`python -m recyclery.governor`: how PID 1 starts the governor."""

import sys

from recyclery.governor.loop import main

if __name__ == "__main__":
    sys.exit(main())
