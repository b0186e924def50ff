"""The commands: one file each, with `add_options(parser)` and `run(options)`; a command is that file and one line here."""

SUMMARIES = {
    "record": "record trajectories of a domain with ground truth for every goal",
    "inspect": "say what a folder is: format, episodes, cameras, instructions, what cannot be read, and the next command",
    "label": "label every frame of a corpus for many goals",
    "status": "say how a run of record, label or hindsight is doing: units, speed, failures, time left",
    "hindsight": "relabel trajectories with the goals they did achieve",
    "calibrate": "choose the temperature and one threshold per goal from labels and truth",
    "evaluate": "measure labels against ground truth and write a report",
    "diff": "compare two folders of labels: what changed, and what it does to quality",
    "export": "take labels back into the tools that a corpus came from",
    "train": "train an agent offline on relabelled trajectories",
    "finetune": "fine-tune an agent in a live environment that the same model rewards",
    "rollout": "play an agent on held-out levels: success with intervals, and videos",
    "pretrain": "train a small reference model",
    "demo": "run all steps once, on fresh trajectories",
}
"""By name, what each command does, in the order of the help."""
