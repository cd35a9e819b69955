"""A config as one value a key."""

from typing import Any

VALUE_LIMIT = 500
"""MLflow refuses longer parameter values."""


def flat(tree: Any, prefix: str = "") -> dict[str, str]:
    """`{"task": {"n_test": 5}}` -> `{"task.n_test": "5"}`, values cut to `VALUE_LIMIT` characters."""
    if isinstance(tree, dict) or (isinstance(tree, list) and tree and isinstance(tree[0], dict)):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {k: v for key, value in items for k, v in flat(value, f"{prefix}{key}.").items()}
    return {prefix.rstrip("."): str(tree)[:VALUE_LIMIT]}
