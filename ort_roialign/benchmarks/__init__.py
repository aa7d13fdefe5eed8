"""The command `ort-roialign bench`: RoIAlign and its peers, timed side by side in one process."""
