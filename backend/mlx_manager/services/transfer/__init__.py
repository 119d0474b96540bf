"""A URL and a hash in, one verified file out.

engine        the loop, one thread a download       connections   who fetches what; the watchdog
gathering     one file's state                      fetch         one range on one connection
source        where a file's bytes come from        answers       judging an answer before a byte is written
part          the .part file                        journal       which of its bytes are durable
stages        locks, hashes, publication            hashing       the hash that follows the front
durable       the thread that waits for the disk    wire          libcurl
repair        which bytes of a wrong file are wrong  publishing    verified files take their place
narrator      the words for the watchers            limits        the numbers
extents       sets of byte ranges                   backoff       when to try again
blob_lock     the cache's lock of one file
trust         whose certificates are believed
xet           the second engine, by Xet             xet_process   hf_xet's own process; xet_child runs there
failover      both engines as one                   outcome       how a transfer's thread ends
"""

from mlx_manager.services.transfer.engine import CurlTransfer
from mlx_manager.services.transfer.failover import FailoverTransfer, Policy
from mlx_manager.services.transfer.journal import durable_bytes
from mlx_manager.services.transfer.limits import TransferLimits
from mlx_manager.services.transfer.sharing import Caps, ConnectionPool
from mlx_manager.services.transfer.trust import asks_the_system, ca_bundle
from mlx_manager.services.transfer.wire import WireOptions
from mlx_manager.services.transfer.xet import XetOptions, XetTransfer
from mlx_manager.services.transfer.xet_process import sweep as sweep_xet

__all__ = [
    "Caps",
    "ConnectionPool",
    "CurlTransfer",
    "FailoverTransfer",
    "Policy",
    "TransferLimits",
    "WireOptions",
    "XetOptions",
    "XetTransfer",
    "asks_the_system",
    "ca_bundle",
    "durable_bytes",
    "sweep_xet",
]
