"""Named sets of params, one YAML file each."""
