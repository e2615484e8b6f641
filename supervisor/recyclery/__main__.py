"""`python -m recyclery`."""

import sys

from recyclery.cli.parser import main

sys.exit(main())
