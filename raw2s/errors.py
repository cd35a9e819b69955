"""The errors a user meets: each message is one sentence on what is wrong and one on what to do."""


class ConfigError(Exception):
    """A mistake in the config: names the key. Raised before anything starts."""


class StageFailed(Exception):
    """A stage did not finish: names it and its cause. What was finished before is kept."""
