"""A worker process on this machine: Beam's own, which tells its whole life on the screen, with errors alone there.

python -m vlm_rewards.pipelines.engine.worker, as `pipelines.engine.driver` starts it
"""

import logging
import sys


def main() -> None:
    """Works until the runner ends."""
    screen = logging.StreamHandler()
    screen.setLevel(logging.ERROR)
    logging.getLogger().addHandler(screen)  # before Beam is imported, which otherwise makes one that shows everything
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
