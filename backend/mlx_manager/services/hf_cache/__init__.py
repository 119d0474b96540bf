"""The standard Hugging Face cache, laid out as huggingface_hub 2.4 does, so that every other tool finds our models.

    <cache>/models--org--name/
        blobs/<etag>                      the content: SHA-256 of LFS and Xet files, git's SHA-1 of others
        blobs/<etag>.part[.journal]       ours, while it is fetched
        snapshots/<commit>/<path>         → ../../blobs/<etag>
        refs/<revision>                   the commit that it stood for
        trees/<commit>.json               all files of the commit: tells the library offline what is complete
    <cache>/.locks/models--org--name/<etag>.lock
    <cache>/blobs/                        contents shared by models, that the library itself keeps for Xet files

Where a disk knows no symbolic links the content lies in `snapshots/` itself.
"""

from __future__ import annotations

from mlx_manager.services.hf_cache.cache import HfCache

__all__ = ["HfCache"]
