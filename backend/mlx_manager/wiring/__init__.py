"""Settings in, started services out: the one place that knows everybody, and introduces the rooms to one another.

core.py        everything below the API, started and stopped as one
transfers.py   how the bytes of a download are fetched
discovery.py   what there is to find, and whether it runs here
foresight.py   what a process came for is asked of the Hub before anybody needs it
hub_watch.py   whether the Hub answers
"""

from mlx_manager.wiring.core import About, Core
from mlx_manager.wiring.hub_watch import HubWatch

__all__ = ["About", "Core", "HubWatch"]
