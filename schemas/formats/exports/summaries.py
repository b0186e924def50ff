"""Summaries of the exports by name, apart from the code that writes them, so that a help text loads no format."""

SUMMARIES = {
    "verdicts": "one row per episode: success, first frame of it, scores; and the list of those that succeeded",
    "ra-bc": "sarm_progress.parquet, by which LeRobot weighs samples: the score of each frame for its episode's goal",
    "lerobot": "a LeRobot data set with next.reward, next.success and next.done of the labels",
    "lerobot-hindsight": "a LeRobot data set whose tasks are goals that the episodes achieved, by the labels",
    "robomimic": "HDF5 files of robomimic or LIBERO with new rewards, and the filter key mask/vlm_success",
    "minari": "the Minari data set with new rewards; pictures stay as they are",
    "parquet": "the Parquet files with the labels as columns vlm.score, vlm.success, vlm.reward, vlm.goal_id",
    "rlds": "an RLDS data set whose steps/reward are the labels' rewards, byte for byte the same elsewhere",
    "webdataset": "the tars with the labels as members vlm_score.npy, vlm_success.npy and others in each episode's sample",
}
