"""The discovery room: what there is on the Hub, what of it runs here, and what a download of it would do.

searching.py    a search, narrowed by what the Hub cannot answer
"""

from mlx_manager.services.discovery.searching import Searcher

__all__ = ["Searcher"]
