"""Built-in trackers, registered by entry points like anyone's."""
