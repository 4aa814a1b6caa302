"""From the workstation to a device over ssh: copy, check, install, measure, and only then switch over."""
