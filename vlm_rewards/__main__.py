"""python -m vlm_rewards: the command line."""

import sys

from vlm_rewards.cli import main

if __name__ == "__main__":
    sys.exit(main())
