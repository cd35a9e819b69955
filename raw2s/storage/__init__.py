"""Where results lie: a folder, or a URI of a store that is not a disk (`uri`), its files (`files`), and a node's copies (`copies`)."""

from raw2s.storage.uri import ARTIFACTS, Place, Uri, place

__all__ = ["ARTIFACTS", "Place", "Uri", "place"]
