"""The main job on a practice site: one command shows a failback and proves its result."""
