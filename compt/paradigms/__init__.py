"""Built-in paradigms, registered by entry points like anyone's."""
