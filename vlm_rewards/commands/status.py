"""`vlm-rewards status`: says how a run is doing that is at work, broken or finished."""

import argparse
import json
import time

from vlm_rewards.command_line.options import path_or_url
from vlm_rewards.command_line.words import Said


def add_options(parser: argparse.ArgumentParser) -> None:
    """Gives the options of `status` to its parser."""
    parser.add_argument(
        "output", type=path_or_url, metavar="OUTPUT", help="output of record, label or hindsight, a folder or a URL"
    )
    parser.add_argument("--watch", action="store_true", help="say it again every 10 s, as long as the run is at work")
    parser.add_argument("--json", action="store_true", help="print one JSON object per line instead")


def run(options: argparse.Namespace) -> Said:
    """Runs `status` as its options say."""
    from vlm_rewards.pipelines.engine.status import RunStatus, StatusReader

    def lines(status: RunStatus) -> list[str]:
        return [json.dumps(status.to_json(), ensure_ascii=False)] if options.json else status.lines()

    reader = StatusReader(options.output)
    status = reader.read()
    while options.watch and status.state == "running":
        for line in lines(status):
            print(line, flush=True)
        time.sleep(INTERVAL_S)
        status = reader.read()
    return lines(status), []


INTERVAL_S = 10.0
"""Seconds between two looks of --watch."""
