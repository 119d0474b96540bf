"""The downloads room: sole owner of live state. Accepts, dedupes, queues, runs, pauses, resumes, cancels, recovers.

manager.py      what may be asked of it
worker.py       the work of one download, and asking.py, its question to the Hub
runs.py         from a ticket to the end of the work
live.py         the downloads that are alive, and who may move them
broadcast.py    what watchers are told, and when
ledger.py       the one thread that reads and writes the rows
recovery.py     what becomes of what the last process left behind
runner.py       the engine of one process: a line and so many at once
resting.py      models whose files are being removed
ticker.py       the heartbeat         story.py   the log
whole.py        threads, which nobody can cancel
"""

from mlx_manager.services.downloads.manager import DownloadManager
from mlx_manager.services.downloads.runner import InProcessRunner

__all__ = ["DownloadManager", "InProcessRunner"]
