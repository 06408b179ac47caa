"""How long answers have been: the guess for calls that state no maximum of their own."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict, deque

#: Of an answer of which nothing is known yet, and the least that is ever guessed.
FLOOR_TOKENS = 256
_SHARE = 0.99
_LAST = 200
_MOST_PAIRS = 4096


class Answers:
    """The lengths of the last 200 answers of each caller and model that this process has seen, tokens."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, str], deque[int]] = OrderedDict()

    def likely(self, caller: str, model: str) -> int:
        """What 99 % of them had at most, `FLOOR_TOKENS` at least."""
        with self._lock:
            lengths = sorted(self._known.get((caller, model), ()))
        if not lengths:
            return FLOOR_TOKENS
        return max(FLOOR_TOKENS, lengths[math.ceil(_SHARE * len(lengths)) - 1])

    def learn(self, caller: str, model: str, tokens: int) -> None:
        """Note one; of more than 4,096 pairs, those are forgotten that were used longest ago."""
        with self._lock:
            lengths = self._known.setdefault((caller, model), deque(maxlen=_LAST))
            self._known.move_to_end((caller, model))
            lengths.append(tokens)
            if len(self._known) > _MOST_PAIRS:
                self._known.popitem(last=False)
