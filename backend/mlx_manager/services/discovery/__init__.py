"""The discovery room: what there is on the Hub, what of it runs here, and what a download of it would do.

searching.py    a search, narrowed by what the Hub cannot answer
informing.py    one model in full
planning.py     what a download would do
starting.py     three models to begin with
"""

from mlx_manager.services.discovery.informing import Informer
from mlx_manager.services.discovery.planning import Planner
from mlx_manager.services.discovery.searching import Searcher
from mlx_manager.services.discovery.starting import Starter

__all__ = ["Informer", "Planner", "Searcher", "Starter"]
