"""Train the chain that ``mim train compt CONFIG`` names."""

import sys

from compt.cli import train_main

if __name__ == "__main__":
    sys.exit(train_main())
