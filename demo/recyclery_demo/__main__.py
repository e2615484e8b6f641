"""`python -m recyclery_demo`: the demo without the rest of the command line."""

import argparse
import sys

from recyclery_demo import add_arguments, main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="recyclery demo")
    add_arguments(parser)
    sys.exit(main(parser.parse_args()))
