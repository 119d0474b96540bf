"""The discovery room: what there is on the Hub, what of it runs here, and what a download of it would do.

searching.py    a search, narrowed by what the Hub cannot answer
informing.py    one model in full
"""

from mlx_manager.services.discovery.informing import Informer
from mlx_manager.services.discovery.searching import Searcher

__all__ = ["Informer", "Searcher"]
