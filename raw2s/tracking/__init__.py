"""Trackers: where a run's settings, curves and scores are logged beside its own folder. A file each: `mlflow`, `wandb`."""

from raw2s.tracking.tracker import Ended, Status, Tracker
from raw2s.tracking.tracking import TRACKERS, Tracking, tracked_run

__all__ = ["TRACKERS", "Ended", "Status", "Tracker", "Tracking", "tracked_run"]
