"""HTTP to the Hub that always ends: deadlines, one's own proxies, and causes with their names.

huggingface_hub sets no time limit on most of its calls, tries again on its own for as long as it likes, and tells of a
failure in the words of a socket. This package is the network that it is given in place of its own:

- `question.py`: one question, its thread, its time, and how it is given up;
- `network.py`: sockets that look at the question's clock at every read and write;
- `transport.py`: requests over those sockets; what passes by itself becomes an error here, so that the library above
  has nothing left to try again; the token stays with the Hub's own host;
- `proxies.py`: the proxies of the environment;
- `choice.py`: which of them a URL goes through, for those who fetch with something else.

Nothing here knows huggingface_hub; `hf_asking.py` brings the two together.
"""

from __future__ import annotations

from mlx_manager.services.hf_transport.choice import ProxyChoice
from mlx_manager.services.hf_transport.question import Question, origin_of
from mlx_manager.services.hf_transport.transport import bounded_client, trusted

__all__ = ["ProxyChoice", "Question", "bounded_client", "origin_of", "trusted"]
