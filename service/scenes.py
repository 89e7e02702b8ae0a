"""Scenes that a client may come back to by token, without sending the photo again.

The token is drawn at random and says nothing of the photo: whoever does not hold it cannot ask for the scene, not even
with the same photo in hand. It lives for a short while after its last use, in the gateway's byte-bounded cache; memory
may run out sooner, so that a client must be ready to send the photo again.
"""

import secrets
from typing import Final

from service.cache import ByteCache
from service.errors import UnknownScene
from service.pipeline import TOKENS, FocusScene

_TOKEN_BYTES: Final = 24


class Scenes:
    """Prepared scenes by token.

    Args:
        cache: holds them.
        max_age_s: how long a token lives after its last use.
    """

    def __init__(self, cache: ByteCache, max_age_s: float) -> None:
        self._cache = cache
        self._max_age_s = max_age_s

    def keep(self, scene: FocusScene, token: str | None = None) -> str | None:
        """A token under which `scene` can be had from now on; None when the cache has no room for it."""
        token = token or secrets.token_urlsafe(_TOKEN_BYTES)
        kept = self._cache.put(TOKENS, token, scene, scene.scene.nbytes, max_age_s=self._max_age_s)
        return token if kept else None

    def find(self, token: str) -> FocusScene:
        """The scene under `token`, whose life begins anew.

        Raises:
            UnknownScene: never given out, or gone.
        """
        scene: FocusScene | None = self._cache.get(TOKENS, token)
        if scene is None:
            raise UnknownScene(
                "There is no such scene, or no longer: they are kept for a short while only. Send the photo again.",
                field="scene",
            )
        self.keep(scene, token)
        return scene
