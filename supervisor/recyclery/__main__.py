"""`python -m recyclery`."""

import sys

from recyclery.cli import main

sys.exit(main())
