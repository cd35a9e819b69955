"""From a newcomer's files to a first config: what the columns are, and a commented YAML file."""
